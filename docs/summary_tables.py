"""Short tables and sentences with measured numbers, from what stands in ``experiments/``; `generate.py` writes them."""

from __future__ import annotations

from typing import Any

import numpy as np

from lensphys.evaluation.tables import ABSENT, bold, markdown

Tree = dict[str, Any]

SHORT = ("Euclid VIS, real galaxies", "HST ACS F814W, real galaxies", "Model 2, Sersics")
_CLASSES = {"no_sub": "smooth", "axion": "axion vortex", "cdm": "CDM sub-halos"}
# sub-halo masses, log10 of solar masses, as `completeness` has them
_MASSES = ("0 to 8.5", "8.5 to 9", "9 to 9.5", "9.5 to 10")


def short_table(tree: Tree) -> str:
    """Return the README's one table: three data sets, by class.

    Args:
        tree: ``any_source/table.json``.
    """
    head = ["images (2x)", "lens", "bicubic [dB]", "lensphys [dB]", "smallest gain", "theta_E off, median",
            "with all mass", "calls itself good / suspect / bad"]  # fmt: skip
    body = []
    for data in (data for data in tree["sets"] if data["name"] in SHORT):
        for label, row in data["table"].items():
            quality = " / ".join(str(row["quality"][q]) for q in ("good", "suspect", "bad"))
            body.append([data["name"], _CLASSES[label], f"{row['bicubic']:.1f}", f"**{row['psnr']:.1f}**",
                         f"{row['gain_worst']:+.1f}", f"{row['theta_E_median']:.2%}",
                         f"{row['theta_E_total_median']:.2%}",
                         quality])  # fmt: skip
    return markdown(head, body)


def survey_cost_table(cost: Tree, galaxies: Tree) -> str:
    """Return what 1e5 lenses take: the measured seconds of one core times 1e5, over 100 cores.

    Args:
        cost: ``survey/cost.json``, of Sersic sources.
        galaxies: ``any_source/table.json``.
    """

    def row(what: str, seconds: float, kind: str) -> list[str]:
        return [what, f"{seconds:.1f} s, {kind}", f"{seconds * 1e5 / 100 / 3600:.1f} h"]

    rows = [row("Euclid VIS, Sersic sources, smooth", cost["mean_processor_seconds"], "mean")]
    for data in (data for data in galaxies["sets"] if data["name"].endswith("real galaxies")):
        rows += [
            row(f"{data['name']}, {_CLASSES[label]}", of["seconds_median"], "median")
            for label, of in data["table"].items()
        ]
    table = markdown(["lenses", "one core, an image", "1e5 on 100 cores"], rows)
    return (
        f"{table}\n\nResults take {cost['bytes_a_lens'] / 1e6:.2f} MB a lens, {cost['of_100000']['GB']:.0f} GB of 1e5."
    )


def gain_caption(tree: Tree) -> str:
    """Return what stands below the first picture.

    Args:
        tree: ``any_source/gain.json``.
    """
    return (
        f"A real galaxy behind a simulated lens, as Euclid VIS would see it. PSNR against the noise-free truth: "
        f"bicubic {tree['psnr_bicubic']:.1f} dB, lensphys {tree['psnr']:.1f} dB. Einstein radius {tree['theta_E']:.4f} "
        f'+- {tree["theta_E_error"]:.4f}" (true {tree["theta_E_true"]:.4f}"). The gain is the mean of its class, '
        f'and the result calls itself "{tree["quality"]}".'
    )


