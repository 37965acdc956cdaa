"""What of substructure an image shows, whether or not any was kept: the best gain, and the ratio of evidences."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from lensphys.fitting.source import Fitted, Groups, Shown
from lensphys.fitting.subhalos import Search, candidates


def largest_gain(smooth: Fitted, search: Search) -> Tensor:
    """Return what the best place for a sub-halo would gain in each image, (B,): see `candidates`."""
    return torch.stack([candidates(one, search).largest for _, one in smooth.apart()])


def evidence_ratio(fitted: Fitted, plain: Fitted) -> Tensor:
    """Return ln of the evidence of fits over that of others of the same images, with the noise of the former, (B,)."""
    return fitted.evidence - plain.with_noise_of(fitted.problem).evidence


def told(groups: Groups, smooth: Fitted, search: Search) -> Groups:
    """Return the fits with what of substructure their images show beside a smooth fit of the same batch."""
    found: Groups = []
    for rows, group in groups:
        plain = smooth.rows(rows)
        unchanged = group.problem.sizes == plain.problem.sizes
        ratio = torch.zeros_like(group.evidence) if unchanged else evidence_ratio(group, plain)
        found.append((rows, replace(group, shown=Shown(largest_gain(plain, search), ratio))))
    return found
