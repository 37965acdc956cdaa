"""Metrics against scikit-image and analytic cases; statistics, tables, figures, and evaluations of a fake file."""

from __future__ import annotations

import json
import math
import weakref
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from lensphys.basics.checks import LensphysError
from lensphys.data.lens_file import LensFile
from lensphys.evaluation import metrics
from lensphys.evaluation.evaluate import Judging, evaluate
from lensphys.evaluation.statistics import summary
from lensphys.evaluation.tables import metrics_table, read_metrics, replace_between_markers
from lensphys.methods import READY
from lensphys.model import SIS, Sersic
from lensphys.observation import Instrument
from lensphys.prediction import Prediction, Verdict
from lensphys.simulation.recipe import Recipe
from lensphys.simulation.writer import simulate
from lensphys.tracing.deflection import DeflectionField

SHAPE = (24, 20)  # LR rows and columns


def images(seed: int = 0, batch: int = 2, height: int = 24, width: int = 20) -> torch.Tensor:
    return torch.rand(batch, 1, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_both_protocols_are_scikit_image_on_their_normalised_images():
    target = 7 * images(0) + 2
    image = target + 0.3 * images(1) - 0.1
    found = metrics.flux_protocol(image, target) | metrics.seed_protocol(image, target)
    for k in range(2):
        a, b = image[k, 0].numpy(), target[k, 0].numpy()
        stretched = (a - a.min()) / np.ptp(a), (b - b.min()) / np.ptp(b)
        normalised = {"flux": (a / b.max(), b / b.max()), "seed": stretched}
        for protocol, (x, y) in normalised.items():
            psnr, ssim = peak_signal_noise_ratio(y, x, data_range=1), structural_similarity(y, x, data_range=1)
            assert found[f"psnr_{protocol}"][k].item() == pytest.approx(psnr, abs=1e-9)
            assert found[f"ssim_{protocol}"][k].item() == pytest.approx(ssim, abs=1e-12)
            assert found[f"mse_{protocol}"][k].item() == pytest.approx(np.mean((x - y) ** 2), rel=1e-12)


def test_a_known_offset_has_a_known_score():
    target = images()
    target = target / target.flatten(1).amax(1)[:, None, None, None] * 50
    image = target + 0.5  # 1 % of the peak
    assert torch.allclose(
        metrics.flux_protocol(image, target)["psnr_flux"], torch.full((2,), 40.0, dtype=torch.float64)
    )
    assert torch.allclose(metrics.flux_protocol(image, target)["mse_flux"], torch.full((2,), 1e-4, dtype=torch.float64))
    # the seed protocol is blind to offset and gain: that is why the flux protocol comes first
    assert bool((metrics.seed_protocol(3 * image, target)["mse_seed"] < 1e-25).all())


def test_equal_images_have_infinite_psnr_and_ssim_one():
    found = metrics.flux_protocol(images(), images().numpy())
    assert found["psnr_flux"].tolist() == [math.inf, math.inf]
    assert found["ssim_flux"].tolist() == [1.0, 1.0]


def test_one_nan_spoils_only_its_own_image():
    target, image = images(0), images(1)
    image[0, 0, 3, 3] = math.nan
    for found in (metrics.flux_protocol(image, target), metrics.seed_protocol(image, target)):
        for name, x in found.items():
            assert torch.isnan(x).tolist() == [True, False], name


def test_flux_bias_and_min_max():
    target = images()
    assert metrics.flux_bias(1.02 * target, target).tolist() == pytest.approx([0.02, 0.02])
    assert metrics.normalise_min_max(torch.full((1, 1, 4, 3), 2.5)).abs().max() == 0  # constant: not NaN


def test_alpha_error_counts_only_where_the_arc_shines():
    target, light = torch.zeros(2, 2, 6, 5), torch.zeros(2, 1, 6, 5)
    alpha = torch.full((2, 2, 6, 5), 9.0)  # far off in the dark
    light[:, :, 2, 3], light[:, :, 0, 0] = 4.0, -1.0  # negative light has no weight
    alpha[:, 0, 2, 3], alpha[:, 1, 2, 3] = 0.3, 0.4
    assert metrics.alpha_error(alpha, target, light).tolist() == pytest.approx([0.5, 0.5], rel=1e-6)


def test_an_honest_error_bar_covers_68_percent_of_the_arc():
    target = images(0, 2, 100, 120)
    noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    dark = target < 0.05 * target.flatten(1).amax(1)[:, None, None, None]
    image = target + 0.02 * noise + dark * 9.0  # what lies outside of the arc does not count
    found = metrics.coverage(image, torch.full_like(target, 0.02), target)
    # 11400 pixels: a scatter of 0.0044
    assert found["coverage"].tolist() == pytest.approx([0.6827] * 2, abs=0.015)
    assert found["sigma_ratio"].tolist() == pytest.approx([1.0] * 2, abs=0.03)
    twice = metrics.coverage(image, torch.full_like(target, 0.04), target)
    assert twice["coverage"].tolist() == pytest.approx([0.9545] * 2, abs=0.01)
    assert twice["sigma_ratio"].tolist() == pytest.approx([0.5] * 2, abs=0.015)


def test_an_error_bar_that_is_nan_is_neither_right_nor_wrong():
    target, sigma = images(), torch.full_like(images(), 0.02)
    sigma[1, 0, target[1, 0] > 0.9] = math.nan
    found = metrics.coverage(target, sigma, target)
    assert found["coverage"][0] == 1 and math.isnan(found["coverage"][1]) and math.isnan(found["sigma_ratio"][1])
    with pytest.raises(LensphysError, match="sigma and target must have the same shape"):
        metrics.coverage(target, sigma[:, :, :5], target)


def test_metrics_refuse_what_does_not_fit():
    small, dark = images(0, 2, 6), images() * torch.tensor([1.0, 0.0])[:, None, None, None]
    field, turned, light = torch.zeros(1, 2, 6, 5), torch.zeros(1, 2, 5, 6), torch.zeros(1, 1, 6, 5)
    for call, message in (
        (
            lambda: metrics.flux_protocol(small, images()),
            r"image and target must have the same shape, got \(2, 1, 6, 20\)",
        ),
        (lambda: metrics.mse(images()[0, 0], images()), r"image must have the shape \(B, 1, H, W\), got \(24, 20\)"),
        (lambda: metrics.flux_protocol(images(), dark), "1 of 2 target images have no positive pixel"),
        (lambda: metrics.ssim(small, small), r"7 x 7 pixels or more, got \(6, 20\)"),
        (lambda: metrics.alpha_error(field, turned, light), "alpha and true alpha must have the same shape"),
        (lambda: metrics.alpha_error(field, field, turned[:, :1]), "alpha and light must have the same shape"),
    ):
        with pytest.raises(LensphysError, match=message):
            call()


def test_the_interval_covers_the_true_mean_as_often_as_it_says():
    random = np.random.default_rng(1)
    inside = 0
    for trial in range(200):
        found = summary(random.exponential(2.0, size=60), seed=trial)
        inside += found["low"] <= 2.0 <= found["high"]
    # 95 % nominal; the percentile bootstrap of a skewed sample of 60 covers 93 %, with a binomial scatter of 1.8 %
    assert 0.87 <= inside / 200 <= 0.98


def test_summary_leaves_out_and_counts_what_is_not_finite():
    found = summary([1.0, 3.0, None, math.nan, math.inf])
    assert (found["mean"], found["n"], found["missing"]) == (2.0, 2, 3)
    assert found["std"] == pytest.approx(math.sqrt(2))
    assert summary([None]) == {"mean": None, "std": None, "low": None, "high": None, "n": 0, "missing": 1}
    assert summary([4.0])["low"] == summary([4.0])["high"] == 4.0
    x = np.arange(30.0)
    assert summary(x, seed=1) == summary(x, seed=1) != summary(x, seed=2)


class FakeFile:
    """Six noisy SIS lenses of two classes in the interface of a `LensFile`; in counts when ``scale`` is not 1."""

    instrument = Instrument.named("model_3")
    upscale = 2
    classes = ("no_sub", "cdm")
    path = "fake.h5"

    def __init__(self, scale: float = 1.0, missing: tuple[str, ...] = (), noise: float = 0.02):
        self.labels = np.array([0, 1, 0, 1, 0, 1])
        n = len(self.labels)
        low = self.instrument.camera(*SHAPE)
        self.theta_E = torch.linspace(0.45, 0.55, n, dtype=torch.float64)
        self.source = Sersic(amp=40.0, R_sersic=0.12, n_sersic=1.0, center_x=0.1)
        field = self.deflection(low.at(2).grid)
        hr, lr = (camera.render(self.source, field) for camera in (low.at(2), low))
        generator = torch.Generator().manual_seed(0)
        self.tables = {
            "hr_clean": hr[:, 0],
            "hr": hr[:, 0] + noise * torch.randn(hr[:, 0].shape, generator=generator, dtype=torch.float64),
            "lr_clean": lr[:, 0],
            "alpha_hr": field.alpha,
            "flux_scale": torch.full((n,), scale, dtype=torch.float64),
            "theta_E": self.theta_E,
        }
        self.image = scale * self.instrument.noise_of(lr).sample(lr, generator)
        for name in missing:
            del self.tables[name]

    def deflection(self, grid, factor: float = 1.0, index=slice(None)) -> DeflectionField:
        return DeflectionField.from_lens(SIS(theta_E=factor * self.theta_E[index]), grid, like=self.theta_E)

    def __len__(self) -> int:
        return len(self.labels)

    def has(self, name: str) -> bool:
        return name in self.tables

    def lr(self, index) -> torch.Tensor:
        return self.image[index].float()

    def observation(self, index, device="cpu"):
        return self.instrument.observation(self.lr(index).to(device))

    def read(self, name: str, index) -> np.ndarray:
        if name not in self.tables:
            raise LensphysError(f"no dataset {name}")
        return self.tables[name][index].numpy().astype(np.float32)


class Bicubic:
    def predict(self, observation, scale):
        assert not torch.is_grad_enabled()  # methods may do something else in training
        image = F.interpolate(observation.image, scale_factor=scale, mode="bicubic") / scale**2
        return Prediction(image, observation.camera.at(scale), observation.image)


class Coarse(Bicubic):
    def predict(self, observation, scale):
        return super().predict(observation, 1)


class Oracle:
    """Knows the lens up to a factor in theta_E; must be asked in the order of the file."""

    def __init__(self, file: FakeFile, factor: float = 1.0):
        self.file, self.factor, self.seen = file, factor, 0

    def predict(self, observation, scale):
        index = slice(self.seen, self.seen + len(observation))
        self.seen += len(observation)
        camera = observation.camera.at(scale)
        field = self.file.deflection(camera.grid, self.factor, index)
        unit = self.file.tables["flux_scale"][0]
        theta_E = self.factor * self.file.theta_E[index]
        image, observed = (unit * c.render(self.file.source, field) for c in (camera, observation.camera))
        sigma = torch.full_like(image, 0.01 * float(unit))
        return Prediction(image, camera, observed, field, self.file.source, {"theta_E": theta_E}, sigma=sigma)


def test_an_oracle_beats_bicubic_and_the_numbers_are_right():
    file = FakeFile()
    found = evaluate(Oracle(file, 1.01), file, Judging(batch_size=4, seed=3), name="oracle", baseline=Bicubic())
    ours, bicubic = found.values["method"], found.values["baseline"]
    assert (ours["psnr_flux"] > bicubic["psnr_flux"] + 3).all()
    assert ours["theta_E_error"] == pytest.approx(np.full(6, 0.01), abs=1e-6)
    # an SIS deflects by theta_E everywhere, so its error is 1 % of theta_E wherever one looks
    assert ours["alpha_error"] == pytest.approx(0.01 * file.theta_E.numpy(), rel=1e-4)
    assert not {"alpha_error", "theta_E_error", "coverage"} & set(bicubic)
    image = Oracle(file, 1.01).predict(file.observation(slice(0, 6)), 2).image
    expected = metrics.flux_protocol(image, file.tables["hr_clean"][:, None])
    assert ours["psnr_flux"] == pytest.approx(expected["psnr_flux"].numpy(), abs=1e-3)  # the file is float32


def test_the_truth_has_chi2_one_and_no_flux_bias():
    file = FakeFile()
    found = evaluate(Oracle(file), file, name="oracle")
    ours, ceiling = found.values["method"], found.values["ceiling"]
    # 480 pixels: a scatter of sqrt(2 / 480) = 0.065 an image, 0.026 for the mean of six
    assert ours["chi2_dof"].mean() == pytest.approx(1, abs=0.1)
    assert ceiling["chi2_dof"] == pytest.approx(ours["chi2_dof"], rel=1e-3)
    assert np.abs(ours["flux_bias"]).max() < 1e-5
    assert ours["psnr_seed"] == pytest.approx(ceiling["psnr_seed"], abs=1e-2)
    assert "psnr_flux" not in ceiling and "baseline" not in found.values


def test_counts_are_judged_in_flux_units():
    flux, counts = FakeFile(), FakeFile(scale=500.0)
    # the noise law of the instrument is in flux units, so only metrics of the SR image can agree
    one = evaluate(Oracle(flux, 1.02), flux, name="a").values["method"]
    other = evaluate(Oracle(counts, 1.02), counts, name="a").values["method"]
    for metric in ("psnr_flux", "ssim_flux", "psnr_seed", "flux_bias", "alpha_error", "coverage", "sigma_ratio"):
        assert other[metric] == pytest.approx(one[metric], rel=1e-4, abs=1e-6), metric


def test_limit_is_a_number_of_images_of_each_class():
    found = evaluate(Bicubic(), FakeFile(), Judging(limit=2, batch_size=3), name="bicubic")
    assert found.index.tolist() == [0, 1, 2, 3]
    assert found.tree()["images"] == {"no_sub": 2, "cdm": 2, "all": 4}


def test_evaluation_refuses_what_it_cannot_judge():
    file = FakeFile()
    with pytest.raises(LensphysError, match="images of each class must be a whole number of 1 or more, got 0"):
        evaluate(Bicubic(), file, Judging(limit=0), name="bicubic")
    with pytest.raises(LensphysError, match="batch_size must be a whole number of 1 or more, got 0"):
        evaluate(Bicubic(), file, Judging(batch_size=0), name="bicubic")
    file.labels = np.zeros(0, int)
    with pytest.raises(LensphysError, match="holds no images to evaluate"):
        evaluate(Bicubic(), file, name="bicubic")
    with pytest.raises(LensphysError, match="image and target must have the same shape"):
        evaluate(Coarse(), FakeFile(), name="coarse")


def test_without_truth_there_is_still_chi2(tmp_path):
    file = FakeFile(missing=("hr", "hr_clean", "lr_clean", "alpha_hr", "flux_scale", "theta_E"))
    found = evaluate(Bicubic(), file, name="bicubic")
    assert set(found.values["method"]) == {"chi2_dof", "seconds"}
    found.write(tmp_path, {})
    assert (tmp_path / "figures" / "samples.png").stat().st_size > 5000
    assert "chi^2" in (tmp_path / "table.md").read_text()


def test_write_gives_valid_json_a_table_samples_and_figures(tmp_path):
    file = FakeFile(noise=0.0)
    found = evaluate(Oracle(file), file, name="oracle", data="set A", baseline=Bicubic())
    found.values["method"]["psnr_flux"][0] = math.nan  # a fit that diverged
    found.write(tmp_path, {"commit": "abc"})

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    tree = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=refuse)
    assert tree["provenance"] == {"commit": "abc"} and tree["data"] == "set A"
    assert set(tree["results"]) == {"method", "baseline", "ceiling"}
    cell = tree["results"]["baseline"]["cdm"]["psnr_flux"]
    values = found.values["baseline"]["psnr_flux"][found.labels == 1]
    assert cell["mean"] == pytest.approx(values.mean()) and cell["n"] == 3 and cell["low"] < cell["mean"] < cell["high"]
    assert tree["results"]["ceiling"]["all"]["psnr_seed"]["mean"] is None
    assert tree["median_seconds_per_image"]["method"] > 0

    table = (tmp_path / "table.md").read_text()
    assert table.splitlines()[0] == "| metric | image | no_sub | cdm | all |"
    assert "| 68 % interval covers | oracle | 1.000 [1.000, 1.000] |" in table
    assert "no noise" in table and "oracle: 1 of 6 images gave no finite PSNR" in table
    assert len({line.count("|") for line in table.splitlines() if line.startswith("|")}) == 1

    saved = np.load(tmp_path / "samples.npz")
    assert np.array_equal(saved["baseline/psnr_flux"], found.values["baseline"]["psnr_flux"])
    assert saved["label"].tolist() == [0, 1, 0, 1, 0, 1]
    for name in ("samples", "psnr_flux", "psnr_seed"):
        path = tmp_path / "figures" / f"{name}.png"
        assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 5000
    assert not [p for p in tmp_path.rglob("*") if p.name.endswith(".tmp")]


