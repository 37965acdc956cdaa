"""The truth of a sample in the conventions of caustics (https://github.com/Ciela-Institute/caustics), version 1.5.

caustics' axes are ours; ``phi`` is in radians from +x, 0 <= phi < pi; ``Rein`` of its ellipses is that of the
intermediate axis, as our theta_E is, but ``Re`` of a Sersic is its semi-major axis: R_sersic / sqrt(q).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import yaml

from lensphys.data.exporting import Component, Truth, lacking, psf_kernel, shape_of

_HEADER = """# Parameters for caustics >= 1.5, from lensphys: build each entry of 'lenses' as
#   getattr(caustics, kind)(cosmology=caustics.FlatLambdaCDM(), z_l=z_lens, z_s=z_source, **parameters)
# in one SinglePlane, and each entry of 'sources' and 'lens_light' as getattr(caustics, kind)(**parameters).
# Brightness is flux / arcsec^2: times the area of a pixel it is flux. The kernel 'psf' is on pixels of its own scale,
# those of the image / upsample_factor where that blurs before pixels are summed. For LensSource, use 'image'.
"""
_MASS = ("SIS", "SIE", "EPL", "SHEAR", "POINT_MASS", "MULTIPOLE", "CONVERGENCE")
_LIGHT = ("SERSIC", "SERSIC_ELLIPSE")


def caustics_profile(component: Component) -> dict[str, Any]:
    """Return the class of caustics that a profile is and the arguments that make it, ``kind`` and ``parameters``.

    Args:
        component: lenstronomy's name and parameters.

    Raises:
        LensphysError: if caustics has no such profile.
    """
    name, values = component
    place = {"x0": values.get("center_x", 0.0), "y0": values.get("center_y", 0.0)}
    about = {"x0": values.get("ra_0", 0.0), "y0": values.get("dec_0", 0.0)}
    q, phi = shape_of(values)
    if name in _LIGHT:
        radius = values["R_sersic"] / math.sqrt(q)
        brightness = {"n": values["n_sersic"], "Re": radius, "Ie": values["amp"], "use_lenstronomy_k": True}
        return {"kind": "Sersic", "parameters": place | {"q": q, "phi": phi} | brightness}
    if name == "SIS":
        return {"kind": "SIS", "parameters": place | {"Rein": values["theta_E"]}}
    if name == "SIE":
        return {"kind": "SIE", "parameters": place | {"q": q, "phi": phi, "Rein": values["theta_E"]}}
    if name == "EPL":
        slope = {"Rein": values["theta_E"], "t": values["gamma"] - 1}
        return {"kind": "EPL", "parameters": place | {"q": q, "phi": phi} | slope}
    if name == "SHEAR":
        shear = {"gamma_1": values["gamma1"], "gamma_2": values["gamma2"]}
        return {"kind": "ExternalShear", "parameters": about | shear}
    if name == "POINT_MASS":
        return {"kind": "Point", "parameters": place | {"Rein": values["theta_E"]}}
    if name == "MULTIPOLE":
        order = {"m": values["m"], "a_m": values["a_m"], "phi_m": values["phi_m"]}
        return {"kind": "Multipole", "parameters": place | order}
    if name == "CONVERGENCE":
        return {"kind": "MassSheet", "parameters": about | {"kappa": values["kappa"]}}
    raise lacking("caustics", name, [*_MASS, *_LIGHT])


def caustics_parameters(truth: Truth) -> dict[str, Any]:
    """Return a sample in the conventions of caustics: plain dicts, lists and numbers.

    Returns:
        ``z_lens, z_source``; ``lenses, sources, lens_light``, each a list of `caustics_profile`; ``image``, arguments
        of ``LensSource``; ``psf`` with ``kernel`` (K, K) and ``pixelscale`` [arcsec], or None without a PSF.

    Raises:
        LensphysError: if caustics lacks a profile.
    """
    grid, kernel = truth.camera.grid, psf_kernel(truth.camera)
    size = {"pixelscale": grid.scale, "pixels_x": grid.width, "pixels_y": grid.height}
    return {
        "made_by": f"lensphys, sample {truth.origin[1]} of {truth.origin[0]}",
        "z_lens": truth.z_lens,
        "z_source": truth.z_source,
        "lenses": [caustics_profile(c) for c in truth.lenses],
        "sources": [caustics_profile(c) for c in truth.sources],
        "lens_light": [caustics_profile(c) for c in truth.lens_light],
        "image": size | {"upsample_factor": truth.camera.supersampling},
        "psf": None if kernel is None else {"pixelscale": kernel[1], "kernel": kernel[0].tolist()},
    }


def write_caustics(path: Path, truth: Truth) -> None:
    """Write a sample in the conventions of caustics as YAML.

    Args:
        path: the file; it is overwritten.
        truth: the sample.

    Raises:
        LensphysError: if caustics lacks a profile.
    """
    text = yaml.safe_dump(caustics_parameters(truth), sort_keys=False, default_flow_style=None, width=120)
    path.write_text(_HEADER + text)
