"""The command line as a user meets it: the whole job on tiny data, and one clear sentence for each mistake."""

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import yaml
from astropy.io import fits
from typer.testing import CliRunner

import lensphys as lp
from lensphys.cli import app, base
from lensphys.cli.listing import LISTS, lists
from lensphys.data.lens_file import LensFile

ROOT = Path(__file__).parents[1]
TINY = ["--set", "height=32", "--set", "width=32", "--classes", "no_sub,cdm"]
EXPERIMENT = {
    "data": {"recipe": "model_3", "n": 10, "classes": ["no_sub", "cdm"], "set": ["height=32", "width=32"]},
    "method": {
        "name": "physics",
        "network": {"name": "pyramid", "channels": 4, "levels": 2},
        "head": {"radial_low": 0.3, "gain": 0.0},
        "source": "joint",
        "loss": {"observation": {"form": "log"}, "variation_density": {}},
    },
    "training": {"epochs": 1, "batch_size": 6, "accelerator": "cpu"},
}


def lensphys(*arguments: object) -> tuple[int, str]:
    """Exit code and all that was printed."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def refused(*arguments: object) -> str:
    """The one sentence that a faulty command gets, with exit code 2."""
    code, output = lensphys(*arguments)
    assert code == 2, output
    sentences = [line for line in output.splitlines() if line.startswith("error: ")]
    assert len(sentences) == 1, output
    assert "Traceback" not in output
    return sentences[0]


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A folder with a tiny data set and a trained run."""
    folder = tmp_path_factory.mktemp("work")
    assert lensphys("simulate", "model_3", "-n", 3, "-o", folder / "test.h5", "--set", "hr_noise=true", *TINY)[0] == 0
    (folder / "experiment.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    assert lensphys("train", folder / "experiment.yaml", "-o", folder / "run")[0] == 0
    return folder


@pytest.fixture(scope="module")
def known(tmp_path_factory) -> Path:
    """Two lenses of the field of view that the shipped weights know: the tiny ones are fitted."""
    path = tmp_path_factory.mktemp("known") / "test.h5"
    assert lensphys("simulate", "model_3", "-n", 1, "-o", path, "--classes", "no_sub,cdm")[0] == 0
    return path


@pytest.fixture(scope="module")
def default_fits(work) -> tuple[Path, str]:
    """An image super-resolved without a choice of method, with the image beside it, and what the command said."""
    folder = work / "default"
    folder.mkdir()
    with LensFile(work / "test.h5") as lenses:
        fits.PrimaryHDU(lenses.lr()[0, 0].numpy()).writeto(folder / "a.fits")
    out = folder / "b.fits"
    code, output = lensphys("super-resolve", folder / "a.fits", "-o", out, "--instrument", "model_3")
    assert code == 0, output
    return out, output


@pytest.fixture(scope="module")
def default_stack(work) -> tuple[Path, str]:
    """Three images super-resolved without a choice of method, the second of them noise alone, and what was said."""
    folder = work / "stack"
    folder.mkdir()
    with LensFile(work / "test.h5") as lenses:
        stack = lenses.lr()[:3, 0].numpy()
    stack[1] = np.random.default_rng(0).normal(0, stack.std() / 1000, stack[1].shape)
    np.save(folder / "a.npy", stack)
    out = folder / "o.npz"
    code, output = lensphys("super-resolve", folder / "a.npy", "-o", out, "--instrument", "model_3")
    assert code == 0, output
    return out, output


@pytest.mark.parametrize("command", [[], ["simulate"], ["train"], ["evaluate"], ["super-resolve"], ["list"], ["demo"]])
def test_every_command_explains_itself(command):
    code, output = lensphys(*command, "--help")
    assert code == 0
    assert "Usage" in output
    if command and command[0] in ("simulate", "train", "evaluate", "super-resolve"):
        assert "Examples" in output


def test_list_names_everything():
    code, output = lensphys("list")
    assert code == 0
    words = ("model_1", "model_2", "model_3", "pyramid", "residual", "srresnet", "bicubic", "fit", "refine", "physics")
    for word in (*words, "parameters"):
        assert word in output
    assert "model_1" not in lensphys("list", "networks")[1]
    described = r"model_3 +legacy Model 3.* LR images, pixels of 0\.08\", .*; .* parameters, .* MB"
    assert re.search(described, lensphys("list", "weights")[1])
    assert "unknown kind 'telescope'" in refused("list", "telescope")


def test_the_lists_are_those_of_the_registries_and_need_no_torch():
    assert json.loads(LISTS.read_text()) == lists(), "run python docs/generate.py"
    code = (
        "import sys; from lensphys.cli import app; app(['list'], standalone_mode=False); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "refine" in done.stdout and done.stdout.splitlines()[-1] == "False", done.stderr


def test_simulate_writes_what_was_asked(work):
    with LensFile(work / "test.h5") as lenses:
        assert len(lenses) == 6 and lenses.grid_lr.shape == (32, 32)


def test_evaluate_a_run_and_a_method(work, tmp_path):
    for arguments in ([work / "run"], ["--method", "fit"]):
        out = ["-o", tmp_path / "out", "--overwrite"]
        code, output = lensphys("evaluate", *arguments, "--data", work / "test.h5", "--rows", ":2", *out)
        assert code == 0, output
        metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
        assert metrics["results"]["method"]["no_sub"]["psnr_flux"]["mean"] > 20
        assert "PSNR" in (tmp_path / "out" / "table.md").read_text()
        assert len(list((tmp_path / "out" / "figures").glob("*.png"))) >= 2


@pytest.mark.parametrize("how", ["run", "fit", "bicubic"])
def test_super_resolve_our_own_file(work, tmp_path, how):
    option = ["--run", work / "run"] if how == "run" else ["--method", how]
    code, output = lensphys("super-resolve", work / "test.h5", "-o", tmp_path / "o.h5", *option)
    assert code == 0, output
    with h5py.File(tmp_path / "o.h5") as out, LensFile(work / "test.h5") as lenses:
        assert out["image"].shape == (6, 1, 64, 64)
        flux = lenses.lr()[:, 0].sum((1, 2)).numpy()
        np.testing.assert_allclose(out["image"][:].sum((1, 2, 3)), flux, rtol=0.02)
        assert ("alpha" in out) == (how != "bicubic")
        assert "sigma" not in out


@pytest.mark.parametrize("refine", [pytest.param(None, marks=pytest.mark.slow), 0, 1])
def test_super_resolve_with_weights(work, known, tmp_path, refine):
    with LensFile(known if refine == 0 else work / "test.h5") as lenses:
        size = 2 * lenses.grid_lr.width
        np.save(tmp_path / "a.npy", lenses.lr()[:1, 0].numpy())
    how = ["--weights", "model_3", *([] if refine is None else ["--refine", refine])]
    code, output = lensphys("super-resolve", tmp_path / "a.npy", "-o", tmp_path / "o.npz", *how)
    assert code == 0, output
    assert "no PSF" not in output  # the weights know their instrument
    with np.load(tmp_path / "o.npz") as made:
        assert made["image"].shape == made["sigma"].shape == made["constrained"].shape == (1, size, size)
        assert np.isfinite(made["image"]).all() and (made["sigma"] > 0).all()
        assert all(("from scratch" in reason) == (refine != 0) for reason in made["reasons"])
        assert made["subhalos"].shape == (1,)
        named = {None: "refined", 0: "one pass", 1: "refined 1 x"}[refine]
        assert json.loads(str(made["provenance"]))["method"] == f"model_3 weights, {named}"


def test_without_a_choice_each_image_is_refined(default_fits):
    with fits.open(default_fits[0]) as hdus:
        assert hdus["SIGMA"].data.shape == hdus["CONSTRAINED"].data.shape == (64, 64)
        assert (hdus["SIGMA"].data > 0).all() and hdus[0].header["SUBHALOS"] >= 0
        assert 'lensphys method: "refine"' in str(hdus[0].header["HISTORY"])


def test_fits_tells_all_parameters_and_whether_to_trust_them(default_fits):
    out, output = default_fits
    with fits.open(out) as hdus:
        header, table = hdus[0].header, hdus["PARAMETERS"].data
        assert header["QUALITY"] in ("good", "suspect", "bad")
        assert (header["REASONS"] == "none") == (header["QUALITY"] == "good")
        assert f"quality: {header['QUALITY']}" in output
        if header["QUALITY"] != "good":
            assert header["REASONS"] in output
        rows = {row["NAME"]: row for row in table}
        units = {"lens.theta_E": "arcsec", "shear.gamma1": "", "source.amp": "flux / arcsec^2", "source.n_sersic": ""}
        units |= {"source_flux": "flux", "theta_E_total": "arcsec", "source_radius": "arcsec", "magnification": ""}
        for name, unit in units.items():
            assert rows[name]["UNIT"] == unit, name
            assert np.isfinite(rows[name]["VALUE"]) and rows[name]["ERROR"] > 0, name
        assert rows["lens.theta_E"]["VALUE"] == pytest.approx(header["THETA_E"])
        assert rows["lens.theta_E"]["ERROR"] < 0.1 * rows["lens.theta_E"]["VALUE"]
        assert ("SUBHALOS" in [hdu.name for hdu in hdus]) == (header["SUBHALOS"] > 0)


def test_a_stack_tells_all_parameters_and_whether_to_trust_them(default_stack):
    out, output = default_stack
    with np.load(out) as made:
        names = made["parameter_names"].tolist()
        assert made["parameters"].shape == made["errors"].shape == (3, len(names))
        assert made["parameter_units"].shape == (len(names),)
        assert {"lens.theta_E", "shear.gamma2", "source.center_x", "theta_E_total", "magnification"} <= set(names)
        index = names.index("lens.theta_E")
        assert made["parameters"][0, index] == pytest.approx(made["theta_E"][0])
        assert 0 < made["errors"][0, index] < 0.1
        assert made["bodies"].shape == (3, made["bodies"].shape[1], len(made["body_columns"]))
        found = np.isfinite(made["bodies"]).all(2).sum(1)
        np.testing.assert_array_equal(found, made["subhalos"])
        assert made["quality"].tolist()[1] == "bad" and made["quality"][0] in ("good", "suspect")
        assert "nothing stands 5 sigma out of the noise" in made["reasons"].tolist()[1]
        assert (made["reasons"][0] == "") == (made["quality"][0] == "good")
    assert "quality: " in output and "1 bad" in output and "image 1: bad (nothing stands 5 sigma" in output


@pytest.mark.parametrize("how", ["bicubic", "fit"])
def test_a_method_that_cannot_judge_itself_says_so(work, tmp_path, how):
    with LensFile(work / "test.h5") as lenses:
        np.save(tmp_path / "a.npy", lenses.lr()[:1, 0].numpy())
    where = ["super-resolve", tmp_path / "a.npy", "-o", tmp_path / "o.npz", "--instrument", "model_3", "--method", how]
    code, output = lensphys(*where)
    assert code == 0, output
    assert "quality: this method does not judge its own result" in output
    with np.load(tmp_path / "o.npz") as made:
        assert not {"quality", "reasons", "parameters", "bodies"} & set(made)


def test_evaluate_weights(work, known, tmp_path):
    from lensphys.weights import weights_folder

    for how, data, name in [
        (["--weights", "model_3", "--refine", 0], known, "model_3 weights, one pass"),
        ([weights_folder("model_3"), "--refine", 1], work / "test.h5", "model_3, refined 1 x"),  # as a run of one's own
    ]:
        code, output = lensphys("evaluate", *how, "--data", data, "--rows", 0, "-o", tmp_path / "out", "--overwrite")
        assert code == 0, output
        assert name in output
        metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
        assert metrics["provenance"]["trained"]["experiment"]["method"]["name"] == "amortised"
        assert re.search(r"^quality: \d good, \d suspect, \d bad$", output, re.MULTILINE)
        assert sum(metrics["verdicts"].values()) == metrics["images"]["all"]


def test_evaluate_some_rows_and_name_what_is_left_out(work, tmp_path):
    dark = tmp_path / "dark.h5"
    shutil.copy(work / "test.h5", dark)
    with h5py.File(dark, "a") as file:
        file["lr"][1] = 0
    how = ["evaluate", "--method", "bicubic", "--data", dark, "-o", tmp_path / "out"]
    code, output = lensphys(*how, "--rows", ":3")
    assert code == 0, output
    assert f"note: image 1 of {dark} is 0 everywhere: it is left out" in output
    assert "quality: this method does not judge its own result" in output
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["images"]["all"] == 2 and metrics["left_out"] == {"1": "is 0 everywhere"}
    assert "--rows 0:9999: there are" in refused(*how, "--rows", "0:9999", "--overwrite")


def test_mistakes_with_weights(work, tmp_path):
    here = ["super-resolve", work / "test.h5", "-o", tmp_path / "o.h5"]
    one = "give one of a run folder, --weights and --method"
    assert one in refused(*here, "--weights", "model_3", "--method", "fit")
    assert one in refused(*here, "--weights", "model_3", "--run", work / "run")
    assert one in refused(*here, "--run", work / "run", "--method", "fit")
    assert "weights model_9 not found: it is no run folder, and the package has euclid_vis, " in refused(
        *here, "--weights", "model_9"
    )
    assert "--refine 1 goes on from a network's answer" in refused(*here, "--method", "fit", "--refine", 1)
    assert "from an amortised network's answer" in refused(*here, "--run", work / "run", "--refine", 1)
    code, output = lensphys(*here, "--weights", "model_3", "--refine", -1)
    assert code == 2 and "--refine" in output


@pytest.mark.slow
def test_super_resolve_a_stack_at_another_scale(work, tmp_path):
    with LensFile(work / "test.h5") as lenses:
        np.save(tmp_path / "stack.npy", lenses.lr()[:2, 0].numpy())
    stack, out = tmp_path / "stack.npy", tmp_path / "o.npz"
    code, output = lensphys("super-resolve", stack, "-o", out, "--instrument", "model_3", "--scale", 3)
    assert code == 0, output
    with np.load(out) as made:
        assert made["image"].shape == (2, 96, 96)
        assert made["alpha"].shape == (2, 2, 96, 96)
        assert made["theta_E"].shape == made["chi2"].shape == (2,)
        assert 0.7 < made["theta_E"][0] < 0.95


def test_super_resolve_fits(default_fits):
    image = fits.getdata(default_fits[0].parent / "a.fits")
    with fits.open(default_fits[0]) as hdus:
        assert hdus[0].data.shape == (64, 64)
        assert hdus[0].data.sum() == pytest.approx(image.sum(), rel=0.02)
        assert 0.7 < hdus[0].header["THETA_E"] < 0.95


def test_mistakes_in_simulate(tmp_path):
    out = tmp_path / "a.h5"
    assert "modl_3" in refused("simulate", "modl_3", "-n", 2, "-o", out)
    assert "unknown key 'hight'" in refused("simulate", "model_3", "-n", 2, "-o", out, "--set", "hight=3")
    assert "'height'" in refused("simulate", "model_3", "-n", 2, "-o", out, "--set", "height=tall")
    assert "wdm" in refused("simulate", "model_3", "-n", 2, "-o", out, "--classes", "wdm")
    assert "key=value" in refused("simulate", "model_3", "-n", 2, "-o", out, "--set", "height")
    (tmp_path / "file").write_text("")
    assert "cannot" in refused("simulate", "model_3", "-n", 1, "-o", tmp_path / "file" / "a.h5", *TINY)
    (tmp_path / "foreign.h5").write_text("hello")
    assert "foreign.h5" in refused("simulate", "model_3", "-n", 1, "-o", tmp_path / "foreign.h5", *TINY)


def test_mistakes_in_train(work, tmp_path):
    config = work / "experiment.yaml"
    assert "not found" in refused("train", tmp_path / "nowhere.yaml", "-o", tmp_path / "r")
    assert "unknown key 'training.epoch'" in refused("train", config, "-o", tmp_path / "r", "--set", "training.epoch=3")
    assert "'training.epochs'" in refused("train", config, "-o", tmp_path / "r", "--set", "training.epochs=many")
    assert "already holds a run" in refused("train", config, "-o", work / "run")
    (tmp_path / "bad.yaml").write_text("a: [1")
    assert "not valid YAML" in refused("train", tmp_path / "bad.yaml", "-o", tmp_path / "r")
    (tmp_path / "cut.h5").write_bytes((work / "test.h5").read_bytes()[:5000])
    data = "data={file: %s}" % (tmp_path / "cut.h5")
    assert "not a whole HDF5 file" in refused("train", config, "-o", tmp_path / "r", "--set", data)
    (tmp_path / "file").write_text("")
    whole = "data={file: %s}" % (work / "test.h5")
    assert "cannot write" in refused("train", config, "-o", tmp_path / "file" / "r", "--set", whole)


def test_supervised_through_the_command_line(work, tmp_path):
    network = {"name": "srresnet", "channels": 4, "blocks": 1}
    config = EXPERIMENT | {
        "method": {"name": "supervised", "network": network},
        "data": {"file": str(work / "test.h5")},
    }
    config["training"] = {"epochs": 1, "batch_size": 2, "accelerator": "cpu"}
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(config))
    assert lensphys("train", tmp_path / "e.yaml", "-o", tmp_path / "run")[0] == 0
    code, output = lensphys("super-resolve", work / "test.h5", "-o", tmp_path / "o.h5", "--run", tmp_path / "run")
    assert code == 0, output
    wrong = ["super-resolve", work / "test.h5", "-o", tmp_path / "p.h5", "--run", tmp_path / "run", "--scale", 3]
    assert "trained for a scale of 2, not 3" in refused(*wrong)


def test_a_run_knows_its_instrument(work, tmp_path):
    with LensFile(work / "test.h5") as lenses:
        np.save(tmp_path / "a.npy", lenses.lr()[:1, 0].numpy())
    code, output = lensphys("super-resolve", tmp_path / "a.npy", "-o", tmp_path / "o.npz", "--run", work / "run")
    assert code == 0, output
    assert "no PSF" not in output


def test_lr_and_hr_that_do_not_match(work, tmp_path):
    (tmp_path / "a.h5").write_bytes((work / "test.h5").read_bytes())
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        del file["hr"]
        file["hr"] = np.zeros((6, 1, 48, 48), "f4")
    message = refused("evaluate", "--method", "bicubic", "--data", tmp_path / "a.h5", "-o", tmp_path / "out")
    assert "/hr (6, 1, 48, 48) does not match /lr (6, 1, 32, 32) at 2 x" in message


def test_a_faint_image_does_not_end_the_stack(default_stack):
    out, output = default_stack
    assert "theta_E is NaN) in image 1" in output
    with np.load(out) as made:
        assert np.isfinite(made["image"]).all()
        assert np.isnan(made["theta_E"]).tolist() == [False, True, False]


def test_nan_and_an_unnormalised_psf(work, tmp_path):
    with LensFile(work / "test.h5") as lenses:
        image = lenses.lr()[0, 0].numpy()
    image[3, 4] = np.nan
    fits.PrimaryHDU(image).writeto(tmp_path / "a.fits")
    out = tmp_path / "b.fits"
    assert "--pixel-scale" in refused("super-resolve", tmp_path / "a.fits", "-o", out)
    np.save(tmp_path / "psf.npy", np.full((3, 3), 0.05, "f4"))
    psf = ["--psf", tmp_path / "psf.npy", "--instrument", "model_3"]
    assert "divide it by its sum" in refused("super-resolve", tmp_path / "a.fits", "-o", out, *psf)
    code, output = lensphys("super-resolve", tmp_path / "a.fits", "-o", out, "--instrument", "model_3")
    assert code == 0, output
    assert "mask" in output


def test_mistakes_in_evaluate(work, tmp_path):
    out = tmp_path / "out"
    assert "run folder not found" in refused("evaluate", tmp_path / "none", "--data", work / "test.h5", "-o", out)
    assert "unknown method" in refused("evaluate", "--method", "magic", "--data", work / "test.h5", "-o", out)
    assert "give a run folder, --weights or --method" in refused("evaluate", "--data", work / "test.h5", "-o", out)
    assert "not found" in refused("evaluate", "--method", "fit", "--data", tmp_path / "no.h5", "-o", out)
    here = ["--method", "fit", "--data", work / "test.h5", "-o", out]
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "out"
    message = refused("evaluate", "--method", "fit", "--data", work / "test.h5", "-o", folder)
    assert "cannot write into" in message
    assert "unknown device 'tpu'" in refused("evaluate", *here, "--device", "tpu")
    if not torch.cuda.is_available():
        assert "no GPU is available" in refused("evaluate", *here, "--device", "cuda")


def test_mistakes_in_super_resolve(work, tmp_path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).random((4, 8, 8), "f4"))
    out = tmp_path / "o.npz"
    assert ".npz" in refused("super-resolve", tmp_path / "a.npy", "-o", tmp_path / "o.fits")
    assert "--pixel-scale" in refused("super-resolve", tmp_path / "a.npy", "-o", out)
    assert "unknown instrument" in refused("super-resolve", tmp_path / "a.npy", "-o", out, "--instrument", "hubble")
    np.save(tmp_path / "rank.npy", np.ones((2, 2, 8, 8), "f4"))
    assert "(N, H, W)" in refused("super-resolve", tmp_path / "rank.npy", "-o", out, "--pixel-scale", 0.1)
    np.save(tmp_path / "zero.npy", np.zeros((1, 8, 8), "f4"))
    assert "zero" in refused("super-resolve", tmp_path / "zero.npy", "-o", out, "--pixel-scale", 0.1)
    np.save(tmp_path / "psf.npy", np.full((4, 5), 1 / 20, "f4"))
    psf = ["--psf", tmp_path / "psf.npy", "--pixel-scale", 0.1]
    assert "square" in refused("super-resolve", tmp_path / "a.npy", "-o", out, *psf)
    (tmp_path / "file").write_text("")
    assert "writ" in refused("super-resolve", tmp_path / "a.npy", "-o", tmp_path / "file" / "o.npz")


