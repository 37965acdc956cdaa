"""Trace a lens: ten lines from a mass model to the image that a telescope records."""

import torch

from lensphys.deflection import DeflectionField
from lensphys.model import SIE, Sersic, Shear
from lensphys.observation import Instrument

lens = SIE(theta_E=1.1, e1=0.1, e2=-0.05) + Shear(gamma1=0.03, gamma2=0.01)
source = Sersic(amp=1.0, R_sersic=0.2, n_sersic=1.0, e1=0.1, center_x=torch.tensor(0.08, requires_grad=True))
euclid = Instrument.named("model_2")
camera = euclid.camera(64, 64)
field = DeflectionField.of(lens, camera.grid)
image = camera.render(source, field)
noisy = euclid.noise_of(image).sample(image.detach(), torch.Generator().manual_seed(0))

image.sum().backward()
print(f"image {tuple(noisy.shape)}, peak magnification {field.magnification.abs().median():.2f} (median)")
print(f"d(flux) / d(source position) = {source.center_x.grad:.3f} per arcsec")
