"""The catalogue as plain pages: a line a lens, with small pictures; no script, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from lensphys.basics.outputs import whole_file
from lensphys.basics.sentences import rounded
from lensphys.catalogue.pictures import SIDE, STEP, WIDTH
from lensphys.catalogue.rows import Row
from lensphys.catalogue.work import PICTURES, SHARDS

PER_PAGE = 250  # lenses
_STYLE = (
    f""".strip {{ width: {WIDTH}px; height: {SIDE}px; background: #000 no-repeat; }}
"""
    + """:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 1200px; padding: 0 1rem; }
h1 { font-size: 1.5rem; } p { margin: .4rem 0; } nav { margin: 1rem 0; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid #8884; text-align: left; vertical-align: middle; }
td.n { text-align: right; white-space: nowrap; } td.file { max-width: 16rem; overflow-wrap: break-word; }
.failed, .bad { color: #c0392b; } .suspect { color: #b9770e; }
"""
)
_HEADINGS = (
    "",
    "image | super-resolved",
    "file",
    "theta_E [arcsec]",
    "e1, e2",
    "shear",
    "sub-halos",
    "chi²",
    "verdict",
)


def write_pages(out: Path, title: str, rows: Sequence[Row], shard_size: int) -> Path:
    """Write ``catalogue.html``, and further pages where there are more than 250 lenses.

    Args:
        out: the folder of the catalogue.
        title: of the pages.
        rows: of all lenses, in order.
        shard_size: lenses of a part.

    Returns:
        The first page.
    """
    count = max(1, -(-len(rows) // PER_PAGE))
    for page in range(count):
        part = rows[page * PER_PAGE : (page + 1) * PER_PAGE]
        body = [_head(title, rows), _nav(page, count), _table(part, shard_size), _nav(page, count)]
        with whole_file(out / page_name(page)) as temporary:
            temporary.write_text(_document(title, "\n".join(body)), encoding="utf-8")
    return out / page_name(0)


def page_name(page: int) -> str:
    """Return the name of a page, counted from 0."""
    return "catalogue.html" if page == 0 else f"catalogue_{page + 1:04d}.html"


def _document(title: str, body: str) -> str:
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n'
    )


def _head(title: str, rows: Sequence[Row]) -> str:
    return f"<h1>{escape(title)}</h1>\n<p>{escape(summary(rows))}</p>"


def summary(rows: Sequence[Row]) -> str:
    """Return how many lenses there are, how many failed, and of which quality the others are."""
    done = [row for row in rows if row["status"] == "done"]
    judged = [row["quality"] for row in done if row.get("quality")]
    counts = ", ".join(f"{judged.count(q)} {q}" for q in ("good", "suspect", "bad")) if judged else ""
    lenses = f"{len(rows)} lens{'es'[: 2 * (len(rows) != 1)]}: {len(done)} done, {len(rows) - len(done)} failed"
    return f"{lenses} ({counts})" if counts else lenses


def _nav(page: int, count: int) -> str:
    if count == 1:
        return ""
    around = [p for p in range(count) if p in (0, count - 1) or abs(p - page) < 4]
    links = (str(p + 1) if p == page else f'<a href="{page_name(p)}">{p + 1}</a>' for p in around)
    return f"<nav>page {' · '.join(links)} of {count}</nav>"


def _table(rows: Sequence[Row], shard_size: int) -> str:
    head = "".join(f"<th>{escape(heading)}</th>" for heading in _HEADINGS)
    return (
        f"<table><thead><tr>{head}</tr></thead><tbody>\n"
        + "\n".join(_line(r, shard_size) for r in rows)
        + "</tbody></table>"
    )


def _line(row: Row, shard_size: int) -> str:
    cells = [
        f'<td class="n">{row["number"]}</td>',
        f"<td>{_strip(row, shard_size)}</td>",
        f'<td class="file">{_file(row)}</td>',
        _value(row, "theta_E", "{:.3f}"),
        f'<td class="n">{_two(row, "e1", "e2")}</td>',
        f'<td class="n">{_two(row, "gamma1", "gamma2")}</td>',
        _value(row, "subhalos", "{:d}"),
        _value(row, "chi2", "{:.3f}"),
        _verdict(row),
    ]
    return f"<tr>{''.join(cells)}</tr>"


def _strip(row: Row, shard_size: int) -> str:
    if row["status"] != "done":
        return ""
    shard, line = divmod(row["number"], shard_size)
    place = f"background-image: url({SHARDS}/{shard:06d}/{PICTURES}); background-position: 0 -{line * STEP}px"
    return f'<div class="strip" style="{place}"></div>'


def _file(row: Row) -> str:
    name = escape(row["file"] + ("" if row.get("image") is None else f" [{row['image']}]"))
    return f'<a href="{escape(row["result"], quote=True)}">{name}</a>' if row.get("result") else name


def _value(row: Row, name: str, form: str) -> str:
    value, error = row.get(name), row.get(f"{name}_error")
    if value is None:
        return '<td class="n"></td>'
    told = form.format(value) if error is None else " ± ".join(filter(None, rounded(value, error)))
    return f'<td class="n">{told}</td>'


def _two(row: Row, *names: str) -> str:
    values = [row.get(name) for name in names]
    return "" if None in values else ", ".join(f"{value:z.3f}" for value in values)


def _verdict(row: Row) -> str:
    word = row["status"] if row["status"] == "failed" else row.get("quality") or row["status"]
    reasons = row.get("reasons") or ""
    return f'<td><span class="{escape(word)}">{escape(word)}</span> {escape(reasons)}</td>'
