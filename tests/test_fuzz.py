"""Some dozens of damaged files through the commands: `experiments/robustness` has more, and counts them."""

import os
import signal
import time
from pathlib import Path

import pytest
from robustness import doors, fuzz

CASES = 4
CHECKSUMS = ("hdf5", "virtual", "weights")


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    doors.good_files(folder)  # those of the commands among them
    return folder


@pytest.mark.parametrize("kind", fuzz.KINDS, ids=lambda kind: kind.name)
def test_damaged_files_end_in_one_sentence(good, kind):
    tally, bad = fuzz.fuzz(kind, good, range(CASES), seed=1, seconds=120, run=fuzz.here)
    assert not tally["traceback"] + tally["hang"], bad
    assert not (kind.name.startswith(CHECKSUMS) and tally["silent"]), bad


@pytest.mark.parametrize("door", doors.DOORS, ids=lambda door: door.name)
def test_readers_refuse_what_is_damaged(good, door):
    found = doors.tried(door, good, range(2 * CASES), seed=1, seconds=60)
    assert set(found["counts"]) <= {"refused", "same", "warned", "silent"}, found["cases"]
    assert not (door.told and found["counts"].get("silent")), found["cases"]


def test_the_same_seed_damages_alike():
    data = bytes(range(256)) * 4
    a, b, c = (fuzz.damage(data, fuzz.np.random.default_rng([0, n])) for n in (1, 1, 2))
    assert a == b != c and a != data


def test_a_process_that_dies_or_hangs_is_counted():
    assert fuzz.apart(lambda: ("same", ""), 5) == ("same", "")
    assert fuzz.apart(lambda: os.kill(os.getpid(), signal.SIGKILL), 5) == ("crash", "exit code -9")
    assert fuzz.apart(lambda: time.sleep(60), 0.1) == ("hang", "")
