"""`lensphys show`: what it reads of results, what it writes, and one sentence for what is none."""

import json
import re
import shutil
import sys
import webbrowser
from dataclasses import replace
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from results import BODY, PIXEL, SIDE, SMOOTH, Known, fits_result, h5_result, npz_result
from scipy.ndimage import zoom
from typer.testing import CliRunner

from lensphys.basics.checks import LensphysError
from lensphys.cli import app
from lensphys.fitting import FitModel
from lensphys.model import SIE, Shear
from lensphys.prediction import Verdict
from lensphys.tracing.deflection import DeflectionField
from lensphys.tracing.grid import PixelGrid
from lensphys.viewer.catalogue import MOST_BYTES, Entry, catalogue_page, thumbnail
from lensphys.viewer.library import Library
from lensphys.viewer.page import lens_page
from lensphys.viewer.panels import MOST_VALUES, Panel, beyond_of, limits_of, panels_of
from lensphys.viewer.reading import read_results
from lensphys.viewer.result import LensResult, Quantity
from lensphys.viewer.show import check_pages
from lensphys.viewer.sky import Sky

PLANES = {"image", "sigma", "constrained", "alpha", "kappa", "source", "lr", "model", "residual", "noise"}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A result as FITS, which no test changes."""
    return fits_result(tmp_path_factory.mktemp("made"))


def copied(made: Path, folder: Path) -> Path:
    return Path(shutil.copy(made, folder / made.name))


def of(path: Path, number: int = 0) -> LensResult:
    return read_results(path).lenses[number]()


def show(*arguments) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["show", *map(str, arguments), "--no-open"])
    return done.exit_code, " ".join((done.output + (done.stderr or "")).split())


# ---------------------------------------------------------------- what results say


def test_a_fits_result_is_read_as_it_was_written(made):
    path = made
    lens = of(path)
    assert set(lens.planes) == PLANES and not lens.remarks
    assert (lens.scale, lens.pixel_scale) == (2, pytest.approx(PIXEL / 2, rel=1e-3))
    assert (lens.quality, lens.reasons) == ("suspect", "sub-halos that do not stand; chi^2 is 3")
    assert lens.value("lens.theta_E") == Quantity("lens.theta_E", SMOOTH["theta_E"], 0.001, "arcsec")
    (body,) = lens.subhalos
    assert [body[k] for k in ("x", "y", "theta_E")] == pytest.approx(BODY, rel=1e-6)
    assert (body["mass"], body["gain"]) == (pytest.approx(1e11 * BODY[2] ** 2, rel=1e-6), 55.0)
    assert (lens.origin["commit"], lens.origin["method"]) == ("abc", "known")
    assert lens.origin["read"][0].startswith("lens.fits: image SCI, noise ERR")  # whole, over the lines of HISTORY
    with fits.open(path) as hdus:
        area = lens.pixel_scale**2
        assert lens.planes["image"] == pytest.approx(hdus[0].data / area)
        assert lens.planes["lr"] == pytest.approx(hdus["LR"].data / (4 * area))
        assert hdus["LR"].data - hdus["MODEL"].data == pytest.approx(hdus["RESIDUAL"].data, abs=1e-4)
        assert lens.planes["source"] == pytest.approx(hdus["SOURCE"].data)


def test_light_has_one_scale(made):
    # lensing keeps surface brightness: image, super-resolved image and source are as bright as each other
    lens = of(made)
    peaks = [float(np.quantile(lens.planes[name], 0.99)) for name in ("model", "image")]
    assert peaks[0] == pytest.approx(peaks[1], rel=0.1)
    assert lens.planes["source"].max() > 0.9 * peaks[1]


def test_arcs_are_shown_without_the_light_of_their_galaxy(made, tmp_path):
    plain, path = of(made), copied(made, tmp_path)
    light = np.exp(-np.hypot(*np.mgrid[-16:16, -16:16]) / 4)
    with fits.open(path, mode="update") as hdus:
        hdus["LR"].data += light
        hdus["MODEL"].data += light
        hdus.append(fits.ImageHDU(light, name="LENSLIGHT"))
    lens = of(path)
    assert lens.planes["lens_light"] == pytest.approx(light / PIXEL**2)
    before, after = ({panel.key: panel for panel in panels_of(one)[0]} for one in (plain, lens))
    assert not {"arcs", "arcs_model"} & set(before) and before["source"].group == "light"
    assert after["arcs"].values == pytest.approx(plain.planes["lr"], abs=1e-3)
    assert after["arcs_model"].values == pytest.approx(plain.planes["model"], abs=1e-3)
    assert {after[key].group for key in ("arcs", "arcs_model", "source")} == {"arcs"}
    assert show(path)[0] == 0 and "model of the arcs" in path.with_suffix(".html").read_text()


def test_a_surface_brightness_stays_what_it_is(tmp_path):
    path = fits_result(tmp_path, unit="MJy/sr")
    lens = of(path)
    with fits.open(path) as hdus:
        assert lens.planes["image"] == pytest.approx(hdus[0].data)
    assert lens.unit == "MJy/sr"


@pytest.mark.parametrize("write", [npz_result, h5_result])
def test_stacks_say_the_same_as_fits(made, tmp_path, write):
    path = write(tmp_path)
    lens, other = of(path, 1), of(made)
    assert set(lens.planes) == PLANES
    assert (lens.scale, lens.pixel_scale, lens.source_scale) == (
        2,
        PIXEL / 2,
        pytest.approx(other.source_scale, rel=1e-3),
    )
    assert lens.planes["kappa"] == pytest.approx(other.planes["kappa"], rel=1e-5, abs=1e-5)
    assert lens.parameters == other.parameters
    assert lens.subhalos[0] == pytest.approx(other.subhalos[0], rel=1e-6)
    assert (lens.quality, lens.reasons, lens.name) == (other.quality, other.reasons, f"{path.stem} 1")


def test_where_the_sky_is(made):
    header = fits.getheader(made)
    sky = Sky.from_header(header, (2 * SIDE, 2 * SIDE), PIXEL / 2)
    x, y = 1.1, -0.7  # arcsec along rows and columns
    column, row = ((np.array([x, y])) / (PIXEL / 2) + (2 * SIDE - 1) / 2).tolist()
    true = WCS(header).pixel_to_world(column, row).icrs
    east, north = sky.matrix @ [x, y]
    found = SkyCoord(sky.ra, sky.dec, unit="deg").spherical_offsets_by(east * u.arcsec, north * u.arcsec)
    assert found.separation(true).arcsec < 2e-3
    assert Sky.from_header(fits.Header(), (4, 4), 0.1) is None and Sky.from_header(None, (4, 4), 0.1) is None


# ---------------------------------------------------------------- what is missing


def test_an_interpolation_has_no_mass(tmp_path):
    path = fits_result(tmp_path, method="bicubic")
    lens = of(path)
    assert not {"kappa", "alpha", "source", "sigma"} & set(lens.planes)
    assert any("has no lens: there is no kappa" in remark for remark in lens.remarks)
    page = lens_page(lens, Library(beside=True))
    assert "has no lens: there is no kappa" in page and 'id="value-image"' in page and "value-kappa" not in page


def changed(path: Path, **planes) -> Path:
    with fits.open(path) as hdus:
        for name, change in planes.items():
            hdus[name].data = change(hdus[name].data)
        for hdu in hdus:
            for card in ("CHECKSUM", "DATASUM"):
                hdu.header.pop(card, None)
        hdus.writeto(path.with_name("changed.fits"), overwrite=True)
    return path.with_name("changed.fits")


def blank(data):
    return np.full_like(data, np.nan)


def test_nan_planes_are_told(made, tmp_path):
    path = copied(made, tmp_path)
    lens = of(changed(path, KAPPA=blank, ALPHA=blank))
    assert "kappa holds no finite value: it is not drawn" in lens.remarks
    assert "alpha holds no finite value: it is not drawn" in lens.remarks
    assert "kappa" not in lens_page(lens, Library(beside=True)).split("<main>")[1].split("</main>")[0].split("grid")[0]

    def hole(data):
        data[..., 3:5, 3:5] = np.nan
        return data

    lens = of(changed(path, SIGMA=hole, ALPHA=hole))
    assert f"sigma is NaN or infinite in 4 of {4 * SIDE**2} pixels: they are left blank" in lens.remarks
    assert len(lens_page(lens, Library(beside=True))) > 10_000
    with pytest.raises(LensphysError, match=r"changed.fits holds no super-resolved image with a finite pixel"):
        of(changed(path, PRIMARY=blank))
    with pytest.raises(LensphysError, match=r"kappa has the shape \(63, 64\), expected \(64, 64\): it is damaged"):
        of(changed(path, KAPPA=lambda data: data[1:]))


def test_what_is_no_result(tmp_path):
    fits_result(tmp_path)
    np.save(tmp_path / "images.npy", np.ones((2, 9, 9)))
    np.savez(tmp_path / "other.npz", image=np.ones((2, 9, 9)))
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "text.txt").write_text("")
    (tmp_path / "none").mkdir()
    (tmp_path / "inputs").mkdir()
    (tmp_path / "lens.fits").rename(tmp_path / "inputs" / "lens.fits")
    for name, sentence in {
        "nothing.fits": "there is no result",
        "inputs/lens.fits": "is an image, not a result: run 'lensphys super-resolve lens.fits -o RESULT.fits'",
        "images.npy": "holds images, not results",
        "other.npz": "is no result of 'lensphys super-resolve': it lacks image and provenance",
        "cut.npz": "is damaged",
        "text.txt": "is no result: expected a name that ends in .fits, .fit, .npz, .h5, .hdf5, or a folder",
        "none": "it holds none",
        "inputs": "of its 1 FITS, .npz and .h5 files none is a result",
    }.items():
        code, said = show(tmp_path / name)
        assert (code, said.startswith("error: ")) == (2, True) and sentence in said
    assert not list(tmp_path.rglob("*.html"))


def test_a_stack_without_its_pixel_scale(tmp_path):
    path = npz_result(tmp_path)
    with np.load(path) as arrays:
        old = dict(arrays) | {"provenance": json.dumps({"scale": 2})}
    np.savez(tmp_path / "old.npz", **old)
    with pytest.raises(LensphysError, match=r"old.npz does not say its pixel scale .*: super-resolve again"):
        read_results(tmp_path / "old.npz")


# ---------------------------------------------------------------- what is drawn


def test_delta_kappa_shows_the_sub_halo_alone(made):
    lens = of(made)
    found, remarks = beyond_of(lens)
    row, column = np.unravel_index(np.argmax(found), found.shape)
    x, y = (np.array([column, row]) - (2 * SIDE - 1) / 2) * lens.pixel_scale
    assert remarks == () and np.hypot(x - BODY[0], y - BODY[1]) < 2 * lens.pixel_scale
    # the mass of a point: pi theta_E^2
    assert found.sum() * lens.pixel_scale**2 == pytest.approx(np.pi * BODY[2] ** 2, rel=0.1)


def test_a_smooth_lens_has_no_panel_of_what_is_beyond_it(made):
    lens = of(made)
    smooth, grid = SIE(**SMOOTH) + Shear(gamma1=0.03, gamma2=-0.02), PixelGrid(2 * SIDE, 2 * SIDE, lens.pixel_scale)
    alpha = DeflectionField.from_lens(smooth, grid, like=torch.zeros(1, dtype=torch.float64)).alpha[0]
    plain = replace(lens, planes={**lens.planes, "alpha": alpha.float().numpy()})
    shown, without = ({p.key for p in panels_of(one)[0]} for one in (lens, plain))
    assert shown - without == {"beyond"}


def test_delta_kappa_is_beyond_the_lens_that_was_asked_for(made):
    lens = of(made)
    cored = replace(lens, parameters=(*lens.parameters, Quantity("lens.core", 0.1, 0.1, "arcsec")))
    found, remarks = beyond_of(cored)  # of another kind: no SIE is taken off it in silence
    assert found is None and "does not name the smooth lens" in remarks[0]
    steep = replace(lens, parameters=(*lens.parameters, Quantity("lens.gamma", 2.0, 0.1, "")))
    found, remarks = beyond_of(steep)  # the freer mass of a fit whose sub-halos did not hold
    assert remarks == () and found == pytest.approx(beyond_of(lens)[0], abs=2e-3)  # of slope 2 it is an SIE
    asked = FitModel.parse({"lens": {"kind": "epl"}, "more_lenses": [{"kind": "multipole", "m": 4}]}, "mine").resolved
    waves = [Quantity(f"more_lenses.0.{name}", 0.0, 0.0, "") for name in ("a_cos", "a_sin")]
    told = replace(steep, origin={"model": asked}, parameters=(*steep.parameters, *waves))
    found, remarks = beyond_of(told)
    assert remarks == () and found == pytest.approx(beyond_of(lens)[0], abs=2e-3)
    strange = {"lens": {"component": "MyOwn", "theta_E": 1.0}}
    assert beyond_of(replace(told, origin={"model": strange}))[0] is None


def test_the_page_is_one_file_without_a_network(made):
    page = lens_page(of(made), Library())
    without = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.findall(r"""<(?:script|link|img)[^>]+(?:src|href)=["'](?!data:)""", without)
    assert len(page.encode()) < 5e6
    for words in ("suspect", "sub-halos that do not stand", "lens.theta_E", "0.9000", "1.69e+09", "55.0", "known"):
        assert words in page


