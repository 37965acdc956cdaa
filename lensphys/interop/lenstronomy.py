"""A sample in the words of lenstronomy (https://github.com/lenstronomy/lenstronomy), written and read as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from lensphys.basics.checks import LensphysError, check_file
from lensphys.basics.outputs import write_json
from lensphys.interop.sample import Truth, unsupported_profile
from lensphys.model import LIGHT, MASS, by_lenstronomy
from lensphys.model.component import Keywords, Named
from lensphys.observation import GaussianPSF
from lensphys.observation.kernel import psf_kernel
from lensphys.simulation.galaxies import with_image


def lenstronomy_keywords(truth: Truth) -> dict[str, Keywords]:
    """Return a sample in the words of lenstronomy, with numpy images.

    ``create_image_model(kwargs_data, kwargs_psf, kwargs_numerics, kwargs_model).image(**kwargs_params)`` renders
    lr_clean (of lenstronomy 1.14: square images only). Data are in flux: in counts/s where the instrument counts. A
    camera that integrates over pixels blurs on its supersampled pixels: ``supersampling_convolution`` is on, but for a
    kernel on pixels no finer than the image's, which blurs afterwards. lenstronomy's defaults differ: without it pixels
    are summed first (up to 5 % of the peak where the PSF is no wider than a pixel), and of a kernel it blurs only 5
    pixels on the supersampled grid (``supersampling_kernel_size``; 0.7 % with the Moffat PSF of rubin_lsst_i).

    Returns:
        ``kwargs_model`` (of the class creator), ``kwargs_params`` (``kwargs_lens, kwargs_source, kwargs_lens_light``),
        ``kwargs_data``, ``kwargs_psf``, ``kwargs_numerics``.

    Raises:
        LensphysError: if lenstronomy has no such profile, or the images of galaxies are missing.
    """
    names: dict[str, list[str]] = {}
    parameters: dict[str, list[Keywords]] = {}
    lights = (("source_light", "kwargs_source", truth.sources), ("lens_light", "kwargs_lens_light", truth.lens_light))
    for key, keywords, components in (("lens", "kwargs_lens", truth.lenses), *lights):
        names[f"{key}_model_list"] = [_known(component) for component in components]
        parameters[keywords] = [with_image(values) for _, values in components]
    return {
        "kwargs_model": {**names, "z_lens": truth.z_lens, "z_source": truth.z_source},
        "kwargs_params": dict(parameters),
        "kwargs_data": _data(truth),
        "kwargs_psf": _psf(truth),
        "kwargs_numerics": {
            "supersampling_factor": truth.camera.supersampling,
            "supersampling_convolution": truth.camera.blurs_first,
            "supersampling_kernel_size": None,  # not only 5 pixels of the kernel
        },
    }


def _known(component: Named) -> str:
    name = component[0]
    ours = by_lenstronomy(MASS) | by_lenstronomy(LIGHT)
    if name in ours and not ours[name].in_lenstronomy:
        raise unsupported_profile("lenstronomy", name, [known for known, of in ours.items() if of.in_lenstronomy])
    return name


def _data(truth: Truth) -> Keywords:
    grid = truth.camera.grid
    place = {
        "ra_at_xy_0": -0.5 * (grid.width - 1) * grid.scale,
        "dec_at_xy_0": -0.5 * (grid.height - 1) * grid.scale,
        "transform_pix2angle": grid.scale * np.eye(2),
    }
    data = {"image_data": np.asarray(truth.lr / truth.flux_scale, dtype=np.float64)} | place
    if truth.exposure is not None:
        return data | {"background_rms": truth.exposure[0], "exposure_time": truth.exposure[1]}
    return data | {"noise_map": np.asarray(truth.error / truth.flux_scale, dtype=np.float64)}


def _psf(truth: Truth) -> Keywords:
    camera, kernel = truth.camera, psf_kernel(truth.camera)
    if kernel is None:
        return {"psf_type": "NONE"}
    if isinstance(camera.psf, GaussianPSF):
        width = {"fwhm": camera.psf.extent, "truncation": camera.psf.truncate}
        return {"psf_type": "GAUSSIAN", "pixel_size": camera.grid.scale} | width
    factor = camera.supersampling if camera.blurs_first else 1
    return {"psf_type": "PIXEL", "kernel_point_source": kernel[0], "point_source_supersampling_factor": factor}


def write_lenstronomy(path: Path, truth: Truth) -> None:
    """Write a sample in the words of lenstronomy as JSON: see `lenstronomy_keywords`; images are lists of rows.

    Args:
        path: the file; it is overwritten.
        truth: the sample.

    Raises:
        LensphysError: as `lenstronomy_keywords` does.
    """
    write_json(path, lenstronomy_keywords(truth))


def read_lenstronomy(path: Path) -> dict[str, Keywords]:
    """Return what `write_lenstronomy` wrote, with numpy images again.

    Raises:
        LensphysError: if there is no such file, or it is another one.
    """
    check_file("keywords of lenstronomy", path)
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        groups = [tree[name] for name in ("kwargs_data", "kwargs_psf")]
        groups += [values for lists in tree["kwargs_params"].values() for values in lists]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise LensphysError(f"{path} was not written by 'lensphys export --format lenstronomy'") from None
    for group in groups:
        group.update({name: np.array(value) for name, value in group.items() if isinstance(value, list)})
    return dict(tree)
