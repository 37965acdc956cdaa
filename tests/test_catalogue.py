"""Many lenses: parts that are kept, rows that fail alone, the same bytes whoever computes them."""

import json
import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from typer.testing import CliRunner

import lensphys as lp
from lensphys.basics.checks import LensphysError, UnwritableError
from lensphys.basics.runners import Processes
from lensphys.catalogue import Reading, Survey, listed, super_resolve_all
from lensphys.catalogue.inputs import is_many, tasks, told_of_others
from lensphys.catalogue.pictures import SIDE, STEP, WIDTH, picture
from lensphys.catalogue.rows import COLUMNS, row_of
from lensphys.cli import app
from lensphys.methods import READY
from lensphys.prediction import Prediction

SKY = fits.Header({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": 2.0, "CRPIX1": 12.5,
                   "CRPIX2": 12.5, "CDELT1": -0.1 / 3600, "CDELT2": 0.1 / 3600})  # fmt: skip


def ring(height: int = 24, width: int = 24, seed: int = 0) -> np.ndarray:
    y, x = np.indices((height, width))
    r = np.hypot(y - (height - 1) / 2, x - (width - 1) / 2)
    noise = np.random.default_rng(seed).normal(0, 0.1, (height, width))
    return (3 * np.exp(-((r - 6) ** 2) / 4) + noise).astype("f4")


def save_all(folder: Path) -> Path:
    """Nine lenses of three shapes and pixel scales in five files, and one that is none."""
    folder.mkdir()
    fits.PrimaryHDU(ring(), SKY).writeto(folder / "a.fits")
    fits.PrimaryHDU(ring(24, 28, 1), SKY).writeto(folder / "b.fits.gz")
    (folder / "broken.fits").write_text("nothing")
    kernel = np.outer([0.25, 0.5, 0.25], [0.25, 0.5, 0.25])
    np.savez(folder / "c.npz", image=ring(30, 24, 2), err=np.full((30, 24), 0.1), psf=kernel, pixel_scale=0.2)
    np.save(folder / "d.npy", ring(seed=3))
    stack = np.stack([ring(seed=k) for k in range(4, 9)])
    stack[2] = 0
    np.save(folder / "e.npy", stack)
    (folder / "notes.md").write_text("of mine")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return save_all(tmp_path_factory.mktemp("survey") / "in")


def survey_of(folder: Path, method=READY["bicubic"], **keywords) -> Survey:
    return Survey(
        listed(folder), method, "bicubic", **{"reading": Reading(pixel_scale=0.1), "shard_size": 3} | keywords
    )


def bytes_of(out: Path) -> dict[str, bytes]:
    """All but the seconds."""
    files = [p for p in out.rglob("*") if p.is_file() and p.name != "seconds.json"]
    return {str(p.relative_to(out)): p.read_bytes() for p in files if p.stem != "catalogue"}


def without_seconds(rows: list[dict]) -> list[dict]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def made(folder, tmp_path_factory) -> tuple[Path, list[dict]]:
    out = tmp_path_factory.mktemp("made") / "out"
    return out, super_resolve_all(survey_of(folder), out)


def test_a_row_a_lens_and_one_that_failed_alone(made):
    rows = made[1]
    assert [row["number"] for row in rows] == list(range(10))
    files = ["a.fits", "b.fits.gz", "broken.fits", "c.npz", "d.npy", *["e.npy"] * 5]
    assert [row["file"] for row in rows] == files
    assert [row["image"] for row in rows] == [None] * 5 + [0, 1, 2, 3, 4]
    failed = {row["number"]: row["reasons"] for row in rows if row["status"] == "failed"}
    assert set(failed) == {2, 7}
    assert "broken.fits is not a FITS file" in failed[2]
    assert "e.npy is zero everywhere" in failed[7]
    assert all(row["seconds"] > 0 and row["chi2"] > 0 for row in rows if row["status"] == "done")


