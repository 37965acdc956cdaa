"""A source of any shape: a Sersic profile times the exponential of a Gaussian random field."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor
from torch.nn.functional import softplus

from lensphys.basics.rows import Rows
from lensphys.basics.settings import Strict
from lensphys.model.component import CENTRE, LightProfile, Named, as_planes, check_one
from lensphys.model.field import Modes
from lensphys.model.light.sersic import Sersic, sersic_b
from lensphys.tracing.grid import PixelGrid

_DRAWN, _LARGEST = 256, 1024  # pixels along a frame, and of all, where its light is given away as an image


class Envelope(Strict):
    """What a field multiplies, and how far: a Sersic without its cusp, and a floor of light.

    Args:
        cap: times the brightness at 0.3 R_sersic: what a steeper cusp holds is left to the field.
        floor: of the same: light for the field to work on where the Sersic has none.
        edge: of the frame's half side, over which field and floor fade out beyond it.
        fainter: than its Sersic a galaxy may be, at most [e-folds].
        brighter: than its Sersic, at most [e-folds].
        bend: how sharply the field turns into these bounds [1 / e-folds].
    """

    cap: PositiveFloat = 3.0
    floor: NonNegativeFloat = 1e-3
    edge: PositiveFloat = 0.25
    fainter: PositiveFloat = 8.0
    brighter: PositiveFloat = 6.0
    bend: PositiveFloat = 4.0

    def light(self, profile: Tensor, unit: Tensor, window: Tensor, field: Tensor) -> Tensor:
        """Return the brightness that a field makes of that of a profile.

        Args:
            profile: brightness of the Sersic, (B, 1, H, W) [flux / arcsec^2].
            unit: of cap and floor, (B, 1, 1, 1) [flux / arcsec^2].
            window: of field and floor, (B, 1, H, W), 1 in the frame and 0 far from it.
            field: (B, 1, H, W) [e-folds].
        """
        lit = torch.minimum(profile, self.cap * unit) + self.floor * unit * window
        return lit * self.bounded(field * window).exp()

    def by_profile(self, profile: Tensor, unit: Tensor, window: Tensor, field: Tensor) -> Tensor:
        """Return the derivative of `light` by the brightness of the profile, (B, 1, H, W)."""
        return (profile < self.cap * unit).to(profile) * self.bounded(field * window).exp()

    def by_field(self, profile: Tensor, unit: Tensor, window: Tensor, field: Tensor) -> Tensor:
        """Return the derivative of `light` by the field, (B, 1, H, W) [flux / arcsec^2 per e-fold]."""
        return self.light(profile, unit, window, field) * self.slope(field * window) * window

    def by_window(self, profile: Tensor, unit: Tensor, window: Tensor, field: Tensor) -> Tensor:
        """Return the derivative of `light` by the window, (B, 1, H, W) [flux / arcsec^2]."""
        bent = field * window
        floor = self.floor * unit * self.bounded(bent).exp()
        return floor + self.light(profile, unit, window, field) * self.slope(bent) * field

    def bounded(self, field: Tensor) -> Tensor:
        """Return the field [e-folds], of any shape, bent into its bounds: a fit that ran into them finds back."""
        low, high = -self.fainter, self.brighter
        return low + softplus(field - low, self.bend) - softplus(field - high, self.bend)

    def slope(self, field: Tensor) -> Tensor:
        """Return the derivative of `bounded` by the field [e-folds], of the field's shape."""
        low, high = -self.fainter, self.brighter
        return torch.sigmoid(self.bend * (field - low)) - torch.sigmoid(self.bend * (field - high))


