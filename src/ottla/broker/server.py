"""A listener: accepts connections, bounds their number, and closes those that have gone silent."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ottla.broker.connection import Connection
from ottla.broker.connection_counts import PER_IP, ConnectionCounts
from ottla.broker.memory import SMALL_REQUEST_BYTES, Memory
from ottla.broker.pipeline import Handle
from ottla.broker.quotas import NodeQuotas
from ottla.broker.turn import Turn
from ottla.env.clock import Clock, Timer
from ottla.env.network import Listener, Network
from ottla.security.acl_bindings import canonical_host
from ottla.wire.framing import SCRATCH_BYTES

if TYPE_CHECKING:
    from ottla.security.quotas import ConnectionRates

log = logging.getLogger(__name__)

# How often is looked, while the memory is full, for requests that do not go on, and so keep others waiting;
# and for clients that wait though it is not.
PRESSURE_MS = 10_000
# File descriptors, of those that the process may have, that connections must leave to logs, checkpoints and
# modules that are not loaded yet: a quarter, and no more than this.
DESCRIPTORS_KEPT_MAX = 256
# How long a stopping server waits for requests that are being worked on.
DRAIN_MS_MAX = 5_000


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Kafka's socket and connection limits (bytes, milliseconds, counts)."""

    request_bytes_max: int = 104_857_600  # socket.request.max.bytes
    idle_ms_max: int = 600_000  # connections.max.idle.ms
    connections_max: int = 2**31 - 1  # max.connections, of this listener


class Counts:
    """What has become of connections so far."""

    __slots__ = ("accepted", "delayed", "ended", "login_failures", "logins", "refused")

    def __init__(self) -> None:
        self.accepted = self.delayed = 0
        # How often clients have logged in, and have not succeeded in that.
        self.logins = self.login_failures = 0
        # By the limit that they were beyond; by the reason that they were ended for.
        self.refused: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()


