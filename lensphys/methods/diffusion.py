"""Conditional diffusion: samples of the HR images that an LR image allows; their mean and their spread.

Source: Ho, Jain & Abbeel 2020 (DDPM); Song, Meng & Ermon 2021 (DDIM); Salimans & Ho 2022 (v-prediction); Saharia et al.
2021 (SR3: conditioned on the interpolated image); Lin et al. 2024 (samplers must start from pure noise).
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from lensphys.basics.checks import LensphysError, check_same_shape
from lensphys.basics.extras import need
from lensphys.basics.settings import Strict
from lensphys.methods.interpolation import interpolate
from lensphys.methods.trainable import Batch, TrainableMethod
from lensphys.networks.base import Depth, Scale, Width
from lensphys.networks.pyramid import coordinates
from lensphys.observation import Observation
from lensphys.prediction import Prediction


class DiffusionSettings(Strict):
    """A diffusion of the residual between the HR image and the interpolated LR image.

    ``patch``: so many LR pixels squared are one pixel of the U-Net, with the more channels: 2 is four times as fast as
    1. ``attention`` adds self-attention at the coarsest level. ``epsilon`` predicts the noise, ``v_prediction`` a mix
    of noise and image that is well defined up to pure noise. ``decay`` is that of the moving average of the weights,
    which are those that predict. ``largest`` is the largest residual that ``epsilon`` may begin with, in units of the
    residuals' spread. A validation image is judged at so many noise levels as ``validation_levels`` says. ``samples``
    HR images of ``ddim_steps`` each make one prediction; ``seed`` is that of their noise.
    """

    name: Literal["diffusion"]
    scale: Scale = 2
    channels: Annotated[tuple[Width, ...], Field(min_length=1, strict=False)] = (32, 64, 96)
    layers: Depth = 1
    patch: Scale = 2
    attention: bool = False
    steps: Annotated[int, Field(gt=0, le=100_000)] = 1000
    schedule: Literal["cosine", "linear"] = "cosine"
    prediction: Literal["v_prediction", "epsilon"] = "v_prediction"
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    ddim_steps: PositiveInt = 10
    samples: Annotated[int, Field(ge=2)] = 8
    largest: PositiveFloat = 20.0
    validation_levels: PositiveInt = 4
    seed: int = 0

    @model_validator(mode="after")
    def _steps_to_skip(self) -> DiffusionSettings:
        if self.ddim_steps > self.steps:
            raise ValueError(f"ddim_steps {self.ddim_steps} must not exceed steps {self.steps}")
        return self

    def build(self) -> DiffusionMethod:
        """Return the method with a fresh network.

        Raises:
            LensphysError: if diffusers is not installed.
        """
        return DiffusionMethod(self)

    def scheduler(self) -> Any:
        """Return the noise schedule, a ``DDIMScheduler``: DDPM's to train, skipping steps to sample."""
        v = self.prediction == "v_prediction"
        return _diffusers().DDIMScheduler(
            num_train_timesteps=self.steps,
            beta_schedule="squaredcos_cap_v2" if self.schedule == "cosine" else "linear",
            prediction_type=self.prediction,
            timestep_spacing="trailing",
            rescale_betas_zero_snr=v,
            clip_sample=not v,  # epsilon: the first step divides by almost zero
            clip_sample_range=self.largest,
        )


def _diffusers() -> Any:
    need("diffusers", "the method diffusion")
    import diffusers

    return diffusers


