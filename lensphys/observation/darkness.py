"""Whether an image shows anything at all."""

from __future__ import annotations

from pydantic import PositiveFloat
from torch import Tensor

from lensphys.basics.settings import Strict
from lensphys.observation.camera import Observation


class Darkness(Strict):
    """When an image shows nothing.

    Args:
        seen: sigma of a 3 x 3 mean from which on something is seen: of thousands of pixels some pass 3 by chance.
    """

    seen: PositiveFloat = 5.0


def shows_light(observation: Observation, darkness: Darkness = Darkness()) -> Tensor:
    """Return whether anything stands out of the noise of a 3 x 3 mean, by 5 sigma if not said otherwise, (B,) bool.

    A law whose numbers are guessed from the arcs themselves cannot deny them: there, any positive pixel is light.

    Args:
        observation: images and how they were taken.
        darkness: what counts as dark.
    """
    if not observation.noise.known:
        return observation.peak > 0
    above = observation.without_pedestal.significance(observation.dark_sigma.reciprocal())
    return above.flatten(1).amax(1) >= darkness.seen
