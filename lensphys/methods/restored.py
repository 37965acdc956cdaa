"""Real galaxies, which no Sersic profile describes: the fitted lens and a deconvolution, each for its share."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor

from lensphys.fitting import LensFit, fit_lens
from lensphys.fitting.refine import poor, reduced_chi2
from lensphys.methods.fit import in_chunks
from lensphys.methods.lens_model import smooth_prediction
from lensphys.methods.prediction import Prediction
from lensphys.methods.richardson_lucy import RichardsonLucy
from lensphys.observation import Observation, block_sum
from lensphys.settings import Strict

_PEDESTAL = 2.0  # of the noise: noise is not positive, but the algorithm wants positive images
_OVERFITTED = 0.7  # chi^2 per pixel below which a deconvolution explains noise: fewer iterations do
_POINTS = 4  # squared, in a super-resolved pixel: the cores of real sources are steep


class Restoration(Strict):
    """The fitted lens, sharpened towards the image, and Richardson-Lucy: weighed by how well the lens explains it.

    A Sersic source puts the light of a real galaxy in the right places but not in the right knots; a deconvolution
    finds the knots and not what is below the pixels. Richardson-Lucy steps that start from the lens model keep what it
    knows and add the knots; the mean with Richardson-Lucy on its own has less error than either. The share of the lens
    is 1 / chi^2 per degree of freedom, at most 1.

    Args:
        iterations: of Richardson-Lucy, at most: a half, a fifth or a fourteenth of them where more fit the noise.
        starts: of the fit.

    Source: Richardson (1972), Lucy (1974).
    """

    name: Literal["restore"] = "restore"
    iterations: PositiveInt = 140
    starts: PositiveInt = 4

    def predict(self, observation: Observation, scale: int) -> Prediction:
        """Return the restored images on the target PSF, with the lens that was fitted on the way."""

        def one(part: Observation) -> Prediction:
            """Return the restored images of a chunk."""
            fit = fit_lens(part, starts=self.starts)
            smooth = smooth_prediction(fit, scale)
            plain = self._plain(part, scale)
            share = (1 / reduced_chi2(fit.problem, fit.state).clamp(min=1))[:, None, None, None]
            sharpened, observed = self._sharpened(fit, scale)
            image = share * sharpened + (1 - share) * plain.image
            return replace(smooth, image=image, observed=share * observed + (1 - share) * plain.observed)

        with torch.no_grad():
            return in_chunks(observation, scale, self.starts, one)

    def _plain(self, observation: Observation, scale: int) -> Prediction:
        """Return Richardson-Lucy of each image, with as many iterations as its noise allows."""
        best = RichardsonLucy(iterations=max(1, self.iterations // 14)).predict(observation, scale)
        for share in (5, 2, 1):
            more = RichardsonLucy(iterations=max(1, self.iterations // share)).predict(observation, scale)
            fits = (observation.chi2(more.observed) / observation.counted > _OVERFITTED)[:, None, None, None]
            image = torch.where(fits, more.image, best.image)
            best = replace(best, image=image, observed=torch.where(fits, more.observed, best.observed))
        return best

    def _sharpened(self, fit: LensFit, scale: int) -> tuple[Tensor, Tensor]:
        """Return what Richardson-Lucy makes of the lens model, on the target PSF, and that on the image's pixels."""
        observation, model = fit.problem.observation, fit.problem.model(fit.state)
        camera, target = observation.camera, observation.camera.at(scale)
        fine = target.grid.resampled(_POINTS)
        theta = fine.positions(like=observation.image)
        image = block_sum(model.source(theta - model.mass(theta)) * fine.pixel_area, target.grid).clamp(min=0)
        variance, weight = observation.noise.variance(observation.smoothed), observation.weight
        pedestal = _PEDESTAL * variance.mean((1, 2, 3), keepdim=True).sqrt()
        seen = (observation.image + pedestal).clamp(min=1e-3 * pedestal) * weight
        adjoint = torch.func.vjp(camera.expose, image)[1]
        everywhere = adjoint(weight)[0].clamp(min=1e-6)
        image = image + pedestal / scale**2
        unexplained = poor(fit.problem, fit.state)
        for _ in range(self.iterations):
            expected = camera.expose(image)
            excess = (seen - expected * weight).square() / variance
            going = unexplained & (excess.sum((1, 2, 3)) / observation.counted > _OVERFITTED)
            ratio = seen / torch.maximum(expected, 1e-6 * pedestal)
            image = torch.where(going[:, None, None, None], image * adjoint(ratio)[0] / everywhere, image)
        image = image - pedestal / scale**2
        return target.psf.blur(image, target.grid.scale), camera.expose(image)