def test_each_image_is_what_its_file_alone_would_give(made, folder, tmp_path):
    out, rows = made
    for number, name, options in ((1, "b.fits", []), (3, "c.npz", []), (9, "e.npz", ["--rows", "4"])):
        alone = tmp_path / name
        asked = ["super-resolve", str(folder / rows[number]["file"]), "-o", str(alone), "--method", "bicubic", *options]
        assert CliRunner().invoke(app, [*asked, "--pixel-scale", "0.1"]).exit_code == 0
        there = out / rows[number]["result"]
        if name.endswith("fits"):
            with fits.open(there) as a, fits.open(alone) as b:
                assert np.array_equal(a[0].data, b[0].data) and a[0].header["CRPIX1"] == b[0].header["CRPIX1"]
            continue
        a, b = np.load(there), np.load(alone)
        assert np.array_equal(a["image"][-1:], b["image"]) and np.array_equal(a["residual"][-1:], b["residual"])


@pytest.mark.parametrize("name", ["a.fits", "a.npz"])
@pytest.mark.parametrize("dark", [0, 1, 2, 3], ids="{} of 3 dark".format)
def test_a_stack_of_fits_or_npz_costs_its_row(tmp_path, dark, name):
    """It has as many images as it has, whichever of them can be used."""
    (tmp_path / "in").mkdir()
    pixels = np.stack([ring(seed=k) * (k >= dark) for k in range(3)])
    if name == "a.fits":
        fits.PrimaryHDU(pixels[:, None], fits.Header({"PIXSCALE": 0.1})).writeto(tmp_path / "in" / name)
    else:
        np.savez(tmp_path / "in" / name, image=pixels, pixel_scale=0.1)
    fits.PrimaryHDU(ring(seed=9), SKY).writeto(tmp_path / "in" / "b.fits")
    rows = super_resolve_all(survey_of(tmp_path / "in"), tmp_path / "out")
    assert [row["status"] for row in rows] == ["failed", "done"]
    assert f"{name} is a stack of 3 images: super-resolve it by itself" in rows[0]["reasons"]


def test_the_place_on_the_sky_is_the_middle_of_the_image(made):
    rows = made[1]
    assert (rows[0]["ra"], rows[0]["dec"]) == pytest.approx((150.0, 2.0), abs=1e-9)
    west = 150 - 2 * 0.1 / 3600 / np.cos(np.radians(2))  # four columns more: two pixels on
    assert (rows[1]["ra"], rows[1]["dec"]) == pytest.approx((west, 2.0), abs=1e-9)
    assert "ra" not in rows[4]


def test_tables_say_what_the_rows_say(made):
    parquet = pytest.importorskip("pyarrow.parquet")
    out, rows = made
    ecsv, arrow = Table.read(out / "catalogue.ecsv"), parquet.read_table(out / "catalogue.parquet")
    assert ecsv.colnames == arrow.column_names == [column.name for column in COLUMNS]
    assert arrow.to_pylist() == [{c.name: row.get(c.name) for c in COLUMNS} for row in rows]
    assert ecsv["status"].tolist() == [row["status"] for row in rows]
    assert ecsv["chi2"].mask.tolist() == [row["status"] == "failed" for row in rows]
    assert ecsv["ra"].unit == "deg" and arrow.schema.field("ra").metadata[b"unit"] == b"deg"


def test_page_shows_each_lens_once(made):
    out, rows = made
    text = (out / "catalogue.html").read_text()
    assert text.count('class="strip" style') == 8 and "10 lenses: 8 done, 2 failed" in text
    for row in rows:
        assert row["status"] == "failed" or f'href="{row["result"]}"' in text
    assert "background-image: url(shards/000001/pictures.png); background-position: 0 -76px" in text  # number 4
    assert "<script" not in text


def test_pages_of_many_lenses_and_names_of_any_kind(tmp_path):
    from lensphys.catalogue.page import write_pages

    rows = [
        {"number": k, "file": '<b>"&.fits', "image": None, "status": "failed", "reasons": "<i>"} for k in range(501)
    ]
    write_pages(tmp_path, "many", rows, 16)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "catalogue.html", "catalogue_0002.html", "catalogue_0003.html"
    ]  # fmt: skip
    last = (tmp_path / "catalogue_0003.html").read_text()
    assert last.count("<tr>") == 2 and "<b>" not in last and "<i>" not in last and "&lt;b&gt;" in last


