"""From clean images to what a detector records, by the noise laws of the instrument."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from lensphys.basics.checks import LensphysError
from lensphys.observation import Conditions, ExposureNoise, Instrument, Noise, RectifiedCountNoise
from lensphys.observation.instrument import CONDITIONS
from lensphys.observation.noise import poisson
from lensphys.simulation.draws import Draws
from lensphys.simulation.recipe import Recipe


class Detector(Protocol):
    """What records an image. Images are (1, 1, H, W)."""

    @property
    def flux_scale(self) -> float:
        """The factor from the unit of clean images to that of the recorded LR image."""
        ...

    def lr(self, clean: Tensor, rng: np.random.Generator) -> Tensor:
        """Return the LR image (1, 1, H, W) [unit of the instrument] of a clean one [flux per pixel]."""
        ...

    def hr(self, clean: Tensor, rng: np.random.Generator) -> Tensor:
        """Return the legacy noisy HR image of a clean one, both (1, 1, sH, sW) [flux per pixel]."""
        ...


@dataclass(frozen=True)
class CountDetector:
    """Counts cut at zero: the legacy Model 1.

    Args:
        exposure_time: t [s].
        background_rms: b [flux per pixel].
    """

    exposure_time: float
    background_rms: float

    @property
    def flux_scale(self) -> float:
        """The exposure time."""
        return self.exposure_time

    def lr(self, clean: Tensor, rng: np.random.Generator) -> Tensor:
        """Return Poisson(max(0, t (I + N(0, sqrt(I / t)) + N(0, b)))) [counts]."""
        background = clean.new_tensor(self.exposure_time * self.background_rms).reshape(1, 1, 1, 1)
        noise = RectifiedCountNoise(background, torch.full_like(background, 2.0))
        return noise.sample(self.exposure_time * clean, rng)

    def hr(self, clean: Tensor, rng: np.random.Generator) -> Tensor:
        """Return Poisson(t I) / t, (1, 1, sH, sW) [flux per pixel]."""
        return poisson(self.exposure_time * clean, rng) / self.exposure_time


@dataclass(frozen=True)
class ExposureDetector:
    """An instrument with known noise, at the scale of LR and of HR pixels.

    Args:
        lr_noise: law of LR pixels.
        hr_noise: law of HR pixels.
        flux_scale: from flux to the unit of the LR images; the same if 1.
    """

    lr_noise: Noise
    hr_noise: Noise
    flux_scale: float = 1.0

    def lr(self, clean: Tensor, rng: np.random.Generator) -> Tensor:
        """Return the noisy LR image (B, 1, H, W), in its unit."""
        return self.lr_noise.sample(clean, rng)

    def hr(self, clean: Tensor, rng: np.random.Generator) -> Tensor:
        """Return the HR image (B, 1, sH, sW) with the noise of a detector of such pixels."""
        return self.hr_noise.sample(clean, rng)


def check_detector(recipe: Recipe, instrument: Instrument) -> None:
    """Raise unless the recipe says what the instrument's noise needs.

    Raises:
        LensphysError: with what is missing or too much.
    """
    where = f"recipe '{recipe.description}' with the instrument {recipe.instrument}"
    drawn = recipe.conditions is not None and recipe.conditions.exposure_time is not None
    in_counts = instrument.noise.cut_at_zero
    if not (instrument.noise.known or in_counts or drawn):
        raise LensphysError(f"{where}: noise that is estimated from images cannot be simulated: give its numbers")
    if in_counts and recipe.counts is None:
        raise LensphysError(f"{where}: missing key 'counts' (exposure_time and background_rms)")
    if in_counts and drawn:
        raise LensphysError(
            f"{where}: 'counts' gives its noise, 'conditions' may only draw psf_fwhm: remove the others"
        )
    if not in_counts and recipe.counts is not None:
        raise LensphysError(f"{where}: 'counts' is for instruments in counts, this one knows its noise: remove the key")
    if recipe.target is not None:
        _check_target(where, instrument, recipe.target.instrument)
    if recipe.conditions is not None and recipe.conditions.psf_fwhm is not None:
        instrument.psf_of(Conditions(psf_fwhm=torch.ones(1)))  # kernels have no width to vary
    for key, light in recipe.lights.items():
        if light.in_magnitudes and instrument.zero_point is None:
            raise LensphysError(
                f"{where}: a magnitude needs an instrument with a zero point: give {key} an amp or a flux instead"
            )


def _check_target(where: str, instrument: Instrument, name: str) -> None:
    target = Instrument.named(name)
    for which, telescope in (("instrument", instrument), (f"target {name}", target)):
        if not telescope.noise.known or telescope.zero_point is None:
            raise LensphysError(
                f"{where}: with a target, its {which} needs noise of the kind exposure and a zero point, because one "
                "telescope is simulated in the flux of the other"
            )


def draw_mismatch(recipe: Recipe, rng: np.random.Generator) -> dict[str, float]:
    """Return how the /hr of a sample disagrees with its /lr, by the names of the datasets; nothing without a target."""
    target, draws = recipe.target, Draws(rng)
    if target is None:
        return {}
    return {
        "hr_shift_x": draws("target.shift_x", target.shift_x),
        "hr_shift_y": draws("target.shift_y", target.shift_y),
        "hr_gain": draws.positive("target.gain", target.gain),
        "hr_offset": draws("target.offset", target.offset),
    }


def draw_conditions(recipe: Recipe, rng: np.random.Generator) -> dict[str, float]:
    """Return what the recipe varies from image to image: the fields of `Conditions`, by name."""
    if recipe.conditions is None:
        return {}
    draws = Draws(rng)
    varied = {name: x for name in CONDITIONS if (x := getattr(recipe.conditions, name)) is not None}
    return {name: draws.positive(f"conditions.{name}", x) for name, x in varied.items()}


def draw_detector(
    recipe: Recipe, instrument: Instrument, rng: np.random.Generator, conditions: dict[str, float] | None = None
) -> Detector:
    """Return the detector of one sample, taken under the conditions that were drawn for it."""
    if recipe.counts is not None:
        draws = Draws(rng)
        exposure_time = draws.positive("counts.exposure_time", recipe.counts.exposure_time)
        return CountDetector(exposure_time, draws.positive("counts.background_rms", recipe.counts.background_rms))
    target = None if recipe.target is None else recipe.target.instrument
    return _exposure(instrument, recipe.upscale, tuple((conditions or {}).items()), target)


@lru_cache(maxsize=16)  # most recipes have one for all their samples
def _exposure(
    instrument: Instrument, upscale: int, conditions: tuple[tuple[str, float], ...], target: str | None
) -> ExposureDetector:
    fine = instrument.model_copy(update={"pixel_scale": instrument.pixel_scale / upscale})
    coarse = dict(conditions)
    finer = {name: x / upscale if name == "background_rms" else x for name, x in coarse.items()}
    blank = torch.zeros(1, 1, 1, 1)  # the law is known: it needs no image
    lr_noise = instrument.noise_of(blank, conditions_of([coarse]))
    if target is not None:
        return ExposureDetector(lr_noise, _target_noise(instrument, Instrument.named(target), fine.pixel_scale))
    return ExposureDetector(lr_noise, fine.noise_of(blank, conditions_of([finer])))


def _target_noise(instrument: Instrument, target: Instrument, pixel_scale: float) -> Noise:
    """The noise of the target on its pixels, in the unit of the instrument: flux over ratio, seconds times it."""
    own = target.model_copy(update={"pixel_scale": pixel_scale}).noise_of(torch.zeros(1, 1, 1, 1))
    if not isinstance(own, ExposureNoise):
        raise LensphysError(f"{target.description}: a target needs noise of the kind exposure")
    ratio = target.flux(0.0) / instrument.flux(0.0)
    return ExposureNoise(own.background_rms / ratio, own.exposure_time * ratio)


def conditions_of(drawn: list[dict[str, float]], dtype: torch.dtype = torch.float64) -> Conditions:
    """Return the conditions of some samples as those of a batch."""
    names = drawn[0] if drawn else {}
    return Conditions(**{name: torch.tensor([x[name] for x in drawn], dtype=dtype) for name in names})
