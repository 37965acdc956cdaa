"""A fitted lens: its components at any position, its parameters, and images of it at any scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from numpy.typing import NDArray
from torch import Tensor

from lensphys.api.chosen import fit_model
from lensphys.api.device import device_of
from lensphys.api.images import File, Images, as_images, places
from lensphys.api.resolve import FINEST, Model
from lensphys.api.result import Result
from lensphys.api.words import in_python
from lensphys.basics.checks import LensphysError, check_whole
from lensphys.basics.constants import normal_tensors
from lensphys.basics.provenance import provenance
from lensphys.basics.sentences import counted
from lensphys.fitting import Fitted, LensFit
from lensphys.methods import RefinedFit
from lensphys.methods.super_resolve import described
from lensphys.model import Component, LightProfile, LightSum, MassProfile, MassSum

if TYPE_CHECKING:
    from astropy.table import Table
    from matplotlib.figure import Figure

C = TypeVar("C", bound=Component)


@dataclass(frozen=True)
class Fit:
    """The fits of one image or of a stack.

    Args:
        images: what was fitted.
        method: how.
        fits: one an image.
        device: where they are.

    Example::

        fit = lp.fit(lp.read("lens.fits"))
        kappa = fit.lens.convergence(x, y)  # at any positions [arcsec]
        result = fit.super_resolve(4)
    """

    images: Images
    method: RefinedFit
    fits: list[LensFit]
    device: str = "cpu"

    @normal_tensors()
    def super_resolve(self, scale: int = 2) -> Result:
        """Return the super-resolved images, with pixels ``scale`` times as small: nothing is fitted again.

        Raises:
            LensphysError: if the scale is no whole number from 1 to 16.
        """
        with in_python():
            scale = check_whole("scale", scale, 1, FINEST)
        observation = self.images.set.observation.to(self.device)
        planes = described(self.method.prediction(self.fits, scale), observation)
        record = {"read": self.images.remarks, "model": self.method.model.resolved}
        origin = provenance(input=self.images.name, method="refine", scale=scale, **record)
        return Result(self.images, planes, scale, origin)

    @cached_property
    def result(self) -> Result:
        """What was found, on the image's own pixels."""
        return self.super_resolve(1)

    @property
    def lens(self) -> MassProfile:
        """The mass: its `deflection`, `convergence` and so on at any position [arcsec], its `critical_curves`.

        Sub-halos and the correction to the potential are part of it.

        Raises:
            LensphysError: if there are several fits: choose one, as ``fit[0]``.
        """
        fitted = self._one("lens")
        return plain(fitted.problem.lens(fitted.x).mass)

    @property
    def source(self) -> LightProfile:
        """The source: its `brightness` at any position of the source plane [arcsec].

        Raises:
            LensphysError: if there are several fits: choose one, as ``fit[0]``.
        """
        fitted = self._one("source")
        return plain(fitted.problem.lens(fitted.x).source)

    def to_lenstronomy(self) -> dict[str, list[Any]]:
        """Return lens, source and the light of the lens galaxy in the words of lenstronomy.

        Sub-halos are point masses or truncated NFW halos; a source of any shape is an image (``INTERPOL``), and a
        correction to the potential a grid of it and its derivatives (``INTERPOL``): to 1 % of its deflection. What lies
        about the light of a galaxy beside its Gaussians has no name there.

        Returns:
            ``lens_model_list, kwargs_lens, source_light_model_list, kwargs_source, lens_light_model_list,
            kwargs_lens_light``: angles in arcsec, light in flux / arcsec^2.

        Raises:
            LensphysError: if there are several fits, or lenstronomy has nothing like a component: one of your own.

        Example::

            words = lp.fit("lens.fits").to_lenstronomy()
            LensModel(words["lens_model_list"]).magnification(x, y, words["kwargs_lens"])
        """
        fitted = self._one("to_lenstronomy()")
        lens, found = fitted.problem.lens(fitted.x), dict[str, list[Any]]()
        for model, keywords, component in (
            ("lens", "kwargs_lens", lens.mass),
            ("source_light", "kwargs_source", lens.source),
            ("lens_light", "kwargs_lens_light", lens.light),
        ):
            named = [] if component is None else plain(component).to_lenstronomy()
            found |= {f"{model}_model_list": [n for n, _ in named], keywords: [values for _, values in named]}
        return found

    @property
    def table(self) -> Table:
        """All parameters with their errors and units, a row each."""
        return self.result.table

    @property
    def covariance(self) -> NDArray[Any] | None:
        """Covariance of the parameters of one image in the order of ``table``: see `Result.covariance`."""
        return self.result.covariance

    def samples(self, count: int = 1000, seed: int = 0) -> Table:
        """Return draws of the parameters of one image, a row each: see `Result.samples`."""
        return self.result.samples(count, seed)

    @property
    def subhalos(self) -> Table:
        """The sub-halos that were found, a row each: position, Einstein radius [arcsec], gain in ln likelihood."""
        return self.result.subhalos

    @property
    def chi2(self) -> Any:
        """Chi^2 per degree of freedom, a number, or (N,)."""
        return self.result.chi2

    @property
    def theta_E(self) -> Any:
        """Einstein radius of the main lens [arcsec], a number, or (N,)."""
        return self.result.theta_E

    @property
    def quality(self) -> Any:
        """``good``, ``suspect`` or ``bad``, or (N,) of them."""
        return self.result.quality

    @property
    def reasons(self) -> Any:
        """Why the quality is not good: a list of sentences, or one list an image."""
        return self.result.reasons

    @property
    def residual(self) -> NDArray[Any]:
        """Image less its model, (H, W) [flux per pixel]; 0 where masked."""
        return self.result.residual

    def plot(self, index: int = 0, *, sigmas: float = 4.0) -> Figure:
        """Return a figure of one image: data, model, residual, sigma, kappa and source.

        Args:
            index: which image of a stack, counted from 0.
            sigmas: where the colours of the residual end [sigma of the noise].
        """
        return self.result.plot(index, sigmas=sigmas)

    def __len__(self) -> int:
        return len(self.fits)

    def __getitem__(self, index: int | slice | Sequence[int]) -> Fit:
        """Return the fit of one image of a stack, or of some."""
        return replace(self, images=self.images[index], fits=[self.fits[i] for i in places(index, len(self))])

    def __repr__(self) -> str:
        many = counted(len(self), "image")
        return "\n".join([f"fit of {many} ({self.images.name}): {self.result.summary}", *self.result.verdict])

    def _one(self, what: str) -> Fitted:
        if len(self) != 1:
            raise LensphysError(f"there are {len(self)} fits: choose one, as fit[0].{what}")
        [(_, fitted)] = self.fits[0].groups
        return fitted


