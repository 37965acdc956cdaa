"""What super-resolving gives: images with their standard deviation, the lens behind them, and a verdict."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lensphys.api.images import Images, places
from lensphys.api.words import in_python
from lensphys.basics.checks import LensphysError, check_whole
from lensphys.basics.outputs import claimed
from lensphys.basics.sentences import apart, counted
from lensphys.data.images import ImageSet
from lensphys.data.kept import Kept
from lensphys.data.results import write_images
from lensphys.data.stack import ImageStack
from lensphys.evaluation.quality import NO_VERDICT, summary_lines
from lensphys.fits.numbers import OF_FITS
from lensphys.prediction import Verdict

if TYPE_CHECKING:
    from astropy.table import Table
    from matplotlib.figure import Figure

    from lensphys.api.plot import Look

Array = NDArray[Any]


class Writable(ABC):
    """What can be written to a file: FITS, npz or HDF5."""

    def write(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write everything, in full or not at all: ``.fits`` (of FITS images, with their WCS), ``.npz`` or ``.h5``.

        Args:
            path: the file.
            overwrite: replace a file that exists.

        Returns:
            The path.

        Raises:
            LensphysError: if the file exists, has another ending, or cannot be written.
        """
        path = Path(path)
        with in_python(out="path"), claimed(path, [], overwrite=overwrite):
            self.save(path)
        return path

    @abstractmethod
    def save(self, path: Path) -> None:
        """Write to a place that was claimed before."""


@dataclass(frozen=True)
class Outcome(Writable):
    """What a method made of images, to be told and written; they may lie in their file still.

    Args:
        images: what was super-resolved.
        planes: all that was found, as `lensphys.methods.super_resolve.super_resolve` returns it.
        scale: factor by which pixels are smaller.
        provenance: where the results come from.
        kept: the chunks on the disk, of a long computation.
    """

    images: Images | ImageSet | ImageStack
    planes: dict[str, Any]
    scale: int
    provenance: dict[str, Any] = field(default_factory=dict)
    kept: Kept | None = None

    @property
    def verdict(self) -> list[str]:
        """What the fits say of themselves: one line for one image, counts and the worst ones for many."""
        if "quality" not in self.planes:
            return [NO_VERDICT]
        words = [str(w) for w in self.planes["reasons"]]
        told = [Verdict(str(q), tuple(filter(None, [w]))) for q, w in zip(self.planes["quality"], words, strict=True)]  # type: ignore[arg-type]
        if len(told) == 1:
            return [f"quality: {told[0].quality}" + (f" ({words[0]})" if words[0] else "")]
        return summary_lines([f"image {i}" for i in self.images.index], told)

    @property
    def summary(self) -> str:
        """Chi^2, Einstein radius, sub-halos and the scale of the noise in a line; of many images the medians."""
        names = ("chi2", "theta_E", "subhalos", "noise_scale", "left_out")
        found = {name: self.planes[name] for name in names if name in self.planes}
        if "theta_E_total" in (parameters := list(self.planes.get("parameter_names", []))):
            found["total"] = self.planes["parameters"][:, parameters.index("theta_E_total")]
        known = {name: values[~np.isnan(values)] for name, values in found.items()}
        median = {name: float(np.median(values)) for name, values in known.items() if len(values)}
        return ("" if len(self.images.index) == 1 else "median ") + summary_line(**median)

    @property
    def without_theta_E(self) -> str | None:
        """In which images no Einstein radius was found; None where all have one."""
        index = self.images.index
        lost = index[np.isnan(self.planes.get("theta_E", np.zeros(len(index))))]
        numbers = ", ".join(map(str, lost))
        return f"no Einstein radius was found (theta_E is NaN) in image {numbers}" if len(lost) else None

    def save(self, path: Path) -> None:
        """Write to a place that was claimed before, and remove the chunks that were kept beside it."""
        images = self.images.set if isinstance(self.images, Images) else self.images
        write_images(path, images, self.planes, self.scale, self.provenance)
        if self.kept is not None:
            self.kept.remove()


