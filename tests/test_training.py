"""The training loop: it learns, it resumes exactly, it runs on two processes, and it keeps what it has."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from zipfile import ZipFile

import h5py
import numpy as np
import pytest
import torch
import yaml

from lensphys.basics.checks import LensphysError
from lensphys.basics.lock import sole_run
from lensphys.basics.runs import LOG, read_weights, write_weights
from lensphys.data.lens_file import LensFile
from lensphys.methods import PhysicsMethod
from lensphys.networks.residual import ResidualCNN
from lensphys.simulation.recipe import Recipe
from lensphys.simulation.writer import simulate
from lensphys.training.experiment import Experiment, load_run, train
from lensphys.training.figures import loss_figure
from lensphys.training.loop import TrainingSettings, launch

PHYSICS = {
    "name": "physics",
    "network": {"name": "residual", "channels": 4, "blocks": 1},
    "head": {"radial_low": 0.3, "gain": 0.0, "tangential_limit": 0.1},
    "source": "moments",
    "loss": {"observation": {"form": "log"}, "variation_density": {}},
}
SUPERVISED = {"name": "supervised", "network": {"name": "srresnet", "channels": 4, "blocks": 1}}
GAME = SUPERVISED | {"name": "adversarial", "discriminator": {"channels": 4, "stages": 2}}


@pytest.fixture(scope="module")
def lenses(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "small.h5"
    return simulate(Recipe.named("model_3", ["height=32", "width=32"]), 10, path, classes=["no_sub", "cdm"])


def experiment(file, method=PHYSICS, **training) -> Experiment:
    training = {"epochs": 3, "batch_size": 6, "learning_rate": 1e-3, "accelerator": "cpu"} | training
    return Experiment.parse({"data": {"file": str(file)}, "method": method, "training": training}, "test")


def run(settings: Experiment, folder: Path, *, resume: bool = False) -> list[dict]:
    train(settings, folder, resume=resume)
    return records(folder)


def records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / LOG).read_text().splitlines()]


def losses(rows: list[dict]) -> list[dict]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


@pytest.mark.parametrize("method", [PHYSICS, SUPERVISED], ids=["physics", "supervised"])
def test_training_lowers_the_loss_and_leaves_a_run_that_loads(lenses, tmp_path, monkeypatch, method):
    monkeypatch.setattr("lensphys.training.figures.loss_figure", loss_figure)
    settings = experiment(lenses, method, epochs=6, learning_rate=1e-2)
    rows = run(settings, tmp_path)
    assert [row["epoch"] for row in rows] == list(range(6))
    assert rows[-1]["loss"] < 0.9 * rows[0]["loss"]
    loaded = load_run(tmp_path)
    with LensFile(lenses) as file, torch.no_grad():
        observation = file.observation([0, 1])
        assert loaded.predict(observation).image.shape == (2, 1, 64, 64)
    assert list((tmp_path / "tensorboard").iterdir())
    assert (tmp_path / "losses.png").stat().st_size > 5000
    assert json.loads((tmp_path / "provenance.json").read_text())["experiment"]["seed"] == 0


def test_every_term_of_the_loss_is_logged(lenses, tmp_path):
    record = run(experiment(lenses, epochs=1), tmp_path)[0]
    assert {"observation", "variation_density", "loss", "validation"} <= set(record)


def test_a_run_stopped_within_an_epoch_goes_on_with_the_same_losses(lenses, tmp_path, monkeypatch):
    """Ctrl-C after the first step of the second epoch: the logs agree to the last digit with an uninterrupted run."""
    settings = experiment(lenses)
    whole = losses(run(settings, tmp_path / "whole"))
    method = settings.build()
    calls, terms = [], type(method).training_terms

    def interrupted(self, *args):
        calls.extend([args] if self.training else [])
        if len(calls) == 5:
            raise KeyboardInterrupt
        return terms(self, *args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(type(method), "training_terms", interrupted)
        run(settings, tmp_path / "cut")
    assert len(records(tmp_path / "cut")) == 1
    assert losses(run(settings, tmp_path / "cut", resume=True)) == whole


def test_a_run_stopped_within_a_step_goes_on_with_the_same_losses(lenses, tmp_path, monkeypatch):
    """A second Ctrl-C after the optimiser has moved the weights, before the step is counted."""
    settings = experiment(lenses)
    whole = losses(run(settings, tmp_path / "whole"))
    calls, step = [], torch.optim.Adam.step

    def interrupted(self, *args, **kwargs):
        result = step(self, *args, **kwargs)
        calls.append(self)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return result

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(torch.optim.Adam, "step", interrupted)
        run(settings, tmp_path / "cut")
    assert len(records(tmp_path / "cut")) == 1
    assert losses(run(settings, tmp_path / "cut", resume=True)) == whole


def test_a_killed_run_goes_on_with_the_same_losses(lenses, tmp_path):
    """SIGKILL leaves no time for anything: the run goes on from the last finished epoch."""
    settings = experiment(lenses, epochs=200, schedule="constant")
    config = tmp_path / "experiment.yaml"
    config.write_text(yaml.safe_dump(settings.model_dump(mode="json", exclude_none=True)))
    command = [sys.executable, "-m", "lensphys", "train", str(config), "-o", str(tmp_path / "cut")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log, deadline = tmp_path / "cut" / LOG, time.monotonic() + 90
    while not (log.exists() and log.read_text().count("\n") >= 2) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = len(records(tmp_path / "cut"))
    assert 2 <= done < 200
    shorter = experiment(lenses, epochs=done + 2, schedule="constant")  # a constant rate does not know the last epoch
    assert losses(run(shorter, tmp_path / "cut", resume=True)) == losses(run(shorter, tmp_path / "whole"))


def test_mixed_precision_reaches_the_network_alone(lenses, tmp_path, monkeypatch):
    """bf16-mixed: the backbone computes in bfloat16, the physics (and the loss) in float32."""
    seen = {}
    forward, relens = ResidualCNN.forward, PhysicsMethod._relens

    def watched_forward(self, image):
        out = forward(self, image)
        seen["backbone"] = self.body[-1](torch.zeros(1, 4, 3, 3)).dtype
        return out

    def watched_relens(self, observation, field, scale):
        seen["physics"] = (
            field.alpha.dtype,
            torch.nn.functional.conv2d(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 3, 3)).dtype,
        )
        return relens(self, observation, field, scale)

    monkeypatch.setattr(ResidualCNN, "forward", watched_forward)
    monkeypatch.setattr(PhysicsMethod, "_relens", watched_relens)
    rows = run(experiment(lenses, epochs=1, precision="bf16-mixed"), tmp_path)
    assert seen == {"backbone": torch.bfloat16, "physics": (torch.float32, torch.float32)}
    assert np.isfinite(rows[0]["loss"])


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_real_ctrl_c_lets_the_step_end(lenses, tmp_path, monkeypatch, stop):
    """The signal arrives within a step; the step is finished and counted once, and the run goes on exactly."""
    settings = experiment(lenses)
    whole = losses(run(settings, tmp_path / "whole"))
    calls, terms = [], PhysicsMethod.training_terms

    def interrupted(self, *args):
        calls.extend([args] if self.training else [])
        if len(calls) == 4:
            os.kill(os.getpid(), stop)
        return terms(self, *args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(PhysicsMethod, "training_terms", interrupted)
        run(settings, tmp_path / "cut")
    assert len(calls) == 4
    assert losses(run(settings, tmp_path / "cut", resume=True)) == whole


def test_weights_and_biases_gets_every_term(lenses, tmp_path, monkeypatch):
    seen = {}

    class FakeRun:
        def log(self, terms, step):
            seen.setdefault(step, {}).update(terms)

        def finish(self):
            seen["finished"] = True

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **options: FakeRun()))
    run(experiment(lenses, epochs=1, tracker="wandb"), tmp_path)
    assert seen["finished"]
    assert {"train/observation", "train/variation_density", "train/loss"} <= set(seen[1])


def test_weights_and_biases_that_is_not_there(lenses, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(LensphysError, match=r"pip install 'lensphys\[wandb\]'"):
        run(experiment(lenses, epochs=1, tracker="wandb"), tmp_path)


def test_lr_only_training_never_reads_a_high_resolution_image(lenses, tmp_path, monkeypatch):
    read = LensFile.read

    def watched(self, name, *args):
        assert not name.startswith("hr"), name
        return read(self, name, *args)

    monkeypatch.setattr(LensFile, "read", watched)
    run(experiment(lenses, epochs=1), tmp_path)


def test_a_run_is_not_overwritten(lenses, tmp_path):
    settings = experiment(lenses, epochs=1)
    run(settings, tmp_path)
    with pytest.raises(LensphysError, match="already holds a run"):
        run(settings, tmp_path)


def test_a_run_is_no_start_of_its_own(lenses, tmp_path):
    settings = experiment(lenses, epochs=1)
    run(settings, tmp_path)
    (tmp_path / "last.ckpt").unlink()
    with pytest.raises(LensphysError, match="already holds a run"):
        run(settings, tmp_path)
    before = (tmp_path / "best.safetensors").read_bytes()
    with pytest.raises(LensphysError, match="is what the training starts from or learns with: choose another folder"):
        run(settings.model_copy(update={"start": str(tmp_path)}), tmp_path, resume=True)
    assert (tmp_path / "best.safetensors").read_bytes() == before


def test_a_second_training_in_the_same_folder_is_refused(lenses, tmp_path):
    with sole_run(tmp_path), pytest.raises(LensphysError, match="another run is at work on"):
        run(experiment(lenses, epochs=1), tmp_path)


def test_a_full_disk_is_one_sentence(lenses, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(LensphysError, match=r"cannot write .*best.safetensors: No space left on device"):
        run(experiment(lenses, epochs=1), tmp_path / "a")
    monkeypatch.undo()
    monkeypatch.setattr("lensphys.training.loop.LOG", "tensorboard")  # no file, but a folder
    with pytest.raises(LensphysError, match=r"cannot write into .*/b: Is a directory; make room there, and go on from"):
        run(experiment(lenses, epochs=1), tmp_path / "b")


def values_in(path: Path) -> bytes:
    """Some values that a file of weights holds, as they lie in it."""
    if path.suffix == ".safetensors":
        return next(iter(read_weights(path.parent).values())).numpy().tobytes()
    with ZipFile(path) as file:
        return file.read(max(file.infolist(), key=lambda part: part.file_size))


@pytest.mark.parametrize("name", ["last.ckpt", "best.safetensors"])
def test_a_flipped_bit_of_weights_is_found(lenses, tmp_path, name):
    settings = experiment(lenses, epochs=1)
    run(settings, tmp_path)
    data = bytearray((tmp_path / name).read_bytes())
    data[data.index(values_in(tmp_path / name))] ^= 1
    (tmp_path / name).write_bytes(data)
    with pytest.raises(LensphysError, match=rf"{name} is damaged"):
        run(settings, tmp_path, resume=True) if name == "last.ckpt" else load_run(tmp_path)


def test_a_checksum_that_lost_its_name_is_found(lenses, tmp_path):
    run(experiment(lenses, epochs=1), tmp_path)
    path = tmp_path / "best.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"crc32"', b'"cqc32"', 1))
    with pytest.raises(LensphysError, match="best.safetensors is damaged"):
        load_run(tmp_path)


def test_weights_that_are_no_numbers_are_refused(lenses, tmp_path):
    run(experiment(lenses, epochs=1), tmp_path)
    weights = read_weights(tmp_path)
    first = next(iter(weights))
    weights[first].flatten()[0] = torch.nan
    write_weights(tmp_path / "best.safetensors", weights)
    with pytest.raises(LensphysError, match=rf"best.safetensors holds NaN or infinite weights \({first}\)"):
        load_run(tmp_path)


def test_resuming_with_another_method_is_refused(lenses, tmp_path):
    run(experiment(lenses, epochs=1), tmp_path)
    with pytest.raises(LensphysError, match="other settings"):
        run(experiment(lenses, SUPERVISED, epochs=1), tmp_path, resume=True)


def test_a_damaged_checkpoint_is_said_to_be_so(lenses, tmp_path):
    settings = experiment(lenses, epochs=1)
    run(settings, tmp_path)
    (tmp_path / "last.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(LensphysError, match=r"last\.ckpt is damaged"):
        run(settings, tmp_path, resume=True)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("best.safetensors", r"best\.safetensors is gone, the weights of the best epoch so far: copy it back, or"),
        ("config.yaml", r"lacks config\.yaml, the settings that it has: copy it back, or remove last\.ckpt"),
    ],
)
def test_a_run_that_lost_a_file_is_not_gone_on_with(lenses, tmp_path, name, said):
    """A finished run, too: it would say that it is trained, and have no weights, or those of other settings."""
    settings = experiment(lenses, epochs=1)
    run(settings, tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(LensphysError, match=said):
        run(settings, tmp_path, resume=True)
    (tmp_path / "last.ckpt").unlink()
    run(settings, tmp_path, resume=True)
    load_run(tmp_path)


def test_damaged_best_weights_end_a_resumed_run(lenses, tmp_path):
    run(experiment(lenses, epochs=1), tmp_path)
    (tmp_path / "best.safetensors").write_bytes(b"cut short")
    with pytest.raises(LensphysError, match=r"best\.safetensors is damaged"):
        run(experiment(lenses, epochs=2), tmp_path, resume=True)


def test_a_run_that_is_not_gone_on_with_keeps_what_it_says_of_itself(lenses, tmp_path):
    """Its weights would else be taken for those of the other images' telescope."""
    path = tmp_path / "mine.h5"
    shutil.copy(lenses, path)
    run(experiment(path, epochs=1), tmp_path / "run")
    before = {file: file.read_bytes() for file in (tmp_path / "run").iterdir() if file.is_file()}
    path.unlink()
    simulate(Recipe.named("model_2", ["height=32", "width=32"]), 10, path, classes=["no_sub", "cdm"])
    with pytest.raises(LensphysError, match="was trained on other data"):
        run(experiment(path, epochs=1), tmp_path / "run", resume=True)
    assert {file: file.read_bytes() for file in before} == before


