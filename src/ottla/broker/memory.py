"""The memory that this node uses for all clients together, on all listeners.

Requests count from their first bytes until they are answered, answers from when they are made or read until
they are sent. Where there is too much of the former, clients that hold much are not listened to for a while
(as with Kafka's queued.max.request.bytes); of the latter, answers are kept small.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Protocol

# Bytes of requests that may be kept: received in part, waiting behind others, or waiting for replicas.
REQUEST_BYTES_MAX: Final = 512 * 1024 * 1024
# And of these, those of large requests of clients who have not logged in. Who comes on top is refused: nobody
# needs a large request for that, and all who have logged in would wait.
STRANGERS_BYTES_MAX: Final = 64 * 1024 * 1024
# A client that has no more than this goes on in any case: a follower's fetches are what producers wait for.
SMALL_REQUEST_BYTES: Final = 64 * 1024
# Of those who wait for room so many are told from time to time, where there is some.
TOLD_AGAIN: Final = 100

# Bytes of large responses that may be held, read but not yet taken by their clients, before further ones are
# kept small. One response may come on top, and something small, or one batch, for each client.
UNSENT_BYTES_MAX: Final = 128 * 1024 * 1024
SMALL_RESPONSE_BYTES: Final = 64 * 1024


class Holder(Protocol):
    """Someone for whom requests are kept."""

    def memory_is_free(self) -> None:
        """There is room again, after ``may_hold`` said that there is not."""
        ...


class Memory:
    """Bytes that are held, counted by those who hold them."""

    __slots__ = (
        "_first", "_waiting", "on_shortage", "request_bytes", "request_bytes_max", "strangers_bytes",
        "unsent_bytes",
    )  # fmt: skip

    def __init__(self, request_bytes_max: int = REQUEST_BYTES_MAX) -> None:
        self.request_bytes = 0
        self.request_bytes_max = request_bytes_max
        # What of it is of large requests of clients who have not logged in, where they have to.
        self.strangers_bytes = 0
        # Told where there is no room: others keep what they can do without.
        self.on_shortage: Callable[[], None] | None = None
        # What is read for responses and not sent.
        self.unsent_bytes = 0
        # Those who wait for room, in order; and the one who goes on nevertheless. Where all requests that
        # fill the memory lack a part, none would ever be answered otherwise.
        self._waiting: OrderedDict[Holder, None] = OrderedDict()
        self._first: Holder | None = None

    @property
    def room_bytes(self) -> int:
        """How large a response may be now, so that clients who do not read cannot fill the memory."""
        return max(UNSENT_BYTES_MAX - self.unsent_bytes, SMALL_RESPONSE_BYTES)

    @property
    def waiting_count(self) -> int:
        """How many wait for room."""
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """Whether there is no room for further requests."""
        return self.request_bytes >= self.request_bytes_max

    def keep(self, holder: Holder, change: int, held: int) -> None:
        """``holder`` has so many bytes more, or less, and ``held`` now."""
        self.request_bytes += change
        if held <= SMALL_REQUEST_BYTES and self._first is holder:
            self._first = None
        if self._waiting and (change < 0 or not self.full):
            self._wake_some()

    def tell_again(self) -> None:
        """From time to time: those who were told of room may have nothing to send, and others wait behind
        them."""
        if self._waiting and not self.full:
            self._wake_some(TOLD_AGAIN)

    def _wake_some(self, count_min: int = 1) -> None:
        """Tell those who have waited longest that there is room, so many as there is room for: of thousands,
        all others would ask in vain, each time that one request is done."""
        waiting = self._waiting
        if self.full:
            while waiting and self._first is None:
                waiting.popitem(last=False)[0].memory_is_free()
            return
        free_bytes = self.request_bytes_max - self.request_bytes
        for _ in range(min(len(waiting), count_min + free_bytes // SMALL_REQUEST_BYTES)):
            if waiting:
                waiting.popitem(last=False)[0].memory_is_free()

    def may_hold(self, holder: Holder, held: int) -> bool:
        """Whether one who holds so much already may take more. If not, it is told when it may."""
        if held <= SMALL_REQUEST_BYTES or not self.full:
            return True
        if self.on_shortage is not None:
            self.on_shortage()
        if self._first is None:
            self._first = holder
        if self._first is holder:
            return True
        self._waiting[holder] = None
        return False

    def forget(self, holder: Holder) -> None:
        """``holder`` is gone. It may hold something until what it asked for is done, and takes no more."""
        self._waiting.pop(holder, None)
        if self._first is holder:
            self._first = None
            self._wake_some()
