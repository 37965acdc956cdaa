"""What a network has learned from, and what happens to images beyond: they are fitted, and say so."""

import math
from dataclasses import replace

import pytest
import torch

from lensphys.basics.checks import LensphysError
from lensphys.data import LensFile
from lensphys.methods import RefinedFit
from lensphys.methods.interpolation import Interpolation
from lensphys.methods.where_valid import where_valid
from lensphys.observation import Conditions, GaussianPSF, Instrument, Observation, PixelPSF
from lensphys.observation.kernel import psf_kernel
from lensphys.observation.validity import Span, Validity, psf_fwhm, psf_width
from lensphys.prediction import Verdict
from lensphys.simulation import Recipe, simulate
from lensphys.training.experiment import load_run, run_validity
from lensphys.weights import weights_folder


def seen(height: int = 30, width: int = 34, fwhm: tuple[float, ...] = (0.2,), scale: float = 0.1) -> Observation:
    """Images of a telescope with a PSF for each."""
    image = torch.rand(len(fwhm), 1, height, width, generator=torch.Generator().manual_seed(0))
    instrument = Instrument.named("model_2").model_copy(update={"pixel_scale": scale})
    return instrument.observation(image, Conditions(psf_fwhm=torch.tensor(fwhm)))


LEARNED = Validity.from_observations([seen(fwhm=(0.2, 0.3)), seen(fwhm=(0.25,))])


def test_what_images_span():
    assert LEARNED.images == 3
    assert LEARNED.pixel_scale == Span(low=0.1, high=0.1) and LEARNED.width == Span(low=3.4, high=3.4)
    assert (LEARNED.psf_fwhm.low, LEARNED.psf_fwhm.high) == pytest.approx((0.2, 0.3), rel=0.02)
    assert Validity.from_observations([]) is None


def test_the_width_of_a_psf_is_that_of_the_square_that_holds_as_much_light():
    wide = seen(fwhm=(0.4,))
    assert float(psf_width(wide)) == pytest.approx(4 * math.sqrt(math.pi / (2 * math.log(2))), rel=1e-3)


def test_a_psf_is_as_wide_as_its_kernel():
    law = seen(fwhm=(0.16,))
    camera = replace(law.camera, psf=GaussianPSF(0.16), supersampling=5)
    kernel, scale = psf_kernel(camera)
    pixels = replace(camera, psf=PixelPSF(torch.from_numpy(kernel), scale))
    widths = [float(psf_fwhm(replace(law, camera=one))) for one in (camera, pixels)]
    assert widths == pytest.approx([0.16, 0.16], rel=2e-3)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({}, ""),
        ({"fwhm": (0.31,)}, ""),  # within the margin
        ({"fwhm": (0.4,)}, 'PSF 0.4" (it learned 0.2 to 0.3")'),
        ({"height": 60}, 'height 6" (it learned 3")'),
        ({"width": 17}, 'width 1.7" (it learned 3.4")'),
        ({"scale": 0.12, "height": 25, "width": 28}, 'pixels 0.12" (it learned 0.1")'),
    ],
)
def test_what_lies_outside(other, words):
    assert LEARNED.outside(seen(**other)) == [words]


def test_the_brightness_of_an_image_limits_nothing():
    faint = seen()
    faint = replace(faint, image=1e-3 * faint.image)
    assert Validity.from_observations([faint]).peak_snr.high < LEARNED.peak_snr.low and LEARNED.outside(faint) == [""]


def test_images_beyond_are_fitted_and_the_others_are_not():
    observation = seen(fwhm=(0.2, 0.5, 0.25, 0.6))
    asked = {"network": [], "fit": []}

    def answer(name, quality):
        def predict(part):
            asked[name] += part.image[:, 0, 0, 0].tolist()
            made = Interpolation(name="bicubic").predict(part, 2)
            return replace(made, verdicts=[Verdict(quality, ("a reason",))] * len(part))

        return predict

    made = where_valid(LEARNED, observation, answer("network", "good"), answer("fit", "bad"))
    assert asked["network"] == observation.image[[0, 2], 0, 0, 0].tolist()
    assert asked["fit"] == observation.image[[1, 3], 0, 0, 0].tolist()
    assert torch.equal(made.image, Interpolation(name="bicubic").predict(observation, 2).image)
    assert [v.quality for v in made.verdicts] == ["good", "bad", "good", "bad"]
    note = 'fitted from scratch, because the network does not know such images: PSF 0.5" (it learned 0.2 to 0.3")'
    assert made.verdicts[1].reasons == ("a reason", note) and made.verdicts[0].reasons == ("a reason",)
    asked["network"].clear()
    where_valid(None, observation, answer("network", "good"), answer("fit", "bad"))
    assert len(asked["network"]) == 4  # who says nothing knows everything


def test_shipped_weights_fit_a_field_of_view_that_they_do_not_know(tmp_path):
    path = simulate(Recipe.named("model_3", ["height=40", "width=40"]), 1, tmp_path / "a.h5", classes=["no_sub"])
    method = load_run(weights_folder("model_3"))
    with LensFile(path) as lenses:
        observation, true = lenses.observation(), float(lenses.read("theta_E")[0])
    one_pass = method.predict(observation, 2)
    assert float(one_pass.parameters["theta_E"]) == pytest.approx(true, abs=5e-3)
    assert torch.equal(one_pass.image, RefinedFit().predict(observation, 2).image)
    for made in (one_pass, method.refined(0).predict(observation, 2)):
        assert 'the network does not know such images: height 3.2" (it learned 5.12")' in made.verdicts[0].reasons[-1]


def test_a_faulty_file_is_said_to_be_so(tmp_path):
    assert run_validity(tmp_path) is None
    (tmp_path / "trained_on.yaml").write_text("images: 3\n")
    with pytest.raises(LensphysError, match=r"trained_on.yaml: missing key 'pixel_scale'"):
        run_validity(tmp_path)
