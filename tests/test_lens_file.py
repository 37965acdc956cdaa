import json
import pickle
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from lensphys.basics.checks import LensphysError
from lensphys.data import LensFile
from lensphys.observation import Instrument
from lensphys.simulation import Recipe, simulate
from lensphys.tracing.grid import PixelGrid


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    recipe = Recipe.named("model_2", ["height=12", "width=16", "upscale=3"])
    return simulate(recipe, 2, tmp_path_factory.mktemp("lens") / "a.h5")


@pytest.fixture
def copy(path, tmp_path) -> Path:
    target = tmp_path / "copy.h5"
    target.write_bytes(path.read_bytes())
    return target


def test_properties(path):
    with LensFile(path) as file:
        assert file.classes == ["no_sub", "axion", "cdm"] and file.upscale == 3 and len(file) == 6
        assert file.grid_lr == PixelGrid(12, 16, 0.101)
        assert file.grid_hr == PixelGrid(36, 48, 0.101 / 3)
        assert file.instrument == Instrument.named("model_2")
        assert file.has_truth and file.labels.tolist() == [0, 1, 2, 0, 1, 2]
        lists = {"lens_model_list", "kwargs_lens", "source_light_model_list", "kwargs_source"}
        assert set(file.lens_model(2)) == {*lists, "substructure"}
        assert len(file.lens_model(2)["kwargs_lens"]) == 26 and file.lens_model(2)["substructure"] == 25


def test_reads_samples_in_any_order(path):
    with LensFile(path) as file:
        whole = file.lr()
        assert whole.shape == (6, 1, 12, 16) and whole.dtype == torch.float32
        for index in ([4, 1, 4, -1], np.array([5, 0]), slice(1, 4), 3, []):
            rows = [index] if isinstance(index, int) else index
            assert torch.equal(file.lr(index), whole[rows])
        assert file.read("alpha_hr", 0).shape == (1, 2, 36, 48)
        with pytest.raises(LensphysError, match="holds 6 samples: index 6 is out of range"):
            file.lr(6)
        with pytest.raises(LensphysError, match=r"has no /hrr, only alpha_hr, axion_mass"):
            file.read("hrr")


def test_low_resolution_images_alone_are_enough(copy):
    with h5py.File(copy, "a") as file:
        for name in ("hr", "hr_clean"):
            del file[name]
    with LensFile(copy) as file:
        assert not file.has_truth and file.lr([0, 5]).shape == (2, 1, 12, 16)
        with pytest.raises(LensphysError, match="has no /hr_clean"):
            file.read("hr_clean")


@pytest.mark.parametrize(
    ("name", "changes", "engine"),
    [
        ("model_2", ["upscale=3"], "torch"),
        ("model_2", [], "lenstronomy"),
        ("roman", ["upscale=2"], "torch"),  # a PSF and a galaxy of its own for each
    ],
)
def test_a_deflection_that_was_left_out_is_read_to_the_last_bit(tmp_path, name, changes, engine):
    recipe = Recipe.named(name, ["height=24", "width=28", *changes])
    paths = {kept: tmp_path / f"{kept}.h5" for kept in (True, False)}
    for kept, path in paths.items():
        simulate(recipe, 2, path, engine=engine, deflection=kept)
    with LensFile(paths[True]) as whole, LensFile(paths[False]) as short, h5py.File(paths[False]) as raw:
        assert "alpha_hr" not in raw and short.left_out == ["alpha_hr"] and whole.left_out == []
        assert short.has("alpha_hr") and not short.has("alpha") and short.identity == whole.identity
        alpha = whole.read("alpha_hr")
        for index in (slice(None), slice(1, 3), [3, 0], 1, -1, []):
            rows = [index] if isinstance(index, int) else index
            assert np.array_equal(short.read("alpha_hr", index), alpha[rows])
        for name in ("lr", "lr_clean", "hr_clean", "theta_E", "lens_model"):
            assert np.array_equal(short.read(name), whole.read(name))
        again = pickle.loads(pickle.dumps(short))
        assert np.array_equal(again.read("alpha_hr", 0), alpha[:1])
    assert paths[False].stat().st_size < 0.7 * paths[True].stat().st_size


def test_what_cannot_be_computed_again_is_said(path, tmp_path):
    for name in ("future", "foreign", "damaged"):
        shutil.copy(path, tmp_path / f"{name}.h5")
    with h5py.File(tmp_path / "future.h5", "a") as file:
        file.attrs["left_out"] = ["hr_future"]
    with h5py.File(tmp_path / "foreign.h5", "a") as file:
        model = json.loads(file["lens_model"][1])
        file["lens_model"][1] = json.dumps(model | {"lens_model_list": ["MINE"] * len(model["lens_model_list"])})
    with h5py.File(tmp_path / "damaged.h5", "a") as file:
        file["lens_model"][1] = "{"
    message = "left out /hr_future, which this lensphys cannot compute"
    with LensFile(tmp_path / "future.h5") as file, pytest.raises(LensphysError, match=message):
        file.read("hr_future")
    for name, message in (("foreign", "needs the profile MINE to be computed: import the"), ("damaged", "/lens_model")):
        with LensFile(tmp_path / f"{name}.h5") as file, pytest.warns(UserWarning, match="are not as lensphys wrote"):
            assert file.read("alpha_hr", 0).shape == (1, 2, 36, 48)
            with pytest.raises(LensphysError, match=message):
                file.read("alpha_hr", 1)


