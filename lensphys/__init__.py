"""Differentiable, physics-informed super-resolution of strong gravitational lenses.

Sub-modules are imported where they are used, so that ``import lensphys`` costs nothing:
start from :mod:`lensphys.grid`, :mod:`lensphys.model`, :mod:`lensphys.tracing`, :mod:`lensphys.observation`
and :mod:`lensphys.methods`, or from the command line (``lensphys --help``).
"""

__version__ = "0.2.0"