class DenoisingNetwork(nn.Module):
    """A U-Net that sees a noisy residual, what conditions it, the place in the field of view and the noise level.

    It works on the LR grid or coarser: the pixels of a patch are channels.
    """

    def __init__(self, settings: DiffusionSettings) -> None:
        super().__init__()
        self.scale, self.patch = settings.scale, settings.patch
        widths = settings.channels
        self.multiple = settings.patch * 2 ** (len(widths) - 1)
        fine = (settings.scale * settings.patch) ** 2
        plain = len(widths) - settings.attention
        self.unet = _diffusers().UNet2DModel(
            in_channels=fine + 4 * settings.patch**2,
            out_channels=fine,
            block_out_channels=widths,
            layers_per_block=settings.layers,
            down_block_types=("DownBlock2D",) * plain + ("AttnDownBlock2D",) * settings.attention,
            up_block_types=("AttnUpBlock2D",) * settings.attention + ("UpBlock2D",) * plain,
            attention_head_dim=8 if settings.attention else None,
            add_attention=settings.attention,
            norm_num_groups=math.gcd(8, *widths),
        )
        nn.init.zeros_(self.unet.conv_out.weight)

    def forward(self, noisy: Tensor, condition: Tensor, step: Tensor) -> Tensor:
        """Return the prediction (B, 1, sH, sW).

        Args:
            noisy: residual and noise, (B, 1, sH, sW), in units of the residuals' spread.
            condition: LR image in units of its peak, and its detail in units of the residuals, (B, 2, H, W).
            step: of the noise schedule, a whole number, (B,).
        """
        height, width = condition.shape[-2:]
        seen = torch.cat([condition, coordinates(condition)], dim=1)
        fine = F.pixel_unshuffle(self._padded(noisy, self.scale), self.scale * self.patch)
        coarse = F.pixel_unshuffle(self._padded(seen, 1), self.patch)
        found = self.unet(torch.cat([fine, coarse], dim=1), step).sample
        return F.pixel_shuffle(found, self.scale * self.patch)[..., : self.scale * height, : self.scale * width]

    def _padded(self, x: Tensor, factor: int) -> Tensor:
        below, right = (-n % (factor * self.multiple) for n in x.shape[-2:])
        return F.pad(x, (0, right, 0, below))


