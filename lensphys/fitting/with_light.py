"""A lens with the light of its galaxy: mass, source and light fitted jointly, and what else shines left out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.ndimage import label, median_filter
from torch import Tensor
from torch.nn.functional import max_pool2d

from lensphys.fitting.lens_light import LensLight, LensLightSettings, lens_light, near_the_light, star_width
from lensphys.fitting.newton import Stop, minimised
from lensphys.fitting.problem import LensProblem
from lensphys.fitting.smooth import at_centres, distinct, finished
from lensphys.fitting.source import Fitted
from lensphys.fitting.starts import minima
from lensphys.model import LensModel, Parameter, ParameterSpace
from lensphys.observation import ModelErrorNoise, Observation


@dataclass(frozen=True)
class LitLens:
    """Fits one image of a lens with its galaxy.

    Args:
        settings: how the light is found.
        starts: how many starts are finished.
        steps: Newton steps a start.
        apart: by what some parameter of the mass must differ between two starts, of its unconstrained values.
    """

    settings: LensLightSettings
    starts: int
    steps: int
    apart: float

    def __call__(self, problem: LensProblem) -> Fitted:
        """Return the best lens, Sersic source and light of one image.

        Args:
            problem: of a smooth lens with a Sersic source, without light.
        """
        light = self._found(problem)
        problem = self._masked(problem, light.image, self._far(problem, light.image))
        start = self._started(problem, light)
        for _ in range(self.settings.looks):
            others = self._unexplained(self._with(problem, light), start)
            if not bool(others.any()):
                break
            problem = self._masked(problem, light.image, others)
            start = self._started(problem, light)
        return finished(self._with(problem, light), start, self.steps)

    def _found(self, problem: LensProblem) -> LensLight:
        """The light that fits the image best without lens and source; found on the CPU."""
        where = problem.unit.device
        light = lens_light(problem.observation.to("cpu"), problem.inverse_sigma.cpu(), self.settings)
        values = {name: value.to(where) for name, value in light.values.items()}
        return replace(light, values=values, image=light.image.to(where))

    def _started(self, problem: LensProblem, light: LensLight) -> Tensor:
        """The best of several starts with everything free in the end, (1, Q).

        No pixel of the arcs counts for more than a few sigma: faint arcs are many pixels, a bright neighbour is few.
        """
        rough = at_centres(self._capped(problem, light))
        whole = self._with(rough, light)
        arcs = self._behind(rough, light)
        both = [minima(some, 2 * self.starts, self.steps // 2)[0] for some in (arcs, self._narrow(arcs))]
        ends = torch.stack(both, dim=1).flatten(0, 1)  # the best of each first
        chosen = distinct(arcs, ends, self.apart)[: 2 * self.starts]
        own = whole.unconstrained(light.values | {n: v.expand(1) for n, v in arcs.values(ends[:1]).items()})
        lit = own[:, len(arcs.space) :].expand(len(chosen), -1)
        rows = torch.zeros(len(chosen), dtype=torch.long, device=chosen.device)
        tried = minimised(whole[rows], torch.cat([chosen, lit], dim=1), Stop(self.steps // 2, fall=3.0))
        return tried.x[tried.cost.argmin()][None]

    def _capped(self, problem: LensProblem, light: LensLight) -> LensProblem:
        """The problem with so much noise in bright arcs that no pixel's signal-to-noise is above the cap."""
        arcs = (problem.observation.image - light.image).clamp(min=0) / self.settings.cap
        sigma = (problem.inverse_sigma.clamp(min=1e-30).square().reciprocal() + arcs.square()).rsqrt()
        return replace(problem, inverse_sigma=torch.where(problem.inverse_sigma > 0, sigma, 0.0))

    def _behind(self, problem: LensProblem, light: LensLight) -> LensProblem:
        """The problem of the arcs alone: the light taken off, the middle of the galaxy left out."""
        observation = problem.observation
        away = observation.camera.grid.positions(like=light.image) - _centre(light)
        core = away.norm(dim=1, keepdim=True) < self._core(problem)
        image = torch.where(core, 0.0, observation.image - light.image)
        behind = replace(observation, image=image, mask=(observation.weight > 0) & ~core)
        sigma = torch.where(core, 0.0, problem.inverse_sigma)
        unit = behind.peak.clamp(min=1e-30) / observation.camera.grid.pixel_area
        return replace(problem, observation=behind, inverse_sigma=sigma, unit=unit, space=self._space(problem, light))

    def _narrow(self, arcs: LensProblem) -> LensProblem:
        """The problem of the arcs without what is broader than they are: what is left of the galaxy."""
        image = arcs.observation.image
        wide = 2 * round(0.5 * self.settings.broad / arcs.observation.camera.grid.scale) + 1
        broad = torch.from_numpy(median_filter(image[0, 0].cpu().numpy(), wide))[None, None].to(image)
        return replace(arcs, observation=replace(arcs.observation, image=image - broad))

    def _with(self, problem: LensProblem, light: LensLight) -> LensProblem:
        """The problem with the light of the galaxy free beside lens and source."""
        model = replace(problem.model, lens_light=light.members)
        unit = self._behind(problem, light).unit
        own = self._space(problem, light).parameters
        more = LensModel({}, {}, light.members).space(problem.radius).parameters
        return replace(problem, model=model, space=ParameterSpace(own + more), unit=unit, front=light.image)

    def _space(self, problem: LensProblem, light: LensLight) -> ParameterSpace:
        """Bounds and priors with the main lens about its light, and everything else about the same place."""
        x, y = _centre(light).flatten().tolist()
        main = next(iter(problem.model.mass))
        least = self._core(problem)
        about = problem.centred_on(x, y).space.parameters
        return ParameterSpace([near_the_light(p, main, light, self.settings, least) for p in about])

    def _core(self, problem: LensProblem) -> float:
        """Radius of the middle of a galaxy, where what is left of its light would pass for arcs [arcsec]."""
        return self.settings.core * star_width(problem.observation.camera, problem.unit)

    def _masked(self, problem: LensProblem, front: Tensor, others: Tensor) -> LensProblem:
        """The problem without the pixels of other objects, and with the error of the light's model in its noise."""
        observation = problem.observation
        law = observation.noise.law if isinstance(observation.noise, ModelErrorNoise) else observation.noise
        noise = ModelErrorNoise(law, (self.settings.model_error * front).square())
        mask = (observation.weight > 0) & ~others
        seen = replace(observation, noise=noise, mask=mask)
        sigma = (seen.weight / noise.variance(observation.image.clamp(min=0))).sqrt()
        return replace(problem, observation=seen, inverse_sigma=sigma)

    def _far(self, problem: LensProblem, front: Tensor) -> Tensor:
        """All light that is too far out to be of images of the source, (1, 1, H, W), bool."""
        arcs = replace(problem.observation, image=problem.observation.image - front)
        far = problem.observation.camera.grid.positions(like=front).norm(dim=1, keepdim=True) > self.settings.reach
        return far & self._grown(arcs.significance(problem.inverse_sigma) > self.settings.clip)

    def _unexplained(self, problem: LensProblem, x: Tensor) -> Tensor:
        """Objects outside of the arcs that neither lens light nor source explain, (1, 1, H, W), bool."""
        front, model = problem.light_in_front(x), problem.render(x)
        arcs = model if front is None else model - front
        rest = replace(problem.observation, image=problem.observation.image - model)
        values, main = problem.values(problem.parts(x)[0]), next(iter(problem.model.mass))
        centre = torch.stack([values[f"{main}.center_{c}"] for c in "xy"], dim=1)[:, :, None, None]
        away = (problem.observation.camera.grid.positions(like=model) - centre).norm(dim=1, keepdim=True)
        out = away > self.settings.beyond * values[f"{main}.theta_E"]
        return self._objects(rest, problem.inverse_sigma, out, arcs)

    def _objects(self, rest: Observation, inverse_sigma: Tensor, where: Tensor, explained: Tensor) -> Tensor:
        """Bright objects, most of each in a region, whose light is mostly not explained, (1, 1, H, W), bool."""
        significance = rest.significance(inverse_sigma)
        labels, count = label((significance > self.settings.object / 2).cpu().numpy()[0, 0])
        chosen = np.zeros(labels.shape, dtype=np.float32)
        planes = (significance, where, explained, rest.image)
        bright, inside, model, left = (plane[0, 0].cpu().numpy() for plane in planes)
        for i in range(1, count + 1):
            own = labels == i
            foreign = model[own].sum() < self.settings.explained * left[own].sum()
            if bright[own].max() > self.settings.object and inside[own].mean() > 0.5 and foreign:
                chosen[own] = 1
        return self._grown(torch.from_numpy(chosen)[None, None].to(significance))

    def _grown(self, which: Tensor) -> Tensor:
        """Some pixels and their neighbours, (1, 1, H, W), bool."""
        side = 2 * self.settings.grow + 1
        return max_pool2d(which.float(), side, stride=1, padding=self.settings.grow) > 0


def _centre(light: LensLight) -> Tensor:
    """Where the light is, (1, 2, 1, 1) [arcsec]."""
    return torch.stack([light.values[f"lens_light.0.center_{c}"] for c in "xy"], dim=1)[:, :, None, None]


def wide_light_held(problem: LensProblem, x: Tensor, half: float, sigma: float) -> LensProblem:
    """Return the problem of one image with a prior on the Gaussians that are wide for it, about what they are.

    What only the middle of an image is fitted to does not tell them from each other; the whole image did.

    Args:
        problem: of the middle.
        x: the fit of the whole, (1, P).
        half: half width of the middle [arcsec]; Gaussians with a sigma above half of it are wide.
        sigma: of the prior of ln amplitude.
    """
    values = problem.space.physical(problem.parts(x)[0])

    def held(p: Parameter) -> Parameter:
        member = problem.model.lens_light.get(p.name.rpartition(".")[0])
        if member is None or not p.name.endswith(".amp") or member.fixed["sigma"] < 0.5 * half:
            return p
        return replace(p, mean=float(values[p.name]), sigma=sigma)

    return replace(problem, space=ParameterSpace([held(p) for p in problem.space.parameters]))
