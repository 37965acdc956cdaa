"""The unsupervised physics method of S1: a deflection network, a ray tracer and a fitted Sersic source."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor

from lensphys.basics.settings import Strict
from lensphys.fitting import (
    joint_through_lens,
    sersic_brightest_pixel,
    sersic_least_squares,
    sersic_moments,
    sersic_through_lens,
)
from lensphys.losses.perceptual import PerceptualSettings
from lensphys.losses.physics import PhysicsLossSettings, min_max
from lensphys.methods.trainable import Batch, TrainableMethod
from lensphys.model import Sersic
from lensphys.networks import DeflectionNetwork, Network, PolarHeadSettings
from lensphys.networks.base import Scale
from lensphys.observation import Observation, RectifiedCountNoise
from lensphys.prediction import Prediction
from lensphys.tracing.deflection import DeflectionField
from lensphys.tracing.einstein import einstein_radius
from lensphys.tracing.grid import PixelGrid
from lensphys.tracing.rays import reconstruct_source

SourceFit = Literal["brightest_pixel", "moments", "least_squares", "through_lens", "joint"]


_FITTED = {"through_lens": 7, "joint": 10}  # numbers fitted to the LR image itself


class DeflectionSettings(Strict):
    """What is common to all that learn a deflection network from LR images.

    ``source``: how the Sersic is found. ``brightest_pixel`` is S1's (R = 0.25", n = 1); ``moments`` and
    ``least_squares`` fit the back-projected source; ``through_lens`` fits the LR image itself through the
    network's deflection; ``joint`` fits a smooth correction of that deflection along with it.
    ``extent``: half width of the source plane [arcsec]. ``perceptual``: a difference of features between the LR image
    and what the model says of it.
    """

    network: Network
    head: PolarHeadSettings = PolarHeadSettings()
    scale: Scale = 2
    source: SourceFit = "joint"
    extent: PositiveFloat = 1.0
    loss: PhysicsLossSettings
    perceptual: PerceptualSettings | None = None


class PhysicsSettings(DeflectionSettings):
    """The published physics method (S1): deflection network, ray tracer, Sersic; or consistent with the noise."""

    name: Literal["physics"]

    def build(self) -> PhysicsMethod:
        """Return the method with a fresh network."""
        return PhysicsMethod(self)


class PhysicsMethod(TrainableMethod):
    """LR image -> deflection -> source -> Sersic -> re-lensed at any resolution; trained on LR images alone."""

    needs_truth = False

    @property
    def scale(self) -> int:
        """The upscaling factor that the method was trained for."""
        return self.settings.scale

    def __init__(self, settings: DeflectionSettings) -> None:
        super().__init__()
        self.settings = settings
        self.network = DeflectionNetwork(settings.network.build(2, settings.scale), settings.head)
        self._perceptual = None if settings.perceptual is None else settings.perceptual.build()

    def predict(self, observation: Observation, scale: int | None = None) -> Prediction:
        """Return the super-resolved batch; another scale than the network's own interpolates its deflection."""
        observation = replace(observation, image=observation.image * observation.weight)
        field = self.deflection(observation)
        with torch.autocast(observation.image.device.type, enabled=False):  # mixed precision is for the network alone
            return self._relens(observation, field, scale or self.network.scale)

    def deflection(self, observation: Observation) -> DeflectionField:
        """Return what the network makes of the images, at its own resolution."""
        field: DeflectionField = self.network(min_max(observation.image), observation.camera.grid)
        return field

    def _relens(self, observation: Observation, field: DeflectionField, scale: int) -> Prediction:
        source, field = self._solve_source(observation, field)
        if not self.training:  # in training the loss itself asks for the flux
            ratio = observation.flux_ratio(observation.camera.render(source, field))
            source = replace(source, amp=source.amp * ratio)
        camera = observation.camera.at(scale)
        seen = field.at(camera.grid)
        observed = observation.camera.render(source, field)
        with torch.no_grad():
            middle = torch.zeros_like(field.alpha[:, :, 0, 0])
            parameters = {"theta_E": einstein_radius(field.deflection, middle, field.grid.radius)}
        return Prediction(
            camera.render(source, seen),
            camera,
            observed,
            seen,
            source,
            parameters,
            _FITTED.get(self.settings.source, 0),
        )

    def training_terms(self, batch: Batch, epoch: int) -> dict[str, Tensor]:
        """Return the named terms, scalars, of the loss, and ``loss``; the truth is not looked at."""
        return self.terms_of_physics(self.predict(batch.observation), batch.observation, epoch)

    def terms_of_physics(self, prediction: Prediction, observation: Observation, epoch: int) -> dict[str, Tensor]:
        """Return the terms of a prediction, scalars, ``perceptual`` among them if it is asked for, and ``loss``."""
        terms, perceptual = self.settings.loss.evaluate(prediction, observation, epoch), self.settings.perceptual
        if perceptual is not None and self._perceptual is not None:
            unit = observation.peak_unit
            seen, expected = observation.image * observation.weight, observation.noise.expected(prediction.observed)
            terms["perceptual"] = self._perceptual(expected / unit, seen / unit)
            terms["loss"] = terms["loss"] + perceptual.weight * terms["perceptual"]
        return terms

    def _solve_source(self, observation: Observation, field: DeflectionField) -> tuple[Sersic, DeflectionField]:
        """Return the source, and the field with the smooth correction that was fitted along with it, if any."""
        side = max(5, round(2 * self.settings.extent / field.grid.scale))
        grid = PixelGrid(side, side, field.grid.scale)
        if self.settings.source in ("through_lens", "joint"):
            with torch.no_grad():
                start = sersic_moments(self._reconstruction(observation, field, grid), grid)
            if self.settings.source == "through_lens":
                return sersic_through_lens(observation, field, start), field
            source, correction = joint_through_lens(observation, field, start)
            return source, field.plus(correction)
        fit = {
            "brightest_pixel": sersic_brightest_pixel,
            "moments": sersic_moments,
            "least_squares": sersic_least_squares,
        }[self.settings.source]
        return fit(self._reconstruction(observation, field, grid), grid), field

    def _reconstruction(self, observation: Observation, field: DeflectionField, grid: PixelGrid) -> Tensor:
        return reconstruct_source(interpolated_light(observation, field.grid), field, grid)


def interpolated_light(observation: Observation, grid: PixelGrid) -> Tensor:
    """Return the LR image on another grid, (B, 1, H', W') [flux / arcsec^2], without the pedestal of cut noise."""
    image = observation.interpolated(grid) / grid.pixel_area
    if isinstance(observation.noise, RectifiedCountNoise):
        pedestal = observation.noise.expected(torch.zeros_like(observation.image))[..., :1, :1]
        image = (image - pedestal / observation.camera.grid.pixel_area).clamp(min=0)
    return image
