"""FITS in and out: sources stay at their sky position, flux stays, faulty files give one clear sentence."""

import bz2
import gzip
import lzma
import warnings

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from lensphys.basics.checks import LensphysError
from lensphys.fits import file
from lensphys.fits.header import pixel_scale, questioned_scale, rescaled_header, scale_conflict, scale_key
from lensphys.fits.image import PIXELS, Choice, fits_images, read_fits_image, read_noise_map
from lensphys.fits.result import write_fits
from lensphys.fits.units import is_surface_brightness
from lensphys.observation.psf_file import read_kernel

H, W, SCALE = 12, 16, 0.05
STEP = SCALE / 3600
COS, SIN = np.cos(0.7), np.sin(0.7)
ROTATION = {"1_1": -COS, "1_2": SIN, "2_1": SIN, "2_2": COS}


def header(**cards) -> fits.Header:
    sky = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CUNIT1": "deg", "CUNIT2": "deg"}
    place = {"CRPIX1": 5.3, "CRPIX2": -2.1, "CRVAL1": 150.1, "CRVAL2": 41.7}
    return fits.Header({"BUNIT": "counts/s", **sky, **place, **cards})


CD = header(**{f"CD{key}": value * STEP for key, value in ROTATION.items()})
PC = header(CDELT1=STEP, CDELT2=STEP, **{f"PC{key}": value for key, value in ROTATION.items()})
PC_ALONE = header(**{f"PC{key}": value * STEP for key, value in ROTATION.items()})
CDELT = header(CDELT1=-STEP, CDELT2=STEP)
CROTA = header(CDELT1=-STEP, CDELT2=STEP, CROTA2=33.0)
SIP = header(**{f"CD{key}": value * STEP for key, value in ROTATION.items()})
SIP.update({"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP"})
SIP.update({"A_ORDER": 2, "B_ORDER": 3, "A_2_0": 1e-3, "A_1_1": -2e-3, "B_0_2": 3e-3, "B_1_2": 1e-4})
HEADERS = {"cd": CD, "pc": PC, "pc_alone": PC_ALONE, "cdelt": CDELT, "crota": CROTA, "sip": SIP}
every_header = pytest.mark.parametrize("low", HEADERS.values(), ids=HEADERS)


def image() -> np.ndarray:
    return np.random.default_rng(0).normal(1, 0.1, (H, W)).astype(np.float32)


def save(path, hdus: dict[str, np.ndarray], card: fits.Header | None = None):
    listed = fits.HDUList([fits.PrimaryHDU()])
    listed.extend([fits.ImageHDU(data, card, name=name) for name, data in hdus.items()])
    listed.writeto(path)
    return path


def arcsec_apart(a, b) -> float:
    a, b = np.asarray(a), np.asarray(b)
    return float(np.hypot((a[0] - b[0]) * np.cos(np.radians(b[1])), a[1] - b[1]).max() * 3600)


@every_header
@pytest.mark.parametrize("factor", [2, 3])
def test_each_position_keeps_its_place_on_the_sky(low, factor):
    high = rescaled_header(low, factor)
    # the outer edge of the first pixel is at -0.5, for pixels of any size
    x, y = np.array([-0.5, 0.0, 3.2, W - 0.5]), np.array([-0.5, 0.0, 7.9, H - 0.5])
    before = WCS(low).all_pix2world(x, y, 0)
    after = WCS(high).all_pix2world((x + 0.5) * factor - 0.5, (y + 0.5) * factor - 0.5, 0)
    assert arcsec_apart(before, after) < 1e-6
    assert pixel_scale(high, "image") == pytest.approx(pixel_scale(low, "image") / factor, rel=1e-9)


def test_an_alternate_description_and_missing_cards_go_along():
    low = CD.copy()
    low.update({"CTYPE1A": "LINEAR", "CTYPE2A": "LINEAR", "CRPIX1A": 1.0, "CDELT1A": 4.0})
    high = rescaled_header(low, 2)
    assert (high["CRPIX1A"], high["CRPIX2A"], high["CDELT1A"], high["CDELT2A"]) == (1.5, -0.5, 2.0, 0.5)
    bare = header(CDELT1=-STEP, CDELT2=STEP)
    del bare["CRPIX1"], bare["CRPIX2"]
    sky = WCS(bare).all_pix2world(3.0, 4.0, 0)
    assert arcsec_apart(sky, WCS(rescaled_header(bare, 2)).all_pix2world(6.5, 8.5, 0)) < 1e-6
    assert "CRPIX1" not in rescaled_header(fits.Header({"BUNIT": "counts"}), 2)


