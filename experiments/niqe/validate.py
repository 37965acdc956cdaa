"""NIQE against scikit-video's, with its own parameters, on photographs; and whether it tells clean lenses from others.

    pip install scikit-video
    python experiments/niqe/validate.py [OUT]

Photographs: those of scikit-image, also blurred and noisy. Two things in scikit-video differ from the authors' code:
pixels beyond the edge are zero (the authors repeat the last one, which its own option ``extend_mode="nearest"`` does),
and of the products along the diagonals the left scale stands twice, in the image and in its parameters, in place of
left and right. Ours is compared with the left scale twice; ``skvideo_as_released`` is with zeros beyond the edge.

Lenses: clean high-resolution images of Model 1, 70 of each class; the model is fitted to two thirds and judges the rest
and what was made of it. OUT (by default the folder of this script) gets ``validation.json`` and ``lenses.png``. About
20 seconds on one core.
"""

import sys
import tempfile
import types
from importlib import import_module
from pathlib import Path

import numpy as np
import scipy.io
import torch
from matplotlib.figure import Figure
from PIL import Image
from skimage import color, data
from torch import Tensor

from lensphys.basics.outputs import write_json
from lensphys.basics.panels import save_figure
from lensphys.basics.provenance import provenance
from lensphys.data.lens_file import LensFile
from lensphys.methods.interpolation import interpolate
from lensphys.methods.ranking.niqe import NIQE, block_features
from lensphys.observation import GaussianPSF
from lensphys.simulation.recipe import Recipe
from lensphys.simulation.writer import simulate

PHOTOGRAPHS = ("camera", "coins", "moon", "brick", "grass", "gravel", "astronaut")
NUMBER, FITTED, SEED = 70, 140, 11  # lenses of each class; of all, that the model is fitted to
RIGHT_ALONG_DIAGONALS = (13, 17, 31, 35)  # the features that scikit-video fills with the one before


def skvideo_niqe():
    """Return scikit-video's module, with what newer numpy and scipy have taken from it."""

    def imresize(image: np.ndarray, factor: float, interp: str, mode: str) -> np.ndarray:
        size = tuple(int(n * factor) for n in reversed(image.shape))
        return np.asarray(Image.fromarray(np.float32(image)).resize(size, Image.Resampling.BICUBIC))

    misc = types.ModuleType("scipy.misc")
    misc.imresize = imresize
    scipy.misc = sys.modules["scipy.misc"] = misc
    np.int, np.float = int, float
    try:
        return import_module("skvideo.measure.niqe")
    except ImportError:
        raise SystemExit("this experiment compares with scikit-video: pip install scikit-video") from None


def photographs() -> dict[str, np.ndarray]:
    """Return grey photographs, and what blur and noise make of them, with their peak at 255."""
    random, found = np.random.default_rng(SEED), {}
    for name in PHOTOGRAPHS:
        image = getattr(data, name)()
        image = 255 * color.rgb2gray(image) if image.ndim == 3 else image.astype(float)
        found[name] = image
        found[f"{name}, blurred"] = scipy.ndimage.gaussian_filter(image, 2)
        found[f"{name}, noisy"] = image + random.normal(0, 20, image.shape)
    return {name: 255 * image / image.max() for name, image in found.items()}


def against_skvideo() -> list[dict]:
    """Return a row a photograph."""
    theirs = skvideo_niqe()
    released = theirs.compute_image_mscn_transform
    known = scipy.io.loadmat(Path(theirs.__file__).parent / "data" / "niqe_image_params.mat")
    ours = NIQE(torch.from_numpy(known["pop_mu"].ravel()), torch.from_numpy(known["pop_cov"]), 96, 0.0)
    rows = []
    for name, image in photographs().items():
        features = block_features(torch.from_numpy(image)[None, None], ours.block, ours.sharpness)
        for right in RIGHT_ALONG_DIAGONALS:
            features[..., right] = features[..., right - 1]
        theirs.compute_image_mscn_transform = released
        as_released = float(theirs.niqe(image)[0])
        theirs.compute_image_mscn_transform = lambda x: released(x, extend_mode="nearest")
        row = {"image": name, "ours": float(ours.distance(features)), "skvideo": float(theirs.niqe(image)[0])}
        rows.append(row | {"ratio": row["ours"] / row["skvideo"], "skvideo_as_released": as_released})
        print(f"{name:20s} ours {row['ours']:8.4f}  skvideo {row['skvideo']:8.4f}  as released {as_released:8.4f}")
    return rows


