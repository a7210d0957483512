"""Answers that come later, without a turn of the event loop for each hand that they pass through.

asyncio's futures tell their listeners in the loop's next turn. A message that a waiting consumer gets would
take three more turns, each with a system call or two, and those are most of its cost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Deferred(Generic[T]):
    """A value that comes later. It has one listener, which is told at once.

    Once it is done it holds neither the listener nor what was to be called if it was cancelled. Both usually
    lead back to it, and a request that is part of a cycle keeps its records in memory until the collector of
    garbage comes by.
    """

    __slots__ = ("_error", "_listener", "_on_cancel", "_value", "done", "hurry")

    def __init__(self, on_cancel: Callable[[], object] | None = None) -> None:
        self.done = False
        # Gives what there is by now, where whoever waits has something else to ask.
        self.hurry: Callable[[], object] | None = None
        self._value: T | None = None
        self._error: BaseException | None = None
        self._listener: Callable[[Deferred[T]], None] | None = None
        self._on_cancel = on_cancel

    def resolve(self, value: T) -> None:
        """Give the value. Nothing happens where it is given already, or nobody waits any more."""
        if not self.done:
            self.done = True
            self._value = value
            self._tell()

    def fail(self, error: BaseException) -> None:
        """Give an error in place of the value."""
        if not self.done:
            self.done = True
            self._error = error
            self._tell()

    def result(self) -> T:
        """The value, or the error, raised. Only once it is done."""
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]

    @property
    def failed(self) -> bool:
        """Whether it is done, and ``result`` raises."""
        return self._error is not None

    @property
    def error(self) -> BaseException | None:
        """Why it is done without a value. To be looked at: who raises it gives it frames that may hold it."""
        return self._error

    def listen(self, listener: Callable[[Deferred[T]], None]) -> None:
        """Call ``listener`` when it is done: now, if it is."""
        if self.done:
            listener(self)
        else:
            self._listener = listener

    def cancel(self) -> None:
        """Nobody waits any more: whoever would have given the value may stop working on it."""
        if not self.done:
            self.done = True
            self._listener = self.hurry = None
            on_cancel, self._on_cancel = self._on_cancel, None
            if on_cancel is not None:
                on_cancel()

    def then(self, make: Callable[[T], Any]) -> Deferred[Any]:
        """What ``make`` makes of the value; an error of this one, or what it raises, in place of that."""
        made: Deferred[Any] = Deferred()

        def tell(done: Deferred[T]) -> None:
            if done._error is not None:
                made.fail(done._error)
                return
            try:
                value = make(done.result())
            except Exception as error:  # noqa: BLE001 - whoever waits hears of it
                made.fail(error)
            else:
                made.resolve(value)

        self.listen(tell)
        return made

    def take_over(self, source: asyncio.Future[T]) -> None:
        """Take over what a finished future has: for its ``add_done_callback``."""
        if source.cancelled():
            self.fail(asyncio.CancelledError())
        elif (error := source.exception()) is not None:
            self.fail(error)
        else:
            self.resolve(source.result())

    def follow(self, source: Awaitable[T]) -> None:
        """Take over what an awaitable gives. It is not cancelled when nobody waits any more."""
        asyncio.ensure_future(source).add_done_callback(self.take_over)

    def _tell(self) -> None:
        self._on_cancel = self.hurry = None
        listener, self._listener = self._listener, None
        if listener is not None:
            listener(self)

    def __await__(self) -> Generator[Any, None, T]:
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def hand_on(done: Deferred[T]) -> None:
            if future.done():
                return
            if done._error is not None:
                future.set_exception(done._error)
            else:
                future.set_result(done.result())

        self.listen(hand_on)
        try:
            return (yield from future)
        finally:
            # Where the task that waits is cancelled.
            self.cancel()
