"""The first stage of RankSRGAN: the same images by several methods, and how natural each looks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from pydantic import PositiveFloat
from torch import Tensor, nn

from lensphys.basics.checks import LensphysError
from lensphys.basics.lock import sole_run
from lensphys.basics.outputs import whole_file
from lensphys.basics.provenance import provenance
from lensphys.basics.settings import Strict
from lensphys.basics.terminal import tracked
from lensphys.data.lens_file import LensFile
from lensphys.methods import Method
from lensphys.methods.ranking.niqe import NIQE
from lensphys.methods.ranking.rank_set import RankSet, write_rank_set

_BATCH = 16


class PatchSettings(Strict):
    """Which patches are ranked, and how some are distorted.

    Args:
        dark: share of an image's light below which a patch shows sky, and is left out.
        weakest: rms of the patterns in distorted images [LR peak], at least ...
        strongest: ... and at most [LR peak]: about that by which methods differ.
        widest: standard deviation of the noise's correlation, at most [HR pixels].
    """

    dark: PositiveFloat = 0.02
    weakest: PositiveFloat = 10**-3.5
    strongest: PositiveFloat = 10**-2.2
    widest: PositiveFloat = 1.2


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
    settings: PatchSettings = PatchSettings(),
    device: str = "cpu",
) -> None:
    """Super-resolve images by each method, cut them to patches, rank these by NIQE, and write the rank set.

    Where the methods look alike, a ranker learns to tell which one made an image, and its gradient leads nowhere.
    Mixtures of their images and distorted ones, each with a NIQE of its own, leave it nothing to learn but how natural
    an image looks.

    What a method has done is kept beside ``out``, under the hash of what it was made from, until the set is whole: the
    same call goes on. If ``out`` is there it stays as it is, provided that the same call made it.

    Args:
        methods: their names and what super-resolves, at least two.
        lenses: the images.
        niqe: what natural images look like.
        out: the HDF5 file.
        patch: side of the patches [HR pixels], at least a block of NIQE; whole images if None.
        limit: at most so many images; all if None.
        mixtures: how many weighted means of the methods' images join each patch.
        distorted: how many copies of these, with faint noise or a faint grid, join them.
        settings: which patches are ranked, and how they are distorted.
        device: where the methods compute.

    Raises:
        LensphysError: if there are too few methods, the patch does not fit, or ``out`` holds another rank set.
    """
    if len(methods) < 2:
        raise LensphysError(f"ranking needs at least two methods, got {len(methods)}")
    side = min(lenses.grid_hr.shape)
    if patch is not None and not niqe.block <= patch <= side:
        raise LensphysError(f"a patch holds a block of NIQE and lies in the image: {niqe.block} to {side}, got {patch}")
    count = min(limit or len(lenses), len(lenses))
    added = {"mixture": mixtures, "distorted": distorted}
    prints = [_fingerprint(method, lenses, count) for method in methods.values()]
    judge = [
        *(x.round(decimals=6).tolist() for x in (niqe.mean, niqe.covariance)),
        niqe.block,
        niqe.sharpness,
        settings.model_dump(),
    ]
    made_from = hashlib.sha256(json.dumps([list(methods), prints, patch, added, judge]).encode()).hexdigest()
    with sole_run(out):
        if out.exists():
            _check_made_from(out, made_from)
            return
        parts = {name: out.with_name(f".{out.name}.{mark}.npy") for name, mark in zip(methods, prints, strict=True)}
        for name, part in parts.items():
            if not part.exists():
                found = _super_resolved(methods[name], lenses, count, f"rank set: {name}", device)
                with whole_file(part) as temporary, temporary.open("wb") as stream:
                    np.save(stream, found.numpy())
        whole = torch.stack([torch.from_numpy(np.load(part)) for part in parts.values()], 1)  # (N, K, H, W)
        patches, row = (whole, torch.arange(count)) if patch is None else _patches(whole, patch, settings.dark)
        patches = torch.cat([patches, _mixed(patches, mixtures)], 1)
        patches = torch.cat([patches, _distorted(patches, distorted, lenses.upscale, settings)], 1)
        names = [*methods, *(f"{kind} {k + 1}" for kind in added for k in range(added[kind]))]
        scores = _scores(niqe, patches)
        usable = scores.isfinite().all(1)
        origin = provenance(methods=list(methods), data=lenses.identity, patch=patch, added=added, made_from=made_from)
        write_rank_set(out, patches[usable].numpy(), scores[usable].numpy(), row[usable].numpy(), names, origin)
        for part in set(parts.values()):
            part.unlink()


def _scores(niqe: NIQE, patches: Tensor) -> Tensor:
    """NIQE of each patch (M, K, h, w), (M, K)."""
    columns = tracked(range(patches.shape[1]), "rank set: NIQE")
    return torch.stack([niqe.score(patches[:, k, None]) for k in columns], 1)


def _check_made_from(out: Path, made_from: str) -> None:
    """Raise unless a rank set was made by the same call."""
    with RankSet(out) as ranked:
        if ranked.provenance.get("made_from") != made_from:
            raise LensphysError(
                f"{out} holds a rank set of other methods, weights, images or settings: choose another folder, or "
                "remove it and what was trained on it"
            )


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
        for rows in tracked(batches, title):
            observation = lenses.observation(rows, device)
            image = method.predict(observation, lenses.upscale).image
            unit = observation.peak_unit / lenses.upscale**2
            parts.append((image / unit)[:, 0].float().cpu())
    return torch.cat(parts)


def _patches(images: Tensor, side: int, dark: float) -> tuple[Tensor, Tensor]:
    """The patches of images (N, K, H, W) in which there is light, (M, K, side, side), and of which image each is."""
    cut = images.unfold(2, side, side).unfold(3, side, side)  # (N, K, rows, columns, side, side)
    flat = cut.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
    per_image = cut.shape[2] * cut.shape[3]
    total = images.abs().mean(1).sum((1, 2)).repeat_interleave(per_image)
    lit = flat.abs().mean(1).sum((1, 2)) > dark * total
    return flat[lit], torch.arange(len(images)).repeat_interleave(per_image)[lit]


def _mixed(patches: Tensor, count: int) -> Tensor:
    """Means of patches (M, K, h, w) with random weights, all weights equally likely, (M, count, h, w)."""
    share = np.random.default_rng(0).dirichlet(np.ones(patches.shape[1]), (len(patches), count))
    return torch.einsum("mck, mkhw -> mchw", torch.from_numpy(share).to(patches), patches)


def _distorted(patches: Tensor, count: int, upscale: int, settings: PatchSettings) -> Tensor:
    """Copies of random ones of patches (M, K, h, w) with a faint pattern, (M, count, h, w).

    The pattern is noise of any width, or a grid with the period of the upscaling, which upsampling layers are prone to
    leave: a ranker that has never seen one does not mind it, and a generator that it trains finds that out. The pattern
    is as strong everywhere, or follows the light or its root.

    Source: ranking by known distortions is that of Liu, van de Weijer & Bagdanov 2017, arXiv:1707.08347.
    """
    from scipy.ndimage import gaussian_filter

    generator = np.random.default_rng(1)
    which = torch.from_numpy(generator.integers(patches.shape[1], size=(len(patches), count)))
    found = patches[torch.arange(len(patches))[:, None], which]
    for image in found.flatten(0, 1):
        if generator.integers(2):
            pattern = gaussian_filter(generator.standard_normal(image.shape), generator.uniform(0.0, settings.widest))
        else:
            period = max(2, upscale)
            tile = generator.standard_normal((period, period))
            pattern = (tile - tile.mean())[np.ix_(*(np.arange(n) % period for n in image.shape))]
        strength = np.exp(generator.uniform(*np.log([settings.weakest, settings.strongest])))
        light = (image / image.max().clamp(min=1e-30)).clamp(min=0) ** (0.5 * generator.integers(3))
        image += light * torch.from_numpy(strength * pattern / pattern.std()).to(image)
    return found
