"""The tables: their columns, how they are sorted and searched, and figures in few characters (pure)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from rich.cells import cell_len, set_cell_size

from ottla.cli.top import rows
from ottla.cli.top.rows import AWAY, NEVER, SILENT, GroupRow, Row
from ottla.cli.top.snapshot import Snapshot
from ottla.text import printable

NOTHING = "-"
UNITS = ("", "k", "M", "G", "T", "P", "E")
# What a name has at least, where columns compete for the width.
NAME_CHARACTERS_MIN = 12
GAP = "  "


def figure(value: float | None) -> str:
    """A number in at most six characters: 0, 7, 1234, 12.3k, 1.2M; small ones with a decimal or two."""
    if value is None:
        return NOTHING
    sign, size = ("-", -value) if value < 0 else ("", value)
    if size < 10 and size != int(size):
        return f"{sign}{size:.2f}".rstrip("0").rstrip(".") if size >= 0.005 else "0"
    for unit in UNITS[:-1]:
        # What would be rounded up to the next unit has it.
        if size < (9_999.5 if not unit else 999.5):
            return f"{sign}{size:.1f}{unit}" if unit and size < 99.95 else f"{sign}{size:.0f}{unit}"
        size = size / 1000
    return f"{sign}{size:.0f}{UNITS[-1]}"


def signed(value: float | None) -> str:
    """A change: +12, -3."""
    text = figure(value)
    return f"+{text}" if value is not None and value > 0 and text != "0" else text


def span(value: float | None) -> str:
    """A time in seconds: 0s, 59s, 3m20s, 5h00m, 12d."""
    if value is None:
        return NOTHING
    if value == NEVER:
        return "never"
    seconds = round(value)
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02}s"
    if seconds < 86_400:
        return f"{seconds // 3600}h{seconds % 3600 // 60:02}m"
    return f"{figure(seconds // 86_400)}d"


def milliseconds(value: float | None) -> str:
    """A time in milliseconds, of which seconds are made where there are many."""
    if value is None:
        return NOTHING
    return f"{figure(value if value < 10 else round(value))}ms" if value < 10_000 else span(value / 1000)


def percent(value: float | None) -> str:
    """Milliseconds of a second as a share of it."""
    return NOTHING if value is None else f"{value / 10:.1f}%"


def name(value: Any) -> str:
    """A name, or what else is text."""
    return NOTHING if value is None or value == "" else printable(str(value))


def group_state(value: str) -> str:
    """A group's state; those of a rebalance without that word, which is long."""
    return name(value.removesuffix("Rebalance"))


def is_growing(row: GroupRow) -> bool:
    """Whether the group falls behind."""
    return row.lag_per_s is not None and row.lag_per_s > 0


@dataclass(frozen=True, slots=True)
class Column:
    """One column. ``rank``: those with the highest go first where the terminal is narrow."""

    key: str
    title: str
    show: Callable[[Any], str] = figure
    rank: int = 0

    @property
    def is_name(self) -> bool:
        return self.show in (name, group_state)


@dataclass(frozen=True, slots=True)
class Panel:
    """One table. It is sorted by ``sort`` at first; numbers have their largest first, names are in order."""

    title: str
    rows: Callable[[Snapshot], Sequence[Row]]
    columns: tuple[Column, ...]
    sort: str
    # What is looked through for what is searched.
    searched: tuple[str, ...]
    is_alarming: Callable[[Any], bool] = lambda row: False
    is_bad: Callable[[Any], bool] = lambda row: False

    def column(self, key: str) -> Column:
        return next(column for column in self.columns if column.key == key)


