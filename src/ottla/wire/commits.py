"""An OffsetCommit of few partitions, and the answer that all of them are stored, or why one is not.

The codec reads and writes all there is (``wire/codec.py``). As ``wire/produce.py`` this reads the same where
a request is as most are, and writes the same bytes, in a fraction of the time where it is compiled.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final
from uuid import UUID

from ottla.wire.codec import read_uuid
from ottla.wire.primitives import UUID_ZERO, int16_at, int32_at, int64_at

if TYPE_CHECKING:
    # What compiled code keeps in a register; Python's own has plain numbers.
    from mypy_extensions import i64

# In which versions an OffsetCommit has what.
RETENTION_UNTIL: Final = 4
THROTTLE_TOLD_SINCE: Final = 3
LEADER_EPOCHS_SINCE: Final = 6
INSTANCE_IDS_SINCE: Final = 7
FLEXIBLE_SINCE: Final = 8
TOPIC_IDS_SINCE: Final = 10

# What is read here: so many elements, topics and partitions together, and strings of so many bytes, whose
# length with one added is a varint of one byte.
ELEMENTS_MAX: Final = 100
_STRING_BYTES_MAX: Final = 126
_UUID_BYTES: Final = 16
# A string that is null where none may be, or is none that is read here.
_NO_STRING: Final = -2

_new: Final = tuple.__new__


class OffsetToCommit(NamedTuple):
    """Where a group is in a partition, named as the codec names it."""

    partition_index: int
    committed_offset: int
    committed_leader_epoch: int
    committed_metadata: str | None


@final
class TopicOffsets:
    """A topic's partitions in an OffsetCommit. It is named, and its id zero, or has an id and no name."""

    __slots__ = ("name", "partitions", "topic_id")

    def __init__(self, name: str, topic_id: UUID, partitions: Sequence[OffsetToCommit]) -> None:
        self.name = name
        self.topic_id = topic_id
        self.partitions = partitions


@final
class OffsetCommit:
    """An OffsetCommit, with the fields of all versions."""

    __slots__ = (
        "generation_id_or_member_epoch", "group_id", "group_instance_id", "member_id", "retention_time_ms",
        "topics",
    )  # fmt: skip

    def __init__(
        self,
        group_id: str,
        generation_id_or_member_epoch: int,
        member_id: str,
        group_instance_id: str | None,
        retention_time_ms: int,
        topics: list[TopicOffsets],
    ) -> None:
        self.group_id = group_id
        self.generation_id_or_member_epoch = generation_id_or_member_epoch
        self.member_id = member_id
        self.group_instance_id = group_instance_id
        self.retention_time_ms = retention_time_ms
        self.topics = topics

    def _asdict(self) -> dict[str, object]:
        """As a named tuple's, which other requests are."""
        return {
            "group_id": self.group_id,
            "generation_id_or_member_epoch": self.generation_id_or_member_epoch,
            "member_id": self.member_id,
            "group_instance_id": self.group_instance_id,
            "retention_time_ms": self.retention_time_ms,
            "topics": self.topics,
        }


@final
class _Reader:
    """Goes over the bytes of a request. What does not lie within them is an IndexError, as of any bytes."""

    __slots__ = ("data", "elements", "flexible", "offset", "size")

    def __init__(self, data: bytes, offset: int, flexible: bool) -> None:
        self.data = data
        self.size: i64 = len(data)
        self.offset: i64 = offset
        self.flexible = flexible
        self.elements: i64 = 0

    def length(self) -> i64:
        """Of a string: -1 for null, -2 for one that is not read here."""
        o: i64 = self.offset
        length: i64
        if self.flexible:
            length = self.data[o]
            length -= 1
            o += 1
        else:
            length = int16_at(self.data, o)
            o += 2
        self.offset = o
        if not -1 <= length <= _STRING_BYTES_MAX or length > self.size - o:
            return _NO_STRING
        return length

    def text(self, length: i64) -> str:
        start: i64 = self.offset
        self.offset = start + length
        return self.data[start : start + length].decode()

    def count(self) -> i64:
        """Of an array's elements; -1 for those that are not read here."""
        count: i64
        if self.flexible:
            count = self.data[self.offset]
            count -= 1
            self.offset += 1
        else:
            count = int32_at(self.data, self.offset)
            self.offset += 4
        if not 0 <= count <= ELEMENTS_MAX or count > self.size - self.offset:
            return -1
        self.elements += count
        return count if self.elements <= ELEMENTS_MAX else -1

    def ends(self) -> bool:
        """Whether no tagged fields follow."""
        if not self.flexible:
            return True
        self.offset += 1
        return self.data[self.offset - 1] == 0


def read_commit(data: bytes, start: int, version: int) -> tuple[OffsetCommit, int] | None:
    """The request whose body is at ``start``, and how many elements it has.

    None where it is large or unusual, or none at all: that is for the codec to say. What is behind the
    request is not looked at, as there.
    """
    try:
        return _read_commit(_Reader(data, start, version >= FLEXIBLE_SINCE), version)
    except (IndexError, UnicodeDecodeError):
        return None


