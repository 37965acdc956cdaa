"""FSRCNN."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from lensphys.networks.base import Depth, NetworkSettings, Width


def fine_kernel(scale: int) -> int:
    """Return the width of the upscaling kernel, in fine pixels: the paper's 9, or two coarse pixels where that is more.

    Example:
        >>> [fine_kernel(scale) for scale in (2, 4, 6)]
        [9, 9, 13]
    """
    return max(9, 2 * scale + 1)


def upscaling_deconvolution(in_channels: int, out_channels: int, scale: int) -> nn.ConvTranspose2d:
    """Return the transposed convolution that ends FSRCNN, (B, in, H, W) -> (B, out, scale H, scale W).

    Its weights start so small (0.001) that the first image is nearly black, as in the paper.
    """
    kernel = fine_kernel(scale)
    odd = (kernel - scale) % 2  # then no kernel of this width stands in the middle of a coarse pixel
    padding = (kernel - scale + odd) // 2
    last = nn.ConvTranspose2d(in_channels, out_channels, kernel, stride=scale, padding=padding, output_padding=odd)
    nn.init.normal_(last.weight, std=1e-3)
    nn.init.zeros_(last.bias)  # type: ignore[arg-type]
    return last


class FSRCNN(nn.Module):
    """conv5, shrinking conv1, mapping conv3s, expanding conv1, each with PReLU; a transposed convolution.

    With the paper's FSRCNN(56, 12, 4), 12 809 parameters for one channel at x2 to x4: its 12 464 weights, and 345
    biases and slopes that it does not count.

    Args:
        in_channels: of the image.
        out_channels: of the output.
        channels: width of the features (d = 56).
        shrunk: width of the mapping layers (s = 12).
        layers: mapping layers (m = 4).
        scale: any whole upscaling factor.

    Source: Dong, Loy & Tang 2016, arXiv:1608.00367, eq. 4 and table 1.
    """

    upsampling = ("upsample",)

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        *,
        channels: int = 56,
        shrunk: int = 12,
        layers: int = 4,
        scale: int = 2,
    ) -> None:
        super().__init__()
        self.scale = scale
        widths = [(in_channels, channels, 5), (channels, shrunk, 1), *[(shrunk, shrunk, 3)] * layers]
        widths.append((shrunk, channels, 1))
        self.features = nn.Sequential()
        for before, after, kernel in widths:
            conv = nn.Conv2d(before, after, kernel, padding=kernel // 2)
            nn.init.kaiming_normal_(conv.weight, a=0.25)  # PReLU starts with this slope
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
            self.features.extend([conv, nn.PReLU(after)])
        self.upsample = upscaling_deconvolution(channels, out_channels, scale)

    def forward(self, image: Tensor) -> Tensor:
        """Return maps (B, out_channels, scale H, scale W) of images (B, in_channels, H, W)."""
        return self.upsample(self.features(image))


class FSRCNNSettings(NetworkSettings):
    """FSRCNN(56, 12, 4): all work on the coarse grid, one transposed convolution at the end; 13 thousand parameters."""

    module = FSRCNN
    name: Literal["fsrcnn"] = "fsrcnn"
    channels: Width = 56
    shrunk: Width = 12
    layers: Depth = 4
