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


class Window(Strict):
    """Which pixels are fitted in place of all, where an image is not explained at once.

    Args:
        bright: signal-to-noise of a 3 x 3 mean that makes a pixel bright.
        margin: pixels about the bright ones that are fitted with them.
        crop: share of an image that these may hold; if they hold more it is fitted whole.
    """

    bright: PositiveFloat = 5.0
    margin: NonNegativeFloat = 6.0
    crop: Annotated[float, Field(ge=0, le=1)] = 0.8

    def middle(self, whole: LensProblem, light: LensLightSettings | None = None) -> LensProblem:
        """Return the problem of the pixels in the middle that hold all bright ones; of all where these are many.

        Args:
            whole: images of any size.
            light: how the light of a lens galaxy is found: beyond its reach are other objects; None where none is.
        """
        height, width = self.shape(whole, light)
        few = height * width <= self.crop * whole.observation.image[0].numel()
        return whole.inner(height, width) if few else whole

    def shape(self, problem: LensProblem, light: LensLightSettings | None) -> tuple[int, int]:
        """Return how many pixels in the middle, along y and x, hold all bright pixels of all images and a margin."""
        grid = problem.observation.camera.grid
        bright = problem.arcs.significance(problem.inverse_sigma) > self.bright
        theta = grid.positions(like=problem.unit).abs().expand(len(problem), -1, -1, -1)
        margin = self.margin * grid.scale
        if problem.front is not None and light is not None:
            bright = bright & (theta.norm(dim=1, keepdim=True) < light.reach)
            margin = max(margin, light.margin)
        far_x, far_y = (float((theta[:, i] * bright[:, 0]).max()) + margin for i in (0, 1))
        return grid.middle(far_y, far_x).shape


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
