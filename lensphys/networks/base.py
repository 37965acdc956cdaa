"""What a network's file holds: an ``nn.Module`` and its settings, which build it."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor, nn

from lensphys.basics.settings import Strict

# Bounds, so that a config that is only read takes no more time and memory than any network of the field. Their product
# is bounded where a method is built: see `lensphys.training.experiment`.
Width = Annotated[int, Field(gt=0, le=4096)]  # channels of a layer
Depth = Annotated[int, Field(gt=0, le=256)]  # layers, blocks, groups of them
Scale = Annotated[int, Field(gt=0, le=16)]  # HR pixels along the side of an LR pixel


class NetworkSettings(Strict):
    """The settings of a network: a sub-class adds ``name``, a ``Literal``, its ``module`` and that one's arguments.

    The module is called with ``in_channels``, ``out_channels``, ``scale`` and the settings, and maps (B, in_channels,
    H, W) to (B, out_channels, scale H, scale W). It has an attribute ``scale``, the upscaling factor, and an attribute
    ``upsampling``: the names of its modules that do the upscaling and all that comes after it, in their order (the rest
    extracts features); the last of them ends in the last layer with weights.
    """

    module: ClassVar[type[nn.Module]]

    def build(self, out_channels: int, scale: int, in_channels: int = 1) -> nn.Module:
        """Return the network with fresh weights."""
        return self.module(in_channels, out_channels, scale=scale, **self.model_dump(exclude={"name"}))


class Residual(nn.Module):
    """What residual networks are built of: a block that adds to its input.

    Args:
        layers: of its body, one after the other, (B, C, H, W) -> (B, C, H, W).
        scaling: what their output is multiplied by.
    """

    def __init__(self, *layers: nn.Module, scaling: float = 1.0) -> None:
        super().__init__()
        self.body, self.scaling = nn.Sequential(*layers), scaling

    def forward(self, x: Tensor) -> Tensor:
        """Return x + scaling * body(x), (B, C, H, W)."""
        return x + self.scaling * self.body(x)


class LongSkip(nn.Module):
    """The form that residual networks share: features of ``head``, more of ``body`` added to them, ``upsample, tail``.

    Args:
        scale: the upscaling factor.
        head: (B, in_channels, H, W) -> (B, C, H, W).
        body: (B, C, H, W) -> (B, C, H, W).
        upsample: (B, C, H, W) -> (B, C, scale H, scale W).
        tail: (B, C, scale H, scale W) -> (B, out_channels, scale H, scale W).
    """

    upsampling = ("upsample", "tail")

    def __init__(self, scale: int, *, head: nn.Module, body: nn.Module, upsample: nn.Module, tail: nn.Module) -> None:
        super().__init__()
        self.scale = scale
        self.head, self.body, self.upsample, self.tail = head, body, upsample, tail

    def forward(self, image: Tensor) -> Tensor:
        """Return maps (B, out_channels, scale H, scale W) of images (B, in_channels, H, W)."""
        x = self.head(image)
        return self.tail(self.upsample(x + self.body(x)))


def last_layer(network: nn.Module) -> nn.Module:
    """Return a network's last layer that has weights, of whatever kind; an activation's slopes are none."""
    end = network.get_submodule(network.upsampling[-1])  # type: ignore[index, arg-type]
    weighted = [m for m in end.modules() if isinstance(getattr(m, "weight", None), nn.Parameter)]
    return [m for m in weighted if not isinstance(m, nn.PReLU)][-1]
