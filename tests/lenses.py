"""Simulated lenses for the tests, made with our own profiles: known source, known deflection, known noise."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from lensphys.fitting import FreeField, LensProblem
from lensphys.model import SIE, SIS, Frame, Gaussian, MassProfile, Modes, Sersic, Shear, SourcePrior
from lensphys.model.mass import deflection_shear
from lensphys.observation import Camera, ErrorMap, GaussianPSF, Instrument, Noise, Observation, RectifiedCountNoise
from lensphys.tracing.deflection import DeflectionField
from lensphys.tracing.grid import PixelGrid

THETA_E = {"model_1": 1.2814906, "model_2": 0.8128249, "model_3": 0.8128249}
CENTRE = (0.04, -0.06)  # of a lens with its galaxy [arcsec]
SIZE = {"model_1": (75, 71), "model_2": (48, 52), "model_3": (48, 52)}

# Settings of each network that are enough for a test.
SMALL: dict[str, dict[str, int]] = {
    "edsr": {"channels": 4, "blocks": 1},
    "equivariant": {"channels": 4, "shrunk": 3, "layers": 1},
    "fsrcnn": {"channels": 8, "shrunk": 4, "layers": 1},
    "hybrid": {"channels": 4, "shrunk": 3, "layers": 1},
    "pyramid": {"channels": 4},
    "rcan": {"channels": 8, "groups": 1, "blocks": 1, "reduction": 1},
    "rcan_compact": {"channels": 8, "groups": 2, "blocks": 1, "reduction": 1},
    "rdn": {"channels": 4, "growth": 3, "blocks": 2, "layers": 2},
    "residual": {"channels": 4, "blocks": 1},
    "rrdbnet": {"channels": 4, "growth": 3, "blocks": 1},
    "srresnet": {"channels": 4, "blocks": 1},
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Thousands of small operations: on a busy machine a second thread makes them several times slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True)
class Lenses:
    """A batch of observed lenses and the truth behind it."""

    observation: Observation
    mass: MassProfile
    source: Sersic

    def clean(self, scale: int = 1) -> Tensor:
        """The noise-free image at a scale, (B, 1, sH, sW), in the unit of the observation."""
        camera = self.observation.camera.at(scale)
        return camera.render(
            self.source, DeflectionField.from_lens(self.mass, camera.grid, like=self.observation.image)
        )

    def field(self, scale: int = 1) -> DeflectionField:
        """The true deflection at a scale."""
        return DeflectionField.from_lens(
            self.mass, self.observation.camera.grid.resampled(scale), like=self.observation.image
        )


def model_lenses(model: str, batch: int = 3, seed: int = 1) -> Lenses:
    """Noisy images of a preset instrument, H != W: SIS, n = 1 Sersic within 0.35" of the axis, as the legacy data."""
    generator = torch.Generator().manual_seed(seed)
    instrument, like = Instrument.named(model), torch.zeros(batch)
    centre = 0.7 * torch.rand(2, batch, generator=generator) - 0.35
    shape = (0.25, 1.0, -0.1, 0.1, *centre)
    grid = PixelGrid(200, 200, 0.03)
    if model == "model_1":
        amp = 20 * 10 ** (3 + 0.5 * torch.rand(batch, generator=generator))
        noise: Noise | None = RectifiedCountNoise(
            amp[:, None, None, None] * 0.01 / 20, torch.full((batch, 1, 1, 1), 2.0)
        )
    else:
        total = Sersic(1.0, 0.25, 1.0, -0.1, 0.1)(grid.positions(like=like)).sum() * grid.pixel_area
        amp, noise = instrument.flux(20.0) / total, None
    mass, source, camera = SIS(THETA_E[model]), Sersic(amp, *shape), instrument.camera(*SIZE[model])
    clean = camera.render(source, DeflectionField.from_lens(mass, camera.grid, like=like))
    image = (noise or instrument.noise_of(clean)).sample(clean, generator)
    return Lenses(instrument.observation(image), mass, source)


def small_lenses(
    batch: int = 2, *, height: int = 32, width: int = 36, dtype: torch.dtype = torch.float32, noise: float = 0.02
) -> Lenses:
    """Small images at 0.15": SIE + shear, each lens another, known white noise of ``noise`` times the peak."""
    vary = torch.linspace(-1, 1, batch, dtype=dtype)
    mass = SIE(1.2 + 0.1 * vary, 0.08 + 0.03 * vary, -0.05, 0.02, 0.03 * vary) + Shear(0.03, -0.02 * vary)
    source = Sersic(5.0 + vary, 0.35 + 0.05 * vary, 1.0, 0.1 * vary, -0.1, 0.15 * vary, 0.1)
    camera = Camera(PixelGrid(height, width, 0.15), GaussianPSF(0.2))
    clean = camera.render(source, DeflectionField.from_lens(mass, camera.grid, like=vary))
    sigma = torch.full_like(clean, noise) * clean.flatten(1).amax(1)[:, None, None, None]
    image = ErrorMap(sigma).sample(clean, torch.Generator().manual_seed(5))
    return Lenses(Observation(image, camera, ErrorMap(sigma)), mass, source)


def scaled(observation: Observation, unit: float) -> Observation:
    """The same observation in another unit: image and noise times ``unit``."""
    if not isinstance(observation.noise, ErrorMap):
        raise TypeError("only an error map is scaled here")
    return Observation(
        observation.image * unit, observation.camera, ErrorMap(observation.noise.sigma * unit), observation.mask
    )