@pytest.mark.parametrize("low", [CD, PC, CDELT], ids=["cd", "pc", "cdelt"])
def test_a_source_is_found_where_it_was(tmp_path, low):
    # light in one LR pixel, then in the block of SR pixels that it covers: the WCS of the files must agree
    sharp = np.zeros((1, 3 * H, 3 * W), np.float32)
    sharp[0, 3 * 7 : 3 * 8, 3 * 4 : 3 * 5] = 1
    write_fits(tmp_path / "sr.fits", low, {"image": sharp}, scale=3, pixel_scale=SCALE, provenance={})
    with fits.open(tmp_path / "sr.fits") as hdus:
        rows, columns = np.nonzero(hdus[0].data)
        found = WCS(hdus[0].header).all_pix2world(columns.mean(), rows.mean(), 0)
    assert arcsec_apart(found, WCS(low).all_pix2world(4, 7, 0)) < 1e-6


def results(factor: int) -> dict:
    n = np.random.default_rng(1)
    fine = (1, factor * H, factor * W)
    return {
        "image": np.repeat(np.repeat(image()[None], factor, 1), factor, 2) / factor**2,
        "alpha": n.normal(size=(1, 2, *fine[1:])).astype(np.float32),
        "kappa": n.normal(size=fine).astype(np.float32),
        "source": n.normal(size=(1, 20, 20)).astype(np.float32),
        "source_scale": 0.01,
        "residual": n.normal(size=(1, H, W)).astype(np.float32),
        "chi2": np.array([1.02]),
        "theta_E": np.array([1.25]),
    }


def test_what_is_written(tmp_path):
    low, made = CD.copy(), results(2)
    low.update({"OBJECT": "a lens", "PIXSCALE": SCALE, "THETA_E": 9.0, "BZERO": 32768, "XTENSION": "IMAGE"})
    write_fits(tmp_path / "a.fits", low, made, scale=2, pixel_scale=SCALE, provenance={"commit": "abc", "scale": 2})
    with fits.open(tmp_path / "a.fits") as hdus:
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "ALPHA", "KAPPA", "SOURCE", "RESIDUAL"]
        for name in ("ALPHA", "KAPPA"):  # not the pixel scale and the radius of the input
            head = hdus[name].header
            assert (head["PIXSCALE"], head["THETA_E"], head["THETA_E0"]) == (SCALE / 2, 1.25, 9.0)
        assert (hdus["RESIDUAL"].header["PIXSCALE"], hdus["RESIDUAL"].header["THETA_E"]) == (SCALE, 1.25)
        first = hdus[0].header
        assert hdus[0].data.sum() == pytest.approx(image().sum(), rel=1e-6)
        for name in ("alpha", "kappa", "source", "residual"):
            assert np.array_equal(hdus[name].data, made[name][0])
        assert (first["BUNIT"], first["OBJECT"], first["THETA_E0"]) == ("counts/s", "a lens", 9.0)
        assert (first["THETA_E"], first["CHI2"], first["PIXSCALE"]) == (1.25, 1.02, SCALE / 2)
        assert "BZERO" not in first and "lensphys commit: \"abc\"" in list(first["HISTORY"])  # fmt: skip
        assert (hdus["SOURCE"].header["PIXSCALE"], hdus["SOURCE"].header["BUNIT"]) == (0.01, "counts/s/arcsec2")
        assert (hdus["ALPHA"].header["BUNIT"], hdus["KAPPA"].header["BUNIT"]) == ("arcsec", "")
        sky = [WCS(hdus[k].header).all_pix2world(*p, 0) for k, p in ((0, (6.5, 8.5)), ("RESIDUAL", (3, 4)))]
        assert arcsec_apart(*sky) < 1e-6
        assert arcsec_apart(sky[0], WCS(hdus["KAPPA"].header).all_pix2world(6.5, 8.5, 0)) < 1e-9
    again = read_fits_image(tmp_path / "a.fits")  # a result can be read again
    assert again.used["image"] == "PRIMARY" and np.array_equal(again.image, made["image"][0])


