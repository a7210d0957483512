"""Watches requests: how many there are of each API, how long each of their stages takes, what fails.

Stages: ``queue``, from when a request had come until it was handled, since others were before it; ``local``,
its handling on the event loop, without what was handled within it for others; ``remote``, from then until
its answer was sent, where that was pending; ``throttle``, for how long its client was not listened to
afterwards, for being over a quota. A stage that did not occur took no time.

This is compiled, and has a budget: one microsecond for each request.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable
from typing import Any, Final, final

from ottla.broker.pending import Pending, Pieces
from ottla.broker.pipeline import Handle
from ottla.broker.request import Client, Fields, Usage
from ottla.env.clock import monotonic_ns
from ottla.types import Buffer
from ottla.wire.apis import APIS
from ottla.wire.primitives import TooManyElements

log: Final = logging.getLogger(__name__)

# Up to how long each range goes.
BOUNDS_NS: Final = (
    50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000, 20_000_000, 50_000_000,
    100_000_000, 200_000_000, 500_000_000, 1_000_000_000, 2_000_000_000, 5_000_000_000,
)  # fmt: skip
# The slowest handling is told of this and the last so long.
WINDOW_NS: Final = 60_000_000_000
# Elements of an answer that are looked through for errors.
LOOKED_AT_MAX: Final = 1_000
# The size before each frame.
SIZE_BYTES: Final = 4
# What stands for an API that there is none of.
UNKNOWN: Final = -1

_bisect: Final = bisect_left


@final
class StageTimes:
    """How often something took how long. What took no time is not noted."""

    __slots__ = ("counts", "sum_ns")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_NS) + 1)
        self.sum_ns = 0

    def add(self, took_ns: int) -> None:
        self.counts[_bisect(BOUNDS_NS, took_ns)] += 1
        self.sum_ns += took_ns


@final
class ApiCounts:
    """What there was of one API."""

    __slots__ = (
        "closed", "errors", "local", "pended", "queue", "remote", "request_bytes", "requests",
        "response_bytes",
        "slowest_before_ns", "slowest_ns", "throttle", "too_large",
    )  # fmt: skip

    def __init__(self) -> None:
        self.requests = 0
        self.request_bytes = 0
        self.response_bytes = 0
        # Requests whose answers were pending; not all of them come to be sent.
        self.pended = 0
        # Requests that ended their connection; those that did since they had too many elements.
        self.closed = 0
        self.too_large = 0
        # How often each error code was answered, ``none`` aside.
        self.errors: dict[int, int] = {}
        self.queue = StageTimes()
        self.local = StageTimes()
        self.remote = StageTimes()
        self.throttle = StageTimes()
        # The slowest handling of this window, and of the one before.
        self.slowest_ns = 0
        self.slowest_before_ns = 0


@final
class Seen:
    """One request, once it is answered. ``frame``: its first bytes, or all of them."""

    __slots__ = (
        "api_key",
        "began_ns",
        "client",
        "ended_connection",
        "frame",
        "local_ns",
        "pieces",
        "queue_ns",
        "remote_ns",
        "request_bytes",
        "response_bytes",
        "throttle_ms",
    )

    def __init__(
        self,
        client: Client,
        api_key: int,
        frame: Buffer,
        request_bytes: int,
        began_ns: int,
        queue_ns: int,
        local_ns: int,
    ) -> None:
        self.client = client
        self.api_key = api_key
        self.frame = frame
        self.request_bytes = request_bytes
        # By the watcher's clock: when it began to be handled.
        self.began_ns = began_ns
        self.queue_ns = queue_ns
        self.local_ns = local_ns
        self.remote_ns = 0
        self.throttle_ms = 0
        # 0 where there was no answer.
        self.response_bytes = 0
        # Its answer, for as long as listeners are told.
        self.pieces: Pieces | None = None
        # Whether it got no answer since it ended its connection.
        self.ended_connection = False


Listener = Callable[[Seen], None]
# As much of a request as its listeners see: its header is in it, but for a client id that is very long.
SEEN_BYTES: Final = 1024
# Where a header has its client's id, behind key, version and correlation id; as much as is kept of it.
CLIENT_ID_AT: Final = 8
CLIENT_ID_BYTES_MAX: Final = 128


@final
class RequestWatcher:
    """Put before requests' handling by ``Gate.watch``. ``counts`` is for reading, by API."""

    __slots__ = ("_nested_ns", "_now_ns", "_window_ends_ns", "counts", "keeps_frames", "listeners")

    def __init__(self, now_ns: Callable[[], int] = monotonic_ns) -> None:
        self.counts: dict[int, ApiCounts] = {}
        # Told of each request when it is answered: who logs the slow ones, who traces.
        self.listeners: tuple[Listener, ...] = ()
        # Whether they are shown all of it. What is pending is kept until then anyway, and counted.
        self.keeps_frames = False
        self._now_ns = now_ns
        # What was handled within what is being handled.
        self._nested_ns = 0
        self._window_ends_ns = now_ns() + WINDOW_NS

    def answer(self, client: Client, frame: Buffer, handle: Handle) -> list[Any] | Pending | None:
        began_ns = self._now_ns()
        key = _key(frame)
        counts = self.counts.get(key)
        if counts is None:
            counts = self._find(key)
        frame_bytes = len(frame) + SIZE_BYTES
        counts.requests += 1
        counts.request_bytes += frame_bytes
        usage = client.usage
        if usage is None:
            usage = client.usage = Usage(client_id_of(frame))
        usage.requests += 1
        usage.request_bytes += frame_bytes
        queue_ns = client.waited_ns
        if queue_ns:
            client.waited_ns = 0
            counts.queue.add(queue_ns)
        outer_ns, self._nested_ns = self._nested_ns, 0
        is_answered = False
        try:
            answer = handle(client, frame)
            is_answered = True
        except TooManyElements:
            counts.too_large += 1
            raise
        finally:
            ended_ns = self._now_ns()
            took_ns = ended_ns - began_ns
            local_ns = took_ns - self._nested_ns
            self._nested_ns = outer_ns + took_ns
            counts.local.add(local_ns)
            usage.busy_ns += local_ns
            if local_ns > counts.slowest_ns:
                counts.slowest_ns = local_ns
            if ended_ns >= self._window_ends_ns:
                self._begin_window(ended_ns)
            seen: Seen | None = None
            if self.listeners:
                seen = self._seen(client, key, frame, began_ns, queue_ns, local_ns)
            if not is_answered:
                self._closed(counts, seen)
        if isinstance(answer, Pending):
            counts.pended += 1
            answer.charge = Answering(self, counts, client, ended_ns, answer.charge, seen)
            return answer
        self._answered(counts, client, answer, seen)
        return answer

    def _answered(self, counts: ApiCounts, client: Client, answer: Pieces | None, seen: Seen | None) -> None:
        """A request was answered at once, or needs no answer."""
        if answer is not None:
            size = 0
            for piece in answer:
                size += len(piece)
            counts.response_bytes += size
            if client.usage is not None:
                client.usage.response_bytes += size
            if seen is not None:
                seen.response_bytes = size
        if client.throttled_ms:
            self.throttled(counts, client, seen)
        if seen is not None:
            self.tell(seen, answer)

    def _seen(
        self, client: Client, key: int, frame: Buffer, began_ns: int, queue_ns: int, local_ns: int
    ) -> Seen:
        shown = frame if self.keeps_frames else bytes(frame[:SEEN_BYTES])
        return Seen(client, key, shown, len(frame) + SIZE_BYTES, began_ns, queue_ns, local_ns)

    def _closed(self, counts: ApiCounts, seen: Seen | None) -> None:
        counts.closed += 1
        if seen is not None:
            seen.ended_connection = True
            self.tell(seen, None)

    def throttled(self, counts: ApiCounts, client: Client, seen: Seen | None) -> None:
        """The client was over a quota."""
        throttle_ms, client.throttled_ms = client.throttled_ms, 0
        counts.throttle.add(throttle_ms * 1_000_000)
        if seen is not None:
            seen.throttle_ms = throttle_ms

    def tell(self, seen: Seen, pieces: Pieces | None) -> None:
        seen.pieces = pieces
        for listener in self.listeners:
            try:
                listener(seen)
            except Exception:
                # What is told of a request is not to spoil it.
                log.exception("a request cannot be told of")
        seen.pieces = None

    def now_ns(self) -> int:
        return self._now_ns()

    def told(self, api_key: int, fields: Fields) -> None:
        """Count the error codes of an answer: of it as a whole, of its elements and theirs."""
        counts = self.counts.get(api_key)
        if counts is None:
            counts = self._find(api_key)
        code = fields.get("error_code")
        if code:
            _note(counts, code)
        left = LOOKED_AT_MAX
        for value in fields.values():
            left = _look(counts, value, left)

    def _find(self, api_key: int) -> ApiCounts:
        known = api_key if api_key in APIS else UNKNOWN
        counts = self.counts.get(known)
        if counts is None:
            counts = self.counts[known] = ApiCounts()
        return counts

    def _begin_window(self, now_ns: int) -> None:
        self._window_ends_ns = now_ns + WINDOW_NS
        for counts in self.counts.values():
            counts.slowest_before_ns, counts.slowest_ns = counts.slowest_ns, 0


