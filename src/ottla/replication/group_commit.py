"""Flushing a partition's log for all who wait for the disk at the same time (group commit)."""

from __future__ import annotations

import asyncio

from ottla.env.disk import Disk
from ottla.log.log import Log


class GroupCommit:
    """One flush runs at a time; all who ask while it runs share the next one."""

    __slots__ = ("_disk", "_log", "_next", "_running")

    def __init__(self, disk: Disk, log: Log) -> None:
        self._disk = disk
        self._log = log
        # The task that flushes, while there is need, and the next flush, for those who came since the last.
        self._running: asyncio.Task[None] | None = None
        self._next: asyncio.Future[None] | None = None

    def flushed(self) -> asyncio.Future[None]:
        """A future of all that is appended by now being on the disk. Raises as ``Log.flush``."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
            if self._running is None:
                self._running = asyncio.ensure_future(self._run())
        return self._next

    async def _run(self) -> None:
        try:
            while (waiting := self._next) is not None:
                self._next = None
                error: Exception | None = None
                try:
                    await self._disk.run(self._log.flush)
                except asyncio.CancelledError:
                    waiting.cancel()
                    raise
                except Exception as caught:  # noqa: BLE001 - whoever waits hears of it
                    error = caught
                if waiting.done():
                    continue
                if error is None:
                    waiting.set_result(None)
                else:
                    waiting.set_exception(error)
        finally:
            self._running = None
