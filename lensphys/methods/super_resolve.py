"""Super-resolving a set of images of any size: a chunk at a time, side by side, kept as they are finished."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lensphys.basics.runners import Processes
from lensphys.basics.sentences import joined
from lensphys.basics.terminal import counted_inside, progress_console
from lensphys.basics.threads import on_one_thread
from lensphys.data.kept import Kept, Stack
from lensphys.fits.numbers import OF_FITS
from lensphys.methods import Method, Prediction
from lensphys.observation import Observation, Observations
from lensphys.prediction import BODY, source_grid

Planes = dict[str, np.ndarray]
_TABLE = ("parameters", "errors", "covariance", "parameter_names", "parameter_units", "body_columns")


def super_resolve(
    method: Method,
    observation: Observations,
    scale: int,
    *,
    batch_size: int = 16,
    device: str = "cpu",
    workers: int = 1,
    kept: Kept | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Return what a method makes of a set of images.

    Args:
        method: any `Method`.
        observation: images (N, 1, H, W) and how they were taken, in memory or read as they are wanted.
        scale: factor by which pixels become smaller.
        batch_size: images at once.
        device: where the method computes.
        workers: processes that work side by side on a CPU.
        kept: where chunks of ``batch_size`` images are kept as they are finished, with the results too large for
            memory; those that are there already are not computed again.
        quiet: no progress is shown.

    Returns:
        ``image`` (N, sH, sW) [flux per pixel], ``lr`` and ``model`` (N, H, W) [flux per pixel], the image that was
        given (0 for NaN) and the one that the method predicts, ``residual`` (N, H, W) [flux per pixel], 0 where masked,
        ``noise`` (N, H, W) [flux per pixel], the standard deviation of each pixel by itself and NaN where it was
        left out, and ``chi2`` (N,) per degree of freedom; where the method has them ``lens_light`` (N, H, W) [flux per
        pixel], zero where none was found, ``sigma`` (N, sH, sW) [flux per pixel], the standard deviation of ``image``,
        ``constrained`` (N, sH, sW), 1 where the data and 0 where the prior determined the deflection, ``alpha`` (N, 2,
        sH, sW) [arcsec], ``kappa`` (N, sH, sW), ``theta_E`` (N,) [arcsec], ``subhalos`` (N,), how many were found, and
        ``false_subhalos`` (N,), how many of a smooth lens would be, by calibration, ``best_gain`` (N,) and
        ``substructure_evidence`` (N,), what of substructure the image shows: see `fitting.source.Shown`,
        ``noise_scale`` (N,), the noise of the sky over the error map where they differ, else 1: see `SharedNoise`,
        ``left_out`` (N,), pixels of other objects and bad ones, which the fit left out, ``source`` (N, 100, 100) [flux
        / arcsec^2] and ``source_scale`` [arcsec]; ``parameters`` and ``errors`` (N, P) of ``parameter_names`` and
        ``parameter_units`` (P,), ``covariance`` (N, P, P) of those that were fitted, NaN for others; ``bodies``
        (N, K, 7), the sub-halos, NaN where an image has fewer, in the columns of
        ``body_columns``; ``quality`` (N,), good, suspect or bad, and ``reasons`` (N,).
        With ``kept``, what has more than two dimensions is a `Stack`.

    Raises:
        LensphysError: if a worker dies.
    """
    rows = torch.arange(len(observation)).split(batch_size)
    missing = list(range(len(rows))) if kept is None else kept.missing
    parts = ((i, observation[rows[i]]) for i in missing)
    alone = min(workers, len(missing)) <= 1
    job = partial(_planes_of, method, scale, device) if alone else partial(_on_one_thread, method, scale)
    found: dict[int, Planes] = {}
    total, left = len(observation), sum(len(rows[i]) for i in missing)
    told = partial(counted_inside, before=total - left, console=progress_console(quiet=quiet))
    with closing(Processes(1 if alone else workers).run(job, parts)) as done:
        for i, planes in told(done, "super-resolving", lambda part: len(rows[part[0]]), total):
            if kept is None:
                found[i] = planes
            else:
                kept.keep(i, planes)
    result = _whole([found[i] for i in range(len(rows))]) if kept is None else _stacked(kept)
    return _with_source_scale(result, observation)


def described(prediction: Prediction, observation: Observation) -> dict[str, Any]:
    """Return what was made of a set of images as arrays: see `super_resolve`."""
    return _with_source_scale(_planes(prediction, observation), observation)


def _with_source_scale(planes: dict[str, Any], observation: Observations) -> dict[str, Any]:
    if "source" not in planes:
        return planes
    return planes | {"source_scale": source_grid(observation.camera.grid).scale}


def _planes_of(method: Method, scale: int, device: str, part: tuple[int, Observation]) -> tuple[int, Planes]:
    """The number of a chunk and what a method makes of it."""
    number, observation = part[0], part[1].to(device)
    with torch.no_grad():
        return number, _planes(method.predict(observation, scale), observation)


def _on_one_thread(method: Method, scale: int, part: tuple[int, Observation]) -> tuple[int, Planes]:
    """The same in a process beside others, which have the other cores."""
    with on_one_thread():
        return _planes_of(method, scale, "cpu", part)


