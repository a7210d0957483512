"""The thread in which TLS handshakes are worked out, so that nobody waits for those of others."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

# What all connections receive into, before it is decrypted: it is filled and emptied in one step.
SCRATCH_BYTES: Final = 256 * 1024
# How many steps of handshakes the thread is given at once, so that handing them over costs less than they do.
STEPS_AT_ONCE: Final = 8

# Works on a handshake, in the thread: what stopped it, if it is not over.
Step = Callable[[], Exception | None]
Done = Callable[[Exception | None], None]


class Handshakes:
    """What the TLS connections of a process share: where they receive, and the thread for handshakes.

    A handshake takes from a quarter of a millisecond to 20, as keys and what clients ask for have it; OpenSSL
    lets go of the interpreter meanwhile. They wait for each other, and others do not wait for them.
    """

    def __init__(self) -> None:
        self.scratch = memoryview(bytearray(SCRATCH_BYTES))
        self._pool: ThreadPoolExecutor | None = ThreadPoolExecutor(1, thread_name_prefix="ottla-tls")
        self._waiting: deque[tuple[Step, Done]] = deque()
        self._busy = False

    def work(self, step: Step, done: Done) -> None:
        """Have a step of a handshake worked out when its turn comes; then ``done`` is called on the loop.
        ConnectionAbortedError after ``close``."""
        if self._pool is None:
            raise ConnectionAbortedError("there are no handshakes any more")
        self._waiting.append((step, done))
        if not self._busy:
            self._go_on(self._pool)

    def _go_on(self, pool: ThreadPoolExecutor) -> None:
        self._busy = True
        now = [self._waiting.popleft() for _ in range(min(STEPS_AT_ONCE, len(self._waiting)))]
        work = asyncio.get_running_loop().run_in_executor(pool, _take, [step for step, _ in now])
        work.add_done_callback(lambda work: self._worked(work, [done for _, done in now]))

    def _worked(self, work: asyncio.Future[list[Exception | None]], dones: list[Done]) -> None:
        self._busy = False
        if work.cancelled():
            return
        if self._waiting and self._pool is not None:
            self._go_on(self._pool)
        for done, stopped in zip(dones, work.result(), strict=True):
            # What is wrong with one is the loop's to tell, and none of the others'.
            asyncio.get_running_loop().call_soon(done, stopped)

    def close(self) -> None:
        """Begin none any more; those that are under way come to nothing."""
        pool, self._pool = self._pool, None
        self._waiting.clear()
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)


def _take(steps: list[Step]) -> list[Exception | None]:
    return [step() for step in steps]


def explain(error: Exception) -> str:
    """What OpenSSL says, without where in its sources."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    reason = getattr(error, "reason", None)
    return f"TLS: {reason.lower().replace('_', ' ')}" if reason else str(error) or type(error).__name__
