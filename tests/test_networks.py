"""Networks: one contract for all of them, and the deflection heads."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch
from lenses import SMALL, finite, one_thread  # noqa: F401
from pydantic import TypeAdapter
from torch import Tensor, nn

from lensphys.basics.checks import LensphysError
from lensphys.basics.settings import Strict
from lensphys.basics.trust import trusting
from lensphys.networks import NETWORKS, DeflectionNetwork, Network, PolarHeadSettings, network_settings
from lensphys.networks.base import last_layer
from lensphys.networks.upsampling import prime_factors
from lensphys.tracing.grid import PixelGrid

every_network = pytest.mark.parametrize("name", NETWORKS)


def network(name: str, outputs: int = 2, scale: int = 2, inputs: int = 1, **settings: object) -> nn.Module:
    torch.manual_seed(0)
    return network_settings(name)(**(settings or SMALL[name])).build(outputs, scale, inputs)


def parameters(name: str, outputs: int, scale: int, inputs: int, **settings: object) -> int:
    with torch.device("meta"):  # 43 million weights cost nothing there
        module = network_settings(name)(**settings).build(outputs, scale, inputs)
    return sum(p.numel() for p in module.parameters())


@every_network
@pytest.mark.parametrize(("scale", "inputs"), [(1, 1), (2, 1), (2, 3), (3, 1), (4, 1), (6, 1)])
def test_the_output_is_finer_by_the_scale(name, scale, inputs):
    module = network(name, 2, scale, inputs)
    assert module.scale == scale
    for size in ((16, 20), (21, 17)):
        found = module(torch.randn(2, inputs, *size))
        assert found.shape == (2, 2, scale * size[0], scale * size[1])
        assert finite(found)


@every_network
def test_the_number_of_outputs_is_free(name):
    assert network(name, 1)(torch.randn(2, 1, 16, 20)).shape == (2, 1, 32, 40)


ONE_CHANNEL = {  # parameters at x2
    "edsr": 1_367_553,
    "equivariant": 10_201,
    "fsrcnn": 12_809,
    "hybrid": 16_473,
    "pyramid": 493_377,
    "rcan": 15_442_337,
    "rcan_compact": 2_306_413,
    "rdn": 22_121_089,
    "residual": 899_395,
    "rrdbnet": 16_658_753,
    "srresnet": 1_526_869,
}


@every_network
def test_the_default_size(name):
    assert parameters(name, 1, 2, 1) == ONE_CHANNEL[name]


def test_the_sizes_that_papers_give():
    assert round(parameters("residual", 2, 2, 1) / 1e6, 1) == 0.9  # S1
    assert round(parameters("rcan_compact", 1, 2, 1) / 1e6, 1) == 2.3  # S1
    assert round(parameters("edsr", 3, 4, 3) / 1e6, 1) == 1.5  # Lim et al., table 1
    assert round(parameters("edsr", 3, 4, 3, channels=256, blocks=32, residual_scaling=0.1) / 1e6) == 43  # the same
    assert round(parameters("rcan", 3, 4, 3) / 1e6) == 16  # Zhang et al.
    with torch.device("meta"):
        fsrcnn = network_settings("fsrcnn")().build(1, 3)
    assert sum(p.numel() for p in fsrcnn.parameters() if p.ndim == 4) == 12_464  # Dong et al., table 1: without biases


@every_network
def test_the_upscaling_and_all_that_comes_after_it_have_names(name):
    module = network(name)
    children = [key for key, _ in module.named_children()]
    assert module.upsampling
    assert children[-len(module.upsampling) :] == list(module.upsampling)
    assert len(children) > len(module.upsampling)  # something extracts the features


@every_network
def test_what_is_frozen_before_the_upsampling_works_on_the_coarse_grid(name):
    found = {}
    module = network(name, scale=3)
    for key, child in module.named_children():
        if key not in module.upsampling:
            for part in child if isinstance(child, nn.ModuleList) else [child]:
                part.register_forward_hook(lambda _module, _input, output, key=key: found.update({key: output.shape}))
    module(torch.randn(2, 1, 15, 18))
    assert found
    assert all(shape[-1] <= 18 for shape in found.values())


@every_network
def test_the_gradient_reaches_every_parameter(name):
    module = network(name)
    module(torch.randn(3, 1, 16, 20)).square().mean().backward()
    for key, p in module.named_parameters():
        assert p.grad is not None, key
        assert finite(p.grad), key
        # a bias in front of a batch normalisation moves nothing, up to rounding
        if not key.endswith("bias"):
            assert float(p.grad.abs().max()) > 0, key


@every_network
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_constant_image_is_harmless(name, value):
    module = network(name)
    found = module(torch.full((2, 1, 16, 20), value))
    found.square().mean().backward()
    assert finite(found)
    assert all(finite(p.grad) for p in module.parameters())


@every_network
def test_in_evaluation_an_image_does_not_depend_on_its_batch(name):
    module, image = network(name).eval(), torch.randn(3, 1, 16, 20)
    found = module(image)
    torch.testing.assert_close(module(image), found, rtol=0, atol=0)
    torch.testing.assert_close(module(image[1:2]), found[1:2], rtol=1e-4, atol=1e-5)


@every_network
def test_the_memory_format_changes_nothing(name):
    module, image = network(name).eval(), torch.randn(2, 1, 16, 20)
    found = module(image)
    module, image = module.to(memory_format=torch.channels_last), image.to(memory_format=torch.channels_last)
    torch.testing.assert_close(module(image), found, rtol=1e-4, atol=1e-5)


# A pyramid is told where a pixel stands, because the deflection is about the lens.
@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "pyramid"])
@pytest.mark.parametrize("scale", [2, 3])
def test_a_moved_source_moves_in_the_answer(name, scale):
    module = network(name, 1, scale).double().eval()
    image = torch.zeros(1, 1, 46, 50, dtype=torch.float64)
    image[..., 21:25, 22:26] = torch.rand(4, 4, dtype=torch.float64)
    found, moved = module(image), module(image.roll((3, -2), (-2, -1)))
    inner = (..., slice(15 * scale, -15 * scale), slice(15 * scale, -15 * scale))  # what the edge does not reach
    torch.testing.assert_close(moved.roll((-3 * scale, 2 * scale), (-2, -1))[inner], found[inner])
    assert float(found[inner].detach().std()) > 1e-4


@every_network
def test_a_config_names_a_network(name):
    adapter = TypeAdapter(Network)
    settings = adapter.validate_python({"name": name, "channels": 6})
    assert type(settings) is network_settings(name)
    assert adapter.validate_python(adapter.dump_python(settings)) == settings
    with pytest.raises(ValueError, match="greater than 0"):
        adapter.validate_python({"name": name, "channels": 0})
    with pytest.raises(ValueError, match="Extra inputs are not permitted"):
        adapter.validate_python({"name": name, "width": 6})


class Holder(Strict):
    network: Network


def test_a_network_that_is_not_there():
    with pytest.raises(
        LensphysError, match="unknown network 'vgg', choose one of edsr, .* or your own as module:Class"
    ):
        Holder.parse({"network": {"name": "vgg"}}, "config")
    cannot = "the network 'nowhere:Net' cannot be imported .* on PYTHONPATH?"
    with trusting(["nowhere:Net"]), pytest.raises(LensphysError, match=cannot):
        Holder.parse({"network": {"name": "nowhere:Net"}}, "config")
    with pytest.raises(LensphysError, match="'lensphys.tracing.grid:PixelGrid' is no network: it must be a sub-class"):
        Holder.parse({"network": {"name": "lensphys.tracing.grid:PixelGrid"}}, "config")
    with pytest.raises(LensphysError, match="a network needs a 'name', one of edsr"):
        Holder.parse({"network": {"channels": 3}}, "config")


def test_a_network_of_the_users_own(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "examples"))
    name = "my_network:MyNetworkSettings"
    tree = {"network": {"name": name, "channels": 4}}
    with pytest.raises(
        LensphysError, match=r"is code that would be imported from .*/examples/my_network.py and run: read"
    ):
        Holder.parse(tree, "config")
    assert "my_network" not in sys.modules
    with trusting([name]):
        settings = Holder.parse(tree, "config").network
        assert Holder.parse(Holder(network=settings).model_dump(), "config").network == settings
    module = settings.build(1, 3)
    assert module(torch.rand(2, 1, 16, 20)).shape == (2, 1, 48, 60)
    assert module.scale == 3
    assert last_layer(module) is module.tail


def test_prime_factors():
    assert [prime_factors(n) for n in (1, 2, 7, 12, 49)] == [[], [2], [7], [2, 2, 3], [7, 7]]


# ---------------------------------------------------------------- the deflection heads

GRID = PixelGrid(16, 20, 0.1)
HEAD = PolarHeadSettings(radial_low=0.4, radial_high=1.5, tangential_limit=0.05)


def deflection(name: str = "residual", **head: float) -> DeflectionNetwork:
    return DeflectionNetwork(network(name), PolarHeadSettings(**HEAD.model_dump() | head))


@every_network
def test_the_deflection_stands_on_the_finer_grid(name):
    field = deflection(name)(torch.rand(2, 1, 16, 20), GRID)
    assert field.grid == PixelGrid(32, 40, 0.05)
    assert field.alpha.shape == (2, 2, 32, 40)


@every_network
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


@every_network
def test_without_gain_every_image_has_the_same_field(name):
    field = deflection(name, gain=0.0)(torch.randn(3, 1, 16, 20), GRID)
    torch.testing.assert_close(field.alpha[0], field.alpha[1], rtol=0, atol=1e-6)
    torch.testing.assert_close(field.alpha[0], field.alpha[2], rtol=0, atol=1e-6)
    # ... and that of a lens: one radial value everywhere
    assert float(field.radial.detach().std()) < 1e-5
    other = deflection(name)(torch.randn(3, 1, 16, 20), GRID)
    assert float((other.alpha[0] - other.alpha[1]).detach().abs().max()) > 1e-3


@every_network
def test_the_gain_scales_the_answer_linearly(name):
    image = torch.randn(2, 1, 16, 20)
    once, twice = network(name).double(), network(name).double()
    last_layer(twice).weight.data.mul_(2)
    zero = network(name).double()
    last_layer(zero).weight.data.zero_()
    bias = zero(image.double())
    torch.testing.assert_close(twice(image.double()) - bias, 2 * (once(image.double()) - bias))


@every_network
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


# ---------------------------------------------------------------- training

STEPS = 1000
# What trains in a minute: settings, the rate of Adam, and the PSNR in dB to be reached on the eight pairs.
TRAINED: dict[str, tuple[dict[str, int], float, float]] = {
    "edsr": ({"channels": 16, "blocks": 2}, 3e-3, 50),
    "equivariant": ({}, 3e-3, 40),  # shares its weights among four orientations: 45 dB after as many steps
    "fsrcnn": ({}, 3e-3, 50),
    "hybrid": ({}, 3e-3, 50),
    "pyramid": ({"channels": 8, "levels": 3}, 3e-3, 40),  # made for smooth deflections: ends in a bicubic interpolation
    "rcan": ({"channels": 16, "groups": 1, "blocks": 2, "reduction": 4}, 3e-3, 50),
    "rcan_compact": ({"channels": 16, "groups": 2, "blocks": 1, "reduction": 4}, 3e-3, 50),
    "rdn": ({"channels": 16, "growth": 8, "blocks": 2, "layers": 3}, 3e-3, 50),
    "residual": ({"channels": 24, "blocks": 1}, 1e-2, 50),  # its last batch normalisation starts far from the images
    "rrdbnet": ({"channels": 16, "growth": 8, "blocks": 1}, 3e-3, 50),
    "srresnet": ({"channels": 16, "blocks": 2}, 1e-3, 40),  # its batch normalisations cost it precision: 43 dB
}


def blobs() -> Tensor:
    """Eight smooth images (8, 1, 48, 48) in units of their peak."""
    generator = torch.Generator().manual_seed(5)
    x = torch.arange(48) - 23.5
    centre, width = (
        24 * (torch.rand(2, 8, 4, 1, generator=generator) - 0.5),
        3 + 3 * torch.rand(8, 4, 1, generator=generator),
    )
    of_x, of_y = (torch.exp(-0.5 * ((x - c) / width) ** 2) for c in centre)
    image = torch.einsum("nkx,nky->nyx", of_x, of_y)[:, None]
    return image / image.amax((-2, -1), keepdim=True)


@pytest.mark.slow
@every_network
def test_training_overfits_eight_pairs(name):
    torch.manual_seed(0)
    settings, rate, expected = TRAINED[name]
    module = network_settings(name)(**settings).build(1, 2)
    truth = blobs()
    image = nn.functional.avg_pool2d(truth, 2)
    optimiser = torch.optim.Adam(module.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS, eta_min=rate / 100)
    for _ in range(STEPS):
        optimiser.zero_grad()
        (module(image) - truth).square().mean().backward()
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        psnr = -10 * math.log10(float((module.eval()(image) - truth).square().mean()))
    print(f"{name}: {psnr:.1f} dB")
    assert psnr > expected
