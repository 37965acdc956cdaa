"""Images in which no sub-halo can be believed, whatever it would gain: their PSF, sky or noise is not known."""

from __future__ import annotations

import torch
from torch import Tensor

from lensphys.fitting.remains import Remains
from lensphys.fitting.source import Fitted
from lensphys.fitting.verdict import VerdictSettings, neighbour_correlation
from lensphys.observation.sky import darkest_border

_NONE = "no sub-halos were looked for:"
SKY = f"{_NONE} the borders are not at zero"
PSF = f"{_NONE} no PSF is known"
NOISE = f"{_NONE} the noise is estimated from the image, and neighbouring pixels share it"


def doubtful(smooth: Fitted, settings: VerdictSettings) -> dict[int, str]:
    """Return why no sub-halos are looked for in some images, by their rows.

    A sky beside the model is taken for the wings of the source, which a smooth lens bends wrongly. Where neighbours
    share a noise that is known only from the image, nobody knows how large what they share is over the size of an
    arc's bend. Without a PSF blur is taken for structure.

    Args:
        smooth: fits of a smooth lens.
        settings: what is called a sky, and noise that is not white.
    """
    if not smooth.problem.observation.camera.psf.known:
        return dict.fromkeys(range(len(smooth.x)), PSF)
    shared = _shared_and_guessed(smooth, settings).tolist()
    return {i: NOISE for i, flag in enumerate(shared) if flag} | dict.fromkeys(_under_a_sky(smooth, settings), SKY)


def _under_a_sky(smooth: Fitted, settings: VerdictSettings) -> list[int]:
    """Images with light, or too little of it, all along their borders."""
    above = smooth.problem.arcs.without_pedestal
    level, counts = above.image / above.dark_sigma, above.weight > 0
    found = []
    for i, (image, where) in enumerate(zip(level[:, 0].cpu().numpy(), counts[:, 0].cpu().numpy(), strict=True)):
        levels = [darkest_border(sign * image, where) for sign in (1, -1)]
        if any(one is not None and one > settings.near_borders for one in levels):
            found.append(i)
    return found


def _shared_and_guessed(smooth: Fitted, settings: VerdictSettings) -> Tensor:
    """Whether the noise of images is estimated from them and their sky is not white, (B,)."""
    if smooth.problem.observation.noise.known:
        return torch.zeros_like(smooth.problem.unit, dtype=torch.bool)
    remains = Remains.from_fit(smooth)
    rho, spread = neighbour_correlation(remains.residual, remains.sky)
    return rho > settings.correlation + settings.scatter * spread
