"""Compaction in the background (Kafka's LogCleaner and LogCleanerManager): which log, when, and how fast.

One task for all logs of a node. It begins when a compacted log has closed a segment or changed its
configuration, cleans the dirtiest log there is until none is dirty enough, and ends; while nothing happens
there is nothing but perhaps one timer. The work is done off the event loop a millisecond at a time, since
Python threads share one interpreter, and with a rest after each burst.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from contextlib import suppress
from functools import partial
from math import inf
from typing import Any, NamedTuple

from ottla.config import BrokerConfig
from ottla.env.clock import Clock, Timer
from ottla.env.disk import Disk
from ottla.env.slices import Slices
from ottla.errors import KafkaError
from ottla.log.cleaned_transactions import CleanedTransactions
from ottla.log.cleaning import Progress, Rewrite, Source, map_segment
from ottla.log.compaction import (
    ENTRY_BYTES,
    LONG_MAX,
    RECORDS_AT_ONCE,
    Extent,
    Filter,
    OffsetMap,
    Steps,
    dirty_ratio,
    first_dirty_offset,
    group,
)
from ottla.log.durability import Point
from ottla.log.files import INDEX_SUFFIX, TIME_INDEX_SUFFIX
from ottla.log.log import Log
from ottla.log.segment import Segment
from ottla.types import TopicPartition

logger = logging.getLogger(__name__)

# How long after a segment has closed logs are looked through; others close meanwhile.
WAKE_DELAY_MS = 500
# Logs that are looked at in one turn of the loop: up to 20 microseconds each.
LOOKED_AT_ONCE = 200
# Compaction works for so long at a time, and rests for as long: it takes half of one core at most.
BURST_MS = 4
# A longer rest, which the configured rate asks for, is taken in parts: the broker may stop meanwhile.
REST_MS_MAX = 200
# Less is not worth a read.
BUFFER_BYTES_MIN = 64 * 1024
# How long a log that could not be compacted is left alone.
FAILED_REST_MS = 600_000


class Dirty(NamedTuple):
    """A log worth compacting: from the first offset up to the second."""

    ratio: float
    where: TopicPartition
    log: Log
    dirty_offset: int
    end_offset: int


class Aborted(Exception):
    """The log changed under a compaction, or the broker stops: what was under way is dropped."""


class Cleaner:
    """Compacts ``logs``. ``wake`` it when there may be something to do; ``close`` it at the end."""

    def __init__(
        self,
        disk: Disk,
        clock: Clock,
        config: BrokerConfig,
        logs: Mapping[TopicPartition, Log],
        *,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        checkpoint: Callable[[], Awaitable[None]],
        high_watermarks: Callable[[], Mapping[TopicPartition, int]],
        slices: Slices,
    ) -> None:
        self._disk = disk
        self._clock = clock
        self._config = config
        self._logs = logs
        self._spawn = spawn
        self._checkpoint = checkpoint
        self._high_watermarks = high_watermarks
        self._slices = slices
        self._timer: Timer | None = None
        self._timer_due_ms = 0
        self._running = False
        self._woken = False
        self._closed = False
        # How often a log was compacted, and how often one could not be.
        self.rounds = self.failures = 0
        # Of the logs that were worth it at the last look, the largest share that has not been compacted.
        self.dirty_ratio = 0.0
        # What the log that is being cleaned held when that began: a truncation puts another in its place.
        self._began_with: Point | None = None

    # -- when ---------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """A log may have become dirty enough: look soon."""
        self._woken = True
        if not self._running:
            self._look_in(WAKE_DELAY_MS)

    def close(self) -> None:
        """Begin nothing more; what is under way stops at its next step."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _look_in(self, delay_ms: int) -> None:
        if self._closed or not self._config.get("log.cleaner.enable"):
            return
        due_ms = self._clock.monotonic_ms() + delay_ms
        if self._timer is not None:
            if self._timer_due_ms <= due_ms:
                return
            self._timer.cancel()
        self._timer_due_ms = due_ms
        self._timer = self._clock.call_later(delay_ms, self._begin)

    def _begin(self) -> None:
        self._timer = None
        if not self._running and not self._closed:
            self._running = True
            self._spawn(self._run())

    async def _run(self) -> None:
        """Clean the dirtiest log until none is dirty enough."""
        try:
            waits = False
            while not self._closed:
                self._woken = False
                dirty, waits = await self._slices.run(self.look(self._clock.now_ms()))
                self.dirty_ratio = max(dirty).ratio if dirty else 0.0
                if not dirty:
                    break
                await self._try(max(dirty))
        finally:
            self._running = False
        if self._woken:
            self._look_in(WAKE_DELAY_MS)
        elif waits:
            self._look_in(max(WAKE_DELAY_MS, self._config.get("log.cleaner.backoff.ms")))

    # -- which --------------------------------------------------------------------------------------------

    def look(self, now_ms: int) -> Generator[None, None, tuple[list[Dirty], bool]]:
        """The logs that are dirty enough, and whether any may become so by time alone."""
        found: list[Dirty] = []
        waits, visible = False, self._high_watermarks()
        for number, (where, log) in enumerate(list(self._logs.items())):
            if number % LOOKED_AT_ONCE == LOOKED_AT_ONCE - 1:
                yield
            if not log.config.compacts or len(log.segments) < 2 or log.deleted or log.failed is not None:
                continue
            if log.replacement.rests_until_ms > self._clock.monotonic_ms():
                waits = True
                continue
            try:
                dirty, log_waits = look_at(where, log, visible.get(where, log.log_end_offset), now_ms)
            except Exception as error:  # noqa: BLE001 - it is logged, and the other logs are looked at
                self._leave_alone(log, where, error)
                dirty, log_waits = None, True
            waits = waits or log_waits
            if dirty is not None:
                found.append(dirty)
        return found, waits

    # -- how ----------------------------------------------------------------------------------------------

    async def _try(self, dirty: Dirty) -> None:
        """Clean a log, or leave it alone for a while."""
        try:
            await self.clean(dirty)
            self.rounds += 1
            dirty.log.replacement.fails = False
        except Aborted:
            backoff_ms = self._config.get("log.cleaner.backoff.ms")
            dirty.log.replacement.rest_until(self._clock.monotonic_ms() + max(WAKE_DELAY_MS, backoff_ms))
        except Exception as error:  # noqa: BLE001 - it is logged, and the other logs are compacted
            self._leave_alone(dirty.log, dirty.where, error)

    def _leave_alone(self, log: Log, where: TopicPartition, error: Exception) -> None:
        """For a while; a log that was deleted meanwhile fails in many ways, and none matters."""
        if not log.deleted:
            self.failures += 1
            log.replacement.fails = True
            foreseen = isinstance(error, KafkaError | OSError)
            logger.error("%s cannot be compacted: %s", where, error, exc_info=None if foreseen else error)
        log.replacement.rest_until(self._clock.monotonic_ms() + FAILED_REST_MS)

    async def clean(self, dirty: Dirty) -> None:
        """One round over one log. Aborted; KafkaError and OSError where the disk fails."""
        log, now_ms = dirty.log, self._clock.now_ms()
        began_ms = self._clock.monotonic_ms()
        self._began_with = log.replacement.history
        progress = Progress(began_ms, began_ms)
        get = self._config.get
        if log.recovery_point < dirty.end_offset:
            await self._disk.run(partial(log.flush, dirty.end_offset))
        entries_max = keys_at_once(
            get("log.cleaner.dedupe.buffer.size"), get("log.cleaner.io.buffer.load.factor")
        )
        offsets = OffsetMap(entries_max, dirty.dirty_offset)
        transactions = CleanedTransactions()
        for source in _sources(log, dirty.dirty_offset, dirty.end_offset):
            mapping = map_segment(source(), offsets, transactions, self._buffer_bytes, progress)
            await self._drive(log, mapping, progress)
            if offsets.is_full:
                break
        await self._drive(log, offsets.complete(), progress)
        end_offset = offsets.latest_offset + 1
        producers = await self._disk.run(log.producers.freeze().last_records)
        retention_ms = log.config.delete_retention_ms
        keeps = Filter(offsets, now_ms, retention_ms, producers, CleanedTransactions())
        size = log.size_bytes
        for segments in await self._groups(log, end_offset):
            await self._rewrite(log, segments, keeps, progress)
        keys = len(offsets)
        await self._drive(log, offsets.forget(), progress)
        self._check(log)
        log.replacement.advance(end_offset)
        await self._checkpoint()
        logger.info(
            "%s: compacted offsets %d to %d, %d keys: the log has %d bytes instead of %d, in %d ms",
            dirty.where, dirty.dirty_offset, end_offset, keys, log.size_bytes, size,
            self._clock.monotonic_ms() - began_ms,
        )  # fmt: skip

    @property
    def _buffer_bytes(self) -> int:
        return max(BUFFER_BYTES_MIN, int(self._config.get("log.cleaner.io.buffer.size")))

    async def _groups(self, log: Log, end_offset: int) -> list[list[Segment]]:
        """The segments that begin before an offset, as they are to be merged."""
        closed = [segment for segment in log.segments[:-1] if segment.base_offset < end_offset]
        ends = [segment.base_offset for segment in log.segments[1 : len(closed) + 1]]
        config = log.config

        def measure() -> list[Extent]:
            return [
                Extent(
                    segment.base_offset, end, segment.size,
                    self._size(segment, INDEX_SUFFIX), self._size(segment, TIME_INDEX_SUFFIX),
                )
                for segment, end in zip(closed, ends, strict=True)
            ]  # fmt: skip

        extents = await self._disk.run(measure)
        numbers = group(extents, config.segment_bytes, config.segment_index_bytes)
        return [[closed[number] for number in one] for one in numbers]

    def _size(self, segment: Segment, suffix: str) -> int:
        path = segment.path(suffix)
        return self._disk.size(path) if self._disk.exists(path) else 0

    async def _rewrite(self, log: Log, segments: list[Segment], keeps: Filter, progress: Progress) -> None:
        """Write what stays of some segments aside, and put it in their place."""
        first = log.replacement.find(segments)
        if first is None:
            raise Aborted
        sources = [
            _source(log, segment, log.segments[number].base_offset)
            for number, segment in enumerate(segments, first + 1)
        ]
        needed = sum(source.size for source in sources)
        _, free = await self._disk.run(partial(self._disk.free_bytes, log.directory))
        if free < needed:
            raise OSError(errno.ENOSPC, f"{needed} bytes are needed for a while and {free} are free")
        rewrite = Rewrite(sources, log.directory, log.config.index_interval_bytes)
        steps = rewrite.steps(self._disk, keeps, self._buffer_bytes, progress)
        try:
            await self._drive(log, steps, progress)
            if rewrite.written is None:
                return
            sizes = [segment.size for segment in segments]
            self._check(log)
            if log.replacement.find(segments) != first or sizes != [source.size for source in sources]:
                raise Aborted
            doomed = log.replacement.replace(segments, rewrite.written, self._clock.now_ms())
            # Who closes a removed file last frees its blocks, which must not be the event loop.
            sources.clear()
        finally:
            # Where the files have taken their place there is nothing left to remove.
            with suppress(OSError):
                await self._disk.run(partial(rewrite.discard, self._disk))
        await self._disk.run(partial(self._disk.sync_dir, log.directory))
        log.replacement.remove_later(doomed)

    def _check(self, log: Log) -> None:
        """Aborted where the log is not to be compacted any more."""
        if self._closed or log.deleted or not log.config.compacts or log.failed is not None:
            raise Aborted
        if log.replacement.history is not self._began_with:
            # Records that it is to be cleaned by may be gone.
            raise Aborted

    async def _drive(self, log: Log, steps: Steps, progress: Progress) -> None:
        """Run the steps off the event loop, a little at a time. Aborted: the log is not to be cleaned."""
        rate = bytes_per_second(self._config.get("log.cleaner.io.max.bytes.per.second"))
        more = True
        while more:
            self._check(log)
            more = await self._disk.run(partial(advance, steps))
            now_ms = self._clock.monotonic_ms()
            moved = progress.bytes_read + progress.bytes_written
            ahead_ms = moved / rate * 1000 - (now_ms - progress.began_ms)
            worked_ms = now_ms - progress.rested_ms
            if worked_ms >= BURST_MS or ahead_ms > BURST_MS:
                await self._rest(log, max(worked_ms, ahead_ms))
                progress.rested_ms = self._clock.monotonic_ms()

    async def _rest(self, log: Log, rest_ms: float) -> None:
        while rest_ms > 0:
            self._check(log)
            await asyncio.sleep(min(rest_ms, REST_MS_MAX) / 1000)
            rest_ms -= REST_MS_MAX


