"""What is odd about single images of a data set, batch by batch: the measurements behind `doctor`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from lensphys.basics.scatter import GAUSSIAN
from lensphys.basics.settings import PositivePair, Strict
from lensphys.data.lens_file import LensFile
from lensphys.data.unusable import observations
from lensphys.observation import Noise
from lensphys.observation.borders import filled_border
from lensphys.observation.camera import block_sum
from lensphys.observation.darkness import shows_light
from lensphys.tracing.orientation import transformed

Symptoms = dict[str, NDArray[np.floating]]


class SymptomSettings(Strict):
    """When something is odd about an image.

    Legacy pixels are sampled at their centre, so a healthy LR image differs from the binned HR image where the source
    has a cusp: ``worst_pixels`` are left out, ``model_error`` and ``peak_error`` are allowed. What remains as misfit is
    below 0.015 in all recipes, and above 0.1 where an HR image belongs to another lens.

    Args:
        fewest_clipped: pixels at one extreme value ...
        clipped_share: ... and share of all pixels, above which an image is clipped.
        flux_tolerance: by which the flux may differ from that of the clean image, as a share of it,
        flux_sigma: and in sigma of its own noise.
        chi2_tolerance: by which chi^2 per pixel beside the clean image may differ from 1 where the noise is known,
        chi2_sigma: and in sigma of its scatter.
        chi2_guessed: between which it may be where the noise is estimated from the image.
        noise_free: scatter over that of the noise law, below which there is no noise; tiny fields full of an arc have
            some scatter without any.
        noise_free_peak: scatter over the brightest pixel, likewise: no lens was ever observed at S/N 10^4.
        alpha_tolerance: by which the deflection about the ring may differ from theta_E, as a share of it; a shear of
            0.1 and sub-halos stay within 0.1.
        worst_pixels: share of the pixels that do not count.
        model_error: allowed in a pixel, as a share of the brightest pixel beside it.
        peak_error: allowed in each pixel, as a share of the brightest one.
        largest_misfit: above which an HR image is of another lens, beside a clean LR image [of what is allowed^2].
        largest_noisy_misfit: the same beside a noisy LR image.
        smallest_misfit: below which an image need not be turned about.
        much_better: misfit of a turned or shifted image over its own, below which it was turned or shifted.
        least_correlation: of observed pairs, -1 to 1, below which they do not show the same lens.
    """

    fewest_clipped: PositiveInt = 4
    clipped_share: PositiveFloat = 0.01
    flux_tolerance: PositiveFloat = 0.3
    flux_sigma: PositiveFloat = 5.0
    chi2_tolerance: PositiveFloat = 0.05
    chi2_sigma: PositiveFloat = 6.0
    chi2_guessed: PositivePair = (0.4, 2.5)
    noise_free: PositiveFloat = 0.3
    noise_free_peak: PositiveFloat = 1e-4
    alpha_tolerance: PositiveFloat = 0.33
    worst_pixels: PositiveFloat = 0.05
    model_error: PositiveFloat = 0.1
    peak_error: PositiveFloat = 0.01
    largest_misfit: PositiveFloat = 0.1
    largest_noisy_misfit: PositiveFloat = 1.0
    smallest_misfit: PositiveFloat = 1e-3
    much_better: PositiveFloat = 0.3
    least_correlation: PositiveFloat = 0.5


@dataclass(frozen=True)
class _Images:
    """Some images of a file, (n, 1, H, W) each; None where the file has none."""

    settings: SymptomSettings
    file: LensFile
    index: NDArray[np.int64]
    lr: Tensor
    flux_scale: Tensor
    lr_clean: Tensor | None
    hr_clean: Tensor | None
    hr: Tensor | None

    @classmethod
    def read(cls, file: LensFile, held: set[str], index: NDArray[np.int64], settings: SymptomSettings) -> _Images:
        """Return some images of a file; what it does not hold is None."""

        def images(name: str) -> Tensor | None:
            return torch.as_tensor(file.read(name, index)).double() if name in held else None

        scale = images("flux_scale")
        scale = torch.ones(len(index), dtype=torch.float64) if scale is None else scale
        lr_clean, hr_clean = images("lr_clean"), images("hr_clean")
        hr = images("hr") if hr_clean is None else None
        return cls(settings, file, index, file.lr(index).double(), scale.reshape(-1, 1, 1, 1), lr_clean, hr_clean, hr)

    def rows(self, chosen: Tensor) -> _Images:
        names = ("lr", "flux_scale", "lr_clean", "hr_clean", "hr")
        part: dict[str, Any] = {name: None if (x := getattr(self, name)) is None else x[chosen] for name in names}
        return replace(self, index=self.index[chosen.numpy()], **part)

    @property
    def clean(self) -> Tensor | None:
        """What the LR image would be without noise, in its unit."""
        fine = self.hr_clean if self.hr_clean is not None else self.hr
        flux = self.lr_clean if self.lr_clean is not None or fine is None else block_sum(fine, self.file.grid_lr)
        return None if flux is None else flux * self.flux_scale


def symptoms(
    file: LensFile, held: set[str], index: NDArray[np.int64], settings: SymptomSettings = SymptomSettings()
) -> Symptoms:
    """Return what is odd about some images: for each symptom a number for the images that show it, NaN for the others.

    Args:
        file: the data set.
        held: names of its datasets.
        index: of the images, (n,), ascending.
        settings: what counts as odd.
    """
    images = _Images.read(file, held, index, settings)
    found = _of_pixels(images)
    usable = torch.from_numpy(np.isnan(found["not_finite"]) & np.isnan(found["constant"]))
    factor = images.flux_scale.flatten()
    positive = torch.isfinite(factor) & (factor > 0)
    found["flux_scale"] = _where(~positive, factor.nan_to_num(0.0))
    usable &= positive
    for name in ("lr_clean", "hr_clean", "hr", "alpha_hr"):
        if name in held and not (name == "hr" and "hr_clean" in held):
            bad = (~torch.as_tensor(file.read(name, index)).isfinite()).flatten(1).sum(1)
            found[f"not_finite_{name}"] = _where(bad > 0, bad)
            usable &= bad == 0
    found |= {name: np.full(len(index), np.nan) for name in ("no_estimate", "dark")}
    for chosen, observation in observations(file, index[usable.numpy()]):
        rows = torch.from_numpy(np.searchsorted(index, chosen))
        if observation is None:
            found["no_estimate"][rows.numpy()] = 0.0
            continue
        seen = shows_light(observation)
        found["dark"][rows[~seen].numpy()] = 0.0
        bright, law = rows[seen], observation.noise.rows(torch.nonzero(seen).flatten())
        for name, values in _of_light(images.rows(bright), law).items() if len(bright) else ():
            found.setdefault(name, np.full(len(index), np.nan))[bright.numpy()] = values
    if "alpha_hr" in held and "theta_E" in held:
        found["alpha_theta_E"] = _of_deflection(file, index, settings)
    return found


def _where(flagged: Tensor, value: Tensor) -> NDArray[np.floating]:
    return torch.where(flagged, value.double(), torch.nan).numpy()


def _of_pixels(images: _Images) -> Symptoms:
    """Symptoms that the values show by themselves."""
    instrument = images.file.instrument
    return pixel_symptoms(
        images.lr, images.settings, counts=instrument.unit == "counts", cut_at_zero=instrument.noise.cut_at_zero
    )


def pixel_symptoms(lr: Tensor, settings: SymptomSettings, *, counts: bool, cut_at_zero: bool) -> Symptoms:
    """Return what is odd about the values of images: for each symptom a number, NaN for images that do not show it.

    Args:
        lr: (B, 1, H, W).
        settings: what counts as odd.
        counts: whether whole numbers are what the unit has.
        cut_at_zero: whether zero is the lowest value that the instrument records.
    """
    flat = lr.flatten(1)
    bad = (~flat.isfinite()).sum(1)
    finite = bad == 0
    low, high = flat.amin(1), flat.amax(1)
    constant = finite & (low == high)
    varied = finite & ~constant
    whole = varied & (flat == flat.round()).all(1) & (high >= 2) & torch.tensor(not counts)
    at_zero = (low == 0) & torch.tensor(cut_at_zero)
    border = filled_border(lr).flatten(1)
    top, bottom = torch.zeros(len(flat)), torch.zeros(len(flat))
    for i in torch.nonzero(varied).flatten().tolist():
        values = flat[i][~border[i]]
        top[i] = _piled_up(values, settings)
        bottom[i] = 0 if at_zero[i] else _piled_up(-values, settings)
    return {
        "not_finite": _where(bad > 0, bad),
        "constant": _where(constant, low),
        "integers": _where(whole, high),
        "min_max": _where(varied & (low == 0) & (high == 1), high),
        "clipped_high": _where(top > 0, top),
        "clipped_low": _where(bottom > 0, bottom),
        "border": _where(varied & border.any(1), border.double().mean(1)),
    }


def _piled_up(values: Tensor, settings: SymptomSettings) -> float:
    """The share of pixels at exactly the highest value, if they are many and far more than at the next one."""
    _, counts = values.unique(return_counts=True)
    if len(counts) < 2:
        return 0.0
    at, below = int(counts[-1]), int(counts[-2])
    many = at >= max(settings.fewest_clipped, settings.clipped_share * len(values)) and at > 2 * below
    return at / len(values) if many else 0.0


def _is_known(images: _Images) -> bool:
    return images.file.instrument.noise.known or images.file.conditions(images.index[:1]).noise is not None


def _of_light(images: _Images, law: Noise) -> Symptoms:
    """Symptoms that show beside a noise law, and beside clean or finer images where there are any."""
    clean, known, settings = images.clean, _is_known(images), images.settings
    quiet, share = without_noise(images.lr, law if known else None, settings)
    if clean is None:
        return {"noise_free": _where(quiet, share)}
    if not known:  # what is estimated from the image is estimated anew beside the clean one
        law = law.updated(images.lr.float(), clean.float(), torch.ones_like(clean.float()))
    variance, mean = law.variance(clean).double(), law.expected(clean).double()
    missing = (images.lr - mean).flatten(1).sum(1)
    ratio = 1 + missing / mean.flatten(1).sum(1)
    dim = (ratio - 1).abs() > settings.flux_tolerance
    dim &= missing.abs() > settings.flux_sigma * variance.flatten(1).sum(1).sqrt()
    found = {"flux_ratio": _where(dim, ratio)}
    if images.lr_clean is not None:
        chi2 = ((images.lr - mean) ** 2 / variance).flatten(1).mean(1)
        flat = chi2 < settings.noise_free**2
        quiet |= flat
        share = torch.where(flat, chi2.sqrt(), share)
        margin = settings.chi2_sigma * (2 / images.lr[0].numel()) ** 0.5
        least, most = settings.chi2_guessed
        odd = (chi2 - 1).abs() > settings.chi2_tolerance + margin if known else (chi2 < least) | (chi2 > most)
        found["noise_law"] = _where(odd & ~quiet & ~dim, chi2)
    return found | {"noise_free": _where(quiet, share)} | _beside_truth(images, law, excluded=dim)


def without_noise(image: Tensor, law: Noise | None, settings: SymptomSettings) -> tuple[Tensor, Tensor]:
    """Return which images have hardly any noise, and how much: of a known law's, else of the peak over the sky; (B,).

    Args:
        image: (B, 1, H, W).
        law: of the noise; None where it is not known.
        settings: what counts as odd.
    """
    smooth = F.avg_pool2d(image, 3, stride=1)
    sigma, faint = _faint_scatter(image, smooth)
    over = image - image.flatten(1).median(1).values[:, None, None, None]
    share = sigma / over.flatten(1).abs().amax(1)
    quiet = share < settings.noise_free_peak
    if law is None:
        return quiet, share
    expected = law.variance(F.pad(smooth, (1, 1, 1, 1), mode="replicate"))[..., 1:-1, 1:-1].double().sqrt()
    share = sigma / torch.where(faint, expected, torch.nan).flatten(1).nanmedian(1).values  # some may be masked
    return quiet | (share < settings.noise_free), share


def _beside_truth(images: _Images, law: Noise, *, excluded: Tensor) -> Symptoms:
    """Symptoms of LR images beside their HR images, where there are any."""
    if images.file.target is not None:  # another PSF: the truth is neither binned nor sampled in the LR image
        recorded = images.hr if images.hr is not None else images.hr_clean
        return {} if recorded is None else _of_observed_pairs(images.lr, recorded, images.settings)
    if images.hr_clean is not None:
        return _of_pairs(images, images.hr_clean, law, excluded=excluded)
    return {} if images.hr is None else _of_observed_pairs(images.lr, images.hr, images.settings)


def _faint_scatter(image: Tensor, smooth: Tensor) -> tuple[Tensor, Tensor]:
    """Standard deviation of the noise (B,) in the faintest quarter of the pixels, and where that is.

    From second differences along both axes, which smooth light has hardly any of. Source: Immerkaer (1996), Computer
    Vision and Image Understanding 64, 300.
    """
    kernel = image.new_tensor([[1, -2, 1], [-2, 4, -2], [1, -2, 1]])[None, None] / 6
    second = F.conv2d(image, kernel)
    faint = smooth <= smooth.flatten(1).quantile(0.25, dim=1)[:, None, None, None]
    sigma = []
    for values, where in zip(second, faint, strict=True):
        chosen = values[where]
        # the median is zero where most counts are zero
        sigma.append(torch.maximum(GAUSSIAN * chosen.abs().median(), 0.1 * chosen.square().mean().sqrt()))
    return torch.stack(sigma), faint


def _of_pairs(images: _Images, hr: Tensor, law: Noise, *, excluded: Tensor) -> Symptoms:
    """LR images that are neither the binned nor the sampled HR image, and those that fit it turned or shifted."""
    scale, settings = images.flux_scale, images.settings
    known_clean = images.lr_clean is not None
    given = images.lr if images.lr_clean is None else images.lr_clean * scale

    grid, fine = images.file.grid_lr, images.file.grid_hr
    binned = block_sum(hr, grid)
    sampled = fine.sample(hr, grid.positions(like=hr), mode="bicubic", padding="border") * images.file.upscale**2
    noise = None if known_clean else law
    by_bins, by_samples = (_misfit(given, model * scale, noise, settings) for model in (binned, sampled))
    own = torch.minimum(by_bins, by_samples)
    best = own.clone()
    asked = torch.nonzero(own > settings.smallest_misfit).flatten()  # most of a healthy file need not be turned about
    if len(asked):
        part = None if noise is None else noise.rows(asked)
        others = (block_sum(other, grid) * scale[asked] for other in _rearranged(hr[asked]))
        best[asked] = torch.stack([_misfit(given[asked], other, part, settings) for other in others]).amin(0)
    limit = settings.largest_misfit if known_clean else settings.largest_noisy_misfit
    moved = (best < settings.much_better * own) & (best < limit) & ~excluded
    foreign = (own > limit) & ~moved & ~excluded
    sigma = law.variance(binned * scale).double().sqrt()
    apart = torch.minimum(
        *(((given - m * scale) / sigma).square().flatten(1).mean(1) for m in (binned, sampled))
    ).sqrt()
    fits = ~moved & ~foreign & ~excluded
    return {
        "hr_moved": _where(moved, apart),
        "hr_foreign": _where(foreign, apart),
        "hr_binned": _where(fits & (by_bins <= by_samples), by_bins),
        "hr_sampled": _where(fits & (by_bins > by_samples), by_samples),
    }


def _misfit(given: Tensor, model: Tensor, law: Noise | None, settings: SymptomSettings) -> Tensor:
    """Mean square of the difference of two images (B,) in units of what is allowed, without the worst pixels.

    Args:
        given: (B, 1, H, W).
        model: (B, 1, H, W), without noise.
        law: of the noise in ``given``; None if that is clean as well.
        settings: what is allowed.
    """
    allowed = settings.model_error * F.max_pool2d(model, 3, stride=1, padding=1)
    variance = allowed**2 + (settings.peak_error * model.abs().flatten(1).amax(1)[:, None, None, None]) ** 2
    mean = model
    if law is not None:
        mean, variance = law.expected(model).double(), variance + law.variance(model).double()
    z2 = ((given - mean) ** 2 / variance.clamp(min=1e-300)).flatten(1)
    worst = max(1, int(settings.worst_pixels * z2.shape[1]))
    return (z2.sum(1) - z2.topk(worst, dim=1).values.sum(1)) / (z2.shape[1] - worst)


def _of_observed_pairs(lr: Tensor, hr: Tensor, settings: SymptomSettings) -> Symptoms:
    """Observed HR images have their own noise, PSF and unit: they can only be asked whether they show the same sky."""
    coarse = F.avg_pool2d(hr, hr.shape[-1] // lr.shape[-1])
    own = _correlation(lr, coarse)
    best = torch.stack([_correlation(lr, F.avg_pool2d(x, x.shape[-1] // lr.shape[-1])) for x in _turned(hr)]).amax(0)
    least = settings.least_correlation
    moved = (1 - best < settings.much_better * (1 - own)) & (best > least)
    return {"pair_moved": _where(moved, own), "pair_foreign": _where((own < least) & ~moved, own)}


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    a, b = (x.flatten(1) - x.flatten(1).mean(1, keepdim=True) for x in (a, b))
    return (a * b).sum(1) / (a.square().sum(1) * b.square().sum(1)).sqrt().clamp(min=1e-300)


def _turned(image: Tensor) -> list[Tensor]:
    """The image mirrored and turned, as far as its shape allows."""
    square = image.shape[-1] == image.shape[-2]
    return [transformed(image, g) for g in (range(1, 8) if square else (2, 4, 6))]


def _rearranged(image: Tensor) -> list[Tensor]:
    """The image turned, or shifted by a pixel."""
    steps = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]
    return _turned(image) + [image.roll(step, (-2, -1)) for step in steps]


def _of_deflection(file: LensFile, index: NDArray[np.int64], settings: SymptomSettings) -> NDArray[np.floating]:
    """Median deflection about the Einstein ring over theta_E, where it is far from 1."""
    alpha, theta_E = (
        torch.as_tensor(file.read("alpha_hr", index)).double(),
        torch.as_tensor(file.read("theta_E", index)),
    )
    radius = file.grid_hr.positions(like=alpha).norm(dim=1)
    size = torch.hypot(alpha[:, 0], alpha[:, 1])
    ratio = torch.full((len(index),), torch.nan, dtype=torch.float64)
    for i, value in enumerate(theta_E.tolist()):
        near = (radius[0] - value).abs() < 0.2 * value
        if near.any():
            ratio[i] = size[i][near].median() / value
    return _where((ratio - 1).abs() > settings.alpha_tolerance, ratio)
