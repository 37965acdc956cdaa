"""What the committed comparisons must show: sanity that no table can be without."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lensphys.networks import NETWORKS

RESULTS = Path(__file__).parents[1] / "experiments" / "comparisons"
EVERY = ("variants_model_1", "variants_model_2", "variants_model_3", "networks", "gans", "transfer", "srgan_no_sub")


def rows(name: str) -> dict[str, dict]:
    return {row["name"]: row for row in json.loads((RESULTS / name / "metrics.json").read_text())["rows"]}


def mean(row: dict, metric: str, label: str = "all") -> float:
    return row["results"][label][metric]["mean"]


@pytest.mark.parametrize("name", EVERY)
def test_no_row_is_missing_and_the_protocol_is_said(name):
    from lensphys.evaluation.comparison import Comparison

    comparison = Comparison.read(RESULTS / f"{name}.yaml", [])
    tree = json.loads((RESULTS / name / "metrics.json").read_text())
    assert [r["name"] for r in tree["rows"]] == [e.name for e in comparison.methods if e.group is not None]
    asked = {e.name: e.model_dump(exclude_none=True, by_alias=True) for e in comparison.methods}
    for row in tree["rows"]:
        assert row["failed"] or mean(row, "psnr_flux") > 0
        assert row["settings"] == json.loads(json.dumps(asked[row["name"]])), row["name"]
    assert tree["protocol"] == comparison.protocol and "Reduced protocol" in tree["protocol"]


def test_each_supervised_network_beats_bicubic_by_eight_decibels():
    found = rows("networks")
    supervised = {name: row for name, row in found.items() if row["group"] in ("supervised", "diffusion")}
    assert len(supervised) >= 12
    for name, row in supervised.items():
        for label in ("no_sub", "axion", "cdm", "all"):
            assert mean(row, "psnr_flux", label) > mean(found["bicubic"], "psnr_flux", label) + 8, (name, label)


def test_the_unsupervised_method_stands_in_every_table_of_simulated_lenses_and_beats_every_network():
    for name in ("networks", "gans", "srgan_no_sub", "variants_model_1", "variants_model_2", "variants_model_3"):
        found = rows(name)
        ours = [row for label, row in found.items() if label.startswith(("ours", "amortised")) and not row["failed"]]
        others = [row for row in found.values() if row["group"] in ("supervised", "adversarial", "diffusion")]
        assert ours and not any(row["needs_hr"] for row in ours)
        for row in others:
            assert max(mean(x, "psnr_flux") for x in ours) > mean(row, "psnr_flux"), (name, row["name"])


def test_ranksrgan_looks_more_natural_than_srgan_on_unseen_images():
    found = rows("gans")
    assert mean(found["RankSRGAN"], "niqe") < mean(found["SRGAN"], "niqe")


@pytest.mark.parametrize("network", ["RCAN", "SRResNet"])
def test_fine_tuning_beats_none_and_training_from_scratch_on_300_pairs(network):
    """From scratch for as many epochs of these pairs."""
    found = rows("transfer")
    tuned = mean(found[f"{network}, fine-tuned"], "psnr_flux")
    assert tuned > mean(found[f"{network}, no fine-tuning"], "psnr_flux")
    assert tuned > mean(found[f"{network}, from scratch"], "psnr_flux")


IMAGES = sorted(set(NETWORKS) - {"pyramid"})  # which ends in an interpolation, for smooth deflections


@pytest.mark.parametrize("network", IMAGES)
def test_each_network_overfits_eight_pairs(network):
    assert json.loads((RESULTS / "overfit.json").read_text())["networks"][network]["psnr_flux"] > 50
