"""The thread in which TLS handshakes are worked out, so that nobody waits for those of others."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

# What all connections receive into, before it is decrypted: it is filled and emptied in one step.
SCRATCH_BYTES: Final = 256 * 1024
# How many steps of handshakes the thread is given at once, so that handing them over costs less than they do;
# and how long it works on them, before what is left has its place in the queue again.
STEPS_AT_ONCE: Final = 8
WORKED_MS: Final = 4

# Works on a handshake, in the thread: what stopped it, if it is not over.
Step = Callable[[], Exception | None]
Done = Callable[[Exception | None], None]
_Work = tuple[Step, Done]


class _Queue:
    """Steps that wait: of each address in their order, and of the addresses each in turn."""

    def __init__(self) -> None:
        self._by_host: dict[str, deque[_Work]] = {}
        # Those that have any, in the order in which they have their turn.
        self._turns: deque[str] = deque()

    def __bool__(self) -> bool:
        return bool(self._turns)

    def add(self, host: str, work: _Work) -> None:
        waiting = self._by_host.get(host)
        if waiting is None:
            waiting = self._by_host[host] = deque()
            self._turns.append(host)
        waiting.append(work)

    def take(self) -> tuple[str, _Work]:
        host = self._turns.popleft()
        waiting = self._by_host[host]
        work = waiting.popleft()
        if waiting:
            self._turns.append(host)
        else:
            del self._by_host[host]
        return host, work

    def put_back(self, taken: list[tuple[str, _Work]]) -> None:
        """Have those wait again that were not come to, where they were."""
        for host, work in reversed(taken):
            waiting = self._by_host.get(host)
            if waiting is None:
                waiting = self._by_host[host] = deque()
            else:
                self._turns.remove(host)
            self._turns.appendleft(host)
            waiting.appendleft(work)

    def clear(self) -> None:
        self._by_host.clear()
        self._turns.clear()


class Handshakes:
    """What the TLS connections of a process share: where they receive, and the thread for handshakes.

    A handshake takes from a quarter of a millisecond to 20, as keys and what clients ask for have it; OpenSSL
    lets go of the interpreter meanwhile. They wait for each other, and others do not wait for them. However
    many come from one address, somebody from another waits for one step of theirs, and what is begun.
    """

    def __init__(self) -> None:
        self.scratch = memoryview(bytearray(SCRATCH_BYTES))
        self._pool: ThreadPoolExecutor | None = ThreadPoolExecutor(1, thread_name_prefix="ottla-tls")
        self._waiting = _Queue()
        self._busy = False
        # Clients whose handshakes failed.
        self.failures = 0

    def work(self, step: Step, done: Done, host: str = "") -> None:
        """Have a step of a handshake with ``host`` worked out when its turn comes; then ``done`` is called on
        the loop. ConnectionAbortedError after ``close``."""
        if self._pool is None:
            raise ConnectionAbortedError("there are no handshakes any more")
        self._waiting.add(host, (step, done))
        if not self._busy:
            self._go_on(self._pool)

    def _go_on(self, pool: ThreadPoolExecutor) -> None:
        self._busy = True
        now: list[tuple[str, _Work]] = []
        while self._waiting and len(now) < STEPS_AT_ONCE:
            now.append(self._waiting.take())
        work = asyncio.get_running_loop().run_in_executor(pool, _take, [step for _, (step, _) in now])
        work.add_done_callback(lambda work: self._worked(work, now))

    def _worked(self, work: asyncio.Future[list[Exception | None]], now: list[tuple[str, _Work]]) -> None:
        self._busy = False
        if work.cancelled():
            return
        stops = work.result()
        if self._pool is not None:
            self._waiting.put_back(now[len(stops) :])
            if self._waiting:
                self._go_on(self._pool)
        for (_, (_, done)), stopped in zip(now, stops, strict=False):
            # What is wrong with one is the loop's to tell, and none of the others'.
            asyncio.get_running_loop().call_soon(done, stopped)

    def close(self) -> None:
        """Begin none any more; those that are under way come to nothing."""
        pool, self._pool = self._pool, None
        self._waiting.clear()
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)


def _take(steps: list[Step]) -> list[Exception | None]:
    """What came of each, up to the one with which the time was over."""
    ends_s = time.monotonic() + WORKED_MS / 1000
    stops: list[Exception | None] = []
    for step in steps:
        stops.append(step())
        if time.monotonic() >= ends_s:
            break
    return stops


def explain(error: Exception) -> str:
    """What OpenSSL says, without where in its sources."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    reason = getattr(error, "reason", None)
    return f"TLS: {reason.lower().replace('_', ' ')}" if reason else str(error) or type(error).__name__
