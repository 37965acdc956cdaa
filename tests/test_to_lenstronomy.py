"""Components and fits in lenstronomy's words deflect and shine there as they do here."""

import numpy as np
import pytest
import torch
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LightModel.light_model import LightModel

import lensphys as lp
from lensphys.model import TNFW, CosineBasis, Frame, FreeSource, Gaussian, Modes, PointSwarm, PotentialField
from lensphys.model.mass.multipole import MultipoleWaves

X, Y = np.random.default_rng(3).uniform(-1.9, 1.9, (2, 200))
MASSES = [
    lp.SIE(theta_E=1.1, e1=0.1, e2=-0.05, center_x=0.02),
    lp.EPL(theta_E=0.9, gamma=2.2, e1=0.05, e2=0.1, center_y=-0.04),
    lp.Shear(gamma1=0.04, gamma2=-0.03, center_x=0.1, center_y=-0.2),
    lp.NFW(Rs=0.5, alpha_Rs=0.3, center_x=0.3),
    TNFW(Rs=0.1, alpha_Rs=0.02, r_trunc=0.4, center_x=-0.7),
    lp.Multipole(m=4, a_m=0.03, phi_m=0.2, center_x=0.1),
    MultipoleWaves(m=3, a_cos=0.02, a_sin=-0.01, center_x=0.1),
    PointSwarm(torch.tensor([[0.01, 0.003]]), torch.tensor([[0.9, -1.0]]), torch.tensor([[0.1, 0.4]]), core=1e-6),
]


@pytest.mark.parametrize("mass", [*MASSES, MASSES[0] + MASSES[2] + MASSES[6]], ids=lambda m: type(m).__name__)
def test_masses(mass):
    names, keywords = zip(*mass.to_lenstronomy(), strict=True)
    theirs = LensModel(list(names)).alpha(X, Y, list(keywords))
    assert np.stack(mass.deflection(X, Y)) == pytest.approx(np.stack(theirs), abs=2e-4)


def free_source():
    modes = Modes(6)
    sersic = lp.Sersic(amp=torch.tensor([3.0]), R_sersic=torch.tensor([0.3]), n_sersic=torch.tensor([1.0]),
                       center_x=torch.tensor([0.1]), center_y=torch.tensor([-0.05]))  # fmt: skip
    g = torch.from_numpy(np.random.default_rng(1).normal(0, 0.2, (1, len(modes)))).float()
    return FreeSource(sersic, g, modes, Frame.from_sersic(sersic, torch.tensor([0.8])))


@pytest.mark.parametrize(
    ("light", "exact"),
    [
        (lp.Sersic(amp=2.0, R_sersic=0.4, n_sersic=1.5, e1=0.1, e2=0.2, center_x=0.1), 1e-6),
        (Gaussian(amp=2.0, sigma=0.3, e1=0.1, e2=-0.1, center_y=0.2), 1e-6),
        (lp.ImageSource.from_image(np.outer(np.hanning(40), np.hanning(40)), 0.05, center_x=0.1), 2e-3),
        (free_source(), 2e-3),  # of the peak: it is drawn on pixels
    ],
    ids=lambda p: type(p).__name__,
)
def test_lights(light, exact):
    names, keywords = zip(*light.to_lenstronomy(), strict=True)
    theirs = LightModel(list(names)).surface_brightness(X, Y, list(keywords))
    ours = light.brightness(X, Y)
    assert ours == pytest.approx(theirs, abs=exact * ours.max())


def test_what_lenstronomy_has_not():
    line = lp.LineMass(theta_E=0.1, length=0.4, phi=0.0)
    for mass, name in ((line, "LineMass"), (lp.SIS(theta_E=1.0) + line, "LineMass")):
        with pytest.raises(lp.LensphysError, match=f"lenstronomy has no profile like {name}"):
            mass.to_lenstronomy()
    with pytest.raises(lp.LensphysError, match="theta_E of SIS has 2 values: choose one lens"):
        lp.SIS(theta_E=torch.ones(2)).to_lenstronomy()


def test_a_correction_to_the_potential_is_a_grid():
    n = np.random.default_rng(4).normal(0, 0.02, (1, 12, 12)) / np.hypot(*np.mgrid[1:13, 1:13])
    field = PotentialField(torch.from_numpy(n).float(), CosineBasis(12, 4.2))
    [(name, keywords)] = field.to_lenstronomy()
    both = lp.SIE(theta_E=1.1, e1=0.1) + field
    names, words = zip(*both.to_lenstronomy(), strict=True)
    ours = np.stack(field.deflection(X, Y))
    assert np.stack(LensModel([name]).alpha(X, Y, [keywords])) == pytest.approx(ours, abs=0.01 * np.abs(ours).max())
    kappa = field.convergence(X, Y)
    assert LensModel([name]).kappa(X, Y, [keywords]) == pytest.approx(kappa, abs=0.02 * np.abs(kappa).max())
    theirs = np.stack(LensModel(list(names)).alpha(X, Y, list(words)))
    assert theirs == pytest.approx(np.stack(both.deflection(X, Y)), abs=0.01 * np.abs(ours).max())
    with pytest.raises(lp.LensphysError, match="the potential is of 2 lenses: choose one"):
        PotentialField(torch.zeros(2, 4, 4), CosineBasis(4, 3.0)).to_lenstronomy()
