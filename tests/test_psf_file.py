"""Kernels from files: their scale, sum, size and centre, for instruments and for a user's own alike."""

import numpy as np
import pytest
import torch
from astropy.io import fits

from lensphys.basics.checks import LensphysError
from lensphys.data.images import Reading, read_images, with_target_psf
from lensphys.fits.given import Subject
from lensphys.fits.image import Choice
from lensphys.fits.kernel import OVERSAMPLINGS, Kernel
from lensphys.observation import GaussianPSF, PixelPSF
from lensphys.observation.psf_file import centred, centred_psf, offset, read_kernel, usable
from lensphys.observation.psf_settings import KernelPSFSettings


def star(size=15, fwhm=4.0, dx=0.0, dy=0.0, total=1.0) -> np.ndarray:
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    image = np.exp(-0.5 * ((x - dx) ** 2 + (y - dy) ** 2) / (fwhm / 2.3548) ** 2)
    return total * image / image.sum()


def saved(path, values, name="PSF", **cards):
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(values, fits.Header(cards), name=name)]).writeto(path)
    return path


def sky(scale: float) -> dict:
    """A WCS."""
    return {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CDELT1": -scale / 3600, "CDELT2": scale / 3600}


SCALES = {
    "stpsf": ({"PIXELSCL": 0.025, "OVERSAMP": 4, "DET_SAMP": 4}, 0.025),
    "pixscale": ({"PIXSCALE": 0.025}, 0.025),
    "wcs": (sky(0.025), 0.025),
    "stated before the WCS of its image": ({"PIXELSCL": 0.025, **sky(0.1)}, 0.025),
    "oversampling before the WCS of its image": ({"OVERSAMP": 4, **sky(0.1)}, 0.1 / 4),
    "steps without a sky": ({"CDELT1": 25.0, "CDELT2": 25.0, "CUNIT1": "marcsec"}, 0.025),
    "oversampling alone": ({"OVERSAMP": 4}, 0.1 / 4),
    "oversampling in other words": ({"OVERSMPL": 4}, 0.1 / 4),
    "in others": ({"OVSAMP": 4}, 0.1 / 4),
    "of a detector": ({"DET_SAMP": 4}, 0.1 / 4),
    "sampling": ({"SAMPLING": 4}, 0.1 / 4),
    "a long word": ({"HIERARCH PIXELSCALE": 0.025}, 0.025),
    "nothing": ({}, 0.1),
}


@pytest.mark.parametrize(("cards", "scale"), SCALES.values(), ids=SCALES)
def test_one_reader_of_scales(tmp_path, cards, scale):
    path = saved(tmp_path / "psf.fits", star(), **cards)
    assert read_kernel("PSF file", path).scale_on(0.1) == pytest.approx(scale)
    fits.PrimaryHDU(star(24), fits.Header({"PIXSCALE": 0.1})).writeto(tmp_path / "a.fits")
    images = read_images(tmp_path / "a.fits", Reading(psf=path))
    assert images.observation.camera.psf.scale == pytest.approx(scale)
    assumed = ": as large as the image's, since its header says no other" if not cards else ""
    assert f'PSF: psf.fits[PSF], FWHM {4 * scale:.2g}", 15 x 15 pixels of {scale:g}"{assumed}' in images.remarks
    if "PIXELSCL" in cards or (cards and not set(OVERSAMPLINGS) & set(cards)):  # an oversampling is of an image
        assert KernelPSFSettings.read(path).pixel_scale == pytest.approx(scale)


@pytest.mark.parametrize("key", OVERSAMPLINGS)
@pytest.mark.parametrize("own", [True, False], ids=["of the image's file", "of its own"])
def test_an_empty_primary_header_speaks_of_the_oversampling_too(tmp_path, key, own):
    hdus = [fits.PrimaryHDU(header=fits.Header({key: 4})), fits.ImageHDU(star(), name="PSF")]
    image = fits.ImageHDU(star(24), fits.Header({"PIXSCALE": 0.1}), name="SCI")
    fits.HDUList([*hdus, image] if own else [fits.PrimaryHDU(), image]).writeto(tmp_path / "a.fits")
    fits.HDUList(hdus).writeto(tmp_path / "psf.fits")
    found = read_images(tmp_path / "a.fits", Reading(psf=None if own else tmp_path / "psf.fits"))
    assert found.observation.camera.psf.scale == pytest.approx(0.025)
    assert not any("since its header says no other" in remark for remark in found.remarks)


def test_pixels_of_a_target_are_assumed_to_be_those_of_the_result(tmp_path):
    path = saved(tmp_path / "psf.fits", star())
    fits.PrimaryHDU(star(24), fits.Header({"PIXSCALE": 0.1})).writeto(tmp_path / "a.fits")
    told = read_images(tmp_path / "a.fits", Reading(psf=path, target_psf=path), scale=2).remarks
    since = "since its header says no other"
    assert f'PSF: psf.fits[PSF], FWHM 0.4", 15 x 15 pixels of 0.1": as large as the image\'s, {since}' in told
    assert (
        f'target PSF: psf.fits[PSF], FWHM 0.2", 15 x 15 pixels of 0.05": as large as those of the result, {since}'
        in told
    )


def test_a_scale_and_an_oversampling_that_contradict_each_other_are_told(tmp_path):
    path = saved(tmp_path / "psf.fits", star(), PIXELSCL=0.1, OVERSAMP=4)
    fits.PrimaryHDU(star(24), fits.Header({"PIXSCALE": 0.1})).writeto(tmp_path / "a.fits")
    told = 'psf.fits[PSF] says both pixels of 0.1" and 4 to a side of those of the image (0.1"): the first is taken'
    assert any(told in remark for remark in read_images(tmp_path / "a.fits", Reading(psf=path)).remarks)


def test_stpsf_files(tmp_path):
    hdus = [fits.PrimaryHDU(star(61, 8.0), fits.Header({"EXTNAME": "OVERSAMP", "PIXELSCL": 0.025, "OVERSAMP": 4}))]
    hdus += [fits.ImageHDU(star(), fits.Header({"PIXELSCL": 0.1}), name="DET_SAMP")]
    fits.HDUList(hdus).writeto(tmp_path / "psf.fits")
    kernel = read_kernel("PSF file", tmp_path / "psf.fits")
    assert kernel.values.shape == (61, 61) and kernel.scale == 0.025 and kernel.label == "psf.fits[OVERSAMP]"


def test_a_psf_of_the_images_band(tmp_path):
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(star(9), name="VIS_PSF"), fits.ImageHDU(star(11), name="NIR_PSF")]
    fits.HDUList(hdus).writeto(tmp_path / "psf.fits")
    sizes = [len(read_kernel("PSF file", tmp_path / "psf.fits", Subject(band)).values) for band in ("VIS", "NIR")]
    assert sizes == [9, 11]
    with pytest.raises(LensphysError, match="psf.fits has VIS_PSF, NIR_PSF, and neither a band, nor FILTER, nor"):
        read_kernel("PSF file", tmp_path / "psf.fits")


