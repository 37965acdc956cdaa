"""Images of a file that are too many for memory: looked at once, part by part, and read again as they are wanted."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lensphys.basics.remarks import of_all
from lensphys.data.contents import Carried, contents_of, images_in
from lensphys.data.images import ImageSet, Reading, read_images
from lensphys.data.masks import mask_in
from lensphys.data.noise_maps import noise_map_in, weight_as_noise
from lensphys.data.npy import as_float32
from lensphys.data.pixels import check_size, check_some_left, cleaned, faults_of, left_out, without_holes
from lensphys.fits.image import NoiseMap
from lensphys.fits.masks import Mask, sense
from lensphys.fits.names import WEIGHT
from lensphys.observation import Camera, Observation

if TYPE_CHECKING:
    from astropy.io.fits import Header

Array = NDArray[Any]
_PIXELS = 1 << 20  # what a few arrays of so many take is small


@dataclass(frozen=True)
class StoredObservations:
    """Observations of images in a file, read as they are asked for.

    Args:
        read: returns those of some images, by their numbers in the file (n,).
        index: the numbers of all of them, (N,).
        camera: that took them; what differs from image to image is that of the first one.
    """

    read: Callable[[Array], Observation]
    index: Array
    camera: Camera

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows: Tensor) -> Observation:
        """Return some images, by their places among all of them, in rising order."""
        return self.read(self.index[rows.numpy()])


@dataclass(frozen=True)
class ImageStack:
    """What an `ImageSet` says of images, of images that stay in their file.

    Args:
        observation: the images, and how they were taken.
        remarks: sentences for the user.
        psf: where the PSF comes from.
        carried: what a file of simulated lenses says beside its images.
        index: which images of the file these are, (N,).
        fingerprint: a hash of pixels, noise and masks.
        header: none: a FITS file holds one image.
    """

    observation: StoredObservations
    remarks: list[str]
    psf: str
    carried: Carried | None
    index: Array
    fingerprint: str
    header: Header | None = None


def open_images(
    path: Path, reading: Reading, scale: int, rows: Array | None = None, pixels: int = _PIXELS
) -> ImageSet | ImageStack:
    """Return the images of a file: in memory, or of a long stack as they are wanted.

    A long stack is looked at once, to find what cannot be used, and to say what is masked, assumed and estimated.

    Args:
        path: FITS, .npy, .npz or HDF5.
        reading: how.
        scale: factor by which pixels will become smaller.
        rows: which images of a stack, (n,) in rising order; None for all, or of a file of one image.
        pixels: that are looked at together; a stack of more of them is a long one.

    Raises:
        LensphysError: if a file is faulty, or no image can be used.
    """
    if rows is None:
        count = images_in(path, reading.choice)
        if count is None:
            return read_images(path, reading, scale=scale)
        rows = np.arange(count)
    first = contents_of(path, reading.pixel_scale, reading.of_pixels, rows[:1]).pixels
    check_size(path, first)
    size = max(1, pixels // first[0].size)
    if len(rows) <= size:
        return read_images(path, reading, rows, scale)
    return _looked_at(path, reading, scale, rows, size)


def _looked_at(path: Path, reading: Reading, scale: int, rows: Array, size: int) -> ImageStack:
    faults: dict[int, str] = {}
    for part in _parts(rows, size):
        faults |= faults_of(contents_of(path, reading.pixel_scale, reading.of_pixels, part).pixels, part)
    check_some_left(path, faults, len(rows))
    index = rows[~np.isin(rows, list(faults))]
    reading = _of_all_parts(path, reading, index[:size])
    remarks, carried, found = [left_out(path, faults)], [], hashlib.sha256()
    for part in _parts(index, size):
        images = read_images(path, reading, part, scale)
        remarks.append(images.remarks)
        found.update(images.fingerprint.encode())
        carried.append(images.carried)
    camera = images.observation.camera.rows(torch.tensor([0]))
    stored = StoredObservations(lambda some: read_images(path, reading, some, scale).observation, index, camera)
    return ImageStack(stored, of_all(remarks), images.psf, Carried.of_parts(carried), index, found.hexdigest())


def _of_all_parts(path: Path, reading: Reading, rows: Array) -> Reading:
    """How the parts of a stack are read: maps stay on the disk, and each means in all what it means for some images."""
    contents, means = contents_of(path, reading.pixel_scale, reading.of_pixels, rows), reading.choice.mask_means
    error = noise_map_in(reading.error, contents.subject) if isinstance(reading.error, Path) else reading.error
    mask = mask_in(reading.mask, contents.subject) if isinstance(reading.mask, Path) else reading.mask
    if isinstance(mask, Mask) and means is None:
        means = sense(replace(mask, values=contents.maps(mask.values, mask.where)), contents.pixels)
    if isinstance(error, NoiseMap) and error.kind == WEIGHT:
        own = replace(error, values=as_float32(contents.maps(error.values, error.where)))
        image, good = cleaned(contents.pixels, [])
        error = replace(error, kind=weight_as_noise(own, without_holes(image, good)).kind)
    return replace(reading, error=error, mask=mask, choice=replace(reading.choice, mask_means=means))


def _parts(rows: Array, size: int) -> Iterator[Array]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
