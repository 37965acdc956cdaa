"""HDF5 at the door: nothing from elsewhere, nothing larger than the file, and damage is found where it is read."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from lensphys.basics.checks import LensphysError
from lensphys.cli import app
from lensphys.data import LensFile
from lensphys.data.hdf5 import new_dataset, opened
from lensphys.data.merging import REFERRED, merge
from lensphys.methods.ranking.rank_set import RankSet, write_rank_set
from lensphys.simulation import Recipe
from lensphys.simulation.writer import simulate

SMALL = ["height=12", "width=16"]
SECRET = 7.0


@pytest.fixture(scope="module")
def healthy(tmp_path_factory) -> Path:
    return simulate(Recipe.named("model_3", SMALL), 2, tmp_path_factory.mktemp("data") / "lenses.h5", deflection=True)


@pytest.fixture
def place(healthy, tmp_path) -> Path:
    """A folder with a copy of a healthy file; data that are not its own lie outside and inside of it."""
    (tmp_path / "inside").mkdir()
    shutil.copy(healthy, tmp_path / "inside" / "lenses.h5")
    for folder in (tmp_path, tmp_path / "inside"):
        with h5py.File(folder / "secret.h5", "w") as file:
            file["lr"] = np.full((6, 1, 12, 16), SECRET, "f4")
        (folder / "secret.bin").write_bytes(np.full((6, 1, 12, 16), SECRET, "f4").tobytes())
    return tmp_path / "inside"


def external_link(file: h5py.File, where: str) -> None:
    file["lr"] = h5py.ExternalLink(f"{where}secret.h5", "/lr")


def soft_link_to_a_link(file: h5py.File, where: str) -> None:
    file.create_group("group")["there"] = h5py.ExternalLink(f"{where}secret.h5", "/")
    file["lr"] = h5py.SoftLink("/group/there/lr")


def external_storage(file: h5py.File, where: str) -> None:
    file.create_dataset("lr", (6, 1, 12, 16), "f4", external=[(f"{where}secret.bin", 0, h5py.h5f.UNLIMITED)])


def virtual(file: h5py.File, where: str) -> None:
    layout = h5py.VirtualLayout((6, 1, 12, 16), "f4")
    layout[:] = h5py.VirtualSource(f"{where}secret.h5", "lr", (6, 1, 12, 16))
    file.create_virtual_dataset("lr", layout)


FOREIGN = [
    (external_link, "../", "/lr is a link to ../secret.h5, and links are not followed: copy the data into the file"),
    (external_link, "", "/lr is a link to secret.h5, and links are not followed"),
    (soft_link_to_a_link, "../", "/lr is a link to a name of its own, and links are not followed"),
    (
        external_storage,
        "../",
        "/lr lies in another file, ../secret.bin, which is not read: copy the data",
    ),
    (external_storage, "", "/lr lies in another file, secret.bin, which is not read"),
    (
        virtual,
        "../",
        "/lr takes data from ../secret.h5, which is not in the folder of the file or below it",
    ),
]


@pytest.mark.parametrize(("spoil", "where", "message"), FOREIGN)
def test_nothing_is_read_from_elsewhere(place, spoil, where, message):
    with h5py.File(place / "lenses.h5", "a") as file:
        del file["lr"]
        spoil(file, where)
    with pytest.raises(LensphysError) as error:
        LensFile(place / "lenses.h5")
    assert message in str(error.value)
    done = CliRunner().invoke(app, ["super-resolve", str(place / "lenses.h5"), "--method", "bicubic", "-o", "o.h5"])
    assert done.exit_code == 2 and message in done.stderr.replace("\n", " ") and not Path("o.h5").exists()


def test_an_absolute_path_and_a_link_of_the_disk_are_elsewhere_too(place, tmp_path):
    (place / "near").symlink_to(tmp_path)
    for where in (f"{tmp_path}/", "near/"):
        with h5py.File(place / "lenses.h5", "a") as file:
            del file["lr"]
            virtual(file, where)
        with pytest.raises(LensphysError, match="takes data from .*, which is not in the folder of the file"):
            LensFile(place / "lenses.h5")


@pytest.mark.parametrize(("spoil", "where", "message"), FOREIGN)
def test_a_shard_of_a_virtual_file_is_looked_at_likewise(tmp_path, spoil, where, message):
    folder = simulate(Recipe.named("model_3", SMALL), 2, tmp_path / "shards")
    whole = merge(folder, tmp_path / "virtual.h5", way=REFERRED)
    with LensFile(whole) as file:
        assert len(file) == 6
    shard = sorted(folder.glob("*.h5"))[-1]
    with h5py.File(shard, "a") as file:
        del file["lr"]
        spoil(file, where)
    with pytest.raises(LensphysError) as error:
        LensFile(whole)
    assert message in str(error.value)


def test_a_virtual_file_shows_only_what_is_at_the_top_of_shards(place):
    with h5py.File(place / "deep.h5", "w") as file:
        file.create_group("group")["lr"] = h5py.ExternalLink("../secret.h5", "/lr")
    with h5py.File(place / "lenses.h5", "a") as file:
        del file["lr"]
        layout = h5py.VirtualLayout((6, 1, 12, 16), "f4")
        layout[:] = h5py.VirtualSource("deep.h5", "group/lr", (6, 1, 12, 16))
        file.create_virtual_dataset("lr", layout)
    with pytest.raises(LensphysError, match="takes data from deep.h5, which is not in the folder .* or not at its top"):
        LensFile(place / "lenses.h5")


def test_a_virtual_file_shows_all_that_it_declares(place):
    with h5py.File(place / "lenses.h5", "a") as file:
        del file["lr"]
        layout = h5py.VirtualLayout((6, 1, 12, 16), "f4")
        layout[:2] = h5py.VirtualSource("secret.h5", "lr", (6, 1, 12, 16))[:2]
        file.create_virtual_dataset("lr", layout)
    with pytest.raises(LensphysError, match="/lr shows 384 values of 1152: merge the shards again"):
        LensFile(place / "lenses.h5")


def test_a_virtual_file_that_would_leave_its_folder_is_not_made(tmp_path):
    folder = simulate(Recipe.named("model_3", SMALL), 1, tmp_path / "shards")
    with pytest.raises(LensphysError, match="a virtual file refers to shards in its own folder or below"):
        merge(folder, tmp_path / "elsewhere" / "virtual.h5", way=REFERRED)
    merge(folder, tmp_path / "elsewhere" / "copy.h5")


def test_what_is_declared_must_be_there(place):
    with h5py.File(place / "lenses.h5", "a") as file:
        del file["lr"]
        file.create_dataset("lr", (10**9, 1, 64, 64), "f4")
    with pytest.raises(LensphysError, match=r"/lr \(1000000000, 1, 64, 64\) would be 1.64e\+04 GB, of which"):
        LensFile(place / "lenses.h5")


def change(name: str, value: object):
    def spoil(file: h5py.File) -> None:
        file.attrs[name] = value

    return spoil


def group_for_images(file: h5py.File) -> None:
    del file["lr"]
    file.create_group("lr")["loop"] = file["/"]


def texts_for_images(file: h5py.File) -> None:
    del file["lr"]
    file["lr"] = ["a", "b", "c"]


def flat_images(file: h5py.File) -> None:
    del file["lr"]
    file["lr"] = np.zeros((6, 12, 16), "f4")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (group_for_images, "/lr is no dataset of one row a sample"),
        (texts_for_images, "/lr holds no numbers"),
        (flat_images, r"/lr must be images (N, 1, H, W), got (6, 12, 16)"),
        (change("instrument", "{"), "is damaged"),
        (change("instrument", "[1]"), "instrument of"),
        (change("instrument", "[" * 100_000), "is damaged"),
        (change("instrument", 3), "is damaged"),
        (change("classes", 3), "is damaged"),
        (change("classes", np.array([], dtype="S1")), "it is damaged"),
        (change("upscale", 0), "upscale 0"),
        (change("upscale", "two"), "is damaged"),
        (change("pixel_scale_lr", np.nan), "pixel_scale_lr nan cannot be of images of"),
        (change("pixel_scale_lr", -1.0), "damaged"),
        (change("format", np.zeros(3)), "damaged"),
    ],
)
def test_hand_made_files_are_one_sentence(place, spoil, message):
    with h5py.File(place / "lenses.h5", "a") as file:
        spoil(file)
    with pytest.raises(LensphysError) as error:
        LensFile(place / "lenses.h5")
    assert message in str(error.value) and len(str(error.value)) < 600 and "\n" not in str(error.value)


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_that_is_no_class(place, label):
    with h5py.File(place / "lenses.h5", "a") as file:
        file["label"][1] = label
    with LensFile(place / "lenses.h5") as file:
        assert file.labels_of(0).tolist() == [0] and file.read("label", 1) == [label]  # the doctor lists them
        with pytest.raises(LensphysError, match=f"has the label {label}, but 3 classes: mend /label, or make it again"):
            _ = file.labels


# --- checksums -------------------------------------------------------------------------------------------------------


def flip(path: Path, name: str, row: int) -> None:
    """Change a bit of a row, behind HDF5's back."""
    with h5py.File(path) as file:
        chunk = file[name].id.get_chunk_info_by_coord((row, *(0,) * (file[name].ndim - 1)))
    data = bytearray(path.read_bytes())
    data[chunk.byte_offset + 5] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["lr", "hr_clean", "alpha_hr", "label", "theta_E"])
