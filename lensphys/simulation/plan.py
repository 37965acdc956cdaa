"""What is to be simulated: all that defines the bytes of a data set."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, replace
from typing import Any

import torch

from lensphys.basics.checks import LensphysError, check_choice, check_whole
from lensphys.basics.provenance import versions
from lensphys.basics.version import VERSION
from lensphys.data.lens_file import FORMAT_VERSION
from lensphys.data.recomputed import LEFT_OUT
from lensphys.observation import Instrument
from lensphys.simulation.detector import check_detector
from lensphys.simulation.engines import Engine
from lensphys.simulation.galaxies import fingerprint
from lensphys.simulation.lenstronomy_engine import LenstronomyEngine
from lensphys.simulation.light_sampling import with_enough_points
from lensphys.simulation.recipe import Recipe
from lensphys.simulation.sample import Drawn, Draws, Seeds, draw
from lensphys.simulation.torch_engine import TorchEngine

ENGINES = ("torch", "lenstronomy")
SHARD, _SMALLEST = 256, 16  # samples
_STREAMS = 2  # version of how random numbers come from a seed


@dataclass(frozen=True)
class Plan:
    """All that defines the bytes of a data set.

    Args:
        recipe: the recipe.
        instrument: its instrument.
        classes: the classes to simulate; labels count in this order.
        n: samples of each class.
        seed: of the whole data set.
        engine: which engine renders.
        draws: of each sample its ``own``; or ``matched``: samples of one index have all but the class in common.
        shard_size: samples of a shard.
        deflection: /alpha_hr is stored, which else is computed when it is read: more than half of the bytes.
        version: of the package whose code makes the samples.
    """

    recipe: Recipe
    instrument: Instrument
    classes: tuple[str, ...]
    n: int
    seed: int
    engine: str = "torch"
    draws: Draws = "own"
    shard_size: int = SHARD
    deflection: bool = False
    version: str = VERSION

    @classmethod
    def from_recipe(
        cls,
        recipe: Recipe,
        n: int,
        *,
        classes: list[str] | None = None,
        seed: int = 0,
        engine: str = "torch",
        draws: Draws = "own",
        shard_size: int | None = None,
        deflection: bool = False,
    ) -> Plan:
        """Return the plan of a recipe, checked as far as it can be before the first sample.

        Args:
            recipe: what to simulate.
            n: samples of EACH class.
            classes: some of the recipe's classes, labelled in the recipe's order; all if None.
            seed: a sample depends on it, on its class and on its index alone.
            engine: ``torch``, the fast one, or ``lenstronomy``, the reference with more profiles.
            draws: of each sample its ``own``; or ``matched``: samples of one index have all but the class in common.
            shard_size: samples of a shard; by default 256, or fewer if there would not be 16 shards.
            deflection: /alpha_hr is stored; else it is computed when it is read.

        Raises:
            LensphysError: if an argument is out of range, recipe and instrument do not fit, or the engine lacks a
                profile.
        """
        check_whole("-n", n, 1)
        check_whole("--seed", seed, 0)
        check_whole("--shard-size", SHARD if shard_size is None else shard_size, 1)
        check_choice("engine", engine, ENGINES)
        chosen = list(recipe.classes) if classes is None else classes
        for name in chosen:
            check_choice("class", name, list(recipe.classes))
        if not chosen:
            raise LensphysError(f"--classes is empty: choose some of {', '.join(recipe.classes)}")
        instrument = Instrument.named(recipe.instrument)
        check_detector(recipe, instrument)
        ordered = tuple(name for name in recipe.classes if name in chosen)
        if shard_size is None:
            shard_size = max(_SMALLEST, min(SHARD, math.ceil(n * len(ordered) / 16)))  # all workers shall have some
        plan = cls(recipe, instrument, ordered, n, seed, engine, draws, shard_size, deflection)
        plan = replace(plan, instrument=with_enough_points(recipe, instrument, plan.engine_for))
        renders = plan.build_engine()
        for label in range(len(ordered)):
            scene = plan.drawn(label).scene
            renders.check(scene if recipe.target is None else scene.displaced(0.0, 0.0))
        return plan

    def __len__(self) -> int:
        return self.n * len(self.classes)

    def build_engine(self, device: torch.device | str = "cpu") -> Engine:
        """Return the engine."""
        return self.engine_for(self.instrument, device)

    def engine_for(self, instrument: Instrument, device: torch.device | str = "cpu") -> Engine:
        """Return the engine with another instrument."""
        if self.engine == "torch":
            return TorchEngine(self.recipe, instrument, device)
        return LenstronomyEngine(self.recipe, instrument)

    @property
    def target(self) -> Instrument | None:
        """The telescope that /hr is observed with, if it is another one."""
        return None if self.recipe.target is None else Instrument.named(self.recipe.target.instrument)

    @property
    def left_out(self) -> list[str]:
        """Datasets that are not stored, but computed when they are read."""
        return [] if self.deflection else list(LEFT_OUT)

    @property
    def shards(self) -> int:
        """Number of shards."""
        return math.ceil(len(self) / self.shard_size)

    def samples_of(self, shard: int) -> range:
        """Return the samples of a shard."""
        return range(shard * self.shard_size, min((shard + 1) * self.shard_size, len(self)))

    def label_of(self, position: int) -> int:
        """Return the class of a sample: classes take turns, so that every stretch of the file holds all of them."""
        return position % len(self.classes)

    def drawn(self, position: int) -> Drawn:
        """Return what a sample is made from."""
        index, label = divmod(position, len(self.classes))
        name = self.classes[label]
        seeds = Seeds.for_sample(self.seed, name, index, self.instrument.description, draws=self.draws)
        return draw(self.recipe, self.instrument, name, seeds)

    def attributes(self) -> dict[str, Any]:
        """Return what the file says of itself."""
        scale = self.instrument.pixel_scale
        images = {file for light in self.recipe.lights.values() for file in light.files}
        target = {} if self.target is None else {"target_instrument": self.target.model_dump_json()}
        return target | {
            "recipe": self.recipe.model_dump_json(),
            "instrument": self.instrument.model_dump_json(),
            "classes": list(self.classes),
            "samples_per_class": self.n,
            "seed": self.seed,
            "engine": self.engine,
            "matched": self.draws == "matched",
            "galaxies": json.dumps({file: fingerprint(file) for file in sorted(images)}),
            "upscale": self.recipe.upscale,
            "pixel_scale_lr": scale,
            "pixel_scale_hr": scale / self.recipe.upscale,
            "versions": json.dumps(versions()),
        }

    @property
    def identity(self) -> str:
        """Hash of what was asked for; the versions that made it are no part of it, an upgrade does not end a run."""
        asked = {name: value for name, value in self.attributes().items() if name != "versions"}
        # a key that came later: without it, recipes are what they were
        recipe = self.recipe.model_dump(mode="json", exclude={"target"} if self.recipe.target is None else None)
        asked |= {"recipe": recipe, "instrument": self.instrument.model_dump(mode="json")}
        asked["galaxies"] = sorted(json.loads(asked["galaxies"]).values())
        text = json.dumps({"format_version": FORMAT_VERSION, "streams": _STREAMS} | asked, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()
