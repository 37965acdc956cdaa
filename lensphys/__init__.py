"""Strong gravitational lenses: simulated, fitted and super-resolved, differentiable throughout.

    import lensphys as lp

    lens = lp.SIE(theta_E=1.2, e1=0.1) + lp.Shear(gamma1=0.03, gamma2=0.01)  # trace a lens
    lens.deflection(x, y), lens.critical_curves()
    data = lp.simulate("model_3", 80, "lenses.h5")                           # simulate
    result = lp.super_resolve(lp.read("lens.fits"), scale=2)                 # super-resolve
    result.plot(), result.write("lens_sr.fits")                              # and again: lp.read_result("lens_sr.fits")
    network = lp.train(data, "runs/mine", epochs=48)                         # train on LR images alone

Positions, radii and deflections are in arcsec from the middle of the image; rows of images are y, growing upwards.
Names are loaded when they are asked for, so that ``import lensphys`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lensphys.basics.version import VERSION as __version__

if TYPE_CHECKING:
    from lensphys.api.components import Lens as Lens
    from lensphys.api.components import Light as Light
    from lensphys.api.fit import Fit as Fit
    from lensphys.api.fit import fit as fit
    from lensphys.api.images import Images as Images
    from lensphys.api.images import read as read
    from lensphys.api.joint import Dataset as Dataset
    from lensphys.api.joint import JointResult as JointResult
    from lensphys.api.reopened import read_result as read_result
    from lensphys.api.resolve import super_resolve as super_resolve
    from lensphys.api.result import Result as Result
    from lensphys.api.simulated import Lenses as Lenses
    from lensphys.api.simulated import observe as observe
    from lensphys.api.simulated import positions as positions
    from lensphys.api.simulated import simulate as simulate
    from lensphys.api.trained import load as load
    from lensphys.api.trained import train as train
    from lensphys.api.words import Note as Note
    from lensphys.basics.checks import LensphysError as LensphysError
    from lensphys.model import EPL as EPL
    from lensphys.model import NFW as NFW
    from lensphys.model import SIE as SIE
    from lensphys.model import SIS as SIS
    from lensphys.model import TNFW as TNFW
    from lensphys.model import ImageSource as ImageSource
    from lensphys.model import LineMass as LineMass
    from lensphys.model import Multipole as Multipole
    from lensphys.model import PointMass as PointMass
    from lensphys.model import Sersic as Sersic
    from lensphys.model import Shear as Shear
    from lensphys.observation import Instrument as Instrument
    from lensphys.simulation import Recipe as Recipe

# where each name is: as above, but for those who run it
_PLACES = {
    "Lens": "lensphys.api.components",
    "Light": "lensphys.api.components",
    "Fit": "lensphys.api.fit",
    "fit": "lensphys.api.fit",
    "Images": "lensphys.api.images",
    "read": "lensphys.api.images",
    "Dataset": "lensphys.api.joint",
    "JointResult": "lensphys.api.joint",
    "read_result": "lensphys.api.reopened",
    "super_resolve": "lensphys.api.resolve",
    "Result": "lensphys.api.result",
    "Lenses": "lensphys.api.simulated",
    "observe": "lensphys.api.simulated",
    "positions": "lensphys.api.simulated",
    "simulate": "lensphys.api.simulated",
    "load": "lensphys.api.trained",
    "train": "lensphys.api.trained",
    "Note": "lensphys.api.words",
    "LensphysError": "lensphys.basics.checks",
    "EPL": "lensphys.model",
    "NFW": "lensphys.model",
    "SIE": "lensphys.model",
    "SIS": "lensphys.model",
    "TNFW": "lensphys.model",
    "ImageSource": "lensphys.model",
    "LineMass": "lensphys.model",
    "Multipole": "lensphys.model",
    "PointMass": "lensphys.model",
    "Sersic": "lensphys.model",
    "Shear": "lensphys.model",
    "Instrument": "lensphys.observation",
    "Recipe": "lensphys.simulation",
}

__all__ = ["__version__", *_PLACES]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'lensphys' has no attribute {name!r}: it has {', '.join(sorted(_PLACES))}")
    found = getattr(import_module(_PLACES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
