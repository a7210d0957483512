"""Record batches: what is built reads back, what other clients write is read, and lies are refused."""

from __future__ import annotations

import pytest
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ottla.errors import ErrorCode, KafkaError
from ottla.types import Record
from ottla.wire import compression
from ottla.wire.compression import Codec
from ottla.wire.records import (
    CREATE_TIME,
    HEADER,
    HEADER_BYTES,
    LOG_APPEND_TIME,
    SEQUENCE_MAX,
    BatchHeader,
    add_sequence,
    build_batch,
    check_batch,
    iter_batches,
    iter_records,
    read_header,
    read_varint,
    seal_batch,
    unpack_records,
    write_varint,
)
from ottla.wire.walks import RecordsSummary, walk_plain, walk_records

CODECS = list(Codec)

names = st.text(st.characters(codec="utf-8"), max_size=20)
contents = st.none() | st.binary(max_size=200)
record_lists = st.lists(
    st.builds(
        Record,
        st.just(0),
        st.integers(-1, 2**48),
        contents,
        contents,
        st.lists(st.tuples(names, contents), max_size=3).map(tuple),
    ),
    min_size=1,
    max_size=20,
)


@given(records=record_lists, codec=st.sampled_from(CODECS), base=st.integers(0, 2**60))
def test_what_is_built_reads_back(records: list[Record], codec: Codec, base: int) -> None:
    batch = build_batch(records, compression=codec, base_offset=base, leader_epoch=7)
    header = check_batch(batch)
    assert header.base_offset == base
    assert header.next_offset == base + len(records) == header.last_offset + 1
    assert header.partition_leader_epoch == 7
    assert header.compression == codec
    assert header.max_timestamp_ms == max(record.timestamp_ms for record in records)
    assert header.timestamp_type == CREATE_TIME
    assert not header.is_control and not header.is_transactional
    expected = [record._replace(offset=base + index) for index, record in enumerate(records)]
    assert list(iter_records(batch)) == expected
    summary = walk_records(unpack_records(batch), len(records))
    times = [record.timestamp_ms for record in records]
    assert summary.timestamp_delta_min == min(times) - times[0]
    assert summary.timestamp_delta_max == max(times) - times[0]
    keyless = [index for index, record in enumerate(records) if record.key is None]
    assert summary.first_without_key == (keyless[0] if keyless else None)


@given(records=record_lists, codec=st.sampled_from(CODECS))
def test_another_client_reads_what_is_built(records: list[Record], codec: Codec) -> None:
    batch = build_batch(records, compression=codec, producer_id=5, producer_epoch=1, base_sequence=9)
    read = DefaultRecordBatch(batch)
    assert read.validate_crc()
    assert (read.producer_id, read.producer_epoch, read.base_sequence) == (5, 1, 9)
    assert [(r.timestamp, r.key, r.value, tuple(r.headers)) for r in read] == [r[1:] for r in records]


@given(records=record_lists, codec=st.sampled_from(CODECS))
def test_what_another_client_builds_is_read(records: list[Record], codec: Codec) -> None:
    # That client takes no negative time.
    records = [record._replace(timestamp_ms=max(0, record.timestamp_ms)) for record in records]
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=int(codec), is_transactional=0, producer_id=-1, producer_epoch=-1,
        base_sequence=-1, batch_size=10**7,
    )  # fmt: skip
    for index, record in enumerate(records):
        builder.append(index, record.timestamp_ms, record.key, record.value, list(record.headers))
    batch = bytes(builder.build())
    check_batch(batch)
    assert [record[1:] for record in iter_records(batch)] == [record[1:] for record in records]
    walk_records(unpack_records(batch), len(records))


def test_a_bare_snappy_block_is_read_as_librdkafka_writes_it() -> None:
    import cramjam

    plain = build_batch([Record(0, 5, b"k", b"v" * 1000)])
    payload = bytes(cramjam.snappy.compress_raw(plain[HEADER_BYTES:]))
    batch = seal_batch(read_header(plain).replaced(attributes=Codec.SNAPPY), payload)
    assert [record.value for record in iter_records(batch)] == [b"v" * 1000]


