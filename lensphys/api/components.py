"""Sums of components under the names of what they are."""

from lensphys.model import LightSum, MassSum

Lens = MassSum
Light = LightSum
