"""The pages of `lensphys show` in headless Chromium: what moves, blinks and is said under the cursor."""

import os
import shutil
from io import BytesIO
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from PIL import Image
from results import PIXEL, SIDE, Known, fits_result, npz_result

from lensphys.prediction import Verdict
from lensphys.viewer.reading import read_results
from lensphys.viewer.show import write_pages

playwright = pytest.importorskip("playwright.sync_api")


def chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        found = chromium() or started.chromium.executable_path
        if not Path(found).exists():
            pytest.skip("no Chromium is installed")
        browser = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


class Opened:
    """A page, and what went wrong in it."""

    def __init__(self, browser, path: Path) -> None:
        self.page = browser.new_page(viewport={"width": 1640, "height": 1300})
        self.page.set_default_timeout(120_000)
        self.wrong: list[str] = []
        self.page.on("console", lambda m: self.wrong.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on(
            "request", lambda r: None if r.url.startswith(("file:", "data:", "blob:")) else self.wrong.append(r.url)
        )
        self.go(path)

    def go(self, path: Path) -> None:
        self.page.goto(path.resolve().as_uri())
        self.idle()

    def idle(self) -> None:
        self.page.wait_for_function("window.Bokeh?.documents?.[0]?.is_idle")
        self.page.wait_for_timeout(300)

    def box(self, number: int) -> dict:
        """The place of a panel on the screen: 0 image, 3 super-resolved, 5 source, 6 kappa."""
        return self.page.locator("figure").nth(number).bounding_box()

    def pixels(self, locator: str, number: int = 0) -> np.ndarray:
        picture = self.page.locator(locator).nth(number).screenshot()
        return np.asarray(Image.open(BytesIO(picture)).convert("RGB"), dtype=np.float64)

    def close(self) -> None:
        self.page.close()
        assert self.wrong == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    write_pages(read_results(fits_result(folder)), folder / "lens.html")
    three = (Verdict("good"), Verdict("bad", ("theta_E is at its bound",)), Verdict("good"))
    write_pages(read_results(npz_result(folder, 3, Known(three))), folder / "many.html")
    return folder


@pytest.fixture
def lens(browser, folder):
    opened = Opened(browser, folder / "lens.html")
    yield opened
    opened.close()


def moved(a: np.ndarray, b: np.ndarray) -> float:
    """The share of pixels that differ."""
    return float((np.abs(a - b).max(-1) > 20).mean())


def test_every_panel_is_drawn(lens):
    assert lens.page.locator("figure").count() == 9
    for number in range(9):
        colours = lens.pixels("figure", number).reshape(-1, 3)
        assert len(np.unique(colours, axis=0)) > 40
    assert "suspect" in lens.page.locator(".verdict").inner_text()


def test_a_zoom_in_one_panel_is_a_zoom_in_all_of_the_sky(lens):
    before = {number: lens.pixels("figure", number) for number in (3, 5, 6)}
    place = lens.box(0)
    lens.page.mouse.move(place["x"] + 150, place["y"] + 150)
    for _ in range(4):
        lens.page.mouse.wheel(0, -240)
    lens.idle()
    lens.page.mouse.move(5, 5)
    lens.page.wait_for_timeout(400)
    after = {number: lens.pixels("figure", number) for number in before}
    assert moved(before[3], after[3]) > 0.1 and moved(before[6], after[6]) > 0.1
    assert moved(before[5], after[5]) < 0.02  # the source plane has its own scale


def test_two_panels_blink(lens):
    figure = ".blink"
    still = lens.pixels(figure)
    assert moved(still, lens.pixels(figure)) < 1e-3
    lens.page.get_by_role("button", name="Blink").click()
    seen = []
    for _ in range(12):
        seen.append(lens.pixels(figure)[60:400])
        lens.page.wait_for_timeout(170)
    kinds = [seen[0]]
    for picture in seen:
        if all(moved(picture, kind) > 0.02 for kind in kinds):
            kinds.append(picture)
    assert len(kinds) == 2  # the super-resolved image and the image, in turn
    lens.page.get_by_role("button", name="Stop").click()
    lens.page.wait_for_timeout(300)
    assert moved(lens.pixels(figure)[60:400], still[60:400]) < 0.02


def test_the_cursor_says_where_it_is_and_what_is_there(lens, folder):
    place = lens.box(3)
    lens.page.mouse.move(place["x"] + 140, place["y"] + 120)
    lens.page.wait_for_function("document.getElementById('place').textContent.includes('x')")
    said = lens.page.locator("#place").inner_text().replace("−", "-").split()
    ra, dec, x, y = said[0], said[1], *(float(said[i].rstrip("″")) for i in (3, 5))
    column, row = np.array([x, y]) / (PIXEL / 2) + (2 * SIDE - 1) / 2
    header = fits.getheader(folder / "lens_sr.fits")
    true = WCS(header).pixel_to_world(column, row).icrs
    assert SkyCoord(ra, dec, unit=(u.hourangle, u.deg)).separation(true).arcsec < 0.003
    result = read_results(folder / "lens_sr.fits").lenses[0]()
    shown = float(lens.page.locator("#value-image").inner_text())
    assert shown == pytest.approx(result.planes["image"][round(row), round(column)], rel=2e-3)
    lr = result.planes["lr"][int(row + 0.5) // 2, int(column + 0.5) // 2]
    assert float(lens.page.locator("#value-lr").inner_text()) == pytest.approx(lr, rel=2e-3)
    assert lens.page.locator("#value-source").inner_text() != "–"  # of the light that comes from there


def test_stretch_limits_and_overlays_change_the_picture(lens):
    before = lens.pixels("figure", 3)
    lens.page.get_by_label("stretch of the light").select_option("log")
    lens.page.wait_for_timeout(400)
    stretched = lens.pixels("figure", 3)
    assert moved(before, stretched) > 0.2
    lens.page.get_by_label("colours").select_option("grey")
    lens.page.wait_for_timeout(400)
    grey = lens.pixels("figure", 3)
    assert moved(stretched, grey) > 0.2
    lens.page.get_by_role("button", name="critical curves").click()
    lens.page.wait_for_timeout(400)
    assert 0.002 < moved(grey, lens.pixels("figure", 3)) < 0.2


def test_a_catalogue_is_filtered_sorted_and_left_for_a_lens(browser, folder):
    opened = Opened(browser, folder / "many.html")
    page = opened.page

    def names() -> list[str]:
        page.wait_for_timeout(500)
        rows = page.locator(".slick-row")
        placed = [
            (rows.nth(i).bounding_box()["y"], rows.nth(i).inner_text().split("\n")[0]) for i in range(rows.count())
        ]
        return [name.strip() for _, name in sorted(placed)]

    assert [name.split()[1] for name in names()] == ["0", "1", "2"]
    assert page.locator(".slick-row img").count() == 6
    page.locator(".slick-header-column", has_text="verdict").click()
    page.locator(".slick-header-column", has_text="verdict").click()
    assert names()[0].split()[1] == "1"  # the bad one first
    page.get_by_role("button", name="good 2").click()
    assert [name.split()[1] for name in names()] == ["1"]
    page.get_by_role("button", name="good 2").click()
    page.get_by_placeholder("name or reason").press_sequentially("bound")
    assert [name.split()[1] for name in names()] == ["1"]
    page.locator(".slick-row a", has_text="stack 1").click()
    page.wait_for_url("**/many_lenses/00001.html")
    opened.idle()
    assert page.locator("h1").inner_text() == "stack 1" and page.locator("figure").count() == 9
    page.get_by_text("all lenses").click()
    page.wait_for_url("**/many.html")
    opened.close()
