"""Train a deflection network from low-resolution images alone, then super-resolve unseen ones with it."""

import sys
from pathlib import Path

import numpy as np

import lensphys as lp

METHOD = {
    "name": "physics",
    "network": {"name": "pyramid", "channels": 8},
    "head": {"radial_low": 0.3, "tangential_limit": 0.1, "gain": 0.0},
    "source": "joint",
    "loss": {"observation": {"form": "log"}, "variation_density": {"weight": 0.05, "decay": 0.8}},
}


def psnr(image: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return 10 * np.log10(truth.max((1, 2)) ** 2 / np.square(image - truth).mean((1, 2)))


def main(folder: Path, images: int) -> None:
    learn = lp.simulate("model_3", images, folder / "learn.h5", classes=["no_sub"], seed=1)
    unseen = lp.simulate("model_3", 4, folder / "unseen.h5", classes=["no_sub"], seed=2)
    network = lp.train(learn, folder / "run", METHOD, epochs=2, batch_size=8, learning_rate=3e-3, resume=True)
    for name, how in {"bicubic": {"method": "bicubic"}, "physics": {"weights": network}}.items():
        result = lp.super_resolve(unseen.images, 2, **how)
        print(f"{name:8s} {psnr(result.image, unseen.truth).mean():.1f} dB")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "example_run"), int(sys.argv[2]) if len(sys.argv) > 2 else 60)
