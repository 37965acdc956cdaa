"""The method that a command super-resolves with: of a run folder, of shipped weights, or by its name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lensphys.checks import LensphysError, check_choice

if TYPE_CHECKING:
    from lensphys.methods import Method


@dataclass(frozen=True)
class Chosen:
    """What super-resolves, what tables call it, and the folder of its run or weights, if it has one."""

    method: Method
    name: str
    folder: Path | None = None
    scale: int = 2


def chosen_method(run: Path | None, weights: str | None, method: str | None, refine: int | None, device: str) -> Chosen:
    """Return the method of a run folder, of weights or of a name."""
    from lensphys.methods import READY

    if sum(x is not None for x in (run, weights, method)) != 1:
        raise LensphysError("give one of a run folder, --weights and --method")
    if method is not None:
        check_choice("method", method, list(READY))
        if refine is not None:
            raise LensphysError("--refine goes on from a network's answer: give --weights or a run, not --method")
        return Chosen(READY[method], method)
    if run is not None:
        return trained(run, run.name, refine, device)
    from lensphys.weights import weights_folder

    return trained(weights_folder(str(weights)), f"{weights} weights", refine, device)


def trained(folder: Path, name: str, refine: int | None, device: str) -> Chosen:
    """Return a trained method, refined where it can be."""
    from lensphys.config import load_run
    from lensphys.methods import AmortisedMethod

    method = load_run(folder).to(device)
    scale = int(getattr(method, "scale", 2))
    if not isinstance(method, AmortisedMethod):
        if refine is not None:
            raise LensphysError(f"--refine goes on from an amortised network's answer, and {folder} holds another one")
        return Chosen(method, name, folder, scale)
    if refine == 0:
        return Chosen(method, f"{name}, one pass", folder, scale)
    how = "refined" if refine is None else f"refined {refine} x"
    return Chosen(method.refined(refine), f"{name}, {how}", folder, scale)
