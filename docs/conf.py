"""The documentation's settings for Sphinx: ``python -m sphinx -W docs docs/_build``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # pages are many and short
sys.path.insert(0, str(Path(__file__).parents[1]))  # the package of this checkout

import lensphys

project = "lensphys"
author = "the lensphys authors"
release = version = lensphys.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
default_role = "code"  # `name` in a docstring
nitpicky = False

myst_enable_extensions = ["deflist", "dollarmath"]
myst_heading_anchors = 4
myst_links_external_new_tab = True
nb_execution_mode = "off"  # notebooks are executed by the tests

autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"lensphys {release}"
html_copy_source = False
