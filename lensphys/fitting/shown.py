"""What of substructure an image shows, whether or not any was kept: the best gain, and the ratio of evidences."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from lensphys.fitting.source import Fitted, Groups, Shown
from lensphys.fitting.subhalos import Candidates, Search, candidates


def first_look(smooth: Fitted, search: Search) -> list[Candidates]:
    """Return the places where a sub-halo was tried in each image: see `candidates`."""
    return [candidates(one, search) for _, one in smooth.apart()]


def largest_gain(looks: list[Candidates]) -> Tensor:
    """Return what the best place for a sub-halo would gain in each image, (B,)."""
    return torch.stack([look.largest for look in looks])


def evidence_ratio(fitted: Fitted, plain: Fitted) -> Tensor:
    """Return ln of the evidence of fits over that of others of the same images, with the noise of the former, (B,)."""
    return fitted.evidence - plain.with_noise_of(fitted.problem).evidence


def told(groups: Groups, smooth: Fitted, gain: Tensor) -> Groups:
    """Return the fits with what of substructure their images show beside a smooth fit of the same batch.

    Args:
        groups: the fits.
        smooth: of the same images.
        gain: what a sub-halo would gain there, (B,).
    """
    found: Groups = []
    for rows, group in groups:
        plain = smooth.rows(rows)
        unchanged = group.problem.sizes == plain.problem.sizes
        ratio = torch.zeros_like(group.evidence) if unchanged else evidence_ratio(group, plain)
        found.append((rows, replace(group, shown=Shown(gain[rows], ratio))))
    return found
