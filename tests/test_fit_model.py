"""A fit is asked for by the names of a recipe: what they mean, what is refused, and that each model is recovered."""

from __future__ import annotations

import json
import math
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from astropy.io import fits
from lenses import one_thread  # noqa: F401
from torch import Tensor
from typer.testing import CliRunner

from lensphys.basics.checks import LensphysError
from lensphys.cli import app
from lensphys.fitting import FitModel, LensProblem, PointBodies, Posterior, Refinement, Search, TNFWBodies
from lensphys.fitting.smooth import smooth_fit
from lensphys.methods import RefinedFit
from lensphys.model import (
    EPL,
    MASS,
    NFW,
    SIE,
    SIS,
    FieldPrior,
    LensModel,
    MassProfile,
    Multipole,
    PointMass,
    Sersic,
    Shear,
)
from lensphys.observation import Camera, ErrorMap, GaussianPSF, Observation
from lensphys.tracing.deflection import DeflectionField
from lensphys.tracing.grid import PixelGrid

pytestmark = pytest.mark.usefixtures("float64")
EXAMPLE = Path(__file__).parents[1] / "examples" / "my_model.yaml"


def model(text: str = "{}") -> FitModel:
    return FitModel.parse(yaml.safe_load(text), "mine.yaml")


# ---------------------------------------------------------------- what the names mean


def test_nothing_said_is_the_default_fit():
    assert model().lens_model == LensModel.smooth() and model() == RefinedFit().model
    assert RefinedFit().refinement == RefinedFit().stages == Refinement()


def test_free_fixed_and_prior():
    member = model("lens: {kind: epl, theta_E: 1.2, gamma: {kind: normal, mean: 2.1, sigma: 0.05}}").lens_model.mass[
        "lens"
    ]
    assert member.fixed == {"theta_E": 1.2}
    gamma, e1 = member.free[:2]
    assert (gamma.low, gamma.high, gamma.mean, gamma.sigma) == pytest.approx((1.85, 2.35, 2.1, 0.05))
    assert e1 is EPL.parameters[2]


@pytest.mark.parametrize(
    ("prior", "expected"),
    [
        ("{kind: uniform, low: 0.5, high: 1.5}", (0.5, 1.5, 1.0, math.inf, False)),
        ("{kind: log_uniform, low: 0.5, high: 2}", (0.5, 2.0, 1.0, math.inf, True)),
        ("{kind: log10_uniform, low: -1, high: 1}", (0.1, 10.0, 1.0, math.inf, True)),
        ("{kind: normal, mean: 1, sigma: 0.1}", (0.5, 1.5, 1.0, 0.1, False)),
        ("{kind: log_normal, median: 1, sigma: 0.1}", (math.exp(-0.5), math.exp(0.5), 1.0, 0.1, True)),
        ("{kind: truncated_normal, mean: 1, sigma: 0.1, low: 0.9, high: 1.2}", (0.9, 1.2, 1.0, 0.1, False)),
    ],
)
def test_every_distribution_is_a_prior(prior, expected):
    (theta_E, *_) = model(f"lens: {{kind: sie, theta_E: {prior}}}").lens_model.mass["lens"].free
    found = (theta_E.low, theta_E.high, theta_E.mean, theta_E.sigma, theta_E.logarithmic)
    assert found == pytest.approx(expected)


def test_centres_are_tied_to_the_lens_unless_given():
    masses = model(
        "more_lenses: [{kind: multipole, m: 4}, {kind: nfw, center_x: 1}, {kind: multipole, m: 3, center_y: 0}]"
    )
    mass = masses.lens_model.mass
    both = {"center_x": "lens.center_x", "center_y": "lens.center_y"}
    assert mass["shear"].tied == mass["more_lenses.0"].tied == both
    assert mass["more_lenses.1"].tied == {} and mass["more_lenses.1"].fixed == {"center_x": 1.0}
    assert mass["more_lenses.2"].tied == {"center_x": "lens.center_x"}
    held = model("lens: {kind: sis, center_x: 0.1}").lens_model.mass["shear"]
    assert held.fixed == {"center_x": 0.1} and held.tied == {"center_y": "lens.center_y"}