def test_a_flipped_bit_is_found_where_it_is_read(place, name):
    flip(place / "lenses.h5", name, 2)
    with LensFile(place / "lenses.h5") as file:
        with pytest.raises(LensphysError, match=rf"/{name} is damaged \(its checksum does not match\): copy or"):
            file.read(name, [2])
        if name in ("lr", "hr_clean", "alpha_hr"):  # reading some images reads no others
            assert len(file.read(name, [0, 1, 3, 5])) == 4


def test_a_virtual_file_is_sealed(tmp_path):
    """HDF5 itself crashes on references with changed bytes, and reads other rows."""
    folder = simulate(Recipe.named("model_3", SMALL), 2, tmp_path / "shards", classes=["no_sub"])
    whole = merge(folder, tmp_path / "virtual.h5", way=REFERRED)
    data = whole.read_bytes()
    with LensFile(whole) as file:
        assert len(file) == 2
    for place in (520, data.index(b"shards/000000.h5") + 40, len(data) - 1):
        whole.write_bytes(data[:place] + bytes([data[place] ^ 64]) + data[place + 1 :])
        with pytest.raises(LensphysError, match="virtual.h5 is not as lensphys wrote it .its checksum does not match"):
            LensFile(whole)
    whole.write_bytes(data[:-9])
    with pytest.raises(LensphysError, match="virtual.h5 is not as lensphys wrote it"):
        LensFile(whole)


