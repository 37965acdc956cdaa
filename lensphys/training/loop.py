"""The training loop: one for every method; CPU, GPUs and machines through lightning-fabric."""

from __future__ import annotations

import io
import json
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast
from zipfile import BadZipFile, ZipFile

import torch
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from rich.progress import TaskProgressColumn
from torch import Tensor, nn

from lensphys.basics.checks import LensphysError, shortened
from lensphys.basics.interrupts import Interrupts
from lensphys.basics.outputs import whole_file
from lensphys.basics.runs import CHECKPOINT, LOG, WEIGHTS, read_log, read_weights, write_weights
from lensphys.basics.settings import Strict
from lensphys.basics.terminal import progress_bar
from lensphys.methods import Trainable
from lensphys.training.batches import BatchSettings, TrainingData
from lensphys.training.tracking import Tracker, tracker

if TYPE_CHECKING:  # it takes a second to load, and only a training needs it
    from lightning_fabric import Fabric

_UPSAMPLING = "upsampling"
_NAMED = 8  # images that a message names
_ONE_VALUE = "more than 1 value per channel"  # what torch says of a batch of one


class Phase(Strict):
    """A part of a training: which parameters learn, and how fast.

    ``train``: names of parameters, ``*`` for anything; ``upsampling`` stands for the network's upscaling and all that
    comes after it. What is left out is frozen, its batch normalisations too.
    """

    epochs: PositiveInt
    learning_rate: PositiveFloat
    train: Annotated[list[str], Field(min_length=1)] = ["*"]


class TrainingSettings(BatchSettings):
    """How something is trained (Adam).

    ``devices``, ``nodes`` and ``accelerator`` are lightning-fabric's: ``--set training.devices=4`` trains on four GPUs,
    and with ``nodes=2`` the same command, started on both machines by torchrun or SLURM, trains on two. ``tracker``:
    where every term goes step by step; ``log.jsonl`` has the epochs in any case. ``minutes``: the training ends when it
    has computed for so long, though ``epochs`` are left, and the schedule follows the time. ``phases`` (`Phase`) take
    the place of the one rate; their epochs sum up to ``epochs``. ``explosion``: the training ends where a loss is more
    than so many times the smallest one of its first epoch, or more than that where it was below 1: losses are in units
    of the image's peak or of its noise. ``last_rate``: where the cosine ends (each phase), a share of the rate.
    """

    epochs: PositiveInt
    minutes: PositiveFloat | None = None
    learning_rate: PositiveFloat = 1e-3
    phases: list[Phase] = []
    schedule: Literal["constant", "cosine"] = "cosine"
    last_rate: Annotated[float, Field(gt=0, le=1)] = 0.01
    clip_gradient: PositiveFloat | None = 1.0
    explosion: PositiveFloat = 1e6
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    tracker: Literal["tensorboard", "wandb"] = "tensorboard"

    @model_validator(mode="after")
    def _whole(self) -> TrainingSettings:
        total = sum(phase.epochs for phase in self.phases)
        if self.phases and total != self.epochs:
            raise ValueError(f"the phases have {total} epochs together, but 'epochs' says {self.epochs}")
        if self.phases and self.minutes is not None:
            raise ValueError("phases count epochs: leave out 'minutes'")
        return self

    def phase_at(self, epoch: int) -> tuple[Phase, int]:
        """Return the phase that an epoch belongs to, and the phase's first epoch."""
        first = 0
        for phase in self.phases:
            if epoch < first + phase.epochs:
                return phase, first
            first += phase.epochs
        return Phase(epochs=self.epochs, learning_rate=self.learning_rate), 0

    def rate_at(self, epochs: float, seconds: float = 0.0) -> float:
        """Return the learning rate after so many epochs and seconds; cosine ends (each phase) at ``last_rate``."""
        phase, first = self.phase_at(math.floor(epochs))
        if self.schedule == "constant":
            return phase.learning_rate
        progress = (epochs - first) / phase.epochs
        if self.minutes is not None:
            progress = min(1.0, max(progress, seconds / (60 * self.minutes)))
        return phase.learning_rate * (self.last_rate + (1 - self.last_rate) * 0.5 * (1 + math.cos(math.pi * progress)))