@pytest.mark.parametrize(
    ("said", "names"),
    [("", ["a_cos", "a_sin"]), (", phi_m: 0.2", ["a_m"]), (", a_m: 0.01", ["phi_m"])],
)
def test_a_multipole_is_fitted_by_its_waves_unless_it_is_described(said, names):
    member = model(f"more_lenses: [{{kind: multipole, m: 4{said}}}]").lens_model.mass["more_lenses.0"]
    assert [p.name for p in member.free] == names


@pytest.mark.parametrize("m", [2, 3, 4])
def test_the_waves_of_a_multipole_are_the_multipole(m):
    theta = PixelGrid(9, 11, 0.2).positions(like=torch.zeros(1))
    waves = Multipole.in_fits(m, 0.03 * math.cos(m * 0.4), 0.03 * math.sin(m * 0.4), 0.1, -0.2)
    torch.testing.assert_close(waves(theta), Multipole(m, 0.03, 0.4, 0.1, -0.2)(theta), rtol=1e-12, atol=1e-14)


def test_presence_is_membership():
    bare = model("{shear: null, subhalos: null, potential: null, source: {kind: sersic}}")
    assert list(bare.lens_model.mass) == ["lens"]
    refinement = RefinedFit(model=bare).refinement
    assert (
        refinement.beyond.search.rounds == refinement.beyond.search_free.rounds == 0
        and refinement.beyond.source is None
    )
    assert refinement.beyond.priors.potential.amplitude == 0
    assert RefinedFit(model=bare).report.priors.potential.amplitude == 0


def test_what_is_said_of_search_and_potential_changes_that_of_the_fit():
    fit = RefinedFit(
        model=model("{subhalos: {kind: tnfw, gain: 20.0, size: 0.2, shares: [1.0]}, potential: {amplitude: 0.03}}")
    )
    assert fit.refinement.beyond.search == Search(gain=20.0, shares=(1.0,), candidates_per_round=1)
    assert fit.refinement.beyond.search_free == Search(gain=20.0, shares=(1.0,), kept=0.8, candidates_per_round=1)
    assert fit.refinement.beyond.priors.potential == FieldPrior(amplitude=0.03, scale=2.0, slope=2.5)
    assert fit.model.subhalos.bodies(PixelGrid(4, 4, 0.1)) == TNFWBodies(size=0.2)
    assert model().subhalos.bodies(PixelGrid(4, 4, 0.1)) == PointBodies(0.1 * 0.1)
    long = RefinedFit(model=model("subhalos: {kind: tnfw, rounds: 20}"))
    assert long.shortened(3).refinement.beyond.search == Search(rounds=3, candidates_per_round=1)
    assert fit.shortened(3).refinement.beyond.search == Search(
        gain=20.0, shares=(1.0,), candidates_per_round=1, rounds=3
    )


def test_a_model_survives_files_and_other_processes():
    mine = FitModel.named(EXAMPLE)
    assert FitModel.parse(json.loads(mine.model_dump_json()), "dump") == mine
    assert pickle.loads(pickle.dumps(mine)) == mine
    fit = RefinedFit(model=mine)
    assert RefinedFit.model_validate_json(fit.model_dump_json()).refinement == fit.refinement


