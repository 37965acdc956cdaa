"""Checks, settings and provenance: every message, YAML numbers, files that are whole or not there."""

from __future__ import annotations

import importlib
import json
import pkgutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

import lensphys
from lensphys.basics import checks, outputs, provenance, settings
from lensphys.basics.checks import LensphysError

# ---------------------------------------------------------------- checks


def test_an_error_is_a_value_error():
    assert issubclass(LensphysError, ValueError)


@pytest.mark.parametrize(
    ("check", "arguments", "message"),
    [
        (checks.check_finite, ("y", torch.tensor([1.0, float("nan"), float("inf")])), "y holds 2 NaN or infinite .* 3"),
        (checks.check_images, ("y", torch.zeros(3, 4)), r"y must have the shape \(B, 1, H, W\), got \(3, 4\)"),
        (checks.check_images, ("y", torch.zeros(2, 1, 3, 4), 2), r"\(B, 2, H, W\), got \(2, 1, 3, 4\)"),
        (checks.check_same_shape, ("a", (2, 3), "b", (3, 2)), r"a and b must .* same shape, got \(2, 3\) and \(3, 2\)"),
        (checks.check_positive, ("scale", 0.0), "scale must be positive and finite, got 0.0"),
        (checks.check_positive, ("scale", -1.0), "got -1.0"),
        (checks.check_positive, ("scale", float("inf")), "got inf"),
        (checks.check_positive, ("scale", float("nan")), "got nan"),
        (checks.check_choice, ("mode", "c", ["b", "a"]), "unknown mode 'c': choose one of a, b"),
        (checks.check_file, ("weights", Path("nowhere.bin")), "weights not found: nowhere.bin is not a file"),
    ],
)
def test_each_check_says_what_came(check, arguments, message):
    with pytest.raises(LensphysError, match=message):
        check(*arguments)


def test_checks_let_good_input_pass(tmp_path):
    file = tmp_path / "here.txt"
    file.touch()
    checks.check_finite("y", torch.zeros(2, 3))
    checks.check_images("y", torch.zeros(2, 1, 3, 4))
    checks.check_same_shape("a", torch.Size([2, 3]), "b", (2, 3))
    checks.check_positive("scale", 1e-300)
    checks.check_choice("mode", "a", ["a"])
    checks.check_file("weights", file)


# ---------------------------------------------------------------- settings


def below(kind: type) -> set[type]:
    """All classes that are made from one."""
    return {other for one in kind.__subclasses__() for other in (one, *below(one))}


def test_what_every_setting_is_by_default_can_be_said_in_a_file():
    for module in pkgutil.walk_packages(lensphys.__path__, "lensphys."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    told = 0
    for kind in below(settings.Strict):
        try:
            known = kind()
        except (TypeError, ValueError, AttributeError):  # abstract, or something must be said
            continue
        assert kind.parse(json.loads(known.model_dump_json()), kind.__name__) == known
        told += 1
    assert told > 80


class Inner(settings.Strict):
    rate: float = 1.0


class Outer(settings.Strict):
    steps: int
    inner: Inner = Inner()


def test_settings_are_typed_and_frozen():
    outer = Outer.parse({"steps": 3, "inner": {"rate": 0.5}}, "a.yaml")
    assert outer.steps == 3
    assert outer.inner == Inner(rate=0.5)
    with pytest.raises(ValidationError, match="frozen"):
        outer.steps = 4


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"steps": 3, "step": 4}, "^a.yaml: unknown key 'step', did you mean 'steps'[?]$"),
        ({"steps": 3, "iner": {}}, "^a.yaml: unknown key 'iner', did you mean 'inner'[?]$"),
        ({"Steps": 3}, "^a.yaml: missing key 'steps'; unknown key 'Steps', did you mean 'steps'[?]$"),
        ({"steps": 3, "inner": {"rat": 1.0}}, "^a.yaml: unknown key 'inner.rat', did you mean 'rate'[?]$"),
        ({"steps": 3, "inner": {"lr": 1.0}}, "^a.yaml: unknown key 'inner.lr'$"),
        ({}, "^a.yaml: missing key 'steps'$"),
        ({"steps": "3"}, "^a.yaml: 'steps': .*integer, got '3'$"),
        ({"step": 4}, "^a.yaml: missing key 'steps'; unknown key 'step', did you mean 'steps'[?]$"),
        ([1], r"^a.yaml: '\(top\)': .*got \[1\]$"),
    ],
)
def test_faulty_settings_are_one_sentence(tree, message):
    with pytest.raises(LensphysError, match=message) as caught:
        Outer.parse(tree, "a.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("-2E5", -2e5),
        ("+1e2", 1e2),
        ("1.5e3", 1.5e3),
        ("1.e+2", 100.0),
        ("0.25", 0.25),
        ("3", 3),
        ("e3", "e3"),
        ("1e", "1e"),
        ("'1e-3'", "1e-3"),
        ("true", True),
        ("null", None),
    ],
)
def test_yaml_numbers(tmp_path, text, value):
    path = tmp_path / "a.yaml"
    path.write_text(f"x: {text}\n")
    found = settings.read_yaml(path)["x"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1, 2", "is not valid YAML"),
        (b"a: {b: 1, c: 2, b: 3}", "is not valid YAML: line 1, column 17: b is given twice"),
        (b"\xff\xfe\x00", "is not valid YAML"),
        (b"- 1\n- 2\n", "must hold a mapping of keys to values, got list"),
        (b"", "got NoneType"),
    ],
)
def test_faulty_yaml_files(tmp_path, content, message):
    path = tmp_path / "a.yaml"
    path.write_bytes(content)
    with pytest.raises(LensphysError, match=message) as caught:
        settings.read_yaml(path)
    assert "\n" not in str(caught.value)


