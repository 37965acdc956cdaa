"""How a comparison of methods is shown: tables, figures, and one page that needs nothing else."""

from __future__ import annotations

import re
from copy import deepcopy
from html.parser import HTMLParser

import numpy as np
import pytest

from lensphys.basics.checks import LensphysError
from lensphys.basics.panels import save_figure
from lensphys.evaluation.comparison.figures import Lens, Panel, cost_figure, curves_figure, lens_figure
from lensphys.evaluation.comparison.report import report_page, write_report
from lensphys.evaluation.comparison.tables import (
    class_table,
    comparison_table,
    cost_table,
    judgement_table,
    quality_table,
    short_table,
)
from lensphys.evaluation.statistics import summary

CLASSES = ["no_sub", "axion", "cdm"]
METRICS = {
    "psnr_flux": 40.0, "ssim_flux": 0.98, "mse_flux": 1e-4, "psnr_seed": 30.0, "ssim_seed": 0.8, "mse_seed": 1e-3,
    "niqe": 6.0, "chi2_dof": 1.1, "flux_bias": 0.01, "theta_E_image": 0.02,
}  # fmt: skip
EVIL = '<script>alert("x")</script>'


def results(**shift: float) -> dict:
    means = {metric: x + shift.get(metric, 0.0) for metric, x in METRICS.items()}
    of = {m: {"mean": x, "std": 0.1, "low": x - 0.01, "high": x + 0.01, "n": 8, "missing": 0} for m, x in means.items()}
    return {c: deepcopy(of) for c in (*CLASSES, "all")}


def row(name: str, group: str | None, **more) -> dict:
    plain = {
        "needs_hr": False, "failed": None, "parameters": 1_230_000, "training_seconds": 180.0, "milliseconds": 12.3,
        "peak_mib": 812.4, "results": {}, "settings": {"method": {"name": name}}, "training": [],
    }  # fmt: skip
    return {"name": name, "group": group, **plain, **more}


def log(*players: str) -> list[dict]:
    terms = {f"{player}/loss": 0.7 for player in players}
    return [{"epoch": k, "loss": 100 * 0.5**k, "validation": 1.0 / k, "seconds": 9.0 * k, **terms} for k in range(1, 9)]


def helper(name: str, *, validation: float) -> dict:
    training = [*log(), {"epoch": 9, "validation": validation}]
    return row(name, None, settings={"train": {"method": {"name": name}}}, results={}, training=training)


@pytest.fixture
def tree() -> dict:
    partial = results(psnr_flux=1.0)
    partial["all"].pop("niqe")
    partial["all"]["psnr_flux"]["missing"] = 3
    rows = [
        row("bicubic", "classical", parameters=None, training_seconds=None, results=results(psnr_flux=-8)),
        row("amortised", "unsupervised", results=results(flux_bias=-0.011), training=log()),
        row("srgan", "adversarial", needs_hr=True, results=partial, training=log("generator", "discriminator")),
        row("rcan", "supervised", needs_hr=True, results=results(psnr_flux=4, ssim_flux=0.01), training=log()),
        row("resshift", "diffusion", needs_hr=True, failed=f"out of memory | {EVIL}", parameters=None),
        row("lanczos", "classical", parameters=None, training_seconds=None, milliseconds=0.1, results=None),
    ]
    return {
        "provenance": {"commit": "0123abc", "versions": {"torch": "2.13"}, "hardware": "x86_64, 1 threads"},
        "title": f"Methods {EVIL}", "protocol": "reduced protocol: 600 pairs a class", "data": "model_2",
        "classes": CLASSES, "images": {"no_sub": 8, "axion": 8, "cdm": 8, "all": 24}, "budget": {"minutes": 3.0},
        "rows": rows, "helpers": [helper("ranker", validation=0.125), helper("classifier", validation=0.5)],
        "ceiling": {"all": {"psnr_seed": summary([35.0, 36.0]), "psnr_flux": summary([None])}},
    }  # fmt: skip


def lines_of(table) -> dict:
    return {line.name: line for line in table.lines}


def best(table, heading: str) -> set[str]:
    k = [h.startswith(heading) for h in table.headings].index(True)
    return {line.name for line in table.lines if line.cells and line.cells[k].best}


