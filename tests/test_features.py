"""Feature extractors and the perceptual loss: what they see, what learns, and what a method must not save."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml
from lenses import finite, one_thread, small_lenses  # noqa: F401
from safetensors.torch import save_file
from torch import Tensor, nn

from lensphys.basics.checks import LensphysError
from lensphys.losses.perceptual import PerceptualLoss, PerceptualSettings
from lensphys.methods.autoencoder import AutoencoderMethod, AutoencoderMethodSettings
from lensphys.methods.classifier import ClassifierMethod, ClassifierMethodSettings, hr_images, lr_images
from lensphys.methods.trainable import Batch
from lensphys.networks.autoencoder import AutoencoderSettings
from lensphys.networks.classifier import ClassifierSettings
from lensphys.networks.vgg import VGG19
from lensphys.tracing.orientation import reoriented

SMALL_CLASSIFIER = ClassifierSettings(channels=8, blocks=1)
SMALL_AUTOENCODER = AutoencoderSettings(channels=4, levels=3, latent=6)
SMALL = {"classifier": SMALL_CLASSIFIER, "autoencoder": SMALL_AUTOENCODER}
METHODS = {"classifier": ClassifierMethodSettings, "autoencoder": AutoencoderMethodSettings}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def batch(n: int = 2, **change: Tensor | None) -> Batch:
    lenses = small_lenses(n, height=20, width=24)
    kinds = {"truth": lenses.clean(2), "label": torch.arange(n) % 3} | change
    return Batch(lenses.observation, **kinds)


def classifier(**settings) -> ClassifierMethod:
    return ClassifierMethodSettings(name="classifier", network=SMALL_CLASSIFIER, **settings).build()


def autoencoder(**settings) -> AutoencoderMethod:
    return AutoencoderMethodSettings(name="autoencoder", network=SMALL_AUTOENCODER, **settings).build()


def trained(folder: Path, kind: str) -> Path:
    """A run folder as a training leaves it, with fresh weights."""
    settings = METHODS[kind](name=kind, network=SMALL[kind])
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump({"method": settings.model_dump(mode="json")}))
    save_file(settings.build().state_dict(), folder / "best.safetensors")
    return folder


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("size", [(16, 20), (21, 17), (75, 64)])
def test_features_are_maps_of_images_of_any_size(kind, size):
    network = SMALL[kind].build()
    maps = network.features(torch.randn(2, 1, *size))
    halvings = [0, 1, 2] if kind == "classifier" else [1, 2, 3]
    expected = [tuple(-(-n // 2**k) for n in size) for k in halvings]
    assert [tuple(m.shape[-2:]) for m in maps] == expected
    assert [m.shape[1] for m in maps] == ([8, 16, 32] if kind == "classifier" else [4, 8, 16])


def test_what_the_networks_answer():
    images = torch.randn(2, 1, 21, 17)
    assert ClassifierSettings(channels=4, classes=5).build()(images).shape == (2, 5)
    again, latent = SMALL_AUTOENCODER.build()(images)
    assert again.shape == images.shape
    assert latent.shape == (2, 6)


def test_the_truncated_classifier_is_as_large_as_s1s():
    network = ClassifierSettings().build()
    assert sum(p.numel() for p in network.parameters()) - sum(p.numel() for p in network.head.parameters()) == 391_368


@pytest.mark.parametrize("kind", SMALL)
def test_every_parameter_learns(kind):
    method = classifier() if kind == "classifier" else autoencoder()
    method.training_terms(batch(3), 0)["loss"].backward()
    for name, p in method.network.named_parameters():
        assert p.grad is not None, name
        assert finite(p.grad), name


def test_images_are_in_units_of_the_lr_peak():
    seen = batch()
    assert lr_images(seen).flatten(1).amax(1).tolist() == pytest.approx([1, 1])
    peak = seen.observation.peak[:, None, None, None]
    torch.testing.assert_close(hr_images(seen, 2), seen.truth * 4 / peak)
    hole = torch.ones_like(seen.observation.image, dtype=torch.bool)
    hole.view(2, -1)[0, seen.observation.image[0].argmax()] = False
    masked = lr_images(Batch(replace(seen.observation, mask=hole)))
    assert masked[~hole].tolist() == [0]
    assert float(masked[0].max()) == pytest.approx(1)


def test_a_training_sees_all_eight_orientations():
    image = torch.randn(1, 1, 4, 6)
    seen = {str(reoriented(image).tolist()) for _ in range(100)}
    assert len(seen) == 8


@pytest.mark.parametrize("images", ["lr", "hr"])
def test_a_classifier_learns_six_images_by_heart(images):
    method, data = classifier(images=images), batch(6, label=torch.arange(6) // 2)
    assert method.needs_truth == (images == "hr")
    before = method.training_terms(data, 0)["loss"].item()
    optimizer = torch.optim.Adam(method.parameters(), lr=3e-3)
    for _ in range(120):
        optimizer.zero_grad()
        terms = method.training_terms(data, 0)
        terms["loss"].backward()
        optimizer.step()
    method.eval()
    terms = method.training_terms(data, 0)
    assert terms["accuracy"] == 1
    assert terms["loss"] < 0.2 * before
    assert method.validation_score(data) == terms["loss"]


def test_smoothed_labels_keep_the_loss_above_zero():
    data, method = batch(), classifier().eval()
    smooth = classifier(label_smoothing=0.5).eval()
    smooth.load_state_dict(method.state_dict())
    with torch.no_grad():
        for each in (method, smooth):
            each.network.head.weight.zero_()
            each.network.head.bias.copy_(torch.tensor([9.0, 0.0, 0.0]))
    data.label[:] = 0
    assert smooth.training_terms(data, 0)["loss"] > 100 * method.training_terms(data, 0)["loss"]


def test_a_classifier_says_what_it_lacks():
    method = classifier()
    with pytest.raises(LensphysError, match="this data set has no labels"):
        method.training_terms(batch(label=None), 0)
    with pytest.raises(LensphysError, match="have the label 3, but the classifier counts 3 classes"):
        method.training_terms(batch(label=torch.tensor([0, 3])), 0)
    with pytest.raises(LensphysError, match="have the label -1"):
        method.training_terms(batch(label=torch.tensor([-1, 0])), 0)
    with pytest.raises(LensphysError, match="looks at HR images: this data set has none"):
        method.training_terms(batch(truth=None), 0)
    assert finite(classifier(images="lr").training_terms(batch(truth=None), 0)["loss"])


def test_the_players_of_an_autoencoder_have_their_own_terms_and_parts():
    method, data = autoencoder(adversarial=0.5), batch()
    assert list(method.players) == ["autoencoder", "discriminator"]
    terms = method.terms_of("autoencoder", data, 0)
    assert set(terms) == {"reconstruction", "adversarial", "loss"}
    torch.testing.assert_close(terms["loss"], terms["reconstruction"] + 0.5 * terms["adversarial"])
    grown = torch.autograd.grad(terms["adversarial"], list(method.network.parameters()), allow_unused=True)
    touched = {n for (n, _), g in zip(method.network.named_parameters(), grown, strict=True) if g is not None}
    assert touched == {n for n, _ in method.network.named_parameters() if n.startswith(("down", "inward"))}

    method.zero_grad()
    method.terms_of("discriminator", data, 0)["loss"].backward()
    assert all(p.grad is None for p in method.network.parameters())
    assert all(float(p.grad.abs().sum()) > 0 for p in method.discriminator.parameters())


def test_the_discriminator_learns_which_vectors_are_the_priors():
    method, data = autoencoder(), batch(6)
    optimizer = torch.optim.Adam(method.discriminator.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        method.terms_of("discriminator", data, 0)["loss"].backward()
        optimizer.step()
    with torch.no_grad():
        assert float(method.discriminator(torch.randn(200, 6)).mean()) > 0
        assert float(method.discriminator(method.network.encode(hr_images(data, 2))).mean()) < 0
        assert float(method.training_terms(data, 0)["adversarial"]) > 0.7  # above log 2: the encoder is found out


def test_an_autoencoder_learns_to_give_back_its_images():
    method, data = autoencoder(), batch()
    before = method.validation_score(data).item()
    optimizer = torch.optim.Adam(method.network.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        method.terms_of("autoencoder", data, 0)["loss"].backward()
        optimizer.step()
    assert method.validation_score(data) < 0.5 * before
    with pytest.raises(LensphysError, match="looks at HR images"):
        method.validation_score(batch(truth=None))


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("difference", ["l1", "mse"])
def test_the_perceptual_loss_of_a_run(tmp_path, kind, difference):
    run = trained(tmp_path / "run", kind)
    loss = PerceptualSettings(run=str(run), layers=[0, -1], kind=difference).build()
    image, target = (torch.rand(2, 1, 20, 23, requires_grad=True) for _ in range(2))
    assert loss(image, image) == 0
    found = loss(image, target)
    assert found.shape == ()
    assert found > 0
    found.backward()
    assert float(image.grad.abs().sum()) > 0
    assert target.grad is None
    network = METHODS[kind](name=kind, network=SMALL[kind]).build().network.eval()
    network.load_state_dict(loss.settings.extractor().state_dict())
    pairs = zip(network.features(image), network.features(target), strict=True)
    apart = [(a - b).abs() if difference == "l1" else (a - b).square() for a, b in pairs]
    torch.testing.assert_close(found, (apart[0].mean() + apart[-1].mean()) / 2)


def test_the_images_may_be_of_another_precision(tmp_path):
    loss = PerceptualSettings(run=str(trained(tmp_path / "run", "classifier"))).build()
    image, target = torch.rand(2, 2, 1, 20, 23)
    expected = float(loss(image, target))
    assert float(loss(image.double(), target.double())) == pytest.approx(expected)
    assert float(loss(image.bfloat16(), target.bfloat16())) == pytest.approx(expected, rel=0.1)
    assert float(loss(image, target)) == expected


def test_a_method_neither_saves_nor_trains_nor_needs_the_extractor(tmp_path):
    class Host(nn.Module):
        def __init__(self, loss: PerceptualLoss) -> None:
            super().__init__()
            self.network, self.loss = nn.Conv2d(1, 1, 3, padding=1), loss

    run = trained(tmp_path / "run", "classifier")
    host = Host(PerceptualSettings(run=str(run)).build())
    image = torch.rand(2, 1, 20, 23)
    host.train()
    host.loss(host.network(image), image).backward()
    assert set(host.state_dict()) == {"network.weight", "network.bias"}
    assert len(list(host.parameters())) == 2
    before = float(host.loss(image, image * 2))
    host.train()  # batch normalisations of the extractor stay as they are
    assert float(host.loss(image, image * 2)) == before
    Host(PerceptualSettings(run=str(tmp_path / "gone")).build()).network(image)


def test_a_perceptual_loss_names_one_extractor():
    parse = PerceptualSettings.parse
    for tree in ({}, {"run": "a", "vgg19": True}):
        with pytest.raises(LensphysError, match="needs either 'run', a trained classifier or autoencoder, or 'vgg19'"):
            parse(tree, "test")
    with pytest.raises(LensphysError, match="a run has its own"):
        parse({"run": "a", "weights": "b.pth"}, "test")
    with pytest.raises(LensphysError, match="'layers'"):
        parse({"run": "a", "layers": []}, "test")


def test_a_wrong_run_is_named(tmp_path):
    image = torch.rand(2, 1, 20, 23)

    def fails(run: Path, message: str, **settings: list[int]) -> None:
        with pytest.raises(LensphysError, match=message):
            PerceptualSettings(run=str(run), **settings).build()(image, image)

    fails(tmp_path / "gone", "run folder not found")
    run = trained(tmp_path / "run", "classifier")
    fails(run, r"there is no layer 3, the features have 3", layers=[-1, 3])
    (run / "config.yaml").write_text(yaml.safe_dump({"method": {"name": "supervised"}}))
    fails(run, "holds the method supervised, which extracts no features: train one of classifier, autoencoder")
    tree = {"name": "classifier", "network": {"name": "classifier", "channels": 4, "blocks": 1}}
    (run / "config.yaml").write_text(yaml.safe_dump({"method": tree}))
    fails(run, "does not fit")
    loss = PerceptualSettings(run=str(trained(tmp_path / "other", "classifier"))).build()
    with pytest.raises(LensphysError, match="image and target must have the same shape"):
        loss(image, image[..., 1:])


@pytest.fixture(scope="module")
def vgg19_file(tmp_path_factory) -> Path:
    """Weights of the right names and shapes, as torchvision has them."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("vgg") / "vgg19-0.pth"
    state = {k.replace("layers", "features"): x for k, x in VGG19().state_dict().items()}
    torch.save(state | {"classifier.0.bias": torch.zeros(3)}, path)
    return path