def _whole(chunks: list[Planes]) -> dict[str, Any]:
    """The arrays of all chunks as one: those that all have, and numbers that some have, NaN for the others."""
    result: dict[str, Any] = {}
    for name in dict.fromkeys(name for chunk in chunks for name in chunk if name not in _TABLE):
        known = [chunk[name] for chunk in chunks if name in chunk]
        if known[0].ndim == 1 and known[0].dtype.kind == "f":
            known = [chunk[name] if name in chunk else np.full_like(chunk["chi2"], np.nan) for chunk in chunks]
        if len(known) == len(chunks):
            result[name] = _padded(known) if name == "bodies" else np.concatenate(known)
    return result | _whole_table(chunks)


def _stacked(kept: Kept) -> dict[str, Any]:
    """The arrays of all chunks: small ones whole, large ones to be read as they are wanted."""
    first = kept.chunk(0)
    large = [name for name, array in first.items() if array.ndim > 2 and name not in ("bodies", "covariance")]
    result = _whole([kept.chunk(i, without=large) for i in range(kept.count)])
    count = len(result["chi2"])
    for name in large:
        result[name] = Stack((count, *first[name].shape[1:]), first[name].dtype, partial(kept.chunks_of, name))
    return result


def _padded(bodies: list[np.ndarray]) -> np.ndarray:
    """Sub-halos of all chunks, NaN where an image has fewer."""
    most = max(part.shape[1] for part in bodies)
    return np.concatenate([np.pad(p, ((0, 0), (0, most - p.shape[1]), (0, 0)), constant_values=np.nan) for p in bodies])


def _whole_table(chunks: list[Planes]) -> dict[str, Any]:
    """The parameters of all chunks under their names: models differ, and NaN stands where an image's has none."""
    if not all("parameter_names" in chunk for chunk in chunks):
        return {}
    units = {n: u for c in chunks for n, u in zip(c["parameter_names"], c["parameter_units"], strict=True)}
    place = {name: column for column, name in enumerate(units)}
    columns = [[place[str(name)] for name in chunk["parameter_names"]] for chunk in chunks]
    table: dict[str, Any] = {}
    for key in ("parameters", "errors", "covariance"):
        if all(key in chunk for chunk in chunks):
            parts = [_spread(chunk[key], own, len(units)) for chunk, own in zip(chunks, columns, strict=True)]
            table[key] = np.concatenate(parts)
    names = {"parameter_names": np.array(list(units)), "parameter_units": np.array(list(units.values()))}
    return table | names | {"body_columns": chunks[0]["body_columns"]}


def _spread(values: np.ndarray, columns: list[int], count: int) -> np.ndarray:
    """Values (N, P) or (N, P, P) in their columns of ``count``, NaN in the others."""
    found = np.full((len(values), *[count] * (values.ndim - 1)), np.nan, values.dtype)
    found[np.ix_(range(len(values)), *[columns] * (values.ndim - 1))] = values
    return found


def _table(prediction: Prediction) -> dict[str, np.ndarray]:
    """All parameters with their errors; nothing for methods without."""
    if not prediction.errors:
        return {}
    names = list(prediction.errors)
    none = torch.full_like(prediction.image[:, 0, 0, 0], torch.nan)
    values, errors = (
        torch.stack([of.get(name, none).to(none) for name in names], dim=1)
        for of in (prediction.parameters, prediction.errors)
    )
    covariance = None if prediction.covariance is None else prediction.covariance.among(names).to(values)
    return {
        "parameters": values.cpu().numpy(),
        "errors": errors.cpu().numpy(),
        "parameter_names": np.array(names),
        "parameter_units": np.array([prediction.units.get(name, "") for name in names]),
        "body_columns": np.array(BODY),
        **({} if covariance is None else {"covariance": covariance.cpu().numpy()}),
    }


def _verdicts(prediction: Prediction) -> dict[str, np.ndarray]:
    """Quality and reasons of each image; nothing for methods that cannot tell."""
    if not prediction.verdicts:
        return {}
    return {
        "quality": np.array([v.quality for v in prediction.verdicts]),
        "reasons": np.array([joined(v.reasons) for v in prediction.verdicts]),
    }


def _planes(prediction: Prediction, observation: Observation) -> Planes:
    model = observation.noise.expected(prediction.observed)
    residual = (observation.image - model) * observation.weight
    found = prediction.numbers
    planes: dict[str, Tensor | None] = {
        "image": prediction.image[:, 0],
        "sigma": None if prediction.sigma is None else prediction.sigma[:, 0],
        "constrained": None if prediction.constrained is None else prediction.constrained[:, 0],
        "lr": observation.image[:, 0],
        "model": model.expand_as(residual)[:, 0],
        "residual": residual[:, 0],
        "noise": prediction.noise_of(observation).expand_as(residual)[:, 0],
        "chi2": prediction.reduced_chi2(observation),
        "theta_E": prediction.parameters.get("theta_E"),
        **{name: found.get(name) for name in OF_FITS},
        "subhalos": found["subhalos"].int() if "subhalos" in found else None,
        "bodies": prediction.bodies,
        "lens_light": None if prediction.lens_light is None else prediction.lens_light[:, 0],
    }
    field = prediction.deflection
    if field is not None:
        planes |= {"alpha": field.alpha, "kappa": field.kappa[:, 0]}
    source = prediction.source_image(source_grid(observation.camera.grid))
    if source is not None:
        planes["source"] = source[:, 0]
    arrays = {
        name: (x.float() if x.is_floating_point() else x).cpu().numpy() for name, x in planes.items() if x is not None
    }
    return arrays | _table(prediction) | _verdicts(prediction)