def test_what_is_written_into_a_page_is_escaped(made):
    lens = replace(of(made), name="<script>alert(1)</script>", reasons="<b>", origin={"a": "</dd><script>"})
    page = lens_page(lens, Library(beside=True))
    assert "<script>alert" not in page and "</dd><script>" not in page and "&lt;b&gt;" in page


def test_large_images_are_averaged_until_they_fit(made):
    lens = of(made)
    grown = {
        name: zoom(plane, (1, 10, 10) if plane.ndim == 3 else 10, order=1, grid_mode=True, mode="nearest")
        for name, plane in lens.planes.items()
        if name != "source"
    }
    large = replace(lens, planes=grown | {"source": lens.planes["source"]}, pixel_scale=lens.pixel_scale / 10)
    panels, _ = panels_of(large)
    assert sum(p.values.size for p in panels) <= MOST_VALUES
    shown = {p.key: p for p in panels}
    assert shown["image"].values.size >= shown["kappa"].values.size
    assert "averaged" in shown["kappa"].title and shown["source"].title == "source"
    assert shown["kappa"].extent == pytest.approx((2 * SIDE * lens.pixel_scale,) * 2)
    assert shown["kappa"].values.mean() == pytest.approx(lens.planes["kappa"].mean(), rel=1e-3)
    assert len(lens_page(large, Library()).encode()) < 5e6