def test_the_best_is_the_highest_the_lowest_or_the_nearest(tree):
    quality, others = quality_table(tree), judgement_table(tree)
    assert best(quality, "PSNR axion") == {"rcan"}
    assert best(quality, "SSIM") == {"rcan"}
    # -0.001 is nearer to 0 than +0.01, and the ceiling takes no part
    assert best(others, "flux bias") == {"amortised"}
    assert best(others, "chi^2") == {"bicubic", "amortised", "srgan", "rcan"}
    assert best(others, "PSNR, seed") == {"bicubic", "amortised", "srgan", "rcan"}
    below = row("below one", "supervised", results=results(chi2_dof=-0.13, mse_flux=-5e-5, niqe=-1.0))
    tree["rows"].append(below)
    for heading in ("chi^2", "NIQE"):
        assert best(judgement_table(tree), heading) == {"below one"}
    assert best(quality_table(tree), "MSE") == {"below one"}


def test_methods_that_judge_themselves_have_their_shares_beside_them(tree):
    assert not any("verdict" in heading for heading in judgement_table(tree).headings)
    judging = next(r for r in tree["rows"] if r["name"] == "amortised")
    judging["verdicts"] = {"good": 18, "suspect": 2, "bad": 4}
    judging["quality"] = ["quality: 18 good, 2 suspect, 4 bad", f"  image 3 (cdm): bad ({EVIL})"]
    for label in (*CLASSES, "all"):
        for quality, mean in (("good", 0.75), ("suspect", 0.08), ("bad", 0.17)):
            judging["results"][label][quality] = {"mean": mean, "n": 8, "missing": 0}
    table = judgement_table(tree)
    assert table.headings[-1] == "good / suspect / bad, by its own verdict"
    cells = {line.name: line.cells[-1].text for line in table.lines if line.cells}
    assert cells["amortised"] == "75 / 8 / 17 %" and cells["bicubic"] == cells["rcan"] == "–"
    assert not best(table, "good / suspect / bad")  # who calls everything good is not the better for it
    text = comparison_table(tree)
    assert "amortised: calls 4 of its 24 fits bad and 2 suspect." in text
    assert "| 75 / 8 / 17 % |" in text
    page = report_page(tree)
    assert "<h2>Verdicts</h2>" in page and "image 3 (cdm): bad" in page and EVIL not in page


def test_images_that_were_left_out_are_named(tree):
    tree["left_out"] = {"7": "shows no light"}
    assert "Image 7 of the test images shows no light: it is left out." in comparison_table(tree)


def test_a_failed_method_does_not_compete(tree):
    tree["rows"][4]["results"] = results(psnr_flux=99)
    assert best(quality_table(tree), "PSNR no_sub") == {"rcan"}
    assert lines_of(quality_table(tree))["resshift"].cells == ()


def test_groups_stand_together_in_the_order_of_their_first_method(tree):
    assert [line.name for line in cost_table(tree).lines] == [
        "bicubic", "lanczos", "amortised", "srgan", "rcan", "resshift",
    ]  # fmt: skip


def test_cost_is_written_with_its_unit(tree):
    tree["rows"][0] |= {"training_seconds": 5400.0, "parameters": 830, "milliseconds": 1234.5}
    cost = {name: [cell.text for cell in line.cells] for name, line in lines_of(cost_table(tree)).items()}
    assert cost["amortised"] == ["no", "1.23 M", "3.0 min", "12.3", "812"]
    assert cost["bicubic"] == ["no", "830", "1.5 h", "1,234", "812"]
    assert cost["lanczos"] == ["no", "–", "–", "0.100", "812"]


def test_markdown_has_the_protocol_intervals_the_reason_and_what_was_left_out(tree):
    text = comparison_table(tree)
    head, *rest = text.splitlines()
    assert head.startswith("Reduced protocol: 600 pairs a class. Data: model_2, 24 test images (8 no_sub, 8 axion")
    widths = [len(re.findall(r"(?<!\\)\|", line)) for line in rest if line.startswith("|")]
    assert set(widths) == {9, 10, 13, 8}  # no cell broke a table
    rcan = next(line for line in rest if "| rcan |" in line)
    assert rcan.startswith("| supervised | rcan | **44.00** [43.99, 44.01] | **44.00**")
    assert "| *fails: out of memory \\| &lt;script>" in text and "<script" not in text
    assert "\nsrgan: 3 of 11 images gave no finite PSNR and are left out.\n" in text
    assert "\nranker: orders 87.5% of the pairs of images that it has not seen as NIQE does.\n" in text
    assert "classifier: orders" not in text
    assert "| ceiling: the noise-free truth | 35.50 [" in text
    assert "| classical | bicubic |" in text and "|  | lanczos | –" in text


