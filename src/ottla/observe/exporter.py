"""Sends a node's metrics, and those of its clients, to an OpenTelemetry collector: OTLP by HTTP, in protobuf.

Each ``otlp.interval.ms`` one request, or some where clients have sent much. What cannot be sent of the node's
own is told the next time, since it is counted from the start; what clients have sent is kept meanwhile, up to
a limit, the last of it.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
from collections import deque
from collections.abc import Generator, Mapping
from functools import partial
from itertools import chain
from typing import Final
from urllib.error import HTTPError

from ottla import __version__
from ottla.config.observing import OTLP_HEADERS, OTLP_INTERVAL, parse_headers
from ottla.env.aside import aside
from ottla.env.clock import Timer
from ottla.env.fetch import post_url
from ottla.env.resources import of_process
from ottla.observe.catalogue import METRICS
from ottla.observe.exposition import Page
from ottla.observe.otlp import Written, named
from ottla.observe.parts import Parts
from ottla.observe.scrape import Scrape
from ottla.observe.watching import Watching

log = logging.getLogger(__name__)

# What is kept of clients' while it cannot be sent, and how much is sent in one request, before it is packed.
KEPT_BYTES_MAX: Final = 8 * 1024 * 1024
SENT_BYTES_MAX: Final = 2 * 1024 * 1024
# How long the collector may take for one request, and how much it may answer.
TIMEOUT_S: Final = 10.0
ANSWER_BYTES_MAX: Final = 64 * 1024
# It cannot be understood, ever: it is not sent again. Where it is of several clients, those that it is
# because of are looked for, until so many requests were refused.
REFUSED_MAX: Final = 64
_NEVER: Final = frozenset((400, 413, 415, 422))
_HEADERS: Final = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip"}


class Exporter:
    """``start``, and ``close`` in the end; then it may be started again, with another endpoint."""

    def __init__(self, parts: Parts, scrape: Scrape, watching: Watching) -> None:
        self._parts = parts
        self._scrape = scrape
        self._watching = watching
        self._clock = parts.services.clock
        # Since when counters count, in Unix time.
        found = of_process()
        self._start_ns = (
            round(found.started_s * 1e9) if found is not None else self._clock.now_ms() * 1_000_000
        )
        self._endpoint = ""
        self._kept: deque[bytes] = deque()
        self._timer: Timer | None = None
        self._sending: asyncio.Task[None] | None = None

    def start(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._parts.services.telemetry.forward = self._keep
        self._parts.services.telemetry.readers += 1
        self._watching.begin()
        self._arm()
        log.info("metrics are sent to %s", endpoint)

    def close(self) -> None:
        """Send nothing any more."""
        if not self._endpoint:
            return
        self._endpoint = ""
        self._parts.services.telemetry.forward = None
        self._parts.services.telemetry.readers -= 1
        self._watching.end()
        self._kept.clear()
        self._parts.exports.kept_bytes = 0
        if self._timer is not None:
            self._timer.cancel()
        sending, self._sending = self._sending, None
        if sending is not None:
            sending.cancel()

    def _keep(self, who: Mapping[str, str | None], metrics: bytes) -> Generator[None, None, None]:
        """A client has sent something."""
        made = yield from named(metrics, who)
        if not made:
            self._parts.exports.dropped_bytes += len(metrics)
        elif self._endpoint:
            self._kept.append(made)
            self._count(len(made))

    def _count(self, change: int) -> None:
        """So many bytes more are kept; where that is too much, the oldest are dropped."""
        exports = self._parts.exports
        exports.kept_bytes += change
        while exports.kept_bytes > KEPT_BYTES_MAX:
            dropped = len(self._kept.popleft())
            exports.kept_bytes -= dropped
            exports.dropped_bytes += dropped

    def _arm(self) -> None:
        self._timer = self._clock.call_later(self._parts.services.config.get(OTLP_INTERVAL), self._send)

    def _send(self) -> None:
        self._sending = asyncio.ensure_future(self._send_all())
        self._sending.add_done_callback(self._sent)

    def _sent(self, sending: asyncio.Task[None]) -> None:
        if not sending.cancelled() and (error := sending.exception()) is not None:
            log.error("metrics cannot be sent", exc_info=error)
        # It may have been closed meanwhile, and started again.
        if self._sending is sending:
            self._sending = None
            self._arm()

    async def _send_all(self) -> None:
        exports = self._parts.exports
        try:
            await self._post(await self._own())
            while self._kept:
                await self._send_kept()
        except OSError as error:
            exports.failures += 1
            if not exports.is_failing:
                log.warning("metrics cannot be sent to %s: %s", self._endpoint, _why(error))
            exports.is_failing = True
            return
        if exports.is_failing:
            log.info("metrics are sent to %s again", self._endpoint)
        exports.is_failing = False
        exports.count += 1

    async def _own(self) -> bytes:
        """What a scrape finds, as a message."""
        parts, page = self._parts, await self._scrape.page()
        resource = {
            "service.name": "ottla",
            "service.version": __version__,
            "service.instance.id": str(parts.services.node_id),
            "ottla.cluster.id": parts.services.metadata.image.cluster_id,
        }
        now_ms = self._clock.now_ms()
        written = Written(resource, self._start_ns, now_ms * 1_000_000)
        await parts.services.slices.run(_each(written, page))
        return written.message()

    async def _send_kept(self) -> None:
        """Send some of what clients have sent, the oldest first. OSError where it is to be sent later, or
        some of it will never be taken."""
        batch = [self._kept.popleft()]
        size = len(batch[0])
        while self._kept and size + len(self._kept[0]) <= SENT_BYTES_MAX:
            batch.append(self._kept.popleft())
            size += len(batch[-1])
        self._count(-size)
        waiting, refused, tries = [batch], None, 0
        while waiting:
            part = waiting.pop()
            try:
                await self._post(b"".join(part))
            except OSError as error:
                if not (isinstance(error.__cause__, HTTPError) and error.__cause__.code in _NEVER):
                    left = [*part, *chain.from_iterable(reversed(waiting))]
                    self._kept.extendleft(reversed(left))
                    self._count(sum(map(len, left)))
                    raise
                refused, tries = error, tries + 1
                half = len(part) // 2
                if half and tries < REFUSED_MAX:
                    # One client may have sent what is malformed; the others have not.
                    waiting += [part[half:], part[:half]]
                else:
                    self._parts.exports.dropped_bytes += sum(map(len, part))
        if refused is not None:
            raise refused

    async def _post(self, message: bytes) -> None:
        """OSError: the collector has not taken it."""
        headers = _HEADERS | (parse_headers(self._parts.services.config.get(OTLP_HEADERS)) or {})
        await aside(partial(_post, self._endpoint, headers, message))


def _post(endpoint: str, headers: Mapping[str, str], message: bytes) -> None:
    packed = gzip.compress(message, 1)
    post_url(endpoint, headers, packed, timeout_s=TIMEOUT_S, bytes_max=ANSWER_BYTES_MAX)


def _each(written: Written, page: Page) -> Generator[None, None, None]:
    for metric in METRICS:
        yield from written.put(metric, page)
        yield


def _why(error: OSError) -> str:
    """In words, without the number and what urllib puts around it."""
    inner = getattr(error, "reason", None)
    error = inner if isinstance(inner, OSError) else error
    return error.strerror.lower() if error.strerror else str(error)
