"""One sample of a data set: a scene, its clean images and its noise, from one seed."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lensphys.observation import Instrument
from lensphys.simulation.detector import conditions_of, draw_conditions, draw_detector
from lensphys.simulation.lenstronomy_engine import LenstronomyEngine
from lensphys.simulation.recipe import Recipe
from lensphys.simulation.scene import Scene, draw_scene

Image = NDArray[np.float32]


@dataclass(frozen=True)
class Sample:
    """One lens.

    Args:
        lr: (1, H, W) [unit of the instrument], as recorded.
        lr_clean: (1, H, W) [flux per pixel].
        hr: (1, sH, sW) [flux per pixel], noisy; None in data sets with clean targets.
        hr_clean: (1, sH, sW) [flux per pixel].
        alpha_hr: (2, sH, sW) [arcsec].
        flux_scale: from flux per pixel to the unit of ``lr``.
        scene: what was rendered.
        conditions: what of the PSF and the noise was drawn for this lens, by its name in `Conditions`.
    """

    lr: Image
    lr_clean: Image
    hr: Image | None
    hr_clean: Image
    alpha_hr: Image
    flux_scale: float
    scene: Scene
    conditions: dict[str, float] = field(default_factory=dict)


def sample_seed(seed: int, class_name: str, index: int) -> np.random.SeedSequence:
    """Return the seed of a sample: it depends on the class and the index, not on how many there are of either."""
    return np.random.SeedSequence([seed, zlib.crc32(class_name.encode()), index])


def draw_sample(
    recipe: Recipe, instrument: Instrument, engine: LenstronomyEngine, class_name: str, seed: np.random.SeedSequence
) -> Sample:
    """Return one sample; the same seed gives the same lens and LR noise whether /hr is noisy or not."""
    parameters, lr_seed, hr_seed = seed.spawn(3)
    rng = np.random.default_rng(parameters)
    scene = draw_scene(recipe, instrument, class_name, rng)
    conditions = draw_conditions(recipe, rng)
    detector = draw_detector(recipe, instrument, rng, conditions)
    clean = engine.render(scene, instrument.psf_of(conditions_of(conditions)))
    return Sample(
        lr=_recorded(detector.lr, clean.lr, lr_seed),
        lr_clean=clean.lr[None].astype(np.float32),
        hr=_recorded(detector.hr, clean.hr, hr_seed) if recipe.hr_noise else None,
        hr_clean=clean.hr[None].astype(np.float32),
        alpha_hr=clean.alpha_hr.astype(np.float32),
        flux_scale=detector.flux_scale,
        scene=scene,
        conditions=conditions,
    )


def _recorded(
    record: Callable[[Tensor, torch.Generator], Tensor], clean: NDArray[np.float64], seed: np.random.SeedSequence
) -> Image:
    generator = torch.Generator().manual_seed(int(seed.generate_state(1, np.uint64)[0]))
    return record(torch.from_numpy(clean)[None, None], generator)[0].to(torch.float32).numpy()
