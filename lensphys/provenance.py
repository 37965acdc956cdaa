"""Where a file came from: versions, commit and hardware; and writing files whole or not at all."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lensphys
from lensphys.checks import LensphysError

_PACKAGES = ("torch", "numpy", "lenstronomy", "astropy", "h5py")


def versions() -> dict[str, str]:
    """Return the versions of lensphys and of the packages its results depend on."""
    return {"lensphys": lensphys.__version__, "python": platform.python_version()} | {p: version(p) for p in _PACKAGES}


def commit() -> str | None:
    """Return the git commit of the checkout that lensphys runs from (``-dirty`` if changed), or None outside of one."""
    here = Path(__file__)

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=here.parent, capture_output=True, text=True, timeout=10, check=True
        )
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)  # an installed copy may lie within somebody else's checkout
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def hardware() -> str:
    """Return a line that names the processor, the cores in use and the GPU if there is one."""
    import torch

    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{platform.machine()}, {torch.get_num_threads()} threads{gpu}"


def provenance(**extra: Any) -> dict[str, Any]:
    """Return what every result file carries: versions, commit, hardware, and the caller's own entries."""
    return {"versions": versions(), "commit": commit(), "hardware": hardware(), **extra}


def check_writable(folder: Path) -> None:
    """Make a folder and raise unless files can be written into it: to be called before a long computation.

    Raises:
        LensphysError: with the reason.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise LensphysError(f"cannot write into {folder}: {error.strerror or error}") from None


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its place only if the block succeeds.

    Raises:
        LensphysError: if the folder cannot be written.
    """
    # no process id: on a disk that machines share, two of them may have the same
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
    except OSError as error:
        raise LensphysError(f"cannot write {path}: {error.strerror or error}") from None
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise LensphysError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, tree: Any) -> None:
    """Write ``tree`` as indented JSON, whole or not at all (NaN and infinity become null)."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(_plain(tree), indent=1, allow_nan=False) + "\n")


def _plain(x: Any) -> Any:
    if isinstance(x, dict):
        return {str(k): _plain(v) for k, v in x.items()}
    if isinstance(x, list | tuple):
        return [_plain(v) for v in x]
    if hasattr(x, "tolist"):
        return _plain(x.tolist())
    if isinstance(x, float) and not abs(x) < float("inf"):
        return None
    return x
