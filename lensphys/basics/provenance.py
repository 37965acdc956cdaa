"""Where a file came from: versions, commit and hardware."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from lensphys.basics.version import PACKAGE, VERSION

# rooms and files that the result of super-resolving depends on
SUPER_RESOLVING = (
    *("basics", "data", "fits", "fitting", "methods", "model", "networks", "observation", "prediction.py", "tracing"),
)
_PACKAGES = ("torch", "numpy", "lenstronomy", "astropy", "h5py")


def _installed() -> dict[str, str]:
    """The versions of those packages that are there; an extra need not be."""
    found = {}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def versions() -> dict[str, str]:
    """Return the versions of lensphys and of the packages its results depend on, where they are installed."""
    return {"lensphys": VERSION, "python": platform.python_version()} | _installed()


def commit() -> str | None:
    """Return the git commit of the checkout that lensphys runs from (``-dirty`` if changed), or None outside of one."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=PACKAGE, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # an installed copy may lie within somebody else's checkout
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return None


@cache
def source_hash(*parts: str) -> str:
    """Return a hash of the source code of some rooms or files of the package, by their paths in it."""
    found = [PACKAGE / part for part in parts]
    files = [file for path in found for file in ([path] if path.suffix else sorted(path.rglob("*.py")))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def hardware() -> str:
    """Return a line that names the processor, the cores in use and the GPU if there is one."""
    import torch

    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{platform.machine()}, {torch.get_num_threads()} threads{gpu}"


def provenance(**extra: Any) -> dict[str, Any]:
    """Return what every result file carries: versions, commit, hardware, and the caller's own entries."""
    return {"versions": versions(), "commit": commit(), "hardware": hardware(), **extra}
