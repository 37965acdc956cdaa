"""Where progress is shown."""

from __future__ import annotations

from rich.console import Console


def progress_console() -> Console:
    """Return the console of progress bars: standard error, in notebooks too, where rich would ask for widgets."""
    return Console(stderr=True, force_jupyter=False)
