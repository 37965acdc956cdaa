"""The first stage of RankSRGAN: the same images by several methods, and how natural each looks."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from lensphys.checks import LensphysError
from lensphys.data.lens_file import LensFile
from lensphys.data.rank_set import write_rank_set
from lensphys.evaluation.niqe import NIQE
from lensphys.methods import Method
from lensphys.provenance import provenance, whole_file

_BATCH = 16
_DARK = 0.02  # of an image's light: a patch with less shows sky
_RMS = (10**-3.5, 10**-2.2)  # of the noise in distorted images [LR peak]: up to about the rms by which methods differ
_WIDTH = (0.0, 1.2)  # standard deviation of its correlation [HR pixels]


def clean_niqe(lenses: LensFile, block: int = 32, limit: int = 600) -> NIQE:
    """Return NIQE fitted on the clean HR images of a file.

    Args:
        lenses: the file.
        block: side of a block [HR pixels].
        limit: at most so many images.

    Raises:
        LensphysError: if the file has no clean HR images, or too few.
    """
    if not lenses.has("hr_clean"):
        raise LensphysError(f"{lenses.path} has no clean HR images, which NIQE is fitted on: simulate some")
    clean = torch.from_numpy(lenses.read("hr_clean", slice(0, limit)).astype(np.float64))
    return NIQE.fit(clean.reshape(-1, 1, *clean.shape[-2:]), block=block)


def build_rank_set(
    methods: dict[str, Method],
    lenses: LensFile,
    niqe: NIQE,
    out: Path,
    *,
    patch: int | None = None,
    limit: int | None = None,
    mixtures: int = 0,
    distorted: int = 0,
    device: str = "cpu",
) -> None:
    """Super-resolve images by each method, cut them to patches, rank these by NIQE, and write the rank set.

    Where the methods look alike, a ranker learns to tell which one made an image, and its gradient leads nowhere.
    Mixtures of their images and distorted ones, each with a NIQE of its own, leave it nothing to learn but how natural
    an image looks.

    What a method has done is kept beside ``out``, under the hash of what it was made from, until the set is whole: the
    same call goes on.

    Args:
        methods: their names and what super-resolves, at least two.
        lenses: the images.
        niqe: what natural images look like.
        out: the HDF5 file.
        patch: side of the patches [HR pixels], at least a block of NIQE; whole images if None.
        limit: at most so many images; all if None.
        mixtures: how many weighted means of the methods' images join each patch.
        distorted: how many copies of these, with faint noise, join them.
        device: where the methods compute.

    Raises:
        LensphysError: if there are too few methods or the patch does not fit.
    """
    if len(methods) < 2:
        raise LensphysError(f"ranking needs at least two methods, got {len(methods)}")
    side = min(lenses.grid_hr.shape)
    if patch is not None and not niqe.block <= patch <= side:
        raise LensphysError(f"a patch holds a block of NIQE and lies in the image: {niqe.block} to {side}, got {patch}")
    count = min(limit or len(lenses), len(lenses))
    images, parts = [], []
    for name, method in methods.items():
        part = out.with_name(f".{out.name}.{_fingerprint(method, lenses, count)}.npy")
        parts.append(part)
        if not part.exists():
            found = _super_resolved(method, lenses, count, f"rank set: {name}", device)
            with whole_file(part) as temporary, temporary.open("wb") as stream:
                np.save(stream, found.numpy())
        images.append(torch.from_numpy(np.load(part)))
    whole = torch.stack(images, 1)  # (N, K, H, W)
    patches = whole if patch is None else _patches(whole, patch)
    patches = torch.cat([patches, _mixed(patches, mixtures)], 1)
    patches = torch.cat([patches, _distorted(patches, distorted)], 1)
    added = {"mixture": mixtures, "distorted": distorted}
    names = [*methods, *(f"{kind} {k + 1}" for kind in added for k in range(added[kind]))]
    columns = track(range(len(names)), "rank set: NIQE", console=Console(stderr=True), transient=True)
    scores = torch.stack([niqe.score(patches[:, k, None]) for k in columns], 1)
    usable = scores.isfinite().all(1)
    origin = provenance(methods=list(methods), data=lenses.identity, patch=patch, added=added)
    write_rank_set(out, patches[usable].numpy(), scores[usable].numpy(), names, origin)
    for part in set(parts):
        part.unlink()


def _fingerprint(method: Method, lenses: LensFile, count: int) -> str:
    """What decides which images a method makes: its settings and weights, and the data."""
    found = hashlib.sha256(f"{lenses.identity} {count} {getattr(method, 'settings', method)!r}".encode())
    network = getattr(method, "start", method)  # a refinement starts from a network
    if isinstance(network, nn.Module):
        for name, x in network.state_dict().items():
            found.update(name.encode() + x.cpu().numpy().tobytes())
    return found.hexdigest()[:16]


def _super_resolved(method: Method, lenses: LensFile, count: int, title: str, device: str) -> Tensor:
    """Images (N, H, W) in units of the LR peak, as losses see them."""
    parts: list[Tensor] = []
    with torch.no_grad():
        batches: Sequence[np.ndarray] = np.split(np.arange(count), range(_BATCH, count, _BATCH))
        for rows in track(batches, title, console=Console(stderr=True), transient=True):
            observation = lenses.observation(rows, device)
            image = method.predict(observation, lenses.upscale).image
            unit = observation.peak.clamp(min=1e-30)[:, None, None, None] / lenses.upscale**2
            parts.append((image / unit)[:, 0].float().cpu())
    return torch.cat(parts)


def _patches(images: Tensor, side: int) -> Tensor:
    """The patches of images (N, K, H, W) in which there is light, (M, K, side, side)."""
    cut = images.unfold(2, side, side).unfold(3, side, side)  # (N, K, rows, columns, side, side)
    flat = cut.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
    per_image = cut.shape[2] * cut.shape[3]
    total = images.abs().mean(1).sum((1, 2)).repeat_interleave(per_image)
    return flat[flat.abs().mean(1).sum((1, 2)) > _DARK * total]


def _mixed(patches: Tensor, count: int) -> Tensor:
    """Means of patches (M, K, h, w) with random weights, all weights equally likely, (M, count, h, w)."""
    share = np.random.default_rng(0).dirichlet(np.ones(patches.shape[1]), (len(patches), count))
    return torch.einsum("mck, mkhw -> mchw", torch.from_numpy(share).to(patches), patches)


def _distorted(patches: Tensor, count: int) -> Tensor:
    """Copies of random ones of patches (M, K, h, w) with noise of any strength and width, (M, count, h, w).

    The noise is the same everywhere, or follows the root of the light.

    Source: ranking by known distortions is that of Liu, van de Weijer & Bagdanov 2017, arXiv:1707.08347.
    """
    generator = np.random.default_rng(1)
    which = torch.from_numpy(generator.integers(patches.shape[1], size=(len(patches), count)))
    found = patches[torch.arange(len(patches))[:, None], which]
    for image in found.flatten(0, 1):
        noise = gaussian_filter(generator.standard_normal(image.shape), generator.uniform(*_WIDTH))
        strength = np.exp(generator.uniform(*np.log(_RMS)))
        light = (image / image.max().clamp(min=1e-30)).clamp(min=0) ** (0.5 * generator.integers(2))
        image += light * torch.from_numpy(strength * noise / noise.std()).to(image)
    return found