BROKERS = Panel(
    "Brokers",
    rows.brokers,
    (
        Column("node_id", "id", name),
        Column("state", "state", name),
        Column("rack", "rack", name, 5),
        Column("address", "address", name, 4),
        Column("leads", "leads"),
        Column("replicas", "repl", rank=2),
        Column("under_replicated", "under"),
        Column("behind", "behind", rank=6),
        Column("offline", "offl"),
        Column("size_bytes", "bytes", rank=1),
        Column("messages_per_s", "msg/s"),
    ),
    "node_id",
    ("node_id", "state", "rack", "address"),
    lambda row: row.state in (AWAY, SILENT) or row.offline > 0,
    lambda row: row.under_replicated > 0 or row.behind > 0,
)
TOPICS = Panel(
    "Topics",
    rows.topics,
    (
        Column("topic", "topic", name),
        Column("partitions", "parts", rank=1),
        Column("replication_factor", "repl", rank=4),
        Column("under_replicated", "under", rank=2),
        Column("offline", "offl", rank=3),
        Column("messages_per_s", "msg/s"),
        Column("bytes_per_s", "bytes/s"),
        Column("size_bytes", "bytes"),
    ),
    "messages_per_s",
    ("topic",),
    lambda row: row.offline > 0,
    lambda row: row.under_replicated > 0,
)
GROUPS = Panel(
    "Groups",
    rows.groups,
    (
        Column("group", "group", name),
        Column("state", "state", group_state),
        Column("type", "type", name, 5),
        Column("coordinator", "coord", figure, 4),
        Column("members", "members", rank=1),
        Column("lag", "lag"),
        Column("lag_per_s", "lag/s", signed, 2),
        Column("consumed_per_s", "msg/s"),
        Column("catch_up_s", "catchup", span, 3),
    ),
    "lag",
    ("group", "state", "type"),
    # Nobody consumes what comes; those who do are too slow, or are about to share it out anew.
    lambda row: is_growing(row) and row.members == 0,
    lambda row: is_growing(row) or "rebalanc" in row.state.lower(),
)
CLIENTS = Panel(
    "Clients",
    rows.connections,
    (
        Column("node_id", "node", name),
        Column("client_id", "client", name),
        Column("host", "host", name),
        Column("port", "port", name, 6),
        Column("principal", "principal", name, 5),
        Column("listener", "listener", name, 4),
        Column("requests_per_s", "req/s"),
        Column("busy_ms_per_s", "busy", percent),
        Column("request_bytes_per_s", "in/s", rank=2),
        Column("response_bytes_per_s", "out/s", rank=1),
        Column("unsent_bytes", "unsent", rank=3),
        Column("oldest_unanswered_ms", "waits", milliseconds),
    ),
    "busy_ms_per_s",
    ("client_id", "host", "principal", "listener"),
)
PANELS = (BROKERS, TOPICS, GROUPS, CLIENTS)


def sort(panel: Panel, found: Sequence[Row], key: str, *, reverse: bool = False) -> list[Row]:
    """The rows by a column: numbers from the largest, names in order, what is not known last in any case;
    those alike by their names."""
    get, column = attrgetter(key), panel.column(key)
    known = [row for row in found if get(row) is not None]
    unknown = [row for row in found if get(row) is None]
    by_name = attrgetter(panel.searched[0])
    known.sort(key=by_name)
    unknown.sort(key=by_name)
    known.sort(key=get, reverse=reverse if column.is_name else not reverse)
    return known + unknown


def search(panel: Panel, found: Sequence[Row], text: str) -> list[Row]:
    """The rows that have a text in one of their names, in capitals or not."""
    wanted = text.casefold()
    if not wanted:
        return list(found)
    return [row for row in found if any(wanted in _plain(row, key) for key in panel.searched)]


def _plain(row: Row, key: str) -> str:
    return name(getattr(row, key)).casefold()


def cells(panel: Panel, row: Row) -> list[str]:
    """The row's texts, in the order of the columns."""
    return [column.show(getattr(row, column.key)) for column in panel.columns]


def fit(panel: Panel, texts: Sequence[Sequence[str]], width: int, marked: str = "") -> list[tuple[int, int]]:
    """Which columns there is room for, and how wide each is: (index, width), in order.

    Where there is too little room the columns of the highest rank go first; of those that must stay, names
    get shorter. ``marked``: the column whose title has a mark.
    """
    widths = [
        max([cell_len(column.title) + (column.key == marked), *(cell_len(row[i]) for row in texts)])
        for i, column in enumerate(panel.columns)
    ]
    chosen = list(range(len(widths)))
    droppable = sorted((i for i in chosen if panel.columns[i].rank), key=lambda i: panel.columns[i].rank)

    def needed(shortest: bool) -> int:
        each = [
            min(widths[i], NAME_CHARACTERS_MIN) if shortest and panel.columns[i].is_name else widths[i]
            for i in chosen
        ]
        return sum(each) + len(GAP) * (len(chosen) - 1)

    while droppable and needed(True) > width:
        chosen.remove(droppable.pop())
    excess = needed(False) - width
    # Long names give way, the longest first.
    while excess > 0:
        longest = max(chosen, key=lambda i: (panel.columns[i].is_name and widths[i] > 1, widths[i]))
        if widths[longest] <= 1:
            break
        others = [widths[i] for i in chosen if i != longest and panel.columns[longest].is_name]
        others = [w for w in others if w < widths[longest]]
        step = min(excess, max(1, widths[longest] - max([NAME_CHARACTERS_MIN, *others])))
        widths[longest] -= step
        excess -= step
    return [(i, widths[i]) for i in chosen]


def cut(text: str, width: int) -> str:
    """The text, or as much of it as there is room for."""
    if cell_len(text) <= width:
        return text
    return f"{set_cell_size(text, width - 1)}…" if width > 0 else ""