def test_snappy_is_written_in_blocks_that_java_reads() -> None:
    data = bytes(range(256)) * 1000
    packed = compression.compress(Codec.SNAPPY, data)
    assert packed[:16] == b"\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01"
    assert compression.decompress(Codec.SNAPPY, packed) == data


def test_lz4_blocks_do_not_depend_on_one_another() -> None:
    packed = compression.compress(Codec.LZ4, b"ab" * 500_000)
    assert packed[:4] == b"\x04\x22\x4d\x18"
    assert packed[4] >> 6 == 1 and packed[4] & 0x20


@pytest.mark.parametrize("codec", CODECS[1:])
def test_unpacking_stops_at_a_limit(codec: Codec) -> None:
    packed = compression.compress(codec, bytes(3_000_000))
    assert compression.decompress(codec, packed, 3_000_000) == bytes(3_000_000)
    with pytest.raises(KafkaError) as raised:
        compression.decompress(codec, packed, 2_999_999)
    assert raised.value.code is ErrorCode.corrupt_message


@pytest.mark.parametrize("codec", CODECS[1:])
@given(data=st.binary(max_size=100))
def test_rubbish_does_not_unpack(codec: Codec, data: bytes) -> None:
    try:
        compression.decompress(codec, data, 10_000)
    except KafkaError as error:
        assert error.code is ErrorCode.corrupt_message


def test_unknown_codecs_are_named() -> None:
    with pytest.raises(KafkaError) as raised:
        compression.decompress(5, b"x")
    assert raised.value.code is ErrorCode.unsupported_compression_type
    with pytest.raises(ValueError, match="codec 6"):
        compression.compress(6, b"x")


@given(st.integers(-(2**63), 2**63 - 1))
@example(-(2**63))
@example(2**63 - 1)
def test_varints_of_64_bits(value: int) -> None:
    out = bytearray()
    write_varint(out, value)
    assert len(out) <= 10
    assert read_varint(out + b"\xff", 0) == (value, len(out))


def test_varints_that_do_not_end() -> None:
    with pytest.raises(IndexError):
        read_varint(b"\x80\x80", 0)
    with pytest.raises(ValueError, match="ten bytes"):
        read_varint(b"\x80" * 20, 0)


def test_sequence_numbers_wrap() -> None:
    assert add_sequence(SEQUENCE_MAX, 1) == 0
    assert add_sequence(SEQUENCE_MAX - 1, 3) == 1
    assert add_sequence(1, -3) == SEQUENCE_MAX - 1


def test_log_append_time_holds_for_every_record() -> None:
    batch = build_batch([Record(0, 5, None, b"a"), Record(0, 9, None, b"b")], timestamp_type=LOG_APPEND_TIME)
    assert [record.timestamp_ms for record in iter_records(batch)] == [9, 9]


def test_iterating_leaves_out_a_batch_that_is_cut_off() -> None:
    first = build_batch([Record(0, 1, None, b"a")])
    second = build_batch([Record(0, 1, None, b"b")], base_offset=1)
    for cut in range(len(second)):
        assert [header.base_offset for header, _ in iter_batches(first + second[:cut])] == [0]
    assert [bytes(raw) for _, raw in iter_batches(first + second)] == [first, second]


def test_iterating_refuses_a_length_that_no_batch_can_have() -> None:
    batch = bytearray(build_batch([Record(0, 1, None, b"a")]))
    batch[8:12] = (48).to_bytes(4, "big")
    with pytest.raises(KafkaError) as raised:
        list(iter_batches(batch))
    assert raised.value.code is ErrorCode.corrupt_message


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"magic": 1}, ErrorCode.unsupported_for_message_format),
        ({"magic": 0}, ErrorCode.unsupported_for_message_format),
        ({"magic": 3}, ErrorCode.corrupt_message),
        ({"length": 55}, ErrorCode.corrupt_message),
        ({"crc": 1}, ErrorCode.corrupt_message),
        ({"record_count": 2}, ErrorCode.corrupt_message),
    ],
)
def test_headers_that_lie(change: dict[str, int], code: ErrorCode) -> None:
    batch = build_batch([Record(0, 1, None, b"a")])
    header = read_header(batch).replaced(**change)
    with pytest.raises(KafkaError) as raised:
        check_batch(HEADER.pack(*header.fields()) + batch[HEADER_BYTES:])
    assert raised.value.code is code


