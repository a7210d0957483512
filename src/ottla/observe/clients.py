"""The connections that keep a node busiest, and those that wait longest, for `/clients`.

What a connection costs is added up as plain numbers by whoever watches requests (``ottla.observe.requests``);
here is how much of it has come since somebody looked last. However many ask, connections are gone through
once a second at most, a few at a time, and the answer has so many of them and no more.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Generator, Iterator
from typing import Any

from ottla.broker.connection import Connection
from ottla.broker.request import Usage
from ottla.observe.parts import Parts
from ottla.observe.requests import Answering
from ottla.text import printable

# What is told of: those with the longest handling, and those whose oldest answer is the longest in coming.
BUSIEST_MAX, WAITING_MAX = 40, 10
# An answer is good for so long.
FRESH_NS = 1_000_000_000
# Connections that are looked at between two yields.
LOOKED_AT_ONCE = 100
TEXT_CHARACTERS_MAX = 200
NS_PER_MS = 1_000_000

Document = dict[str, Any]


class _Cost:
    """What one connection has cost since the last look."""

    __slots__ = ("busy_ns", "connection", "request_bytes", "requests", "response_bytes", "waiting_ns")

    def __init__(self, connection: Connection, usage: Usage, now_ns: int) -> None:
        self.connection = connection
        self.requests = usage.requests - usage.marked_requests
        self.busy_ns = usage.busy_ns - usage.marked_busy_ns
        self.request_bytes = usage.request_bytes - usage.marked_request_bytes
        self.response_bytes = usage.response_bytes - usage.marked_response_bytes
        usage.marked_requests, usage.marked_busy_ns = usage.requests, usage.busy_ns
        usage.marked_request_bytes, usage.marked_response_bytes = usage.request_bytes, usage.response_bytes
        self.waiting_ns: int | None = None
        oldest = connection.oldest
        if oldest is not None and isinstance(oldest.charge, Answering):
            self.waiting_ns = max(0, now_ns - oldest.charge.handled_ns)


class Clients:
    """``document`` it, as often as anybody likes."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._now_ns = parts.requests.now_ns
        self._looked_ns = self._now_ns()
        self._document: Document | None = None
        self._looking: asyncio.Task[Document] | None = None

    async def document(self) -> Document:
        """What there is now, ready for JSON; at most a second old."""
        if self._document is not None and self._now_ns() < self._looked_ns + FRESH_NS:
            return self._document
        if self._looking is None:
            self._looking = asyncio.ensure_future(self._parts.services.slices.run(self._look()))
            self._looking.add_done_callback(self._looked)
        # Whoever asks may go away; others wait for the same.
        return await asyncio.shield(self._looking)

    def _looked(self, looking: asyncio.Task[Document]) -> None:
        self._looking = None
        if not looking.cancelled() and looking.exception() is None:
            self._document = looking.result()

    def _look(self) -> Generator[None, None, Document]:
        began_ns, before_ns = self._now_ns(), self._looked_ns
        busiest: list[tuple[int, int, _Cost]] = []
        waiting: list[tuple[int, int, _Cost]] = []
        count = 0
        for count, connection in enumerate(self._connections(), 1):
            if count % LOOKED_AT_ONCE == 0:
                yield
            usage = connection.client.usage
            if usage is None:
                continue
            cost = _Cost(connection, usage, self._now_ns())
            if cost.requests or cost.response_bytes:
                _keep(busiest, (cost.busy_ns, count, cost), BUSIEST_MAX)
            if cost.waiting_ns is not None:
                _keep(waiting, (cost.waiting_ns, count, cost), WAITING_MAX)
        self._looked_ns = began_ns
        told = {number: cost for _, number, cost in [*sorted(busiest, reverse=True), *waiting]}
        return {
            "node_id": self._parts.services.node_id,
            "over_ms": round((began_ns - before_ns) / NS_PER_MS, 1),
            "connections": count,
            "clients": [_told(cost) for cost in told.values()],
        }

    def _connections(self) -> Iterator[Connection]:
        for server in self._parts.listeners.servers:
            yield from list(server.connections)


def _keep(heap: list[tuple[int, int, _Cost]], item: tuple[int, int, _Cost], count_max: int) -> None:
    """Keep the largest. No two have the same number, so that costs are never compared."""
    if len(heap) < count_max:
        heapq.heappush(heap, item)
    else:
        heapq.heappushpop(heap, item)


def _told(cost: _Cost) -> Document:
    client = cost.connection.client
    usage = client.usage
    return {
        "host": _text(client.host),
        "port": client.port,
        "client_id": "" if usage is None else _text(usage.client_id),
        "principal": _text(str(client.principal)),
        "listener": client.listener,
        "requests": cost.requests,
        "busy_ms": round(cost.busy_ns / NS_PER_MS, 3),
        "request_bytes": cost.request_bytes,
        "response_bytes": cost.response_bytes,
        "unsent_bytes": cost.connection.unsent_bytes,
        "oldest_unanswered_ms": None if cost.waiting_ns is None else round(cost.waiting_ns / NS_PER_MS, 1),
    }


def _text(text: str) -> str:
    """For whoever prints it: it comes from clients."""
    return printable(text[:TEXT_CHARACTERS_MAX])
