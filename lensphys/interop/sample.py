"""One sample of a lens file with its truth, in the words of no tool yet; and as a FITS cut-out."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lensphys.basics.checks import LensphysError
from lensphys.basics.provenance import provenance
from lensphys.data.lens_file import LensFile
from lensphys.model.component import Named
from lensphys.observation import Camera, ExposureNoise, Instrument, Noise
from lensphys.observation.kernel import psf_kernel

Array = NDArray[Any]

_FITS_UNIT = {"counts": "count", "e-/s": "electron/s", "ADU/s": "adu/s"}


@dataclass(frozen=True)
class Truth:
    """A sample and all that made it.

    Args:
        origin: the file and the index in it.
        class_name: its class.
        lenses: lenstronomy's names of the mass profiles and their parameters [arcsec]; the main lens comes first.
        sources: likewise of the light behind the lens; ``amp`` in flux / arcsec^2.
        lens_light: likewise of the light that is not deflected.
        z_lens: redshift of the lens.
        z_source: redshift of the source.
        lr: (H, W) [unit of the instrument], as recorded.
        lr_clean: (H, W) [flux per pixel].
        hr_clean: (sH, sW) [flux per pixel].
        alpha_hr: (2, sH, sW) [arcsec].
        error: (H, W) [unit of the instrument], standard deviation of lr by the noise law, given the clean image.
        flux_scale: from flux to the unit of the instrument: the exposure time where that counts, else 1.
        instrument: the telescope.
        camera: its pixels, and the PSF of this sample.
        noise: the noise law of this sample.
    """

    origin: tuple[str, int]
    class_name: str
    lenses: list[Named]
    sources: list[Named]
    lens_light: list[Named]
    z_lens: float
    z_source: float
    lr: Array
    lr_clean: Array
    hr_clean: Array
    alpha_hr: Array
    error: Array
    flux_scale: float
    instrument: Instrument
    camera: Camera
    noise: Noise

    @classmethod
    def from_file(cls, lenses: LensFile, index: int) -> Truth:
        """Return one sample of a file.

        Raises:
            LensphysError: if the file holds no such sample, or no truth.
        """
        clean = lenses.read("lr_clean", index)
        model = lenses.lens_model(index)
        observation = lenses.observation([index])
        flux_scale = float(lenses.read("flux_scale", index)[0])
        variance = observation.noise.variance(torch.from_numpy(clean * np.float32(flux_scale)))
        z_lens, z_source = lenses.redshifts
        return cls(
            origin=(lenses.path.name, index),
            class_name=lenses.classes[int(lenses.labels_of(index)[0])],
            lenses=_components(model, "lens_model_list", "kwargs_lens"),
            sources=_components(model, "source_light_model_list", "kwargs_source"),
            lens_light=_components(model, "lens_light_model_list", "kwargs_lens_light"),
            z_lens=z_lens,
            z_source=z_source,
            lr=observation.image[0, 0].numpy(),
            lr_clean=clean[0, 0],
            hr_clean=lenses.read("hr_clean", index)[0, 0],
            alpha_hr=lenses.read("alpha_hr", index)[0],
            error=variance.sqrt()[0, 0].numpy(),
            flux_scale=flux_scale,
            instrument=lenses.instrument,
            camera=observation.camera,
            noise=observation.noise,
        )

    @property
    def theta_E(self) -> float:
        """Einstein radius of the main lens [arcsec]; NaN if its profile has none."""
        return float(self.lenses[0][1].get("theta_E", math.nan))

    @property
    def exposure(self) -> tuple[float, float] | None:
        """Rms of the background [flux per pixel] and what flux gathers photons for [s, times gain], if both are known.

        The variance of the image is rms^2 + flux / time.
        """
        if not isinstance(self.noise, ExposureNoise):
            return None
        return float(self.noise.background_rms), float(self.noise.exposure_time)

    @property
    def exposure_time(self) -> float | None:
        """Total exposure time [s], if it is known."""
        if self.exposure is not None:
            return self.exposure[1] / (self.instrument.gain or 1.0)
        return self.flux_scale if self.instrument.unit == "counts" else None


def _components(model: dict[str, Any], names: str, keywords: str) -> list[Named]:
    return list(zip(model.get(names, []), model.get(keywords, []), strict=True))


def shape_of(keywords: dict[str, Any]) -> tuple[float, float]:
    """Return the axis ratio q and the position angle from +x, 0 <= phi < pi [rad], of ``e1, e2`` (round without)."""
    e1, e2 = keywords.get("e1", 0.0), keywords.get("e2", 0.0)
    e = math.hypot(e1, e2)
    return (1 - e) / (1 + e), (0.5 * math.atan2(e2, e1)) % math.pi


def unsupported_profile(tool: str, profile: str, has: list[str]) -> LensphysError:
    """Return the error for a profile that a tool does not have."""
    return LensphysError(
        f"{tool} has no profile {profile} (of ours it has {', '.join(has)}): choose another --format, or another sample"
    )


def write_cut_out(path: Path, truth: Truth) -> None:
    """Write a sample as a FITS cut-out that `lensphys super-resolve` reads, as a telescope's pipeline would make it.

    The primary image is lr; ERR its standard deviation, PSF the kernel (on pixels of its own PIXSCALE, the supersampled
    ones where the telescope integrates over pixels; PIXPOINT says at how many points to a side), TRUTH hr_clean, ALPHA
    the deflection on the pixels of TRUTH, along columns and rows. Where noise is estimated from the image, so is ERR.

    North is up and East is left, as on the sky: x grows to the West, x = -RA cos Dec. The place on the sky is none,
    (0, 0).

    Args:
        path: the file; it is overwritten.
        truth: the sample.
    """
    from astropy.io import fits

    from lensphys.fits.header import rescaled_header
    from lensphys.fits.kernel import POINTS

    sky, factor = _sky(truth), truth.hr_clean.shape[0] // truth.lr.shape[0]
    fine = rescaled_header(sky, factor)
    fine["PIXSCALE"] = (truth.camera.grid.scale / factor, "[arcsec]")
    unit = _FITS_UNIT[truth.instrument.unit]
    hdus = [fits.PrimaryHDU(_image(truth.lr), _primary_header(truth, sky, unit))]
    planes = [("ERR", truth.error, sky, unit, "standard deviation")]
    flux_unit = "count/s" if unit == "count" else unit
    planes.append(("TRUTH", truth.hr_clean, fine, flux_unit, "per pixel of this image, without noise"))
    planes.append(("ALPHA", truth.alpha_hr, fine, "arcsec", "deflection x (along columns), y; not RA, Dec"))
    kernel = psf_kernel(truth.camera)
    if kernel is None and truth.camera.psf.known:
        kernel = np.ones((1, 1)), truth.camera.grid.scale  # a file without a PSF says that nobody knows it
    if kernel is not None:
        pixels = fits.Header([("PIXSCALE", kernel[1], "[arcsec]")])
        pixels[POINTS] = (truth.camera.supersampling, "points of light to an image pixel's side")
        planes.append(("PSF", kernel[0], pixels, "", "sum 1"))
    for name, plane, header, its_unit, comment in planes:
        hdus.append(fits.ImageHDU(_image(plane), header.copy(), name=name))
        hdus[-1].header["BUNIT"] = (its_unit, comment)
    with path.open("wb") as file:
        fits.HDUList(hdus).writeto(file)


def _image(array: Array) -> Array:
    return np.asarray(array, dtype=np.float32)


def _sky(truth: Truth) -> Any:
    from astropy.io import fits

    grid = truth.camera.grid
    degrees = grid.scale / 3600
    header = fits.Header([("CTYPE1", "RA---TAN"), ("CTYPE2", "DEC--TAN"), ("CUNIT1", "deg"), ("CUNIT2", "deg")])
    header.update({"CRPIX1": (grid.width + 1) / 2, "CRPIX2": (grid.height + 1) / 2, "CRVAL1": 0.0, "CRVAL2": 0.0})
    header.update({"CD1_1": -degrees, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": degrees})
    header["PIXSCALE"] = (grid.scale, "[arcsec]")
    return header


def _primary_header(truth: Truth, sky: Any, unit: str) -> Any:
    header = sky.copy()
    header["BUNIT"] = (unit, "per pixel")
    cards = {
        "EXPTIME": (truth.exposure_time, "[s] total"),
        "ZEROPNT": (truth.instrument.zero_point, "[mag] of 1 BUNIT"),
        "GAIN": (truth.instrument.gain, "[electron/adu]"),
        "THETA_E": (truth.theta_E, "[arcsec] Einstein radius of the main lens"),
        "Z_LENS": (truth.z_lens, "redshift of the lens"),
        "Z_SOURCE": (truth.z_source, "redshift of the source"),
        "CLASS": (truth.class_name, "substructure"),
        "INSTRUME": (truth.instrument.description, ""),
        "FLUXSCAL": (truth.flux_scale, "flux of TRUTH times this is in BUNIT"),
    }
    for key, (value, comment) in cards.items():
        if value is not None and value == value:  # FITS has no NaN in headers
            header[key] = (value, comment)
    name, index = truth.origin
    for key, entry in ({"file": name, "index": index} | _made_by()).items():
        header.add_history(f"lensphys {key}: {json.dumps(entry, default=str)}")
    return header


@lru_cache(maxsize=1)  # it asks git, for as long as a cut-out takes
def _made_by() -> dict[str, Any]:
    return provenance()
