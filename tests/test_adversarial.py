"""Generators and discriminators, the three stages of RankSRGAN, and the physics that any image can be asked for."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from lenses import SMALL, finite, one_thread, scaled, small_lenses  # noqa: F401
from pydantic import ValidationError

from lensphys.basics.checks import LensphysError
from lensphys.basics.runs import LOG
from lensphys.data.lens_file import LensFile
from lensphys.losses.adversarial import AdversarialSettings
from lensphys.losses.physics import IntensityConservation, ObservationConsistency, PhysicsLossSettings
from lensphys.methods import READY, Batch, RankBatch, SupervisedSettings
from lensphys.methods.adversarial import AdversarialMethod, AdversarialMethodSettings
from lensphys.methods.physics_adversarial import PhysicsAdversarialSettings
from lensphys.methods.ranking.building import build_rank_set, clean_niqe
from lensphys.methods.ranking.losses import RankContentSettings, margin_ranking, ranking_accuracy, trained_ranker
from lensphys.methods.ranking.rank_set import RankSet
from lensphys.methods.ranking.ranker import RankerMethodSettings
from lensphys.networks import network_settings
from lensphys.networks.discriminator import DiscriminatorSettings
from lensphys.networks.ranker import RankerSettings
from lensphys.simulation.recipe import Recipe
from lensphys.simulation.writer import simulate
from lensphys.training.batches import BatchSettings, RankBatches
from lensphys.training.experiment import Experiment, load_run, train

NETWORK = {"name": "srresnet", "channels": 4, "blocks": 1}
GAME = {"name": "adversarial", "network": NETWORK, "discriminator": {"channels": 4, "stages": 2}}


@pytest.fixture(scope="module")
def batch() -> Batch:
    lenses = small_lenses()
    return Batch(lenses.observation, lenses.clean(2))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "pairs.h5"
    return simulate(Recipe.named("model_3", ["height=32", "width=40"]), 8, path, classes=["no_sub", "cdm"])


def adversarial(**settings: object) -> AdversarialMethod:
    torch.manual_seed(0)
    return AdversarialMethodSettings.parse({**GAME, **settings}, "test").build()


def experiment(file, method, **more) -> Experiment:
    training = {"epochs": 2, "batch_size": 4, "accelerator": "cpu"} | more.pop("training", {})
    return Experiment.parse({"data": {"file": str(file)}, "method": method, "training": training, **more}, "test")


def records(run) -> list[dict]:
    return [json.loads(line) for line in (run / LOG).read_text().splitlines()]


# ---------------------------------------------------------------- the losses of the game


def test_the_standard_loss_is_the_cross_entropy_of_the_papers():
    real, fake = torch.tensor([[2.0], [0.5]]), torch.tensor([[-1.0], [0.3]])
    loss = AdversarialSettings()
    assert float(loss.of_generator(real, fake)) == pytest.approx(float(-torch.sigmoid(fake).log().mean()))
    expected = -0.5 * (torch.sigmoid(real).log().mean() + (1 - torch.sigmoid(fake)).log().mean())
    assert float(loss.of_discriminator(real, fake)) == pytest.approx(float(expected))


def test_the_relativistic_loss_compares_with_the_mean_of_the_others_and_is_symmetric():
    real, fake = torch.tensor([[2.0], [0.5]]), torch.tensor([[-1.0], [0.3]])
    loss = AdversarialSettings(kind="relativistic")
    d_real, d_fake = torch.sigmoid(real - fake.mean()), torch.sigmoid(fake - real.mean())
    expected = -0.5 * (d_real.log().mean() + (1 - d_fake).log().mean())
    assert float(loss.of_discriminator(real, fake)) == pytest.approx(float(expected))
    assert float(loss.of_generator(real, fake)) == pytest.approx(float(loss.of_discriminator(fake, real)))


def test_the_discriminator_takes_any_size_and_has_the_papers_form():
    network = DiscriminatorSettings().build()
    assert network(torch.rand(2, 1, 33, 50)).shape == (2, 1)
    widths = [m.out_channels for m in network.features if isinstance(m, torch.nn.Conv2d)]
    assert widths == [64, 64, 128, 128, 256, 256, 512, 512]
    assert [m.stride[0] for m in network.features if isinstance(m, torch.nn.Conv2d)] == [1, 2, 1, 2, 1, 2, 1, 2]


# ---------------------------------------------------------------- SRGAN and ESRGAN


@pytest.mark.parametrize("kind", ["standard", "relativistic"])
def test_each_players_loss_reaches_its_own_weights(batch, kind):
    method = adversarial(adversarial={"kind": kind, "weight": 1.0}, loss={"weight": 0.0})
    terms = method.terms_of("discriminator", batch, 0)
    assert set(terms) == {"loss", "accuracy"}
    terms["loss"].backward()
    assert all(p.grad is not None and finite(p.grad) for p in method.discriminator.parameters())
    assert all(p.grad is None for p in method.network.parameters())
    method.zero_grad()
    terms = method.terms_of("generator", batch, 0)
    assert set(terms) == {"pixel", "adversarial", "loss"}
    terms["loss"].backward()
    assert all(p.grad is not None for p in method.network.parameters())
    assert any(float(p.grad.abs().max()) > 0 for p in method.network.parameters())


def test_the_generators_loss_is_the_weighted_sum_of_its_terms(batch, monkeypatch):
    # frozen networks of run folders; here, a number
    for loss in ("losses.perceptual.PerceptualLoss", "methods.ranking.losses.RankContent"):
        monkeypatch.setattr(f"lensphys.{loss}.__call__", lambda self, image, *_: image.abs().mean())
    weights = {"loss": {"weight": 2.0}, "adversarial": {"weight": 3.0}}
    weights |= {"perceptual": {"run": "x", "weight": 5.0}, "rank": {"run": "x", "weight": 7.0}}
    terms = adversarial(**weights).training_terms(batch, 0)
    expected = 2 * terms["pixel"] + 3 * terms["adversarial"] + 5 * terms["perceptual"] + 7 * terms["rank"]
    torch.testing.assert_close(terms["loss"], expected)


def test_a_generator_that_follows_its_adversarial_loss_fools_the_discriminator(batch):
    method = adversarial(adversarial={"weight": 1.0}, loss={"weight": 0.0})
    method.discriminator.eval()

    def believed() -> float:
        with torch.no_grad():
            image = method.predict(batch.observation).image / method.unit(batch.observation)
            return float(method.discriminator(image).mean())

    before = believed()
    optimiser = torch.optim.Adam(method.network.parameters(), lr=1e-3)
    for _ in range(5):
        optimiser.zero_grad()
        method.training_terms(batch, 0)["loss"].backward()
        optimiser.step()
    assert believed() > before


def test_the_game_does_not_depend_on_the_unit(batch):
    method = adversarial().eval()
    large = Batch(scaled(batch.observation, 1e4), 1e4 * batch.truth)
    for player in method.players:
        one, other = (method.terms_of(player, b, 0)["loss"] for b in (batch, large))
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_a_game_is_logged_by_player_keeps_its_last_weights_and_starts_from_a_supervised_run(file, tmp_path):
    train(experiment(file, {"name": "supervised", "network": NETWORK}), tmp_path / "first")
    settings = experiment(file, GAME, start=str(tmp_path / "first"), training={"learning_rate": 1e-3})
    before = load_run(tmp_path / "first").network.state_dict()
    assert all(torch.equal(before[name], x) for name, x in settings.build().network.state_dict().items())
    asked = iter(range(100))
    with pytest.MonkeyPatch.context() as patch:  # it gets worse: the best weights are not the last
        patch.setattr(AdversarialMethod, "validation_score", lambda *_: torch.tensor(float(next(asked))))
        train(settings, tmp_path / "game")
    first, last = records(tmp_path / "game")
    assert first["validation"] < last["validation"]
    assert {"discriminator/loss", "discriminator/accuracy", "generator/pixel", "generator/loss"} <= set(last)
    kept = load_run(tmp_path / "game")
    state = torch.load(tmp_path / "game" / "last.ckpt", weights_only=True)["method"]
    assert all(torch.equal(state[name], x) for name, x in kept.state_dict().items())


def test_a_game_goes_on_with_the_same_losses(file, tmp_path):
    def without_seconds(run):
        return [{k: v for k, v in row.items() if k != "seconds"} for row in records(run)]

    train(experiment(file, GAME, training={"schedule": "constant"}), tmp_path / "whole")
    train(experiment(file, GAME, training={"schedule": "constant", "epochs": 1}), tmp_path / "cut")
    train(experiment(file, GAME, training={"schedule": "constant"}), tmp_path / "cut", resume=True)
    assert without_seconds(tmp_path / "cut") == without_seconds(tmp_path / "whole")


def test_a_run_of_another_network_is_no_start(file, tmp_path):
    train(experiment(file, {"name": "supervised", "network": NETWORK | {"blocks": 2}}), tmp_path)
    with pytest.raises(LensphysError, match="have no place here"):
        experiment(file, GAME, start=str(tmp_path)).build()
    with pytest.raises(LensphysError, match="run folder not found"):
        experiment(file, GAME, start=str(tmp_path / "nowhere")).build()


# ---------------------------------------------------------------- S1's discriminators


def test_one_discriminator_a_scale_looks_at_relensed_images(batch):
    torch.manual_seed(0)
    method = PhysicsAdversarialSettings(
        name="physics_adversarial",
        network=network_settings("residual")(**SMALL["residual"]),
        source="moments",
        loss=PhysicsLossSettings(observation=ObservationConsistency(form="log")),
        discriminator=DiscriminatorSettings(channels=4, stages=2),
    ).build()
    assert len(method.discriminators) == 3 and not method.needs_truth
    method.terms_of("discriminator", Batch(batch.observation), 0)["loss"].backward()
    assert all(p.grad is None for p in method.network.parameters())
    assert all(p.grad is not None for p in method.discriminators.parameters())
    method.zero_grad()
    terms = method.terms_of("generator", Batch(batch.observation), 0)
    assert set(terms) == {"observation", "adversarial", "loss"}
    torch.testing.assert_close(terms["loss"], terms["observation"] + 1e-3 * terms["adversarial"])
    terms["adversarial"].backward()
    assert any(p.grad is not None and float(p.grad.abs().max()) > 0 for p in method.network.parameters())


# ---------------------------------------------------------------- RankSRGAN


def test_margin_ranking_is_zero_for_what_is_ranked_by_more_than_the_margin():
    niqe = torch.tensor([[1.0, 2.0, 3.0]])
    assert float(margin_ranking(torch.tensor([[0.0, 0.6, 1.2]]), niqe, 0.5)) == 0
    assert float(margin_ranking(torch.tensor([[0.0, 0.3, 1.2]]), niqe, 0.5)) == pytest.approx(0.2 / 3)
    assert float(margin_ranking(torch.tensor([[1.2, 0.6, 0.0]]), niqe, 0.5)) == pytest.approx((1.1 + 1.7 + 1.1) / 3)
    assert float(ranking_accuracy(torch.tensor([[0.0, 0.6, 0.4]]), niqe)) == pytest.approx(2 / 3)


def noisy(lenses: torch.Tensor, rms: float) -> torch.Tensor:
    return lenses + rms * torch.randn(lenses.shape, generator=torch.Generator().manual_seed(1))


def test_a_ranker_learns_to_tell_noisy_images_from_clean_ones():
    torch.manual_seed(0)
    clean = small_lenses(6).clean(2)[:, 0].float()
    clean = clean / clean.amax((1, 2), keepdim=True)
    batch = RankBatch(
        torch.stack([clean, noisy(clean, 0.003), noisy(clean, 0.01)], 1), torch.tensor([[1.0, 5.0, 9.0]]).repeat(6, 1)
    )
    method = RankerMethodSettings(name="ranker", network=RankerSettings(channels=4, stages=2)).build()
    optimiser = torch.optim.Adam(method.parameters(), lr=3e-3)
    for rate in (3e-3, 3e-3, 1e-3, 1e-4):
        optimiser.param_groups[0]["lr"] = rate
        for _ in range(30):
            optimiser.zero_grad()
            method.training_terms(batch, 0)["loss"].backward()
            optimiser.step()
    method.eval()
    assert float(method.validation_score(batch)) == 0
    content = RankContentSettings(run="nowhere").build()
    content._ranker = method.network
    of_each = [float(content(batch.image[:, k, None]).detach()) for k in range(3)]
    assert of_each == sorted(of_each)  # noise costs more
    assert 0.1 < of_each[0] < 0.5 < of_each[2] < 0.9  # where the sigmoid is steep


def test_a_ranker_learns_from_all_orientations_and_is_judged_in_one():
    method = RankerMethodSettings(name="ranker", network=RankerSettings(channels=2, stages=1)).build()
    batch, seen = RankBatch(torch.rand(2, 3, 6, 6), torch.rand(2, 3)), []
    method.network.register_forward_pre_hook(lambda _, given: seen.append(given[0].tolist()))
    for _ in range(100):
        method.training_terms(batch, 0)
    assert len({str(images) for images in seen}) == 8
    method.eval()
    method.validation_score(batch)
    assert seen[-1] == batch.image.flatten(0, 1)[:, None].tolist()


def test_the_three_stages_of_ranksrgan(file, tmp_path):
    """Rank set, ranker and generator, each from the files of the one before it."""
    with LensFile(file) as lenses:
        niqe = clean_niqe(lenses, 16)
        methods = {name: READY[name] for name in ("nearest", "bicubic")}
        build_rank_set(methods, lenses, niqe, tmp_path / "ranks.h5", patch=32)
    with RankSet(tmp_path / "ranks.h5") as ranked:
        assert ranked.names == ["nearest", "bicubic"]
        image, score = ranked.read([0, 3])
        assert image.shape == (2, 2, 32, 32) and score.shape == (2, 2)
        torch.testing.assert_close(niqe.score(image[:, :1].double()), score[:, 0].double(), rtol=1e-3, atol=0)
        # of each image four patches that hold a part of the ring
        assert 16 <= len(ranked) <= 64
    assert [path.name for path in tmp_path.iterdir()] == ["ranks.h5"]
    ranker = {"name": "ranker", "network": {"channels": 4, "stages": 2}}
    settings = experiment(tmp_path / "ranks.h5", ranker)
    train(settings, tmp_path / "ranker")
    with RankSet(tmp_path / "ranks.h5") as ranked:
        image, niqe_of = ranked.read(RankBatches(ranked, settings.training, settings.seed).validation.tolist())
    score = trained_ranker(tmp_path / "ranker")(image.flatten(0, 1)[:, None]).reshape(niqe_of.shape)
    last = records(tmp_path / "ranker")[-1]
    assert 1 - last["validation"] == pytest.approx(float(ranking_accuracy(score, niqe_of)))
    with pytest.raises(LensphysError, match="super-resolves nothing"):
        load_run(tmp_path / "ranker")
    game = experiment(file, GAME | {"rank": {"run": str(tmp_path / "ranker"), "weight": 0.1}})
    assert not [name for name in game.build().state_dict() if "rank" in name]
    train(game, tmp_path / "game")
    record = records(tmp_path / "game")[-1]
    weighed = record["generator/pixel"] + game.method.adversarial.weight * record["generator/adversarial"]
    assert record["generator/loss"] == pytest.approx(weighed + 0.1 * record["generator/rank"], rel=1e-5)


def test_mixtures_lie_between_the_methods_and_distorted_images_near_one_of_them(file, tmp_path):
    methods = {name: READY[name] for name in ("nearest", "bilinear", "bicubic")}
    with LensFile(file) as lenses:
        niqe = clean_niqe(lenses, 16)
        for name in ("a", "b"):
            build_rank_set(methods, lenses, niqe, tmp_path / f"{name}.h5", patch=32, mixtures=2, distorted=3)
    with RankSet(tmp_path / "a.h5") as ranked, RankSet(tmp_path / "b.h5") as again:
        added = ["mixture 1", "mixture 2", "distorted 1", "distorted 2", "distorted 3"]
        assert ranked.names == [*methods, *added]
        assert ranked.identity == again.identity
        image, score = ranked.read(range(len(ranked)))
    pure, mixed, noisy_ones = image[:, :3], image[:, 3:5], image[:, 5:]
    slack = 1e-5 * pure.abs().max()
    assert (mixed <= pure.amax(1, keepdim=True) + slack).all() and (mixed >= pure.amin(1, keepdim=True) - slack).all()
    share = torch.linalg.lstsq(pure.flatten(2).mT.double(), mixed.flatten(2).mT.double()).solution  # (M, methods, 2)
    torch.testing.assert_close(share.sum(1), torch.ones_like(share[:, 0]), rtol=0, atol=1e-3)
    assert share.std(0).min() > 0.1  # each patch has weights of its own
    torch.testing.assert_close(niqe.score(mixed[:, :1].double()), score[:, 3].double(), rtol=1e-3, atol=0)
    moved = (noisy_ones[:, :, None] - image[:, None, :5]).std((3, 4)).amin(2)  # from the one of which it is a copy
    assert moved.min() > 0 and moved.max() < 10**-2.1 and moved.std() > 1e-4
    parent = (noisy_ones[:, :, None] - image[:, None, :5]).std((3, 4)).argmin(2)
    pattern = noisy_ones - image[torch.arange(len(image))[:, None], parent]
    uneven = (pattern[..., 2:, 2:] - pattern[..., :-2, :-2]).abs().amax((2, 3)) / pattern.std((2, 3))
    assert 0.05 < (uneven < 0.05).double().mean() < 0.4  # grids of the upscaling's period that are the same everywhere


def test_a_generator_keeps_the_statistics_that_it_started_with(batch):
    method = adversarial(network={"name": "srresnet", "channels": 4, "blocks": 1})
    before = {name: x.clone() for name, x in method.network.named_buffers()}
    assert before and method.train().discriminator.training and method.network.training
    method.training_terms(batch, 0)
    for name, x in method.network.named_buffers():
        assert torch.equal(x, before[name]), name


def test_an_interrupted_rank_set_keeps_what_a_method_has_done(file, tmp_path, monkeypatch):
    asked: list[str] = []
    predict = type(READY["nearest"]).predict

    def counted(self, observation, scale):
        asked.append(self.name)
        return predict(self, observation, scale)

    class Broken:
        def predict(self, observation, scale):
            raise LensphysError("out of order")

    with LensFile(file) as lenses:
        niqe = clean_niqe(lenses, 16)
        with pytest.raises(LensphysError, match="out of order"):
            build_rank_set({"nearest": READY["nearest"], "b": Broken()}, lenses, niqe, tmp_path / "ranks.h5")
        kept = list(tmp_path.iterdir())
        assert len(kept) == 1 and kept[0].suffix == ".npy"
        found = np.load(kept[0])
        with monkeypatch.context() as patch:
            patch.setattr(type(READY["nearest"]), "predict", counted)
            build_rank_set({"n": READY["nearest"], "b": READY["bicubic"]}, lenses, niqe, tmp_path / "ranks.h5")
        assert set(asked) == {"bicubic"}  # what another name for the same method has done is not done again
        with RankSet(tmp_path / "ranks.h5") as ranked:
            assert np.array_equal(ranked.read(range(len(found)))[0][:, 0].numpy(), found)


def test_a_rank_set_stays_for_the_same_call_and_is_no_other_call_s(file, tmp_path):
    methods, path = {"a": READY["nearest"], "b": READY["bicubic"]}, tmp_path / "ranks.h5"
    with LensFile(file) as lenses:
        niqe = clean_niqe(lenses, 16)
        build_rank_set(methods, lenses, niqe, path, patch=32)
        before = path.stat().st_mtime_ns
        build_rank_set(methods, lenses, niqe, path, patch=32)
        assert path.stat().st_mtime_ns == before
        for changed in ({"patch": 20}, {"patch": 32, "mixtures": 1}, {"patch": 32, "limit": 7}):
            with pytest.raises(LensphysError, match="another folder, or remove it"):
                build_rank_set(methods, lenses, niqe, path, **changed)
        with pytest.raises(LensphysError, match="of other methods"):
            build_rank_set({"a": READY["bilinear"], "b": READY["bicubic"]}, lenses, niqe, path, patch=32)


def test_patches_of_an_image_are_all_held_out_or_none(file, tmp_path):
    with LensFile(file) as lenses:
        build_rank_set(
            {"a": READY["nearest"], "b": READY["bicubic"]}, lenses, clean_niqe(lenses, 16), tmp_path / "r.h5", patch=16
        )
    with RankSet(tmp_path / "r.h5") as ranked:
        batches = RankBatches(ranked, BatchSettings(batch_size=2, validation_fraction=0.4), 0)
        held, seen = set(ranked.row[batches.validation].tolist()), set(ranked.row[batches.training].tolist())
        assert (
            held and not held & seen and held | seen == set(ranked.row.tolist()) and len(ranked) > 3 * len(held | seen)
        )
        assert len(batches.validation) + len(batches.training) == len(ranked)


def test_rank_sets_that_cannot_be_made(file, tmp_path):
    with LensFile(file) as lenses:
        niqe = clean_niqe(lenses, 16)
        with pytest.raises(LensphysError, match="at least two methods"):
            build_rank_set({"a": READY["nearest"]}, lenses, niqe, tmp_path / "a.h5")
        both = {"a": READY["nearest"], "b": READY["bicubic"]}
        with pytest.raises(LensphysError, match="16 to 64, got 8"):
            build_rank_set(both, lenses, niqe, tmp_path / "a.h5", patch=8)
        with pytest.raises(LensphysError, match="is no rank set"):
            RankSet(file)


def test_a_run_that_is_no_ranker_ranks_nothing(file, tmp_path, batch):
    train(experiment(file, {"name": "supervised", "network": NETWORK}), tmp_path)
    with pytest.raises(LensphysError, match="holds the method supervised, not a ranker"):
        RankContentSettings(run=str(tmp_path)).build()(batch.truth)


# ---------------------------------------------------------------- physics for everyone


def test_any_supervised_method_can_add_the_physics(batch):
    physics = PhysicsLossSettings(
        observation=ObservationConsistency(weight=2.0), intensity_conservation=IntensityConservation(weight=3.0)
    )
    network = network_settings("srresnet")(**SMALL["srresnet"])
    torch.manual_seed(0)
    method = SupervisedSettings(name="supervised", network=network, physics=physics).build()
    terms = method.training_terms(batch, 0)
    assert set(terms) == {"pixel", "observation", "intensity_conservation", "loss"}
    expected = terms["pixel"] + 2 * terms["observation"] + 3 * terms["intensity_conservation"]
    torch.testing.assert_close(terms["loss"], expected)


def test_terms_that_need_a_lens_model_are_refused():
    with pytest.raises(ValidationError, match="variation_density: needs a lens model"):
        SupervisedSettings.model_validate(
            {"name": "supervised", "network": NETWORK, "physics": {"variation_density": {}}}
        )


def test_without_clean_images_there_is_no_niqe(file, monkeypatch):
    with LensFile(file) as lenses:
        monkeypatch.setattr(LensFile, "has", lambda self, name: False)
        with pytest.raises(LensphysError, match="no clean HR images"):
            clean_niqe(lenses)
