"""From images to super-resolved ones: for `lensphys.super_resolve`, `lensphys.fit` and the command line alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

from numpy.typing import NDArray

from lensphys.api.chosen import Chosen, chosen_for
from lensphys.api.device import device_of
from lensphys.api.images import File, Images, as_images, kernel
from lensphys.api.joint import Dataset, JointResult, joint_method, super_resolved
from lensphys.api.redshifts import Redshifts
from lensphys.api.result import Outcome, Result
from lensphys.api.words import in_python, tell
from lensphys.basics.checks import LensphysError, check_whole
from lensphys.basics.constants import normal_tensors
from lensphys.basics.provenance import provenance
from lensphys.data.images import ImageSet, with_target_psf
from lensphys.data.kept import Kept
from lensphys.data.stack import ImageStack
from lensphys.fitting import FitModel
from lensphys.methods import Method
from lensphys.methods.super_resolve import super_resolve as computed

_PARTS = 64  # of a stack whose images are fitted by themselves, at least, where it has as many images
FINEST = 16  # times as fine: more is a slip of the hand

Model = File | Mapping[str, Any] | FitModel


@overload
def super_resolve(
    images: Dataset,
    scale: int | None = None,
    *,
    method: str | Method | None = None,
    model: Model | None = None,
    z_lens: float | None = None,
    z_source: float | None = None,
    device: str = "auto",
) -> JointResult: ...


@overload
def super_resolve(
    images: Images | File | NDArray[Any],
    scale: int | None = None,
    *,
    weights: str | Path | Method | None = None,
    method: str | Method | None = None,
    model: Model | None = None,
    refine: int | None = None,
    target_psf: File | NDArray[Any] | None = None,
    z_lens: float | None = None,
    z_source: float | None = None,
    workers: int = 1,
    batch_size: int = 16,
    device: str = "auto",
) -> Result: ...


@normal_tensors()
def super_resolve(
    images: Images | File | NDArray[Any] | Dataset,
    scale: int | None = None,
    *,
    weights: str | Path | Method | None = None,
    method: str | Method | None = None,
    model: Model | None = None,
    refine: int | None = None,
    target_psf: File | NDArray[Any] | None = None,
    z_lens: float | None = None,
    z_source: float | None = None,
    workers: int = 1,
    batch_size: int = 16,
    device: str = "auto",
) -> Result | JointResult:
    """Super-resolve images; without a trained network, each one is fitted on its own.

    Args:
        images: what `lensphys.read` returned; or a file, or an array (H, W) or (N, H, W), that it reads without further
            arguments, and whose PSF and noise, where none are known, are those of the network's training; or a
            `lensphys.Dataset`: several images of one lens, which are fitted together.
        scale: factor by which pixels become smaller; None for the network's own, or 2 without a network.
        weights: a network: the name of one that comes with the package (``lensphys list weights``), the run folder of a
            training, or what `lensphys.load` returned. Its answer is refined by a fit where it can be.
        method: one that needs no training, by its name (``lensphys list methods``), or any `Method`; by default
            ``refine``, a fit of each image.
        model: what the fit is made of: a YAML file, or such a tree as a dict; see `lensphys.fit`.
        refine: rounds of fitting that follow a network's answer; 0 for one forward pass, None until the fit stops
            improving.
        target_psf: PSF that the result shall have: a kernel (K, K) with a sum of 1 on super-resolved pixels, a file or
            an array; the image's own PSF if None.
        z_lens: redshift of the lens; with ``z_source``, sub-halos get masses, and the table has the mass within
            the Einstein radius.
        z_source: redshift of the source.
        workers: processes that fit images of a stack side by side.
        batch_size: images of a stack at a time: on a GPU, the more the faster, as far as its memory goes.
        device: ``auto`` (a GPU where there is one), ``cpu`` or ``cuda``.

    Raises:
        LensphysError: one sentence on what is wrong, and what to do.

    Example::

        result = lp.super_resolve(lp.read("lens.fits"), scale=2)
        result.plot().savefig("lens.png")
        result.write("lens_sr.fits")
    """
    with in_python():
        redshifts, where = Redshifts.given(z_lens, z_source), device_of(device)
        chosen = chosen_for(weights, method, model, refine, where)
        given = images if isinstance(images, Dataset) else as_images(images, chosen.instrument)
        factor = check_whole("scale", chosen.scale if scale is None else scale, 1, FINEST)
        if isinstance(given, Dataset):
            if target_psf is not None:
                raise LensphysError("a target PSF is for a single image: leave it out for several images of a lens")
            tell(given.doubts(redshifts))
            return super_resolved(given, joint_method(chosen.method, chosen.name), factor, redshifts, device=where)
        ready, target = given.set, kernel(target_psf, "the target PSF")
        tell([] if redshifts is None else redshifts.remarks(ready.header))
        record = {"input": given.name}
        if target is not None:
            ready = with_target_psf(ready, target, factor)
            tell(r for r in ready.remarks if r not in given.remarks)
            record["target_psf"] = ready.psf
        found = resolved(
            ready,
            chosen,
            factor,
            redshifts=redshifts,
            workers=workers,
            batch_size=batch_size,
            device=where,
            record=record,
        )
    if found.without_theta_E is not None:
        tell([found.without_theta_E])
    return Result(replace(given, set=ready), found.planes, factor, found.provenance)


def resolved(
    images: ImageSet | ImageStack,
    chosen: Chosen,
    scale: int,
    *,
    redshifts: Redshifts | None = None,
    workers: int = 1,
    batch_size: int = 16,
    device: str = "cpu",
    record: Mapping[str, Any] | None = None,
    beside: Path | None = None,
) -> Outcome:
    """Return what a method makes of images.

    Args:
        images: as they were read, or a long stack that is read as it is wanted.
        chosen: the method.
        scale: factor by which pixels become smaller.
        redshifts: of lens and source, for the masses of sub-halos.
        workers: processes side by side.
        batch_size: images at a time, fewer where workers share a short stack or each is fitted by itself: a chunk.
        device: ``cpu`` or ``cuda``.
        record: for the provenance.
        beside: the file that the result goes to: of a stack the finished chunks are kept beside it.

    Raises:
        LensphysError: if batch_size or workers is below 1.
    """
    for name, count in (("batch_size", batch_size), ("--workers", workers)):
        check_whole(name, count, 1)
    origin = provenance(**(record or {}), read=images.remarks, method=chosen.name, scale=scale, **chosen.record)
    slow = device == "cpu" and getattr(chosen.method, "by_itself", False)  # seconds an image: kept in small parts
    shares = max(_PARTS if slow else 1, 1 if workers == 1 else 2 * workers)
    chunk = max(1, min(batch_size, len(images.index) // shares))
    kept = None if beside is None else _kept(images, beside, origin | {"method": chosen.identity}, chunk)
    planes = computed(
        chosen.method, images.observation, scale, batch_size=chunk, device=device, workers=workers, kept=kept
    )
    if images.index.tolist() != [0]:  # of a stack, or one image out of it
        planes["index"] = images.index
    if redshifts is not None:
        planes, origin = redshifts.completed(planes), origin | redshifts.record
    return Outcome(images, planes, scale, origin, kept)


def kept_beside(out: Path) -> Path:
    """Return the folder where finished parts of a result lie until it is written."""
    return out.with_name(f".{out.name}.parts")


def _kept(images: ImageSet | ImageStack, out: Path, origin: dict[str, Any], chunk: int) -> Kept | None:
    """Where the finished chunks of a stack lie; None for what is a chunk in all."""
    count = len(images.index)
    if count <= chunk:
        return None
    identity = origin | {"pixels": images.fingerprint, "rows": images.index.tolist(), "chunk": chunk}
    return Kept(kept_beside(out), identity, -(-count // chunk))
