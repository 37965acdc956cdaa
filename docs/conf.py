"""The documentation's settings for Sphinx: ``python -m sphinx -W docs docs/_build``."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

os.environ.setdefault("OMP_NUM_THREADS", "1")  # pages are many and short
sys.path.insert(0, str(Path(__file__).parents[1]))  # the package of this checkout

import lensphys
from lensphys.model import Parameter

project = "lensphys"
author = "the lensphys developers"
project_copyright = f"2026, {author}"
release = version = lensphys.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
suppress_warnings = ["ref.python"]  # a type whose name stands in two rooms; links between pages are checked by myst
smartquotes = False  # 0.1" are arcsec
default_role = "code"  # `name` in a docstring

myst_enable_extensions = ["deflist", "dollarmath"]
myst_heading_anchors = 4
myst_links_external_new_tab = True
nb_execution_mode = "off"  # notebooks are executed by the tests

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"lensphys {release}"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_copy_source = False
html_show_sourcelink = False


def with_units(app: Sphinx, what: str, name: str, of: Any, options: Any, lines: list[str]) -> None:
    """Say the unit of each parameter that a component declares, below its docstring."""
    found = getattr(of, "parameters", None)
    declared = [p for p in found if isinstance(p, Parameter)] if what == "class" and isinstance(found, tuple) else []
    if declared:
        units = ", ".join(f"``{p.name}`` [{p.unit}]" if p.unit else f"``{p.name}``" for p in declared)
        lines += ["", f"Declared with bounds and priors: {units}.", ""]


def escaped(app: Sphinx, what: str, name: str, of: Any, options: Any, lines: list[str]) -> None:
    """Let |alpha| be an absolute value and not a substitution, in all docstrings."""
    for number, line in enumerate(lines):
        parts = re.split(r"(`[^`]*`)", line)  # literals stay as they are
        lines[number] = "".join(part if k % 2 else part.replace("|", r"\|") for k, part in enumerate(parts))


def setup(app: Sphinx) -> None:
    """Connect the above."""
    app.connect("autodoc-process-docstring", with_units)
    app.connect("autodoc-process-docstring", escaped)
