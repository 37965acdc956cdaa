"""What a network's file holds: an ``nn.Module`` and its settings, which build it."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import nn

from lensphys.settings import Strict


class NetworkSettings(Strict, ABC):
    """The settings of a network: a sub-class adds ``name``, a ``Literal``, and what its architecture leaves open."""

    @abstractmethod
    def build(self, out_channels: int, scale: int, in_channels: int = 1) -> nn.Module:
        """Return the network with fresh weights, (B, in_channels, H, W) -> (B, out_channels, scale H, scale W).

        It has an attribute ``scale``, the upscaling factor, and an attribute ``upsampling``: the names of its modules
        that do the upscaling and all that comes after it (the rest extracts features).
        """