class Frank(Bicubic):
    """Calls images bad that are dim, and says why."""

    def __init__(self, bright: float) -> None:
        self.bright = bright

    def predict(self, observation, scale):
        dim = (observation.image.flatten(1).amax(1) < self.bright).tolist()
        verdicts = [Verdict("bad", ("chi^2 is 9", "it is dim")) if d else Verdict("good") for d in dim]
        return replace(super().predict(observation, scale), verdicts=verdicts)


def test_what_a_method_says_of_itself_is_counted_and_written_a_line_a_lens(tmp_path):
    file = FakeFile()
    file.image[[1, 4]] *= 0.5
    found = evaluate(
        Frank(0.7 * float(file.image[0].amax())), file, Judging(batch_size=4), name="judging", baseline=Bicubic()
    )
    lines = ["image 1 (cdm): bad (chi^2 is 9; it is dim)", "image 4 (no_sub): bad (chi^2 is 9; it is dim)"]
    assert found.quality == ["quality: 4 good, 0 suspect, 2 bad", *(f"  {line}" for line in lines)]
    found.write(tmp_path, {})
    written = (tmp_path / "verdicts.txt").read_text().splitlines()
    assert written[:2] == lines and written[2:] == [f"image {i} ({c}): good" for i, c in
                                                    ((0, "no_sub"), (2, "no_sub"), (3, "cdm"), (5, "cdm"))]  # fmt: skip
    tree = json.loads((tmp_path / "metrics.json").read_text())
    assert tree["verdicts"] == {"good": 4, "suspect": 0, "bad": 2}
    assert tree["results"]["method"]["cdm"]["bad"]["mean"] == pytest.approx(1 / 3)
    assert "| call themselves bad | judging | 33.3% [" in (tmp_path / "table.md").read_text()


