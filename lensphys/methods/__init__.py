"""Ways to learn or compute super-resolution, one a file; all return a `Prediction`."""

from typing import Annotated

from pydantic import Field

from lensphys.methods.amortised import AmortisedMethod, AmortisedSettings, Refined
from lensphys.methods.fit import PerImageFit, RefinedFit
from lensphys.methods.interpolation import Interpolation
from lensphys.methods.physics import PhysicsMethod, PhysicsSettings
from lensphys.methods.prediction import Method, Prediction, TrainableMethod
from lensphys.methods.restored import Restoration
from lensphys.methods.richardson_lucy import RichardsonLucy
from lensphys.methods.supervised import SupervisedMethod, SupervisedSettings

# What a name on the command line means: methods that need no training ...
READY: dict[str, Method] = {
    "bicubic": Interpolation(name="bicubic"),
    "bilinear": Interpolation(name="bilinear"),
    "fit": PerImageFit(),
    "refine": RefinedFit(),
    "restore": Restoration(),
    "richardson_lucy": RichardsonLucy(),
}
# ... and what a config may train.
TRAINABLE = {"amortised": AmortisedSettings, "physics": PhysicsSettings, "supervised": SupervisedSettings}
TrainableSettings = Annotated[AmortisedSettings | PhysicsSettings | SupervisedSettings, Field(discriminator="name")]

__all__ = [
    "READY",
    "TRAINABLE",
    "AmortisedMethod",
    "AmortisedSettings",
    "Interpolation",
    "Method",
    "PerImageFit",
    "PhysicsMethod",
    "PhysicsSettings",
    "Prediction",
    "Refined",
    "RefinedFit",
    "Restoration",
    "RichardsonLucy",
    "SupervisedMethod",
    "SupervisedSettings",
    "TrainableMethod",
    "TrainableSettings",
]
