"""The panels of a lens as Bokeh figures: linked, with curves, sub-halos and what the cursor is on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from bokeh.models import (
    Arrow,
    BoxZoomTool,
    CheckboxButtonGroup,
    ColorBar,
    ColumnDataSource,
    CrosshairTool,
    CustomJS,
    GlyphRenderer,
    HoverTool,
    Label,
    LinearColorMapper,
    NormalHead,
    PanTool,
    Range1d,
    RangeSlider,
    ResetTool,
    Select,
    Slider,
    Span,
    Toggle,
    WheelZoomTool,
)
from bokeh.plotting import figure

from lensphys.tracing.critical import Curve
from lensphys.viewer.colours import OF_GROUP, OF_LIGHT, PALETTES, SOFTENING, STEPS, STRETCHES, stretched
from lensphys.viewer.panels import Limits, Panel
from lensphys.viewer.result import LensResult
from lensphys.viewer.sky import Sky

ASSETS = Path(__file__).parent / "assets"
SIDE, LARGE_SIDE = 264, 430  # of a panel, and of the one that blinks [pixels of the screen]
INK, FAINT, GROUND = "#dfe5ec", "#8b96a3", "#0c0f14"
TANGENTIAL, RADIAL, BODY_COLOUR = "#5ad1ff", "#ffb454", "#b8ff6a"
DEFAULT_STRETCH = "asinh"
_ALPHA_PIXELS = 128**2  # of the deflection that tells where the light under the cursor comes from


def script(name: str) -> str:
    """Return a script of the page."""
    return (ASSETS / f"{name}.js").read_text(encoding="utf-8")


def dark(widgets: list[Any]) -> list[Any]:
    """Return Bokeh widgets in the colours of the page."""
    style = (ASSETS / "widgets.css").read_text(encoding="utf-8")
    for widget in widgets:
        widget.stylesheets = [style]
    return widgets


@dataclass(frozen=True)
class Ranges:
    """What linked panels share: the two ranges, and the lines of the crosshair."""

    x: Range1d
    y: Range1d
    across: Span
    upright: Span

    @classmethod
    def from_panel(cls, panel: Panel) -> Ranges:
        """Return those of a panel's whole field."""
        width, height = panel.extent
        spans = (Span(dimension=d, line_color=INK, line_alpha=0.45, line_width=1) for d in ("width", "height"))
        x, y = (Range1d(-n / 2, n / 2, bounds=(-1.5 * n, 1.5 * n)) for n in (width, height))
        return cls(x, y, *spans)


