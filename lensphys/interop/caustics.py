"""The truth of a sample in the conventions of caustics (https://github.com/Ciela-Institute/caustics), version 1.5.

caustics' axes are ours; ``phi`` is in radians from +x, 0 <= phi < pi; ``Rein`` of its ellipses is that of the
intermediate axis, as our theta_E is, but ``Re`` of a Sersic is its semi-major axis: R_sersic / sqrt(q). It knows a
truncated halo by its total mass alone, so a cosmology comes with the parameters, in which that mass deflects as it did.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from lensphys.interop.sample import Truth, shape_of, unsupported_profile
from lensphys.model import EPL, SIE, SIS, TNFW, Multipole, PointMass, Sersic, Shear
from lensphys.model.component import Named
from lensphys.model.mass.tnfw import truncated_mass
from lensphys.observation.kernel import psf_kernel
from lensphys.simulation.cosmology import einstein_radius_of_solar_mass

Values = dict[str, Any]

_HEADER = """# Parameters for caustics >= 1.5, from lensphys: build each entry of 'lenses' as
#   getattr(caustics, kind)(cosmology=caustics.FlatLambdaCDM(**cosmology), z_l=z_lens, z_s=z_source, name=f"lens{i}",
#                           **parameters)
# each with a name of its own, in one SinglePlane (which warns that it overwrites their redshifts, with the same ones),
# and each entry of 'sources' and 'lens_light' as getattr(caustics, kind)(**parameters).
# Brightness is flux / arcsec^2: times the area of a pixel it is flux. The kernel 'psf' is on pixels of its own scale,
# those of the image / upsample_factor where that blurs before pixels are summed. For LensSource, use 'image'.
"""
_COSMOLOGY = {"h0": 0.7, "Om0": 0.3}  # that of `simulation.cosmology.cosmology_of_masses`


def caustics_profile(component: Named, z_lens: float, z_source: float) -> dict[str, Any]:
    """Return the class of caustics that a profile is and the arguments that make it, ``kind`` and ``parameters``.

    Args:
        component: lenstronomy's name and parameters [arcsec].
        z_lens: redshift of the lens, for masses.
        z_source: redshift of the source.

    Raises:
        LensphysError: if caustics has no such profile.
    """
    name, values = component
    if name not in _CONVERTERS:
        raise unsupported_profile("caustics", name, list(_CONVERTERS))
    kind, converter = _CONVERTERS[name]
    return {"kind": kind, "parameters": converter(values, z_lens, z_source)}


def _place(values: Values) -> Values:
    return {"x0": values.get("center_x", 0.0), "y0": values.get("center_y", 0.0)}


def _about(values: Values) -> Values:
    return {"x0": values.get("ra_0", 0.0), "y0": values.get("dec_0", 0.0)}


def _shape(values: Values) -> Values:
    q, phi = shape_of(values)
    return _place(values) | {"q": q, "phi": phi}


def _round(values: Values, *_: float) -> Values:
    return _place(values) | {"Rein": values["theta_E"]}


def _ellipse(values: Values, *_: float) -> Values:
    return _shape(values) | {"Rein": values["theta_E"]}


def _power_law(values: Values, *_: float) -> Values:
    return _ellipse(values) | {"t": values["gamma"] - 1}


def _shear(values: Values, *_: float) -> Values:
    return _about(values) | {"gamma_1": values["gamma1"], "gamma_2": values["gamma2"]}


def _halo(values: Values, z_lens: float, z_source: float) -> Values:
    tau = values["r_trunc"] / values["Rs"]
    strength = values["alpha_Rs"] * values["Rs"] / (1 - math.log(2)) * float(truncated_mass(tau))  # theta_E^2
    return _place(values) | {
        "mass": strength / einstein_radius_of_solar_mass(z_lens, z_source, "angular_diameter") ** 2,
        "Rs": values["Rs"],
        "tau": tau,
    }


def _multipole(values: Values, *_: float) -> Values:
    return _place(values) | {name: values[name] for name in ("m", "a_m", "phi_m")}


def _sheet(values: Values, *_: float) -> Values:
    return _about(values) | {"kappa": values["kappa"]}


def _sersic(values: Values, *_: float) -> Values:
    radius = values["R_sersic"] / math.sqrt(shape_of(values)[0])
    return _shape(values) | {"n": values["n_sersic"], "Re": radius, "Ie": values["amp"], "use_lenstronomy_k": True}


# lenstronomy's name: that of caustics, and its parameters from lenstronomy's and the redshifts
_CONVERTERS: dict[str, tuple[str, Callable[[Values, float, float], Values]]] = {
    SIS.lenstronomy: ("SIS", _round),
    SIE.lenstronomy: ("SIE", _ellipse),
    EPL.lenstronomy: ("EPL", _power_law),
    Shear.lenstronomy: ("ExternalShear", _shear),
    PointMass.lenstronomy: ("Point", _round),
    TNFW.lenstronomy: ("TNFW", _halo),
    Multipole.lenstronomy: ("Multipole", _multipole),
    "CONVERGENCE": ("MassSheet", _sheet),
    "SERSIC": ("Sersic", _sersic),
    Sersic.lenstronomy: ("Sersic", _sersic),
}


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
    path.write_text(_HEADER + text, encoding="utf-8")
