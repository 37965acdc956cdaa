"""The image of a galaxy as the source of a fit: its derivatives, its file, and a lens that is recovered with it."""

import json
import pickle

import numpy as np
import pytest
import torch
import yaml
from astropy.io import fits
from lenses import one_thread  # noqa: F401
from typer.testing import CliRunner

from lensphys.basics.checks import LensphysError
from lensphys.cli import app
from lensphys.fitting import FitModel, LensProblem, Posterior
from lensphys.fitting.derived import derived
from lensphys.fitting.smooth import smooth_fit
from lensphys.model import SIE, GalaxyImage, Pixels, Shear
from lensphys.observation import Camera, ErrorMap, GaussianPSF, Observation
from lensphys.tracing.deflection import DeflectionField
from lensphys.tracing.grid import PixelGrid

pytestmark = pytest.mark.usefixtures("float64")
SCALE = 0.03
TRUTH = {
    "lens.theta_E": 1.1, "lens.e1": 0.1, "lens.e2": -0.05, "lens.center_x": 0.02, "shear.gamma1": 0.03,
    "source.scale": 1.15, "source.amp": 5.0, "source.center_x": 0.12, "source.center_y": 0.08,
}  # fmt: skip


def one(*values: float) -> list[torch.Tensor]:
    return [torch.tensor([v]) for v in values]