def test_the_resolved_model_says_all():
    told = model("lens: {kind: sis, center_x: 0.1}").resolved
    assert told["lens"]["component"] == "SIS" and told["lens"]["center_x"] == 0.1
    assert told["lens"]["theta_E"] == {"unit": "arcsec", "low": "0.05 half widths of the field of view",
                                       "high": "1 half widths of the field of view", "logarithmic": True}  # fmt: skip
    assert told["shear"]["center_y"] == "lens.center_y" and told["shear"]["gamma1"]["sigma"] == 0.1
    assert told["source_freed"] is True and told["subhalos"] == {"kind": "point_mass"}
    json.dumps(told, allow_nan=False)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lens: {kind: sies}", "mine.yaml: 'lens': unknown kind 'sies', choose one of 'sis', 'sie', 'epl'"),
        ("lens: {kind: sie, gamma: 2}", "unknown key 'lens.gamma'"),
        ("lenz: {kind: sie}", "unknown key 'lenz'"),
        (
            "lens: {kind: nfw}",
            "'lens': a fit starts from an Einstein radius, which nfw has not: choose one of sis, sie, epl",
        ),
        ("more_lenses: [{kind: multipole}]", "missing key 'more_lenses.0.m'"),
        ("lens: {kind: epl, gamma: 3.5}", "'lens.gamma': must lie between 1 and 3, got 3.5"),
        ("lens: {kind: sie, theta_E: -1}", "'lens.theta_E': must be positive, got -1"),
        ("lens: {kind: sie, e1: 2.0}", "'lens': SIE: the ellipticity |e| = (1-q)/(1+q) must be below 1, got 2 from e1"),
        ("lens: {kind: sie, e1: 0.8, e2: 0.8}", "must be below 1, got 1.13137 from e1 = 0.8 and e2 = 0.8"),
        ("source: {e1: 1.0}", "'source': Sersic: the ellipticity |e| = (1-q)/(1+q) must be below 1, got 1 from e1"),
        ("source: {n_sersic: 50}", "'source.n_sersic': must lie between 0 and 40, got 50"),
        ("shear: {gamma1: 5}", "'shear.gamma1': must lie between -1 and 1, got 5"),
        ("lens: sie", "'lens': must be a group of keys, got 'sie'"),
        ("potential: 1.2", "'potential': must be a group of keys, got 1.2"),
        (
            "lens: {kind: sie, e1: {kind: uniform, low: -1, high: 0}}",
            "'lens.e1': a fit keeps e1 between -0.6 and 0.6, and",
        ),
        (
            "shear: {gamma1: {kind: normal, mean: 2, sigma: 0.1}}",
            "'shear.gamma1': a fit keeps gamma1 between -0.4 and 0.4",
        ),
        (
            "lens: {kind: epl, gamma: {kind: choice, values: [1.9, 2]}}",
            "'lens.gamma': a fit cannot choose among values",
        ),
        ("lens: {kind: epl, gamma: {kind: normal, mean: 2, sgima: 1}}", "missing key 'lens.gamma.sigma'; unknown key"),
        ("source: {kind: blob}", "'source': unknown kind 'blob', choose one of 'free', 'sersic'"),
        ("subhalos: {kind: dust}", "'subhalos': unknown kind 'dust', choose one of 'point_mass', 'tnfw'"),
        ("subhalos: {kind: point_mass, size: 1.0}", "unknown key 'subhalos.size'"),
        ("subhalos: {kind: tnfw, sise: 1.0}", "unknown key 'subhalos.sise', did you mean 'size'?"),
        ("lens: {kind: epl, gama: 2}", "unknown key 'lens.gama', did you mean 'gamma'?"),
        ("potential: {amplitude: -1.0}", "'potential.amplitude': Input should be greater than or equal to 0"),
    ],
)
def test_what_it_cannot_be_is_refused(text, message):
    with pytest.raises(LensphysError, match=re.escape(message)):
        model(text)


def test_a_number_that_no_fit_would_find_may_be_fixed():
    lens = model("lens: {kind: sie, theta_E: 3.0, e1: 0.7}").lens_model.mass["lens"]
    assert lens.fixed == {"theta_E": 3.0, "e1": 0.7}


# ---------------------------------------------------------------- each model is recovered


def one(*values: float) -> list[Tensor]:
    return [torch.tensor([v]) for v in values]