def test_cards_of_the_result_are_told_from_those_of_the_input(tmp_path):
    low, made = CD.copy(), results(2) | {"best_gain": np.array([3.5]), "substructure_evidence": np.array([0.0])}
    low.update({"SLOPE": 2.1, "CHI2": 7.0, "QUALITY": "archive", "SUBGAIN": 1.0, "PSF": "TinyTim", "OBJECT": "a"})
    write_fits(tmp_path / "a.fits", low, made, scale=2, pixel_scale=SCALE, provenance={"scale": 2})
    head = fits.getheader(tmp_path / "a.fits")
    headings = [i for i, card in enumerate(head.cards) if str(card.value).startswith("----")]
    of_input, of_result = (set(list(head)[a:b]) for a, b in ((headings[0], headings[1]), (headings[1], None)))
    assert {"SLOPE", "OBJECT", "CHI20", "QUALITY0", "SUBGAIN0", "PSF0", "CRPIX1"} <= of_input
    assert {"CHI2", "THETA_E", "SUBGAIN", "SUBEVID", "PIXSCALE", "BUNIT", "LENSPHYS"} <= of_result
    assert not of_input & of_result - {"COMMENT"}
    assert (head["CHI20"], head.comments["CHI20"], head["CHI2"]) == (7.0, "CHI2 of the input", 1.02)
    assert "QUALITY" not in head and "PSF" not in head  # the method says neither: those of the input would be its own
    assert head.comments["SUBGAIN"].startswith("ln(L1/L0)") and head.comments["SUBEVID"].startswith("ln(Z/Z0)")
    write_fits(tmp_path / "b.fits", head, results(4), scale=2, pixel_scale=SCALE / 2, provenance={})
    again = fits.getheader(tmp_path / "b.fits")  # of a result: its numbers are the input's now
    assert (again["SUBGAIN0"], again["THETA_E0"], "SUBGAIN" in again) == (3.5, 1.25, False)
    assert sum(str(line).startswith("----") for line in again["COMMENT"]) == 2


def test_only_what_is_known_is_written(tmp_path):
    low = CD.copy()
    low["THETA_E"] = 9.0
    made = {"image": results(2)["image"], "chi2": np.array([np.nan])}
    write_fits(tmp_path / "a.fits", low, made, scale=2, pixel_scale=SCALE, provenance={})
    with fits.open(tmp_path / "a.fits") as hdus:
        assert len(hdus) == 1 and "THETA_E" not in hdus[0].header
        assert hdus[0].header["CHI2"] is None


def test_surface_brightness_stays_one(tmp_path):
    low, made = CD.copy(), results(2)
    low["BUNIT"] = "MJy/sr"
    write_fits(tmp_path / "a.fits", low, made, scale=2, pixel_scale=SCALE, provenance={})
    with fits.open(tmp_path / "a.fits") as hdus:
        assert hdus[0].data.mean() == pytest.approx(image().mean(), rel=1e-6)  # not its sum
        assert hdus["SOURCE"].data == pytest.approx(made["source"][0] * SCALE**2)
        assert hdus["SOURCE"].header["BUNIT"] == "MJy/sr"
    units = ["MJy sr-1", "mJy/arcsec2", "counts/s", "electron", "sroads", ""]
    assert [is_surface_brightness(fits.Header({"BUNIT": u})) for u in units] == [True, True, False, False, False, False]
    assert not is_surface_brightness(fits.Header())


def test_a_failed_write_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LensphysError, match=r"cannot write .*a.fits"):
        write_fits(tmp_path / "file" / "a.fits", CD, results(2), scale=2, pixel_scale=SCALE, provenance={})
    with pytest.raises(KeyError):
        write_fits(tmp_path / "a.fits", CD, {}, scale=2, pixel_scale=SCALE, provenance={})
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_reads_the_lens_subtracted_image_and_its_companions(tmp_path):
    planes = {"SCI": image(), "ARC": image() + 1, "ERR": image() * 0.1, "MASK": np.ones((H, W), np.uint8)}
    path = save(tmp_path / "a.fits", {**planes, "PSF": np.ones((3, 3))})
    found = read_fits_image(path)
    assert found.used["image"] == "ARC" and np.array_equal(found.image, planes["ARC"])
    assert np.array_equal(found.noise.values, planes["ERR"]) and found.noise.kind == "standard deviation"
    assert found.mask.all() and found.psf.values.shape == (3, 3) and found.psf.scale is None
    for array in (found.image, found.noise.values, found.mask, found.psf.values):
        assert array.dtype.isnative
    assert found.used == {"image": "ARC", "noise": "ERR", "mask": "MASK", "PSF": "PSF"} and found.unused == ("SCI",)
    found = read_fits_image(save(tmp_path / "b.fits", {"ERR": image(), "SCI": planes["SCI"]}))
    assert found.used["image"] == "SCI" and np.array_equal(found.image, planes["SCI"]) and found.mask is None


@pytest.mark.parametrize("dtype", [">f8", "<i2", "u1", ">i4"])
def test_any_type_of_number_in_any_unnamed_extension(tmp_path, dtype):
    data = np.arange(H * W).reshape(H, W).astype(dtype)
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.ones(5)), fits.ImageHDU(data)]).writeto(tmp_path / "a.fits")
    found = read_fits_image(tmp_path / "a.fits")
    assert found.used["image"] == "2" and np.array_equal(found.image, data) and found.image.dtype == np.float32


