"""The file of several images of one lens: the planes of each band, and one table of all parameters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lensphys.basics.checks import LensphysError
from lensphys.data.contents import WRITTEN
from lensphys.data.images import ImageSet
from lensphys.data.npy import write_npz
from lensphys.data.results import fits_planes, write_images
from lensphys.fits.result import BandResult, write_bands

Array = NDArray[Any]


@dataclass(frozen=True)
class JointFile:
    """What is written of several images of one lens.

    Args:
        bands: the images of each band that its result is of, and the result, as for `write_images`.
        table: of all P parameters: ``name``, ``value``, ``error`` and ``unit``, (P,) each, in the units that it says.
        numbers: of all images together: ``theta_E`` [arcsec], ``chi2``, ``evidence``, ``correlation``.
        words: ``quality`` and ``reasons``.
        scale: factor by which pixels are smaller.
        provenance: where the results come from.
    """

    bands: Mapping[str, tuple[ImageSet, Mapping[str, Any]]]
    table: Mapping[str, Array]
    numbers: Mapping[str, float]
    words: Mapping[str, str]
    scale: int
    provenance: Mapping[str, Any]


def check_joint_output(path: Path, headers: bool) -> None:
    """Raise unless a joint result can be written to a file of this name.

    Args:
        path: the file.
        headers: whether all images have FITS headers.

    Raises:
        LensphysError: if not.
    """
    if not path.name.lower().endswith((*WRITTEN["FITS"], ".npz")):
        raise LensphysError(f"the output of several images of a lens must be named *.fits or *.npz, got {path}")
    if not headers and not path.name.lower().endswith(".npz"):
        raise LensphysError(f"cannot write {path}: only FITS inputs give a FITS output, choose .npz")


def write_joint(path: Path, joint: JointFile) -> None:
    """Write the result of several images of one lens, whole or not at all; exposures of one band as one image is.

    Raises:
        LensphysError: if the file cannot be written.
    """
    check_joint_output(path, all(images.header is not None for images, _ in joint.bands.values()))
    if len(joint.bands) == 1:
        ((images, planes),) = joint.bands.values()
        write_images(path, images, _of_all(planes, joint), joint.scale, dict(joint.provenance))
    elif path.name.lower().endswith(".npz"):
        arrays = {
            f"{band}_{name}": plane for band, (_, planes) in joint.bands.items() for name, plane in planes.items()
        }
        shared = {f"parameter_{name}": column for name, column in joint.table.items()}
        scales = {band: images.observation.camera.grid.scale for band, (images, _) in joint.bands.items()}
        origin = json.dumps(dict(joint.provenance) | {"scale": joint.scale, "pixel_scale_lr": scales}, default=str)
        write_npz(path, {**arrays, **shared, **joint.numbers, **joint.words, "provenance": origin})
    else:
        bands = {
            band: BandResult(
                images.header, fits_planes(images, planes, joint.scale), images.observation.camera.grid.scale
            )
            for band, (images, planes) in joint.bands.items()
            if images.header is not None
        }
        found = {name: [value] for name, value in {**joint.numbers, **joint.words}.items()}
        write_bands(path, bands, scale=joint.scale, table=joint.table, found=found, provenance=joint.provenance)


def _of_all(planes: Mapping[str, Any], joint: JointFile) -> dict[str, Any]:
    """The planes of one image with the numbers of all exposures."""
    table = {
        "parameters": joint.table["value"][None],
        "errors": joint.table["error"][None],
        "parameter_names": joint.table["name"],
        "parameter_units": joint.table["unit"],
    }
    numbers = {name: np.array([value]) for name, value in joint.numbers.items()}
    own = {name: plane for name, plane in planes.items() if name != "covariance"}  # of the band's own parameters
    return own | table | numbers | {name: np.array([word]) for name, word in joint.words.items()}
