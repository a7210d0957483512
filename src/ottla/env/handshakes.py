"""The thread in which TLS handshakes are worked out, so that nobody waits for those of others."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

# What all connections receive into, before it is decrypted: it is filled and emptied in one step.
SCRATCH_BYTES: Final = 256 * 1024


class Handshakes:
    """What the TLS connections of a process share: where they receive, and the thread for handshakes.

    A handshake takes from a quarter of a millisecond to 20, as keys and what clients ask for have it; OpenSSL
    lets go of the interpreter meanwhile. They wait for each other, not others for them.
    """

    def __init__(self) -> None:
        self.scratch = memoryview(bytearray(SCRATCH_BYTES))
        self._pool: ThreadPoolExecutor | None = ThreadPoolExecutor(1, thread_name_prefix="ottla-tls")

    def work(self, tls: ssl.SSLObject, done: Callable[[Exception | None], None]) -> None:
        """Have the next step of a handshake worked out; ``done`` is called on the loop, with what stopped it:
        SSLWantReadError where the other side has to say something first. ConnectionAbortedError after
        ``close``."""
        if self._pool is None:
            raise ConnectionAbortedError("there are no handshakes any more")
        future = asyncio.get_running_loop().run_in_executor(self._pool, _step, tls)
        future.add_done_callback(lambda future: None if future.cancelled() else done(future.result()))

    def close(self) -> None:
        """Begin none any more; those that are under way come to nothing."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)


def _step(tls: ssl.SSLObject) -> Exception | None:
    try:
        tls.do_handshake()
    except (ssl.SSLError, ValueError) as error:
        return error
    return None
