"""What compaction does to a log: which segments it may replace, and how far it has come (Kafka's Cleaner)."""

from __future__ import annotations

import logging

from ottla.errors import ErrorCode, KafkaError
from ottla.log.durability import Durability, Point
from ottla.log.segment import Segment, Written
from ottla.log.segments import HalfReplaced, Segments, State

logger = logging.getLogger(__name__)


class Replacement:
    """``cleaned_offset``: compaction has been over everything before it; -1: never."""

    def __init__(self, segments: Segments, durability: Durability, cleaned_offset: int) -> None:
        self._segments = segments
        self._durability = durability
        self.cleaned_offset = cleaned_offset
        # A log that could not be compacted is left alone until then, in monotonic milliseconds.
        self.rests_until_ms = 0
        # Whether it could not be compacted when that was tried last.
        self.fails = False

    def rest_until(self, monotonic_ms: int) -> None:
        """Have it left alone until then."""
        self.rests_until_ms = monotonic_ms

    @property
    def history(self) -> Point:
        """An object that stays the same as long as nothing is cut off the log's end."""
        return self._durability.point

    def find(self, some: list[Segment]) -> int | None:
        """Where these closed segments are, as long as they may be replaced; None where they may not.

        Nor where they are not on the disk yet: a flush in another thread might write an index of the old one.
        """
        segments, durability = self._segments, self._durability
        first = segments.position_of(some)
        if first is None or segments.state is State.DELETED or durability.failed is not None:
            return None
        is_flushed = segments.end_of(first + len(some) - 1) <= durability.point.offset
        is_saved = all(one.indexed and segments.aborted.is_saved(one.base_offset) for one in some)
        return first if is_flushed and is_saved else None

    def replace(self, old: list[Segment], written: Written, now_ms: int) -> list[str]:
        """Put ``written`` in the place of ``old``, which ``find`` has found; the files that are to go.

        KafkaError KAFKA_STORAGE_ERROR where the disk fails: the log is then as it was, or takes no more
        appends until a restart has finished what was begun.
        """
        try:
            return self._segments.replace(old, written, now_ms)
        except HalfReplaced as error:
            directory = self._segments.directory
            logger.error("%s: a compaction can be neither finished nor undone: %s", directory, error.again)
            self._durability.fail(error.again)
            cause = error.cause
        except OSError as error:
            cause = error
        raise KafkaError(
            ErrorCode.kafka_storage_error, f"compacted segments cannot be renamed: {cause.strerror}"
        ) from cause

    def remove_later(self, paths: list[str]) -> None:
        """Remove what ``replace`` has left, after file.delete.delay.ms."""
        self._segments.remove_later(paths)

    def advance(self, end_offset: int) -> None:
        """A round of compaction has come to ``end_offset``."""
        self.cleaned_offset = end_offset

    def truncated(self, end_offset: int) -> None:
        """The log was cut and ends at ``end_offset`` now."""
        self.cleaned_offset = min(self.cleaned_offset, end_offset)
