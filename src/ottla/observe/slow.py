"""The log of slow requests: a line for each that kept its client waiting without having been asked to.

Whatever clients do, there are so many lines in a second and no more; how many were left out is told.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from ottla.env.clock import Clock, Timer
from ottla.observe.described import Told, as_ms, describe, read_head
from ottla.observe.patience import NS_PER_MS, SHORT_NS, asked_ns, excuse, unasked_ns
from ottla.observe.requests import Seen
from ottla.text import printable

log = logging.getLogger(__name__)

LINES_PER_SECOND_MAX = 10
SECOND_MS = 1_000

Write = Callable[[str, dict[str, object]], None]


def _warn(line: str, fields: dict[str, object]) -> None:
    log.warning("%s", line, extra={"fields": {"slow_request": fields}})


class SlowRequests:
    """A listener of the watcher. ``close`` it in the end."""

    def __init__(self, clock: Clock, limit_ms: int, write: Write = _warn) -> None:
        self.limit_ms = limit_ms
        self._clock = clock
        self._write = write
        # Lines of this second, and what was left out of it.
        self._lines = 0
        self._left_out = 0
        self._slowest_ns = 0
        self._second: Timer | None = None

    def __call__(self, seen: Seen) -> None:
        limit_ns = self.limit_ms * NS_PER_MS
        waits = seen.remote_ns >= SHORT_NS
        if not waits and not seen.throttle_ms and seen.queue_ns + seen.local_ns < limit_ns:
            return
        head = read_head(seen.frame)
        asked = 0
        if waits:
            asked = asked_ns(seen.api_key, head.version or 0, seen.frame, head.body_offset)
        took_ns = unasked_ns(seen, asked)
        excuse(seen, asked)
        if took_ns < limit_ns:
            return
        if self._second is None:
            self._second = self._clock.call_later(SECOND_MS, self._next_second)
        if self._lines >= LINES_PER_SECOND_MAX:
            self._left_out += 1
            self._slowest_ns = max(self._slowest_ns, took_ns)
            return
        self._lines += 1
        took_ms, told = as_ms(took_ns), describe(seen, head)
        self._write(line_of(took_ms, told), {"took_ms": took_ms, **told._asdict()})

    def _next_second(self) -> None:
        self._second = None
        left_out, slowest_ms = self._left_out, as_ms(self._slowest_ns)
        self._lines = self._left_out = self._slowest_ns = 0
        if left_out:
            self._write(
                f"{left_out} more slow requests within a second, the slowest took {slowest_ms} ms",
                {"left_out": left_out, "slowest_ms": slowest_ms},
            )

    def close(self) -> None:
        if self._second is not None:
            self._second.cancel()
            self._next_second()


def line_of(took_ms: float, told: Told) -> str:
    """A request in one line, for people."""
    client = "" if told.client_id is None else f" client {told.client_id!r}"
    version = "" if told.version is None else f" v{told.version}"
    came = "" if told.request_bytes is None else f"{told.request_bytes} bytes, "
    line = (
        f"slow: {told.api}{version} of {told.host}{client} ({told.principal}) took {took_ms} ms: "
        f"queue {told.queue_ms}, local {told.local_ms}, remote {told.remote_ms}, "
        f"throttle {told.throttle_ms}; {came}answered with {told.response_bytes}"
    )
    if told.ended_connection:
        line += "; it ended its connection"
    if told.error is not None:
        line += f"; {told.error}" + (f" and {told.errors - 1} more" if told.errors > 1 else "")
    return printable(line)
