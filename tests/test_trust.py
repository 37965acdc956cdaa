"""What is only read runs no code, and takes no more time and memory than its size lets one expect."""

import shutil
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from lensphys.basics.checks import LensphysError
from lensphys.basics.settings import override, read_yaml
from lensphys.basics.trust import check_trusted, trusting
from lensphys.cli import app
from lensphys.simulation import Recipe
from lensphys.simulation.writer import simulate
from lensphys.training.experiment import Experiment, load_run, train

NAME = "someones_code:Settings"
CODE = '''
from pathlib import Path
from typing import Literal
Path("it_ran").touch()
from lensphys.networks.fsrcnn import FSRCNNSettings
class Settings(FSRCNNSettings):
    """A network of somebody's."""
    name: Literal["someones_code:Settings"] = "someones_code:Settings"
'''
METHOD = {"name": "supervised", "network": {"name": "fsrcnn", "channels": 4, "shrunk": 2, "layers": 1}}


def run(*arguments: object):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with a small file of lenses, and a run on it."""
    folder = tmp_path_factory.mktemp("trained")
    simulate(Recipe.named("model_3", ["height=16", "width=16"]), 3, folder / "lenses.h5")
    settings = {"data": {"file": str(folder / "lenses.h5")}, "method": METHOD}
    settings["training"] = {"epochs": 1, "batch_size": 4, "accelerator": "cpu"}
    train(Experiment.parse(settings, "test"), folder / "run")
    return folder


@pytest.fixture
def shared(trained, tmp_path, monkeypatch) -> Path:
    """A folder of somebody else: a run whose config names a class, and a file beside it that holds the class."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    tree = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    tree["method"]["network"]["name"] = NAME
    (tmp_path / "run/config.yaml").write_text(yaml.safe_dump(tree))
    (tmp_path / "someones_code.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "someones_code", raising=False)
    yield tmp_path
    sys.modules.pop("someones_code", None)


@pytest.mark.parametrize(
    "command",
    [
        ["super-resolve", "lenses.h5", "--run", "run", "-o", "sr.h5"],
        ["evaluate", "run", "--data", "lenses.h5", "-o", "results"],
        ["train", "run/config.yaml", "-o", "new", "--dry-run"],
        ["train", "run/config.yaml", "-o", "run", "--resume"],
        ["rank-set", "run", "run2", "--data", "lenses.h5", "-o", "ranks.h5"],
        ["compare", "comparison.yaml", "-o", "compared", "--dry-run"],
    ],
)
def test_code_of_others_runs_only_where_its_name_is_given(shared, command):
    shutil.copytree(shared / "run", shared / "run2")
    entry = {"name": "A", "group": "a", "train": {"method": METHOD | {"network": {"name": NAME}}}}
    data = {"file": "lenses.h5"}
    comparison = {"title": "t", "protocol": "p", "minutes": 1, "data": data, "test": data, "methods": [entry]}
    (shared / "comparison.yaml").write_text(yaml.safe_dump(comparison))
    for trust in ([], ["--trust", "someones_code:Other"], ["--trust", "someones_code"]):
        done = run(*command, *trust)
        assert done.exit_code == 2, done.output
        said = done.stderr.replace("\n", " ")
        assert f"'{NAME}' is code that would be imported from {shared}/someones_code.py and run" in said
        assert f"give --trust {NAME}" in said
    assert not (shared / "it_ran").exists() and "someones_code" not in sys.modules
    done = run(*command, "--trust", NAME)
    assert (shared / "it_ran").exists(), done.output


def test_trust_is_a_keyword_in_python(shared):
    with pytest.raises(LensphysError, match="is code that would be imported"):
        load_run(shared / "run")
    assert load_run(shared / "run", trust=[NAME]).scale == 2
    assert Experiment.read(shared / "run/config.yaml", [], trust=[NAME]).method.network.name == NAME
    with trusting([NAME]):
        load_run(shared / "run")
    with pytest.raises(LensphysError, match="is code that would be imported"):
        load_run(shared / "run")


def test_our_own_names_are_trusted_and_running_the_command_line_is_not():
    check_trusted("lensphys.networks.edsr:EDSRSettings")
    for name in ("lensphys.__main__:x", "lensphysics:x", "os:system"):
        with pytest.raises(LensphysError, match="is code that would be imported"):
            check_trusted(name)


def test_a_run_without_its_provenance_is_judged(trained, tmp_path):
    shutil.copytree(trained / "run", tmp_path / "run")
    judge = ["evaluate", tmp_path / "run", "--data", trained / "lenses.h5", "-o", tmp_path / "out"]
    (tmp_path / "run/provenance.json").write_text("[" * 100_000)
    done = run(*judge)
    assert done.exit_code == 2 and "provenance.json is damaged: remove it, or copy it again" in done.stderr
    (tmp_path / "run/provenance.json").unlink()
    assert run(*judge).exit_code == 0


def test_an_instrument_of_a_run_reads_no_other_file(trained, tmp_path):
    shutil.copytree(trained / "run", tmp_path / "run")
    path = tmp_path / "run/instrument.yaml"
    tree = yaml.safe_load(path.read_text()) | {"psf": {"kind": "kernel", "file": "/elsewhere/psf.fits"}}
    path.write_text(yaml.safe_dump(tree))
    done = run("super-resolve", trained / "lenses.h5", "--run", tmp_path / "run", "-o", tmp_path / "sr.h5")
    assert done.exit_code == 2 and "instrument.yaml: " in done.stderr and "not found" not in done.stderr


# --- sizes -----------------------------------------------------------------------------------------------------------


def bomb(levels: int, merge: bool) -> str:
    """Aliases of aliases: 9^levels values in a few hundred bytes."""
    first, ten = ("{x: 1}", "{<<: [%s]}") if merge else ("[1]", "[%s]")
    rows = [f"a0: &a0 {first}"]
    rows += [f"a{k}: &a{k} {ten % ', '.join([f'*a{k - 1}'] * 9)}" for k in range(1, levels + 1)]
    return "\n".join(rows)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (bomb(9, merge=False), "its aliases stand for more than 100000 values"),
        (bomb(9, merge=True), "its aliases stand for more than 100000 values"),
        ("a: &a [*a]", "its aliases stand for more than 100000 values"),
        ("a: " + "[" * 10_000, "its groups lie too deep in each other"),
        ("a: 2026-13-45", "is not valid YAML"),
        ("a: " + "9" * 5000, "is not valid YAML"),
        ("a: !!python/object/apply:os.system [touch it_ran]", "is not valid YAML"),
        ("a: " + "x" * 1_000_001, "a.yaml has 1 MB: no file of settings is as long"),
    ],
)
@pytest.mark.timeout(20)
def test_a_settings_file_takes_no_more_than_its_size(tmp_path, text, message):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(LensphysError) as error:
        read_yaml(tmp_path / "a.yaml")
    assert message in str(error.value) and len(str(error.value)) < 600
    done = run("train", tmp_path / "a.yaml", "-o", tmp_path / "run")
    assert done.exit_code == 2 and message in done.stderr.replace("\n", " ")


