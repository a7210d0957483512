"""What a request costs beyond its first step: the time that its later pieces take on the event loop."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

from ottla.broker.request import RequestContext
from ottla.env.clock import thread_cpu_ms

T = TypeVar("T")


def metered(ctx: RequestContext, work: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
    """The same work, with each of its steps counted where the request's client has a quota for that."""
    return work if ctx.meter is None else _measured(ctx.meter, work)


async def _measured(meter: Callable[[float], None], work: Coroutine[Any, Any, T]) -> T:
    return await _Steps(meter, work)


class _Steps(Generic[T]):
    """Goes through a coroutine's steps, and tells how many milliseconds of CPU time each takes."""

    __slots__ = ("_meter", "_work")

    def __init__(self, meter: Callable[[float], None], work: Coroutine[Any, Any, T]) -> None:
        self._meter = meter
        self._work = work

    def __await__(self) -> Generator[Any, Any, T]:
        work = self._work
        try:
            awaited = self._step(work.send, None)
            while True:
                try:
                    value = yield awaited
                except BaseException as error:  # noqa: BLE001 - it is for the work
                    awaited = self._step(work.throw, error)
                else:
                    awaited = self._step(work.send, value)
        except StopIteration as end:
            result: T = end.value
            return result

    def _step(self, go: Callable[[Any], Any], value: Any) -> Any:
        begun_ms = thread_cpu_ms()
        try:
            return go(value)
        finally:
            # An error that comes out knows this frame: they would hold each other.
            value = None
            self._meter(thread_cpu_ms() - begun_ms)
