"""Draw galaxies of many kinds, sources to train on: `python examples/draw_richer_galaxies.py`.

Spirals, bulge and disc, bars and rings, clumpy ones, mergers.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from draw_galaxies import SIDE, galaxy

EACH, SEED = 20, 5
Image = np.ndarray
ROWS, COLUMNS = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2


def blob(rng: np.random.Generator, x: float, y: float, size: float, index: float, flattest: float = 0.4) -> Image:
    """An elliptical Sersic of total 1, sampled 4 x 4 in a pixel."""
    turn, axis_ratio = rng.uniform(0, np.pi), rng.uniform(flattest, 1.0)
    fine = (np.arange(4 * SIDE) + 0.5) / 4 - SIDE / 2
    dx, dy = fine[None, :] - x, fine[:, None] - y
    along, across = np.cos(turn) * dx + np.sin(turn) * dy, np.cos(turn) * dy - np.sin(turn) * dx
    radius = np.sqrt(axis_ratio * along**2 + across**2 / axis_ratio) / size
    light = np.exp(-(1.9992 * index - 0.3271) * (radius ** (1 / index) - 1))
    image = light.reshape(SIDE, 4, SIDE, 4).mean((1, 3))
    return image / image.sum()


def scattered(rng: np.random.Generator, number: int, reach: float, share: float) -> Image:
    """Star-forming knots about the middle, of a total of ``share``."""
    image = np.zeros((SIDE, SIDE))
    for flux in rng.pareto(1.2, number) + 0.2:
        x, y = rng.normal(0, reach, 2)
        image += flux * blob(rng, x, y, rng.uniform(0.7, 2.0), 0.5)
    return share * image / image.sum()


def bulge_and_disc(rng: np.random.Generator) -> Image:
    disc = blob(rng, 0, 0, rng.uniform(5, 9), 1.0, 0.25)
    bulge = blob(rng, 0, 0, rng.uniform(1.2, 3), rng.uniform(1.5, 4.0), 0.6)
    share = rng.uniform(0.1, 0.7)
    return (1 - share) * disc + share * bulge + scattered(rng, 4, 6, rng.uniform(0, 0.1))


def barred(rng: np.random.Generator) -> Image:
    disc, ring = blob(rng, 0, 0, rng.uniform(6, 9), 1.0), np.hypot(ROWS, COLUMNS)
    radius, width = rng.uniform(7, 12), rng.uniform(1.0, 2.5)
    round_about = np.exp(-0.5 * ((ring - radius) / width) ** 2)
    bar = blob(rng, 0, 0, rng.uniform(3, 6), 0.7, 0.2)
    return disc + rng.uniform(0.2, 0.6) * bar + rng.uniform(0.1, 0.6) * round_about / round_about.sum()


def clumpy(rng: np.random.Generator) -> Image:
    x, y = rng.normal(0, 2, 2)
    return blob(rng, x, y, rng.uniform(4, 8), rng.uniform(0.6, 1.2)) + scattered(rng, rng.integers(4, 15), 5, 0.6)


def merger(rng: np.random.Generator) -> Image:
    distance, turn = rng.uniform(6, 14), rng.uniform(0, 2 * np.pi)
    x, y = 0.5 * distance * np.cos(turn), 0.5 * distance * np.sin(turn)
    one = blob(rng, x, y, rng.uniform(2, 5), rng.uniform(0.8, 3))
    other = blob(rng, -x, -y, rng.uniform(2, 5), rng.uniform(0.8, 2))
    bridge = sum(blob(rng, t * x + rng.normal(), t * y + rng.normal(), 2.5, 0.6) for t in np.linspace(-1.6, 1.6, 9))
    return one + rng.uniform(0.2, 1.0) * other + rng.uniform(0.02, 0.06) * bridge + scattered(rng, 6, 5, 0.15)


KINDS: tuple[Callable[[np.random.Generator], Image], ...] = (galaxy, bulge_and_disc, barred, clumpy, merger)


def main(path: Path) -> None:
    rng = np.random.default_rng(SEED)
    fading = np.clip((SIDE / 2 - 1 - np.hypot(ROWS, COLUMNS)) / 4, 0, 1)  # nothing of it ends at the image's edge
    images = [image / image.sum() for image in (kind(rng) * fading for kind in KINDS for _ in range(EACH))]
    np.save(path, np.stack(images).astype(np.float16))
    print(f"wrote {path}: {len(images)} galaxies of {SIDE} x {SIDE} pixels")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "richer_galaxies.npy"))
