"""Image and lens metrics, one number an image.

Flux protocol: flux units, the target is the noise-free HR image, and its maximum is the peak.
Seed protocol: SR image and (noisy) target are min-max normalised one by one, as in the published results. The noise of
the target limits what can be reached there, so quote it with its ceiling, the score of the noise-free HR.

Images are (B, 1, H, W), arrays or tensors; results are (B,) in float64. NaN in an image gives NaN for that image alone.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lensphys.basics.checks import LensphysError, check_images, check_same_shape

Image = Tensor | np.ndarray


def mse(image: Image, target: Image) -> Tensor:
    """Return the mean squared difference of images (B, 1, H, W), (B,), in their unit squared.

    Example:
        >>> mse(torch.zeros(1, 1, 8, 8), torch.full((1, 1, 8, 8), 0.5)).item()
        0.25
    """
    image, target = _pair(image, target)
    return ((image - target) ** 2).flatten(1).mean(1)


def psnr(image: Image, target: Image) -> Tensor:
    """Return the peak signal-to-noise ratio of images whose peak is 1, (B,) [dB]; infinite where they are equal."""
    return -10 * torch.log10(mse(image, target))


def ssim(image: Image, target: Image) -> Tensor:
    """Return the structural similarity of images whose peak is 1, (B,).

    Source: Wang et al. 2004; ``skimage.metrics.structural_similarity`` with its defaults and data_range = 1.

    Raises:
        LensphysError: if the images are smaller than its window of 7 x 7 pixels.
    """
    from skimage.metrics import structural_similarity

    image, target = _pair(image, target)
    if min(image.shape[-2:]) < 7:
        raise LensphysError(f"SSIM needs images of 7 x 7 pixels or more, got {tuple(image.shape[-2:])}")
    pairs = zip(image[:, 0].numpy(), target[:, 0].numpy(), strict=True)
    return torch.tensor([structural_similarity(a, b, data_range=1.0) for a, b in pairs], dtype=torch.float64)


def normalise_peak(image: Image, target: Image) -> tuple[Tensor, Tensor]:
    """Return both, (B, 1, H, W), divided by the maximum of the target, image by image.

    Raises:
        LensphysError: if a target has no positive pixel.
    """
    image, target = _pair(image, target)
    peak = target.flatten(1).amax(1)
    dark = int((~(peak > 0)).sum())
    if dark:
        raise LensphysError(f"{dark} of {len(peak)} target images have no positive pixel, so no peak: leave them out")
    return image / peak[:, None, None, None], target / peak[:, None, None, None]


def normalise_min_max(image: Image) -> Tensor:
    """Return images (B, 1, H, W) stretched to [0, 1] one by one; a constant image becomes zero."""
    x = _images("image", image)
    low, high = x.flatten(1).amin(1)[:, None, None, None], x.flatten(1).amax(1)[:, None, None, None]
    return (x - low) / torch.where(high == low, torch.ones_like(high), high - low)


def flux_protocol(image: Image, target: Image) -> dict[str, Tensor]:
    """Return ``psnr_flux`` [dB], ``ssim_flux`` and ``mse_flux`` [peak^2], each (B,).

    Args:
        image: SR, (B, 1, H, W) [flux per pixel].
        target: noise-free HR, (B, 1, H, W) [flux per pixel], in the same unit.
    """
    image, target = normalise_peak(image, target)
    return {"psnr_flux": psnr(image, target), "ssim_flux": ssim(image, target), "mse_flux": mse(image, target)}


def seed_protocol(image: Image, target: Image) -> dict[str, Tensor]:
    """Return ``psnr_seed`` [dB], ``ssim_seed`` and ``mse_seed`` of min-max normalised images, each (B,).

    Args:
        image: SR, (B, 1, H, W), in any unit.
        target: the stored, possibly noisy HR, (B, 1, H, W), in any unit.
    """
    image, target = normalise_min_max(image), normalise_min_max(target)
    return {"psnr_seed": psnr(image, target), "ssim_seed": ssim(image, target), "mse_seed": mse(image, target)}


def flux_bias(image: Image, target: Image) -> Tensor:
    """Return (sum of the image) / (sum of the target) - 1, (B,)."""
    image, target = _pair(image, target)
    return image.flatten(1).sum(1) / target.flatten(1).sum(1) - 1


def coverage(image: Image, sigma: Image, target: Image, *, arc: float = 0.05) -> dict[str, Tensor]:
    """Return how honest an error bar is on the arcs.

    ``coverage`` is the share of these pixels with |image - target| < sigma, 0.683 for Gaussian errors, and
    ``sigma_ratio`` the rms of (image - target) / sigma, 1 for errors of the stated size; each (B,).

    Args:
        image: SR, (B, 1, H, W) [flux per pixel].
        sigma: its stated standard deviation, (B, 1, H, W), in the same unit.
        target: noise-free HR, (B, 1, H, W), in the same unit.
        arc: share of its peak above which the target belongs to the arcs.
    """
    image, target = _pair(image, target)
    sigma = _images("sigma", sigma)
    check_same_shape("sigma", sigma.shape, "target", target.shape)
    # comparing NaN gives False: an image without a number must not count as covered, nor as missed
    deviation = ((image - target) / sigma).abs()
    bright = target > arc * target.flatten(1).amax(1)[:, None, None, None]
    inside = torch.where(deviation.isnan(), torch.nan, (deviation < 1).double())

    def mean(x: Tensor) -> Tensor:
        return torch.where(bright, x, 0).flatten(1).sum(1) / bright.flatten(1).sum(1)

    return {"coverage": mean(inside), "sigma_ratio": mean(deviation**2).sqrt()}


def alpha_error(alpha: Image, target: Image, light: Image) -> Tensor:
    """Return the error of the deflection where the arc shines: sqrt(sum w |alpha - target|^2 / sum w), (B,) [arcsec].

    Args:
        alpha: (B, 2, H, W) [arcsec].
        target: the true deflection, (B, 2, H, W) [arcsec].
        light: noise-free HR image, (B, 1, H, W); w is its positive part.
    """
    alpha, target = _images("alpha", alpha, 2), _images("true alpha", target, 2)
    check_same_shape("alpha", alpha.shape, "true alpha", target.shape)
    weight = _images("light", light).clamp(min=0)
    check_same_shape("alpha", alpha.shape[-2:], "light", weight.shape[-2:])
    square = ((alpha - target) ** 2).sum(1, keepdim=True)
    return ((weight * square).flatten(1).sum(1) / weight.flatten(1).sum(1)).sqrt()


def _images(name: str, image: Image, channels: int = 1) -> Tensor:
    x = torch.as_tensor(image).detach().to("cpu", torch.float64)
    check_images(name, x, channels)
    return x


def _pair(image: Image, target: Image) -> tuple[Tensor, Tensor]:
    image, target = _images("image", image), _images("target", target)
    check_same_shape("image", image.shape, "target", target.shape)
    return image, target
