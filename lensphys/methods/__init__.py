"""Ways to learn or compute super-resolution, one a file; all return a `Prediction`."""

from typing import Annotated, get_args

from pydantic import Field

from lensphys.basics.settings import Strict
from lensphys.methods.adversarial import AdversarialMethodSettings
from lensphys.methods.amortised import AmortisedMethod, AmortisedSettings
from lensphys.methods.autoencoder import AutoencoderMethodSettings
from lensphys.methods.classifier import ClassifierMethodSettings
from lensphys.methods.diffusion import DiffusionSettings
from lensphys.methods.fit import PerImageFit, RefinedFit
from lensphys.methods.interpolation import Interpolation
from lensphys.methods.marginalised import MarginalisedMethod, MarginalisedSettings
from lensphys.methods.physics import PhysicsMethod, PhysicsSettings
from lensphys.methods.physics_adversarial import PhysicsAdversarialSettings
from lensphys.methods.physics_labelled import PhysicsLabelledSettings
from lensphys.methods.ranking.ranker import RankerMethodSettings
from lensphys.methods.refined import Refinable, Refined
from lensphys.methods.restored import Restoration
from lensphys.methods.richardson_lucy import RichardsonLucy
from lensphys.methods.supervised import SupervisedMethod, SupervisedSettings
from lensphys.methods.trainable import Batch, RankBatch, Trainable, TrainableMethod
from lensphys.prediction import Method, Prediction

# What a name on the command line means: methods that need no training ...
READY: dict[str, Method] = {
    "bicubic": Interpolation(name="bicubic"),
    "bilinear": Interpolation(name="bilinear"),
    "fit": PerImageFit(),
    "lanczos": Interpolation(name="lanczos"),
    "nearest": Interpolation(name="nearest"),
    "refine": RefinedFit(),
    "restore": Restoration(),
    "richardson_lucy": RichardsonLucy(),
}
# ... and what a config may train, by the name that it gives.
TrainableSettings = Annotated[
    AdversarialMethodSettings
    | AmortisedSettings
    | AutoencoderMethodSettings
    | ClassifierMethodSettings
    | DiffusionSettings
    | MarginalisedSettings
    | PhysicsSettings
    | PhysicsAdversarialSettings
    | PhysicsLabelledSettings
    | RankerMethodSettings
    | SupervisedSettings,
    Field(discriminator="name"),
]
TRAINABLE: dict[str, type[Strict]] = {
    name: kind
    for kind in get_args(get_args(TrainableSettings)[0])
    for name in get_args(kind.model_fields["name"].annotation)
}

__all__ = [
    "READY",
    "TRAINABLE",
    "AmortisedMethod",
    "AmortisedSettings",
    "Batch",
    "Interpolation",
    "MarginalisedMethod",
    "MarginalisedSettings",
    "Method",
    "PerImageFit",
    "PhysicsMethod",
    "PhysicsSettings",
    "Prediction",
    "RankBatch",
    "Refinable",
    "Refined",
    "RefinedFit",
    "Restoration",
    "RichardsonLucy",
    "SupervisedMethod",
    "SupervisedSettings",
    "Trainable",
    "TrainableMethod",
    "TrainableSettings",
]
