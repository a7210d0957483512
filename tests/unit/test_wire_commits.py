"""An OffsetCommit of few partitions: what is read and written without the codec is as the codec does it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ottla.wire import messages
from ottla.wire.apis import BY_NAME, OFFSET_COMMIT
from ottla.wire.commits import (
    ELEMENTS_MAX,
    INSTANCE_IDS_SINCE,
    LEADER_EPOCHS_SINCE,
    RETENTION_UNTIL,
    TOPIC_IDS_SINCE,
    OffsetCommit,
    read_commit,
    write_committed,
)
from ottla.wire.messages import RequestHeader

API = BY_NAME["OffsetCommit"]
VERSIONS = range(API.version_min, API.version_max + 1)
ID = UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")

INT16, INT32, INT64 = (st.integers(-(2**bits), 2**bits - 1) for bits in (15, 31, 63))
NAMES = st.text(max_size=30)
PARTITIONS = st.fixed_dictionaries(
    {
        "partition_index": INT32,
        "committed_offset": INT64,
        "committed_leader_epoch": INT32,
        "committed_metadata": st.none() | NAMES,
    }
)
TOPICS = st.fixed_dictionaries(
    {
        "name": NAMES,
        "topic_id": st.sampled_from([ID, UUID(int=0), UUID(int=2**128 - 1)]),
        "partitions": st.lists(PARTITIONS, max_size=4),
    }
)
REQUESTS = st.fixed_dictionaries(
    {
        "group_id": NAMES,
        "generation_id_or_member_epoch": INT32,
        "member_id": NAMES,
        "group_instance_id": st.none() | NAMES,
        "retention_time_ms": INT64,
        "topics": st.lists(TOPICS, max_size=4),
    }
)


def request(version: int, **fields: Any) -> bytes:
    partition = {
        "partition_index": 3,
        "committed_offset": 2**40,
        "committed_leader_epoch": 7,
        "committed_metadata": "note",
    }
    asked = {
        "group_id": "readers",
        "generation_id_or_member_epoch": 5,
        "member_id": "me",
        "group_instance_id": "static",
        "retention_time_ms": 2**33,
        "topics": [{"name": "orders", "topic_id": ID, "partitions": [partition] * 2}],
    }
    return messages.encode_request(OFFSET_COMMIT, version, asked | fields)


def same(read: tuple[OffsetCommit, int], version: int, data: bytes) -> None:
    """As the codec reads it."""
    asked, elements = read
    whole = messages.decode_request(OFFSET_COMMIT, version, data)
    assert asked.group_id == whole.group_id and asked.member_id == whole.member_id
    assert asked.generation_id_or_member_epoch == whole.generation_id_or_member_epoch
    static = version >= INSTANCE_IDS_SINCE
    assert asked.group_instance_id == (whole.group_instance_id if static else None)
    retained = version <= RETENTION_UNTIL
    assert asked.retention_time_ms == (whole.retention_time_ms if retained else -1)
    assert len(asked.topics) == len(whole.topics)
    for ours, topic in zip(asked.topics, whole.topics, strict=True):
        if version >= TOPIC_IDS_SINCE:
            assert ours.topic_id == topic.topic_id and ours.name == ""
        else:
            assert ours.name == topic.name and ours.topic_id == UUID(int=0)
        assert len(ours.partitions) == len(topic.partitions)
        for mine, one in zip(ours.partitions, topic.partitions, strict=True):
            epoch = one.committed_leader_epoch if version >= LEADER_EPOCHS_SINCE else -1
            assert mine == (one.partition_index, one.committed_offset, epoch, one.committed_metadata)
    assert elements == len(whole.topics) + sum(len(topic.partitions) for topic in whole.topics)


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_small_is_read_as_the_codec_reads_it(version: int) -> None:
    @settings(max_examples=100)
    @given(REQUESTS)
    def check(fields: dict[str, Any]) -> None:
        data = request(version, **fields)
        read = read_commit(data, 0, version)
        assert read is not None
        same(read, version, data)
        # Where a request begins does not matter, nor what is behind it.
        again = read_commit(b"head" + data + b"tail", 4, version)
        assert again is not None
        same(again, version, data)

    check()


@pytest.mark.parametrize("version", VERSIONS)
def test_bytes_that_lie_are_read_as_the_codec_reads_them_or_not_at_all(version: int) -> None:
    sound = request(version)

    @settings(max_examples=200)
    @given(
        st.integers(0, len(sound)),
        st.lists(st.tuples(st.integers(0, len(sound) - 1), st.integers(0, 255)), max_size=3),
    )
    def check(size: int, changes: list[tuple[int, int]]) -> None:
        changed = bytearray(sound)
        for place, byte in changes:
            changed[place] = byte
        for data in (bytes(changed), bytes(changed[:size])):
            read = read_commit(data, 0, version)
            if read is not None:
                same(read, version, data)

    check()


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_large_or_unusual_is_for_the_codec(version: int) -> None:
    def topics(partitions: int, count: int = 1) -> list[dict[str, Any]]:
        one = {"partition_index": 0, "committed_offset": 0, "committed_leader_epoch": 0}
        found = [one | {"committed_metadata": ""}] * partitions
        return [{"name": "t", "topic_id": ID, "partitions": found}] * count

    def is_read(**fields: Any) -> bool:
        return read_commit(request(version, **fields), 0, version) is not None

    assert is_read(topics=topics(ELEMENTS_MAX - 1)) and not is_read(topics=topics(ELEMENTS_MAX))
    assert is_read(topics=topics(9, 10)) and not is_read(topics=topics(10, 10))
    assert is_read(group_id="g" * 126) and not is_read(group_id="g" * 127)
    assert is_read(member_id="m" * 126) and not is_read(member_id="m" * 127)
    wrong = request(version).replace(b"readers", b"\xff" * 7)
    assert read_commit(wrong, 0, version) is None


def test_the_gate_is_given_what_was_read_and_what_it_counts() -> None:
    data = request(9)
    header = messages.read_header(messages.frame_request(OFFSET_COMMIT, 9, 7, "me", {
        "group_id": "g", "generation_id_or_member_epoch": -1, "member_id": "", "topics": [],
    })[4:])  # fmt: skip
    assert header.codec is not None
    read, elements = messages.read_request(header.codec, data, 0)
    assert isinstance(read, OffsetCommit) and elements == 3
    # A large one is a view of its buffer.
    read, elements = messages.read_request(header.codec, memoryview(data), 0)
    assert not isinstance(read, OffsetCommit) and elements == 3


@pytest.mark.parametrize("version", VERSIONS)
def test_an_answer_is_written_as_the_codec_writes_it(version: int) -> None:
    @settings(max_examples=100)
    @given(st.lists(TOPICS, max_size=4), st.lists(INT16, min_size=16, max_size=16), INT32)
    def check(topics: list[dict[str, Any]], numbers: list[int], correlation_id: int) -> None:
        read = read_commit(request(version, topics=topics), 0, version)
        assert read is not None
        left = iter(numbers)
        codes = [[next(left) for _ in topic["partitions"]] for topic in topics]
        responses = [
            {
                "name": topic["name"],
                "topic_id": topic["topic_id"],
                "partitions": [
                    {"partition_index": each["partition_index"], "error_code": code}
                    for each, code in zip(topic["partitions"], of_topic, strict=True)
                ],
            }
            for topic, of_topic in zip(topics, codes, strict=True)
        ]
        header = RequestHeader(OFFSET_COMMIT, version, correlation_id, "me", 0)
        fields = {"throttle_time_ms": 0, "topics": responses}
        written = write_committed(version, correlation_id, read[0], codes)
        assert [written] == messages.frame_response(header, fields)

    check()
