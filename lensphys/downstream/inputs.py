"""What a reader looks at: images or numbers of each lens, each an object that says how it is made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat
from torch import Tensor

from lensphys.basics.checks import LensphysError
from lensphys.basics.settings import Strict
from lensphys.downstream.numbers import fit_numbers, named_parameters, nuisances
from lensphys.downstream.products import Results
from lensphys.evaluation.substructure import beyond, soft_kappa
from lensphys.observation import Observation
from lensphys.tracing.deflection import DeflectionField
from lensphys.tracing.grid import PixelGrid

Kind = Literal["images", "numbers"]


@dataclass(frozen=True)
class Material:
    """A set of images, and all that can be read of them.

    Args:
        name: what messages call it.
        observation: (N, 1, H, W) and how they were taken.
        product: name -> what that method makes of them.
        hr: true images (N, 1, sH, sW) [flux per pixel], or None.
        half_field: half side of what readers of images see, about the middle [arcsec]; all if None.
    """

    name: str
    observation: Observation
    product: Callable[[str], Results]
    hr: Tensor | None = None
    half_field: float | None = None

    def __len__(self) -> int:
        return len(self.observation)

    def cut(self, image: Tensor) -> Tensor:
        """Return the middle of images (N, C, H, W) at any sampling of the field, as wide as readers see."""
        grid = self.observation.camera.grid
        if self.half_field is None:
            return image
        height, width = grid.middle(self.half_field, self.half_field).shape
        factor = image.shape[-1] // grid.width
        top, left = (image.shape[-2] - factor * height) // 2, (image.shape[-1] - factor * width) // 2
        return image[..., top : top + factor * height, left : left + factor * width]

    def fine_grid(self, results: Results) -> PixelGrid:
        """Return the pixels of a product."""
        grid = self.observation.camera.grid
        return grid.resampled(results["image"].shape[-1] // grid.width)

    def in_peaks(self, image: Tensor, factor: int) -> Tensor:
        """Return images (N, 1, sH, sW) [flux per pixel], ``factor`` times as fine, in LR images' brightest pixels."""
        return image * factor**2 / self.observation.peak_unit


@dataclass(frozen=True)
class Seen:
    """What a reader gets.

    Args:
        values: images (N, C, H, W) or numbers (N, F), float32; numbers may be NaN.
        names: of the channels or numbers.
    """

    values: NDArray[np.float32]
    names: tuple[str, ...]

    @property
    def kind(self) -> Kind:
        """Which of the two it is."""
        return "images" if self.values.ndim == 4 else "numbers"


