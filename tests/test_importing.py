"""Images of others become our HDF5 file, and no code of theirs runs."""

import builtins
import json
import os
import pickle
import shutil
import struct
from pathlib import Path

import h5py
import numpy as np
import pytest
from astropy.io import fits
from processes import command, on_a_full_disk
from typer.testing import CliRunner

from lensphys.basics.checks import LensphysError
from lensphys.cli import app
from lensphys.data import LensFile, importing
from lensphys.data.importing import Importing, import_images
from lensphys.data.npy import open_npy
from lensphys.data.registration import Matching
from lensphys.data.restricted_pickle import read_fields
from lensphys.data.sources import Picked, find_sources, read_contents
from lensphys.evaluation.doctor import diagnose
from lensphys.observation import Instrument
from lensphys.simulation import Recipe, simulate

SHAPE = (12, 16)


def image(seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).normal(1.0, 0.1, shape)


def objects(*items: object) -> np.ndarray:
    array = np.empty(len(items), dtype=object)
    for i, item in enumerate(items):
        array[i] = item
    return array


def save(path: Path, array: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array, allow_pickle=True)
    return path


def save_pickle(path: Path, data: bytes) -> Path:
    """An .npy file of the object array that ``data`` claims to be."""
    header = repr({"descr": "|O", "fortran_order": False, "shape": ()}).encode().ljust(117) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data)
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three classes as DeepLense has them: plain arrays, and object arrays of image, deflection and mass."""
    for i in range(3):
        save(tmp_path / f"set/no_sub/sample_{i}.npy", image(i))
        save(
            tmp_path / f"set/axion/sample_{i}.npy", objects(image(10 + i)[None], image(0, (2, *SHAPE)), 1e-23 * (i + 1))
        )
        save(tmp_path / f"set/cdm/sample_{i}.npy", objects({"image": image(20 + i), "mass": 1.0})[0])
    (tmp_path / "set/readme.txt").write_text("not an image")
    return tmp_path / "set"


def lensphys(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


# --- pickles -------------------------------------------------------------------------------------------------------


def test_arrays_come_back_as_they_were(tmp_path):
    items = [
        image(0),
        np.asfortranarray(image(1)),
        image(2).astype(">f4"),
        image(3, (2, 3, 4)),
        np.float64(2.5),
        7,
        "a",
    ]
    path = save(tmp_path / "a.npy", objects(*items, image(4, (0, 3)), objects(image(5), None)))
    found = read_fields("input", path)
    for i, item in enumerate(items):
        assert np.array_equal(found[i], item) and np.asarray(found[i]).dtype.kind == np.asarray(item).dtype.kind
    assert found[7].shape == (0, 3) and np.array_equal(found[8][0], image(5))
    assert open_npy("input", path) is None


def test_dicts_lists_and_arrays_that_numpy_joined(tmp_path):
    keyed = read_fields("input", save(tmp_path / "a.npy", np.array({"image": image(0), "m": 1.5}, dtype=object)))
    assert np.array_equal(keyed["image"], image(0)) and keyed["m"] == 1.5
    listed = objects([image(0), 3.0])[0]
    scalar = np.empty((), dtype=object)
    scalar[()] = listed
    assert np.array_equal(read_fields("input", save(tmp_path / "b.npy", scalar))[0], image(0))
    joined = read_fields("input", save(tmp_path / "c.npy", np.array([image(0), image(1)], dtype=object)))
    assert np.array_equal(joined[1], image(1)) and joined[1].dtype == np.float64


class _Call:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("function", [os.system, builtins.eval, builtins.exec, builtins.getattr, np.load])
def test_a_pickle_with_code_does_not_run(tmp_path, function, protocol):
    mark = tmp_path / "ran"
    code = f"touch {mark}" if function is os.system else f"open({str(mark)!r}, 'w').close()"
    path = save_pickle(tmp_path / "evil.npy", pickle.dumps(_Call(function, code), protocol))
    with pytest.raises(LensphysError, match=rf"evil.npy is a pickle that names \w+\.{function.__name__}, .* could run"):
        read_fields("input", path)
    with pytest.raises(LensphysError, match="could run code"):
        import_images([path], tmp_path / "out.h5", Importing(pixel_scale=0.1))
    assert not mark.exists() and not (tmp_path / "out.h5").exists()


def test_code_hidden_inside_of_an_array_does_not_run(tmp_path):
    mark = tmp_path / "ran"
    path = save(tmp_path / "evil.npy", objects(image(0), _Call(os.system, f"touch {mark}")))
    with pytest.raises(LensphysError, match=r"names posix.system"):
        read_fields("input", path)
    assert not mark.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"cnumpy\nndarray\n(tR(dI1\nI2\nsb.",  # changes the state of what a name leads to
        b"cnumpy\ndtype\n}X\x05\x00\x00\x00_makeI1\nsb.",
        b"cnumpy.core.multiarray\n_reconstruct\n(tR(I1\n(I1000000000\nI1000000000\ntcnumpy\ndtype\n(X\x02\x00\x00\x00f8tRI0\n"
        b"C\x08\x00\x00\x00\x00\x00\x00\x00\x00tb.",  # far fewer bytes than its shape says
        b"cnumpy\ndtype\n(X\x05\x00\x00\x00V8,f8tR.",
        b"cnumpy\ndtype\n(X\x02\x00\x00\x00f8tR(I3\nX\x01\x00\x00\x00<X\x01\x00\x00\x00aNNI0\nI0\nI0\ntb.",
        b"Pid\n.",
        b"",
    ],
)
def test_damaged_and_forged_pickles_are_refused(tmp_path, data):
    with pytest.raises(LensphysError, match=r"bad.npy is not a whole .npy file of arrays and numbers"):
        read_fields("input", save_pickle(tmp_path / "bad.npy", data))


def test_keys_that_are_no_names_are_refused(tmp_path):
    marks = b"(" * 3000 + b"t" * 3000  # too deep to be written as a text
    for data in (b"}" + marks + b"I1\ns.", pickle.dumps({(1, 2): image(0)}), pickle.dumps({None: image(0)})):
        with pytest.raises(LensphysError, match=r"^input .*bad.npy is not a whole .npy file of arrays and numbers \("):
            read_fields("input", save_pickle(tmp_path / "bad.npy", data))
    with pytest.raises(LensphysError, match="a key is a tuple, neither a number nor a text"):
        read_fields("input", save_pickle(tmp_path / "bad.npy", pickle.dumps({(1, 2): 3})))


def test_cut_object_array_is_refused(tmp_path):
    path = save(tmp_path / "a.npy", objects(image(0), image(1)))
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(LensphysError, match="is not a whole .npy file"):
        read_fields("input", path)


# --- what becomes of files -----------------------------------------------------------------------------------------


def test_folders_are_classes(folder, tmp_path):
    out = tmp_path / "a.h5"
    done = import_images([folder], out, Importing(instrument=Instrument.named("model_3"), picked=Picked(axion_mass=2)))
    assert (done.count, done.classes, done.skipped) == (9, ["no_sub", "axion", "cdm"], [])
    with LensFile(out) as file:
        assert sorted(file.labels.tolist()) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
        assert file.instrument == Instrument.named("model_3") and file.grid_lr.scale == 0.08 and file.upscale == 1
        assert not file.has_truth
        for label, seed in ((0, 0), (1, 10), (2, 20)):
            rows = np.flatnonzero(file.labels == label)
            for i in range(3):
                assert np.array_equal(file.lr(rows[i])[0, 0].numpy(), image(seed + i).astype(np.float32))
        mass = file.read("axion_mass")
        assert mass[file.labels == 1].tolist() == pytest.approx([1e-23, 2e-23, 3e-23], abs=0)
        assert np.isnan(mass[file.labels != 1]).all()
    with h5py.File(out) as file:
        origin = json.loads(file.attrs["imported"])
        assert origin["inputs"] == [str(folder)] and "numpy" in origin["versions"] and len(file.attrs["identity"]) == 64


def test_one_class_natural_order_and_no_mass_unless_asked(tmp_path):
    for i in (10, 2, 1):
        save(tmp_path / f"axion/s{i}.npy", objects(image(i), 1e-23))
    done = import_images([tmp_path / "axion"], tmp_path / "a.h5", Importing(pixel_scale=0.1, class_name="lenses"))
    assert done.classes == ["lenses"] and "noise is estimated from each image" in done.remarks[0]
    with LensFile(tmp_path / "a.h5") as file:
        assert file.instrument.noise.kind == "estimated" and file.instrument.unit == "e-/s"
        expected = np.stack([image(i) for i in (1, 2, 10)]).astype(np.float32)
        assert np.array_equal(file.lr()[:, 0].numpy(), expected)
        with pytest.raises(LensphysError, match="has no /axion_mass"):
            file.read("axion_mass")
        assert len(file.observation([0, 1]).noise.sigma) == 2


@pytest.mark.parametrize("picked", [Picked(1), Picked("b")])
def test_another_part_can_be_the_image(tmp_path, picked):
    parts = {"a": image(0), "b": image(1)}
    path = save(
        tmp_path / "a.npy", np.array(parts, dtype=object) if picked.image == "b" else objects(*parts.values(), 1)
    )
    import_images([path], tmp_path / "a.h5", Importing(pixel_scale=0.1, picked=picked))
    with LensFile(tmp_path / "a.h5") as file:
        assert np.array_equal(file.lr(0)[0, 0].numpy(), image(1).astype(np.float32))


def test_stacks_longer_than_a_batch_with_their_hr_images(tmp_path):
    lr, hr = image(0, (150, 1, *SHAPE)), image(1, (150, 36, 48))
    done = import_images(
        [save(tmp_path / "lr.npy", lr)],
        tmp_path / "a.h5",
        Importing(pixel_scale=0.3, flux_scale=2.0),
        hr=save(tmp_path / "x.npy", hr),
    )
    assert any("matched with the inputs by their order" in remark for remark in done.remarks)
    with LensFile(tmp_path / "a.h5") as file:
        assert file.classes == ["lens"] and file.upscale == 3 and file.grid_hr.scale == pytest.approx(0.1)
        assert np.array_equal(file.read("lr"), lr.astype(np.float32))
        assert np.array_equal(file.read("hr")[:, 0], hr.astype(np.float32)) and not file.has_truth
        assert (file.read("flux_scale") == 2.0).all()


def test_hr_images_are_matched_by_name(tmp_path):
    for i in range(3):
        save(tmp_path / f"lr/c/{i}.npy", image(i))
        save(tmp_path / f"hr/c/{i}.npy", np.kron(image(i), np.ones((2, 2))))
    save(tmp_path / "hr/c/0b.npy", image(9, (24, 32)))  # one more would shift all others
    import_images([tmp_path / "lr"], tmp_path / "a.h5", Importing(pixel_scale=0.1), hr=tmp_path / "hr")
    with LensFile(tmp_path / "a.h5") as file:
        assert file.upscale == 2 and np.array_equal(file.read("hr")[:, :, ::2, ::2], file.read("lr"))
    (tmp_path / "hr/c/1.npy").unlink()
    with pytest.raises(LensphysError, match=r"lr/c/1.npy has no HR image: --hr holds no file c/1.npy"):
        import_images([tmp_path / "lr"], tmp_path / "b.h5", Importing(pixel_scale=0.1), hr=tmp_path / "hr")


def write_fits(path: Path, data: np.ndarray, scale: float, **planes: np.ndarray) -> Path:
    path.parent.mkdir(exist_ok=True)
    main = fits.PrimaryHDU(data)
    main.header["PIXSCALE"] = scale
    fits.HDUList([main, *(fits.ImageHDU(x, name=name) for name, x in planes.items())]).writeto(path)
    return path


def test_fits_cutouts(tmp_path):
    for i in range(2):
        write_fits(tmp_path / f"cuts/{i}.fits", image(i), 0.05, ERR=np.full(SHAPE, 0.1), PSF=np.ones((3, 3)) / 9)
    done = import_images([tmp_path / "cuts"], tmp_path / "a.h5", Importing(class_name="lens"))
    assert "ERR, PSF of the files are not stored: super-resolve those files themselves" in done.remarks[-1]
    with LensFile(tmp_path / "a.h5") as file:
        assert file.grid_lr.scale == pytest.approx(0.05) and len(file) == 2
        assert np.array_equal(file.lr(1)[0, 0].numpy(), image(1).astype(np.float32))
    write_fits(tmp_path / "cuts/2.fits", image(2), 0.06)
    with pytest.raises(LensphysError, match=r'2.fits has pixels of 0.06", not 0.05" like the others'):
        import_images([tmp_path / "cuts"], tmp_path / "b.h5")
    done = import_images(
        [tmp_path / "cuts"], tmp_path / "c.h5", Importing(pixel_scale=0.1, instrument=Instrument.named("model_3"))
    )
    assert 'the pixels have 0.1", not the 0.08" of the instrument' in done.remarks[0]
    with LensFile(tmp_path / "c.h5") as file:
        assert file.instrument.pixel_scale == file.grid_lr.scale == 0.1


@pytest.mark.parametrize("name", ["a.fits", "a.fits.gz", "a.fits.fz"])
def test_fits_stacks(tmp_path, name):
    stack = np.stack([image(i) for i in range(5)]).astype(np.float32)
    head = fits.Header({"PIXSCALE": 0.05})
    kind = fits.CompImageHDU if name.endswith("fz") else fits.ImageHDU
    maps = [fits.ImageHDU(np.full(stack.shape, 0.1), name="ERR")]
    lossless = {"quantize_level": 0.0, "compression_type": "GZIP_1"} if kind is fits.CompImageHDU else {}
    for shape in ((5, 1, *SHAPE), (5, *SHAPE)):
        sci = kind(stack.reshape(shape), head, name="SCI", **lossless)
        fits.HDUList([fits.PrimaryHDU(), sci, *maps]).writeto(tmp_path / name, overwrite=True)
        if len(shape) == 4:
            done = import_images([tmp_path / name], tmp_path / "b.h5")
    assert done.count == 5 and "ERR of the files are not stored" in done.remarks[-1]
    with LensFile(tmp_path / "b.h5") as file:
        assert file.grid_lr.scale == pytest.approx(0.05)
        np.testing.assert_array_equal(file.lr(np.arange(5))[:, 0].numpy(), stack)
    with pytest.raises(LensphysError, match=rf"{name} is a cube: save it as \(N, 1, H, W\) if each plane is a lens"):
        import_images([tmp_path / name], tmp_path / "c.h5")


@pytest.mark.parametrize("shape", [(16, 18), (3, 1, 16, 18)], ids=["image", "stack"])
def test_a_pixel_scale_that_is_given_goes_before_a_faulty_one(tmp_path, shape):
    fits.writeto(tmp_path / "a.fits", np.random.default_rng(0).normal(size=shape), fits.Header({"PIXSCALE": -1.0}))
    with pytest.raises(LensphysError, match="has PIXSCALE = .* give --pixel-scale"):
        import_images([tmp_path / "a.fits"], tmp_path / "b.h5")
    import_images([tmp_path / "a.fits"], tmp_path / "b.h5", Importing(pixel_scale=0.1))
    with LensFile(tmp_path / "b.h5") as file:
        assert file.grid_lr.scale == 0.1


def test_bad_images_are_refused_or_left_out(folder, tmp_path):
    bad = image(1)
    bad[3, 4] = np.nan
    save(folder / "no_sub/sample_1.npy", bad)
    with pytest.raises(LensphysError, match=r"image 0 of .*sample_1.npy has NaN or infinite pixels: mend it, or give"):
        import_images([folder], tmp_path / "a.h5", Importing(pixel_scale=0.1))
    assert not (tmp_path / "a.h5").exists() and not list(tmp_path.glob(".a.h5*"))
    done = import_images([folder], tmp_path / "a.h5", Importing(pixel_scale=0.1, faulty="leave out"))
    assert done.count == 8 and len(done.skipped) == 1 and "sample_1.npy" in done.skipped[0]
    with LensFile(tmp_path / "a.h5") as file:
        assert len(file) == len(file.labels) == 8
    with pytest.raises(
        LensphysError, match=r"nothing to import: its only image is bad \(the first: image 0 of .*sample_1.npy"
    ):
        import_images(
            [folder / "no_sub/sample_1.npy"], tmp_path / "b.h5", Importing(pixel_scale=0.1, faulty="leave out")
        )


def refused(inputs: list[Path], out: Path, match: str, **options: object) -> None:
    with pytest.raises(LensphysError, match=match):
        hr = options.pop("hr", None)
        import_images(inputs, out, Importing(**({"pixel_scale": 0.1} | options)), hr=hr)
    assert not out.exists()


def test_the_identity_is_that_of_the_content(tmp_path):
    lr, hr = save(tmp_path / "lr/lr.npy", image(0, (70, *SHAPE))), save(tmp_path / "hr.npy", image(1, (70, 24, 32)))
    numbers = iter(range(100))

    def identity(inputs: Path = lr, hr: Path | None = hr, **options: object) -> str:
        out = tmp_path / f"{next(numbers)}.h5"
        import_images([inputs], out, Importing(**({"pixel_scale": 0.1} | options)), hr=hr)
        return LensFile(out).identity

    first = identity()
    for i, plane in enumerate(image(0, (70, *SHAPE))):
        save(tmp_path / f"apart/{i}.npy", plane)
    for i, plane in enumerate(image(1, (70, 24, 32))):
        save(tmp_path / f"fine/{i}.npy", plane)
    # the same images elsewhere, in files of their own
    assert first == identity() == identity(tmp_path / "apart", hr=tmp_path / "fine", class_name="lens")
    changed = image(0, (70, *SHAPE))
    changed[69, 0, 0] += 1
    others = [
        identity(pixel_scale=0.2),
        identity(class_name="cdm"),
        identity(hr=None),
        identity(flux_scale=2.0),
        identity(instrument=Instrument.named("model_3")),
        identity(hr=save(tmp_path / "hr2.npy", image(2, (70, 24, 32)))),
        identity(save(tmp_path / "lr.npy", changed)),
    ]
    parts = save(tmp_path / "parts.npy", objects(image(0), image(1), 1e-23, 2e-23))
    for picked in (Picked(0), Picked(1), Picked(0, 2), Picked(0, 3)):
        others.append(identity(parts, hr=None, picked=picked, class_name="axion"))
    assert len({first, *others}) == 1 + len(others)


@pytest.mark.parametrize(
    "limit",
    [
        pytest.param(x, marks=pytest.mark.slow) if x in (1000, 4_610_000) else x
        for x in (1000, 200_000, 1_155_000, 4_610_000)
    ],
)
def test_full_disk_gives_one_sentence_and_no_half_file(tmp_path, limit):
    # no file may grow beyond the limit, as on a disk that is full: within the images, or the labels at the end
    lr, hr = save(tmp_path / "lr.npy", image(0, (300, 24, 32))), save(tmp_path / "hr.npy", image(1, (300, 48, 64)))
    arguments = ["import", lr, "--hr", hr, "--pixel-scale", "0.1", "-o", tmp_path / "out.h5"]
    code, said = on_a_full_disk(limit, command, *arguments)
    assert code == 2, said
    assert said.lower() == f"error: cannot write {tmp_path}/out.h5: file too large"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hr.npy", "lr.npy"]


def test_inputs_that_change_meanwhile_are_refused(folder, tmp_path, monkeypatch):
    write = importing._write

    def late(*arguments: object) -> None:
        save(folder / "cdm/sample_0.npy", image(0, (2, *SHAPE)))
        write(*arguments)

    monkeypatch.setattr(importing, "_write", late)
    refused(
        [folder],
        tmp_path / "out.h5",
        "the inputs had 9 good images and now have 10: import them when they no longer change",
    )
    assert not list(tmp_path.glob(".out.h5*"))


def test_what_does_not_fit_is_named(folder, tmp_path):
    out = tmp_path / "out.h5"
    odd = save(tmp_path / "odd/z.npy", image(0, (10, 16)))
    refused([folder, odd], out, r"z.npy has images of \(10, 16\), those before it of \(12, 16\)")
    refused([folder], out, "has no pixel scale: give --pixel-scale", pixel_scale=None)
    refused([folder], out, "--pixel-scale must be positive", pixel_scale=-1.0)
    refused([folder], out, "--flux-scale must be positive", flux_scale=0.0)
    refused([folder], tmp_path / "out.txt", r"--out must be named \*.h5")
    refused([tmp_path / "none"], out, "input not found: .*none is neither a file nor a folder")
    refused([folder / "readme.txt"], out, r"cannot import .*readme.txt: expected a folder, or a file \*.npy")
    refused([], out, "nothing to import: give folders or files")
    refused([folder], out, r"has no field 9 for the image: it holds 0, 1, 2", picked=Picked(9))
    refused([folder / "axion"], out, r"2 is no array of numbers but float", picked=Picked(2))
    refused([folder / "axion"], out, r"0 is not the axion mass, a number", picked=Picked(0, axion_mass=0))
    ragged = save(tmp_path / "ragged/axion.npy", objects(image(0), [[1.0], [1.0, 2.0]]))
    refused([ragged], out, "1 is not the axion mass", picked=Picked(0, axion_mass=1), class_name="axion")
    refused([save(tmp_path / "m.npy", objects(1.0, "a"))], out, r"holds no image \(H, W\) .*\(0: float, 1: str\)")
    refused([save(tmp_path / "r.npy", image(0, (12, 16, 3)))], out, r"images \(N, H, W\) must have 8 x 8 pixels")
    (tmp_path / "empty").mkdir()
    refused([tmp_path / "empty"], out, r"the folder .*empty holds no file \*.npy")
    (tmp_path / "n.npy").write_bytes(b"nonsense")
    refused([tmp_path / "n.npy"], out, "n.npy is not a whole .npy file")
    for i in range(101):
        save(tmp_path / f"many/{i}/a.npy", image(0))
    refused([tmp_path / "many"], out, "the inputs lie in 101 folders, too many to be classes: give --class")
    out.write_text("mine")
    with pytest.raises(LensphysError, match="out.h5 exists: remove it, or choose another --out"):
        import_images([folder], out, Importing(pixel_scale=0.1))
    assert out.read_text() == "mine"


def test_hr_images_that_do_not_fit_are_named(tmp_path):
    lr, out = save(tmp_path / "lr.npy", image(0, (2, *SHAPE))), tmp_path / "out.h5"
    few, wide = save(tmp_path / "few.npy", image(0, (1, 24, 32))), save(tmp_path / "wide.npy", image(0, (2, 24, 48)))
    refused([lr], out, r"few.npy holds 1 HR images for the 2 of .*lr.npy", hr=few)
    refused([lr], out, r"wide.npy: HR images of \(24, 48\) are no whole multiple of the LR images \(12, 16\)", hr=wide)
    two = [save(tmp_path / f"l/{i}.npy", image(i)) for i in range(2)]
    refused(two, out, "--hr has 1 files for 2 inputs and no name in common", hr=few)
    hr = [save(tmp_path / f"h/{i}.npy", image(i, (12 * (i + 2), 16 * (i + 2)))) for i in range(2)]
    refused(
        two, out, r"image 0 of .*1.npy: /hr would have images of \(36, 48\) after those of \(24, 32\)", hr=hr[0].parent
    )


def test_command(folder, tmp_path):
    out = tmp_path / "a.h5"
    code, text = lensphys("import", folder, "-o", out, "--instrument", "model_3", "--axion-mass-field", "2")
    assert code == 0 and "9 images, classes no_sub, axion, cdm" in text
    with LensFile(out) as file:
        assert np.isfinite(file.read("axion_mass")).sum() == 3
    code, text = lensphys("import", folder / "cdm", "-o", tmp_path / "b.h5", "--pixel-scale", "0.1", "--key", "mass")
    assert code == 2 and "error: " in text and "'mass' is no array of numbers" in text
    code, text = lensphys("import", folder, "-o", tmp_path / "b.h5", "--field", "0", "--key", "image")
    assert code == 2 and "--field and --key both choose the image" in text


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    """Six simulated pairs of two telescopes, small ones."""
    out = tmp_path_factory.mktemp("pairs") / "pairs.h5"
    return simulate(Recipe.named("hsc_hst", ["height=40", "width=44"]), 6, out, seed=2)


def scores(path: Path, truth: np.ndarray) -> np.ndarray:
    """PSNR of /hr [dB], with the peak of the truth."""
    with LensFile(path) as file:
        error = ((file.read("hr") - truth) ** 2).mean((1, 2, 3))
    return -10 * np.log10(error / truth.max((1, 2, 3)) ** 2)


@pytest.mark.parametrize("more", [[], ["--hr-instrument", "hst_acs_f814w"]])
def test_simulated_pairs_are_registered_against_their_truth(pairs, tmp_path, more):
    out = tmp_path / "a.h5"
    code, text = lensphys("import", pairs, "--hr", pairs, "-o", out, "--register", "--match-flux", *more)
    assert code == 0, text
    with LensFile(pairs) as before, LensFile(out) as after:
        truth = before.read("hr_clean")
        assert np.array_equal(after.read("lr"), before.read("lr")) and after.instrument == before.instrument
        for name, tolerance in (("hr_shift_x", 0.1 * 0.168), ("hr_shift_y", 0.1 * 0.168), ("hr_offset", 0.02)):
            assert after.read(name) == pytest.approx(before.read(name), abs=tolerance), name
        assert after.read("hr_gain") == pytest.approx(before.read("hr_gain"), rel=0.06)  # faint lenses have little flux
        assert (after.read("hr_shift_sigma") < 0.1 * 0.168).all() and (after.read("hr_correlation") > 0.95).all()
    assert (scores(out, truth) > scores(pairs, truth)).all()
    assert scores(out, truth).mean() > scores(pairs, truth).mean() + 5  # dB
    with h5py.File(out) as file:
        assert file["hr_shift_x"].attrs["unit"] == "arcsec" and file["hr"].attrs["unit"] == "e-/s per pixel"
        assert json.loads(file.attrs["imported"])["matching"]["flux"] is True


def test_one_of_both_is_taken_out(pairs, tmp_path):
    shift, flux = tmp_path / "shift.h5", tmp_path / "flux.h5"
    import_images([pairs], shift, Importing(matching=Matching(shift=True, flux=False)), hr=pairs)
    import_images([pairs], flux, Importing(matching=Matching(shift=False, flux=True)), hr=pairs)
    with LensFile(shift) as a, LensFile(flux) as b, LensFile(pairs) as own:
        assert a.has("hr_shift_x") and not a.has("hr_gain") and b.has("hr_gain") and not b.has("hr_shift_x")
        unshifted = b.read("hr") * b.read("hr_gain")[:, None, None, None] + b.read("hr_offset")[:, None, None, None]
        assert unshifted == pytest.approx(own.read("hr"), abs=1e-3)


def test_pairs_that_cannot_be_registered(pairs, tmp_path):
    out, other = tmp_path / "a.h5", tmp_path / "other.h5"
    shutil.copy(pairs, other)
    with h5py.File(other, "a") as file:
        file["hr"][2] = np.random.default_rng(0).normal(size=file["hr"].shape[1:])
    both = Matching(shift=True, flux=True)
    message = r"image 2 of .*pairs.h5: LR and HR image do not show the same object.*; --skip-bad leaves all"
    refused([pairs], out, message, hr=other, matching=both, pixel_scale=None)
    done = import_images([pairs], out, Importing(matching=both, faulty="leave out"), hr=other)
    assert done.count == 5 and len(done.skipped) == 1 and "by their order" in done.remarks[0]
    with LensFile(out) as after, LensFile(pairs) as before:
        assert np.array_equal(after.read("lr"), before.read("lr", [0, 1, 3, 4, 5])) and len(after.read("hr_gain")) == 5
    out = tmp_path / "b.h5"
    refused([pairs], out, "--register and --match-flux are about pairs: give the HR images, --hr", matching=both)
    refused([pairs], out, "--flux-scale says what --match-flux is to find", hr=pairs, matching=both, flux_scale=2.0)


def test_a_file_of_our_own_is_open_no_longer_than_it_is_read(pairs):
    def open_files() -> int:
        return h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE)

    before, source = open_files(), find_sources([pairs])[0]
    contents = [read_contents(source, Picked(), name) for name in ("lr", "hr")]
    images = [np.concatenate(list(one.batches(2))) for one in contents]
    assert open_files() == before
    with LensFile(pairs) as file:
        rows = list(source.rows)
        assert np.array_equal(images[0], file.read("lr", rows)[:, 0])
        assert np.array_equal(images[1], file.sharp("hr", rows)[:, 0])


def test_files_of_our_own_are_paired_row_by_row(tmp_path):
    small = ["height=16", "width=20"]
    made = [simulate(Recipe.named(name, small), 3, tmp_path / f"{name}.h5") for name in ("varied", "model_3")]
    done = import_images([made[0]], tmp_path / "a.h5", hr=made[1])
    assert any("background_rms, exposure_time, psf_fwhm of the files are not stored" in x for x in done.remarks)
    with LensFile(tmp_path / "a.h5") as after, LensFile(made[0]) as lr, LensFile(made[1]) as hr:
        assert after.classes == ["no_sub", "axion", "cdm"] and after.instrument == lr.instrument
        order = np.argsort(lr.labels, kind="stable")  # one class after the other
        assert np.array_equal(after.read("lr"), lr.read("lr", order))
        assert np.array_equal(after.read("hr"), hr.read("hr", order))
    other = simulate(Recipe.named("model_3", small), 3, tmp_path / "other.h5", classes=["cdm", "axion"])
    out = tmp_path / "b.h5"
    refused([made[0]], out, "other.h5 does not have the same classes in the same rows", hr=other, pixel_scale=None)
    wide = simulate(Recipe.named("model_2", small), 3, tmp_path / "wide.h5")
    refused([made[0]], out, r'wide.h5: HR pixels of 0.0505" in 2 times as many .* pixels of 0.08": cut both', hr=wide,
            pixel_scale=None)  # fmt: skip
    assert (
        import_images([made[0]], out, Importing(scale_tolerance=0.3), hr=wide).count == 9
    )  # 2 x 0.0505" for 0.08": 26 % off


def test_the_observed_pair(shared, tmp_path):
    pair = shared / "real" / "hsc_hst_pair"
    if not pair.is_dir():
        pytest.skip("the observed pair is not here")
    out = tmp_path / "pair.h5"
    import_images(
        [pair / "observed_pair_LR_HSC_64.npy"],
        out,
        Importing(pixel_scale=0.168),
        hr=pair / "observed_pair_HR_HST_128.npy",
    )
    with LensFile(out) as file:
        assert file.upscale == 2 and file.lr().shape == (1, 1, 64, 64) and file.read("hr").shape == (1, 1, 128, 128)
    assert {finding.name for finding in diagnose(out)} == {"missing_truth"}
    with h5py.File(out, "a") as file:
        file["hr"][:] = np.roll(file["hr"][:], (40, 40), (2, 3))
    assert "pair_foreign" in {finding.name for finding in diagnose(out)}
