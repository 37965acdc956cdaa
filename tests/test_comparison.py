"""`lensphys compare`: one small comparison from its YAML to its report, and what it refuses."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from lenses import one_thread  # noqa: F401
from typer.testing import CliRunner

from lensphys.basics.checks import LensphysError
from lensphys.basics.runs import read_weights, write_weights
from lensphys.basics.settings import read_yaml
from lensphys.cli import app
from lensphys.evaluation.comparison import Comparison, check_comparison, compare
from lensphys.evaluation.comparison import running as running_module

NETWORK = {"name": "srresnet", "channels": 4, "blocks": 1}
SUPERVISED = {"method": {"name": "supervised", "base": "bicubic", "network": NETWORK}}
GAME = {"name": "adversarial", "base": "bicubic", "network": NETWORK, "discriminator": {"channels": 4, "stages": 2}}
PHASE = {"epochs": 1, "learning_rate": 1e-3}
SMALL: list[str] = []  # the field of view that the shipped weights know
TREE = {
    "title": "A small comparison",
    "protocol": "seconds of training",
    "minutes": 1.0,
    "data": {"recipe": "model_3", "n": 6, "classes": ["no_sub", "cdm"], "set": SMALL},
    "test": {"recipe": "model_3", "n": 2, "seed": 1000, "classes": ["no_sub", "cdm"], "set": [*SMALL, "hr_noise=true"]},
    "limit": 1,
    "niqe_block": 16,
    "training": {"batch_size": 4, "epochs": 1, "learning_rate": 1e-3},
    "methods": [
        {"name": "bicubic", "group": "classical", "ready": "bicubic"},
        {"name": "Net", "group": "supervised", "train": SUPERVISED},
        {"name": "Game", "group": "adversarial", "from": "Net", "train": {"method": GAME}},
        {"name": "ranks", "rank_set": {"of": ["Net", "Game"]}},
        {
            "name": "ranker",
            "train": {
                "data": {"file": "@ranks", "recipe": None},
                "method": {"name": "ranker", "network": {"channels": 4, "stages": 2}},
            },
        },
        {
            "name": "Ranked game",
            "group": "adversarial",
            "from": "Net",
            "train": {"method": GAME | {"rank": {"run": "@ranker"}}},
        },
        {
            "name": "no data",
            "group": "supervised",
            "train": SUPERVISED | {"data": {"file": "nowhere.h5", "recipe": None}},
        },
        {"name": "builds on it", "group": "adversarial", "from": "no data", "train": {"method": GAME}},
        {"name": "ours", "group": "unsupervised", "weights": "model_3", "refine": 0},
    ],
}  # fmt: skip


def comparison(**change: object) -> Comparison:
    return Comparison.parse({**TREE, **change}, "test")


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("comparison")
    return folder, compare(comparison(), folder)


def test_every_method_has_a_row_and_a_failing_one_its_reason(done):
    folder, tree = done
    rows = {row["name"]: row for row in tree["rows"]}
    assert list(rows) == ["bicubic", "Net", "Game", "Ranked game", "no data", "builds on it", "ours"]
    assert [row["name"] for row in tree["helpers"]] == ["ranks", "ranker"]
    assert "nowhere.h5" in rows["no data"]["failed"]
    assert "it needs 'no data', which failed" in rows["builds on it"]["failed"]
    fine = [row for row in rows.values() if not row["failed"]]
    assert len(fine) == 5
    metrics = {"psnr_flux", "ssim_flux", "mse_flux", "psnr_seed", "ssim_seed", "mse_seed", "niqe", "chi2_dof"}
    for row in fine:
        assert metrics | {"flux_bias", "theta_E_image"} <= set(row["results"]["all"]), row["name"]
        assert row["milliseconds"] > 0 and row["peak_mib"] > 0
    assert tree["images"] == {"no_sub": 1, "cdm": 1, "all": 2}
    assert tree["ceiling"]["all"]["psnr_seed"]["n"] == 2 and tree["ceiling"]["all"]["niqe"]["n"] == 2
    assert json.loads((folder / "metrics.json").read_text()) == tree


def test_costs_hold_what_a_method_started_from(done):
    rows = {row["name"]: row for row in done[1]["rows"]}
    own = {name: rows[name]["training"][-1]["seconds"] for name in ("Net", "Game")}
    assert rows["Game"]["training_seconds"] == pytest.approx(own["Net"] + own["Game"])
    assert rows["Ranked game"]["training_seconds"] > rows["Game"]["training_seconds"]
    assert rows["Game"]["parameters"] == rows["Net"]["parameters"]  # a discriminator predicts nothing
    assert rows["bicubic"]["training_seconds"] is None and rows["bicubic"]["parameters"] is None
    assert {name: rows[name]["needs_hr"] for name in ("bicubic", "Net", "Ranked game", "ours")} == {
        "bicubic": False, "Net": True, "Ranked game": True, "ours": False,
    }  # fmt: skip


def test_the_results_come_as_a_table_pictures_and_one_page(done):
    folder, tree = done
    assert {"report.html", "table.md", "metrics.json"} <= {path.name for path in folder.iterdir()}
    assert {"cost.png", "lens_1.png", "lens_2.png", "training.png"} <= {p.name for p in (folder / "figures").iterdir()}
    page = (folder / "report.html").read_text()
    assert all(row["name"] in page for row in tree["rows"])
    assert "nowhere.h5" in (folder / "table.md").read_text()


def test_a_method_that_judges_itself_has_its_verdicts_beside_it(done):
    folder, tree = done
    rows = {row["name"]: row for row in tree["rows"]}
    assert sum(rows["ours"]["verdicts"].values()) == tree["images"]["all"] == 2
    assert rows["ours"]["quality"][0].startswith("quality: ") and rows["bicubic"]["verdicts"] == {}
    table = (folder / "table.md").read_text()
    assert "good / suspect / bad, by its own verdict" in table
    calls = re.search(r"^ours: calls (\d) of its 2 fits bad", table, re.MULTILINE)
    assert int(calls[1] if calls else 0) == rows["ours"]["verdicts"]["bad"]


def test_what_is_done_is_not_done_again(done, monkeypatch):
    folder, tree = done
    monkeypatch.setattr(running_module.Judge, "judged", lambda *_: pytest.fail("judged again"))
    again = compare(comparison(), folder)
    assert [row["results"] for row in again["rows"]] == [row["results"] for row in tree["rows"]]


def test_a_damaged_row_is_judged_again(done):
    folder = done[0]
    path = folder / "rows" / "bicubic.json"
    path.write_text(path.read_text()[:100])
    rows = {row["name"]: row for row in compare(comparison(), folder)["rows"]}
    before = {row["name"]: row for row in done[1]["rows"]}
    assert (
        rows["bicubic"]["failed"] is None and rows["bicubic"]["results"].keys() == before["bicubic"]["results"].keys()
    )


def test_a_folder_that_was_copied_or_moved_is_gone_on_with(done, monkeypatch, tmp_path):
    there = shutil.copytree(done[0], tmp_path / "there")
    monkeypatch.setattr(running_module.Judge, "judged", lambda *_: pytest.fail("judged again"))
    for folder in (there, tmp_path / "moved"):
        rows = {row["name"]: row for row in compare(comparison(), folder)["rows"]}
        for before in done[1]["rows"]:
            assert rows[before["name"]]["results"] == before["results"], rows[before["name"]]["failed"]
            assert rows[before["name"]]["training_seconds"] == before["training_seconds"]
        if folder == there:
            shutil.move(there, tmp_path / "moved")


def test_a_copy_whose_trainings_started_from_other_weights_is_refused(done, tmp_path):
    there = shutil.copytree(done[0], tmp_path / "there")
    path = there / "runs" / "net" / "best.safetensors"
    write_weights(path, {name: x + 1 for name, x in read_weights(path.parent).items()})
    with pytest.raises(LensphysError, match="there/runs/game holds a run with other settings"):
        compare(comparison(), there)


def test_the_number_of_threads_is_set_for_all_and_put_back(done, monkeypatch):
    seen = []
    monkeypatch.setattr(running_module._Run, "go", lambda self: seen.append(torch.get_num_threads()) or {})
    compare(comparison(threads=2), done[0])
    assert seen == [2] and torch.get_num_threads() == 1


def test_rows_are_named_once_and_build_on_earlier_ones():
    bicubic = {"name": "bicubic", "group": "classical", "ready": "bicubic"}
    for methods, message in (
        ([bicubic, {**bicubic, "name": "Bicubic!"}], "'Bicubic!' would share its folder with another"),
        ([{"name": "a", "group": "x", "from": "b", "train": SUPERVISED}], "'a' needs 'b', which is no earlier method"),
        ([{"name": "a", "group": "x"}], "'a' must have exactly one of ready, weights, run, train, rank_set"),
        ([{**bicubic, "from": "b"}], "only what is trained starts from something"),
        ([{"name": "a", "group": "x", "train": {"method": {"name": "ranker", "run": "@z"}}}], "needs 'z'"),
        ([bicubic, {"name": "a", "rank_set": {"of": ["bicubic", "bicubic"]}}], "'of' names a method twice"),
    ):
        with pytest.raises(LensphysError, match=message):
            comparison(methods=methods)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"method": {"name": "supervised", "network": {"name": "unet"}}}, "method 'a': .*unknown network 'unet'"),
        (SUPERVISED | {"training": {"rate": 1}}, "method 'a': unknown key 'training.rate'"),
        (
            SUPERVISED | {"training": {"minutes": None, "phases": [PHASE | {"train": ["x"]}]}},
            "method 'a': training.phases: 'x' names no parameter",
        ),
        (
            SUPERVISED | {"training": {"minutes": None, "epochs": 2, "phases": [PHASE | {"train": []}]}},
            "method 'a': .*training.phases.0.train",
        ),
        (SUPERVISED | {"training": {"minutes": None, "epochs": 1_000_000}}, "method 'a': .* it never ends"),
    ],
)  # fmt: skip
def test_a_dry_run_finds_faulty_experiments(train, message):
    with pytest.raises(LensphysError, match=message):
        check_comparison(comparison(methods=[{"name": "a", "group": "x", "train": train}]))


NET = {"name": "net", "group": "x", "train": SUPERVISED}
RANKS = {"name": "ranks", "rank_set": {"of": ["net", "bicubic"]}}
BICUBIC = {"name": "bicubic", "group": "x", "ready": "bicubic"}
CLASSIFIER = {"name": "judge", "train": {"method": {"name": "classifier", "network": {"channels": 4, "blocks": 1}}}}


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ([CLASSIFIER | {"group": "x"}], "method 'judge': it super-resolves nothing"),
        ([NET | {"refine": 1}], "method 'net': 'refine' starts from an amortised network's answer"),
        ([BICUBIC, CLASSIFIER, {"name": "r", "rank_set": {"of": ["bicubic", "judge"]}}], "'judge' makes none"),
        ([BICUBIC, NET, RANKS, {"name": "r", "rank_set": {"of": ["net", "ranks"]}}], "'ranks' makes none"),
        (
            [NET, NET | {"name": "b", "from": "net", "train": {"method": GAME | {"network": {"name": "fsrcnn"}}}}],
            "method 'b': it cannot start from 'net', whose weights have no place in it",
        ),
        (
            [NET, NET | {"name": "b", "from": "net", "train": {"method": GAME | {"base": None}}}],
            "cannot start from 'net': its network corrects a bicubic image, this one makes the whole image",
        ),
        (
            [NET, NET | {"name": "b", "train": {"method": GAME | {"perceptual": {"run": "@net"}}}}],
            "method.perceptual.run must be a trained classifier or autoencoder, and 'net' is none",
        ),
        (
            [BICUBIC, NET, RANKS, NET | {"name": "b", "train": {"method": GAME | {"rank": {"run": "@ranks"}}}}],
            "method.rank.run must be a trained ranker, and 'ranks' is none",
        ),
    ],
)
def test_a_dry_run_finds_what_cannot_build_on_another(methods, message):
    with pytest.raises(LensphysError, match=re.escape(message)):
        check_comparison(comparison(methods=methods))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": TREE["data"] | {"classes": ["nosub"]}}, "nosub"),
        ({"test": {"file": "nowhere.h5"}}, "nowhere.h5"),
        ({"niqe_block": 17}, "niqe_block"),
    ],
)
def test_a_dry_run_looks_at_the_data(change, message):
    with pytest.raises(LensphysError, match=message):
        check_comparison(comparison(methods=[BICUBIC], **change))


COMMITTED = sorted((Path(__file__).parents[1] / "experiments" / "comparisons").glob("*.yaml"))


@pytest.mark.parametrize(
    "config",
    [pytest.param(path, marks=[] if path.stem == "networks" else pytest.mark.slow, id=path.stem) for path in COMMITTED],
)
def test_a_committed_comparison_can_be_run(config, tmp_path):
    done = CliRunner().invoke(app, ["compare", str(config), "-o", str(tmp_path / "out"), "--dry-run"])
    assert done.exit_code == 0, done.output
    assert read_yaml(config)["title"] in done.output
    head = config.read_text().split("title:")[0]
    assert f"lensphys compare experiments/comparisons/{config.name}" in head and "Cost:" in head
    assert not (tmp_path / "out").exists()