def test_numbers_have_the_digits_of_their_errors_and_no_rounded_zero_has_a_sign(tmp_path):
    from lensphys.catalogue.page import write_pages

    row = {"number": 0, "file": "a.fits", "status": "done", "quality": "good", "chi2": 1.0, "subhalos": 0,
           "theta_E": 0.81251, "theta_E_error": 0.0000449, "e1": -0.0001, "e2": 0.1}  # fmt: skip
    text = write_pages(tmp_path, "many", [row], 16).read_text()
    assert ">0.812510 ± 0.000045<" in text and ">0.000, 0.100<" in text


def test_the_origin_of_a_sky_is_at_zero():
    from lensphys.catalogue.rows import _position

    header = fits.Header({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 32.5, "CRPIX2": 32.5, "CRVAL1": 0.0,
                          "CRVAL2": 0.0, "CD1_1": -2.8055555555555e-05, "CD2_2": 2.8055555555555e-05})  # fmt: skip
    assert _position(header, (64, 64)) == {"ra": 0.0, "dec": 0.0}


def test_pictures_stand_upright_and_keep_their_shape(made):
    from PIL import Image

    strip = np.asarray(Image.open(made[0] / "shards/000000/pictures.png"))
    assert strip.shape == (3 * STEP, WIDTH) and strip[:SIDE].max() == 255 and strip[2 * STEP :].max() == 0
    image = np.zeros((12, 24))
    image[9, 20] = 1  # in the upper right
    grey = picture(image)
    y, x = np.unravel_index(grey.argmax(), grey.shape)
    assert y < SIDE / 2 < x and grey.shape == (SIDE, SIDE) and not grey[: SIDE // 4 - 1].any()


def test_two_workers_make_the_same_bytes(made, folder, tmp_path):
    rows = super_resolve_all(survey_of(folder), tmp_path / "out", Processes(2))
    assert without_seconds(rows) == without_seconds(made[1])
    assert bytes_of(tmp_path / "out") == bytes_of(made[0])


@dataclass(frozen=True)
class Stops:
    """Bicubic until a file says that the plug is pulled."""

    plug: Path

    def predict(self, observation, scale: int) -> Prediction:
        count = int(self.plug.read_text()) if self.plug.exists() else 99
        if count == 0:
            raise KeyboardInterrupt
        self.plug.write_text(str(count - 1))
        return READY["bicubic"].predict(observation, scale)


def test_an_interrupted_run_goes_on_and_gives_the_same_bytes(made, folder, tmp_path):
    out, plug = tmp_path / "out", tmp_path / "plug"
    for count in (4, 1, 3):  # each time within a part
        plug.write_text(str(count))
        with pytest.raises(KeyboardInterrupt):
            super_resolve_all(survey_of(folder, Stops(plug)), out)
    kept = sorted(p.name for p in (out / "shards").iterdir())
    assert kept == ["000000", "000001"] and not (out / "catalogue.ecsv").exists()
    when = (out / "shards/000000").stat().st_mtime_ns
    super_resolve_all(survey_of(folder), out)
    assert bytes_of(out) == bytes_of(made[0]) and (out / "shards/000000").stat().st_mtime_ns == when


def test_parts_that_the_manifest_does_not_know_or_that_are_damaged(made, folder, tmp_path):
    out = tmp_path / "out"
    super_resolve_all(survey_of(folder), out)
    tree = json.loads((out / "manifest.json").read_text())
    del tree["finished"]["1"]
    (out / "manifest.json").write_text(json.dumps(tree))
    known = (out / "shards/000001").stat().st_mtime_ns
    picture_ = out / "shards/000002/pictures.png"
    data = bytearray(picture_.read_bytes())
    data[-20] ^= 1
    picture_.write_bytes(data)
    super_resolve_all(survey_of(folder), out)
    assert bytes_of(out) == bytes_of(made[0]) and (out / "shards/000001").stat().st_mtime_ns == known
    (out / "manifest.json").write_text("{")
    super_resolve_all(survey_of(folder), out)
    assert bytes_of(out) == bytes_of(made[0]) and (out / "shards/000001").stat().st_mtime_ns == known
    (out / "shards/000000/seconds.json").write_text("[0.1")
    (out / "shards/000002/seconds.json").unlink()
    super_resolve_all(survey_of(folder), out)
    assert bytes_of(out) == bytes_of(made[0]) and (out / "shards/000001").stat().st_mtime_ns == known


def test_a_mended_file_is_looked_at_again(tmp_path):
    folder, out = save_all(tmp_path / "in"), tmp_path / "out"
    assert super_resolve_all(survey_of(folder), out)[2]["status"] == "failed"
    when = (out / "shards/000001").stat().st_mtime_ns
    fits.PrimaryHDU(ring(seed=20), SKY).writeto(folder / "broken.fits", overwrite=True)
    rows = super_resolve_all(survey_of(folder), out)
    assert rows[2]["status"] == "done" and (out / "shards/000001").stat().st_mtime_ns == when


def test_another_run_is_refused_until_it_may_replace(made, folder, tmp_path):
    out = tmp_path / "out"
    super_resolve_all(survey_of(folder), out)
    before = bytes_of(out)
    other = survey_of(folder, scale=3)
    with pytest.raises(LensphysError, match=r"out holds the catalogue of another run \(other files, meth"):
        super_resolve_all(other, out)
    assert bytes_of(out) == before
    (out / "mine.txt").write_text("mine")
    super_resolve_all(other, out, overwrite=True)
    assert fits.getheader(out / "shards/000000/000000_a.fits")["NAXIS1"] == 72
    assert (out / "mine.txt").read_text() == "mine"


def test_a_second_run_at_once_is_refused(folder, tmp_path):
    from lensphys.basics.lock import sole_run

    (tmp_path / "out").mkdir()
    with sole_run(tmp_path / "out"), pytest.raises(LensphysError, match="another run is at work on .*out: wait until"):
        super_resolve_all(survey_of(folder), tmp_path / "out")


def test_a_folder_of_other_things_is_left_alone(folder, tmp_path):
    with pytest.raises(LensphysError, match=r"is not empty, and no catalogue of ours \(it has no manifest.json\)"):
        super_resolve_all(survey_of(folder), folder)
    assert sorted(p.name for p in folder.iterdir())[0] == "a.fits"


def test_a_list_with_a_missing_and_a_foreign_file(folder, tmp_path):
    path = tmp_path / "lenses.txt"
    path.write_text(f"# mine\n{folder}/a.fits\n\ngone.fits\n{folder}/notes.md\n{folder}/d.npy\n")
    rows = super_resolve_all(survey_of(path), tmp_path / "out")
    assert [row["status"] for row in rows] == ["done", "failed", "failed", "done"]
    assert "input not found" in rows[1]["reasons"] and "unknown kind of file" in rows[2]["reasons"]


def test_a_list_may_begin_with_the_mark_of_an_editor(tmp_path):
    """Editors of Windows put a byte-order mark before the first name, and end lines in two characters."""
    path = tmp_path / "a.txt"
    path.write_bytes("b \u00e9.fits\r\nc.fits\r\n".encode("utf-8-sig"))
    assert [entry.name for entry in listed(path)] == ["b \u00e9.fits", "c.fits"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "the list .*a.txt is empty"),
        (b"b.fits\nb.fits\n", "names b.fits twice"),
        (b"\xff\xfe\x00", "cannot read the list"),
    ],
)
def test_faulty_lists(tmp_path, text, message):
    path = tmp_path / "a.txt"
    path.write_bytes(text)
    with pytest.raises(LensphysError, match=message):
        listed(path)
    with pytest.raises(LensphysError, match="holds no images: FITS, .npy, .npz or .h5 files are looked for"):
        (tmp_path / "empty").mkdir()
        listed(tmp_path / "empty")