def test_a_method_that_does_not_judge_itself_is_said_to_be_so(tmp_path):
    found = evaluate(Bicubic(), FakeFile(), name="bicubic")
    assert found.quality == ["quality: this method does not judge its own result"]
    found.write(tmp_path, {})
    assert not (tmp_path / "verdicts.txt").exists() and "call themselves" not in (tmp_path / "table.md").read_text()


def test_rows_are_judged_alone():
    file = FakeFile()
    whole = evaluate(Bicubic(), file, name="bicubic")
    found = evaluate(Bicubic(), file, Judging(rows=np.array([1, 2, 5]), batch_size=2), name="bicubic")
    assert found.index.tolist() == [1, 2, 5] and found.labels.tolist() == [1, 0, 1]
    for metric in ("psnr_flux", "chi2_dof"):
        assert np.array_equal(found.values["method"][metric], whole.values["method"][metric][[1, 2, 5]])
    limited = evaluate(Bicubic(), file, Judging(rows=np.array([1, 2, 5]), limit=1), name="bicubic")
    assert limited.index.tolist() == [1, 2]


def test_images_that_show_nothing_are_named_and_left_out():
    file = FakeFile()
    file.image[2], file.image[3, 0, 1, 1], file.tables["hr_clean"][4] = 0, math.nan, 0
    found = evaluate(Bicubic(), file, Judging(batch_size=2), name="bicubic")
    assert found.index.tolist() == [0, 1, 5] and len(found.values["method"]["psnr_flux"]) == 3
    assert found.unusable == {2: "is 0 everywhere", 3: "has NaN or infinite pixels", 4: "has no light in /hr_clean"}
    with pytest.raises(LensphysError, match="none of the 2 images can be judged, image 2 is 0 everywhere"):
        evaluate(Bicubic(), file, Judging(rows=np.array([2, 3])), name="bicubic")