def real_lenses(slacs: Tree, lit: Tree, telescopes: Tree) -> str:
    """Return how far the Einstein radii of real lenses are from the published ones.

    Args:
        slacs: ``real/slacs/table.json``.
        lit: ``real/lens_light/table.json``.
        telescopes: ``real/telescopes/table.json``.
    """
    head = ["real lenses, nothing set by hand", "images", "theta_E off, median", "worst", "within 5 %",
            "calls itself good / suspect / bad"]  # fmt: skip
    names = ("Hubble, galaxy subtracted", "Hubble, galaxy left in", "Euclid, Hubble and JWST, galaxy left in")
    body = []
    for name, tree in zip(names, (slacs, lit, telescopes), strict=True):
        rows = [row for row in tree["rows"] if row["ratio"]]
        off = np.array([abs(row["ratio"] - 1) for row in rows])
        numbers = [str(len(rows)), f"{np.median(off):.1%}", f"{off.max():.1%}", str((off <= 0.05).sum())]
        body.append([name, *numbers, _qualities(rows)])
    return markdown(head, body)


def _qualities(rows: list[Tree]) -> str:
    """How many of some results call themselves good, suspect and bad."""
    return " / ".join(str(sum(row["quality"] == word for row in rows)) for word in ("good", "suspect", "bad"))


def drawn_with_light(*trees: Tree) -> str:
    """Return how far the Einstein radii of drawn lenses with their galaxies are off, telescope by telescope.

    Args:
        trees: ``real/lens_light/simulated/hst/table.json``, of more draws, of ``euclid`` and of ``hsc``.
    """
    head = ["drawn lenses with their galaxies", "images", "theta_E", "theta_E off, median", "within 5 %", "within 10 %",
            "over 20 %", "within its error", "calls itself good / suspect / bad", "good, and off by over 10 %",
            "CPU s, median"]  # fmt: skip
    names = ('Hubble F814W, 0.05"', "the same, more draws", 'Euclid VIS, 0.1"', 'HSC i, 0.168", seeing 0.6"')
    body = []
    for name, tree in zip(names, trees, strict=True):
        rows = tree["rows"]
        off, true = (np.array(x) for x in ([abs(row["ratio"] - 1) for row in rows], [row["published"] for row in rows]))
        pull = np.array([abs(row["theta_E"] - row["published"]) / row["error"] for row in rows])
        good = np.array([row["quality"] == "good" for row in rows])
        counts = [(off <= 0.05).sum(), (off <= 0.1).sum(), (off > 0.2).sum(), (pull < 1).sum()]
        wrong, seconds = ((off > 0.1) & good).sum(), np.median([row["cpu_seconds"] for row in rows])
        span = f'{true.min():.1f} to {true.max():.1f}"'
        body.append([name, str(len(rows)), span, f"{np.median(off):.1%}", *map(str, counts), _qualities(rows),
                     str(wrong), f"{seconds:.0f}"])  # fmt: skip
    return markdown(head, body)


def completeness_table(tree: Tree) -> str:
    """Return the share of true sub-halos near the arc that are found, by mass, for each data set with CDM sub-halos.

    Args:
        tree: ``any_source/table.json``.
    """
    body = []
    for data in tree["sets"]:
        found = data["table"].get("cdm", {}).get("completeness")
        if found:
            body.append([data["name"], *(_share(found.get(mass)) for mass in _MASSES)])
    return markdown(["data", *(f"10^{mass} solar masses" for mass in _MASSES)], body)


def multipoles_table(plain: Tree, with_multipoles: Tree) -> str:
    """Return what free multipoles change on real lenses: a row a lens.

    Args:
        plain: ``real/slacs/table.json``.
        with_multipoles: ``real/slacs/multipoles/table.json``.
    """
    more = {row["lens"]: row for row in with_multipoles["rows"]}
    body = [
        [row["lens"], f"{row['ratio']:.3f}", f"{more[row['lens']]['ratio']:.3f}", str(row["subhalos"]),
         str(more[row["lens"]]["subhalos"])] for row in plain["rows"] if row["lens"] in more
    ]  # fmt: skip
    head = ["lens", "theta_E / published", "with multipoles", "sub-halos", "with multipoles"]
    return markdown(head, body)


