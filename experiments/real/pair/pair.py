"""One observed pair, HSC and HST, laid upon each other: shift, gain and offset, and what they change.

    python experiments/real/pair/pair.py FOLDER [OUT]

FOLDER holds ``observed_pair_LR_HSC_64.npy`` and ``observed_pair_HR_HST_128.npy``, not ours to give; where it is
missing, the script says so and ends. Pixel scale and PSFs are not known: 0.168" of HSC is our assumption, and the blur
between both telescopes is fitted.

OUT (by default the folder of this script) gets ``table.json`` and ``registration.png``. A few seconds.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity

from lensphys.basics.outputs import write_json
from lensphys.basics.panels import save_figure
from lensphys.basics.provenance import provenance
from lensphys.data.registration import RegistrationSettings, registration
from lensphys.observation import Camera, ErrorMap, Observation, block_sum
from lensphys.tracing.grid import PixelGrid

NAMES = ("observed_pair_LR_HSC_64.npy", "observed_pair_HR_HST_128.npy")
SCALE = 0.168  # arcsec of an LR pixel
EDGE = 4  # HR pixels that are not judged


def coarse(hr: np.ndarray, lr: np.ndarray) -> np.ndarray:
    """Return the HR image (sH, sW) summed into LR pixels (H, W)."""
    return block_sum(torch.from_numpy(hr)[None, None], PixelGrid(*lr.shape, SCALE))[0, 0].numpy()


def bicubic(lr: np.ndarray, factor: int) -> np.ndarray:
    """Return the LR image on HR pixels, flux per HR pixel."""
    image = torch.from_numpy(lr)[None, None]
    observation = Observation(image, Camera(PixelGrid(*lr.shape, SCALE)), ErrorMap(torch.ones_like(image)))
    return observation.interpolated(PixelGrid(*lr.shape, SCALE).resampled(factor))[0, 0].numpy()


def affine(image: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return an image with the gain and the constant that bring it closest to the target."""
    matrix = np.stack([image.ravel(), np.ones(image.size)], axis=1)
    return (matrix @ np.linalg.lstsq(matrix, target.ravel(), rcond=None)[0]).reshape(target.shape)


def score(image: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """Return PSNR [dB] and SSIM of an image: peak and data range are those of the target."""
    image, target = (x[EDGE:-EDGE, EDGE:-EDGE] for x in (image, target))
    low, peak = float(target.min()), float(np.ptp(target))
    mse = float(np.mean((image - target) ** 2))
    ssim = structural_similarity((image - low) / peak, (target - low) / peak, data_range=1.0)
    return {"psnr": float(10 * np.log10(peak**2 / mse)), "ssim": float(ssim)}


def about(lr: np.ndarray) -> np.ndarray:
    """Return where the object is, as a mask of the inner LR pixels: within 8 of the brightest one."""
    y, x = np.indices(lr.shape) - np.array(np.unravel_index(lr.argmax(), lr.shape))[:, None, None]
    return (np.hypot(x, y) < 8)[2:-2, 2:-2]


def smoothed_residual(lr: np.ndarray, hr: np.ndarray) -> np.ndarray:
    """Return LR - HR at the best Gaussian blur, gain and constant, without the edges: what the shift leaves over."""
    images = [affine(gaussian_filter(coarse(hr, lr), width), lr) for width in np.arange(0.3, 3, 0.05)]
    residuals = [(lr - image)[2:-2, 2:-2] for image in images]
    return min(residuals, key=np.std)


def draw(panels: dict[str, np.ndarray]) -> Figure:
    """Return a picture of images, each in its own stretch, and of residuals, in a common one."""
    figure = Figure(figsize=(15, 3.5), layout="constrained")
    limit = max(np.abs(x).max() for name, x in panels.items() if "residual" in name)
    for axis, (name, image) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        low, high = (-limit, limit) if "residual" in name else np.percentile(image, [1, 99.7])
        axis.imshow(image, origin="lower", vmin=low, vmax=high, cmap="RdBu_r" if "residual" in name else "magma")
        axis.set_title(name, fontsize=9)
        axis.axis("off")
    return figure


def main(folder: Path, out: Path) -> None:
    """Write the table and the figure."""
    if missing := [name for name in NAMES if not (folder / name).is_file()]:
        sys.exit(f"skipped: {folder} has no {', '.join(missing)}, the observed pair that is not ours to give")
    lr, hr = (np.load(folder / name).astype(np.float64).squeeze() for name in NAMES)
    found = registration(lr, hr, SCALE)
    # for a comparison of like with like, before has its flux matched, too: at the shift zero
    unshifted = registration(lr, hr, SCALE, settings=RegistrationSettings().unshifted)
    before, after = unshifted.undone(hr), found.undone(hr)
    left, left_after = (smoothed_residual(lr, x) for x in (before, after))
    rms, rms_after = ({"image": float(x.std()), "object": float(x[about(lr)].std())} for x in (left, left_after))
    up = bicubic(lr, hr.shape[0] // lr.shape[0])
    table = {
        "shift_arcsec": [found.shift_x, found.shift_y],
        "shift_lr_pixels": [found.shift_x / SCALE, found.shift_y / SCALE],
        "sigma_arcsec": found.sigma, "gain": found.gain, "offset_per_hr_pixel": found.offset,
        "correlation": {"before": unshifted.correlation, "after": found.correlation},
        "residual_rms": {"before": rms, "after": rms_after},
        "bicubic": {
            "as_given": score(up, hr),
            "flux_matched": score(up, before),
            "registered": score(up, after),
            "best_affine_before": score(affine(up, before), before),
            "best_affine_after": score(affine(up, after), after),
        },
        "protocol": "bicubic of LR in flux per HR pixel against the HR image, noisy as it is; the peak of PSNR and the "
                    f"range of SSIM are max - min of the HR image; {EDGE} HR pixels at each side are left out",
    }  # fmt: skip
    write_json(
        out / "table.json", table | provenance(command="python experiments/real/pair/pair.py FOLDER", scale=SCALE)
    )
    panels = {
        "LR, HSC": lr, "HR, HST, registered": after, "HR summed into LR pixels": coarse(after, lr),
        f"residual before, rms {rms['object']:.3f}": left, f"residual after, rms {rms_after['object']:.3f}": left_after,
    }  # fmt: skip
    save_figure(draw(panels), out / "registration.png")
    print(table)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).parent)
