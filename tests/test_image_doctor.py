"""What `lensphys doctor` says of a user's own image: what is in the file, what is used of it, what is odd about it."""

import json
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from results import fits_result, npz_result
from typer.testing import CliRunner

from lensphys.basics.checks import LensphysError
from lensphys.cli import app
from lensphys.evaluation.doctor import Finding
from lensphys.evaluation.image_doctor import diagnose_images

HST = Path(__file__).parents[1] / "examples" / "hst_like_lens.fits"
SIDE = 48


def ring(noise: float = 0.02) -> np.ndarray:
    """A ring of peak 1 on a sky of white noise."""
    clean = np.exp(-((np.hypot(*np.mgrid[-SIDE // 2 : SIDE // 2, -SIDE // 2 : SIDE // 2]) - 12) ** 2) / 8)
    return (clean + np.random.default_rng(0).normal(0, noise, clean.shape)).astype("f4")


def saved(path: Path, image: np.ndarray, noise: float | None = 0.02, unit: str = "electron/s", **cards) -> Path:
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(image, fits.Header({"BUNIT": unit, **cards}), name="SCI")]
    if noise is not None:
        hdus.append(fits.ImageHDU(np.full(image.shape, noise, "f4"), name="ERR"))
    hdus.append(fits.ImageHDU(np.zeros((4, 4), "f4"), name="THUMB"))
    fits.HDUList(hdus).writeto(path)
    return path


def names(findings: list[Finding], severity: str) -> list[str]:
    return [finding.name for finding in findings if finding.severity == severity]


def told(findings: list[Finding]) -> str:
    return "\n".join(finding.sentence for finding in findings)


def test_what_a_file_holds_and_what_is_used_of_it():
    findings = diagnose_images(HST)
    assert {finding.severity for finding in findings} == {"note"}
    for sentence in (
        "holds: SCI, 80 x 80: image",
        "holds: ERR, 80 x 80: standard deviation",
        "holds: PSF, 31 x 31: PSF",
        'pixel_scale: pixels of 0.05", by CD1_1',
        "unit: in electron/s",
        "image: 1 image of 80 x 80 pixels, 0 of them masked",
        "read: hst_like_lens.fits: image SCI, noise ERR, mask MASK, PSF PSF",
    ):
        assert sentence in told(findings)


def test_a_healthy_image_has_notes_alone(tmp_path):
    path = saved(tmp_path / "a.fits", ring(), PIXSCALE=0.05)
    assert names(diagnose_images(path), "warning") == ["read"]
    assert "no PSF is known: the image is taken as it is, without blur (give super-resolve --psf or" in told(
        diagnose_images(path)
    )
    fits.append(path, np.ones((1, 1), "f4"), fits.Header({"EXTNAME": "PSF", "PIXSCALE": 0.05}))
    findings = diagnose_images(path)
    assert names(findings, "error") == names(findings, "warning") == []
    assert "holds: THUMB, 4 x 4: of no known name" in told(findings)


@pytest.mark.parametrize(
    ("image", "name"),
    [
        (ring(1e-7), "noise_free"),
        (0 * ring() + np.random.default_rng(1).normal(0, 0.02, (SIDE, SIDE)).astype("f4"), "dark"),
        (np.minimum(ring(), 0.7), "clipped_high"),
        (np.round(1000 * ring()), "integers"),
    ],
)
def test_symptoms_of_one_image(tmp_path, image, name):
    unit = 1000 if name == "integers" else 1
    findings = diagnose_images(saved(tmp_path / "a.fits", image, 0.02 * unit, PIXSCALE=0.05))
    assert name in [*names(findings, "error"), *names(findings, "warning")]
    assert findings[0].severity != "note"  # what is wrong comes first


def test_a_pedestal_is_no_lack_of_noise(tmp_path):
    findings = diagnose_images(saved(tmp_path / "a.fits", ring() + np.float32(1e4), PIXSCALE=0.05))
    assert "noise_free" not in [*names(findings, "error"), *names(findings, "warning")]


def test_whole_numbers_are_right_where_the_unit_has_them(tmp_path):
    findings = diagnose_images(saved(tmp_path / "a.fits", np.round(1000 * ring()), 20, "electron", PIXSCALE=0.05))
    assert "integers" not in names(findings, "error")


def test_what_is_missing_is_told(tmp_path):
    findings = diagnose_images(saved(tmp_path / "a.fits", ring(), None, ""))
    assert names(findings, "warning") == ["pixel_scale", "read"]
    assert "a.fits says no pixel scale; give --pixel-scale or --instrument to 'lensphys super-resolve'" in told(
        findings
    )
    assert "no unit is said" in told(findings) and "no PSF is known" in told(findings)
    assert "no noise is known" in told(findings)


def test_a_psf_of_an_image_without_pixel_scale_is_told_in_pixels(tmp_path):
    star = np.exp(-np.log(2) * (np.arange(-6, 7) ** 2)[:, None] - np.log(2) * np.arange(-6, 7) ** 2)
    psf = fits.ImageHDU(star / star.sum(), name="PSF")
    fits.HDUList([fits.PrimaryHDU(ring()), psf]).writeto(tmp_path / "a.fits")
    assert "FWHM 2 pixels" in told(diagnose_images(tmp_path / "a.fits"))
    psf.header["PIXSCALE"] = 0.05
    fits.HDUList([fits.PrimaryHDU(ring()), psf]).writeto(tmp_path / "b.fits")
    assert 'FWHM 0.1"' in told(diagnose_images(tmp_path / "b.fits"))


def test_what_cannot_be_used_is_an_error_in_one_sentence(tmp_path):
    fits.writeto(tmp_path / "cube.fits", np.zeros((3, 32, 32), "f4"), fits.Header({"PIXSCALE": 0.05}))
    findings = diagnose_images(tmp_path / "cube.fits")
    assert names(findings, "error") == ["cannot_be_used"] and "holds: PRIMARY, 3 x 32 x 32" in told(findings)
    (tmp_path / "text.fits").write_text("no FITS")
    assert names(diagnose_images(tmp_path / "text.fits"), "error") == ["cannot_be_used"]
    with pytest.raises(LensphysError, match="input not found"):
        diagnose_images(tmp_path / "none.fits")


def test_a_stack_names_its_odd_images(tmp_path):
    np.save(tmp_path / "a.npy", np.stack([ring(), np.minimum(ring(), 0.7), ring()]))
    (odd,) = [f for f in diagnose_images(tmp_path / "a.npy") if f.name == "clipped_high"]
    assert (odd.images, odd.first) == (1, (1,))


def test_an_npz_result_says_that_it_is_one(tmp_path):
    found = told(diagnose_images(npz_result(tmp_path)))
    assert "the file is a result of lensphys; see it with 'lensphys show" in found and "sigma (" in found


def test_a_result_says_that_it_is_one(tmp_path):
    assert "the file is a result of lensphys; see it with 'lensphys show lens_sr.fits'" in told(
        diagnose_images(fits_result(tmp_path))
    )


def test_the_command(tmp_path):
    path = saved(tmp_path / "a.fits", np.minimum(ring(), 0.7), PIXSCALE=0.05)
    done = CliRunner().invoke(app, ["doctor", str(path), "--json", str(tmp_path / "a.json")])
    assert done.exit_code == 0 and "warning clipped_high" in done.output and "note holds: ERR" in done.output
    assert {f["name"] for f in json.loads((tmp_path / "a.json").read_text())["findings"]} >= {"clipped_high", "unit"}
    np.save(tmp_path / "dark.npy", np.ones((32, 32)))
    assert CliRunner().invoke(app, ["doctor", str(tmp_path / "dark.npy")]).exit_code == 1
    two = CliRunner().invoke(app, ["doctor", str(path), str(path)])
    assert two.exit_code == 2 and "give one file of images at a time" in two.output


def test_a_border_that_is_masked_is_told_once(tmp_path):
    image = ring()
    image[:, :5] = 0.0
    findings = diagnose_images(saved(tmp_path / "a.fits", image, PIXSCALE=0.05))
    assert f"a border of one value, {5 * SIDE} pixels, is masked" in told(findings)
    assert "border" not in [finding.name for finding in findings] and "images that have" not in told(findings)
