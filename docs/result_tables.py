"""The full tables of the results pages, from what stands in ``experiments/``; `generate.py` writes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lensphys.downstream.tables import downstream_table
from lensphys.evaluation.comparison.tables import short_table
from lensphys.evaluation.tables import ABSENT, ALL, bold, markdown, read_metrics

Row = dict[str, Any]

MODELS = ("model_1", "model_2", "model_3")
_CLASSES = ("no_sub", "axion", "cdm")
# where a method's results stand, and what the table calls it; None: as its metrics.json does
_METHODS: dict[str, str | None] = {
    "published/{model}": None,
    "unsupervised/{model}": None,
    "fit/{model}": None,
    "supervised/{model}": None,
    "amortised/{model}/one_pass": "amortised, one forward pass",
    "amortised/{model}/refined": "amortised, refined",
}
_STUDIES = {
    "scales": "Finer pixels, without retraining (PSNR [dB] at that scale)",
    "sparsity": "A fifth of the training images (PSNR [dB])",
    "seeds": "Trained anew with other seeds (PSNR [dB])",
    "psf": "Told a wrong PSF (PSNR [dB])",
    "varied": "Varied recipe: SIE + shear, free centre, varied source, flux, PSF and noise (PSNR [dB])",
}
_COMPARISONS = (
    "variants_model_1",
    "variants_model_2",
    "variants_model_3",
    "networks",
    "gans",
    "transfer",
    "srgan_no_sub",
)
_GROUND = (
    'The same lenses as a telescope on the ground would see them (PSF of 0.5", 4 x 4 pixels summed, S/N 50),\n'
    "super-resolved 4x onto Hubble's pixels and PSF: sum (SR - HST)^2 / sum HST^2 inside the mask, the best in bold."
)
_SIMULATION = (
    "Model 2, LR, HR, deflection and truth of each lens written to disk, against the loop that the published scripts\n"
    "are (lenstronomy, one file a lens), in one run (`experiments/speed/simulation.py`); caustics for scale. Below,\n"
    "where the time goes: `engine` holds the deflection, `engine and noise` both, `all, to disk` everything; without\n"
    "substructure most of it is the writing itself."
)
_SPEED = "Speed: milliseconds an image, and the memory at the peak."


def comparison_tables(folder: Path) -> str:
    """Return one table for each comparison whose results stand in a folder, in the order of `_COMPARISONS`.

    Args:
        folder: each comparison's results in a folder of its own.
    """
    parts = []
    for name in _COMPARISONS:
        file = folder / name / "metrics.json"
        if file.is_file():
            tree = json.loads(file.read_text())
            parts.append(f"**{tree['title']}**\n\n{short_table(tree)}")
    return "\n".join(parts)


def downstream_tables(folder: Path) -> str:
    """Return all tables of each experiment with readers whose results stand in a folder, under its title.

    Args:
        folder: each experiment's results in a folder of its own.
    """
    trees = [json.loads(file.read_text()) for file in sorted(folder.glob("*/metrics.json"))]
    return "\n".join(f"## {tree['title']}\n\n{downstream_table(tree)}" for tree in trees)


def model_table(experiments: Path, model: str) -> str:
    """Return the Markdown table of one data set: a row a method, the best PSNR and SSIM of each class in bold.

    Bicubic interpolation is that of the evaluation with the most images. chi^2, flux bias and coverage are means over
    all images.

    Args:
        experiments: the folder of all experiments.
        model: name of the data set.

    Raises:
        LensphysError: if a file is not the result of an evaluation.
    """
    paths = {experiments / where.format(model=model) / "metrics.json": label for where, label in _METHODS.items()}
    trees = [(read_metrics(path), label) for path, label in paths.items() if path.is_file()]
    rows = [_method_row(label or tree["names"]["method"], tree, "method") for tree, label in trees]
    baselines = [_method_row(tree["names"]["baseline"], tree, "baseline") for tree, _ in trees]
    if baselines:
        rows.insert(0, max(baselines, key=lambda row: row["images"]))
    scores = [(f"PSNR {c}", (c, "psnr_flux"), ".1f") for c in _CLASSES]
    scores += [(f"SSIM {c}", (c, "ssim_flux"), ".5f") for c in _CLASSES]
    judged = [("chi^2 / dof", "chi2_dof", ".2f"), ("flux bias", "flux_bias", "+.1e"), ("coverage", "coverage", ".2f")]
    body = []
    for row in rows:
        cells = [bold(row[key], max((r[key] for r in rows if r[key] is not None), default=0.0), spec)
                 for _, key, spec in scores]  # fmt: skip
        cells += [_number(row[ALL, metric], spec) for _, metric, spec in judged]
        body.append([row["name"], str(row["images"]), *cells])
    return markdown(["method", "images a class", *(h for h, _, _ in scores), *(h for h, _, _ in judged)], body)


def _method_row(name: str, tree: dict[str, Any], role: str) -> dict[Any, Any]:
    results = tree["results"].get(role, {})
    row: dict[Any, Any] = {
        (c, metric): results.get(c, {}).get(metric, {}).get("mean")
        for c in (*_CLASSES, ALL)
        for metric in ("psnr_flux", "ssim_flux", "chi2_dof", "flux_bias", "coverage")
    }
    return row | {"name": name, "images": max(tree["images"].get(c, 0) for c in _CLASSES)}


def any_source_table(tree: Row) -> str:
    """Return the Markdown table of lenses whose sources are no Sersics: a row a data set and class.

    Args:
        tree: ``sets``, each with a ``name`` and a ``table`` of `experiments/any_source/judge.py`.
    """
    head = ["data", "class", "images", "bicubic [dB]", "refine (the default) [dB]", "gain", "smallest gain",
            "theta_E off, median", "off by over 5 %", "with all mass", "over 5 %", "chi^2 / dof", "coverage",
            "lenses with sub-halos claimed",
            "claims that are real", "good / suspect / bad", "s an image"]  # fmt: skip
    body = []
    for data in tree["sets"]:
        for name, row in data["table"].items():
            quality = " / ".join(str(row["quality"][q]) for q in ("good", "suspect", "bad"))
            purity = f"{row['purity']:.0%} of {row['claims']}" if row["claims"] else ABSENT
            claimed = f"{row['lenses_with_claims']} of {row['images']}"
            body.append([data["name"], name, str(row["images"]), f"{row['bicubic']:.1f}", f"{row['psnr']:.1f}",
                         f"{row['gain']:+.1f}", f"{row['gain_worst']:+.1f}", f"{row['theta_E_median']:.2%}",
                         str(row["theta_E_over_5_percent"]), f"{row['theta_E_total_median']:.2%}",
                         str(row["theta_E_total_over_5_percent"]), f"{row['chi2']:.2f}",
                         f"{row['coverage']:.2f}", claimed,
                         purity, quality, f"{row['seconds_median']:.0f}"])  # fmt: skip
    return markdown(head, body)


def network_table(tree: Row) -> str:
    """Return the Markdown table of one forward pass beside the fit from scratch: a row a data set and part of it.

    Args:
        tree: ``sets``, each with a ``name`` and a ``table``, as ``experiments/network/table.py`` writes them.
    """
    head = ["data", "images", "number", "bicubic [dB]", "one pass [dB]", "fit from scratch [dB]",
            "theta_E off, one pass", "fit", "off by over 5 %, one pass", "fit", "s an image, one pass",
            "fit"]  # fmt: skip
    body = []
    for data in tree["sets"]:
        for part, row in data["table"].items():
            once, fit = row["one forward pass"], row["fit from scratch"]
            psnr = [f"{found['psnr']:.1f}" for found in (row["bicubic"], once, fit)]
            off = [f"{found['theta_E_median']:.2%}" for found in (once, fit)]
            failures = [str(found["failures"]) for found in (once, fit)]
            seconds = [f"{once['seconds']:.2f}", f"{fit['seconds']:.1f}"]
            body.append([data["name"], part, str(once["images"]), *psnr, *off, *failures, *seconds])
    return markdown(head, body)


def ground_table(arcs: Row) -> str:
    """Return the Markdown table of the ground-based views of real lenses, and a line that counts.

    Args:
        arcs: ``rows`` and ``summary``, as ``experiments/real/ground/ground.py`` writes them.
    """
    rows = arcs["rows"]
    names = list(dict.fromkeys(name for row in rows for name in row["methods"]))
    lensing = [n for n in names if any("ratio" in row["methods"].get(n, {}) for row in rows)]
    body = []
    for row in rows:
        found = row["methods"]
        best = min(found[n]["error"] for n in names if n in found)
        cells = [bold(found.get(n, {}).get("error"), best, ".3f") for n in names]
        cells += [_number(row["hst_noise"], ".3f"), _number(row["published"], ".3f")]
        cells += [_number(found.get(n, {}).get("ratio"), ".3f") for n in lensing]
        body.append([row["lens"], *cells])
    head = ["lens", *(_spaced(n) for n in names), "noise of HST", "published theta_E"]
    counts = [
        f"{_spaced(n)}: below both baselines on {s['below_baselines']} of {s['lenses']} lenses, theta_E within 5 % on "
        f"{s['theta_E_within_5_percent']}"
        for n, s in arcs["summary"].items()
    ]
    table = markdown([*head, *(f"theta_E of {_spaced(n)} / published" for n in lensing)], body)
    return f"{_GROUND}\n\n{table}\n{'; '.join(counts)}.\n"


def studies_tables(rows: Sequence[Row]) -> str:
    """Return a captioned Markdown table for each study, with differences to its first setting in brackets.

    Args:
        rows: what ``experiments/amortised/studies.py`` writes: ``study, setting, method, cell, n, psnr`` and, where
            asked for, ``theta_E_median`` and ``theta_E_failures``.
    """
    return "\n".join(
        f"{_STUDIES.get(study, study)}:\n\n{_study_table([row for row in rows if row['study'] == study], study)}"
        for study in dict.fromkeys(row["study"] for row in rows)
    )


def _study_table(rows: Sequence[Row], study: str) -> str:
    cells = list(dict.fromkeys(row["cell"] for row in rows))
    lines = list(dict.fromkeys((_method(row), row["setting"]) for row in rows))
    methods = list(dict.fromkeys(method for method, _ in lines))
    lines.sort(key=lambda line: methods.index(line[0]))
    psnr: dict[tuple[str, str, str], float] = {(_method(r), r["setting"], r["cell"]): r["psnr"] for r in rows}
    body = []
    for method, setting in lines:
        first = next(s for m, s in lines if m == method)
        shown = []
        for cell in cells:
            own, reference = psnr.get((method, setting, cell)), psnr.get((method, first, cell))
            plain = setting == first or study == "seeds"
            change = "" if plain or own is None or reference is None else f" ({own - reference:+.2f})"
            shown.append(_number(own, ".2f") + change)
        body.append([method, setting, *shown])
    if study == "seeds":
        body += _spread(psnr, cells)
    table = markdown(["method", "setting", *cells], body)
    lensing = [row for row in rows if row.get("theta_E_median") is not None]
    if lensing and study == "varied":
        head = ["method", "setting", "cell", "images", "median theta_E error", "off by over 5 %"]
        numbers = [
            [_method(r), r["setting"], r["cell"], str(r["n"]), f"{r['theta_E_median']:.2%}",
             f"{r['theta_E_failures']:.1%}"] for r in lensing
        ]  # fmt: skip
        table += "\n" + markdown(head, numbers)
    return table


def _spread(psnr: dict[tuple[str, str, str], float], cells: Sequence[str]) -> list[list[str]]:
    body = []
    for method in dict.fromkeys(m for m, _, _ in psnr):
        by_cell = [[x for (m, _, c), x in psnr.items() if (m, c) == (method, cell)] for cell in cells]
        body.append([method, "standard deviation", *(f"{np.std(x, ddof=1):.2f}" if x[1:] else ABSENT for x in by_cell)])
        body.append([method, "largest − smallest", *(f"{np.ptp(x):.2f}" if x[1:] else ABSENT for x in by_cell)])
    return body


def speed_table(rows: Sequence[Row]) -> str:
    """Return the Markdown table of the benchmark, from what ``experiments/speed`` holds."""
    body = [
        [r["what"], r["device"], str(r["batch"]), f"{r['median_ms']:.1f}", _number(r.get("iqr_ms"), ".1f"),
         _number(r.get("peak_mib"), ".0f"), r["hardware"], str(r["commit"])[:7]] for r in rows
    ]  # fmt: skip
    head = ["what", "device", "batch", "ms an image, median", "IQR [ms]", "peak memory [MiB]", "hardware", "commit"]
    return f"{_SPEED}\n\n{markdown(head, body)}"


def simulation_table(tree: Row) -> str:
    """Return the Markdown tables of the simulator's benchmark, and what ten million lenses cost by its figures."""
    rows, classes = tree["rows"], list(tree["rows"]["loop"])
    body = [
        [what] + [f"{of[name]['median_ms']:.2f} ({of[name]['iqr_ms']:.2f})" for name in classes]
        for what, of in rows.items() if "median_ms" in of[classes[0]]
    ]  # fmt: skip
    body.append(["**times as fast: torch, 2 workers, against the loop**"]
                + [f"**{tree['times_as_fast_as_the_loop'][name]:.1f}**" for name in classes])  # fmt: skip
    body.append(
        ["gain of a second worker, lenstronomy"] + [f"{tree['gain_of_a_second_worker'][n]:.2f}" for n in classes]
    )
    speed = markdown(["ms a sample, median (IQR)", *classes], body)
    steps = rows["steps"]
    spent = markdown(
        ["one worker, torch: ms a sample", *classes],
        [[step, *(f"{steps[name][step]:.2f}" for name in classes)] for step in steps[classes[0]]],
    )
    return f"{_SIMULATION}\n\n{speed}\n\n{spent}\n\n{_ten_million(tree)}"


