"""The notebooks: each runs from its first cell to its last, and is kept without outputs."""

from __future__ import annotations

import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOKS = sorted((EXAMPLES / "notebooks").glob("*.ipynb"))
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])

_LONGEST = 600  # seconds a cell, on a busy machine


def test_there_are_notebooks():
    assert [path.stem[:2] for path in NOTEBOOKS] == ["1_", "2_", "3_", "4_", "5_"]


@every_notebook
def test_a_notebook_is_kept_without_outputs(path):
    book = nbformat.read(path, as_version=4)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert code and not any(cell.outputs or cell.execution_count for cell in code)
    assert book.cells[0].cell_type == "markdown" and book.cells[0].source.startswith("# ")


@pytest.mark.slow
@every_notebook
def test_a_notebook_runs(path, tmp_path):
    shutil.copy(EXAMPLES / "hst_like_lens.fits", tmp_path)
    (tmp_path / "notebooks").mkdir()
    book = nbformat.read(path, as_version=4)
    NotebookClient(book, timeout=_LONGEST, resources={"metadata": {"path": str(tmp_path / "notebooks")}}).execute()
    pictures = [o for c in book.cells if c.cell_type == "code" for o in c.outputs if "image/png" in o.get("data", {})]
    assert pictures
