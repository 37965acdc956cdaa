"""The weights that come with the package: each works, they fit into their limit, and what may not ship is refused."""

import json
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from ship import LIMIT, ship

from lensphys.basics.checks import LensphysError
from lensphys.basics.runs import CONFIG
from lensphys.data.lens_file import LensFile
from lensphys.methods import AmortisedMethod, Refinable
from lensphys.simulation.recipe import Recipe
from lensphys.simulation.writer import simulate
from lensphys.training.experiment import Experiment, load_run, run_instrument
from lensphys.weights import FOLDER, weights_description, weights_folder, weights_names

SHIPPED = ["best.safetensors", "config.yaml", "instrument.yaml", "provenance.json", "trained_on.yaml"]
every_name = pytest.mark.parametrize("name", weights_names())


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run of the amortised method, as `lensphys train` leaves it behind."""
    run = tmp_path_factory.mktemp("runs") / "small"
    shutil.copytree(weights_folder("model_3"), run)
    for extra in ("last.ckpt", "log.jsonl", "train.h5"):
        (run / extra).write_text("large")
    return run


def changed(run: Path, folder: Path, **sections) -> Path:
    """A copy of a run with other settings."""
    copy = folder / "changed"
    shutil.copytree(run, copy)
    config = yaml.safe_load((copy / CONFIG).read_text())
    for section, values in sections.items():
        config[section] |= values
    (copy / CONFIG).write_text(yaml.safe_dump(config))
    return copy


def test_the_names():
    assert {"model_1", "model_2", "model_3"} <= set(weights_names())
    with pytest.raises(LensphysError, match=r"unknown weights 'model_9': choose one of euclid_vis, hst_acs, model_1"):
        weights_folder("model_9")


@pytest.mark.parametrize(
    ("name", "kind"),
    [("model_2", "no_sub"), *(pytest.param(n, "cdm", marks=pytest.mark.slow) for n in weights_names())],
)
def test_weights_super_resolve_an_image_of_their_recipe(name, kind, tmp_path):
    folder = weights_folder(name)
    method, data = load_run(folder), Experiment.from_yaml(folder / CONFIG, []).data
    assert isinstance(method, Refinable)
    path = simulate(Recipe.named(data.recipe, data.set), 1, tmp_path / "a.h5", classes=[kind], seed=11)
    with LensFile(path) as lenses:
        seen = lenses.observation(slice(0, 1))
        if name != "varied":  # whose images have an instrument each
            assert run_instrument(folder) == lenses.instrument
    chi2 = []
    for chosen in (method, method.refined(1), method.refined(5)):
        with torch.no_grad():
            made = chosen.predict(seen, 2)
        assert made.image.shape == made.sigma.shape == made.constrained.shape
        assert all(x.isfinite().all() for x in (made.image, made.sigma, made.constrained))
        assert (made.sigma > 0).all() and 0 <= made.constrained.min() <= made.constrained.max() <= 1
        assert made.numbers["subhalos"].shape == (1,)
        chi2.append(float(seen.chi2(made.observed)))
    assert chi2[2] <= chi2[0] * 1.02  # the noise law's numbers are estimated anew as the model changes


@every_name
def test_weights_say_where_they_come_from(name):
    folder = weights_folder(name)
    assert sorted(path.name for path in folder.iterdir()) == SHIPPED
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["command"] == f"lensphys train lensphys/weights/{name}/config.yaml -o runs/{name}"
    assert "file: null" in (folder / CONFIG).read_text()
    assert not any(root in text.read_text() for root in ("/tmp", "/home", "/work") for text in folder.glob("*.[yj]*"))
    assert "LR images, pixels of 0." in weights_description(name) and "peak S/N of" in weights_description(name)


def test_all_weights_are_small():
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < LIMIT == 25_000_000


def test_shipping_a_run(finished, tmp_path):
    made = ship(finished, "mine", tmp_path)
    assert made == tmp_path / "mine" and sorted(path.name for path in made.iterdir()) == SHIPPED
    for name in SHIPPED[:3]:
        assert (made / name).read_bytes() == (finished / name).read_bytes()
    (made / CONFIG).write_text("older")
    ship(finished, "mine", tmp_path)  # replaces
    assert (made / CONFIG).read_bytes() == (finished / CONFIG).read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert isinstance(load_run(made), AmortisedMethod)


def test_what_may_not_ship(finished, tmp_path, monkeypatch):
    into = tmp_path / "weights"
    with pytest.raises(LensphysError, match=r"weights cannot be called 'a b': use letters, digits and _"):
        ship(finished, "a b", into)
    own_file = changed(finished, tmp_path / "1", data={"file": "a.h5", "recipe": None})
    with pytest.raises(LensphysError, match=r"was trained on a file: weights ship if data.recipe says"):
        ship(own_file, "a", into)
    own_recipe = changed(finished, tmp_path / "2", data={"recipe": "mine.yaml"})
    with pytest.raises(LensphysError, match=r"unknown recipe 'mine.yaml': choose one of corrected_1"):
        ship(own_recipe, "a", into)
    unfinished = changed(finished, tmp_path / "3")
    (unfinished / "best.safetensors").unlink()
    with pytest.raises(LensphysError, match=r"holds no trained weights"):
        ship(unfinished, "a", into)
    unknown = changed(finished, tmp_path / "4")
    (unknown / "provenance.json").unlink()
    with pytest.raises(LensphysError, match=r"provenance.json of the run not found"):
        ship(unknown, "a", into)
    assert not into.exists()
    ship(finished, "a", into)
    monkeypatch.setattr("ship.LIMIT", 5_000_000)
    ship(finished, "a", into)  # takes the place of its like
    with pytest.raises(LensphysError, match=r"all weights together would be 5.5 MB, more than 5: shrink"):
        ship(finished, "b", into)
    assert [path.name for path in into.iterdir()] == ["a"]


def test_another_method_may_not_ship(finished, tmp_path):
    from safetensors.torch import save_file

    run = changed(finished, tmp_path)
    config = yaml.safe_load((run / CONFIG).read_text())
    config["method"] = {"name": "supervised", "network": {"name": "srresnet", "channels": 4, "blocks": 1}}
    (run / CONFIG).write_text(yaml.safe_dump(config))
    save_file(Experiment.from_yaml(run / CONFIG, []).build().state_dict(), run / "best.safetensors")
    refused = r"was trained by the method supervised: only amortised and marginalised runs ship"
    with pytest.raises(LensphysError, match=refused):
        ship(run, "a", tmp_path / "weights")


def test_the_wheel_holds_the_weights(tmp_path):
    import subprocess
    import sys

    root = Path(__file__).parents[1]
    for part in ("lensphys", "simulations", "setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        source = root / part
        skipped = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, tmp_path / part, ignore=skipped) if source.is_dir() else shutil.copy(source, tmp_path)
    code = "import setuptools.build_meta as b; print(b.build_wheel('dist'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    if "No module named 'setuptools'" in done.stderr:
        pytest.skip("setuptools is not installed")
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next((tmp_path / "dist").glob("*.whl"))) as wheel:
        held = set(wheel.namelist())
    assert {f"lensphys/weights/{name}/{file}" for name in weights_names() for file in SHIPPED} <= held
    assert not [name for name in held if name.endswith(("readme.py", "ship.py", "generate.py"))]  # the project's own
    assert {"lensphys/simulations/model_3.yaml", "lensphys/simulations/drawn_galaxies.npy"} <= held
    assert {"lensphys/viewer/assets/lens.html", "lensphys/py.typed", "lensphys/cli/demo.yaml"} <= held
