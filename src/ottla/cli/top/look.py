"""How somebody looks at a cluster, and what keys make of that (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeVar

from ottla.cli.top import rows
from ottla.cli.top.panels import PANELS, TOPICS, Panel, search, sort
from ottla.cli.top.rows import Row
from ottla.cli.top.snapshot import Snapshot, Wanted

T = TypeVar("T")

INTERVALS_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
INTERVAL_DEFAULT_S = 2.0
SEARCH_CHARACTERS_MAX = 100
# Panels whose rows are remembered: each keeps its snapshot.
REMEMBERED_MAX = 4

HELP = (
    ("1 2 3 4, Tab", "brokers, topics, groups, slowest clients; Shift+Tab goes back"),
    ("< >, ← →", "sort by the column before, by the next one"),
    ("r", "sort the other way round"),
    ("/", "search: Enter keeps what was typed, Esc drops it"),
    ("↑ ↓ PgUp PgDn Home End", "scroll; j and k too"),
    ("i", "topics of Kafka's own, too"),
    ("p, Space", "pause, and go on"),
    ("+ -", "look more often, or less often: every 0.5 s to 60 s"),
    ("u", "look now"),
    ("?", "this page, and back"),
    ("q, Ctrl-C", "quit"),
)


@dataclass(frozen=True, slots=True)
class Look:
    """See the module's docstring. ``sorts``: by panel, the column and whether it is the other way round."""

    panel_index: int = 0
    sorts: tuple[tuple[str, bool], ...] = tuple((panel.sort, False) for panel in PANELS)
    searches: tuple[str, ...] = ("",) * len(PANELS)
    is_typing: bool = False
    offset: int = 0
    is_paused: bool = False
    interval_s: float = INTERVAL_DEFAULT_S
    shows_internal: bool = False
    shows_help: bool = False
    wants_end: bool = False

    @property
    def panel(self) -> Panel:
        return PANELS[self.panel_index]

    @property
    def sorted_by(self) -> tuple[str, bool]:
        return self.sorts[self.panel_index]

    @property
    def searched(self) -> str:
        return self.searches[self.panel_index]

    def shown(self, snapshot: Snapshot | None) -> list[Row]:
        """The rows of the panel, in order."""
        if snapshot is None:
            return []
        found = _all(snapshot, self.panel_index, self.shows_internal)
        key, reverse = self.sorted_by
        return sort(self.panel, search(self.panel, found, self.searched), key, reverse=reverse)


# Keys are pressed several times between two snapshots, and all rows of a large cluster take tens of
# milliseconds.
@lru_cache(maxsize=REMEMBERED_MAX)
def _all(snapshot: Snapshot, panel_index: int, internal: bool) -> Sequence[Row]:
    """The rows of a panel, before they are searched and sorted."""
    panel = PANELS[panel_index]
    return rows.topics(snapshot, internal=internal) if panel is TOPICS else panel.rows(snapshot)


def press(look: Look, key: str, character: str | None, page: int, count: int) -> Look:
    """What a key makes of it. ``page``: rows that are seen at once; ``count``: those that there are."""
    if look.is_typing:
        return _typed(look, key, character)
    if key in ("question_mark", "?") or (look.shows_help and key == "escape"):
        return replace(look, shows_help=not look.shows_help)
    if key in ("q", "ctrl+c"):
        return replace(look, wants_end=True)
    return _switched(look, key) or _sorted(look, key) or _scrolled(look, key, page, count) or look


def _typed(look: Look, key: str, character: str | None) -> Look:
    text = look.searched
    if key == "ctrl+c":
        return replace(look, wants_end=True)
    if key in ("enter", "tab"):
        return replace(look, is_typing=False)
    if key == "escape":
        return _searching(replace(look, is_typing=False), "")
    if key in ("backspace", "ctrl+h"):
        return _searching(look, text[:-1])
    if key == "ctrl+u":
        return _searching(look, "")
    if character is not None and character.isprintable() and len(text) < SEARCH_CHARACTERS_MAX:
        return _searching(look, text + character)
    return look


def _searching(look: Look, text: str) -> Look:
    return replace(look, searches=_changed(look.searches, look.panel_index, text), offset=0)


def _changed(values: tuple[T, ...], index: int, value: T) -> tuple[T, ...]:
    return (*values[:index], value, *values[index + 1 :])


def _switched(look: Look, key: str) -> Look | None:
    """Another panel, interval or whatever else is on or off."""
    if key in ("1", "2", "3", "4"):
        return replace(look, panel_index=int(key) - 1, offset=0, shows_help=False)
    if key in ("tab", "shift+tab"):
        step = 1 if key == "tab" else -1
        index = (look.panel_index + step) % len(PANELS)
        return replace(look, panel_index=index, offset=0, shows_help=False)
    if key in ("p", "space"):
        return replace(look, is_paused=not look.is_paused)
    if key in ("plus", "+", "minus", "-"):
        # More often is a shorter interval.
        step = -1 if key in ("plus", "+") else 1
        nearest = min(INTERVALS_S, key=lambda one: abs(one - look.interval_s))
        index = INTERVALS_S.index(nearest) + step
        return replace(look, interval_s=INTERVALS_S[max(0, min(index, len(INTERVALS_S) - 1))])
    if key == "i":
        return replace(look, shows_internal=not look.shows_internal, offset=0)
    if key in ("slash", "/"):
        return replace(look, is_typing=True, shows_help=False)
    if key == "escape":
        return _searching(look, "")
    return None


def _sorted(look: Look, key: str) -> Look | None:
    column, reverse = look.sorted_by
    if key == "r":
        chosen = (column, not reverse)
    elif key in ("less_than_sign", "<", "left", "greater_than_sign", ">", "right"):
        step = 1 if key in ("greater_than_sign", ">", "right") else -1
        keys = [one.key for one in look.panel.columns]
        chosen = (keys[(keys.index(column) + step) % len(keys)], False)
    else:
        return None
    return replace(look, sorts=_changed(look.sorts, look.panel_index, chosen), offset=0)


def _scrolled(look: Look, key: str, page: int, count: int) -> Look | None:
    steps = {
        "up": -1, "k": -1, "down": 1, "j": 1, "pageup": -page, "pagedown": page, "home": -count, "end": count,
    }  # fmt: skip
    if key not in steps:
        return None
    return replace(look, offset=max(0, min(look.offset + steps[key], count - page)))


def wanted(look: Look, snapshot: Snapshot | None, page: int) -> Wanted:
    """What the next snapshot is to have first: what is seen now, and a page on."""
    if snapshot is None:
        return Wanted()
    seen = look.shown(snapshot)[look.offset : look.offset + 2 * page]
    return Wanted(
        topics=[row.topic for row in seen if isinstance(row, rows.TopicRow)],
        groups=[row.group for row in seen if isinstance(row, rows.GroupRow)],
    )
