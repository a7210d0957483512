"""What a batch must satisfy to be appended, and what a leader changes in it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from log_support import NOW_MS, batch, records

from ottla.errors import ErrorCode, KafkaError
from ottla.log.settings import LogConfig, Origin
from ottla.log.validation import (
    AT_ONCE_BYTES_MAX,
    AT_ONCE_RECORDS_MAX,
    NAMED_RECORDS_MAX,
    RECOMPRESSED_AT_ONCE_BYTES_MAX,
    SEARCHED_AT_ONCE_MAX,
    WALKED_RECORDS_MAX,
    Faults,
    Prepared,
    RecordsRefused,
    Rules,
    TakesLong,
    prepare,
)
from ottla.types import Record
from ottla.wire.compression import Codec
from ottla.wire.records import (
    HEADER_BYTES,
    LOG_APPEND_TIME,
    STAMP_BYTES,
    build_batch,
    check_batch,
    iter_records,
    read_header,
    seal_batch,
)


def prepared(data: bytes, origin: Origin = Origin.CLIENT, **config: Any) -> Prepared:
    return prepare(data, Rules(LogConfig(**config)), NOW_MS, origin)


def refused(data: bytes, origin: Origin = Origin.CLIENT, **config: Any) -> ErrorCode:
    with pytest.raises(KafkaError) as raised:
        prepared(data, origin, **config)
    return raised.value.code


def whole(result: Prepared) -> bytes:
    """The batch as it will lie in the log, with a stamp of zeros for offset and epoch."""
    data = b"\0" * 8 + result[0].length.to_bytes(4, "big") + b"\0" * 4 + bytes(result[1])
    same = result[0].replaced(base_offset=0, partition_leader_epoch=0)
    assert check_batch(data).fields() == same.fields()
    return data


def resealed(data: bytes, **changes: int) -> bytes:
    """A batch whose header says something else, with a checksum that agrees."""
    return seal_batch(read_header(data).replaced(**changes), data[HEADER_BYTES:])


def compressed_records() -> bytes:
    """Records whose batch does not say that they are compressed."""
    return batch(*(str(number) * 40 for number in range(50)), compression=Codec.SNAPPY)[HEADER_BYTES:]


def test_a_sound_batch_passes_untouched() -> None:
    data = batch("a", "b")
    header, body = prepared(data)
    assert header.fields() == read_header(data).fields()
    assert bytes(body) == data[STAMP_BYTES:]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", ErrorCode.invalid_record),
        (bytes(11), ErrorCode.invalid_record),
        (bytes(12), ErrorCode.corrupt_message),
        (bytes(30), ErrorCode.corrupt_message),
        (bytes(8) + (13).to_bytes(4, "big") + bytes(18), ErrorCode.corrupt_message),
        (bytes(8) + (14).to_bytes(4, "big") + bytes(4), ErrorCode.invalid_record),
        (bytes(8) + (14).to_bytes(4, "big") + bytes(4) + b"\3", ErrorCode.corrupt_message),
        (bytes(8) + (14).to_bytes(4, "big") + bytes(4) + b"\xff", ErrorCode.corrupt_message),
        (bytes(8) + (14).to_bytes(4, "big") + bytes(4) + b"\2", ErrorCode.invalid_record),
        (bytes(8) + (18).to_bytes(4, "big") + bytes(18), ErrorCode.invalid_record),
        (bytes(8) + (18).to_bytes(4, "big") + bytes(4) + b"\2" + bytes(13), ErrorCode.corrupt_message),
        (b"\2" * 30, ErrorCode.invalid_record),
        (batch("a")[:60], ErrorCode.invalid_record),
        (batch("a")[:-1], ErrorCode.invalid_record),
        (batch("a") + b"x", ErrorCode.invalid_record),
        (batch("a") + batch("b"), ErrorCode.invalid_record),
        (batch("a")[:-1] + b"?", ErrorCode.corrupt_message),
        (resealed(batch("a"), magic=1), ErrorCode.invalid_record),
        (resealed(batch("a"), magic=9), ErrorCode.corrupt_message),
        (b"\0" * 8 + (48).to_bytes(4, "big") + batch("a")[12:], ErrorCode.corrupt_message),
        (b"\0" * 8 + b"\xff" * 4 + batch("a")[12:], ErrorCode.corrupt_message),
        (batch("a", base_offset=1), ErrorCode.invalid_record),
        (resealed(batch("a"), record_count=0), ErrorCode.invalid_record),
        (resealed(batch("a"), record_count=2), ErrorCode.invalid_record),
        (resealed(batch("a"), last_offset_delta=1), ErrorCode.invalid_record),
        (resealed(batch("a"), record_count=-1, last_offset_delta=-2), ErrorCode.invalid_record),
        (resealed(batch("a"), record_count=2, last_offset_delta=1), ErrorCode.invalid_record),
        (resealed(batch(*"abc"), record_count=2, last_offset_delta=1), ErrorCode.invalid_record),
        (resealed(batch(*"abcdefghijkl"), record_count=2**31 - 1, last_offset_delta=2**31 - 2),
         ErrorCode.invalid_record),
        (batch("a", control=True), ErrorCode.invalid_record),
        (resealed(batch("a"), attributes=0x40), ErrorCode.invalid_record),
        (resealed(batch("a"), attributes=0x80), ErrorCode.invalid_record),
        (resealed(batch("a"), attributes=-1), ErrorCode.invalid_record),
        (resealed(batch("a"), attributes=5), ErrorCode.unsupported_compression_type),
        (batch("a", timestamp_type=LOG_APPEND_TIME), ErrorCode.invalid_timestamp),
        (batch("a", producer_id=1, producer_epoch=0, base_sequence=-1), ErrorCode.invalid_record),
    ],
)  # fmt: skip
def test_what_clients_may_not_send(data: bytes, code: ErrorCode) -> None:
    assert refused(data) is code


def test_sizes_are_checked_before_checksums() -> None:
    data = batch("a" * 100)
    assert refused(data[:-1] + b"?", max_message_bytes=100) is ErrorCode.message_too_large
    assert refused(data, segment_bytes=100) is ErrorCode.record_list_too_large
    prepared(data, max_message_bytes=len(data), segment_bytes=len(data))


def test_a_record_that_lies_is_found_in_small_batches_only() -> None:
    """The compromise of docs/decisions/0003: from more records on, the header is all that is read."""
    small = batch(*["x"] * WALKED_RECORDS_MAX)
    large = batch(*["x"] * (WALKED_RECORDS_MAX + 1))
    for data in (small, large):
        payload = bytearray(data[HEADER_BYTES:])
        payload[-2] = 99  # the last record's value
        payload[-3] = 99  # and its length
        lying = seal_batch(read_header(data), payload)
        if data is small:
            assert refused(lying) is ErrorCode.invalid_record
        else:
            prepared(lying)
            assert refused(lying, cleanup_policy=("compact",)) is ErrorCode.invalid_record


@pytest.mark.parametrize("codec", list(Codec))
def test_a_compacted_topic_takes_no_record_without_a_key(codec: Codec) -> None:
    keyed = build_batch([Record(0, NOW_MS, b"k", b"v")] * 20, compression=codec)
    prepared(keyed, cleanup_policy=("compact",))
    mixed = [Record(0, NOW_MS, b"k", b"v")] * 15 + [Record(0, NOW_MS, None, b"v")]
    with pytest.raises(RecordsRefused) as raised:
        prepared(build_batch(mixed, compression=codec), cleanup_policy=("compact", "delete"))
    assert raised.value.code is ErrorCode.invalid_record
    faults = raised.value.search() if raised.value.search else raised.value.faults
    assert faults.code is ErrorCode.invalid_record
    assert [index for index, _ in faults.records] == [15]


def faults_of(data: bytes, **config: Any) -> Faults:
    """What is said of a refused batch in the end, wherever it is looked for."""
    with pytest.raises(RecordsRefused) as raised:
        prepared(data, **config)
    refusal = raised.value
    return refusal.faults if refusal.search is None else refusal.search()


AGES_MS = [0, 11, -11, 10, NOW_MS + 1]


@given(
    made=st.lists(st.tuples(st.booleans(), st.sampled_from(AGES_MS)), min_size=1, max_size=30),
    keyed=st.booleans(),
    stamped=st.booleans(),
    codec=st.sampled_from([Codec.NONE, Codec.GZIP]),
)
def test_a_refused_batch_names_every_record_at_fault(
    made: list[tuple[bool, int]], keyed: bool, stamped: bool, codec: Codec
) -> None:
    """A record without a key counts as that; INVALID_TIMESTAMP goes before INVALID_RECORD. An age of all time
    is no timestamp at all, which is no fault."""
    data = build_batch(
        [Record(0, NOW_MS - age_ms, b"k" if has_key else None, b"v") for has_key, age_ms in made],
        compression=codec,
    )
    config: dict[str, Any] = {
        "message_timestamp_before_max_ms": 10,
        "message_timestamp_after_max_ms": 10,
        "message_timestamp_type": "LogAppendTime" if stamped else "CreateTime",
        "cleanup_policy": ("compact",) if keyed else ("delete",),
    }
    unkeyed = {index for index, (has_key, _) in enumerate(made) if keyed and not has_key}
    strange = {i for i, (_, age_ms) in enumerate(made) if abs(age_ms) == 11 and not stamped} - unkeyed
    if not unkeyed | strange and codec is Codec.NONE:
        prepared(data, **config)
        return
    if not unkeyed | strange:
        with suppress(RecordsRefused):
            prepared(data, **config)
        return
    faults = faults_of(data, **config)
    assert [index for index, _ in faults.records] == sorted(unkeyed | strange)
    assert faults.code is (ErrorCode.invalid_timestamp if strange else ErrorCode.invalid_record)


def test_a_large_refused_batch_is_searched_later_and_no_further_than_so() -> None:
    data = batch(*["x"] * (SEARCHED_AT_ONCE_MAX + 1))
    with pytest.raises(RecordsRefused) as raised:
        prepared(data, cleanup_policy=("compact",))
    assert raised.value.faults.records == ()
    assert raised.value.search is not None
    assert len(raised.value.search().records) == SEARCHED_AT_ONCE_MAX + 1
    many = batch(*["x"] * (NAMED_RECORDS_MAX + 1), compression=Codec.ZSTD)
    assert len(faults_of(many, cleanup_policy=("compact",)).records) == NAMED_RECORDS_MAX


def test_a_header_that_claims_a_later_time_than_its_records_is_corrected() -> None:
    data = batch(*["x"] * (WALKED_RECORDS_MAX + 1))
    lying = resealed(data, max_timestamp_ms=NOW_MS + 7_200_000)
    assert whole(prepared(lying))[STAMP_BYTES:] == data[STAMP_BYTES:]


@pytest.mark.parametrize("codec", [Codec.NONE, Codec.ZSTD])
def test_timestamps_out_of_bounds(codec: Codec) -> None:
    late = batch("a", at_ms=NOW_MS + 3_600_001, compression=codec)
    assert refused(late) is ErrorCode.invalid_timestamp
    prepared(late, message_timestamp_after_max_ms=3_600_001)
    prepared(late, message_timestamp_type="LogAppendTime")
    old = build_batch(
        [Record(0, NOW_MS, None, b""), Record(0, NOW_MS - 11, None, b"")]
        + [Record(0, NOW_MS, None, b"")] * 20,
        compression=codec,
    )
    prepared(old)
    assert refused(old, message_timestamp_before_max_ms=10) is ErrorCode.invalid_timestamp
    prepared(old, message_timestamp_before_max_ms=11)
    prepared(batch("a", at_ms=-1), message_timestamp_before_max_ms=11)


def test_a_largest_timestamp_that_lies_is_corrected() -> None:
    data = resealed(batch("a", at_ms=NOW_MS), max_timestamp_ms=5)
    result = prepared(data)
    assert result[0].max_timestamp_ms == NOW_MS
    assert [record.timestamp_ms for record in iter_records(whole(result))] == [NOW_MS]


@pytest.mark.parametrize("codec", list(Codec))
def test_log_append_time_is_stamped_without_unpacking(codec: Codec) -> None:
    data = batch("a", "b", at_ms=5, compression=codec)
    result = prepared(data, message_timestamp_type="LogAppendTime")
    assert result[0].timestamp_type == LOG_APPEND_TIME
    assert bytes(result[1])[HEADER_BYTES - STAMP_BYTES :] == data[HEADER_BYTES:]
    assert [record.timestamp_ms for record in iter_records(whole(result))] == [NOW_MS, NOW_MS]


@given(source=st.sampled_from(list(Codec)), target=st.sampled_from(list(Codec)), count=st.integers(1, 30))
def test_batches_are_stored_with_the_topics_codec(source: Codec, target: Codec, count: int) -> None:
    data = build_batch(
        [Record(0, NOW_MS - i, b"k%d" % i, b"v" * i, (("h", b"x"),)) for i in range(count)],
        compression=source, producer_id=3, producer_epoch=2, base_sequence=8,
    )  # fmt: skip
    name = "uncompressed" if target is Codec.NONE else target.name.lower()
    stored = whole(prepared(data, compression_type=name))
    before, after = read_header(data), read_header(stored)
    assert after.compression == target
    assert list(iter_records(stored)) == list(iter_records(data))
    assert after.fields()[7:] == before.fields()[7:]
    if source == target:
        assert stored[STAMP_BYTES:] == data[STAMP_BYTES:]


def test_recompression_looks_at_the_records_and_at_the_size_again() -> None:
    packed = batch("a" * 5000, compression=Codec.GZIP)
    assert (
        refused(packed, compression_type="uncompressed", max_message_bytes=1000)
        is ErrorCode.message_too_large
    )
    lying = seal_batch(
        read_header(packed).replaced(record_count=2, last_offset_delta=1), packed[HEADER_BYTES:]
    )
    assert refused(lying, compression_type="zstd") is ErrorCode.invalid_record
    rubbish = seal_batch(read_header(packed), b"rubbish")
    assert refused(rubbish, compression_type="zstd") is ErrorCode.corrupt_message


def test_coordinators_may_write_what_clients_may_not() -> None:
    marker = build_batch(records(b"v", key=b"k"), control=True, producer_id=1, producer_epoch=0)
    prepared(marker, Origin.COORDINATOR, compression_type="zstd")
    assert (
        whole(prepared(marker, Origin.COORDINATOR, compression_type="zstd"))[HEADER_BYTES:]
        == (marker[HEADER_BYTES:])
    )
    assert refused(marker) is ErrorCode.invalid_record
    assert refused(marker[:-1] + b"?", Origin.COORDINATOR) is ErrorCode.corrupt_message


@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda b: batch("x") + b))
def test_random_bytes_never_pass(data: bytes) -> None:
    if data != batch("x"):
        with pytest.raises(KafkaError):
            prepared(data)


@pytest.mark.parametrize("payload", [b"\xff" * 500, b"\0" * 500, compressed_records()])
def test_what_is_no_record_is_told_by_the_first_two_of_a_large_batch(payload: bytes) -> None:
    header = read_header(batch(*map(str, range(50))))
    assert refused(seal_batch(header, payload)) is ErrorCode.invalid_record


# -- what takes long ----------------------------------------------------------------------------------------


def at_once(data: bytes, **config: Any) -> Prepared:
    return prepare(data, Rules(LogConfig(**config)), NOW_MS, Origin.CLIENT, at_once=True)


def many(count: int, codec: Codec = Codec.NONE, value: bytes = b"v") -> bytes:
    return build_batch([Record(0, NOW_MS, b"k", value)] * count, compression=codec)


def with_headers(count: int) -> bytes:
    return build_batch([Record(0, NOW_MS, b"k", b"v", (("", None),) * count)])


COMPACTED = {"cleanup_policy": ("compact",)}


@pytest.mark.parametrize(
    ("data", "config"),
    [
        (many(AT_ONCE_RECORDS_MAX + 1), COMPACTED),
        (many(AT_ONCE_RECORDS_MAX + 1), {"message_timestamp_before_max_ms": 1000}),
        (many(AT_ONCE_RECORDS_MAX + 1), {"compression_type": "lz4"}),
        (many(10, Codec.ZSTD, bytes(AT_ONCE_BYTES_MAX // 10)), COMPACTED),
        (many(10, Codec.GZIP, bytes(50_000)), {"compression_type": "uncompressed"}),
        (many(1, Codec.NONE, bytes(RECOMPRESSED_AT_ONCE_BYTES_MAX)), {"compression_type": "zstd"}),
        (with_headers(AT_ONCE_RECORDS_MAX + 1), {}),
        (with_headers(AT_ONCE_RECORDS_MAX + 1), COMPACTED),
    ],
)
def test_what_takes_long_is_not_done_at_once(data: bytes, config: dict[str, Any]) -> None:
    with pytest.raises(TakesLong):
        at_once(data, **config)
    assert whole(at_once(many(3), **config)) == whole(prepared(many(3), **config))
    # In a thread it is.
    prepared(data, **config)


def test_batches_that_are_not_looked_into_take_no_time() -> None:
    for data in (many(50_000), many(50_000, Codec.ZSTD), many(2, Codec.NONE, bytes(400_000))):
        assert whole(at_once(data)) == whole(prepared(data))


def test_what_does_not_unpack_is_refused_where_it_is_looked_into() -> None:
    garbage = seal_batch(read_header(many(3, Codec.ZSTD)), b"no zstd")
    with pytest.raises(TakesLong):
        at_once(garbage, **COMPACTED)
    assert refused(garbage, **COMPACTED) is ErrorCode.corrupt_message


def test_what_would_unpack_to_too_much_is_refused_before_it_is_copied() -> None:
    data = many(1, Codec.ZSTD, bytes(5_000_000))
    assert refused(data, compression_type="uncompressed") is ErrorCode.message_too_large


@pytest.mark.parametrize("base_ms", [2**63 - 1, -(2**63)])
@pytest.mark.parametrize("codec", [Codec.NONE, Codec.ZSTD])
def test_timestamps_that_need_more_than_64_bits(base_ms: int, codec: Codec) -> None:
    stamps = (0, 5) if base_ms > 0 else (5, 0)
    data = build_batch([Record(0, stamp, b"k", b"v") for stamp in stamps], compression=codec)
    data = resealed(data, base_timestamp_ms=base_ms, max_timestamp_ms=0)
    bounds = {"message_timestamp_after_max_ms": 2**63 - 1}
    assert refused(data, cleanup_policy=("compact",), **bounds) is ErrorCode.invalid_timestamp
    if codec is Codec.NONE:
        assert refused(data, **bounds) is ErrorCode.invalid_timestamp
