"""A smooth mass with more freedom, where the image wants it: sub-halos are believed only beside it."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from pydantic import Field, NonNegativeFloat, field_validator

from lensphys.basics.settings import Strict
from lensphys.fitting.source import Fitted
from lensphys.model import MASS, LensModel, Member
from lensphys.model.component import CENTRE
from lensphys.model.mass.multipole import LEAST, MultipoleWaves

Orders = Annotated[tuple[Annotated[int, Field(ge=LEAST)], ...], Field(strict=False)]  # a list in YAML


class FreerMass(Strict):
    """How much freer than the mass that was asked for a smooth mass may be.

    A slope that is not isothermal, or a galaxy that is boxy or lopsided, leaves what a sub-halo can explain.

    Args:
        lens: kind of the main lens, where that has all parameters of the one it stands for.
        multipoles: orders of those about it, step by step: the slope alone first.
        share: of the evidence that sub-halos gain, which a step must promise to be tried,
        alone: and ln of the likelihood that it must promise where none are claimed.

    Source: He et al. 2023 (MNRAS 518, 220); O'Riordan & Vegetti 2024 (MNRAS 528, 1757).
    """

    lens: str = "epl"
    multipoles: Annotated[tuple[Orders, ...], Field(strict=False)] = ((), (3, 4))
    share: NonNegativeFloat = 0.25
    alone: NonNegativeFloat = 12.0

    @field_validator("lens")
    @classmethod
    def _known(cls, lens: str) -> str:
        if lens not in MASS:
            raise ValueError(f"there is no mass {lens}: choose one of {', '.join(MASS)}")
        return lens

    def over(self, model: LensModel, multipoles: tuple[int, ...]) -> LensModel:
        """Return a model with a slope and multipoles of some orders; what it has of these stays as it is."""
        main, orders = model.mass[model.main], {member.fixed.get("m") for member in model.mass.values()}
        tied = {name: f"{model.main}.{name}" for name in CENTRE if name not in main.fixed}
        held = {name: main.fixed[name] for name in CENTRE if name in main.fixed}
        waves = {
            f"multipole_{m}": Member.from_component(MultipoleWaves, tied, m=m, **held)
            for m in multipoles
            if m not in orders
        }
        return replace(model, mass={**model.mass, model.main: self._freed(main)}).with_mass(**waves)

    def _freed(self, main: Member) -> Member:
        """The main lens as the kind that has more parameters, these free."""
        kind, own = MASS[self.lens], {p.name for p in main.component.parameters}
        if not own <= {p.name for p in kind.parameters}:
            return main
        return replace(main, component=kind, free=main.free + tuple(p for p in kind.parameters if p.name not in own))

    def freed(self, fit: Fitted, multipoles: tuple[int, ...]) -> Fitted:
        """Return a fit with a slope and multipoles of some orders, where it is."""
        return Fitted.at(*fit.problem.with_model(self.over(fit.problem.model, multipoles), fit.x))
