"""The middle of an image that holds its arcs: what is fitted in place of the whole."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor

from lensphys.basics.settings import Strict
from lensphys.fitting.lens_light import LensLightSettings
from lensphys.fitting.problem import LensProblem
from lensphys.fitting.source import Fitted
from lensphys.model import Parameter
from lensphys.observation.kernel import first_star, from_beyond


class Window(Strict):
    """Which pixels are fitted in place of all, where an image is not explained at once.

    Args:
        bright: signal-to-noise of a 3 x 3 mean that makes a pixel bright.
        margin: pixels about the bright ones that are fitted with them.
        crop: share of an image that these may hold; if they hold more it is fitted whole.
        model: signal-to-noise of the arcs of a model that makes a pixel bright, where they lie upon a galaxy.
        outside: signal-to-noise of what light as bright as a pixel's brings into it from beyond the border of an image,
            above which the pixel is left out: nobody knows what is there.
    """

    bright: PositiveFloat = 5.0
    margin: NonNegativeFloat = 6.0
    crop: Annotated[float, Field(ge=0, le=1)] = 0.8
    model: PositiveFloat = 1.0
    outside: PositiveFloat = 3.0

    def known(self, whole: LensProblem) -> LensProblem:
        """Return the problem without the pixels into which light from beyond the border comes."""
        observation = whole.observation
        star = first_star(observation.camera, observation.image)
        across, along = (
            _beyond_both(star.sum(axis), n) for axis, n in zip((1, 0), observation.image.shape[-2:], strict=True)
        )
        share = 1 - (1 - across)[:, None] * (1 - along)
        signal = share * observation.smoothed.clamp(min=0) * whole.inverse_sigma
        if not bool((signal > self.outside).any()):
            return whole
        return whole.without(signal > self.outside)

    def middle(self, whole: LensProblem) -> LensProblem:
        """Return the problem of the pixels in the middle that hold all bright ones; of all where these are many."""
        return self._cut(whole, *self.shape(whole))

    def lit_middle(self, whole: LensProblem, x: Tensor, light: LensLightSettings) -> LensProblem:
        """Return the same of images whose galaxy is in the model, without pixels that light from beyond reaches.

        Args:
            whole: images of any size.
            x: their fit, (B, Q).
            light: how the light of the galaxy is found: beyond its reach are other objects.
        """
        arcs = whole.without_front(whole.shown(x), x) * whole.inverse_sigma > self.model
        inner = self._cut(whole, *self.shape(whole, light, arcs))
        if inner is whole:
            return whole
        return wide_light_held(inner.without_border(light.about.border_of(inner.observation)), x, light.held)

    def _cut(self, whole: LensProblem, height: int, width: int) -> LensProblem:
        few = height * width <= self.crop * whole.observation.image[0].numel()
        return whole.inner(height, width) if few else whole

    def shape(
        self, problem: LensProblem, light: LensLightSettings | None = None, arcs: Tensor | None = None
    ) -> tuple[int, int]:
        """Return how many pixels in the middle, along y and x, hold all bright pixels of all images and a margin.

        Args:
            problem: the images.
            light: how the light of a galaxy is found; None where none is.
            arcs: pixels that count as bright beside it, (B, 1, H, W), bool.
        """
        grid = problem.observation.camera.grid
        bright = problem.arcs.significance(problem.inverse_sigma) > self.bright
        theta = grid.positions(like=problem.unit).abs().expand(len(problem), -1, -1, -1)
        margin = self.margin * grid.scale
        if light is not None:
            bright = bright & (theta.norm(dim=1, keepdim=True) < light.about.reach)
            bright = bright if arcs is None else bright | arcs
            margin = max(margin, light.about.margin)
        far_x, far_y = (float((theta[:, i] * bright[:, 0]).max()) + margin for i in (0, 1))
        return grid.middle(far_y, far_x).shape


def _beyond_both(profile: Tensor, count: int) -> Tensor:
    """The share of a star's light that a line of pixels has from beyond both of its ends, (count,)."""
    end = from_beyond(profile)[:count]
    share = profile.new_zeros(count)
    share[: len(end)] += end
    share[-len(end) :] += end.flip(0)
    return share.clamp(0, 1)


def seen_whole(fitted: Fitted, whole: LensProblem) -> Fitted:
    """The fit of the middle of images, as one of the whole images with the noise of its model."""
    problem = whole_problem(fitted.problem, whole, fitted.x)
    end = fitted.end.at_cost(problem.cost(fitted.x))
    return Fitted(problem, end, shown=fitted.shown, psf_wider=fitted.psf_wider)


def whole_problem(inside: LensProblem, whole: LensProblem, x: Tensor) -> LensProblem:
    """Return the problem of the middle of images with all their pixels, and the noise of a vector (B, Q)."""
    noise = whole.observation.noise if inside.observation.noise.known else inside.observation.noise
    observation = replace(whole.observation, noise=noise)
    problem = replace(inside, observation=observation, inverse_sigma=whole.inverse_sigma, broad=whole.broad)
    return problem.renewed(x)


def wide_light_held(problem: LensProblem, x: Tensor, sigma: float) -> LensProblem:
    """Return the problem of one image with a prior on Gaussians wider than half of its half width, about what they are.

    What only the middle of an image is fitted to does not tell them from each other; the whole image did.

    Args:
        problem: of the middle.
        x: the fit of the whole, (1, P).
        sigma: of the prior of ln amplitude.
    """
    values, half = problem.space.physical(problem.parts(x)[0]), problem.observation.camera.grid.radius

    def held(p: Parameter) -> Parameter:
        member = problem.model.lens_light.get(p.name.rpartition(".")[0])
        if member is None or not p.name.endswith(".amp") or member.fixed["sigma"] < 0.5 * half:
            return p
        return replace(p, mean=float(values[p.name]), sigma=sigma)

    return problem.with_parameters(held)
