"""Lens images in files."""

from lensphys.data.lens_file import LensFile

__all__ = ["LensFile"]
