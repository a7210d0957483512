"""The pieces that a picture is put together of, as SVG: blocks, marks, lines and words."""

from __future__ import annotations

from html import escape

# Of a text in a block so much is shown, and of one that a mark shows when it is pointed at.
LABEL_MAX = 60
TITLE_MAX = 200
# How wide a letter is, as a share of its size: the widest of the usual fonts.
LETTER = 0.58


def clean(text: str, most: int) -> str:
    """``text`` without anything that XML cannot have or that is not seen, cut to ``most`` characters.

    Escaped for XML, so that it can stand between tags and in attributes.
    """
    shown = text[: most + 1]
    if not shown.isprintable():
        shown = "".join(
            one if one.isprintable() else " " if one.isspace() else _escape_sequence(one) for one in shown
        )
    if len(text) > most or len(shown) > most:
        shown = shown[: most - 1] + "…"
    # Letters that grow when they are escaped do not make it much longer.
    while len(escaped := escape(shown)) > 2 * most:
        shown = shown[: len(shown) // 2] + "…"
    return escaped


def _escape_sequence(letter: str) -> str:
    return letter.encode("unicode_escape", "surrogatepass").decode()


def shown(data: bytes | None, most: int = 40) -> str:
    """A key or a value as text, not yet escaped."""
    if data is None:
        return "null"
    text = data[:most].decode(errors="backslashreplace")
    return text + ("…" if len(data) > most else "")


def number(value: float) -> str:
    """A coordinate: a tenth of a pixel is fine enough."""
    return f"{value:.1f}".removesuffix(".0")


def seconds(time_s: float) -> str:
    return f"{time_s:.3f} s"


def duration(length_s: float) -> str:
    """For people: three digits, in the unit that suits."""
    length_s = max(length_s, 0.0)
    if length_s < 0.9995:
        return f"{length_s * 1000:.3g} ms"
    return f"{length_s:.1f} s" if length_s < 99.95 else f"{length_s:.0f} s"


def words_width(text: str) -> float:
    """How much room words need, in pixels."""
    return len(text[:LABEL_MAX]) * 11 * LETTER + 8


class Sheet:
    """A part of a picture in the making, in pixels from its upper left corner.

    What is in ``plot`` lies at a time, and moves when somebody zooms; what is in ``margin`` stays.
    """

    def __init__(self) -> None:
        self.plot: list[str] = []
        self.margin: list[str] = []

    def block(self, left: float, right: float, y: float, height: float, looks: str, title: str) -> None:
        """``title`` is seen when somebody points at it."""
        width = max(right - left, 1.5)
        self.plot.append(
            f'<rect class="{looks}" x="{number(left)}" y="{number(y)}" width="{number(width)}" '
            f'height="{number(height)}">{_title(title)}</rect>'
        )

    def mark(self, looks: str, x: float, y: float, title: str) -> None:
        """A sign whose form is in `DEFINITIONS`."""
        self.plot.append(
            f'<use class="{looks}" href="#{looks}" x="{number(x)}" y="{number(y)}">{_title(title)}</use>'
        )

    def line(self, path: str, looks: str, title: str = "") -> None:
        self.plot.append(f'<path class="{looks}" d="{path}">{_title(title)}</path>')

    def words(
        self, x: float, y: float, text: str, looks: str = "", *, room: float = 0, shift: float = 0
    ) -> None:
        """Words at a time. Those that do not fit into their ``room`` are left for when somebody zooms in."""
        needed = words_width(text)
        hidden = ""
        if room and needed > room:
            looks, hidden = f"{looks} z".strip(), f' data-k="{number(needed / room)}"'
        kind = f' class="{looks}"' if looks else ""
        moved = f' dx="{number(shift)}"' if shift else ""
        self.plot.append(
            f'<text{kind}{hidden} x="{number(x)}"{moved} y="{number(y)}">{clean(text, LABEL_MAX)}</text>'
        )

    def label(self, x: float, y: float, text: str, looks: str = "", most: int = LABEL_MAX) -> None:
        """Words outside of time."""
        kind = f' class="{looks}"' if looks else ""
        self.margin.append(f'<text{kind} x="{number(x)}" y="{number(y)}">{clean(text, most)}</text>')

    def band(self, x: float, y: float, width: float, height: float, looks: str) -> None:
        """What lies below a lane."""
        self.margin.append(
            f'<rect class="{looks}" x="{number(x)}" y="{number(y)}" width="{number(width)}" '
            f'height="{number(height)}"/>'
        )


def _title(text: str) -> str:
    return f"<title>{clean(text, TITLE_MAX)}</title>" if text else ""


# The forms of the marks, and what blocks are hatched with. No two differ by their colour alone.
DEFINITIONS = """<defs>
<pattern id="hatch-down" width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
<rect class="f-down" width="7" height="7"/><path class="s-down" d="M0 0V7"/></pattern>
<pattern id="hatch-ended" width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
<rect class="f-ended" width="7" height="7"/><path class="s-ended" d="M0 0V7"/></pattern>
<pattern id="hatch-paused" width="6" height="6" patternUnits="userSpaceOnUse">
<rect class="f-paused" width="6" height="6"/><path class="s-paused" d="M0 1.5H6"/></pattern>
<pattern id="hatch-fault" width="6" height="6" patternUnits="userSpaceOnUse">
<rect class="f-fault" width="6" height="6"/><circle class="c-fault" cx="1.5" cy="1.5" r="1"/></pattern>
<pattern id="hatch-cut" width="8" height="10" patternUnits="userSpaceOnUse">
<rect class="f-cut" width="8" height="10"/><path class="s-cut" d="M2 0 6 5 2 10"/></pattern>
<circle id="w" r="3.2"/>
<circle id="a" r="2.6"/>
<path id="r" d="M-3.4 -3.8 3.4 0 -3.4 3.8Z"/>
<rect id="c" x="-2.6" y="-2.6" width="5.2" height="5.2"/>
<path id="x" d="M-3.2 -3.2 3.2 3.2M-3.2 3.2 3.2 -3.2"/>
<path id="e" d="M0 -4.5V4.5"/>
<circle id="u" r="2.8"/>
<path id="m" d="M0 -5 4.4 0 0 5 -4.4 0Z"/>
<g id="o"><circle class="o-out" r="8"/><circle class="o-in" r="4.2"/></g>
<marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">
<path class="f-ink" d="M0 1 10 5 0 9z"/></marker>
</defs>
"""
