"""Shards in a folder: manifest, checksums, merging, and what is said when something is wrong."""

import json
import os
import pickle
import signal
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from lensphys.basics.checks import LensphysError
from lensphys.basics.runners import Processes
from lensphys.cli import app
from lensphys.data import LensFile
from lensphys.data.merging import COPIED, REFERRED, merge
from lensphys.evaluation.doctor import diagnose
from lensphys.interop.exporting import export
from lensphys.simulation import Recipe
from lensphys.simulation.plan import Plan
from lensphys.simulation.shards import PlanManifest, checksum, shard_path, write_shard
from lensphys.simulation.writer import write

SMALL = ["height=12", "width=16"]


def plan_of(n: int = 8, **keywords) -> Plan:
    """24 samples in shards of 10: two and a rest."""
    return Plan.from_recipe(Recipe.named("model_2", SMALL), n, **{"shard_size": 10} | keywords)


@pytest.fixture
def folder(tmp_path) -> Path:
    return write(plan_of(), tmp_path / "survey")


def manifest_of(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text())


def test_manifest_names_plan_and_shards(folder):
    names = ["000000.h5", "000001.h5", "000002.h5"]
    assert sorted(p.name for p in folder.iterdir()) == [*names, "manifest.json"]
    tree, plan = manifest_of(folder), plan_of()
    assert tree["identity"] == plan.identity and (tree["samples"], tree["shards"], tree["shard_size"]) == (24, 3, 10)
    assert Recipe.parse(json.loads(tree["recipe"]), "manifest") == plan.recipe and "torch" in tree["versions"]
    for i, name in enumerate(names):
        said, data = tree["finished"][str(i)], (folder / name).read_bytes()
        assert said == {"samples": (10, 10, 4)[i], "bytes": len(data), "crc32": f"{zlib.crc32(data):08x}"}


def test_a_folder_is_looked_at_and_exported_as_a_file_is(folder, tmp_path):
    found = {finding.name for finding in diagnose(folder)}
    with LensFile(folder) as file:
        assert "lr" in file.names and file.recipe["height"] == 12 and len(file.files) == 4
    assert found == {finding.name for finding in diagnose(merge(folder, tmp_path / "one.h5"))}
    export(folder, tmp_path / "a.fits", "fits", indices=[3])
    assert (tmp_path / "a.fits").exists()


def test_a_shard_is_a_lens_file_of_its_own(folder):
    with LensFile(folder / "000001.h5") as file:
        assert len(file) == 10 and file.classes == ["no_sub", "axion", "cdm"]
        assert file.labels.tolist() == [1, 2, 0, 1, 2, 0, 1, 2, 0, 1]
        assert file.observation([0]).image.shape == (1, 1, 12, 16)


def test_merged_folder_is_the_file_that_is_written_at_once(folder, tmp_path):
    merged = merge(folder, tmp_path / "merged.h5")
    assert merged.read_bytes() == write(plan_of(), tmp_path / "direct.h5").read_bytes()
    assert len(list(folder.iterdir())) == 4


def test_virtual_file_reads_the_same(folder, tmp_path):
    virtual, copied = merge(folder, tmp_path / "virtual.h5", way=REFERRED), merge(folder, tmp_path / "copied.h5")
    assert virtual.stat().st_size < 0.2 * copied.stat().st_size
    with LensFile(virtual) as a, LensFile(copied) as b, h5py.File(virtual) as raw, h5py.File(copied) as other:
        assert set(raw) == set(other) and raw["hr"] == raw["hr_clean"] and raw["lr"].is_virtual
        for name in other:
            assert np.array_equal(a.read(name), b.read(name), equal_nan=name == "axion_mass")
            assert dict(raw[name].attrs) == dict(other[name].attrs)
        assert a.identity == b.identity and a.lens_model(11) == b.lens_model(11)
        assert np.array_equal(a.read("lr", [23, 3]), b.read("lr", [23, 3]))


