"""Whether there is a galaxy in front of the arcs: image by image, the fit with its light or the one without."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lensphys.fitting.lens_light import LensLightSettings
from lensphys.fitting.remains import Remains, astray, left_over
from lensphys.fitting.shared_noise import SharedNoise
from lensphys.fitting.source import Fitted, FreeSourceSettings, Groups, as_it_is, freed, parted
from lensphys.fitting.with_light import LitLens
from lensphys.model import centre_of


@dataclass(frozen=True)
class LitOrNot:
    """How it is decided.

    Args:
        light: how the light of a lens galaxy is found.
        source: how the source is freed while both are compared; None to compare them with Sersics.
        steps: Newton steps on the best lens with its light.
        sky: how the noise is compared with the error map.
        edge: share of the range of a parameter next to a bound that counts as the bound.
    """

    light: LensLightSettings
    source: FreeSourceSettings | None
    steps: int
    sky: SharedNoise
    edge: float

    def __call__(self, smooth: Fitted) -> Groups:
        """Return the smooth fits; with the light of a galaxy in front where that explains an image better."""
        if smooth.problem.model.lens_light:
            return as_it_is(smooth)
        lit = {int(row): self._better(one) for row, one in smooth.apart() if self._badly_explained(one)}
        better = {row: fit for row, fit in lit.items() if fit is not None}
        those = torch.tensor([row in better for row in range(len(smooth.x))], device=smooth.x.device)
        found: Groups = [(smooth.index[row : row + 1], fit) for row, fit in better.items()]
        return found + parted(smooth, those, lambda _: [], as_it_is)

    def _badly_explained(self, smooth: Fitted) -> bool:
        return left_over(smooth) or astray(smooth, self.edge)

    def _better(self, smooth: Fitted) -> Fitted | None:
        """One image with the light of its lens galaxy, if it has one and that explains it better.

        With the noise as it is given: a galaxy that is not fitted looks like noise that neighbours share.
        """
        problem = smooth.problem.inflated(smooth.problem.inflation.reciprocal())
        smooth = Fitted.at(problem, smooth.x)
        lost_before = astray(smooth, self.edge)
        galaxy = self._galaxy(smooth, lost_before)
        if galaxy is None:
            return None
        middle, light = galaxy
        plain = self._coarse(smooth)
        if not lost_before and not left_over(plain):
            return None
        fit = LitLens(light, self.source, self.steps)(problem, middle)
        lit = replace(self.sky.counted(fit), rival=fit.rival)
        lost = astray(lit, self.edge)
        flat = any(name.startswith("lens_light.0.e") for name in lit.problem.at_bounds(lit.x, self.edge)[0])
        if flat or (lost and not lost_before):
            return None  # an arc was taken for a galaxy: none is so flat, and its mass is where its light is
        no_lens = lost_before and not lost
        return lit if no_lens or _likelier(self._coarse(lit), plain) else None

    def _galaxy(self, smooth: Fitted, lost: bool) -> tuple[Tensor, LensLightSettings] | None:
        """Where one image may have a galaxy, (2,) [arcsec], and how its light is found; None where there is none.

        Where it is brightest, or within arcs that are brighter.

        Args:
            smooth: the fit without its light.
            lost: whether that is no lens.
        """
        problem, main = smooth.problem, smooth.problem.model.main
        values = problem.values(smooth.x)
        if f"{main}.theta_E" not in values:
            return None
        galaxy = self.light.looks_like_a_galaxy(problem.observation, problem.inverse_sigma)
        if galaxy and (lost or not self.arc_is_brightest(smooth)):
            return self.light.middle_of(problem.observation), self.light
        if lost or not self._light_within(Remains.from_fit(smooth)):
            return None
        theta_E, radius = float(values[f"{main}.theta_E"]), problem.observation.camera.grid.radius
        return centre_of(values, main)[0], self.light.inside(theta_E / radius)

    def _light_within(self, look: Remains) -> bool:
        """Whether one image has light in the middle of its lens that is not lensed."""
        fainter, problem = self.light.search.fainter, look.fitted.problem
        middle, image = look.middle(fainter.within), problem.observation.image
        left, there = ((light * middle).sum() for light in (image - problem.shown(look.fitted.x), image))
        return float(look.left_in(middle)) > fainter.signal and float(left) > fainter.share * float(there)

    def arc_is_brightest(self, smooth: Fitted) -> bool:
        """Whether the brightest light of one image is as far from the lens as its arcs are, and from the middle.

        What is in the middle of the field is looked at: a false lens beside a galaxy would call it an arc.
        """
        problem, main = smooth.problem, smooth.problem.model.main
        values, (least, most) = problem.values(smooth.x), self.light.search.arc
        theta_E, place = float(values[f"{main}.theta_E"]), self.light.middle_of(problem.observation).to(smooth.x)
        away = float((place - centre_of(values, main)[0]).norm())
        return least < away / theta_E < most and float(place.norm()) > least * theta_E

    def _coarse(self, smooth: Fitted) -> Fitted:
        """The middle of one image behind a source that is free in few modes, each pixel at its centre."""
        problem, about = smooth.problem.sampled(1), self.light.about
        problem = problem.inner(*problem.observation.camera.grid.middle(about.reach, about.reach).shape)
        problem = problem.without_border(about.border_of(problem.observation))
        if self.source is None:
            return Fitted.at(problem, smooth.x)
        few = self.source.model_copy(update={"modes": self.source.modes[:2]})
        return freed(problem, smooth.x, few, frames=1)[-1]


def _likelier(lit: Fitted, plain: Fitted) -> bool:
    """Whether a fit of one image with its galaxy's light is likelier than one without, judged by the noise alone.

    The fit with the light counts what its model may be wrong by as noise: behind it the other would look well, too.
    """
    sigma = torch.where(lit.problem.inverse_sigma > 0, plain.problem.inverse_sigma, 0.0)
    both = (lit, plain)
    first, second = (float(Fitted.at(replace(fit.problem, inverse_sigma=sigma), fit.x).evidence) for fit in both)
    return first > second
