"""Whole files: never over an input, over others only when asked, nothing left by killed runs, one run at a place."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from processes import command, on_a_full_disk
from typer.testing import CliRunner

from lensphys.basics.checks import LensphysError
from lensphys.basics.lock import sole_run
from lensphys.basics.outputs import check_output, remove_leftovers, scratch, whole_file, whole_folder
from lensphys.cli import app
from lensphys.simulation import Recipe
from lensphys.simulation.writer import simulate

SMALL = ["height=12", "width=16"]


@pytest.fixture(scope="module")
def lenses(tmp_path_factory) -> Path:
    return simulate(Recipe.named("model_3", SMALL), 1, tmp_path_factory.mktemp("data") / "lenses.h5")


def run(*arguments: object):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def refused(message: str, *arguments: object) -> None:
    done = run(*arguments)
    assert done.exit_code == 2, done.output
    assert message in done.stderr.replace("\n", " "), done.stderr


# --- inputs and other files ----------------------------------------------------------------------------------------


def spellings(path: Path) -> list[Path]:
    """The same file by other names."""
    link, hard = path.with_name(f"link{path.suffix}"), path.with_name(f"hard{path.suffix}")
    link.symlink_to(path.name)
    os.link(path, hard)
    return [path, path.parent / "." / ".." / path.parent.name / path.name, link, hard]


def test_no_spelling_of_an_input_is_an_output(tmp_path):
    path = tmp_path / "a.h5"
    path.write_text("mine")
    for out in spellings(path):
        with pytest.raises(LensphysError, match="is the input: choose another name"):
            check_output(out, [path], overwrite=True)
    check_output(tmp_path / "b.h5", [path])


@pytest.mark.parametrize(
    "arguments",
    [
        ["doctor", "a.h5", "--json", "a.h5"],
        ["doctor", "b.h5", "a.h5", "--json", "a.h5"],
        ["super-resolve", "a.h5", "--method", "bicubic", "-o", "a.h5"],
        ["super-resolve", "x.fits", "--psf", "psf.fits", "--method", "bicubic", "-o", "psf.fits"],
        ["super-resolve", "x.fits", "--error", "psf.fits", "--method", "bicubic", "-o", "psf.fits"],
        ["super-resolve", "x.fits", "--target-psf", "psf.fits", "--method", "bicubic", "-o", "psf.fits"],
        ["import", "a.h5", "-o", "a.h5"],
        ["import", "b.h5", "--hr", "a.h5", "-o", "a.h5"],
        ["export", "a.h5", "--index", "0", "--format", "fits", "-o", "a.h5"],
    ],
)
def test_no_command_writes_over_its_input(lenses, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    for name in ("a.h5", "b.h5"):
        Path(name).write_bytes(lenses.read_bytes())
    for name in ("x.fits", "psf.fits"):
        Path(name).write_text("mine")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    refused("is the input: choose another name", *arguments, "--overwrite")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_rank_set_is_not_written_over_its_data(lenses):
    refused("is the input: choose another name", "rank-set", "run", "run2", "--data", lenses, "-o", lenses)


def test_files_may_be_named_in_capitals(tmp_path):
    made = simulate(Recipe.named("model_3", SMALL), 1, tmp_path / "A.H5")
    assert made.is_file()
    assert run("import", made, "-o", tmp_path / "B.HDF5").exit_code == 0
    assert run("doctor", tmp_path / "B.HDF5", "--json", tmp_path / "c.json").exit_code in (0, 1)
    assert (tmp_path / "c.json").exists()


def test_no_shard_is_the_output_of_what_reads_it(tmp_path):
    folder = simulate(Recipe.named("model_3", SMALL), 1, tmp_path / "shards")
    virtual, shard = tmp_path / "virtual.h5", folder / "000000.h5"
    assert run("merge", folder, "-o", virtual, "--virtual").exit_code == 0
    before = shard.read_bytes()
    refused("is the input", "merge", folder, "-o", shard, "--overwrite")
    refused("is the input", "super-resolve", virtual, "--method", "bicubic", "-o", shard, "--overwrite")
    refused("is the input", "doctor", virtual, "--json", shard, "--overwrite")
    assert shard.read_bytes() == before


@pytest.mark.parametrize(
    ("out", "arguments"),
    [
        ("f.json", ["doctor", "lenses.h5", "--json", "f.json"]),
        ("sr.h5", ["super-resolve", "lenses.h5", "--method", "bicubic", "-o", "sr.h5"]),
        ("new.h5", ["import", "lenses.h5", "-o", "new.h5"]),
        ("s.fits", ["export", "lenses.h5", "--index", "0", "--format", "fits", "-o", "s.fits"]),
        ("r/table.md", ["evaluate", "--method", "bicubic", "--data", "lenses.h5", "-o", "r"]),
        ("p.png", ["simulate", "model_3", "--set", "height=12", "--set", "width=16", "--preview", "p.png"]),
    ],
)
def test_what_is_there_is_replaced_only_on_demand(lenses, tmp_path, monkeypatch, out, arguments):
    monkeypatch.chdir(tmp_path)
    Path("lenses.h5").write_bytes(lenses.read_bytes())
    Path(out).parent.mkdir(exist_ok=True)
    Path(out).write_text("mine")
    refused("exists: remove it, or choose another --out, or give --overwrite", *arguments)
    assert Path(out).read_text() == "mine"
    done = run(*arguments, "--overwrite")
    assert done.exit_code == 0, done.output
    assert Path(out).read_bytes() != b"mine"
    assert not list(tmp_path.rglob(".*"))  # neither locks nor temporary files


def test_a_folder_of_samples_is_replaced_and_no_other(lenses, tmp_path):
    export = ["export", lenses, "--format", "fits", "-o", tmp_path / "out", "--overwrite"]
    assert run(*export, "--all").exit_code == 0 and run(*export, "--index", "0,2").exit_code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["sample_000000.fits", "sample_000002.fits"]
    (tmp_path / "out" / "notes.txt").write_text("mine")
    refused("holds more than samples (notes.txt) and is kept", *export, "--all")
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


# --- whole, and on the disk ----------------------------------------------------------------------------------------


def test_a_file_and_its_folder_are_on_the_disk_before_and_after_it_is_seen(tmp_path, monkeypatch):
    seen, path = [], tmp_path / "a.txt"
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (seen.append(path.exists()), fsync(handle)))
    with whole_file(path) as temporary:
        temporary.write_text("whole")
    assert seen == [False, True]


def test_a_folder_stays_where_the_new_one_cannot_be_moved(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/old").write_text("old")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LensphysError, match="No space left on device"), whole_folder(tmp_path / "a") as made:
        (made / "new").write_text("new")
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "old"]


def test_a_full_disk_is_one_sentence_and_leaves_nothing(lenses, tmp_path, monkeypatch):
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    np.save(tmp_path / "a.npy", np.random.default_rng(0).random((1, 12, 12), "f4"))
    monkeypatch.setattr(os, "fsync", full)
    out = ["--method", "bicubic", "--instrument", "model_3", "-o", tmp_path / "sr.npz"]
    refused("sr.npz: No space left on device", "super-resolve", tmp_path / "a.npy", *out)
    refused("new.h5: No space left on device", "import", lenses, "-o", tmp_path / "new.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


@pytest.mark.parametrize(
    "share", [pytest.param(0.01, marks=pytest.mark.slow), 0.5, pytest.param(0.98, marks=pytest.mark.slow)]
)
def test_results_on_a_full_disk_are_one_sentence(lenses, tmp_path, share):
    """No file may grow beyond a share of the result, as on a disk that is full."""
    arguments = ["super-resolve", lenses, "--method", "bicubic", "-o"]
    done = run(*arguments, tmp_path / "whole.h5")
    assert done.exit_code == 0, done.output
    limit = int(share * (tmp_path / "whole.h5").stat().st_size)
    code, said = on_a_full_disk(limit, command, *arguments, tmp_path / "sr.h5")
    assert code == 2, said
    assert said.splitlines()[-1].lower() == f"error: cannot write {tmp_path}/sr.h5: file too large"
    assert [path.name for path in tmp_path.iterdir()] == ["whole.h5"]


# --- what killed runs leave, and runs beside each other --------------------------------------------------------------

HOLDS = """
import sys, time
from pathlib import Path
from lensphys.basics.lock import sole_run
from lensphys.basics.outputs import whole_file
with sole_run(Path(sys.argv[1])), whole_file(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """Another process in the middle of writing a.txt."""
    process = subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path / "a.txt")], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    yield process
    process.kill()
    process.wait()