def psnr(image: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio (B,) [dB], the truth's maximum as the peak."""
    error = (image - truth).square().flatten(1).mean(1)
    return 10 * torch.log10(truth.flatten(1).amax(1) ** 2 / error)


def relative(found: Tensor | float, known: Tensor | float) -> float:
    """Largest |found / known - 1|."""
    return float((torch.as_tensor(found) / torch.as_tensor(known) - 1).abs().max())


def finite(x: Tensor) -> bool:
    """Whether all values are finite numbers."""
    return math.isfinite(float(x.detach().abs().sum()))


def small_problem(lenses: Lenses) -> tuple[LensProblem, Tensor]:
    """The least-squares problem of `small_lenses`, and the truth as its vector."""
    problem, (sie, shear), source = (
        LensProblem.from_observation(lenses.observation),
        lenses.mass.summands,
        lenses.source,
    )
    gx, gy = deflection_shear(torch.zeros(1, 2, 1, 1).to(problem.unit), shear.gamma1, shear.gamma2, sie.center_x,
                              sie.center_y)[:, :, 0, 0].unbind(1)  # fmt: skip
    known = {f"lens.{name}": value for name, value in sie.values.items()}
    known |= {"shear.gamma1": shear.gamma1, "shear.gamma2": shear.gamma2}
    known |= {f"source.{name}": value for name, value in source.values.items()}
    # the model's shear is about the lens's centre: the source is seen through another constant deflection
    known |= {"source.center_x": source.center_x - gx, "source.center_y": source.center_y - gy}
    values = {name: torch.as_tensor(value).to(problem.unit).expand(len(problem)) for name, value in known.items()}
    return problem, problem.unconstrained(values)


def with_noise_of(problem: LensProblem, image: Tensor, noise: float = 1.0, seed: int = 3) -> LensProblem:
    """The problem with other images, and so many times its error map as noise."""
    observation, generator = problem.observation, torch.Generator().manual_seed(seed)
    if not isinstance(observation.noise, ErrorMap):
        raise TypeError("only an error map tells how much noise to add")
    scatter = torch.randn(image.shape, generator=generator, dtype=image.dtype) * observation.noise.sigma
    return replace(problem, observation=replace(observation, image=image + noise * scatter))


def seen_as(problem: LensProblem, x: Tensor, noise: float = 1.0, seed: int = 3) -> LensProblem:
    """The problem with the images of another vector, and so many times its error map as noise."""
    return with_noise_of(problem, problem.render(x), noise, seed)


def deeper(problem: LensProblem, factor: float) -> LensProblem:
    """The problem with an error map so many times as small: images and model stay."""
    observation = problem.observation
    if not isinstance(observation.noise, ErrorMap):
        raise TypeError("only an error map is divided here")
    noise = ErrorMap(observation.noise.sigma / factor)
    return replace(problem, inverse_sigma=factor * problem.inverse_sigma, observation=replace(observation, noise=noise))


def with_bodies(problem: LensProblem, x: Tensor, bodies: Tensor) -> tuple[LensProblem, Tensor]:
    """The problem with sub-halos (B, K, 3), ln strength, x and y of each, and the vector that has them."""
    own, others, g, psi = problem.parts(x)
    more = replace(problem, subhalos=problem.subhalos + bodies.shape[1])
    return more, torch.cat([own, others, bodies.flatten(1), g, psi], dim=1)


def freed_problem(problem: LensProblem, x: Tensor, count: int = 6, g: Tensor | None = None, half_side: float = 0.9,
                  prior: SourcePrior = SourcePrior()) -> tuple[LensProblem, Tensor]:  # fmt: skip
    """The problem with a free source about the Sersic of a vector without bodies, and the vector with its field."""
    modes = Modes(count)
    half = torch.full_like(problem.unit, half_side)
    free = FreeField(modes, Frame.from_sersic(problem.sersic(x), half), modes.sigma(prior, 2 * half))
    return replace(problem, free=free), torch.cat([x, torch.zeros_like(free.sigma) if g is None else g], dim=1)


@dataclass(frozen=True)
class LitLens:
    """A lens with its galaxy, as a camera saw it, and the parts it is made of, (1, 1, H, W) [flux per pixel]."""

    observation: Observation
    arcs: Tensor
    galaxy: Tensor


def lit_lens(neighbour: bool = False, theta_E: float = 1.1, pixels: int = 64, light: float = 3.0) -> LitLens:
    camera = Camera(PixelGrid(pixels, pixels, 0.08), GaussianPSF(0.15), supersampling=4)
    like = torch.zeros(1)
    mass = SIE(theta_E, 0.1, -0.05, *CENTRE) + Shear(0.03, -0.02)
    source = Sersic(8.0, 0.15, 1.2, 0.2, 0.1, 0.12, -0.05)
    arcs = camera.render(source, DeflectionField.from_lens(mass, camera.grid, like=like))
    fine = camera.grid.resampled(4)
    galaxy = Sersic(light, 0.8, 4.0, 0.12, -0.06, *CENTRE)(fine.positions(like=like))
    galaxy = camera.expose(galaxy * fine.pixel_area)
    whole = arcs + galaxy
    if neighbour:
        whole = whole + camera.expose(
            Gaussian(0.8, 0.08, 0.0, 0.0, 1.9, 1.7)(fine.positions(like=like)) * fine.pixel_area
        )
    sigma = (0.0006**2 + 0.0004 * whole).sqrt() * 0.5
    image = ErrorMap(sigma).sample(whole, torch.Generator().manual_seed(3))
    return LitLens(Observation(image, camera, ErrorMap(sigma)), arcs, galaxy)
