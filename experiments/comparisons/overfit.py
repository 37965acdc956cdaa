"""Can each network overfit eight noise-free pairs? PSNR in the flux protocol, on the pairs that it trained on.

    python experiments/comparisons/overfit.py [NETWORK ...]

Writes overfit.json beside this file (only the networks named, if any are). Cost: a few minutes a network on one core.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import torch

from lensphys.basics.outputs import write_json
from lensphys.basics.provenance import provenance
from lensphys.data.lens_file import LensFile
from lensphys.evaluation.metrics import flux_protocol
from lensphys.methods import READY, Batch, SupervisedSettings
from lensphys.networks import network_settings
from lensphys.observation import ErrorMap, Observation
from lensphys.simulation.recipe import Recipe
from lensphys.simulation.writer import simulate

OUT = Path(__file__).with_name("overfit.json")
STEPS, PAIRS = 1500, 8
# small enough for minutes on one core, and the learning rate of each
NETWORKS = {
    "edsr": ({"channels": 16, "blocks": 2}, 3e-3),
    "equivariant": ({"channels": 8, "shrunk": 6, "layers": 2}, 3e-3),
    "fsrcnn": ({}, 3e-3),
    "hybrid": ({"channels": 8, "shrunk": 6, "layers": 2}, 3e-3),
    "pyramid": ({"channels": 16, "levels": 3}, 3e-3),
    "rcan": ({"channels": 16, "groups": 1, "blocks": 2, "reduction": 4}, 3e-3),
    "rcan_compact": ({"channels": 16, "groups": 2, "blocks": 1, "reduction": 4}, 3e-3),
    "rdn": ({"channels": 16, "growth": 8, "blocks": 2, "layers": 3}, 3e-3),
    "residual": ({"channels": 24, "blocks": 1}, 1e-2),
    "rrdbnet": ({"channels": 16, "growth": 8, "blocks": 1}, 3e-3),
    "srresnet": ({"channels": 16, "blocks": 2}, 1e-3),
}


def pairs(folder: Path) -> Batch:
    """Eight lenses of Model 3, cut to 32 LR pixels, without noise."""
    recipe = Recipe.named("model_3", ["height=32", "width=32"])
    with LensFile(simulate(recipe, PAIRS // 2, folder / "pairs.h5", classes=["no_sub", "cdm"], seed=3)) as file:
        taken = file.observation()
        clean, truth = (torch.from_numpy(file.read(name)).float().reshape(PAIRS, 1, n, n) for name, n in
                        (("lr_clean", 32), ("hr_clean", 64)))  # fmt: skip
        scale = torch.from_numpy(file.read("flux_scale")).float()[:, None, None, None]
    none = ErrorMap(torch.full_like(clean, 1e-3))  # a noise law without a pedestal
    return Batch(Observation(clean * scale, taken.camera, none), truth * scale)


def overfitted(name: str, batch: Batch) -> dict[str, object]:
    """What a network reaches on the pairs that it was trained on."""
    torch.manual_seed(0)
    settings, rate = NETWORKS[name]
    network = network_settings(name)(**settings)
    method = SupervisedSettings(name="supervised", network=network, base="bicubic", loss={"kind": "mse"}).build()
    optimiser = torch.optim.Adam(method.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS, eta_min=rate / 100)
    started = time.monotonic()
    for _ in range(STEPS):
        optimiser.zero_grad()
        (1e4 * method.training_terms(batch, 0)["loss"]).backward()  # Adam's epsilon is no part of the question
        optimiser.step()
        schedule.step()
    seconds = time.monotonic() - started
    with torch.no_grad():
        image = method.eval().predict(batch.observation).image
    psnr = flux_protocol(image, batch.truth)["psnr_flux"]
    return {
        "psnr_flux": float(psnr.mean()),
        "lowest": float(psnr.min()),
        "parameters": sum(p.numel() for p in method.parameters()),
        "seconds": round(seconds, 1),
        "settings": settings,
        "learning_rate": rate,
    }


def main(names: list[str]) -> None:
    """Train each network and write what it reached."""
    torch.set_num_threads(1)
    found = json.loads(OUT.read_text())["networks"] if OUT.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        batch = pairs(Path(folder))
    bicubic = flux_protocol(READY["bicubic"].predict(batch.observation, 2).image, batch.truth)["psnr_flux"]
    for name in names or list(NETWORKS):
        found[name] = overfitted(name, batch)
        print(f"{name:14s} {found[name]['psnr_flux']:.1f} dB, {found[name]['seconds']} s", flush=True)
        tree = {"provenance": provenance(steps=STEPS, pairs=PAIRS), "bicubic": float(bicubic.mean())}
        write_json(OUT, tree | {"networks": dict(sorted(found.items()))})


if __name__ == "__main__":
    main(sys.argv[1:])
