"""All logs of a node (Kafka's LogManager): opening, retention, flushing, checkpoints, deletion, shutdown.

Used from the event loop. Blocking work runs through ``Disk.run``; periodic work runs from a handful of
timers, so that an idle broker does next to nothing.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Callable, Coroutine, Iterable, Mapping, Set
from functools import partial
from typing import Any
from uuid import UUID

from ottla.config import BrokerConfig
from ottla.env.clock import Clock, Timer
from ottla.env.disk import Begun, Disk
from ottla.env.slices import Slices
from ottla.env.volume import Volume
from ottla.errors import KafkaError
from ottla.log.checkpointing import Checkpointing
from ottla.log.cleaner import Cleaner
from ottla.log.closing import Closing
from ottla.log.data_dir import (
    CLEANED_FILE,
    HIGH_WATERMARKS_FILE,
    LOG_STARTS_FILE,
    DataDir,
    is_data_directory,
)
from ottla.log.file_cache import FileCache
from ottla.log.files import read_topic_id
from ottla.log.flushing import AgedFlushes, Flushable
from ottla.log.folders import Aside, Suffix, aside_name, parse_aside, parse_folder
from ottla.log.log import Log
from ottla.log.lookups import TimeLookUps
from ottla.log.new_folders import NewFolders
from ottla.log.settings import LogConfig, Origin
from ottla.log.strays import find_own, holds_records, set_aside, stray_folders
from ottla.log.validation import Prepared, Rules, prepare
from ottla.types import Buffer, TopicPartition

logger = logging.getLogger(__name__)

FILE_IN_THE_WAY = "what is no partition's folder is in its place: move it away"
# A log start that moved is on disk after so long; DeleteRecords itself waits for it.
LOG_START_CHECKPOINT_DELAY_MS = 1000
# What recurs less often than that comes at whole multiples of it.
WHOLE_MS = 1000
# Retention looks at so many logs before it lets others have the event loop.
RETENTION_LOGS_AT_ONCE = 50
# Batches that are unpacked, checked or compressed in threads at a time; each may take 128 MB for that.
PREPARED_AT_ONCE = 2


class LogManager:
    """The logs in one data directory. ``start`` before anything else, ``close`` or ``abandon`` at the end."""

    def __init__(
        self,
        disk: Disk,
        data_dir: str,
        config: BrokerConfig,
        clock: Clock,
        *,
        node_id: int,
        slices: Slices | None = None,
    ) -> None:
        self.path = data_dir
        # What clients are told, who do not know where this process was started.
        self.absolute_path = os.path.abspath(data_dir)
        self.logs: dict[TopicPartition, Log] = {}
        self._disk = disk
        self._config = config
        self._clock = clock
        self._node_id = node_id
        self._cache = FileCache(disk)
        self._dir: DataDir
        self._volume: Volume | None = None
        self._clean = False
        # Whether a log was opened or made, or may have been.
        self._touched = False
        # How often any log's start has moved.
        self.starts_moved = 0
        self._slices = slices or Slices()
        self._checkpoints = Checkpointing(disk, self.logs, self._slices)
        # Folders that were set aside, until all partitions of the start are open; those partitions then.
        self._strays: dict[str, Aside] = {}
        self._assigned: Set[TopicPartition] | None = None
        # Batches that take long to prepare are prepared in so many threads: flushes need the others.
        self._preparing = asyncio.Semaphore(PREPARED_AT_ONCE)
        # Whoever looks records up by time does it here.
        self.lookups = TimeLookUps(disk)
        self._timers: dict[str, Timer] = {}
        self._tasks: dict[asyncio.Task[None], None] = {}
        # Whether the logs are being closed, or are.
        self.closed = False
        # Folders that a thread makes, for ``get_or_create`` to go on with.
        self.new_folders = NewFolders(
            disk, data_dir, clock, self._cache, config, self._is_new, self._rename_and_remove, self._spawn
        )
        self._flushes = AgedFlushes(clock, self._spawn, self._run, self._slices)
        self._cleaner = Cleaner(
            disk, clock, config, self.logs,
            spawn=self._spawn, checkpoint=partial(self._checkpoints.write, CLEANED_FILE),
            high_watermarks=lambda: self.high_watermarks if self.high_watermarks is not None else {},
            slices=self._slices,
        )  # fmt: skip

    @property
    def high_watermarks(self) -> Mapping[TopicPartition, int] | None:
        """From whoever knows: the high watermark of each partition, as it is when it is asked for. It is
        written down, and neither retention nor compaction touches what lies beyond it."""
        return self._checkpoints.high_watermarks

    @high_watermarks.setter
    def high_watermarks(self, marks: Mapping[TopicPartition, int]) -> None:
        self._checkpoints.high_watermarks = marks

    # -- life ---------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take the data directory and read what the last run left. DataDirectoryError: it cannot."""
        self._dir = DataDir.take(self._disk, self.path)
        try:
            self._dir.check_identity(self._node_id, None)
            # Before anything is written: it tells of what fails from here on.
            self._volume = self._disk.open_volume(self.path)
            self._clean = self._checkpoints.read(self._dir)
            names = self._dir.names()
        except BaseException:
            self._dir.release()
            raise
        folders = set(names)
        # Of partitions that are gone nothing is kept.
        recorded = self._checkpoints.recorded_high_watermarks
        self._checkpoints.recorded_high_watermarks = {
            where: at for where, at in recorded.items() if str(where) in folders
        }
        self._strays = stray_folders(self._disk, self.path, names)
        for name in names:
            aside = parse_aside(name)
            if aside is not None and aside.suffix is Suffix.DELETE and self._is_folder(name):
                self._remove_later(f"{self.path}/{name}")
        get = self._config.get
        self._every("retention", get("log.retention.check.interval.ms"), self._apply_retention)
        interval_ms = get("replica.high.watermark.checkpoint.interval.ms")
        write_high_watermarks = partial(self._checkpoints.write, HIGH_WATERMARKS_FILE)
        self._every("high watermarks", interval_ms, write_high_watermarks)
        self._every("recovery points", get("log.flush.offset.checkpoint.interval.ms"), self.checkpoint)
        if not self._clean and any(parse_folder(name) for name in names):
            logger.warning("unclean shutdown: recovering the logs in %s", self.path)

    @property
    def is_new(self) -> bool:
        """Whether the data directory is nobody's yet: neither marked by a node nor with a partition in it."""
        return self._dir.is_new

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
        all_closed = await Closing(self._disk, self._volume, self.path, list(self.logs.values())).run()
        try:
            await self.checkpoint()
            if all_closed:
                await self._disk.run(self._dir.leave_clean_mark)
        except OSError as error:
            logger.error("%s: the checkpoints for the next start cannot be written: %s", self.path, error)
            return False
        finally:
            self._release()
        return all_closed

    def abandon(self) -> None:
        """Let go of everything as a crash would: nothing is written, except that a start which ended before
        it came to the logs leaves the next one as it found them."""
        self._stop()
        if self._clean and not self._touched:
            try:
                self._dir.leave_clean_mark()
            except OSError as error:
                logger.warning(
                    "unclean shutdown: the next start recovers the logs in %s: %s", self.path, error
                )
        for task in self._tasks:
            task.cancel()
        for log in self.logs.values():
            log.abandon()
        self._release()

    def _release(self) -> None:
        self._dir.release()
        if self._volume is not None:
            self._volume.close()

    def _stop(self) -> None:
        self.closed = True
        self._cleaner.close()
        self._flushes.close()
        for timer in self._timers.values():
            timer.cancel()

    # -- logs ---------------------------------------------------------------------------------------------

    def get_or_create(
        self, topic_partition: TopicPartition, topic_id: UUID, config: LogConfig, now_ms: int
    ) -> Log:
        """A partition's log: the one that is open, or else opened, or made where there is none.

        A folder of another topic of the same name is set aside: see ``strays``. After a crash this takes as
        long as the log takes to be recovered. OSError where the disk fails, or a file is in the way.
        """
        log = self.logs.get(topic_partition)
        if log is not None and log.topic_id == topic_id:
            return log
        self._touched = True
        directory = f"{self.path}/{topic_partition}"
        made = self.new_folders.take(topic_partition, topic_id)
        if made is not None:
            self._checkpoints.forget(topic_partition)
            log = self.logs[topic_partition] = Log(made, config, topic_partition, self)
            return log
        if log is not None:
            self.delete(topic_partition)
        elif self._disk.exists(directory):
            self._make_way(topic_partition, topic_id, directory)
        if not self._disk.exists(directory) and not self._take_back(topic_partition, topic_id):
            self._checkpoints.erase(topic_partition)
        checkpoints = self._checkpoints
        recovery_point = checkpoints.recovery_points.get(topic_partition)
        log = Log.open(
            self._disk,
            directory,
            config,
            topic_partition=topic_partition,
            topic_id=topic_id,
            now_ms=now_ms,
            clean=self._clean and recovery_point is not None,
            recovery_point=recovery_point,
            log_start_offset=checkpoints.log_starts.get(topic_partition, 0),
            cleaned_offset=checkpoints.cleaned.get(topic_partition, -1),
            # Where none was written down, all of the log would have to be read.
            high_watermark=self._checkpoints.recorded_high_watermarks.get(topic_partition),
            cache=self._cache,
            background=self,
            producer_expiration_ms=self._config.get("producer.id.expiration.ms"),
        )
        self._checkpoints.forget(topic_partition)
        self.logs[topic_partition] = log
        return log

    def must_erase(self, topic_partition: TopicPartition) -> bool:
        """Whether checkpoint files speak of a partition that is not open: ``erase`` before it is made."""
        return self._checkpoints.names(topic_partition) and topic_partition not in self.logs

    async def erase(self, wanted: Iterable[TopicPartition]) -> None:
        """Have checkpoint files speak of none of these that have no folder: so that this need not be done at
        once where one is made. OSError where the disk fails."""
        gone = [
            where
            for where in wanted
            if self.must_erase(where) and not self._strays and not self._disk.exists(f"{self.path}/{where}")
        ]
        if gone:
            await self._checkpoints.erase_all(gone)

    def _is_new(self, topic_partition: TopicPartition) -> bool:
        """Whether nothing is to be put right before a partition's folder is made."""
        known = topic_partition in self.logs or self._checkpoints.names(topic_partition)
        return not (known or self._strays or self._disk.exists(f"{self.path}/{topic_partition}"))

    def delete(self, topic_partition: TopicPartition) -> None:
        """Take a partition away: its folder is renamed at once and removed after file.delete.delay.ms."""
        log = self.logs.pop(topic_partition, None)
        if log is None:
            return
        log.retire()
        self._rename_and_remove(topic_partition, log.directory, log.config.file_delete_delay_ms)

    async def prepare(self, records: Buffer, rules: Rules, now_ms: int) -> Prepared:
        """Prepare a client's batch that takes long, in a thread. KafkaError as ``validation.prepare``."""
        async with self._preparing:
            return await self._disk.run(partial(prepare, records, rules, now_ms, Origin.CLIENT))

    def recorded_high_watermark(self, topic_partition: TopicPartition) -> int:
        """The high watermark that the last run wrote down, 0 where it wrote none."""
        return self._checkpoints.recorded_high_watermarks.get(topic_partition, 0)

    def obstacle(self, topic_partition: TopicPartition) -> str | None:
        """Why a partition cannot be made; None: nothing is in the way of its folder."""
        path = f"{self.path}/{topic_partition}"
        if self._disk.exists(path) and not self._is_folder(str(topic_partition)):
            return f"{path}: {FILE_IN_THE_WAY}"
        return None

    # -- folders of nothing that is known -----------------------------------------------------------------

    def set_strays_aside(self, assigned: Set[TopicPartition]) -> None:
        """The start is over: rename the folders of partitions other than those ``assigned`` to this node.

        Each is said once; those of earlier starts are counted. One that cannot be renamed stays.
        """
        self._assigned = assigned
        for name in self._dir.names():
            where = parse_folder(name)
            if where is not None and where not in assigned and self._is_folder(name):
                try:
                    self._set_aside(where, "it belongs to no partition that is known to be on this node")
                except OSError as error:
                    logger.error("stray partition %s/%s: cannot be set aside: %s", self.path, name, error)
        strays = stray_folders(self._disk, self.path, self._dir.names())
        self._strays = {}
        if strays:
            logger.warning(
                "stray partitions in %s: %d; their records are kept and not served: 'ottla log "
                "stray list %s' shows them, adopt puts one in its place, delete removes it",
                self.path, len(strays), self.path,
            )  # fmt: skip

    def _is_folder(self, name: str) -> bool:
        """Whether a name is that of a folder which may be a partition's."""
        path = f"{self.path}/{name}"
        return self._disk.exists(path + "/") and not is_data_directory(self._disk, path)

    def _make_way(self, topic_partition: TopicPartition, topic_id: UUID, directory: str) -> None:
        """Have the place of a partition's folder free, or taken by a folder of this topic."""
        if not self._is_folder(str(topic_partition)):
            raise FileExistsError(errno.EEXIST, FILE_IN_THE_WAY, directory)
        found = read_topic_id(self._disk, directory)
        if found is None:
            # At the start the metadata knows its name. A topic that was made since has nothing here yet, but
            # for what an attempt left that failed.
            is_new = self._assigned is not None and topic_partition not in self._assigned
            if is_new and holds_records(self._disk, directory):
                self._set_aside(topic_partition, "it does not tell its topic's id, and a topic was made")
        elif found != topic_id:
            self._set_aside(topic_partition, f"it is of topic id {found}, and the topic's is now {topic_id}")

    def _set_aside(self, topic_partition: TopicPartition, why: str) -> None:
        log_start_offset = self._checkpoints.log_starts.get(topic_partition, 0)
        folder = set_aside(self._disk, self.path, topic_partition, log_start_offset)
        self._checkpoints.forget(topic_partition)
        logger.warning(
            "stray partition %s/%s: set aside as %s: %s; its records are kept, see 'ottla log "
            "stray'",
            self.path, topic_partition, folder, why,
        )  # fmt: skip

    def _take_back(self, topic_partition: TopicPartition, topic_id: UUID) -> bool:
        """Put a folder back that was set aside, where the metadata knows it again at a start; whether it was.

        Not later: it has to be recovered, which takes its time, and a replica that comes back is copied.
        """
        stray = find_own(self._disk, self.path, self._strays, topic_partition, topic_id)
        if stray is None:
            return False
        self._checkpoints.erase(topic_partition)
        if stray.log_start_offset > 0:
            self._checkpoints.keep_log_start(topic_partition, stray.log_start_offset)
        self._disk.rename(f"{self.path}/{stray.folder}", f"{self.path}/{topic_partition}")
        self._disk.sync_dir(self.path)
        del self._strays[stray.folder]
        logger.warning("stray partition %s/%s: put back in its place", self.path, stray.folder)
        return True

    def _rename_and_remove(self, topic_partition: TopicPartition, directory: str, delay_ms: int = 0) -> None:
        doomed = f"{self.path}/{aside_name(topic_partition, Suffix.DELETE)}"
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
            self._clock.call_later(delay_ms, lambda: None if self.closed else self.submit(work))
            return
        self._spawn(self._run(work))

    def begin_write(self, work: Callable[[], None], done: Callable[[], None]) -> Begun:
        return self._disk.begin_write(work, done)

    async def _run(self, work: Callable[[], None]) -> None:
        try:
            await self._disk.run(work)
        except (KafkaError, OSError) as error:
            logger.error("background work in %s failed: %s", self.path, error)
        except Exception:
            logger.exception("background work in %s failed", self.path)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)
        return task

    def start_moved(self) -> None:
        """A log's start has moved: write it down soon."""
        self.starts_moved += 1
        if "log starts" not in self._timers and not self.closed:
            self._timers["log starts"] = self._clock.call_later(
                LOG_START_CHECKPOINT_DELAY_MS, lambda: self._spawn(self._checkpoint_moved_starts())
            )

    async def _checkpoint_moved_starts(self) -> None:
        self._timers.pop("log starts", None)
        try:
            await self.checkpoint_log_starts()
        except OSError as error:
            logger.error("%s cannot be written: %s", LOG_STARTS_FILE, error)
        except Exception:
            logger.exception("%s cannot be written", LOG_STARTS_FILE)

    def _every(self, name: str, interval_ms: int, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run ``work`` again and again, ``interval_ms`` after it last ended; at 0 or less once, as Kafka's
        scheduler does."""

        async def once() -> None:
            try:
                await work()
            except (KafkaError, OSError) as error:
                logger.error("%s in %s failed: %s", name, self.path, error)
            except Exception:
                logger.exception("%s in %s failed", name, self.path)
            if not self.closed and interval_ms > 0:
                self._every(name, interval_ms, work)

        delay_ms = max(0, interval_ms)
        if delay_ms > WHOLE_MS:
            # In one turn of the loop with what else recurs, for whose sake an idle process wakes once.
            delay_ms -= (self._clock.monotonic_ms() + delay_ms) % WHOLE_MS
        self._timers[name] = self._clock.call_later(delay_ms, lambda: self._spawn(once()))

    # -- what recurs --------------------------------------------------------------------------------------

    async def _apply_retention(self) -> None:
        now_ms = self._clock.now_ms()
        expiration_ms = self._config.get("producer.id.expiration.ms")
        visible = self.high_watermarks
        for number, (topic_partition, log) in enumerate(list(self.logs.items())):
            if number % RETENTION_LOGS_AT_ONCE == RETENTION_LOGS_AT_ONCE - 1:
                await self._slices.pause()
            if log.deleted:
                continue
            try:
                log.apply_retention(now_ms, visible.get(topic_partition, 0) if visible is not None else None)
                for _ in log.producers.expire(now_ms, expiration_ms):
                    await self._slices.pause()
            except KafkaError as error:
                logger.error("retention of %s failed: %s", topic_partition, error)
            except Exception:
                logger.exception("retention of %s failed", topic_partition)

    @property
    def cleaner(self) -> Cleaner:
        """Who compacts: for those who look at how that goes."""
        return self._cleaner

    def segment_closed(self) -> None:
        self._cleaner.wake()

    def config_changed(self, config: LogConfig) -> None:
        if config.compacts:
            self._cleaner.wake()

    def begins_unflushed(self, log: Flushable) -> None:
        self._flushes.add(log)

    # -- checkpoints --------------------------------------------------------------------------------------

    async def checkpoint(self) -> None:
        """Write the checkpoint files that are not up to date. OSError where that fails."""
        await self._checkpoints.write_all()

    async def checkpoint_log_starts(self) -> None:
        """Have the log starts on disk (DeleteRecords answers after that). OSError where that fails."""
        await self._checkpoints.write(LOG_STARTS_FILE)
