"""Figures of an evaluation and of a training, and the convergence beyond the smooth lens that they show."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from lensphys.basics.checks import LensphysError
from lensphys.basics.panels import save_figure
from lensphys.evaluation.figures import Sample, distribution_figure, sample_figure
from lensphys.evaluation.substructure import beyond_macro, true_substructure
from lensphys.model import SIE, PointMass, Shear
from lensphys.model.by_name import deflection_of
from lensphys.observation import Camera, NoPSF
from lensphys.prediction import Prediction
from lensphys.tracing.deflection import DeflectionField
from lensphys.tracing.grid import PixelGrid
from lensphys.training.figures import loss_figure

GRID = PixelGrid(64, 60, 0.05)
LENS = {"theta_E": 1.1, "e1": 0.1, "e2": -0.05, "center_x": 0.02, "center_y": 0.01}
SHEAR = {"gamma1": 0.03, "gamma2": -0.02}
MACRO = {f"lens.{name}": x for name, x in LENS.items()} | {f"shear.{name}": x for name, x in SHEAR.items()}
POINT = {"theta_E": 0.1, "center_x": 0.512, "center_y": -0.74}


def prediction(left_out: str = "") -> Prediction:
    values = {name: torch.tensor([x], dtype=torch.float64) for name, x in MACRO.items()}
    lens = {name: values[f"lens.{name}"] for name in LENS}
    shear = {name: values[f"shear.{name}"] for name in SHEAR}
    centre = lens["center_x"], lens["center_y"]
    mass = SIE(**lens) + Shear(**shear, center_x=centre[0], center_y=centre[1]) + PointMass(**POINT)
    image = torch.ones(1, 1, *GRID.shape, dtype=torch.float64)
    values = {name: x for name, x in values.items() if name != left_out}
    return Prediction(
        image, Camera(GRID, NoPSF()), image, DeflectionField.from_lens(mass, GRID, like=image), None, values
    )


def test_what_is_left_beyond_the_smooth_lens_is_the_sub_halo():
    found = beyond_macro(prediction())
    # all of the sub-halo's mass, pi theta_E^2, and it stands where the sub-halo stands
    assert float(found.sum()) * GRID.pixel_area == pytest.approx(math.pi * POINT["theta_E"] ** 2, rel=0.15)
    x, y = GRID.positions(like=found)[0].flatten(1)[:, int(found.argmax())].tolist()
    assert x == pytest.approx(POINT["center_x"], abs=GRID.scale) and y == pytest.approx(
        POINT["center_y"], abs=GRID.scale
    )
    model = {"lens_model_list": ["SIE", "SHEAR", "POINT_MASS"], "kwargs_lens": [{}, {}, POINT]}
    smooth = {"lens_model_list": ["SIS"], "kwargs_lens": [{"theta_E": 1.0}]}
    truth = true_substructure([model, smooth], GRID)
    assert torch.allclose(truth[0], found[0], atol=0.02 * float(found.max()))
    assert truth[1].abs().max() == 0


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("LINE_MASS", {"theta_E": 0.2, "length": 0.4, "phi": 0.5, "center_x": 0.1, "center_y": -0.2}),
        ("TNFW", {"Rs": 0.1, "alpha_Rs": 0.02, "r_trunc": 0.15, "center_x": 0.1, "center_y": -0.2}),
    ],
)
def test_vortices_and_halos_are_substructure_too(name, values):
    model = {"lens_model_list": ["SIE", name], "kwargs_lens": [{"theta_E": 1.0}, values]}
    found = true_substructure([model], GRID)
    theta = torch.tensor([[[1e4]], [[0.0]]], dtype=torch.float64)[None]
    mass = 1e4 * float(deflection_of([[(name, values)]], theta, compiled=False)[0, 0]) * math.pi
    assert float(found.sum()) * GRID.pixel_area == pytest.approx(mass, rel=0.2) and mass > 1e-3
    x, y = GRID.positions(like=found)[0].flatten(1)[:, int(found.argmax())].tolist()
    assert math.hypot(x - 0.1, y + 0.2) < 0.5


@pytest.mark.parametrize(("ending", "begins"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_a_figure_is_what_its_name_says(tmp_path, ending, begins):
    save_figure(loss_figure([{"epoch": 0, "seconds": 1.0, "loss": 1.0}]), tmp_path / f"a.{ending}")
    assert (tmp_path / f"a.{ending}").read_bytes().startswith(begins)


def test_without_a_smooth_lens_there_is_nothing_beyond_it():
    assert beyond_macro(prediction("shear.gamma1")) is None
    assert beyond_macro(replace(prediction(), deflection=None)) is None


def test_sample_figure_leaves_out_columns_that_nobody_has():
    lr, sr = np.ones((6, 5)), np.ones((12, 10))
    plain = Sample("a", (0.5, 0.6), lr, sr)
    assert [ax.get_title() for ax in sample_figure([plain]).axes if ax.get_title()] == ["LR", "SR"]
    full = replace(plain, hr=sr, alpha=sr, sigma=sr, kappa=sr, source=sr, psnr=40.0)
    figure = sample_figure([plain, full], name="fit")
    headings = [ax.get_title() for ax in figure.axes if ax.get_title()]
    assert headings == ["LR", "fit", "HR", "fit − HR", r"$\sigma$", r"$|\alpha|$ [arcsec]", r"$\kappa$", "source"]
    figure = sample_figure([replace(full, substructure=0 * sr, true_substructure=sr)])
    shown = {ax.get_title(): ax.images[0] for ax in figure.axes if ax.get_title()}
    assert r"$|\alpha|$ [arcsec]" not in shown  # its place is taken
    ours, true = shown[r"$\delta\kappa$"], shown[r"true $\delta\kappa$"]
    assert ours.get_clim() == true.get_clim() == (-1.0, 1.0)
    smooth = replace(full, substructure=0 * sr)
    for least, reach in ((0.01, sample_figure([smooth])), (0.2, sample_figure([smooth], least_kappa=0.2))):
        limits = [ax.images[0].get_clim() for ax in reach.axes if ax.get_title() == r"$\delta\kappa$"]
        assert limits == [(-least, least)]
    with pytest.raises(LensphysError, match="at least one sample, got none"):
        sample_figure([])


def test_sample_figure_puts_the_first_row_below_and_the_residual_is_symmetric():
    sr, hr = np.zeros((12, 10)), np.ones((12, 10))
    figure = sample_figure([Sample("a", (0.5, 0.6), np.ones((6, 5)), sr + 0.9 * hr, hr)])
    shown = {ax.get_title(): ax.images[0] for ax in figure.axes if ax.get_title()}
    assert all(image.origin == "lower" for image in shown.values())
    assert shown["LR"].get_extent() == [-0.5, 0.5, -0.6, 0.6]
    low, high = shown["SR − HR"].get_clim()
    assert low == -high < 0
    # 4 HR pixels of 1 make an LR pixel of 4: one of 1 has a quarter of the surface brightness
    assert float(shown["LR"].get_array().max()) == pytest.approx(0.25)


def test_distribution_figure_takes_what_is_not_finite_and_refuses_other_lengths(tmp_path):
    values = {"fit": np.array([40.0, np.nan, 42.0]), "bicubic": np.array([30.0, 31.0, np.inf])}
    save_figure(distribution_figure(values, np.array([0, 0, 1]), ["a", "b"]), tmp_path / "f.png")
    assert (tmp_path / "f.png").stat().st_size > 5000
    with pytest.raises(LensphysError, match="values of fit and labels must have the same shape"):
        distribution_figure(values, np.array([0, 0]), ["a", "b"])


def test_loss_figure_has_a_panel_a_quantity():
    more = {"note": "x", "flag": True, "psnr": 30.0}
    records = [{"step": k, "train/loss": 100.0 * 0.8**k, "valid/loss": 120.0 * 0.8**k, **more} for k in range(30)]
    figure = loss_figure(records)
    shown = {ax.get_title(): ax for ax in figure.axes if ax.get_title()}
    assert set(shown) == {"loss", "psnr"}
    assert len(shown["loss"].lines) == 2
    assert (shown["loss"].get_yscale(), shown["psnr"].get_yscale()) == ("log", "linear")
    assert loss_figure([{"epoch": 1, "loss": math.nan}, {"epoch": 2, "loss": 1.0}]).axes[0].get_xlabel() == "epoch"
    with pytest.raises(LensphysError, match="records with a 'step' or an 'epoch' and a number"):
        loss_figure([{"loss": 1.0}])
