"""The logs in a terminal: the latest state of each service, what the sink has kept, what a search finds."""

from __future__ import annotations

import statistics
import time

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from examples.logs.observer import SEARCHED, SEARCHED_MS, Observer

BARS = " ▁▂▃▄▅▆▇█"
FOUND_SHOWN = 5
EVENTS_SHOWN = 5
SILENT_S = 5.0
LEVEL_COLOURS = {"err": "red", "crit": "bold red", "warning": "yellow"}


def draw(observer: Observer, saying: str) -> RenderableType:
    """The whole view."""
    title = f"[bold]logs of several programs[/] · {observer.elapsed_s:5.1f} s · {saying}"
    parts = Group(_services(observer), _search(observer), _sink(observer))
    return Panel(parts, title=title, title_align="left")


def line(observer: Observer, saying: str) -> str:
    """The view in a line, for where there is no terminal."""
    found, states = observer.found, observer.states
    lines = sum(state.lines - observer.lines_before.get(name, 0) for name, state in states.items())
    return (
        f"{observer.elapsed_s:5.1f} s: {lines} lines of {len(states)} services; {observer.rows} rows in "
        f"{observer.files} files; a search read {found.read} of {found.total}; {saying}"
    )


def bars(values: list[int]) -> str:
    """A row of bars; what is more than thrice the usual looks like thrice, or it would flatten the rest."""
    top = 3 * (statistics.median_high(value for value in values if value) if any(values) else 1)
    return "".join(BARS[min(len(BARS) - 1, -(-value * (len(BARS) - 1) // top))] for value in values)


def _services(observer: Observer) -> RenderableType:
    table = Table(expand=True, box=None, padding=(0, 1))
    for heading, justify in (("service", "left"), ("lines", "right"), ("the last 20 s", "left")):
        table.add_column(heading, header_style="dim", justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for heading in ("warnings", "errors"):
        table.add_column(heading, header_style="dim", justify="right")
    table.add_column("latest error", header_style="dim", ratio=1, no_wrap=True, overflow="ellipsis")
    for service, state in sorted(observer.states.items()):
        silent = time.time() - state.at_ms / 1000 > SILENT_S
        table.add_row(
            Text(service, "dim" if silent else "bold green"),
            str(state.lines),
            Text(bars(list(observer.rates.get(service, []))), "cyan"),
            Text(str(state.warnings), "yellow" if state.warnings else "dim"),
            Text(str(state.errors), "red" if state.errors else "dim"),
            Text(state.error.split("\n")[0]),
        )
    return Panel(table, title="logs.status, a compacted topic", title_align="left", border_style="dim")


def _search(observer: Observer) -> RenderableType:
    found = observer.found
    text = f"search --from {SEARCHED_MS // 1000}s --grep '{SEARCHED.pattern}'"
    cost = (
        f"{len(found.lines)} found; {found.read} read of {found.total} in the topic; {observer.search_ms} ms"
    )
    rows = [Text(text, "bold"), Text(cost, "cyan")]
    for entry in found.lines[-FOUND_SHOWN:]:
        at = time.strftime("%H:%M:%S", time.gmtime(entry.at_ms / 1000)) + f".{entry.at_ms % 1000:03}"
        row = Text(f"{at}  {entry.service:<10} ", no_wrap=True, overflow="ellipsis")
        row.append(f"{entry.level:<8}", LEVEL_COLOURS.get(entry.level, "default"))
        row.append(entry.text.split("\n")[0])
        rows.append(row)
    rows += [Text("")] * (FOUND_SHOWN + 2 - len(rows))
    return Panel(Group(*rows), title="logs.lines, by time", title_align="left", border_style="dim")


def _sink(observer: Observer) -> RenderableType:
    rows = [Text(f"{observer.rows} rows in {observer.files} files", "cyan")]
    rows += [Text(f"{at_s:6.1f} s  {event}") for at_s, event in list(observer.events)[-EVENTS_SHOWN:]]
    rows += [Text("")] * (EVENTS_SHOWN + 1 - len(rows))
    return Panel(Group(*rows), title="Parquet, and what happened", title_align="left", border_style="dim")
