"""What is fitted to an image, and how the image answers: SIE + shear, sub-halos, a potential field, and the source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from lensphys.checks import LensphysError, check_finite
from lensphys.deflection import DeflectionField
from lensphys.grid import PixelGrid
from lensphys.model import SIE, CosineBasis, MassProfile, PointSwarm, PotentialField, Sersic, Shear
from lensphys.model.component import offset
from lensphys.model.light import brightness_sersic_derivatives
from lensphys.model.mass import deflection_shear, deflection_sie_derivatives
from lensphys.model.parameter import Parameter, ParameterSpace
from lensphys.observation import Observation

LENS = ("theta_E", "e1", "e2", "center_x", "center_y", "gamma1", "gamma2")  # the order of the parameters
SOURCE = ("amp", "R_sersic", "n_sersic", "source_e1", "source_e2", "source_x", "source_y")
EMPTY = -40.0  # logarithmic strength of a sub-halo that is not there
_STRENGTH = -7.0, 3.0  # prior of a sub-halo's ln(theta_E^2 / arcsec^2): 0.03", give or take a factor of 4.5 in theta_E
_PLACE = 4.0  # prior of its position [arcsec]


def lens_parameters(radius: float) -> ParameterSpace:
    """Return the parameters of SIE + shear + Sersic in a field of view of half width ``radius`` [arcsec].

    Positions are in arcsec; ``amp`` is in units of the image's brightest pixel. The priors hold what an image of low
    signal-to-noise leaves open: lenses are near the middle, nearly round, weakly sheared.
    """
    return ParameterSpace(
        [
            Parameter("theta_E", "", 0.05 * radius, radius, logarithmic=True),
            Parameter("e1", "", -0.6, 0.6, 0.0, 0.2),
            Parameter("e2", "", -0.6, 0.6, 0.0, 0.2),
            Parameter("center_x", "", -0.25 * radius, 0.25 * radius, 0.0, 0.1),
            Parameter("center_y", "", -0.25 * radius, 0.25 * radius, 0.0, 0.1),
            Parameter("gamma1", "", -0.4, 0.4, 0.0, 0.1),
            Parameter("gamma2", "", -0.4, 0.4, 0.0, 0.1),
            Parameter("amp", "", 1e-4, 1e3, logarithmic=True),
            Parameter("R_sersic", "", 0.01, radius, 0.25, 1.0, logarithmic=True),
            Parameter("n_sersic", "", 0.3, 8.0, 1.5, 0.7, logarithmic=True),
            Parameter("source_e1", "", -0.6, 0.6, 0.0, 0.3),
            Parameter("source_e2", "", -0.6, 0.6, 0.0, 0.3),
            Parameter("source_x", "", -0.6 * radius, 0.6 * radius),
            Parameter("source_y", "", -0.6 * radius, 0.6 * radius),
        ]
    )


def macro_lens(values: dict[str, Tensor]) -> MassProfile:
    """Return SIE + shear (about the SIE's centre) from named parameters, each (B,)."""
    centre = values["center_x"], values["center_y"]
    return SIE(values["theta_E"], values["e1"], values["e2"], *centre) + Shear(
        values["gamma1"], values["gamma2"], *centre
    )


def sersic_source(values: dict[str, Tensor]) -> Sersic:
    """Return the Sersic source from named parameters, each (B,)."""
    return Sersic(
        values["amp"],
        values["R_sersic"],
        values["n_sersic"],
        values["source_e1"],
        values["source_e2"],
        values["source_x"],
        values["source_y"],
    )


@dataclass(frozen=True)
class LensState:
    """Everything that is fitted to a batch of images.

    Args:
        macro: SIE + shear + Sersic, unconstrained, (B, 14); see `lens_parameters`.
        subhalos: softened point masses, (B, K, 3): ln(theta_E^2 / arcsec^2), x and y [arcsec]; `EMPTY` where none is.
        potential: coefficients of psi, (B, n, n) [arcsec^3]; (B, 1, 1) zeros for none.
        light: coefficients of what the source has beside the Sersic, (B, m, m) [unit of the
            image's peak, arcsec]; (B, 1, 1) zeros for none.
    """

    macro: Tensor
    subhalos: Tensor
    potential: Tensor
    light: Tensor

    @classmethod
    def smooth(cls, macro: Tensor) -> LensState:
        """Return the state of a smooth lens and a Sersic source, from ``macro`` (B, 14)."""
        none = macro.new_zeros(len(macro), 1, 1)  # the constant mode alone, which changes nothing
        return cls(macro, none[:, :0].expand(-1, -1, 3), none, none)

    def __getitem__(self, rows: Tensor) -> LensState:
        """Return some images (rows, indices) of the batch."""
        return LensState(self.macro[rows], self.subhalos[rows], self.potential[rows], self.light[rows])

    def with_rows(self, rows: Tensor, part: LensState) -> LensState:
        """Return the state with some images (rows, indices) replaced; the shorter of two lists is filled up."""
        count = max(self.subhalos.shape[1], part.subhalos.shape[1])
        modes = max(self.potential.shape[-1], part.potential.shape[-1])
        source_modes = max(self.light.shape[-1], part.light.shape[-1])
        return LensState(
            self.macro.index_copy(0, rows, part.macro),
            filled(self.subhalos, count).index_copy(0, rows, filled(part.subhalos, count)),
            grown(self.potential, modes).index_copy(0, rows, grown(part.potential, modes)),
            grown(self.light, source_modes).index_copy(0, rows, grown(part.light, source_modes)),
        )

    @property
    def vector(self) -> Tensor:
        """What Levenberg-Marquardt moves: macro and sub-halos, (B, 14 + 3 K)."""
        return torch.cat([self.macro, self.subhalos.flatten(1)], dim=1)

    def moved(self, vector: Tensor) -> LensState:
        """Return the state with another `vector`, of any number of sub-halos."""
        macro = vector[:, : self.macro.shape[1]]
        return replace(self, macro=macro, subhalos=vector[:, macro.shape[1] :].unflatten(1, (-1, 3)))


def filled(subhalos: Tensor, count: int) -> Tensor:
    """Return sub-halos (B, K, 3) filled up to (B, count, 3) with ones that are not there."""
    full = subhalos.new_zeros(len(subhalos), count, 3)
    full[:, :, 0] = EMPTY
    full[:, : subhalos.shape[1]] = subhalos
    return full


def grown(coefficients: Tensor, modes: int) -> Tensor:
    """Return coefficients (B, n, n) with zeros for the modes that they lack, (B, modes, modes)."""
    missing = modes - coefficients.shape[-1]
    return F.pad(coefficients, (0, missing, 0, missing))


@dataclass(frozen=True)
class LensModel:
    """A lens and its source as callables on positions.

    Args:
        values: the named parameters of SIE + shear + Sersic, each (B,), positions in arcsec, ``amp`` in flux/arcsec^2.
        mass: theta (B or 1, 2, H, W) [arcsec] -> alpha (B, 2, H, W) [arcsec].
        source: beta (B, 2, H, W) [arcsec] -> surface brightness (B, 1, H, W) [flux / arcsec^2].
    """

    values: dict[str, Tensor]
    mass: MassProfile
    source: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Response:
    """How the images answer to small changes of the state; every map is on the camera's (supersampled) pixels.

    Args:
        residual: (y - E[model]) / sigma, (B, H W).
        columns: its derivatives by the entries of `LensState.vector`, (B, P, H W).
        changes: derivatives of the source's brightness by the same, (B, P, sH, sW).
        weight: what turns a change of the clean image into one of the whitened one, (B, 1, H, W).
        slope: gradient of the source's brightness by beta, (B, 2, sH, sW) [flux / arcsec^3].
        beta: source-plane positions, (B, 2, sH, sW) [arcsec].
    """

    residual: Tensor
    columns: Tensor
    changes: Tensor
    weight: Tensor
    slope: Tensor
    beta: Tensor


@dataclass(frozen=True)
class LensProblem:
    """The least-squares problem of a batch of images at a fixed noise variance.

    Args:
        observation: images and how they were taken.
        space: bounds and priors of SIE + shear + Sersic.
        unit: surface brightness of the brightest pixel, (B,) [flux / arcsec^2].
        inverse_sigma: one over the noise of each pixel, 0 where masked, (B, 1, H, W).
        core: softening of the sub-halos [arcsec].
        potential: modes of psi.
        light: modes of the source's free-form part.
    """

    observation: Observation
    space: ParameterSpace
    unit: Tensor
    inverse_sigma: Tensor
    core: float
    potential: CosineBasis
    light: CosineBasis

    @classmethod
    def of(cls, observation: Observation, *, modes: int = 40, source_modes: int = 32) -> LensProblem:
        """Return the problem with the noise variance of the smoothed image.

        Raises:
            LensphysError: if an image holds NaN, or no positive pixel inside the mask.
        """
        check_finite("image", observation.image)
        grid, peak = observation.camera.grid, observation.peak
        if bool((peak <= 0).any()):
            raise LensphysError("an image has no positive pixel inside the mask: there is nothing to fit")
        return cls(
            observation,
            lens_parameters(grid.radius),
            peak / grid.pixel_area,
            _inverse_sigma(observation, observation.smoothed),
            0.1 * grid.scale,
            CosineBasis.covering(grid, modes),
            CosineBasis(source_modes, 1.2 * grid.radius),
        )

    def __len__(self) -> int:
        return len(self.observation)

    def __getitem__(self, rows: Tensor) -> LensProblem:
        """Return the problem of some images (rows, indices) of the batch."""
        return replace(
            self,
            observation=self.observation[rows],
            unit=self.unit[rows],
            inverse_sigma=self.inverse_sigma[rows],
        )

    def with_rows(self, rows: Tensor, part: LensProblem) -> LensProblem:
        """Return the problem with the noise of some images (rows, indices) replaced."""
        inverse_sigma = self.inverse_sigma.clone()
        inverse_sigma[rows] = part.inverse_sigma
        noise = self.observation.noise.merged(rows, part.observation.noise)
        return replace(self, observation=replace(self.observation, noise=noise), inverse_sigma=inverse_sigma)

    @property
    def fine(self) -> PixelGrid:
        """The camera's (supersampled) pixels."""
        return self.observation.camera.grid.resampled(self.observation.camera.supersampling)

    def renewed(self, state: LensState) -> LensProblem:
        """Return the problem with the noise of the model: its numbers too, where the instrument does not know them."""
        clean, observation = self.render(state), self.observation
        observation = replace(observation, noise=observation.noise.updated(observation.image, clean))
        return replace(self, observation=observation, inverse_sigma=_inverse_sigma(observation, clean))

    def model(self, state: LensState) -> LensModel:
        """Return the lens and the source of a state."""
        values = self._values(state.macro)
        mass = macro_lens(values)
        if state.subhalos.shape[1]:
            strength, x, y = state.subhalos.unbind(2)
            mass = mass + PointSwarm(strength.exp(), x, y, self.core)
        if bool((state.potential != 0).any()):
            mass = mass + PotentialField(state.potential, self.potential)
        return LensModel(values, mass, self._source(values, state.light))

    def render(self, state: LensState) -> Tensor:
        """Return the clean images, (B, 1, H, W) [flux per pixel]."""
        model = self.model(state)
        field = DeflectionField.of(model.mass, self.fine, like=state.macro)
        return self.observation.camera.render(model.source, field)

    def residual(self, state: LensState) -> Tensor:
        """Return (y - E[model]) / sigma, (B, H W)."""
        expected = self.observation.noise.expected(self.render(state))
        return ((self.observation.image - expected) * self.inverse_sigma).flatten(1)

    def prior(self, vector: Tensor) -> Tensor:
        """Return the residuals of the priors of macro and sub-halos, (B, number of priors)."""
        subhalos = vector[:, len(self.space) :].unflatten(1, (-1, 3))
        there = subhalos[:, :, :1] > EMPTY
        middle, widths = subhalos.new_tensor([_STRENGTH[0], 0, 0]), subhalos.new_tensor([_STRENGTH[1], _PLACE, _PLACE])
        own = ((subhalos - middle) / widths * there).flatten(1)
        return torch.cat([self.space.prior_residual(vector[:, : len(self.space)]), own], dim=1)

    def cost(self, state: LensState) -> Tensor:
        """Return chi^2 / 2 plus the priors of macro and sub-halos, (B,)."""
        return 0.5 * (self.residual(state).square().sum(1) + self.prior(state.vector).square().sum(1))

    def system(self, state: LensState) -> tuple[Tensor, Tensor]:
        """Return the residuals of data and priors, (B, N), and their Jacobian by `LensState.vector`, (B, P, N)."""
        return self.with_priors(self.response(state), state)

    def with_priors(self, seen: Response, state: LensState) -> tuple[Tensor, Tensor]:
        """Return the residuals and the Jacobian of a response with those of the priors appended."""
        there = (state.subhalos[:, :, :1] > EMPTY).to(state.macro)
        widths = state.macro.new_tensor([_STRENGTH[1], _PLACE, _PLACE])
        own = torch.diag_embed((there / widths).flatten(1))
        macro = self.space.prior_slopes(state.macro)
        slopes = torch.cat([F.pad(macro, (0, 0, 0, own.shape[1])), F.pad(own, (0, 0, macro.shape[1], 0))], dim=2)
        prior = self.prior(state.vector)
        return torch.cat([seen.residual, prior], dim=1), torch.cat([seen.columns, slopes], dim=2)

    def response(self, state: LensState) -> Response:
        """Return residuals and derivatives at a state."""
        observation = self.observation
        brightness, changes, slope, beta = self.changes(state, self.fine)
        clean = observation.camera.expose(brightness * self.fine.pixel_area)
        weight = self.whitening(clean)
        residual = (observation.image - observation.noise.expected(clean)) * self.inverse_sigma
        return Response(residual.flatten(1), -self.whitened(changes, weight), changes, weight, slope, beta)

    def changes(self, state: LensState, grid: PixelGrid) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the lensed source on a grid and its derivatives, from those of lens and source by the chain rule.

        Returns:
            surface brightness (B, 1, H, W) [flux / arcsec^2], its derivatives by the entries of `LensState.vector`
            (B, P, H, W) and by beta (B, 2, H, W), and beta (B, 2, H, W) [arcsec].
        """
        values, slopes = self._values(state.macro), self._slopes(state.macro)
        theta = grid.positions(like=state.macro)
        sie = [values[name] for name in LENS[:5]]
        alpha, by_sie = deflection_sie_derivatives(theta, *sie)
        alpha = alpha + deflection_shear(theta, *(values[name] for name in (*LENS[5:], *LENS[3:5])))
        by_sie[:, 3:] -= _shear_matrix(values)  # the shear is about the lens's centre
        # alpha jumps at the lens's centre: the slope in the pixel that holds it is that of the jump over half a pixel
        by_sie = by_sie.clamp(-2 * grid.radius / grid.scale, 2 * grid.radius / grid.scale)
        by_lens = torch.cat([by_sie, _by_shear(theta, values)], dim=1)
        beta = theta - alpha - self._bent_by_substructure(state, grid)
        brightness, by_source = brightness_sersic_derivatives(beta, *(values[name] for name in SOURCE))
        slope = -by_source[:, 5:]
        if bool((state.light != 0).any()):
            unit = self.unit[:, None, None, None]
            brightness = brightness + unit * self.light.at(beta)(state.light)
            slope = slope + unit * self.light.gradient(state.light, beta)
        by_lens = -(slope[:, None] * by_lens).sum(2)
        by_macro = torch.cat([by_lens, by_source], dim=1) * slopes[:, :, None, None]
        changes = torch.cat([by_macro, by_subhalos(state.subhalos, theta, slope, self.core)], dim=1)
        return brightness, changes, slope, beta

    def whitening(self, clean: Tensor) -> Tensor:
        """Return d E[y] / d clean over sigma, (B, 1, H, W)."""
        return torch.func.jvp(self.observation.noise.expected, (clean,), (torch.ones_like(clean),))[1] * (
            self.inverse_sigma
        )

    def whitened(self, changes: Tensor, weight: Tensor) -> Tensor:
        """Return the whitened changes (B, P, H W) of the expected image, for changes (B, P, sH, sW) of brightness."""
        expose = torch.func.vmap(self.observation.camera.expose, in_dims=1, out_dims=1)
        flux = expose(changes[:, :, None] * self.fine.pixel_area)
        return (flux * weight[:, None]).flatten(2)

    def _values(self, macro: Tensor) -> dict[str, Tensor]:
        values = self.space.physical(macro)
        return values | {"amp": values["amp"] * self.unit}

    def _slopes(self, macro: Tensor) -> Tensor:
        """d value / d parameter, (B, 14)."""
        slopes = self.space.slopes(macro)
        amp = torch.tensor([name == "amp" for name in self.space.names], device=macro.device)
        return torch.where(amp, slopes * self.unit[:, None], slopes)

    def _source(self, values: dict[str, Tensor], light: Tensor) -> Callable[[Tensor], Tensor]:
        sersic = sersic_source(values)
        if not bool((light != 0).any()):
            return sersic
        unit = self.unit[:, None, None, None]
        return lambda beta: sersic(beta) + unit * self.light.at(beta)(light)

    def _bent_by_substructure(self, state: LensState, grid: PixelGrid) -> Tensor:
        strength, x, y = state.subhalos.unbind(2)
        bent = PointSwarm(strength.exp(), x, y, self.core)(grid.positions(like=strength))
        if bool((state.potential != 0).any()):
            bent = bent + self.potential.gradient_on(state.potential, grid)
        return bent


def _inverse_sigma(observation: Observation, clean: Tensor) -> Tensor:
    return (observation.weight / observation.noise.variance(clean)).sqrt()


def _shear_matrix(values: dict[str, Tensor]) -> Tensor:
    """Return d alpha / d theta of the shear, (B, 2, 2, 1, 1): [by, component]."""
    g1, g2 = values["gamma1"], values["gamma2"]
    return torch.stack([g1, g2, g2, -g1], dim=1).reshape(-1, 2, 2, 1, 1)


def _by_shear(theta: Tensor, values: dict[str, Tensor]) -> Tensor:
    """Return the derivatives of the deflection by gamma1 and gamma2, (B, 2, 2, H, W)."""
    x, y = offset(theta, values["center_x"], values["center_y"])
    return torch.stack([torch.stack([x, -y], dim=1), torch.stack([y, x], dim=1)], dim=1)


def by_subhalos(subhalos: Tensor, theta: Tensor, slope: Tensor, core: float) -> Tensor:
    """Return the derivatives (B, 3 K, H, W) of the brightness by the sub-halos' numbers, in closed form."""
    if subhalos.shape[1] == 0:
        return slope.new_zeros(len(slope), 0, *slope.shape[-2:])
    strength, x, y = subhalos[..., None, None].unbind(2)
    dx, dy = theta[:, :1] - x, theta[:, 1:] - y
    # exactly zero where none is: a drift by the last digit would count as a sub-halo
    scale = strength.exp() * (strength > EMPTY) / (dx**2 + dy**2 + core**2)
    gx, gy = slope[:, :1], slope[:, 1:]
    along = scale * (gx * dx + gy * dy)  # slope . alpha
    steep = 2 * along / (dx**2 + dy**2 + core**2)
    columns = torch.stack([-along, scale * gx - steep * dx, scale * gy - steep * dy], dim=2)
    return columns.flatten(1, 2)
