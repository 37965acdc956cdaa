"""`lensphys downstream`: sampling, measures, readers, one small experiment, what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import yaml
from lenses import one_thread  # noqa: F401
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from typer.testing import CliRunner

from lensphys.basics.checks import LensphysError
from lensphys.basics.runs import read_weights
from lensphys.cli import app
from lensphys.data.hdf5 import sign
from lensphys.data.lens_file import LensFile
from lensphys.data.subset import write_rows
from lensphys.downstream import Downstream, check_downstream, downstream
from lensphys.downstream import running as running_module
from lensphys.downstream.applying import apply_reader
from lensphys.downstream.inputs import Seen, joined
from lensphys.downstream.judging import judge_reader, summary_line
from lensphys.downstream.measures import (
    auc_if_right,
    expected_calibration_error,
    of_classes,
    of_numbers,
    of_score,
    over_seeds,
)
from lensphys.downstream.network_training import NetworkTraining
from lensphys.downstream.readers import (
    CNNReader,
    EquivariantReader,
    LinearReader,
    ResNet18Reader,
    TrainingSet,
    TreesReader,
)
from lensphys.downstream.sampling import Target, classes_of, drawn, groups_of, held_out, matched_rows, number_of
from lensphys.downstream.settings import PLAIN
from lensphys.downstream.tables import aggregated, tables
from lensphys.losses.physics import min_max
from lensphys.methods import Batch
from lensphys.methods.physics_labelled import PhysicsLabelledMethod, PhysicsLabelledSettings
from lensphys.networks.readers import EquivariantClassifier, ResNet18
from lensphys.simulation.plan import Plan
from lensphys.simulation.recipe import Recipe
from lensphys.simulation.writer import simulate, write
from lensphys.tracing.orientation import transformed

CONFIGS = Path(__file__).parents[1] / "experiments" / "downstream"
SMALL = ["height=24", "width=24"]
QUICK = {"steps": 4, "batch_size": 8, "looks": 1}
TREE = {
    "title": "A small experiment",
    "protocol": "few lenses",
    "data": {"recipe": "model_2", "n": 12, "seed": 1, "set": SMALL},
    "test": {"recipe": "model_2", "n": 6, "seed": 2, "set": SMALL},
    "shifts": {"wide PSF": {"set": ["conditions={psf_fwhm: 0.2}"], "n": 4, "told": False}},
    "products": {"bicubic": {"ready": "bicubic"}},
    "inputs": {
        "LR": {"kind": "lr"},
        "SR": {"kind": "sr", "of": "bicubic"},
        "HR": {"kind": "hr"},
        "both": {"kind": "together", "of": ["LR", "SR"]},
        "leftover": {"kind": "numbers", "of": "bicubic"},
        "nuisances": {"kind": "nuisances"},
    },
    "readers": {
        "CNN": {"kind": "cnn", "channels": 2, "blocks": 1, "levels": 2, "training": QUICK, "inputs": ["both", "HR"]},
        "trees": {"kind": "trees", "iterations": [5]},
    },
    "budgets": [5, 10],
    "seeds": 2,
    "half_field": 1.0,
    "published": [{"name": "theirs", "values": {"no_sub": 0.9}, "note": "another protocol"}],
}  # fmt: skip


def experiment(**change: object) -> Downstream:
    return Downstream.parse({**TREE, **change}, "test")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Five small lenses of each class."""
    path = tmp_path_factory.mktemp("data") / "lenses.h5"
    return simulate(Recipe.named("model_2", SMALL), 5, path, seed=3)


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("downstream")
    return folder, downstream(experiment(), folder)


def changed(data: Path, path: Path, change) -> Path:
    shutil.copy(data, path)
    with h5py.File(path, "r+") as file:
        change(file)
        sign(file)
    return path


# --- which lenses ----------------------------------------------------------------------------------------------------


