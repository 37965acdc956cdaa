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

from lensphys.checks import LensphysError
from lensphys.data import LensFile
from lensphys.simulation import Recipe, shards, simulate
from lensphys.simulation.sample import draw_sample

SMALL = ["height=12", "width=16"]  # H != W, and fast


def make(out: Path, n: int = 15, changes: list[str] | None = None, **keywords) -> bytes:
    return simulate(Recipe.named("model_2", SMALL + (changes or [])), n, out, **keywords).read_bytes()


def test_noisy_hr_is_stored_beside_the_clean_one(tmp_path):
    make(tmp_path / "a.h5", n=1, changes=["hr_noise=true"])
    with h5py.File(tmp_path / "a.h5") as file:
        assert not np.array_equal(file["hr"][:], file["hr_clean"][:])


def test_same_bytes_with_any_number_of_workers(tmp_path):
    one = make(tmp_path / "one.h5", n=25, workers=1)
    two = make(tmp_path / "two.h5", n=25, workers=2)
    assert one == two
    assert one != make(tmp_path / "three.h5", n=25, seed=1)


def test_samples_do_not_depend_on_their_number_or_the_other_classes(tmp_path):
    make(tmp_path / "a.h5", n=3)
    make(tmp_path / "b.h5", n=2, classes=["cdm"])
    with LensFile(tmp_path / "a.h5") as a, LensFile(tmp_path / "b.h5") as b:
        assert b.classes == ["cdm"] and torch.equal(a.lr([2, 5]), b.lr())


def interrupt(monkeypatch, out: Path, error: type[BaseException] = KeyboardInterrupt) -> None:
    calls = []

    def failing(*args):
        calls.append(1)
        if len(calls) > shards.SHARD + 5:
            raise error
        return draw_sample(*args)

    with monkeypatch.context() as patch, pytest.raises(error):
        patch.setattr(shards, "draw_sample", failing)
        make(out)


def test_interrupted_run_resumes_to_the_same_bytes(tmp_path, monkeypatch):
    whole = make(tmp_path / "whole.h5")
    out = tmp_path / "out.h5"
    interrupt(monkeypatch, out)
    parts = tmp_path / "out.h5.parts"
    assert sorted(p.name for p in parts.iterdir()) == ["000000.npz", "manifest.json"] and not out.exists()
    written = []
    monkeypatch.setattr(shards, "_row", lambda *a, row=shards._row: written.append(1) or row(*a))
    assert make(out) == whole
    assert len(written) == 45 - shards.SHARD and not parts.exists()


def test_foreign_parts_are_refused(tmp_path, monkeypatch):
    out = tmp_path / "out.h5"
    interrupt(monkeypatch, out)
    for keywords in ({"seed": 1}, {"n": 16}, {"classes": ["cdm"]}, {"changes": ["upscale=3"]}):
        with pytest.raises(
            LensphysError, match=r"holds parts of another simulation.*remove it, or choose another --out"
        ):
            make(out, **keywords)
    (tmp_path / "out.h5.parts" / "manifest.json").unlink()
    with pytest.raises(LensphysError, match="holds parts of another simulation"):
        make(out)


def test_damaged_part_is_named(tmp_path, monkeypatch):
    out = tmp_path / "out.h5"
    interrupt(monkeypatch, out)
    part = tmp_path / "out.h5.parts" / "000000.npz"
    part.write_bytes(part.read_bytes()[:1000])
    with pytest.raises(LensphysError, match=r"000000.npz is damaged: delete it and run the same command again"):
        make(out)
    assert not out.exists()


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
        ({"n": 0}, "-n must be 1 or more, got 0"),
        ({"seed": -1}, "--seed must be 0 or more, got -1"),
        ({"workers": 0}, "--workers must be 1 or more, got 0"),
        ({"classes": ["wdm"]}, "unknown class 'wdm': choose one of axion, cdm, no_sub"),
        ({"classes": []}, "--classes is empty"),
    ],
)
def test_arguments_out_of_range_are_refused(tmp_path, keywords, message):
    with pytest.raises(LensphysError, match=message):
        make(tmp_path / "x.h5", **keywords)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_interrupt_stops_the_workers_quietly(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(
        "from lensphys.simulation import Recipe, simulate\n"
        "if __name__ == '__main__':\n"
        "    try:\n"
        f"        simulate(Recipe.named('model_3'), 2000, {str(tmp_path / 'a.h5')!r}, workers=2)\n"
        "    except KeyboardInterrupt:\n"
        "        raise SystemExit(130)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    run = subprocess.Popen(
        [sys.executable, script], env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    parts, limit = tmp_path / "a.h5.parts", time.monotonic() + 60
    while not list(parts.glob("*.npz")) and time.monotonic() < limit:
        time.sleep(0.1)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does: every process of the group
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 130 and "Traceback" not in errors
    assert list(parts.glob("*.npz")) and not list(parts.glob("*.tmp")) and not (tmp_path / "a.h5").exists()
