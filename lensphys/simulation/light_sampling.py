"""How many points a pixel's light is summed from: as many as PSF, pixel and sources ask for, by the error of fewer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lensphys.observation import Conditions, Instrument
from lensphys.simulation.detector import conditions_of
from lensphys.simulation.engines import Engine
from lensphys.simulation.recipe import Recipe
from lensphys.simulation.sample import Drawn, Seeds, draw
from lensphys.simulation.scene import Scene

POINTS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16)  # along the side of a pixel
Build = Callable[[Instrument], Engine]


@dataclass(frozen=True)
class LightSampling:
    """What an instrument with ``supersampling: auto`` is given enough points for.

    Args:
        unseen: chi^2 that the error of an image may have: half of what `lensphys doctor` warns of.
        fewest: points along the side of a pixel: those of HR pixels are fewer by the upscaling.
        drawn: lenses that are looked at.
        sharpest: of these, whose light is rendered.
    """

    unseen: float = 12.0
    fewest: int = 4
    drawn: int = 256
    sharpest: int = 8


@dataclass(frozen=True)
class Rendering:
    """Some lenses, to be rendered with any number of points a pixel; substructure left out.

    Args:
        build: an engine for an instrument.
        instrument: that sees them.
        scenes: what it sees.
        conditions: under which.
        flux_scale: from clean images to recorded ones, (B,).
        recorded: (B, 1, H, W) [unit of the instrument], for instruments whose noise is estimated from images.
    """

    build: Build
    instrument: Instrument
    scenes: Sequence[Scene]
    conditions: Conditions
    flux_scale: Tensor
    recorded: Tensor

    def __len__(self) -> int:
        return len(self.scenes)

    def rows(self, rows: Tensor) -> Rendering:
        """Return some of them, (n,) indices."""
        scenes, conditions = [self.scenes[i] for i in rows.tolist()], self.conditions.rows(rows)
        return replace(
            self,
            scenes=scenes,
            conditions=conditions,
            flux_scale=self.flux_scale[rows],
            recorded=self.recorded[rows],
        )

    def by(self, points: int) -> Tensor:
        """Return the clean images in the unit of the recorded ones, (B, 1, H, W) float64."""
        engine = self.build(self.instrument.model_copy(update={"supersampling": points}))
        for scene in self.scenes:
            engine.check(scene.smooth)
        clean = engine.render([scene.smooth for scene in self.scenes], self.conditions).lr.double()
        return clean.cpu() * self.flux_scale[:, None, None, None]

    def errors(self, counts: Sequence[int], truth: int) -> dict[int, Tensor]:
        """Return what the error of so many points adds to each lens's chi^2, (B,), by their number.

        Args:
            counts: points along the side of a pixel.
            truth: points that stand for infinitely many.
        """
        exact = self.by(truth)
        law = self.instrument.noise_of(self.recorded, self.conditions)
        sigma = law.variance(exact.float()).double().sqrt()
        return {points: ((self.by(points) - exact) / sigma).square().flatten(1).sum(1) for points in counts}


def sharpness(lights: Sequence[dict[str, Any]]) -> float:
    """Return index over radius of the sharpest Sersic [1 / arcsec]; zero where there is none."""
    return max((k["n_sersic"] / k["R_sersic"] for k in lights if "n_sersic" in k), default=0.0)


def with_enough_points(
    recipe: Recipe, instrument: Instrument, build: Build, settings: LightSampling = LightSampling()
) -> Instrument:
    """Return an instrument that says how many points: its own number, or enough for the sharpest lenses of a recipe.

    It depends on the recipe and the instrument alone, so that all parts of a data set have the same number.

    Args:
        recipe: what it looks at.
        instrument: maybe with ``supersampling: auto``.
        build: an engine for an instrument.
        settings: when they are enough.
    """
    if instrument.supersampling != "auto":
        return instrument
    points = _enough(_sharpest(recipe, instrument, build, settings), settings)
    return instrument.model_copy(update={"supersampling": points})


def _enough(lenses: Rendering, settings: LightSampling) -> int:
    top, below = settings.fewest, settings.fewest - 1
    while top < POINTS[-1]:
        errors = lenses.errors([points for points in POINTS if below < points <= top], 2 * top)
        for points, chi2 in errors.items():
            if bool((chi2 <= settings.unseen).all()):
                return points
        lenses = lenses.rows(torch.nonzero(errors[top] > settings.unseen).flatten())  # the others have enough
        top, below = 2 * top, top
    return _enough_at_last(lenses, [points for points in POINTS[:-1] if points > below], settings)


def _enough_at_last(lenses: Rendering, counts: Sequence[int], settings: LightSampling) -> int:
    """The first of some numbers that is enough for all lenses, else the last of `POINTS`: the sharpest may tell."""
    for row in reversed(range(len(lenses))):
        if not counts:
            break
        errors = lenses.rows(torch.tensor([row])).errors(counts, 2 * POINTS[-1])
        counts = [points for points in counts if bool((errors[points] <= settings.unseen).all())]
    return counts[0] if counts else POINTS[-1]


def _sharpest(recipe: Recipe, instrument: Instrument, build: Build, settings: LightSampling) -> Rendering:
    name = next(iter(recipe.classes))
    drawn = [
        draw(recipe, instrument, name, Seeds.for_sample(0, name, i, instrument.description))
        for i in range(settings.drawn)
    ]
    order = np.argsort([_steepness(d.scene) for d in drawn], kind="stable")
    return _rendering([drawn[i] for i in order[-settings.sharpest :]], instrument, build)


def _steepness(scene: Scene) -> float:
    return max(sharpness(scene.kwargs_source), sharpness(scene.kwargs_lens_light))


def _rendering(drawn: Sequence[Drawn], instrument: Instrument, build: Build) -> Rendering:
    scenes, conditions = [d.scene for d in drawn], conditions_of([d.conditions for d in drawn])
    clean = build(instrument).render([scene.smooth for scene in scenes], conditions).lr.cpu()
    noisy = [d.detector.lr(clean[i : i + 1], np.random.default_rng(d.seeds.lr)) for i, d in enumerate(drawn)]
    scale = torch.tensor([d.detector.flux_scale for d in drawn]).double()
    return Rendering(build, instrument, scenes, conditions, scale, torch.cat(noisy))