def test_no_image_stays_in_memory():
    """Only arrays of one number an image are kept, made at once: nothing grows from batch to batch."""

    class Counting(Bicubic):
        alive: ClassVar[list] = []

        def predict(self, observation, scale):
            made = super().predict(observation, scale)
            self.alive.append((weakref.ref(made.image), weakref.ref(observation.image)))
            return made

    found = evaluate(Counting(), FakeFile(), Judging(batch_size=1), name="counting")
    assert len(Counting.alive) == 6 and not any(ref() is not None for pair in Counting.alive for ref in pair)
    assert all(x.base is None and x.shape == (6,) for x in found.values["method"].values())


def test_a_damaged_truth_is_an_error_and_not_a_missing_metric():
    class Damaged(FakeFile):
        def read(self, name, index):
            if name == "hr_clean" and not isinstance(index, slice):
                raise LensphysError("/hr_clean is damaged")
            return super().read(name, index)

    with pytest.raises(LensphysError, match="hr_clean is damaged"):
        evaluate(Bicubic(), Damaged(), name="bicubic")


def result(data: str, name: str, psnr: float, baseline: float = 50.0) -> dict:
    def of(mean):
        return {"no_sub": {"psnr_flux": summary([mean, mean])}, "all": {"psnr_flux": summary([mean, mean])}}

    names = {"method": name, "baseline": "bicubic", "ceiling": "ceiling"}
    results = {"method": of(psnr), "baseline": of(baseline), "ceiling": {"no_sub": {}, "all": {}}}
    return {"data": data, "classes": ["no_sub"], "names": names, "results": results}


