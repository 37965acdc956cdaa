"""COOLEST templates: the community's standard for lens models, written with the package ``coolest``.

COOLEST's x grows to the right (West) and y to the top (North), as ours do; angles are in degrees from North to East,
that is from +y counter-clockwise; theta_E and theta_eff are those of the intermediate axis, as ours are.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lensphys.basics.checks import LensphysError
from lensphys.basics.extras import need
from lensphys.interop.sample import Truth, shape_of, unsupported_profile
from lensphys.model import EPL, SIE, SIS, Sersic, Shear
from lensphys.model.component import CENTRE, Named
from lensphys.observation import GaussianPSF
from lensphys.observation.kernel import psf_kernel

# lenstronomy's name: that of COOLEST
_NAMES = {
    SIS.lenstronomy: "SIE",
    SIE.lenstronomy: "SIE",
    EPL.lenstronomy: "PEMD",
    Shear.lenstronomy: "ExternalShear",
    "SERSIC": "Sersic",
    Sersic.lenstronomy: "Sersic",
}
_RENAMED = {"amp": "I_eff", "R_sersic": "theta_eff", "n_sersic": "n"}


def coolest_profile(component: Named) -> tuple[str, dict[str, float]]:
    """Return COOLEST's name of a profile and its parameters [arcsec, degrees].

    Args:
        component: lenstronomy's name and parameters [arcsec].

    Raises:
        LensphysError: if COOLEST has no such profile.
    """
    name, keywords = component
    if name not in _NAMES:
        raise unsupported_profile("COOLEST", name, list(_NAMES))
    if name == Shear.lenstronomy:
        if any(keywords.get(key, 0.0) for key in ("ra_0", "dec_0")):
            raise LensphysError("COOLEST has no shear about another point than the origin: choose another --format")
        gamma1, gamma2 = keywords["gamma1"], keywords["gamma2"]
        phi = _east_of_north(0.5 * math.atan2(gamma2, gamma1))
        return _NAMES[name], {"gamma_ext": math.hypot(gamma1, gamma2), "phi_ext": phi}
    q, phi = shape_of(keywords)
    rest = {_RENAMED.get(key, key): float(keywords.get(key, 0.0)) for key in (*keywords, *CENTRE)}
    rest = {key: value for key, value in rest.items() if key not in ("e1", "e2")}
    return _NAMES[name], rest | {"q": q, "phi": _east_of_north(phi)}


def _east_of_north(phi: float) -> float:
    """Degrees in -90 <= angle < 90 from +y, of radians from +x."""
    return (math.degrees(phi) + 180) % 180 - 90


def write_coolest(path: Path, truth: Truth) -> None:
    """Write a sample as a COOLEST template in its mode MOCK, and its images beside it.

    The image is in flux (in counts/s where the instrument counts), as the amplitudes are. FILE_image.fits holds lr,
    FILE_noise.fits its standard deviation, FILE_psf.fits the kernel of a PSF that is not Gaussian.

    Args:
        path: the file FILE.json; it and those beside it are overwritten.
        truth: the sample.

    Raises:
        LensphysError: if coolest is missing or lacks a profile, a value is out of its range, or H is not W.
    """
    template = _template()
    from coolest.template.json import JSONSerializer
    from coolest.template.standard import COOLEST

    if truth.lr.shape[0] != truth.lr.shape[1]:
        raise LensphysError(f"coolest takes rows for columns where an image is not square, got {truth.lr.shape}")
    shears = [c for c in truth.lenses if c[0] == Shear.lenstronomy]
    masses = [c for c in truth.lenses if c not in shears]
    try:
        entities = [
            _entity(template, "lens", truth.z_lens, masses, truth.lens_light),
            _entity(template, "source", truth.z_source, [], truth.sources),
        ]
        if shears:
            entities.append(_entity(template, "external shear", truth.z_lens, shears, None))
        whole = COOLEST(
            "MOCK",
            template.CoordinatesOrigin("0h0m0.0s", "0d0m0.0s"),
            template.LensingEntityList(*entities),
            _observation(template, path, truth),
            _instrument(template, path, truth),
            metadata={"made by": "lensphys", "file": truth.origin[0], "index": truth.origin[1]},
        )
    except (ValueError, KeyError) as error:
        if isinstance(error, LensphysError):
            raise
        raise LensphysError(f"COOLEST does not take this sample: {error}") from None
    JSONSerializer(str(path.with_suffix("").absolute()), obj=whole).dump_simple()


def _template() -> Any:
    need("coolest", "a COOLEST file")
    from coolest.template import lazy

    return lazy


def _entity(template: Any, name: str, z: float, mass: list[Named], light: list[Named] | None) -> Any:
    """A galaxy, or a field of mass if it has no light to speak of (None)."""
    profiles = [[coolest_profile(c) for c in components] for components in (mass, light or [])]
    models = [template.MassModel(*(n for n, _ in profiles[0])), template.LightModel(*(n for n, _ in profiles[1]))]
    for model, values in zip(models, profiles, strict=True):
        for profile, (_, parameters) in zip(model, values, strict=True):
            for key, value in parameters.items():
                profile.parameters[key].set_point_estimate(float(value))
    if light is None:
        return template.MassField(name, z, mass_model=models[0])
    return template.Galaxy(name, z, mass_model=models[0], light_model=models[1])


def _observation(template: Any, path: Path, truth: Truth) -> Any:
    instrument, scale = truth.instrument, truth.camera.grid.scale
    zero_point = instrument.zero_point
    if zero_point is not None and instrument.gain is not None:
        zero_point += 2.5 * math.log10(instrument.gain)  # COOLEST's is that of 1 e-/s
    return template.Observation(
        pixels=_grid(template, path, "image", truth.lr / truth.flux_scale, scale),
        exposure_time=truth.exposure_time,
        noise=template.NoiseMap(_grid(template, path, "noise", truth.error / truth.flux_scale, scale)),
        mag_zero_point=zero_point,
        mag_sky_brightness=getattr(instrument.noise, "sky_brightness", None),
    )


def _instrument(template: Any, path: Path, truth: Truth) -> Any:
    psf, scale, kernel = truth.camera.psf, truth.camera.grid.scale, psf_kernel(truth.camera)
    if isinstance(psf, GaussianPSF):
        described = template.GaussianPSF(fwhm=psf.extent / scale, description="FWHM in pixels")
    elif kernel is not None:
        described = template.PixelatedPSF(_grid(template, path, "psf", *kernel), "kernel, sum 1")
    else:
        described = template.PSF()
    noise = getattr(truth.instrument.noise, "read_noise", 0.0)
    return template.Instrument(scale, name=truth.instrument.description, readout_noise=noise, psf=described)


def _grid(template: Any, path: Path, name: str, image: NDArray[Any], scale: float) -> Any:
    from astropy.io import fits

    beside = path.with_name(f"{path.stem}_{name}.fits")
    with beside.open("wb") as file:
        fits.PrimaryHDU(np.asarray(image, dtype=np.float32)).writeto(file)
    (height, width), half = image.shape, 0.5 * scale
    x, y = (-half * width, half * width), (-half * height, half * height)
    return template.PixelatedRegularGrid(
        beside.name, x, y, width, height, check_fits_file=True, fits_file_dir=str(path.parent.absolute())
    )
