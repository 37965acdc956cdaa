"""Files on object storage and other servers, by their addresses: copied to this machine, and again when they change."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path, PurePosixPath
from typing import Any

from lensphys.basics.checks import LensphysError, shortened
from lensphys.basics.lock import sole_run
from lensphys.basics.terminal import tracked

CACHE = "LENSPHYS_CACHE"  # environment variable: the folder for copies


def copies() -> Path:
    """Return the folder for copies of remote files: ``$LENSPHYS_CACHE``, or one in the user's cache."""
    if CACHE in os.environ:
        return Path(os.environ[CACHE])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lensphys"


def local(place: str | Path, *, patience: float = 3600.0) -> Path:
    """Return where a file or a folder lies on this machine.

    Args:
        place: a path, which stays as it is, or an address that fsspec knows: ``s3://bucket/set.h5``, ``gs://``,
            ``https://``. Of a folder all files are copied; one that is unchanged is not copied again.
        patience: how long to wait for another process that copies the same [s].

    Raises:
        LensphysError: if nothing is known of such addresses, or the server does not answer or has no such file.
    """
    address = str(place)
    if "://" not in address:
        return Path(place)
    home = copies() / hashlib.sha256(address.encode()).hexdigest()[:16]
    try:
        home.mkdir(parents=True, exist_ok=True)
        with sole_run(home, patience=patience):
            return _copied(address, home)
    except LensphysError:
        raise
    except ImportError as error:
        raise LensphysError(f"{address}: {shortened(str(error))}") from None
    except FileNotFoundError:
        raise LensphysError(f"{address} not found: there is no such file or folder, or it may not be read") from None
    except Exception as error:  # servers fail in any way
        raise LensphysError(f"{address} cannot be copied to {home}: {shortened(str(error))}") from None


def _copied(address: str, home: Path) -> Path:
    from fsspec.core import url_to_fs

    server, root = url_to_fs(address)
    folder = server.isdir(root)
    files = server.find(root) if folder else [root]
    if not files:
        raise FileNotFoundError(root)
    for path in tracked(files, f"copying {address}"):
        within = PurePosixPath(path).relative_to(root).parent if folder else PurePosixPath()
        _copy(server, path, home / within)
    return home if folder else home / PurePosixPath(root).name


def _copy(server: Any, path: str, folder: Path) -> None:
    """Copy a file of a server into a folder, unless it is there and unchanged."""
    from fsspec.implementations.cached import WholeFileCacheFileSystem

    cache = WholeFileCacheFileSystem(
        fs=server, cache_storage=str(folder), check_files=True, expiry_time=False, same_names=True
    )
    cache.open(path, "rb").close()