def overfit_table(tree: Tree) -> str:
    """Return how well each network overfits eight noise-free pairs: it must be able to.

    Args:
        tree: ``comparisons/overfit.json``.
    """
    body = [
        [name, str(row["parameters"]), f"{row['psnr_flux']:.1f}", f"{row['lowest']:.1f}"]
        for name, row in sorted(tree["networks"].items())
    ]
    body.insert(0, ["bicubic", ABSENT, f"{tree['bicubic']:.1f}", ABSENT])
    return markdown(["network", "parameters", "PSNR of the eight pairs [dB]", "lowest of them"], body)


def pair_sentence(tree: Tree) -> str:
    """Return what registration and flux matching gave on an observed pair.

    Args:
        tree: ``real/pair/table.json``.
    """
    x, y = tree["shift_arcsec"]
    rms = {when: tree["residual_rms"][when]["object"] for when in ("before", "after")}
    psnr = {what: tree["bicubic"][what]["psnr"] for what in ("as_given", "flux_matched", "registered")}
    return (
        f'An observed HSC and HST pair: shifted by ({x:+.3f}", {y:+.3f}") +- {tree["sigma_arcsec"]:.3f}". Registered, '
        f"the rms of the residual on the object falls from {rms['before']:.3f} to {rms['after']:.3f}. Bicubic "
        f"interpolation of the HSC image against the HST image: {psnr['as_given']:.1f} dB as given, "
        f"{psnr['flux_matched']:.1f} dB with the flux matched, {psnr['registered']:.1f} dB registered, too."
    )


def fuzz_table(tree: Tree) -> str:
    """Return what became of damaged files: a row a kind of file.

    Args:
        tree: ``robustness/fuzz.json`` or ``robustness/doors.json``.
    """
    outcomes = ("refused", "same", "warned", "silent", "traceback", "hang", "crash")
    body = [[kind, *(str(counts.get(o, 0)) for o in outcomes)] for kind, counts in tree["counts"].items()]
    return markdown([f"{tree['n']} damaged files each", *outcomes], body)


def memory_table(now: Tree, before: Tree) -> str:
    """Return the memory of commands on stacks of images: a row a command and number of images.

    Args:
        now: ``robustness/memory.json``.
        before: ``robustness/memory_before.json``, of the commit before stacks stayed in their files.
    """
    body = [
        [name, count, f"{before['memory'][name][count]['MiB']:.0f}", f"{found['MiB']:.0f}"]
        for name, counts in now["memory"].items()
        for count, found in counts.items()
    ]
    side = now["side"]
    head = ["bicubic, at 2 x", f"images of {side} x {side}", "stacks in memory [MiB]", "stacks in their file [MiB]"]
    return markdown(head, body)


def _share(found: Tree | None) -> str:
    return ABSENT if not found or not found["of"] else f"{found['found']:.0%} of {found['of']}"


def zoo_table(tree: Tree) -> str:
    """Return the supervised networks beside ours, PSNR [dB] by class.

    Args:
        tree: ``any_source/zoo.json``.
    """
    names = list(tree["rows"][0]["psnr"])
    best = {name: max(row["psnr"][name] for row in tree["rows"]) for name in names}
    rows = [
        [row["method"].replace("_", " "), "" if row["parameters"] is None else f"{row['parameters']:,}"]
        + [bold(row["psnr"][name], best[name]) for name in names]
        for row in tree["rows"]
    ]
    return markdown(["method", "parameters", *(f"{name} [dB]" for name in names)], rows)


_DATA = {"euclid": "Euclid VIS, real", "hst": "HST ACS F814W, real", "spirals": "Euclid VIS, drawn spirals"}


def linear_field_table(tree: Tree) -> str:
    """Return the two kinds of fields of a free source, a row a data set and kind.

    Args:
        tree: ``any_source/linear_field.json``.
    """
    head = ["galaxies", "field", "images", "bicubic [dB]", "fit [dB]", "smallest gain", "theta_E off, median",
            "largest", "chi^2 / dof", "coverage", "lenses with sub-halos claimed", "good / suspect / bad"]  # fmt: skip
    rows = []
    for data in tree["sets"]:
        [row] = data["table"].values()
        quality = " / ".join(str(row["quality"][q]) for q in ("good", "suspect", "bad"))
        rows.append([_DATA[data["data"]], data["field"], str(row["images"]), f"{row['bicubic']:.1f}",
                     f"{row['psnr']:.1f}", f"{row['gain_worst']:+.1f}", f"{row['theta_E_median']:.2%}",
                     f"{row['theta_E_worst']:.2%}", f"{row['chi2']:.2f}", f"{row['coverage']:.2f}",
                     f"{row['lenses_with_claims']} of {row['images']}", quality])  # fmt: skip
    return markdown(head, rows)


