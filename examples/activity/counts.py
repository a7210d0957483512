"""Live counts and a funnel, from the events as they come: a pure machine, given the time of each event.

An event that comes twice is counted once. A session is forgotten when it has been quiet for the window;
what it did stays in the totals. Every table has a limit.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, field
from typing import Any

from examples.activity.topics import STAGES, stage_of

WINDOW_MS = 60 * 60 * 1000
# Who did something within that is "here now".
HERE_MS = 60 * 1000
PLOTTED_S = 60
SESSIONS_MAX = 20_000
IDS_PER_SESSION_MAX = 2000
NAMES_MAX = 1000
SHOWN = 6
LATEST = 12
KINDS = ("view", "product", "click", "search", "cart", "checkout", "form")


@dataclass(slots=True)
class Session:
    """What one visitor did: how far along the funnel, when last, and the events that are known."""

    seen_ms: int = 0
    # Stages reached in their order: 0 is none.
    stages: int = 0
    ids: OrderedDict[str, None] = field(default_factory=OrderedDict)


class Counts:
    """`add` events as they come, ask for a `snapshot` any time. Times are ms since the Unix epoch."""

    def __init__(self, window_ms: int = WINDOW_MS) -> None:
        self.totals: Counter[str] = Counter()
        self.again = 0
        self._window_ms = window_ms
        # The session that has been quiet longest first.
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._per_second: dict[int, Counter[str]] = {}
        self._looked: Counter[str] = Counter()
        self._carted: Counter[str] = Counter()
        self._searched: Counter[str] = Counter()
        self._found: dict[str, int] = {}
        self._latest: deque[dict[str, Any]] = deque(maxlen=LATEST)

    def add(self, event: dict[str, Any], at_ms: int) -> None:
        """Count an event of the topic, `at_ms` being the time that Kafka has for it."""
        name = event["session"]
        session = self._sessions.pop(name, None) or Session()
        self._sessions[name] = session
        if len(self._sessions) > SESSIONS_MAX:
            self._sessions.popitem(last=False)
        if event["id"] in session.ids:
            self.again += 1
            return
        session.ids[event["id"]] = None
        if len(session.ids) > IDS_PER_SESSION_MAX:
            session.ids.popitem(last=False)
        session.seen_ms = max(session.seen_ms, at_ms)
        stage = stage_of(event)
        if session.stages < len(STAGES) and stage == STAGES[session.stages]:
            session.stages += 1
        kind = event["type"]
        self.totals[kind] += 1
        if stage == "order":
            self.totals["order"] += 1
        second = at_ms // 1000
        self._per_second.setdefault(second, Counter())[kind] += 1
        if len(self._per_second) > 2 * PLOTTED_S:
            del self._per_second[min(self._per_second)]
        self._add_details(event, kind)
        self._latest.appendleft({"at_ms": at_ms, "session": name[:6], "type": kind, "what": what(event)})

    def _add_details(self, event: dict[str, Any], kind: str) -> None:
        if kind == "product":
            self._count(self._looked, event.get("product", "?"))
        elif kind == "cart":
            self._count(self._carted, event.get("product", "?"), event.get("quantity", 1))
        elif kind == "search":
            query = event.get("query", "")
            self._count(self._searched, query)
            self._found[query] = event.get("results", 0)
            if len(self._found) > 2 * NAMES_MAX:
                self._found = {name: self._found.get(name, 0) for name in self._searched}

    @staticmethod
    def _count(counter: Counter[str], name: str, by: int = 1) -> None:
        counter[name] += by
        if len(counter) > NAMES_MAX:
            for rare, _ in counter.most_common()[NAMES_MAX // 2 :]:
                del counter[rare]

    def _forget(self, now_ms: int) -> None:
        while self._sessions:
            name = next(iter(self._sessions))
            if self._sessions[name].seen_ms > now_ms - self._window_ms:
                return
            del self._sessions[name]

    def funnel(self) -> list[tuple[str, int]]:
        """Each stage, with how many of the window's sessions reached it through those before it."""
        reached = Counter(session.stages for session in self._sessions.values())
        return [
            (stage, sum(count for stages, count in reached.items() if stages > position))
            for position, stage in enumerate(STAGES)
        ]

    def snapshot(self, now_ms: int) -> dict[str, Any]:
        """All that the page shows."""
        self._forget(now_ms)
        now_s = now_ms // 1000
        seconds = range(now_s - PLOTTED_S, now_s)
        empty: Counter[str] = Counter()
        recent = [self._per_second.get(second, empty) for second in seconds]
        return {
            "at_ms": now_ms,
            "totals": {kind: self.totals[kind] for kind in (*KINDS, "order")},
            "again": self.again,
            "per_minute": sum(sum(counter.values()) for counter in recent[-60:]),
            "per_second": {kind: [counter[kind] for counter in recent] for kind in KINDS},
            "here": sum(s.seen_ms > now_ms - HERE_MS for s in self._sessions.values()),
            "sessions": len(self._sessions),
            "funnel": self.funnel(),
            "products": [
                {"name": name, "looked": looked, "carted": self._carted[name]}
                for name, looked in self._looked.most_common(SHOWN)
            ],
            "searches": [
                {"query": query, "count": count, "found": self._found.get(query, 0)}
                for query, count in self._searched.most_common(SHOWN)
            ],
            "latest": list(self._latest),
        }


def what(event: dict[str, Any]) -> str:
    """The one thing of an event that is worth reading."""
    for name in ("product", "query", "target", "form", "page"):
        if name in event:
            return str(event[name])
    return ""