def test_temporary_files_of_a_killed_run_go_and_those_of_a_live_one_stay(tmp_path, other):
    (tmp_path / ".precious.tmp").mkdir()
    with whole_file(tmp_path / "b.txt") as temporary:
        temporary.write_text("whole")
    assert len(list(tmp_path.glob(".a.txt.*.tmp"))) == 1
    other.kill()
    other.wait()
    with scratch(tmp_path / "c.txt"):
        assert not list(tmp_path.glob(".a.txt.*.tmp"))
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != ".a.txt.lock") == [".precious.tmp", "b.txt"]


def test_the_second_run_at_a_place_refuses_and_a_killed_one_keeps_nobody_out(tmp_path, other):
    with (
        pytest.raises(LensphysError, match=r"another run is at work on .*a.txt: wait until it ends"),
        sole_run(tmp_path / "a.txt"),
    ):
        pass
    with sole_run(tmp_path / "b.txt"):
        pass
    other.kill()
    other.wait()
    with sole_run(tmp_path / "a.txt"):
        remove_leftovers(tmp_path)
    assert not list(tmp_path.iterdir())


def test_commands_refuse_a_place_where_another_run_is(lenses, tmp_path):
    model = ["model_3", "--set", SMALL[0], "--set", SMALL[1], "-n", "1"]
    with sole_run(tmp_path / "a.h5"):
        refused("another run is at work on", "simulate", *model, "-o", tmp_path / "a.h5")
        refused("another run is at work on", "import", lenses, "-o", tmp_path / "a.h5")
        refused("another run is at work on", "super-resolve", lenses, "--method", "bicubic", "-o", tmp_path / "a.h5")
    (tmp_path / "survey").mkdir()
    with sole_run(tmp_path / "survey"):
        refused("another run is at work on", "simulate", *model, "-o", tmp_path / "survey")
    assert run("simulate", *model, "-o", tmp_path / "survey").exit_code == 0