def test_an_averaged_panel_stays_in_its_place():
    panel = Panel("kappa", "kappa", "kappa", np.arange(15.0).reshape(3, 5), 0.1, "").thinned()
    assert panel.values.shape == (2, 3) and panel.extent == pytest.approx((0.6, 0.4))
    assert panel.values[0, :2].tolist() == [3.0, 5.0] and np.isnan(panel.values[1]).all()


def test_limits_hold_for_any_values(made):
    lens = of(made)
    for value in (0.0, -3.0, 1e-30, 1e30):
        flat = replace(lens, planes={name: np.full_like(p, value) for name, p in lens.planes.items()})
        for limits in limits_of(panels_of(flat)[0]).values():
            assert limits.least <= limits.low < limits.high <= limits.most
    lens_page(flat, Library(beside=True))


# ---------------------------------------------------------------- many lenses


def test_a_folder_becomes_a_catalogue(tmp_path):
    results = tmp_path / "results"
    results.mkdir()
    fits_result(results, method="bicubic")
    npz_result(results, 2, Known((Verdict("good"), Verdict("bad", ("theta_E is at its bound",)))))
    (results / "damaged.npz").write_bytes(b"")
    code, said = show(results)
    assert code == 0 and "a catalogue of 3 lenses" in said
    assert "note: left out: " in said and "damaged.npz is damaged" in said
    assert "lens.fits is an image" in said
    page = (tmp_path / "results.html").read_text()
    lenses = tmp_path / "results_lenses"
    pages = {f"0000{i}.html" for i in range(3)}
    assert {f.name for f in lenses.iterdir()} == pages | {"bokeh.min.js", "bokeh-widgets.min.js"}
    for words in ("good 1", "bad 1", "no verdict 1", "results_lenses/00002.html", "theta_E is at its bound"):
        assert words in page
    one = (lenses / "00002.html").read_text()
    assert 'href="../results.html"' in one and "theta_E is at its bound" in one and len(one) < 1e6
    check_pages(tmp_path / "results.html", 3, overwrite=False)  # what was made so before is made again
    (lenses / "mine.txt").write_text("keep me")
    code, said = show(results)
    assert code == 2 and "was not written by 'lensphys show': remove it" in said and (lenses / "mine.txt").exists()