def _read_commit(reader: _Reader, version: int) -> tuple[OffsetCommit, int] | None:
    data = reader.data
    length: i64 = reader.length()
    if length < 0:
        return None
    group_id = reader.text(length)
    generation_id = int32_at(data, reader.offset)
    reader.offset += 4
    length = reader.length()
    if length < 0:
        return None
    member_id = reader.text(length) if length else ""
    instance_id: str | None = None
    retention_ms = -1
    if version >= INSTANCE_IDS_SINCE:
        length = reader.length()
        if length < -1:
            return None
        if length >= 0:
            instance_id = reader.text(length)
    elif version <= RETENTION_UNTIL:
        retention_ms = int64_at(data, reader.offset)
        reader.offset += 8
    count: i64 = reader.count()
    if count < 0:
        return None
    topics: list[TopicOffsets] = []
    for _ in range(count):
        topic = _read_topic(reader, version)
        if topic is None:
            return None
        topics.append(topic)
    if not reader.ends():
        return None
    asked = OffsetCommit(group_id, generation_id, member_id, instance_id, retention_ms, topics)
    return asked, reader.elements


def _read_topic(reader: _Reader, version: int) -> TopicOffsets | None:
    data = reader.data
    name, topic_id = "", UUID_ZERO
    length: i64 = 0
    if version >= TOPIC_IDS_SINCE:
        start: i64 = reader.offset
        if start + _UUID_BYTES > reader.size:
            return None
        topic_id = read_uuid(data[start : start + _UUID_BYTES])
        reader.offset = start + _UUID_BYTES
    else:
        length = reader.length()
        if length < 0:
            return None
        name = reader.text(length)
    count: i64 = reader.count()
    if count < 0:
        return None
    partitions: list[OffsetToCommit] = []
    has_epochs = version >= LEADER_EPOCHS_SINCE
    for _ in range(count):
        o: i64 = reader.offset
        partition = int32_at(data, o)
        offset = int64_at(data, o + 4)
        o += 12
        leader_epoch: i64 = -1
        if has_epochs:
            leader_epoch = int32_at(data, o)
            o += 4
        reader.offset = o
        length = reader.length()
        if length < -1:
            return None
        metadata: str | None = None
        if length >= 0:
            metadata = reader.text(length) if length else ""
        if not reader.ends():
            return None
        partitions.append(_new(OffsetToCommit, (partition, offset, leader_epoch, metadata)))
    if not reader.ends():
        return None
    return TopicOffsets(name, topic_id, partitions)


# What packs the answers for a topic, by how it is named and how many partitions it has: of so many at most.
_LAYOUTS_MAX: Final = 1_000
_layouts: Final[dict[int, Any]] = {}
_pack_plain: Final = struct.Struct(">iiii").pack
_pack_without_throttle: Final = struct.Struct(">iii").pack
_pack_flexible: Final = struct.Struct(">iiBiB").pack
_END: Final = b"\0"


def write_committed(
    version: int, correlation_id: int, asked: OffsetCommit, codes: Sequence[Sequence[int]]
) -> bytes:
    """The framed response to what ``read_commit`` has read: the code of each partition of each topic."""
    pieces: list[bytes] = [b""]
    size = 0
    for place, topic in enumerate(asked.topics):
        name: bytes = topic.topic_id.bytes if version >= TOPIC_IDS_SINCE else topic.name.encode()
        numbers: list[Any] = [] if version >= TOPIC_IDS_SINCE else [len(name)]
        partitions = topic.partitions
        count = len(partitions)
        is_flexible = version >= FLEXIBLE_SINCE
        if is_flexible:
            if version < TOPIC_IDS_SINCE:
                numbers[0] += 1
            numbers += (name, count + 1)
        else:
            numbers += (name, count)
        for number, code in enumerate(codes[place]):
            numbers += (partitions[number][0], code)
        kind = 2 if version >= TOPIC_IDS_SINCE else is_flexible
        key = (kind << 32) | (len(name) << 16) | count
        pack = _layouts.get(key)
        packed: bytes = (_layout(key, kind, len(name), count) if pack is None else pack)(*numbers)
        pieces.append(packed)
        size += len(packed)
    count = len(asked.topics)
    if version >= FLEXIBLE_SINCE:
        pieces[0] = _pack_flexible(size + 11, correlation_id, 0, 0, count + 1)
        pieces.append(_END)
    elif version >= THROTTLE_TOLD_SINCE:
        pieces[0] = _pack_plain(size + 12, correlation_id, 0, count)
    else:
        pieces[0] = _pack_without_throttle(size + 8, correlation_id, count)
    return b"".join(pieces)


def _layout(key: int, kind: int, length: int, count: int) -> Any:
    """What packs the answers for a topic, of a name of so many bytes and so many partitions."""
    if kind == 2:
        layout = f">{length}sB" + count * "ihx" + "x"
    elif kind == 1:
        layout = f">B{length}sB" + count * "ihx" + "x"
    else:
        layout = f">h{length}si" + count * "ih"
    if len(_layouts) >= _LAYOUTS_MAX:
        _layouts.clear()
    pack = _layouts[key] = struct.Struct(layout).pack
    return pack
