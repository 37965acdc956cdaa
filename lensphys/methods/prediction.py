"""What every method returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from lensphys.checks import check_images, check_same_shape
from lensphys.deflection import DeflectionField
from lensphys.grid import PixelGrid
from lensphys.observation import Camera, Observation


@dataclass(frozen=True)
class Prediction:
    """A super-resolved batch, and the physics behind it where the method has any.

    Args:
        image: (B, 1, sH, sW) [flux per pixel], in the unit of the low-resolution image; no noise, no pedestal.
        camera: pixels and PSF of ``image``.
        observed: (B, 1, H, W) [flux per pixel], the clean low-resolution image that the method predicts.
        deflection: the deflection field on the pixels of ``image``; None for methods without one.
        source: beta (B, 2, H', W') [arcsec] -> surface brightness (B, 1, H', W'); None for methods without one.
        parameters: named physical parameters, each (B,).
        fitted: how many numbers were fitted to each image, one for all or (B,).
        sigma: standard deviation of ``image``, (B, 1, sH, sW) [flux per pixel]; None for methods without one.
        constrained: share of the deflection's prior variance that the data remove, (B, 1, sH, sW), 0 (prior) to 1.

    Raises:
        LensphysError: if shapes do not fit.
    """

    image: Tensor
    camera: Camera
    observed: Tensor
    deflection: DeflectionField | None = None
    source: Callable[[Tensor], Tensor] | None = None
    parameters: dict[str, Tensor] = field(default_factory=dict)
    fitted: int | Tensor = 0
    sigma: Tensor | None = None
    constrained: Tensor | None = None

    def __post_init__(self) -> None:
        check_images("image", self.image)
        check_same_shape("image", self.image.shape[-2:], "camera grid", self.camera.grid.shape)

    def reduced_chi2(self, observation: Observation) -> Tensor:
        """Return chi^2 of the predicted LR image per degree of freedom (counted pixels less fitted numbers), (B,)."""
        return observation.chi2(self.observed) / (observation.counted - self.fitted).clamp(min=1)

    def source_image(self, grid: PixelGrid) -> Tensor | None:
        """Return the source on a grid of the source plane, (B, 1, H', W') [flux / arcsec^2], or None."""
        return None if self.source is None else self.source(grid.positions(like=self.image))


def joined(parts: list[Prediction]) -> Prediction:
    """Return the predictions of the parts of a batch as one.

    Deflection and source stay functions: each part answers for its own images.
    """
    if len(parts) == 1:
        return parts[0]
    first = parts[0]

    def together(field: Callable[[Prediction], Tensor | None]) -> Tensor | None:
        found = [x for part in parts if (x := field(part)) is not None]
        return torch.cat(found) if found else None

    fitted = [torch.as_tensor(p.fitted, device=p.image.device).expand(len(p.image)) for p in parts]
    parameters = {name: torch.cat([p.parameters[name] for p in parts]) for name in first.parameters}
    image, observed = torch.cat([p.image for p in parts]), torch.cat([p.observed for p in parts])
    return Prediction(
        image,
        first.camera,
        observed,
        _joined_fields([p.deflection for p in parts]),
        _joined_sources([(p.source, len(p.image)) for p in parts]),
        parameters,
        torch.cat(fitted),
        together(lambda p: p.sigma),
        together(lambda p: p.constrained),
    )


def _joined_fields(fields: list[DeflectionField | None]) -> DeflectionField | None:
    known = [f for f in fields if f is not None]
    if not known:
        return None
    sizes = [len(f.alpha) for f in known]
    formulas = [f.formula for f in known if f.formula is not None]
    centre = torch.cat([f.centre for f in known if f.centre is not None]) if known[0].centre is not None else None

    def formula(theta: Tensor) -> Tensor:
        shares = theta.split(sizes) if len(theta) > 1 else [theta] * len(sizes)
        return torch.cat([f(x) for f, x in zip(formulas, shares, strict=True)])

    alpha = torch.cat([f.alpha for f in known])
    return DeflectionField(alpha, known[0].grid, centre, formula if formulas else None)


def _joined_sources(
    sources: list[tuple[Callable[[Tensor], Tensor] | None, int]],
) -> Callable[[Tensor], Tensor] | None:
    known = [(source, size) for source, size in sources if source is not None]
    if not known:
        return None
    sizes = [size for _, size in known]

    def source(beta: Tensor) -> Tensor:
        shares = beta.split(sizes) if len(beta) > 1 else [beta] * len(sizes)
        return torch.cat([f(x) for (f, _), x in zip(known, shares, strict=True)])

    return source


class Method(Protocol):
    """One way to super-resolve: interpolation, a network, a fit."""

    def predict(self, observation: Observation, scale: int) -> Prediction:
        """Return the super-resolved batch, with pixels ``scale`` times as small."""
        ...