def test_vgg19_from_a_file(vgg19_file):
    network = PerceptualSettings(vgg19=True, weights=str(vgg19_file)).extractor()
    assert sum(p.numel() for p in network.parameters()) == 20_024_384  # published: 143 667 240, less the linear layers
    image = torch.rand(2, 1, 32, 35, requires_grad=True)
    maps = network.features(image)
    assert [m.shape[1] for m in maps] == [64] * 2 + [128] * 2 + [256] * 4 + [512] * 8
    assert maps[-1].shape == (2, 512, 2, 2)
    assert all(m.min() < 0 for m in maps)  # before the activation
    loss = PerceptualSettings(vgg19=True, weights=str(vgg19_file)).build()
    assert loss(image, image) == 0
    loss(image, torch.zeros_like(image)).backward()
    assert float(image.grad.abs().sum()) > 0


def test_vgg19_from_torchvision(vgg19_file, monkeypatch):
    fake, failing = (ModuleType("torchvision.models") for _ in range(2))

    class Weights:
        def get_state_dict(self, progress: bool) -> dict[str, Tensor]:
            return torch.load(vgg19_file)

    class Offline(Weights):
        def get_state_dict(self, progress: bool) -> dict[str, Tensor]:
            raise OSError("no route to host")

    fake.VGG19_Weights = type("VGG19_Weights", (), {"IMAGENET1K_V1": Weights()})
    failing.VGG19_Weights = type("VGG19_Weights", (), {"IMAGENET1K_V1": Offline()})
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.models", fake)
    downloaded = PerceptualSettings(vgg19=True).extractor().state_dict()
    given = PerceptualSettings(vgg19=True, weights=str(vgg19_file)).extractor().state_dict()
    assert all(torch.equal(x, given[name]) for name, x in downloaded.items())
    monkeypatch.setitem(sys.modules, "torchvision.models", failing)
    with pytest.raises(LensphysError, match="cannot be downloaded .no route to host.: give their file"):
        PerceptualSettings(vgg19=True).extractor()


def test_vgg19_says_what_it_lacks(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(LensphysError, match=r"pip install 'lensphys\[vgg\]', or give their file"):
        PerceptualSettings(vgg19=True).extractor()
    bad = tmp_path / "bad.pth"
    with pytest.raises(LensphysError, match="VGG19 weights not found"):
        PerceptualSettings(vgg19=True, weights=str(bad)).extractor()
    bad.write_bytes(b"no weights")
    with pytest.raises(LensphysError, match="is not a file of weights"):
        PerceptualSettings(vgg19=True, weights=str(bad)).extractor()
    torch.save({"features.0.weight": torch.zeros(1)}, bad)
    with pytest.raises(LensphysError, match="does not hold the weights of VGG19"):
        PerceptualSettings(vgg19=True, weights=str(bad)).extractor()