def test_blank_pixels_of_unsigned_images_do_not_count(tmp_path):
    data = np.arange(H * W, dtype=np.uint16).reshape(H, W)
    fits.PrimaryHDU(data, fits.Header({"PIXSCALE": SCALE})).writeto(tmp_path / "a.fits")
    with fits.open(tmp_path / "a.fits", mode="update", do_not_scale_image_data=True) as hdus:
        hdus[0].header["BLANK"] = 7 - 32768  # as it is stored
    found = read_fits_image(tmp_path / "a.fits").image
    assert np.isnan(found.flat[7]) and np.array_equal(np.delete(found, 7), np.delete(data, 7))


def test_scaled_compressed_and_zipped(tmp_path):
    data = np.arange(H * W, dtype=np.uint16).reshape(H, W)  # astropy stores it with BZERO
    packed = fits.CompImageHDU(data, name="SCI")
    fits.HDUList([fits.PrimaryHDU(), packed]).writeto(tmp_path / "a.fits")
    assert np.array_equal(read_fits_image(tmp_path / "a.fits").image, data)
    (tmp_path / "b.fits.gz").write_bytes(gzip.compress((tmp_path / "a.fits").read_bytes()))
    assert np.array_equal(read_fits_image(tmp_path / "b.fits.gz").image, data)


def test_files_of_their_own(tmp_path):
    path = save(tmp_path / "a.fits", {"X": image(), "PSF": image() + 1}, CDELT)
    kernel = read_kernel("PSF file", path)
    assert np.array_equal(kernel.values, (image() + 1).astype(float)) and kernel.scale == pytest.approx(SCALE)
    assert np.array_equal(read_noise_map("error map", path).values, image())
    save(tmp_path / "b.fits", {"SKY": image()})
    with pytest.raises(LensphysError, match=r"PSF file .*b.fits holds no image of a PSF: it holds SKY \(12, 16\)"):
        read_kernel("PSF file", tmp_path / "b.fits")
    with pytest.raises(LensphysError, match=r"error map .*b.fits holds no noise map: it holds SKY \(12, 16\)"):
        read_noise_map("error map", tmp_path / "b.fits")


def test_pixel_scale_of_a_header():
    assert pixel_scale(fits.Header(), "image") is None
    assert pixel_scale(fits.Header({"PIXSCALE": 0.03}), "image") == 0.03
    assert pixel_scale(header(PIXSCALE=7.0, CDELT1=-STEP, CDELT2=STEP), "image") == pytest.approx(SCALE)
    linear = fits.Header({"CTYPE1": "LINEAR", "CTYPE2": "LINEAR", "CDELT1": 1.0, "CDELT2": 1.0, "PIXSCALE": 0.03})
    assert pixel_scale(linear, "image") == 0.03
    assert pixel_scale(header(), "image") is None  # a WCS without a scale would give pixels of a degree
    for value in (0.0, -1.0, "small", True):
        with pytest.raises(LensphysError, match=r"image has PIXSCALE = .*, expected arcsec above zero: give --pixel"):
            pixel_scale(fits.Header({"PIXSCALE": value}), "image")


def test_pixels_that_are_not_square():
    assert pixel_scale(header(CDELT1=-STEP * 1.009, CDELT2=STEP), "image") == pytest.approx(SCALE, rel=0.01)
    with pytest.raises(LensphysError, match=r'image has pixels of 0.051" x 0.05": resample it onto square ones'):
        pixel_scale(header(CDELT1=-STEP * 1.02, CDELT2=STEP), "image")


def test_a_faulty_wcs(tmp_path):
    with pytest.raises(LensphysError, match=r"image has a faulty WCS: repair it, or give --pixel-scale"):
        pixel_scale(header(CDELT1=0.0, CDELT2=0.0), "image")
    path = save(tmp_path / "a.fits", {"SCI": image()}, header(CDELT1="much", CDELT2=STEP))
    with pytest.raises(LensphysError, match=r"has CDELT1 = 'much', expected a number: repair it"):
        read_fits_image(path)
    path = save(tmp_path / "b.fits", {"SCI": image()}, header(CPDIS1="LOOKUP"))
    with pytest.raises(LensphysError, match=r"WCS with distortion tables \(CPDIS1\): drizzle the image first"):
        read_fits_image(path)


