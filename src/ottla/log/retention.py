"""Which segments a log need not keep: by time, by size, and before its start (deleteOldSegments).

Each function looks at segments from the oldest on, and tells how many in a row are due. Nothing is deleted
here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import takewhile
from typing import NamedTuple, Protocol

from ottla.log.segment import Segment
from ottla.log.settings import LogConfig


class Extent(NamedTuple):
    """A segment: where it ends, and its bytes."""

    end_offset: int
    size: int


class Kept(Protocol):
    """The segments of a log, as ``Segments`` has them: oldest first, the last of which is appended to."""

    @property
    def all(self) -> Sequence[Segment]: ...

    @property
    def size_bytes(self) -> int: ...

    def extents(self) -> Sequence[Extent]: ...


def due(
    segments: Kept, config: LogConfig, log_start_offset: int, visible: int, now_ms: int
) -> Iterator[tuple[int, str]]:
    """How many of the oldest segments are due for one reason after the other, and the reason.

    To be deleted before the next one is asked for. None that ends after ``visible``. ColdRead where a time
    index has to be held against a log that is not in memory.
    """
    closed = deletable(segments.extents(), visible)[: len(segments.all) - 1]
    yield before_start(closed, log_start_offset), "it lies before the log's start"
    if config.deletes and config.retention_bytes >= 0:
        surplus = segments.size_bytes - config.retention_bytes
        yield beyond_size(deletable(segments.extents(), visible), surplus), "of retention.bytes"
    if config.deletes and config.retention_ms >= 0:
        times = map(partial(Segment.largest_timestamp_ms, blocks=False), candidates(segments, visible))
        yield too_old(times, now_ms, config.retention_ms), "of retention.ms"


def candidates(segments: Kept, visible: int) -> Sequence[Segment]:
    """``deletable``, the segments themselves."""
    return segments.all[: len(deletable(segments.extents(), visible))]


def deletable(extents: Sequence[Extent], visible: int) -> Sequence[Extent]:
    """Those that may go at all: none that ends after ``visible``, nor the last one while it is empty."""
    candidates = extents if extents[-1].size else extents[:-1]
    return list(takewhile(lambda one: one.end_offset <= visible, candidates))


def before_start(extents: Sequence[Extent], log_start_offset: int) -> int:
    """Those that lie wholly before the log's start."""
    return _leading(extent.end_offset <= log_start_offset for extent in extents)


def beyond_size(extents: Sequence[Extent], surplus_bytes: int) -> int:
    """As many as can go without taking more than ``surplus_bytes``."""
    count = 0
    for extent in extents:
        if surplus_bytes < extent.size:
            break
        surplus_bytes -= extent.size
        count += 1
    return count


def too_old(largest_ms: Iterable[int], now_ms: int, retention_ms: int) -> int:
    """Those whose newest record, by ``largest_ms``, is older than that. No more are asked for than decide."""
    return _leading(now_ms - timestamp_ms > retention_ms for timestamp_ms in largest_ms)


def ask(largest_ms: Iterable[int], now_ms: int, retention_ms: int) -> None:
    """Have the times known that ``too_old`` asks for, which may block."""
    too_old(largest_ms, now_ms, retention_ms)


def _leading(due: Iterable[bool]) -> int:
    return sum(1 for _ in takewhile(bool, due))
