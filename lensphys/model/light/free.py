"""A source of any shape: a Sersic profile times the exponential of a Gaussian random field."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from lensphys.basics.rows import Rows
from lensphys.model.component import LightProfile, as_planes
from lensphys.model.field import Modes
from lensphys.model.light.sersic import Sersic, sersic_b

_CAP = 3.0  # times the brightness at 0.3 R_sersic: what a steeper cusp holds is left to the field
FLOOR = 1e-3  # of the same: light for the field to work on where the Sersic has none
_EDGE = 0.05  # of the half side: over which the frame's light fades out
_RANGE = -8.0, 6.0  # of the field: e-folds that a galaxy may differ from its Sersic
_BEND = 4.0  # how sharply the field turns into these bounds


@dataclass(frozen=True)
class Frame(Rows):
    """The square of the source plane in which a source is free.

    Args:
        center_x: (B,) [arcsec].
        center_y: (B,) [arcsec].
        half_side: (B,) [arcsec].
        reference: (B,) [flux / arcsec^2], the Sersic's brightness at 0.3 R_sersic: the unit of cap and floor.
    """

    center_x: Tensor
    center_y: Tensor
    half_side: Tensor
    reference: Tensor

    @classmethod
    def from_sersic(cls, sersic: Sersic, half_side: Tensor) -> Frame:
        """Return the frame of some half side (B,) [arcsec] about a Sersic, each of its values (B,)."""
        n = torch.as_tensor(sersic.n_sersic)
        return cls(
            torch.as_tensor(sersic.center_x),
            torch.as_tensor(sersic.center_y),
            half_side,
            torch.as_tensor(sersic.amp) * torch.exp(-sersic_b(n) * (0.3 ** (1 / n) - 1)),
        )

    def inside(self, beta: Tensor) -> tuple[Tensor, Tensor]:
        """Return positions (B, 2, H, W) in the frame, 0 to 1, and its window (B, 1, H, W), 0 outside."""
        centre = torch.stack([self.center_x, self.center_y], dim=1)[:, :, None, None]
        place = (beta - centre) / self.half_side[:, None, None, None]
        window = ((1 - place.abs().amax(1, keepdim=True)) / _EDGE + 1).clamp(0, 1)
        return 0.5 * (place + 1), window


@dataclass(frozen=True)
class FreeSource(LightProfile):
    """Surface brightness (Sersic + a floor) exp(g), g a Gaussian random field in a frame; dark outside of the frame.

    Positive by construction, and with g = 0 the Sersic: the strength of the prior follows the light by itself.

    Args:
        sersic: the profile, each of its values (B,).
        g: coefficients of the field, (B, M).
        modes: of the field.
        frame: where it is.
    """

    sersic: Sersic
    g: Tensor
    modes: Modes
    frame: Frame
    parameters = Sersic.parameters

    def __call__(self, position: Tensor) -> Tensor:
        """Return the surface brightness (B, 1, H, W) at beta (B or 1, 2, H, W) [arcsec]."""
        place, window = self.frame.inside(position)
        field = self.modes.field(self.g.to(place), place)
        return self._envelope(position) * _bounded(field).exp() * window

    def by_field(self, position: Tensor) -> Tensor:
        """Return the derivative of the brightness by the field, (B, 1, H, W), at beta (B or 1, 2, H, W) [arcsec]."""
        place, window = self.frame.inside(position)
        field = self.modes.field(self.g.to(place), place)
        return self._envelope(position) * _bounded(field).exp() * _slope(field) * window

    def derivatives(self, position: Tensor, names: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        """Return the brightness (B, 1, H, W) and its derivatives by the Sersic's parameters, (B, P, 1, H, W)."""
        place, window = self.frame.inside(position)
        factor = _bounded(self.modes.field(self.g, place)).exp() * window
        sersic, columns = self.sersic.derivatives(position, names)
        below = (sersic < self._cap(position)).to(sersic)
        return self._envelope(position) * factor, columns * (below * factor)[:, None]

    def gradient(self, beta: Tensor) -> Tensor:
        """Return the gradient of the brightness by beta, (B, 2, H, W) [flux / arcsec^3]."""
        place, window = self.frame.inside(beta)
        field, gradient = self.modes.field_and_gradient(self.g, place)
        steep = gradient * _slope(field) / (2 * self.frame.half_side)[:, None, None, None]
        factor = _bounded(field).exp() * window
        below = (self.sersic(beta) < self._cap(beta)).to(field)
        return factor * (self.sersic.gradient(beta) * below + self._envelope(beta) * steep)

    def _cap(self, beta: Tensor) -> Tensor:
        return _CAP * as_planes(self.frame.reference, beta)[:, None]

    def _envelope(self, beta: Tensor) -> Tensor:
        return torch.minimum(self.sersic(beta), self._cap(beta)) + FLOOR / _CAP * self._cap(beta)


def _bounded(field: Tensor) -> Tensor:
    """The field, bent into its bounds: a fit that has run into them finds its way back."""
    low, high = _RANGE
    return low + softplus(field - low, _BEND) - softplus(field - high, _BEND)


def _slope(field: Tensor) -> Tensor:
    """Its derivative by the field."""
    low, high = _RANGE
    return torch.sigmoid(_BEND * (field - low)) - torch.sigmoid(_BEND * (field - high))
