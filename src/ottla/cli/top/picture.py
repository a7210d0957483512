"""What is to be seen, as lines of a terminal (pure): a line is pieces of text, each in a style."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from rich.cells import cell_len

from ottla.cli.output import counted
from ottla.cli.top.look import HELP, Look
from ottla.cli.top.panels import CLIENTS, GAP, PANELS, cells, cut, figure, fit
from ottla.cli.top.rows import Row, is_short, total
from ottla.cli.top.snapshot import NO_LEADER, Snapshot
from ottla.config.observing import LISTENER
from ottla.text import printable

# Lines above the rows and below them.
HEAD_LINES, FOOT_LINES = 4, 1
# Nodes that are named among what is not well.
AWAY_MAX, SILENT_MAX = 5, 2


class Style(Enum):
    """What a piece is: the terminal's own colours say it."""

    PLAIN = ""
    DIM = "dim"
    TITLE = "bold"
    CHOSEN = "reverse"
    SORTED = "bold underline"
    WARNING = "yellow"
    ALARM = "bold red"
    GOOD = "green"


Piece = tuple[str, Style]
Line = list[Piece]


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known when the picture is drawn. ``trouble``: why there is nothing newer."""

    snapshot: Snapshot | None
    look: Look
    trouble: str = ""
    # When the snapshot was taken, by the clock on the wall.
    taken: str = ""


def page(height: int) -> int:
    """Rows that are seen at once."""
    return max(1, height - HEAD_LINES - FOOT_LINES)


def draw(seen: Seen, width: int, height: int) -> list[Line]:
    """As many lines as the terminal has, none longer than it is wide."""
    look = seen.look
    shown = look.shown(seen.snapshot)
    rows = page(height)
    offset = max(0, min(look.offset, len(shown) - rows))
    middle = _help() if look.shows_help else _table(seen, shown, offset, width, rows)
    head = [_summary(seen.snapshot), _state(seen), _tabs(seen)]
    lines = [*head, *middle[: rows + 1]]
    lines += [[] for _ in range(height - FOOT_LINES - len(lines))]
    lines = [*lines[: height - FOOT_LINES], _foot(look, offset, rows, len(shown))]
    return [clip(line, width) for line in lines]


def clip(line: Line, width: int) -> Line:
    """As much of the line as there is room for."""
    clipped: Line = []
    for text, style in line:
        if width <= 0:
            break
        text = cut(text, width)
        clipped.append((text, style))
        width -= cell_len(text)
    return clipped


@lru_cache(maxsize=1)
def _summary(snapshot: Snapshot | None) -> Line:
    if snapshot is None:
        return [("ottla top", Style.TITLE)]
    away = sum(broker.is_fenced for broker in snapshot.brokers.values())
    there = len(snapshot.brokers) - away
    partitions = snapshot.partitions
    topics = len({partition.topic for partition in partitions})
    rate = total(end.per_s for end in snapshot.ends.values())
    text = (
        f"{counted(there, 'broker')}, {counted(topics, 'topic')}, {counted(len(partitions), 'partition')}, "
        f"{counted(len(snapshot.groups), 'group')}, {figure(rate)} msg/s"
    )
    return [(text, Style.TITLE), (f"  cluster {printable(snapshot.cluster_id or '-')}", Style.DIM)]


def _state(seen: Seen) -> Line:
    """How well it is, or why that cannot be said."""
    line: Line = []
    if seen.look.is_paused:
        line.append(("paused ", Style.WARNING))
    if seen.trouble:
        return [*line, (printable(seen.trouble), Style.ALARM)]
    if seen.snapshot is None:
        return [*line, ("looking for the cluster …", Style.DIM)]
    return [*line, *_health(seen.snapshot)]


@lru_cache(maxsize=1)
def _health(snapshot: Snapshot) -> Line:
    partitions = snapshot.partitions.values()
    offline = sum(one.leader == NO_LEADER for one in partitions)
    short = sum(map(is_short, partitions))
    away = [node for node, broker in snapshot.brokers.items() if broker.is_fenced]
    troubles: Line = []
    if offline:
        troubles.append((f"{offline} offline", Style.ALARM))
    if short:
        troubles.append((f"{short} under-replicated", Style.WARNING))
    if away:
        nodes = "node" if len(away) == 1 else "nodes"
        troubles.append((f"{nodes} {', '.join(map(str, away[:AWAY_MAX]))} away", Style.ALARM))
    for node, why in list(snapshot.silent.items())[:SILENT_MAX]:
        troubles.append((f"node {node} does not answer ({printable(why)})", Style.ALARM))
    if not troubles:
        return [("all in sync", Style.GOOD)]
    line: Line = []
    for number, trouble in enumerate(troubles):
        line += [("; ", Style.PLAIN), trouble] if number else [trouble]
    return line


def _tabs(seen: Seen) -> Line:
    """The panels, and how new this is."""
    look = seen.look
    line: Line = []
    for number, panel in enumerate(PANELS, 1):
        is_chosen = panel is look.panel
        line.append((f" {number} {panel.title} ", Style.CHOSEN if is_chosen else Style.PLAIN))
        line.append((" ", Style.PLAIN))
    if seen.snapshot is not None:
        line.append((f" {seen.taken}, every {look.interval_s:g} s", Style.DIM))
    return line


def _table(seen: Seen, shown: Sequence[Row], offset: int, width: int, rows: int) -> list[Line]:
    """The headings and the rows that are seen, or why there are none."""
    look = seen.look
    panel = look.panel
    visible = shown[offset : offset + rows]
    texts = [cells(panel, row) for row in visible]
    key, reverse = look.sorted_by
    places = fit(panel, texts, width, key)
    headings: Line = []
    for index, size in places:
        column = panel.columns[index]
        is_sorted = column.key == key
        mark = ("▲" if column.is_name is not reverse else "▼") if is_sorted else ""
        style = Style.SORTED if is_sorted else Style.TITLE
        headings += [
            (_padded(column.title + mark, size, right=not column.is_name), style),
            (GAP, Style.PLAIN),
        ]
    lines = [headings]
    for row, row_texts in zip(visible, texts, strict=True):
        style = Style.ALARM if panel.is_alarming(row) else Style.WARNING if panel.is_bad(row) else Style.PLAIN
        text = GAP.join(
            _padded(row_texts[index], size, right=not panel.columns[index].is_name) for index, size in places
        )
        lines.append([(text, style)])
    return lines + ([] if shown else _emptiness(seen))


def _padded(text: str, size: int, *, right: bool) -> str:
    text = cut(text, size)
    blank = " " * (size - cell_len(text))
    return blank + text if right else text + blank


def _emptiness(seen: Seen) -> list[Line]:
    look = seen.look
    if seen.snapshot is None:
        return []
    if look.searched:
        return [[(f"nothing has '{printable(look.searched)}' in it", Style.DIM)]]
    if look.panel is not CLIENTS:
        return [[("there are none", Style.DIM)]]
    return [[(line, Style.DIM)] for line in how_to_listen(seen.snapshot)]


def how_to_listen(snapshot: Snapshot) -> list[str]:
    """Why no client is told of."""
    listened = snapshot.listened
    if listened.asked and not listened.notes:
        return ["no client has asked for anything since the last look"]
    return [
        "Nodes with a metrics listener tell which clients keep them busy. To have one:",
        f"  ottla config set broker ID {LISTENER}=127.0.0.1:9308",
        "or start them with --metrics, or name where they listen: ottla top --metrics HOST:PORT,…",
        *(printable(note) for note in listened.notes),
    ]


def _help() -> list[Line]:
    size = max(len(keys) for keys, _ in HELP)
    return [
        [(keys.ljust(size + 2), Style.TITLE), (what, Style.PLAIN)] for keys, what in (("Keys", ""), *HELP)
    ]


def _foot(look: Look, offset: int, rows: int, count: int) -> Line:
    if look.is_typing:
        return [("/", Style.TITLE), (printable(look.searched), Style.PLAIN), ("_", Style.TITLE)]
    until = min(offset + rows, count)
    where = f"{offset + 1}-{until} of {count}" if count > rows else f"{count}"
    searched = f" with '{printable(look.searched)}'" if look.searched else ""
    keys = "  Tab panel  < > sort  r reverse  / search  p pause  ? help  q quit"
    return [(f"{where}{searched}", Style.TITLE), (keys, Style.DIM)]
