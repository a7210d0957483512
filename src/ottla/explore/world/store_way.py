"""The way from a node to the store over the simulated network, with what may go wrong on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any, TypeVar

from ottla.explore.world.loop import MS_US, SECOND_US, WORLD, Process
from ottla.explore.world.machine import Machine
from ottla.explore.world.network import Fabric
from ottla.metadata.store import OutcomeUnknownError, StoreError

T = TypeVar("T")

# How long a node waits for an answer, and how long a request that nobody waits for any more may still arrive.
CALL_US = (1 * SECOND_US, 5 * SECOND_US)
LATE_US_MAX = 10 * SECOND_US
LATE_RETRY_US = 400 * MS_US
# How often a node that cannot reach the store knows at once that its request did not get there.
REFUSED = 0.4
# A watch that was cut off goes on so long after the store can be reached again, at most.
REWATCH_S_MAX = 0.5


class NodeWay:
    """``ottla.metadata.memory.Way`` for one process."""

    def __init__(self, fabric: Fabric, process: Process, store: Machine, rng: Random) -> None:
        self._fabric = fabric
        self._process = process
        self._host: str = process.machine.host
        self._store = store.host
        self._rng = rng
        # How often an answer is lost; set by faults.
        self.lossy = 0.0

    async def call(self, work: Callable[[], T]) -> T:
        loop = self._fabric.loop
        future: asyncio.Future[T] = loop.create_future()
        link = self._fabric.link(self._host, self._store)
        loop.call_at_us(
            loop.now_us + self._fabric.latency_us(link), self._arrive, work, future, context=WORLD
        )
        return await future

    def _arrive(self, work: Callable[[], Any], future: asyncio.Future[Any]) -> None:
        fabric, rng = self._fabric, self._rng
        if not fabric.open_way(self._host, self._store):
            if rng.random() < REFUSED:
                self._later(50 * MS_US, future, StoreError("the store cannot be reached"))
                return
            self._time_out(future)
            if rng.random() < 0.5:
                self._retry(work, fabric.loop.now_us + LATE_US_MAX)
            return
        result, error = _run(work)
        if not fabric.open_way(self._store, self._host) or rng.random() < self.lossy:
            self._time_out(future)
            return
        back_us = fabric.latency_us(fabric.link(self._store, self._host))
        if error is not None:
            self._later(back_us, future, error)
        else:
            loop = fabric.loop
            loop.call_at_us(loop.now_us + back_us, _answer, future, result, context=WORLD)

    def _time_out(self, future: asyncio.Future[Any]) -> None:
        error = OutcomeUnknownError("the store does not answer")
        self._later(self._rng.randint(*CALL_US), future, error)

    def _later(self, delay_us: int, future: asyncio.Future[Any], error: StoreError) -> None:
        loop = self._fabric.loop
        loop.call_at_us(loop.now_us + delay_us, _fail, future, error, context=WORLD)

    def _retry(self, work: Callable[[], Any], until_us: int) -> None:
        """What was sent and nobody waits for may still arrive."""
        loop = self._fabric.loop
        if self._fabric.open_way(self._host, self._store):
            _run(work)
        elif loop.now_us < until_us:
            loop.call_at_us(loop.now_us + LATE_RETRY_US, self._retry, work, until_us, context=WORLD)

    async def deliver(self) -> None:
        fabric = self._fabric
        link = fabric.link(self._store, self._host)
        await asyncio.sleep(fabric.latency_us(link) / SECOND_US)
        while not self._is_open():
            await asyncio.sleep(self._rng.random() * REWATCH_S_MAX)

    def _is_open(self) -> bool:
        return self._fabric.open_way(self._store, self._host) and self._fabric.open_way(
            self._host, self._store
        )

    def keeps_alive(self) -> bool:
        return not self._process.paused and not self._process.dead and self._is_open()

    def tell(self, callback: Callable[[], None]) -> None:
        self._fabric.loop.call_soon(callback, context=self._process.context)


def _run(work: Callable[[], Any]) -> tuple[Any, StoreError | None]:
    try:
        return work(), None
    except StoreError as error:
        return None, error


def _answer(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: StoreError) -> None:
    if not future.done():
        future.set_exception(error)
