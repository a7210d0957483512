"""Finding records by time (UnifiedLog.fetchOffsetByTimestamp), and waiting for look-ups to be readable.

What a batch's header says of times is the producer's word: a client may write many batches that claim a late
time and hold none, or hold nothing that can be read. They are passed over, and what that takes is done off
the event loop, about a millisecond's work at a time, for one look-up after the other in turn.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple, TypeVar

from ottla.env.disk import Disk, File
from ottla.errors import ErrorCode, KafkaError
from ottla.log.log import Log
from ottla.log.segment import Segment
from ottla.log.segment_file import ColdRead
from ottla.log.settings import LONG_MAX
from ottla.types import Buffer
from ottla.wire.records import LOG_APPEND_TIME, BatchHeader, as_long, read_header, read_varint, unpack_records

T = TypeVar("T")
# What a batch is told from others by: its folder, its base offset, its leader epoch, its checksum.
Key = tuple[str, int, int, int]

# How often a look-up may find that what it needs is not in memory, or has changed, before it is given up.
COLD_READS_MAX = 1000
# Segments of which the largest time is asked for in one turn of the event loop.
SEGMENTS_AT_ONCE = 20
# Records that are walked over in one piece, which takes about a millisecond; what reading a header counts as,
# and what unpacking a batch does, whatever it turns out to hold.
RECORDS_AT_ONCE = 1000
HEADER_COST = 4
UNPACK_COST = 100
# Batches that are noted at a time as those that claim the latest times.
CLAIMS_AT_ONCE = 1000
# Before every time there is.
NONE_MS = -(2**63)
# Batches that are remembered as belying their headers, over all logs of a node.
BELIED_MAX = 10_000

# What a step of work counts as, in records; the generator's value is the outcome.
Steps = Generator[int, None, T]


class TimestampOffset(NamedTuple):
    """A record found by its time."""

    timestamp_ms: int
    offset: int
    leader_epoch: int


_NOT_KNOWN = TimestampOffset(0, -1, -1)


async def look_up_warm(disk: Disk, look_up: Callable[[], T]) -> T:
    """What ``look_up`` returns; wherever it meets bytes that are not in memory they are read off the loop.

    It is called again from the start each time, so that it always sees the log as it is then.
    """
    for _ in range(COLD_READS_MAX):
        try:
            return look_up()
        except ColdRead as cold:
            await disk.run(cold.warm)
    raise KafkaError(ErrorCode.kafka_storage_error, "the disk is too busy to be read")


class Stretch(NamedTuple):
    """A part of a segment to be looked through, from a batch's position on up to where it ends now."""

    segment: Segment
    file: File
    position: int
    end: int

    def headers(self) -> Iterator[tuple[BatchHeader, int]]:
        """Each batch's header and position, also behind damage, read in any thread."""
        for header, position in self.segment.surviving_from(self.position, self.file.read):
            if position >= self.end:
                return
            yield header, position


class Claim(NamedTuple):
    """The largest time that a segment has, if all its headers are true."""

    timestamp_ms: int
    base_offset: int


class Belied:
    """Batches that were looked through in vain, so that it is not done again for every request that comes.

    Of each: its newest record, None where none can be read. What was asked for last stays longest.
    """

    def __init__(self, directory: str, known: OrderedDict[Key, TimestampOffset | None]) -> None:
        self._directory = directory
        self._known = known

    def _key(self, header: BatchHeader) -> Key:
        return self._directory, header.base_offset, header.partition_leader_epoch, header.crc

    def looked_through(self, header: BatchHeader) -> tuple[TimestampOffset | None] | None:
        """The newest record of a batch that was looked through, in a tuple; None if it was not.

        A look-up whose client has gone may still run in another thread, and have the batch forgotten between
        two steps of this.
        """
        key = self._key(header)
        newest = self._known.get(key, _NOT_KNOWN)
        if newest is _NOT_KNOWN:
            return None
        with suppress(KeyError):
            self._known.move_to_end(key)
        return (newest,)

    def note(self, header: BatchHeader, newest: TimestampOffset | None) -> None:
        """Remember the newest record, where it is not what the header claims."""
        if newest is not None and newest.timestamp_ms == header.max_timestamp_ms:
            return
        if len(self._known) >= BELIED_MAX:
            self._known.popitem(last=False)
        self._known[self._key(header)] = newest