def psfex(path, size=25, step=0.5, **cards):
    """A model whose PSF is an elongated star in the middle of the field."""
    terms = np.stack([star(size, 6.0) * 1.02, star(size, 6.0, dx=3), np.ones((size, size))])
    column = fits.Column("PSF_MASK", f"{terms.size}E", dim=f"({size},{size},3)", array=terms[None])
    hdu = fits.BinTableHDU.from_columns([column], name="PSF_DATA")
    hdu.header.update({"PSFNAXIS": 3, "PSFAXIS1": size, "PSFAXIS2": size, "PSFAXIS3": 3, "PSF_SAMP": step})
    hdu.header.update({"POLNAXIS": 2, "POLZERO1": 100.0, "POLSCAL1": 50.0, "POLDEG1": 1, **cards})
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
    return path


def test_a_psfex_model_is_evaluated(tmp_path):
    kernel = read_kernel("PSF file", psfex(tmp_path / "a.psf"))
    np.testing.assert_allclose(kernel.values, 1.02 * star(25, 6.0), rtol=1e-5, atol=1e-7)
    assert kernel.scale is None and kernel.scale_on(0.2) == pytest.approx(0.1)
    told = usable(kernel).sentence(kernel.label, 0.1)
    assert told == (
        'PSF: a.psf[PSF_DATA], 25 x 25 pixels of 0.1": a PSFEx model, evaluated in the middle of its field; divided by '
        "its sum, 1.02"
    )
    with pytest.raises(LensphysError, match=r"b.psf\[PSF_DATA\] has 1875 values in PSF_MASK, its PSFAXIS1, 2, 3 say"):
        read_kernel("PSF file", psfex(tmp_path / "b.psf", PSFAXIS1=24))