def test_a_log_that_lost_epochs_is_told_and_the_run_goes_on(lenses, tmp_path, capsys):
    run(experiment(lenses, epochs=2), tmp_path)
    first, second = (tmp_path / LOG).read_text().splitlines()
    (tmp_path / LOG).write_text(f"{first[:20]}\n{second}\n")
    assert [row["epoch"] for row in run(experiment(lenses), tmp_path, resume=True)] == [1, 2]
    assert f"note: {tmp_path / LOG} lacks 1 of 2 finished epochs" in capsys.readouterr().err
    (tmp_path / LOG).unlink()
    train(experiment(lenses), tmp_path, resume=True)
    assert "lacks 3 of 3 finished epochs" in capsys.readouterr().err
    assert [row["epoch"] for row in run(experiment(lenses, epochs=4), tmp_path, resume=True)] == [3]


def test_weights_that_do_not_fit_are_said_to_be_so(lenses, tmp_path):
    run(experiment(lenses, epochs=1), tmp_path / "a")
    run(experiment(lenses, SUPERVISED, epochs=1), tmp_path / "b")
    shutil.copy(tmp_path / "b" / "best.safetensors", tmp_path / "a" / "best.safetensors")
    with pytest.raises(LensphysError, match="does not fit"):
        load_run(tmp_path / "a")


