"""The run folder that a training leaves behind: its files, and what can be read of it without knowing the method."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from lensphys.basics.checks import LensphysError, shortened
from lensphys.basics.outputs import whole_file
from lensphys.basics.settings import read_yaml

CONFIG, INSTRUMENT, PROVENANCE = "config.yaml", "instrument.yaml", "provenance.json"
VALIDITY = "trained_on.yaml"
CHECKPOINT, WEIGHTS, LOG = "last.ckpt", "best.safetensors", "log.jsonl"
READER = "reader.json"  # of a trained reader of `lensphys downstream`
_CHECKSUM = "crc32"


def check_trained(run: Path) -> None:
    """Raise unless a folder holds trained weights.

    Raises:
        LensphysError: with the remedy.
    """
    if not run.is_dir():
        raise LensphysError(f"run folder not found: {run}")
    if not (run / WEIGHTS).exists():
        raise LensphysError(f"{run} holds no trained weights ({WEIGHTS}): train it first with 'lensphys train'")


def run_settings(run: Path) -> dict[str, Any]:
    """Return the resolved experiment of a run, as a plain tree."""
    check_trained(run)
    return read_yaml(run / CONFIG)


def load_weights(module: nn.Module, run: Path, *, part: str = "") -> None:
    """Load the weights of a run into a module that fits them.

    Args:
        module: what gets them.
        run: the folder.
        part: only those of this part of the run's method (``network``, say).

    Raises:
        LensphysError: if they do not fit.
    """
    start = f"{part}." if part else ""
    state = {k.removeprefix(start): x for k, x in read_weights(run).items() if k.startswith(start)}
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise LensphysError(f"{run / WEIGHTS} does not fit {CONFIG}: {shortened(str(error), 300)}") from None


def start_from(module: nn.Module, run: Path) -> list[str]:
    """Load the weights of a run of another training into a module; what the run does not have stays fresh.

    Args:
        module: what gets them; names and shapes of all of the run's weights must be found in it. That is all that is
            asked: a network whose weights do not depend on its scale may start from one of another scale.
        run: the folder.

    Returns:
        The names that stayed as they were.

    Raises:
        LensphysError: if something of the run has no place in the module.
    """
    own, found = module.state_dict(), read_weights(run)
    foreign = misfits(own, found)
    if foreign:
        raise LensphysError(
            f"cannot start from {run}: {len(foreign)} of its {len(found)} weights have no place here (the first is "
            f"{foreign[0]}): start from a run of the same network"
        )
    module.load_state_dict(found, strict=False)
    return [name for name in own if name not in found]


def misfits(own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """Return the names of weights that have no place of their shape among a module's own."""
    return [name for name, x in found.items() if name not in own or own[name].shape != x.shape]


def read_weights(run: Path) -> dict[str, Tensor]:
    """Return the weights that a run kept, by name, each of its own shape, on the CPU.

    Raises:
        LensphysError: if there are none, or the file is damaged, by its checksum too, or holds NaN.
    """
    check_trained(run)
    path = run / WEIGHTS
    try:
        with safe_open(path, "pt") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
            said = file.metadata()
    except Exception as error:  # a damaged file fails in any way
        raise LensphysError(f"{path} is damaged ({shortened(str(error))}): copy it or train it again") from None
    if said is not None and said.get(_CHECKSUM) != _checksum(found):  # no word at all: written by others
        raise LensphysError(f"{path} is damaged (its checksum does not match): copy it or train it again")
    lost = [name for name, x in found.items() if x.is_floating_point() and not x.isfinite().all()]
    if lost:
        raise LensphysError(f"{path} holds NaN or infinite weights ({shortened(lost[0])}): train it again")
    return found


def write_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write weights with their checksum, whole or not at all."""
    state = {name: x.detach().cpu().contiguous() for name, x in weights.items()}
    with whole_file(path) as temporary:
        temporary.write_bytes(save(state, {_CHECKSUM: _checksum(state)}))


def read_log(run: Path) -> list[dict[str, Any]]:
    """Return what a run logged, a record an epoch: lines that a kill or a damage cut short are left out."""
    path = run / LOG
    found = []
    for line in path.read_text(errors="replace", encoding="utf-8").splitlines() if path.is_file() else ():
        with suppress(ValueError, RecursionError):
            record = json.loads(line)
            found += [record] if isinstance(record, dict) and isinstance(record.get("epoch"), int) else []
    return found


def _checksum(weights: Mapping[str, Tensor]) -> str:
    """The CRC-32 of names, kinds, shapes and values."""
    value = 0
    for name in sorted(weights):
        x = weights[name]
        value = zlib.crc32(f"{name} {x.dtype} {tuple(x.shape)}".encode(), value)
        value = zlib.crc32(x.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes(), value)
    return f"{value:08x}"


def run_provenance(run: Path) -> dict[str, Any] | None:
    """Return where a run comes from; None where its folder does not say.

    Raises:
        LensphysError: if the file is damaged.
    """
    path = run / PROVENANCE
    if not path.is_file():
        return None
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        raise LensphysError(f"{path} is damaged: remove it, or copy it again") from None