def test_a_text_that_is_none_any_more(place):
    with LensFile(place / "lenses.h5") as file:
        identity = file.identity.encode()
    data = (place / "lenses.h5").read_bytes()
    (place / "lenses.h5").write_bytes(data.replace(identity, b"\xff" + identity[1:]))
    with pytest.raises(LensphysError, match="lenses.h5: its attribute 'identity' is damaged"):
        LensFile(place / "lenses.h5")


def test_a_truth_without_its_keys_is_damaged(place, tmp_path):
    with h5py.File(place / "lenses.h5", "a") as file:
        file["lens_model"][2] = file["lens_model"][2].decode().replace("center_x", "centre_x")
    command = ["evaluate", "--method", "bicubic", "--data", str(place / "lenses.h5"), "-o", str(tmp_path / "out")]
    with pytest.warns(UserWarning, match="/lens_model 2 are not as lensphys wrote them|/lens_model"):
        done = CliRunner().invoke(app, command)
    assert done.exit_code == 2 and "lenses.h5: /lens_model is damaged" in done.output


@pytest.mark.parametrize("front", [bytes(16), b"\1\0\1\0\0\0\0\0" + b"\xff" * 8], ids=["no length", "too long"])
def test_a_heap_without_an_end_is_refused_before_hdf5_walks_through_it(place, front):
    path = place / "lenses.h5"
    data = bytearray(path.read_bytes())
    heap = data.find(b"GCOL\1")
    data[heap + 16 : heap + 32] = front  # of its first object: HDF5 would never end
    path.write_bytes(data)
    with pytest.raises(
        LensphysError, match=rf"lenses.h5 is damaged \(a heap of its texts at byte {heap}\): copy or make"
    ):
        LensFile(path)


def test_names_and_parameters_that_are_not_as_many_are_damaged(place, tmp_path):
    with h5py.File(place / "lenses.h5", "a") as file:
        file["lens_model"][2] = file["lens_model"][2].decode().replace('"kwargs_source"', '"kwargs_sourse"')
    command = ["export", str(place / "lenses.h5"), "--format", "fits", "-o", str(tmp_path / "out"), "--index", "2"]
    with pytest.warns(UserWarning, match="/lens_model are not as lensphys wrote them"):
        done = CliRunner().invoke(app, command)
    assert done.exit_code == 2 and "source_light_model_list has 1 names and kwargs_source 0 sets" in done.output


def test_a_flipped_bit_is_found_through_a_virtual_file_and_in_an_import(healthy, tmp_path):
    folder = simulate(Recipe.named("model_3", SMALL), 2, tmp_path / "shards")
    whole = merge(folder, tmp_path / "virtual.h5", way=REFERRED)
    flip(folder / "000000.h5", "lr", 0)
    assert CliRunner().invoke(app, ["import", str(healthy), "-o", str(tmp_path / "new.h5")]).exit_code == 0
    flip(tmp_path / "new.h5", "lr", 3)
    for path in (whole, tmp_path / "new.h5"):
        with LensFile(path) as file, pytest.raises(LensphysError, match=r"/lr is damaged"):
            file.read("lr")


