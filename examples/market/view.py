"""The market in a terminal: a line for each symbol, and what happened."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from examples.market import topics
from examples.market.observer import Observer, Symbol, clock

BLOCKS = "▁▂▃▄▅▆▇█"
BARS_SHOWN = 40
EVENTS_SHOWN = 12
UP, DOWN = "green", "red"


def draw(observer: Observer, saying: str) -> RenderableType:
    """The whole view."""
    day = f"{observer.day:%A, %d %B %Y}, {clock(observer.latest_ms)}" if observer.day else "before the open"
    title = f"[bold]{day}[/] · {observer.elapsed_s:5.1f} s · {saying}"
    counts = (
        f"{observer.counts[topics.QUOTED]} trades with their quotes, {observer.counts[topics.BARS]} bars,"
        f" {observer.counts[topics.ALARMS]} alarms, {observer.counts[topics.SIGNALS]} signals"
    )
    return Panel(
        Group(_symbols(observer), _events(observer), Text(counts, "dim")), title=title, title_align="left"
    )


def line(observer: Observer, saying: str) -> str:
    """The view in a line, for where there is no terminal."""
    prices = ", ".join(
        f"{name} {symbol.closes()[-1]:.2f}"
        for name, symbol in sorted(observer.symbols.items())
        if symbol.bars
    )
    return (
        f"{observer.elapsed_s:5.1f} s: market time {clock(observer.latest_ms)},"
        f" {observer.counts[topics.BARS]} bars, {observer.counts[topics.ALARMS]} alarms,"
        f" {observer.counts[topics.SIGNALS]} signals; {prices or 'no price yet'}; {saying}"
    )


def spark(values: list[float]) -> Text:
    """A line of blocks, each green or red as it is above or below the one before."""
    low, high = min(values), max(values)
    text = Text()
    for before, value in zip([values[0], *values], values, strict=False):
        height = round((value - low) / (high - low) * (len(BLOCKS) - 1)) if high > low else 0
        text.append(BLOCKS[height], UP if value >= before else DOWN)
    return text


def _symbols(observer: Observer) -> RenderableType:
    table = Table(expand=True, box=None, padding=(0, 1))
    for heading in ("", "last", "day", "VWAP", "spread"):
        table.add_column(heading, header_style="dim", justify="left" if heading == "" else "right")
    table.add_column("closes of the last minutes", header_style="dim", no_wrap=True)
    table.add_column("position", header_style="dim")
    table.add_column("alarms", header_style="dim", justify="right")
    for name, symbol in sorted(observer.symbols.items()):
        if symbol.bars:
            table.add_row(name, *_cells(symbol))
    for _ in range(4 - table.row_count):
        table.add_row("[dim]…[/]")
    return Panel(table, title="bars of a minute", title_align="left", border_style="dim")


def _cells(symbol: Symbol) -> list[RenderableType]:
    bars = [bar for _, bar in sorted(symbol.bars.items())]
    last, change = bars[-1]["close"], bars[-1]["close"] / bars[0]["open"] - 1
    volume = sum(bar["volume"] for bar in bars)
    vwap = sum(bar["vwap"] * bar["volume"] for bar in bars) / volume
    position = symbol.position
    return [
        f"[bold]{last:.2f}[/]",
        Text(f"{change * 100:+.2f} %", UP if change >= 0 else DOWN),
        f"{vwap:.2f}",
        f"{symbol.spread * 1e4:.1f} bp",
        spark(symbol.closes()[-BARS_SHOWN:]),
        Text(position, {"long": UP, "short": DOWN}.get(position, "dim")),
        str(len(symbol.alarms)),
    ]


def _events(observer: Observer) -> RenderableType:
    shown = list(observer.events)[-EVENTS_SHOWN:]
    lines = [
        Text(f"{at_s:6.1f} s  {what}", style, no_wrap=True, overflow="ellipsis")
        for at_s, what, style in shown
    ]
    lines += [Text("")] * (EVENTS_SHOWN - len(lines))
    return Panel(Group(*lines), title="what happened", title_align="left", border_style="dim")
