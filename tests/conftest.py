"""Fixtures shared by the tests."""

from __future__ import annotations

import os

# pytest-xdist runs a worker a core: more threads than cores, here or in a started process, only wait for each other
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure

from lensphys.observation import Instrument


@pytest.fixture(scope="module")
def float64() -> Iterator[None]:
    """Double precision for a whole module: `pytestmark = pytest.mark.usefixtures("float64")`."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def generator() -> torch.Generator:
    """A fresh generator with a fixed seed."""
    return torch.Generator().manual_seed(7)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data beside the checkout; tests that need it are skipped without it."""
    folder = Path(__file__).parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("there is no shared/ folder beside the checkout")
    return folder


@pytest.fixture
def few_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four points along a pixel's side where a preset says ``auto``: for tests of other things, which need no more."""

    def four(recipe: object, instrument: Instrument, build: object) -> Instrument:
        auto = instrument.supersampling == "auto"
        return instrument.model_copy(update={"supersampling": 4}) if auto else instrument

    monkeypatch.setattr("lensphys.simulation.plan.with_enough_points", four)


@pytest.fixture(scope="session", autouse=True)
def blank_curves() -> Iterator[None]:
    """A training draws its losses on an empty page: their curves take longer than a training of a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lensphys.training.figures.loss_figure", lambda records: Figure())
        yield
