"""All logs of a node (Kafka's LogManager): opening, retention, flushing, checkpoints, deletion, shutdown.

Used from the event loop. What blocks for long runs through ``Disk.run``; what recurs runs from a handful of
timers, so that an idle broker does next to nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from itertools import count
from typing import Any
from uuid import UUID, uuid4

from ottla.config import BrokerConfig
from ottla.env.clock import Clock, Timer
from ottla.env.disk import Disk
from ottla.errors import KafkaError
from ottla.log.cleaner import Cleaner
from ottla.log.data_dir import (
    CLEANED_FILE,
    HIGH_WATERMARKS_FILE,
    LOG_STARTS_FILE,
    RECOVERY_POINTS_FILE,
    DataDir,
)
from ottla.log.files import OPEN_FILES_MAX, FileCache
from ottla.log.loading import read_topic_id
from ottla.log.log import Log
from ottla.log.settings import LONG_MAX, LogConfig
from ottla.types import TopicPartition

logger = logging.getLogger(__name__)

DELETE_SUFFIX = "-delete"
# The file systems that matter allow so many characters in a name.
FOLDER_NAME_MAX = 255
# A log start that moved is on disk after so long; DeleteRecords itself waits for it.
LOG_START_CHECKPOINT_DELAY_MS = 1000
# Retention looks at so many logs before it lets others have the event loop.
RETENTION_LOGS_AT_ONCE = 50


Checkpoints = dict[str, dict[TopicPartition, int]]


class LogManager:
    """The logs in one data directory. ``start`` before anything else, ``close`` or ``abandon`` at the end."""

    def __init__(
        self, disk: Disk, data_dir: str, config: BrokerConfig, clock: Clock, *, node_id: int
    ) -> None:
        self.path = data_dir
        self.logs: dict[TopicPartition, Log] = {}
        # Asked for by whoever knows: the high watermark of each partition. It is written down, and neither
        # retention nor compaction touches what lies beyond it.
        self.high_watermarks: Callable[[], Mapping[TopicPartition, int]] | None = None
        self._disk = disk
        self._config = config
        self._clock = clock
        self._node_id = node_id
        # A quarter of what may be open: the rest is for connections.
        self._cache = FileCache(disk, min(OPEN_FILES_MAX, disk.open_files_max() // 4))
        self._dir: DataDir
        self._clean = False
        # Whether a log was opened or made, or may have been.
        self._touched = False
        # From the last run, for logs that have not been opened yet.
        self._recovery_points: dict[TopicPartition, int] = {}
        self._log_starts: dict[TopicPartition, int] = {}
        self._recorded_high_watermarks: dict[TopicPartition, int] = {}
        self._cleaned: dict[TopicPartition, int] = {}
        # The partitions that a checkpoint file may speak of.
        self._checkpointed: set[TopicPartition] = set()
        self._turns = count()
        self._writing = asyncio.Lock()
        self._timers: dict[str, Timer] = {}
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._closed = False
        self._cleaner = Cleaner(
            disk, clock, config, self.logs,
            spawn=self._spawn, checkpoint=self._checkpoint_cleaned,
            high_watermarks=lambda: self.high_watermarks() if self.high_watermarks is not None else {},
        )  # fmt: skip

    # -- life ---------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take the data directory and read what the last run left. DataDirectoryError: it cannot."""
        self._dir = DataDir.take(self._disk, self.path)
        try:
            self._dir.check_identity(self._node_id, None)
            self._read_checkpoints()
            names = self._dir.names()
        except BaseException:
            self._dir.release()
            raise
        folders = set(names)
        # Of partitions that are gone nothing is kept.
        recorded = self._recorded_high_watermarks.items()
        self._recorded_high_watermarks = {where: at for where, at in recorded if str(where) in folders}
        for name in names:
            if name.endswith(DELETE_SUFFIX):
                self._remove_later(f"{self.path}/{name}")
        get = self._config.get
        self._every("retention", get("log.retention.check.interval.ms"), self._apply_retention)
        interval_ms = get("replica.high.watermark.checkpoint.interval.ms")
        self._every("high watermarks", interval_ms, self._checkpoint_high_watermarks)
        self._every("recovery points", get("log.flush.offset.checkpoint.interval.ms"), self.checkpoint)
        if not self._clean and any(parse_folder(name) for name in names):
            logger.warning("the last broker in %s was not shut down in order: recovering its logs", self.path)

    def _read_checkpoints(self) -> None:
        """What the last run left."""
        self._clean = self._dir.take_clean_mark()
        recovery_points = self._dir.read_offsets(RECOVERY_POINTS_FILE)
        if recovery_points is None:
            self._clean = False
        self._recovery_points = recovery_points or {}
        self._log_starts = self._dir.read_offsets(LOG_STARTS_FILE) or {}
        self._recorded_high_watermarks = self._dir.read_offsets(HIGH_WATERMARKS_FILE) or {}
        self._cleaned = self._dir.read_offsets(CLEANED_FILE) or {}
        self._checkpointed.update(*self._dir.checkpoints.values())

    def set_cluster_id(self, cluster_id: str) -> None:
        """Write down, or check, which cluster the data belongs to. DataDirectoryError: another one."""
        self._dir.check_identity(self._node_id, cluster_id)

    async def close(self) -> bool:
        """Close all logs, so that the next start need not look at them, and free the directory.

        Whether all is on the disk. Where the disk fails that is logged, and the next start looks.
        """
        self._stop()
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        results = await asyncio.gather(
            *(self._disk.run(log.close) for log in self.logs.values()), return_exceptions=True
        )
        failures = [result for result in results if isinstance(result, BaseException)]
        for failure in failures:
            logger.error("a log could not be closed, it will be recovered at the next start: %s", failure)
        try:
            await self.checkpoint()
            if not failures:
                await self._disk.run(self._dir.leave_clean_mark)
        except OSError as error:
            logger.error("%s: what the next start needs to know cannot be written: %s", self.path, error)
            return False
        finally:
            self._dir.release()
        return not failures

    def abandon(self) -> None:
        """Let go of everything as a crash would: nothing is written, except that a start which ended before
        it came to the logs leaves the next one as it found them."""
        self._stop()
        if self._clean and not self._touched:
            try:
                self._dir.leave_clean_mark()
            except OSError as error:
                logger.warning("%s: the next start recovers its logs: %s", self.path, error)
        for task in self._tasks:
            task.cancel()
        for log in self.logs.values():
            for segment in log.segments:
                segment.close()
        self._dir.release()

    def _stop(self) -> None:
        self._closed = True
        self._cleaner.close()
        for timer in self._timers.values():
            timer.cancel()

    # -- logs ---------------------------------------------------------------------------------------------

    def get_or_create(
        self, topic_partition: TopicPartition, topic_id: UUID, config: LogConfig, now_ms: int
    ) -> Log:
        """A partition's log: the one that is open, or else opened, or made where there is none.

        A folder left of a deleted topic of the same name is removed. After a crash this takes as long as
        the log takes to be recovered. OSError where the disk fails.
        """
        log = self.logs.get(topic_partition)
        if log is not None and log.topic_id == topic_id:
            return log
        self._touched = True
        directory = f"{self.path}/{topic_partition}"
        if log is not None:
            self.delete(topic_partition)
        elif self._disk.exists(directory):
            found = read_topic_id(self._disk, directory)
            if found is not None and found != topic_id:
                logger.warning("%s is of a topic that was deleted: removing it", directory)
                self._rename_and_remove(topic_partition, directory)
        if not self._disk.exists(directory):
            self._erase(topic_partition)
        recovery_point = self._recovery_points.get(topic_partition)
        log = Log.open(
            self._disk,
            directory,
            config,
            topic_partition=topic_partition,
            topic_id=topic_id,
            now_ms=now_ms,
            clean=self._clean and recovery_point is not None,
            recovery_point=recovery_point or 0,
            log_start_offset=self._log_starts.get(topic_partition, 0),
            cleaned_offset=self._cleaned.get(topic_partition, -1),
            cache=self._cache,
            background=self,
            producer_expiration_ms=self._config.get("producer.id.expiration.ms"),
        )
        log.closed_one = self._cleaner.wake
        self._forget(topic_partition)
        self.logs[topic_partition] = log
        return log

    def delete(self, topic_partition: TopicPartition) -> None:
        """Take a partition away: its folder is renamed at once and removed after file.delete.delay.ms."""
        log = self.logs.pop(topic_partition, None)
        if log is None:
            return
        for segment in log.segments:
            segment.close()
        log.deleted = True
        self._rename_and_remove(topic_partition, log.directory, log.config.file_delete_delay_ms)

    def recorded_high_watermark(self, topic_partition: TopicPartition) -> int:
        """The high watermark that the last run wrote down, 0 where it wrote none."""
        return self._recorded_high_watermarks.get(topic_partition, 0)

    def strays(self) -> list[str]:
        """Folders that look like a partition's and belong to none that is open."""
        open_now = {str(topic_partition) for topic_partition in self.logs}
        return [
            name
            for name in self._dir.names()
            if name not in open_now
            and parse_folder(name) is not None
            and self._disk.exists(f"{self.path}/{name}/")
        ]

    def _erase(self, topic_partition: TopicPartition) -> None:
        """Take out of the checkpoint files what they say of an older partition of this name.

        Before a folder is made: after a crash the new one would be cut and hidden as the old one was.
        Blocks where there is anything. OSError where that fails.
        """
        self._forget(topic_partition)
        if topic_partition not in self._checkpointed:
            return
        checkpoints, turn = self._checkpoints(), next(self._turns)
        for name, offsets in checkpoints.items():
            self._dir.write_offsets(name, offsets, turn)
        self._checkpointed = set().union(*checkpoints.values())

    def _forget(self, topic_partition: TopicPartition) -> None:
        for recorded in (
            self._recovery_points,
            self._log_starts,
            self._recorded_high_watermarks,
            self._cleaned,
        ):
            recorded.pop(topic_partition, None)

    def _rename_and_remove(self, topic_partition: TopicPartition, directory: str, delay_ms: int = 0) -> None:
        """As Kafka names it: the partition, a unique id, and ``-delete``."""
        suffix = f".{uuid4().hex}{DELETE_SUFFIX}"
        tail = f"-{topic_partition.partition}"
        topic = topic_partition.topic[: FOLDER_NAME_MAX - len(suffix) - len(tail)]
        doomed = f"{self.path}/{topic}{tail}{suffix}"
        try:
            self._disk.rename(directory, doomed)
        except OSError as error:
            logger.error("%s cannot be removed: %s", directory, error)
            return
        self._remove_later(doomed, delay_ms)

    def _remove_later(self, path: str, delay_ms: int = 0) -> None:
        self.submit(lambda: self._disk.remove_tree(path), delay_ms)

    # -- background (files.Background) --------------------------------------------------------------------

    def submit(self, work: Callable[[], None], delay_ms: int = 0) -> None:
        """Run blocking work off the event loop, after a delay. What fails is logged."""
        if delay_ms > 0:
            # Not kept: what a shutdown prevents is found and done at the next start.
            self._clock.call_later(delay_ms, lambda: None if self._closed else self.submit(work))
            return
        self._spawn(self._run(work))

    async def _run(self, work: Callable[[], None]) -> None:
        try:
            await self._disk.run(work)
        except (KafkaError, OSError) as error:
            logger.error("background work in %s failed: %s", self.path, error)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)

    def start_moved(self) -> None:
        """A log's start has moved: write it down soon."""
        if "log starts" not in self._timers and not self._closed:
            self._timers["log starts"] = self._clock.call_later(
                LOG_START_CHECKPOINT_DELAY_MS, lambda: self._spawn(self._checkpoint_moved_starts())
            )

    async def _checkpoint_moved_starts(self) -> None:
        self._timers.pop("log starts", None)
        try:
            await self.checkpoint_log_starts()
        except OSError as error:
            logger.error("%s cannot be written: %s", LOG_STARTS_FILE, error)

    def _every(self, name: str, interval_ms: int, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run ``work`` again and again, ``interval_ms`` after it last ended."""

        async def once() -> None:
            try:
                await work()
            except (KafkaError, OSError) as error:
                logger.error("%s in %s: %s", name, self.path, error)
            if not self._closed:
                self._every(name, interval_ms, work)

        self._timers[name] = self._clock.call_later(interval_ms, lambda: self._spawn(once()))

    # -- what recurs --------------------------------------------------------------------------------------

    async def _apply_retention(self) -> None:
        now_ms = self._clock.now_ms()
        # Once for all: they only grow meanwhile.
        visible = self.high_watermarks() if self.high_watermarks is not None else None
        for number, (topic_partition, log) in enumerate(list(self.logs.items())):
            if number % RETENTION_LOGS_AT_ONCE == RETENTION_LOGS_AT_ONCE - 1:
                await asyncio.sleep(0)
            if log.deleted:
                continue
            try:
                log.apply_retention(now_ms, visible.get(topic_partition, 0) if visible is not None else None)
                log.producers.expire(now_ms)
            except KafkaError as error:
                logger.error("retention of %s: %s", topic_partition, error)

    def config_changed(self, config: LogConfig) -> None:
        """Where a topic has flush.ms, look at what is due often enough; otherwise no timer runs."""
        if config.compacts:
            self._cleaner.wake()
        if config.flush_ms < LONG_MAX and "flush" not in self._timers and not self._closed:
            self._timers["flush"] = self._clock.call_later(
                max(1, min(config.flush_ms, 1000)), lambda: self._spawn(self._flush_due())
            )

    async def _flush_due(self) -> None:
        now_ms = self._clock.now_ms()
        due = [log for log in self.logs.values() if log.sync_due(now_ms)]
        await asyncio.gather(*(self._run(log.flush) for log in due))
        self._timers.pop("flush", None)
        configs = [log.config for log in self.logs.values()]
        if configs:
            self.config_changed(min(configs, key=lambda config: config.flush_ms))

    # -- checkpoints --------------------------------------------------------------------------------------

    async def checkpoint(self) -> None:
        """Write the checkpoint files that are not up to date. OSError where that fails."""
        await self._write(self._checkpoints)

    async def checkpoint_log_starts(self) -> None:
        """Have the log starts on disk (DeleteRecords answers after that). OSError where that fails."""
        await self._write(lambda: {LOG_STARTS_FILE: self._log_start_offsets()})

    def _checkpoints(self) -> Checkpoints:
        # What is not opened yet ends where it ended, if that was in order.
        points = dict(self._recovery_points) if self._clean else {}
        points |= {where: log.recovery_point for where, log in self.logs.items()}
        contents = {RECOVERY_POINTS_FILE: points, LOG_STARTS_FILE: self._log_start_offsets()}
        if self.high_watermarks is not None:
            contents[HIGH_WATERMARKS_FILE] = self._high_watermarks()
        cleaned = self._cleaned_offsets()
        if cleaned or CLEANED_FILE in self._dir.checkpoints:
            contents[CLEANED_FILE] = cleaned
        return contents

    def _high_watermarks(self) -> dict[TopicPartition, int]:
        """Those of the partitions that are open, and of the others what the last run left."""
        known = self.high_watermarks() if self.high_watermarks is not None else {}
        return self._recorded_high_watermarks | dict(known)

    async def _checkpoint_high_watermarks(self) -> None:
        """Where nothing has changed, nothing is done: an idle broker leaves the disk alone."""
        if self._dir.checkpoints.get(HIGH_WATERMARKS_FILE, {}) != self._high_watermarks():
            await self._write(lambda: {HIGH_WATERMARKS_FILE: self._high_watermarks()})

    def _cleaned_offsets(self) -> dict[TopicPartition, int]:
        offsets = {where: log.cleaned_offset for where, log in self.logs.items() if log.cleaned_offset >= 0}
        return self._cleaned | offsets

    async def _checkpoint_cleaned(self) -> None:
        await self._write(lambda: {CLEANED_FILE: self._cleaned_offsets()})

    def _log_start_offsets(self) -> dict[TopicPartition, int]:
        """Of the logs that begin within their first segment: the others need no checkpoint."""
        starts = dict(self._log_starts)
        for where, log in self.logs.items():
            if log.log_start_offset > log.segments[0].base_offset:
                starts[where] = log.log_start_offset
        return starts

    async def _write(self, checkpoints: Callable[[], Checkpoints]) -> None:
        """Write those that differ from what is on disk.

        One after the other, and each asks for what is so when its turn comes: two at once would fight over
        the temporary file, and the older could come to rest over the newer."""
        async with self._writing:
            turn = next(self._turns)
            for name, offsets in checkpoints().items():
                self._checkpointed.update(offsets)
                await self._disk.run(partial(self._dir.write_offsets, name, offsets, turn))


def parse_folder(name: str) -> TopicPartition | None:
    """The partition that a folder of this name holds, None where it holds none."""
    topic, _, partition = name.rpartition("-")
    return TopicPartition(topic, int(partition)) if topic and partition.isdigit() else None
