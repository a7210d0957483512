"""The records of `__consumer_offsets` that classic groups and committed offsets are kept in.

These are Kafka's own schemas (group-coordinator/src/main/resources/common/message): a key starts with a
version that also says what kind of record it is, a value with the version of its layout. Values are read at
every version and written as Kafka 4 writes them: OffsetCommitValue v4, or v1 where a client asked for a
retention of its own (KIP-211 left only that version with an expiry); GroupMetadataValue v3.
Reading malformed bytes raises `SchemaError`. Times are milliseconds since the Unix epoch, timeouts
milliseconds.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterable
from functools import lru_cache
from typing import Final, NamedTuple, Union
from uuid import UUID

from ottla.coordinators.runtime.fields import Reader, compact_string, string
from ottla.coordinators.runtime.machine import SchemaError, UnknownRecord
from ottla.coordinators.runtime.pieces import PIECE
from ottla.pieces import whole
from ottla.types import Buffer
from ottla.wire.primitives import (
    READ_ERRORS,
    UUID_ZERO,
    read_tag,
)

OFFSET_COMMIT_KEY_VERSIONS = (0, 1)
OFFSET_COMMIT_KEY_VERSION: Final = 1
GROUP_METADATA_KEY_VERSION: Final = 2

OFFSET_COMMIT_VALUE_VERSION: Final = 4
OFFSET_COMMIT_VALUE_VERSION_WITH_EXPIRY: Final = 1
OFFSET_COMMIT_VALUE_VERSION_MAX: Final = 4
GROUP_METADATA_VALUE_VERSION: Final = 3
GROUP_METADATA_VALUE_VERSION_MAX: Final = 4
FIRST_FLEXIBLE_VERSION: Final = 4

TOPIC_ID_TAG: Final = 0
NO_EPOCH: Final = -1
NO_TIMESTAMP: Final = -1

_INT16: Final = struct.Struct(">h")
_INT32: Final = struct.Struct(">i")
_INT64: Final = struct.Struct(">q")
_TIMEOUTS: Final = struct.Struct(">ii")
_pack_int16: Final = _INT16.pack
_pack_int32: Final = _INT32.pack
_OFFSET_KEY: Final = _INT16.pack(OFFSET_COMMIT_KEY_VERSION)
# An OffsetCommitValue without metadata, up to its topic's id: one tagged field of 16 bytes.
_pack_plain_offset: Final = struct.Struct(">hqiBq3s16s").pack
_TOPIC_ID_FOLLOWS: Final = b"\x01\x00\x10"


class CommittedOffset(NamedTuple):
    """OffsetCommitValue: where a group is in a partition."""

    offset: int
    leader_epoch: int
    metadata: str
    commit_timestamp_ms: int
    # -1: the broker's offsets.retention.minutes decides.
    expire_timestamp_ms: int = NO_TIMESTAMP
    # The zero UUID where the committer, or the record's version, knew none.
    topic_id: UUID = UUID_ZERO


class MemberMetadata(NamedTuple):
    """A member of a generation, as it is stored."""

    member_id: str
    group_instance_id: str | None
    client_id: str
    client_host: str
    # -1: not stored (version 0); the session timeout is used in its place.
    rebalance_timeout_ms: int
    session_timeout_ms: int
    subscription: bytes
    assignment: bytes


class GroupMetadata(NamedTuple):
    """GroupMetadataValue: a generation of a classic group."""

    # Empty for a group that never had members.
    protocol_type: str
    generation_id: int
    protocol_name: str | None
    leader: str | None
    # When the group came into its present state; -1 if not stored (versions 0 and 1).
    current_state_timestamp_ms: int
    members: tuple[MemberMetadata, ...]


class OffsetRecord(NamedTuple):
    """A committed offset, or its removal where ``value`` is None."""

    group_id: str
    topic: str
    partition: int
    value: CommittedOffset | None


class GroupRecord(NamedTuple):
    """A group's generation, or the group's removal where ``value`` is None."""

    group_id: str
    value: GroupMetadata | None


CoordinatorRecord = Union[OffsetRecord, GroupRecord]  # noqa: UP007 - a name for both, at run time too


# Topics have short names, and few of them are committed again and again.
_kept_string: Final = lru_cache(maxsize=1_000)(string)


def _bytes(data: bytes) -> bytes:
    return _INT32.pack(len(data)) + data


def encode_record(record: CoordinatorRecord) -> tuple[bytes, bytes | None]:
    """The key and value to append. Raises SchemaError where a string is too long to be stored."""
    if isinstance(record, OffsetRecord):
        group_id, topic, partition, value = record
        key = b"".join((_OFFSET_KEY, string(group_id), _kept_string(topic), _pack_int32(partition)))
        return key, None if value is None else encode_offset(value)
    key = _INT16.pack(GROUP_METADATA_KEY_VERSION) + string(record.group_id)
    return key, None if record.value is None else encode_group(record.value)


def encoding_record(record: CoordinatorRecord) -> Generator[None, None, tuple[bytes, bytes | None]]:
    """As `encode_record`, for large groups: yields after each piece of its work."""
    if isinstance(record, OffsetRecord) or record.value is None:
        return encode_record(record)
    key, _ = encode_record(record._replace(value=None))
    return key, (yield from encoding_group(record.value))


def encode_offset(value: CommittedOffset) -> bytes:
    """OffsetCommitValue: version 1 if it has an expiry of its own, else version 4."""
    offset, leader_epoch, metadata, commit_timestamp_ms, expire_timestamp_ms, topic_id = value
    if expire_timestamp_ms == NO_TIMESTAMP and not metadata and topic_id is not UUID_ZERO:
        # As nearly all are.
        return _pack_plain_offset(
            OFFSET_COMMIT_VALUE_VERSION, offset, leader_epoch, 1, commit_timestamp_ms, _TOPIC_ID_FOLLOWS,
            topic_id.bytes,
        )  # fmt: skip
    if expire_timestamp_ms != NO_TIMESTAMP:
        return (
            struct.pack(">hq", OFFSET_COMMIT_VALUE_VERSION_WITH_EXPIRY, value.offset)
            + string(value.metadata)
            + struct.pack(">qq", value.commit_timestamp_ms, value.expire_timestamp_ms)
        )
    head = struct.pack(">hqi", OFFSET_COMMIT_VALUE_VERSION, value.offset, value.leader_epoch)
    tags = b"\x00" if value.topic_id == UUID_ZERO else _TOPIC_ID_FOLLOWS + value.topic_id.bytes
    return head + compact_string(value.metadata) + _INT64.pack(value.commit_timestamp_ms) + tags


def encode_group(value: GroupMetadata) -> bytes:
    """GroupMetadataValue, version 3."""
    return whole(encoding_group(value))


def encoding_group(value: GroupMetadata) -> Generator[None, None, bytes]:
    """As `encode_group`. Yields after each piece of its work."""
    parts = [
        _INT16.pack(GROUP_METADATA_VALUE_VERSION),
        string(value.protocol_type),
        _INT32.pack(value.generation_id),
        string(value.protocol_name),
        string(value.leader),
        _INT64.pack(value.current_state_timestamp_ms),
        _INT32.pack(len(value.members)),
    ]
    for count, member in enumerate(value.members, 1):
        parts += (
            string(member.member_id),
            string(member.group_instance_id),
            string(member.client_id),
            string(member.client_host),
            _TIMEOUTS.pack(member.rebalance_timeout_ms, member.session_timeout_ms),
            _bytes(member.subscription),
            _bytes(member.assignment),
        )
        if count % PIECE == 0:
            yield
    return b"".join(parts)


def decode_record(key: Buffer | None, value: Buffer | None) -> CoordinatorRecord | UnknownRecord:
    """The record that a key and value from the log stand for. Raises SchemaError."""
    if key is None:
        raise SchemaError("a record without a key")
    try:
        reader = Reader(key)
        version = reader.int16()
        if version in OFFSET_COMMIT_KEY_VERSIONS:
            group_id, topic, partition = reader.string(), reader.string(), reader.int32()
            return OffsetRecord(group_id, topic, partition, None if value is None else decode_offset(value))
        if version == GROUP_METADATA_KEY_VERSION:
            return GroupRecord(reader.string(), None if value is None else decode_group(value))
        return UnknownRecord(version)
    except READ_ERRORS as error:
        raise SchemaError(str(error) or "the record ends too soon") from error


def decoding_record(
    key: Buffer | None, value: Buffer | None
) -> Generator[None, None, CoordinatorRecord | UnknownRecord]:
    """As `decode_record`, for large ones: yields after each piece of its work."""
    if key is None or value is None or key[:2] != _INT16.pack(GROUP_METADATA_KEY_VERSION):
        return decode_record(key, value)
    record = decode_record(key, None)
    assert isinstance(record, GroupRecord)
    try:
        return GroupRecord(record.group_id, (yield from decoding_group(value)))
    except READ_ERRORS as error:
        raise SchemaError(str(error) or "the record ends too soon") from error


def decode_offset(data: Buffer) -> CommittedOffset:
    """An OffsetCommitValue of version 0 to 4."""
    reader = Reader(data)
    version = _value_version(reader, "OffsetCommitValue", OFFSET_COMMIT_VALUE_VERSION_MAX)
    offset = reader.int64()
    leader_epoch = reader.int32() if version >= 3 else NO_EPOCH
    metadata = reader.string()
    commit_timestamp_ms = reader.int64()
    expire_timestamp_ms = reader.int64() if version == 1 else NO_TIMESTAMP
    topic_id = _read_topic_id(reader) if reader.flexible else UUID_ZERO
    return CommittedOffset(offset, leader_epoch, metadata, commit_timestamp_ms, expire_timestamp_ms, topic_id)


def _read_topic_id(reader: Reader) -> UUID:
    """The one tagged field that we know, among any number that we do not."""
    topic_id = UUID_ZERO
    count = reader.buffer[reader.offset]
    reader.offset += 1
    for _ in range(count):
        tag, start, end = read_tag(reader.buffer, reader.offset)
        if tag == TOPIC_ID_TAG:
            if end - start != 16:
                raise SchemaError(f"a topic id of {end - start} bytes")
            topic_id = _uuid(bytes(reader.buffer[start:end]))
        reader.offset = end
    return topic_id


@lru_cache(maxsize=1_000)
def _uuid(data: bytes) -> UUID:
    """Few topics have very many offsets."""
    return UUID(bytes=data)


def decode_group(data: Buffer) -> GroupMetadata:
    """A GroupMetadataValue of version 0 to 4."""
    return whole(decoding_group(data))


def decoding_group(data: Buffer) -> Generator[None, None, GroupMetadata]:
    """As `decode_group`. Yields after each piece of its work."""
    reader = Reader(data)
    version = _value_version(reader, "GroupMetadataValue", GROUP_METADATA_VALUE_VERSION_MAX)
    protocol_type = reader.string()
    generation_id = reader.int32()
    protocol_name = reader.nullable_string()
    leader = reader.nullable_string()
    state_timestamp_ms = reader.int64() if version >= 2 else NO_TIMESTAMP
    members = []
    for count in range(1, reader.array_length() + 1):
        members.append(_read_member(reader, version))
        if count % PIECE == 0:
            yield
    reader.tags()
    return GroupMetadata(
        protocol_type, generation_id, protocol_name, leader, state_timestamp_ms, tuple(members)
    )


def _read_member(reader: Reader, version: int) -> MemberMetadata:
    member_id = reader.string()
    group_instance_id = reader.nullable_string() if version >= 3 else None
    client_id = reader.string()
    client_host = reader.string()
    rebalance_timeout_ms = reader.int32() if version >= 1 else -1
    session_timeout_ms = reader.int32()
    subscription = reader.bytes_()
    assignment = reader.bytes_()
    reader.tags()
    return MemberMetadata(
        member_id,
        group_instance_id,
        client_id,
        client_host,
        rebalance_timeout_ms,
        session_timeout_ms,
        subscription,
        assignment,
    )


def _value_version(reader: Reader, name: str, version_max: int) -> int:
    version = reader.int16()
    if not 0 <= version <= version_max:
        raise SchemaError(f"{name} of version {version} (known: 0 to {version_max})")
    reader.flexible = version >= FIRST_FLEXIBLE_VERSION
    return version


def subscribed_topics(subscriptions: Iterable[bytes], topics_max: int) -> frozenset[str] | None:
    """The topics in members' metadata of the `consumer` protocol (ConsumerProtocolSubscription), together.

    Every version starts as version 0 does, with the topics, so nothing else needs to be understood. Members
    mostly name the same topics, which are read once. None where more than ``topics_max`` would have to be
    read. Raises SchemaError.
    """
    topics: set[str] = set()
    last = b""
    left = topics_max
    for subscription in subscriptions:
        if last and subscription[0] < 0x80 and subscription.startswith(last, _INT16.size):
            continue
        reader = Reader(subscription)
        try:
            if reader.int16() < 0:
                raise SchemaError("a consumer protocol subscription of a negative version")
            count = reader.array_length()
            left -= count
            if left < 0:
                return None
            topics.update([reader.string() for _ in range(count)])
        except READ_ERRORS as error:
            raise SchemaError(str(error) or "the subscription ends too soon") from error
        last = subscription[_INT16.size : reader.offset]
    return frozenset(topics)
