"""The records of `__consumer_offsets`: the very bytes that Kafka writes, and what else may stand there."""

from __future__ import annotations

import struct
from contextlib import suppress
from uuid import UUID

import pytest
from coordinators_support import subscription
from hypothesis import given
from hypothesis import strategies as st

from ottla.coordinators.groups.schemas import (
    CommittedOffset,
    GroupMetadata,
    GroupRecord,
    MemberMetadata,
    OffsetRecord,
    decode_group,
    decode_offset,
    decode_record,
    encode_offset,
    encode_record,
    subscribed_topics,
)
from ottla.coordinators.runtime.machine import SchemaError, UnknownRecord
from ottla.wire.primitives import write_uvarint

TOPIC_ID = UUID("00112233-4455-6677-8899-aabbccddeeff")

OFFSET_KEY = bytes.fromhex("00010001670002743100000007")
# version 4, offset 42, leader epoch 5, "md" as a compact string, commit timestamp 1000
OFFSET_VALUE = bytes.fromhex("0004000000000000002a00000005036d6400000000000003e8")

MEMBER = MemberMetadata("m", None, "c", "/h", 60_000, 10_000, b"s", b"as")
GROUP = GroupMetadata("consumer", 3, "range", "m", 2_000, (MEMBER,))
GROUP_VALUE = bytes.fromhex(
    "0003" "0008" "636f6e73756d6572" "00000003" "0005" "72616e6765" "0001" "6d" "00000000000007d0" "00000001"
    "0001" "6d" "ffff" "0001" "63" "0002" "2f68" "0000ea60" "00002710" "00000001" "73" "00000002" "6173"
)  # fmt: skip


@pytest.mark.parametrize(
    ("record", "key", "value"),
    [
        pytest.param(
            OffsetRecord("g", "t1", 7, CommittedOffset(42, 5, "md", 1000)),
            OFFSET_KEY,
            OFFSET_VALUE + b"\x00",
            id="offset",
        ),
        pytest.param(
            OffsetRecord("g", "t1", 7, CommittedOffset(42, 5, "md", 1000, topic_id=TOPIC_ID)),
            OFFSET_KEY,
            OFFSET_VALUE + bytes.fromhex("010010") + TOPIC_ID.bytes,
            id="offset with topic id",
        ),
        pytest.param(
            OffsetRecord("g", "t1", 7, CommittedOffset(42, -1, "md", 1000, expire_timestamp_ms=2000)),
            OFFSET_KEY,
            bytes.fromhex("0001000000000000002a00026d6400000000000003e800000000000007d0"),
            id="offset with expiry",
        ),
        pytest.param(OffsetRecord("g", "t1", 7, None), OFFSET_KEY, None, id="no offset"),
        pytest.param(GroupRecord("g", GROUP), bytes.fromhex("0002000167"), GROUP_VALUE, id="group"),
        pytest.param(GroupRecord("g", None), bytes.fromhex("0002000167"), None, id="no group"),
        pytest.param(
            GroupRecord("g", GroupMetadata("", 0, None, None, -1, ())),
            bytes.fromhex("0002000167"),
            bytes.fromhex("0003000000000000ffffffffffffffffffffffff00000000"),
            id="empty group",
        ),
    ],
)
def test_golden_bytes(record: OffsetRecord | GroupRecord, key: bytes, value: bytes | None) -> None:
    assert encode_record(record) == (key, value)
    assert decode_record(key, value) == record


def string(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (struct.pack(">hq", 0, 9) + string("x") + struct.pack(">q", 7), CommittedOffset(9, -1, "x", 7)),
        (
            struct.pack(">hq", 1, 9) + string("x") + struct.pack(">qq", 7, 8),
            CommittedOffset(9, -1, "x", 7, 8),
        ),
        (struct.pack(">hq", 2, 9) + string("x") + struct.pack(">q", 7), CommittedOffset(9, -1, "x", 7)),
        (struct.pack(">hqi", 3, 9, 4) + string("x") + struct.pack(">q", 7), CommittedOffset(9, 4, "x", 7)),
    ],
)
def test_offsets_of_older_versions(value: bytes, expected: CommittedOffset) -> None:
    assert decode_offset(value) == expected


def test_unknown_tags_of_an_offset_are_passed_over() -> None:
    tags = bytes.fromhex("020010") + TOPIC_ID.bytes + bytes.fromhex("0503aabbcc")
    assert decode_offset(OFFSET_VALUE + tags).topic_id == TOPIC_ID


@pytest.mark.parametrize("version", [0, 1, 2, 3, 4])
def test_groups_of_all_versions(version: int) -> None:
    def text(value: str) -> bytes:
        return bytes([len(value) + 1]) + value.encode() if version == 4 else string(value)

    def data(value: bytes) -> bytes:
        length = bytes([len(value) + 1]) if version == 4 else struct.pack(">i", len(value))
        return length + value

    value = struct.pack(">h", version) + text("consumer") + struct.pack(">i", 3) + text("range") + text("m")
    value += struct.pack(">q", 2_000) if version >= 2 else b""
    value += b"\x02" if version == 4 else struct.pack(">i", 1)
    value += text("m") + (text("inst") if version >= 3 else b"") + text("c") + text("/h")
    value += struct.pack(">i", 60_000) if version >= 1 else b""
    value += struct.pack(">i", 10_000) + data(b"s") + data(b"as")
    value += b"\x00\x00" if version == 4 else b""
    member = MEMBER._replace(
        group_instance_id="inst" if version >= 3 else None,
        rebalance_timeout_ms=60_000 if version >= 1 else -1,
    )
    assert decode_group(value) == GROUP._replace(
        current_state_timestamp_ms=2_000 if version >= 2 else -1, members=(member,)
    )


