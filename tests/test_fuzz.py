"""Some dozens of damaged files through the commands: `experiments/robustness` has more, and counts them."""

import importlib.util
import os
import signal
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "experiments" / "robustness" / "fuzz.py"
CASES = 4
CHECKSUMS = ("hdf5", "virtual", "weights")


def _script():
    spec = importlib.util.spec_from_file_location("fuzz", SCRIPT)
    sys.modules["fuzz"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fuzz = _script()


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    fuzz.good_files(folder)
    return folder


@pytest.mark.parametrize("kind", fuzz.KINDS, ids=lambda kind: kind.name)
def test_damaged_files_end_in_one_sentence(good, kind):
    tally, bad = fuzz.fuzz(kind, good, range(CASES), seed=1, seconds=120, run=fuzz.here)
    assert not tally["traceback"] + tally["hang"], bad
    assert not (kind.name.startswith(CHECKSUMS) and tally["silent"]), bad


def test_the_same_seed_damages_alike():
    data = bytes(range(256)) * 4
    a, b, c = (fuzz.damage(data, fuzz.np.random.default_rng([0, n])) for n in (1, 1, 2))
    assert a == b != c and a != data


def test_a_process_that_dies_or_hangs_is_counted():
    assert fuzz.apart(lambda: ("same", ""), 5) == ("same", "")
    assert fuzz.apart(lambda: os.kill(os.getpid(), signal.SIGKILL), 5) == ("crash", "exit code -9")
    assert fuzz.apart(lambda: time.sleep(60), 0.1) == ("hang", "")
