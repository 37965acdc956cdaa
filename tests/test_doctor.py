"""Each finding on a small file that was made wrong on purpose, and silence on healthy ones."""

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from lensphys.basics.checks import LensphysError
from lensphys.cli import app
from lensphys.data.lens_file import LensFile
from lensphys.evaluation import doctor as doctor_module
from lensphys.evaluation.doctor import Finding, diagnose
from lensphys.evaluation.symptoms import SymptomSettings, symptoms
from lensphys.observation import Instrument
from lensphys.simulation import Recipe, simulate
from lensphys.simulation.scene import substructure_of

MODELS = ["model_1", "model_2", "model_3", "varied"]
SMALL = ["height=24", "width=28"]  # H != W, and fast
NO_SUB, AXION, CDM = 0, 1, 2  # row of the first sample of each class: classes take turns
ALL = 12


@pytest.fixture(scope="module")
def healthy(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("healthy")
    for model in MODELS:
        simulate(Recipe.named(model, SMALL), 4, folder / f"{model}.h5", deflection=True)
    return folder


@pytest.fixture
def spoilt(healthy, tmp_path) -> Callable:
    """A copy of a healthy file with something changed in it."""

    def spoil(change: Callable[[h5py.File], object], model: str = "model_3") -> Path:
        path = tmp_path / f"{model}.h5"
        path.write_bytes((healthy / f"{model}.h5").read_bytes())
        with h5py.File(path, "a") as file:
            change(file)
        return path

    return spoil


def put(name: str, rows: object, values: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        array = file[name][:]
        array[rows] = values(array[rows]) if callable(values) else values
        file[name][:] = array

    return change


def replace(file: h5py.File, name: str, values: np.ndarray) -> None:
    del file[name]
    file[name] = values


def serious(path: Path, *others: Path) -> dict[str, Finding]:
    """Errors and warnings by name."""
    return {f.name: f for f in diagnose(path, others) if f.severity != "note"}


def only(path: Path, name: str, severity: str, rows: list[int], *others: Path) -> Finding:
    """The one error or warning of a file."""
    found = serious(path, *others)
    assert set(found) == {name}, [f.sentence for f in found.values()]
    assert found[name].severity == severity and found[name].images == len(rows)
    assert found[name].first == tuple(rows[:5])
    assert found[name].remedy and found[name].sentence.count("\n") == 0
    return found[name]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("changes", [SMALL, ["height=32", "width=32", "hr_noise=true"], ["upscale=3", *SMALL]])
def test_healthy_files_have_neither_errors_nor_warnings(tmp_path, model, changes):
    path = simulate(Recipe.named(model, changes), 2, tmp_path / "a.h5", seed=5)
    found = diagnose(path)
    assert {f.severity for f in found} == {"note"}, [f.sentence for f in found]
    notes = {f.name for f in found} - {"coarse_light"}  # a point a pixel is what the legacy data mean
    assert notes in ({"hr_binned"}, {"hr_sampled"})


@pytest.mark.parametrize("model", MODELS)
def test_noisy_images_and_clean_targets_alone_are_healthy(spoilt, model):
    def change(file):
        del file["lr_clean"], file["alpha_hr"], file["lens_model"]

    found = diagnose(spoilt(change, model))
    assert [f.name for f in found if f.severity != "note"] == []
    assert "no /lr_clean, /alpha_hr, /lens_model" in next(f for f in found if f.name == "missing_truth").message


def test_low_resolution_images_alone_are_healthy(spoilt):
    def change(file):
        for name in ("hr", "hr_clean", "lr_clean", "alpha_hr", "flux_scale"):
            del file[name]

    assert serious(spoilt(change)) == {}


# --- pixels --------------------------------------------------------------------------------------------------------


def test_pixels_that_are_not_finite(spoilt):
    found = only(spoilt(put("lr", ([2, 7], 0, 3, 3), np.nan)), "not_finite", "error", [2, 7])
    assert "(1 each)" in found.message
    only(spoilt(put("hr_clean", (4, 0, 3), np.inf)), "not_finite_hr_clean", "error", [4])
    only(spoilt(put("alpha_hr", (4, 0, 3), np.inf)), "not_finite_alpha_hr", "error", [4])
    only(spoilt(put("lr_clean", (4, 0, 3), np.inf)), "not_finite_lr_clean", "error", [4])


def test_constant_images(spoilt):
    found = only(spoilt(lambda file: (put("lr", 3, 0.25)(file), put("lr", 5, 0.75)(file))), "constant", "error", [3, 5])
    assert "0.5" in found.message  # the median of both


def test_whole_numbers_in_an_instrument_of_electrons_per_second(spoilt):
    change = put("lr", slice(None), lambda x: np.round(5400 * x.clip(0)))
    assert serious(spoilt(change))["integers"].images == ALL
    assert "integers" not in serious(spoilt(lambda file: None, "model_1"))


def test_images_scaled_to_one(spoilt):
    def change(file):
        x = file["lr"][:]
        low, high = x.min((2, 3), keepdims=True), x.max((2, 3), keepdims=True)
        file["lr"][:] = (x - low) / (high - low)

    found = serious(spoilt(change))
    assert found["min_max"].images == ALL and found["min_max"].severity == "error"

    def imported(file):
        change(file)
        instrument = json.loads(file.attrs["instrument"]) | {"noise": {"kind": "estimated"}}
        file.attrs["instrument"] = json.dumps(instrument)

    assert serious(spoilt(imported))["min_max"].severity == "warning"


def test_clipped_images(spoilt):
    cut = put("lr", [1, 4], lambda x: x.clip(max=np.quantile(x, 0.95)))
    path = spoilt(cut)
    found = serious(path)["clipped_high"]
    assert found.first == (1, 4) and found.severity == "warning"
    lenient = diagnose(path, settings=SymptomSettings(clipped_share=0.1))  # a twentieth of the pixels is cut
    assert "clipped_high" not in {finding.name for finding in lenient}
    cut = put("lr", 6, lambda x: x.clip(min=np.quantile(x, 0.3)))
    assert serious(spoilt(cut))["clipped_low"].first == (6,)
    # counts are cut at zero by their detector, and at nothing else
    cut = put("lr", 6, lambda x: x.clip(min=np.quantile(x, 0.4) + 1))
    assert serious(spoilt(cut, "model_1"))["clipped_low"].first == (6,)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("with_clean", [True, False])
def test_images_without_noise(tmp_path, model, with_clean):
    path = simulate(Recipe.named(model, ["height=40", "width=44"]), 1, tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        scale = file["flux_scale"][:][1:, None, None, None]
        file["lr"][1:] = file["lr_clean"][1:] * scale
        if not with_clean:
            del file["lr_clean"], file["hr"], file["hr_clean"]
    only(path, "noise_free", "error", [1, 2])


@pytest.mark.parametrize("model", ["model_2", "model_3", "varied"])
def test_noise_of_another_law(spoilt, model):
    def louder(file):
        clean = file["lr_clean"][:]
        file["lr"][:] = clean + 1.5 * (file["lr"][:] - clean)

    found = only(spoilt(louder, model), "noise_law", "error", list(range(ALL)))
    assert 2.0 < float(found.message.split()[-3]) < 2.5  # 1.5^2


def test_noise_that_cannot_be_estimated(spoilt):
    def change(file):
        for name in ("hr", "hr_clean", "lr_clean"):
            del file[name]
        instrument = json.loads(file.attrs["instrument"]) | {"noise": {"kind": "estimated"}}
        file.attrs["instrument"] = json.dumps(instrument)
        put("lr", 2, lambda x: np.where(x > np.quantile(x, 0.8), x, 0))(file)

    found = serious(spoilt(change))
    assert found["no_estimate"].first == (2,) and found["border"].first == (2,)
    assert set(found) == {"no_estimate", "border"}


def test_images_without_light_are_named_as_such_and_as_nothing_else(spoilt):
    noise = np.random.default_rng(0).normal(0, 0.004, (24, 28))
    found = only(spoilt(put("lr", 7, noise)), "dark", "error", [7])
    assert "nothing stands 5 sigma out of their noise" in found.message and "drop them" in found.remedy
    only(spoilt(put("lr", 7, -np.abs(noise))), "dark", "error", [7])  # its sky was taken off twice


def test_borders_that_nobody_observed(spoilt):
    def padded(image):
        image = image.copy()
        image[..., :3] = image[..., -2:, :] = 0
        return image

    found = serious(spoilt(lambda file: (put("lr", [2, 5], padded)(file), file.pop("lr_clean"))))
    assert found["border"].first == (2, 5) and found["border"].severity == "warning"
    assert "18.2% of the pixels are a border of one value" in found["border"].message
    assert "clipped_low" not in found


# --- truth ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_a_wrong_unit(spoilt, model):
    found = only(spoilt(put("flux_scale", [0, 3], lambda x: x / 2), model), "flux_ratio", "error", [0, 3])
    # the background of counts is estimated as well, and takes up some of it
    assert float(found.message.split()[3]) == pytest.approx(2, abs=0.6 if model == "model_1" else 0.05)


def test_a_wrong_unit_is_told_from_the_tolerance_on(spoilt):
    path = spoilt(put("flux_scale", [3], lambda x: x / 2), "model_2")
    held = {"lr", "lr_clean", "flux_scale"}
    with LensFile(path) as file:
        for tolerance, flagged in ((0.9, True), (1.1, False)):  # twice the light is a share of 1 too much
            found = symptoms(file, held, np.array([3]), SymptomSettings(flux_tolerance=tolerance))
            assert bool(np.isfinite(found["flux_ratio"][0])) == flagged
        found = symptoms(file, held, np.array([3]), SymptomSettings(flux_sigma=1e9))
        assert np.isnan(found["flux_ratio"][0])


def test_flux_scale(spoilt):
    only(spoilt(put("flux_scale", [5, 6], [0.0, np.nan])), "flux_scale", "error", [5, 6])
    found = serious(spoilt(lambda file: file.pop("flux_scale")))
    assert "no /flux_scale" in found["flux_scale"].message and found["flux_scale"].severity == "warning"


@pytest.mark.parametrize("model", MODELS)
def test_hr_images_of_other_lenses(spoilt, model):
    found = serious(spoilt(put("hr_clean", slice(None), lambda x: np.roll(x, 1, 0)), model))
    assert found["hr_foreign"].images >= ALL - 2  # two lenses may look alike, or one like another turned
    assert "sigma apart" in found["hr_foreign"].message


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("turn", [lambda x: x[..., ::-1], lambda x: x[..., ::-1, :], lambda x: np.roll(x, 1, -1)])
def test_hr_images_with_other_axes(spoilt, model, turn):
    only(spoilt(put("hr_clean", slice(None), turn), model), "hr_moved", "error", list(range(ALL)))


def test_transposed_square_images(tmp_path):
    path = simulate(Recipe.named("model_3", ["height=24", "width=24"]), 1, tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        file["hr_clean"][:] = file["hr_clean"][:].swapaxes(2, 3)
    only(path, "hr_moved", "error", [0, 1, 2])


def test_noisy_images_tell_foreign_hr_images_as_well(spoilt):
    def change(file):
        del file["lr_clean"]
        put("hr_clean", [0, 1, 2], lambda x: x[[2, 0, 1]])(file)

    found = serious(spoilt(change))
    assert "hr_foreign" in found and set(found) <= {"hr_foreign", "hr_moved", "flux_ratio"}  # each has its own flux
    assert all(max(finding.first) <= 2 for finding in found.values())


def test_binned_images_are_told_from_sampled_ones(spoilt):
    def binned(file):
        hr = file["hr_clean"][:]
        clean = hr.reshape(ALL, 1, 24, 2, 28, 2).sum((3, 5))
        file["lr"][:] = file["lr"][:] - file["lr_clean"][:] + clean
        file["lr_clean"][:] = clean

    assert [f.name for f in diagnose(spoilt(binned))] == ["hr_binned", "coarse_light"]
    assert [f.name for f in diagnose(spoilt(lambda file: None))] == ["hr_sampled", "coarse_light"]


@pytest.fixture(scope="module")
def sampled(tmp_path_factory) -> Callable:
    """A data set of one sharp source, with so many points along the side of a pixel."""
    folder = tmp_path_factory.mktemp("sampled")

    def simulated(points: int, n_sersic: float) -> Path:
        telescope = Instrument.named("model_3").model_copy(update={"supersampling": points})
        (folder / "telescope.yaml").write_text(telescope.model_dump_json(exclude_none=True))
        changes = [*SMALL, f"instrument={folder / 'telescope.yaml'}", f"source.n_sersic={n_sersic}"]
        path = folder / f"{points}_{n_sersic}.h5"
        return simulate(Recipe.named("model_3", [*changes, "source.R_sersic=0.15"]), 1, path, classes=["cdm"])

    return simulated


def test_light_that_was_sampled_too_coarsely_for_its_sources(sampled):
    found = only(sampled(2, 2.0), "coarse_light", "warning", [0])
    assert "light of 2 x 2 points a pixel, where these sources need 8 x 8: the error adds" in found.message
    assert "need more than 16 x 16: the error adds" in serious(sampled(2, 4.0))["coarse_light"].message
    assert "`supersampling: auto`" in found.remedy
    assert serious(sampled(8, 2.0)) == {}
    legacy = {f.name: f for f in diagnose(sampled(1, 4.0))}["coarse_light"]
    assert legacy.severity == "note"


def test_light_is_looked_at_where_a_file_says_what_it_shows(sampled):
    path = sampled(2, 4.0)
    with h5py.File(path, "a") as file:
        del file.attrs["recipe"]
    assert serious(path) == {}


def test_observed_pairs(spoilt):
    def observed(file):
        del file["hr"], file["lr_clean"]
        noise = np.random.default_rng(0).normal(0, 0.01, file["hr_clean"].shape)
        file["hr"] = file["hr_clean"][:] + noise
        del file["hr_clean"]

    assert serious(spoilt(observed)) == {}
    turned = spoilt(lambda file: (observed(file), put("hr", 4, lambda x: x[:, ::-1])(file)))
    only(turned, "pair_moved", "warning", [4])
    other = spoilt(lambda file: (observed(file), put("hr", 4, lambda x: np.roll(x, (20, 20), (1, 2)))(file)))
    only(other, "pair_foreign", "warning", [4])


def test_deflections_that_do_not_fit(tmp_path):
    path = simulate(Recipe.named("model_3"), 1, tmp_path / "a.h5", deflection=True)
    with h5py.File(path, "a") as file:
        file["alpha_hr"][:] = file["alpha_hr"][:] / 0.63428
    found = only(path, "alpha_theta_E", "warning", [0, 1, 2])
    assert "1.58 theta_E" in found.message or "1.6" in found.message


# --- labels and copies ---------------------------------------------------------------------------------------------


def test_labels(spoilt):
    only(spoilt(put("label", [0, 3], [-1, 3])), "label_range", "error", [0, 3])
    found = serious(spoilt(lambda file: file.pop("label")))
    assert set(found) == {"label"}
    found = serious(spoilt(lambda file: file.attrs.__setitem__("classes", ["no_sub", "axion", "cdm", "wdm"])))
    assert set(found) == {"class_absent"} and "no sample of wdm" in found["class_absent"].message


def test_classes_that_are_not_equally_frequent_are_noted(spoilt):
    found = {f.name: f for f in diagnose(spoilt(put("label", CDM, AXION)))}
    assert found["class_counts"].severity == "note" and "no_sub 4, axion 5, cdm 3" in found["class_counts"].message


def test_labels_that_do_not_fit_the_lens(spoilt):
    found = serious(spoilt(put("label", [CDM, 5], NO_SUB)))
    assert found["label_lens_model"].first == (CDM, 5) and found["label_lens_model"].severity == "error"
    found = [f for f in diagnose(spoilt(put("label", NO_SUB, CDM))) if f.name == "label_lens_model"]
    assert len(found) == 1 and found[0].severity == "note" and "no substructure" in found[0].message
    found = serious(
        spoilt(put("label", slice(None), lambda x: np.where(x == NO_SUB, CDM, np.where(x == CDM, NO_SUB, x))))
    )
    assert found["label_lens_model"].images == 4

    def without_recipe(file):
        del file.attrs["recipe"]
        put("label", CDM, NO_SUB)(file)

    assert serious(spoilt(without_recipe))["label_lens_model"].first == (CDM,)


def test_a_halo_beside_the_lens_is_no_substructure(tmp_path):
    halo = "more_lenses=[{kind: nfw, Rs: 4.0, alpha_Rs: 0.4, center_x: 3.0, center_y: 0.0}]"
    path = simulate(Recipe.named("model_3", [*SMALL, halo]), 4, tmp_path / "halo.h5")
    assert "label_lens_model" not in {f.name for f in diagnose(path)}
    with LensFile(path) as file:
        found = [len(substructure_of(model)) for model in file.lens_models([NO_SUB, AXION, CDM])]
        models, whole = file.lens_models([CDM]), file.read("theta_E", [NO_SUB, CDM])
        assert found[0] == 0 and min(found[1:]) > 0 and "NFW" in models[0]["lens_model_list"]
        assert "NFW" not in {name for name, _ in substructure_of(models[0])} and (whole > 0).all()


def test_axion_masses(spoilt):
    only(spoilt(put("axion_mass", CDM, 1e-23)), "axion_mass", "error", [CDM])
    only(spoilt(put("axion_mass", AXION, np.nan)), "axion_mass", "warning", [AXION])


def test_doubled_images(spoilt):
    def change(file):
        for name in ("lr", "lr_clean", "hr_clean", "alpha_hr", "lens_model"):
            file[name][9] = file[name][3]
            file[name][6] = file[name][3]

    only(spoilt(change), "doubled", "error", [6, 9])


def test_splits_that_share_samples(healthy, tmp_path):
    recipe = Recipe.named("model_3", SMALL)
    other = simulate(recipe, 1, tmp_path / "other.h5", seed=1)
    assert serious(healthy / "model_3.h5", other) == {}
    same = simulate(recipe, 1, tmp_path / "same.h5")  # the seed was forgotten
    found = only(healthy / "model_3.h5", "shared_images", "error", [0, 1, 2], other, same)
    assert "same.h5 holds as well" in found.message
    with h5py.File(same, "a") as file:
        file["lr"][:] = file["lr"][:] + np.float32(1e-4)
    only(healthy / "model_3.h5", "shared_truth", "warning", [0, 1, 2], same)


# --- files ---------------------------------------------------------------------------------------------------------


def test_files_that_are_not_ours_are_refused(healthy, tmp_path):
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(LensphysError, match="is not an HDF5 file"):
        diagnose(tmp_path / "text.h5")
    with pytest.raises(LensphysError, match="lens file not found: .*nothing.h5"):
        diagnose(healthy / "model_3.h5", [tmp_path / "nothing.h5"])


def test_an_empty_file(spoilt):
    def change(file):
        for name in file:
            shape = file[name].shape[1:]
            replace(file, name, np.zeros((0, *shape), dtype="S1" if name == "lens_model" else np.float32))

    assert [f.name for f in diagnose(spoilt(change))] == ["empty"]


def test_findings_do_not_depend_on_the_size_of_a_chunk(spoilt, monkeypatch):
    path = spoilt(lambda file: (put("lr", ([2, 7], 0, 3, 3), np.nan)(file), put("flux_scale", 4, 0.5)(file)))
    whole = diagnose(path)
    monkeypatch.setattr(doctor_module, "_ROWS", 5)
    assert diagnose(path) == whole


def lensphys(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_command(healthy, spoilt, tmp_path):
    code, text = lensphys("doctor", healthy / "model_3.h5")
    assert code == 0 and "0 errors, 0 warnings, 2 notes" in text
    path = spoilt(lambda file: (put("lr", 3, np.nan)(file), put("axion_mass", AXION, np.nan)(file)))
    code, text = lensphys("doctor", path, healthy / "model_2.h5", "--json", tmp_path / "findings.json")
    assert code == 1 and "1 error, 1 warning, 2 notes" in text
    assert "error not_finite: LR images with NaN or infinite pixels (672 each) [1 image: 3]; mask or drop them" in text
    written = json.loads((tmp_path / "findings.json").read_text())["findings"]
    assert [f["severity"] for f in written] == ["error", "warning", "note", "note"] and written[0]["first"] == [3]
    assert lensphys("doctor", spoilt(put("axion_mass", AXION, np.nan)))[0] == 0
    code, text = lensphys("doctor", tmp_path / "nothing.h5")
    assert code == 2 and "error: lens file not found" in text