class TimeLookUps:
    """Looks records up by time in the logs of a node, one piece of work at a time."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        # Whoever waits gets it in turn: one look-up that takes long does not keep the others from theirs.
        self._turn = asyncio.Lock()
        self._belied: OrderedDict[Key, TimestampOffset | None] = OrderedDict()

    async def first_from(self, log: Log, timestamp_ms: int) -> TimestampOffset | None:
        """The first record whose timestamp is at or after ``timestamp_ms``; None where all are older.

        KafkaError KAFKA_STORAGE_ERROR where the disk fails, and as ``Segment.headers_from`` where the log is
        damaged.
        """
        return await _steadily(log, lambda: self._first_from(log, timestamp_ms))

    async def newest(self, log: Log) -> TimestampOffset | None:
        """The first record that has the largest timestamp; None where there is none (KIP-734).

        As in Kafka it may lie before the log's start. KafkaError as ``first_from``.
        """
        return await _steadily(log, lambda: self._newest(log))

    async def _first_from(self, log: Log, timestamp_ms: int) -> TimestampOffset | None:
        belied = Belied(log.directory, self._belied)
        offset: int | None = log.log_start_offset
        while offset is not None:
            stretch, offset = await self._look_up(partial(_next_stretch, log, offset, timestamp_ms))
            if stretch is None:
                await asyncio.sleep(0)
                continue
            found = await self._run(search(stretch, timestamp_ms, log.log_start_offset, belied))
            if found is not None:
                return found
        return None

    async def _newest(self, log: Log) -> TimestampOffset | None:
        claims: list[Claim] = []
        offset: int | None = log.segments[0].base_offset
        while offset is not None:
            some, offset = await self._look_up(partial(_claims, log, offset))
            claims += some
            await asyncio.sleep(0)
        belied = Belied(log.directory, self._belied)
        best: TimestampOffset | None = None
        for claim in sorted(claims, key=lambda one: (-one.timestamp_ms, one.base_offset)):
            if best is not None and _rank(best) < (-claim.timestamp_ms, claim.base_offset):
                break
            stretch = await self._look_up(partial(_claimed_stretch, log, claim))
            if stretch is not None:
                found = await self._run(search_newest(stretch, claim.timestamp_ms, belied))
                best = earlier_or_newer(best, found)
        return best

    async def _look_up(self, look: Callable[[], T]) -> T:
        try:
            return await look_up_warm(self._disk, look)
        except OSError as error:
            raise _cannot_read(error) from error

    async def _run(self, steps: Steps[T]) -> T:
        """Do work off the event loop, a little at a time; half of one core at most goes to all look-ups."""
        loop = asyncio.get_running_loop()
        while True:
            async with self._turn:
                began_s = loop.time()
                outcome = await self._disk.run(partial(_advance, steps))
                if outcome is not None:
                    return outcome[0]
                await asyncio.sleep(loop.time() - began_s)


async def _steadily(log: Log, look_up: Callable[[], Awaitable[T]]) -> T:
    """What ``look_up`` finds in a log that is not cut meanwhile: a follower's may be."""
    for _ in range(COLD_READS_MAX):
        history = log.replacement.history
        try:
            found = await look_up()
        except KafkaError:
            if log.replacement.history is history:
                raise
            continue
        if log.replacement.history is history:
            return found
    raise KafkaError(ErrorCode.kafka_storage_error, "the log is cut again and again")


def _advance(steps: Steps[T]) -> tuple[T] | None:
    """Go on by about a millisecond's work; the outcome, if that was the end."""
    done = 0
    try:
        while done < RECORDS_AT_ONCE:
            done += next(steps)
    except StopIteration as end:
        return (end.value,)
    except OSError as error:
        raise _cannot_read(error) from error
    return None


def _cannot_read(error: OSError) -> KafkaError:
    return KafkaError(ErrorCode.kafka_storage_error, f"the log cannot be read: {error.strerror}")


# -- which segments, on the event loop ----------------------------------------------------------------------


