"""The method that a command super-resolves with: of a run folder, of shipped weights, or by its name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensphys.checks import LensphysError, check_choice

if TYPE_CHECKING:
    from lensphys.methods import Method


@dataclass(frozen=True)
class Chosen:
    """What super-resolves, what tables call it, the folder of its run or weights, if it has one, and what to record."""

    method: Method
    name: str
    folder: Path | None = None
    scale: int = 2
    record: Mapping[str, Any] = field(default_factory=dict)


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


def asked_for(model: Path, **others: object) -> Chosen:
    """Return the fit of a user's own model.

    Args:
        model: a YAML file: see `lensphys.fitting.FitModel`.
        others: what else was asked for, by the names of the options.

    Raises:
        LensphysError: if that is another method, or the file is faulty.
    """
    from lensphys.fitting import FitModel
    from lensphys.methods import RefinedFit

    method = others.pop("method", None)
    wrong = [f"--{name}" for name, value in others.items() if value is not None]
    if wrong or method not in (None, "refine"):
        raise LensphysError(
            f"--model says what the method refine fits, and {' '.join(wrong) or f'--method {method}'} asks for another "
            "one: take one of them away"
        )
    fit = RefinedFit(model=FitModel.named(model))
    return Chosen(fit, "refine", record={"model": fit.model.resolved})


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
