"""The HTML page of a lens: figures, tables, verdict and provenance, in one file that needs no other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bokeh.document import Document
from bokeh.embed import components
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from lensphys.basics.sentences import apart, rounded
from lensphys.basics.version import VERSION
from lensphys.tracing.critical import critical_curves
from lensphys.viewer.drawing import ASSETS, Drawing
from lensphys.viewer.library import Library
from lensphys.viewer.panels import limits_of, panels_of
from lensphys.viewer.result import LensResult, Quantity
from lensphys.viewer.sky import Sky

_PAGES = Environment(loader=FileSystemLoader(ASSETS), autoescape=True, trim_blocks=True, lstrip_blocks=True)


def rendered(template: str, title: str, library: Library, models: Mapping[str, Any], **context: Any) -> str:
    """Return a page.

    Args:
        template: its name.
        title: of the page.
        library: the scripts that draw it.
        models: Bokeh models by name, which become ``divs`` of the template.
        context: what else the template shows.
    """
    document = Document()
    with document.models.freeze():  # else all models are looked through again with each that is added
        for model in models.values():
            document.add_root(model)
    script, divs = components(dict(models))
    return _PAGES.get_template(template).render(
        title=title,
        version=VERSION,
        style=Markup((ASSETS / "style.css").read_text(encoding="utf-8")),
        library=Markup(library.tags()),
        script=Markup(script),
        divs={name: Markup(div) for name, div in divs.items()},
        **context,
    )


def lens_page(result: LensResult, library: Library, home: str = "") -> str:
    """Return the page of a lens.

    Args:
        result: the lens.
        library: the scripts that draw it.
        home: the address of the page of all lenses, if there is one.
    """
    panels, remarks = panels_of(result)
    shape = result.planes["image"].shape
    alpha = result.planes.get("alpha")
    curves = [] if alpha is None else critical_curves(alpha, result.pixel_scale)
    sky = Sky.from_header(result.header, shape, result.pixel_scale)
    drawing = Drawing(result, panels, limits_of(panels), curves, sky)
    blinking = {f"blink_{i}": widget for i, widget in enumerate(drawing.blinking)}
    display = {f"display_{i}": widget for i, widget in enumerate(drawing.display())}
    return rendered(
        "lens.html",
        result.name,
        library,
        drawing.figures | {"blink": drawing.blink} | blinking | display,
        home=home,
        quality=result.quality,
        reasons=apart(result.reasons),
        facts=_facts(result),
        panels=panels,
        unit=result.unit,
        blinking=list(blinking),
        display=list(display),
        parameters=[_row(p) for p in result.parameters if math.isfinite(p.value)],
        subhalos=[_body(body) for body in result.subhalos],
        masses=any("mass" in body for body in result.subhalos),
        remarks=[*result.remarks, *remarks],
        origin=[(name.replace("_", " "), _words(value)) for name, value in result.origin.items()],
    )


def _facts(result: LensResult) -> list[tuple[str, str]]:
    numbers = result.numbers
    theta = result.value("theta_E")
    found = [
        ("θ_E", measured(theta) + "″" if theta else _number(numbers.get("theta_E"), "″")),
        ("χ²/dof", _number(numbers.get("chi2"))),
        ("sub-halos", _subhalos(numbers)),
        ("pixels", f"{result.pixel_scale:.4g}″, {result.scale} × finer"),
        ("PSF", result.psf),
    ]
    return [(name, text) for name, text in found if text]


def _subhalos(numbers: Mapping[str, float]) -> str:
    if "subhalos" not in numbers:
        return ""
    false = f" ({numbers['false_subhalos']:.2g} expected by chance)" if "false_subhalos" in numbers else ""
    return f"{numbers['subhalos']:.0f}{false}"


def _number(value: float | None, unit: str = "") -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.4g}{unit}"


def measured(quantity: Quantity) -> str:
    """Return a value with its error, to two digits of the error.

    Example:
        >>> measured(Quantity("theta_E", 1.234567, 0.00123, "arcsec"))
        '1.2346 ± 0.0012'
    """
    value, error = rounded(quantity.value, quantity.error)
    return f"{value} ± {error}" if error else value


def _row(quantity: Quantity) -> dict[str, str]:
    value, error = rounded(quantity.value, quantity.error)
    return {"name": quantity.name, "value": value, "error": error, "unit": quantity.unit}


def _body(body: Mapping[str, float]) -> dict[str, str]:
    shown = {
        name: measured(Quantity(name, body[name], body.get(f"{name}_error", math.nan), "arcsec"))
        for name in ("x", "y", "theta_E")
    }
    return shown | {"gain": f"{body['gain']:.1f}", "mass": f"{body['mass']:.2e}" if "mass" in body else ""}


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_words(entry)}" for name, entry in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "; ".join(map(_words, value))
    return "none" if value is None else str(value)
