"""What elliptical light profiles share: the radius squared, and how it answers to shape and centre."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lensphys.model.component import Value, as_planes, offset


@dataclass(frozen=True)
class Ellipse:
    """Ellipses of one shape about one centre: R^2 = |w|^2 / q, w = z - e conj(z), q = 1 - |e|^2.

    Args:
        x: about the centre, (B, H, W) [arcsec].
        y: about the centre, (B, H, W) [arcsec].
        e1: ellipticity (1-q)/(1+q) cos 2 phi, (B, 1, 1).
        e2: ellipticity (1-q)/(1+q) sin 2 phi, (B, 1, 1).
    """

    x: Tensor
    y: Tensor
    e1: Tensor
    e2: Tensor

    @classmethod
    def at(cls, position: Tensor, e1: Value, e2: Value, center_x: Value, center_y: Value) -> Ellipse:
        """Return the ellipses through positions (B or 1, 2, H, W) [arcsec]."""
        return cls(*offset(position, center_x, center_y), as_planes(e1, position), as_planes(e2, position))

    @property
    def radius2(self) -> Tensor:
        """R^2 on the intermediate axis, (B, H, W) [arcsec^2]."""
        wx, wy = self._w
        return (wx**2 + wy**2) / self._q

    def slopes(self, by_radius2: Tensor) -> list[Tensor]:
        """Return the derivatives by e1, e2 and the centre of what changes by so much with R^2, (B, H, W) each."""
        (wx, wy), x, y, e1, e2 = self._w, self.x, self.y, self.e1, self.e2
        geometry = 2 * by_radius2 / self._q  # times Re(conj(w) dw): dw = -conj(z) by e1, -i conj(z) by e2
        w2 = wx**2 + wy**2
        return [
            geometry * (-wx * x + wy * y + w2 * e1 / self._q),
            geometry * (-wx * y - wy * x + w2 * e2 / self._q),
            geometry * (-wx * (1 - e1) + wy * e2),
            geometry * (wx * e2 - wy * (1 + e1)),
        ]

    @property
    def _w(self) -> tuple[Tensor, Tensor]:
        x, y, e1, e2 = self.x, self.y, self.e1, self.e2
        return x - (e1 * x + e2 * y), y - (e2 * x - e1 * y)

    @property
    def _q(self) -> Tensor:
        return 1 - self.e1**2 - self.e2**2