def _ten_million(tree: Row) -> str:
    rows, lenses, shard = tree["rows"], 10_000_000, 1024
    size = float(np.mean([row["bytes"] for row in rows["torch, 1 worker"].values()]))
    hours = {
        engine: lenses * float(np.mean([r["median_ms"] for r in rows[f"{engine}, 1 worker"].values()])) / 3.6e6
        for engine in ("torch", "lenstronomy")
    }
    peak = max(row["peak_mib"] for row in rows["torch, 2 workers"].values())
    rate = lenses * size / 1e9 / (36 * hours["torch"])
    return (
        f"On paper, from these figures: ten million lenses of Model 2, a third of each class, are "
        f"{lenses * size / 1e12:.1f} TB in {-(-lenses // shard)} shards of {shard}, {hours['torch']:.0f} core hours "
        f"with the torch engine and {hours['lenstronomy']:.0f} with lenstronomy: on 100 cores "
        f"{60 * hours['torch'] / 100:.0f} minutes, if the disk takes {rate:.1f} GB/s. A worker takes {peak:.0f} MiB, "
        f"however many there are to make. ({tree['hardware']}, commit {str(tree['commit'])[:7]}.)"
    )


def _method(row: Row) -> str:
    return str(row.get("method") or "")


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _number(x: float | None, spec: str) -> str:
    return ABSENT if x is None else f"{x:{spec}}"
