"""Simulating into one file: same bytes whoever computes them, resumed where it was stopped, and nothing lost."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from processes import command, on_a_full_disk

from lensphys.basics.checks import LensphysError
from lensphys.basics.interrupts import Interrupts
from lensphys.basics.runners import Processes
from lensphys.data import LensFile
from lensphys.simulation import Recipe, shards, simulate
from lensphys.simulation.plan import Plan
from lensphys.simulation.sample import render
from lensphys.simulation.writer import write

SMALL = ["height=12", "width=16"]  # H != W, and fast
ROOT = Path(__file__).parents[1]


def make(out: Path, n: int = 15, changes: list[str] | None = None, workers: int = 1, **keywords) -> bytes:
    """Three classes, shards of 20: 45 samples are three of them."""
    plan = Plan.from_recipe(Recipe.named("model_2", SMALL + (changes or [])), n, **{"shard_size": 20} | keywords)
    return write(plan, out, Processes(workers)).read_bytes()


def test_noisy_hr_is_stored_beside_the_clean_one(tmp_path):
    make(tmp_path / "a.h5", n=1, changes=["hr_noise=true"])
    with h5py.File(tmp_path / "a.h5") as file:
        assert not np.array_equal(file["hr"][:], file["hr_clean"][:])


@pytest.mark.parametrize("engine", ["torch", "lenstronomy"])
def test_same_bytes_with_any_number_of_workers(tmp_path, engine):
    one = make(tmp_path / "one.h5", engine=engine)
    two = make(tmp_path / "two.h5", workers=2, engine=engine)
    assert one == two
    assert one != make(tmp_path / "three.h5", seed=1, engine=engine)


@pytest.mark.parametrize("size", [1, 7, 45, 1000])
def test_same_file_with_shards_of_any_size(tmp_path, size):
    """Where HDF5 keeps the texts within the file differs, and the last digit of what was blurred in other company."""
    make(tmp_path / "a.h5", shard_size=size)
    make(tmp_path / "b.h5")
    with h5py.File(tmp_path / "a.h5") as a, h5py.File(tmp_path / "b.h5") as b:
        assert set(a) == set(b) and a.attrs.keys() == b.attrs.keys()
        assert all(np.array_equal(a.attrs[k], b.attrs[k]) for k in a.attrs)
        for name in a:
            if a[name].ndim == 4:
                assert np.abs(a[name][:] - b[name][:]).max() <= 5e-7 * np.abs(b[name][:]).max()
            else:
                assert np.array_equal(a[name], b[name], equal_nan=name == "axion_mass")


def test_samples_do_not_depend_on_their_number_or_the_other_classes(tmp_path):
    make(tmp_path / "a.h5", n=3)
    make(tmp_path / "b.h5", n=2, classes=["cdm"])
    with LensFile(tmp_path / "a.h5") as a, LensFile(tmp_path / "b.h5") as b:
        assert b.classes == ["cdm"] and torch.equal(a.lr([2, 5]), b.lr())
        for name in ("lr_clean", "hr_clean", "alpha_hr", "theta_E", "lens_model"):
            assert np.array_equal(a.read(name, [2, 5]), b.read(name))


def interrupt(monkeypatch, out: Path, error: type[BaseException] = KeyboardInterrupt) -> None:
    """Stop a run within its second shard."""
    calls = []

    def failing(*args):
        calls.append(1)
        if len(calls) > 1:
            raise error
        return render(*args)

    with monkeypatch.context() as patch, pytest.raises(error):
        patch.setattr(shards, "render", failing)
        make(out)


def test_interrupted_run_resumes_to_the_same_bytes(tmp_path, monkeypatch):
    whole = make(tmp_path / "whole.h5")
    out = tmp_path / "out.h5"
    interrupt(monkeypatch, out)
    parts = tmp_path / "out.h5.parts"
    assert sorted(p.name for p in parts.iterdir()) == ["000000.h5", "manifest.json"] and not out.exists()
    rendered = []
    monkeypatch.setattr(shards, "render", lambda r, e, drawn: rendered.extend(drawn) or render(r, e, drawn))
    assert make(out) == whole
    assert len(rendered) == 45 - 20 and not parts.exists()


def test_ctrl_c_waits_for_the_shard_that_is_under_way(tmp_path, monkeypatch):
    out = tmp_path / "out.h5"

    def pressed(*args):
        os.kill(os.getpid(), signal.SIGINT)
        return render(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shards, "render", pressed)
        make(out)
    assert sorted(p.name for p in (tmp_path / "out.h5.parts").iterdir()) == ["000000.h5", "manifest.json"]
    assert not Interrupts().wished and make(out) == make(tmp_path / "b.h5")


def test_foreign_parts_are_refused(tmp_path, monkeypatch):
    out = tmp_path / "out.h5"
    interrupt(monkeypatch, out)
    others = ({"seed": 1}, {"n": 16}, {"classes": ["cdm"]}, {"changes": ["upscale=3"]}, {"engine": "lenstronomy"})
    for keywords in (*others, {"draws": "matched"}, {"shard_size": 10}):
        with pytest.raises(
            LensphysError, match=r"holds parts of another simulation.*remove it, or choose another --out"
        ):
            make(out, **keywords)
    (tmp_path / "out.h5.parts" / "manifest.json").unlink()
    with pytest.raises(LensphysError, match="is not empty, and no simulation of ours"):
        make(out)


def test_part_of_another_size_is_made_again(tmp_path, monkeypatch):
    out = tmp_path / "out.h5"
    interrupt(monkeypatch, out)
    part = tmp_path / "out.h5.parts" / "000000.h5"
    part.write_bytes(part.read_bytes()[:1000])
    assert make(out) == make(tmp_path / "whole.h5")


def test_a_run_killed_after_its_file_was_whole_leaves_nothing(tmp_path):
    out = tmp_path / "out.h5"
    make(out)
    (tmp_path / "out.h5.parts").mkdir()
    make(out)
    assert not (tmp_path / "out.h5.parts").exists()


def test_damaged_part_is_made_again(tmp_path, monkeypatch):
    out = tmp_path / "out.h5"
    interrupt(monkeypatch, out)
    part = tmp_path / "out.h5.parts" / "000000.h5"
    data = bytearray(part.read_bytes())
    data[-100] ^= 1
    part.write_bytes(data)
    assert make(out) == make(tmp_path / "whole.h5")


def test_existing_file_is_kept_or_refused(tmp_path, capsys):
    out = tmp_path / "out.h5"
    first = make(out, n=1)
    assert make(out, n=1) == first and "is already complete" in capsys.readouterr().err
    with pytest.raises(LensphysError, match=r"exists and is another simulation .* remove it, or choose another --out"):
        make(out, n=2)
    out.write_bytes(first[: len(first) // 2])
    with pytest.raises(LensphysError, match="exists and is not a whole lens file: remove it, or choose another --out"):
        make(out, n=1)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"n": 0}, "-n must be a whole number of 1 or more, got 0"),
        ({"seed": -1}, "--seed must be a whole number of 0 or more, got -1"),
        ({"workers": 0}, "--workers must be a whole number of 1 or more, got 0"),
        ({"shard_size": 0}, "--shard-size must be a whole number of 1 or more, got 0"),
        ({"classes": ["wdm"]}, "unknown class 'wdm': choose one of axion, cdm, no_sub"),
        ({"classes": []}, "--classes is empty"),
        ({"engine": "caustics"}, "unknown engine 'caustics': choose one of lenstronomy, torch"),
        ({"changes": ["instrument=hubble"]}, "unknown instrument 'hubble': choose one of .*hst_acs_f814w"),
    ],
)
def test_arguments_out_of_range_are_refused(tmp_path, keywords, message):
    with pytest.raises(LensphysError, match=message):
        make(tmp_path / "x.h5", **keywords)
    assert not list(tmp_path.iterdir())


# --- in processes of their own -------------------------------------------------------------------------------------

SCRIPT = """
import resource
from lensphys.simulation import Recipe, simulate
if __name__ == '__main__':
    try:
        for n in {numbers!r}:
            simulate(Recipe.named('model_3', {changes!r}), n, f'{out}/{{n}}.h5', workers={workers})
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    except KeyboardInterrupt:
        raise SystemExit(130)
