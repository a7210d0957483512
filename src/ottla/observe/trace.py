"""Traces: who asks for what, as it happens, for one who reads along for a bounded time.

A trace never holds requests up: what its reader does not take, and what is more than so many lines in a
second, is left out and counted.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from ottla.env.clock import Clock
from ottla.numbers import parse_whole
from ottla.observe.bodies import body_of
from ottla.observe.described import describe, read_head
from ottla.observe.http import Response, Stream
from ottla.observe.request import Request
from ottla.observe.requests import Seen
from ottla.observe.watching import Watching
from ottla.wire.apis import BY_NAME

TRACES_MAX = 4
SECONDS_DEFAULT, SECONDS_MAX = 30, 600
# Lines in a second; with bodies, which take longer to be made.
LINES_PER_SECOND_MAX, BODIES_PER_SECOND_MAX = 1_000, 200
SECOND_MS = 1_000
# What waits for the reader.
UNREAD_BYTES_MAX = 1024 * 1024
# Lines are sent together that come within so long.
TOGETHER_MS = 50
# How long the last lines may take to be taken.
TAKEN_MS_MAX = 5_000
JSON_LINES = "application/x-ndjson"


class Wanted(NamedTuple):
    """Which requests are told of. A text is exact, or the beginning of what it stands for, with ``*`` behind
    it; None, or no APIs: all."""

    client: str | None = None
    host: str | None = None
    principal: str | None = None
    apis: frozenset[int] = frozenset()
    seconds: int = SECONDS_DEFAULT
    bodies: bool = False


def parse(query: str) -> Wanted:
    """What is asked for. ValueError says what cannot be understood."""
    values: dict[str, str] = {}
    apis = set()
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name == "api":
            apis.add(_api(value))
        elif name in values or name not in ("client", "host", "principal", "seconds", "bodies"):
            raise ValueError(f"{name!r} is not understood")
        else:
            values[name] = value
    seconds = parse_whole(values.get("seconds", str(SECONDS_DEFAULT)), 1, SECONDS_MAX)
    if seconds is None:
        raise ValueError(f"seconds must be a whole number from 1 to {SECONDS_MAX}")
    if values.get("bodies", "0") not in ("0", "1"):
        raise ValueError("bodies must be 0 or 1")
    return Wanted(
        values.get("client"),
        values.get("host"),
        values.get("principal"),
        frozenset(apis),
        seconds,
        values.get("bodies") == "1",
    )


def _api(name: str) -> int:
    for known, api in BY_NAME.items():
        if known.lower() == name.lower():
            return api.key
    raise ValueError(f"there is no API {name!r}")


def matches(pattern: str | None, text: str) -> bool:
    """Whether a text is the one that is wanted."""
    if pattern is None:
        return True
    return text.startswith(pattern[:-1]) if pattern.endswith("*") else text == pattern


class Trace:
    """One trace, from when its ``lines`` are asked for until they end."""

    def __init__(self, node_id: int, wanted: Wanted, watching: Watching, clock: Clock) -> None:
        self._node_id = node_id
        self._wanted = wanted
        self._watching = watching
        self._clock = clock
        self._lines_max = BODIES_PER_SECOND_MAX if wanted.bodies else LINES_PER_SECOND_MAX
        # Lines that wait for the reader, and their bytes.
        self._unread: list[bytes] = []
        self._unread_bytes = 0
        # Set when there are any, or time is over.
        self._due = asyncio.Event()
        self._second_ends_ms = 0
        self._lines = 0
        # What was left out since it was last told, and in all.
        self._over_rate = 0
        self._over_room = 0
        self._requests = 0
        self._missed = 0

    async def lines(self, running: set[Trace]) -> AsyncGenerator[bytes, None]:
        """The trace, some lines at a time. It is among those that run until it ends."""
        began_ms = self._clock.monotonic_ms()
        ends_ms = began_ms + self._wanted.seconds * SECOND_MS
        timer = self._clock.call_later(self._wanted.seconds * SECOND_MS, self._due.set)
        self._watching.listen(self.told, to_frames=self._wanted.bodies)
        running.add(self)
        try:
            yield _line({"node": self._node_id, "seconds": self._wanted.seconds})
            while self._clock.monotonic_ms() < ends_ms:
                await self._due.wait()
                await asyncio.sleep(TOGETHER_MS / 1000)
                self._due.clear()
                if self._unread or self._over_rate or self._over_room:
                    yield self._take()
            yield self._take() + _line({"ended": True, "requests": self._requests, "missed": self._missed})
        finally:
            timer.cancel()
            self._watching.leave(self.told)
            running.remove(self)

    def told(self, seen: Seen) -> None:
        """A request was answered."""
        wanted = self._wanted
        if wanted.apis and seen.api_key not in wanted.apis:
            return
        client = seen.client
        if not matches(wanted.host, client.host):
            return
        if wanted.principal is not None and not matches(wanted.principal, str(client.principal)):
            return
        head = read_head(seen.frame)
        if not matches(wanted.client, head.client_id or ""):
            return
        self._requests += 1
        if not self._has_room():
            return
        told: dict[str, Any] = {"time_ms": self._clock.now_ms(), "node": self._node_id}
        told |= describe(seen, head)._asdict()
        if wanted.bodies:
            told["body"] = body_of(seen, head)
        line = _line(told)
        self._unread.append(line)
        self._unread_bytes += len(line)
        self._due.set()

    def _has_room(self) -> bool:
        now_ms = self._clock.monotonic_ms()
        if now_ms >= self._second_ends_ms:
            self._second_ends_ms = now_ms + SECOND_MS
            self._lines = 0
        if self._lines >= self._lines_max:
            self._over_rate += 1
        elif self._unread_bytes >= UNREAD_BYTES_MAX:
            self._over_room += 1
        else:
            self._lines += 1
            return True
        self._missed += 1
        self._due.set()
        return False

    def _take(self) -> bytes:
        """What waits for the reader, with what is missing in it."""
        lines, self._unread = self._unread, []
        self._unread_bytes = 0
        if self._over_rate or self._over_room:
            lines.append(_line({
                "node": self._node_id, "missed": self._over_rate + self._over_room,
                "over_rate": self._over_rate, "unread": self._over_room,
            }))  # fmt: skip
            self._over_rate = self._over_room = 0
        return b"".join(lines)


def _line(document: dict[str, Any]) -> bytes:
    return json.dumps(document).encode() + b"\n"


class Traces:
    """All traces of a node: so many at a time."""

    def __init__(self, node_id: int, watching: Watching, clock: Clock) -> None:
        self._node_id = node_id
        self._watching = watching
        self._clock = clock
        self._running: set[Trace] = set()

    async def answer(self, request: Request) -> Response | Stream:
        """The route of ``/trace``."""
        try:
            wanted = parse(request.query)
        except ValueError as error:
            return Response(HTTPStatus.BAD_REQUEST, f"{error}\n".encode("utf-8", "backslashreplace"))
        if request.method == "HEAD":
            return Response(HTTPStatus.OK, b"", JSON_LINES)
        if len(self._running) >= TRACES_MAX:
            why = f"there are {TRACES_MAX} traces already: end one of them\n"
            return Response(HTTPStatus.SERVICE_UNAVAILABLE, why.encode())
        trace = Trace(self._node_id, wanted, self._watching, self._clock)
        lasts_ms = wanted.seconds * SECOND_MS + TAKEN_MS_MAX
        return Stream(trace.lines(self._running), lasts_ms, JSON_LINES)
