"""Requests that are built once and sent over raw sockets, so that the broker, not the client, is the limit.

One epoll loop serves all connections of a process; each keeps a fixed number of requests in flight.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ottla.cli.bench.workers import Done, Start, values
from ottla.cli.errors import CliError

CLIENT_ID = b"ottla-bench"
RECEIVE_BYTES = 256 * 1024
FRAME = struct.Struct(">i")
ERROR_CODE = struct.Struct(">h")
# Versions without tagged fields that every broker of the last years still serves.
PRODUCE, PRODUCE_VERSION = 0, 8
METADATA, METADATA_VERSION = 3, 7
API_VERSIONS, API_VERSIONS_VERSION = 18, 0
STALL_S_MAX = 10.0


@dataclass(frozen=True, slots=True)
class RawLoad:
    """What one process sends. Each connection goes to an address and has its own request."""

    connections: tuple[tuple[str, int, bytes], ...]
    in_flight: int
    seconds: float
    warmup_s: float
    # Where in a response the error code is, counted from behind its size; -1 where we do not look.
    error_position: int


def frame(api_key: int, version: int, body: bytes) -> bytes:
    """A request with its size and a header of version 1."""
    head = struct.pack(">hhih", api_key, version, 1, len(CLIENT_ID)) + CLIENT_ID
    return FRAME.pack(len(head) + len(body)) + head + body


def produce_request(topic: str, partition: int, count: int, size: int, acks: int) -> bytes:
    """A Produce request of one batch with ``count`` records."""
    from ottla.types import Record
    from ottla.wire.messages import encode_request
    from ottla.wire.records import build_batch

    now_ms = int(time.time() * 1000)
    batch = build_batch([Record(0, now_ms, None, value) for value in values(count, size, partition + 1)])
    body = encode_request(
        PRODUCE,
        PRODUCE_VERSION,
        {
            "transactional_id": None,
            "acks": acks,
            "timeout_ms": 30_000,
            "topic_data": [{"name": topic, "partition_data": [{"index": partition, "records": batch}]}],
        },
    )
    return frame(PRODUCE, PRODUCE_VERSION, body)


def produce_error_position(topic: str) -> int:
    """Where the error code is in the response to ``produce_request``."""
    correlation, topics, name_size, partitions, index = 4, 4, 2, 4, 4
    return correlation + topics + name_size + len(topic.encode()) + partitions + index


def metadata_request(topic: str) -> bytes:
    """A Metadata request for one topic."""
    from ottla.wire.messages import encode_request

    fields = {"topics": [{"name": topic}], "allow_auto_topic_creation": False}
    return frame(METADATA, METADATA_VERSION, encode_request(METADATA, METADATA_VERSION, fields))


def api_versions_request() -> bytes:
    """An ApiVersions request."""
    return frame(API_VERSIONS, API_VERSIONS_VERSION, b"")


class _Connection:
    """One socket: requests out, whole responses in, the time of each in between."""

    __slots__ = ("_rest", "_sent_s", "_unsent", "_view", "request", "socket")

    def __init__(self, host: str, port: int, request: bytes) -> None:
        self.socket = socket.create_connection((host, port), timeout=5)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.request = request
        self._view = memoryview(request)
        self._unsent: memoryview | None = None
        self._rest = b""
        self._sent_s: deque[float] = deque()

    def send(self, count: int) -> int:
        """Send up to ``count`` requests; return how many could not be begun."""
        while True:
            if self._unsent is None:
                if not count:
                    return 0
                count -= 1
                self._sent_s.append(time.monotonic())
                self._unsent = self._view
            try:
                done = self.socket.send(self._unsent)
            except BlockingIOError:
                return count
            self._unsent = None if done == len(self._unsent) else self._unsent[done:]

    @property
    def writing(self) -> bool:
        return self._unsent is not None

    def receive(self, error_position: int, latencies: list[float]) -> tuple[int, int]:
        """(responses, failed ones among them) that have arrived whole. ConnectionError when closed."""
        try:
            data = self.socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return 0, 0
        if not data:
            raise ConnectionError("the broker closed the connection")
        data = self._rest + data
        position = count = failed = 0
        now = time.monotonic()
        while len(data) - position >= 4:
            (size,) = FRAME.unpack_from(data, position)
            if len(data) - position - 4 < size:
                break
            if error_position >= 0:
                failed += ERROR_CODE.unpack_from(data, position + 4 + error_position)[0] != 0
            position += 4 + size
            count += 1
            latencies.append(now - self._sent_s.popleft())
        self._rest = data[position:]
        return count, failed


def run(load: RawLoad, start: Start, progress: Any, index: int) -> Done:
    """Warm up, meet the others at ``start``, then keep every connection busy for the time given."""
    loop = _Loop(load)
    try:
        loop.run(load.warmup_s)
        start.wait()
        loop.forget()
        began_s, cpu_s = time.monotonic(), time.process_time()
        loop.run(load.seconds, lambda count: progress.__setitem__(index, count))
        ended_s, used_s = time.monotonic(), time.process_time() - cpu_s
    finally:
        loop.close()
    if loop.failed and loop.error is None:
        loop.error = f"{loop.failed} of {loop.count} requests were refused"
    size = len(load.connections[0][2])
    return Done(
        loop.count,
        loop.count * size,
        loop.failed,
        began_s,
        ended_s,
        used_s,
        tuple(loop.latencies_s),
        loop.error,
    )


class _Loop:
    """The epoll loop over a process's connections, and what it has counted."""

    def __init__(self, load: RawLoad) -> None:
        self._error_position = load.error_position
        if not hasattr(select, "epoll"):
            raise CliError("raw requests are sent with epoll, which Linux alone has")
        self._poller = select.epoll()
        self._connections: dict[int, _Connection] = {}
        # Requests that may be sent on each connection without exceeding what it may have in flight.
        self._allowed: dict[int, int] = {}
        self.count = self.failed = 0
        self.latencies_s: list[float] = []
        self.error: str | None = None
        for host, port, request in load.connections:
            connection = _Connection(host, port, request)
            fd = connection.socket.fileno()
            self._connections[fd], self._allowed[fd] = connection, load.in_flight
            self._poller.register(fd, select.EPOLLIN | select.EPOLLOUT)

    def forget(self) -> None:
        """Leave out of the figures what was done so far."""
        self.count = self.failed = 0
        self.latencies_s.clear()

    def run(self, seconds: float, show: Callable[[int], None] = lambda count: None) -> None:
        """Send and receive for so long; ends early, with ``error`` set, where the broker stops answering."""
        now = last_s = time.monotonic()
        end_s = now + seconds
        while now < end_s and self.error is None:
            before = self.count
            for fd, mask in self._poller.poll(0.1):
                self._serve(fd, mask)
            now = time.monotonic()
            if self.count != before:
                last_s = now
                show(self.count)
            elif now - last_s > STALL_S_MAX:
                self.error = f"no answer for {STALL_S_MAX:.0f} s"

    def _serve(self, fd: int, mask: int) -> None:
        connection = self._connections[fd]
        try:
            if mask & ~select.EPOLLOUT:
                count, failed = connection.receive(self._error_position, self.latencies_s)
                self.count += count
                self.failed += failed
                self._allowed[fd] += count
            self._allowed[fd] = connection.send(self._allowed[fd])
        except OSError as error:
            self.error = error.strerror or str(error)
            return
        writing = connection.writing
        if writing != bool(mask & select.EPOLLOUT):
            self._poller.modify(fd, select.EPOLLIN | (select.EPOLLOUT if writing else 0))

    def close(self) -> None:
        self._poller.close()
        for connection in self._connections.values():
            connection.socket.close()