"""


def script(folder: Path, *numbers: int, workers: int = 1, changes: list[str] | None = None):
    """A run that writes N.h5 for each number into the folder, and prints the peak of its memory [kB] after each."""
    path = folder / "run.py"
    path.write_text(SCRIPT.format(changes=changes or [], numbers=numbers, out=folder, workers=workers))
    return {
        "args": [sys.executable, path], "env": os.environ | {"PYTHONPATH": str(ROOT)}, "text": True,
        "stderr": subprocess.PIPE, "stdout": subprocess.PIPE,
    }  # fmt: skip


def test_full_disk_gives_one_sentence_and_no_half_file(tmp_path):
    out = tmp_path / "3.h5"
    arguments = [f"--set={change}" for change in (*SMALL, "upscale=8")]
    code, said = on_a_full_disk(200_000, command, "simulate", "model_3", "-n", 3, "-o", out, *arguments)
    assert code == 2, said
    assert said.splitlines()[-1].lower() == f"error: cannot write {tmp_path}/3.h5.parts/000000.h5: file too large"
    assert [p.name for p in (tmp_path / "3.h5.parts").iterdir()] == ["manifest.json"]
    assert not out.exists()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_samples(tmp_path):
    # of three classes, in shards of 256; 17 kB each
    run = subprocess.run(**script(tmp_path, 32, 600, changes=[*SMALL, "classes.cdm.number=3"]), timeout=100)
    assert run.returncode == 0, run.stderr
    first, second = (int(kilobytes) / 1024 for kilobytes in run.stdout.split())
    assert (tmp_path / "600.h5").stat().st_size > 15e6
    # two batches in flight are 1 MB; one shard of 256 samples 4 MB
    assert second - first < 10, (first, second)


@pytest.mark.slow
def test_interrupt_stops_the_workers_quietly(tmp_path):
    out = tmp_path / "4000.h5"
    run = subprocess.Popen(**script(tmp_path, 4000, workers=2), start_new_session=True)
    parts, limit = tmp_path / "4000.h5.parts", time.monotonic() + 60
    while not list(parts.glob("*.h5")) and time.monotonic() < limit:
        time.sleep(0.1)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does: every process of the group
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 130 and "Traceback" not in errors
    assert list(parts.glob("*.h5")) and not list(parts.glob(".*.tmp")) and not out.exists()


def test_simulate_is_a_plan_and_its_writing(tmp_path):
    recipe = Recipe.named("model_2", SMALL)
    simulate(recipe, 2, tmp_path / "a.h5", classes=["no_sub"], seed=3, engine="lenstronomy")
    plan = Plan.from_recipe(recipe, 2, classes=["no_sub"], seed=3, engine="lenstronomy")
    assert write(plan, tmp_path / "b.h5").read_bytes() == (tmp_path / "a.h5").read_bytes()


def test_a_file_that_stores_other_data_sets_is_not_what_is_asked_for(tmp_path):
    recipe, out = Recipe.named("model_2", ["height=16", "width=16"]), tmp_path / "a.h5"
    simulate(recipe, 1, out, classes=["no_sub"])
    with pytest.raises(LensphysError, match="a.h5 exists and stores other data sets"):
        simulate(recipe, 1, out, classes=["no_sub"], deflection=True)
