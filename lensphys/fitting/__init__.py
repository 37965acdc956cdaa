"""Conditioning lens models on images: starts, a joint solver, evidence, sub-halos, posterior and verdict."""

from lensphys.fitting.beyond_smooth import BeyondSmooth
from lensphys.fitting.bodies import Bodies, PointBodies, TNFWBodies
from lensphys.fitting.evidence import evidence
from lensphys.fitting.fit_model import FitModel
from lensphys.fitting.freer_mass import FreerMass
from lensphys.fitting.lens_light import LensLightSettings
from lensphys.fitting.newton import Normal, Optimum, Stop, gauss_newton_step, minimised
from lensphys.fitting.parametrised import FreeField, Lens, PotentialCorrection
from lensphys.fitting.posterior import Posterior
from lensphys.fitting.potential import FieldPriors
from lensphys.fitting.problem import LensProblem
from lensphys.fitting.psf_moments import PSFMoments
from lensphys.fitting.sersic import (
    joint_through_lens,
    sersic_brightest_pixel,
    sersic_least_squares,
    sersic_moments,
    sersic_through_lens,
)
from lensphys.fitting.smooth import SmoothFit
from lensphys.fitting.source import Fitted, FreeSourceSettings, Rival, freed
from lensphys.fitting.stages import LensFit, Refinement, fit_lens
from lensphys.fitting.subhalos import Search
from lensphys.fitting.verdict import VerdictSettings, verdicts

__all__ = [
    "BeyondSmooth",
    "Bodies",
    "FieldPriors",
    "FitModel",
    "Fitted",
    "FreeField",
    "FreeSourceSettings",
    "FreerMass",
    "Lens",
    "LensFit",
    "LensLightSettings",
    "LensProblem",
    "Normal",
    "Optimum",
    "PSFMoments",
    "PointBodies",
    "Posterior",
    "PotentialCorrection",
    "Refinement",
    "Rival",
    "Search",
    "SmoothFit",
    "Stop",
    "TNFWBodies",
    "VerdictSettings",
    "evidence",
    "fit_lens",
    "freed",
    "gauss_newton_step",
    "joint_through_lens",
    "minimised",
    "sersic_brightest_pixel",
    "sersic_least_squares",
    "sersic_moments",
    "sersic_through_lens",
    "verdicts",
]