def test_honest_aliases_are_read(tmp_path):
    (tmp_path / "a.yaml").write_text("a: &a {x: 1}\nb: *a\nc: {<<: *a, y: 2}\n")
    assert read_yaml(tmp_path / "a.yaml") == {"a": {"x": 1}, "b": {"x": 1}, "c": {"x": 1, "y": 2}}
    for bad in ("a=" + "[" * 10_000, "a=2026-13-45"):
        with pytest.raises(LensphysError, match="the value is not valid YAML"):
            override({}, [bad])


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"name": "fsrcnn", "channels": 10**12}, "less than or equal to 4096"),
        ({"name": "srresnet", "blocks": 10**9}, "less than or equal to 256"),
        (
            {"name": "srresnet", "channels": 4096, "blocks": 64},
            "would have more than 1e+09 parameters",
        ),
    ],
)
@pytest.mark.timeout(60)
def test_a_network_of_any_size_is_not_built(trained, tmp_path, network, message):
    tree = yaml.safe_load((trained / "run/config.yaml").read_text())
    tree["method"]["network"] = network
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(tree))
    done = run("train", tmp_path / "a.yaml", "-o", tmp_path / "run", "--dry-run")
    assert done.exit_code == 2 and message in done.stderr.replace("\n", " ")
    shutil.copytree(trained / "run", tmp_path / "run")
    shutil.copy(tmp_path / "a.yaml", tmp_path / "run" / "config.yaml")
    done = run("super-resolve", trained / "lenses.h5", "--run", tmp_path / "run", "-o", tmp_path / "sr.h5")
    assert done.exit_code == 2 and message in done.stderr.replace("\n", " ")


def test_a_message_prints_no_whole_input(trained, tmp_path):
    tree = yaml.safe_load((trained / "run/config.yaml").read_text())
    faults = [{"seed": "x" * 50_000}, {"k" * 50_000: 1}, {f"key_{k}": 1 for k in range(5000)}, {"data": ["y" * 50_000]}]
    for fault in faults:
        (tmp_path / "a.yaml").write_text(yaml.safe_dump(tree | fault))
        done = run("train", tmp_path / "a.yaml", "-o", tmp_path / "run")
        assert done.exit_code == 2 and len(done.stderr) < 1000
