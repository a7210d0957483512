"""Drawings as SVG, of boxes, arrows and words.

Each stands on a light card of its own, so that it can be read on a page of any colour.
"""

from __future__ import annotations

from html import escape

FONT = "-apple-system, 'Segoe UI', 'Helvetica Neue', Helvetica, Arial, sans-serif"
MONO = "ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace"
INK, FAINT, CARD, EDGE = "#1f2430", "#667085", "#fbfbfd", "#d9dde6"
# What boxes are filled and framed with.
BLUE, GREEN, AMBER, RED, GREY, WHITE = (
    ("#e3ecff", "#5b7fd6"), ("#e0f3e6", "#4f9d69"), ("#fff0d2", "#cf9a2e"),
    ("#fde2e0", "#cc5b52"), ("#eef0f4", "#a3aab8"), ("#ffffff", "#a3aab8"),
)  # fmt: skip
Colours = tuple[str, str]


class Drawing:
    """A picture in the making. Everything is in pixels, from the upper left corner."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self._width = width
        self._height = height
        self._title = title
        self._parts: list[str] = []

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        colours: Colours = WHITE,
        *,
        dashed: bool = False,
        radius: int = 6,
    ) -> None:
        fill, stroke = colours
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self._parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius}" '
            f'fill="{fill}" stroke="{stroke}"{dash}/>'
        )

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: int = 13,
        bold: bool = False,
        mono: bool = False,
        colour: str = INK,
        anchor: str = "start",
    ) -> None:
        """``y`` is that of the line on which the letters stand."""
        looks = f' font-size="{size}"' if size != 13 else ""
        looks += ' font-weight="600"' if bold else ""
        looks += f' font-family="{MONO}"' if mono else ""
        looks += f' fill="{colour}"' if colour != INK else ""
        looks += f' text-anchor="{anchor}"' if anchor != "start" else ""
        self._parts.append(f'<text x="{x:g}" y="{y:g}"{looks}>{escape(words, quote=False)}</text>')

    def named_box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        name: str,
        below: str = "",
        colours: Colours = WHITE,
    ) -> None:
        """A box with its name in the middle, and smaller words below."""
        self.box(x, y, width, height, colours)
        middle = y + height / 2 + (5 if not below else -3)
        self.text(x + width / 2, middle, name, bold=True, anchor="middle")
        if below:
            self.text(x + width / 2, middle + 17, below, size=12, colour=FAINT, anchor="middle")

    def line(
        self,
        x1: float,
        y1: float,
        x2: float,
        y2: float,
        *,
        colour: str = FAINT,
        dashed: bool = False,
        arrow: bool = False,
        width: float = 1.4,
    ) -> None:
        dash = ' stroke-dasharray="4 4"' if dashed else ""
        head = ' marker-end="url(#head)"' if arrow else ""
        self._parts.append(
            f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{colour}" '
            f'stroke-width="{width:g}"{dash}{head}/>'
        )

    def arrow(self, x1: float, y1: float, x2: float, y2: float, *, dashed: bool = False) -> None:
        self.line(x1, y1, x2, y2, colour=INK, arrow=True, dashed=dashed)

    def dot(self, x: float, y: float, colour: str, radius: float = 5) -> None:
        self._parts.append(f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" fill="{colour}"/>')

    def svg(self) -> str:
        width, height = self._width, self._height
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
            f'height="{height}" font-family="{FONT}" font-size="13" fill="{INK}" role="img">\n'
            f"<title>{escape(self._title, quote=False)}</title>\n"
            '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" '
            f'orient="auto-start-reverse"><path d="M0 1 10 5 0 9z" fill="{INK}"/></marker></defs>\n'
            f'<rect x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="10" fill="{CARD}" '
            f'stroke="{EDGE}"/>\n'
        )
        return head + "\n".join(self._parts) + "\n</svg>\n"