def test_a_folder_is_read_as_one_file(folder, tmp_path):
    merged = merge(folder, tmp_path / "merged.h5")
    with LensFile(folder) as a, LensFile(merged) as b, LensFile(folder) as other:
        assert len(a) == len(other) == 24 and a.identity == b.identity and a.classes == b.classes
        for name in ("lr", "hr", "hr_clean", "lr_clean", "alpha_hr", "label", "theta_E", "lens_model"):
            assert np.array_equal(a.read(name, [23, 3, 10]), b.read(name, [23, 3, 10])), name
        again = pickle.loads(pickle.dumps(a))
        assert np.array_equal(again.read("lr"), b.read("lr"))
    assert sorted(p.suffix for p in folder.iterdir()) == [".h5"] * 3 + [".json"]


def test_a_training_reads_a_folder_without_merging(folder, tmp_path):
    from lensphys.training.batches import Batches, BatchSettings

    settings = BatchSettings(batch_size=4)
    with LensFile(folder) as a, LensFile(merge(folder, tmp_path / "merged.h5")) as b:
        mine, theirs = (Batches(lenses, settings, 1, needs_truth=True) for lenses in (a, b))
        assert mine.identity == theirs.identity
        for index in mine.of_epoch(0, 0, 1):
            one, two = mine.read(index, torch.device("cpu")), theirs.read(index, torch.device("cpu"))
            assert torch.equal(one.observation.image, two.observation.image) and torch.equal(one.truth, two.truth)


def test_a_folder_that_lacks_a_shard_or_has_a_cut_one_is_not_read(folder):
    path = shard_path(folder, 1)
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    with pytest.raises(LensphysError, match="000001.h5 is damaged"):
        LensFile(folder)
    path.unlink()
    with pytest.raises(LensphysError, match="000001.h5 is gone"):
        LensFile(folder)


def test_noisy_hr_images_are_merged_too(tmp_path):
    plan = Plan.from_recipe(Recipe.named("model_2", [*SMALL, "hr_noise=true"]), 3, shard_size=4)
    with h5py.File(merge(write(plan, tmp_path / "folder"), tmp_path / "a.h5")) as file:
        assert file["hr"] != file["hr_clean"] and not np.array_equal(file["hr"][8], file["hr_clean"][8])