def test_many_small_images_stay_small():
    entry = Entry("a", "a.html", "good", "", dict.fromkeys(("theta_E", "error", "chi2", "subhalos"), 1.0), (
        None, np.random.default_rng(0).normal(size=(72, 72)).astype("f4"),
    ))  # fmt: skip
    page = catalogue_page("many", "1500 lenses", [entry] * 1500, Library(("bokeh", "bokeh-widgets", "bokeh-tables")))
    assert len(page.encode()) < 5e6
    assert page.split("</style>")[1].rsplit("<script", 1)[1].count("data:image/png") == 1500
    assert 1500 * len(thumbnail(entry.images[1], 72)) > MOST_BYTES
    assert thumbnail(np.full((5, 5), np.nan, "f4"), 20).startswith("data:image/png")


# ---------------------------------------------------------------- regions


def test_regions_are_where_the_curves_are(made, tmp_path):
    from regions import Regions

    from lensphys.tracing.critical import critical_curves

    path = copied(made, tmp_path)
    code, said = show(path, "--regions", tmp_path / "lens.reg")
    assert code == 0 and "regions" in said
    found, lens = Regions.read(tmp_path / "lens.reg", format="ds9"), of(path)
    wcs = WCS(fits.getheader(path))
    curves = critical_curves(lens.planes["alpha"], lens.pixel_scale)
    assert len(found) == 2 * len(curves) + 1
    first = found[0].to_pixel(wcs).vertices
    at = (np.stack([first.x, first.y], 1) - (2 * SIDE - 1) / 2) * lens.pixel_scale
    assert at == pytest.approx(curves[0].critical[:-1], abs=1e-5)
    point = found[-1].to_pixel(wcs).center
    assert [(c - (2 * SIDE - 1) / 2) * lens.pixel_scale for c in point.xy] == pytest.approx(BODY[:2], abs=1e-5)
    assert "1.69e+09 Msun" in found[-1].meta["text"] and "caustic" in found[1].meta["text"]