@normal_tensors()
def fit(images: Images | File | NDArray[Any], model: Model | None = None, *, device: str = "auto") -> Fit:
    """Fit a lens and its source to each image, through its PSF, pixels and noise.

    Args:
        images: what `lensphys.read` returned; or a file, or an array (H, W) or (N, H, W), that it reads without further
            arguments.
        model: what is fitted, by the names of a recipe: a YAML file, or such a tree as a dict, as ``{"lens": {"kind":
            "epl"}, "source": {"kind": "sersic"}, "subhalos": None}``. Of each component a parameter that is not given
            is free with the prior that it declares, and a number is fixed. By default an SIE with external shear, a
            source of any shape, and sub-halos and a correction to the potential where they pay.
        device: ``auto`` (a GPU where there is one), ``cpu`` or ``cuda``.

    Raises:
        LensphysError: one sentence on what is wrong, and what to do.

    Example::

        fit = lp.fit(lp.read("lens.fits"))
        print(fit.table, fit.quality)
        fit.lens.critical_curves()
    """
    given = as_images(images)
    with in_python():
        method = RefinedFit() if model is None else RefinedFit(model=fit_model(model))
        where = device_of(device)
        return Fit(given, method, method.fits(given.set.observation.to(where)), where)


def plain(component: C) -> C:
    """Return a component of one lens with numbers for its parameters (1,); fields and swarms stay tensors."""
    if isinstance(component, MassSum | LightSum):
        return type(component)(tuple(map(plain, component.profiles)))  # type: ignore[arg-type]
    tensors = {n: v for n, v in component.values.items() if isinstance(v, Tensor) and v.shape == (1,)}
    # by way of its digits: 1.1 in single precision is 1.10000002384 in double
    return replace(component, **{n: float(str(v.detach().cpu().numpy()[0])) for n, v in tensors.items()})
