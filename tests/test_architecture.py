"""The floor plan, walked: who imports whom, what an import costs, and rules that a reader relies on."""

from __future__ import annotations

import ast
import configparser
import re
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
    "lensphys.basics": 1,  # what every room stands on
    "lensphys.fits": 2,  # the format alone: instruments read their kernels with it, below the files of images
    "lensphys.tracing": 2,  # pixels, coordinates, deflection fields, rays
    "lensphys.model": 3,
    "lensphys.observation": 4,
    "lensphys.data": 5,  # a file of images knows the instrument that took them
    "lensphys.prediction": 6,  # what a fit gives its verdict on, a loss judges and a method returns
    "lensphys.networks": 7,
    "lensphys.fitting": 7,
    "lensphys.losses": 8,
    "lensphys.methods": 9,
    "lensphys.simulation": 10,  # knows nothing of networks or training: only observation and data
    "lensphys.interop": 11,  # samples of a data set, for other tools
    "lensphys.training": 11,
    "lensphys.weights": 12,  # run folders that come with the package
    "lensphys.evaluation": 13,  # its comparisons train and load what they compare
    "lensphys.viewer": 14,  # reads what others wrote; takes what is beyond a smooth lens from evaluation
    "lensphys.catalogue": 14,  # of many results
    "lensphys.downstream": 14,  # readers of what methods make
    "lensphys.api": 15,  # what `import lensphys as lp` offers, and the command line calls
    "lensphys.api.device": 2,
    "lensphys.cli": 16,
    "lensphys.__main__": 17,  # starts the command line
}

SOURCES = {
    ".".join(("lensphys", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.Module]:
    """Each module as the parser sees it."""
    return {name: ast.parse(path.read_text()) for name, path in SOURCES.items()}


def place(module: str) -> str:
    """The longest entry of the floor plan that a module falls under."""
    return max((name for name in FLOORS if name != "lensphys" and f"{module}.".startswith(f"{name}.")),
               key=len, default="lensphys")  # fmt: skip


def package(module: str) -> str:
    """The sub-package that a module belongs to, or the module itself at the top level."""
    return ".".join(module.split(".")[:2])


def imported(module: str, tree: ast.Module) -> set[str]:
    """All of lensphys that a module imports, anywhere in the file."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.add(name if name in SOURCES else str(node.module))
    return {name for name in found if name.split(".")[0] == "lensphys"}


@pytest.fixture(scope="module")
def imports(trees) -> dict[str, set[str]]:
    """All of lensphys that each module imports."""
    return {module: imported(module, tree) for module, tree in trees.items()}


def test_every_module_has_a_floor_and_every_floor_a_module():
    assert {place(module) for module in SOURCES} == set(FLOORS)
    assert [module for module in SOURCES if place(module) == "lensphys"] == ["lensphys"]


def test_a_module_imports_from_lower_floors_only(imports):
    # the face is left out: it names what others have, and loads it when it is asked for
    pairs = [(m, other) for m in SOURCES if m != "lensphys" for other in imports[m] if package(other) != package(m)]
    assert len(pairs) > len(SOURCES)
    assert [f"{m} imports {other}" for m, other in pairs if FLOORS[place(other)] >= FLOORS[place(m)]] == []


def test_no_package_imports_itself_in_a_circle(imports):
    inside = {m: {i for i in imports[m] if package(i) == package(m) and i != m} for m in SOURCES}
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
import lensphys.methods.super_resolve
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


def test_grid_sample_is_called_in_one_place(trees):
    callers = {
        module
        for module, tree in trees.items()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and node.attr == "grid_sample")
        or (isinstance(node, ast.Name) and node.id == "grid_sample")
        or (isinstance(node, ast.ImportFrom) and "grid_sample" in [alias.name for alias in node.names])
    }
    assert callers == {"lensphys.tracing.grid"}


def test_input_is_never_checked_with_assert(trees):
    nodes = [(module, node) for module, tree in trees.items() for node in ast.walk(tree)]
    assert [f"{module}, line {node.lineno}" for module, node in nodes if isinstance(node, ast.Assert)] == []


def test_every_file_says_what_it_is(trees):
    assert [module for module, tree in trees.items() if not ast.get_docstring(tree)] == []


def test_functions_are_short(trees):
    functions = [n for t in trees.values() for n in ast.walk(t) if isinstance(n, ast.FunctionDef)]
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


def test_progress_is_shown_in_one_way():
    bars = [name for name, path in SOURCES.items() if re.search(r"\btrack\(|\bProgress\(|tqdm", path.read_text())]
    assert [name for name in bars if name != "lensphys.basics.terminal"] == []
