"""``python -m lensphys``: the command line."""

from lensphys.cli import main

main()
