"""The scripts of Bokeh that draw a page: within it, or once for many pages beside them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bokeh.resources import Resources

_PARTS = ("bokeh", "bokeh-widgets", "bokeh-tables")


def _text(part: str) -> str:
    folder = Path(Resources(mode="inline").base_dir) / "js"
    return (folder / f"{part}.min.js").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Library:
    """Scripts of a page.

    Args:
        parts: which ones; tables are wanted by the catalogue alone.
        beside: in files of the page's own folder, not in the page.
    """

    parts: tuple[str, ...] = _PARTS[:2]
    beside: bool = False

    def tags(self) -> str:
        """Return the HTML that loads the scripts."""
        if self.beside:
            return "\n".join(f'<script src="{part}.min.js"></script>' for part in self.parts)
        return "\n".join(f"<script>\n{_text(part)}\n</script>" for part in self.parts)

    def write(self, folder: Path) -> None:
        """Write the scripts into a folder, for the pages there."""
        for part in self.parts:
            (folder / f"{part}.min.js").write_text(_text(part), encoding="utf-8")
