"""Where progress is shown."""

from __future__ import annotations

import sys

from rich.console import Console


def progress_console(*, quiet: bool = False) -> Console:
    """Return the console of progress bars: standard error, alive on a terminal alone; ``quiet`` for none.

    In notebooks rich would ask for widgets, or write a line for every step.
    """
    return Console(stderr=True, quiet=quiet, force_jupyter=False, force_terminal=sys.stderr.isatty())
