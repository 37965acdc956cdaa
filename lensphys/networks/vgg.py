"""VGG19 with its ImageNet weights, whose maps S3's perceptual loss compares."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor, nn

from lensphys.basics.checks import LensphysError, check_file

_WIDTHS = ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4)
_MEAN, _SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, red, green and blue


class VGG19(nn.Module):
    """The convolutions of VGG19, named as torchvision names them.

    Source: Simonyan & Zisserman 2015, arXiv:1409.1556, column E.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for stage in _WIDTHS:
            for width in stage:
                layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
                before = width
            layers += [nn.MaxPool2d(2)]
        self.layers = nn.Sequential(*layers)

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the maps of the 16 convolutions before their activation, from 1_1 to 5_4.

        Args:
            images: grey, (B, 1, H, W) in units of the LR image's brightest pixel; 16 pixels a side at least.
        """
        mean, spread = (images.new_tensor(x)[:, None, None] for x in (_MEAN, _SPREAD))
        x, maps = (images - mean) / spread, []
        for layer in list(self.layers)[:-2]:  # nothing is asked for after 5_4
            x = layer(x)
            if isinstance(layer, nn.Conv2d):
                maps.append(x)
        return maps


def vgg19_imagenet(weights: Path | None = None) -> VGG19:
    """Return VGG19 with its ImageNet weights.

    Args:
        weights: torchvision's file of them (``vgg19-*.pth``); torchvision downloads it if None.

    Raises:
        LensphysError: if torchvision is needed and does not load, the download fails, or the file does not fit.
    """
    state = _downloaded() if weights is None else _read(weights)
    network = VGG19()
    found = {k.replace("features.", "layers.", 1): x for k, x in state.items() if k.startswith("features.")}
    try:
        network.load_state_dict(found)
    except RuntimeError as error:
        raise LensphysError(f"{weights} does not hold the weights of VGG19: {' '.join(str(error).split())}") from None
    return network


def _read(path: Path) -> dict[str, Tensor]:
    check_file("VGG19 weights", path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, UnpicklingError, EOFError) as error:
        raise LensphysError(f"{path} is not a file of weights ({error}): give torchvision's vgg19-*.pth") from None


def _downloaded() -> dict[str, Tensor]:
    try:
        from torchvision.models import VGG19_Weights
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that was built for another torch
        raise LensphysError(
            f"the weights of VGG19 come with torchvision, which does not load ({error}): pip install 'lensphys[vgg]', "
            "or give their file (weights: vgg19-dcbb9e9d.pth)"
        ) from None
    try:
        return VGG19_Weights.IMAGENET1K_V1.get_state_dict(progress=False)
    except OSError as error:
        raise LensphysError(
            f"the weights of VGG19 cannot be downloaded ({error}): give their file (weights: vgg19-dcbb9e9d.pth)"
        ) from None
