"""The terminal's view of the shop: where to look, and the counts of the dashboard."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

BAR_WIDTH = 40


def draw(shop: str, dashboard: str, counts: dict[str, Any], elapsed_s: float, saying: str) -> RenderableType:
    """The whole view."""
    pages = Table.grid(padding=(0, 2))
    pages.add_row("the shop", Text(shop, "bold cyan"), "[dim]be a visitor yourself[/]")
    pages.add_row("live counts", Text(dashboard, "bold cyan"), "[dim]see it counted[/]")
    funnel = Table.grid(padding=(0, 1))
    stages = counts.get("funnel", [])
    most = max([1, *(sessions for _, sessions in stages)])
    for stage, sessions in stages:
        filled = round(BAR_WIDTH * sessions / most)
        bar = Text("━" * filled, "green") + Text("━" * (BAR_WIDTH - filled), "bright_black")
        funnel.add_row(stage, bar, f"{sessions:5}")
    title = f"[bold]a shop that counts steps[/] · {elapsed_s:5.1f} s · {saying}"
    return Panel(
        Group(pages, "", funnel, "", line(counts, elapsed_s, saying)), title=title, title_align="left"
    )


def line(counts: dict[str, Any], elapsed_s: float, saying: str) -> str:
    """The view in a line."""
    totals = counts.get("totals", {})
    figures = ", ".join(f"{number} {kind}" for kind, number in totals.items())
    return f"{elapsed_s:5.1f} s: {figures or 'nothing yet'}; {saying}"
