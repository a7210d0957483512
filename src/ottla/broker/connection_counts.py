"""The numbers and limits of a node's connections: in all, by listener, by address.

Kafka's ``ConnectionQuotas``. Connections over a limit are refused; Kafka leaves them to wait in the kernel.
The listener that nodes use among themselves is not held to the limit of all, if clients have another:
connections of clients make room, as they do where that limit becomes lower.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from heapq import nsmallest
from itertools import islice
from typing import TYPE_CHECKING, Final, Protocol, final

from ottla.env.clock import Clock, Timer
from ottla.numbers import INT_MAX
from ottla.security.acl_bindings import canonical_host

if TYPE_CHECKING:
    from ottla.broker.connection import Connection

log = logging.getLogger(__name__)

PER_IP: Final = "max.connections.per.ip"
# Connections that are closed at a time, and of each listener the oldest that are looked at for it: some ms.
CLOSED_AT_ONCE_MAX = 10
LOOKED_AT_MAX = 1_000
CLOSE_AGAIN_MS = 10


class Crowd(Protocol):
    """The connections of one listener, in the order in which they came."""

    listener: str
    connections: dict[Connection, None]

    def forget(self, connection: Connection) -> None:
        """Count a connection out."""
        ...

    def note(self, reason: str) -> None:
        """A connection is ended for this."""
        ...


@final
class ConnectionCounts:
    """A node's, which its listeners share."""

    def __init__(self, clock: Clock, protected: str | None = None) -> None:
        """``protected``: the listener that nodes use among themselves, where clients have another."""
        self.protected = protected
        # ``max.connections`` of the node.
        self.connections_max = INT_MAX
        # ``max.connections.per.ip``, and other limits of single addresses, as of ``canonical_host``.
        self.per_host_max = INT_MAX
        self.per_host_overrides: Mapping[str, int] = {}
        self.crowds: list[Crowd] = []
        self._clock = clock
        self._total = 0
        self._listeners: Counter[str] = Counter()
        self._hosts: Counter[str] = Counter()
        self._timer: Timer | None = None

    def refusal(self, listener: str, host: str, listener_max: int) -> str | None:
        """The limit that one more connection would be over; None: there may be one."""
        if self._listeners[listener] >= listener_max:
            return f"max.connections ({listener_max})"
        if listener != self.protected and self._total >= self.connections_max:
            return f"max.connections ({self.connections_max})"
        host = canonical_host(host)
        host_max = self.per_host_overrides.get(host)
        if host_max is None:
            return None if self._hosts[host] < self.per_host_max else f"{PER_IP} ({self.per_host_max})"
        return None if self._hosts[host] < host_max else f"{PER_IP}.overrides ({host_max})"

    def add(self, listener: str, host: str) -> None:
        """A connection has been taken."""
        self._total += 1
        self._listeners[listener] += 1
        self._hosts[canonical_host(host)] += 1
        if self._total > self.connections_max:
            self.make_room()

    def remove(self, listener: str, host: str) -> None:
        """And is gone."""
        self._total -= 1
        self._listeners[listener] -= 1
        host = canonical_host(host)
        self._hosts[host] -= 1
        if not self._hosts[host]:
            del self._hosts[host]

    def make_room(self) -> None:
        """Close connections of clients while there are more than may be."""
        if self._timer is None:
            self._close_some()

    def close(self) -> None:
        """Make no more room."""
        if self._timer is not None:
            self._timer.cancel()

    def _close_some(self) -> None:
        self._timer = None
        over = self._total - self.connections_max
        if over <= 0:
            return
        found = self._least_used(min(over, CLOSED_AT_ONCE_MAX))
        for crowd, connection in found:
            log.info(
                "%s: closing the connection: max.connections (%d) is exceeded",
                connection,
                self.connections_max,
            )
            crowd.note("room")
            crowd.forget(connection)
            connection.abort()
        if found and self._total > self.connections_max:
            self._timer = self._clock.call_later(CLOSE_AGAIN_MS, self._close_some)

    def _least_used(self, count: int) -> list[tuple[Crowd, Connection]]:
        """So many of clients' connections that are missed least: on which nothing has moved for long, or for
        which nothing is being worked on, or else the oldest. (Kafka knows which was used least recently.)"""
        candidates = (
            (connection.active, not connection.idle, crowd, connection)
            for crowd in self.crowds
            if crowd.listener != self.protected
            for connection in islice(crowd.connections, LOOKED_AT_MAX)
        )
        least = nsmallest(count, candidates, key=lambda one: one[:2])
        return [(crowd, connection) for _, _, crowd, connection in least]
