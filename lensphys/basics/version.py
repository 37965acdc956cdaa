"""Which lensphys this is, and where it lies."""

from pathlib import Path

VERSION = "0.5.0"
PACKAGE = Path(__file__).parents[1]
