"""The page of many lenses: a table to sort and to filter, with small images, and a way to the page of each."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from bokeh.models import (
    BooleanFilter,
    CDSView,
    CheckboxButtonGroup,
    ColumnDataSource,
    CustomJS,
    DataTable,
    HTMLTemplateFormatter,
    NumberFormatter,
    StringFormatter,
    TableColumn,
    TextInput,
)
from bokeh.palettes import Inferno256
from numpy.typing import NDArray
from PIL import Image

from lensphys.prediction import QUALITIES
from lensphys.viewer.colours import SOFTENING
from lensphys.viewer.drawing import ASSETS, dark, script
from lensphys.viewer.library import Library
from lensphys.viewer.page import rendered
from lensphys.viewer.result import LensResult

UNJUDGED = "no verdict"
MOST_BYTES = 2_500_000  # of all small images in a catalogue
_SIDES = (72, 48, 32, 20)  # of a small image [pixels], the largest that fits
_PALETTE = bytes(int(colour[i : i + 2], 16) for colour in Inferno256[::4] for i in (1, 3, 5))  # half of a small file


@dataclass(frozen=True)
class Entry:
    """A line of the catalogue.

    Args:
        name: of the lens.
        address: of its page.
        quality: of its verdict.
        reasons: of the verdict.
        numbers: ``theta_E`` and its ``error`` [arcsec], ``chi2`` per degree of freedom, ``subhalos``, how many; NaN for
            what there is not.
        images: small ones, (H, W) each, of the image that was read (None without one) and the super-resolved one.
    """

    name: str
    address: str
    quality: str
    reasons: str
    numbers: dict[str, float]
    images: tuple[NDArray[Any] | None, NDArray[Any]]

    @classmethod
    def from_result(cls, result: LensResult, address: str) -> Entry:
        """Return the line of a lens."""
        theta = result.value("theta_E")
        numbers = {name: result.numbers.get(name, np.nan) for name in ("theta_E", "chi2", "subhalos")}
        numbers["error"] = theta.error if theta is not None and theta.error > 0 else np.nan
        lr = result.planes.get("lr")
        images = (None if lr is None else _small(lr), _small(result.planes["image"]))
        return cls(result.name, address, result.quality or UNJUDGED, result.reasons, numbers, images)


def _small(image: NDArray[Any]) -> NDArray[Any]:
    """An image of at most the largest side, by taking pixels: it is only to be recognised."""
    step = max(1, -(-max(image.shape) // _SIDES[0]))
    return image[::step, ::step].astype(np.float32)


def thumbnail(image: NDArray[Any], side: int) -> str:
    """Return an image (H, W) as the address of a PNG with asinh colours, rows upwards, ``side`` pixels high."""
    seen = image[np.isfinite(image)]
    low, high = (0.0, 1.0) if seen.size == 0 else np.quantile(seen, (0.05, 0.998))
    share = np.clip((np.nan_to_num(image, nan=low) - low) / max(high - low, 1e-30), 0, 1)
    colours = np.arcsinh(share / SOFTENING["asinh"]) / np.arcsinh(1 / SOFTENING["asinh"])
    picture = Image.fromarray(np.rint((len(_PALETTE) // 3 - 1) * colours[::-1]).astype(np.uint8), mode="P")
    picture.putpalette(_PALETTE)
    width = max(1, round(side * image.shape[1] / image.shape[0]))
    packed = BytesIO()
    picture.resize((width, side), Image.Resampling.NEAREST).save(packed, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(packed.getvalue()).decode('ascii')}"


def _thumbnails(entries: Sequence[Entry]) -> dict[str, list[str]]:
    """The small images of all lenses, as large as the page can hold."""
    images = {name: [entry.images[i] for entry in entries] for i, name in enumerate(("seen", "resolved"))}
    for side in _SIDES:
        made = {
            name: ["" if image is None else thumbnail(image, side) for image in column]
            for name, column in images.items()
        }
        if sum(len(address) for column in made.values() for address in column) <= MOST_BYTES:
            return made
    return {name: [""] * len(entries) for name in ("seen", "resolved")}


def catalogue_page(
    title: str, count: str, entries: Sequence[Entry], library: Library, remarks: Sequence[str] = ()
) -> str:
    """Return the page of many lenses.

    Args:
        title: of the page.
        count: how many there are, in words.
        entries: a line each.
        library: the scripts that draw it.
        remarks: sentences at the top.
    """
    columns: dict[str, list[Any]] = {
        "name": [e.name for e in entries],
        "address": [e.address for e in entries],
        "quality": [e.quality for e in entries],
        "rank": [(*QUALITIES, UNJUDGED).index(e.quality) if e.quality in QUALITIES else 3 for e in entries],
        "reasons": [e.reasons for e in entries],
        **{name: [e.numbers[name] for e in entries] for name in ("theta_E", "error", "chi2", "subhalos")},
    }
    source = ColumnDataSource(columns | _thumbnails(entries))
    chosen = BooleanFilter([True] * len(entries))
    height = min(900, 60 + 80 * len(entries))
    table = DataTable(
        source=source, view=CDSView(filter=chosen), columns=_columns(), row_height=78, height=height,
        sizing_mode="stretch_width", index_position=None, sortable=True, selectable=False, reorderable=False,
        autosize_mode="force_fit",
        stylesheets=[(ASSETS / "table.css").read_text(encoding="utf-8")],
    )  # fmt: skip
    words = [q for q in (*QUALITIES, UNJUDGED) if q in columns["quality"]]
    counted = [f"{q} {columns['quality'].count(q)}" for q in words]
    switches = CheckboxButtonGroup(labels=counted, active=list(range(len(words))))
    search = TextInput(placeholder="name or reason", width=240)
    args = {"source": source, "chosen": chosen, "switches": switches, "search": search, "words": words}
    change = CustomJS(args=args, code=script("filter"))
    switches.js_on_change("active", change)
    search.js_on_change("value_input", change)
    dark([switches, search])
    return rendered(
        "catalogue.html", title, library, {"table": table, "switches": switches, "search": search},
        count=count, remarks=list(remarks),
    )  # fmt: skip


def _columns() -> list[TableColumn]:
    image = '<a href="<%= address %>"><% if (value) { %><img src="<%= value %>" alt=""><% } %></a>'
    link = '<a href="<%- address %>"><%- value %></a>'
    verdict = '<span class="<%- quality %>"><%- quality %></span>'
    number = {"text_align": "right", "nan_format": "–"}
    shown: list[tuple[str, str, Any, int]] = [
        ("seen", "image", HTMLTemplateFormatter(template=image), 90),
        ("resolved", "super-resolved", HTMLTemplateFormatter(template=image), 100),
        ("name", "lens", HTMLTemplateFormatter(template=link), 160),
        ("rank", "verdict", HTMLTemplateFormatter(template=verdict), 90),
        ("theta_E", "theta_E [″]", NumberFormatter(format="0.0000", **number), 100),
        ("error", "± [″]", NumberFormatter(format="0.0000", **number), 80),
        ("chi2", "chi² / dof", NumberFormatter(format="0.00", **number), 90),
        ("subhalos", "sub-halos", NumberFormatter(format="0", **number), 90),
        ("reasons", "reasons", StringFormatter(), 560),
    ]
    images = ("seen", "resolved")
    return [
        TableColumn(field=field, title=title, formatter=formatter, width=width, sortable=field not in images)
        for field, title, formatter, width in shown
    ]