def test_matched_classes_cannot_be_told_by_what_they_are_matched_in():
    random = np.random.default_rng(0)
    label = np.repeat([0, 1, 2], 300)
    flux = random.normal(size=900) + 1.2 * (label == 2)
    other = {"flux": flux, "snr": flux + 0.3 * random.normal(size=900) + 0.5 * (label == 1)}
    x = np.stack(list(other.values()), axis=1)

    def auc(rows):
        model = HistGradientBoostingClassifier(max_iter=30, max_depth=3)
        p = cross_val_predict(model, x[rows], label[rows], cv=5, method="predict_proba")
        return np.mean([roc_auc_score(label[rows] == k, p[:, k]) for k in range(3)])

    rows = matched_rows(label, other, 0.5)
    assert np.bincount(label[rows]).tolist() == [len(rows) // 3] * 3
    assert len(rows) > 200
    assert auc(np.arange(900)) > 0.75
    assert abs(auc(rows) - 0.5) < 0.07


def test_classes_on_thin_sheets_are_matched_too():
    """As in Models 1-3, where the place of the source makes both flux and radius, and substructure adds a little."""
    random = np.random.default_rng(0)
    label = np.repeat([0, 1], 1500)
    place = random.uniform(-3, 3, size=3000)
    other = {"flux": place, "radius": np.sin(2 * place) + 0.1 * random.normal(size=3000) + 0.15 * label}
    x = np.stack(list(other.values()), axis=1)
    rows = matched_rows(label, other, 0.05)
    assert len(rows) > 600
    model = HistGradientBoostingClassifier(max_iter=60, max_depth=4)
    told = [
        roc_auc_score(label[part], cross_val_predict(model, x[part], label[part], cv=5, method="predict_proba")[:, 1])
        for part in (np.arange(3000), rows)
    ]
    assert told[0] > 0.75
    assert abs(told[1] - 0.5) < 0.06


def test_classes_that_share_nothing_cannot_be_matched():
    label = np.repeat([0, 1], 40)
    with pytest.raises(LensphysError, match="widen the caliper"):
        matched_rows(label, {"flux": 100.0 * label + np.arange(80) / 80}, 0.5)
    with pytest.raises(LensphysError, match="10 lenses of each or more, and one has 3"):
        matched_rows(label[37:], {"flux": np.arange(43.0)}, 0.5)


def test_a_budget_is_of_each_class_and_other_seeds_draw_others():
    target = Target(np.arange(60) % 3, ("a", "b", "c"))
    rows = drawn(target, np.arange(60), 7, 0)
    assert np.bincount(target.values[rows]).tolist() == [7, 7, 7]
    assert set(rows) != set(drawn(target, np.arange(60), 7, 1))
    assert set(rows) == set(drawn(target, np.arange(60), 7, 0))
    with pytest.raises(
        LensphysError, match="a budget of 21 labels needs as many training lenses, and of a there are 20"
    ):
        drawn(target, np.arange(60), 21, 0)


@pytest.mark.parametrize("classes", [("a", "b"), ()])
def test_learning_and_held_out_lenses_share_no_source(classes):
    groups = [f"galaxy {i // 4}" for i in range(80)]
    learn, held = held_out(Target((np.arange(80) % 2), classes), np.arange(80), groups, 0.2, 0)
    assert not {groups[i] for i in learn} & {groups[i] for i in held}
    assert len(held) == pytest.approx(16, abs=8)
    assert len(learn) + len(held) == 80


def test_lenses_of_one_galaxy_and_matched_ones_belong_together(tmp_path):
    galaxy = (
        "{kind: images, file: drawn_galaxies.npy, pixel_scale: 0.02, magnitude: 20.0, center_x: 0.1, center_y: 0.0}"
    )
    with LensFile(
        simulate(Recipe.named("model_2", [*SMALL, f"source={galaxy}"]), 30, tmp_path / "g.h5", classes=["no_sub"])
    ) as file:
        index = [file.lens_model(i)["kwargs_source"][0]["index"] for i in range(30)]
        groups = groups_of(file)
    assert len(set(groups)) == len(set(index)) < 30
    plan = Plan.from_recipe(Recipe.named("model_2", SMALL), 3, draws="matched")
    with LensFile(write(plan, tmp_path / "m.h5")) as file:
        assert len(set(groups_of(file))) == 3


def test_labels_are_brought_into_the_order_of_the_training(data, tmp_path):
    def turned(file):
        file.attrs["classes"] = list(file.attrs["classes"])[::-1]
        file["label"][...] = 2 - file["label"][...]

    with LensFile(data) as file, LensFile(changed(data, tmp_path / "t.h5", turned)) as other:
        first = classes_of(file)
        assert np.array_equal(classes_of(other, first.classes).values, first.values)


def test_faulty_labels_are_refused(data, tmp_path):
    def unlabelled(file):
        del file["label"]

    def alone(file):
        file["label"][...] = 1

    def two(file):
        file["label"][...] = np.minimum(file["label"][...], 1)

    with pytest.raises(LensphysError, match="has no labels"):
        classes_of(LensFile(changed(data, tmp_path / "u.h5", unlabelled)))
    with pytest.raises(LensphysError, match=r"lenses of one class alone \(axion\)"):
        classes_of(LensFile(changed(data, tmp_path / "a.h5", alone)))
    with pytest.raises(LensphysError, match="has the classes no_sub, axion and the training no_sub, axion, cdm"):
        classes_of(LensFile(changed(data, tmp_path / "two.h5", two)), ("no_sub", "axion", "cdm"))


def test_numbers_are_those_of_the_simulation(data):
    with LensFile(data) as file:
        mass = number_of(file, "log_axion_mass")
        assert set(file.labels[mass.known]) == {1}
        assert ((mass.values[mass.known] > -24) & (mass.values[mass.known] < -22)).all()
        share = number_of(file, "subhalo_fraction").values
        model = file.lens_model(1)
        points = [p["theta_E"] ** 2 for p in model["kwargs_lens"][1:]]
        assert share[1] == pytest.approx(sum(points) / model["kwargs_lens"][0]["theta_E"] ** 2)
        assert (share[file.labels == 0] == 0).all()


# --- measures --------------------------------------------------------------------------------------------------------


def test_honest_probabilities_are_calibrated_and_boasting_ones_are_not():
    random = np.random.default_rng(1)
    sure = random.uniform(0.5, 1, 20000)
    right = random.uniform(size=20000) < sure
    assert expected_calibration_error(sure, right) < 0.02
    assert expected_calibration_error(np.full(20000, 0.95), right) == pytest.approx(0.95 - right.mean(), abs=1e-6)


def test_measures_of_a_known_case():
    probability = np.array([[0.8, 0.2], [0.6, 0.4], [0.3, 0.7], [0.7, 0.3]])
    found = of_classes(probability, np.array([0, 0, 1, 1]), ["a", "b"])
    assert found["auc"]["b"] == found["auc"]["all"] == pytest.approx(0.75)
    assert found["accuracy"] == 0.75
    assert found["confusion"] == [[1.0, 0.0], [0.5, 0.5]]
    errors = of_numbers(np.array([1.0, 3.0, 4.0]), np.array([1.0, 1.0, 4.0]))
    assert errors == pytest.approx({"mse": 4 / 3, "mae": 2 / 3, "r2": 1 / 3, "bias": 2 / 3})


def test_a_score_states_its_false_alarms_and_lost_lenses_count_as_smooth():
    is_it = np.array([True] * 10 + [False] * 10)
    score = np.array([*range(10, 20), *range(10)], dtype=float)
    whole = of_score(is_it, score)
    assert (whole["auc"], whole["false_alarms"]) == (1.0, 0.0)
    score[:2] = np.nan
    lost = of_score(is_it, score)
    assert lost["auc"] == pytest.approx(0.8)
    assert lost["low"] < 0.8 < lost["high"]
    assert lost["false_alarms"] == 1.0


def test_intervals_are_students():
    found = over_seeds([0.9, 0.8, 1.0])
    assert found["high"] - found["mean"] == pytest.approx(4.30265 * 0.1 / 3**0.5, rel=1e-4)
    assert over_seeds([0.9, 0.8, 1.0], 0.0, 1.0)["high"] == 1.0


def test_no_interval_goes_beyond_what_the_measure_can_be():
    """Three seeds scatter: the interval of the log loss by Student's t ended below zero."""
    measured = [
        {"log_loss": loss, "accuracy": 0.9 + loss / 10, "auc": {"all": 0.99 - loss / 100}} for loss in (0.2, 0.45, 0.73)
    ]
    rows = [{"reader": "r", "input": "i", "budget": 9, "tests": {PLAIN: m}} for m in measured]
    [row] = aggregated(rows)
    found = row["tests"][PLAIN]
    assert found["log_loss"]["low"] == 0.0 and found["log_loss"]["high"] > 1.0
    assert found["accuracy"]["high"] == 1.0 and found["auc"]["all"]["high"] <= 1.0


# --- readers ---------------------------------------------------------------------------------------------------------


def training_set(kind: str, classes: int = 2) -> TrainingSet:
    """Images whose brightness, or numbers whose first one, tells the class or is the number."""
    random = np.random.default_rng(0)
    y = random.integers(2, size=60) if classes else random.normal(size=60)
    x = random.normal(size=(60, 3)) if kind == "numbers" else random.normal(size=(60, 1, 16, 16))
    shape = (60,) + (1,) * (x.ndim - 2)
    x[:, 0] += 3 * y.reshape(shape)
    if kind == "numbers":
        x[::7, 2] = np.nan
        x[:, 1] = np.nan  # what no lens of a small budget has
    x = x.astype(np.float32)
    return TrainingSet(x[:40], y[:40], x[40:], y[40:], classes, 0)


TRAINING = NetworkTraining(steps=40, batch_size=20, looks=4)
READERS = [
    (LinearReader(kind="linear"), "numbers"),
    (TreesReader(kind="trees", iterations=[10, 40]), "numbers"),
    (CNNReader(kind="cnn", channels=4, blocks=1, levels=2, training=TRAINING), "images"),
    (ResNet18Reader(kind="resnet18", channels=4, training=TRAINING), "images"),
    (EquivariantReader(kind="equivariant", channels=2, levels=2, training=TRAINING), "images"),
]


@pytest.mark.parametrize(("reader", "kind"), READERS, ids=[reader.kind for reader, _ in READERS])
def test_a_reader_learns_what_there_is_and_comes_back_from_its_state(reader, kind):
    known = training_set(kind)
    trained = reader.learn(known)
    answers = trained(known.held_x)
    assert (answers.argmax(1) == known.held_y).mean() > 0.85
    assert answers.sum(1) == pytest.approx(1)
    again = reader.restored(trained.state(), 2)
    again.temperature = trained.temperature
    assert again(known.held_x) == pytest.approx(answers, abs=1e-6)
    number = training_set(kind, classes=0)
    told = reader.learn(number)(number.held_x)
    assert ((told - number.held_y) ** 2).mean() < 0.7 * number.held_y.var()


def test_a_class_that_a_reader_never_saw_gets_no_probability():
    known = training_set("numbers", classes=3)
    for reader, _ in READERS[:2]:
        assert reader.learn(known)(known.held_x)[:, 2].max() < 1e-2


def test_the_temperature_takes_back_what_is_boasted():
    reader = LinearReader(kind="linear", penalties=[1e-6])
    random = np.random.default_rng(0)
    x = random.normal(size=(400, 20)).astype(np.float32)
    y = (x[:, 0] + 2 * random.normal(size=400) > 0).astype(int)
    known = TrainingSet(x[:30], y[:30], x[30:200], y[30:200], 2, 0)
    trained = reader.learn(known)
    loss = of_classes(trained(x[200:]), y[200:], ["a", "b"])["log_loss"]
    assert trained.temperature > 3
    trained.temperature = 1.0
    assert loss < of_classes(trained(x[200:]), y[200:], ["a", "b"])["log_loss"]


def test_resnet_18_has_the_published_size():
    with torch.device("meta"):
        assert sum(p.numel() for p in ResNet18(classes=1000, in_channels=3).parameters()) == 11_689_512


@pytest.mark.parametrize("group", ["c4", "d4"])
def test_a_turned_image_gets_the_same_answer(group, generator):
    network = EquivariantClassifier(channels=2, levels=3, group=group).double().eval()
    image = torch.rand(2, 1, 16, 16, generator=generator, dtype=torch.float64)
    for g in range(4 if group == "c4" else 8):
        assert torch.allclose(network(transformed(image, g)), network(image))
    if group == "c4":
        assert not torch.allclose(network(transformed(image, 4)), network(image))


def test_images_and_numbers_are_not_read_together():
    image, number = Seen(np.zeros((2, 1, 4, 4), "f4"), ("a",)), Seen(np.zeros((2, 3), "f4"), ("b", "c", "d"))
    with pytest.raises(LensphysError, match=r"LR \(images\), fit \(numbers\)"):
        joined([("LR", image), ("fit", number)])
    assert joined([("x", image), ("y", Seen(np.ones((2, 1, 8, 8), "f4"), ("e",)))]).values.shape == (2, 2, 8, 8)


# --- an experiment ---------------------------------------------------------------------------------------------------


def test_an_experiment_ends_in_tables_figures_and_readers(done):
    folder, tree = done
    assert {(r["reader"], r["input"], r["budget"]) for r in tree["rows"]} == {
        (reader, name, budget)
        for reader, names in (("CNN", ("both", "HR")), ("trees", ("leftover", "nuisances")))
        for name in names
        for budget in (5, 10)
    }
    assert tree["sets"]["test"]["lenses"] == 18
    assert tree["provenance"]["products"]["bicubic"]["code"]
    page, table = (folder / "report.html").read_text(), (folder / "table.md").read_text()
    for word in ("Leak test", "wide PSF", "theirs", "adds no information", "10 labels"):
        assert word in page
        assert word in table
    assert {p.stem for p in (folder / "figures").glob("*.png")} == {"labels", "roc", "shift", "calibration"}
    assert (folder / "readers" / "cnn_both" / "reader.json").is_file()


def test_the_same_call_trains_nothing_again(done, monkeypatch):
    folder, tree = done

    def forbidden(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(running_module._Run, "_read", forbidden)
    assert downstream(experiment(), folder)["rows"] == tree["rows"]


def test_a_cache_of_other_code_is_refused(done, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(done[0], folder)
    identity = folder / "products" / "bicubic" / "test" / "identity.json"
    identity.write_text(json.dumps(json.loads(identity.read_text()) | {"code": "of yesterday"}))
    shutil.rmtree(folder / "rows")
    with pytest.raises(LensphysError, match="was made with another code: remove the folder"):
        downstream(experiment(), folder)


def test_damaged_parts_are_made_again_or_told(done, tmp_path):
    """Never a traceback: a row is trained again, of a product or a reader it is said what to do."""
    folder = tmp_path / "copy"
    shutil.copytree(done[0], folder)
    for path in (folder / "rows").iterdir():
        path.write_text(path.read_text()[:100])
    assert downstream(experiment(), folder)["rows"] == done[1]["rows"]
    identity = folder / "products" / "bicubic" / "test" / "identity.json"
    identity.write_text(identity.read_text()[:50])
    shutil.rmtree(folder / "rows")
    with pytest.raises(LensphysError, match=r"identity.json is damaged: remove the folder .*test to compute it again"):
        downstream(experiment(), folder)
    reader = folder / "readers" / "trees_leftover"
    state = (reader / "state.npz").read_bytes()
    for damaged in (b"", state[: len(state) // 2]):
        (reader / "state.npz").write_bytes(damaged)
        with pytest.raises(LensphysError, match="trees_leftover is damaged .*: run `lensphys downstream` again"):
            apply_reader(reader, folder / "no.h5")


def test_lenses_that_share_a_source_with_the_test_set_do_not_teach(tmp_path):
    same = {"recipe": "model_2", "n": 12, "seed": 1, "set": SMALL}
    readers = {"trees": {"kind": "trees", "iterations": [5]}}
    few = {"inputs": {"nuisances": {"kind": "nuisances"}}, "products": {}, "shifts": {}, "readers": readers}
    with pytest.raises(LensphysError, match="every lens of model_2 shares its source with a test set"):
        downstream(experiment(test=same, **few), tmp_path)


def test_half_of_a_file_is_kept_back_by_source(data, tmp_path):
    few = {"inputs": {"nuisances": {"kind": "nuisances"}}, "products": {}, "shifts": {}, "budgets": [5], "seeds": 1}
    readers = {"ridge": {"kind": "linear"}}
    change = few | {
        "data": {"file": str(data)},
        "test": None,
        "readers": readers,
        "task": "regress",
        "target": "theta_E",
    }
    tree = downstream(experiment(**change), tmp_path)
    assert tree["sets"]["train"]["lenses"] + tree["sets"]["test"]["lenses"] == 15
    assert tree["rows"][0]["tests"]["test"]["mse"]["mean"] < 1.0
    judged = judge_reader(tmp_path / "readers" / "ridge_nuisances", data, tmp_path / "judged")
    learned = tree["sets"]["train"]["lenses"]
    assert f"train: {learned} of the 15 lenses of {data.name}" in (tmp_path / "judged/table.md").read_text()
    told = [row["value"] for row in apply_reader(tmp_path / "readers" / "ridge_nuisances", data)["images"]]
    with LensFile(data) as file:
        expected = float(((np.array(told) - file.read("theta_E")) ** 2).mean())
    assert judged["rows"][0]["tests"]["test"]["mse"]["mean"] == pytest.approx(expected)
    assert summary_line(judged).startswith("MSE ")


def test_a_reader_is_applied_and_judged(done, data, tmp_path):
    folder = done[0] / "readers"
    found = apply_reader(folder / "cnn_both", data)
    assert [row["index"] for row in found["images"]] == list(range(15))
    assert sum(found["images"][0]["probabilities"].values()) == pytest.approx(1)
    assert 0 <= found["judged"]["accuracy"] <= 1
    with pytest.raises(LensphysError, match="which no user has"):
        apply_reader(folder / "cnn_hr", data)
    with pytest.raises(LensphysError, match="holds no trained reader"):
        apply_reader(tmp_path, data)
    other = simulate(Recipe.named("model_3", SMALL), 1, tmp_path / "other.h5")
    with pytest.raises(LensphysError, match="the reader learned from pixels"):
        apply_reader(folder / "cnn_both", other)


def test_evaluate_judges_a_reader_as_apply_does(done, data, tmp_path):
    folder, run = done[0] / "readers", CliRunner().invoke
    made = run(app, ["evaluate", str(folder / "cnn_both"), "--data", str(data), "-o", str(tmp_path / "a")])
    assert made.exit_code == 0, made.output
    judged = apply_reader(folder / "cnn_both", data)["judged"]
    measured = json.loads((tmp_path / "a" / "metrics.json").read_text())["rows"][0]["tests"]["test"]
    assert measured["accuracy"]["mean"] == judged["accuracy"]
    assert {name: value["mean"] for name, value in measured["auc"].items()} == judged["auc"]
    assert all(
        measured["auc"][name]["low"] <= judged["auc"][name] <= measured["auc"][name]["high"]
        for name in ("axion", "cdm")
    )
    assert (tmp_path / "a" / "figures" / "calibration.png").is_file()
    assert "flatter" not in (tmp_path / "a" / "table.md").read_text()
    again = run(app, ["evaluate", str(folder / "cnn_both"), "--data", str(data), "-o", str(tmp_path / "a")])
    assert "exists" in again.output
    part = run(
        app, ["evaluate", str(folder / "cnn_both"), "--data", str(data), "-o", str(tmp_path / "b"), "--limit", "2"]
    )
    assert "leave --limit out" in part.output
    both = run(
        app, ["evaluate", str(folder / "cnn_both"), "--data", str(data), "-o", str(tmp_path / "b"), "--method", "fit"]
    )
    assert "leave --method out" in both.output


def test_a_reader_of_true_images_is_judged_where_there_are_some(done, data, tmp_path):
    tree = judge_reader(done[0] / "readers" / "cnn_hr", data, tmp_path / "hr")
    assert tree["sets"]["test"]["lenses"] == 15
    learned = next(
        path
        for path in (done[0] / "data").glob("*/train.h5")
        if LensFile(path).identity == done[1]["sets"]["train"]["identity"]
    )
    for path, flatters in ((data, False), (learned, True)):
        judged = judge_reader(done[0] / "readers" / "trees_nuisances", path, tmp_path / "n")
        assert ("flatter" in judged["protocol"]) == flatters
    lost = changed(data, tmp_path / "o.h5", lambda file: file.pop("hr_clean"))
    with pytest.raises(LensphysError, match="has no HR images"):
        judge_reader(done[0] / "readers" / "cnn_hr", lost, tmp_path / "x")
    bare = changed(data, tmp_path / "u.h5", lambda file: file.pop("label"))
    with pytest.raises(LensphysError, match="has no labels"):
        judge_reader(done[0] / "readers" / "cnn_both", bare, tmp_path / "x")


def test_the_commands_say_what_is_wrong_in_one_sentence(done, data, tmp_path):
    config, out = tmp_path / "e.yaml", tmp_path / "out"
    config.write_text(yaml.safe_dump(TREE))
    run = CliRunner().invoke
    dry = run(app, ["downstream", str(config), "-o", str(out), "--dry-run"])
    assert (dry.exit_code, out.exists()) == (0, False)
    assert "trainings 16" in dry.output
    gone = run(app, ["downstream", str(config), "-o", str(out), "--set", "data={file: gone.h5}", "--dry-run"])
    assert gone.exit_code == 2
    assert "gone.h5 is not a file" in gone.output
    reader = done[0] / "readers" / "trees_leftover"
    fine = run(app, ["downstream", "apply", str(reader), str(data), "-o", str(tmp_path / "a.json")])
    assert fine.exit_code == 0, fine.output
    assert json.loads((tmp_path / "a.json").read_text())["judged"]["confusion"]
    again = run(app, ["downstream", "apply", str(reader), str(data), "-o", str(tmp_path / "a.json")])
    assert again.exit_code == 2
    assert "exists" in again.output


def test_labels_travel_through_super_resolution(done, data, tmp_path):
    out = tmp_path / "sr.h5"
    made = CliRunner().invoke(app, ["super-resolve", str(data), "-o", str(out), "--method", "bicubic"])
    assert made.exit_code == 0, made.output
    before, after = (apply_reader(done[0] / "readers" / "cnn_both", path) for path in (data, out))
    assert after["judged"] == before["judged"]
    with LensFile(data) as first, LensFile(out) as file:
        assert np.array_equal(classes_of(file, ("no_sub", "axion", "cdm")).values, first.labels)
    with pytest.raises(LensphysError, match="has no HR images"):
        downstream(experiment(data={"file": str(out)}), tmp_path / "out")


def test_hr_images_that_a_file_lacks(data, tmp_path):
    def observed(file):
        del file["hr_clean"]

    path = changed(data, tmp_path / "o.h5", observed)
    with pytest.raises(LensphysError, match="has no HR images"):
        downstream(experiment(data={"file": str(path)}), tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"target": "theta_E"}, "give it with task: regress, and only then"),
        ({"test": None}, "shifts need a test set of their own"),
        ({"inputs": {"k": {"kind": "kappa", "of": "fit"}}}, "'fit' is none of the products"),
        ({"inputs": {"LR": {"kind": "lr"}}, "readers": {"t": {"kind": "trees"}}}, "'t' reads numbers, and none"),
        ({"inputs": TREE["inputs"] | {"x": {"kind": "together", "of": ["LR", "nuisances"]}}}, "puts images and"),
        ({"readers": {"t": {"kind": "trees", "inputs": ["LR", "leftover"]}}}, "'t' cannot read 'LR'"),
        ({"products": {"bicubic": {"ready": "bicubic", "refine": 0}}}, "'refine' starts"),
        ({"data": {"recipe": "model_2", "fresh": True}}, "leave 'fresh' out"),
        ({"shifts": {"test": {"file": "x.h5"}}}, "a shift cannot be called 'test'"),
        ({"shifts": {"seen": {"file": "x.h5"}}}, "a shift cannot be called 'seen'"),
        ({"budgets": [2]}, "budgets"),
        ({"test": {"file": "x.h5"}}, "shift 'wide PSF' sets what a recipe has, and 'test' is a file: give it a file"),
    ],
)  # fmt: skip
def test_faulty_settings(change, words):
    with pytest.raises(LensphysError, match=words):
        experiment(**change)


def test_what_cannot_be_made_is_said_before_anything_is_computed(data, tmp_path):
    def one_class(file):
        file["label"][:] = 1

    with pytest.raises(LensphysError, match="product 'p': unknown ready method 'magic'"):
        check_downstream(experiment(products={**TREE["products"], "p": {"ready": "magic"}}))
    with pytest.raises(LensphysError, match="there is nothing to tell apart"):
        check_downstream(experiment(data={"recipe": "model_2", "classes": ["cdm"]}))
    with pytest.raises(LensphysError, match="holds lenses of one class alone"):
        check_downstream(experiment(data={"file": str(changed(data, tmp_path / "one.h5", one_class))}))
    with pytest.raises(LensphysError, match=r"'classes' and 'set' of data choose from a recipe, and all lenses of"):
        check_downstream(experiment(data={"file": str(data), "classes": ["cdm"], "set": SMALL}))
    with pytest.raises(LensphysError, match="label_free names the class 'wdm'"):
        check_downstream(experiment(label_free={"products": ["bicubic"], "pairs": [["axion", "wdm"]]}))


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_committed_experiments_can_be_made(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("galaxies.npy", np.full((3, 8, 8), 1 / 64, np.float32))  # in place of real ones, which are not ours to give
    check_downstream(Downstream.from_yaml(config, []))


@pytest.mark.slow
def test_fits_tell_substructure_without_a_label(tmp_path):
    product = {"one pass": {"weights": "model_2", "refine": 0}}
    inputs = {"fit": {"kind": "numbers", "of": "one pass"}, "dk": {"kind": "delta_kappa", "of": "one pass"}}
    lenses = {"recipe": "model_2", "n": 10, "seed": 1}
    readers = {"trees": {"kind": "trees", "iterations": [10]}}
    tree = downstream(
        experiment(
            data=lenses, test=lenses | {"seed": 2, "n": 8}, shifts={}, products=product, inputs=inputs, readers=readers,
            budgets=[10], seeds=1, label_free={"products": ["one pass"]},
        ),
        tmp_path,
    )  # fmt: skip
    scores = {row["score"]: row for row in tree["label_free"] if row["question"] == "substructure or not"}
    assert scores["best_gain"]["auc"] > 0.95
    assert scores["substructure_evidence"]["auc"] > 0.95


# --- networks that learned from labels -------------------------------------------------------------------------------

LOSS = {"image_consistency": {}}
METHOD = {
    "name": "physics_labelled",
    "network": {"name": "residual", "channels": 4, "blocks": 1},
    "source": "brightest_pixel",
    "head": {"gain": 0.1},
    "loss": LOSS,
    "classifier": {"channels": 4, "blocks": 1, "levels": 2},
}
ALONE = {"name": "physics", **{key: METHOD[key] for key in ("network", "source", "head", "loss")}}
EPOCH = {"epochs": 1, "batch_size": 5, "accelerator": "cpu"}
SECOND = {"epochs": 1, "learning_rate": 1e-2, "train": ["second.*", "classifier.*"]}
THREE = {
    "first": {"train": {"method": ALONE, "training": EPOCH}},
    "second": {"train": {"method": METHOD | {"physics": 0}, "training": EPOCH | {"phases": [SECOND]}}, "from": "first"},
    "both": {"train": {"method": METHOD, "training": EPOCH}, "from": "second"},
}


def labelled_method(**change: object) -> PhysicsLabelledMethod:
    torch.manual_seed(0)
    return PhysicsLabelledSettings.model_validate(METHOD | change).build()


@pytest.fixture
def lesson_batch(data) -> Batch:
    with LensFile(data) as file:
        return Batch(file.observation(np.arange(6)), None, torch.from_numpy(file.labels_of(np.arange(6))))


def test_labels_reach_the_second_network_through_the_classifier_alone(lesson_batch):
    method = labelled_method(physics=0).train()
    method.training_terms(lesson_batch, 0)["loss"].backward()
    assert all(float(p.grad.abs().max()) > 0 for p in list(method.second.parameters())[-2:])
    method.zero_grad()
    torch.nn.init.zeros_(method.classifier.head.weight)  # it answers the same whatever it looks at
    method.training_terms(lesson_batch, 0)["loss"].backward()
    assert all(float(p.grad.abs().max()) == 0 for p in method.second.parameters())


def test_other_labels_change_neither_physics_nor_what_is_predicted(lesson_batch):
    method = labelled_method().eval()
    turned = Batch(lesson_batch.observation, None, (lesson_batch.label + 1) % 3)
    first, second = (method.training_terms(batch, 0) for batch in (lesson_batch, turned))
    assert first["image_consistency"] == second["image_consistency"]
    assert first["labels"] != second["labels"]
    expected = first["image_consistency"] + first["labels"]
    torch.testing.assert_close(first["loss"], expected)


def test_the_two_deflections_are_added(lesson_batch):
    method = labelled_method().eval()
    image = lesson_batch.observation.image
    parts = [net(min_max(image), lesson_batch.observation.camera.grid).alpha for net in (method.network, method.second)]
    total = method.predict(lesson_batch.observation).deflection
    torch.testing.assert_close(total.alpha, parts[0] + parts[1])


def test_a_labelled_training_needs_labels(lesson_batch):
    with pytest.raises(LensphysError, match="this data set has no labels"):
        labelled_method().training_terms(Batch(lesson_batch.observation), 0)
    with pytest.raises(LensphysError, match="there is nothing to learn"):
        PhysicsLabelledSettings.parse(METHOD | {"physics": 0, "labels": 0}, "method")


def test_counting_only_what_was_told_right_makes_chance_look_like_knowledge():
    random = np.random.default_rng(0)
    probability, label = random.dirichlet(np.ones(3), 20000), random.integers(3, size=20000)
    found = of_classes(probability, label, ["a", "b", "c"])
    assert found["auc"]["all"] == pytest.approx(0.5, abs=0.01)
    assert found["auc_if_right"]["all"] == pytest.approx(0.83, abs=0.01)
    assert auc_if_right(np.eye(3)[[0, 0, 2]], np.array([0, 1, 2]), ["a", "b", "c"]) == {"a": 0.75, "c": 1.0}


def test_a_wide_interval_of_nuisances_tells_nothing():
    tree = json.loads((CONFIGS / "model_2" / "metrics.json").read_text())

    def verdicts(vague: float) -> set[str]:
        leak = next(table for table in tables(tree, vague) if table.title.startswith("Leak"))
        return {line.cells[1].text for line in leak.lines}

    assert verdicts(0.0) == {"too few seeds to tell"}  # no interval has no width
    assert verdicts(1.0) <= {"at chance", "above chance: the sets leak"}


@pytest.fixture(scope="module")
def two_networks(tmp_path_factory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("two")
    return folder, downstream(two(), folder)


def two() -> Downstream:
    """One reader of images that networks make, of which one learned from labels."""
    inputs = {"LR": {"kind": "lr"}, "unseen": {"kind": "sr", "of": "first"}, "SR": {"kind": "sr", "of": "both"}}
    readers = {"CNN": {"kind": "cnn", "channels": 2, "blocks": 1, "levels": 2, "training": QUICK}}
    change = {"products": THREE, "inputs": inputs, "readers": readers, "shifts": {}, "budgets": [5], "seeds": 1}
    return experiment(**change)


def test_an_experiment_that_was_copied_is_gone_on_with(two_networks, tmp_path, monkeypatch):
    copied = shutil.copytree(two_networks[0], tmp_path / "copied")
    monkeypatch.setattr(running_module._Run, "_read", lambda *_: pytest.fail("read again"))
    assert downstream(two(), copied)["rows"] == two_networks[1]["rows"]


def test_networks_learn_from_lenses_that_teach_and_no_other(two_networks):
    folder, tree = two_networks
    with LensFile(folder / "data" / "lessons.h5") as lessons:
        assert len(lessons) == tree["sets"]["train"]["lenses"] == 36
        taught = {image.tobytes() for image in lessons.read("lr")}
    files = (folder / "data").glob("*/train.h5")
    sets = [{image.tobytes() for image in LensFile(path).read("lr")} for path in files]
    assert sorted(len(taught & images) for images in sets) == [0, 36]  # none of the test set, all of the training set
    before, after = (read_weights(folder / "runs" / name) for name in ("first", "second"))
    assert all(torch.equal(before[name], after[name]) for name in before)  # labels did not touch the first network


def test_a_reader_finds_the_run_that_it_looks_with_from_anywhere(two_networks, data, tmp_path, monkeypatch):
    """Within its experiment it is found wherever that is copied, outside of it where it was."""
    there = shutil.copytree(two_networks[0], tmp_path / "there")
    monkeypatch.chdir(there)
    change = {"products": {"first": {"run": "runs/first"}}, "inputs": {"fit": {"kind": "numbers", "of": "first"}}}
    readers = {"trees": {"kind": "trees", "iterations": [5]}}
    downstream(experiment(**change, readers=readers, shifts={}, budgets=[5], seeds=1), Path("../new"))
    monkeypatch.chdir(tmp_path.parent)
    shutil.move(tmp_path / "new", tmp_path / "moved")
    outside, within = tmp_path / "moved" / "readers" / "trees_fit", there / "readers" / "cnn_sr"
    assert len(apply_reader(outside, data)["images"]) == len(apply_reader(within, data)["images"]) == 15
    shutil.rmtree(there / "runs")
    for reader, name in ((outside, "first"), (within, "both")):
        with pytest.raises(LensphysError, match=rf"reader.json looks with the run {there}/runs/{name}, and its best"):
            apply_reader(reader, data)


def test_labels_that_networks_saw_are_declared(two_networks):
    folder, tree = two_networks
    assert tree["labelled"] == ["SR"]
    table = (folder / "table.md").read_text()
    for words in ("CNN on SR (its networks saw labels)", "Labels declared", "labels unseen, all count"):
        assert words in table
    assert "CNN on unseen (its" not in table
    row = next(row for row in tree["rows"] if row["input"] == "SR")
    assert set(row["tests"]) == {"test", "seen"}
    assert apply_reader(folder / "readers" / "cnn_sr", folder / "data" / "lessons.h5")["judged"]["accuracy"] >= 0


@pytest.mark.parametrize(
    ("products", "words"),
    [
        ({"p": {"train": {"method": ALONE, "training": EPOCH, "data": {}}}}, "leave 'data' and 'start' out"),
        ({"p": {"ready": "bicubic", "from": "q"}}, "'from' is of a product that is trained"),
        ({"p": {"train": {"method": ALONE, "training": EPOCH}, "from": "later"}}, "no earlier one with weights"),
    ],
)
def test_faulty_trainings_of_products(products, words):
    with pytest.raises(LensphysError, match=words):
        experiment(products={"bicubic": {"ready": "bicubic"}, **products})


def test_scores_without_labels_are_of_products_without_labels():
    with pytest.raises(LensphysError, match="product 'both' learned from labels"):
        check_downstream(experiment(products=TREE["products"] | THREE, label_free={"products": ["both"]}))
    rank = {"method": {"name": "classifier"}, "training": EPOCH}
    with pytest.raises(LensphysError, match="super-resolves nothing"):
        check_downstream(experiment(products=TREE["products"] | {"p": {"train": rank}}))


def test_readers_that_would_see_a_few_pixels_are_refused(data):
    for source in ({"file": str(data)}, TREE["data"]):
        with pytest.raises(
            LensphysError, match=r'half_field: of 0.01" on each side readers see 2 x 2 pixels of 0.101"'
        ):
            check_downstream(experiment(data=source, half_field=0.01))


def test_some_lenses_of_a_file_are_a_file(data, tmp_path):
    rows = np.array([1, 4, 7])
    with LensFile(write_rows(data, rows, tmp_path / "part.h5")) as part, LensFile(data) as whole:
        for name in ("lr", "hr_clean", "label", "theta_E", "lens_model", "alpha_hr"):
            assert np.array_equal(part.read(name), whole.read(name, rows))
        assert np.array_equal(part.read("hr"), part.read("hr_clean"))
        assert torch.equal(
            part.observation().noise.variance(part.lr()), whole.observation(rows).noise.variance(part.lr())
        )
        assert part.identity != whole.identity
    assert (tmp_path / "part.h5").stat().st_size < 0.5 * data.stat().st_size