@dataclass(frozen=True)
class Dies:
    """What no image can be given to: a bug, or a library that fails in a way of its own."""

    level: float

    def predict(self, observation, scale: int) -> Prediction:
        if bool((observation.image.amax() > self.level).any()):
            raise RuntimeError("linalg.cholesky: not positive-definite")
        return READY["bicubic"].predict(observation, scale)


def test_whatever_fails_costs_its_own_row(tmp_path):
    stack = np.stack([ring(seed=k) for k in range(6)])
    stack[4] *= 100
    np.save(tmp_path / "a.npy", stack)
    rows = super_resolve_all(survey_of(tmp_path / "a.npy", Dies(50.0), shard_size=6), tmp_path / "out")
    assert [row["status"] for row in rows] == ["done"] * 4 + ["failed", "done"]
    assert rows[4]["reasons"] == "RuntimeError: linalg.cholesky: not positive-definite"
    assert np.load(tmp_path / "out" / rows[5]["result"])["index"].tolist() == [5]


def test_a_machine_without_memory_ends_the_run_and_the_next_one_makes_it(made, folder, tmp_path):
    class Hungry:
        def predict(self, observation, scale):
            raise MemoryError

    with pytest.raises(MemoryError):
        super_resolve_all(survey_of(folder, Hungry()), tmp_path / "out")
    assert not list((tmp_path / "out/shards").iterdir())
    assert without_seconds(super_resolve_all(survey_of(folder), tmp_path / "out")) == without_seconds(made[1])