def look_at(where: TopicPartition, log: Log, high_watermark: int, now_ms: int) -> tuple[Dirty | None, bool]:
    """What there is to compact in a log, if that is enough, and whether time alone may make it so."""
    config, closed = log.config, log.segments[:-1]
    # What is not decided yet is not compacted.
    stable_offset = min(high_watermark, log.producers.transactions.first_unstable_offset)
    ends = [segment.base_offset for segment in log.segments[1:]]
    dirty_offset = first_dirty_offset(log.cleaned_offset, log.log_start_offset, log.log_end_offset)
    dirty = [
        segment for segment, end in zip(closed, ends, strict=True) if dirty_offset < end <= stable_offset
    ]
    waits = False
    if config.min_compaction_lag_ms > 0:
        newest_ms = now_ms - config.min_compaction_lag_ms
        for number, segment in enumerate(dirty):
            if segment.largest_timestamp_ms() > newest_ms:
                dirty, waits = dirty[:number], True
                break
    if not dirty:
        return None, waits
    end_offset = ends[closed.index(dirty[-1])]
    extents = [
        Extent(segment.base_offset, end, segment.size) for segment, end in zip(closed, ends, strict=True)
    ]
    ratio = dirty_ratio(extents, dirty_offset, end_offset)
    is_overdue = False
    if config.max_compaction_lag_ms < LONG_MAX:
        first_ms = min((time for one in dirty if (time := one.load_first_timestamp()) > 0), default=now_ms)
        is_overdue = first_ms < now_ms - config.max_compaction_lag_ms
        waits = waits or not is_overdue
    if ratio > config.min_cleanable_dirty_ratio or (is_overdue and ratio > 0):
        return Dirty(ratio, where, log, dirty_offset, end_offset), waits
    return None, waits


