"""A listener: accepts connections, bounds their number, and closes those that have gone silent."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ottla.broker.connection import Connection, Pending
from ottla.broker.deferred import Turn
from ottla.env.clock import Clock, Timer
from ottla.env.network import Listener, Network
from ottla.types import Buffer
from ottla.wire.framing import SCRATCH_BYTES

log = logging.getLogger(__name__)

Dispatch = Callable[[Connection, Buffer], "list[Any] | Pending | None"]

# Bytes of large responses that may be held, read but not yet taken by their clients, before further ones are
# kept small. One response may come on top, and something small, or one batch, for each client.
UNSENT_BYTES_MAX = 128 * 1024 * 1024
SMALL_RESPONSE_BYTES = 64 * 1024
# How long a stopping server waits for requests that are being worked on.
DRAIN_MS_MAX = 5_000


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Kafka's socket and connection limits (bytes, milliseconds, counts)."""

    request_bytes_max: int = 104_857_600  # socket.request.max.bytes
    idle_ms_max: int = 600_000  # connections.max.idle.ms
    connections_max: int = 2**31 - 1  # max.connections
    connections_per_host_max: int = 2**31 - 1  # max.connections.per.ip


class Server:
    """One listener and its connections."""

    def __init__(
        self,
        limits: ServerLimits,
        clock: Clock,
        network: Network,
        turn: Turn,
        *,
        listener: str = "PLAINTEXT",
        refuses: Callable[[], bool] | None = None,
    ) -> None:
        # Set before the server starts: what it serves needs to know the address that was bound.
        self.dispatch: Dispatch
        self.listener = listener
        self.request_bytes_max = limits.request_bytes_max
        # All connections receive small requests into this: it is filled and emptied in one step.
        self.scratch = memoryview(bytearray(SCRATCH_BYTES))
        # In the order in which they came: a dict, since what is gone through must not follow addresses.
        self.connections: dict[Connection, None] = {}
        self.turn = turn
        self.stopping = False
        # What is read for responses and not sent: kept by those who hold it.
        self.unsent_bytes = 0
        self._limits = limits
        self._clock = clock
        self._network = network
        self._refuses = refuses
        self._per_host: Counter[str] = Counter()
        self._bound: Listener | None = None
        self._sweep: Timer | None = None

    async def bind(self, host: str, port: int) -> tuple[str, int]:
        """Reserve the address, and return it as it was bound. OSError where it cannot be had."""
        self._bound = await self._network.bind(lambda: Connection(self), host, port)
        return self._bound.address

    async def start(self) -> None:
        """Begin to take connections."""
        assert self._bound is not None
        await self._bound.start()
        self._schedule_sweep()

    async def stop(self) -> None:
        """Accept no more, let what is being worked on finish and be written, then close every connection."""
        self.stopping = True
        if self._sweep is not None:
            self._sweep.cancel()
        if self._bound is not None:
            self._bound.close()
        for connection in self.connections:
            connection.stop_reading()
        deadline_ms = self._clock.monotonic_ms() + DRAIN_MS_MAX
        while self._clock.monotonic_ms() < deadline_ms and not all(c.drained for c in self.connections):
            await asyncio.sleep(0.005)
        for connection in list(self.connections):
            if connection.drained:
                connection.close()
            else:
                log.warning("%s: closing the connection: its answers take too long for a stop", connection)
                connection.abort()

    def abort(self) -> None:
        """Stop as a crash would: no answer to anything that is under way."""
        self.stopping = True
        if self._sweep is not None:
            self._sweep.cancel()
        if self._bound is not None:
            self._bound.close()
        self.disconnect()

    def disconnect(self) -> None:
        """Close every connection at once, without a word."""
        for connection in list(self.connections):
            connection.abort()

    @property
    def room_bytes(self) -> int:
        """How large a response may be now, so that clients who do not read cannot fill the memory."""
        return max(UNSENT_BYTES_MAX - self.unsent_bytes, SMALL_RESPONSE_BYTES)

    def limit(self, limits: ServerLimits) -> None:
        """Put other limits in force for what comes; connections that are there stay."""
        self._limits = limits

    def admit(self, connection: Connection) -> bool:
        """Count a new connection in, or refuse it: over a limit, stopping, or because a test says so."""
        host = connection.client_host
        if self.stopping or (self._refuses is not None and self._refuses()):
            return False
        if len(self.connections) >= self._limits.connections_max:
            log.warning("%s: refused: max.connections (%d) is reached", host, self._limits.connections_max)
            return False
        if self._per_host[host] >= self._limits.connections_per_host_max:
            log.warning(
                "%s: refused: max.connections.per.ip (%d) is reached",
                host,
                self._limits.connections_per_host_max,
            )
            return False
        self._per_host[host] += 1
        self.connections[connection] = None
        return True

    def forget(self, connection: Connection) -> None:
        """Count a connection out."""
        if connection not in self.connections:
            return
        del self.connections[connection]
        self._per_host[connection.client_host] -= 1
        if not self._per_host[connection.client_host]:
            del self._per_host[connection.client_host]

    def _schedule_sweep(self) -> None:
        if self._limits.idle_ms_max > 0:
            self._sweep = self._clock.call_later(self._limits.idle_ms_max, self._close_idle)

    def _close_idle(self) -> None:
        """Close what has not moved since the last sweep and waits for nothing (connections.max.idle.ms).

        One sweep per idle time costs nothing per request; a connection is closed after one to two of them.
        """
        for connection in list(self.connections):
            if connection.active:
                connection.active = False
            elif not connection.reading:
                log.warning("%s: closing the connection: nothing moves on it", connection)
                connection.abort()
            elif not connection.idle:
                continue
            elif connection.mid_request:
                connection.refuse("it stopped in the middle of a request")
            else:
                log.info("%s: closing the connection: idle", connection)
                connection.close()
        self._schedule_sweep()
