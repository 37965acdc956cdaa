"""Networks that read images and answer with a few numbers, beside the substructure classifier."""

from __future__ import annotations

from torch import Tensor, nn

from lensphys.networks.classifier import SubstructureClassifier
from lensphys.networks.group_convolution import ORDER, Group, GroupConv, LiftingConv


class ResNet18(SubstructureClassifier):
    """ResNet-18: conv7 of stride 2 - BN - ReLU - maximum, four levels of two residual blocks, mean, linear.

    Args:
        classes: outputs.
        in_channels: of the images.
        channels: width of the first level (64).

    Source: He et al. 2016, arXiv:1512.03385, table 1.
    """

    def __init__(self, *, classes: int = 3, in_channels: int = 1, channels: int = 64) -> None:
        first = nn.Sequential(
            nn.Conv2d(in_channels, channels, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        super().__init__(channels=channels, levels=4, classes=classes, first=first, normalised=True)


class EquivariantClassifier(nn.Module):
    """Group convolutions whose answer does not change when the image is turned, or reflected for D4.

    Lifting conv5, then levels of group conv3 - BN - ReLU with a mean of 2 x 2 between them; the mean over places and
    group elements, linear. Exact for images whose sides are divided by 2 without rest at each level.

    Args:
        classes: outputs.
        in_channels: of the images, scalars on the sky.
        channels: fields of the first level; they double at each halving.
        levels: the image is halved between them.
        group: ``c4`` or ``d4``.

    Source: Cohen & Welling 2016, arXiv:1602.07576.
    """

    def __init__(
        self, *, classes: int = 3, in_channels: int = 1, channels: int = 8, levels: int = 3, group: Group = "d4"
    ) -> None:
        super().__init__()
        widths = [channels * 2**level for level in range(levels)]
        self.lift = LiftingConv(in_channels, channels, 5, group)
        self.norms = nn.ModuleList(nn.BatchNorm3d(width) for width in widths)
        befores = [channels, *widths[:-1]]
        self.convolutions = nn.ModuleList(GroupConv(a, b, 3, group) for a, b in zip(befores, widths, strict=True))
        self.halve = nn.AvgPool3d((1, 2, 2))
        self.head = nn.Linear(widths[-1], classes)
        self.order = ORDER[group]

    def forward(self, images: Tensor) -> Tensor:
        """Return the answers (B, classes) of images (B, in_channels, H, W)."""
        maps = self.lift(images).relu()
        for level, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            maps = norm(convolution(self.halve(maps) if level else maps)).relu()
        return self.head(maps.mean((-3, -2, -1)))
