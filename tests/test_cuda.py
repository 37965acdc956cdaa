"""Everything that computes, on a GPU beside the CPU: the same numbers, but for rounding.

LENSPHYS_TEST_DEVICE=cpu runs the same tests on a CPU against itself, to know that they work.
"""

from __future__ import annotations

import os

import pytest
import torch
from lenses import SMALL, lit_lens, one_thread, small_lenses  # noqa: F401
from test_profiles import PROFILES, tensors, theta

from lensphys.fitting import FreeSourceSettings, LensProblem, freed
from lensphys.fitting.smooth import smooth_fit
from lensphys.methods import READY
from lensphys.methods.supervised import SupervisedSettings
from lensphys.methods.trainable import Batch
from lensphys.networks import NETWORKS, network_settings
from lensphys.simulation import Recipe, recipe_names
from lensphys.simulation.detector import conditions_of
from lensphys.simulation.plan import Plan
from lensphys.tracing.deflection import DeflectionField
from lensphys.tracing.rays import trace
from lensphys.training.experiment import load_run
from lensphys.weights import weights_folder

DEVICE = os.environ.get("LENSPHYS_TEST_DEVICE", "cuda")
pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="there is no GPU"),
]


def close(found: torch.Tensor, known: torch.Tensor, tolerance: float) -> bool:
    """Whether no value is off by more than a share of the largest."""
    return bool((found.cpu() - known.cpu()).abs().max() <= tolerance * known.abs().max())


@pytest.mark.parametrize("name", PROFILES)
def test_components_and_their_derivatives(name):
    kind, values = PROFILES[name][0], tensors(name)
    single = {key: value.detach().float() for key, value in values.items()}
    with torch.no_grad():
        known = kind(**{key: value.detach() for key, value in values.items()})
        there = kind(**{key: value.to(DEVICE) for key, value in single.items()})
        at = theta(dtype=torch.float32).to(DEVICE)
        assert close(there(at).double(), known(theta()), 1e-5)
        for found, expected in zip(
            there.derivatives(at, tuple(single)), known.derivatives(theta(), tuple(single)), strict=True
        ):
            assert close(found.double(), expected, 1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name):
    torch.manual_seed(0)
    network, image = network_settings(name)(**SMALL[name]).build(2, 2, 1), torch.randn(2, 1, 16, 20)
    with torch.no_grad():
        known = network.double()(image.double())
        assert close(network.float().to(DEVICE)(image.to(DEVICE)).double(), known, 1e-4)


@pytest.mark.parametrize(("recipe", "kind"), [(r, k) for r in recipe_names() for k in Recipe.named(r).classes])
def test_the_simulator(recipe, kind):
    plan = Plan.from_recipe(Recipe.named(recipe, ["height=24", "width=28"]), 2, classes=[kind])
    drawn = [plan.drawn(i) for i in range(2)]
    here, there = (
        plan.build_engine(device).render([d.scene for d in drawn], conditions_of([d.conditions for d in drawn]))
        for device in ("cpu", DEVICE)
    )
    for known, found in zip(vars(here).values(), vars(there).values(), strict=True):
        assert close(found, known, 1e-4)


def test_the_ray_tracer_and_its_gradient():
    lenses = small_lenses()
    slopes = []
    for device in ("cpu", DEVICE):
        alpha = lenses.field().alpha.to(device).requires_grad_()
        trace(DeflectionField(alpha, lenses.field().grid), lenses.source).sum().backward()
        slopes.append(alpha.grad)
    assert close(slopes[1], slopes[0], 1e-4)


def test_a_smooth_fit_and_a_free_source():
    ends = []
    for device in ("cpu", DEVICE):
        smooth = smooth_fit(LensProblem.from_observation(small_lenses().observation.to(device)))
        ends.append((smooth.x, freed(smooth.problem, smooth.x, FreeSourceSettings(modes=(6,)))[-1]))
    assert close(ends[1][0], ends[0][0], 1e-2)
    assert float((ends[1][1].end.cost.cpu() - ends[0][1].end.cost).abs().max()) < 0.5


@pytest.mark.parametrize("name", ["bicubic", "fit", "refine", "restore"])
def test_methods(name):
    observation = small_lenses(2, height=24, width=28).observation
    here, there = (READY[name].predict(observation.to(device), 2) for device in ("cpu", DEVICE))
    assert close(there.image, here.image, 2e-2 if name == "restore" else 5e-3)
    for key in set(here.parameters) & {"theta_E"}:
        assert close(there.parameters[key], here.parameters[key], 1e-3)


def test_a_lens_with_its_galaxy():
    observation = lit_lens().observation
    here, there = (READY["refine"].predict(observation.to(device), 2) for device in ("cpu", DEVICE))
    assert close(there.image, here.image, 5e-3)
    assert close(there.parameters["theta_E"], here.parameters["theta_E"], 1e-3)


@pytest.mark.parametrize("name", ["model_2", "euclid_vis", "varied"])
def test_shipped_weights(name):
    observation = small_lenses(3).observation
    with torch.no_grad():
        here, there = (
            load_run(weights_folder(name)).to(device).eval().predict(observation.to(device), 2)
            for device in ("cpu", DEVICE)
        )
    assert close(there.image, here.image, 2e-2)


def test_a_step_of_training():
    observation = small_lenses(2).observation
    truth = torch.nn.functional.interpolate(observation.image, scale_factor=2) / 4
    losses = []
    for device in ("cpu", DEVICE):
        torch.manual_seed(0)
        settings = SupervisedSettings(name="supervised", network=network_settings("edsr")(**SMALL["edsr"]), scale=2)
        method = settings.build().to(device)
        loss = method.training_terms(Batch(observation.to(device), truth.to(device)), 0)["loss"]
        loss.backward()
        slope = torch.cat([p.grad.flatten() for p in method.parameters() if p.grad is not None])
        losses.append(torch.cat([loss.detach()[None], slope]))
    assert close(losses[1], losses[0], 1e-3)