def advance(steps: Steps) -> bool:
    """Go on by about a millisecond's work; whether there is more."""
    done = 0
    for cost in steps:
        done += cost
        if done >= RECORDS_AT_ONCE:
            return True
    return False


def _sources(log: Log, dirty_offset: int, end_offset: int) -> list[Callable[[], Source]]:
    """The closed segments between two offsets; a file is opened when it comes to it."""
    pairs = zip(log.segments, log.segments[1:], strict=False)
    return [
        partial(_source, log, segment, after.base_offset)
        for segment, after in pairs
        if after.base_offset > dirty_offset and segment.base_offset < end_offset
    ]


def _source(log: Log, segment: Segment, end_offset: int) -> Source:
    return Source(segment.base_offset, end_offset, segment.size, segment.file, log.aborted.overlapping)


def keys_at_once(buffer_bytes: int, load_factor: float) -> int:
    """How many keys a round may hold in memory, at least one; a load factor may be any double."""
    share = load_factor if 0 <= load_factor <= 1 else float(load_factor > 1)
    return max(1, int(buffer_bytes / ENTRY_BYTES * share))


def bytes_per_second(configured: float) -> float:
    """The rate to keep to. As in Kafka's ``Throttler`` nothing is held back at a rate that is negative or no
    number, and nearly everything at 0."""
    return max(1.0, configured) if configured >= 0 else inf