@dataclass(frozen=True)
class Frame(Rows):
    """The square of the source plane in which a source is free.

    Args:
        center_x: (B,) [arcsec].
        center_y: (B,) [arcsec].
        half_side: (B,) [arcsec].
        reference: (B,) [flux / arcsec^2], the Sersic's brightness at 0.3 R_sersic: the unit of cap and floor.
        envelope: of the source there.
        radii: its half side, where it moves and grows with its Sersic, (B,) [R_sersic]; None where it stays.
    """

    center_x: Tensor
    center_y: Tensor
    half_side: Tensor
    reference: Tensor
    envelope: Envelope = Envelope()
    radii: Tensor | None = None

    @classmethod
    def from_sersic(cls, sersic: Sersic, half_side: Tensor, envelope: Envelope = Envelope()) -> Frame:
        """Return the frame of some half side (B,) [arcsec] about a Sersic, each of its values (B,); it stays."""
        n = torch.as_tensor(sersic.n_sersic)
        return cls(
            torch.as_tensor(sersic.center_x),
            torch.as_tensor(sersic.center_y),
            half_side,
            torch.as_tensor(sersic.amp) * torch.exp(-sersic_b(n) * (0.3 ** (1 / n) - 1)),
            envelope,
        )

    def moving(self, sersic: Sersic) -> Frame:
        """Return the same, as it moves and grows with the Sersic that it is about."""
        return replace(self, radii=self.half_side / torch.as_tensor(sersic.R_sersic))

    def about(self, sersic: Sersic) -> Frame:
        """Return where it is about another Sersic."""
        if self.radii is None:
            return self
        x, y, radius = map(torch.as_tensor, (sersic.center_x, sersic.center_y, sersic.R_sersic))
        return replace(self, center_x=x, center_y=y, half_side=self.radii * radius)

    def drifts(self, beta: Tensor) -> dict[str, Tensor]:
        """Return how a place of the frame moves at beta, by the Sersic's parameters, each (B, 2, H, W) [arcsec]."""
        if self.radii is None:
            return {}
        x, y = torch.eye(2).to(beta)[:, None, :, None, None].expand(-1, len(beta), -1, 1, 1)
        return {"center_x": x, "center_y": y, "R_sersic": self._from_centre(beta) * self.radii[:, None, None, None]}

    def inside(self, beta: Tensor) -> tuple[Tensor, Tensor]:
        """Return positions (B, 2, H, W), 0 to 1 in the frame, and its window (B, 1, H, W): 1 there, 0 far from it."""
        place = self._from_centre(beta)
        window = ((1 - place.abs().amax(1, keepdim=True)) / self.envelope.edge + 1).clamp(0, 1)
        return 0.5 * (place + 1), window

    def fading(self, beta: Tensor, window: Tensor) -> Tensor:
        """Return the gradient of the window (B, 1, H, W) that is at beta by beta, (B, 2, H, W) [1 / arcsec]."""
        along = self._from_centre(beta)
        nearest = along.abs() == along.abs().amax(1, keepdim=True)  # the edge that the field fades out towards
        steep = along.sign() / (self.envelope.edge * self.half_side)[:, None, None, None]
        steep = steep * nearest / nearest.sum(1, keepdim=True)
        return torch.where((window > 0) & (window < 1), -steep, 0.0)

    def _from_centre(self, beta: Tensor) -> Tensor:
        """Positions from its centre, (B, 2, H, W) [half sides]."""
        centre = torch.stack([self.center_x, self.center_y], dim=1)[:, :, None, None]
        return (beta - centre) / self.half_side[:, None, None, None]


