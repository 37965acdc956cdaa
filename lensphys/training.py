"""The training loop: one for every method; CPU, GPUs and machines through lightning-fabric."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Protocol, cast

import torch
from lightning_fabric import Fabric
from pydantic import PositiveFloat, PositiveInt
from rich.console import Console
from rich.progress import Progress
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from lensphys.batches import BatchSettings, TrainingData
from lensphys.checks import LensphysError
from lensphys.interrupts import Interrupts
from lensphys.methods import TrainableMethod
from lensphys.observation import Observation
from lensphys.provenance import whole_file

CHECKPOINT, WEIGHTS, LOG = "last.ckpt", "best.safetensors", "log.jsonl"


class TrainingSettings(BatchSettings):
    """How a method is trained (Adam).

    ``devices``, ``nodes`` and ``accelerator`` are lightning-fabric's: ``--set training.devices=4`` trains on four GPUs,
    and with ``nodes=2`` the same command, started on both machines by torchrun or SLURM, trains on two. ``tracker``:
    where every term goes step by step; ``log.jsonl`` has the epochs in any case.
    """

    epochs: PositiveInt
    learning_rate: PositiveFloat = 1e-3
    schedule: Literal["constant", "cosine"] = "cosine"
    clip_gradient: PositiveFloat | None = 1.0
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    tracker: Literal["tensorboard", "wandb"] = "tensorboard"

    def rate_at(self, progress: float) -> float:
        """Return the learning rate after a fraction ``progress`` of the training; cosine ends at a hundredth."""
        if self.schedule == "constant":
            return self.learning_rate
        return self.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


class Tracker(Protocol):
    """What takes scalars step by step: TensorBoard's ``SummaryWriter`` or anything with its two methods."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        """Take one number."""

    def close(self) -> None:
        """Write what is left."""


class _WeightsAndBiases:
    """A W&B run as a `Tracker`."""

    def __init__(self, folder: Path) -> None:
        try:
            import wandb
        except ImportError:
            raise LensphysError(
                "training.tracker is wandb: pip install 'lensphys[wandb]', or use tensorboard"
            ) from None
        self._run = wandb.init(project="lensphys", name=folder.name, dir=folder)

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        self._run.log({tag: scalar_value}, step=global_step)

    def close(self) -> None:
        self._run.finish()


def tracker(name: str, folder: Path) -> Tracker:
    """Return the tracker of a run folder: ``tensorboard`` or ``wandb``.

    Raises:
        LensphysError: if W&B is asked for and not installed.
    """
    return _WeightsAndBiases(folder) if name == "wandb" else SummaryWriter(str(folder / "tensorboard"))


def launch(settings: TrainingSettings) -> Fabric:
    """Return lightning-fabric with all processes of a training running; from here on each line runs in every one.

    Raises:
        LensphysError: if a GPU is asked for and there is none.
    """
    gpu = torch.cuda.is_available()
    if settings.accelerator == "gpu" and not gpu:
        raise LensphysError("training.accelerator is gpu, but no GPU is available: use auto or cpu")
    fabric = Fabric(
        accelerator="cuda" if gpu and settings.accelerator != "cpu" else "cpu",
        devices=settings.devices,
        num_nodes=settings.nodes,
        strategy="ddp" if settings.devices * settings.nodes > 1 else "auto",
        precision=settings.precision,
    )
    fabric.launch()
    return fabric


def train(
    fabric: Fabric, method: TrainableMethod, batches: TrainingData, settings: TrainingSettings, run: Path
) -> None:
    """Train a method, or go on from the last checkpoint of the run folder.

    The folder gets ``last.ckpt`` (everything to go on), ``best.safetensors`` (the weights of the best validation),
    ``log.jsonl`` (a line an epoch) and ``tensorboard/``. Ctrl-C lets the step end and writes a checkpoint. Several
    machines need a run folder on a disk that they share.

    Args:
        fabric: from `launch`.
        method: with fresh weights, the same in every process.
        batches: the data.
        settings: how to train.
        run: the folder.

    Raises:
        LensphysError: if the data do not fit, the checkpoint is another method's, or the loss is no longer finite.
    """
    _Run(fabric, method, batches, settings, run).go()
    fabric.barrier()


class _Batch:
    """What a step works on. A plain object: Fabric would take a tuple or a dataclass apart and cast its tensors."""

    def __init__(self, observation: Observation, truth: Tensor | None, epoch: int) -> None:
        self.observation, self.truth, self.epoch = observation, truth, epoch


class _Objective(nn.Module):
    """A method behind one ``forward``, which is where precision and data parallelism act."""

    def __init__(self, method: TrainableMethod) -> None:
        super().__init__()
        self.method = method

    def forward(self, batch: _Batch) -> dict[str, Tensor]:
        if self.training:
            return self.method.training_terms(batch.observation, batch.truth, batch.epoch)
        return {"score": self.method.validation_score(batch.observation, batch.truth)}


