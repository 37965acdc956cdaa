"""Lens images in files (floor 5)."""

from lensphys.data.lens_file import LensFile

__all__ = ["LensFile"]