def test_folder_is_resumed_and_never_made_twice(folder, tmp_path):
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    shard_path(folder, 1).unlink()
    shard_path(folder, 2).write_bytes(before["000002.h5"][:500])
    untouched = shard_path(folder, 0).stat().st_mtime_ns
    write(plan_of(), folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert shard_path(folder, 0).stat().st_mtime_ns == untouched


def test_shard_finished_after_the_manifest_was_written_counts(folder):
    path, tree = folder / "manifest.json", manifest_of(folder)
    del tree["finished"]["2"]
    path.write_text(json.dumps(tree))
    shard, before = shard_path(folder, 2), manifest_of(folder)
    when = shard.stat().st_mtime_ns
    write(plan_of(), folder)
    assert shard.stat().st_mtime_ns == when and "2" not in before["finished"]
    assert manifest_of(folder)["finished"]["2"]["crc32"] == checksum(shard)


@pytest.mark.parametrize(
    ("keywords"),
    [{"seed": 1}, {"n": 9}, {"classes": ["cdm"]}, {"engine": "lenstronomy"}, {"shard_size": 12}, {"deflection": True}],
)
def test_folder_of_another_simulation_is_refused(folder, keywords):
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(LensphysError, match=r"survey holds parts of another simulation .*: remove it, or choose anoth"):
        write(plan_of(**keywords), folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"identity": 3}'])
def test_a_lost_manifest_is_missed_and_a_damaged_one_made_again(folder, tmp_path, text):
    path = folder / "manifest.json"
    before = path.read_text()
    path.unlink() if text is None else path.write_text(text)
    lost = r"survey holds no shards: there is no manifest.json of 'lensphys simulate' in it"
    damaged = "manifest.json is damaged: run the same 'lensphys simulate' again"
    with pytest.raises(LensphysError, match=lost if text is None else damaged):
        merge(folder, tmp_path / "a.h5")
    if text is None:
        with pytest.raises(LensphysError, match="survey is not empty, and no simulation of ours .it has no manifest"):
            write(plan_of(), folder)
        return
    write(plan_of(), folder)
    assert path.read_text() == before


@pytest.mark.parametrize(
    "change",
    [
        {"samples": 1000},
        {"shards": "3"},
        {"shards": 2},
        {"finished": []},
        {"finished": {"0": {}, "1": {}, "2": {}}},
        {"finished": {str(k): {"samples": 11, "bytes": 1, "crc32": ""} for k in range(3)}},
    ],
)
def test_a_manifest_whose_numbers_do_not_agree_is_damaged(folder, tmp_path, change):
    """A thousand samples would be read as the 24 that there are and zeros, or fill a disk."""
    path = folder / "manifest.json"
    whole = path.read_text()
    path.write_text(json.dumps(json.loads(whole) | change))
    for read in (lambda: LensFile(folder).close(), lambda: merge(folder, tmp_path / "a.h5")):
        with pytest.raises(LensphysError, match="manifest.json is damaged: run the same 'lensphys simulate' again"):
            read()
    write(plan_of(), folder)
    assert path.read_text() == whole


def test_shards_that_a_damaged_manifest_does_not_know_say_whose_they_are(folder, tmp_path):
    foreign = write(plan_of(seed=77), tmp_path / "foreign")
    before = (folder / "000001.h5").read_bytes()
    (folder / "000001.h5").write_bytes((foreign / "000001.h5").read_bytes())
    (folder / "000002.h5").write_bytes(b"cut")
    (folder / "manifest.json").write_text("{")
    write(plan_of(), folder)
    assert (folder / "000001.h5").read_bytes() == before
    merge(folder, tmp_path / "a.h5")


def test_shards_of_others_are_kept_when_their_manifest_is_damaged(folder):
    (folder / "manifest.json").write_text("{")
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(LensphysError, match="survey holds parts of another simulation"):
        write(plan_of(seed=77), folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_a_shard_with_a_flipped_bit_is_made_again(folder):
    before = (folder / "000001.h5").read_bytes()
    flip(folder / "000001.h5")
    write(plan_of(), folder)
    assert (folder / "000001.h5").read_bytes() == before


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / ".precious.tmp").write_text("x")
    with pytest.raises(LensphysError, match="mine is not empty, and no simulation of ours"):
        write(plan_of(), tmp_path / "mine")
    with pytest.raises(LensphysError, match=r"a.txt: give the name of a file that ends in .h5, or of a folder"):
        write(plan_of(), tmp_path / "a.txt")
    assert (tmp_path / "mine" / ".precious.tmp").exists()


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "survey").write_text("mine")
    with pytest.raises(LensphysError, match="survey is not empty, and no simulation of ours"):
        write(plan_of(), tmp_path / "survey")
    assert (tmp_path / "survey").read_text() == "mine"


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("virtual", [False, True])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            flip,
            r"000001.h5 is damaged \(its checksum does not match manifest.json\): delete it and run the same 'lensp",
        ),
        (lambda p: p.write_bytes(p.read_bytes()[:-1]), "000001.h5 is damaged"),
        (lambda p: p.write_bytes(shard_path(p.parent, 0).read_bytes()), "000001.h5 is damaged"),
        (Path.unlink, "000001.h5 is gone: run the same 'lensphys simulate' again, finished shards are kept"),
    ],
)
def test_damaged_shards_are_not_merged(folder, tmp_path, damage, message, virtual):
    damage(shard_path(folder, 1))
    with pytest.raises(LensphysError, match=message):
        merge(folder, tmp_path / "a.h5", way=REFERRED if virtual else COPIED)
    assert [p.name for p in tmp_path.iterdir()] == ["survey"]


def test_unfinished_folder_is_not_merged(folder, tmp_path):
    tree = manifest_of(folder)
    del tree["finished"]["0"], tree["finished"]["2"]
    (folder / "manifest.json").write_text(json.dumps(tree))
    with pytest.raises(LensphysError, match="survey lacks 2 of 3 shards: run the same 'lensphys simulate' again"):
        merge(folder, tmp_path / "a.h5")