class InputSettings(Strict, ABC):
    """What a reader looks at."""

    gives: ClassVar[Kind] = "images"

    @property
    def products(self) -> tuple[str, ...]:
        """The names of the products that it is made of."""
        return ()

    @property
    def needs_hr(self) -> bool:
        """Whether it looks at the truth."""
        return False

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the inputs that it puts together; none of a simple one."""
        return ()

    @abstractmethod
    def seen(self, material: Material, part: Callable[[str], Seen]) -> Seen:
        """Return it, images (N, C, H, W) or numbers (N, F).

        Args:
            material: what it is made of.
            part: what the inputs that it puts together are, by their names.

        Raises:
            LensphysError: if the material lacks what it is made of.
        """


class SimpleInput(InputSettings):
    """What is made of the material alone."""

    def seen(self, material: Material, part: Callable[[str], Seen]) -> Seen:
        """Return what `read` does."""
        return self.read(material)

    @abstractmethod
    def read(self, material: Material) -> Seen:
        """Return it.

        Raises:
            LensphysError: if the material lacks what it is made of.
        """


class LRInput(SimpleInput):
    """The low-resolution image, in units of its brightest pixel."""

    kind: Literal["lr"]

    def read(self, material: Material) -> Seen:
        """Return images (N, 1, H, W)."""
        seen = material.observation
        return _images(material, seen.image * seen.weight / seen.peak_unit, "lr")


class HRInput(SimpleInput):
    """The true high-resolution image: the ceiling, which no user has."""

    kind: Literal["hr"]

    @property
    def needs_hr(self) -> bool:
        """It is the truth."""
        return True

    def read(self, material: Material) -> Seen:
        """Return images (N, 1, sH, sW).

        Raises:
            LensphysError: if there are none.
        """
        if material.hr is None:
            raise LensphysError(f"{material.name} has no HR images: take the inputs of kind hr away")
        factor = material.hr.shape[-1] // material.observation.image.shape[-1]
        return _images(material, material.in_peaks(material.hr, factor), "hr")


class PlaneInput(SimpleInput):
    """An image that a product holds.

    Args:
        kind: ``sr``, the super-resolved image; ``residual`` in units of the noise; ``kappa``, smoothed by three pixels;
            ``delta_kappa``, the same without the smooth lens.
        of_product: the name of the product.
        stretch: kappa is read as asinh(stretch kappa) / stretch.
    """

    kind: Literal["sr", "residual", "kappa", "delta_kappa"]
    of_product: Annotated[str, Field(alias="of")]
    stretch: PositiveFloat = 20.0

    @property
    def products(self) -> tuple[str, ...]:
        """The one that it is a plane of."""
        return (self.of_product,)

    def read(self, material: Material) -> Seen:
        """Return images (N, 1, H, W) of the product's own pixels."""
        results = material.product(self.of_product)
        if self.kind in ("kappa", "delta_kappa"):
            kappa = kappa_of(material, results, self.kind, self.of_product)
            return _images(material, (self.stretch * kappa).asinh() / self.stretch, self.kind)
        if self.kind == "residual":
            return _images(material, whitened_residual(material.observation, results), self.kind)
        image = torch.from_numpy(results["image"])[:, None]
        return _images(
            material, material.in_peaks(image, image.shape[-1] // material.observation.image.shape[-1]), "sr"
        )


class NumbersInput(SimpleInput):
    """The numbers of a fit: its parameters, chi^2, sub-halos, convergence beyond the smooth lens, and residual.

    Args:
        of_product: the name of the product.
        only: some of them, by name; all if null.
    """

    gives = "numbers"
    kind: Literal["numbers"]
    of_product: Annotated[str, Field(alias="of")]
    only: Annotated[list[str], Field(min_length=1)] | None = None

    @property
    def products(self) -> tuple[str, ...]:
        """The one whose numbers they are."""
        return (self.of_product,)

    def read(self, material: Material) -> Seen:
        """Return numbers (N, F).

        Raises:
            LensphysError: if the product has no number of a name that is asked for.
        """
        results = material.product(self.of_product)
        found = fit_numbers(material.observation, results, *_planes(material, results))
        if missing := [name for name in self.only or [] if name not in found]:
            raise LensphysError(
                f"the product {self.of_product!r} has no number {missing[0]!r}, only {', '.join(found)}: choose others"
            )
        return _numbers({name: found[name] for name in self.only or found})


class NuisanceInput(SimpleInput):
    """Flux, radius of the arcs and signal-to-noise of the LR image: what must not tell the classes apart."""

    gives = "numbers"
    kind: Literal["nuisances"]

    def read(self, material: Material) -> Seen:
        """Return numbers (N, 3)."""
        return _numbers(nuisances(material.observation))


class TogetherInput(InputSettings):
    """Several inputs at once: channels of images, interpolated to the finest, or numbers side by side.

    Args:
        of_inputs: their names.
    """

    kind: Literal["together"]
    of_inputs: Annotated[list[str], Field(alias="of", min_length=2)]

    @property
    def parts(self) -> tuple[str, ...]:
        """The others."""
        return tuple(self.of_inputs)

    def seen(self, material: Material, part: Callable[[str], Seen]) -> Seen:
        """Return the others as one.

        Raises:
            LensphysError: if the material lacks what they are made of, or some are images and others numbers.
        """
        return joined([(name, part(name)) for name in self.of_inputs])


AnyInput = Annotated[
    LRInput | HRInput | PlaneInput | NumbersInput | NuisanceInput | TogetherInput, Field(discriminator="kind")
]


def joined(parts: Sequence[tuple[str, Seen]]) -> Seen:
    """Return several inputs as one.

    Args:
        parts: their names, and what they are.

    Raises:
        LensphysError: if some are images and others numbers.
    """
    kinds = {seen.kind for _, seen in parts}
    if len(kinds) > 1:
        listed = ", ".join(f"{name} ({seen.kind})" for name, seen in parts)
        raise LensphysError(f"images and numbers cannot be read together: {listed}")
    names = tuple(f"{name}: {channel}" for name, seen in parts for channel in seen.names)
    if kinds == {"numbers"}:
        return Seen(np.concatenate([seen.values for _, seen in parts], axis=1), names)
    size = max((seen.values.shape[-2:] for _, seen in parts), key=lambda shape: shape[0] * shape[1])
    images = [F.interpolate(torch.from_numpy(s.values), size, mode="bilinear", align_corners=False) for _, s in parts]
    return Seen(torch.cat(images, dim=1).numpy(), names)


def kappa_of(material: Material, results: Results, kind: str, name: str) -> Tensor:
    """Return the convergence of a product, or that beyond its smooth lens, smoothed, (N, 1, sH, sW).

    Raises:
        LensphysError: if it has no deflection, or names no SIE and shear.
    """
    if "alpha" not in results:
        raise LensphysError(f"the product {name!r} has no lens, so no {kind}: choose a fit or an amortised network")
    field = DeflectionField(torch.from_numpy(results["alpha"]), material.fine_grid(results))
    if kind == "kappa":
        return soft_kappa(field)
    found = beyond(field, named_parameters(results))
    if found is None:
        raise LensphysError(f"the product {name!r} fits no SIE with shear, beyond which delta_kappa would be")
    return found.nan_to_num(0.0)


def whitened_residual(observation: Observation, results: Results) -> Tensor:
    """Return image less model in units of the noise, (N, 1, H, W)."""
    residual = torch.from_numpy(results["residual"])[:, None]
    return (residual * observation.weight / observation.noise.variance(observation.image).sqrt()).nan_to_num(0.0)


def _planes(material: Material, results: Results) -> tuple[Tensor | None, PixelGrid, Tensor]:
    known = "alpha" in results and "parameters" in results
    kappa = kappa_of(material, results, "delta_kappa", "") if known else None
    return kappa, material.fine_grid(results), whitened_residual(material.observation, results)


def _images(material: Material, image: Tensor, name: str) -> Seen:
    return Seen(material.cut(image).contiguous().float().numpy(), (name,))


def _numbers(found: dict[str, NDArray[np.float64]]) -> Seen:
    return Seen(np.stack(list(found.values()), axis=1).astype(np.float32), tuple(found))
