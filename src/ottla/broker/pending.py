"""An answer that a request has to wait for, as its connection sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ottla.env.deferred import Deferred

# A response, in the pieces that are sent one after the other.
Pieces = list[Any]


class Unbegun(Deferred[Any]):
    """A promise of a Produce that has still to be appended, once something else is known: the requests behind
    it wait for that. It leads to another promise, as a coroutine does."""

    __slots__ = ()


class Pending(Deferred[Pieces | None]):
    """An answer that is not there yet: the response's pieces, or None for no response."""

    __slots__ = ("blocks", "charge", "on_release", "reply_bytes", "request_bytes")

    def __init__(self, blocks: bool, on_cancel: Callable[[], object] | None = None) -> None:
        super().__init__(on_cancel)
        # Whether the requests behind it have to wait until it is answered.
        self.blocks = blocks
        # What becomes of the answer as it is sent, where its client has a quota.
        self.charge: Callable[[Pieces], Pieces] | None = None
        # Told once they have not, though it is not.
        self.on_release: Callable[[], None] | None = None
        # The size of the request that it is to answer, which is kept until then.
        self.request_bytes = 0
        # The size of the answer, while that waits for the one before it.
        self.reply_bytes = 0

    @property
    def runs_to_its_end(self) -> bool:
        """Whether it goes on also where nobody waits for it any more."""
        return self._on_cancel is None

    def release(self) -> None:
        """Let the requests behind it be handled: what it still waits for changes nothing."""
        self.blocks = False
        on_release, self.on_release = self.on_release, None
        if on_release is not None:
            on_release()