def made_of(clean: Tensor, lr: Tensor, lr_clean: Tensor) -> dict[str, Tensor]:
    """Return clean lenses (B, 1, H, W) and what blur, noise and coarse pixels make of them."""
    generator = torch.Generator().manual_seed(SEED)
    peak = clean.flatten(1).amax(1)[:, None, None, None]
    noise = peak * torch.randn(clean.shape, generator=generator)
    blurred = {f"blurred by {s} pixels": GaussianPSF(2.3548 * s).blur(clean, 1.0) for s in (1.0, 2.0, 4.0)}
    noisy = {f"noise of {share:.1%}": clean + share * noise for share in (0.002, 0.01, 0.05)}
    coarse = {f"clean LR, {mode}": interpolate(lr_clean, 2, mode) for mode in ("lanczos", "bicubic", "nearest")}
    found = {f"noisy LR, {mode}": interpolate(lr, 2, mode) for mode in ("lanczos", "bicubic")}
    return {"clean HR": clean} | blurred | noisy | coarse | found


def of_lenses(figure: Path) -> dict:
    """Return mean scores of lenses, and in how many of them the clean image has the lowest."""
    with tempfile.TemporaryDirectory() as folder:
        path = simulate(Recipe.named("model_1", []), NUMBER, Path(folder) / "lenses.h5", seed=SEED)
        with LensFile(path) as file:
            names = ("hr", "lr", "lr_clean")
            order = np.random.default_rng(SEED).permutation(len(file.labels))
            hr, lr, lr_clean = (torch.as_tensor(file.read(name, np.arange(len(order))))[order] for name in names)
    model = NIQE.fit(hr[:FITTED])
    judged = made_of(hr[FITTED:], lr[FITTED:], lr_clean[FITTED:])
    scores = {name: model.score(images) for name, images in judged.items()}
    clean, rows = scores["clean HR"], []
    for name, found in scores.items():
        share = float((found > clean).double().mean())
        rows.append({"image": name, "mean": float(found.mean()), "std": float(found.std()), "worse_than_clean": share})
        print(f"{name:22s} {found.mean():8.2f} +- {found.std():6.2f}  worse than clean {share:.2f}")
    save_figure(_figure(judged, scores), figure)
    return {"recipe": "model_1", "fitted": FITTED, "judged": len(clean), "block": model.block,
            "sharpness": model.sharpness, "scores": rows}  # fmt: skip


def _figure(judged: dict[str, Tensor], scores: dict[str, Tensor]) -> Figure:
    columns = (len(judged) + 1) // 2
    figure = Figure(figsize=(1.5 * columns, 6.0), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1.4, 1))
    axes = above.subplots(2, columns).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, (name, images) in zip(axes, judged.items(), strict=False):
        axis.imshow(images[0, 0].clamp(min=0).sqrt(), origin="lower", cmap="inferno")
        axis.set_title(f"{name}\nNIQE {float(scores[name][0]):.1f}", fontsize=7)
    axis = below.subplots()
    axis.boxplot([x.numpy() for x in scores.values()], orientation="horizontal", whis=(0, 100))
    axis.set_yticks(range(1, len(scores) + 1), scores, fontsize=7)
    axis.invert_yaxis()
    axis.set_xscale("log")
    axis.set_xlabel(f"NIQE of {len(scores['clean HR'])} lenses of Model 1; lower is more like clean HR images")
    return figure


def main(out: Path) -> None:
    """Write the comparison and the figure."""
    photos = against_skvideo()
    worst = max(abs(row["ratio"] - 1) for row in photos)
    print(f"largest difference from scikit-video: {worst:.2%}")
    tree = {"photographs": photos, "largest_difference": worst, "lenses": of_lenses(out / "lenses.png")}
    write_json(out / "validation.json", {"provenance": provenance(seed=SEED), **tree})


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
