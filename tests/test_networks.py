"""Networks: one contract for all of them, and the deflection heads."""

from __future__ import annotations

import pytest
import torch
from lenses import finite, one_thread  # noqa: F401
from pydantic import TypeAdapter, ValidationError
from torch import nn

from lensphys.checks import LensphysError
from lensphys.grid import PixelGrid
from lensphys.networks import NETWORKS, DeflectionNetwork, NetworkSettings, PolarHeadSettings
from lensphys.networks.srresnet import prime_factors

SMALL = {"channels": 4}
DEFAULT_SIZE = {"residual": 899_974, "srresnet": 1_532_054, "pyramid": 493_522}  # two output maps at scale 2


def network(name: str, outputs: int = 2, scale: int = 2, **settings: int) -> nn.Module:
    torch.manual_seed(0)
    return NETWORKS[name](name=name, **(settings or SMALL)).build(outputs, scale)


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_output_is_finer_by_the_scale(name, scale):
    for size in ((16, 20), (21, 17)):
        found = network(name, 2, scale)(torch.randn(2, 1, *size))
        assert found.shape == (2, 2, scale * size[0], scale * size[1])
        assert finite(found)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_number_of_outputs_is_free(name):
    assert network(name, 1)(torch.randn(2, 1, 16, 20)).shape == (2, 1, 32, 40)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_default_size(name):
    assert parameters(NETWORKS[name](name=name).build(2, 2)) == DEFAULT_SIZE[name]  # S1: 0.9 million


@pytest.mark.parametrize("name", NETWORKS)
def test_the_gradient_reaches_every_parameter(name):
    module = network(name)
    module(torch.randn(3, 1, 16, 20)).square().mean().backward()
    for key, p in module.named_parameters():
        assert p.grad is not None, key
        assert finite(p.grad), key
        # a bias in front of a batch normalisation moves nothing, up to rounding
        if not key.endswith("bias"):
            assert float(p.grad.abs().max()) > 0, key


@pytest.mark.parametrize("name", NETWORKS)
def test_in_evaluation_an_image_does_not_depend_on_its_batch(name):
    module, image = network(name).eval(), torch.randn(3, 1, 16, 20)
    found = module(image)
    torch.testing.assert_close(module(image), found, rtol=0, atol=0)
    torch.testing.assert_close(module(image[1:2]), found[1:2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_config_names_a_network(name):
    settings = TypeAdapter(NetworkSettings).validate_python({"name": name, "channels": 6})
    assert type(settings) is NETWORKS[name]
    with pytest.raises(ValidationError, match="greater than 0"):
        TypeAdapter(NetworkSettings).validate_python({"name": name, "channels": 0})
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        TypeAdapter(NetworkSettings).validate_python({"name": name, "width": 6})


def test_prime_factors():
    assert [prime_factors(n) for n in (1, 2, 7, 12, 49)] == [[], [2], [7], [2, 2, 3], [7, 7]]


# ---------------------------------------------------------------- the deflection heads

GRID = PixelGrid(16, 20, 0.1)
HEAD = PolarHeadSettings(radial_low=0.4, radial_high=1.5, tangential_limit=0.05)


def deflection(name: str = "residual", **head: float) -> DeflectionNetwork:
    return DeflectionNetwork(network(name), PolarHeadSettings(**HEAD.model_dump() | head))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_deflection_stands_on_the_finer_grid(name):
    field = deflection(name)(torch.rand(2, 1, 16, 20), GRID)
    assert field.grid == PixelGrid(32, 40, 0.05)
    assert field.alpha.shape == (2, 2, 32, 40)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("factor", [0.0, 1.0, 1e3, 1e6])
def test_no_image_drives_the_deflection_out_of_its_bounds(name, factor):
    with torch.no_grad():
        module = deflection(name, gain=1e3)
        field = module(factor * torch.randn(2, 1, 16, 20), GRID)
    assert finite(field.alpha)
    assert float(field.radial.min()) > 0.4 - 1e-5
    assert float(field.radial.max()) < 1.5 + 1e-5
    assert float(field.tangential.abs().max()) < 0.05 + 1e-5
    if factor:
        assert float(field.radial.max() - field.radial.min()) > 0.1  # and it does move between them


def test_the_published_bounds_are_the_default():
    head = PolarHeadSettings()
    assert (head.radial_low, head.radial_high, head.tangential_limit) == (0.5, 1.6, 0.0025 * 1.1 / 2)


@pytest.mark.parametrize("name", NETWORKS)
def test_without_gain_every_image_has_the_same_field(name):
    field = deflection(name, gain=0.0)(torch.randn(3, 1, 16, 20), GRID)
    torch.testing.assert_close(field.alpha[0], field.alpha[1], rtol=0, atol=1e-6)
    torch.testing.assert_close(field.alpha[0], field.alpha[2], rtol=0, atol=1e-6)
    # ... and that of a lens: one radial value everywhere
    assert float(field.radial.detach().std()) < 1e-5
    other = deflection(name)(torch.randn(3, 1, 16, 20), GRID)
    assert float((other.alpha[0] - other.alpha[1]).detach().abs().max()) > 1e-3


@pytest.mark.parametrize("name", NETWORKS)
def test_the_first_step_from_no_gain_moves_the_field(name):
    module = deflection(name, gain=0.0)
    module(torch.randn(3, 1, 16, 20), GRID).radial.square().mean().backward()
    assert max(float(p.grad.abs().max()) for p in module.parameters() if p.grad is not None) > 0


def test_the_bounds_must_be_ordered():
    with pytest.raises(LensphysError, match=r"radial_low 2\.0 must be below radial_high 1\.5"):
        PolarHeadSettings.parse({"radial_low": 2.0, "radial_high": 1.5}, "head")
    with pytest.raises(LensphysError, match=r"'tangential_limit'.* greater than 0, got 0"):
        PolarHeadSettings.parse({"tangential_limit": 0.0}, "head")


def test_the_image_must_be_a_batch_of_images():
    with pytest.raises(LensphysError, match=r"image must have the shape \(B, 1, H, W\), got \(1, 16, 20\)"):
        deflection()(torch.zeros(1, 16, 20), GRID)
