"""What turning an image does to the parameters of its lens: eight orientations are eight looks at the same lens."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from lensphys.model.component import TURNING

ORIENTATIONS = 8


class TurnedBack:
    """Vectors of a lens in an image that `orientation.transformed` turned -> vectors of the lens as it is.

    Parameters are in the symmetric bounds that they are declared with, so that an unconstrained value changes its sign
    with the physical one. What is neither a place nor an ellipticity or shear stays.

    Args:
        names: of the parameters, ``member.parameter``.
        g: the element of the square's group, 0 to 7.
    """

    def __init__(self, names: Sequence[str], g: int) -> None:
        self.index, self.sign = list(range(len(names))), [1.0] * len(names)
        place = {name: i for i, name in enumerate(names)}
        members = dict.fromkeys(name.rsplit(".", 1)[0] for name in names)
        for member in members:
            x, y = place.get(f"{member}.center_x"), place.get(f"{member}.center_y")
            for _ in range(g % 4):
                if x is not None and y is not None:  # turned by a quarter: x' = y, y' = -x
                    self._swap(x, y)
                    self.sign[x] *= -1
            if g >= 4 and x is not None:
                self.sign[x] *= -1
            for first, second, times in TURNING:
                if times != 2:  # as fast as the image; networks guess no multipoles
                    continue
                one, two = place.get(f"{member}.{first}"), place.get(f"{member}.{second}")
                if one is not None and two is not None:
                    quarter = (-1.0) ** (g % 4)
                    self.sign[one] *= quarter
                    self.sign[two] *= quarter * (-1.0 if g >= 4 else 1.0)

    def _swap(self, i: int, j: int) -> None:
        self.index[i], self.index[j] = self.index[j], self.index[i]
        self.sign[i], self.sign[j] = self.sign[j], self.sign[i]

    def __call__(self, vectors: Tensor) -> Tensor:
        """Return unconstrained vectors (B, P) of the lens as it is."""
        return vectors[:, self.index] * vectors.new_tensor(self.sign)

    def spread(self, spreads: Tensor) -> Tensor:
        """Return ln standard deviations (B, P), which have no sign."""
        return spreads[:, self.index]
