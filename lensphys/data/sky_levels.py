"""Skies that are not at zero: told, or taken off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor

from lensphys.basics.checks import check_choice
from lensphys.basics.remarks import Remark
from lensphys.basics.sentences import counted
from lensphys.observation.sky import SkyLevel, sky_level

KEEP, SUBTRACT = "keep", "subtract"
_NONE = SkyLevel(0.0, 0.0, 0.0)


class SkyRemark(Remark):
    """What is told of the skies of images.

    Args:
        key: ``keep``, or ``subtract``.
        levels: of the images that it is about.
        looked_at: so many images.
    """

    levels: Sequence[SkyLevel]
    looked_at: int

    def __new__(cls, key: str, levels: Sequence[SkyLevel], looked_at: int) -> Self:
        """Return the sentence, which is the text that it makes."""
        made = super().__new__(cls, _told(levels, looked_at) if key == KEEP else _taken_off(levels))
        made.key, made.levels, made.looked_at = key, levels, looked_at
        return made

    def with_others(self, others: Sequence[Self]) -> Self:
        """Return the sentence on all of the levels."""
        both = (self, *others)
        return type(self)(self.key, [x for one in both for x in one.levels], sum(one.looked_at for one in both))


def sky_removed(image: Tensor, counts: Tensor, way: str, remarks: list[str]) -> Tensor:
    """Return images (N, 1, H, W) with their skies as asked for, and say what was found.

    Args:
        image: [flux per pixel].
        counts: the pixels that count, (N, 1, H, W) bool.
        way: ``keep``, which says where a sky is off zero; ``subtract``, which takes the level of the borders off.
        remarks: get the sentence.

    Raises:
        LensphysError: if there is no such way.
    """
    check_choice("--sky", way, [KEEP, SUBTRACT])
    pairs = zip(image[:, 0].numpy(), counts[:, 0].numpy(), strict=True)
    levels = [sky_level(x, where) or _NONE for x, where in pairs]
    if way == KEEP:
        off = [level for level in levels if level.off]
        remarks += [SkyRemark(KEEP, off, len(levels))] if off else []
        return image
    taken = torch.tensor([level.level for level in levels]).to(image)
    remarks.append(SkyRemark(SUBTRACT, levels, len(levels)))
    return torch.where(counts, image - taken[:, None, None, None], image)


def _taken_off(levels: Sequence[SkyLevel]) -> str:
    return f"the sky of the borders is taken off: {_range(levels)}"


def _told(off: Sequence[SkyLevel], count: int) -> str:
    images = "" if count == 1 else f" in {counted(len(off), 'image')}"
    remedy = "give --sky subtract if it is sky, and no galaxy's halo"
    return f"the borders are not at zero{images} ({_range(off)}): {remedy}"


def _range(levels: Sequence[SkyLevel]) -> str:
    if len(levels) == 1:
        return levels[0].text
    found = np.array([level.level for level in levels])
    return f"{np.median(found):.3g} in the median, {found.min():.3g} to {found.max():.3g}"
