"""Several images of one lens from files: where they lie, what is written, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from astropy.io import fits
from astropy.wcs import WCS
from lenses import one_thread  # noqa: F401
from numpy.typing import NDArray
from typer.testing import CliRunner

import lensphys as lp
from lensphys.basics.checks import LensphysError
from lensphys.basics.sentences import apart, joined
from lensphys.cli import app
from lensphys.fits.sky import Frame, place_on
from lensphys.fitting.placement import PlacedLight, PlacedMass, Placement
from lensphys.methods.joint import together
from lensphys.model import SIE, MassProfile, Sersic, Shear
from lensphys.observation import Camera, GaussianPSF
from lensphys.prediction import Verdict
from lensphys.tracing.deflection import DeflectionField
from lensphys.tracing.grid import PixelGrid

SCALE, SIZE = 0.15, (36, 40)
MASS = SIE(1.2, 0.08, -0.05, 0.02, 0.03) + Shear(0.03, -0.02, 0.02, 0.03)
RED, BLUE = Sersic(5.0, 0.35, 1.0, 0.1, -0.1, 0.15, 0.1), Sersic(3.0, 0.2, 1.5, 0.0, 0.1, 0.25, 0.05)
MODEL = {"source": {"kind": "sersic"}, "subhalos": None, "potential": None}


def sky(middle: tuple[float, float] = (0.0, 0.0), angle: float = 0.0, size: float = SCALE) -> fits.Header:
    """A header whose image lies ``middle`` [arcsec] along the axes of the one at (0, 0), and is turned."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [150.0, 2.0]
    cos, sin = math.cos(angle), math.sin(angle)
    turned = np.array([[cos, -sin], [sin, cos]])  # from its axes to those of the first
    wcs.wcs.cd = np.diag([-1.0, 1.0]) @ turned * size / 3600
    back = turned.T @ -np.array(middle) / size
    wcs.wcs.crpix = np.array([(SIZE[1] + 1) / 2, (SIZE[0] + 1) / 2]) + back
    return wcs.to_header()


def frame(name: str, header: fits.Header) -> Frame:
    return Frame(name, header, SIZE, SCALE)


def image(path: Path, source: Sersic, place: tuple[float, float, float], seed: int, mass: MassProfile = MASS,
          header: fits.Header | None = None) -> Path:  # fmt: skip
    """A file of a lens as seen from a place, with its noise and PSF."""
    psf = GaussianPSF(0.2)
    camera = Camera(PixelGrid(*SIZE, SCALE), psf)
    placement = Placement(torch.tensor([[*place, 0.0]]))
    field = DeflectionField.from_lens(PlacedMass(mass, placement), camera.grid, like=placement.numbers)
    clean = camera.render(PlacedLight(source, placement), field)[0, 0].numpy()
    sigma = 0.05 * clean.max()
    noisy = clean + np.random.default_rng(seed).normal(0, sigma, clean.shape)
    star = np.exp(-0.5 * (np.hypot(*np.mgrid[-7:8, -7:8]) * SCALE / (0.2 / 2.3548)) ** 2)
    hdus = [fits.PrimaryHDU(header=sky() if header is None else header)]
    planes: dict[str, NDArray[np.float64]] = {"SCI": noisy, "ERR": np.full_like(clean, sigma), "PSF": star / star.sum()}
    hdus += [fits.ImageHDU(plane.astype(np.float32), hdus[0].header, name) for name, plane in planes.items()]
    fits.HDUList(hdus).writeto(path)
    return path


# ---------------------------------------------------------------- where images lie


def test_two_headers_tell_how_one_image_lies_on_the_other():
    place = place_on(frame("b", sky((3.0, -1.5), 0.3)), frame("a", sky()))
    assert place == pytest.approx((3.0, -1.5, 0.3), abs=1e-4)
    assert place_on(frame("a", fits.Header()), frame("b", sky())) is None


def test_headers_that_do_not_fit_together_are_told():
    mirrored = sky()
    mirrored["PC1_1"] = -mirrored["PC1_1"]
    with pytest.raises(LensphysError, match="b is mirrored against a, by their WCS: flip one of them"):
        place_on(frame("b", mirrored), frame("a", sky()))
    with pytest.raises(LensphysError, match="b and a disagree about the size of a pixel by 33 %: repair a WCS"):
        place_on(frame("b", sky(size=0.2)), frame("a", sky()))
    assert place_on(frame("b", sky(size=0.2)), frame("a", sky()), scale_tolerance=0.4) is not None
    far = sky()
    far["CRVAL2"] = -89.0
    with pytest.raises(LensphysError, match="leave one out"):
        place_on(frame("b", far), frame("a", sky()))


def test_exposures_in_two_units_are_refused(tmp_path):
    paths = [image(tmp_path / f"{unit}.fits", RED, (0.0, 0.0, 0.0), i) for i, unit in enumerate(("uJy", "nJy"))]
    for path in paths:
        with fits.open(path, mode="update") as hdus:
            hdus["SCI"].header["BUNIT"] = path.stem
    with pytest.raises(LensphysError, match=r"uJy.fits is in uJy and nJy.fits in nJy: bring exposures of a band"):
        lp.Dataset.exposures(paths)
    assert len(lp.Dataset.bands({"R": paths[0], "I": paths[1]})) == 2  # bands have sources of their own


# ---------------------------------------------------------------- in Python and in files


