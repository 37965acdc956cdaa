"""Files on servers: copied once, again when they change, and read as those of this machine.

Tests of S3 run where ``pip install "lensphys[s3]" "moto[s3]" flask flask-cors`` was: pip takes minutes to reconcile
their versions with all else that tests need. HTTP needs nothing new.
"""

from __future__ import annotations

import io
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.request import Request, urlopen

import fsspec
import h5py
import numpy as np
import pytest
from astropy.io import fits
from processes import command

import lensphys as lp
from lensphys.basics.checks import LensphysError
from lensphys.basics.remote import CACHE, local
from lensphys.data.lens_file import LensFile

SEEN = ("--pixel-scale", 0.1, "--instrument", "euclid_vis")


@pytest.fixture(autouse=True)
def copies(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE, str(tmp_path / "copies"))
    return tmp_path / "copies"


@pytest.fixture
def memory():
    server = fsspec.filesystem("memory")
    yield server
    server.store.clear()


@pytest.fixture(scope="module")
def server():
    """The address of a server that speaks S3."""
    pytest.importorskip("s3fs")
    found = pytest.importorskip("moto.server").ThreadedMotoServer(port=0)
    found.start()
    host, port = found.get_host_and_port()
    yield f"http://{host}:{port}"
    found.stop()


@pytest.fixture
def bucket(server, monkeypatch):
    """Its files, with an empty bucket ``survey``."""
    known = {
        "ENDPOINT_URL": server,
        "ACCESS_KEY_ID": "nobody",
        "SECRET_ACCESS_KEY": "none",
        "DEFAULT_REGION": "us-east-1",
    }
    for name, value in known.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    urlopen(Request(f"{server}/moto-api/reset", method="POST")).close()
    storage = fsspec.get_filesystem_class("s3")
    storage.clear_instance_cache()
    files = storage()
    files.mkdir("survey")
    return files


def test_a_path_stays_as_it_is(tmp_path, copies):
    assert local("lens.fits").name == "lens.fits"
    assert local(tmp_path) == tmp_path
    assert not copies.exists()


def test_a_file_is_copied_again_when_it_changes(memory):
    memory.pipe("/set/a.bin", b"one")
    first = local("memory://set/a.bin")
    assert (first.name, first.read_bytes()) == ("a.bin", b"one")
    before = first.stat().st_mtime_ns
    assert local("memory://set/a.bin").stat().st_mtime_ns == before
    memory.pipe("/set/a.bin", b"two")
    assert local("memory://set/a.bin").read_bytes() == b"two"


def test_a_folder_keeps_its_shape(memory):
    memory.pipe({"/set/a.bin": b"1", "/set/deeper/a.bin": b"2"})
    folder = local("memory://set")
    assert (folder / "a.bin").read_bytes() == b"1"
    assert (folder / "deeper" / "a.bin").read_bytes() == b"2"


@pytest.mark.parametrize(
    ("address", "said"),
    [("memory://no/such.fits", "memory://no/such.fits not found"), ("pigeon://loft/a.fits", "not known: pigeon")],
)
def test_what_cannot_be_copied_is_one_sentence(address, said):
    with pytest.raises(LensphysError, match=said):
        local(address)
    code, words = command("super-resolve", address, "-o", "out.fits")
    assert code == 2
    assert said in words


def test_a_bucket_that_is_not_there_is_one_sentence(bucket):
    with pytest.raises(LensphysError, match="s3://no-such-bucket/lens.fits"):
        local("s3://no-such-bucket/lens.fits")


@pytest.fixture
def website(tmp_path):
    """A folder, and its address on a server."""
    folder = tmp_path / "website"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_data_set_on_a_website_is_that_of_this_machine(website):
    folder, address = website
    lp.simulate("model_3", 2, folder / "lenses.h5", seed=1)
    with LensFile(f"{address}/lenses.h5") as there, LensFile(folder / "lenses.h5") as here:
        assert there.identity == here.identity
        np.testing.assert_array_equal(there.lr(slice(None)), here.lr(slice(None)))
    with pytest.raises(LensphysError, match="none.h5 not found"):
        local(f"{address}/none.h5")


def test_a_data_set_on_s3_is_that_of_this_machine(bucket, tmp_path):
    lp.simulate("model_3", 2, tmp_path / "lenses.h5", seed=1)
    bucket.put(str(tmp_path / "lenses.h5"), "survey/lenses.h5")
    with LensFile("s3://survey/lenses.h5") as there, LensFile(tmp_path / "lenses.h5") as here:
        assert there.identity == here.identity
        np.testing.assert_array_equal(there.lr(slice(None)), here.lr(slice(None)))


def test_shards_on_s3_are_read_as_one_file(bucket, tmp_path):
    code, said = command("simulate", "model_3", "-n", 4, "-o", tmp_path / "shards", "--shard-size", 2, "--seed", 1)
    assert code == 0, said
    bucket.put(str(tmp_path / "shards"), "survey/shards", recursive=True)
    with LensFile("s3://survey/shards") as there, LensFile(tmp_path / "shards") as here:
        assert len(there) == len(here)
        np.testing.assert_array_equal(there.lr(slice(None)), here.lr(slice(None)))


def test_a_fits_image_on_s3_is_super_resolved(bucket, tmp_path):
    image = np.random.default_rng(0).normal(size=(16, 16)).astype(np.float32)
    stored = io.BytesIO()
    fits.PrimaryHDU(image).writeto(stored)
    bucket.pipe("survey/lens.fits", stored.getvalue())
    out = tmp_path / "sharp.fits"
    code, said = command("super-resolve", "s3://survey/lens.fits", "-o", out, "--method", "bicubic", *SEEN)
    assert code == 0, said
    assert fits.getdata(out, 0).shape == (32, 32)


def test_a_data_set_on_a_server_is_guarded_as_any_other(memory, tmp_path):
    with h5py.File(tmp_path / "strange.h5", "w") as file:
        file["lr"] = np.zeros(3)
    memory.pipe("/strange.h5", (tmp_path / "strange.h5").read_bytes())
    with pytest.raises(LensphysError, match="was not written by lensphys"):
        LensFile("memory://strange.h5")