def _key(frame: Buffer) -> int:
    return (frame[0] << 8) | frame[1] if len(frame) > 1 else UNKNOWN


def client_id_of(frame: Buffer) -> str:
    """The client id in a request's header, as far as there is one; what is no UTF-8 is shown as it can be."""
    if len(frame) < CLIENT_ID_AT + 2:
        return ""
    size = (frame[CLIENT_ID_AT] << 8) | frame[CLIENT_ID_AT + 1]
    # -1: none.
    if size >= 1 << 15:
        return ""
    start = CLIENT_ID_AT + 2
    return bytes(frame[start : start + min(size, CLIENT_ID_BYTES_MAX)]).decode("utf-8", "replace")


def _look(counts: ApiCounts, elements: Any, left: int) -> int:
    """Count the error codes of elements, and of those within them, as long as there are not too many. All are
    made alike: where the first one has none, and nothing within it, no other has."""
    if type(elements) is not list and type(elements) is not tuple:
        return left
    if not elements or type(elements[0]) is not dict:
        # Values, or what is written already.
        return left
    first: dict[str, Any] = elements[0]
    inner = [name for name, value in first.items() if type(value) is list or type(value) is tuple]
    if not inner and "error_code" not in first:
        return left
    for element in elements:
        left -= 1
        if left <= 0:
            return 0
        if type(element) is not dict:
            continue
        code = element.get("error_code")
        if code:
            _note(counts, code)
        for name in inner:
            left = _look(counts, element.get(name), left)
    return left