@dataclass(frozen=True)
class FreeSource(LightProfile):
    """Surface brightness (Sersic + a floor) exp(g), g a Gaussian random field in a frame; beyond it the Sersic.

    Positive by construction, and with g = 0 the Sersic: the strength of the prior follows the light by itself. A frame
    that ended in darkness would make the lens magnify what is in it for the light about it.

    Args:
        sersic: the profile, each of its values (B,).
        g: coefficients of the field, (B, M) [e-folds].
        modes: of the field.
        frame: where it is.
    """

    sersic: Sersic
    g: Tensor
    modes: Modes
    frame: Frame
    parameters = Sersic.parameters

    @property
    def half_side(self) -> Tensor:
        """Of what holds its frame and its Sersic, (B,) [arcsec]."""
        return torch.maximum((1 + self.frame.envelope.edge) * self.frame.half_side, self.sersic.half_side)

    @property
    def center_x(self) -> Tensor:
        """Of its frame, (B,) [arcsec]."""
        return self.frame.center_x

    @property
    def center_y(self) -> Tensor:
        """Of its frame, (B,) [arcsec]."""
        return self.frame.center_y

    def __call__(self, position: Tensor) -> Tensor:
        """Return the surface brightness (B, 1, H, W) at beta (B or 1, 2, H, W) [arcsec]."""
        place, window = self.frame.inside(position)
        return self.frame.envelope.light(self.sersic(position), self._unit(position), window, self._field(place))

    def by_field(self, position: Tensor) -> Tensor:
        """Return the derivative of the brightness by the field, (B, 1, H, W), at beta (B or 1, 2, H, W) [arcsec]."""
        place, window = self.frame.inside(position)
        return self.frame.envelope.by_field(self.sersic(position), self._unit(position), window, self._field(place))

    def derivatives(self, position: Tensor, names: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        """Return the brightness (B, 1, H, W) and its derivatives by the Sersic's parameters, (B, P, 1, H, W)."""
        sersic, columns = self.sersic.derivatives(position, names)
        known, steep = self._known(position, sersic, sloping=self.frame.radii is not None)
        columns = columns * self.frame.envelope.by_profile(*known)[:, None]
        for name, drift in self.frame.drifts(position).items():
            if name in names:
                columns[:, names.index(name)] -= (steep * drift).sum(1, keepdim=True)
        return self.frame.envelope.light(*known), columns

    def gradient(self, beta: Tensor) -> Tensor:
        """Return the gradient of the brightness by beta, (B, 2, H, W) [flux / arcsec^3]."""
        known, steep = self._known(beta, self.sersic(beta), sloping=True)
        return self.sersic.gradient(beta) * self.frame.envelope.by_profile(*known) + steep

    def to_lenstronomy(self) -> list[Named]:
        """Return it in lenstronomy's words: an image of it, of one lens.

        Raises:
            LensphysError: if it is of several lenses.
        """
        check_one("the source is", len(self.g))
        frame, whole = self.frame, 2 * float(self.half_side)
        count = min(_LARGEST, math.ceil(_DRAWN * whole / (2 * float(frame.half_side))))
        grid = PixelGrid(count, count, whole / count)
        at = torch.stack([frame.center_x, frame.center_y], dim=1)[:, :, None, None]
        image = self(grid.positions(like=self.g) + at)[0, 0].cpu().numpy()
        place = {name: float(getattr(frame, name)) for name in CENTRE}
        return [("INTERPOL", {"image": image, "amp": 1.0, "phi_G": 0.0, "scale": grid.scale} | place)]

    def _known(self, beta: Tensor, sersic: Tensor, *, sloping: bool) -> tuple[tuple[Tensor, ...], Tensor]:
        """What an envelope makes light of, and the gradient of the light by beta but for that of the Sersic."""
        frame, (place, window) = self.frame, self.frame.inside(beta)
        if not sloping:
            return (sersic, self._unit(beta), window, self._field(place)), torch.zeros_like(beta)
        field, gradient = self.modes.field_and_gradient(self.g.to(place), place)
        known = sersic, self._unit(beta), window, field
        steep = gradient / (2 * frame.half_side)[:, None, None, None] * frame.envelope.by_field(*known)
        return known, steep + frame.fading(beta, window) * frame.envelope.by_window(*known)

    def _field(self, place: Tensor) -> Tensor:
        return self.modes.field(self.g.to(place), place)

    def _unit(self, beta: Tensor) -> Tensor:
        return as_planes(self.frame.reference, beta)[:, None]
