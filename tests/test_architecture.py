"""The floor plan, walked: who imports whom, what an import costs, and rules that a reader relies on."""

from __future__ import annotations

import ast
import configparser
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lensphys"

# A module imports from strictly lower floors, or from its own package. The longest name that fits a module is its
# floor: a file may stand lower than its package.
FLOORS: dict[str, int] = {
    "lensphys": 0,  # the version
    "lensphys.checks": 0,
    "lensphys.contrast": 0,
    "lensphys.orientation": 0,
    "lensphys.interrupts": 0,
    "lensphys.terminal": 0,
    "lensphys.runners": 2,  # who computes the parts of long work
    "lensphys.settings": 1,  # words its errors with checks
    "lensphys.provenance": 1,
    "lensphys.lock": 1,
    "lensphys.trust": 1,
    "lensphys.extras": 1,  # words what is missing with checks
    "lensphys.critical": 1,  # arrays alone
    "lensphys.tracking": 2,
    "lensphys.distributions": 2,  # what recipes draw from and fits take for priors
    "lensphys.outputs": 2,  # whole files, at a place that no other run has
    "lensphys.fits": 3,  # the format alone: instruments read their kernels with it, below the files of images
    "lensphys.runs": 3,  # what can be read of a run folder without knowing its method
    "lensphys.grid": 3,
    "lensphys.derivatives": 3,
    "lensphys.deflection": 4,
    "lensphys.model": 5,
    "lensphys.declared": 6,  # settings of any declared component, for recipes and fits
    "lensphys.tracing": 7,
    "lensphys.observation": 8,
    "lensphys.data": 9,  # a file of images knows the instrument that took them
    "lensphys.validity": 9,  # of what observations a network has seen
    "lensphys.prediction": 10,  # what a fit gives its verdict on, a loss judges and a method returns
    "lensphys.networks": 11,
    "lensphys.fitting": 11,
    "lensphys.losses": 12,
    "lensphys.methods": 13,
    "lensphys.simulation": 14,  # knows nothing of networks or training: only observation and data
    "lensphys.batches": 15,  # of a file, or of a recipe
    "lensphys.training": 16,
    "lensphys.evaluation": 17,
    "lensphys.config": 18,
    "lensphys.inference": 18,
    "lensphys.viewer": 18,  # reads what others wrote; takes what is beyond a smooth lens from evaluation
    "lensphys.catalogue": 19,  # of many results of `inference`
    "lensphys.ranking": 18,  # judges what methods make
    "lensphys.weights": 19,  # run folders that come with the package
    "lensphys.comparison": 20,  # many trainings and evaluations
    "lensphys.downstream": 20,  # readers of what methods make
    "lensphys.demo": 21,  # the experiment of `lensphys demo`: config, simulation and evaluation in a row
    "lensphys.api": 21,  # what `import lensphys as lp` offers, and the command line calls
    "lensphys.api.device": 1,
    "lensphys.cli": 22,
    "lensphys.__main__": 23,  # starts the command line
}

SOURCES = {
    ".".join(("lensphys", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text()) for name, path in SOURCES.items()}
every_module = pytest.mark.parametrize("module", SOURCES)


def place(module: str) -> str:
    """The longest entry of the floor plan that a module falls under."""
    return max((name for name in FLOORS if name != "lensphys" and f"{module}.".startswith(f"{name}.")),
               key=len, default="lensphys")  # fmt: skip


def package(module: str) -> str:
    """The sub-package that a module belongs to, or the module itself at the top level."""
    return ".".join(module.split(".")[:2])


def imports(module: str) -> set[str]:
    """All of lensphys that a module imports, anywhere in the file."""
    found = set()
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.add(name if name in SOURCES else str(node.module))
    return {name for name in found if name.split(".")[0] == "lensphys"}


def test_every_module_has_a_floor_and_every_floor_a_module():
    assert {place(module) for module in SOURCES} == set(FLOORS)
    assert [module for module in SOURCES if place(module) == "lensphys"] == ["lensphys"]


@every_module
def test_a_module_imports_from_lower_floors_only(module):
    if module == "lensphys":  # the face: it names what others have, and loads it when it is asked for
        return
    for other in imports(module):
        if package(other) != package(module):
            assert FLOORS[place(other)] < FLOORS[place(module)], f"{module} imports {other}"


def test_no_package_imports_itself_in_a_circle():
    inside = {m: {i for i in imports(m) if package(i) == package(m) and i != m} for m in SOURCES}
    while inside:
        free = {m for m, needed in inside.items() if not needed & set(inside)}
        assert free, f"circular imports among {sorted(inside)}"
        inside = {m: needed for m, needed in inside.items() if m not in free}


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=400)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_lensphys_costs_nothing():
    heavy = ["torch", "numpy", "lenstronomy", "matplotlib", "astropy", "scipy", "h5py", "pydantic"]
    assert python(f"import lensphys, sys; print([m for m in {heavy} if m in sys.modules])").strip() == "[]"


@pytest.mark.slow
def test_every_module_can_be_the_first_one_imported_and_simulators_stay_out():
    # a circle between packages shows only when it is entered at the wrong place
    names = sorted(set(SOURCES) - {"lensphys.__main__"})
    found = python(f"""
import importlib, sys
import lensphys.methods, lensphys.inference
print([m for m in ("lenstronomy", "astropy", "matplotlib", "skimage") if m in sys.modules])
for name in {names}:
    for loaded in [m for m in sys.modules if m.split(".")[0] == "lensphys"]:
        del sys.modules[loaded]
    try:
        importlib.import_module(name)
    except ImportError:
        print(name)
""").split("\n")
    assert found[0] == "[]"
    assert found[1:-1] == []


def test_grid_sample_is_called_in_one_place():
    callers = {
        module
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and node.attr == "grid_sample")
        or (isinstance(node, ast.Name) and node.id == "grid_sample")
        or (isinstance(node, ast.ImportFrom) and "grid_sample" in [alias.name for alias in node.names])
    }
    assert callers == {"lensphys.grid"}


@every_module
def test_input_is_never_checked_with_assert(module):
    assert not [node.lineno for node in ast.walk(TREES[module]) if isinstance(node, ast.Assert)]


@every_module
def test_every_file_says_what_it_is(module):
    assert ast.get_docstring(TREES[module])


def test_functions_are_short():
    functions = [n for t in TREES.values() for n in ast.walk(t) if isinstance(n, ast.FunctionDef)]
    bodies = [n.body[1:] if ast.get_docstring(n) else n.body for n in functions]
    lines = sorted(body[-1].end_lineno - body[0].lineno + 1 for body in bodies if body)
    assert lines[len(lines) // 2] <= 5


def test_every_folder_is_packaged():
    found = subprocess.run(
        [sys.executable, "-c", "import setup; print(*setup.FOUND)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    listed = found.stdout.split()
    assert len(listed) == len(set(listed))
    holds = {path.parent for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    folders = {".".join(("lensphys", *folder.relative_to(PACKAGE).parts)) for folder in holds}
    assert folders <= set(listed) and not any("__pycache__" in name for name in listed)


def test_every_data_file_is_packaged():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    patterns = config["options.package_data"]["*"].split()
    for path in PACKAGE.rglob("*"):
        if path.is_file() and path.suffix != ".py" and "__pycache__" not in path.parts:
            assert any(path.match(pattern) for pattern in patterns), path