@pytest.mark.parametrize("total", [0.91, 1.0, 1.09])
def test_a_sum_near_one_is_made_one(total):
    found = usable(Kernel(star(total=total)))
    assert found.kernel.sum() == pytest.approx(1) and bool(found.remarks) == (total != 1)


@pytest.mark.parametrize(("dx", "dy"), [(0.5, 0.5), (-0.5, -0.5), (0.0, 0.0), (0.3, -0.2)])
def test_an_even_kernel_is_recentred(dx, dy):
    # its star stands on a pixel to the right or to the left of the middle, or between pixels
    found = usable(Kernel(star(16, dx=dx, dy=dy)))
    assert found.kernel.shape == (15, 15) and np.abs(offset(found.kernel)).max() < 0.02
    assert found.remarks == ("recentred from 16 pixels a side onto 15",)
    tolerance = 1e-12 if abs(dx) == 0.5 else 0.01  # whole pixels are only cut off
    np.testing.assert_allclose(found.kernel / found.kernel.max(), star() / star().max(), atol=max(tolerance, 1e-3))


def test_a_centroid_off_the_middle_is_said_and_the_kernel_kept():
    kernel = star(dx=0.4)
    found = usable(Kernel(kernel))
    assert np.array_equal(found.kernel, kernel / kernel.sum())
    assert found.remarks == ("its centroid is 0.4 of its pixels off its middle",)
    assert usable(Kernel(star(dx=0.05))).remarks == ()
    moved = centred_psf(PixelPSF(torch.from_numpy(kernel), 0.1))
    assert np.abs(offset(moved.kernel.numpy())).max() < 0.02 and moved.scale == 0.1
    still = PixelPSF(torch.from_numpy(star()), 0.1)
    assert centred_psf(still) is still
    assert centred(star(dx=1.0), 15) == pytest.approx(star(), abs=1e-4)


def test_a_kernel_that_is_cut_off_is_questioned():
    assert usable(Kernel(star(15, 4.0))).remarks == ()
    told = usable(Kernel(star(9, 8.0))).remarks
    assert len(told) == 1 and told[0].startswith("it is cut off where it still has ")
    assert "100 % of its peak" in usable(Kernel(np.full((9, 9), 1 / 81))).remarks[0]


WRONG = {
    "sum": (star(total=0.85), "sums to 0.85, a PSF kernel must sum to 1 within 10 %: divide it by its sum"),
    "flux": (star(total=1e4), "sums to 1e[+]04, a PSF kernel must"),
    "oblong": (star()[1:], r"must be square \(K, K\), got \(14, 15\)"),
    "a row": (star()[0], r"must be square \(K, K\), got \(15,\)"),
    "nan": (np.full((3, 3), np.nan), "holds NaN or infinite values"),
    "huge": (np.zeros((1, 4097)), r"shape \(1, 4097\), a PSF kernel at most 4095 pixels a side"),
}


@pytest.mark.parametrize(("values", "message"), WRONG.values(), ids=WRONG)
def test_what_is_no_kernel(tmp_path, values, message):
    np.save(tmp_path / "psf.npy", values)
    with pytest.raises(LensphysError, match=f"psf.npy.*{message}"):
        usable(read_kernel("PSF file", tmp_path / "psf.npy"))


def test_complex_numbers_are_no_kernel(tmp_path):
    np.save(tmp_path / "psf.npy", np.ones((3, 3), complex) / 9)
    with pytest.raises(LensphysError, match="psf.npy is not a plain .npy file of numbers: it holds complex128"):
        read_kernel("PSF file", tmp_path / "psf.npy")