class _Run:
    """The state of a training: everything that a checkpoint holds."""

    def __init__(
        self, fabric: Fabric, method: TrainableMethod, batches: TrainingData, settings: TrainingSettings, folder: Path
    ) -> None:
        self.fabric, self.method, self.batches, self.settings, self.folder = fabric, method, batches, settings, folder
        optimizer = torch.optim.Adam(method.parameters(), lr=settings.learning_rate)
        self.module, self.optimizer = fabric.setup(_Objective(method), optimizer)
        self.epoch, self.step = 0, 0  # step within the epoch
        self.sums: dict[str, float] = {}
        self.best = math.inf
        self.seconds = 0.0
        if (folder / CHECKPOINT).exists():
            self._load()

    def go(self) -> None:
        """Train to the last epoch."""
        writer = tracker(self.settings.tracker, self.folder) if self.fabric.is_global_zero else None
        self._forget_later_records()
        try:
            with Interrupts() as interrupts:
                for record in self._epochs(writer, interrupts):
                    if self.fabric.is_global_zero:
                        with (self.folder / LOG).open("a") as log:
                            log.write(json.dumps(record) + "\n")
        except KeyboardInterrupt:
            self._save()
            raise
        finally:
            if writer is not None:
                writer.close()

    def _epochs(self, writer: Tracker | None, interrupts: Interrupts) -> Iterator[dict[str, float]]:
        settings = self.settings
        with Progress(disable=not self.fabric.is_global_zero, console=Console(stderr=True)) as progress:
            bar = progress.add_task("training", total=settings.epochs, completed=self.epoch)
            while self.epoch < settings.epochs:
                started = time.monotonic()
                steps = self.batches.of_epoch(self.epoch, self.fabric.global_rank, self.fabric.world_size)
                self.module.train()
                while self.step < len(steps):
                    terms = self._step(steps[self.step], len(steps))
                    self.step += 1
                    for name, value in terms.items():
                        self.sums[name] = self.sums.get(name, 0.0) + value
                        if writer is not None:
                            writer.add_scalar(f"train/{name}", value, self.epoch * len(steps) + self.step)
                    progress.update(bar, completed=self.epoch + self.step / len(steps))
                    if self._anyone(interrupts.wished):
                        raise KeyboardInterrupt
                score = self._validate()
                self.seconds += time.monotonic() - started
                means = {name: self._mean(total / len(steps)) for name, total in self.sums.items()}
                record = {"epoch": self.epoch, **means, "validation": score, "seconds": round(self.seconds, 2)}
                if writer is not None:
                    writer.add_scalar("validation", score, (self.epoch + 1) * len(steps))
                self.epoch, self.step, self.sums = self.epoch + 1, 0, {}
                yield record
                self._keep_best(score)
                self._save()
                progress.update(bar, description=f"epoch {self.epoch}: validation {score:.4g}")

    def _step(self, index: Tensor, steps: int) -> dict[str, float]:
        rate = self.settings.rate_at((self.epoch + self.step / steps) / self.settings.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        observation, truth = self.batches.read(index, self.fabric.device)
        terms = self.module(_Batch(observation, truth, self.epoch))
        if not bool(torch.isfinite(terms["loss"])):
            raise LensphysError(
                f"the loss is not finite at epoch {self.epoch}, step {self.step}: lower training.learning_rate "
                "and start again, or --resume from the last finished epoch"
            )
        self.optimizer.zero_grad()
        self.fabric.backward(terms["loss"])
        clip = self.settings.clip_gradient
        if clip is not None:  # an overflow of 16-mixed is not an error: its scaler skips the step
            self.fabric.clip_gradients(self.module, self.optimizer, max_norm=clip, error_if_nonfinite=False)
        self.optimizer.step()
        return {name: float(value.detach()) for name, value in terms.items()}

    def _validate(self) -> float:
        self.module.eval()
        total, count = 0.0, 0
        with torch.no_grad():
            for index in self.batches.of_validation(self.fabric.global_rank, self.fabric.world_size):
                observation, truth = self.batches.read(index, self.fabric.device)
                total += float(self.module(_Batch(observation, truth, 0))["score"]) * len(index)
                count += len(index)
        return self._mean(total / count)

    def _mean(self, value: float) -> float:
        total = self.fabric.all_reduce(torch.tensor(value, dtype=torch.float64), reduce_op="mean")
        return float(cast(Tensor, total))

    def _anyone(self, wished: bool) -> bool:
        """Whether any process was asked to stop: all must stop at the same step."""
        return wished if self.fabric.world_size == 1 else self._mean(float(wished)) > 0

    def _keep_best(self, score: float) -> None:
        if score < self.best or not (self.folder / WEIGHTS).exists():
            if self.fabric.is_global_zero:
                with whole_file(self.folder / WEIGHTS) as temporary:
                    save_file({k: v.contiguous() for k, v in self.method.state_dict().items()}, temporary)
            self.best = score

    def _save(self) -> None:
        if not self.fabric.is_global_zero:
            return
        state = {
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "random": torch.get_rng_state(),
            "progress": {k: getattr(self, k) for k in ("epoch", "step", "sums", "best", "seconds")},
            "data": self.batches.identity,
        }
        with whole_file(self.folder / CHECKPOINT) as temporary:
            torch.save(state, temporary)

    def _load(self) -> None:
        path = self.folder / CHECKPOINT
        try:
            state = torch.load(path, map_location=self.fabric.device, weights_only=True)
            self.method.load_state_dict(state["method"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.fabric.strategy.precision.load_state_dict(state["precision"])
            torch.set_rng_state(state["random"].cpu())
            progress, data = state["progress"], state["data"]
        except Exception as error:
            raise LensphysError(
                f"{path} is damaged or belongs to another method ({error}): remove it to start anew"
            ) from None
        if data != self.batches.identity:
            raise LensphysError(f"{self.folder} was trained on other data than {self.batches.name}")
        for name, value in progress.items():
            setattr(self, name, value)

    def _forget_later_records(self) -> None:
        """Cut the log after the last finished epoch, so that a killed run does not log an epoch twice."""
        path = self.folder / LOG
        if self.fabric.is_global_zero and path.exists():
            lines = path.read_text().splitlines(keepends=True)
            path.write_text("".join(lines[: self.epoch]))