def spiral(height: int = 31, width: int = 35) -> np.ndarray:
    """A disc with two arms and a knot."""
    y, x = (np.indices((height, width)) - np.array([height // 2, width // 2])[:, None, None]) * SCALE
    r, phi = np.hypot(x, y), np.arctan2(y, x)
    disc = np.exp(-r / 0.12) * (1 + 0.7 * np.cos(2 * phi - 14 * r))
    return disc + 0.5 * np.exp(-((x - 0.15) ** 2 + (y + 0.1) ** 2) / 0.002)


@pytest.fixture
def galaxy(tmp_path):
    fits.writeto(tmp_path / "galaxy.fits", spiral().astype("f4"), fits.Header({"PIXSCALE": SCALE}))
    return tmp_path / "galaxy.fits"


def observed() -> Observation:
    camera = Camera(PixelGrid(40, 44, 0.1), GaussianPSF(0.12), 2)
    mass = SIE(*one(1.1, 0.1, -0.05, 0.02, -0.03)) + Shear(*one(0.03, -0.02, 0.02, -0.03))
    source = GalaxyImage(Pixels.from_image(spiral(), SCALE), *one(5.0, 1.15, 0.12, 0.08))
    clean = camera.render(source, DeflectionField.from_lens(mass, camera.grid.resampled(2), like=torch.zeros(1)))
    noise = ErrorMap(torch.full_like(clean, 0.01 * float(clean.max())))
    return Observation(noise.sample(clean, torch.Generator().manual_seed(5)), camera, noise)


def model(file, more: str = "") -> FitModel:
    said = f"source: {{kind: image, file: {file}{more}}}\nsubhalos: null\npotential: null"
    return FitModel.parse(yaml.safe_load(said), "mine.yaml")


def test_the_spline_is_the_image_at_its_pixels_and_dark_outside():
    image = spiral()
    grid = PixelGrid(*image.shape, SCALE)
    source = GalaxyImage(Pixels.from_image(image, SCALE), amp=3.0)
    assert source(grid.positions(like=torch.zeros(1)))[0, 0].numpy() == pytest.approx(3 * image / image.max(), abs=1e-4)
    outside = source(torch.tensor([[0.9, 0.0], [0.0, -5.0]]).reshape(2, 2, 1, 1))
    assert outside.abs().max() < 1e-4


def test_derivatives_are_those_of_the_formula():
    names = ("amp", "scale", "center_x", "center_y")
    beta = 0.4 * torch.rand(2, 2, 6, 7, generator=torch.Generator().manual_seed(0)) - 0.2
    values = dict(
        zip(
            names, (torch.tensor([2.0, 3.0]), torch.tensor([1.1, 0.8]), *[torch.tensor([0.03, -0.05])] * 2), strict=True
        )
    )
    source = GalaxyImage(Pixels.from_image(spiral(), SCALE), **values)
    light, columns = source.derivatives(beta, names)
    torch.testing.assert_close(light, source(beta))
    for i, name in enumerate(names):
        up, down = (GalaxyImage(source.image, **values | {name: values[name] + h})(beta) for h in (1e-6, -1e-6))
        torch.testing.assert_close(columns[:, i], (up - down) / 2e-6, atol=1e-6, rtol=1e-5)
    for axis in range(2):
        step = torch.zeros(1, 2, 1, 1)
        step[0, axis] = 1e-6
        slope = (source(beta + step) - source(beta - step)) / 2e-6
        torch.testing.assert_close(source.gradient(beta)[:, axis : axis + 1], slope, atol=1e-6, rtol=1e-5)


def test_the_true_galaxy_recovers_the_lens(galaxy):
    with torch.no_grad():
        fit = smooth_fit(LensProblem.from_observation(observed(), model(galaxy).lens_model), starts=3, steps=20)
        values, errors = fit.problem.values(fit.x), Posterior.from_fit(fit).errors()
        told = derived(fit.problem, fit.x)
    assert 0.9 < float(fit.problem.chi2(fit.x)) < 1.05
    for name, known in TRUTH.items():
        assert abs(float(values[name]) - known) < 3.5 * float(errors[name]) < 0.2 * abs(known), name
    flux = 5.0 * spiral().sum() / spiral().max() * (1.15 * SCALE) ** 2
    assert float(told["source_flux"]) == pytest.approx(flux, rel=0.03)


def test_what_is_said_of_it_is_held(galaxy):
    member = model(galaxy, ", scale: 1.0, center_x: 0.1").lens_model.source["source"]
    assert [p.name for p in member.free] == ["amp", "center_y"] and member.fixed["scale"] == 1.0
    assert not model(galaxy).source.freed


def test_it_survives_files_and_other_processes(galaxy):
    mine = model(galaxy)
    assert FitModel.parse(json.loads(mine.model_dump_json()), "dump") == mine == pickle.loads(pickle.dumps(mine))
    told = mine.resolved["source"]
    assert told["image"]["file"] == "galaxy.fits" and told["image"]["pixel_scale"] == pytest.approx(SCALE)
    assert len(told["image"]["sha256"]) == 64 and told["scale"]["low"] == 0.2
    json.dumps(mine.resolved, allow_nan=False)


def test_a_changed_file_is_read_again(galaxy):
    before = model(galaxy).resolved["source"]["image"]["sha256"]
    fits.writeto(galaxy, 2 + spiral()[::-1], fits.Header({"PIXSCALE": SCALE}), overwrite=True)
    assert model(galaxy).resolved["source"]["image"]["sha256"] != before


@pytest.mark.parametrize(
    ("array", "more", "message"),
    [
        (np.ones((2, 9, 9)), ", pixel_scale: 0.1", "must be one image"),
        (np.ones((9, 9)), "", "has no pixel scale: give pixel_scale in arcsec"),
        (np.ones((9, 9)), ", pixel_scale: -1", "'source.pixel_scale'"),
        (np.full((9, 9), np.nan), ", pixel_scale: 0.1", "holds 81 NaN or infinite pixels"),
        (-np.ones((9, 9)), ", pixel_scale: 0.1", "has no positive pixel"),
        (np.ones((9, 9)), ", pixel_scale: 0.1, n_sersic: 1", "unknown key 'source.n_sersic'"),
        (None, ", pixel_scale: 0.1", "a.npy"),
    ],
)
def test_what_is_no_galaxy_is_refused(tmp_path, array, more, message):
    if array is not None:
        np.save(tmp_path / "a.npy", array)
    with pytest.raises(LensphysError, match=message):
        model(tmp_path / "a.npy", more)


def test_the_command_finds_it_beside_the_model(galaxy, tmp_path):
    seen = observed()
    star = torch.zeros(1, 1, 15, 15)
    star[..., 7, 7] = 1
    planes = {"SCI": seen.image, "ERR": seen.noise.sigma, "PSF": seen.camera.psf.blur(star, 0.1)}
    hdus = [fits.ImageHDU(plane[0, 0].numpy(), name=name) for name, plane in planes.items()]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(tmp_path / "lens.fits")
    (tmp_path / "m.yaml").write_text("source: {kind: image, file: galaxy.fits}\nsubhalos: null\npotential: null")
    torch.set_default_dtype(torch.float32)
    files = [str(tmp_path / name) for name in ("lens.fits", "o.fits", "m.yaml")]
    result = CliRunner().invoke(
        app, ["super-resolve", files[0], "-o", files[1], "--pixel-scale", "0.1", "--model", files[2]]
    )
    torch.set_default_dtype(torch.float64)
    assert result.exit_code == 0, result.output
    with fits.open(files[1]) as out:
        table = {row["NAME"]: (row["VALUE"], row["ERROR"]) for row in out["PARAMETERS"].data}
        history = "".join(out[0].header["HISTORY"])
    value, error = table["lens.theta_E"]
    assert abs(value - 1.1) < 4 * error < 0.02 and "source.scale" in table
    assert '"component": "GalaxyImage"' in history and '"file": "galaxy.fits"' in history