def test_files_without_a_kernel(tmp_path):
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(star(), name="ERR")]).writeto(tmp_path / "a.fits")
    with pytest.raises(LensphysError, match=r"a.fits holds no image of a PSF: it holds ERR \(15, 15\)"):
        read_kernel("PSF file", tmp_path / "a.fits")


def test_a_target_psf_moves_nothing_on_the_sky(tmp_path):
    np.save(tmp_path / "own.npy", star(15, dx=0.5))
    np.save(tmp_path / "target.npy", star(15, 3.0, dy=-0.5))
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(0, 1, (1, 24, 24)) + 30 * star(24))
    images = read_images(tmp_path / "a.npy", Reading(psf=str(tmp_path / "own.npy"), pixel_scale=0.1))
    assert offset(images.observation.camera.psf.kernel.numpy())[1] == pytest.approx(0.5, abs=0.02)  # as it is
    made = with_target_psf(images, str(tmp_path / "target.npy"), 2)
    for psf in (made.observation.camera.psf, made.observation.camera.target_psf):
        assert np.abs(offset(psf.kernel.numpy())).max() < 0.02
    assert made.observation.camera.target_psf.scale == pytest.approx(0.05)
    assert made.remarks[-2:] == [
        'target PSF: target.npy, FWHM 0.16", 15 x 15 pixels of 0.05": its centroid is 0.5 of its pixels off its middle',
        "the kernels are centred, so that nothing moves on the sky",
    ]
    plain = read_images(tmp_path / "a.npy", Reading(pixel_scale=0.1))
    assert not isinstance(plain.observation.camera.psf, GaussianPSF)


@pytest.mark.parametrize("place", ["beside", "fits", "npy"])
def test_of_a_plane_of_a_cube_everything_is_of_the_same_plane(tmp_path, place):
    """Bands in one file, each with its PSF, its noise and its mask."""
    random, axis = np.random.default_rng(0), np.arange(-3, 4)
    cube = random.normal(1, 0.1, (3, 24, 24)).astype("f4")
    kernels = np.exp(-(axis[:, None] ** 2 + axis**2) / np.array([1.0, 2.0, 4.0])[:, None, None])
    kernels /= kernels.sum((1, 2), keepdims=True)
    noise, mask = np.full_like(cube, 0.1) * np.array([1, 2, 3], "f4")[:, None, None], np.zeros(cube.shape, "u1")
    mask[:, :2, :2] = np.array([0, 1, 0])[:, None, None]
    header, maps = fits.Header({"PIXSCALE": 0.1}), {"PSF": kernels, "ERR": noise, "MASK": mask}
    given = {}
    if place == "beside":
        hdus = [fits.ImageHDU(values, name=name) for name, values in maps.items()]
        fits.HDUList([fits.PrimaryHDU(cube, header), *hdus]).writeto(tmp_path / "a.fits")
    else:
        fits.writeto(tmp_path / "a.fits", cube, header)
        given = {key: tmp_path / f"{name}.{place}" for key, name in zip(("psf", "error", "mask"), maps, strict=True)}
        for path, values in zip(given.values(), maps.values(), strict=True):
            np.save(path, values) if place == "npy" else fits.writeto(path, values)
    images = read_images(
        tmp_path / "a.fits", Reading(**given, choice=Choice("PRIMARY[1]", mask_means="bad"), bad_pixels="keep")
    )
    seen = images.observation
    assert np.array_equal(seen.image[0, 0], cube[1]) and np.allclose(seen.camera.psf.kernel, kernels[1])
    assert float(seen.noise.variance(seen.image)[0, 0, -1, -1]) == pytest.approx(0.04)
    assert int((~seen.mask).sum()) == 4
    with pytest.raises(LensphysError, match=r"two.fits.PRIMARY. has the shape .2, 7, 7.: a PSF kernel must be one"):
        fits.writeto(tmp_path / "two.fits", kernels[:2])
        read_images(tmp_path / "a.fits", Reading(psf=tmp_path / "two.fits", choice=Choice("PRIMARY[1]")))