def test_a_missing_yaml_file(tmp_path):
    with pytest.raises(LensphysError, match=r"settings file not found: .*a\.yaml"):
        settings.read_yaml(tmp_path / "a.yaml")


def test_override_sets_nested_values_and_leaves_the_original():
    tree = {"a": {"b": 1, "c": 2}, "d": [1]}
    found = settings.override(tree, ["a.b=2e-3", "e.f=x", "d=[3, 4]", "g=k=v"])
    assert found == {"a": {"b": 2e-3, "c": 2}, "d": [3, 4], "e": {"f": "x"}, "g": "k=v"}
    assert tree == {"a": {"b": 1, "c": 2}, "d": [1]}


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("a.b", "takes key=value .* got 'a.b'"),
        ("=3", "takes key=value .* got '=3'"),
        ("a.b.c=3", "'b' is a value, not a group of keys"),
        ("a.b=[1", "the value is not valid YAML"),
    ],
)
def test_faulty_overrides(assignment, message):
    with pytest.raises(LensphysError, match=message):
        settings.override({"a": {"b": 1}}, [assignment])


# ---------------------------------------------------------------- provenance


def test_provenance_holds_versions_hardware_and_the_callers_entries():
    found = provenance.provenance(seed=3)
    assert found["seed"] == 3
    assert found["versions"]["lensphys"] == lensphys.__version__
    assert found["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert set(found["versions"]) >= {"python", "numpy", "lenstronomy", "astropy", "h5py"}
    assert f"{torch.get_num_threads()} threads" in found["hardware"]
    assert found["commit"] is None or len(found["commit"].removesuffix("-dirty")) == 40


def test_no_git_no_commit(monkeypatch):
    def missing(*_, **__):
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", missing)
    assert provenance.commit() is None


def test_a_file_is_written_whole(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with outputs.whole_file(path) as temporary:
        temporary.write_text("one")
        assert not path.exists()
    assert path.read_text() == "one"
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_block_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def half_written() -> None:
        with outputs.whole_file(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        half_written()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_unwritable_places_are_named(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with (
        pytest.raises(LensphysError, match=r"cannot write .*file.a\.txt"),
        outputs.whole_file(tmp_path / "file" / "a.txt"),
    ):
        pass
    with pytest.raises(LensphysError, match=r"cannot write .*folder: "), outputs.whole_file(tmp_path / "folder"):
        pass
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_json_takes_arrays_and_has_no_nan(tmp_path):
    path = tmp_path / "a.json"
    tree = {"t": torch.tensor([1.0, float("inf")]), 2: np.float64("nan"), "l": (1, "x", None, True), "n": np.int64(3)}
    outputs.write_json(path, tree)
    assert json.loads(path.read_text()) == {"t": [1.0, None], "2": None, "l": [1, "x", None, True], "n": 3}