def test_metrics_table_text():
    assert metrics_table(result("A", "fit", 60.0)) == (
        "| metric | image | no_sub | all |\n"
        "| --- | --- | --- | --- |\n"
        "| PSNR, flux protocol [dB] | fit | 60.00 [60.00, 60.00] | 60.00 [60.00, 60.00] |\n"
        "|  | bicubic | 50.00 [50.00, 50.00] | 50.00 [50.00, 50.00] |\n"
    )


def test_read_metrics_refuses_other_files(tmp_path):
    with pytest.raises(LensphysError, match="metrics file not found"):
        read_metrics(tmp_path / "none.json")
    path = tmp_path / "a.json"
    for text, message in (("{", "is not valid JSON"), ("[]", "is not the metrics.json of an evaluation")):
        path.write_text(text)
        with pytest.raises(LensphysError, match=message):
            read_metrics(path)


def test_replace_between_markers():
    text = "# A\n<!-- table:a -->\nold\n<!-- /table -->\nmid \\1\n<!-- table:b --><!-- /table -->\nend"
    once = replace_between_markers(text, "b", "| new \\g<0> |\n")
    assert once == text.replace("<!-- table:b --><!--", "<!-- table:b -->\n| new \\g<0> |\n<!--")
    assert replace_between_markers(once, "b", "| new \\g<0> |") == once
    for faulty in ("none", "<!-- table:a --> open", "<!-- table:a --><!-- table:b --><!-- /table -->", text + text):
        with pytest.raises(LensphysError, match="must hold <!-- table:a --> followed by <!-- /table -->, once"):
            replace_between_markers(faulty, "a", "new")


