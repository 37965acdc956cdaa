"""Where a training reports every term, step by step: TensorBoard or W&B."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from lensphys.basics.extras import need


class Tracker(Protocol):
    """What takes scalars step by step: TensorBoard's ``SummaryWriter`` or anything with its two methods."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        """Take one number."""

    def close(self) -> None:
        """Write what is left."""


class _WeightsAndBiases:
    """A W&B run as a `Tracker`."""

    def __init__(self, folder: Path) -> None:
        import wandb

        self._run = wandb.init(project="lensphys", name=folder.name, dir=folder)

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        self._run.log({tag: scalar_value}, step=global_step)

    def close(self) -> None:
        self._run.finish()


def tracker(name: str, folder: Path) -> Tracker:
    """Return the tracker of a run folder: ``tensorboard`` or ``wandb``.

    Raises:
        MissingExtraError: if it is not installed.
    """
    need(name, f"training.tracker {name}")
    if name == "wandb":
        return _WeightsAndBiases(folder)
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / "tensorboard"))
