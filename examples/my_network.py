"""A network of your own: one file with an ``nn.Module`` and its settings, named ``module:Class`` in a config.

Run as it is, it fits eight smooth images. In an experiment, name it where a network is asked for, with its folder on
PYTHONPATH:

    method: {name: supervised, network: {name: "my_network:MyNetworkSettings", channels: 24}}

    PYTHONPATH=examples lensphys train my_experiment.yaml -o runs/mine --trust my_network:MyNetworkSettings

To make it one of lensphys' own, put the file into lensphys/networks and its line into `NETWORKS`.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from lensphys.networks import NetworkSettings, network_settings
from lensphys.networks.upsampling import shuffle_stages


class MyNetwork(nn.Module):
    """A bicubic image of the first channel, and what dilated convolutions add to it."""

    upsampling = ("upsample", "tail")

    def __init__(self, in_channels: int, out_channels: int, *, channels: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.features = nn.Sequential()
        for before, dilation in ((in_channels, 1), (channels, 2), (channels, 4)):
            self.features.extend([nn.Conv2d(before, channels, 3, padding=dilation, dilation=dilation), nn.GELU()])
        self.upsample = shuffle_stages(channels, scale)
        self.tail = nn.Conv2d(channels, out_channels, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        smooth = F.interpolate(image[:, :1], scale_factor=self.scale, mode="bicubic")
        return smooth + self.tail(self.upsample(self.features(image)))


class MyNetworkSettings(NetworkSettings):
    """Bicubic and dilated convolutions."""

    module = MyNetwork
    name: Literal["my_network:MyNetworkSettings"] = "my_network:MyNetworkSettings"
    channels: PositiveInt = 16


def main() -> None:
    torch.manual_seed(0)
    network = network_settings("my_network:MyNetworkSettings")().build(out_channels=1, scale=2)
    truth = F.interpolate(torch.rand(8, 1, 8, 8), size=48, mode="bicubic")
    image = F.avg_pool2d(truth, 2)  # a coarse pixel holds the sum of its fine ones; here in units of their mean
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    for step in range(301):
        loss = (network(image) - truth).square().mean()
        if step % 100 == 0:
            print(f"step {step:3d}: {-10 * loss.log10().item():.1f} dB")
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


if __name__ == "__main__":
    main()