def test_the_short_table_is_one_table_of_all_images(tree):
    rows = [line for line in short_table(tree).splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(tree["rows"])
    assert rows[0].count("|") == 12 and "NIQE" in rows[0] and "ms an image" in rows[0]
    assert "fails: out of memory" in rows[-1]
    assert short_table(tree).endswith(
        "ranker: orders 87.5% of the pairs of images that it has not seen as NIQE does.\n"
    )


def test_a_metric_that_nobody_has_is_no_column(tree):
    for r in tree["rows"]:
        for of in (r["results"] or {}).values():
            of.pop("theta_E_image", None)
    assert not any("theta_E" in h for h in judgement_table(tree).headings)
    assert any("NIQE" in h for h in class_table(tree, "cdm").headings)


def images(count: int = 15) -> Lens:
    random = np.random.default_rng(1)
    truth = random.random((24, 20))
    panels = [Panel(f"a method of a rather long name {k}", truth + 0.01 * k, 40.0 - k) for k in range(count)]
    return Lens("cdm 3", (1.0, 1.2), random.random((12, 10)), truth, panels)


def test_every_method_is_shown_above_its_residual_on_common_scales(tmp_path):
    figure = lens_figure(images())
    shown = [ax for ax in figure.axes if ax.images]
    assert len(shown) == 2 + 2 * 15
    scales = {ax.images[0].get_clim() for ax in shown}
    assert len(scales) == 2 and (0.0, 1.0) in scales
    (low, high) = next(s for s in scales if s != (0.0, 1.0))
    assert low == -high and high == pytest.approx(0.07 / images().truth.max())  # the median method's
    assert any("26.00 dB" in ax.get_title() for ax in shown)
    save_figure(figure, tmp_path / "lens.png")
    assert (tmp_path / "lens.png").stat().st_size > 20_000


def test_lens_figure_refuses_what_it_cannot_show():
    lens = images(1)
    with pytest.raises(LensphysError, match="at least one method, got none"):
        lens_figure(Lens("a", lens.field, lens.lr, lens.truth, []))
    with pytest.raises(LensphysError, match=r"image of x and truth must have the same shape, got \(2, 3\)"):
        lens_figure(Lens("a", lens.field, lens.lr, lens.truth, [Panel("x", np.ones((2, 3)))]))


def test_cost_figure_names_every_method_twice_and_no_names_overlap(tree):
    figure = cost_figure(tree)
    for ax in figure.axes:
        assert {t.get_text() for t in ax.texts} == {"bicubic", "amortised", "srgan", "rcan"}
        boxes = [t.get_window_extent() for t in ax.texts]
        assert not any(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[:k])
        assert ax.get_xscale() == "log"
    ticks = [[t.get_text() for t in ax.get_xticklabels()] for ax in figure.axes]
    assert "none" in ticks[0] and "none" not in ticks[1]
    tree["rows"] = [r for r in tree["rows"] if r["failed"]]
    assert cost_figure(tree) is None


def test_curves_figure_has_a_panel_for_each_player(tree):
    figure = curves_figure(tree)
    labels = [ax.get_ylabel() for ax in figure.axes if ax.lines]
    assert labels.count("validation") == labels.count("loss") == 3
    assert labels.count("generator's loss") == labels.count("discriminator's loss") == 1
    assert {ax.get_yscale() for ax in figure.axes if ax.get_ylabel() == "loss"} == {"log"}
    tree["rows"] = tree["rows"][:1]
    assert curves_figure(tree) is None


class Page(HTMLParser):
    """Keeps what opens and closes, and every address."""

    VOID = ("meta", "img", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_stands_alone(tree, tmp_path):
    path = write_report(tmp_path / "results", tree, [images(3)])
    assert path == tmp_path / "results" / "report.html"
    page = Page(path.read_text())
    assert page.open == []
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in page.addresses)
    assert "@import" not in path.read_text() and "url(" not in path.read_text()
    assert page.tags.count("img") == 3 and page.tags.count("details") == 6
    assert sorted(p.name for p in (tmp_path / "results" / "figures").iterdir()) == [
        "cost.png", "lens_1.png", "training.png",
    ]  # fmt: skip


def test_the_page_shows_text_and_never_runs_it(tree):
    tree["rows"][0] |= {"name": f'"{EVIL}', "group": EVIL, "settings": {"x": EVIL}}
    tree["provenance"]["command"] = EVIL
    tree["protocol"] = tree["data"] = EVIL
    tree["classes"] = [*CLASSES, EVIL]
    tree["images"][EVIL] = 1
    text = report_page(tree)
    assert EVIL not in text and text.count("<script>") == 1
    assert Page(text).open == []


def test_the_page_tells_reason_and_provenance(tree):
    text = report_page(tree)
    assert 'colspan="6">failed: out of memory' in text
    for word in ("0123abc", "torch: &#x27;2.13&#x27;", "x86_64, 1 threads", "minutes 3.0", "6, 1 failed"):
        assert word in text
