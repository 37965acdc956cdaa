"""Samples handed to other tools come back the same: lenstronomy, COOLEST, caustics, FITS."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import yaml
from astropy.io import fits
from astropy.wcs import WCS
from typer.testing import CliRunner

from lensphys.basics.checks import LensphysError
from lensphys.cli import app
from lensphys.data import LensFile
from lensphys.data.images import read_images
from lensphys.interop.caustics import caustics_parameters, caustics_profile
from lensphys.interop.coolest import coolest_profile, write_coolest
from lensphys.interop.exporting import export
from lensphys.interop.lenstronomy import lenstronomy_keywords, read_lenstronomy
from lensphys.interop.sample import Truth
from lensphys.observation.kernel import psf_kernel
from lensphys.simulation import Recipe, simulate

ROOT = Path(__file__).parents[1]
PRESETS = ROOT / "lensphys" / "observation" / "instruments"
SIZE = ["height=40", "width=40"]
LENS_LIGHT = "lens_light=[{amp: 3.0, R_sersic: 0.4, n_sersic: 2.0, e1: 0.1, e2: -0.05, center_x: 0.02, center_y: 0.0}]"
EPL = "lens={kind: epl, theta_E: 1.0, gamma: 2.15, e1: 0.1, e2: -0.15, center_x: 0.03, center_y: -0.02}"
SHEAR = "shear={gamma1: -0.03, gamma2: 0.04}"


def file_of(folder: Path, recipe: str, *changes: str, name: str = "a", **options) -> Path:
    classes = options.pop("classes", ["no_sub"])
    made = Recipe.named(recipe, [*SIZE, *changes])
    return simulate(made, 2, folder / f"{name}.h5", classes=classes, seed=5, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("lenses")


@pytest.fixture(scope="module")
def varied(folder) -> Path:
    """SIE and shear, PSF and noise of each image."""
    return file_of(folder, "varied", LENS_LIGHT, name="varied", engine="lenstronomy")


@pytest.fixture(scope="module")
def power_law(folder) -> Path:
    """A lens of many parts, seen by a telescope that integrates over its pixels."""
    return file_of(folder, "model_2", "instrument=euclid_vis", EPL, SHEAR, name="epl", engine="lenstronomy")


def truth_of(path: Path, index: int = 0) -> Truth:
    with LensFile(path) as lenses:
        return Truth.from_file(lenses, index)


def lenstronomy_image(keywords: dict) -> np.ndarray:
    from lenstronomy.Util.class_creator import create_image_model

    model = create_image_model(*(keywords[f"kwargs_{k}"] for k in ("data", "psf", "numerics", "model")))
    return model.image(**keywords["kwargs_params"])


def grid_of(truth: Truth) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = truth.camera.grid.resampled(2).positions(like=torch.empty(0, dtype=torch.float64))[0]
    return x, y


def assert_same_image(image: np.ndarray, clean: np.ndarray, tolerance: float = 1e-6) -> None:
    assert np.abs(image - clean).max() <= tolerance * clean.max()


# --- lenstronomy ---


@pytest.mark.parametrize(
    ("recipe", "changes", "class_name"),
    [
        ("varied", [LENS_LIGHT], "cdm"),
        ("model_1", [], "axion"),
        ("model_2", ["instrument=euclid_vis", EPL, SHEAR], "no_sub"),
        ("model_2", ["instrument=rubin_lsst_i"], "no_sub"),
    ],
    ids=["psf of each image", "counts", "gaussian, integrated pixels", "moffat"],
)
def test_lenstronomy_renders_the_stored_image(tmp_path, recipe, changes, class_name):
    path = file_of(tmp_path, recipe, *changes, classes=[class_name], engine="lenstronomy")
    [written] = export(path, tmp_path / "kwargs.json", "lenstronomy", [1])
    assert_same_image(lenstronomy_image(read_lenstronomy(written)), truth_of(path, 1).lr_clean)


@pytest.mark.parametrize(("scale", "supersampling"), [(0.101, 3), (0.0505, 2)])
def test_lenstronomy_blurs_with_a_kernel(tmp_path, scale, supersampling):
    x = np.arange(-7, 8) * scale
    kernel = np.exp(-0.5 * ((x[:, None] - 0.3 * x) ** 2 / 0.1**2 + x**2 / 0.15**2))
    fits.PrimaryHDU(kernel / kernel.sum()).writeto(tmp_path / "psf.fits")
    preset = yaml.safe_load((PRESETS / "model_2.yaml").read_text())
    preset |= {"psf": {"kind": "kernel", "file": "psf.fits", "pixel_scale": scale}, "supersampling": supersampling}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(preset))
    path = file_of(tmp_path, "model_2", f"instrument={tmp_path / 'mine.yaml'}", engine="lenstronomy")
    assert_same_image(lenstronomy_image(lenstronomy_keywords(truth_of(path))), truth_of(path).lr_clean)


def test_lenstronomy_gets_the_images_of_galaxies_and_the_noise(tmp_path):
    galaxies = np.random.default_rng(0).random((3, 9, 11)).astype(np.float32)
    np.save(tmp_path / "galaxies.npy", galaxies)
    source = f"source={{kind: images, file: {tmp_path / 'galaxies.npy'}, pixel_scale: 0.08, magnitude: 21.0, phi: 0.4, "
    path = file_of(tmp_path, "model_3", source + "center_x: 0.1, center_y: 0.0}", engine="lenstronomy")
    [written] = export(path, tmp_path / "kwargs.json", "lenstronomy", [0])
    keywords, truth = read_lenstronomy(written), truth_of(path)
    assert_same_image(lenstronomy_image(keywords), truth.lr_clean)
    data = keywords["kwargs_data"]
    assert np.array_equal(data["image_data"].astype(np.float32), truth.lr)
    variance = data["background_rms"] ** 2 + truth.lr_clean / data["exposure_time"]
    assert np.allclose(np.sqrt(variance), truth.error, rtol=1e-6)


def test_lenstronomy_data_in_counts_are_in_flux(tmp_path):
    truth = truth_of(file_of(tmp_path, "model_1"))
    data = lenstronomy_keywords(truth)["kwargs_data"]
    assert truth.flux_scale >= 1000 and "exposure_time" not in data
    assert np.allclose(data["image_data"] * truth.flux_scale, truth.lr)
    assert np.allclose(data["noise_map"] * truth.flux_scale, truth.error)


# --- COOLEST ---


def template_at(path: Path):
    from coolest.template.json import JSONSerializer

    return JSONSerializer(str(path.with_suffix(""))).load(skip_jsonpickle=True, verbose=False)


def in_coolest(profiles) -> list[tuple[str, dict[str, float]]]:
    return [(p.type, {name: value.point_estimate.value for name, value in p.parameters.items()}) for p in profiles]


def test_a_coolest_template_holds_the_lens(varied, power_law, tmp_path):
    for path in (varied, power_law):
        [written] = export(path, tmp_path / f"{path.stem}.json", "coolest", [1])
        truth, (lens, source, *shears) = truth_of(path, 1), template_at(written).lensing_entities
        assert (lens.redshift, source.redshift) == (truth.z_lens, truth.z_source)
        assert [shear.redshift for shear in shears] == [truth.z_lens] and not list(source.mass_model)
        masses = in_coolest([*lens.mass_model, *shears[0].mass_model])
        for found, ours in ((masses, truth.lenses), (in_coolest(lens.light_model), truth.lens_light),
                            (in_coolest(source.light_model), truth.sources)):  # fmt: skip
            assert found == [(name, pytest.approx(values)) for name, values in map(coolest_profile, ours)]


def test_a_coolest_template_holds_the_observation(varied, power_law, tmp_path):
    for path in (varied, power_law):
        export(path, tmp_path / path.stem, "coolest")
        truth, whole = truth_of(path, 1), template_at(tmp_path / path.stem / "sample_000001.json")
        observation, instrument = whole.observation, whole.instrument
        assert np.array_equal(observation.pixels.get_pixels(), truth.lr)
        assert np.array_equal(observation.noise.noise_map.get_pixels(), truth.error)
        assert observation.pixels.pixel_size == pytest.approx(truth.camera.grid.scale, rel=1e-12)
        assert observation.exposure_time == pytest.approx(truth.exposure_time)
        assert observation.mag_zero_point == truth.instrument.zero_point
        assert instrument.psf.fwhm * instrument.pixel_size == pytest.approx(truth.camera.psf.extent)


def test_coolest_computes_the_stored_deflection_and_light(varied, power_law):
    from coolest.api.profiles.light import Sersic
    from coolest.api.profiles.mass import PEMD, ExternalShear

    backends = {"SIE": PEMD(), "PEMD": PEMD(), "ExternalShear": ExternalShear()}
    for path in (varied, power_law):
        truth = truth_of(path, 1)
        x, y = (axis.numpy() for axis in grid_of(truth))
        profiles = [coolest_profile(component) for component in truth.lenses]
        alpha = np.array([backends[name].deflection(x, y, **values) for name, values in profiles]).sum(0)
        assert np.abs(alpha - truth.alpha_hr).max() < 1e-6  # the file holds float32
        [(_, values)] = [coolest_profile(component) for component in truth.sources]
        light = Sersic().evaluate_surface_brightness(x - alpha[0], y - alpha[1], **values)
        assert_same_image(light, brightness_of(truth, alpha), 1e-12)


def test_ellipticity_and_shear_are_an_axis_ratio_and_a_strength_with_an_angle_in_coolest():
    place = {"center_x": 0.1, "center_y": -0.2}
    sis = coolest_profile(("SIS", {"theta_E": 1.2, **place}))
    assert sis == ("SIE", {"theta_E": 1.2, "q": 1.0, "phi": -90.0, **place})
    for e1, e2 in ((0.2, 0.0), (-0.2, 0.0), (0.0, 0.3), (0.0, -0.3), (-0.1, -0.1)):
        _, values = coolest_profile(("EPL", {"theta_E": 1.2, "gamma": 1.9, "e1": e1, "e2": e2, **place}))
        assert -90 <= values["phi"] < 90 and 0 < values["q"] <= 1
        assert on_axes((1 - values["q"]) / (1 + values["q"]), values["phi"]) == pytest.approx((e1, e2), abs=1e-12)
        _, values = coolest_profile(("SHEAR", {"gamma1": e1, "gamma2": e2}))
        assert on_axes(values["gamma_ext"], values["phi_ext"]) == pytest.approx((e1, e2), abs=1e-12)


def on_axes(strength: float, phi: float) -> tuple[float, float]:
    """Components of a spin-2 quantity whose angle runs from North to East [degrees]."""
    angle = 2 * np.radians(phi - 90)
    return strength * np.cos(angle), strength * np.sin(angle)


def test_position_angles_of_coolest_run_from_north_to_east():
    along_y = coolest_profile(("SIE", {"theta_E": 1.0, "e1": -0.2, "e2": 0.0}))[1]["phi"]
    towards_east = coolest_profile(("SIE", {"theta_E": 1.0, "e1": 0.0, "e2": -0.2}))[1]["phi"]  # up and to the left
    assert (along_y, towards_east) == pytest.approx((0.0, 45.0))


def test_a_moffat_psf_is_a_kernel_in_coolest(tmp_path):
    path = file_of(tmp_path, "model_2", "instrument=rubin_lsst_i")
    [written] = export(path, tmp_path / "lens.json", "coolest", [0])
    assert json.loads(written.read_text())["instrument"]["psf"]["type"] == "PixelatedPSF"
    kernel, _ = psf_kernel(truth_of(path).camera)
    assert np.allclose(fits.getdata(tmp_path / "lens_psf.fits"), kernel, atol=1e-7)
    template_at(written)


# --- caustics ---


def test_caustics_gives_the_same_deflection_and_light(varied, power_law, tmp_path):
    caustics = pytest.importorskip("caustics")
    double = torch.float64
    points = file_of(tmp_path, "varied", classes=["cdm"], engine="lenstronomy", name="points")
    halos = file_of(tmp_path, "corrected_2", classes=["wdm"], engine="lenstronomy", name="halos")
    kinds = set()
    for path in (varied, power_law, points, halos):
        [written] = export(path, tmp_path / f"{path.stem}.yaml", "caustics", [1])
        tree, truth = yaml.safe_load(written.read_text()), truth_of(path, 1)
        assert tree == caustics_parameters(truth)
        cosmology = caustics.FlatLambdaCDM(**exact({"parameters": tree["cosmology"]})).to(dtype=double)
        redshifts = {f"z_{end[0]}": torch.tensor(tree[f"z_{end}"], dtype=double) for end in ("lens", "source")}
        x, y = grid_of(truth)
        alpha = torch.zeros(2, *x.shape, dtype=double)
        for i, lens in enumerate(tree["lenses"]):
            kinds.add(lens["kind"])
            kind = getattr(caustics, lens["kind"])
            profile = kind(cosmology=cosmology, name=f"lens_{i}", **redshifts, **exact(lens)).to(dtype=double)
            alpha += torch.stack(profile.reduced_deflection_angle(x, y))
        assert (alpha - torch.from_numpy(truth.alpha_hr)).abs().max() < 1e-6  # the file holds float32
        [source] = tree["sources"]
        light = getattr(caustics, source["kind"])(**exact(source)).to(dtype=double)
        brightness = light.brightness(x - alpha[0], y - alpha[1]).numpy()
        assert_same_image(brightness, brightness_of(truth, alpha.numpy()), 1e-12)
    assert kinds == {"SIS", "SIE", "EPL", "ExternalShear", "Point", "TNFW"}


def exact(profile: dict) -> dict:
    """Arguments in double precision: caustics makes float32 of plain numbers."""
    arguments = profile["parameters"]
    return {k: torch.tensor(v, dtype=torch.float64) if isinstance(v, float) else v for k, v in arguments.items()}


def brightness_of(truth: Truth, alpha: np.ndarray) -> np.ndarray:
    from lenstronomy.LightModel.light_model import LightModel

    x, y = (axis.numpy() for axis in grid_of(truth))
    names, values = zip(*truth.sources, strict=True)
    flat = ((x - alpha[0]).ravel(), (y - alpha[1]).ravel())
    return LightModel(list(names)).surface_brightness(*flat, list(values)).reshape(x.shape)


def test_multipoles_and_sheets_of_mass_in_caustics():
    caustics = pytest.importorskip("caustics")
    from lenstronomy.LensModel.lens_model import LensModel

    place = {"center_x": 0.1, "center_y": -0.05}
    parts = [
        ("SIS", {"theta_E": 0.7, **place}),
        ("MULTIPOLE", {"m": 4, "a_m": 0.05, "phi_m": 0.3, **place}),
        ("CONVERGENCE", {"kappa": -0.04}),
    ]
    x = torch.linspace(-1.5, 1.4, 30, dtype=torch.float64)
    y = x.flip(0) * 0.7 + 0.2
    alpha = torch.zeros(2, 30, dtype=torch.float64)
    for i, part in enumerate(parts):
        theirs = caustics_profile(part, 0.5, 1.0)
        kind = getattr(caustics, theirs["kind"])
        lens = kind(cosmology=caustics.FlatLambdaCDM(), z_l=0.5, z_s=1.0, name=f"part_{i}", **exact(theirs))
        alpha += torch.stack(lens.to(dtype=torch.float64).reduced_deflection_angle(x, y))
    ours = LensModel([name for name, _ in parts]).alpha(x.numpy(), y.numpy(), [values for _, values in parts])
    assert np.abs(alpha.numpy() - np.array(ours)).max() < 1e-9


# --- FITS ---


@pytest.mark.parametrize(
    ("recipe", "changes"),
    [
        ("model_3", ["width=48"]),
        ("varied", ["width=48"]),
        ("model_2", ["instrument=euclid_vis"]),
        ("model_1", ["hr_noise=false"]),
        ("model_2", ["instrument=rubin_lsst_i", "width=36"]),
    ],
    ids=["model 3", "psf of each image", "integrated pixels", "counts, no psf", "moffat"],
)
def test_a_cut_out_is_read_as_it_was_simulated(tmp_path, recipe, changes):
    path = file_of(tmp_path, recipe, *changes)
    [written] = export(path, tmp_path / "lens.fits", "fits", [1])
    truth, found = truth_of(path, 1), read_images(written)
    observation = found.observation
    assert np.array_equal(observation.image[0, 0].numpy(), truth.lr) and observation.mask is None
    assert np.array_equal(observation.noise.sigma[0, 0].numpy(), truth.error)
    assert observation.camera.grid.shape == truth.lr.shape
    assert observation.camera.grid.scale == pytest.approx(truth.camera.grid.scale, rel=1e-9)
    assert observation.camera.supersampling == truth.camera.supersampling
    expected = psf_kernel(truth.camera)
    if expected is None:
        assert observation.camera.psf.kernel.tolist() == [[1.0]]  # which blurs nothing
        return
    kernel, scale = expected
    assert len(kernel) % 2 == 1 and kernel.sum() == pytest.approx(1)
    assert np.allclose(observation.camera.psf.kernel.numpy(), kernel, atol=1e-7)
    assert observation.camera.psf.scale == pytest.approx(scale)
    star = torch.zeros(1, 1, *truth.lr.shape)  # both cameras show a star the same
    star[..., 20, 18] = 1.0
    seen, ours = (psf.blur(star.double(), scale) for psf in (observation.camera.psf, truth.camera.psf))
    assert torch.allclose(seen, ours, atol=1e-6)


def test_a_cut_out_holds_the_truth_and_its_place(tmp_path):
    path = file_of(tmp_path, "model_3", "width=48", "upscale=3")
    [written] = export(path, tmp_path / "lens.fits", "fits", [0])
    truth = truth_of(path)
    with fits.open(written) as hdus:
        hdus.verify("exception")
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "ERR", "TRUTH", "ALPHA", "PSF"]
        assert np.array_equal(hdus["TRUTH"].data, truth.hr_clean) and truth.hr_clean.shape == (120, 144)
        assert np.array_equal(hdus["ALPHA"].data, truth.alpha_hr)
        header = hdus[0].header
        expected = {"BUNIT": "electron/s", "EXPTIME": 5400.0, "ZEROPNT": 25.96, "CLASS": "no_sub"}
        expected |= {"Z_LENS": 0.5, "Z_SOURCE": 1.0, "FLUXSCAL": 1.0, "PIXSCALE": 0.08}
        assert {key: header[key] for key in expected} == expected
        assert header["THETA_E"] == pytest.approx(truth.theta_E, rel=1e-12)
        history = str(header["HISTORY"]).replace("\n", "")
        assert "lensphys file:" in history and "lensphys versions:" in history
        coarse, fine = WCS(header), WCS(hdus["TRUTH"].header)
        north = coarse.pixel_to_world(23.5, 29.5)
        west = coarse.pixel_to_world(33.5, 19.5)
        assert north.dec.arcsec == pytest.approx(0.8) and west.ra.wrap_at("180d").arcsec == pytest.approx(-0.8)
        corners = [wcs.pixel_to_world(-0.5, -0.5) for wcs in (coarse, fine)]
        assert corners[0].separation(corners[1]).arcsec < 1e-6


def test_cut_outs_can_be_imported(tmp_path):
    importing = pytest.importorskip("lensphys.data.importing")
    path = file_of(tmp_path, "model_3")
    export(path, tmp_path / "cutouts", "fits")
    importing.import_images([tmp_path / "cutouts"], tmp_path / "back.h5", importing.Importing(class_name="no_sub"))
    with LensFile(path) as first, LensFile(tmp_path / "back.h5") as back:
        assert torch.equal(first.lr(), back.lr())
        assert back.grid_lr.scale == pytest.approx(first.grid_lr.scale, rel=1e-9)


def test_an_instrument_in_adu_is_told_in_its_electrons(tmp_path):
    preset = yaml.safe_load((PRESETS / "model_3.yaml").read_text()) | {"unit": "ADU/s", "gain": 2.5}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(preset))
    path = file_of(tmp_path, "model_3", f"instrument={tmp_path / 'mine.yaml'}")
    header = fits.getheader(export(path, tmp_path / "fits", "fits", [0])[0])
    assert (header["BUNIT"], header["GAIN"], header["EXPTIME"]) == ("adu/s", 2.5, pytest.approx(5400.0))
    observation = json.loads(export(path, tmp_path / "a.json", "coolest", [0])[0].read_text())["observation"]
    assert observation["mag_zero_point"] == pytest.approx(preset["zero_point"] + 2.5 * np.log10(2.5))
    data, truth = lenstronomy_keywords(truth_of(path))["kwargs_data"], truth_of(path)
    variance = data["background_rms"] ** 2 + truth.lr_clean / data["exposure_time"]
    assert np.allclose(np.sqrt(variance), truth.error, rtol=1e-6)


@pytest.mark.slow
def test_the_example_runs(tmp_path):
    command = [sys.executable, str(ROOT / "examples" / "export_to_other_tools.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for sentence in ("lenstronomy renders", "caustics gives", "['PRIMARY', 'ERR', 'TRUTH', 'ALPHA', 'PSF']", "COOLEST"):
        assert sentence in done.stdout


# --- what is refused ---


def test_a_profile_that_a_tool_lacks_is_named(tmp_path):
    path = file_of(tmp_path, "model_3", classes=["axion"])
    with pytest.raises(LensphysError, match=r"COOLEST has no profile POINT_MASS \(of ours it has SIS, SIE, EPL"):
        export(path, tmp_path / "a", "coolest", [0])
    with h5py.File(path, "a") as file:
        model = json.loads(file["lens_model"][0])
        line = {"theta_E": 0.2, "length": 0.3, "phi": 0.1}
        model |= {"lens_model_list": ["SIS", "LINE_MASS"], "kwargs_lens": [model["kwargs_lens"][0], line]}
        file["lens_model"][0] = json.dumps(model)
    for kind in ("lenstronomy", "caustics"):
        with pytest.raises(LensphysError, match=f"{kind} has no profile LINE_MASS"):
            export(path, tmp_path / "a", kind, [1, 0])
    assert list(tmp_path.iterdir()) == [path]  # nothing is left, sample 1 neither
    square = file_of(tmp_path, "model_3", name="square")
    softened = ("SIE", {"theta_E": 1.0, "s_scale": 0.1})
    with pytest.raises(LensphysError, match="COOLEST does not take this sample: 's_scale'"):
        write_coolest(tmp_path / "a.json", replace(truth_of(square), lenses=[softened]))
    shear = ("SHEAR", {"gamma1": 0.1, "gamma2": 0.0, "ra_0": 0.5})
    with pytest.raises(LensphysError, match="COOLEST has no shear about another point"):
        coolest_profile(shear)


def test_a_value_out_of_the_range_of_coolest_is_refused(tmp_path):
    path = file_of(tmp_path, "model_3", "source.n_sersic=0.4")
    with pytest.raises(LensphysError, match=r"COOLEST does not take this sample: Value cannot be smaller than 0.5"):
        export(path, tmp_path / "a.json", "coolest", [0])


def test_coolest_wants_square_images(tmp_path):
    path = file_of(tmp_path, "model_3", "width=48")
    with pytest.raises(LensphysError, match=r"coolest takes rows for columns .* got \(40, 48\)"):
        export(path, tmp_path / "a.json", "coolest", [0])


def test_a_missing_package_is_named(varied, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "coolest", None)
    with pytest.raises(LensphysError, match=r"pip install 'lensphys\[coolest\]'"):
        export(varied, tmp_path / "a", "coolest", [0])


def test_keywords_of_others_are_refused(tmp_path):
    (tmp_path / "a.json").write_text('{"mode": "MAP"}')
    with pytest.raises(LensphysError, match=r"a\.json was not written by 'lensphys export --format lenstronomy'"):
        read_lenstronomy(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("out", "kind", "indices", "message"),
    [
        ("a", "hdf", [0], "unknown format 'hdf': choose one of caustics, coolest, fits, lenstronomy"),
        ("a", "fits", [0, 2], r"holds 2 samples: index 2 is out of range \(0 to 1\)"),
        ("a", "fits", [-1], "index -1 is out of range"),
        ("a", "fits", [], "there is nothing to export: give --index I,J or --all"),
        ("a.yaml", "fits", [0], r"the format fits is written as \*\.fits, got .*a\.yaml"),
        ("a.fits", "fits", None, r"a\.fits can hold one sample, not 2: name a folder"),
        ("there", "fits", [0], "there exists: remove it, or choose another --out"),
        ("there/file/b", "fits", [0], "cannot write .*b: "),
    ],
)
def test_what_cannot_be_exported(varied, tmp_path, out, kind, indices, message):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    with pytest.raises(LensphysError, match=message):
        export(varied, tmp_path / out, kind, indices)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_what_another_machine_writes_is_not_touched(varied, tmp_path):
    theirs = tmp_path / f".a.{os.getpid()}.tmp"  # on a shared disk, by a process of the same number
    theirs.mkdir()
    export(varied, tmp_path / "a", "fits", [0])
    assert sorted(path.name for path in tmp_path.iterdir()) == [theirs.name, "a"]


def test_nothing_beside_a_template_is_overwritten(varied, tmp_path):
    (tmp_path / "a_image.fits").write_text("mine")
    with pytest.raises(LensphysError, match=r"a_image\.fits exists, and would be written beside a\.json"):
        export(varied, tmp_path / "a.json", "coolest", [0])
    assert [path.name for path in tmp_path.iterdir()] == ["a_image.fits"]


def test_a_file_without_truth_is_refused(varied, tmp_path):
    path = tmp_path / "copy.h5"
    path.write_bytes(varied.read_bytes())
    with h5py.File(path, "a") as file:
        del file.attrs["recipe"]
    with pytest.raises(LensphysError, match="has no recipe with redshifts"):
        export(path, tmp_path / "a", "fits")
    with h5py.File(path, "a") as file:
        del file["lens_model"]
    with pytest.raises(LensphysError, match="has no /lens_model: only files of 'lensphys simulate'"):
        export(path, tmp_path / "a", "fits")


def test_the_command_exports_as_a_newcomer_types_it(varied, tmp_path):
    def run(*arguments: object) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["export", str(varied), *map(str, arguments)])
        return result.exit_code, result.output

    code, output = run("--all", "--format", "fits", "-o", tmp_path / "cutouts")
    assert code == 0 and "2 samples" in output
    assert sorted(path.name for path in (tmp_path / "cutouts").iterdir()) == [
        "sample_000000.fits",
        "sample_000001.fits",
    ]
    code, output = run("--index", "1,0,1", "--format", "lenstronomy", "-o", tmp_path / "kwargs")
    assert code == 0 and len(list((tmp_path / "kwargs").iterdir())) == 2
    code, output = run("--index", 1, "--format", "caustics", "-o", tmp_path / "lens.yaml")
    assert code == 0 and (tmp_path / "lens.yaml").is_file()
    for arguments, sentence in (
        (("--format", "fits"), "give --index I[,J..] or --all"),
        (("--format", "fits", "--all", "--index", "0"), "give --index I[,J..] or --all"),
        (("--format", "fits", "--index", "one"), "--index takes whole numbers"),
    ):
        code, output = run(*arguments, "-o", tmp_path / "x")
        assert code == 2 and sentence in output and "Traceback" not in output
