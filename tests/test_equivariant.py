"""Group convolutions: the symmetry, layer by layer and from image to image."""

from __future__ import annotations

import pytest
import torch
from lenses import one_thread  # noqa: F401
from torch import Tensor, nn

from lensphys.networks import network_settings
from lensphys.networks.group_convolution import (
    ORDER,
    GroupConv,
    LiftingConv,
    UpscalingProjection,
    quotient,
    transformed,
)

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
SIZES = [(16, 16), (15, 15), (14, 19), (17, 12)]
every_group = pytest.mark.parametrize("group", ["c4", "d4"])


def acted(maps: Tensor, g: int) -> Tensor:
    """(g f)(x, h) = f(g^-1 x, g^-1 h) for fields (B, C, G, H, W)."""
    places = [quotient(g, h) for h in range(maps.shape[2])]
    return transformed(maps[:, :, places], g)


def randomised(module: nn.Module) -> nn.Module:
    """A network in mid-training: biases and slopes are no longer those of the start."""
    generator = torch.Generator().manual_seed(3)
    for p in module.parameters():
        p.data += 0.2 * torch.randn(p.shape, generator=generator)
    return module


def built(name: str, group: str, scale: int = 2, outputs: int = 1) -> nn.Module:
    torch.manual_seed(0)
    settings = network_settings(name)(channels=4, shrunk=3, layers=2, group=group)
    return randomised(settings.build(outputs, scale))


def test_the_quotient_is_that_of_the_transformations():
    x = torch.arange(6).reshape(2, 3)
    for g in range(8):
        for h in range(8):
            assert transformed(transformed(x, quotient(g, h)), g).equal(transformed(x, h))
    assert len({str(transformed(x, g).tolist()) for g in range(8)}) == 8


@every_group
@pytest.mark.parametrize("size", SIZES)
def test_every_layer_is_equivariant(group, size):
    torch.manual_seed(0)
    lift, conv = LiftingConv(2, 3, 5, group).double(), GroupConv(3, 4, 3, group).double()
    image, maps = torch.randn(2, 2, *size).double(), torch.randn(2, 3, ORDER[group], *size).double()
    for g in range(ORDER[group]):
        torch.testing.assert_close(lift(transformed(image, g)), acted(lift(image), g), rtol=0, atol=1e-12)
        torch.testing.assert_close(conv(acted(maps, g)), acted(conv(maps), g), rtol=0, atol=1e-12)
        for scale in (1, 2, 3, 4):
            project = UpscalingProjection(3, 2, 9, scale, group).double()
            assert project(maps).shape == (2, 2, scale * size[0], scale * size[1])
            torch.testing.assert_close(project(acted(maps, g)), transformed(project(maps), g), rtol=0, atol=1e-12)


@every_group
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scale", [1, 2, 3])
def test_the_network_is_equivariant(group, dtype, size, scale):
    network = built("equivariant", group, scale).to(dtype)
    image = torch.rand(2, 1, *size, dtype=dtype)
    found = network(image)
    found_std = float(found.detach().std())
    assert found_std > 1e-2
    for g in range(ORDER[group]):
        torch.testing.assert_close(
            network(transformed(image, g)) / found_std,
            transformed(found, g) / found_std,
            rtol=0,
            atol=TOLERANCE[dtype],
        )


def test_turns_alone_tell_an_image_from_its_mirror_image():
    network, image = built("equivariant", "c4"), torch.rand(2, 1, 14, 19)
    assert float((network(image.flip(-1)) - network(image).flip(-1)).detach().abs().max()) > 1e-2


@every_group
def test_the_features_of_the_hybrid_are_equivariant_and_its_upscaling_is_not(group):
    network, image = built("hybrid", group).double(), torch.rand(2, 1, 14, 19).double()
    for g in range(ORDER[group]):
        turned = network.features(transformed(image, g))
        torch.testing.assert_close(turned, acted(network.features(image), g), rtol=0, atol=1e-10)
    assert float((network(transformed(image, 1)) - transformed(network(image), 1)).detach().abs().max()) > 1e-2


@every_group
def test_the_maps_keep_their_size_at_the_start(group):
    torch.manual_seed(0)
    settings = network_settings("equivariant")(group=group)
    maps = settings.build(1, 2).features(torch.rand(4, 1, 24, 28))
    assert 0.1 < float(maps.detach().square().mean().sqrt()) < 2
