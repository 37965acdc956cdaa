"""Real galaxies on the PSF of one's choice: the free source behind its lens, and a deconvolution where that fails."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import ClassVar, Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from lensphys.basics.settings import Strict
from lensphys.fitting.remains import significant
from lensphys.methods.fit import RefinedFit, one_by_one
from lensphys.methods.interpolation import Interpolation
from lensphys.methods.lens_model import full_prediction
from lensphys.methods.richardson_lucy import RichardsonLucy
from lensphys.observation import Observation, block_sum
from lensphys.prediction import Prediction
from lensphys.tracing.derivatives import weighted_slopes


class Restoration(Strict):
    """The fitted lens, and an image that assumes none, weighed by how well the lens explains the data.

    The share of the lens is 1 / chi^2 per degree of freedom, at most 1. The rest is bicubic interpolation, or where
    another PSF is asked for Richardson-Lucy towards it, with as many iterations as the noise allows; there the lens
    model too is sharpened towards the image by Richardson-Lucy steps that start from it and keep what it knows.

    Args:
        fit: of the lens and its source.
        iterations: of Richardson-Lucy, at most: a half, a fifth or a fourteenth of them where more fit the noise.
        poor: sigma of chi^2 above its expectation, where the lens model needs the sharpening.
        overfitted: chi^2 per pixel below which a deconvolution explains noise: fewer iterations do.
        pedestal: added to the image [mean sigma]: noise is not positive, but the algorithm wants positive images.
        points: along the side of a super-resolved pixel, of the lens model: the cores of real sources are steep.

    Source: Richardson (1972), Lucy (1974).
    """

    by_itself: ClassVar[bool] = True
    name: Literal["restore"] = "restore"
    fit: RefinedFit = RefinedFit()
    iterations: PositiveInt = 140
    poor: PositiveFloat = 3.0
    overfitted: PositiveFloat = 0.7
    pedestal: PositiveFloat = 2.0
    points: PositiveInt = 4

    def predict(self, observation: Observation, scale: int) -> Prediction:
        """Return the restored images on the target PSF, with the lens that was fitted on the way."""

        def one(part: Observation) -> Prediction:
            """Return the restored images of a chunk."""
            lens = full_prediction(self.fit.refinement(self.fit.problem(part)), scale, self.fit.report)
            chi2 = lens.reduced_chi2(part) if part.noise.known else torch.ones_like(part.peak)
            share = (1 / chi2.clamp(min=1)).nan_to_num(0.0)[:, None, None, None]
            if bool((share > 0.99).all()):
                return lens
            plain = self._plain(part, scale)
            mine, observed = (
                (lens.image, lens.observed) if part.camera.target_psf is None else self._sharpened(lens, part)
            )
            image = share * mine + (1 - share) * plain.image
            return replace(lens, image=image, observed=share * observed + (1 - share) * plain.observed)

        with torch.no_grad():
            return one_by_one(observation, one)

    def _sharpened(self, lens: Prediction, observation: Observation) -> tuple[Tensor, Tensor]:
        """Return what Richardson-Lucy makes of the lens model, on the target PSF, and that on the image's pixels."""
        target, camera = lens.camera, observation.camera
        if lens.source is None or lens.deflection is None or lens.deflection.formula is None:
            return lens.image, lens.observed
        fine = target.grid.resampled(self.points)
        theta = fine.positions(like=observation.image)
        light = lens.source(theta - lens.deflection.formula(theta))
        image = block_sum(light * fine.pixel_area, target.grid).clamp(min=0)
        variance, weight = observation.noise.variance(observation.smoothed), observation.weight
        pedestal = self.pedestal * variance.mean((1, 2, 3), keepdim=True).sqrt()
        seen = (observation.image + pedestal).clamp(min=1e-3 * pedestal) * weight
        adjoint = partial(weighted_slopes, camera.expose, image)
        everywhere = adjoint(weight).clamp(min=1e-6)
        chi2 = lens.reduced_chi2(observation)
        unexplained = significant(chi2, observation.n_unmasked, self.poor)
        small = pedestal * (target.grid.pixel_area / camera.grid.pixel_area)
        image = image + small
        for _ in range(self.iterations):
            expected = camera.expose(image)
            left = ((seen - expected * weight).square() / variance).sum((1, 2, 3)) / observation.n_unmasked
            going = (unexplained & (left > self.overfitted))[:, None, None, None]
            ratio = seen / torch.maximum(expected, 1e-6 * pedestal)
            image = torch.where(going, image * adjoint(ratio) / everywhere, image)
        image = image - small
        return target.psf.blur(image, target.grid.scale), camera.expose(image)

    def _plain(self, observation: Observation, scale: int) -> Prediction:
        """Return what needs no lens: interpolation, or where another PSF is asked for Richardson-Lucy."""
        if observation.camera.target_psf is None:
            return Interpolation(name="bicubic").predict(observation, scale)
        best = RichardsonLucy(iterations=max(1, self.iterations // 14)).predict(observation, scale)
        for share in (5, 2, 1):
            more = RichardsonLucy(iterations=max(1, self.iterations // share)).predict(observation, scale)
            fits = (observation.chi2(more.observed) / observation.n_unmasked > self.overfitted)[:, None, None, None]
            image = torch.where(fits, more.image, best.image)
            best = replace(best, image=image, observed=torch.where(fits, more.observed, best.observed))
        return best
