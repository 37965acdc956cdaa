"""A mass component of your own in one file: declared, registered, drawn by a recipe, rendered and fitted.

    python examples/my_component.py

A component is a formula and a class that declares its parameters. Registered under a name, recipes draw it, the engine
renders it, and a fit takes it: here a galaxy with a core, as the main lens.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lensphys.fitting import FitModel
from lensphys.methods import RefinedFit
from lensphys.model import MASS, HalfWidths, MassProfile, Parameter, Value
from lensphys.model.component import as_planes, offset
from lensphys.simulation import Plan, Recipe
from lensphys.simulation.sample import render


def deflection_cored(
    theta: Tensor, theta_E: Value, core: Value, center_x: Value = 0.0, center_y: Value = 0.0
) -> Tensor:
    """The deflection of an isothermal sphere with a core, theta_E (sqrt(r^2 + s^2) - s) / r r_hat."""
    x, y = offset(theta, center_x, center_y)
    s = as_planes(core, theta)
    scale = as_planes(theta_E, theta) / ((x**2 + y**2 + s**2).sqrt() + s)
    return torch.stack([scale * x, scale * y], dim=1)


@dataclass(frozen=True)
class Cored(MassProfile):
    """Isothermal sphere with a core."""

    theta_E: Value
    core: Value
    center_x: Value = 0.0
    center_y: Value = 0.0
    formula = staticmethod(deflection_cored)
    lenstronomy = "MY_CORED"  # its name in our scenes ...
    in_lenstronomy = False  # ... and in ours alone
    galaxy = True  # may be the main lens
    parameters = (
        Parameter("theta_E", "arcsec", HalfWidths(0.05), HalfWidths(1.0), logarithmic=True),
        Parameter("core", "arcsec", 1e-3, 1.0, 0.1, 1.0, logarithmic=True),  # a log-normal prior: median and e-folds
        Parameter("center_x", "arcsec", HalfWidths(-0.25), HalfWidths(0.25), 0.0, 0.1),
        Parameter("center_y", "arcsec", HalfWidths(-0.25), HalfWidths(0.25), 0.0, 0.1),
    )


MASS["cored"] = Cored


RECIPE = [
    "lens={kind: cored, theta_E: {kind: uniform, low: 0.9, high: 1.1}, core: {kind: uniform, low: 0.1, high: 0.2}}",
    "shear=null",
    "z_source_convention=null",
    "height=48",
    "width=48",
]
MODEL = {"lens": {"kind": "cored"}, "shear": None, "source": {"kind": "sersic"}, "subhalos": None, "potential": None}


def main() -> None:
    plan = Plan.from_recipe(Recipe.named("model_2", RECIPE), 1, classes=["no_sub"])
    samples = render(plan.recipe, plan.build_engine(), [plan.drawn(0)])
    truth = samples.drawn[0].scene.kwargs_lens[0]
    observation = plan.instrument.observation(torch.as_tensor(samples.lr))
    fit = RefinedFit(model=FitModel.parse(MODEL, "my model")).predict(observation, scale=2)
    for name, value in truth.items():
        found, error = (float(values[f"lens.{name}"]) for values in (fit.parameters, fit.errors))
        print(f"{name:8s} drawn {value:7.4f}, fitted {found:7.4f} +- {error:.4f}")
    print(f"chi^2 per degree of freedom {float(fit.reduced_chi2(observation)):.2f}, {fit.verdicts[0].quality}")


if __name__ == "__main__":
    main()
