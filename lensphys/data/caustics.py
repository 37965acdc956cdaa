"""The truth of a sample in the conventions of caustics (https://github.com/Ciela-Institute/caustics), version 1.5.

caustics' axes are ours; ``phi`` is in radians from +x, 0 <= phi < pi; ``Rein`` of its ellipses is that of the
intermediate axis, as our theta_E is, but ``Re`` of a Sersic is its semi-major axis: R_sersic / sqrt(q). It knows a
truncated halo by its total mass alone, so a cosmology comes with the parameters, in which that mass deflects as it did.
"""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from lensphys.data.exporting import Component, Truth, lacking, psf_kernel, shape_of
from lensphys.model.mass.tnfw import truncated_mass

_HEADER = """# Parameters for caustics >= 1.5, from lensphys: build each entry of 'lenses' as
#   getattr(caustics, kind)(cosmology=caustics.FlatLambdaCDM(**cosmology), z_l=z_lens, z_s=z_source, name=f"lens{i}",
#                           **parameters)
# each with a name of its own, in one SinglePlane (which warns that it overwrites their redshifts, with the same ones),
# and each entry of 'sources' and 'lens_light' as getattr(caustics, kind)(**parameters).
# Brightness is flux / arcsec^2: times the area of a pixel it is flux. The kernel 'psf' is on pixels of its own scale,
# those of the image / upsample_factor where that blurs before pixels are summed. For LensSource, use 'image'.
"""
_COSMOLOGY = {"h0": 0.7, "Om0": 0.3}
_MASS = ("SIS", "SIE", "EPL", "SHEAR", "POINT_MASS", "TNFW", "MULTIPOLE", "CONVERGENCE")
_LIGHT = ("SERSIC", "SERSIC_ELLIPSE")


def caustics_profile(component: Component, z_lens: float, z_source: float) -> dict[str, Any]:
    """Return the class of caustics that a profile is and the arguments that make it, ``kind`` and ``parameters``.

    Args:
        component: lenstronomy's name and parameters.
        z_lens: redshift of the lens, for masses.
        z_source: redshift of the source.

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
    if name == "TNFW":
        tau = values["r_trunc"] / values["Rs"]
        strength = values["alpha_Rs"] * values["Rs"] / (1 - math.log(2)) * float(truncated_mass(tau))  # theta_E^2
        mass = strength / _einstein_area(z_lens, z_source)
        return {"kind": "TNFW", "parameters": place | {"mass": mass, "Rs": values["Rs"], "tau": tau}}
    if name == "MULTIPOLE":
        order = {"m": values["m"], "a_m": values["a_m"], "phi_m": values["phi_m"]}
        return {"kind": "Multipole", "parameters": place | order}
    if name == "CONVERGENCE":
        return {"kind": "MassSheet", "parameters": about | {"kappa": values["kappa"]}}
    raise lacking("caustics", name, [*_MASS, *_LIGHT])


@lru_cache(maxsize=16)  # a halo after the other asks
def _einstein_area(z_lens: float, z_source: float) -> float:
    """Square of the Einstein radius of a solar mass in caustics' cosmology [arcsec^2]."""
    from astropy import constants, units
    from astropy.cosmology import FlatLambdaCDM

    cosmology = FlatLambdaCDM(H0=100 * _COSMOLOGY["h0"], Om0=_COSMOLOGY["Om0"])
    lens, source = (cosmology.angular_diameter_distance(z) for z in (z_lens, z_source))
    between = source - lens * (1 + z_lens) / (1 + z_source)  # flat space
    square = 4 * constants.G * units.M_sun / constants.c**2 * between / (lens * source)
    return float(square.decompose().value) * (math.degrees(1) * 3600) ** 2


def caustics_parameters(truth: Truth) -> dict[str, Any]:
    """Return a sample in the conventions of caustics: plain dicts, lists and numbers.

    Returns:
        ``z_lens, z_source``; ``cosmology``, arguments of FlatLambdaCDM; ``lenses, sources, lens_light``, each a list of
        `caustics_profile`; ``image``, arguments of ``LensSource``; ``psf`` with ``kernel`` (K, K) and ``pixelscale``
        [arcsec], or None without a PSF.

    Raises:
        LensphysError: if caustics lacks a profile.
    """
    grid, kernel = truth.camera.grid, psf_kernel(truth.camera)
    made = [
        [caustics_profile(component, truth.z_lens, truth.z_source) for component in components]
        for components in (truth.lenses, truth.sources, truth.lens_light)
    ]
    size = {"pixelscale": grid.scale, "pixels_x": grid.width, "pixels_y": grid.height}
    return {
        "made_by": f"lensphys, sample {truth.origin[1]} of {truth.origin[0]}",
        "z_lens": truth.z_lens,
        "z_source": truth.z_source,
        "cosmology": dict(_COSMOLOGY),
        "lenses": made[0],
        "sources": made[1],
        "lens_light": made[2],
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
