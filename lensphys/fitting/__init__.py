"""Fits of sources and lenses: batched least squares in bounded parameters with priors."""

from lensphys.fitting.fields import FieldPriors
from lensphys.fitting.lens import LensFit, einstein_radius, fit_lens
from lensphys.fitting.levenberg import LeastSquaresFit, forward_mode, gauss_newton_step, levenberg_marquardt
from lensphys.fitting.problem import LensModel, LensProblem, LensState
from lensphys.fitting.refine import Refinement
from lensphys.fitting.sersic import (
    joint_through_lens,
    sersic_brightest_pixel,
    sersic_least_squares,
    sersic_moments,
    sersic_through_lens,
)
from lensphys.fitting.subhalos import Search
from lensphys.model.parameter import Parameter, ParameterSpace

__all__ = [
    "FieldPriors",
    "LeastSquaresFit",
    "LensFit",
    "LensModel",
    "LensProblem",
    "LensState",
    "Parameter",
    "ParameterSpace",
    "Refinement",
    "Search",
    "einstein_radius",
    "fit_lens",
    "forward_mode",
    "gauss_newton_step",
    "joint_through_lens",
    "levenberg_marquardt",
    "sersic_brightest_pixel",
    "sersic_least_squares",
    "sersic_moments",
    "sersic_through_lens",
]
