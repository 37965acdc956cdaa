"""The main job in a few minutes: simulate, train without any HR image, super-resolve, compare."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from lensphys.config import Experiment, load_run, train, training_data
from lensphys.data.lens_file import LensFile
from lensphys.evaluation.evaluate import evaluate
from lensphys.evaluation.tables import readme_table
from lensphys.methods import READY, Method
from lensphys.provenance import provenance
from lensphys.simulation.recipe import Recipe
from lensphys.simulation.writer import simulate

_EXPERIMENT = Path(__file__).parent / "demo.yaml"
_UNSEEN = 12  # of each class


def demo(folder: Path) -> None:
    """Run the demo; a demo that was stopped goes on where it was.

    Args:
        folder: where data, run, tables and figures go.
    """
    console = Console()
    experiment = Experiment.read(_EXPERIMENT, [])
    console.print("[bold]1/4[/] simulating Model 3 (HST-like): 240 images to learn from, 36 unseen ones to judge by")
    run = folder / "run"
    training_data(experiment.data, run)
    simulate(Recipe.named("model_3", ["hr_noise=true"]), _UNSEEN, folder / "unseen.h5", seed=2, workers=2)
    console.print("[bold]2/4[/] training a deflection network on the low-resolution images alone")
    train(experiment, run, resume=True)
    methods: dict[str, Method] = {"physics network": load_run(run), "per-image fit": READY["fit"]}
    tables = []
    with LensFile(folder / "unseen.h5") as lenses:
        for number, (name, method) in enumerate(methods.items(), 3):
            console.print(f"[bold]{number}/4[/] super-resolving unseen images: {name}")
            out = folder / name.replace(" ", "_")
            judged = evaluate(method, lenses, name=name, baseline=READY["bicubic"], baseline_name="bicubic")
            judged.write(out, provenance(method=name, data=lenses.identity))
            tables.append(out / "metrics.json")
    console.print("\nPSNR in dB against the noise-free truth, mean over the unseen images (flux protocol):\n")
    console.print(readme_table(tables), highlight=False, markup=False)
    console.print(f"\nTables and figures: {', '.join(str(t.parent) for t in tables)}", highlight=False, soft_wrap=True)