def test_files_without_an_image(tmp_path):
    with pytest.raises(LensphysError, match=r"has no image \(H, W\): save the cut-out as the primary image or as SCI"):
        read_fits_image(save(tmp_path / "a.fits", {"MASK": image(), "PSF": np.ones((2, H, W))}))
    with pytest.raises(LensphysError, match=r"\[CUBE\] has the shape \(2, 12, 16\).*with --ext 'CUBE\[0\]'"):
        read_fits_image(save(tmp_path / "c.fits", {"MASK": image(), "CUBE": np.ones((2, H, W))}))
    with pytest.raises(LensphysError, match=r"\[SCI\] has the shape \(2, 12, 16\), expected one image \(H, W\)"):
        read_fits_image(save(tmp_path / "b.fits", {"SCI": np.ones((2, H, W))}))


@pytest.mark.parametrize("keep", [0, 100, 2880, 0.5, 0.97])
def test_truncated_files(tmp_path, keep):
    path = save(tmp_path / "a.fits", {"SCI": np.ones((60, 60)), "ERR": np.ones((60, 60))})
    data = path.read_bytes()
    path.write_bytes(data[: int(keep if keep >= 1 or keep == 0 else keep * len(data))])
    # 2880: a whole, empty primary HDU
    expected = {0: "is not a FITS file", 2880: "has no image"}.get(keep, "is not a whole FITS file")
    with pytest.raises(LensphysError, match=expected):
        read_fits_image(path)


def test_truncated_archive(tmp_path):
    path = save(tmp_path / "a.fits", {"SCI": image()})
    (tmp_path / "b.fits.gz").write_bytes(gzip.compress(path.read_bytes())[:-400])
    with pytest.raises(LensphysError, match=r"is not a whole FITS file"):
        read_fits_image(tmp_path / "b.fits.gz")


def test_foreign_and_missing_files(tmp_path):
    (tmp_path / "a.fits").write_text("hello " * 1000)
    with pytest.raises(LensphysError, match=r"input .*a.fits is not a FITS file: it does not begin with SIMPLE"):
        read_fits_image(tmp_path / "a.fits")
    with pytest.raises(LensphysError, match=r"PSF file not found: .*b.fits"):
        read_kernel("PSF file", tmp_path / "b.fits")


# ---------------------------------------------------------------- what must not be read


def flipped(path, where: bytes, shift: int = 0):
    """The file with one bit changed at (or after) some bytes."""
    data = bytearray(path.read_bytes())
    data[data.rindex(where) + shift] ^= 1
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "tiled"])
def test_changed_pixels_do_not_match_their_checksum(tmp_path, packed):
    kind = fits.CompImageHDU if packed else fits.ImageHDU
    hdus = fits.HDUList([fits.PrimaryHDU(), kind(image(), CDELT, name="SCI")])
    hdus.writeto(tmp_path / "a.fits", checksum=True)
    assert np.allclose(read_fits_image(tmp_path / "a.fits").image, image(), atol=0.05)
    data = bytearray((tmp_path / "a.fits").read_bytes())
    data[-2880 + 64] ^= 1
    (tmp_path / "a.fits").write_bytes(data)
    with pytest.raises(LensphysError, match=r"input .*a.fits does not match its own checksum .*copy it again, or rem"):
        read_fits_image(tmp_path / "a.fits")


@pytest.mark.parametrize("kind", ["packed", "tiles", "plain"])
@pytest.mark.parametrize("changed", [None, 6000])
def test_the_checksums_of_a_cube_are_counted_whatever_its_name_says(tmp_path, kind, changed):
    cube = np.zeros((3, 40, 40), np.float32) if changed is None else np.random.default_rng(0).normal(size=(3, 40, 40))
    hdu = fits.CompImageHDU(cube, name="SCI") if kind == "tiles" else fits.ImageHDU(cube, name="SCI")
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(tmp_path / "a.fits", checksum=True)
    data = bytearray((tmp_path / "a.fits").read_bytes())
    if changed:
        data[-changed] ^= 255
    (tmp_path / "a.fits").write_bytes(gzip.compress(bytes(data)) if kind == "packed" else data)
    if changed:
        with pytest.raises(LensphysError, match="does not match its own checksum"):
            fits_images(tmp_path / "a.fits", PIXELS, planes=True)
    else:
        assert fits_images(tmp_path / "a.fits", PIXELS, planes=True) == 3


def test_a_changed_header_does_not_match_its_checksum(tmp_path):
    fits.PrimaryHDU(image(), CDELT).writeto(tmp_path / "a.fits", checksum=True)
    with pytest.raises(LensphysError, match="does not match its own checksum"):
        read_fits_image(flipped(tmp_path / "a.fits", b"counts/s"))


def test_results_have_checksums(tmp_path):
    write_fits(tmp_path / "a.fits", CD, results(2), scale=2, pixel_scale=SCALE, provenance={})
    with fits.open(tmp_path / "a.fits") as hdus:
        assert all("CHECKSUM" in hdu.header and "DATASUM" in hdu.header for hdu in hdus)
    read_fits_image(tmp_path / "a.fits")
    with pytest.raises(LensphysError, match="does not match its own checksum"):
        read_fits_image(flipped(tmp_path / "a.fits", b"KAPPA"))


