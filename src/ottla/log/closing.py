"""Closing all logs of a node, so that the next start need not look at them: written first, then synced.

Where there are many, all that was written is synced at once, with the volume that it is on. If the system
tells of writes that failed that is all; otherwise each file is synced as well, which takes little then. See
docs/decisions/0016-stop.md.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice

from ottla.env.disk import Disk
from ottla.env.volume import Volume
from ottla.log.log import Log

logger = logging.getLogger(__name__)

# Logs are written and closed by so many threads, so many in each go.
THREADS = 4
AT_ONCE = 20


class Closing:
    """The end of these logs, which are in ``directory``. ``run`` once."""

    def __init__(self, disk: Disk, volume: Volume | None, directory: str, logs: Sequence[Log]) -> None:
        """``volume``: the one of the directory, from before the first write to any of them."""
        self._disk = disk
        self._volume = volume
        self._directory = directory
        self._logs = logs
        # Logs that could not be closed.
        self._failed: set[Log] = set()
        # What was written of each, and where it ended then.
        self._written: dict[Log, tuple[list[str], int]] = {}
        # Those with anything to be synced, and whether all of them are on the volume.
        self._unsynced: list[Log] = []
        self._on_volume = True

    async def run(self) -> bool:
        """Close them; whether that succeeded with all. What fails is logged."""
        for log in self._logs:
            # Here on the loop, since it tells who waits for it.
            log.settle()
        await self._each(self._write_out)
        left = [log for log in self._logs if log not in self._failed]
        if await self._sync_volume():
            await self._each(self._close_synced, left)
        else:
            await self._sync_directory(left)
            await self._each(self._close, left)
        return not self._failed

    def _write_out(self, log: Log) -> None:
        end_offset = log.log_end_offset
        written = log.write_out()
        self._written[log] = written, end_offset
        if not (written or log.durability.needs_flush):
            return
        self._unsynced.append(log)
        # What we have made has no links; to look for them is a quarter of what a log costs here.
        if self._volume is not None and self._on_volume and not log.made_here:
            self._on_volume = self._volume.holds(log.directory)

    def _close(self, log: Log) -> None:
        written, _ = self._written[log]
        log.close(written)

    def _close_synced(self, log: Log) -> None:
        _, end_offset = self._written[log]
        if log.log_end_offset != end_offset:
            # Nobody should have written since.
            self._close(log)
            return
        log.durability.all_synced()
        log.abandon()

    async def _sync_volume(self) -> bool:
        """Sync all at once, where that is worth it; whether everything is known to be on the disk."""
        volume = self._volume
        if volume is None or len(self._unsynced) < volume.folders_min:
            return False
        try:
            await self._disk.run(volume.sync)
        except OSError as error:
            # Of somebody else's file, perhaps: ours are asked.
            logger.warning("the volume of %s cannot be synced: %s", self._directory, error)
            return False
        return volume.tells and self._on_volume

    async def _sync_directory(self, logs: Sequence[Log]) -> None:
        if not self._unsynced:
            return
        try:
            await self._disk.run(partial(self._disk.sync_dir, self._directory))
        except OSError as error:
            logger.error("%s cannot be synced as a whole, syncing each log: %s", self._directory, error)
        else:
            # Their folders are all there: each would sync the directory again.
            for log in logs:
                log.durability.in_place()

    async def _each(self, work: Callable[[Log], None], logs: Sequence[Log] | None = None) -> None:
        """Do something with each log, some in each go of a few threads."""
        waiting = iter(self._logs if logs is None else logs)

        def do(some: Sequence[Log]) -> None:
            for log in some:
                try:
                    work(log)
                except Exception as error:  # noqa: BLE001 - it is logged, and the others are closed
                    logger.error(
                        "unclean shutdown: a log could not be closed, the next start recovers it: %s", error
                    )
                    self._failed.add(log)

        async def do_some() -> None:
            while some := list(islice(waiting, AT_ONCE)):
                await self._disk.run(partial(do, some))

        await asyncio.gather(*(do_some() for _ in range(THREADS)))