def test_old_offset_keys_are_offset_keys() -> None:
    key = bytes.fromhex("0000") + OFFSET_KEY[2:]
    assert decode_record(key, None) == OffsetRecord("g", "t1", 7, None)


def test_other_kinds_are_told_apart() -> None:
    assert decode_record(bytes.fromhex("0003000167"), b"whatever") == UnknownRecord(3)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (None, b""),
        (b"", b""),
        (OFFSET_KEY[:-1], None),
        (OFFSET_KEY, b""),
        (OFFSET_KEY, OFFSET_VALUE),
        (OFFSET_KEY, b"\x00\x05" + OFFSET_VALUE[2:]),
        (OFFSET_KEY, OFFSET_VALUE + bytes.fromhex("010002aabb")),
        (b"\x00\x02\x00\x01g", GROUP_VALUE[:-1]),
        (b"\x00\x02\x00\x01g", GROUP_VALUE[:40] + b"\x7f\xff\xff\xff"),
        (b"\x00\x02\xff\xff", None),
        (b"\x00\x02\x00\x01\xff", None),
    ],
)
def test_malformed_records_are_refused(key: bytes | None, value: bytes | None) -> None:
    with pytest.raises(SchemaError):
        decode_record(key, value)


def test_a_compact_string_that_no_response_could_show_is_refused() -> None:
    def group(protocol_type: str) -> bytes:
        data = protocol_type.encode()
        head = b"\x00\x04" + write_uvarint(len(data) + 1) + data
        return head + b"\x00\x00\x00\x01\x00\x00" + bytes(8) + b"\x01\x00"

    assert decode_group(group("x" * 0x7FFF)).protocol_type == "x" * 0x7FFF
    with pytest.raises(SchemaError):
        decode_group(group("x" * 0x8000))
    with pytest.raises(SchemaError):
        encode_offset(CommittedOffset(1, -1, "x" * 0x8000, 0))


def test_a_string_too_long_to_be_stored_is_refused() -> None:
    with pytest.raises(SchemaError):
        encode_record(GroupRecord("x" * 32_768, None))


texts = st.text(max_size=20)
int32s = st.integers(-(2**31), 2**31 - 1)
int64s = st.integers(-(2**63), 2**63 - 1)
members = st.builds(
    MemberMetadata, texts, st.none() | texts, texts, texts, int32s, int32s, st.binary(), st.binary()
)
groups = st.builds(
    GroupMetadata,
    texts,
    int32s,
    st.none() | texts,
    st.none() | texts,
    int64s,
    st.lists(members, max_size=3).map(tuple),
)
metadata = st.text(max_size=300)
offsets = st.builds(CommittedOffset, int64s, int32s, metadata, int64s, st.just(-1), st.uuids()) | st.builds(
    CommittedOffset, int64s, st.just(-1), metadata, int64s, int64s, st.just(UUID(int=0))
).filter(lambda offset: offset.expire_timestamp_ms != -1)
records = st.builds(OffsetRecord, texts, texts, int32s, st.none() | offsets) | st.builds(
    GroupRecord, texts, st.none() | groups
)


@given(records)
def test_records_come_back_as_they_were(record: OffsetRecord | GroupRecord) -> None:
    assert decode_record(*encode_record(record)) == record


@given(records, st.data())
def test_damaged_records_are_refused_or_read(record: OffsetRecord | GroupRecord, data: st.DataObject) -> None:
    key, value = encode_record(record)
    damaged = bytearray(value or b"")
    for _ in range(data.draw(st.integers(1, 3))):
        if damaged:
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with suppress(SchemaError):
        decode_record(key, bytes(damaged[: data.draw(st.integers(0, len(damaged)))]))


def test_the_topics_of_a_subscription() -> None:
    first, second = subscription("a", "b", version=3, rest=b"junk"), subscription("a", "b")
    assert subscribed_topics([first], 2) == {"a", "b"}
    assert subscribed_topics([subscription()], 0) == frozenset()
    # What several name alike is read once.
    assert subscribed_topics([first, second, second], 2) == {"a", "b"}
    assert subscribed_topics([first, subscription("a", "c"), second], 6) == {"a", "b", "c"}
    assert subscribed_topics([first, subscription("a", "c"), second], 5) is None
    assert subscribed_topics([subscription(), first], 2) == {"a", "b"}


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x00\x00\x00\x00\x00\x05", b"\xff\xff\x00\x00\x00\x00"])
def test_a_subscription_that_is_none(data: bytes) -> None:
    with pytest.raises(SchemaError):
        subscribed_topics([data], 100)
