"""What is missing is told in one sentence, and what every use needs is enough for every use."""

import configparser
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from results import fits_result, npz_result
from typer.testing import CliRunner

from lensphys.basics.checks import MissingExtraError
from lensphys.basics.extras import PACKAGES, need
from lensphys.basics.provenance import versions
from lensphys.cli import app
from lensphys.training.figures import loss_figure

ROOT = Path(__file__).parents[1]


def extras() -> dict[str, str]:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return dict(config["options.extras_require"])


def blocked(monkeypatch, *packages: str) -> None:
    for name in [n for n in sys.modules if n.split(".")[0] in packages or n == "lensphys.model.kernels"]:
        monkeypatch.delitem(sys.modules, name)
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)


def said(*arguments) -> str:
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert done.exit_code == 2
    return " ".join((done.output + (done.stderr or "")).split())


def test_every_package_stands_in_the_extra_that_is_named():
    told = extras()
    for extra, packages in PACKAGES.items():
        for package in packages:
            name = {"sklearn": "scikit-learn"}.get(package, package)  # of the package, where Python has another
            assert re.search(rf"^{name}\b", told[extra], re.MULTILINE)
    core = configparser.ConfigParser()
    core.read(ROOT / "setup.cfg")
    names = set(re.findall(r"^(\w[\w-]*)", core["options"]["install_requires"], re.MULTILINE))
    assert not names & {package for packages in PACKAGES.values() for package in packages}
    assert {"torch", "numpy", "astropy", "scipy", "h5py", "pydantic"} <= names


@pytest.mark.parametrize("extra", PACKAGES)
def test_a_missing_package_names_its_extra(monkeypatch, extra):
    for package in PACKAGES[extra]:
        if find_spec(package) is not None:
            need(package, "this test")
        blocked(monkeypatch, package)
        sentence = rf"this test needs {package}, which is not installed: pip install 'lensphys\[{extra}\]'"
        with pytest.raises(MissingExtraError, match=sentence):
            need(package, "this test", extra)


def test_commands_say_what_they_lack_before_they_begin(monkeypatch, tmp_path):
    blocked(monkeypatch, "numba", "matplotlib", "tensorboard")
    for arguments, package, extra in [
        (("simulate", "model_3", "-n", 1, "-o", tmp_path / "a.h5"), "numba", "simulate"),
        (("evaluate", "--method", "fit", "--data", tmp_path / "a.h5", "-o", tmp_path / "b"), "matplotlib", "plot"),
        (("train", ROOT / "experiments/amortised/model_3.yaml", "-o", tmp_path / "run"), "tensorboard", "train"),
        (("demo", "-o", tmp_path / "demo"), "numba", "all"),
        (
            ("compare", ROOT / "experiments/comparisons/networks.yaml", "-o", tmp_path / "c", "--dry-run"),
            "matplotlib",
            "plot",
        ),
    ]:
        sentence = said(*arguments)
        assert "error: lensphys" in sentence
        assert f"needs {package}, which is not installed: pip install 'lensphys[{extra}]'" in sentence
    assert list(tmp_path.iterdir()) == []


def test_the_other_engine_and_figures_say_what_they_lack(monkeypatch, tmp_path):
    from lensphys.simulation.lights import _unit_flux

    blocked(monkeypatch, "lenstronomy", "matplotlib")
    with pytest.raises(MissingExtraError, match=r"the light profile NIE needs lenstronomy, .*lensphys\[simulate\]"):
        _unit_flux("NIE", {})
    with pytest.raises(MissingExtraError, match=r"a figure needs matplotlib, .*lensphys\[plot\]"):
        loss_figure([{"epoch": 1}])
    arguments = ("simulate", "model_3", "-n", 1, "-o", tmp_path / "a.h5", "--engine", "lenstronomy")
    assert "the engine lenstronomy needs lenstronomy, which is not installed" in said(*arguments)


def test_a_result_tells_the_versions_that_there_are(monkeypatch):
    import importlib.metadata

    import lensphys.basics.provenance as provenance

    def version(package: str) -> str:
        if package == "lenstronomy":
            raise importlib.metadata.PackageNotFoundError(package)
        return "1.0"

    monkeypatch.setattr(provenance, "version", version)
    assert versions()["torch"] == "1.0" and "lenstronomy" not in versions()


def test_a_fit_needs_no_extra(tmp_path):
    """All modules load, and a fit and a stack run, without any package of an extra."""
    fits_result(tmp_path)
    npz_result(tmp_path, 1)
    packages = sorted({package for packages in PACKAGES.values() for package in packages})
    code = f"""
import importlib, pkgutil, sys
for name in {packages}:
    sys.modules[name] = None
import lensphys
from lensphys.basics.checks import MissingExtraError
lacking = []
for module in pkgutil.walk_packages(lensphys.__path__, "lensphys."):
    if module.name == "lensphys.__main__":
        continue
    try:
        importlib.import_module(module.name)
    except (MissingExtraError, ModuleNotFoundError) as error:
        lacking.append(module.name)
print(*lacking)
from lensphys.cli import app
app(["list"], standalone_mode=False)
app(["super-resolve", "lens.fits", "-o", "new.fits", "--method", "fit"], standalone_mode=False)
stack = ["super-resolve", "stack.npy", "-o", "new.npz", "--method", "bicubic", "--pixel-scale", "0.1"]
app(stack, standalone_mode=False)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    lacking = set(done.stdout.splitlines()[0].split())
    names = ("catalogue", "colours", "drawing", "library", "page", "panels", "regions", "show")
    drawn = {f"lensphys.viewer.{name}" for name in names}
    readers = {name for name in lacking if name.startswith("lensphys.downstream")}
    assert lacking == drawn | readers | {"lensphys.model.kernels", "lensphys.api.plot"}
    assert (tmp_path / "new.fits").is_file() and (tmp_path / "new.npz").is_file()
