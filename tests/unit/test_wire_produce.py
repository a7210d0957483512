"""A Produce of one batch: what is read and written without the codec is what the codec reads and writes."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ottla.wire import messages
from ottla.wire.apis import BY_NAME, PRODUCE
from ottla.wire.messages import MalformedMessage, RequestHeader
from ottla.wire.primitives import CUT_BYTES_MAX
from ottla.wire.produce import TOPIC_ID_SINCE, OneBatch, read_one, write_appended

API = BY_NAME["Produce"]
VERSIONS = range(API.version_min, API.version_max + 1)
ID = UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")


def request(
    version: int,
    records: bytes | None,
    *,
    name: str = "orders",
    topics: int = 1,
    partitions: int = 1,
    **fields: Any,
) -> bytes:
    key: dict[str, Any] = {"topic_id": ID} if version >= TOPIC_ID_SINCE else {"name": name}
    data = [{"index": 3, "records": records}] * partitions
    asked = {"transactional_id": None, "acks": -1, "timeout_ms": 30_000} | fields
    return messages.encode_request(
        PRODUCE, version, asked | {"topic_data": [key | {"partition_data": data}] * topics}
    )


def same(one: OneBatch, version: int, data: bytes) -> None:
    """As the codec reads it."""
    whole = messages.decode_request(PRODUCE, version, data)
    assert one.whole() == whole and one.whole()._fields == whole._fields
    (topic,), (ours,) = whole.topic_data, one.topic_data
    assert ours._fields == topic._fields
    assert ours.partition_data[0]._fields == topic.partition_data[0]._fields
    assert (one.topic, one.index) == (topic[0], topic.partition_data[0].index)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("size", [0, 1, 61, 126, 127, 200, 16_382, 16_383, 60_000])
def test_one_batch_is_read_as_the_codec_reads_it(version: int, size: int) -> None:
    data = request(version, bytes(range(256)) * (size // 256) + bytes(size % 256))
    one = read_one(data, 0, version)
    # Some of less than any batch has are left to the codec.
    assert one is not None or size < 8
    if one is not None:
        same(one, version, data)
        assert type(one.records) is (bytes if size <= CUT_BYTES_MAX else memoryview)
        # Where a request begins does not matter, nor what is behind it.
        again = read_one(b"head" + data + b"tail", 4, version)
        assert again is not None and again.topic_data == one.topic_data


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("transactional_id", ["", "t", "ö" * 63])
def test_one_batch_of_a_transaction_is_read_as_the_codec_reads_it(
    version: int, transactional_id: str
) -> None:
    data = request(version, bytes(70), transactional_id=transactional_id)
    one = read_one(b"head" + data + b"tail", 4, version)
    assert one is not None and one.transactional_id == transactional_id
    same(one, version, data)


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_more_or_less_than_one_batch_is_for_the_codec(version: int) -> None:
    batch = bytes(70)
    assert read_one(request(version, batch, topics=2), 0, version) is None
    assert read_one(request(version, batch, topics=0), 0, version) is None
    assert read_one(request(version, batch, partitions=2), 0, version) is None
    assert read_one(request(version, None), 0, version) is None
    assert read_one(request(version, batch, transactional_id="t" * 127), 0, version) is None
    wrong = request(version, batch, transactional_id="some id").replace(b"some id", b"\xff" * 7)
    assert read_one(wrong, 0, version) is None
    if version < TOPIC_ID_SINCE:
        assert read_one(request(version, batch, name="n" * 127), 0, version) is None
        assert read_one(request(version, batch, name="n" * 126), 0, version) is not None
        wrong = request(version, batch).replace(b"orders", b"\xff" * 6)
        assert read_one(wrong, 0, version) is None
        with pytest.raises(MalformedMessage):
            messages.decode_request(PRODUCE, version, wrong)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("transactional_id", [None, "some id"])
def test_bytes_that_lie_are_read_as_the_codec_reads_them_or_not_at_all(
    version: int, transactional_id: str | None
) -> None:
    sound = request(version, bytes(70), transactional_id=transactional_id)

    @settings(max_examples=150)
    @given(
        st.integers(0, len(sound)),
        st.lists(st.tuples(st.integers(0, 44), st.integers(0, 255)), max_size=3),
    )
    def check(size: int, changes: list[tuple[int, int]]) -> None:
        changed = bytearray(sound)
        for place, byte in changes:
            changed[place] = byte
        for data in (bytes(changed), bytes(changed[:size])):
            one = read_one(data, 0, version)
            if one is not None:
                same(one, version, data)

    check()


def test_the_gate_is_given_what_was_read_and_what_it_counts() -> None:
    topics = [{"name": "t", "partition_data": [{"index": 0, "records": bytes(70)}]}]
    fields = {"transactional_id": None, "acks": 1, "timeout_ms": 5, "topic_data": topics}
    frame = messages.frame_request(PRODUCE, 9, 7, "me", fields)[4:]
    header = messages.read_header(frame)
    assert header.codec is not None
    read, elements = messages.read_request(header.codec, frame, header.body_offset)
    assert isinstance(read, OneBatch) and elements == 2
    # A large one is a view of its buffer.
    read, elements = messages.read_request(header.codec, memoryview(frame), header.body_offset)
    assert not isinstance(read, OneBatch) and elements == 2


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", ["t", "orders", "ö" * 63, "n" * 126])
def test_an_answer_is_written_as_the_codec_writes_it(version: int, name: str) -> None:
    topic: str | UUID = ID if version >= TOPIC_ID_SINCE else name
    one = OneBatch(1, 5, topic, 2**31 - 1, b"")
    for base_offset, time_ms, start in ((0, -1, 0), (2**63 - 1, 2**41, 2**62)):
        answer = {
            "index": one.index,
            "error_code": 0,
            "base_offset": base_offset,
            "log_append_time_ms": time_ms,
            "log_start_offset": start,
            "record_errors": (),
        }
        key = "topic_id" if version >= TOPIC_ID_SINCE else "name"
        fields = {"responses": [{key: topic, "partition_responses": [answer]}], "throttle_time_ms": 0}
        header = RequestHeader(PRODUCE, version, 2**31 - 1, "me", 0)
        written = write_appended(version, header.correlation_id, one, base_offset, time_ms, start)
        assert [written] == messages.frame_response(header, fields)
