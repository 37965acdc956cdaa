"""Endless lenses without a file: simulated when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lensphys.observation import Instrument, Observation
from lensphys.simulation.detector import conditions_of
from lensphys.simulation.engines import Engine
from lensphys.simulation.plan import Plan
from lensphys.simulation.sample import render


class LensStream:
    """The samples of a plan and all that would follow them.

    Args:
        plan: what to simulate; its ``n`` is how many of each class make an epoch.

    Example:
        >>> from lensphys.simulation import Recipe
        >>> plan = Plan.from_recipe(Recipe.named("model_2", ["height=16", "width=16"]), 10)
        >>> observation, truth = LensStream(plan).read([0, 1, 1_000_000], "cpu")
        >>> observation.image.shape, truth.shape
        (torch.Size([3, 1, 16, 16]), torch.Size([3, 1, 32, 32]))
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._engines: dict[str, Engine] = {}
        self.identity, self.name = f"stream of {plan.identity}", f"the stream of '{plan.recipe.description}'"

    def __len__(self) -> int:
        """Images of an epoch."""
        return len(self._plan)

    @property
    def instrument(self) -> Instrument:
        """The instrument of the low-resolution images."""
        return self._plan.instrument

    def labels(self, positions: Sequence[int]) -> list[int]:
        """Return the class of each of some samples, counted in the recipe's order."""
        return [self._plan.label_of(position) for position in positions]

    def read(self, positions: Sequence[int], device: torch.device | str) -> tuple[Observation, Tensor]:
        """Return some samples.

        Args:
            positions: which ones: any numbers from 0 on, the same samples for the same numbers; classes take turns.
            device: where they are rendered and returned.

        Returns:
            The LR images with how they were taken, and the HR images (B, 1, sH, sW) [unit of the LR images].
        """
        if str(device) not in self._engines:
            self._engines[str(device)] = self._plan.build_engine(device)
        engine = self._engines[str(device)]
        samples = render(self._plan.recipe, engine, [self._plan.drawn(p) for p in positions])
        conditions = conditions_of([d.conditions for d in samples.drawn], torch.float32).to(device)
        observation = self._plan.instrument.observation(torch.from_numpy(samples.lr).to(device), conditions)
        if self._plan.target is not None:
            observation = observation.with_target_psf(self._plan.target.psf_of())
        scale = torch.tensor([d.detector.flux_scale for d in samples.drawn])[:, None, None, None]
        hr = torch.from_numpy(samples.hr_clean if samples.hr is None else samples.hr)
        return observation, (hr * scale).float().to(device)