def _note(counts: ApiCounts, code: Any) -> None:
    number = int(code)
    counts.errors[number] = counts.errors.get(number, 0) + 1


@final
class Answering:
    """Told of a pending answer as it is sent: see ``Pending.charge``."""

    __slots__ = ("_before", "_client", "_counts", "_seen", "_watcher", "handled_ns")

    def __init__(
        self,
        watcher: RequestWatcher,
        counts: ApiCounts,
        client: Client,
        handled_ns: int,
        before: Callable[[Pieces], Pieces] | None,
        seen: Seen | None,
    ) -> None:
        self._watcher = watcher
        self._counts = counts
        self._client = client
        # When its request had been handled, by the watcher's clock.
        self.handled_ns = handled_ns
        self._before = before
        self._seen = seen

    def __call__(self, pieces: Pieces) -> Pieces:
        if self._before is not None:
            pieces = self._before(pieces)
        counts, seen, watcher = self._counts, self._seen, self._watcher
        remote_ns = watcher.now_ns() - self.handled_ns
        counts.remote.add(remote_ns)
        size = 0
        for piece in pieces:
            size += len(piece)
        counts.response_bytes += size
        if self._client.usage is not None:
            self._client.usage.response_bytes += size
        if seen is not None:
            seen.remote_ns = remote_ns
            seen.response_bytes = size
        if self._client.throttled_ms:
            watcher.throttled(counts, self._client, seen)
        if seen is not None:
            watcher.tell(seen, pieces)
        return pieces