@dataclass(frozen=True)
class Result(Outcome):
    """Super-resolved images in memory. Of a stack each array has a leading axis (N, ...), of one image none.

    What a method does not give is None: an interpolation has no ``sigma``, a network of images alone no ``kappa``.

    Args:
        images: what was super-resolved.
        planes: all that was found; scale, provenance and kept as of an `Outcome`.

    Example:
        >>> from lensphys.api.resolve import super_resolve
        >>> from lensphys.api.simulated import observe
        >>> from lensphys.model import SIE, Sersic
        >>> seen = observe(SIE(theta_E=1.0), Sersic(amp=5.0, R_sersic=0.2, n_sersic=1.0), "euclid_vis")
        >>> result = super_resolve(seen, 2, method="bicubic")
        >>> result.image.shape, result.pixel_scale, result.sigma is None
        ((128, 128), 0.0505, True)
    """

    images: Images

    @property
    def image(self) -> Array:
        """The super-resolved image, (sH, sW) [flux per pixel, in the unit of the input]."""
        return self._of("image")

    @property
    def sigma(self) -> Array | None:
        """Standard deviation of ``image``, (sH, sW) [flux per pixel]."""
        return self._of("sigma")

    @property
    def kappa(self) -> Array | None:
        """Convergence on the pixels of ``image``, (sH, sW), without unit."""
        return self._of("kappa")

    @property
    def alpha(self) -> Array | None:
        """Deflection on the pixels of ``image``, (2, sH, sW) [arcsec], x first."""
        return self._of("alpha")

    @property
    def constrained(self) -> Array | None:
        """How far the data determine the deflection, (sH, sW), without unit: 1 by the data alone, 0 by the prior."""
        return self._of("constrained")

    @property
    def source(self) -> Array | None:
        """The source, (100, 100) [flux / arcsec^2], on pixels of ``source_scale``, centred on the optical axis."""
        return self._of("source")

    @property
    def source_scale(self) -> float | None:
        """Pixel scale of ``source`` [arcsec]."""
        scale = self.planes.get("source_scale")
        return None if scale is None else float(scale)

    @property
    def residual(self) -> Array:
        """Low-resolution image less its model, (H, W) [flux per pixel]; 0 where masked."""
        return self._of("residual")

    @property
    def noise(self) -> Array | None:
        """Standard deviation of each low-resolution pixel, (H, W) [flux per pixel]; NaN where it was left out.

        It is the noise that was given, scaled down where the map is too large for the sky. Where neighbouring pixels
        share noise (``noise_scale`` above 1), the fit counts ``noise_scale`` times as much, which is none of a pixel.
        """
        return self._of("noise")

    @property
    def chi2(self) -> Any:
        """Chi^2 per degree of freedom, a number, or (N,)."""
        return self._of("chi2")

    @property
    def theta_E(self) -> Any:
        """Einstein radius [arcsec], a number, or (N,); NaN where none was found."""
        return self._of("theta_E")

    @property
    def quality(self) -> Any:
        """``good``, ``suspect`` or ``bad``, by the fit itself, or (N,) of them; None of a method that cannot tell."""
        return self._of("quality")

    @property
    def reasons(self) -> Any:
        """Why the quality is not good, or what is to be known all the same: sentences, or a list of them an image."""
        found = self.planes.get("reasons")
        lists = [apart(str(line)) for line in ([] if found is None else found)]
        return lists[0] if self.images.single and lists else lists

    @property
    def subhalos(self) -> Table | None:
        """The sub-halos that were found, a row each: position, Einstein radius [arcsec], gain in ln likelihood."""
        return None if "bodies" not in self.planes else self._rows(_bodies)

    @property
    def table(self) -> Table | None:
        """All parameters: image, name, value, error and unit, a row each."""
        return None if "parameters" not in self.planes else self._rows(_parameters)

    @property
    def covariance(self) -> Array | None:
        """Covariance of the parameters of one image in the order of ``table``, (P, P); NaN of those not fitted.

        A Gaussian about the best fit. NaN also stands for a parameter at its bound, and for the derived ones.

        Raises:
            LensphysError: of a stack: choose an image, as ``result[0].covariance``.
        """
        if len(self) > 1:
            raise LensphysError(f"there are {len(self)} images: choose one, as result[0].covariance")
        if "covariance" not in self.planes:
            return None
        there = np.isfinite(self.planes["parameters"][0])
        return self.planes["covariance"][0][np.ix_(there, there)]

    def samples(self, count: int = 1000, seed: int = 0) -> Table:
        """Return draws of the parameters of one image from the Gaussian about the best fit, a row each.

        A column a parameter that was fitted and has an error, with all correlations; see `covariance`.

        Args:
            count: how many.
            seed: of the draws.

        Raises:
            LensphysError: of a stack, or of a method that gives no errors.
        """
        from astropy.table import Table

        covariance, table = self.covariance, self.table
        if covariance is None or table is None:
            raise LensphysError("there are no errors to draw from: fit the image (method='refine')")
        there = np.isfinite(covariance.diagonal())
        mean, spread = np.asarray(table["value"][there], float), covariance[np.ix_(there, there)].astype(float)
        scale = np.sqrt(spread.diagonal())  # the units of the parameters differ by orders of magnitude
        drawn = np.random.default_rng(check_whole("seed", seed, 0)).multivariate_normal(
            np.zeros(len(mean)), spread / np.outer(scale, scale), check_whole("count", count, 1), method="eigh"
        )
        return Table(mean + scale * drawn, names=list(table["name"][there]), units=list(table["unit"][there]))

    @property
    def numbers(self) -> dict[str, Any]:
        """What else is known of each fit, by its name in `Prediction.numbers`: a number, or (N,)."""
        return {name: self._of(name) for name in OF_FITS if name in self.planes}

    @property
    def pixel_scale(self) -> float:
        """Side of a pixel of ``image`` [arcsec]."""
        return self.images.pixel_scale / self.scale

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int | slice | Sequence[int]) -> Result:
        """Return the result of one image of a stack, or of some."""
        place, count = places(index, len(self)), len(self)
        planes = {n: x[place] if n not in _SHARED and len(x) == count else x for n, x in self.planes.items()}
        return replace(self, images=self.images[index], planes=planes)

    def __repr__(self) -> str:
        height, width = self.planes["image"].shape[-2:]
        many = counted(len(self), "image")
        head = f'{many} of {height} x {width} pixels of {self.pixel_scale:.4g}", {self.scale} times as fine'
        return "\n".join([f"{head}: {self.summary}", *self.verdict])

    def plot(self, index: int = 0, *, sigmas: float = 4.0) -> Figure:
        """Return a figure of one image: LR, SR, residual in units of the noise, sigma, kappa and source.

        Args:
            index: which image of a stack, counted from 0.
            sigmas: where the colours of the residual end [sigma of the noise].
        """
        from lensphys.api.plot import result_figure

        return result_figure((self if self.images.single else self[index])._look, sigmas)

    @property
    def _look(self) -> Look:
        from lensphys.api.plot import Look

        known = ("noise", "chi2", "sigma", "kappa", "alpha", "source", "theta_E", "lens_light")
        found = {name: self._of(name) for name in known} | {"residual": self.residual, "sr": self.image}
        return Look(self.images.grid, self.scale, self.images.image, source_scale=self.source_scale, **found)

    def _of(self, name: str) -> Any:
        found = self.planes.get(name)
        return found if found is None or not self.images.single else found[0]

    def _rows(self, rows: Callable[[dict[str, Any], int], Table]) -> Table:
        """The rows of all images, with their numbers where they are a stack."""
        from astropy.table import vstack

        parts = [rows(self.planes, i) for i in range(len(self))]
        for part, number in zip(parts, self.images.index, strict=True):
            if not self.images.single:
                part.add_column(np.full(len(part), number), 0, "image")
        return vstack(parts, metadata_conflicts="silent")