def test_a_header_that_is_cut_short() -> None:
    with pytest.raises(KafkaError):
        read_header(bytes(60))


@pytest.mark.parametrize("count", [0, 1, 3, 2**31 - 1])
def test_a_record_count_that_lies(count: int) -> None:
    batch = build_batch([Record(0, 1, None, b"a"), Record(0, 1, b"k", b"b", (("h", None),))])
    with pytest.raises(KafkaError) as raised:
        walk_records(unpack_records(batch), count)
    assert raised.value.code is ErrorCode.invalid_record
    lying = seal_batch(read_header(batch).replaced(record_count=count), batch[HEADER_BYTES:])
    with pytest.raises(KafkaError) as raised:
        list(iter_records(lying))
    assert raised.value.code is ErrorCode.invalid_record


def test_offsets_inside_that_lie() -> None:
    batch = build_batch([Record(0, 1, None, b"a")])
    payload = bytearray(batch[HEADER_BYTES:])
    payload[3] = 2  # the record's offset delta: 1
    with pytest.raises(KafkaError, match="offset delta"):
        walk_records(payload, 1)


@given(st.data())
def test_a_damaged_record_is_refused_or_harmless(data: st.DataObject) -> None:
    """Whatever the bytes are, the answer is records or KafkaError; walking agrees with reading."""
    batch = build_batch([Record(0, 1, b"key", b"value", (("h", b"x"), ("n", None)))] * 3)
    payload = bytearray(batch[HEADER_BYTES:])
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    damaged = seal_batch(read_header(batch), payload)
    try:
        walk_records(payload, 3)
    except KafkaError as error:
        assert error.code is ErrorCode.invalid_record
    else:
        try:
            assert [record.offset for record in iter_records(damaged)] == [0, 1, 2]
        except KafkaError as error:
            # Only reading looks at the characters of a header's name.
            assert "utf-8" in str(error)


@given(st.binary(max_size=300))
def test_random_bytes_are_refused(data: bytes) -> None:
    for read in (check_batch, lambda d: list(iter_batches(d)), lambda d: list(iter_records(d))):
        try:
            read(data)
        except KafkaError:
            continue


def test_no_record_is_no_batch() -> None:
    with pytest.raises(ValueError, match="at least one"):
        build_batch([])


def test_a_control_batch_says_so() -> None:
    header: BatchHeader = read_header(
        build_batch([Record(0, 1, b"\0\0\0\1", b"\0\0\0\0\0\0")], control=True, transactional=True)
    )
    assert header.is_control and header.is_transactional


def summed(summary: RecordsSummary) -> tuple[int, int, int | None]:
    return summary.timestamp_delta_min, summary.timestamp_delta_max, summary.first_without_key


def test_plain_records_are_walked_over_as_all_are() -> None:
    """What is taken for plain is sound, and the same is said of it."""
    some = st.lists(
        st.builds(
            Record,
            st.just(0),
            st.integers(0, 2**31),
            st.none() | st.binary(max_size=70),
            st.none() | st.binary(max_size=70),
            st.just(()) | st.just((("name", b"value"),)),
        ),
        min_size=1,
        max_size=4,
    )

    @settings(max_examples=200)
    @given(some, st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=2), st.integers(0, 5))
    def check(records: list[Record], changes: list[tuple[int, int]], cut: int) -> None:
        payload = bytearray(build_batch(records)[HEADER_BYTES:])
        count = len(records)
        if not changes and not any(record.headers for record in records):
            deltas = [record.timestamp_ms - records[0].timestamp_ms for record in records]
            is_plain = all(abs(delta) < 2**27 for delta in deltas)
            assert (walk_plain(b"head" + bytes(payload), 4, count) is not None) == is_plain
        for place, byte in changes:
            payload[place % len(payload)] = byte
        for data in (bytes(payload), bytes(payload[: len(payload) - cut]), bytes(payload) + bytes(cut)):
            plain = walk_plain(b"head" + data, 4, count)
            if plain is not None:
                assert summed(plain) == summed(walk_records(data, count))

    check()
