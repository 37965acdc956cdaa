"""The unit of an image against the unit of an instrument: what an instrument's noise is in the image's unit."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lensphys.basics.checks import LensphysError, is_number
from lensphys.observation.instrument import ExposureNoiseSettings, Instrument
from lensphys.observation.noise import ExposureNoise

if TYPE_CHECKING:
    from astropy.io.fits import Header

_TIMES = ("EXPTIME", "EXPOSURE", "TEXPTIME", "XPOSURE", "EFFEXPTM")
_GAINS = ("GAIN", "CCDGAIN", "ATODGAIN", "EGAIN")
# AB magnitude of 1 BUNIT; HSC and Rubin: BUNIT of magnitude 0
ZERO_POINTS = ("MAGZERO", "ZEROPNT", "MAGZPT", "MAGZPNT", "MAGZP", "ABMAGZP", "PHOTZP", "ZPT_AB", "ZP")
FLUX_OF_ZERO = "FLUXMAG0"


@dataclass(frozen=True)
class UnitRatio:
    """From an image's unit to the instrument's.

    Args:
        value: how many of the image's units make one of the instrument's.
        remarks: sentences for the user.
    """

    value: float = 1.0
    remarks: tuple[str, ...] = ()

    def noise(self, law: ExposureNoise) -> ExposureNoise:
        """Return the instrument's noise law for images in their own unit.

        A variance b^2 + I / t becomes (r b)^2 + r J / t for J = r I.
        """
        return replace(
            law, background_rms=law.background_rms * self.value, exposure_time=law.exposure_time / self.value
        )


def unit_ratio(header: Header, instrument: Instrument, where: str, pixel_scale: float) -> UnitRatio:
    """Return how many units of an image make one of an instrument.

    Args:
        header: of the image: BUNIT, EXPTIME, GAIN, a zero point.
        instrument: whose noise the image shall have.
        where: what the image is called in messages.
        pixel_scale: of the image [arcsec].

    Raises:
        LensphysError: if the image's unit cannot be brought to the instrument's.
    """
    from astropy import units as u

    from lensphys.fits.units import unit_of, unit_text

    said = unit_text(header)[:40]
    unit = unit_of(header)
    if unit is None:
        return _by_zero_point(header, instrument, where, said)
    unit = unit * u.pix if u.pix in getattr(unit, "bases", []) else unit  # each value is a pixel's
    for kind in (_rate, _flux_density):
        ratio = kind(unit, header, instrument, where, pixel_scale)
        if ratio is not None:
            remarks = (*_told(ratio, said, instrument, where), *_electrons_assumed(unit, header, where))
            return UnitRatio(ratio, (*remarks, *_other_exposure(header, instrument, where)))
    raise LensphysError(
        f"{where} has BUNIT {said}, which cannot be brought to the {instrument.unit} of the instrument: give --error, "
        "or convert the image"
    )


def _told(ratio: float, said: str, instrument: Instrument, where: str) -> tuple[str, ...]:
    if math.isclose(ratio, 1, rel_tol=1e-6):
        return ()
    return (
        f"{where} is in {said}, {ratio:.4g} of which are 1 {instrument.unit} of the instrument: its noise is converted",
    )


def _electrons_assumed(unit: Any, header: Header, where: str) -> tuple[str, ...]:
    from astropy import units as u

    if u.ct not in getattr(unit, "bases", [unit]) or any(key in header for key in _GAINS):
        return ()
    return (f"{where} is in counts and has no GAIN: they are taken for electrons",)


def exposure_of(header: Header) -> float | None:
    """Return for how long an image was exposed [s]; None if no card says."""
    told = (float(header[key]) for key in _TIMES if is_number(header.get(key)))
    return next((seconds for seconds in told if 0 < seconds < float("inf")), None)


def _other_exposure(header: Header, instrument: Instrument, where: str) -> tuple[str, ...]:
    own = instrument.noise
    seconds = exposure_of(header)
    if not isinstance(own, ExposureNoiseSettings) or seconds is None:
        return ()
    assumed = own.exposure_time * own.num_exposures
    if abs(seconds / assumed - 1) <= 0.1 or abs(seconds / own.exposure_time - 1) <= 0.1:
        return ()
    return (f"{where} was exposed for {seconds:g} s, the noise is that of the instrument's {assumed:g} s",)


def _by_zero_point(header: Header, instrument: Instrument, where: str, said: str) -> UnitRatio:
    """Units that only a magnitude tells apart."""
    key = next((key for key in (*ZERO_POINTS, FLUX_OF_ZERO) if key in header), None)
    magnitude = None if key is None else _magnitude(header, key, where)
    if magnitude is not None and instrument.zero_point is not None:
        ratio = 10 ** (0.4 * (magnitude - instrument.zero_point))
        return UnitRatio(ratio, _told(ratio, f"units of {key} {header[key]:.4g}", instrument, where))
    if said:
        raise LensphysError(
            f"{where} has BUNIT {said}, which is no unit that can be read: write it as e-/s, electron, adu or uJy, or "
            "give --error"
        )
    return UnitRatio(1.0, (f"{where} has no BUNIT: it is taken to be in {instrument.unit}, as the instrument is",))


def _magnitude(header: Header, key: str, where: str) -> float:
    """The zero point that a card gives."""
    value = header[key]
    if not is_number(value) or (key == FLUX_OF_ZERO and value <= 0):
        expected = "a flux above zero" if key == FLUX_OF_ZERO else "a magnitude"
        raise LensphysError(f"{where} has {key} = {repr(value)[:20]}, expected {expected}: repair it")
    return 2.5 * math.log10(value) if key == FLUX_OF_ZERO else float(value)


def _rate(unit: Any, header: Header, instrument: Instrument, where: str, pixel_scale: float) -> float | None:
    """Electrons, counts and ADU, summed over the exposure or by the second."""
    from astropy import units as u

    per_second = u.s in getattr(unit, "bases", [])
    counted = unit * u.s if per_second else unit
    electrons = _electrons(counted, header, instrument, where)
    if electrons is None:
        return None
    seconds = 1.0 if per_second else _number(header, _TIMES, where, "EXPTIME")
    return seconds * (instrument.gain or 1.0) / electrons


def _electrons(counted: Any, header: Header, instrument: Instrument, where: str) -> float | None:
    """How many electrons make one of what was counted; None if that is something else."""
    from astropy import units as u

    if counted.is_equivalent(u.electron):
        return float(counted.to(u.electron))
    if counted.is_equivalent(u.ct):  # many archives call electrons counts
        known = any(key in header for key in _GAINS)
        return float(counted.to(u.ct)) * (_number(header, _GAINS, where, "GAIN") if known else 1.0)
    if counted.is_equivalent(u.adu) or counted.is_equivalent(u.DN):
        known = instrument.gain is not None and not any(key in header for key in _GAINS)
        return instrument.gain if known else _number(header, _GAINS, where, "GAIN")
    return None


def _flux_density(unit: Any, header: Header, instrument: Instrument, where: str, pixel_scale: float) -> float | None:
    """Janskys and nanomaggies, per pixel or per solid angle."""
    from astropy import units as u

    one = 1 * unit
    if u.get_physical_type(unit * u.sr) == "spectral flux density":
        one = one * (pixel_scale * u.arcsec) ** 2
    with u.add_enabled_equivalencies(u.zero_point_flux(3631 * u.Jy)):
        if not one.unit.is_equivalent(u.Jy):
            return None
        jansky = float(one.to_value(u.Jy))
    if instrument.zero_point is None:
        raise LensphysError(f"{where} is in {unit}, and the instrument has no zero_point: give --error")
    return 3631 * 10 ** (-0.4 * instrument.zero_point) / jansky


def _number(header: Header, keys: tuple[str, ...], where: str, name: str) -> float:
    value = next((header[key] for key in keys if key in header), None)
    if not is_number(value) or not 0 < value < float("inf"):
        held = f"no {name}" if value is None else f"{name} {repr(value)[:20]}, no number above zero,"
        raise LensphysError(
            f"{where} has BUNIT {str(header.get('BUNIT'))[:40]} and {held} in its header: set {name} there, or give "
            "--error"
        )
    return float(value)
