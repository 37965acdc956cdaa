"""The command line: each command reads its arguments and calls the library."""

from __future__ import annotations

import os
import warnings

from lensphys.cli import (  # noqa: F401 - importing them is what adds their commands
    comparing,
    data_sets,
    doctoring,
    exporting,
    learning,
    listing,
    reading,
    showing,
    super_resolve,
)
from lensphys.cli.base import app

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line."""
    # Threads that spin while they wait make a busy machine ten times slower; this must be said before torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    warnings.simplefilter("ignore", FutureWarning)  # of packages: nothing that their user's user can act on
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler, which measures memory, says what it does
    app()