def test_merging_never_overwrites(folder, tmp_path):
    (tmp_path / "a.h5").write_text("mine")
    with pytest.raises(LensphysError, match="a.h5 exists: remove it, or choose another --out"):
        merge(folder, tmp_path / "a.h5")
    assert (tmp_path / "a.h5").read_text() == "mine"


def test_a_dead_process_loses_its_own_shard_alone(tmp_path):
    folder = tmp_path / "survey"
    manifest = PlanManifest(plan_of(), folder)
    manifest.claim()
    runner = Processes(2)
    with pytest.raises(LensphysError, match=r"a worker died \(out of memory\?\): run the same command aga"):
        list(runner.run(DiesAtTheLast(plan_of(), folder), [0, 1, 2]))
    other = write(plan_of(), tmp_path / "other.h5")
    assert merge(write(plan_of(), folder), tmp_path / "a.h5").read_bytes() == other.read_bytes()
    assert not list(folder.glob(".*.tmp"))  # what the dead had begun


class DiesAtTheLast:
    """A job that the system kills: it must be importable by the processes that are started."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan, self.folder = plan, folder

    def __call__(self, shard: int):
        if shard == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return write_shard(self.plan, self.folder, "cpu", shard)


def test_a_worker_of_another_version_refuses(folder, monkeypatch):
    plan = plan_of()
    monkeypatch.setattr("lensphys.basics.manifest.VERSION", "0.0.1")
    with pytest.raises(LensphysError, match=r"the worker on .* has lensphys 0.0.1, the run .*: install the same"):
        write_shard(plan, folder, "cpu", 0)


def test_a_worker_that_does_not_see_the_folder_refuses(tmp_path):
    with pytest.raises(LensphysError, match="does not see .*elsewhere: it must lie on a disk that all workers share"):
        write_shard(plan_of(), tmp_path / "elsewhere", "cpu", 0)
    assert not list(tmp_path.iterdir())


# --- the command line ----------------------------------------------------------------------------------------------


def run(*arguments: object):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_commands_simulate_into_a_folder_and_merge_it(tmp_path):
    simulate = ["simulate", "model_2", "-n", 4, "--set", SMALL[0], "--set", SMALL[1], "--shard-size", 5]
    for out in ("folder", "direct.h5"):
        done = run(*simulate, "-o", tmp_path / out)
        assert done.exit_code == 0 and f"wrote {tmp_path / out}" in done.stdout.replace("\n", "")
    for name, flags in (("merged.h5", []), ("virtual.h5", ["--virtual"])):
        assert run("merge", tmp_path / "folder", "-o", tmp_path / name, *flags).exit_code == 0
    assert (tmp_path / "merged.h5").read_bytes() == (tmp_path / "direct.h5").read_bytes()
    assert LensFile(tmp_path / "virtual.h5").read("lr").shape == (12, 1, 12, 16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["merge", "nowhere", "-o", "a.h5"], "nowhere holds no shards"),
        (["simulate", "model_2", "-o", "a.h5", "--shard-size", "0"], "--shard-size must be a whole number"),
        (["simulate", "model_2", "-o", "a.h5", "--engine", "galsim"], "unknown engine 'galsim': choose one of lenst"),
        (["simulate", "model_2", "-o", "a.h5", "--workers", "0"], "--workers must be a whole number of 1 or more"),
        (["simulate", "model_2", "-o", "a.h5", "--set", "lens.mas=1"], "unknown key 'lens.mas'"),
        (["simulate", "model_2", "-o", "a.h5", "--set", "instrument=vlt"], "unknown instrument 'vlt': choose one of"),
        (["simulate", "model_2", "-o", "a.h5", "--instruments", "vlt"], "unknown instrument 'vlt': choose one of"),
        (["simulate", "model_2"], "give --out FILE.h5 (or a folder), or one of --dry-run and --preview FILE.png"),
        (["simulate", "model_2", "-o", "/dev/null/a.h5"], "cannot write"),
        (["simulate", "model_2", "--preview", "/dev/null/a.png"], "cannot write"),
    ],
)
def test_mistakes_are_told_in_one_sentence(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run(*arguments)
    assert done.exit_code == 2, done.output
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and message in lines[0]
    assert not list(tmp_path.iterdir())