@pytest.mark.parametrize(
    "command",
    [
        # as `test_sigterm_is_ctrl_c_in_simulate`
        pytest.param(["simulate", "model_1", "-n", "20000", "-o", "big.h5"], marks=pytest.mark.slow),
        ["train", "experiment.yaml", "-o", "long", "--set", "training.epochs=9999", "--set", "training.batch_size=2"],
    ],
    ids=["simulate", "train"],
)
def test_ctrl_c_keeps_what_was_finished(work, tmp_path, command):
    config = EXPERIMENT | {"data": {"file": str(work / "test.h5")}}
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(config))
    process = subprocess.Popen(
        [sys.executable, "-m", "lensphys", *command],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    kept = tmp_path / ("big.h5.parts" if command[0] == "simulate" else "long/log.jsonl")
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (kept.is_file() or (kept.is_dir() and len(list(kept.iterdir())) > 1)):
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "interrupted" in errors and "Traceback" not in errors
    assert kept.exists()
    assert not (tmp_path / "big.h5").exists()
    if command[0] == "train":
        assert (tmp_path / "long" / "last.ckpt").exists()


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_that_a_library_makes_another_error_of_is_ctrl_c(tmp_path, monkeypatch, stop):
    """pydantic does, where it lands while models are declared: of what `evaluate` did so far, nothing is lost."""

    def declared(*args):
        try:
            os.kill(os.getpid(), stop)
            time.sleep(1.0)
        except KeyboardInterrupt as error:
            raise ValueError("SchemaError: KeyboardInterrupt:") from error

    monkeypatch.setattr("lensphys.cli.learning.device_of", declared)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    code, output = lensphys("evaluate", "--method", "bicubic", "--data", tmp_path / "a.h5", "-o", tmp_path / "out")
    signal.signal(signal.SIGINT, before)
    assert code == 130
    assert output.splitlines()[-1] == "interrupted: finished parts are kept, the same command resumes"
    with pytest.raises(ValueError, match="an error of its own"):

        def broken(*args):
            raise ValueError("an error of its own")

        monkeypatch.setattr("lensphys.cli.learning.device_of", broken)
        lensphys("evaluate", "--method", "bicubic", "--data", tmp_path / "a.h5", "-o", tmp_path / "out")


def test_every_experiment_is_valid(tmp_path):
    others = {
        "any_source",
        "comparisons",
        "downstream",
        "robustness",
    }  # other commands read them: test_comparison.py, cases.py
    folder = ROOT / "experiments"
    configs = sorted(path for path in folder.rglob("*.yaml") if path.relative_to(folder).parts[0] not in others)
    assert configs
    configs += sorted((ROOT / "lensphys" / "weights").rglob("config.yaml"))
    configs += sorted((ROOT / "examples").rglob("*/*.yaml"))
    for config in [*configs, ROOT / "lensphys" / "cli" / "demo.yaml"]:
        stage = ["--set", "method.rank=null"] if config.stem == "ranksrgan" else []  # its ranker is not there
        code, output = lensphys("train", config, "-o", tmp_path / "run", "--dry-run", *stage)
        assert code == 0, f"{config}: {output}"
    assert not (tmp_path / "run").exists()


def test_what_a_file_of_data_makes_no_use_of_is_told(work, tmp_path):
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    data = ["--set", f"data={{file: {work / 'test.h5'}, classes: [cdm]}}"]
    code, output = lensphys("train", tmp_path / "experiment.yaml", "-o", tmp_path / "run", "--dry-run", *data)
    assert code == 0
    assert f"note: 'classes' of data choose from a recipe, and all lenses of {work / 'test.h5'} are used" in output


def example(name: str, *arguments: object) -> str:
    command = [sys.executable, str(ROOT / "examples" / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_examples_run(tmp_path):
    assert "d(flux) / d(theta_E)" in example("trace_a_lens.py", tmp_path / "lens.png")
    assert "lenstronomy gives the stored deflection" in example("simulate_a_data_set.py", tmp_path / "a")
    assert "physics" in example("train_from_lr_images.py", tmp_path / "b", 10)
    assert "| example |" in example("super_resolve_fits.py", tmp_path / "c")
    assert "dB" in example("my_network.py")
    assert re.search(r"core +drawn +0.1\d+, fitted +0.1\d+ \+- 0.0", example("my_component.py"))
    assert re.search(r"bicubic +5\d.\d dB\nmine +4\d.\d dB\nfit +6\d.\d dB", example("my_method.py"))
    arguments = (tmp_path / "e.npz", tmp_path / "e_sr.npz")
    assert "theta_E 1.000 arcsec, good" in example("my_format.py", *arguments)
    assert "24 galaxies" in example("draw_galaxies.py", tmp_path / "g.npy")
    drawn = np.load(ROOT / "simulations" / "drawn_galaxies.npy")
    assert np.abs(np.load(tmp_path / "g.npy").astype(float) - drawn).max() < 1e-3 * drawn.max()  # the recipe's own
    assert "wrote" in example("simulate_on_slurm.py", "model_2", 2, tmp_path / "d", "--local")


def test_the_kubernetes_example_runs_a_command_that_there_is():
    parts = list(yaml.safe_load_all((ROOT / "examples" / "simulate_on_kubernetes.yaml").read_text()))
    (command,) = [p["spec"]["template"]["spec"]["containers"][0]["command"] for p in parts if p["kind"] == "Job"]
    code, output = lensphys(*command[1:-2], "--dry-run")
    assert code == 0 and "9999999 samples" in output


def test_masses_of_subhalos_take_both_redshifts(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((1, 16, 16), "f4"))
    call = ["super-resolve", tmp_path / "a.npy", "-o", tmp_path / "m.npz", "--pixel-scale", 0.1]
    assert "give --z-lens and --z-source" in refused(*call, "--z-lens", 0.5)
    assert "between 0 and --z-source" in refused(*call, "--z-lens", 0.5, "--z-source", 0.3)


def test_remedies_name_options_that_there_are():
    known = {option for _, options in base._options().values() for option in options} | {"--version", "--help"}
    named: dict[str, str] = {}
    before = re.compile(r"(?:give|or|and|another|to|see|leave out) (--[a-z-]+[a-z])")
    for path in (ROOT / "lensphys").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                named |= dict.fromkeys(before.findall(node.value), path.name)
    assert len(named) > 20 and {name: where for name, where in named.items() if name not in known} == {}


@pytest.mark.parametrize(
    ("running", "message", "told"),
    [
        ("super_resolve", "give --psf or --instrument", "give --psf or --instrument"),
        ("apply", "a.npy has no pixel scale: give --pixel-scale in arcsec, or --instrument",
         "a.npy has no pixel scale: give --instrument"),
        ("apply", "no PSF is known (give --psf or --instrument)", "no PSF is known (give --instrument)"),
        ("import_", "its sense is not known: give --mask-means good",
         "its sense is not known: give --mask-means good (--mask-means is an option of super-resolve, not of import)"),
        ("train", "simulate the file again with --deflection", "simulate the file again with --deflection"),
    ],
)  # fmt: skip
def test_remedies_are_those_of_the_command_that_runs(running, message, told):
    token = base._running.set(running)
    try:
        assert base.in_own_options(message) == told
    finally:
        base._running.reset(token)


def test_the_remedy_of_a_cube_in_a_command_and_in_python(tmp_path):
    fits.writeto(tmp_path / "a.fits", np.ones((3, 32, 32), "f4"), fits.Header({"PIXSCALE": 0.1}))
    assert "or give --rows : if each is a lens of its own" in refused(
        "super-resolve", tmp_path / "a.fits", "-o", tmp_path / "b.fits"
    )
    with pytest.raises(lp.LensphysError, match=r"a plane with ext 'PRIMARY\[0\]', or give its array if each is a lens"):
        lp.read(tmp_path / "a.fits")
