"""The pages: they build without a warning, their links lead somewhere, and their commands are commands."""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
import typer
import yaml
from typer.testing import CliRunner

import lensphys
from lensphys.cli import app
from lensphys.fits.numbers import NUMBERS, OF_FITS
from lensphys.observation import Instrument
from lensphys.simulation import Recipe

ROOT = Path(__file__).parents[1]
# pages that are known to have some: a pattern that finds nothing there is at fault
LINKING, COMMANDING, NAMING = (
    {ROOT / name for name in names}
    for names in (
        ("README.md", "docs/index.md", "docs/get_started.md", "docs/guides/train.md"),
        ("README.md", "docs/get_started.md", "docs/guides/train.md", "docs/my_image.md"),
        ("CONTRIBUTING.md", "docs/extending.md", "docs/guides/train.md", "docs/results/galaxies.md"),
    )
)
PAGES = sorted([*ROOT.glob("*.md"), *(p for p in (ROOT / "docs").rglob("*.md") if "_build" not in p.parts),
                ROOT / "simulations/README.md", ROOT / "experiments/README.md"])  # fmt: skip
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
_BLOCK = re.compile(r"^(?:<!-- (?P<note>[^\n]*?) -->\n)?```(?P<kind>\w+)\n(?P<code>.*?)^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`(lensphys [a-z-]+ [^`]*)`")
_WORDS = {"model_M", "N", "NAME", "RUN", "COMMAND", "FOLDER", "HOST", "..."}  # placeholders: no command as it stands


def blocks(page: Path, kind: str) -> list[tuple[str, str]]:
    """The blocks of code of a kind, each with the comment right before it."""
    return [(m["note"] or "", m["code"]) for m in _BLOCK.finditer(page.read_text()) if m["kind"] == kind]


def commands(text: str) -> list[list[str]]:
    """The words of each lensphys command in some lines of shell."""
    lines = [shlex.split(line, comments=True) for line in text.replace("\\\n", " ").splitlines()]
    parts = [part for words in lines for part in _split(words)]
    return [words[1:] for words in parts if words[:1] == ["lensphys"]]


def _split(words: list[str]) -> list[list[str]]:
    """The commands of a line, without what stands between them and variables before them."""
    found: list[list[str]] = [[]]
    for word in words:
        if word in ("&&", "|", "&"):
            found.append([])
        elif found[-1] or "=" not in word:
            found[-1].append(word)
    return found


def test_the_pages_that_must_have_something_are_pages():
    assert set(PAGES) >= LINKING | COMMANDING | NAMING


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_bytes()) <= 8000


@every_page
def test_links_between_pages_lead_somewhere(page):
    text = _BLOCK.sub("", page.read_text())
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    assert targets or page not in LINKING
    for target in targets:
        if "://" not in target:
            assert (page.parent / target.split("#")[0]).exists(), f"{page.relative_to(ROOT)} links {target}"


@every_page
def test_every_command_in_the_pages_is_one(page):
    group = typer.main.get_command(app)
    text = "\n".join(code for _, code in blocks(page, "bash"))
    inline = [line for line in _INLINE.findall(page.read_text().replace("\n", " ")) if not _WORDS & set(line.split())]
    found = commands("\n".join([text, *inline]))
    assert found or page not in COMMANDING
    for name, *words in found:
        if name.startswith("-"):
            continue
        command = group.get_command(click.Context(group), name)
        assert command is not None, f"{page.relative_to(ROOT)}: lensphys {name}"
        context = click.Context(command, info_name=name)
        command.make_parser(context).parse_args(list(words))  # an option that there is not is an error
        for word in words:
            if word.startswith(("examples/", "experiments/", "simulations/")) and "-o" not in words:
                assert (ROOT / word).exists(), f"{page.relative_to(ROOT)}: {word}"


@every_page
def test_files_that_the_pages_name_are_there(page):
    top = "|".join(("examples", "experiments", "simulations", "lensphys", "tests", "docs"))
    names = re.findall(rf"`((?:{top})/[\w./-]+\.(?:py|yaml|md|json))`", page.read_text())
    assert names or page not in NAMING
    for name in names:
        assert "NAME" in name or (ROOT / name).is_file(), f"{page.relative_to(ROOT)} names {name}"


@pytest.mark.slow  # CI runs it beside the building of the wheel
@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # of Sphinx, about its extensions; -W is about ours
def test_the_documentation_builds_without_a_warning(tmp_path, capsys):
    for needed in ("myst_nb", "furo", "sphinx_copybutton"):
        pytest.importorskip(needed, reason="needs pip install -e '.[docs]'")
    build = pytest.importorskip("sphinx.cmd.build", reason="needs pip install -e '.[docs]'")
    options = ["-q", "-W", "--keep-going", "-b", "html", "-d", str(tmp_path / "trees")]
    done = build.main([*options, str(ROOT / "docs"), str(tmp_path / "site")])
    assert done == 0, capsys.readouterr().err
    page = (tmp_path / "site/api/model.html").read_text()
    assert "lensphys.model.SIE" in page and "[arcsec]" in page
    assert "gain.png" in (tmp_path / "site/index.html").read_text()