SOURCE = Sersic(*one(5.0, 0.25, 1.0, 0.1, -0.1, 0.12, 0.08))
BASE = SIE(*one(1.1, 0.1, -0.05, 0.02, -0.03))
SHEAR = Shear(*one(0.03, -0.02, 0.02, -0.03))
NEAR = "center_x: {{kind: normal, mean: {}, sigma: 0.2}}, center_y: {{kind: normal, mean: {}, sigma: 0.2}}"
A3, A4 = 0.03 * np.exp(3j * 0.3), 0.03 * np.exp(4j * 0.3)
CASES: dict[str, tuple[MassProfile, Any, str, dict[str, float]]] = {
    "sis": (SIS(*one(1.1, 0.02, -0.03)), SOURCE, "{lens: {kind: sis}, shear: null}",
            {"lens.theta_E": 1.1, "lens.center_x": 0.02}),
    "sie": (BASE, SOURCE, "shear: null", {"lens.theta_E": 1.1, "lens.e1": 0.1, "lens.e2": -0.05}),
    "shear": (BASE + SHEAR, SOURCE, "{}", {"lens.theta_E": 1.1, "shear.gamma1": 0.03, "shear.gamma2": -0.02}),
    "held": (BASE + SHEAR, SOURCE, "lens: {kind: sie, theta_E: 1.1, center_x: 0.02, center_y: -0.03}",
             {"lens.e1": 0.1, "shear.gamma1": 0.03}),
    "epl": (EPL(*one(1.1, 2.2, 0.1, -0.05, 0.02, -0.03)) + SHEAR, SOURCE,
            "lens: {kind: epl, gamma: {kind: uniform, low: 1.2, high: 2.8}}", {"lens.theta_E": 1.1, "lens.gamma": 2.2}),
    "m3": (BASE + Multipole(3, *one(0.03, 0.3, 0.02, -0.03)), SOURCE,
           "{shear: null, more_lenses: [{kind: multipole, m: 3}]}",
           {"more_lenses.0.a_cos": A3.real, "more_lenses.0.a_sin": A3.imag}),
    "m4": (BASE + SHEAR + Multipole(4, *one(0.03, 0.3, 0.02, -0.03)), SOURCE, "more_lenses: [{kind: multipole, m: 4}]",
           {"more_lenses.0.a_cos": A4.real, "more_lenses.0.a_sin": A4.imag}),
    "m4 turned as known": (BASE + SHEAR + Multipole(4, *one(0.03, 0.3, 0.02, -0.03)), SOURCE,
                           "more_lenses: [{kind: multipole, m: 4, phi_m: 0.3}]", {"more_lenses.0.a_m": 0.03}),
    "m4 by its angle": (BASE + SHEAR + Multipole(4, *one(0.03, 0.3, 0.02, -0.03)), SOURCE,
                        "more_lenses: [{kind: multipole, m: 4, phi_m: {kind: uniform, low: -0.4, high: 1.1}}]",
                        {"more_lenses.0.a_m": 0.03, "more_lenses.0.phi_m": 0.3}),
    "nfw": (BASE + SHEAR + NFW(*one(1.5, 0.15, 1.0, 1.2)), SOURCE,
            f"more_lenses: [{{kind: nfw, Rs: 1.5, {NEAR.format(1.0, 1.2)}}}]",
            {"lens.theta_E": 1.1, "more_lenses.0.alpha_Rs": 0.15}),
    "point mass": (BASE + SHEAR + PointMass(*one(0.08, 0.75, 0.8)), SOURCE,
                   f"more_lenses: [{{kind: point_mass, {NEAR.format(0.7, 0.85)}}}]",
                   {"more_lenses.0.theta_E": 0.08, "more_lenses.0.center_x": 0.75}),
    "two sources": (BASE + SHEAR, SOURCE + Sersic(*one(4.0, 0.12, 1.5, 0.0, 0.0, -0.35, -0.2)),
                    "more_sources: [{kind: sersic}]",
                    {"lens.theta_E": 1.1, "source.R_sersic": 0.25, "more_sources.0.R_sersic": 0.12,
                     "more_sources.0.center_x": -0.35, "more_sources.0.n_sersic": 1.5}),
}  # fmt: skip


def observed(mass: MassProfile, source: Any, size: int = 40) -> Observation:
    camera = Camera(PixelGrid(size, size + 4, 0.1), GaussianPSF(0.12))
    clean = camera.render(source, DeflectionField.from_lens(mass, camera.grid, like=torch.zeros(1)))
    noise = ErrorMap(torch.full_like(clean, 0.01 * float(clean.max())))
    return Observation(noise.sample(clean, torch.Generator().manual_seed(5)), camera, noise)


