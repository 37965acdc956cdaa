"""Simulated lenses: data sets from recipes, and an image of a lens of one's own."""

from __future__ import annotations

import tempfile
import weakref
from pathlib import Path

import numpy as np
import torch

from lensphys.api.images import Array, File, Images, read, telescope
from lensphys.api.words import in_python
from lensphys.basics.checks import LensphysError, check_whole
from lensphys.basics.sentences import counted
from lensphys.data.hdf5 import is_hdf5
from lensphys.data.images import ImageSet
from lensphys.data.lens_file import LensFile
from lensphys.model import LightProfile, MassProfile
from lensphys.observation import Instrument
from lensphys.simulation import Recipe
from lensphys.simulation import simulate as simulated
from lensphys.tracing.deflection import DeflectionField
from lensphys.tracing.grid import PixelGrid


class Lenses(LensFile):
    """Simulated lenses with their truth: `images` to be super-resolved, and `truth` to judge by.

    All data sets of the file can be read by their names: see `lensphys.data.lens_file.LensFile`.

    Args:
        path: the HDF5 file.

    Example::

        data = lp.simulate("model_2", 10, "lenses.h5")
        result = lp.super_resolve(data.images[0])
        error = result.image - data.truth[0]  # flux per pixel, of pixels half as large
    """

    def __repr__(self) -> str:
        height, width = self.grid_lr.shape
        sizes = f'{height} x {width} pixels of {self.grid_lr.scale:.4g}", truth {self.upscale} times as fine'
        many = counted(len(self), "lens", "lenses")
        return f"{many} ({', '.join(self.classes)}) of {sizes}: {self.path}"

    @property
    def images(self) -> Images:
        """The low-resolution images (N, H, W), as the telescope recorded them."""
        return read(self)

    @property
    def truth(self) -> Array:
        """The noise-free high-resolution images, (N, sH, sW) [unit of the instrument, per pixel], as `images` are."""
        return self.sharp("hr_clean")[:, 0].numpy()


def simulate(
    recipe: str | Path | Recipe,
    n: int,
    out: File | None = None,
    *,
    classes: str | list[str] | None = None,
    seed: int = 0,
    workers: int = 1,
    engine: str = "torch",
) -> Lenses:
    """Simulate lenses from a recipe: the same seed gives the same lenses on any machine.

    Args:
        recipe: a name (``lensphys list recipes``), a YAML file, or a `Recipe`.
        n: lenses of each class.
        out: the HDF5 file; if it is there already and the same, it is read, and an interrupted run resumes.
            Without it the lenses last as long as the object.
        classes: some of the recipe's classes; all if None.
        seed: of the data set.
        workers: processes; they change the speed and nothing else.
        engine: ``torch`` or ``lenstronomy``.

    Raises:
        LensphysError: one sentence on what is wrong, and what to do.

    Example::

        recipe = lp.Recipe.named("model_2", ["source.magnitude=19.5"])
        data = lp.simulate(recipe, 10, "bright.h5", seed=1)
        lr, truth = data.images.image, data.truth
    """
    with in_python():
        chosen = recipe if isinstance(recipe, Recipe) else Recipe.named(recipe)
        scratch = tempfile.TemporaryDirectory() if out is None else None
        place = Path(out) if scratch is None else Path(scratch.name) / "lenses.h5"  # type: ignore[arg-type]
        if not is_hdf5(place):
            raise LensphysError(f"{place}: give the name of a file that ends in .h5")
        some = [classes] if isinstance(classes, str) else classes
        lenses = Lenses(simulated(chosen, n, place, classes=some, seed=seed, workers=workers, engine=engine))
    if scratch is not None:
        weakref.finalize(lenses, scratch.cleanup)
    return lenses


def observe(
    lens: MassProfile,
    source: LightProfile,
    instrument: str | Instrument,
    *,
    height: int = 64,
    width: int = 64,
    lens_light: LightProfile | None = None,
    seed: int | None = 0,
) -> Images:
    """Return the image that a telescope takes of a lens: through its PSF and pixels, with its noise.

    Args:
        lens: its mass, with positions in arcsec from the middle of the image.
        source: brightness in the unit of the instrument [flux / arcsec^2], as ``Instrument.flux`` gives it of a
            magnitude.
        instrument: a preset (``lensphys list instruments``), a YAML file, or an `Instrument`.
        height: of the image [pixels].
        width: of the image [pixels].
        lens_light: light of the lens galaxy, which is not deflected.
        seed: of the noise; None for an image without noise.

    Raises:
        LensphysError: one sentence on what is wrong, and what to do.

    Example:
        >>> from lensphys.model import SIE, Sersic
        >>> observe(SIE(theta_E=1.0), Sersic(amp=5.0, R_sersic=0.2, n_sersic=1.0), "euclid_vis")
        1 image of 64 x 64 pixels of 0.101" (simulated), PSF: Euclid VIS, Wide Survey
    """
    with in_python():
        if not isinstance(lens, MassProfile) or not isinstance(source, LightProfile):
            raise LensphysError(f"observe takes a mass and then a source of light, got {lens!r} and {source!r}")
        if seed is not None:
            check_whole("seed", seed, 0)
        taker = telescope(instrument)
        camera = taker.camera(check_whole("height", height, 1), check_whole("width", width, 1))
        fine = camera.grid.resampled(camera.supersampling)
        like = torch.zeros((), dtype=torch.float64)
        clean = camera.render(source, DeflectionField.from_lens(lens, fine, like=like))
        if lens_light is not None:
            clean = clean + camera.expose(lens_light(fine.positions(like=like)) * fine.pixel_area)
        clean = clean.detach().float()
        noise = taker.noise_of(clean)
        taken = clean if seed is None else noise.sample(clean, torch.Generator().manual_seed(seed))
        seen = taker.observation(taken)
    images = ImageSet(seen, psf=taker.description, index=np.arange(len(taken)))
    return Images(images, single=len(taken) == 1, name="simulated")


def positions(height: int, width: int, pixel_scale: float) -> tuple[Array, Array]:
    """Return x and y of pixel centres, (H, W) float64 each [arcsec]: the middle is 0, rows are y and grow upwards.

    Example:
        >>> x, y = positions(2, 3, 0.5)
        >>> x[0].tolist(), y[:, 0].tolist()
        ([-0.5, 0.0, 0.5], [-0.25, 0.25])
    """
    x, y = PixelGrid(height, width, pixel_scale).positions(like=torch.zeros((), dtype=torch.float64))[0].numpy()
    return x, y
