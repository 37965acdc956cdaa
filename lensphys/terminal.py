"""Where progress is shown."""

from __future__ import annotations

import sys

from rich.console import Console


def progress_console() -> Console:
    """Return the console of progress bars: standard error, alive on a terminal alone.

    In notebooks rich would ask for widgets, or write a line for every step.
    """
    return Console(stderr=True, force_jupyter=False, force_terminal=sys.stderr.isatty())
