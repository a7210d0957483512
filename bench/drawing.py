"""Plots as SVG: lines over an axis that grows. Plain text, no library, the same for the same figures.

A plot has its own background, so that it can be read on any page, light or dark as the reader's system is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 440, 260
LEFT, RIGHT, TOP, BOTTOM = 62, 26, 36, 44
LEGEND_ROW = 17
# An estimate of how wide a character is.
CHARACTER = 6.4
LABEL_GAP = 10
STEPS = (1, 2, 5)
# A logarithmic axis of more than so many times has labels at powers of ten only.
ALL_STEPS_MAX = 300
LINEAR_TICKS = 5

COLOURS = (
    ("#0969da", "#58a6ff"),
    ("#bc4c00", "#f0883e"),
    ("#1a7f37", "#3fb950"),
    ("#8250df", "#bc8cff"),
    ("#bf3989", "#f778ba"),
)
DASHES = ("", "6 3", "2 3", "9 3 2 3")


@dataclass(frozen=True, slots=True)
class Line:
    """One line: its name, its points, its colour and dashes. Without a colour of its own it is grey."""

    label: str
    points: Sequence[tuple[float, float]] = ()
    colour: int | None = 0
    dashes: int = 0


@dataclass(frozen=True, slots=True)
class Scale:
    """Where values are on an axis: from ``low`` to ``high``, with a label at each of ``ticks``."""

    low: float
    high: float
    ticks: tuple[float, ...]
    is_log: bool

    def share(self, value: float) -> float:
        """How far along the axis a value is, 0 to 1."""
        if self.high == self.low:
            return 0.5
        if self.is_log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def number(value: float) -> str:
    return f"{value:,.6g}"


def steps(low: float, high: float) -> list[float]:
    """1, 2, 5, 10 … from at or below ``low`` to at or above ``high``."""
    first, last = math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1
    found = [float(f"{step}e{power}") for power in range(first, last + 1) for step in STEPS]
    below = max(one for one in found if one <= low * 1.0000001)
    above = min(one for one in found if one >= high * 0.9999999)
    return [one for one in found if below <= one <= above]


def log_scale(values: Sequence[float]) -> Scale:
    """For values above 0."""
    found = steps(min(values), max(values))
    if len(found) == 1:
        found = steps(found[0] * 0.9, found[0] * 1.1)
    ticks = found
    if found[-1] / found[0] > ALL_STEPS_MAX:
        ticks = [one for one in found if math.isclose(math.log10(one), round(math.log10(one)), abs_tol=1e-9)]
    return Scale(found[0], found[-1], tuple(ticks), True)


def linear_scale(values: Sequence[float]) -> Scale:
    """From 0 on."""
    top = max([*values, 1e-9])
    step = next(one for one in steps(top / LINEAR_TICKS, top) if one >= top / LINEAR_TICKS * 0.9999999)
    count = math.ceil(top / step - 1e-9)
    return Scale(0, count * step, tuple(round(i * step, 12) for i in range(count + 1)), False)


def point_scale(values: Sequence[float], *, is_log: bool) -> Scale:
    """The axis of what grows: a label for each number that was measured, as far as there is room."""
    width = WIDTH - LEFT - RIGHT
    ends = Scale(min(values), max(values), (), is_log)
    ticks: list[float] = []
    free_from = -math.inf
    for value in sorted(set(values)):
        half = len(number(value)) * CHARACTER / 2
        middle = ends.share(value) * width
        if middle - half >= free_from:
            ticks.append(value)
            free_from = middle + half + LABEL_GAP
    return Scale(ends.low, ends.high, tuple(ticks), is_log)


STYLE = """\
<style>
.paper{fill:#ffffff}.text{fill:#1f2328;font:12px system-ui,-apple-system,'Segoe UI',sans-serif}
.title{font-weight:600;font-size:13px}.grid{stroke:#d1d9e0;stroke-width:1}.line{fill:none;stroke-width:2}
.any{stroke:#59636e}"""


def _style() -> str:
    light = "".join(f".c{i}{{stroke:{c}}}.f{i}{{fill:{c}}}" for i, (c, _) in enumerate(COLOURS))
    dark = "".join(f".c{i}{{stroke:{c}}}.f{i}{{fill:{c}}}" for i, (_, c) in enumerate(COLOURS))
    return (
        f"{STYLE}{light}\n@media (prefers-color-scheme:dark){{\n"
        f".paper{{fill:#0d1117}}.text{{fill:#e6edf3}}.grid{{stroke:#30363d}}.any{{stroke:#9198a1}}\n{dark}}}\n</style>"
    )


def _legend(lines: Sequence[Line], top: float) -> tuple[list[str], int]:
    """The names of the lines, in rows; and how many rows."""
    drawn: list[str] = []
    x, row = float(LEFT), 0
    for line in lines:
        width = 34 + len(line.label) * CHARACTER
        if x > LEFT and x + width > WIDTH - RIGHT:
            x, row = float(LEFT), row + 1
        y = top + row * LEGEND_ROW
        drawn.append(
            f'<line class="line {_colour(line)}"{_dash(line)} x1="{x:.1f}" x2="{x + 24:.1f}" '
            f'y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="text" x="{x + 29:.1f}" y="{y + 4:.1f}">{escape(line.label)}</text>'
        )
        x += width + 12
    return drawn, row + 1


def _colour(line: Line) -> str:
    return "any" if line.colour is None else f"c{line.colour % len(COLOURS)}"


def _dash(line: Line) -> str:
    dashes = DASHES[line.dashes % len(DASHES)]
    return f' stroke-dasharray="{dashes}"' if dashes else ""


def chart(
    title: str,
    x_label: str,
    y_label: str,
    lines: Sequence[Line],
    *,
    legend: Sequence[Line] | None = None,
    log_x: bool = True,
    log_y: bool = True,
) -> str:
    """The plot. What is not above 0 has no place on a logarithmic axis, and is left out of it. ``legend`` is
    what it says of colours and dashes, in place of the name of each line."""
    lines = [
        Line(line.label, [(x, y) for x, y in line.points if y > 0 or not log_y], line.colour, line.dashes)
        for line in lines
    ]
    lines = [line for line in lines if line.points]
    if not lines:
        raise ValueError(f"{title}: there is nothing to draw")
    xs = point_scale([x for line in lines for x, _ in line.points], is_log=log_x)
    heights = [y for line in lines for _, y in line.points]
    ys = log_scale(heights) if log_y else linear_scale(heights)
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def at(x: float, y: float) -> tuple[float, float]:
        return LEFT + xs.share(x) * (right - LEFT), bottom - ys.share(y) * (bottom - TOP)

    if legend is None:
        # One alone has the title for its name.
        legend = lines if len(lines) > 1 else ()
    names, rows = _legend(legend, HEIGHT + 6)
    height = HEIGHT + (6 + rows * LEGEND_ROW if names else 0)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" role="img" aria-label="{escape(title, {chr(34): "&quot;"})}">',
        f"<title>{escape(title)}</title>",
        _style(),
        f'<rect class="paper" width="{WIDTH}" height="{height}" rx="6"/>',
        f'<text class="text title" x="{LEFT}" y="20">{escape(title)}</text>',
    ]
    for tick in ys.ticks:
        _, y = at(xs.low, tick)
        out.append(
            f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="text" x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{number(tick)}</text>'
        )
    for tick in xs.ticks:
        x, _ = at(tick, ys.low)
        out.append(
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom + 4}"/>'
            f'<text class="text" x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{number(tick)}</text>'
        )
    middle = (TOP + bottom) / 2
    out += [
        f'<text class="text" x="{(LEFT + right) / 2:.1f}" y="{bottom + 35}" text-anchor="middle">'
        f"{escape(x_label)}</text>",
        f'<text class="text" transform="translate(14 {middle:.1f}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_label)}</text>",
    ]
    for line in lines:
        places = [at(x, y) for x, y in sorted(line.points)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        out.append(f'<polyline class="line {_colour(line)}"{_dash(line)} points="{path}"/>')
        fill = _colour(line).replace("c", "f")
        out += [f'<circle class="{fill}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in places]
    return "\n".join([*out, *names, "</svg>", ""])