class Server:
    """One listener and its connections."""

    def __init__(
        self,
        limits: ServerLimits,
        clock: Clock,
        network: Network,
        turn: Turn,
        memory: Memory,
        *,
        listener: str = "PLAINTEXT",
        refuses: Callable[[], bool] | None = None,
        quotas: NodeQuotas | None = None,
        files_max: int = 1 << 31,
        node_counts: ConnectionCounts | None = None,
    ) -> None:
        """``files_max``: how many files and connections the process may have open. ``node_counts``: of all
        its listeners together, if there are others."""
        # Set before the server starts: what it serves needs to know the address that was bound.
        self.handle: Handle
        # Finds out whose a connection is, as far as that can be seen before anything comes on it.
        self.greet: Callable[[Connection, asyncio.BaseTransport], None] | None = None
        self.listener = listener
        self.serves = False
        self.request_bytes_max = limits.request_bytes_max
        # All connections receive small requests into this: it is filled and emptied in one step.
        self.scratch = memoryview(bytearray(SCRATCH_BYTES))
        # In the order in which they came: a dict, since what is gone through must not follow addresses.
        self.connections: dict[Connection, None] = {}
        self.turn = turn
        self.memory = memory
        self.counts = Counts()
        self._stopping = False
        self._descriptors_kept = min(DESCRIPTORS_KEPT_MAX, files_max // 4)
        self._descriptors_max = files_max - self._descriptors_kept
        self._said_full = False
        self._limits = limits
        self._clock = clock
        self._network = network
        self._refuses = refuses
        self._quotas = quotas
        self._node_counts = ConnectionCounts(clock) if node_counts is None else node_counts
        self._node_counts.crowds.append(self)
        self._bound: Listener | None = None
        self._sweep: Timer | None = None
        self._relief: Timer | None = None

    async def bind(self, host: str, port: int) -> tuple[str, int]:
        """Reserve the address, and return it as it was bound. OSError where it cannot be had."""
        self._bound = await self._network.bind(lambda: Connection(self), host, port)
        return self._bound.address

    async def start(self) -> None:
        """Begin to take connections, whose requests wait until ``serve``."""
        assert self._bound is not None
        await self._bound.start()
        self._schedule_sweep()
        self._relief = self._clock.call_later(PRESSURE_MS, self._relieve)

    def serve(self) -> None:
        """Begin to handle requests, those that have come by now as well."""
        self.serves = True
        for connection in self.connections:
            self.turn.later(connection.begin)

    async def stop(self) -> None:
        """Accept no more, let what is being worked on finish and be written, then close every connection."""
        self._stopping = True
        self._cancel_timers()
        if self._bound is not None:
            self._bound.close()
        for connection in self.connections:
            connection.drain()
        deadline_ms = self._clock.monotonic_ms() + DRAIN_MS_MAX
        while self._clock.monotonic_ms() < deadline_ms and not all(c.drained for c in self.connections):
            await asyncio.sleep(0.005)
        for connection in list(self.connections):
            if connection.drained:
                connection.end()
            else:
                log.warning(
                    "%s: closing the connection: its responses were not finished in time for the shutdown",
                    connection,
                )
                connection.abort()

    def abort(self) -> None:
        """Stop as a crash would: no answer to anything that is under way."""
        self._stopping = True
        self._cancel_timers()
        if self._bound is not None:
            self._bound.close()
        self.disconnect()

    def _cancel_timers(self) -> None:
        for timer in (self._sweep, self._relief):
            if timer is not None:
                timer.cancel()

    def disconnect(self) -> None:
        """Close every connection at once, without a word."""
        for connection in list(self.connections):
            connection.abort()

    def limit(self, limits: ServerLimits) -> None:
        """Put other limits in force for what comes; connections that are there stay."""
        self._limits = limits

    def admit(self, connection: Connection) -> bool:
        """Count a new connection in, or refuse it: over a limit, stopping, or because a test says so."""
        host = connection.client.host
        limit = self._limit_of(connection, host)
        if limit is not None:
            self.counts.refused[limit] += 1
            return False
        self.counts.accepted += 1
        self.connections[connection] = None
        self._node_counts.add(self.listener, host)
        return True

    def _limit_of(self, connection: Connection, host: str) -> str | None:
        """Which limit a new connection is beyond; None: it may come in."""
        if self._stopping or (self._refuses is not None and self._refuses()):
            return "stopping"
        if connection.descriptor >= self._descriptors_max:
            # The kernel gives the lowest that is free: those below are taken.
            self._say_full(host)
            return "files"
        limit = self._node_counts.refusal(self.listener, host, self._limits.connections_max)
        if limit is not None:
            log.warning(
                "%s: connection refused: %s is reached",
                host,
                limit,
                extra=_of_stranger(host),
            )
            return "connections_per_ip" if limit.startswith(PER_IP) else "connections"
        quotas = None if self._quotas is None else self._quotas.made
        rates = None if quotas is None else quotas.connections
        if rates is not None and rates.is_set and not self._pace(connection, rates):
            return "rate"
        return None

    def _pace(self, connection: Connection, rates: ConnectionRates) -> bool:
        """Refuse a connection of an address from which too many come a second (KIP-612); where too many come
        in all, it is heard later (KIP-402: Kafka takes it later)."""
        host = connection.client.host
        protected = self.listener == self._node_counts.protected
        now_ms = self._clock.monotonic_ms()
        entrance = rates.enter(self.listener, canonical_host(host), now_ms, protected=protected)
        if entrance.refuse_ms:
            log.info(
                "%s: connection refused: the quota connection_creation_rate of this address is exceeded",
                host,
                extra=_of_stranger(host),
            )
            return False
        if entrance.wait_ms:
            self.counts.delayed += 1
            connection.mute()
            self._clock.call_later(entrance.wait_ms, connection.unmute)
        return True

    def note(self, reason: str) -> None:
        self.counts.ended[reason] += 1

    def welcome(self, connection: Connection, transport: asyncio.BaseTransport) -> None:
        if self.greet is not None:
            self.greet(connection, transport)

    def _say_full(self, host: str) -> None:
        if not self._said_full:
            self._said_full = True
            log.warning(
                "%s: connection refused, too few file descriptors: new connections are refused "
                "until others close; raise the limit (ulimit -n); kept for logs: %d",
                host,
                self._descriptors_kept,
                extra=_of_stranger(host),
            )

    def forget(self, connection: Connection) -> None:
        """Count a connection out."""
        if connection not in self.connections:
            return
        self._said_full = False
        del self.connections[connection]
        self._node_counts.remove(self.listener, connection.client.host)

    def _schedule_sweep(self) -> None:
        if self._limits.idle_ms_max > 0:
            self._sweep = self._clock.call_later(self._limits.idle_ms_max, self._close_idle)

    def _close_idle(self) -> None:
        """Close what has not moved since the last sweep and waits for nothing (connections.max.idle.ms).

        One sweep per idle time costs nothing per request; a connection is closed after one to two of them.
        """
        # First of all: whatever comes of this sweep, there is a next one.
        self._schedule_sweep()
        self._look_at_each(self._close_if_idle)

    def _look_at_each(self, look: Callable[[Connection], None]) -> None:
        """Look at all connections, whatever is wrong with one of them."""
        for connection in list(self.connections):
            try:
                look(connection)
            except Exception:
                log.exception("%s: the connection cannot be checked", connection)

    def _close_if_idle(self, connection: Connection) -> None:
        if connection.active:
            connection.active = False
        elif not connection.receiving:
            self.note("stuck")
            log.warning("%s: closing the connection: no bytes were sent or received in time", connection)
            connection.abort()
        elif not connection.idle:
            return
        elif connection.mid_request:
            self.note("stuck")
            connection.refuse("it stopped in the middle of a request")
        else:
            self.note("idle")
            log.info("%s: closing the connection: idle", connection)
            connection.end()

    def _relieve(self) -> None:
        """While requests fill the memory, close those who have begun one and hardly go on; while there is
        room, have those who wait for some go on who were not told of it."""
        self._relief = self._clock.call_later(PRESSURE_MS, self._relieve)
        if self.memory.full:
            self._look_at_each(self._close_if_stalled)
        else:
            self.memory.tell_again()

    def _close_if_stalled(self, connection: Connection) -> None:
        if connection.stalls(SMALL_REQUEST_BYTES):
            self.note("stuck")
            log.warning("%s: closing the connection: its request keeps others waiting", connection)
            connection.abort()


def _of_stranger(host: str) -> dict[str, object]:
    """Whose line it is, for whoever limits how many there are."""
    return {"host": host, "is_stranger": True}