def injected_table(tree: Tree) -> str:
    """Return how many NFW sub-halos are found, a row a mass and model.

    Args:
        tree: ``any_source/injected.json``.
    """
    rows = []
    for data in tree["sets"]:
        for row in data["table"]:
            mass = "none" if row["log_mass"] is None else f"10^{row['log_mass']:g}"
            of = row["lenses"]
            claims = f"{row['real']} of {row['claims']}" if row["claims"] else "no claim"
            found = "" if row["log_mass"] is None else f"{row['found']} of {of}"
            rows.append([data["telescope"], data["mass"], mass, found, claims, f"{row['good']} of {of}"])
    return markdown(
        ["telescope", "smooth mass", "M200", "lenses in which it is found", "claims that are real", "good"], rows
    )


def mergers_table(tree: Tree) -> str:
    """Return what the default makes of mergers, a sentence.

    Args:
        tree: ``any_source/mergers.json``.
    """
    row = tree["table"]
    quality = ", ".join(f"{row['quality'][q]} {q}" for q in ("good", "suspect", "bad"))
    off = f"{100 * row['theta_E_median']:.2f} % in the median, by over 5 % in {row['over_5_percent']}"
    claims = f"{row['with_subhalos']} ({row['with_subhalos_and_good']} good)"
    return (
        f"{row['lenses']} mergers: {quality}. theta_E is off by {off} "
        f"({row['over_5_percent_and_good']} good); sub-halos, which are not there, are claimed in {claims}. "
        f"{row['seconds_median']:.0f} s of one core in the median."
    )


def slope_table(tree: Tree) -> str:
    """Return how well what hangs on the slope of the mass is known.

    Args:
        tree: ``any_source/slope.json``.
    """
    rows = []
    for model, found in tree["table"].items():
        for key in ("theta_E", "slope", "magnification", "source_flux"):
            one = found[key]
            off = [f"{100 * one[name]:.1f}%" for name in ("off_median", "off_largest")]
            rows.append([model, key, str(one["of"]), *off, f"{one['within_error']} of {one['of']}"])
    return markdown(["model", "", "lenses", "off, median", "at most", "within its error"], rows)


def fits_table(tree: Tree) -> str:
    """Return how long stacks of real-looking galaxies take.

    Args:
        tree: ``speed/fits.json``.
    """
    rows = [
        [row["galaxies"], row["kind"], f"{row['side']} x {row['side']}", str(row["images"]), str(row["workers"]),
         f"{row['wall_seconds']:.1f}", f"{row['cpu_seconds']:.1f}", f"{row['peak_mib']:.0f}"]
        for row in tree["rows"]
    ]  # fmt: skip
    head = [
        "galaxies",
        "lens",
        "pixels",
        "images",
        "workers",
        "s an image",
        "CPU s an image",
        "memory of a process [MiB]",
    ]
    return markdown(head, rows)


def gpu_table(tree: Tree) -> str:
    """Return what was timed on a GPU beside one CPU core.

    Args:
        tree: ``gpu/speed.json``.
    """
    rows = [
        [row["what"], row["device"], str(row["batch"]), f"{row['ms_an_image']:.3g}",
         "–" if row["peak_mib"] is None else f"{row['peak_mib']:.0f}", row["commit"][:7]]
        for row in tree["rows"]
    ]  # fmt: skip
    return markdown(["what", "device", "batch", "ms an image", "peak memory [MiB]", "commit"], rows)
