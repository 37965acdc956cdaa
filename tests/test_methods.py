"""Methods: one contract for all of them, and what each promises on its own."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from lenses import SMALL, Lenses, finite, one_thread, psnr, relative, scaled, small_lenses  # noqa: F401
from torch import Tensor

from lensphys.basics.checks import LensphysError
from lensphys.losses.physics import ObservationConsistency, PhysicsLossSettings, VariationDensity, published_loss
from lensphys.methods import (
    READY,
    TRAINABLE,
    AmortisedSettings,
    Batch,
    Interpolation,
    MarginalisedSettings,
    Method,
    PerImageFit,
    PhysicsSettings,
    Prediction,
    SupervisedSettings,
    TrainableMethod,
)
from lensphys.methods import fit as fit_module
from lensphys.methods.adversarial import AdversarialMethodSettings
from lensphys.methods.diffusion import DiffusionSettings
from lensphys.methods.physics_adversarial import PhysicsAdversarialSettings
from lensphys.methods.physics_labelled import PhysicsLabelledSettings
from lensphys.networks import NETWORKS, NetworkSettings, PolarHeadSettings, network_settings
from lensphys.networks.classifier import ClassifierSettings
from lensphys.networks.discriminator import DiscriminatorSettings
from lensphys.networks.encoder import EncoderSettings
from lensphys.networks.look import LookSettings
from lensphys.observation import Observation, block_sum
from lensphys.tracing.grid import PixelGrid

HEAD = PolarHeadSettings(radial_low=0.5, radial_high=1.6, tangential_limit=0.1, gain=0.3)
SOURCES = ["brightest_pixel", "moments", "least_squares", "through_lens", "joint"]
LOSS = PhysicsLossSettings(
    observation=ObservationConsistency(form="log"), variation_density=VariationDensity(weight=0.1)
)


def physics(source: str = "moments", network: str = "pyramid", loss: PhysicsLossSettings = LOSS) -> TrainableMethod:
    torch.manual_seed(0)
    return PhysicsSettings(name="physics", network=tiny(network), head=HEAD, source=source, loss=loss).build()


def tiny(network: str) -> NetworkSettings:
    return network_settings(network)(**SMALL[network])


def supervised(network: str = "srresnet", scale: int = 2, **settings: object) -> TrainableMethod:
    torch.manual_seed(0)
    return SupervisedSettings(name="supervised", network=tiny(network), scale=scale, **settings).build()


def adversarial(**settings: object) -> TrainableMethod:
    torch.manual_seed(0)
    judge = DiscriminatorSettings(channels=4, stages=2)
    parts = {"network": tiny("srresnet"), "discriminator": judge} | settings
    return AdversarialMethodSettings(name="adversarial", **parts).build()


def physics_adversarial() -> TrainableMethod:
    torch.manual_seed(0)
    judge = DiscriminatorSettings(channels=4, stages=2)
    return PhysicsAdversarialSettings(
        name="physics_adversarial", network=tiny("pyramid"), head=HEAD, source="moments", loss=LOSS, discriminator=judge
    ).build()


def physics_labelled() -> TrainableMethod:
    torch.manual_seed(0)
    judge = ClassifierSettings(channels=4, blocks=1, levels=2)
    return PhysicsLabelledSettings(
        name="physics_labelled", network=tiny("pyramid"), head=HEAD, source="moments", loss=LOSS, classifier=judge
    ).build()


def diffusion() -> TrainableMethod:
    torch.manual_seed(0)
    return DiffusionSettings(name="diffusion", channels=(8, 8), ddim_steps=2, samples=2).build()


def amortised() -> TrainableMethod:
    torch.manual_seed(0)
    return AmortisedSettings(name="amortised", network=EncoderSettings(channels=8, levels=3, modes=4)).build()


def marginalised() -> TrainableMethod:
    torch.manual_seed(0)
    levels = [{"modes": 5, "steps": 2, "points": 1}, {"modes": 7, "steps": 3}]
    network = LookSettings(channels=8, levels=3, hidden=32)
    return MarginalisedSettings(name="marginalised", network=network, levels=levels).build()


METHODS: dict[str, Callable[[], Method]] = {name: (lambda m=method: m) for name, method in READY.items()}
METHODS["amortised"] = lambda: amortised().eval()
METHODS["marginalised"] = lambda: marginalised().eval()
METHODS |= {f"physics {source}": (lambda s=source: physics(s).eval()) for source in SOURCES}
METHODS |= {f"supervised {network}": (lambda n=network: supervised(n).eval()) for network in NETWORKS}
METHODS["adversarial"] = lambda: adversarial().eval()
METHODS["physics_adversarial"] = lambda: physics_adversarial().eval()
METHODS["physics_labelled"] = lambda: physics_labelled().eval()
METHODS["diffusion"] = lambda: diffusion().eval()
SERVING = {"autoencoder", "classifier", "ranker"}  # trained for the sake of other trainings
FITS = ["fit", "refine", "amortised"]
LENSING = [name for name in METHODS if name in (*FITS, "restore", "marginalised") or name.startswith("physics")]
MODELS = [
    name for name in LENSING if name not in ("refine", "amortised", "marginalised", "restore")
]  # their image is the model and no more
ANY_SCALE = [name for name in METHODS if not name.startswith(("supervised", "adversarial", "diffusion"))]


@pytest.fixture(scope="module")
def lenses() -> Lenses:
    return small_lenses()


def predict(name: str, observation: Observation, scale: int = 2) -> Prediction:
    with torch.no_grad():
        return METHODS[name]().predict(observation, scale)


@pytest.fixture(scope="module")
def predicted(lenses) -> Callable[[str], Prediction]:
    """What a method makes of the lenses at twice their resolution, made once."""
    return functools.cache(lambda name: predict(name, lenses.observation))


def test_every_trainable_method_is_under_test():
    assert set(READY) <= set(METHODS)
    assert {name.split()[0] for name in METHODS if name not in READY} | SERVING == set(TRAINABLE)


# ---------------------------------------------------------------- the contract


@pytest.mark.parametrize(("name", "scale"), [(name, 2) for name in METHODS] + [(name, 3) for name in ANY_SCALE])
def test_a_prediction_fits_its_camera(lenses, predicted, name, scale):
    observation = lenses.observation
    found = predicted(name) if scale == 2 else predict(name, observation, scale)
    fine = observation.camera.grid.resampled(scale)
    assert found.image.shape == (2, 1, scale * 32, scale * 36)
    assert found.camera.grid == fine
    assert found.camera.psf == observation.camera.psf
    assert found.observed.shape == observation.image.shape
    assert finite(found.image) and finite(found.observed)
    assert not found.image.requires_grad
    for key, value in found.parameters.items():
        assert value.shape == (2,), key
    assert (found.deflection is not None) == (found.source is not None) == (name in LENSING)
    if name in LENSING:
        assert found.deflection.grid == fine
        assert found.deflection.alpha.shape == (2, 2, *fine.shape)
        grid = PixelGrid(9, 7, 0.2)
        source = found.source_image(grid)
        assert source.shape == (2, 1, 9, 7)
        assert float(source.min()) >= 0
        assert {"theta_E"} <= set(found.parameters)
    else:
        assert found.source_image(PixelGrid(9, 7, 0.2)) is None


@pytest.mark.parametrize("name", MODELS)
def test_image_and_observed_are_the_source_seen_through_the_deflection(lenses, predicted, name):
    found = predicted(name)
    torch.testing.assert_close(found.image, found.camera.render(found.source, found.deflection), rtol=1e-4, atol=1e-6)
    # the same light on coarser pixels: they see the centre of an arc that the PSF of a pixel and a half blurs
    coarse = block_sum(found.image, lenses.observation.camera.grid)
    assert bool((psnr(found.observed, coarse) > 20).all())


@pytest.mark.parametrize("name", ["refine", "amortised"])
def test_an_error_bar_comes_with_the_image(predicted, name):
    found = predicted(name)
    assert found.sigma.shape == found.constrained.shape == found.image.shape
    assert finite(found.sigma) and bool((found.sigma >= 0).all()) and float(found.sigma.max()) > 0
    assert bool(((found.constrained >= 0) & (found.constrained <= 1)).all())
    assert {"subhalos", "noise_scale"} <= set(found.numbers)


@pytest.mark.parametrize("name", METHODS)
def test_the_unit_of_the_image_is_that_of_the_prediction(lenses, predicted, name):
    unit = 2.0**13  # a power of two, so that rounding is the same and only the mathematics can differ
    found, large = predicted(name), predict(name, scaled(lenses.observation, unit))
    for part in ("image", "observed"):
        torch.testing.assert_close(getattr(large, part) / unit, getattr(found, part), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_an_image_does_not_depend_on_its_batch(lenses, predicted, name):
    found, alone = predicted(name), predict(name, lenses.observation[torch.tensor([1])])
    limit = 5e-3 * float(found.image.abs().max())  # two fits stop at other places within their tolerance
    torch.testing.assert_close(alone.image[0], found.image[1], rtol=0, atol=limit)


# The rescaling to the image's flux ends at a factor of 2, and an untrained network's brightest pixel may need more.
UNTRAINED = ("physics brightest_pixel", "amortised", "marginalised")


@pytest.mark.parametrize("name", [name for name in ANY_SCALE if name not in UNTRAINED])
def test_the_flux_is_that_of_the_low_resolution_image(lenses, predicted, name):
    found = predicted(name)
    tolerance = 1e-5 if name in ("bicubic", "bilinear") else 0.01
    seen = lenses.observation.image.sum((1, 2, 3))
    assert relative(found.image.sum((1, 2, 3)), seen) < tolerance
    assert relative(found.observed.sum((1, 2, 3)), seen) < tolerance


# ---------------------------------------------------------------- interpolation


@pytest.mark.parametrize("name", ["bicubic", "bilinear"])
def test_interpolation_of_a_plane_is_exact(name, lenses):
    camera = lenses.observation.camera
    fine = camera.grid.resampled(2)
    plane = [grid.positions().sum(1, keepdim=True) + 20 for grid in (camera.grid, fine)]
    found = Interpolation(name=name).predict(replace(lenses.observation, image=plane[0].expand(2, -1, -1, -1)), 2)
    inside = (slice(None), slice(None), slice(4, -4), slice(4, -4))
    torch.testing.assert_close(4 * found.image[inside], plane[1].expand(2, -1, -1, -1)[inside], rtol=1e-3, atol=0)


def test_interpolation_of_an_image_without_flux_is_finite(lenses):
    image = lenses.observation.image - lenses.observation.image.mean((1, 2, 3), keepdim=True)
    assert finite(Interpolation(name="bicubic").predict(replace(lenses.observation, image=image), 2).image)
    nothing = replace(lenses.observation, image=torch.zeros_like(image))
    assert float(Interpolation(name="bicubic").predict(nothing, 2).image.abs().max()) == 0


# ---------------------------------------------------------------- the fit


def test_the_fit_is_far_better_than_interpolation(lenses, predicted):
    truth = lenses.clean(2)
    fit, bicubic = (psnr(predicted(name).image, truth) for name in ("fit", "bicubic"))
    assert bool((fit > bicubic + 10).all())
    assert relative(predicted("fit").parameters["theta_E"], lenses.mass.profiles[0].theta_E) < 0.01


def test_the_fit_does_not_depend_on_the_size_of_a_chunk(lenses, monkeypatch):
    observation = small_lenses(3).observation
    calls, whole = [], PerImageFit().predict(observation, 2)
    fit_lens = fit_module.fit_lens

    def counted(part: Observation, **settings: int):
        calls.append(len(part))
        return fit_lens(part, **settings)

    monkeypatch.setattr(fit_module, "fit_lens", counted)
    monkeypatch.setattr(fit_module, "_PIXELS_AT_ONCE", 2 * PerImageFit().starts * 32 * 36)
    parts = PerImageFit().predict(observation, 2)
    assert calls == [2, 1]
    torch.testing.assert_close(parts.image, whole.image, rtol=0, atol=2e-3 * float(whole.image.max()))
    assert parts.parameters.keys() == whole.parameters.keys()


# ---------------------------------------------------------------- the physics method


def test_the_deflection_of_another_scale_is_the_same_field(lenses, predicted):
    two, four = predicted("physics joint").deflection, predict("physics joint", lenses.observation, 4).deflection
    torch.testing.assert_close(four.at(two.grid).radial, two.radial, rtol=0, atol=0.02)


def test_the_source_that_a_network_is_given_fits_better_the_more_it_may_fit(lenses, predicted):
    """With the same deflection, fits of the observation itself beat fits of the back-projected source."""
    chi2 = {
        source: float(lenses.observation.chi2(predicted(f"physics {source}").observed).sum())
        for source in ("brightest_pixel", "through_lens", "joint")
    }
    assert chi2["joint"] < chi2["through_lens"] < chi2["brightest_pixel"]


@pytest.mark.parametrize("source", SOURCES)
def test_the_loss_reaches_every_weight_of_the_network(lenses, source):
    method = physics(source)
    method.training_terms(Batch(lenses.observation), 0)["loss"].backward()
    for key, p in method.named_parameters():
        assert p.grad is not None and finite(p.grad), key
        if not key.endswith("bias"):
            assert float(p.grad.abs().max()) > 0, key


def test_physics_training_looks_at_no_truth_and_names_its_terms(lenses):
    method = physics().eval()
    terms = method.training_terms(Batch(lenses.observation), 0)
    assert set(terms) == {"observation", "variation_density", "loss"}
    other = method.training_terms(Batch(lenses.observation, torch.full((2, 1, 64, 72), torch.nan)), 0)
    assert all(float(terms[name].detach()) == float(other[name].detach()) for name in terms)
    assert not method.needs_truth


def test_the_validation_score_does_not_follow_the_epoch(lenses):
    loss = PhysicsLossSettings(variation_density=VariationDensity(weight=1.0, decay=0.5))
    method = physics(loss=loss).eval()
    score = float(method.validation_score(Batch(lenses.observation)).detach())
    terms = [method.training_terms(Batch(lenses.observation), epoch)["loss"] for epoch in (0, 3)]
    assert score == pytest.approx(float(terms[0].detach()))
    assert score == pytest.approx(8 * float(terms[1].detach()))


# ---------------------------------------------------------------- the supervised method


def test_another_scale_than_the_networks_is_refused(lenses):
    with pytest.raises(LensphysError, match="trained for a scale of 2, not 3"):
        supervised().predict(lenses.observation, 3)
    assert supervised(scale=3).predict(lenses.observation).image.shape == (2, 1, 96, 108)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_that_corrects_an_interpolation_starts_at_it_and_can_leave(lenses, predicted, network):
    method = supervised(network, base="bicubic")
    found = method.predict(lenses.observation)
    torch.testing.assert_close(found.image, predicted("bicubic").image)
    method.training_terms(Batch(lenses.observation, lenses.clean(2)), 0)["loss"].backward()
    assert any(bool(p.grad.any()) for p in method.parameters() if p.grad is not None)


def test_supervised_training_needs_a_truth_that_fits(lenses):
    with pytest.raises(LensphysError, match="supervised training needs HR images: this data set has none"):
        supervised().training_terms(Batch(lenses.observation), 0)
    with pytest.raises(LensphysError, match=r"SR image and HR image .* got \(2, 1, 64, 72\) and \(2, 1, 32, 36\)"):
        supervised().training_terms(Batch(lenses.observation, lenses.observation.image), 0)


def test_the_supervised_loss_does_not_depend_on_the_unit(lenses):
    method, truth = supervised().eval(), lenses.clean(2)
    one = method.training_terms(Batch(lenses.observation, truth), 0)["loss"]
    other = method.training_terms(Batch(scaled(lenses.observation, 1e4), 1e4 * truth), 0)["loss"]
    torch.testing.assert_close(one, other, rtol=1e-4, atol=0)
    assert float(method.validation_score(Batch(lenses.observation, truth)).detach()) == pytest.approx(
        float(one.detach())
    )
    assert method.needs_truth


# ---------------------------------------------------------------- learning


def trained(
    method: TrainableMethod, observation: Observation, truth: Tensor | None, steps: int, rate: float = 1e-2
) -> list[float]:
    """The loss at each Adam step on one batch."""
    optimiser = torch.optim.Adam(method.parameters(), lr=rate)
    losses = []
    for _ in range(steps):
        loss = method.training_terms(Batch(observation, truth), 0)["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("network", NETWORKS)
def test_a_supervised_network_overfits_one_batch(lenses, network):
    losses = trained(supervised(network), lenses.observation, lenses.clean(2), 60)
    assert losses[-1] < 0.3 * losses[0]


# S1's source at the brightest pixel moves in jumps, and only its brightness has a gradient: it learns by S1's own loss.
@pytest.mark.parametrize("source", SOURCES[1:])
def test_the_physics_method_overfits_one_batch(lenses, source):
    losses = trained(physics(source), lenses.observation, None, 15)
    assert losses[-1] < 0.85 * losses[0]


@pytest.mark.parametrize("network", NETWORKS)
def test_the_published_loss_falls_with_each_network(lenses, network):
    # its brightest pixel jumps: at a rate of 0.01 the last digit decides where it ends
    losses = trained(physics("brightest_pixel", network, published_loss()), lenses.observation, None, 20, rate=3e-3)
    assert losses[-1] < 0.85 * losses[0]