def test_texts_that_changed_are_told(place):
    data = (place / "lenses.h5").read_bytes()
    for before, after, told in (
        (b'"kwargs_source": [{"amp": ', b'"kwargs_source": [{"ump": ', "/lens_model are not as lensphys wrote them"),
        (b'"zero_point":25.96', b'"zero_point":25.56', "its attributes are not as lensphys wrote them, but damaged or"),
    ):
        assert before in data
        (place / "lenses.h5").write_bytes(data.replace(before, after))
        with pytest.warns(UserWarning, match=told), LensFile(place / "lenses.h5") as file:
            for index in range(len(file)):
                file.lens_model(index)


def test_files_without_checksums_and_changed_ones_are_read(place):
    """As an earlier version wrote them, and as a user changes them with h5py: the checksum follows."""
    with h5py.File(place / "lenses.h5", "a") as file:
        file["hr_clean"][0] = 3.0
        for name in ("lr", "label"):
            values = file[name][:]
            del file[name]
            file[name] = values
        del file["lens_model_crc32"], file.attrs["crc32"]
    with LensFile(place / "lenses.h5") as file:
        assert (file.read("hr_clean", 0) == 3).all() and file.lr([5, 0]).shape == (2, 1, 12, 16)
        assert file.lens_model(0)["lens_model_list"]


def test_rows_come_in_the_order_in_which_they_are_asked_for(healthy):
    with LensFile(healthy) as file:
        whole = file.read("lr")
        for rows in ([5, 0, 3, 3], [2], [], [1, 2, 3], [-1]):
            assert np.array_equal(file.read("lr", rows), whole[rows])


def test_a_dataset_has_a_checksum_for_each_image_and_for_many_numbers(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        assert new_dataset(file, "image", (5, 1, 8, 9), "f4").chunks == (1, 1, 8, 9)
        assert new_dataset(file, "number", (5000,), "f8").chunks == (1024,)
        assert new_dataset(file, "text", (5,), h5py.string_dtype()).chunks is None
    with opened(tmp_path / "a.h5") as file:
        assert all(file[name].fletcher32 for name in ("image", "number"))


def test_rank_sets_have_the_same_door(tmp_path):
    generator, path = np.random.default_rng(0), tmp_path / "ranks.h5"
    image, niqe = generator.random((4, 2, 8, 8)), generator.random((4, 2))
    write_rank_set(path, image, niqe, np.arange(4), ["a", "b"], {"made": 1})
    with RankSet(path) as ranked:
        assert ranked.provenance == {"made": 1} and ranked.row.tolist() == [0, 1, 2, 3]
        torch.testing.assert_close(ranked.read([2, 0])[1].double(), torch.from_numpy(niqe[[2, 0]]), rtol=0, atol=1e-6)
    flip(path, "image", 1)
    with RankSet(path) as ranked, pytest.raises(LensphysError, match="is damaged"):
        ranked.read([1])
    with h5py.File(path, "a") as file:
        del file["row"]
        file["row"] = np.arange(3)
    with pytest.raises(LensphysError, match="do not fit: make it again"):
        RankSet(path)


def test_an_export_reads_no_galaxy_that_the_file_was_not_made_with(tmp_path):
    np.save(tmp_path / "galaxies.npy", np.random.default_rng(0).random((2, 9, 11)).astype("f4"))
    source = f"source={{kind: images, file: {tmp_path / 'galaxies.npy'}, pixel_scale: 0.08, magnitude: 21.0, phi: 0.4, "
    path = simulate(Recipe.named("model_3", [*SMALL, source + "center_x: 0.0, center_y: 0.0}"]), 1, tmp_path / "a.h5")
    np.save(tmp_path / "secret.npy", np.full((2, 9, 11), SECRET, "f4"))
    with h5py.File(path, "a") as file:
        model = json.loads(file["lens_model"][0])
        model["kwargs_source"][0]["file"] = str(tmp_path / "secret.npy")
        file["lens_model"][0] = json.dumps(model)
    export = ["export", str(path), "--format", "lenstronomy", "-o", str(tmp_path / "out.json"), "--index"]
    done = CliRunner().invoke(app, [*export, "0"])
    assert done.exit_code == 2 and "was not made with the images of galaxies that are in" in done.stderr
    assert CliRunner().invoke(app, [*export, "1"]).exit_code == 0


def test_names_that_are_no_text_are_damaged(place):
    path = place / "lenses.h5"
    with h5py.File(path, "a") as file:
        file.attrs["classes"] = np.array([b"no_\x81ub", b"axion", b"cdm"], h5py.string_dtype())
    with pytest.raises(LensphysError, match="lenses.h5: its attribute 'classes' is damaged"):
        LensFile(path)
