"""Work in a thread of its own, which nobody waits for when the process is to end: for what may hang."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def aside(work: Callable[[], T]) -> T:
    """What ``work`` returns, or raises, in a thread. Whoever stops waiting leaves it behind.

    The loop's own threads are waited for at its end: behind a server that does not answer, or a file on a
    disk that hangs, a node would not stop. There are as many threads as there are calls under way.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def tell(result: T | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, failed = None, None
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - it is whoever waits who has it
            failed = error
        try:
            loop.call_soon_threadsafe(tell, result, failed)
        except RuntimeError:
            # The loop has ended meanwhile.
            return

    threading.Thread(target=run, name="ottla-aside", daemon=True).start()
    return await done
