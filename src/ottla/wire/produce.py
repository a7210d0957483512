"""A Produce of one batch for one partition, and the answer that it was appended: what most messages cost.

The codec reads and writes all there is (``wire/codec.py``). This reads the same where a request is as most
are, and writes the same bytes, in a tenth of the time where it is compiled: it looks at the bytes themselves,
and makes nothing that nobody asks for.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final
from uuid import UUID

from ottla.types import Buffer
from ottla.wire.codec import read_uuid
from ottla.wire.primitives import cut, int16_at, int32_at

if TYPE_CHECKING:
    # What compiled code keeps in a register; Python's own has plain numbers.
    from mypy_extensions import i64

# From which version on a Produce has what.
START_TOLD_SINCE: Final = 5
ERRORS_NAMED_SINCE: Final = 8
FLEXIBLE_SINCE: Final = 9
TOPIC_ID_SINCE: Final = 13
# The longest name that is read here: its length with one added is a varint of one byte.
_NAME_BYTES_MAX: Final = 126
# What there is of a request beside the topic's name and the batch, in versions that are not flexible.
_PLAIN_BYTES: Final = 26
_UUID_BYTES: Final = 16
# Its elements: the topic and the partition.
ELEMENTS_OF_ONE: Final = 2


class PartitionData(NamedTuple):
    """As the codec reads it."""

    index: int  # type: ignore[assignment]
    records: Buffer


class NamedTopicData(NamedTuple):
    """As the codec reads it, before version 13."""

    name: str
    partition_data: tuple[PartitionData, ...]


class TopicData(NamedTuple):
    """As the codec reads it, from version 13 on."""

    topic_id: UUID
    partition_data: tuple[PartitionData, ...]


class ProduceRequest(NamedTuple):
    """As the codec reads it."""

    transactional_id: str | None
    acks: int
    timeout_ms: int
    topic_data: tuple[NamedTopicData | TopicData, ...]


@final
class OneBatch:
    """A Produce of one batch, with the fields that all have."""

    __slots__ = ("acks", "index", "records", "timeout_ms", "topic", "transactional_id")

    def __init__(
        self,
        acks: int,
        timeout_ms: int,
        topic: str | UUID,
        index: int,
        records: Buffer,
        transactional_id: str | None = None,
    ) -> None:
        self.transactional_id = transactional_id
        self.acks = acks
        self.timeout_ms = timeout_ms
        # Its name, or its id.
        self.topic = topic
        self.index = index
        self.records = records

    @property
    def topic_data(self) -> tuple[NamedTopicData | TopicData, ...]:
        data = (PartitionData(self.index, self.records),)
        topic = self.topic
        return (NamedTopicData(topic, data) if isinstance(topic, str) else TopicData(topic, data),)

    def whole(self) -> ProduceRequest:
        """As the codec reads it."""
        return ProduceRequest(self.transactional_id, self.acks, self.timeout_ms, self.topic_data)


def read_one(data: bytes, start: int, version: int) -> OneBatch | None:
    """The request whose body is at ``start``, where it is of one batch.

    None where it is another one, or none at all: that is for the codec to say. What is behind the request is
    not looked at, as there.
    """
    if version < FLEXIBLE_SINCE:
        return _read_plain(data, start)
    return _read_flexible(data, start, version >= TOPIC_ID_SINCE)


def _read_plain(data: bytes, start: i64) -> OneBatch | None:
    size: i64 = len(data)
    if size - start < _PLAIN_BYTES:
        return None
    transactional_id: str | None = None
    length: i64 = int16_at(data, start)
    if length != -1:
        if not 0 <= length <= _NAME_BYTES_MAX or size - start - length < _PLAIN_BYTES:
            return None
        transactional_id = _text(data, start + 2, start + 2 + length)
        if transactional_id is None:
            return None
        # What follows is where it would be without one.
        start += length
    if int32_at(data, start + 8) != 1:
        return None
    length = int16_at(data, start + 12)
    if not 0 <= length <= _NAME_BYTES_MAX or size - start - length < _PLAIN_BYTES:
        return None
    name: i64 = start + 14
    o: i64 = name + length
    if int32_at(data, o) != 1:
        return None
    length = int32_at(data, o + 8)
    o += 12
    if not 0 <= length <= size - o:
        return None
    topic = _text(data, name, o - 12)
    if topic is None:
        return None
    acks, timeout_ms, index = int16_at(data, start + 2), int32_at(data, start + 4), int32_at(data, o - 8)
    return OneBatch(acks, timeout_ms, topic, index, cut(data, o, o + length), transactional_id)


def _read_flexible(data: bytes, start: i64, by_id: bool) -> OneBatch | None:
    size: i64 = len(data)
    # Of arrays the length is one more, 0 for none, and so it is of all else.
    if size - start < _PLAIN_BYTES:
        return None
    transactional_id: str | None = None
    length: i64 = data[start]
    if length:
        length -= 1
        if length > _NAME_BYTES_MAX or size - start - length < _PLAIN_BYTES:
            return None
        transactional_id = _text(data, start + 1, start + 1 + length)
        if transactional_id is None:
            return None
        # What follows is where it would be without one.
        start += length
    if data[start + 7] != 2:
        return None
    o: i64 = start + 8
    length = _UUID_BYTES
    if not by_id:
        length = data[o]
        length -= 1
        o += 1
    if not 0 <= length <= _NAME_BYTES_MAX or size - o - length < 12:
        return None
    topic: str | UUID | None = read_uuid(data[o : o + length]) if by_id else _text(data, o, o + length)
    o += length
    if topic is None or data[o] != 2:
        return None
    index = int32_at(data, o + 1)
    o += 5
    # The batch's length, in up to three bytes.
    length = data[o] & 0x7F
    if data[o] > 0x7F:
        o += 1
        length |= (data[o] & 0x7F) << 7
        if data[o] > 0x7F:
            o += 1
            length |= data[o] << 14
            if data[o] > 0x7F:
                return None
    o += 1
    length -= 1
    end: i64 = o + length
    # Behind it are no tagged fields: of the partition, the topic, and the request.
    if length < 0 or size - end < 3 or data[end] or data[end + 1] or data[end + 2]:
        return None
    acks, timeout_ms = int16_at(data, start + 1), int32_at(data, start + 3)
    return OneBatch(acks, timeout_ms, topic, index, cut(data, o, end), transactional_id)


def _text(data: bytes, start: i64, end: i64) -> str | None:
    try:
        return data[start:end].decode()
    except UnicodeDecodeError:
        return None


# What packs an answer, by version and the length of the topic's name: ``read_one`` takes none of many bytes.
_layouts: Final[dict[int, Any]] = {}


def write_appended(
    version: int, correlation_id: int, one: OneBatch, base_offset: int, time_ms: int, start: int
) -> bytes:
    """The framed response to ``one``: it was appended, at ``base_offset``. ``time_ms``: when, if the topic
    stamps that, or -1; ``start``: where the log begins."""
    topic, index = one.topic, one.index
    name: bytes = topic.encode() if isinstance(topic, str) else topic.bytes
    length = len(name)
    pack = _layouts.get((version << 16) | length)
    if pack is None:
        pack = _layout(version, length)
    packed: bytes
    if version >= TOPIC_ID_SINCE:
        packed = pack(
            length + 46, correlation_id, 0, 2, name, 2,
            index, 0, base_offset, time_ms, start, 1, 0, 0, 0, 0, 0,
        )  # fmt: skip
    elif version >= FLEXIBLE_SINCE:
        packed = pack(
            length + 47, correlation_id, 0, 2, length + 1, name, 2,
            index, 0, base_offset, time_ms, start, 1, 0, 0, 0, 0, 0,
        )  # fmt: skip
    elif version >= ERRORS_NAMED_SINCE:
        packed = pack(
            length + 54, correlation_id, 1, length, name, 1, index, 0, base_offset, time_ms, start, 0, -1, 0
        )
    elif version >= START_TOLD_SINCE:
        packed = pack(
            length + 48, correlation_id, 1, length, name, 1, index, 0, base_offset, time_ms, start, 0
        )
    else:
        packed = pack(length + 40, correlation_id, 1, length, name, 1, index, 0, base_offset, time_ms, 0)
    return packed


def _layout(version: int, length: int) -> Any:
    """What packs an answer, for a topic's name of so many bytes."""
    if version >= TOPIC_ID_SINCE:
        layout = f">iiBB{length}sBihqqqBBBBiB"
    elif version >= FLEXIBLE_SINCE:
        layout = f">iiBBB{length}sBihqqqBBBBiB"
    elif version >= ERRORS_NAMED_SINCE:
        layout = f">iiih{length}siihqqqihi"
    elif version >= START_TOLD_SINCE:
        layout = f">iiih{length}siihqqqi"
    else:
        layout = f">iiih{length}siihqqi"
    packs = struct.Struct(layout)
    _layouts[(version << 16) | length] = packs.pack
    return packs.pack
