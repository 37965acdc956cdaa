"""Results of many images: kept as they are finished, side by side, and the same however they are made."""

from __future__ import annotations

import io
import re
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from lenses import small_lenses
from results import PIXEL, SMOOTH, Known, noisy
from rich.console import Console
from typer.testing import CliRunner

from lensphys.api.chosen import fit_model
from lensphys.basics.checks import LensphysError
from lensphys.basics.terminal import counted_inside, step
from lensphys.cli import app
from lensphys.data.images import Reading, read_images
from lensphys.data.kept import Kept, Stack
from lensphys.data.npy import write_npz
from lensphys.methods import READY, RefinedFit
from lensphys.methods.super_resolve import super_resolve


class Counted:
    """Bicubic interpolation that counts the images it was asked for, and fails at one of them."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.seen, self.fails_at = 0, fails_at

    def predict(self, observation, scale):
        self.seen += len(observation)
        if self.fails_at is not None and self.seen > self.fails_at:
            raise KeyboardInterrupt
        return READY["bicubic"].predict(observation, scale)


@pytest.fixture(scope="module")
def observation():
    return small_lenses(7).observation


def test_an_interrupted_run_goes_on_where_it_was(observation, tmp_path):
    whole = super_resolve(READY["bicubic"], observation, 2)
    first = Counted(fails_at=5)
    with pytest.raises(KeyboardInterrupt):
        super_resolve(first, observation, 2, batch_size=2, kept=Kept(tmp_path / "parts", {"a": 1}, 4))
    second, kept = Counted(), Kept(tmp_path / "parts", {"a": 1}, 4)
    assert kept.missing == [2, 3]
    found = super_resolve(second, observation, 2, batch_size=2, kept=kept)
    assert second.seen == 3
    image = found["image"]
    assert isinstance(image, Stack) and image.shape == (7, 64, 72)
    np.testing.assert_array_equal(np.concatenate(list(image.chunks())), whole["image"])
    np.testing.assert_array_equal(found["chi2"], whole["chi2"])


def test_a_damaged_chunk_is_said_to_be_so(tmp_path):
    kept = Kept(tmp_path / "parts", {"a": 1}, 1)
    kept.keep(0, {"x": np.arange(300.0)})
    path = tmp_path / "parts" / "000000.npz"
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for damaged in (b"", whole[:500], bytes(flipped)):
        path.write_bytes(damaged)
        with pytest.raises(LensphysError, match=r"000000\.npz is damaged \(.+\): remove it, and the same"):
            kept.chunk(0)
        with pytest.raises(LensphysError, match="is damaged"):
            list(kept.chunks_of("x"))


def test_chunks_of_another_computation_do_not_count(observation, tmp_path):
    kept = Kept(tmp_path / "parts", {"a": 1}, 1)
    kept.keep(0, {"x": np.ones(3)})
    assert Kept(tmp_path / "parts", {"a": 1}, 1).missing == []
    assert Kept(tmp_path / "parts", {"a": 2}, 1).missing == [0]


def test_stacks_are_written_as_arrays_are(tmp_path):
    parts = [np.arange(6, dtype="f4").reshape(2, 3), np.arange(3, dtype="f4").reshape(1, 3)]
    stack = Stack((3, 3), np.dtype("f4"), lambda: iter(parts))
    write_npz(tmp_path / "a.npz", {"a": stack, "b": np.array(["good", "bad"]), "c": 2.5})
    with np.load(tmp_path / "a.npz", allow_pickle=False) as made:
        np.testing.assert_array_equal(made["a"], np.concatenate(parts))
        assert made["b"].tolist() == ["good", "bad"] and float(made["c"]) == 2.5


class Freer:
    """Knows a lens, and of every second call the slope of its mass too, which stands first in the table."""

    def __init__(self) -> None:
        self.calls = 0

    def predict(self, observation, scale):
        found, self.calls = Known().predict(observation, scale), self.calls + 1
        if self.calls % 2:
            return found
        slope = {"lens.gamma": torch.full_like(found.parameters["theta_E"], 2.1)}
        numbers = found.numbers | {"best_gain": slope["lens.gamma"]}
        return replace(found, parameters=slope | found.parameters, errors=slope | found.errors, numbers=numbers)


@pytest.mark.parametrize("way", ["memory", "kept"])
def test_models_of_different_parts_may_differ(tmp_path, way):
    np.save(tmp_path / "stack.npy", noisy(3))
    seen = read_images(tmp_path / "stack.npy", Reading(pixel_scale=PIXEL)).observation
    kept = Kept(tmp_path / "parts", {"a": 1}, 3) if way == "kept" else None
    found = super_resolve(Freer(), seen, 2, batch_size=1, kept=kept)
    table = dict(zip(found["parameter_names"].tolist(), found["parameters"].T, strict=True))
    np.testing.assert_allclose(table["lens.gamma"], [np.nan, 2.1, np.nan], rtol=1e-6)
    np.testing.assert_allclose(table["lens.theta_E"], 3 * [SMOOTH["theta_E"]], rtol=1e-6)
    np.testing.assert_allclose(table["lens.e2"], 3 * [SMOOTH["e2"]], rtol=1e-6)
    assert len(found["parameter_units"]) == len(table) and found["errors"].shape == found["parameters"].shape
    np.testing.assert_allclose(found["best_gain"], [np.nan, 2.1, np.nan], rtol=1e-6)


def test_workers_change_no_digit(observation):
    alone = super_resolve(READY["fit"], observation[torch.arange(2)], 2, batch_size=1)
    beside = super_resolve(READY["fit"], observation[torch.arange(2)], 2, batch_size=1, workers=2)
    assert sorted(alone) == sorted(beside)
    for name in ("image", "theta_E", "chi2"):
        np.testing.assert_allclose(beside[name], alone[name], rtol=1e-6)


@pytest.mark.parametrize("suffix", ["npz", "h5"])
def test_a_long_stack_by_the_command_line(tmp_path, suffix):
    rng = np.random.default_rng(0)
    images = rng.normal(1, 0.3, (19, 12, 16)).astype("f4")
    if suffix == "npz":
        np.save(tmp_path / "a.npy", images)
        path, options = tmp_path / "a.npy", ["--pixel-scale", "0.1"]
    else:
        from lensphys.simulation.recipe import Recipe
        from lensphys.simulation.writer import simulate

        path, options = simulate(Recipe.named("model_3", []), 6, tmp_path / "a.h5", seed=1), []
    out = tmp_path / f"b.{suffix}"
    asked = ["super-resolve", str(path), "-o", str(out), "--method", "bicubic", *options]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert not list(Path(tmp_path).glob(".b*"))  # nothing is left beside it
    made = np.load(out) if suffix == "npz" else h5py.File(out)
    count = 19 if suffix == "npz" else 18
    assert made["image"].shape[0] == count
    assert made["index"][:].tolist() == list(range(count))
    some = CliRunner().invoke(app, [*asked, "--rows", "3:5,17", "--overwrite"])
    assert some.exit_code == 0, some.output
    few = np.load(out) if suffix == "npz" else h5py.File(out)
    assert few["index"][:].tolist() == [3, 4, 17]


def test_images_that_are_fitted_by_themselves_are_kept_one_by_one(tmp_path, monkeypatch):
    """A stack of five is a single batch: of 16 images and less nothing was kept, and none was counted."""
    np.save(tmp_path / "a.npy", noisy(5))
    (tmp_path / "model.yaml").write_text("{source: {kind: sersic}, subhalos: null, potential: null}")
    ask = ["super-resolve", str(tmp_path / "a.npy"), "--pixel-scale", str(PIXEL), "--device", "cpu"]
    ask += ["--model", str(tmp_path / "model.yaml"), "-o"]
    one = RefinedFit.predict
    calls: list[int] = []

    def stopping(self, observation, scale):
        calls.append(len(observation))
        if len(calls) == stop:
            raise KeyboardInterrupt
        return one(self, observation, scale)

    monkeypatch.setattr(RefinedFit, "predict", stopping)
    stop = 1
    done = CliRunner().invoke(app, [*ask, str(tmp_path / "b.npz")])
    assert done.exit_code == 130, done.output
    assert done.output.splitlines()[-1] == "interrupted: nothing was written"
    stop = 5
    done = CliRunner().invoke(app, [*ask, str(tmp_path / "b.npz")])
    assert done.exit_code == 130, done.output
    assert done.output.splitlines()[-1] == "interrupted: finished parts are kept, the same command resumes"
    assert len(list((tmp_path / ".b.npz.parts").glob("*.npz"))) == 3
    stop = 0
    assert CliRunner().invoke(app, [*ask, str(tmp_path / "b.npz")]).exit_code == 0
    assert calls == [1, 1, 1, 1, 1, 1, 1] and not (tmp_path / ".b.npz.parts").exists()
    # the same to the last digit as all at once
    seen = read_images(tmp_path / "a.npy", Reading(pixel_scale=PIXEL)).observation
    method = RefinedFit(model=fit_model({"source": {"kind": "sersic"}, "subhalos": None, "potential": None}))
    whole = super_resolve(method, seen, 2, batch_size=16)
    with np.load(tmp_path / "b.npz") as made:
        assert set(whole) <= set(made.files)
        for name, values in whole.items():
            np.testing.assert_array_equal(made[name], values, err_msg=name)


def test_images_are_counted_within_a_batch():
    counts = []

    class Told(Console):
        def print(self, *lines, **how):
            counts.extend(lines)

    def items():
        for _ in range(2):
            for _ in range(3):
                time.sleep(0.1)
                step()
            yield 3

    told = Told(file=io.StringIO(), force_terminal=False)
    assert list(counted_inside(items(), "fitting", int, 8, before=2, console=told, every=0.05)) == [3, 3]
    numbers = [int(re.search(r"fitting: (\d+) of 8", str(line))[1]) for line in counts]
    assert {3, 4, 5} <= set(numbers) and numbers == sorted(numbers) and max(numbers) <= 8
    step()  # nobody counts
