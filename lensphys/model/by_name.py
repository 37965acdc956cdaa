"""Masses by the names and values of a scene: the deflection of many lenses at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lensphys.model.compiled import COMPILED, add_deflection
from lensphys.model.component import Component, Keywords, Named
from lensphys.model.mass import TNFW, PointMass
from lensphys.model.registry import MASS, by_lenstronomy
from lensphys.model.swarm import deflection_swarm, deflection_tnfw_swarm

Table = dict[str, Tensor]  # parameters (B, K)


def _points(x: Tensor, y: Tensor, table: Table) -> Tensor:
    return deflection_swarm(x, y, table["theta_E"].square(), table["center_x"], table["center_y"])


def _halos(x: Tensor, y: Tensor, table: Table) -> Tensor:
    return deflection_tnfw_swarm(x, y, **table)


# what comes in numbers: all of one kind at once
_SWARMS: dict[str, Callable[[Tensor, Tensor, Table], Tensor]] = {
    PointMass.lenstronomy: _points, TNFW.lenstronomy: _halos
}  # fmt: skip


def deflection_of(lenses: Sequence[Sequence[Named]], theta: Tensor, *, compiled: bool) -> Tensor:
    """Return alpha (B, 2, 1, P) [arcsec], float64.

    Args:
        lenses: the masses of each lens: lenstronomy's name and the values.
        theta: (1, 2, 1, P) [arcsec], float64.
        compiled: common profiles by compiled kernels, on a processor.
    """
    masses = by_lenstronomy(MASS)
    keyed = [[((name, _whole(masses[name], k)), k) for name, k in row] for row in lenses]
    total = theta.new_zeros(len(lenses), *theta.shape[1:])
    for kind in dict.fromkeys(key for row in keyed for key, _ in row):
        name, whole = kind
        table = table_of(masses[name], [[k for key, k in row if key == kind] for row in keyed], theta.device)
        _add(masses[name], dict(zip(masses[name].whole, whole, strict=True)), table, theta, total, compiled=compiled)
    return total


def _add(
    component: type[Component], whole: dict[str, int], table: Table, theta: Tensor, total: Tensor, *, compiled: bool
) -> None:
    """Add the deflection of the components of a table to a total (B, 2, 1, P)."""
    name, (x, y) = component.lenstronomy, theta[0, :, 0]
    if name in _SWARMS:
        total += _SWARMS[name](x, y, table)[:, :, None]
        return
    for lens in columns(table):
        if compiled and name in COMPILED:
            add_deflection(name, x, y, lens, total[:, :, 0])
        else:
            total += component.formula(theta, **lens, **whole)


def table_of(component: type[Component], rows: list[list[Any]], device: torch.device) -> Table:
    """Return the numbers of the components of one kind, (B, K) each; rows that have fewer get some that vanish."""
    most = max(map(len, rows))
    first = next(row[0] for row in rows if row)
    names = [name for name in first if name not in component.whole]
    blank = {name: 0.0 if name in component.strengths else first[name] for name in names}
    numbers = np.array([[[k[n] for n in names] for k in row + [blank] * (most - len(row))] for row in rows])
    return dict(zip(names, torch.from_numpy(numbers).to(device).unbind(-1), strict=True))


def columns(table: Table) -> Iterator[Table]:
    """Yield the parameters (B,) of the first component of each scene, the second, ..."""
    for k in range(next(iter(table.values())).shape[1]):
        yield {name: values[:, k] for name, values in table.items()}


def _whole(component: type[Component], keywords: Keywords) -> tuple[int, ...]:
    """The whole numbers of a component, which are no tensors: those with the same ones go together."""
    return tuple(keywords[name] for name in component.whole)