def _some_from(log: Log, offset: int) -> tuple[Sequence[Segment], int | None]:
    """Some segments, from the one that holds ``offset`` on, and where those behind them begin, if any do."""
    segments = log.segments
    first = max(0, bisect_right(segments, offset, key=lambda segment: segment.base_offset) - 1)
    following = first + SEGMENTS_AT_ONCE
    next_offset = segments[following].base_offset if following < len(segments) else None
    return segments[first:following], next_offset


def _next_stretch(log: Log, offset: int, timestamp_ms: int) -> tuple[Stretch | None, int | None]:
    """Where a record of this time or later may be first, from ``offset`` on, and where to go on after that.

    ColdRead; OSError where the disk fails.
    """
    some, next_offset = _some_from(log, offset)
    for number, segment in enumerate(some):
        if segment.size and segment.largest_timestamp_ms(blocks=False) >= timestamp_ms:
            indexed = max(segment.offset_before(timestamp_ms), log.log_start_offset)
            if number + 1 < len(some):
                next_offset = some[number + 1].base_offset
            return _stretch(segment, indexed), next_offset
    return None, next_offset


def _claims(log: Log, offset: int) -> tuple[list[Claim], int | None]:
    """What some segments claim, from ``offset`` on, and where to go on. ColdRead; OSError."""
    some, next_offset = _some_from(log, offset)
    claims = [Claim(one.load_max_timestamp(blocks=False)[0], one.base_offset) for one in some if one.size]
    return claims, next_offset


def _claimed_stretch(log: Log, claim: Claim) -> Stretch | None:
    """From where a segment's largest time should be; None where the segment has gone. ColdRead; OSError."""
    segment = _some_from(log, claim.base_offset)[0][0]
    if segment.base_offset != claim.base_offset:
        return None
    return _stretch(segment, segment.load_max_timestamp(blocks=False)[1])


def _stretch(segment: Segment, offset: int) -> Stretch:
    return Stretch(segment, segment.file, segment.start_for(offset), segment.size)


# -- within a segment, in any thread ------------------------------------------------------------------------


def search(
    stretch: Stretch, timestamp_ms: int, start_offset: int, belied: Belied
) -> Steps[TimestampOffset | None]:
    """The first record of a time or later, from ``start_offset`` on. OSError where the disk fails."""
    for header, position in stretch.headers():
        yield HEADER_COST
        if header.max_timestamp_ms < timestamp_ms or header.last_offset < start_offset:
            continue
        known = belied.looked_through(header)
        if known is not None:
            (newest,) = known
            if newest is None or newest.timestamp_ms < timestamp_ms:
                continue
        yield UNPACK_COST
        walk = Walk(header, stretch.file.read(position, header.size))
        while not walk.ended:
            found = walk.go_on(timestamp_ms, start_offset)
            if found is not None:
                return found
            yield RECORDS_AT_ONCE
        belied.note(header, walk.newest)
    return None


def search_newest(stretch: Stretch, claimed_ms: int, belied: Belied) -> Steps[TimestampOffset | None]:
    """The first record of the largest time, which should be ``claimed_ms``. OSError where the disk fails.

    Where the headers are true the first batch that claims that time has it. Otherwise the batches are looked
    at in the order of what they claim, until none is left that claims more than was found.
    """
    for header, position in stretch.headers():
        yield HEADER_COST
        if header.max_timestamp_ms == claimed_ms:
            found = yield from _newest_in(header, stretch.file.read(position, header.size), belied)
            if found is not None and found.timestamp_ms == claimed_ms:
                return found
            break
    best: TimestampOffset | None = None
    after: tuple[int, int, int] | None = None
    while True:
        claims = yield from _largest_claims(stretch._replace(position=0), after)
        for after in claims:
            negated_ms, position, size = after
            batch = stretch.file.read(position, size)
            header = read_header(batch)
            if best is not None and _rank(best) < (negated_ms, header.base_offset):
                return best
            best = earlier_or_newer(best, (yield from _newest_in(header, batch, belied)))
        if len(claims) < CLAIMS_AT_ONCE:
            return best