def summary_line(
    chi2: float = float("nan"),
    theta_E: float | None = None,
    subhalos: float = 0.0,
    total: float = float("nan"),
    noise_scale: float = 1.0,
    left_out: float = 0.0,
) -> str:
    """Return chi^2 per degree of freedom and Einstein radius [arcsec], and what became of an image, for a terminal.

    Example:
        >>> summary_line(0.98, 1.1964)
        'chi^2 0.98, theta_E 1.196"'
        >>> summary_line(0.98, 1.1964, 2, 1.2312)
        'chi^2 0.98, theta_E 1.196" (1.231" with all mass), 2 sub-halos'
        >>> summary_line(1.02, 1.2, noise_scale=1.96)
        'chi^2 1.02, theta_E 1.2", noise of 3 x 3 pixels of the sky 1.96 times what was given'
    """
    radius = "" if theta_E is None else f', theta_E {theta_E:.4g}"'
    if theta_E is not None and abs(total / theta_E - 1) > _TOLD:
        radius += f' ({total:.4g}" with all mass)'
    bodies = "" if subhalos < 1 else f", {counted(int(subhalos), 'sub-halo')}"
    noise = (
        ""
        if abs(noise_scale - 1) < 0.005
        else f", noise of 3 x 3 pixels of the sky {noise_scale:.2f} times what was given"
    )
    others = "" if left_out < 1 else f", {counted(left_out, 'pixel')} of other objects left out"
    return f"chi^2 {chi2:.3g}{radius}{bodies}{noise}{others}"


_TOLD = 0.02  # by how much two Einstein radii differ where both are told: an ellipse of q = 0.7 makes 0.01
_SHARED = ("parameter_names", "parameter_units", "body_columns", "source_scale")


def _parameters(planes: dict[str, Any], i: int) -> Table:
    """The parameters that image ``i`` has."""
    there = np.isfinite(planes["parameters"][i])
    columns = (planes["parameter_names"], planes["parameters"][i], planes["errors"][i], planes["parameter_units"])
    return parameter_table(*(column[there] for column in columns))


def parameter_table(name: Sequence[str], value: Sequence[float], error: Sequence[float], unit: Sequence[str]) -> Table:
    """Return parameters as a table, a row each, with as many digits as they deserve."""
    from astropy.table import Table

    table = Table({"name": name, "value": value, "error": error, "unit": unit})
    table["value"].info.format, table["error"].info.format = ".6g", ".2g"
    return table


def _bodies(planes: dict[str, Any], i: int) -> Table:
    """The sub-halos of image ``i``, with their masses [solar masses] where redshifts were given."""
    from astropy.table import Table

    there = np.isfinite(planes["bodies"][i]).all(1)
    table = Table(planes["bodies"][i][there], names=[str(n) for n in planes["body_columns"]])
    if "body_masses" in planes:
        table["mass"] = planes["body_masses"][i][there]
    return table