def test_every_number_of_a_result_is_in_the_glossary():
    said = (ROOT / "docs" / "glossary.md").read_text()
    for name, number in NUMBERS.items():
        named = f"`{name}`" if name in ("theta_E", "chi2") else f'`numbers["{name}"]`' if name in OF_FITS else ""
        assert re.search(rf"^\| {number.card} \| {re.escape(named)}", said, re.MULTILINE), number


def test_the_figure_of_the_forward_model_conserves_flux():
    from forward_model import FINE, steps

    made = steps()
    sharp, blurred, clean, noisy = list(made.values())[2:]
    assert sharp.shape == tuple(FINE * side for side in clean.shape)
    assert blurred.sum() == pytest.approx(sharp.sum(), rel=1e-3)
    assert clean.sum() == pytest.approx(sharp.sum(), rel=1e-2)  # other points within a pixel
    assert 0 < abs(noisy - clean).max() < clean.max()


# -- the commands, run ----------------------------------------------------------------------------------------------

TINY = {"-n": "3", "--workers": "1", "--rows": "0:2"}
LABELLED = {"labelled.h5", "other.h5"}  # lenses of readers, which take some of each class


def tiny(words: list[str]) -> list[str]:
    """A command of the pages with as little work as it can have."""
    if words[0] == "simulate" and LABELLED & set(words):
        return words
    out = list(words)
    for k, word in enumerate(out[:-1]):
        out[k + 1] = TINY.get(word, out[k + 1])
    if out[0] == "train":
        few = [] if any(word.startswith("data=") for word in out) else ["data.n=2", "data.workers=1"]
        out += [part for setting in ["training.epochs=1", "training.batch_size=2", *few] for part in ("--set", setting)]
    if "--run" in out or out[:2] == ["evaluate", "runs/mine"]:  # hardly trained: to refine it would take long
        out += ["--refine", "0"]
    if out[0] == "simulate" and "--classes" not in out:
        out += ["--classes", "no_sub"]
    return [str(ROOT / w) if w.startswith(("examples/", "experiments/")) else w for w in out]


@pytest.fixture(scope="module")
def user(tmp_path_factory) -> Path:
    """A folder with the files that the pages speak of: small lenses, as a user has them."""
    import numpy as np
    from astropy.io import fits

    folder = tmp_path_factory.mktemp("user")
    make = f"import sys; sys.path.insert(0, {str(ROOT / 'examples')!r}); from super_resolve_fits import make_example;"
    subprocess.run([sys.executable, "-c", f"{make} make_example('lens.fits')"], cwd=folder, check=True)
    with fits.open(folder / "lens.fits") as hdus:
        parts = {hdu.name: (np.asarray(hdu.data), hdu.header) for hdu in hdus[1:]}
    fits.writeto(folder / "rms.fits", parts["ERR"][0])
    fits.writeto(folder / "psf.fits", *parts["PSF"])  # with the size of its pixels
    fits.writeto(folder / "mask.fits", np.zeros(parts["ERR"][0].shape, np.uint8))
    sharp = np.zeros((9, 9), "f4")
    sharp[3:6, 3:6] = np.outer([1, 2, 1], [1, 2, 1]) / 16
    fits.writeto(folder / "hst_psf.fits", sharp)
    write_several(folder)
    lensphys_("simulate", "model_2", "-n", "2", "--classes", "no_sub", "--seed", "5", "-o", "made.h5", cwd=folder)
    import h5py

    with h5py.File(folder / "made.h5") as file:
        for name in ("stack.npy", "survey.npy"):
            np.save(folder / name, file["lr"][:, 0])
    (folder / "cutouts").mkdir()
    shutil.copy(folder / "exposure_1.fits", folder / "cutouts")
    (folder / "lenses.txt").write_text("cutouts/exposure_1.fits\n")
    instrument = {"version": 1, "description": "mine", "pixel_scale": 0.101, "unit": "e-/s", "zero_point": 25.7,
                  "psf": {"kind": "gaussian", "fwhm": 0.16},
                  "noise": {"kind": "exposure", "read_noise": 4.2, "sky_brightness": 22.3, "exposure_time": 566.0,
                            "num_exposures": 4}}  # fmt: skip
    (folder / "mine.yaml").write_text(yaml.safe_dump(instrument))
    return folder