class DiffusionMethod(TrainableMethod):
    """LR image and noise -> HR image, by denoising the residual step by step."""

    needs_truth = True

    def __init__(self, settings: DiffusionSettings) -> None:
        super().__init__()
        self.settings = settings
        self.schedule = settings.scheduler()
        self.network = DenoisingNetwork(settings)

        def blend(average: Tensor, now: Tensor, count: Tensor | int) -> Tensor:
            # a young average must not remember the fresh weights
            share = 1 - min(settings.decay, float((1 + count) / (10 + count)))
            return torch.lerp(average, now.to(average), share)

        self.average = AveragedModel(self.network, avg_fn=blend).requires_grad_(False)
        self.register_buffer("spread", torch.ones(()))
        self.spread: Tensor

    @property
    def scale(self) -> int:
        """The upscaling factor that the method was trained for."""
        return self.settings.scale

    @property
    def players(self) -> dict[str, nn.Module]:
        """The network alone: its average follows without an optimiser."""
        return {"": self.network}

    def predict(self, observation: Observation, scale: int | None = None) -> Prediction:
        """Return mean and standard deviation of the samples.

        All images of a batch see the same noise, so the answer for one does not depend on the others. ``sigma`` is the
        spread of what the network deems possible; it knows neither the error of the network, nor that of a mean of
        few samples, so check its coverage.

        Raises:
            LensphysError: if another scale than the network's is asked for.
        """
        if scale not in (None, self.scale):
            raise LensphysError(f"this network was trained for a scale of {self.scale}, not {scale}")
        base, size = self._interpolated(observation), self.spread * observation.peak_unit / self.scale**2
        drawn = torch.stack([base + size * residual for residual in self._residuals(self._condition(observation))])
        mean, sigma = drawn.mean(0), drawn.std(0, correction=1)
        ratio = observation.flux_ratio(observation.camera.reobserved(mean))[:, None, None, None]
        mean, sigma = mean * ratio, sigma * ratio
        observed = observation.camera.reobserved(mean)
        return Prediction(mean, observation.camera.at(self.scale), observed, sigma=sigma)

    def training_terms(self, batch: Batch, epoch: int) -> dict[str, Tensor]:
        """Return the mean squared error of the denoising at random noise levels.

        The first batch ever says how large residuals are; each later one first moves the average of the weights.

        Raises:
            LensphysError: if there is no truth, or its shape does not fit.
        """
        residual = self._residual(batch)
        if int(self.average.n_averaged) == 0:
            self.spread.copy_(residual.std())
        self.average.update_parameters(self.network)
        # drawn by the generator whose state a checkpoint holds, on any device
        step = torch.randint(self.settings.steps, (len(residual),)).to(residual.device)
        noise = torch.randn(residual.shape).to(residual)
        condition = self._condition(batch.observation)
        return {"loss": self._error(self.network, condition, residual / self.spread, noise, step)}

    def validation_score(self, batch: Batch) -> Tensor:
        """Return the mean error, a scalar, of the averaged weights at fixed noise levels, with fixed noise.

        Raises:
            LensphysError: if there is no truth, or its shape does not fit.
        """
        residual, condition = self._residual(batch) / self.spread, self._condition(batch.observation)
        count = self.settings.validation_levels
        levels = (torch.arange(count) + 0.5) * (self.settings.steps / count)
        generator = torch.Generator().manual_seed(self.settings.seed)
        errors = []
        for level in levels.long().to(residual.device):
            noise = self._noise(residual, generator)
            errors.append(self._error(self.average, condition, residual, noise, level.expand(len(residual))))
        return torch.stack(errors).mean()

    def _interpolated(self, observation: Observation) -> Tensor:
        """What a residual is added to, (B, 1, sH, sW) [flux per pixel]."""
        return interpolate(observation.image * observation.weight, self.scale, "bicubic")

    def _condition(self, observation: Observation) -> Tensor:
        """The LR image, and its detail in the unit of the residuals, most of which is noise that they must undo."""
        image, unit = observation.image * observation.weight, observation.peak_unit
        return torch.cat([image / unit, (image - observation.smoothed) / (unit * self.spread)], dim=1)

    def _residual(self, batch: Batch) -> Tensor:
        """What the interpolated image lacks, as surface brightness in units of the LR image's brightest pixel."""
        if batch.truth is None:
            raise LensphysError("diffusion is trained on HR images: this data set has none")
        base = self._interpolated(batch.observation)
        check_same_shape("SR image", base.shape, "HR image", batch.truth.shape)
        return (batch.truth - base) * self.scale**2 / batch.observation.peak_unit

    def _noise(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """The same noise for each image of a batch, on any device."""
        return torch.randn(like[:1].shape, generator=generator).to(like).expand_as(like)

    def _error(self, network: nn.Module, condition: Tensor, residual: Tensor, noise: Tensor, step: Tensor) -> Tensor:
        """The mean squared error of the denoising, a scalar."""
        noisy = self.schedule.add_noise(residual, noise, step)
        v = self.settings.prediction == "v_prediction"
        target = self.schedule.get_velocity(residual, noise, step) if v else noise
        return F.mse_loss(network(noisy, condition, step).float(), target.float())

    def _residuals(self, condition: Tensor) -> list[Tensor]:
        """Samples of the residual, each (B, 1, sH, sW), in units of their spread."""
        generator = torch.Generator().manual_seed(self.settings.seed)
        self.schedule.set_timesteps(self.settings.ddim_steps, device=condition.device)
        fine = condition.new_empty(len(condition), 1, *(self.scale * n for n in condition.shape[-2:]))
        drawn = []
        for _ in range(self.settings.samples):
            x = self._noise(fine, generator)
            for step in self.schedule.timesteps:
                found = self.average(x, condition, step.expand(len(x))).to(x.dtype)
                x = self.schedule.step(found, step, x).prev_sample
            drawn.append(x)
        return drawn
