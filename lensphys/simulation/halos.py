"""Truncated NFW halos."""

from __future__ import annotations

from typing import Literal

import numpy as np

from lensphys.settings import Strict
from lensphys.simulation.bodies import Bodies, Host


class Halos(Strict):
    """Being written."""

    kind: Literal["halos"]

    def sample(self, rng: np.random.Generator, host: Host) -> Bodies:
        """Return halos."""
        return Bodies()
