"""What every method returns."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from lensphys.basics.checks import check_images, check_same_shape
from lensphys.observation import Camera, Observation
from lensphys.tracing.deflection import DeflectionField
from lensphys.tracing.grid import PixelGrid

# of a sub-halo: place and Einstein radius with their errors [arcsec], and what it gains in ln likelihood
BODY = ("x", "y", "theta_E", "x_error", "y_error", "theta_E_error", "gain")
QUALITIES = ("good", "suspect", "bad")
_SOURCE_PIXELS = 100  # along the side of an image of a source


@dataclass(frozen=True)
class Verdict:
    """What a fit says of itself.

    Args:
        quality: ``good``, ``suspect`` or ``bad``.
        reasons: a sentence each, why it is not good; of a good fit mostly none, else what is to be known of it.
    """

    quality: Literal["good", "suspect", "bad"]
    reasons: tuple[str, ...] = ()

    def doubted(self, *reasons: str) -> Verdict:
        """Return the verdict with more reasons; with any it is not good."""
        if not reasons:
            return self
        return Verdict("bad" if self.quality == "bad" else "suspect", (*self.reasons, *reasons))


@dataclass(frozen=True)
class Covariance:
    """How the errors of fitted parameters hang together.

    Args:
        names: of P parameters.
        values: (B, P, P), in the products of their units; NaN for those without an error.
    """

    names: tuple[str, ...]
    values: Tensor

    def among(self, names: Sequence[str]) -> Tensor:
        """Return the covariance of parameters in this order, (B, len(names), len(names)), NaN for those not here."""
        place = {name: i for i, name in enumerate(self.names)}
        there = [i for i, name in enumerate(names) if name in place]
        own = [place[names[i]] for i in there]
        found = self.values.new_full((len(self.values), len(names), len(names)), torch.nan)
        at = torch.tensor(there, dtype=torch.long)
        found[:, at[:, None], at] = self.values[:, own][:, :, own]
        return found


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
        errors: standard deviations of parameters, by the same names, each (B,), in the same units.
        bodies: the sub-halos, (B, K, 7), the columns of `BODY`, NaN where an image has fewer; None for methods that
            look for none.
        verdicts: what each image's fit says of itself; empty for methods that cannot tell.
        lens_light: the light of the lens galaxy, (B, 1, H, W) [flux per pixel], zero where none was found; None for
            methods that do not look for it.
        noise: standard deviation of each low-resolution pixel by itself, (B, 1, H, W) [flux per pixel], NaN
            where a pixel was left out; None where those are the observation's.
        units: of parameters, by their names; those that have none may be left out.
        numbers: what else is known of each fit, by its name, each (B,): ``evidence``, ln of it; ``subhalos``, how many
            were found, and ``false_subhalos``, how many of a smooth lens would be, by calibration; ``best_gain`` and
            ``substructure_evidence``, what of substructure the image shows; ``noise_scale``, the noise of the sky over
            the error map where they differ, else 1; ``left_out``, pixels of other objects and bad ones.
        covariance: of the parameters that were fitted; None for methods that fit none.

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
    errors: dict[str, Tensor] = field(default_factory=dict)
    bodies: Tensor | None = None
    verdicts: list[Verdict] = field(default_factory=list)
    lens_light: Tensor | None = None
    noise: Tensor | None = None
    units: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, Tensor] = field(default_factory=dict)
    covariance: Covariance | None = None

    def __post_init__(self) -> None:
        check_images("image", self.image)
        check_same_shape("image", self.image.shape[-2:], "camera grid", self.camera.grid.shape)

    def reduced_chi2(self, observation: Observation) -> Tensor:
        """Return chi^2 of the predicted LR image per degree of freedom (unmasked pixels less fitted numbers), (B,)."""
        expected = observation.renewed(self.observed).noise.expected(self.observed)
        residual = (observation.image - expected) / self.noise_of(observation)
        counted = residual.isfinite().flatten(1).sum(1)
        return residual.nan_to_num(0.0, 0.0, 0.0).square().flatten(1).sum(1) / (counted - self.fitted).clamp(min=1)

    def noise_of(self, observation: Observation) -> Tensor:
        """Return the noise of each LR pixel by itself, (B, 1, H, W) [flux per pixel], NaN where left out."""
        return observation.renewed(self.observed).sigma(self.observed) if self.noise is None else self.noise

    def source_image(self, grid: PixelGrid) -> Tensor | None:
        """Return the source on a grid of the source plane, (B, 1, H', W') [flux / arcsec^2], or None."""
        return None if self.source is None else self.source(grid.positions(like=self.image))


def source_grid(image: PixelGrid) -> PixelGrid:
    """Return the pixels on which a source is shown: the inner half of an image's field, where sources of lenses are."""
    return PixelGrid(_SOURCE_PIXELS, _SOURCE_PIXELS, image.radius / _SOURCE_PIXELS)


_TENSORS = ("image", "observed", "sigma", "constrained", "lens_light", "noise")
_NAMED = ("parameters", "numbers", "errors")


