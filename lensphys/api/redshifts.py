"""Redshifts of lens and source: what masses are computed with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from numbers import Real
from typing import Any

import numpy as np

from lensphys.basics.checks import LensphysError

_NEAR = 1e-6  # by how much the same redshift may differ, written twice


@dataclass(frozen=True)
class Redshifts:
    """Of lens and source, as they were given; 0 < lens < source.

    Args:
        z_lens: of the lens.
        z_source: of the source.
    """

    z_lens: float
    z_source: float

    @classmethod
    def given(cls, z_lens: float | None, z_source: float | None) -> Redshifts | None:
        """Return both redshifts, or None where neither is given.

        Raises:
            LensphysError: if one is missing, or the source is not behind the lens.
        """
        if (z_lens is None) != (z_source is None):
            raise LensphysError("masses take both redshifts: give --z-lens and --z-source, or neither")
        if z_lens is None or z_source is None:
            return None
        if not (isinstance(z_lens, Real) and isinstance(z_source, Real) and 0 < z_lens < z_source):
            raise LensphysError(f"--z-lens must lie between 0 and --z-source, got {z_lens!r} and {z_source!r}")
        return cls(float(z_lens), float(z_source))

    @property
    def solar(self) -> float:
        """Einstein radius of a solar mass [arcsec]."""
        from lensphys.simulation.cosmology import einstein_radius_of_solar_mass

        return einstein_radius_of_solar_mass(self.z_lens, self.z_source, "angular_diameter")

    @property
    def record(self) -> dict[str, float]:
        """Both by their names, for the provenance."""
        return asdict(self)

    def completed(self, planes: Mapping[str, Any]) -> dict[str, Any]:
        """Return what was found of N images with ``z_lens`` and ``z_source`` (N,), and masses [solar masses].

        Args:
            planes: all that was found; of ``bodies`` (N, K, 7) the masses are ``body_masses`` (N, K), and where the
                parameters have a ``theta_E_total``, the mass within it is one of them: ``einstein_mass``.
        """
        known = {name: np.full(len(planes["chi2"]), z) for name, z in self.record.items()}
        if "bodies" in planes:
            known["body_masses"] = (planes["bodies"][:, :, 2].astype("f8") / self.solar) ** 2
        return dict(planes) | known | self._with_einstein_mass(planes)

    def _with_einstein_mass(self, planes: Mapping[str, Any]) -> dict[str, Any]:
        """The table of parameters with one more."""
        names = list(map(str, planes.get("parameter_names", ())))
        if "theta_E_total" not in names:
            return {}
        radius, error = (planes[key][:, names.index("theta_E_total")].astype("f8") for key in ("parameters", "errors"))
        mass = (radius / self.solar) ** 2
        more = {"parameters": mass, "errors": 2 * mass * error / radius}
        table = {key: np.column_stack([planes[key], column]) for key, column in more.items()}
        if "covariance" in planes:
            table["covariance"] = np.pad(planes["covariance"], [(0, 0), (0, 1), (0, 1)], constant_values=np.nan)
        words = {"parameter_names": "einstein_mass", "parameter_units": "solMass"}
        return table | {key: np.array([*map(str, planes[key]), word]) for key, word in words.items()}

    def remarks(self, header: Mapping[str, Any] | None) -> list[str]:
        """Return what the header of an image says otherwise."""
        found = []
        for name, z in self.record.items():
            told = None if header is None else header.get(name.upper())
            if isinstance(told, Real) and not isinstance(told, bool) and abs(float(told) - z) > _NEAR:
                option = f"--{name.replace('_', '-')}"
                found.append(f"the header says {name.upper()} {told:g}: masses are by {option} {z:g}")
        return found