def _largest_claims(
    stretch: Stretch, after: tuple[int, int, int] | None
) -> Steps[list[tuple[int, int, int]]]:
    """Of the batches ``after`` one, in the order of what they claim, the first: negated time, place, size."""
    noted: list[tuple[int, int, int]] = []
    for header, position in stretch.headers():
        yield HEADER_COST
        claim = (-header.max_timestamp_ms, position, header.size)
        if after is None or claim > after:
            noted.append(claim)
        if len(noted) >= 2 * CLAIMS_AT_ONCE:
            noted.sort()
            del noted[CLAIMS_AT_ONCE:]
    noted.sort()
    return noted[:CLAIMS_AT_ONCE]


def _newest_in(header: BatchHeader, batch: Buffer, belied: Belied) -> Steps[TimestampOffset | None]:
    """The first record of the largest time in a batch."""
    known = belied.looked_through(header)
    if known is not None:
        return known[0]
    yield UNPACK_COST
    walk = Walk(header, batch)
    while not walk.ended:
        found = walk.go_on(header.max_timestamp_ms, 0)
        if found is not None:
            break
        yield RECORDS_AT_ONCE
    belied.note(header, walk.newest)
    return walk.newest


def earlier_or_newer(one: TimestampOffset | None, other: TimestampOffset | None) -> TimestampOffset | None:
    """That of two which has the larger time; of the same time, which comes first."""
    both = [found for found in (one, other) if found is not None]
    return min(both, key=_rank, default=None)


def _rank(found: TimestampOffset) -> tuple[int, int]:
    """What has the larger time comes first; of the same time, what has the smaller offset."""
    return -found.timestamp_ms, found.offset


class Walk:
    """Goes over the records of a batch, some at a time, as far as they can be read; makes no objects of them.

    ``newest_ms`` and ``newest_offset``: of those so far the first that has the largest time; -1 for none.
    """

    __slots__ = ("_header", "_last_delta", "_payload", "_position", "ended", "newest_ms", "newest_offset")

    def __init__(self, header: BatchHeader, batch: Buffer) -> None:
        self._header = header
        self._position = 0
        self._last_delta = -1
        self.newest_ms = NONE_MS
        self.newest_offset = -1
        self._payload: Buffer = b""
        with suppress(KafkaError):
            self._payload = unpack_records(batch)
        self.ended = not self._payload

    @property
    def newest(self) -> TimestampOffset | None:
        if self.newest_offset < 0:
            return None
        return TimestampOffset(self.newest_ms, self.newest_offset, self._header.partition_leader_epoch)

    def go_on(self, wanted_ms: int, start_offset: int) -> TimestampOffset | None:
        """The next record of that time or later, from that offset on, if it is among the next 1,000."""
        try:
            return self._go_on(wanted_ms, start_offset)
        except (IndexError, ValueError):
            # What is no record ends the batch; what came before it counts.
            self.ended = True
            return None

    def _go_on(self, wanted_ms: int, start_offset: int) -> TimestampOffset | None:
        header, payload, size = self._header, self._payload, len(self._payload)
        has_append_time = header.timestamp_type == LOG_APPEND_TIME
        position, last_delta = self._position, self._last_delta
        for _ in range(RECORDS_AT_ONCE):
            length, position = read_varint(payload, position)
            end = position + length
            time_delta, position = read_varint(payload, position + 1)
            offset_delta, position = read_varint(payload, position)
            if not position < end <= size or not last_delta < offset_delta <= header.last_offset_delta:
                raise ValueError("the record does not fit into its batch")
            time_ms = header.max_timestamp_ms if has_append_time else header.base_timestamp_ms + time_delta
            if not -LONG_MAX <= time_ms <= LONG_MAX:
                time_ms = as_long(time_ms)
            if time_ms > self.newest_ms:
                self.newest_ms, self.newest_offset = time_ms, header.base_offset + offset_delta
            if time_ms >= wanted_ms and header.base_offset + offset_delta >= start_offset:
                offset = header.base_offset + offset_delta
                return TimestampOffset(time_ms, offset, header.partition_leader_epoch)
            position, last_delta = end, offset_delta
            if position == size:
                self.ended = True
                return None
        self._position, self._last_delta = position, last_delta
        return None