def launch(settings: TrainingSettings, players: int = 1) -> Fabric:
    """Return lightning-fabric with all processes of a training running; from here on each line runs in every one.

    Args:
        settings: how to train.
        players: how many take turns in a step.

    Raises:
        LensphysError: if a GPU is asked for and there is none.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.strategies import DDPStrategy

    gpu = torch.cuda.is_available()
    if settings.accelerator == "gpu" and not gpu:
        raise LensphysError("training.accelerator is gpu, but no GPU is available: use auto or cpu")
    accelerator = "cuda" if gpu and settings.accelerator != "cpu" else "cpu"
    slow = torch.backends.cpu.get_cpu_capability() == "AVX2"  # which has no instructions for bfloat16
    if accelerator == "cpu" and settings.precision == "bf16-mixed" and slow:
        warnings.warn(
            "training.precision: this processor emulates bf16-mixed, about ten times slower than 32-true", stacklevel=2
        )
    partly = players > 1 or bool(settings.phases)  # not every parameter has a gradient in every step
    fabric = Fabric(
        accelerator=accelerator,
        devices=settings.devices,
        num_nodes=settings.nodes,
        strategy=DDPStrategy(find_unused_parameters=partly) if settings.devices * settings.nodes > 1 else "auto",
        precision=settings.precision,
    )
    fabric.launch()
    return fabric


def train(
    fabric: Fabric,
    method: Trainable[Any],
    batches: TrainingData,
    settings: TrainingSettings,
    run: Path,
    *,
    begun: Callable[[], None] = lambda: None,
) -> None:
    """Train a method, or go on from the last checkpoint of the run folder.

    The folder gets ``last.ckpt`` (everything to go on), ``best.safetensors`` (the weights of the best validation, or
    the last ones where no score tells), ``log.jsonl`` (a line an epoch) and ``tensorboard/``. Ctrl-C or
    SIGTERM lets the step end and writes a checkpoint. Several machines need a run folder on a disk that they share.

    Args:
        fabric: from `launch`.
        method: with fresh weights, the same in every process.
        batches: the data.
        settings: how to train.
        run: the folder.
        begun: called once it is known that the training may begin or go on: before, nothing of the folder changes.

    Raises:
        LensphysError: if the data do not fit, the checkpoint is another method's, the best weights so far are gone or
            damaged, a phase names no parameter, a loss, a gradient or the validation is not finite, a loss explodes,
            or the folder cannot be written.
    """
    try:
        training = _Run(fabric, method, batches, settings, run)
        begun()
        training.go()
    except OSError as error:
        raise LensphysError(
            f"cannot write into {run}: {error.strerror or error}; make room there, and go on from the last finished "
            "epoch with --resume"
        ) from None
    fabric.barrier()


class _Objective(nn.Module):
    """A method behind one ``forward``, which is where precision and data parallelism act."""

    def __init__(self, method: Trainable[Any]) -> None:
        super().__init__()
        self.method = method

    def forward(self, batch: Any, player: str, epoch: int) -> dict[str, Tensor]:
        if self.training:
            return self.method.terms_of(player, batch, epoch)
        return {"score": self.method.validation_score(batch)}


def learning(method: Trainable[Any], patterns: list[str]) -> set[str]:
    """Return the names of the parameters that a phase trains.

    Raises:
        LensphysError: if a pattern names none.
    """
    names = [name for name, _ in method.named_parameters()]
    found: set[str] = set()
    for pattern in patterns:
        inner = [pattern]
        if pattern == _UPSAMPLING:
            parts = getattr(getattr(method, "network", None), _UPSAMPLING, ())
            inner = [f"network.{part}{end}" for part in parts for end in ("", ".*")]
        matched = {name for name in names for p in inner if fnmatchcase(name, p)}
        if not matched:
            tops = ", ".join(dict.fromkeys(".".join(name.split(".")[:2]) + ".*" for name in names))
            raise LensphysError(f"training.phases: {pattern!r} names no parameter, there are {tops}")
        found |= matched
    return found


def check_phases(method: Trainable[Any], settings: TrainingSettings) -> None:
    """Raise unless each phase trains something.

    Raises:
        LensphysError: if a pattern names no parameter.
    """
    for phase in settings.phases:
        learning(method, phase.train)


class _Run:
    """The state of a training: everything that a checkpoint holds."""

    def __init__(
        self,
        fabric: Fabric,
        method: Trainable[Any],
        batches: TrainingData,
        settings: TrainingSettings,
        folder: Path,
    ) -> None:
        self.fabric, self.method, self.batches, self.settings, self.folder = fabric, method, batches, settings, folder
        check_phases(method, settings)
        for weight in method.parameters():  # convolutions are up to twice as fast
            if weight.ndim == 4:
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        optimizers = [torch.optim.Adam(p.parameters(), lr=settings.learning_rate) for p in method.players.values()]
        self.module, *made = fabric.setup(_Objective(method), *optimizers)
        self.optimizers = dict(zip(method.players, made, strict=True))
        self.epoch, self.step = 0, 0  # step within the epoch
        self.sums: dict[str, float] = {}
        self.smallest: dict[str, float] = {}  # loss of each player in the first epoch
        self.best = math.inf
        self.seconds = 0.0
        self.whole = True  # between two steps: all players have made theirs, and they are counted
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
                        with (self.folder / LOG).open("a", encoding="utf-8") as log:
                            log.write(json.dumps(record) + "\n")
        except KeyboardInterrupt:
            if self.whole:  # else what was saved last goes on
                self._save()
            raise
        finally:
            if writer is not None:
                writer.close()

    @property
    def _over(self) -> bool:
        """Whether the epochs are done or the time is up."""
        limit = self.settings.minutes
        late = limit is not None and self.seconds >= 60 * limit
        return self.epoch >= self.settings.epochs or late

    def _pass(self, seconds: float) -> None:
        """Count time that was spent; where it decides, all processes go by one clock."""
        self.seconds += seconds if self.settings.minutes is None else self._mean(seconds)

    def _progress(self, within: float) -> float:
        """The finished share of the training, ``within`` of an epoch."""
        limit = self.settings.minutes
        late = 0.0 if limit is None else self.seconds / (60 * limit)
        return max((self.epoch + within) / self.settings.epochs, late)

    def _epochs(self, writer: Tracker | None, interrupts: Interrupts) -> Iterator[dict[str, float]]:
        with progress_bar(counter=TaskProgressColumn(), disable=not self.fabric.is_global_zero) as progress:
            bar = progress.add_task("training", total=1.0)
            progress.update(bar, completed=self._progress(0.0))
            while self.step or not self._over:  # an epoch that was begun ends with a validation
                steps = self.batches.of_epoch(self.epoch, self.fabric.global_rank, self.fabric.world_size)
                for _ in self._steps(steps, writer):
                    progress.update(bar, completed=self._progress(self.step / len(steps)))
                    if self._anyone(interrupts.wished):
                        raise KeyboardInterrupt
                record = self._record()
                score = record["validation"]
                if writer is not None:
                    writer.add_scalar("validation", score, (self.epoch + 1) * len(steps))
                self.whole = False
                self.epoch, self.step, self.sums = self.epoch + 1, 0, {}
                yield record
                self._keep_best(score)
                self.whole = True
                self._save()
                progress.update(bar, description=f"epoch {self.epoch}: validation {score:.4g}")

    def _steps(self, steps: Sequence[Tensor], writer: Tracker | None) -> Iterator[None]:
        """Go on with the epoch, step by step, to its end or that of the time."""
        frozen = self._start_epoch()
        while self.step < len(steps) and not (self.step and self._over):
            started = time.monotonic()
            terms = self._step(steps[self.step], len(steps), frozen)
            self.step += 1
            self._pass(time.monotonic() - started)
            self.sums |= {name: self.sums.get(name, 0.0) + value for name, value in terms.items()}
            self.whole = True
            if writer is not None:
                for name, value in terms.items():
                    writer.add_scalar(f"train/{name}", value, self.epoch * len(steps) + self.step)
            yield

    def _record(self) -> dict[str, float]:
        """The means of the epoch's terms, and the score of a validation."""
        started = time.monotonic()
        score = self._validate()
        self._check("validation", score)
        self._pass(time.monotonic() - started)
        means = {name: self._mean(total / self.step) for name, total in self.sums.items()}
        return {"epoch": self.epoch, **means, "validation": score, "seconds": round(self.seconds, 2)}

    def _start_epoch(self) -> set[str]:
        """Set what trains in this epoch; return the names of the frozen parameters."""
        self.module.train()
        if not self.settings.phases:
            return set()
        phase, _ = self.settings.phase_at(self.epoch)
        names = {id(p): name for name, p in self.method.named_parameters()}
        free = learning(self.method, phase.train)
        for module in self.method.modules():
            own = {names[id(p)] for p in module.parameters()}
            if own and not own & free:
                module.eval()  # batch normalisations keep what they have learned
        return set(names.values()) - free

    def _step(self, index: Tensor, steps: int, frozen: set[str]) -> dict[str, float]:
        rate = self.settings.rate_at(self.epoch + self.step / steps, self.seconds)
        batch = self.batches.read(index, self.fabric.device)
        found: dict[str, float] = {}
        for player, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = rate
            mine = {id(p) for p in self.method.players[player].parameters()}
            for name, p in self.method.named_parameters():
                p.requires_grad_(id(p) in mine and name not in frozen)
            if not any(p.requires_grad for p in self.method.parameters()):
                continue  # this phase freezes the whole player
            terms = self._terms(batch, player, index)
            self._descend(terms["loss"], optimizer, index)
            prefix = f"{player}/" if player else ""
            found |= {f"{prefix}{name}": float(value.detach()) for name, value in terms.items()}
        return found

    def _terms(self, batch: Any, player: str, index: Tensor) -> dict[str, Tensor]:
        """A player's loss of a batch, if it is one that can be learned from."""
        try:
            terms: dict[str, Tensor] = self.module(batch, player, self.epoch)
        except ValueError as error:
            if _ONE_VALUE not in str(error):
                raise
            raise LensphysError(
                f"batch normalisation sees a single value in a batch of {len(index)}: raise training.batch_size"
            ) from None
        loss = float(terms["loss"].detach())
        self._check("loss", loss, index)
        if self.epoch == 0:
            self.smallest[player] = min(abs(loss), self.smallest.get(player, math.inf))
        usual = self.smallest.get(player, math.inf)
        if abs(loss) > self.settings.explosion * max(1.0, usual):
            raise LensphysError(
                f"the loss explodes: {loss:.3g} {self._where(index)}, where {usual:.3g} was usual at first: look at "
                "these images with 'lensphys doctor', or start again with a lower training.learning_rate"
            )
        return terms

    def _check(self, name: str, value: float, index: Tensor | None = None) -> None:
        """Raise unless a number is finite: nothing of what came of it is kept."""
        if not math.isfinite(value):
            kept = f"; the weights up to epoch {self.epoch - 1} are kept" if self.epoch else ""
            raise LensphysError(
                f"the {name} is not finite {self._where(index)}: start again with a lower training.learning_rate{kept}"
            )

    def _where(self, index: Tensor | None) -> str:
        if index is None:
            return f"after epoch {self.epoch}"
        images = ", ".join(map(str, index.tolist()[:_NAMED])) + (", ..." if len(index) > _NAMED else "")
        return f"at epoch {self.epoch}, step {self.step} (images {images} of {self.batches.name})"

    def _descend(self, loss: Tensor, optimizer: Any, index: Tensor) -> None:
        optimizer.zero_grad()
        self.fabric.backward(loss)
        clip = self.settings.clip_gradient or math.inf
        norm = self.fabric.clip_gradients(self.module, optimizer, max_norm=clip, error_if_nonfinite=False)
        if norm is not None and self.settings.precision != "16-mixed":  # whose scaler skips a step that overflows
            self._check("gradient", float(norm), index)
        self.whole = False
        optimizer.step()

    def _validate(self) -> float:
        self.module.eval()
        total, count = 0.0, 0
        with torch.no_grad():
            for index in self.batches.of_validation(self.fabric.global_rank, self.fabric.world_size):
                batch = self.batches.read(index, self.fabric.device)
                total += float(self.module(batch, "", 0)["score"]) * len(index)
                count += len(index)
        return self._mean(total / count)

    def _mean(self, value: float) -> float:
        total = self.fabric.all_reduce(torch.tensor(value, dtype=torch.float64), reduce_op="mean")
        return float(cast(Tensor, total))

    def _anyone(self, wished: bool) -> bool:
        """Whether any process was asked to stop: all must stop at the same step."""
        return wished if self.fabric.world_size == 1 else self._mean(float(wished)) > 0

    def _keep_best(self, score: float) -> None:
        if score < self.best or self.method.keeps == "last" or not (self.folder / WEIGHTS).exists():
            if self.fabric.is_global_zero:
                write_weights(self.folder / WEIGHTS, self.method.state_dict())
            self.best = min(score, self.best)

    def _save(self) -> None:
        if not self.fabric.is_global_zero:
            return
        state = {
            "method": self.method.state_dict(),
            "optimizers": {player: optimizer.state_dict() for player, optimizer in self.optimizers.items()},
            "precision": self.fabric.strategy.precision.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state() if self.fabric.device.type == "cuda" else None,
            "progress": {k: getattr(self, k) for k in ("epoch", "step", "sums", "smallest", "best", "seconds")},
            "data": self.batches.identity,
        }
        with whole_file(self.folder / CHECKPOINT) as temporary:
            file = io.BytesIO()  # torch's own writer does not say why a disk takes no more
            torch.save(state, file)
            temporary.write_bytes(file.getbuffer())

    def _load(self) -> None:
        path = self.folder / CHECKPOINT
        try:
            if lost := ZipFile(path).testzip():  # torch does not look at the checksums of its own file
                raise BadZipFile(f"the checksum of {lost} does not match")
            state = torch.load(path, map_location=self.fabric.device, weights_only=True)
            self.method.load_state_dict(state["method"])
            for player, optimizer in self.optimizers.items():
                optimizer.load_state_dict(state["optimizers"][player])
            self.fabric.strategy.precision.load_state_dict(state["precision"])
            if self.fabric.is_global_zero:  # whose state it is
                torch.set_rng_state(state["random"].cpu())
                if state.get("random_cuda") is not None and self.fabric.device.type == "cuda":
                    torch.cuda.set_rng_state(state["random_cuda"].cpu())
            progress, data = state["progress"], state["data"]
        except Exception as error:
            raise LensphysError(
                f"{path} is damaged or belongs to another method ({shortened(str(error))}): remove it to start anew"
            ) from None
        if not all(bool(x.isfinite().all()) for x in self.method.parameters()):
            raise LensphysError(f"{path} holds weights that are not finite: remove it to start anew")
        if data != self.batches.identity:
            raise LensphysError(f"{self.folder} was trained on other data than {self.batches.name}")
        for name, value in progress.items():
            setattr(self, name, value)
        if self.epoch:  # the checkpoint has the last weights, these are the best ones
            if not (self.folder / WEIGHTS).is_file():
                raise LensphysError(
                    f"{self.folder / WEIGHTS} is gone, the weights of the best epoch so far: copy it back, or remove "
                    f"{CHECKPOINT} to start anew"
                )
            read_weights(self.folder)

    def _forget_later_records(self) -> None:
        """Cut the log after the last finished epoch, so that a killed run does not log an epoch twice."""
        if not self.fabric.is_global_zero:
            return
        kept = [record for record in read_log(self.folder) if record["epoch"] < self.epoch]
        if len(kept) < self.epoch:
            lost = self.epoch - len(kept)
            print(f"note: {self.folder / LOG} lacks {lost} of {self.epoch} finished epochs", file=sys.stderr)
        if (self.folder / LOG).is_file():
            with whole_file(self.folder / LOG) as temporary:
                temporary.write_text("".join(f"{json.dumps(record)}\n" for record in kept), encoding="utf-8")
