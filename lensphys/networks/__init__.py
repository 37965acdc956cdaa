"""Networks, one architecture a file; all map (B, 1, H, W) to (B, C, scale H, scale W)."""

from typing import Annotated

from pydantic import Field

from lensphys.networks.deflection import DeflectionNetwork, PolarHeadSettings
from lensphys.networks.pyramid import PyramidCNN, PyramidSettings
from lensphys.networks.residual import ResidualCNN, ResidualSettings
from lensphys.networks.srresnet import SRResNet, SRResNetSettings

NETWORKS = {"pyramid": PyramidSettings, "residual": ResidualSettings, "srresnet": SRResNetSettings}
NetworkSettings = Annotated[PyramidSettings | ResidualSettings | SRResNetSettings, Field(discriminator="name")]

__all__ = [
    "NETWORKS",
    "DeflectionNetwork",
    "NetworkSettings",
    "PolarHeadSettings",
    "PyramidCNN",
    "PyramidSettings",
    "ResidualCNN",
    "ResidualSettings",
    "SRResNet",
    "SRResNetSettings",
]