def test_without_conditions_the_instrument_tells_all(path):
    with LensFile(path) as file:
        taken, preset = file.observation([4, 1]), file.instrument.observation(file.lr([4, 1]))
        assert torch.equal(taken.image, preset.image)
        assert (taken.camera, taken.noise) == (preset.camera, preset.noise)


def test_each_image_comes_with_its_own_conditions(copy):
    drawn = {name: np.linspace(low, 2 * low, 6) for name, low in (("psf_fwhm", 0.1), ("exposure_time", 900))}
    with h5py.File(copy, "a") as file:
        file["background_rms"] = np.linspace(0.1, 0.2, 6)
        for name, values in drawn.items():
            file[name] = values
    with LensFile(copy) as file:
        taken = file.observation([4, 1, 4])
        assert torch.equal(taken.image, file.lr([4, 1, 4]))
        for found, values in (
            (taken.camera.psf.fwhm, drawn["psf_fwhm"]),
            (taken.noise.exposure_time, drawn["exposure_time"]),
        ):
            assert found.flatten().tolist() == pytest.approx(values[[4, 1, 4]].tolist(), rel=1e-6)
        assert taken.image.dtype == taken.noise.variance(taken.image).dtype == torch.float32
    with h5py.File(copy, "a") as file:
        del file["psf_fwhm"]
        file["psf_fwhm"] = np.ones(5)
    with pytest.raises(LensphysError, match=r"/psf_fwhm \(5,\) does not match /lr .* it is damaged"):
        LensFile(copy)


class _Images(Dataset):
    def __init__(self, file: LensFile) -> None:
        self.file = file

    def __len__(self) -> int:
        return len(self.file)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.file.lr(index)[0]


def test_works_in_data_loader_workers_and_through_pickle(path):
    with LensFile(path) as file:
        whole = file.lr()
        batches = list(DataLoader(_Images(file), batch_size=2, num_workers=2))
        assert torch.equal(torch.cat(batches), whole)
        assert torch.equal(pickle.loads(pickle.dumps(file)).lr(), whole)


def test_missing_file(tmp_path):
    with pytest.raises(LensphysError, match=r"lens file not found: .*nothing.h5 is not a file"):
        LensFile(tmp_path / "nothing.h5")


@pytest.mark.parametrize("keep", [0, 100, 0.5, 0.99])
def test_truncated_file_is_refused(copy, keep):
    data = copy.read_bytes()
    copy.write_bytes(data[: int(keep if keep >= 1 else keep * len(data))])
    with pytest.raises(LensphysError, match=r"copy.h5 is not a whole HDF5 file .* copy or make it again"):
        LensFile(copy)


def test_damaged_images_are_named(copy):
    with h5py.File(copy, "a") as file:  # as older versions wrote them, and as a user may pack them
        packed = file["lr"][:]
        del file["lr"]
        chunk = file.create_dataset("lr", data=packed, chunks=(1, *packed.shape[1:]), compression="gzip").id
        file.flush()
        chunk = chunk.get_chunk_info(0)
    data = bytearray(copy.read_bytes())
    data[chunk.byte_offset : chunk.byte_offset + chunk.size] = b"\0" * chunk.size
    copy.write_bytes(data)
    with LensFile(copy) as file, pytest.raises(LensphysError, match=r"copy.h5: /lr is damaged"):
        file.lr(0)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(LensphysError, match="holds no shards: there is no manifest.json"):
        LensFile(tmp_path)


def test_foreign_files_are_refused(copy, tmp_path):
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["lr"] = np.zeros((1, 1, 2, 2))
    with pytest.raises(LensphysError, match="was not written by lensphys: make such a file with 'lensphys simulate'"):
        LensFile(tmp_path / "foreign.h5")
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(LensphysError, match="is not an HDF5 file"):
        LensFile(tmp_path / "text.h5")
    with h5py.File(copy, "a") as file:
        del file["lr"], file.attrs["upscale"]
    with pytest.raises(LensphysError, match="lacks upscale, /lr: it is damaged"):
        LensFile(copy)
    with h5py.File(copy, "a") as file:
        file.attrs["format_version"] = 99
    with pytest.raises(LensphysError, match="has the format version 99, this lensphys reads 1"):
        LensFile(copy)