def test_a_full_disk_ends_the_run_and_costs_no_rows(folder, tmp_path, monkeypatch):
    from lensphys.catalogue import work

    def full(path, *rest):
        raise UnwritableError(f"cannot write {path}: No space left on device")

    monkeypatch.setattr(work, "write_images", full)
    with pytest.raises(LensphysError, match="cannot write .*No space left on device"):
        super_resolve_all(survey_of(folder), tmp_path / "out")
    assert not list((tmp_path / "out/shards").iterdir())


@dataclass(frozen=True)
class DiesHard:
    """A process that the system kills at one image."""

    level: float

    def predict(self, observation, scale: int) -> Prediction:
        if float(observation.image.amax()) > self.level:
            os.kill(os.getpid(), signal.SIGKILL)
        return READY["bicubic"].predict(observation, scale)


@pytest.mark.slow
def test_a_lost_process_loses_its_own_part_alone(tmp_path):
    stack = np.stack([ring(seed=k) for k in range(8)])
    np.save(tmp_path / "a.npy", stack)
    whole = super_resolve_all(survey_of(tmp_path / "a.npy", shard_size=1), tmp_path / "whole")
    with pytest.raises(LensphysError, match=r"a worker died \(out of memory\?\)"):
        level = float(np.sort(stack.max((1, 2)))[-2])
        super_resolve_all(survey_of(tmp_path / "a.npy", DiesHard(level), shard_size=1), tmp_path / "out", Processes(2))
    rows = super_resolve_all(survey_of(tmp_path / "a.npy", shard_size=1), tmp_path / "out")
    assert without_seconds(rows) == without_seconds(whole)
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")


@dataclass(frozen=True)
class Dawdles:
    """Takes as long as somebody waits, but for one image; says with a file that it has begun."""

    level: float
    begun: Path

    def predict(self, observation, scale: int) -> Prediction:
        if float(observation.image.amax()) < self.level:
            self.begun.touch()
            time.sleep(60)
        return READY["bicubic"].predict(observation, scale)


def test_ctrl_c_stops_workers_within_their_parts_and_keeps_what_is_finished(tmp_path):
    stack = np.stack([ring(seed=k) for k in range(3)])
    stack[0] *= 2
    np.save(tmp_path / "a.npy", stack)
    begun, out = tmp_path / "begun", tmp_path / "out"
    method, first = Dawdles(float(stack[1:].max()) + 0.1, begun), out / "shards/000000/rows.json"

    def press() -> None:
        until = time.monotonic() + 50
        while not (begun.exists() and first.exists()) and time.monotonic() < until:
            time.sleep(0.05)
        pressed.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    pressed: list[float] = []
    threading.Thread(target=press).start()
    with pytest.raises(KeyboardInterrupt):
        super_resolve_all(survey_of(tmp_path / "a.npy", method, shard_size=1), out, Processes(2))
    assert time.monotonic() - pressed[0] < 10
    assert [path.name for path in (out / "shards").iterdir()] == ["000000"]
    when = first.stat().st_mtime_ns
    rows = super_resolve_all(survey_of(tmp_path / "a.npy", shard_size=1), out)
    assert [row["status"] for row in rows] == ["done"] * 3 and first.stat().st_mtime_ns == when


