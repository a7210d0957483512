"""Flushes of a follower before its leader counts the records as replicated (``flush.messages``).

In Kafka an append flushes, on a follower as well (UnifiedLog.append), and the fetcher waits for that: where
flush.messages is 1, acks=all means on the disk of every in-sync replica.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from ottla.errors import ErrorCode, KafkaError
from ottla.replication.partition import Partition


def _nobody() -> None:
    pass


class Flushes:
    """The flushes that a fetcher waits for; true while there are any. ``ended`` is called after the last."""

    __slots__ = ("_ended", "_running")

    def __init__(self, ended: Callable[[], None]) -> None:
        self._ended = ended
        self._running = 0

    def __bool__(self) -> bool:
        return self._running > 0

    def close(self) -> None:
        """Nobody waits for them any more."""
        self._ended = _nobody

    def begin(self, replica: Partition, failed: Callable[[KafkaError], None]) -> None:
        """Flush a partition's log if as much of it as its topic says is not on the disk yet."""
        log = replica.log
        if log.unflushed_messages >= log.config.flush_messages:
            flushed = replica.flushed()
            self._running += 1
            flushed.add_done_callback(partial(self._done, failed))

    def _done(self, failed: Callable[[KafkaError], None], done: asyncio.Future[None]) -> None:
        self._running -= 1
        try:
            error = None if done.cancelled() else done.exception()
            if isinstance(error, KafkaError):
                failed(error)
            elif error is not None:
                failed(KafkaError(ErrorCode.unknown_server_error, f"the log cannot be flushed: {error!r}"))
        finally:
            if not self._running:
                self._ended()
