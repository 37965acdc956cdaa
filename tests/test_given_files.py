"""Files of noise, masks and PSFs that hold several: which one belongs to the image."""

import numpy as np
import pytest
from astropy.io import fits

from lensphys.basics.checks import LensphysError
from lensphys.data.images import Reading, read_images
from lensphys.fits.image import Choice

SIGMA, SIZE = 0.1, 24
IMAGE = np.random.default_rng(0).normal(0, SIGMA, (SIZE, SIZE)).astype("f4")
IMAGE[10:14, 8:16] += 3
ERR = np.full(IMAGE.shape, SIGMA, "f4")
HEAD = {"PIXSCALE": 0.1}


def star(size):
    y, x = np.mgrid[:size, :size] - size // 2
    values = np.exp(-0.5 * (x**2 + y**2))
    return values / values.sum()


def flags(bad):
    values = np.zeros(IMAGE.shape, "i2")
    values[2, :bad] = 1
    return values


def write(path, *hdus):
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path, overwrite=True)
    return path


def ext(data, name, version=None, **cards):
    cards = cards if version is None else {**cards, "EXTVER": version}
    return fits.ImageHDU(data, fits.Header(cards), name=name)


def maps(folder, first, second):
    """Files of two maps each, of which the second one is right: sigma 0.1, 5 bad pixels, 7 x 7 pixels."""
    pairs = {"error": (9 * ERR, ERR, "ERR"), "mask": (flags(9), flags(5), "DQ"), "psf": (star(9), star(7), "PSF")}
    return {
        what: write(folder / f"{what}.fits", *(ext(data, name.replace("*", role), **cards)
                    for data, (name, cards) in ((wrong, first), (right, second))))
        for what, (wrong, right, role) in pairs.items()
    }  # fmt: skip


KINDS = {
    "EXTVER": (("*", {"version": 1}), ("*", {"version": 2}), "SCI", {"EXTVER": 2}),
    "FILTER": (("*", {"FILTER": "F150W"}), ("*", {"FILTER": "F200W"}), "CUTOUT", {"FILTER": "F200W"}),
    "names": (("*_F150W", {}), ("*_F200W", {}), "CUTOUT", {"FILTER": "F200W"}),
    "names, less than all": (("*_F150W", {}), ("*", {}), "CUTOUT", {"FILTER": "F200W"}),
    "bands": (("NIR_H_*", {}), ("VIS_*", {}), "VIS_FLUX", {}),
    "no band": (("NIR_H_*", {}), ("*", {}), "CUTOUT", {}),
}


@pytest.mark.parametrize(("first", "second", "name", "cards"), KINDS.values(), ids=KINDS)
def test_the_one_of_the_image_is_taken(tmp_path, first, second, name, cards):
    path = write(tmp_path / "a.fits", ext(IMAGE, name, **HEAD, **cards))
    found = read_images(path, Reading(**maps(tmp_path, first, second)))
    seen = found.observation
    assert float(seen.noise.variance(seen.image).sqrt().median()) == pytest.approx(SIGMA)
    assert int((~seen.mask).sum()) == 5 and len(seen.camera.psf.kernel) == 7
    assert sum("not used: " in remark for remark in found.remarks) == 3


@pytest.mark.parametrize("kind", ["bands", "EXTVER", "FILTER"])
@pytest.mark.parametrize("what", ["error", "mask", "psf"])
def test_several_that_nothing_tells_apart_are_refused(tmp_path, what, kind):
    path = write(tmp_path / "a.fits", ext(IMAGE, "CUTOUT", **HEAD))
    given = maps(tmp_path, *KINDS[kind][:2])[what]
    with pytest.raises(LensphysError, match="neither a band, nor FILTER, nor EXTVER says which is of the image"):
        read_images(path, Reading(**{what: given}))


def test_two_nameless_ones_are_refused(tmp_path):
    path = write(tmp_path / "a.fits", ext(IMAGE, "SCI", **HEAD))
    given = write(tmp_path / "e.fits", fits.ImageHDU(ERR), fits.ImageHDU(9 * ERR))
    with pytest.raises(LensphysError, match=r"error map .*e.fits has 1, 2, and neither"):
        read_images(path, Reading(error=given))


def test_the_surest_of_several_kinds_is_taken_and_the_others_are_named(tmp_path):
    path = write(tmp_path / "a.fits", ext(IMAGE, "SCI", **HEAD))
    given = write(tmp_path / "e.fits", ext(1 / ERR**2, "WHT"), ext(ERR**2, "VAR"), ext(ERR, "ERR"))
    found = read_images(path, Reading(error=given))
    assert "noise: e.fits[ERR], standard deviations; not used: WHT, VAR" in found.remarks


def test_a_map_of_another_band_is_questioned(tmp_path):
    path = write(tmp_path / "a.fits", ext(IMAGE, "SCI", **HEAD, FILTER="F200W"))
    given = write(tmp_path / "e.fits", ext(ERR, "ERR", FILTER="F150W"))
    found = read_images(path, Reading(error=given))
    told = "noise: e.fits[ERR], standard deviations; ERR is of F150W, and the image of F200W: is it right?"
    assert told in found.remarks


def test_a_version_that_is_asked_for(tmp_path):
    path = write(tmp_path / "a.fits", ext(IMAGE + 5, "SCI", 1, **HEAD), ext(IMAGE, "SCI", 2, **HEAD))
    given = write(tmp_path / "e.fits", ext(9 * ERR, "ERR", 1), ext(ERR, "ERR", 2))
    seen = read_images(path, Reading(error=given, choice=Choice(extension="SCI,2"))).observation
    assert float(seen.noise.variance(seen.image).sqrt().median()) == pytest.approx(SIGMA)