def test_a_worker_that_does_not_see_an_image_ends_the_run(tmp_path):
    np.save(tmp_path / "a.npy", ring())
    survey = survey_of(tmp_path / "a.npy")
    assert survey.tasks
    (tmp_path / "a.npy").unlink()
    with pytest.raises(LensphysError, match=r"the worker on .* does not see .*a.npy, which was there when the run beg"):
        super_resolve_all(survey, tmp_path / "out")


def test_parts_cover_all_images_once(folder):
    entries = listed(folder)
    for size in (1, 3, 4, 100):
        parts = tasks(entries, size)
        assert [part.count for part in parts[:-1]] == [size] * (len(parts) - 1) and 0 < parts[-1].count <= size
        pieces = [piece for part in parts for piece in part.pieces]
        numbers = [n for p in pieces for n in range(p.first, p.first + p.count)]
        assert numbers == list(range(10))
        assert [i for p in pieces if p.rows is not None for i in p.rows] == list(range(5))


def test_simulated_lenses_and_their_shards(tmp_path):
    from lensphys.data import LensFile
    from lensphys.simulation import Recipe
    from lensphys.simulation.plan import Plan
    from lensphys.simulation.writer import write

    plan = Plan.from_recipe(Recipe.named("model_2", ["height=12", "width=16"]), 3, shard_size=5)
    data = write(plan, tmp_path / "in")
    rows = super_resolve_all(survey_of(data, reading=Reading()), tmp_path / "out")
    assert len(rows) == 9 and {row["status"] for row in rows} == {"done"}
    with LensFile(data / "000000.h5") as shard, LensFile(tmp_path / "out" / rows[3]["result"]) as result:
        assert np.array_equal(result.read("lr"), shard.read("lr", [3, 4]))
        assert result.labels.tolist() == shard.labels_of([3, 4]).tolist()


def test_a_row_of_a_fit_has_the_parameters_by_name():
    names = [
        "lens.theta_E",
        "lens.e1",
        "lens.e2",
        "lens.gamma",
        "shear.gamma1",
        "shear.gamma2",
        "theta_E",
        "source_flux",
    ]
    values = np.arange(8.0)[None] + 1
    result = {
        "residual": np.zeros((1, 8, 8)), "chi2": np.array([1.1]), "theta_E": np.array([1.5]), "subhalos": np.array([2]),
        "parameters": values, "errors": values / 10, "parameter_names": np.array(names),
        "quality": np.array(["suspect"]), "reasons": np.array(["it is faint"]),
    }  # fmt: skip
    row = row_of(result, 0, None)
    assert (row["theta_E"], row["theta_E_error"]) == (1.5, pytest.approx(0.7))
    told = {name: row[name] for name in ("e1", "e2", "slope", "gamma1", "gamma2", "source_flux", "subhalos")}
    assert told == {"e1": 2, "e2": 3, "slope": 4, "gamma1": 5, "gamma2": 6, "source_flux": 8, "subhalos": 2}
    assert row["gamma2_error"] == pytest.approx(0.6) and "source_radius" not in row
    assert set(row) <= {column.name for column in COLUMNS}
    assert (row["quality"], row["reasons"]) == ("suspect", "it is faint")


# --- the command line ----------------------------------------------------------------------------------------------


def run(*words) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


def test_the_command_makes_a_catalogue_and_says_what_failed(folder, tmp_path):
    asked = ["super-resolve", folder, "-o", tmp_path / "out", "--method", "bicubic", "--pixel-scale", "0.1"]
    code, output = run(*asked)
    assert code == 0 and "10 lenses: 8 done, 2 failed" in output and "failed: e.npy [2] (" in output
    assert Table.read(tmp_path / "out/catalogue.ecsv").meta["method"] == "bicubic"
    code, output = run(*asked)
    assert code == 0 and "out is already complete" in output