def joined(parts: list[Prediction], rows: list[Tensor] | None = None) -> Prediction:
    """Return the predictions of the parts of a batch as one.

    Deflection and source stay functions: each part answers for its own images.

    Args:
        parts: one each.
        rows: which images of the batch each part is of, (n,) each; one after the other if None.
    """
    if len(parts) == 1 and (rows is None or bool((rows[0].diff() > 0).all())):
        return parts[0]
    order = torch.arange(sum(len(p.image) for p in parts)) if rows is None else torch.cat(rows).argsort().cpu()
    sizes = [len(p.image) for p in parts]
    verdicts = [v for p in parts for v in p.verdicts]
    return Prediction(
        camera=_joined_cameras([p.camera for p in parts], order),
        deflection=_joined_fields([p.deflection for p in parts], sizes, order),
        source=_joined_sources([p.source for p in parts], sizes, order),
        fitted=torch.cat([torch.as_tensor(p.fitted, device=p.image.device).expand(len(p.image)) for p in parts])[order],
        covariance=_joined_covariances([p.covariance for p in parts], order),
        bodies=_joined_bodies([p.bodies for p in parts], order),
        units=dict(itertools.chain.from_iterable(p.units.items() for p in parts)),
        verdicts=[verdicts[i] for i in order.tolist()] if len(verdicts) == len(order) else [],
        **{name: _joined_tensors([getattr(p, name) for p in parts], order) for name in _TENSORS},  # type: ignore[arg-type]
        **{name: _joined_names([getattr(p, name) for p in parts], parts, order) for name in _NAMED},  # type: ignore[arg-type]
    )


def _joined_cameras(cameras: list[Camera], order: Tensor) -> Camera:
    psf, *others = (camera.psf for camera in cameras)
    return cameras[0] if psf.shared else replace(cameras[0], psf=psf.joined(others, order))


def _joined_tensors(tensors: list[Tensor | None], order: Tensor) -> Tensor | None:
    """All of them; None where a part has none."""
    known = [x for x in tensors if x is not None]
    return torch.cat(known)[order.to(known[0].device)] if len(known) == len(tensors) else None


def _joined_names(values: list[dict[str, Tensor]], parts: list[Prediction], order: Tensor) -> dict[str, Tensor]:
    """Each name that any part has, NaN where a part lacks it."""
    lacking = [torch.full((len(p.image),), torch.nan).to(p.image) for p in parts]
    found = {
        n: [v.get(n, none) for v, none in zip(values, lacking, strict=True)]
        for n in dict.fromkeys(itertools.chain(*values))
    }
    return {n: torch.cat(x)[order.to(x[0].device)] for n, x in found.items()}


def _joined_covariances(covariances: list[Covariance | None], order: Tensor) -> Covariance | None:
    known = [c for c in covariances if c is not None]
    if len(known) < len(covariances):
        return None
    names = tuple(dict.fromkeys(itertools.chain.from_iterable(c.names for c in known)))
    return Covariance(names, torch.cat([c.among(names) for c in known])[order.to(known[0].values.device)])


def _joined_fields(fields: list[DeflectionField | None], sizes: list[int], order: Tensor) -> DeflectionField | None:
    known = [f for f in fields if f is not None]
    if len(known) < len(fields):
        return None
    formulas = [f.formula for f in known if f.formula is not None]
    centres = [f.centre for f in known if f.centre is not None]
    alpha = torch.cat([f.alpha for f in known])[order]
    centre = torch.cat(centres)[order] if len(centres) == len(known) else None
    formula = _shared(formulas, sizes, order) if len(formulas) == len(known) else None
    return DeflectionField(alpha, known[0].grid, centre, formula)


def _joined_sources(
    sources: list[Callable[[Tensor], Tensor] | None], sizes: list[int], order: Tensor
) -> Callable[[Tensor], Tensor] | None:
    known = [source for source in sources if source is not None]
    return _shared(known, sizes, order) if len(known) == len(sources) else None


def _shared(functions: list[Callable[[Tensor], Tensor]], sizes: list[int], order: Tensor) -> Callable[[Tensor], Tensor]:
    """A function of positions (B or 1, 2, H, W) of which each part answers for its own images."""
    back = order.argsort()

    def function(position: Tensor) -> Tensor:
        shares = position[back].split(sizes) if len(position) > 1 else [position] * len(sizes)
        return torch.cat([f(x) for f, x in zip(functions, shares, strict=True)])[order]

    return function


def _joined_bodies(bodies: list[Tensor | None], order: Tensor) -> Tensor | None:
    known = [b for b in bodies if b is not None]
    if len(known) < len(bodies):
        return None
    most = max(b.shape[1] for b in known)
    filled = [F.pad(b, (0, 0, 0, most - b.shape[1]), value=torch.nan) for b in known]
    return torch.cat(filled)[order]


class Method(Protocol):
    """One way to super-resolve: interpolation, a network, a fit."""

    def predict(self, observation: Observation, scale: int) -> Prediction:
        """Return the super-resolved batch, with pixels ``scale`` times as small."""
        ...