def test_bands_in_python_and_their_file(tmp_path):
    turn = 0.4
    red = image(tmp_path / "red.fits", RED, (0.0, 0.0, 0.0), 1)
    blue = image(tmp_path / "blue.fits", BLUE, (0.2, -0.1, turn), 2, header=sky((0.24, -0.14), turn))
    data = lp.Dataset.bands({"RED": red, "BLUE": blue})
    assert "2 images of one lens" in repr(data)
    result = lp.super_resolve(data, model=MODEL)
    assert set(result.bands) == {"RED", "BLUE"}
    rows = {row["name"]: row for row in result.table}
    assert abs(rows["theta_E"]["value"] - 1.2) < 4 * rows["theta_E"]["error"]
    assert {"RED.source.amp", "BLUE.source.amp", "lens.e1"} <= set(rows)
    other = next(name for name in ("red.fits", "blue.fits") if f"{name}.x" in rows)
    true = Placement(torch.tensor([[0.2, -0.1, turn, 0.0]]))
    expected = (true if other == "blue.fits" else true.inverse).numbers[0]
    for i, number in enumerate(("x", "y", "rotation")):
        row = rows[f"{other}.{number}"]
        assert abs(row["value"] - float(expected[i])) < 4 * row["error"]
    assert 0.9 < result.chi2 < 1.1
    assert "chi^2 per degree of freedom" in repr(result)
    with pytest.raises(LensphysError, match="there is no band 'X': there is"):
        result["X"]
    with pytest.raises(LensphysError, match="there are 2 bands: choose one, as result"):
        result.image  # noqa: B018
    out = result.write(tmp_path / "out.fits")
    with fits.open(out) as file:
        assert {"RED_SCI", "RED_SIGMA", "BLUE_SCI", "BLUE_MODEL", "PARAMETERS"} <= {hdu.name for hdu in file}
        assert file[0].header["THETA_E"] == pytest.approx(result.theta_E)
        np.testing.assert_allclose(file["BLUE_SCI"].data, result["BLUE"].image, rtol=1e-6)
        assert list(file["PARAMETERS"].data["NAME"]) == list(result.table["name"])
        fine, large = WCS(file["BLUE_SCI"].header), WCS(fits.getheader(blue, "SCI"))
        assert fine.pixel_to_world(*2 * [0.5]).separation(large.pixel_to_world(0, 0)).arcsec < 1e-6
    again = lp.read(out, band="BLUE", psf=np.ones((1, 1)))
    np.testing.assert_allclose(again.image, result["BLUE"].image, rtol=1e-6)


def test_exposures_on_the_command_line(tmp_path):
    files = [image(tmp_path / f"{i}.fits", RED, place, i) for i, place in enumerate([(0, 0, 0), (0.07, 0.05, 0)])]
    (tmp_path / "model.yaml").write_text("source: {kind: sersic}\nsubhalos: null\npotential: null\n")
    out = tmp_path / "out.fits"
    done = CliRunner().invoke(app, ["super-resolve", *map(str, files), "-o", str(out), "--as", "exposures",
                                    "--model", str(tmp_path / "model.yaml")])  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "chi^2 per degree of freedom" in done.output
    with fits.open(out) as file:
        assert file[0].data.shape == (2 * SIZE[0], 2 * SIZE[1])
        names = list(file["PARAMETERS"].data["NAME"])
        assert "lens.theta_E" in names
        assert {"0.fits.x", "1.fits.x"} & set(names)
        assert all(str(path.name) in str(file[0].header["HISTORY"]).replace("\n", "") for path in files)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (
            ["a.fits", "b.fits"],
            "bands; different lenses are given as a folder, or as a list",
        ),
        (["a.fits", "b.fits", "--as", "pairs"], "unknown --as 'pairs': choose one of bands, exposures"),
        (["a.fits", "--as", "bands"], "--as bands takes several images: give more than"),
        (["a.fits", "b.fits", "--as", "bands", "--weights", "model_2"], "--weights cannot be given for several images"),
        (["a.fits", "b.fits", "--as", "bands", "--workers", "2"], "--workers cannot be given for several images"),
        (["a.fits", "b.fits", "--band", "V,I"], "--band is for a single file"),
        (["a.fits", "b.fits", "c.fits", "--as", "exposures", "--psf", "p.fits", "--psf", "q.fits"], "--psf is given 2"),
        (["a.fits", "--psf", "p.fits", "--psf", "q.fits"], "--psf is given 2 times for one image"),
        (["a.fits", "b.fits", "--as", "bands", "--method", "bicubic"], "together by refine alone, not by bicubic"),
    ],
)
def test_what_does_not_fit_together_is_told_in_a_sentence(tmp_path, typed, message):
    words = [str(tmp_path / word) if word.endswith(".fits") else word for word in typed]
    done = CliRunner().invoke(app, ["super-resolve", *words, "-o", str(tmp_path / "out.fits")])
    assert done.exit_code == 2
    assert message in done.output.replace("\n", " ")


def test_a_data_set_is_of_single_images():
    stack = lp.read(np.random.default_rng(1).normal(size=(2, 16, 16)), pixel_scale=0.1, noise=np.ones((2, 16, 16)))
    with pytest.raises(LensphysError, match="is a stack of 2 images: a data set is of one lens"):
        lp.Dataset.exposures([stack, stack])
    with pytest.raises(LensphysError, match="are the same image, whose noise would count twice: leave one out"):
        lp.Dataset.exposures([stack[0], stack[0]])
    with pytest.raises(LensphysError, match="images and the band of each: got 0 and 0"):
        lp.Dataset([], [])


def test_an_image_of_another_lens_is_named():
    verdict = together(
        {"a": Verdict("suspect", ("x",)), "b": Verdict("bad", ("x", "chi^2 is 7")), "c": Verdict("good")}
    )
    assert verdict.quality == "bad"
    assert verdict.reasons[0] == "a: x"
    assert verdict.reasons[-1].startswith("b: chi^2 is 7 (is it of the same lens")
    assert apart(joined(verdict.reasons)) == list(verdict.reasons)  # as in a file