class Drawing:
    """The figures of a lens and the widgets that change them.

    Args:
        result: the lens.
        panels: of it.
        limits: of each group of panels.
        curves: critical curves and caustics.
        sky: of the image, None where it is not known.
    """

    def __init__(
        self,
        result: LensResult,
        panels: Sequence[Panel],
        limits: Mapping[str, Limits],
        curves: Sequence[Curve],
        sky: Sky | None,
    ) -> None:
        self.result, self.panels, self.limits, self.curves, self.sky = result, panels, limits, curves, sky
        self.sources = {p.key: ColumnDataSource({"image": [p.values.astype(np.float32)]}) for p in panels}
        self.mappers = {group: _mapper(group, found) for group, found in limits.items()}
        self.linked = Ranges.from_panel(next(p for p in panels if p.key == "image"))
        kinds = [(kind, in_source) for kind in ("tangential", "radial") for in_source in (False, True)]
        self.lines = {key: self._lines(*key) for key in kinds}
        self.overlays: dict[str, list[GlyphRenderer[Any]]] = {"curves": [], "bodies": []}
        self.figures = {p.key: self._panel(p) for p in panels}
        self.blink, self.blinking = self._blink()
        self._readout()

    def figure(self, ranges: Ranges, shape: tuple[float, float], side: int) -> Any:
        """Return an empty figure of the page, of a field of so many arcsec by so many."""
        width, height = shape
        drawn = figure(
            x_range=ranges.x,
            y_range=ranges.y,
            frame_width=round(side * min(1.0, width / height)),
            frame_height=round(side * min(1.0, height / width)),
            tools=[],
            toolbar_location="above" if side == LARGE_SIDE else None,
            background_fill_color=GROUND,
            border_fill_color=None,
            outline_line_color="#2a313a",
            min_border=0,
        )
        wheel = WheelZoomTool()
        crosshair = CrosshairTool(overlay=[ranges.across, ranges.upright])
        drawn.add_tools(PanTool(), wheel, BoxZoomTool(match_aspect=True), ResetTool(), crosshair)
        drawn.toolbar.active_scroll, drawn.toolbar.logo = wheel, None
        drawn.grid.visible = False
        drawn.axis.axis_line_color = drawn.axis.minor_tick_line_color = None
        drawn.axis.major_tick_line_color = drawn.axis.major_label_text_color = FAINT
        drawn.axis.major_label_text_font_size = "9px"
        drawn.axis.major_tick_in, drawn.axis.major_tick_out = 0, 3
        drawn.title.text_color, drawn.title.text_font_size, drawn.title.text_font_style = INK, "12.5px", "normal"
        drawn.title.text_font = "system-ui, sans-serif"
        return drawn

    def image(self, drawn: Any, panel: Panel) -> GlyphRenderer[Any]:
        """Draw the pixels of a panel."""
        width, height = panel.extent
        # bottom left corner: an averaged panel may reach beyond the others at the top and at the right
        x, y = self._corner(panel)
        source, mapper = self.sources[panel.key], self.mappers[panel.group]
        return drawn.image("image", source=source, x=x, y=y, dw=width, dh=height, color_mapper=mapper)

    def _corner(self, panel: Panel) -> tuple[float, float]:
        if panel.key == "source":
            return -panel.extent[0] / 2, -panel.extent[1] / 2
        height, width = self.result.planes["image"].shape
        return -width * self.result.pixel_scale / 2, -height * self.result.pixel_scale / 2

    def _panel(self, panel: Panel) -> Any:
        ranges = Ranges.from_panel(panel) if panel.key == "source" else self.linked
        drawn = self.figure(ranges, panel.extent, SIDE)
        drawn.title.text = panel.title
        self.image(drawn, panel)
        self._curves(drawn, in_source=panel.key == "source")
        if panel.key in ("image", "kappa", "beyond"):
            self._bodies(drawn)
        if panel.key in ("lr", "image"):
            self._compass(drawn)
        bar = ColorBar(
            color_mapper=self.mappers[panel.group],
            width=7,
            padding=4,
            bar_line_color=None,
            background_fill_color=None,
            major_label_text_color=FAINT,
            major_label_text_font_size="9px",
            major_tick_line_color=None,
            label_standoff=3,
        )
        drawn.add_layout(bar, "right")
        return drawn

    def _curves(self, drawn: Any, *, in_source: bool) -> None:
        for kind, colour in (("tangential", TANGENTIAL), ("radial", RADIAL)):
            source = self.lines[kind, in_source]
            if source.data["xs"]:
                line = drawn.multi_line("xs", "ys", source=source, line_color=colour, line_width=1.2, line_alpha=0.85)
                self.overlays["curves"].append(line)

    def _lines(self, kind: str, in_source: bool) -> ColumnDataSource:
        """The curves of a kind: one source for all panels that show them."""
        lines = [c.caustic if in_source else c.critical for c in self.curves if c.kind == kind]
        xs, ys = ([line[:, i].astype(np.float32) for line in lines] for i in (0, 1))
        return ColumnDataSource({"xs": xs, "ys": ys})

    def _bodies(self, drawn: Any) -> None:
        if not self.result.subhalos:
            return
        columns = {name: [body[name] for body in self.result.subhalos] for name in self.result.subhalos[0]}
        mass = (
            [f"{m:.2e} M☉" for m in columns["mass"]]
            if "mass" in columns
            else ["no redshifts given"] * len(columns["x"])
        )
        source = ColumnDataSource(columns | {"said": mass, "number": list(range(1, len(columns["x"]) + 1))})
        rings = drawn.scatter(
            "x", "y", source=source, marker="circle", size=13, fill_color=None, line_color=BODY_COLOUR, line_width=1.6
        )
        tips = [
            ("sub-halo", "@number"),
            ("mass", "@said"),
            ("θ_E", "@theta_E{0.0000}″ ± @theta_E_error{0.0000}″"),
            ("gain", "@gain{0.0} in ln L"),
            ("at", "@x{0.000}″, @y{0.000}″"),
        ]
        drawn.add_tools(HoverTool(renderers=[rings], tooltips=tips))
        self.overlays["bodies"].append(rings)

    def _compass(self, drawn: Any) -> None:
        if self.sky is None:
            return
        ways = {"N": self.sky.direction("north"), "E": self.sky.direction("east")}
        length, beyond, margin = 24, 9, 10
        corner = margin - np.minimum(0, (length + beyond) * np.array(list(ways.values()))).min(0)
        for letter, way in ways.items():
            tip, far = corner + length * way, corner + (length + beyond) * way
            head = NormalHead(size=5, fill_color=INK, line_color=INK)
            units = {f"{end}_units": "screen" for end in ("start", "end")}
            arrow = Arrow(
                x_start=corner[0], y_start=corner[1], x_end=tip[0], y_end=tip[1], end=head, line_color=INK, **units
            )
            drawn.add_layout(arrow)
            drawn.add_layout(
                Label(
                    x=far[0], y=far[1], x_units="screen", y_units="screen", text=letter, text_color=INK,
                    text_font_size="10px", text_align="center", text_baseline="middle",
                )
            )  # fmt: skip

    def _blink(self) -> tuple[Any, list[Any]]:
        """The figure in which two panels take turns, and its widgets."""
        panels = [p for p in self.panels if p.key != "source"]
        drawn = self.figure(self.linked, panels[0].extent, LARGE_SIDE)
        renderers = {p.title: self.image(drawn, p) for p in panels}
        self._curves(drawn, in_source=False)
        self._bodies(drawn)
        titles = list(renderers)
        first = next(p.title for p in panels if p.key == "image")
        other = next((p.title for p in panels if p.key == "lr"), titles[0])
        for title, renderer in renderers.items():
            renderer.visible = title == first
        drawn.title.text = first
        a, b = (Select(title=t, value=v, options=titles, width=150) for t, v in (("A", first), ("B", other)))
        toggle = Toggle(label="Blink", width=90, align="end")
        rate = Slider(title="every [ms]", start=100, end=2000, step=50, value=500, width=150)
        change = CustomJS(
            args={"a": a, "b": b, "rate": rate, "toggle": toggle, "renderers": renderers, "figure": drawn},
            code=script("blink"),
        )
        for widget, changed in ((a, "value"), (b, "value"), (toggle, "active"), (rate, "value")):
            widget.js_on_change(changed, change)
        return drawn, dark([a, b, toggle, rate])

    def display(self) -> list[Any]:
        """Return the widgets of stretch and colours of the light, the limits of all groups, and what is drawn over."""
        stretch = Select(title="stretch of the light", value=DEFAULT_STRETCH, options=list(STRETCHES), width=150)
        colours = Select(title="colours", value="inferno", options=list(PALETTES), width=150)
        mappers = [mapper for group, mapper in self.mappers.items() if group in OF_LIGHT]
        args = {"stretch": stretch, "colours": colours, "mappers": mappers, "palettes": PALETTES}
        change = CustomJS(args=args | {"softening": SOFTENING, "steps": STEPS}, code=script("display"))
        for widget in (stretch, colours):
            widget.js_on_change("value", change)
        return dark([stretch, colours, *map(self._slider, self.limits), *self._switches()])

    def _slider(self, group: str) -> RangeSlider:
        found, mapper = self.limits[group], self.mappers[group]
        title = {"beyond": "delta kappa", "share": "constrained"}.get(group, group)
        slider = RangeSlider(
            title=title,
            start=found.least,
            end=found.most,
            value=(found.low, found.high),
            step=(found.most - found.least) / 1000,
            width=225,
            format="0.000a" if found.most > 0.05 else "0.00e+0",
        )
        slider.js_link("value", mapper, "low", attr_selector=0)
        slider.js_link("value", mapper, "high", attr_selector=1)
        return slider

    def _switches(self) -> list[Any]:
        words = {"curves": "critical curves, caustics", "bodies": "sub-halos"}
        held = {name: renderers for name, renderers in self.overlays.items() if renderers}
        if not held:
            return []
        group = CheckboxButtonGroup(labels=[words[name] for name in held], active=list(range(len(held))))
        code = "groups.forEach((group, i) => group.forEach(drawn => { drawn.visible = switches.active.includes(i) }))"
        group.js_on_change("active", CustomJS(args={"switches": group, "groups": list(held.values())}, code=code))
        return [group]

    def _readout(self) -> None:
        """Say what is under the cursor, and mark in the source panel where its light is from."""
        behind = ColumnDataSource({"x": [np.nan], "y": [np.nan]})
        if "source" in self.figures:
            self.figures["source"].scatter(
                "x", "y", source=behind, marker="cross", size=14, line_color="#ffffff", line_width=1.5
            )
        sky = None if self.sky is None else {
            "ra": self.sky.ra, "dec": self.sky.dec, "matrix": self.sky.matrix.tolist()
        }  # fmt: skip
        args = {
            "panels": [self._placed(p, self.sources[p.key]) for p in self.panels],
            "alpha": self._alpha(),
            "behind": behind,
            "sky": sky,
        }
        for key, drawn in [*self.figures.items(), ("blink", self.blink)]:
            plane = "source" if key == "source" else "image"
            drawn.js_on_event("mousemove", CustomJS(args=args | {"plane": plane}, code=script("readout")))

    def _placed(self, panel: Panel, source: ColumnDataSource) -> dict[str, Any]:
        x, y = self._corner(panel)
        width, height = panel.extent
        return {"key": panel.key, "source": source, "x": x, "y": y, "dw": width, "dh": height}

    def _alpha(self) -> dict[str, Any] | None:
        """The deflection on coarser pixels, which is smooth enough for a cursor."""
        alpha = self.result.planes.get("alpha")
        if alpha is None:
            return None
        parts = [Panel("alpha", "", "", part, self.result.pixel_scale, "") for part in alpha]
        while parts[0].values.size > _ALPHA_PIXELS:
            parts = [part.thinned() for part in parts]
        placed = (self._placed(p, ColumnDataSource({"image": [p.values.astype(np.float32)]})) for p in parts)
        return dict(zip(("x", "y"), placed, strict=True))


def _mapper(group: str, limits: Limits) -> LinearColorMapper:
    palette = stretched(OF_GROUP[group], DEFAULT_STRETCH if group in OF_LIGHT else "linear")
    return LinearColorMapper(palette=palette, low=limits.low, high=limits.high, nan_color="rgba(0,0,0,0)")