class Counting:
    """A fit with a verdict, that counts its batches and is stopped after some."""

    def __init__(self, stops_after: int = 100) -> None:
        self.batches, self.stops_after = 0, stops_after

    def predict(self, observation, scale):
        if self.batches == self.stops_after:
            raise KeyboardInterrupt
        self.batches += 1
        found = READY["bicubic"].predict(observation, scale)
        return replace(found, verdicts=[Verdict("suspect", ("a; b", "c"))] * len(observation))


def test_an_interrupted_evaluation_goes_on_where_it_was(tmp_path):
    """Batches that are done are not judged again, but for those of which an image is shown: 0 and 1 of 0 to 5."""
    path = simulate(Recipe.named("model_3", ["height=16", "width=16"]), 4, tmp_path / "a.h5", seed=1)
    place, second, other = tmp_path / ".parts", Counting(), Counting()
    with LensFile(path) as file:
        whole = evaluate(Counting(), file, Judging(batch_size=2), name="x")
        with pytest.raises(KeyboardInterrupt):
            evaluate(Counting(stops_after=4), file, Judging(batch_size=2), name="x", beside=place, origin={"a": 1})
        found = evaluate(second, file, Judging(batch_size=2), name="x", beside=place, origin={"a": 1})
        evaluate(other, file, Judging(batch_size=2), name="x", beside=place, origin={"a": 2})
    assert (second.batches, other.batches) == (4, 6)
    for role, values in whole.values.items():
        for name in values.keys() - {"seconds"}:
            np.testing.assert_array_equal(found.values[role][name], values[name])
    assert found.verdicts == whole.verdicts and len(found.samples) == 3


@pytest.mark.parametrize("place", ["samples.npz", "table.md", "metrics.json", "figures"])
def test_what_was_kept_of_the_batches_goes_once_all_is_written(tmp_path, place):
    """A run that ends while it writes its tables judges only the batches anew of which an image is shown."""
    path = simulate(Recipe.named("model_3", ["height=16", "width=16"]), 4, tmp_path / "a.h5", seed=1)
    parts, out, second = tmp_path / ".parts", tmp_path / "out", Counting()
    with LensFile(path) as file:

        def judged(method):
            return evaluate(method, file, Judging(batch_size=2), name="x", beside=parts)

        out.mkdir()
        full = out / place  # where nothing can be written
        full.write_text("") if place == "figures" else full.mkdir()
        with pytest.raises((LensphysError, OSError)):
            judged(Counting()).write(out, {})
        full.unlink() if place == "figures" else full.rmdir()
        judged(second).write(out, {})
    assert second.batches == 2 and (out / "metrics.json").is_file() and not parts.exists()
