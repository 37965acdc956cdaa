"""The method that super-resolves: of a run folder, of shipped weights, by its name, or of a model that is fitted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensphys.basics.checks import LensphysError, check_choice, check_whole, shortened

if TYPE_CHECKING:
    from lensphys.fitting import FitModel
    from lensphys.methods import Method
    from lensphys.observation import Instrument

    Asked = str | Path | Mapping[str, Any] | FitModel  # a YAML file, what such a file holds, or what was read of it


@dataclass(frozen=True)
class Chosen:
    """What super-resolves.

    Args:
        method: it.
        name: what tables call it.
        folder: of its run or weights; None where it has neither.
        scale: by how much pixels become smaller where nobody says.
        record: for the provenance.
        instrument: that its weights were trained on, if it has any.
    """

    method: Method
    name: str
    folder: Path | None = None
    scale: int = 2
    record: Mapping[str, Any] = field(default_factory=dict)
    instrument: Instrument | None = None

    @property
    def identity(self) -> str:
        """The method with all that its results depend on: settings, and checksums of weights."""
        from lensphys.basics.outputs import checksum
        from lensphys.basics.runs import CONFIG, WEIGHTS

        files = [] if self.folder is None else [self.folder / name for name in (CONFIG, WEIGHTS)]
        return repr([self.name, dict(self.record), [checksum(path) for path in files]])


def network(run: Path | None, weights: str | None, method: str | None) -> Path | str | None:
    """Return the network that is asked for, None if it is none: a run folder, or the name of weights.

    Raises:
        LensphysError: if more than one thing is asked for.
    """
    if sum(x is not None for x in (run, weights, method)) > 1:
        raise LensphysError("give one of a run folder, --weights and --method")
    return weights if run is None else run


def chosen_for(
    weights: str | Path | Method | None,
    method: str | Method | None,
    model: Asked | None,
    refine: int | None,
    device: str,
) -> Chosen:
    """Return what super-resolves: a fit, if nothing is said.

    Raises:
        LensphysError: if two things are asked for, one is not there, or ``refine`` is below 0.
    """
    if refine is not None:
        check_whole("--refine", refine, 0)
    if model is not None:
        return _fit_of(model, weights=weights, method=method, refine=refine)
    if weights is not None and method is not None:
        raise LensphysError("give one of --weights and --method")
    match weights, method:
        case None, None | str():
            return _ready(method or "refine", refine)
        case str() | Path(), None:
            return _trained(weights, refine, device)
    made: Any = weights or method
    return _refined(made.to(device) if hasattr(made, "to") else made, type(made).__name__, refine)


def fit_model(model: Asked) -> FitModel:
    """Return the model that a YAML file, or what such a file holds, asks for; one that was read before as it is.

    Raises:
        LensphysError: naming each faulty key.
    """
    from lensphys.fitting import FitModel

    match model:
        case str() | Path():
            return FitModel.named(model)
        case Mapping():
            return FitModel.parse(dict(model), "model")
        case FitModel():
            return model
    raise LensphysError(f"model must be a YAML file, a mapping or a FitModel, got {shortened(repr(model))}")


def _fit_of(model: Asked, **others: object) -> Chosen:
    """The fit of a user's own model, beside which nothing ``others``, by the names of options, can be asked for."""
    from lensphys.methods import RefinedFit

    method = others.pop("method", None)
    wrong = [f"--{name}" for name, value in others.items() if value is not None]
    if wrong or method not in (None, "refine"):
        raise LensphysError(
            f"--model says what the method refine fits, and {' '.join(wrong) or f'--method {method}'} asks for another "
            "one: take one of them away"
        )
    fit = RefinedFit(model=fit_model(model))
    return Chosen(fit, "refine", record={"model": fit.model.resolved})


def _ready(method: str, refine: int | None) -> Chosen:
    """The method of a name that needs no training."""
    from lensphys.methods import READY

    check_choice("method", method, list(READY))
    if refine is not None:
        asked = "give --weights or a run" + ("" if method == "refine" else f", not --method {method}")
        raise LensphysError(f"--refine {refine} goes on from a network's answer: {asked}")
    return Chosen(READY[method], method)


def _trained(weights: str | Path, refine: int | None, device: str) -> Chosen:
    """The network of a run folder, or of weights by their name."""
    from lensphys.training.experiment import load_run

    folder = run_of(weights)
    name = folder.name if folder == Path(weights) else f"{weights} weights"
    return _refined(load_run(folder).to(device), name, refine, folder)


def _refined(method: Method, name: str, refine: int | None, folder: Path | None = None) -> Chosen:
    """A method, refined where it can be and ``refine`` is not 0."""
    from lensphys.methods import Refinable

    scale, instrument = int(getattr(method, "scale", 2)), getattr(method, "instrument", None)
    if not isinstance(method, Refinable):
        if refine is not None:
            raise LensphysError(
                f"--refine starts from an amortised network's answer, and {folder or name} holds another one"
            )
        return Chosen(method, name, folder, scale, instrument=instrument)
    if refine == 0:
        return Chosen(method, f"{name}, one pass", folder, scale, instrument=instrument)
    how = "refined" if refine is None else f"refined {refine} x"
    return Chosen(method.refined(refine), f"{name}, {how}", folder, scale, instrument=instrument)


def run_of(weights: str | Path) -> Path:
    """Return the run folder of a name: of weights that come with the package, or a path.

    Raises:
        LensphysError: if it is neither.
    """
    from lensphys.weights import weights_folder, weights_names

    if isinstance(weights, Path):
        return weights
    if str(weights) in weights_names():
        return weights_folder(str(weights))
    if Path(weights).is_file():
        raise LensphysError(f"{weights} is a file, and a trained network is a folder: `lensphys show` opens results")
    if not Path(weights).is_dir():
        raise LensphysError(
            f"weights {weights} not found: it is no run folder, and the package has {', '.join(weights_names())}"
        )
    return Path(weights)
