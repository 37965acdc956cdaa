"""Tables of what readers reached, from the ``metrics.json`` that `lensphys downstream` writes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np

from lensphys.downstream.measures import over_seeds
from lensphys.downstream.settings import PLAIN, SEEN
from lensphys.evaluation.comparison.tables import Cell, Line, Table, as_markdown

Row = dict[str, Any]

ALL = "all"
_CHANCE = 0.5  # AUC of a reader that knows nothing
_FIRST = "reader"
_SHARE = (0.0, 1.0)
_BOUNDS = {
    "accuracy": _SHARE, "ece": _SHARE, "log_loss": (0.0, np.inf), "mse": (0.0, np.inf), "mae": (0.0, np.inf),
    "r2": (-np.inf, 1.0),
}  # fmt: skip


def aggregated(rows: Iterable[Row]) -> list[Row]:
    """Return the rows of all seeds of a reader, input and budget as one: means and intervals over the seeds.

    Of the plain test set the mean confusion and ROC curves stay, and the reliability of each seed.
    """
    sets: dict[tuple[str, str, int], list[Row]] = {}
    for row in rows:
        sets.setdefault((row["reader"], row["input"], row["budget"]), []).append(row)
    return [
        {"reader": reader, "input": name, "budget": budget, "seeds": len(own)}
        | {
            "tests": {
                test: _together([row["tests"][test] for row in own], whole=test == PLAIN) for test in own[0]["tests"]
            }
        }
        for (reader, name, budget), own in sets.items()
    ]


def _together(measured: Sequence[Row], *, whole: bool) -> Row:
    found: Row = {}
    for key, first in measured[0].items():
        values = [m[key] for m in measured]
        if isinstance(first, float):
            found[key] = over_seeds(values, *_BOUNDS.get(key, ()))
        elif key in ("auc", "auc_if_right"):
            told = dict.fromkeys(name for value in values for name in value)  # not every seed may have every class
            found[key] = {name: over_seeds((v[name] for v in values if name in v), *_SHARE) for name in told}
        elif whole and key == "reliability":
            found[key] = values
        elif whole:
            found[key] = _mean(values)
    return found


def _mean(trees: Sequence[Any]) -> Any:
    """The mean of numbers, lists or groups of them, place by place."""
    first = trees[0]
    if isinstance(first, dict):
        return {key: _mean([tree[key] for tree in trees]) for key in first}
    if isinstance(first, list):
        return [_mean(parts) for parts in zip(*trees, strict=True)]
    return sum(trees) / len(trees)


def tables(tree: Row, vague: float = 0.3) -> list[Table]:
    """Return all tables of an experiment; those without a line are left out.

    Args:
        tree: as ``metrics.json`` has it.
        vague: width of an interval of the AUC of nuisances, 0 to 1, above which it does not tell whether sets leak.
    """
    if tree["task"] == "regress":
        found = [_numbers_table(tree), _budget_table(tree, "mse", lambda test: test["mse"])]
    else:
        found = [
            _class_table(tree),
            _budget_table(tree, "AUC, mean of classes", lambda test: test["auc"][ALL]),
            _labels_table(tree),
            _shift_table(tree),
            _claims_table(tree),
            _leak_table(tree, vague),
            *_free_tables(tree),
        ]
    return [table for table in [*found, _published_table(tree)] if table.lines]


def downstream_table(tree: Row, vague: float = 0.3) -> str:
    """Return all tables of an experiment as Markdown, each number with its interval; arguments as of `tables`."""
    parts = [f"{tree['protocol']}\n", *(f"**{table.title}**\n\n{as_markdown(table)}" for table in tables(tree, vague))]
    return "\n".join([*parts, *(f"{note}\n" for note in notes(tree))])


def notes(tree: Row) -> list[str]:
    """Return what must be said beside the tables."""
    over = (
        f"over {tree['seeds']} seeds, each with other labels and other fresh weights (Student's t); of scores without "
        "labels 95 % bootstrap over lenses"
    )
    found = [
        f"Intervals: 95 % {over if tree['seeds'] > 1 else 'bootstrap over lenses; one training'}.",
        "Super-resolution adds no information to the LR image: where a reader of it does better, labels are few.",
    ]
    if _labelled(tree):
        found.append(
            f"Labels declared: networks behind {', '.join(_labelled(tree))} learned from labels before any reader "
            f"did, those trained here from all {tree['sets']['train']['lenses']} lenses that teach: the numbers of "
            "labels above are not all that these rows took. 'Labels seen': lenses among these from which the reader "
            "did not learn. Counted as S1 does, seeds in which no lens of some class was told right have no AUC."
        )
    return found + [set_sentence(name, told) for name, told in tree["sets"].items()]


def set_sentence(name: str, told: Row) -> str:
    """Return how many lenses of a file a set has, and why no more.

    Args:
        name: of the set.
        told: its provenance.
    """
    words = [f"{told['lenses']} of the {told['in_file']} lenses of {told['file']}"]
    words += [f"{told['unusable']} cannot be used"] if told["unusable"] else []
    shared = told.get("shares_source_with_test", 0)
    words += [f"{shared} share a source with a test set and are left out"] if shared else []
    words += ["its labels stand in another order and were brought into that of the training"] if told["order"] else []
    return f"{name}: {', '.join(words)}."


def _plain_rows(tree: Row) -> list[Row]:
    """The rows of the largest budget, but those of nuisances."""
    return [r for r in tree["rows"] if r["budget"] == max(tree["budgets"]) and r["input"] not in tree["nuisances"]]


def _class_table(tree: Row) -> Table:
    """AUC of each class, accuracy and calibration at the largest budget."""
    columns: list[tuple[str, Callable[[Row], Row], bool]] = [
        (f"AUC {name} ↑", partial(_auc, name), True) for name in [*tree["classes"], ALL]
    ]
    columns += [
        ("accuracy ↑", lambda test: test["accuracy"], True),
        ("log loss ↓", lambda test: test["log_loss"], False),
    ]
    columns += [("ECE ↓", lambda test: test["ece"], False)]
    rows = _plain_rows(tree)
    cells = [_column([get(row["tests"][PLAIN]) for row in rows], up=up) for _, get, up in columns]
    lines = tuple(_line(tree, row, tuple(column[i] for column in cells)) for i, row in enumerate(rows))
    title = f"{_judged_on(tree)}, {max(tree['budgets'])} labels of each class"
    return Table(title, tuple(name for name, _, _ in columns), lines, _FIRST)


def _judged_on(tree: Row) -> str:
    """What the plain test set is: unseen lenses, but for a reader that a user judges."""
    return str(tree.get("judged_on", "Unseen lenses"))


def _auc(name: str, test: Row) -> Row:
    return test["auc"][name]


def _numbers_table(tree: Row) -> Table:
    columns = [("MSE ↓", "mse", False), ("MAE ↓", "mae", False), ("R² ↑", "r2", True), ("bias", "bias", None)]
    rows = _plain_rows(tree)
    cells = [_column([row["tests"][PLAIN][key] for row in rows], up=up) for _, key, up in columns]
    lines = tuple(_line(tree, row, tuple(column[i] for column in cells)) for i, row in enumerate(rows))
    title = f"{_judged_on(tree)}, {tree['target']} with {max(tree['budgets'])} labels"
    return Table(title, tuple(name for name, _, _ in columns), lines, _FIRST)


def _by_pair(tree: Row) -> dict[tuple[str, str], dict[int, Row]]:
    """Rows by reader and input, then by budget."""
    found: dict[tuple[str, str], dict[int, Row]] = {}
    for row in tree["rows"]:
        if row["input"] not in tree["nuisances"]:
            found.setdefault((row["reader"], row["input"]), {})[row["budget"]] = row
    return found


def _budget_table(tree: Row, what: str, get: Callable[[Row], Row]) -> Table:
    if len(tree["budgets"]) < 2:
        return Table("", (), ())
    pairs, up = _by_pair(tree), what != "mse"
    columns = [_column([get(own[b]["tests"][PLAIN]) for own in pairs.values()], up=up) for b in sorted(tree["budgets"])]
    lines = tuple(
        _line(tree, next(iter(own.values())), tuple(c[i] for c in columns)) for i, own in enumerate(pairs.values())
    )
    headings = tuple(f"{budget} labels" for budget in sorted(tree["budgets"]))
    return Table(f"Label efficiency: {what}", headings, lines, _FIRST)


def labels_needed(tree: Row, auc: float) -> dict[tuple[str, str], int | None]:
    """Return the smallest budget at which the mean AUC of each reader and input reaches a value; None if none does."""
    return {
        pair: next((b for b in sorted(own) if own[b]["tests"][PLAIN]["auc"][ALL]["mean"] >= auc), None)
        for pair, own in _by_pair(tree).items()
    }


def _labels_table(tree: Row) -> Table:
    """How many labels each takes for what readers of LR images reach with the most."""
    pairs = _by_pair(tree)
    most = max(tree["budgets"])
    images = {pair: own[most] for pair, own in pairs.items() if _is_lr(tree, pair[1])}
    if not images or len(tree["budgets"]) < 2:
        return Table("", (), ())
    best = max(images.values(), key=lambda row: row["tests"][PLAIN]["auc"][ALL]["mean"])
    auc = best["tests"][PLAIN]["auc"][ALL]["mean"]
    needed = labels_needed(tree, auc)
    lines = [
        _line(
            tree,
            next(iter(own.values())),
            (Cell("more" if needed[pair] is None else str(needed[pair]), order=needed[pair]),),
        )
        for pair, own in pairs.items()
    ]
    title = f"Labels of each class for an AUC of {auc:.3f}, that of {best['reader']} on {best['input']} with {most}"
    return Table(title, ("labels ↓",), tuple(lines), _FIRST)


def _is_lr(tree: Row, name: str) -> bool:
    inputs = tree["provenance"]["experiment"]["inputs"]
    return inputs[name]["kind"] == "lr"


def _shift_table(tree: Row) -> Table:
    rows, tests = _plain_rows(tree), list(tree["sets"])[1:]
    if len(tests) < 2:
        return Table("", (), ())
    columns = [_column([row["tests"][test]["auc"][ALL] for row in rows], up=True) for test in tests]
    lines = tuple(_line(tree, row, tuple(c[i] for c in columns)) for i, row in enumerate(rows))
    return Table("Shifted test sets: AUC, mean of classes, largest budget", tuple(tests), lines, _FIRST)


def _claims_table(tree: Row) -> Table:
    """What is left of an AUC once labels are unseen and every lens counts; empty where no network saw labels."""
    rows = [row for row in _plain_rows(tree) if _labelled(tree) and SEEN in row["tests"]]
    told = [(test, key) for test in (SEEN, PLAIN) for key in ("auc_if_right", "auc")]
    lines = [_line(tree, row, tuple(_optional(row["tests"][test][key].get(ALL)) for test, key in told)) for row in rows]
    words = [
        f"labels {seen}, {counted}" for seen in ("seen", "unseen") for counted in ("counted as S1 does", "all count")
    ]
    return Table("What is left of a published AUC, mean of classes", tuple(words), tuple(lines), _FIRST)


def _optional(summary: Row | None) -> Cell:
    return Cell("–") if summary is None else _cell(summary)


def _leak_table(tree: Row, vague: float) -> Table:
    """Nuisances alone must not tell the classes apart."""
    lines = []
    for row in tree["rows"]:
        if row["input"] in tree["nuisances"] and row["budget"] == max(tree["budgets"]):
            auc = row["tests"][PLAIN]["auc"][ALL]
            lines.append(_line(tree, row, (_cell(auc), Cell(_leak(auc, vague)))))
    return Table("Leak test: nuisances alone, AUC, mean of classes", ("AUC", "verdict"), tuple(lines), _FIRST)


def _leak(auc: Row, vague: float) -> str:
    """What the AUC of nuisances says."""
    if auc["low"] is None or auc["high"] - auc["low"] > vague:
        return "too few seeds to tell"
    return "at chance" if auc["low"] <= _CHANCE else "above chance: the sets leak"


def _free_tables(tree: Row) -> list[Table]:
    found = []
    rows = tree["label_free"]
    for question in dict.fromkeys(row["question"] for row in rows):
        own = [row for row in rows if row["question"] == question]
        tests = list(dict.fromkeys(row["test"] for row in own))
        lines = []
        for product, score in dict.fromkeys((row["product"], row["score"]) for row in own):
            by_test = {r["test"]: r for r in own if (r["product"], r["score"]) == (product, score)}
            cells = [_free_cell(by_test[test]) for test in tests]
            cells += [Cell(f"{100 * by_test[test]['false_alarms']:.0f} %") for test in tests[:1]]
            lines.append(Line(score, product, tuple(cells)))
        headings = (*(f"AUC {test}" for test in tests), "false alarms at 90 % completeness, test")
        found.append(Table(f"Without a label: {question}", headings, tuple(lines), "score"))
    return found


def _free_cell(row: Row) -> Cell:
    return Cell(f"{row['auc']:.3f}", f"[{row['low']:.3f}, {row['high']:.3f}]", order=-row["auc"])


def _published_table(tree: Row) -> Table:
    names = list(dict.fromkeys(name for row in tree["published"] for name in row["values"]))
    lines = [
        Line(row["name"], "published", (*(_number(row["values"].get(name)) for name in names), Cell(row["note"])))
        for row in tree["published"]
    ]
    return Table("Published, for scale", (*names, "remark"), tuple(lines), "what")


def _number(x: float | None) -> Cell:
    return Cell("–") if x is None else Cell(f"{x:.4g}")


def _labelled(tree: Row) -> list[str]:
    """The inputs whose networks learned from labels; results that do not tell have none."""
    return list(tree.get("labelled", []))


def _line(tree: Row, row: Row, cells: tuple[Cell, ...]) -> Line:
    saw = " (its networks saw labels)" if row["input"] in _labelled(tree) else ""
    return Line(f"{row['reader']} on {row['input']}{saw}", row["input"], cells)


def _column(summaries: Sequence[Row], *, up: bool | None) -> list[Cell]:
    """Cells of one quantity, the best marked; ``up``: more is better; None: neither."""
    if up is None or not summaries:
        return [_cell(summary) for summary in summaries]
    sign = -1 if up else 1
    best = f"{min((s['mean'] for s in summaries), key=lambda mean: sign * mean):.3f}"
    return [_cell(s, best=f"{s['mean']:.3f}" == best, order=sign * s["mean"]) for s in summaries]


def _cell(summary: Row, *, best: bool = False, order: float | None = None) -> Cell:
    interval = "" if summary["low"] is None else f"[{summary['low']:.3f}, {summary['high']:.3f}]"
    return Cell(f"{summary['mean']:.3f}", interval, best, order)
