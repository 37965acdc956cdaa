"""The main job in a few minutes: simulate, train without any HR image, super-resolve, compare."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from rich.console import Console

from lensphys.basics.provenance import provenance
from lensphys.basics.sentences import counted
from lensphys.data.lens_file import LensFile
from lensphys.evaluation.evaluate import evaluate
from lensphys.evaluation.metrics import psnr
from lensphys.evaluation.tables import readme_table
from lensphys.methods import READY, AmortisedMethod, Method
from lensphys.simulation.recipe import Recipe
from lensphys.simulation.writer import simulate
from lensphys.training.experiment import Experiment, load_run, train
from lensphys.weights import weights_folder

_EXPERIMENT = Path(__file__).parent / "demo.yaml"
_UNSEEN = 3  # of each class
_WEIGHTS = "model_3"


def demo(folder: Path) -> None:
    """Run the demo; a demo that was stopped resumes.

    Args:
        folder: where data, run, tables and figures go.
    """
    console = Console()
    experiment = Experiment.from_yaml(_EXPERIMENT, [])
    console.print("[bold]1/4[/] simulating Model 3 (HST-like): 9 unseen images to judge by")
    run = folder / "run"
    simulate(Recipe.named("model_3", ["hr_noise=true"]), _UNSEEN, folder / "unseen.h5", seed=2, workers=2)
    console.print("[bold]2/4[/] training the amortised fit on 240 low-resolution images alone, simulated first")
    train(experiment, run, resume=True)
    shipped = cast(AmortisedMethod, load_run(weights_folder(_WEIGHTS)))
    methods: dict[str, Method] = {
        "small training": load_run(run),
        "weights, one pass": shipped,
        "weights, refined": shipped.refined(),
    }
    tables = []
    with LensFile(folder / "unseen.h5") as lenses:
        for name, method in methods.items():
            console.print(f"[bold]3/4[/] super-resolving unseen images: {name}")
            out = folder / name.replace(",", "").replace(" ", "_")
            judged = evaluate(method, lenses, name=name, baseline=READY["bicubic"], baseline_name="bicubic")
            judged.write(out, provenance(method=name, data=lenses.identity))
            tables.append(out / "metrics.json")
    console.print("\nPSNR in dB against the noise-free truth, mean over the unseen images (flux protocol):\n")
    console.print(readme_table(tables), highlight=False, markup=False)
    _galaxy(folder, console)
    console.print(f"\nTables and figures: {', '.join(str(t.parent) for t in tables)}", highlight=False, soft_wrap=True)
    spiral, sharp = folder / "spiral.h5", folder / "spiral_sr.h5"
    console.print(
        f"A page of the spiral: lensphys super-resolve {spiral} -o {sharp} && lensphys show {sharp}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip


def _galaxy(folder: Path, console: Console) -> None:
    """Super-resolve a galaxy that is no Sersic, by the default, and say what it thinks of its own result."""
    console.print(
        "[bold]4/4[/] super-resolving a spiral galaxy behind a smooth lens (Euclid VIS), no network, no training"
    )
    simulate(Recipe.named("model_4"), 1, folder / "spiral.h5", classes=["no_sub"], seed=11)
    with LensFile(folder / "spiral.h5") as lenses:
        observation, known = lenses.observation([0]), lenses.lens_model(0)["kwargs_lens"][0]["theta_E"]
        truth = torch.as_tensor(lenses.read("hr_clean", [0]))
        found, bicubic = (READY[name].predict(observation, 2) for name in ("refine", "bicubic"))
    verdict, peak = found.verdicts[0], truth.max()
    sharp, plain = (float(psnr(p.image / peak, truth / peak)) for p in (found, bicubic))
    console.print(
        f"PSNR {sharp:.1f} dB (bicubic {plain:.1f}), theta_E "
        f"{float(found.parameters['theta_E']):.4f} +- {float(found.errors['theta_E']):.4f} arcsec (true {known:.4f}), "
        f"{counted(int(found.numbers['subhalos']), 'sub-halo')}; "
        f"quality: {verdict.quality} {'; '.join(verdict.reasons)}",
        highlight=False,
    )
