"""Fits of sources and lenses: batched least squares in bounded parameters with priors."""

from lensphys.fitting.lens import LensFit, einstein_radius, fit_lens
from lensphys.fitting.levenberg import LeastSquaresFit, gauss_newton_step, levenberg_marquardt
from lensphys.fitting.parameters import Parameter, ParameterSpace
from lensphys.fitting.sersic import (
    joint_through_lens,
    sersic_brightest_pixel,
    sersic_least_squares,
    sersic_moments,
    sersic_through_lens,
)

__all__ = [
    "LeastSquaresFit",
    "LensFit",
    "Parameter",
    "ParameterSpace",
    "einstein_radius",
    "fit_lens",
    "gauss_newton_step",
    "joint_through_lens",
    "levenberg_marquardt",
    "sersic_brightest_pixel",
    "sersic_least_squares",
    "sersic_moments",
    "sersic_through_lens",
]
