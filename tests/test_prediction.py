"""Predictions of parts of a batch, joined: every image keeps what is its own, in whatever order the parts come."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lensphys.basics.checks import LensphysError
from lensphys.model import SIE, Gaussian, LensModel, Member, Sersic
from lensphys.observation import Camera, GaussianPSF
from lensphys.prediction import BODY, Covariance, Prediction, Verdict, joined
from lensphys.tracing.deflection import DeflectionField
from lensphys.tracing.grid import PixelGrid

pytestmark = pytest.mark.usefixtures("float64")

GRID = PixelGrid(10, 12, 0.2)
CAMERA = Camera(GRID, GaussianPSF(0.2))
ORDER = torch.tensor([3, 0, 4, 1, 2])  # of the parts' images, one after the other
SIZES = (2, 1, 2)


def of(index: Tensor, bodies: int = 0) -> Prediction:
    """The prediction of some images, each of them another: number i has theta_E = 1 + i / 10, and so on."""
    i = index.double()
    mass, source = SIE(1 + 0.1 * i, 0.1, -0.05, 0.01 * i), Sersic(1 + i, 0.3, 1.0, center_x=0.05 * i)
    field = DeflectionField.from_lens(mass, GRID, like=i, centre=torch.stack([0.01 * i, -0.02 * i], dim=1))
    image = CAMERA.render(source, field)
    table = (i[:, None, None] + torch.arange(bodies)[:, None] / 10) * torch.ones(len(BODY))
    parameters = {"lens.theta_E": 1 + 0.1 * i} | ({"only.some": 7 * i} if bodies else {})
    return Prediction(
        image,
        CAMERA,
        2 * image,
        field,
        source,
        parameters,
        3 + index,
        image + 5,
        image / 100,
        {name: 0.01 * value for name, value in parameters.items()},
        table,
        [Verdict("suspect", (f"image {int(k)}",)) for k in index],
        covariance=Covariance(
            ("b", "a") if bodies else ("a", "c"), i[:, None, None] + torch.tensor([[1, 0.1], [0.1, 2]])
        ),
    )


@pytest.fixture(scope="module")
def rows(float64) -> list[Tensor]:
    return list(ORDER.split(SIZES))


@pytest.fixture(scope="module")
def whole(rows) -> Prediction:
    return joined([of(r, bodies) for r, bodies in zip(rows, (0, 2, 1), strict=True)], rows)


def test_images_are_in_the_order_of_the_batch(whole):
    known = of(torch.arange(5))
    for name in ("image", "observed", "sigma", "constrained", "fitted"):
        torch.testing.assert_close(getattr(whole, name), getattr(known, name), msg=name)
    torch.testing.assert_close(whole.parameters["lens.theta_E"], known.parameters["lens.theta_E"])
    torch.testing.assert_close(whole.errors["lens.theta_E"], known.errors["lens.theta_E"])
    assert whole.verdicts == known.verdicts
    assert whole.camera == CAMERA


def test_deflection_and_source_answer_for_their_own_images(whole):
    known, fine = of(torch.arange(5)), GRID.resampled(3)
    torch.testing.assert_close(whole.deflection.alpha, known.deflection.alpha)
    torch.testing.assert_close(whole.deflection.centre, known.deflection.centre)
    torch.testing.assert_close(whole.deflection.at(fine).alpha, known.deflection.at(fine).alpha)
    torch.testing.assert_close(whole.deflection.radial, known.deflection.radial)
    beta = known.deflection.beta  # of each image its own positions
    torch.testing.assert_close(whole.source(beta), known.source(beta))
    torch.testing.assert_close(whole.source_image(fine), known.source_image(fine))  # and one position for all
    torch.testing.assert_close(CAMERA.render(whole.source, whole.deflection), known.image)


def test_fewer_subhalos_are_filled_up(whole, rows):
    assert whole.bodies.shape == (5, 2, len(BODY))
    counts = {int(i): n for part, n in zip(rows, (0, 2, 1), strict=True) for i in part}
    for i, n in counts.items():
        for k in range(2):
            expected = torch.full((len(BODY),), i + k / 10 if k < n else torch.nan)
            torch.testing.assert_close(whole.bodies[i, k], expected, equal_nan=True)


def test_a_parameter_that_some_lack_is_nan_there(whole):
    some = whole.parameters["only.some"]
    assert some.isnan().tolist() == [i in (3, 0) for i in range(5)]
    torch.testing.assert_close(some[[1, 2, 4]], 7 * torch.tensor([1.0, 2.0, 4.0]))
    torch.testing.assert_close(whole.errors["only.some"][[1, 2, 4]], 0.07 * torch.tensor([1.0, 2.0, 4.0]))


def test_covariances_are_by_name(whole):
    found = whole.covariance.among(("a", "b", "c"))
    for i in range(5):
        if i in (3, 0):
            known = [[i + 1, torch.nan, i + 0.1], [torch.nan] * 3, [i + 0.1, torch.nan, i + 2]]
        else:
            known = [[i + 2, i + 0.1, torch.nan], [i + 0.1, i + 1, torch.nan], [torch.nan] * 3]
        torch.testing.assert_close(found[i], torch.tensor(known), equal_nan=True)
    assert whole.covariance.among(()).shape == (5, 0, 0) and whole.covariance.among(("x",)).isnan().all()


def test_without_rows_the_parts_come_one_after_the_other():
    found = joined([of(torch.tensor([0, 1])), of(torch.tensor([2]))])
    torch.testing.assert_close(found.image, of(torch.arange(3)).image)
    torch.testing.assert_close(found.fitted, torch.tensor([3, 4, 5]))


def test_each_image_keeps_its_psf():
    first, second = of(torch.tensor([1])), of(torch.tensor([0]))
    wide, narrow = (GaussianPSF(fwhm=torch.tensor([fwhm])) for fwhm in (0.3, 0.1))
    parts = [replace(p, camera=replace(p.camera, psf=psf)) for p, psf in ((first, narrow), (second, wide))]
    whole = joined(parts, [torch.tensor([1]), torch.tensor([0])]).camera.psf
    assert isinstance(whole, GaussianPSF) and torch.equal(whole.fwhm, torch.tensor([0.3, 0.1]))
    assert whole.profiles(0.05, torch.zeros(1)).shape[1] == wide.profiles(0.05, torch.zeros(1)).shape[1]


def test_one_part_is_the_whole():
    part = of(torch.tensor([0, 1]))
    assert joined([part]) is part


def test_one_part_in_another_order_is_put_in_order():
    index = torch.tensor([2, 0, 1])
    found = joined([of(index)], [index])
    torch.testing.assert_close(found.image, of(torch.arange(3)).image)


def test_what_one_part_lacks_the_whole_lacks():
    parts = [of(torch.tensor([0, 1])), of(torch.tensor([2]))]
    for name in ("deflection", "source", "sigma", "constrained", "bodies"):
        found = joined([parts[0], replace(parts[1], **{name: None})])
        assert getattr(found, name) is None, name
    assert joined([parts[0], replace(parts[1], verdicts=[])]).verdicts == []
    bare = joined([parts[0], replace(parts[1], deflection=replace(parts[1].deflection, formula=None))])
    assert bare.deflection.formula is None


def test_one_number_of_fitted_parameters_serves_all():
    found = joined([replace(of(torch.tensor([0, 1])), fitted=5), of(torch.tensor([2]))])
    assert found.fitted.tolist() == [5, 5, 5]


def test_the_shapes_of_a_prediction_are_checked():
    part = of(torch.tensor([0]))
    with pytest.raises(LensphysError, match="image and camera grid must have the same shape"):
        replace(part, image=part.image[..., :-1])
    with pytest.raises(LensphysError, match=r"image must have the shape \(B, 1, H, W\)"):
        replace(part, image=part.image[:, 0])


def test_the_units_of_a_model_are_those_that_its_components_declare():
    model = LensModel.smooth()
    lit = replace(model, lens_light={"lens_light.0": Member.from_component(Gaussian)})
    assert lit.units["source.amp"] == "flux / arcsec^2"
    assert lit.units["lens_light.0.amp"] == "flux"  # of the whole Gaussian
    assert lit.units["shear.center_x"] == "arcsec"  # tied to that of the lens
    assert set(lit.names) < set(lit.units)
