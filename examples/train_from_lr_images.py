"""Train a deflection network from low-resolution images alone, then super-resolve unseen ones with it."""

import sys
from pathlib import Path

import torch

from lensphys.config import Experiment, load_run, train
from lensphys.data.lens_file import LensFile
from lensphys.evaluation.metrics import flux_protocol
from lensphys.methods import READY
from lensphys.simulation import Recipe, simulate


def main(folder: Path, images: int) -> None:
    recipe = Recipe.named("model_3")
    learn = simulate(recipe, images, folder / "learn.h5", classes=["no_sub"], seed=1)
    unseen = simulate(recipe, 4, folder / "unseen.h5", classes=["no_sub"], seed=2)
    experiment = Experiment.parse(
        {
            "data": {"file": str(learn)},
            "method": {
                "name": "physics",
                "network": {"name": "pyramid", "channels": 8},
                "head": {"radial_low": 0.3, "tangential_limit": 0.1, "gain": 0.0},
                "source": "joint",
                "loss": {"observation": {"form": "log"}, "variation_density": {"weight": 0.05, "decay": 0.8}},
            },
            "training": {"epochs": 2, "batch_size": 8, "learning_rate": 3e-3},
        },
        "example",
    )
    train(experiment, folder / "run", resume=True)
    with LensFile(unseen) as lenses, torch.no_grad():
        observation = lenses.observation()
        truth = lenses.read("hr_clean")
        for name, method in {"bicubic": READY["bicubic"], "physics": load_run(folder / "run")}.items():
            psnr = flux_protocol(method.predict(observation, 2).image, torch.as_tensor(truth))["psnr_flux"]
            print(f"{name:8s} {psnr.mean():.1f} dB")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "example_run"), int(sys.argv[2]) if len(sys.argv) > 2 else 60)
