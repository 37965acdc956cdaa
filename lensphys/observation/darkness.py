"""Whether an image shows anything at all."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from lensphys.observation.camera import Observation

SEEN = 5.0  # sigma of a 3 x 3 mean: of the thousands of pixels of an image some pass 3 by chance


def shows_light(observation: Observation) -> Tensor:
    """Return whether anything stands 5 sigma out of the noise of a 3 x 3 mean, (B,) bool.

    A law whose numbers are guessed from the arcs themselves cannot deny them: there, any positive pixel is light.

    Args:
        observation: images and how they were taken.
    """
    dark, noise = torch.zeros_like(observation.image), observation.noise
    if not noise.known:
        return observation.peak > 0
    above = replace(observation, image=observation.image - noise.expected(dark))
    return above.significance(noise.variance(dark).rsqrt()).flatten(1).amax(1) >= SEEN
