"""Several images of one lens: exposures of a band, or bands, fitted and super-resolved together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lensphys.api.images import Array, File, Images, as_images
from lensphys.api.redshifts import Redshifts
from lensphys.api.result import Result, Writable, parameter_table, summary_line
from lensphys.basics.checks import LensphysError
from lensphys.basics.provenance import provenance
from lensphys.basics.sentences import counted, joined, readable
from lensphys.data.joint import JointFile, write_joint
from lensphys.fits.sky import Frame, place_on
from lensphys.fits.units import unit_of
from lensphys.fitting.joint_fit import Exposure
from lensphys.fitting.placement import Placement
from lensphys.methods import Method, RefinedFit
from lensphys.methods.joint import JointPrediction, JointRefinedFit
from lensphys.methods.super_resolve import described

if TYPE_CHECKING:
    from astropy.table import Table

One = Images | File


@dataclass(frozen=True)
class Dataset:
    """Several images of one lens, to be fitted together: `lensphys.super_resolve` takes them as it takes one image.

    Where all headers have a WCS, it says how the images lie on each other; else their middles are taken to be the same
    place. In both cases the fit shifts and rotates them within the pointing error.

    Args:
        images: of the lens, each a single image (H, W).
        band: of each, its name; images of the same band are exposures, which see the same source and lens light.

    Raises:
        LensphysError: if there are none, one is a stack, or their numbers differ.

    Example::

        lp.super_resolve(lp.Dataset.exposures(["a.fits", "b.fits"]))
        lp.super_resolve(lp.Dataset.bands({"VIS": "vis.fits", "NIR_H": "h.fits"}))
    """

    images: Sequence[Images]
    band: Sequence[str]

    def __post_init__(self) -> None:
        if not self.images or len(self.images) != len(self.band):
            raise LensphysError(
                f"a data set has images and the band of each: got {len(self.images)} and {len(self.band)}"
            )
        for one in self.images:
            if len(one) != 1:
                raise LensphysError(f"{one.name} is a stack of {len(one)} images: a data set is of one lens, give one")
        for (a, one), (b, other) in combinations(zip(self.names, self.images, strict=True), 2):
            if torch.equal(one.set.observation.image, other.set.observation.image):
                raise LensphysError(f"{a} and {b} are the same image, whose noise would count twice: leave one out")
        self._check_units()

    def _check_units(self) -> None:
        """Raise where exposures of a band are in different units: one source has one brightness."""
        first: dict[str, tuple[str, Any]] = {}
        for name, band, one in zip(self.names, self.band, self.images, strict=True):
            unit = None if one.set.header is None else unit_of(one.set.header)
            other, its = first.setdefault(band, (name, unit))
            if unit is not None and its is not None and unit != its:
                raise LensphysError(f"{other} is in {its} and {name} in {unit}: bring exposures of a band to one unit")

    @classmethod
    def exposures(cls, images: Sequence[One]) -> Dataset:
        """Return the data set of exposures of one band: what `lensphys.read` returned, or files."""
        if isinstance(images, Images | str | Path):
            raise LensphysError("exposures takes a list of images or files, got a single one")
        return cls([as_images(one) for one in images], [""] * len(images))

    @classmethod
    def bands(cls, images: Mapping[str, One | Sequence[One]]) -> Dataset:
        """Return the data set of several bands: to the name of each its image, or a list of its exposures."""
        if not isinstance(images, Mapping):
            raise LensphysError("bands takes the images by the names of their bands: {'VIS': 'vis.fits', ...}")
        lists = {band: [one] if isinstance(one, Images | str | Path) else list(one) for band, one in images.items()}
        pairs = [(band, one) for band, some in lists.items() for one in some]
        return cls([as_images(one) for _, one in pairs], [band for band, _ in pairs])

    @property
    def names(self) -> list[str]:
        """A name of each image: of its file, its band, or both; with a number where that is not enough."""
        files = [Path(one.name).name for one in self.images]
        names = files if len(set(files)) == len(files) else list(self.band)
        if len(set(names)) < len(names):
            names = [f"{band or file} {i}" for i, (band, file) in enumerate(zip(self.band, files, strict=True))]
        return names

    @property
    def seen(self) -> list[Exposure]:
        """The images as they are fitted.

        Raises:
            LensphysError: if their headers do not fit together.
        """
        places = self._places()
        rows = zip(self.names, self.band, self.images, places, strict=True)
        return [Exposure(name, band, one.set.observation, place) for name, band, one, place in rows]

    def _places(self) -> list[Placement | None]:
        """Where each image lies on the first one, by their headers."""
        headers = [one.set.header for one in self.images]
        if any(header is None for header in headers):
            return [None] * len(headers)
        frames = [
            Frame(name, header, one.set.observation.camera.grid.shape, one.pixel_scale)
            for name, header, one in zip(self.names, headers, self.images, strict=True)
            if header is not None
        ]
        found = [place_on(frame, frames[0]) for frame in frames]
        if any(place is None for place in found):
            return [None] * len(headers)
        return [Placement(torch.tensor([[*place, 0.0]])) for place in found if place is not None]

    def doubts(self, redshifts: Redshifts | None) -> list[str]:
        """Return what the headers of the images say otherwise than the redshifts that were given."""
        if redshifts is None:
            return []
        pairs = zip(self.names, self.images, strict=True)
        return [f"{name}: {line}" for name, one in pairs for line in redshifts.remarks(one.set.header)]

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        lines = [f"{name}: {one!r}" for name, one in zip(self.names, self.images, strict=True)]
        return "\n".join([f"{counted(len(self), 'image')} of one lens", *lines])


@dataclass(frozen=True)
class JointResult(Writable):
    """Super-resolved images of one lens, one for each band, and the lens that all of them share.

    Args:
        found: by the fit.
        bands: the result of each band, on the pixels of its clearest exposure: ``result["VIS"]`` is one of them.
        scale: factor by which pixels are smaller.
        provenance: where the results come from.

    Example::

        result = lp.super_resolve(lp.Dataset.bands({"VIS": "vis.fits", "NIR_H": "h.fits"}))
        print(result.quality, result.theta_E, result.table)  # of the lens, by all images
        result["NIR_H"].plot()
        result.write("lens_sr.fits")
    """

    found: JointPrediction
    bands: dict[str, Result]
    scale: int
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def image(self) -> Array:
        """The super-resolved image of exposures of one band, (sH, sW) [flux per pixel].

        Raises:
            LensphysError: if there are several bands: choose one, as ``result["VIS"]``.
        """
        return self._only.image

    @property
    def sigma(self) -> Array | None:
        """Standard deviation of ``image``, (sH, sW) [flux per pixel].

        Raises:
            LensphysError: if there are several bands.
        """
        return self._only.sigma

    @property
    def _only(self) -> Result:
        if len(self.bands) > 1:
            raise LensphysError(f"there are {len(self.bands)} bands: choose one, as result[{next(iter(self.bands))!r}]")
        return next(iter(self.bands.values()))

    @property
    def table(self) -> Table:
        """All parameters: name, value, error and unit, a row each; what images share once."""
        rows = [(row.name, row.value, row.error, row.unit) for row in self.found.table]
        return parameter_table(*map(list, zip(*rows, strict=True)))

    @property
    def theta_E(self) -> float:
        """Einstein radius of the main lens [arcsec]."""
        return next((row.value for row in self.found.table if row.name == "theta_E"), float("nan"))

    @property
    def chi2(self) -> float:
        """Chi^2 per degree of freedom of all images together."""
        return self.found.chi2

    @property
    def quality(self) -> str:
        """``good``, ``suspect`` or ``bad``."""
        return self.found.verdict.quality

    @property
    def reasons(self) -> list[str]:
        """Why the quality is not good, and of which image."""
        return list(self.found.verdict.reasons)

    @property
    def summary(self) -> str:
        """Chi^2 and Einstein radius in a line."""
        return summary_line(self.chi2, self.theta_E)

    @property
    def verdict(self) -> list[str]:
        """What the fit says of itself, and chi^2 of each image."""
        why = f" ({'; '.join(self.reasons)})" if self.reasons else ""
        each = (f"  {name}: chi^2 per degree of freedom {readable(chi2)}" for name, chi2 in self.found.each.items())
        return [f"quality: {self.quality}{why}", *each]

    def __getitem__(self, band: str) -> Result:
        if band not in self.bands:
            raise LensphysError(f"there is no band {band!r}: there is {', '.join(map(repr, self.bands))}")
        return self.bands[band]

    def __repr__(self) -> str:
        images, bands = counted(len(self.found.each), "image"), counted(len(self.bands), "band")
        return "\n".join([f"{images} of one lens in {bands}: {self.summary}", *self.verdict])

    def save(self, path: Path) -> None:
        """Write to a place that was claimed before."""
        table = self.table
        columns = {name: np.array(table[name]) for name in table.colnames}
        numbers = {"theta_E": self.theta_E, "chi2": self.chi2, "evidence": self.found.evidence}
        if self.found.correlation is not None:
            numbers["correlation"] = self.found.correlation
        numbers |= {name: self.provenance[name] for name in ("z_lens", "z_source") if name in self.provenance}
        words = {"quality": self.quality, "reasons": joined(self.reasons)}
        bands = {band: (result.images.set, result.planes) for band, result in self.bands.items()}
        write_joint(path, JointFile(bands, columns, numbers, words, self.scale, self.provenance))


def super_resolved(
    dataset: Dataset, method: JointRefinedFit, scale: int, redshifts: Redshifts | None = None, *, device: str = "cpu"
) -> JointResult:
    """Return the joint result of a data set.

    Args:
        dataset: the images.
        method: how.
        scale: factor by which pixels become smaller.
        redshifts: of lens and source, for the masses of sub-halos.
        device: ``cpu`` or ``cuda``.
    """
    seen = [one.to(device) for one in dataset.seen]
    found = method.prediction(method.fitted(seen), scale)
    by = dict(zip(dataset.names, dataset.images, strict=True))
    taken = {one.name: one.observation for one in seen}
    origin = provenance(
        input=dict(zip(dataset.names, [one.name for one in dataset.images], strict=True)),
        bands=list(found.bands),
        method="refine",
        scale=scale,
        read={name: one.remarks for name, one in by.items()},
        joint=method.joint.model_dump(mode="json"),
        model=method.fit.model.resolved,
        **({} if redshifts is None else redshifts.record),
    )
    results = {}
    for band, prediction in found.bands.items():
        images = replace(by[found.leaders[band]], single=True)
        planes = described(prediction, taken[found.leaders[band]])
        planes = planes if redshifts is None else redshifts.completed(planes)
        results[band] = Result(images, planes, scale, origin)
    return JointResult(found, results, scale, origin)


def joint_method(method: Method, name: str) -> JointRefinedFit:
    """Return how several images are fitted by a method that fits one.

    Raises:
        LensphysError: if it fits none.
    """
    if not isinstance(method, RefinedFit):
        raise LensphysError(f"several images of a lens are fitted together by refine alone, not by {name}")
    return JointRefinedFit(fit=method)
