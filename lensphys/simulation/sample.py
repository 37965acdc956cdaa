"""Samples of a data set: scenes, their clean images and their noise, each from its own seed."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from lensphys.observation import Instrument
from lensphys.simulation.detector import Detector, conditions_of, draw_conditions, draw_detector, draw_mismatch
from lensphys.simulation.engines import Engine
from lensphys.simulation.recipe import Recipe
from lensphys.simulation.scene import Scene, draw_scene

Draws = Literal["own", "matched"]

Images = NDArray[np.float32]


@dataclass(frozen=True)
class Seeds:
    """The seeds of one sample.

    Args:
        parameters: of lens, source and detector.
        lr: of the noise of the LR image.
        hr: of the noise of the HR image.
        substructure: of the substructure alone, where samples of all classes share the rest.
    """

    parameters: np.random.SeedSequence
    lr: np.random.SeedSequence
    hr: np.random.SeedSequence
    substructure: np.random.SeedSequence | None = None

    @classmethod
    def for_sample(cls, seed: int, class_name: str, index: int, instrument: str, *, draws: Draws = "own") -> Seeds:
        """Return the seeds of a sample: they depend on its class and index, not on how many there are of either.

        Args:
            seed: of the data set.
            class_name: its class.
            index: within the class.
            instrument: description of what records it: each has noise of its own, of the same lens.
            draws: ``own``, or ``matched``: the sample has lens, source and noise in common with those of this index in
                the other classes.
        """
        own = [seed, zlib.crc32(class_name.encode()), index]
        shared = [seed, index] if draws == "matched" else own
        parameters, lr, hr = np.random.SeedSequence(shared).spawn(3)
        recorder = [*shared, zlib.crc32(instrument.encode())]
        lr, hr = (np.random.SeedSequence(recorder, spawn_key=child.spawn_key) for child in (lr, hr))
        return cls(parameters, lr, hr, np.random.SeedSequence(own) if draws == "matched" else None)


@dataclass(frozen=True)
class Drawn:
    """What there is to render and to record, before any image is made.

    Args:
        scene: lens and source.
        conditions: what of the PSF and the noise was drawn, by its name in `Conditions`.
        detector: what records it.
        seeds: of its noise.
        mismatch: of /hr, by the names of its datasets; empty without a target telescope.
    """

    scene: Scene
    conditions: dict[str, float]
    detector: Detector
    seeds: Seeds
    mismatch: dict[str, float]

    def record_hr(self, clean: torch.Tensor) -> torch.Tensor:
        """Return the noisy HR image of a clean one (1, 1, sH, sW), where the HR telescope pointed to."""
        noisy = self.detector.hr(clean, np.random.default_rng(self.seeds.hr))
        if not self.mismatch:
            return noisy
        return self.mismatch["hr_gain"] * noisy + self.mismatch["hr_offset"]


@dataclass(frozen=True)
class Samples:
    """Some lenses.

    Args:
        lr: (B, 1, H, W) [unit of the instrument], as recorded.
        lr_clean: (B, 1, H, W) [flux per pixel].
        hr: (B, 1, sH, sW) [flux per pixel], noisy; None in data sets with clean targets.
        hr_clean: (B, 1, sH, sW) [flux per pixel].
        alpha_hr: (B, 2, sH, sW) [arcsec].
        drawn: what each of them was made from.
    """

    lr: Images
    lr_clean: Images
    hr: Images | None
    hr_clean: Images
    alpha_hr: Images
    drawn: Sequence[Drawn]


def draw(recipe: Recipe, instrument: Instrument, class_name: str, seeds: Seeds) -> Drawn:
    """Return one lens and how it is observed; the same seeds give the same, whether /hr is noisy or not."""
    rng = np.random.default_rng(seeds.parameters)
    own = None if seeds.substructure is None else np.random.default_rng(seeds.substructure)
    scene = draw_scene(recipe, instrument, class_name, rng, own)
    conditions = draw_conditions(recipe, rng)
    detector = draw_detector(recipe, instrument, rng, conditions)
    return Drawn(scene, conditions, detector, seeds, draw_mismatch(recipe, rng))


def render(recipe: Recipe, engine: Engine, drawn: Sequence[Drawn]) -> Samples:
    """Return the images of some samples."""
    clean = engine.render([d.scene for d in drawn], conditions_of([d.conditions for d in drawn]))
    lr, hr = clean.lr.cpu(), clean.hr.cpu()
    recorded = [d.detector.lr(lr[i : i + 1], np.random.default_rng(d.seeds.lr)) for i, d in enumerate(drawn)]
    noisy = None
    if recipe.hr_noise:
        pointed = hr if recipe.target is None else _pointed(engine, drawn).cpu()
        noisy = _images([d.record_hr(pointed[i : i + 1]) for i, d in enumerate(drawn)])
    return Samples(_images(recorded), _images([lr]), noisy, _images([hr]), _images([clean.alpha_hr.cpu()]), drawn)


def _pointed(engine: Engine, drawn: Sequence[Drawn]) -> torch.Tensor:
    """The clean HR images where the target telescope pointed to: rendered anew, so that nothing is interpolated."""
    scenes = [d.scene.displaced(d.mismatch["hr_shift_x"], d.mismatch["hr_shift_y"]) for d in drawn]
    return engine.render(scenes, conditions_of([d.conditions for d in drawn])).hr


def _images(parts: list[torch.Tensor]) -> Images:
    whole = parts[0] if len(parts) == 1 else torch.cat(parts)
    return whole.to(torch.float32).numpy()