@pytest.mark.parametrize("suffix", [".fits.gz", ".fits"])
def test_packed_files_are_bounded(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(file, "MOST_UNPACKED", 2**20)
    path = tmp_path / f"a{suffix}"  # a packed file is one by its first bytes, whatever its name
    path.write_bytes(gzip.compress(b"SIMPLE  =                    T" + bytes(2**24)))
    with pytest.raises(LensphysError, match=r"a.fits(.gz)? unpacks to more than 1 MiB: cut the lens out of it"):
        read_fits_image(path)


def test_other_packings_are_no_fits(tmp_path):
    (tmp_path / "a.fits").write_bytes(lzma.compress(bytes(2880)))
    with pytest.raises(LensphysError, match="is not a FITS file: it does not begin with SIMPLE"):
        read_fits_image(tmp_path / "a.fits")
    path = save(tmp_path / "b.fits", {"SCI": image()}, CDELT)
    (tmp_path / "c.fits.bz2").write_bytes(bz2.compress(path.read_bytes()))
    assert np.array_equal(read_fits_image(tmp_path / "c.fits.bz2").image, image())


def test_arrays_are_bounded_before_they_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(file, "MOST_PIXELS", 100)
    for kind in (fits.ImageHDU, fits.CompImageHDU):
        hdus = fits.HDUList([fits.PrimaryHDU(), kind(image(), CDELT, name="SCI")])
        hdus.writeto(tmp_path / "a.fits", overwrite=True)
        with pytest.raises(
            LensphysError, match=r"\[SCI\] has the shape \(12, 16\), more than 100 pixels: cut the lens"
        ):
            read_fits_image(tmp_path / "a.fits")


def test_tiles_are_bounded_where_planes_of_a_cube_are_read(tmp_path, monkeypatch):
    """One tile may hold all planes, and is unpacked whole for one of them."""
    monkeypatch.setattr(file, "MOST_PIXELS", 100)
    cube, rows = np.arange(192, dtype="i4").reshape(3, 8, 8), np.array([1])
    for depth, name in ((1, "a.fits"), (3, "b.fits")):
        tiled = fits.CompImageHDU(cube, CDELT, name="SCI", tile_shape=(depth, 8, 8))
        fits.HDUList([fits.PrimaryHDU(), tiled]).writeto(tmp_path / name)
    assert np.array_equal(read_fits_image(tmp_path / "a.fits", Choice(), rows).image, cube[rows])
    with pytest.raises(LensphysError, match=r"SCI. is compressed in tiles of \(3, 8, 8\), more than 100 pixels"):
        read_fits_image(tmp_path / "b.fits", Choice(), rows)


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "tiled"])
def test_a_shape_that_the_file_cannot_hold(tmp_path, packed):
    kind = fits.CompImageHDU if packed else fits.ImageHDU
    fits.HDUList([fits.PrimaryHDU(), kind(image(), CDELT, name="SCI")]).writeto(tmp_path / "a.fits")
    data = (tmp_path / "a.fits").read_bytes()
    axes = (b"ZNAXIS1 =", b"ZNAXIS2 =") if packed else (b"NAXIS1  =", b"NAXIS2  =")
    for axis in axes:
        at = data.rindex(axis) + 10
        data = data[:at] + b"%20d" % 200_000 + data[at + 20 :]
    (tmp_path / "a.fits").write_bytes(data)
    expected = r"\(200000, 200000\), more than 67108864 pixels" if packed else "is not a whole FITS file"
    with pytest.raises(LensphysError, match=expected):
        read_fits_image(tmp_path / "a.fits")


def test_messages_do_not_repeat_a_file(tmp_path):
    name = "X" * 60
    path = save(tmp_path / "a.fits", {f"{name}{i}": np.ones((2, 3, 4)) for i in range(40)})
    with pytest.raises(LensphysError) as caught:
        read_fits_image(path, Choice(extension="SCI" * 1000))
    assert len(str(caught.value)) < 1500 and str(caught.value).endswith(", ...")


# ---------------------------------------------------------------- headers