def test_a_missing_run_is_said_to_be_so(tmp_path):
    with pytest.raises(LensphysError, match="run folder not found"):
        load_run(tmp_path / "nowhere")
    with pytest.raises(LensphysError, match="no trained weights"):
        load_run(tmp_path)


def test_too_few_images_for_a_batch(lenses, tmp_path):
    with pytest.raises(LensphysError, match="too few for a batch of 64 a device beside 2 held out"):
        run(experiment(lenses, batch_size=64), tmp_path)


def test_a_gpu_that_is_not_there(lenses, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(LensphysError, match="no GPU is available"):
        run(experiment(lenses, accelerator="gpu"), tmp_path)


def test_a_processor_that_emulates_a_precision_is_warned_of(monkeypatch):
    settings = TrainingSettings(epochs=1, batch_size=6, accelerator="cpu", precision="bf16-mixed")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    with pytest.warns(UserWarning, match="emulates bf16-mixed, about ten times slower than 32-true"):
        launch(settings)


def test_a_loss_that_is_not_finite_stops_the_run(lenses, tmp_path, monkeypatch):
    settings = experiment(lenses)
    nothing = torch.tensor(float("nan"), requires_grad=True)
    monkeypatch.setattr(type(settings.build()), "training_terms", lambda self, *args: {"loss": nothing * 1})
    with pytest.raises(LensphysError, match="not finite at epoch 0, step 0"):
        run(settings, tmp_path)


def test_the_cosine_schedule_ends_at_a_hundredth():
    settings = TrainingSettings(epochs=2, learning_rate=1e-3)
    assert settings.rate_at(0.0) == pytest.approx(1e-3)
    assert settings.rate_at(2.0) == pytest.approx(1e-5)
    assert TrainingSettings(epochs=2, schedule="constant").rate_at(1.4) == 1e-3


def test_the_schedule_follows_the_time_where_that_runs_out_first():
    settings = TrainingSettings(epochs=10, minutes=1.0, learning_rate=1e-3)
    assert settings.rate_at(0.0, 60.0) == settings.rate_at(10.0, 0.0) == pytest.approx(1e-5)
    assert settings.rate_at(0.0, 30.0) == settings.rate_at(5.0, 0.0) == settings.rate_at(5.0, 30.0)


def test_a_budget_of_time_ends_the_training(lenses, tmp_path):
    """Within an epoch: the last record is of the steps that were made, and going on makes no more."""
    settings = experiment(lenses, epochs=1000, minutes=0.02)
    rows = run(settings, tmp_path)
    assert 1 <= len(rows) < 1000 and 1.2 <= rows[-1]["seconds"] < 30
    assert losses(run(settings, tmp_path, resume=True)) == losses(rows)


@pytest.mark.parametrize(
    "method", [PHYSICS, pytest.param(GAME, marks=pytest.mark.slow)], ids=["physics", "adversarial"]
)
def test_two_processes_train_together(lenses, tmp_path, method):
    """The same command on two processes (gloo): each sees half of every batch pair, and one log is written."""
    settings = experiment(lenses, method, epochs=2, batch_size=3, devices=2)
    config = tmp_path / "experiment.yaml"
    config.write_text(yaml.safe_dump(settings.model_dump(mode="json", exclude_none=True)))
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "lensphys", "train", str(config), "-o", str(tmp_path / "run")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert [row["epoch"] for row in records(tmp_path / "run")] == [0, 1]
    load_run(tmp_path / "run")


# --- images and losses that spoil a training -----------------------------------------------------------------------


@pytest.fixture
def spoilt(lenses, tmp_path):
    """The data set with five images from which nothing can be learned."""
    path = tmp_path / "spoilt.h5"
    shutil.copy(lenses, path)
    noise = np.random.default_rng(0).normal(0, 0.004, (2, 1, 32, 32))
    with h5py.File(path, "a") as file:
        file["lr"][3], file["lr"][5] = -np.abs(noise[0]), noise[1]  # a sky taken off twice, and a sky
        file["lr"][8], file["lr"][11, 0, 4, 4], file["hr"][2, 0, 1, 1] = 0, np.nan, np.inf
    return path


@pytest.mark.parametrize("method", [PHYSICS, SUPERVISED], ids=["physics", "supervised"])
def test_images_that_teach_nothing_are_named_and_left_out(spoilt, tmp_path, capsys, method):
    rows = run(experiment(spoilt, method), tmp_path / "run")
    assert all(row["loss"] < 10 for row in rows)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: image")]
    dark = "shows no light (nothing stands 5 sigma out of its noise)"
    reasons = {3: dark, 5: dark, 8: "is 0 everywhere", 11: "has NaN or infinite pixels"}
    reasons |= {2: "has NaN or infinite pixels in /hr"} if method is SUPERVISED else {}
    assert said == [f"note: image {i} of {spoilt} {reasons[i]}: it is left out" for i in sorted(reasons)]
    kept = json.loads((tmp_path / "run" / "provenance.json").read_text())["left_out"]
    assert kept == {str(i): reason for i, reason in reasons.items()}


def test_too_few_usable_images_are_said_to_be_so(spoilt, tmp_path):
    with pytest.raises(LensphysError, match=r"holds 20 images, 4 of them unusable \(ask 'lensphys doctor'\), too few"):
        run(experiment(spoilt, batch_size=16), tmp_path / "run")


def test_a_run_says_what_it_was_trained_on(lenses, tmp_path):
    run(experiment(lenses, SUPERVISED, epochs=1), tmp_path)
    learned = load_run(tmp_path).validity
    assert learned.images == 20 and str(learned).startswith('pixels of 0.08", PSF of 0.0667" (FWHM), fields of 2.56 x')
    assert (tmp_path / "trained_on.yaml").read_text().startswith("# What its images span")
    (tmp_path / "trained_on.yaml").unlink()  # as in runs of older versions
    assert load_run(tmp_path).validity is None


def worse(monkeypatch, method, after: int, change) -> None:
    """Let a method's loss become something else after so many steps."""
    terms, calls = type(method).training_terms, []

    def changed(self, *args):
        found = terms(self, *args)
        calls.extend([args] if self.training else [])
        return found | {"loss": change(found["loss"])} if len(calls) > after and self.training else found

    monkeypatch.setattr(type(method), "training_terms", changed)


@pytest.mark.parametrize("after", [1, 4])  # in the first epoch, in the second
def test_a_loss_that_explodes_ends_the_run(lenses, tmp_path, monkeypatch, after):
    settings = experiment(lenses, SUPERVISED)
    worse(monkeypatch, settings.build(), after, lambda loss: 5e27 * loss)
    place = rf"e\+2\d at epoch {after // 3}, step 1 \(images \d+, .* of .*small\.h5\), where 0\.\d+ was usual at first"
    with pytest.raises(
        LensphysError, match=f"the loss explodes: .*{place}: look at these images with 'lensphys doctor'"
    ):
        run(settings, tmp_path)


def test_a_loss_may_rise_as_far_as_is_allowed(lenses, tmp_path, monkeypatch):
    settings = experiment(lenses, SUPERVISED, epochs=1, explosion=1e9)
    worse(monkeypatch, settings.build(), 1, lambda loss: 1e8 * loss)
    run(settings, tmp_path)


@pytest.mark.parametrize("clip", [1.0, None])
def test_a_gradient_that_is_not_finite_ends_the_run(lenses, tmp_path, monkeypatch, clip):
    settings = experiment(lenses, SUPERVISED, clip_gradient=clip)
    worse(monkeypatch, settings.build(), 1, lambda loss: loss + (loss - loss.detach()).sqrt())  # infinite slope at zero
    with pytest.raises(LensphysError, match=r"the gradient is not finite at epoch 0, step 1 \(images"):
        run(settings, tmp_path)


def test_weights_that_broke_are_not_kept_and_the_run_goes_on_from_before(lenses, tmp_path, monkeypatch):
    """NaN in the validation of the second epoch: nothing of that epoch is kept, and the run can be gone on with."""
    settings = experiment(lenses, SUPERVISED)
    whole = losses(run(settings, tmp_path / "whole"))
    scores = []

    def broken(self, batch):
        scores.append(0)
        return torch.tensor(float("nan")) if len(scores) > 1 else self.training_terms(batch, 0)["loss"]

    with monkeypatch.context() as patch:
        patch.setattr(type(settings.build()), "validation_score", broken)
        with pytest.raises(
            LensphysError, match="validation is not finite after epoch 1.*weights up to epoch 0 are kept"
        ):
            run(settings, tmp_path / "cut")
    assert losses(run(settings, tmp_path / "cut", resume=True)) == whole


def test_a_checkpoint_with_broken_weights_is_refused(lenses, tmp_path):
    settings = experiment(lenses, SUPERVISED, epochs=1)
    run(settings, tmp_path)
    state = torch.load(tmp_path / "last.ckpt")
    next(iter(state["method"].values())).fill_(float("nan"))
    torch.save(state, tmp_path / "last.ckpt")
    with pytest.raises(LensphysError, match="holds weights that are not finite: remove it to start anew"):
        run(settings, tmp_path, resume=True)


def test_batches_of_one_train(lenses, tmp_path):
    assert np.isfinite(run(experiment(lenses, SUPERVISED, epochs=1, batch_size=1), tmp_path)[0]["loss"])


def test_a_batch_too_small_for_a_normalisation_is_said_to_be_so(lenses, tmp_path, monkeypatch):
    settings = experiment(lenses, SUPERVISED, batch_size=1)
    one = torch.nn.BatchNorm1d(1)
    worse(monkeypatch, settings.build(), 0, lambda loss: one(loss.reshape(1, 1)).sum())
    with pytest.raises(LensphysError, match="sees a single value in a batch of 1: raise training.batch_size"):
        run(settings, tmp_path)