def write_several(folder: Path) -> None:
    """The files of several images of one lens, each with noise of its own: exposures, and bands in one file or many."""
    import numpy as np
    from astropy.io import fits

    lens = lensphys.SIE(theta_E=1.0, e1=0.1, e2=0.05) + lensphys.Shear(gamma1=0.02, gamma2=-0.03)
    source = lensphys.Sersic(amp=20.0, R_sersic=0.15, n_sersic=1.2, center_x=0.1, center_y=0.05)

    def planes(seed: int) -> dict[str, fits.ImageHDU]:
        seen = lensphys.observe(lens, source, "hst_wfc3_f160w", height=44, width=44, seed=seed)
        scale, psf_scale = fits.Header({"PIXSCALE": seen.pixel_scale}), fits.Header({"PIXSCALE": seen.psf_scale})
        values = {"SCI": (seen.image, scale), "ERR": (seen.noise, scale), "PSF": (seen.psf, psf_scale)}
        return {name: fits.ImageHDU(np.asarray(image), head, name=name) for name, (image, head) in values.items()}

    for seed, name in enumerate(("exposure_1", "exposure_2", "exposure_3", "hsc_i", "hst_f814w")):
        fits.HDUList([fits.PrimaryHDU(), *planes(seed).values()]).writeto(folder / f"{name}.fits")
    bands = fits.HDUList([fits.PrimaryHDU()])
    for seed, band in enumerate(("VIS", "NIR_Y", "NIR_J", "NIR_H")):
        for name, hdu in zip(("FLUX", "RMS", "PSF"), planes(seed).values(), strict=True):
            hdu.name = f"{band}_{name}"
            bands.append(hdu)
    bands.writeto(folder / "euclid.fits")
    for seed, name in enumerate(("h_1", "h_2"), start=7):
        fits.HDUList([fits.PrimaryHDU(), *planes(seed).values()]).writeto(folder / f"{name}.fits")
    for seed, band in enumerate(("F277W", "F444W")):
        (folder / band).mkdir()
        image, noise, psf = planes(seed).values()
        size = {"PIXSCALE": 0.06 * psf.header["PIXSCALE"] / image.header["PIXSCALE"]}  # beside --pixel-scale 0.06
        for name, hdu, head in (("data", image, None), ("noise_map", noise, None), ("psf", psf, fits.Header(size))):
            fits.writeto(folder / band / f"{name}.fits", hdu.data, head)


def lensphys_(*words: str, cwd: Path) -> str:
    """What a command says, run in a folder."""
    with contextlib.chdir(cwd):
        done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 0, f"lensphys {' '.join(words)}: {done.output}{done.exception or ''}"
    return done.output


RUN = ("docs/guides/train.md", "docs/my_image.md", "docs/guides/real_lenses.md", "docs/guides/bands.md",
       "docs/guides/downstream.md", "simulations/README.md", "README.md", "docs/get_started.md", "docs/survey.md",
       "docs/downstream.md")  # fmt: skip


def parts_to_run(page: Path) -> str:
    """The commands of a page that run as they stand: its blocks, and those in its first table."""
    shown = [code for note, code in blocks(page, "bash") if not note.startswith(("not run", "command:"))]
    if page.name == "my_image.md":
        shown += re.findall(r"^\|.*\| `(lensphys .*)` \|$", page.read_text(), re.MULTILINE)
    return "\n".join(shown)


def test_the_recipes_of_the_telescope_guide_are_recipes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    of_survey, more, instrument, pairs = [code for _, code in blocks(ROOT / "simulations/README.md", "yaml")]
    for name in ("my_telescope.yaml", "mine.yaml"):
        Path(name).write_text(instrument)
    head = "extends: {}\nversion: 1\ndescription: of the page\n"
    Path("survey.yaml").write_text(of_survey)
    Path("more.yaml").write_text(head.format("survey.yaml") + more)
    Path("pairs.yaml").write_text(head.format("model_2") + pairs)
    survey, more, pairs = (Recipe.named(f"{name}.yaml") for name in ("survey", "more", "pairs"))
    assert set(survey.classes) == {"no_sub", "cdm", "wdm"}
    assert [lens.kind for lens in more.more_lenses] == ["multipole", "lenstronomy"]
    assert pairs.hr_noise and pairs.target is not None
    assert Instrument.named("my_telescope.yaml").pixel_scale == 0.15


def test_the_experiment_of_the_page_on_dark_matter_is_one(tmp_path):
    lensphys_("simulate", "model_2", "-n", "1", "-o", "labelled.h5", cwd=tmp_path)
    said = lensphys_("downstream", str(ROOT / "examples/my_readers.yaml"), "-o", "runs", "--dry-run", cwd=tmp_path)
    assert "readers 1, products 1" in said


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_the_commands_of_the_pages_run(user):
    done: list[list[str]] = []
    shown = {name: commands(parts_to_run(ROOT / name)) for name in RUN}
    assert all(shown.values()), [name for name, found in shown.items() if not found]
    for words in (words for found in shown.values() for words in found):
        if words in done or (words[0] == "train" and (user / "runs/mine").exists()):
            continue
        started = time.perf_counter()
        again = ["--overwrite"] if words[0] in ("super-resolve", "evaluate", "export") else []
        lensphys_(*tiny(words), *again, cwd=user)
        done.append(words)
        print(f"{time.perf_counter() - started:6.1f} s  lensphys {shlex.join(words)}", flush=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["README.md", "docs/get_started.md", "docs/guides/bands.md"])
def test_the_python_of_the_pages_runs(user, name):
    pieces = blocks(ROOT / name, "python")
    assert pieces
    for number, (_, code) in enumerate(pieces):
        script = user / f"page_{number}.py"
        script.write_text(code)
        for old in ("sharp.fits", "bands_sr.fits"):
            (user / old).unlink(missing_ok=True)
        done = subprocess.run([sys.executable, script.name], cwd=user, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
