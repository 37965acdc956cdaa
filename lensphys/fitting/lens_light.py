"""The light of the lens galaxy: two sets of Gaussians about one centre, found without help and fitted jointly.

Where it starts from is what of the image is smooth, elliptical and about one centre: amplitudes by non-negative least
squares, and what stands out above it (arcs, neighbours) clipped. From there on it is part of the lens model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn.functional import max_pool2d

from lensphys.basics.settings import Strict
from lensphys.fitting.arcs import ArcSearch
from lensphys.fitting.broad_light import BroadLightSettings
from lensphys.fitting.foreign import ForeignSettings
from lensphys.fitting.source import FreeSourceSettings
from lensphys.fitting.starts import RingSearch
from lensphys.model import Gaussian, Member, SourcePrior
from lensphys.model.component import CENTRE
from lensphys.model.parameter import Parameter
from lensphys.observation import Observation
from lensphys.observation.kernel import first_star, star_width

_CALM = tuple(SourcePrior(amplitude=a, scale=k) for a in (0.3, 0.6) for k in (6.0, 12.0, 24.0))


class FainterGalaxy(Strict):
    """When light in the middle of a lens is that of a galaxy which is fainter than the arcs.

    Args:
        within: what is called the middle [Einstein radii].
        signal: what a Sersic source leaves there, in sigma of its sum,
        share: and of the light that is there.
    """

    within: PositiveFloat = 0.35
    signal: PositiveFloat = 10.0
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5


class LensLightSettings(Strict):
    """How the light of a lens galaxy is found, and the lens and the source with it.

    Args:
        gaussians: how many widths are tried; those with no light are left out.
        narrowest: of them [pixels].
        widest: of them [half widths of the field of view]: it stands for what is left of the sky, too.
        clip: signal-to-noise above the model where the light is another object's.
        rounds: of fitting and clipping.
        model_error: share of the model that counts as its error.
        inner: how far from its middle the shape of the galaxy is measured [half widths of the field of view].
        fainter: when there is a galaxy that is fainter than the arcs about it.
        search: how far from the middle of the field the galaxy may be [half widths].
        peak: signal-to-noise that its middle must have.
        arc: where the brightest light is an arc, from the centre of a lens that is found without it [Einstein radii];
            as far as the first of these from the middle of the field, too.
        centre: how far the mass may be from the light, a Gaussian prior [arcsec].
        tilt: how far the ellipticity of the mass may be from that of the light, a Gaussian prior.
        shear: of the mass elsewhere, standard deviation of a Gaussian prior of each component.
        largest: half-light radius that a source may have: a larger one would stand for light of the lens [arcsec].
        compared: the free source by whose evidence minima are compared: a galaxy that is not too far from its Sersic,
        twice: and of which so much of the light is seen twice; else it takes the shape of the arcs itself.
        second: how far from the middle of the galaxy the second image is then, at least [Einstein radii].
        structure: what a source costs, in ln evidence, whose arcs have nothing in common with those of its own Sersic:
            a field can make any image of any lens, but few galaxies are far from a Sersic.
        core: how far from the middle of the galaxy arcs are not looked for at first [sigma of a star],
        hidden: and that at most [arcsec].
        reach: how far from the middle of the field an image of the source can be [arcsec].
        margin: about the bright pixels that is fitted with them: a free source has faint images there [arcsec].
        border: share of a star's light that may cross the edge of what is fitted: the galaxy goes on beyond it.
        held: e-folds by which the wide Gaussians may change once only the middle of the image is fitted.
        broad: the light that the Gaussians leave.
        others: what is taken for other objects.
        rings: where the fit starts from,
        wide: and the arcs that make it look further out than these say.
        beyond: Einstein radius that such an arc may have [its distance from the galaxy],
        pixels: and that is tried in any case: where they are coarse there are few [pixels].
    """

    gaussians: PositiveInt = 16
    narrowest: PositiveFloat = 0.6
    widest: PositiveFloat = 3.0
    clip: PositiveFloat = 3.0
    rounds: PositiveInt = 5
    model_error: PositiveFloat = 0.05
    inner: PositiveFloat = 0.4
    fainter: FainterGalaxy = FainterGalaxy()
    search: PositiveFloat = 0.3
    peak: PositiveFloat = 10.0
    arc: Annotated[tuple[PositiveFloat, PositiveFloat], Field(strict=False)] = (0.5, 1.6)
    centre: PositiveFloat = 0.025
    tilt: PositiveFloat = 0.15
    shear: PositiveFloat = 0.06
    largest: PositiveFloat = 0.35
    compared: FreeSourceSettings = FreeSourceSettings(modes=(10, 18), priors=_CALM, largest=1.2)
    twice: PositiveFloat = 0.4
    second: PositiveFloat = 0.3
    structure: NonNegativeFloat = 200.0
    core: PositiveFloat = 4.0
    hidden: PositiveFloat = 0.4
    reach: PositiveFloat = 3.0
    margin: PositiveFloat = 0.8
    border: PositiveFloat = 0.005
    held: PositiveFloat = 0.01
    broad: BroadLightSettings = BroadLightSettings()
    others: ForeignSettings = ForeignSettings()
    rings: RingSearch = RingSearch()
    wide: ArcSearch = ArcSearch(angle=61.0)
    beyond: PositiveFloat = 1.2
    pixels: PositiveFloat = 22.0

    def around(self, radius: float, scale: float) -> LensLightSettings:
        """Return the same, looking further out where that is needed.

        Args:
            radius: how far from the galaxy arcs are [arcsec].
            scale: of a pixel [arcsec].
        """
        rings, widest = self.rings, max(self.beyond * radius, self.pixels * scale)
        if widest <= self.largest_radius:
            return self
        finer = rings.model_copy(update={"widest": widest, "radii": math.ceil(rings.radii * widest / rings.widest)})
        return self.model_copy(update={"rings": finer, "reach": self.reach + widest - rings.widest})

    def inside(self, theta_E: float) -> LensLightSettings:
        """Return the same for a galaxy that is fainter than the arcs about it.

        Args:
            theta_E: Einstein radius [half widths of the field of view].
        """
        return self.model_copy(update={"inner": min(self.inner, self.fainter.within * theta_E)})

    @property
    def largest_radius(self) -> float:
        """Einstein radius that a lens may have at most, a little more than those that are tried [arcsec]."""
        return 1.1 * self.rings.widest

    def border_of(self, observation: Observation) -> int:
        """Return how many pixels along the edges of images light from beyond them reaches."""
        beside = first_star(observation.camera, observation.image).sum(0).flip(0).cumsum(0)
        return int((beside[: len(beside) // 2] > self.border).sum())


@dataclass(frozen=True)
class LensLight:
    """The light of one lens galaxy.

    Args:
        members: of a `LensModel`: Gaussians about one centre, in two sets that have a shape each.
        values: of their free parameters, each (1,).
        image: as the camera sees it, (1, 1, H, W) [flux per pixel].
    """

    members: dict[str, Member]
    values: dict[str, Tensor]
    image: Tensor


def looks_like_a_galaxy(observation: Observation, inverse_sigma: Tensor, settings: LensLightSettings) -> bool:
    """Return whether the brightest light of one image is in its middle: with arcs alone it is about it.

    Not beyond the reach of arcs: there other galaxies and stars may be brighter.
    """
    smooth = observation.significance(inverse_sigma)
    place = brightest(observation, settings.reach)
    middle = place.norm() < settings.search * observation.camera.grid.radius
    return bool(middle) and float(smooth.amax()) > settings.peak


def lens_light(
    observation: Observation, inverse_sigma: Tensor, settings: LensLightSettings, middle: Tensor | None = None
) -> LensLight:
    """Return the light of one image that is smooth, elliptical and about one centre.

    Args:
        observation: of one image.
        inverse_sigma: one over the noise, (1, 1, H, W), 0 where masked.
        settings: how.
        middle: about where its centre is, (2,) [arcsec]; the brightest place if None.
    """
    grid = observation.camera.grid
    middle = brightest(observation, settings.reach) if middle is None else middle.double()
    widths = np.geomspace(settings.narrowest * grid.scale, settings.widest * grid.radius, settings.gaussians)
    shape = np.concatenate([middle.numpy(), [0.0, 0.0]])
    fit = _Clipped(observation, inverse_sigma, settings)
    for _ in range(settings.rounds):
        shape = fit.shaped(shape, widths[::2])
        fit.clip(shape, widths)
    twisted = fit.shaped(np.concatenate([shape, -shape[2:]]), widths[::2])  # what was clipped stays so
    return _made(fit, twisted, widths)


def brightest(observation: Observation, reach: float) -> Tensor:
    """Return where the 3 x 3 mean of one image is brightest, (2,) [arcsec], float64.

    Args:
        observation: of one image.
        reach: how far from the middle of the field, at most [arcsec].
    """
    smooth = observation.smoothed[0, 0]
    theta = observation.camera.grid.positions(like=smooth.double())[0]
    near = (theta.norm(dim=0) < reach) & (observation.weight[0, 0] > 0)
    at = int(torch.where(near, smooth, -torch.inf).argmax())
    return theta.flatten(1)[:, at]


def _made(fit: _Clipped, shape: np.ndarray, widths: np.ndarray) -> LensLight:
    """The members of a model, and their values; those without light are left out."""
    amplitudes, planes = fit.solved(shape, widths)
    kept = np.flatnonzero(amplitudes > 1e-4 * amplitudes.sum())
    members: dict[str, Member] = {}
    values: dict[str, float] = {}
    first: dict[int, str] = {}  # Gaussian of each set, which the others of it have their shape from
    for i in kept.tolist():
        which, name = i // len(widths), f"lens_light.{len(members)}"
        leader = first.setdefault(which, name)
        middle = next(iter(first.values()))
        tied = {c: f"{middle}.{c}" for c in CENTRE if name != middle}
        tied |= {e: f"{leader}.{e}" for e in ("e1", "e2") if name != leader}
        members[name] = Member.from_component(Gaussian, tied, sigma=float(widths[i % len(widths)]))
        known = dict(zip((*CENTRE, "e1", "e2"), (*shape[:2], *shape[2 + 2 * which : 4 + 2 * which]), strict=True))
        values |= {f"{name}.amp": amplitudes[i]} | {f"{name}.{n}": v for n, v in known.items() if n not in tied}
    image = (torch.from_numpy(amplitudes[kept]) @ planes[kept]).reshape_as(fit.data).to(fit.observation.image)
    like = fit.observation.peak
    return LensLight(members, {n: torch.full_like(like, float(v)) for n, v in values.items()}, image)


class _Clipped:
    """A sum of Gaussians about one centre, fitted to the pixels that nothing else shines in.

    While shape and clipping are found the PSF counts by its width alone, which costs no convolution.
    """

    def __init__(self, observation: Observation, inverse_sigma: Tensor, settings: LensLightSettings) -> None:
        self.settings, self.observation = settings, observation
        self.data = observation.image.double()
        self.sigma2 = torch.where(inverse_sigma > 0, inverse_sigma.double().square().reciprocal(), torch.inf)
        self.clipped, self.light = torch.zeros_like(self.data), torch.zeros_like(self.data)
        self.theta = observation.camera.grid.positions(like=self.data)
        self.blur = star_width(observation.camera, self.data)

    def shaped(self, start: np.ndarray, widths: np.ndarray) -> np.ndarray:
        """Ellipticity and centre that fit best in the middle of the image, the amplitudes free."""
        from scipy.optimize import least_squares

        near = self._near(start)
        theta, data, weight = self.theta[..., near], self.data[0, 0][near], self._weight[0, 0][near]

        def residual(shape: np.ndarray) -> np.ndarray:
            planes = self._blurred(shape, widths, theta[:, :, None])
            light = torch.from_numpy(_solved(planes * weight, data * weight)) @ planes
            return np.asarray((data - light) * weight)

        step = self.observation.camera.grid.scale
        low, high = (np.array([*(start[:2] + sign * 3 * step), *[sign * 0.6] * (len(start) - 2)]) for sign in (-1, 1))
        scale = np.array([step, step, *[0.1] * (len(start) - 2)])
        found = least_squares(residual, np.clip(start, low, high), bounds=(low, high), max_nfev=6, x_scale=scale,
                              diff_step=1e-3)  # fmt: skip
        return np.asarray(found.x)

    def clip(self, shape: np.ndarray, widths: np.ndarray) -> None:
        """Leave out what stands above the model, and what is next to it; never the galaxy's own middle."""
        planes = self._blurred(shape, widths, self.theta)
        self.light = (torch.from_numpy(self._amplitudes(planes)) @ planes).reshape_as(self.data)
        rest = replace(self.observation, image=(self.data - self.light).to(self.observation.image))
        above = rest.significance(self._weight.to(rest.image)) > self.settings.clip
        above = above & (self._away(shape) > 2 * self.observation.camera.grid.scale)
        self.clipped = max_pool2d(above.double(), 3, stride=1, padding=1)

    def solved(self, shape: np.ndarray, widths: np.ndarray) -> tuple[np.ndarray, Tensor]:
        """The non-negative amplitudes that fit best behind the PSF itself, (K,), and the images, (K, H W)."""
        camera = self.observation.camera
        fine = camera.grid.resampled(camera.supersampling)
        theta = fine.positions(like=self.observation.image)
        one = _gaussians(shape, widths, fine.pixel_area)
        planes = torch.cat([camera.expose(light(theta)) for light in one]).flatten(1).double()
        return self._amplitudes(planes), planes

    def _amplitudes(self, planes: Tensor) -> np.ndarray:
        """The non-negative amplitudes of some images (K, N) that fit best, (K,)."""
        weight = self._weight.flatten()
        return _solved(planes * weight, self.data.flatten() * weight)

    def _blurred(self, shape: np.ndarray, widths: np.ndarray, theta: Tensor) -> Tensor:
        """Each Gaussian with the flux 1, as wide as the PSF makes it, (K, N)."""
        one = _gaussians(shape, np.hypot(widths, self.blur), self.observation.camera.grid.pixel_area)
        return torch.cat([light(theta) for light in one]).flatten(1)

    def _near(self, shape: np.ndarray) -> Tensor:
        """Which pixels are near the middle of the galaxy, (H, W)."""
        return self._away(shape) < self.settings.inner * self.observation.camera.grid.radius

    def _away(self, shape: np.ndarray) -> Tensor:
        """How far each pixel is from the middle of the galaxy, (H, W) [arcsec]."""
        return (self.theta[0] - torch.from_numpy(shape[:2])[:, None, None]).norm(dim=0)

    @property
    def _weight(self) -> Tensor:
        """One over the error of each pixel, that of the model included; 0 where something else shines."""
        error = self.sigma2 + (self.settings.model_error * self.light).square()
        return error.rsqrt() * (1 - self.clipped)