def test_what_the_primary_header_alone_says_is_kept(tmp_path):
    first = fits.Header({"TELESCOP": "HST", "FILTER": "F814W", "EXPTIME": 2200.0, "DATE-OBS": "2010-01-01"})
    first.update({"OBJECT": "of the primary", "CRVAL1": 7.0, "NEXTEND": 3, "EXT_1": "SCI"})
    first.add_history("of the primary")
    low = CD.copy()
    low["OBJECT"] = "of the image"
    hdus = [fits.PrimaryHDU(header=first), fits.ImageHDU(image(), low, name="SCI")]
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    found = read_fits_image(tmp_path / "a.fits").header
    assert (found["TELESCOP"], found["FILTER"], found["EXPTIME"]) == ("HST", "F814W", 2200.0)
    assert (found["OBJECT"], found["CRVAL1"]) == ("of the image", 150.1)
    assert not {"NEXTEND", "EXT_1", "HISTORY"} & set(found)
    write_fits(tmp_path / "b.fits", found, results(2), scale=2, pixel_scale=SCALE, provenance={})
    with fits.open(tmp_path / "b.fits") as hdus:
        assert hdus[0].header["TELESCOP"] == hdus["KAPPA"].header["TELESCOP"] == "HST"
        assert "XTENSION" not in hdus[0].header and hdus[0].header["DATE-OBS"] == "2010-01-01"


def test_the_scale_may_stand_in_the_primary_header(tmp_path):
    hdus = [fits.PrimaryHDU(header=fits.Header({"PIXSCALE": 0.07})), fits.ImageHDU(image(), name="SCI")]
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    assert pixel_scale(read_fits_image(tmp_path / "a.fits").header, "a") == 0.07


def test_pixel_sizes_of_all_kinds_shrink_in_every_extension(tmp_path):
    low = CD.copy()
    low.update({"PIXAR_SR": 4e-14, "PIXAR_A2": 4e-3, "PIXELSCL": 0.05, "SECPIX": 0.05, "BUNIT": "MJY/SR"})
    write_fits(tmp_path / "a.fits", low, results(2), scale=2, pixel_scale=SCALE, provenance={})
    with fits.open(tmp_path / "a.fits") as hdus:
        for hdu in (hdus[0], hdus["KAPPA"], hdus["ALPHA"]):
            head = hdu.header
            assert head["PIXAR_SR"] == pytest.approx(1e-14) and head["PIXAR_A2"] == pytest.approx(1e-3)
            assert head["PIXELSCL"] == head["SECPIX"] == head["PIXSCALE"] == 0.025
        assert hdus["RESIDUAL"].header["PIXAR_SR"] == 4e-14
        assert hdus[0].data.mean() == pytest.approx(image().mean(), rel=1e-6)  # a brightness stays one


def test_two_scales_are_told_apart():
    low = CD.copy()
    assert scale_conflict(low, "a.fits") == []
    low["PIXSCALE"] = SCALE * 1.005
    assert scale_conflict(low, "a.fits") == []
    low["PIXSCALE"] = 0.1
    told = 'a.fits has PIXSCALE 0.1 and a WCS of 0.05": the WCS is taken (else give --pixel-scale)'
    assert scale_conflict(low, "a.fits") == [told]


@pytest.mark.parametrize("scale", [5e-4, 12.0])
def test_a_strange_scale_is_questioned(scale):
    told = f'a.fits has pixels of {scale:.4g}" by PIXSCALE: is that in arcsec?'
    assert questioned_scale(scale, "PIXSCALE", "a.fits") == [told]
    assert questioned_scale(scale, "CD1_1", "a.fits")[0].endswith("by CD1_1: is that in degrees?")
    for usual in (0.011, 0.05, 0.4, 4.0):
        assert questioned_scale(usual, "PIXSCALE", "a.fits") == []


def test_the_card_of_the_scale():
    assert [scale_key(low) for low in (CD, PC, CDELT)] == ["CD1_1", "CDELT1", "CDELT1"]
    linear = {"CTYPE1": "LINEAR", "CTYPE2": "LINEAR", "CDELT1": 1.0, "CDELT2": 1.0}
    assert scale_key(fits.Header({**linear, "PIXELSCL": 0.03})) == "PIXELSCL"


def test_headers_that_only_half_can_be_read(tmp_path):
    path = save(tmp_path / "a.fits", {"SCI": image()}, CDELT)
    data = path.read_bytes()
    at = data.rindex(b"BUNIT")
    path.write_bytes(data[:at] + b"BUNIT   = nan".ljust(80) + data[at + 80 :])
    found = read_fits_image(path)
    assert "BUNIT" not in found.header and np.array_equal(found.image, image())


@pytest.mark.filterwarnings("error")
def test_long_names_of_the_eso_are_written_without_a_word(tmp_path):
    low = CD.copy()
    low["HIERARCH ESO DET CHIP1 NAME"] = "CCD-44"
    low["HIERARCH ESO OBS LONG"] = "x" * 100
    save(tmp_path / "a.fits", {"SCI": image()}, low)
    write_fits(tmp_path / "b.fits", read_fits_image(tmp_path / "a.fits").header, results(2), scale=2, pixel_scale=SCALE,
               provenance={})  # fmt: skip
    assert fits.getheader(tmp_path / "b.fits")["ESO DET CHIP1 NAME"] == "CCD-44"


