"""Draw spirals with knots of star formation, for those who have no images of galaxies at hand: recipe model_4."""

import sys
from pathlib import Path

import numpy as np

SIDE, SEED = 64, 4


def galaxy(rng: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    turn, axis_ratio = rng.uniform(0, np.pi), rng.uniform(0.4, 1.0)
    x, y = np.cos(turn) * x + np.sin(turn) * y, (np.cos(turn) * y - np.sin(turn) * x) / axis_ratio
    r, phi = np.hypot(x, y) + 1e-6, np.arctan2(y, x)
    scale, arms, pitch = rng.uniform(5, 8), rng.choice([2, 2, 3]), rng.uniform(2.0, 4.0)
    disc = np.exp(-r / scale) * (1 + 0.7 * np.tanh(r / scale) * np.cos(arms * phi - arms * pitch * np.log(r / scale)))
    bulge = rng.uniform(0.2, 2.0) * np.exp(-3 * (r / (0.3 * scale)) ** 0.6)
    image = disc + bulge
    for _ in range(rng.poisson(12)):  # knots sit where the arms are bright
        at = rng.choice(SIDE**2, p=(disc * (r > 0.7 * scale)).ravel() / (disc * (r > 0.7 * scale)).sum())
        row, column = divmod(at, SIDE)
        width = rng.uniform(0.8, 1.6)
        rows, columns = np.mgrid[:SIDE, :SIDE]
        image += rng.uniform(0.1, 0.5) * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * width**2))
    edge = np.clip((SIDE / 2 - 1 - np.hypot(*(np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2))) / 4, 0, 1)
    return image / image.sum() * edge


def main(path: Path) -> None:
    rng = np.random.default_rng(SEED)
    np.save(path, np.stack([galaxy(rng) for _ in range(24)]).astype(np.float16))
    print(f"wrote {path}: 24 galaxies of {SIDE} x {SIDE} pixels")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "drawn_galaxies.npy"))