def _gaussians(shape: np.ndarray, widths: np.ndarray, flux: float) -> list[Gaussian]:
    """Those of all widths, (K,), for each pair of ellipticities behind the centre."""
    x, y, *ellipticities = shape.tolist()
    sigma = torch.from_numpy(widths)
    return [Gaussian(flux, sigma, e1, e2, x, y) for e1, e2 in zip(ellipticities[::2], ellipticities[1::2], strict=True)]


def _solved(columns: Tensor, data: Tensor) -> np.ndarray:
    """The non-negative least-squares amplitudes of columns (K, N) that make data (N,), (K,)."""
    from scipy.optimize import nnls

    scale = columns.norm(dim=1).clamp(min=1e-30)
    unit = columns / scale[:, None]
    lower = torch.linalg.cholesky(unit @ unit.T + 1e-10 * torch.eye(len(unit)).to(unit))
    right = torch.linalg.solve_triangular(lower, (unit @ data)[:, None], upper=False)[:, 0]
    return np.asarray(nnls(lower.T.numpy(), right.numpy())[0] / scale.numpy())


def near_the_light(
    parameter: Parameter, main: str, light: LensLight, settings: LensLightSettings, least: float
) -> Parameter:
    """Return a parameter of the main lens with a prior about that of its light, and a source's size with its bound.

    Args:
        parameter: of a smooth model.
        main: name of the main lens.
        light: of its galaxy.
        settings: how wide the priors are.
        least: Einstein radius below which arcs would be hidden in the middle of the galaxy [arcsec].
    """
    member, _, name = parameter.name.rpartition(".")
    if parameter.name == f"{main}.theta_E":
        return parameter.between(max(parameter.low, least), min(parameter.high, settings.largest_radius))
    if name == "R_sersic":
        return parameter.between(parameter.low, min(parameter.high, settings.largest))
    if name in ("gamma1", "gamma2"):
        return replace(parameter, sigma=min(parameter.sigma, settings.shear))
    if member != main or name not in (*CENTRE, "e1", "e2"):
        return parameter
    value = float(light.values[f"lens_light.0.{name}"])
    width = settings.centre if name.startswith("center") else settings.tilt
    if name.startswith("center"):
        parameter = parameter.between(value - 4 * width, value + 4 * width)
    return replace(parameter, mean=value, sigma=width)