def interferometer(**cards) -> fits.Header:
    """The header of a cleaned cube: RA, Dec, and two axes more."""
    sky = {"CTYPE1": "RA---SIN", "CTYPE2": "DEC--SIN", "CRPIX1": 8.5, "CRPIX2": 6.5, "CRVAL1": 150.0, "CRVAL2": 2.0}
    steps = {"CDELT1": -SCALE / 3600, "CDELT2": SCALE / 3600}
    return fits.Header({"WCSAXES": 4, **sky, **steps, **cards})


FOURTH = {"CTYPE3": "STOKES", "CRVAL3": 1.0, "CTYPE4": "FREQ-LSR", "CRVAL4": 3.4e11, "CDELT4": 2e7, "PC4_3": 0.0}


def test_a_result_of_a_cube_has_the_two_axes_of_its_image():
    header = interferometer(**FOURTH, WCSAXESA=3, CTYPE3A="VRAD", OBJECT="SDP.81", RESTFRQ=3.4e11)
    new = rescaled_header(header, 2)
    assert new["WCSAXES"] == 2 and new["OBJECT"] == "SDP.81" and new["RESTFRQ"] == 3.4e11
    assert not [key for key in new if key[:5] in ("CTYPE", "CRVAL", "CDELT", "CRPIX", "PC4_3") and key[5:6] in "34_"]
    place = WCS(new).pixel_to_world(15.5, 11.5)  # the same point on the sky, between four pixels
    assert (place.ra.deg, place.dec.deg) == pytest.approx((150.0, 2.0), abs=1e-9)


@pytest.mark.parametrize("what", ["FREQ", "VELO-LSR", "VRAD", "VOPT", "WAVE", "AWAV", "STOKES"])
def test_channels_are_no_stack_of_lenses(tmp_path, what):
    channels = np.stack([image() + k for k in range(3)])
    fits.writeto(tmp_path / "a.fits", channels[:, None], interferometer(**FOURTH | {"CTYPE4": what}))
    assert fits_images(tmp_path / "a.fits", Choice(), planes=False) is None
    with pytest.raises(LensphysError, match=r"shape \(3, 12, 16\), expected one image .*--ext 'PRIMARY\[0\]'"):
        read_fits_image(tmp_path / "a.fits")
    assert np.array_equal(read_fits_image(tmp_path / "a.fits", Choice(extension="PRIMARY[1]")).image, channels[1])
    # by --rows each is one
    assert np.array_equal(read_fits_image(tmp_path / "a.fits", Choice(), np.array([2])).image, channels[2:])


def test_a_fourth_axis_of_another_name_is_a_stack(tmp_path):
    fits.writeto(tmp_path / "a.fits", np.stack([image()] * 3)[:, None], interferometer(CTYPE4="LENS"))
    assert fits_images(tmp_path / "a.fits", Choice(), planes=False) == 3


def test_numbers_that_are_texts_are_numbers(tmp_path):
    texts = CDELT.copy()
    for key in ("CDELT1", "CDELT2", "CRPIX1", "CRVAL2"):
        texts[key] = repr(CDELT[key])
    fits.writeto(tmp_path / "a.fits", image(), CDELT)
    fits.writeto(tmp_path / "b.fits", image(), texts)
    one, other = (read_fits_image(tmp_path / name).header for name in ("a.fits", "b.fits"))
    one, other = rescaled_header(one, 2), rescaled_header(other, 2)
    for key in ("CDELT1", "CDELT2", "CRPIX1", "CRVAL2"):
        assert other[key] == pytest.approx(one[key], rel=1e-10)


def test_a_strange_scale_that_was_given_is_not_to_be_repaired():
    with pytest.raises(LensphysError, match=r'pixels of 1000" by --pixel-scale: give it in arcsec$'):
        questioned_scale(1000.0, "--pixel-scale", "a.fits")


def test_long_cards_of_the_input_are_kept_without_a_warning(tmp_path):
    words = 'kernel, 3.04" along a side (SDSSJ0029-0055_F606W.fits[PSF])'
    low = CD.copy()
    low.update({"PSF": words, "QUALITY": "archive"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_fits(tmp_path / "a.fits", low, results(2), scale=2, pixel_scale=SCALE, provenance={"scale": 2})
    head = fits.getheader(tmp_path / "a.fits")
    assert (head["PSF0"], head["QUALITY0"]) == (words, "archive")
    assert (head.comments["PSF0"], head.comments["QUALITY0"]) == ("", "QUALITY of the input")
