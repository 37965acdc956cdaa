"""The README says what the committed results say, and real lenses are as good as it claims."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lensphys.evaluation.readme import readme_with_tables

ROOT = Path(__file__).parents[1]


def test_the_tables_of_the_readme_come_from_committed_results():
    assert readme_with_tables(ROOT) == (ROOT / "README.md").read_text(), "run python -m lensphys.evaluation.readme"


def test_the_fit_beats_bicubic_by_ten_decibels_on_smooth_lenses():
    for model in ("model_1", "model_2", "model_3"):
        tree = json.loads((ROOT / f"experiments/fit/{model}/metrics.json").read_text())
        assert tree["images"]["no_sub"] >= 100
        fit, bicubic = (tree["results"][role]["no_sub"]["psnr_flux"]["mean"] for role in ("method", "baseline"))
        assert fit > bicubic + 10


@pytest.mark.slow
def test_real_lenses_have_their_published_einstein_radii(shared, tmp_path):
    folder = shared / "real" / "hst_slacs"
    if not folder.is_dir():
        pytest.skip("the real lenses are not beside this checkout")
    script = ROOT / "examples" / "super_resolve_fits.py"
    subprocess.run([sys.executable, str(script), str(tmp_path), str(folder)], check=True, timeout=1500)
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert len(rows) == 7
    assert sum(abs(row["ratio"] - 1) < 0.05 for row in rows) >= 5
    assert all(abs(row["flux_bias_in_mask"]) < 0.01 for row in rows)
