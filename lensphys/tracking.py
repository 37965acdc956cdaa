"""Where a training reports every term, step by step: TensorBoard or W&B."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from lensphys.checks import LensphysError


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
    if name == "wandb":
        return _WeightsAndBiases(folder)
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / "tensorboard"))