@pytest.mark.parametrize("case", CASES)
def test_each_model_is_recovered_within_its_errors(case):
    mass, source, text, truth = CASES[case]
    with torch.no_grad():
        fit = smooth_fit(
            LensProblem.from_observation(observed(mass, source), model(text).lens_model), starts=3, steps=20
        )
        values, errors = fit.problem.values(fit.x), Posterior.from_fit(fit).errors()
    assert 0.9 < float(fit.problem.chi2(fit.x)) < 1.05
    for name, known in truth.items():
        found, error = float(values[name]), float(errors[name])
        assert abs(found - known) < 3.5 * error, f"{name} {found:.4f} +- {error:.4f}, truth {known:.4f}"
        assert error < 0.15 * abs(known), name


def test_a_batch_with_fixed_values_is_told_with_them():
    fit = RefinedFit(
        model=model("{lens: {kind: sie, center_x: 0.02, center_y: -0.03}, subhalos: null, potential: null}")
    )
    found = fit.predict(observed(BASE + SHEAR, SOURCE), 2)
    assert float(found.parameters["lens.center_x"]) == 0.02 and "lens.center_x" not in found.errors
    assert float(found.parameters["theta_E"]) == pytest.approx(1.1, abs=0.01)
    assert found.verdicts[0].quality == "good"


# ---------------------------------------------------------------- the command line


@pytest.fixture(scope="module")
def lens_file(float64, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("lens") / "lens.fits"
    seen = observed(BASE + SHEAR + Multipole(4, *one(0.03, 0.3, 0.02, -0.03)), SOURCE)
    star = torch.zeros(1, 1, 15, 15)
    star[..., 7, 7] = 1
    planes = {"SCI": seen.image, "ERR": seen.noise.sigma, "PSF": seen.camera.psf.blur(star, 0.1)}
    fits.HDUList([fits.PrimaryHDU(), *(fits.ImageHDU(p[0, 0].numpy(), name=n) for n, p in planes.items())]).writeto(
        path
    )
    return path


def lensphys(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"})
    return result.exit_code, result.output


@pytest.mark.slow
def test_the_command_fits_the_example(lens_file, tmp_path):
    torch.set_default_dtype(torch.float32)
    code, output = lensphys(
        "super-resolve", lens_file, "-o", tmp_path / "o.fits", "--pixel-scale", 0.1, "--model", EXAMPLE
    )
    torch.set_default_dtype(torch.float64)
    assert code == 0, output
    with fits.open(tmp_path / "o.fits") as out:
        table = {row["NAME"]: (row["VALUE"], row["ERROR"]) for row in out["PARAMETERS"].data}
        history = "".join(out[0].header["HISTORY"])
    value, error = table["more_lenses.0.a_sin"]
    assert abs(value - A4.imag) < 3.5 * error < 0.01
    assert "lens.gamma" in table
    assert 'lensphys model: {"lens": {"component": "EPL"' in history


@pytest.mark.parametrize("other", [["--method", "bicubic"], ["--weights", "model_3"], ["--refine", 2], ["--run", "x"]])
def test_a_model_is_for_refine_alone(lens_file, tmp_path, other):
    code, output = lensphys("super-resolve", lens_file, "-o", tmp_path / "o.fits", "--model", EXAMPLE, *other)
    assert code == 2 and "error: --model says what the method refine fits, and --" in output


def test_a_faulty_model_file_is_one_sentence(lens_file, tmp_path):
    (tmp_path / "m.yaml").write_text("lens: {kind: sie, size: 2}")
    code, output = lensphys("super-resolve", lens_file, "-o", tmp_path / "o.fits", "--model", tmp_path / "m.yaml")
    assert code == 2 and "unknown key 'lens.size'" in output and not (tmp_path / "o.fits").exists()


def test_list_names_the_components():
    code, output = lensphys("list", "components")
    assert code == 0 and all(f"{kind} (mass)" in output for kind in MASS)
    assert "Spherical NFW halo: Rs, alpha_Rs, center_x, center_y" in output
