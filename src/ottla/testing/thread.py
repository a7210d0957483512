"""An event loop in a thread of its own, for a broker beside the test that uses it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

import uvloop

T = TypeVar("T")

# How long starting, stopping and each helper may take before the test fails instead of hanging.
CALL_TIMEOUT_S = 60.0


class LoopThread:
    """``call`` from any other thread, and at last ``close``."""

    def __init__(self) -> None:
        self._loop = uvloop.new_event_loop()
        self._began: Future[None] = Future()
        self._closing: asyncio.Event
        # A test that forgets to stop the broker must still be able to end.
        self._thread = threading.Thread(target=self._run, name="ottla", daemon=True)
        self._thread.start()
        self._began.result(CALL_TIMEOUT_S)

    def call(self, work: Coroutine[Any, Any, T], timeout_s: float = CALL_TIMEOUT_S) -> T:
        """Run on the loop, and wait for the result."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout_s)
        except TimeoutError:
            if future.done():
                raise
            future.cancel()
            raise TimeoutError(f"the broker has not answered the test within {timeout_s:g} s") from None

    def close(self) -> None:
        """End the loop, with whatever still runs on it, and the thread."""
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(CALL_TIMEOUT_S)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._until_closed())

    async def _until_closed(self) -> None:
        self._closing = asyncio.Event()
        self._began.set_result(None)
        await self._closing.wait()
