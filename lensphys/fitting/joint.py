"""The least-squares problem of one lens in several images: exposures share all of it, bands its mass.

Each image is a `LensProblem` of its own, on its own pixels, with its own PSF and noise; what they share has one place
in the joint vector, whose normal equations are the sums of theirs. Where an image lies on the sky of the first one is
free within the pointing error. The source's fields of several bands are correlated by their prior.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from lensphys.fitting.brightness import Brightness
from lensphys.fitting.newton import AtOptimum, Normal, Optimum, factored
from lensphys.fitting.placement import PLACED, Placement
from lensphys.fitting.problem import LensProblem, products
from lensphys.fitting.source import Fitted


@dataclass(frozen=True)
class View:
    """One image of a lens.

    Args:
        name: of the image, for messages and tables.
        band: images of the same band see the same source and lens light.
        problem: of this image alone, a batch of one, with the model's positions on the sky of the first image.
        place: where it is known to lie there: the mean of the prior.
    """

    name: str
    band: str
    problem: LensProblem
    place: Placement


@dataclass(frozen=True)
class Spot:
    """Where the entries of one image's vector are in the joint one.

    Args:
        index: of each entry of its vector, (Q,).
        placed: of the free numbers of its placement, (k,).
        owned: whether the prior of the entry is counted with this image, (Q,): it is the first that has it.
    """

    index: Tensor
    placed: Tensor
    owned: Tensor

    @property
    def all(self) -> Tensor:
        """All of its entries, (Q + k,)."""
        return torch.cat([self.index, self.placed])


@dataclass(frozen=True)
class JointProblem:
    """The least-squares problem of one lens in several images; a batch of one, for `minimised`.

    A vector (1, Q) holds what is not in another place before: the mass, the sub-halos and the potential, as the first
    image has them; the source, lens light and field of each band; the placement of each image but the first, in units
    of its prior's standard deviation.

    Args:
        views: the images; the first is the one on whose sky all positions are.
        sigma: prior standard deviation of the numbers of a placement, in the order of `PLACED`; those of 0 are known.
        correlation: of the fields of two bands, by the prior, 0 to 1.
    """

    views: tuple[View, ...]
    sigma: tuple[float, float, float, float]
    correlation: float = 0.0

    def __len__(self) -> int:
        return 1

    def __getitem__(self, rows: Tensor) -> JointProblem:
        return self

    @property
    def bands(self) -> tuple[str, ...]:
        """The bands, in the order of their first images."""
        return tuple(dict.fromkeys(view.band for view in self.views))

    @cached_property
    def leaders(self) -> list[int]:
        """Which image is the first one of each band."""
        bands = [view.band for view in self.views]
        return [bands.index(band) for band in self.bands]

    @property
    def first(self) -> LensProblem:
        """The problem of the first image."""
        return self.views[0].problem

    @cached_property
    def spots(self) -> tuple[Spot, ...]:
        """Where the entries of each image are."""
        book = _Book()
        moving = [name for name, sigma in zip(PLACED, self.sigma, strict=True) if sigma > 0]
        found = [book.entries(view) for view in self.views]
        placed: list[list[int]] = [[]]
        placed += [[book.place((view.name, i, name))[0] for name in moving] for i, view in enumerate(self.views) if i]
        return tuple(
            Spot(torch.tensor(index), torch.tensor(own, dtype=torch.long), torch.tensor(owned))
            for (index, owned), own in zip(found, placed, strict=True)
        )

    @cached_property
    def size(self) -> int:
        """Q."""
        return 1 + int(torch.cat([spot.all for spot in self.spots]).max())

    @cached_property
    def fields(self) -> Tensor:
        """The places of the source's field of each band, (bands, M)."""
        return torch.stack([_of_field(self.views[i].problem, self.spots[i].index) for i in self.leaders])

    @property
    def bodies(self) -> Tensor:
        """The places of the sub-halos, (3 K,)."""
        own, bodies = self.first.sizes[:2]
        return self.spots[0].index[own : own + bodies]

    def seen(self, x: Tensor) -> list[tuple[LensProblem, Tensor]]:
        """Return each image's own problem, placed where the joint vector says, and its own vector (1, Q)."""
        found = [(self.first, x[:, self.spots[0].index])]
        for view, spot in zip(self.views[1:], self.spots[1:], strict=True):
            placement = Placement(view.place.numbers + x[:, spot.placed] @ self._steps(x).T)
            found.append((replace(view.problem, placement=placement), x[:, spot.index]))
        return found

    def gathered(self, vectors: Sequence[Tensor], placements: Sequence[Placement]) -> Tensor:
        """Return the joint vector of the images' own (1, Q) each; of what they share that of the first of them.

        Args:
            vectors: of the images, (1, Q) each.
            placements: of all of them.
        """
        x = vectors[0].new_zeros(1, self.size)
        for place, i in zip(self.fields, self.leaders, strict=True):
            x[:, place] = _of_field(self.views[i].problem, vectors[i][0])
        for view, spot, own, placement in zip(self.views, self.spots, vectors, placements, strict=True):
            x[:, spot.index[spot.owned]] = own[:, spot.owned]
            if len(spot.placed):
                scale = self._steps(x).sum(0)
                moving = self._steps(x).argmax(0)
                x[:, spot.placed] = (placement.numbers - view.place.numbers)[:, moving] / scale
        return x

    def cost(self, x: Tensor) -> Tensor:
        """Return half of chi^2 and of the priors' squares, (1,), in float64."""
        return self.cost_of(x, range(len(self.views)))

    def cost_of(self, x: Tensor, images: Iterable[int]) -> Tensor:
        """Return the `cost` (1,) of a vector (1, Q) where some images alone count."""
        seen = self.seen(x)
        chi2 = [seen[i][0].residual(seen[i][1]).double().square().sum(1) for i in images]
        return 0.5 * torch.stack(chi2).sum(0) + self._prior_cost(x)

    def normal(self, x: Tensor) -> Normal:
        """Return the normal equations at a vector (1, Q), in float64."""
        return self.normal_of(x, range(len(self.views)))

    def normal_of(self, x: Tensor, images: Iterable[int]) -> Normal:
        """Return the normal equations at a vector (1, Q) where some images alone count."""
        gradient, hessian = self.prior_terms(x)
        cost, seen = self._prior_cost(x), self.seen(x)
        for spot, (problem, own) in ((self.spots[i], seen[i]) for i in images):
            residual, columns = self._system(problem, own, spot)
            g, h = products(residual, columns)
            gradient[:, spot.all] += g
            hessian[:, spot.all[:, None], spot.all] += h
            cost = cost + 0.5 * residual.double().square().sum(1)
        return Normal.from_derivatives(cost, gradient, hessian)

    def systems(self, x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield for each image its residuals (1, N) and the derivatives by its entries, (1, Q + k, N): see `Spot`."""
        for spot, (problem, own) in zip(self.spots, self.seen(x), strict=True):
            yield self._system(problem, own, spot)

    def prior_terms(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return gradient (1, Q) and curvature (1, Q, Q) of the priors' half squares, in float64."""
        gradient = x.new_zeros(1, self.size, dtype=torch.float64)
        diagonal = torch.zeros_like(gradient)
        for spot, (problem, own) in zip(self.spots, self.seen(x), strict=True):
            pull, precision = problem.prior_terms(own)
            gradient[:, spot.index[spot.owned]] += pull[:, spot.owned]
            diagonal[:, spot.index[spot.owned]] += precision[:, spot.owned]
            gradient[:, spot.placed] += x[:, spot.placed].double()
            diagonal[:, spot.placed] += 1
        hessian = torch.diag_embed(diagonal)
        precision, g = self.precision(x), x[:, self.fields].double()
        gradient[:, self.fields] += torch.einsum("ab,nbm->nam", precision, g)
        for a, b in torch.cartesian_prod(*2 * [torch.arange(len(self.bands))]).tolist():
            hessian[:, self.fields[a], self.fields[b]] += precision[a, b]
        return gradient, hessian

    def precision(self, like: Tensor) -> Tensor:
        """Return the inverse of the correlations of the bands' fields, (bands, bands), float64."""
        return torch.linalg.inv(self._correlations(like))

    def evidence(self, end: Optimum | Normal) -> Tensor:
        """Return ln of the evidence, (1,), but for a constant that all models of the images share: see `evidence`."""
        volume = self.first.subhalos * self.first.bodies.volume
        fields = 0.5 * self.fields.shape[1] * torch.logdet(self._correlations(end.cost))
        return -end.cost - end.half_logdet - volume - fields

    def renewed(self, x: Tensor) -> JointProblem:
        """Return the problem with the noise of the model, that of a vector (1, Q), in each image."""
        renewed = [problem.renewed(own) for problem, own in self.seen(x)]
        return replace(self, views=_with_problems(self.views, renewed))

    def without(self, body: int) -> tuple[JointProblem, Tensor]:
        """Return the problem without one of the sub-halos, and the entries (Q - 3,) of a vector that it keeps."""
        fewer = [replace(view.problem, subhalos=view.problem.subhalos - 1) for view in self.views]
        kept = torch.ones(self.size, dtype=torch.bool)
        kept[self.bodies[3 * body : 3 * body + 3]] = False
        return replace(self, views=_with_problems(self.views, fewer)), kept.nonzero()[:, 0]

    def _system(self, problem: LensProblem, own: Tensor, spot: Spot) -> tuple[Tensor, Tensor]:
        residual, columns = problem.system(own)
        if len(spot.placed) == 0:
            return residual, columns
        weight = problem.whitening(problem.render(own))
        moved = problem.whitened(Brightness(problem, own, problem.judged).by_placement(), weight)
        return residual, torch.cat([columns, self._steps(own).T @ moved], dim=1)

    def _prior_cost(self, x: Tensor) -> Tensor:
        total = x.new_zeros(1, dtype=torch.float64)
        for spot, (problem, own) in zip(self.spots, self.seen(x), strict=True):
            total = total + problem.pulls(own)[:, spot.owned].double().square().sum(1)
            total = total + x[:, spot.placed].double().square().sum(1)
        g = x[:, self.fields].double()
        return 0.5 * (total + torch.einsum("nam,ab,nbm->n", g, self.precision(x), g))

    def _correlations(self, like: Tensor) -> Tensor:
        count = len(self.bands)
        one = torch.eye(count, dtype=torch.float64, device=like.device)
        return self.correlation * torch.ones_like(one) + (1 - self.correlation) * one

    def _steps(self, like: Tensor) -> Tensor:
        """Numbers of a placement by its entries, (4, k)."""
        sigma = like.new_tensor(self.sigma)
        return torch.diag(sigma)[:, sigma > 0]


@dataclass(frozen=True)
class Part:
    """The joint problem of some entries (1, F), all others held, with the images that see them; for `minimised`.

    Args:
        problem: of all images.
        x: where all entries are, (1, Q).
        free: which of them are free, their indices, (F,).
        images: which images count.
    """

    problem: JointProblem
    x: Tensor
    free: Tensor
    images: tuple[int, ...]

    def __getitem__(self, rows: Tensor) -> Part:
        return self

    def whole(self, x: Tensor) -> Tensor:
        """Return the joint vector (1, Q) of some values of the free entries."""
        return self.x.index_copy(1, self.free, x)

    def cost(self, x: Tensor) -> Tensor:
        """Return half of chi^2 and of the priors' squares, (1,), in float64."""
        return self.problem.cost_of(self.whole(x), self.images)

    def normal(self, x: Tensor) -> Normal:
        """Return the normal equations at some values (1, F) of the free entries, in float64."""
        normal = self.problem.normal_of(self.whole(x), self.images)
        hessian = normal.hessian[:, self.free[:, None], self.free]
        return Normal.from_derivatives(normal.cost, normal.gradient[:, self.free], hessian)


class _Book:
    """Places in the joint vector, in the order in which they are asked for."""

    def __init__(self) -> None:
        self._places: dict[object, int] = {}

    def place(self, key: object) -> tuple[int, bool]:
        """Return the place of an entry, and whether it is new."""
        new = key not in self._places
        return self._places.setdefault(key, len(self._places)), new

    def entries(self, view: View) -> tuple[list[int], list[bool]]:
        """Return the places of the entries of an image, and whether their priors count there; a field's never do."""
        problem = view.problem
        _, bodies, g, psi = problem.sizes
        found = [self.place(_shared(view, name)) for name in problem.model.names]
        found += [self.place(("body", i)) for i in range(bodies)]
        found += [(self.place((view.band, "g", i))[0], False) for i in range(g)]
        found += [self.place(("psi", i)) for i in range(psi)]
        return [place for place, _ in found], [new for _, new in found]


def _shared(view: View, name: str) -> object:
    """What tells the parameter of an image from those of others."""
    return name if name.rpartition(".")[0] in view.problem.model.mass else (view.band, name)


def _of_field(problem: LensProblem, entries: Tensor) -> Tensor:
    """Those of some entries (Q,) of an image that are its source's field."""
    start, count = sum(problem.sizes[:2]), problem.sizes[2]
    return entries[start : start + count]


def _with_problems(views: Sequence[View], problems: Sequence[LensProblem]) -> tuple[View, ...]:
    return tuple(replace(view, problem=problem) for view, problem in zip(views, problems, strict=True))


@dataclass(frozen=True)
class JointFitted(AtOptimum[JointProblem]):
    """Several images of one lens, at their optimum; a batch of one."""

    @cached_property
    def evidence(self) -> Tensor:
        """Of all images together, (1,)."""
        return self.problem.evidence(self.end)

    @cached_property
    def covariance(self) -> Tensor:
        """Of all entries, (Q, Q), float64."""
        return self.end.normal.covariance[0]

    @cached_property
    def determined(self) -> list[Tensor]:
        """How many numbers the data of each image determine, (1,) each; their sum is that of all data."""
        found = []
        for spot, (residual, columns) in zip(self.problem.spots, self.problem.systems(self.x), strict=True):
            information = products(residual, columns)[1][0]
            found.append((information * self.covariance[spot.all[:, None], spot.all]).sum()[None])
        return found

    def views(self, problems: Sequence[LensProblem] | None = None) -> list[Fitted]:
        """Return the fit of each image: with the errors that all images leave, whatever is not its own integrated out.

        Args:
            problems: of the same images with more of their pixels; the joint problem's own if None.
        """
        found = []
        seen = self.problem.seen(self.x)
        for i, (spot, (problem, own)) in enumerate(zip(self.problem.spots, seen, strict=True)):
            shown = problem if problems is None else replace(problems[i], placement=problem.placement)
            variance = self.covariance[spot.index[:, None], spot.index][None]
            hessian = torch.cholesky_inverse(factored(variance))
            cost = shown.cost(own)
            end = Optimum(shown, own, cost, Normal(cost, torch.zeros_like(hessian[:, 0]), hessian, self.end.cosine))
            found.append(Fitted(shown, end, joint_evidence=self.evidence, determined=self.determined[i].to(own)))
        return found

    def placements(self) -> list[tuple[Placement, Tensor]]:
        """Return where each image lies on the sky of the first one, and the standard deviations of that, (4,) each."""
        spread = self.covariance.diagonal().clamp(min=0).sqrt()
        found = []
        for spot, (problem, own) in zip(self.problem.spots, self.problem.seen(self.x), strict=True):
            placement = problem.placement or Placement.identity(own[:, 0])
            errors = self.problem._steps(own) @ spread[spot.placed].to(own) if len(spot.placed) else own.new_zeros(4)
            found.append((placement, errors))
        return found


def correlation_evidence(fitted: JointFitted, correlations: Sequence[float]) -> list[float]:
    """Return ln of the evidence under each correlation of the bands' fields, of the problem linearised about a fit."""
    problem, found = fitted.problem, []
    normal, (pull, curvature) = problem.normal(fitted.x), problem.prior_terms(fitted.x)
    for correlation in correlations:
        other = replace(problem, correlation=correlation)
        pull_there, curvature_there = other.prior_terms(fitted.x)
        gradient = normal.gradient + pull_there - pull
        hessian = normal.hessian + curvature_there - curvature
        step = torch.linalg.solve_triangular(factored(hessian), gradient[:, :, None], upper=False)
        cost = (
            normal.cost + other._prior_cost(fitted.x) - problem._prior_cost(fitted.x) - 0.5 * step.square().sum((1, 2))
        )
        found.append(float(other.evidence(Normal.from_derivatives(cost.clamp(min=1e-30), gradient, hessian))))
    return found
