"""The terminal's view: where to look, the series with what is usual, and the incidents."""

from __future__ import annotations

from collections import deque
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 44
INCIDENTS_SHOWN = 5


def draw(
    url: str, state: dict[str, Any], events: deque[str], elapsed_s: float, saying: str
) -> RenderableType:
    """The whole view."""
    table = Table.grid(padding=(0, 2))
    for series in state.get("series", ()):
        values = [point[1] for point in series["points"]][-WIDTH:]
        colour = "red" if series["firing"] else "cyan"
        title = Text(series["title"], colour if series["firing"] else "")
        table.add_row(title, Text(spark(values), colour), f"{series['value']:.4g} {series['unit']}")
    title = f"[bold]metrics[/] · {elapsed_s:5.1f} s · {saying}"
    lines = Text("\n".join(list(events)[-INCIDENTS_SHOWN:]), "dim")
    page = Text.assemble("the plot  ", (url, "bold cyan"))
    return Panel(Group(page, "", table, "", lines), title=title, title_align="left")


def spark(values: list[float]) -> str:
    """The values as little bars, from the least to the greatest."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    span = (high - low) or 1.0
    return "".join(BARS[round((len(BARS) - 1) * (value - low) / span)] for value in values)


def line(state: dict[str, Any], elapsed_s: float, saying: str) -> str:
    """The view in a line."""
    firing = [series["title"] for series in state.get("series", ()) if series["firing"]]
    waiting = [f"{s['value']:g} jobs wait" for s in state.get("series", ()) if s["unit"] == "files"]
    alarm = f"; ALERT: {', '.join(firing)}" if firing else ""
    jobs = ", ".join(waiting) or "no jobs yet"
    return f"{elapsed_s:5.1f} s: {len(state.get('series', ()))} series, {jobs}{alarm}; {saying}"
