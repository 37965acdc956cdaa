"""What noise laws and PSFs share: numbers that differ from image to image, cut and moved with their images."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor


class PerImage:
    """An object whose tensors have one entry for each image of a batch (B, ...), or a single one for all (1, ...)."""

    def rows(self, index: Tensor) -> Self:
        """Return the object for some images of the batch, by their indices (n,)."""
        return self._changed(lambda x: x[index] if x.ndim and len(x) > 1 else x)

    def to(self, device: torch.device | str) -> Self:
        """Return the object with its tensors on a device."""
        return self._changed(lambda x: x.to(device))

    def inner(self, shape: tuple[int, int], rows: slice, columns: slice) -> Self:
        """Return the object for a part of its images (H, W): what is given pixel by pixel is cut."""
        return self._changed(lambda x: x[..., rows, columns] if x.shape[-2:] == shape else x)

    def merged(self, index: Tensor, part: Self) -> Self:
        """Return the object with the entries of some images, by their indices (n,), replaced by those of ``part``."""
        if len(index) == 0:
            return self
        theirs = iter(x for x in vars(part).values() if isinstance(x, Tensor))

        def change(x: Tensor) -> Tensor:
            new = next(theirs)
            return x.index_copy(0, index, new) if x.ndim and len(x) > 1 else new

        return self._changed(change)

    def _changed(self, change: Callable[[Tensor], Tensor]) -> Self:
        tensors = {name: change(x) for name, x in vars(self).items() if isinstance(x, Tensor)}
        if not tensors:
            return self
        other = copy.copy(self)  # its numbers were checked before: looking at them again would make a GPU wait
        vars(other).update(tensors)
        return other


class Blurring(PerImage):
    """What blurs images: a PSF.

    Args:
        blur: images (B, 1, H, W) and their pixel scale [arcsec] -> the blurred ones.
        known: whether anybody said how images were blurred.
    """

    blur: Callable[[Tensor, float], Tensor]
    known: ClassVar[bool] = True

    @property
    def extent(self) -> float:
        """The full width at half maximum [arcsec], of the widest."""
        raise NotImplementedError

    @property
    def words(self) -> str:
        """What it is, in a few words: its kind and its size."""
        return f'{type(self).__name__.removesuffix("PSF")} of FWHM {self.extent:.3g}"'

    @property
    def shared(self) -> bool:
        """Whether it is the same for all images: no number of it is given image by image."""
        return not any(isinstance(x, Tensor) for x in vars(self).values())

    def joined(self, others: Sequence[Self], order: Tensor) -> Self:
        """Return the PSF of a batch from that of its first part, those of the others, and their order (B,)."""
        names = [name for name, x in vars(self).items() if isinstance(x, Tensor)]
        return replace(self, **{n: torch.cat([getattr(psf, n) for psf in (self, *others)])[order] for n in names})  # type: ignore[type-var]

    def summed(self, image: Tensor, scale: float, points: int) -> Tensor:
        """Return the blurred image summed: see `PSF.summed`, (B, 1, H / points, W / points)."""
        return F.avg_pool2d(self.blur(image, scale), points) * points**2