def test_images_of_a_kind_that_is_not_read_are_passed_over_with_a_word(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.asdf", "b.ASDF", "c.png", "old.tar.gz", "notes.md", ".hidden.png"):
        (tmp_path / "in" / name).write_text("")
    asked = ["super-resolve", tmp_path / "in", "-o", tmp_path / "out", "--method", "bicubic", "--pixel-scale", "0.1"]
    said = "passed over: 2 .asdf files, 1 .gz file, 1 .png file (.asdf is an ASDF file: save its data, err and dq"
    code, output = run(*asked)
    assert code == 2 and "in holds no images: " in output and said in output
    np.save(tmp_path / "in" / "d.npy", ring())
    code, output = run(*asked)
    assert code == 0 and output.count("passed over") == 1 and f"note: {tmp_path / 'in'}: {said}" in output
    assert "hidden" not in output and "notes" not in output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["in", "-o", "out.h5"], "in gives a catalogue: --out must be a folder, without an ending, got out.h5"),
        (["in", "-o", "in"], "the output in is the input: choose another folder"),
        (["in", "-o", "out", "--rows", "3"], "--rows cannot be given for a catalogue: take it away, or name one file"),
        (["in", "-o", "out", "--psf", "gone.fits"], "the file of all lenses not found: gone.fits is not a file"),
        (["in", "-o", "out", "--shard-size", "0"], "--shard-size must be a whole number of 1 or more, got 0"),
        (["in", "-o", "out", "--scheduler", "tcp://127.0.0.1:9x"], "no Dask scheduler answers at"),
        (["nothing", "-o", "out"], "input not found: nothing is no file and no folder"),
        (
            ["in/a.npy", "-o", "a.npz", "--shard-size", "3"],
            "--shard-size cannot be given for one file: it is for catalogues, give a folder",
        ),
        (["dark", "-o", "out"], "every lens failed, the first one because: dark/a.npy is zero everywhere"),
    ],
)
def test_mistakes_are_told_in_one_sentence(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, level in (("in", 1), ("dark", 0)):
        Path(name).mkdir()
        np.save(f"{name}/a.npy", level * ring())
    code, output = run("super-resolve", *words, "--method", "bicubic", "--pixel-scale", "0.1")
    assert code == 2 and message in output, output


def test_a_catalogue_is_asked_for_by_a_folder_or_a_list(tmp_path):
    (tmp_path / "in").mkdir()
    cases = {("in", "out"): True, ("a.txt", "out"): True, ("a.npy", "out"): True, ("a.npy", "a.npz"): False}
    assert {case: is_many(tmp_path / case[0], tmp_path / case[1]) for case in cases} == cases


def test_results_in_a_folder_are_no_lenses(tmp_path):
    (tmp_path / "in").mkdir()
    fits.PrimaryHDU(ring(), SKY).writeto(tmp_path / "in" / "a.fits")
    np.savez(tmp_path / "in" / "c.npz", image=ring(30, 24, 2), pixel_scale=0.2)
    np.save(tmp_path / "in" / "e.npy", np.stack([ring(seed=k) for k in range(2)]))
    for name, ending in (("a.fits", ".fits"), ("c.npz", ".npz"), ("e.npy", ".h5")):
        seen = lp.read(tmp_path / "in" / name, pixel_scale=None if name == "c.npz" else 0.1)
        lp.super_resolve(seen, method="bicubic").write(tmp_path / "in" / f"{name[0]}_sr{ending}")
    (tmp_path / "in" / "broken.fits").write_text("nothing")
    assert [entry.name for entry in listed(tmp_path / "in")] == ["a.fits", "broken.fits", "c.npz", "e.npy"]
    assert told_of_others(tmp_path / "in") == "passed over: 3 results of lensphys, super-resolved before"
    for name in ("a.fits", "c.npz", "e.npy", "broken.fits"):
        (tmp_path / "in" / name).unlink()
    with pytest.raises(LensphysError, match=r"holds no images: .*\(passed over: 3 results of lensphys"):
        listed(tmp_path / "in")


def test_a_catalogue_of_one_lens_is_told(tmp_path):
    fits.PrimaryHDU(ring(), SKY).writeto(tmp_path / "a.fits")
    done = CliRunner().invoke(app, ["super-resolve", str(tmp_path / "a.fits"), "-o", str(tmp_path / "out"),
                                    "--method", "bicubic", "--workers", "1"])  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "out has no ending: it becomes a catalogue of one lens; give -o a.fits for" in done.output