def test_regions_without_a_sky_are_pixels(tmp_path):
    path = npz_result(tmp_path)
    code, said = show(path, "--regions", tmp_path / "lens.reg")
    assert code == 2 and "--regions takes one lens, and" in said and "choose with --rows" in said
    assert show(path, "--rows", "1", "--regions", tmp_path / "lens.reg")[0] == 0
    assert "\nimage\n" in (tmp_path / "lens.reg").read_text()
    code, said = show(fits_result(tmp_path, method="bicubic"), "--regions", tmp_path / "none.reg")
    assert code == 2 and "neither critical curves nor sub-halos" in said and not (tmp_path / "none.reg").exists()


# ---------------------------------------------------------------- the command


def test_the_page_lies_beside_the_result_and_nothing_is_lost(tmp_path):
    path = fits_result(tmp_path, method="bicubic")
    before = path.read_bytes()
    assert show(path)[0] == 0 and (tmp_path / "lens_sr.html").is_file()
    assert show(path)[0] == 0  # its own page is made again
    (tmp_path / "lens_sr.html").write_text("<html>my notes</html>")
    code, said = show(path)
    assert code == 2 and "exists: remove it, or choose another --out, or give --overwrite" in said
    assert show(path, "--overwrite")[0] == 0
    code, said = show(path, "-o", path)
    assert code == 2 and "must be named *.html" in said and path.read_bytes() == before


def test_a_report_is_opened_as_it_is(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda address: not opened.append(address))
    (tmp_path / "report.html").write_text("<html></html>")
    for path in (tmp_path, tmp_path / "report.html"):
        assert CliRunner().invoke(app, ["show", str(path)]).exit_code == 0
    assert opened == [(tmp_path / "report.html").resolve().as_uri()] * 2
    code, said = show(tmp_path, "-o", tmp_path / "x.html")
    assert code == 2 and "is a page already" in said


def test_the_page_of_a_catalogue_is_opened_by_its_folder_or_table(tmp_path):
    for name in ("catalogue.html", "catalogue.ecsv"):
        (tmp_path / name).write_text("<html></html>")
    for path in (tmp_path, tmp_path / "catalogue.ecsv", tmp_path / "catalogue.html"):
        code, said = show(path)
        assert code == 0 and "the page: " in said and "catalogue.html" in said


def test_a_browser_is_opened(tmp_path, monkeypatch):
    path = fits_result(tmp_path, method="bicubic")
    monkeypatch.setattr(webbrowser, "open", lambda address: False)
    done = CliRunner().invoke(app, ["show", str(path)])
    assert done.exit_code == 0 and "no browser was found: open" in done.output


@pytest.mark.parametrize(("package", "option"), [("bokeh", ()), ("regions", ("--regions", "a.reg"))])
def test_a_missing_library_is_named(made, tmp_path, monkeypatch, package, option):
    path = copied(made, tmp_path)
    for name in [n for n in sys.modules if n.split(".")[0] == package or n.startswith("lensphys.viewer.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    code, said = show(path, *option)
    assert code == 2 and f"needs {package}, which is not installed: pip install 'lensphys[viewer]'" in said
    assert [f.name for f in tmp_path.iterdir()] == [path.name]
