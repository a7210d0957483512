"""The topics of a Fetch response, written one partition at a time: most of a large one is written while its
request waits for news."""

from __future__ import annotations

import struct
from functools import cache
from typing import Any, final

from ottla.broker.api.records.fetch.session import TopicKey
from ottla.wire import codec
from ottla.wire.apis import FETCH
from ottla.wire.codec import Encoded
from ottla.wire.fields import describe
from ottla.wire.messages import element, join_small
from ottla.wire.primitives import write_uvarint

_COUNT = struct.Struct(">i")
# Index, error, high watermark, last stable offset; and the log's start.
_HEAD, _HEAD_WITH_START = struct.Struct(">ihqq"), struct.Struct(">ihqqq")
_LOG_START_SINCE = 5
# What is told of a partition that has nothing new: these, aborted transactions and records.
_PLAIN_FIELDS = 7
_FLEXIBLE_SINCE = 12
# Where the session's id is in a response: behind the size, the header, the throttle time and the error.
_SESSION_SINCE = 7
_SIZE_BYTES, _CORRELATION_BYTES, _SESSION_BYTES = 4, 4, 4
_BEFORE_SESSION_BYTES = 4 + 2


@final
class Template:
    """A whole response, size and header included, of which others get the same but for two numbers: the
    correlation id of their request, and the id of their session."""

    __slots__ = ("_before", "_between", "_has_session", "_more", "_rest")

    def __init__(self, pieces: list[Any], version: int) -> None:
        """``pieces``: as `frame_response` gives them; the first one has more than both numbers."""
        first = pieces[0]
        self._has_session = version >= _SESSION_SINCE
        self._before = first[:_SIZE_BYTES]
        begins = _SIZE_BYTES + _CORRELATION_BYTES
        # Behind the correlation id: in flexible versions the header's tagged fields, of which there are
        # none; the throttle time and the error.
        ends = begins + _BEFORE_SESSION_BYTES + (1 if version >= _FLEXIBLE_SINCE else 0)
        self._between = first[begins:ends] if self._has_session else b""
        self._rest = first[ends + _SESSION_BYTES if self._has_session else begins :]
        self._more = pieces[1:]

    def pieces_for(self, correlation_id: int, session_id: int) -> list[Any]:
        """``session_id``: 0 for who has none."""
        numbers = _COUNT.pack(correlation_id)
        if not self._has_session:
            return [b"".join((self._before, numbers, self._rest)), *self._more]
        session = _COUNT.pack(session_id)
        return [b"".join((self._before, numbers, self._between, session, self._rest)), *self._more]


class PartitionWriter:
    """Writes partitions' answers as responses of a version have them."""

    __slots__ = ("_ends", "_has_start", "_head", "_write")

    def __init__(self, version: int) -> None:
        self._write = codec.writer(_partition(version))
        # What all begin with; how those end that tell nothing else, by their aborted transactions.
        self._has_start = version >= _LOG_START_SINCE
        self._head = _HEAD_WITH_START if self._has_start else _HEAD
        self._ends: dict[tuple[Any, ...] | None, bytes] = {}

    def write(self, answer: dict[str, Any]) -> list[Any]:
        """The pieces of one: the records are one of them, if they are more than little."""
        out: list[Any] = []
        self._write(answer, out)
        return join_small(out)

    def write_empty(self, answer: dict[str, Any]) -> bytes:
        """One without records."""
        if answer["error_code"] or len(answer) > _PLAIN_FIELDS:
            return b"".join(self.write(answer))
        aborted = answer["aborted_transactions"]
        end = self._ends.get(aborted)
        if end is None:
            end = self._ends[aborted] = b"".join(self.write(answer))[self._head.size :]
        index, high, stable = (
            answer["partition_index"],
            answer["high_watermark"],
            answer["last_stable_offset"],
        )
        if self._has_start:
            return self._head.pack(index, 0, high, stable, answer["log_start_offset"]) + end
        return self._head.pack(index, 0, high, stable) + end


class TopicsWriter:
    """Puts the partitions of a response together: those of a topic that follow each other stand below it."""

    __slots__ = ("_count", "_out", "_partitions", "_small", "_topic", "_topics", "_version")

    def __init__(self, version: int) -> None:
        self._version = version
        self._out: list[Any] = []
        self._topics = 0
        # The one that is under way.
        self._topic: TopicKey | None = None
        self._partitions: list[Any] = []
        self._count = 0
        # Whether there are no records in it.
        self._small = True

    def add(self, topic: TopicKey, written: bytes) -> None:
        """A partition without records."""
        if topic != self._topic:
            self._begin(topic)
        self._count += 1
        self._partitions.append(written)

    def add_records(self, topic: TopicKey, pieces: list[Any]) -> None:
        """A partition, of which these are the pieces."""
        if topic != self._topic:
            self._begin(topic)
        self._count += 1
        self._partitions += pieces
        self._small = False

    def _begin(self, topic: TopicKey) -> None:
        self._end_topic()
        self._topic = topic
        self._partitions, self._count, self._small = [], 0, True

    def _end_topic(self) -> None:
        if self._topic is None:
            return
        head, end = topic_ends(self._version, self._topic)
        pieces = [head, partition_count(self._version, self._count), *self._partitions, end]
        self._out += [b"".join(pieces)] if self._small else pieces
        self._topics += 1

    def finish(self) -> Encoded:
        self._end_topic()
        return Encoded(self._topics, self._out)


def topic_ends(version: int, topic: TopicKey) -> tuple[bytes, bytes]:
    """What a topic of a response has before the number of its partitions, and behind them."""
    empty: list[Any] = []
    codec.writer(_topic(version))({"topic": topic, "topic_id": topic, "partitions": ()}, empty)
    whole = b"".join(empty)
    # It ends with how many partitions there are, and in flexible versions with no tagged fields.
    return (whole[:-2], b"\0") if version >= _FLEXIBLE_SINCE else (whole[: -_COUNT.size], b"")


def partition_count(version: int, count: int) -> bytes:
    """How many partitions a topic of a response has."""
    return write_uvarint(count + 1) if version >= _FLEXIBLE_SINCE else _COUNT.pack(count)


@cache
def _topic(version: int) -> type[Any]:
    return element(FETCH, version, "responses")


@cache
def _partition(version: int) -> type[Any]:
    (partitions,) = [field for field in describe(_topic(version)) if field.name == "partitions"]
    assert partitions.entity is not None
    return partitions.entity
