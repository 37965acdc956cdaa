"""Ways to learn or compute super-resolution, one a file; all return a `Prediction`."""

from typing import Annotated

from pydantic import Field

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
# ... and what a config may train.
TRAINABLE = {
    "adversarial": AdversarialMethodSettings,
    "amortised": AmortisedSettings,
    "autoencoder": AutoencoderMethodSettings,
    "classifier": ClassifierMethodSettings,
    "diffusion": DiffusionSettings,
    "marginalised": MarginalisedSettings,
    "physics": PhysicsSettings,
    "physics_adversarial": PhysicsAdversarialSettings,
    "physics_labelled": PhysicsLabelledSettings,
    "ranker": RankerMethodSettings,
    "supervised": SupervisedSettings,
}
TrainableSettings = Annotated[
    AdversarialMethodSettings
    | AmortisedSettings
    | AutoencoderMethodSettings
    | ClassifierMethodSettings
    | DiffusionSettings
    | MarginalisedSettings
    | PhysicsAdversarialSettings
    | PhysicsLabelledSettings
    | PhysicsSettings
    | RankerMethodSettings
    | SupervisedSettings,
    Field(discriminator="name"),
]

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