# --- signals ---------------------------------------------------------------------------------------------------------


def started(out: Path, *more: str) -> subprocess.Popen:
    simulation = ["simulate", "model_3", "-n", "2000", "--shard-size", "20", "--engine", "lenstronomy", "-o", str(out)]
    command = [sys.executable, "-m", "lensphys", *simulation, *more]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, start_new_session=True)
    deadline = time.monotonic() + 120
    while not list(out.glob("*.h5")) and time.monotonic() < deadline:
        time.sleep(0.05)
    return process


def ends(pid: int, seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not Path(f"/proc/{pid}").exists() or ") Z " in Path(f"/proc/{pid}/stat").read_text():
            return True
        time.sleep(0.1)
    return False


def below(pid: int) -> list[str]:
    """The processes that a process started, and those that these started."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return found + [process for child in found for process in below(int(child))]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")
def test_workers_end_with_a_killed_parent(tmp_path):
    process = started(tmp_path / "survey", "--workers", "2")
    children = below(process.pid)
    assert len(children) >= 4  # two workers, what starts them, and what cleans up after them
    process.kill()
    process.wait()
    assert all(ends(int(child)) for child in children)


@pytest.mark.parametrize("group", [pytest.param(False, marks=pytest.mark.slow), True])
def test_sigterm_is_ctrl_c_in_simulate(tmp_path, group):
    process = started(tmp_path / "survey", "--workers", "2")
    (os.killpg if group else os.kill)(process.pid, signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert b"interrupted: the finished shards are kept, the same command resumes" in said
    assert not (tmp_path / "survey" / ".lock").exists()
