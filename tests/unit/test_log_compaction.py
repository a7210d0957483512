"""What compaction keeps of a batch, and which segments it merges."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cramjam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottla.errors import KafkaError
from ottla.log import compaction
from ottla.log.cleaned_transactions import CleanedTransactions
from ottla.log.compaction import (
    DIGEST_BYTES,
    KEY_BYTES_MAX,
    RECORDS_AT_ONCE,
    Extent,
    Filter,
    OffsetMap,
    dirty_ratio,
    first_dirty_offset,
    group,
    map_batch,
    map_key,
)
from ottla.log.index import RELATIVE_OFFSET_MAX
from ottla.log.markers import read_marker
from ottla.log.producers import LastRecord
from ottla.log.transaction_index import AbortedTransaction
from ottla.types import Buffer, Record
from ottla.wire.compression import compress, decompress
from ottla.wire.records import (
    DELETE_HORIZON_BIT,
    HEADER_BYTES,
    LOG_APPEND_TIME,
    BatchHeader,
    build_batch,
    check_batch,
    iter_records,
    read_header,
    seal_batch,
)

NOW_MS = 1_700_000_000_000
RETENTION_MS = 1000


def batch(
    *pairs: tuple[bytes | None, bytes | None], base: int = 0, at_ms: int = NOW_MS, **options: Any
) -> bytes:
    records = [
        Record(base + number, at_ms + number, key, value, ((f"h{number}", b"x"),))
        for number, (key, value) in enumerate(pairs)
    ]
    return build_batch(records, base_offset=base, **options)


def drive(steps: Iterator[int]) -> Any:
    """Run a generator to its end; what it returns."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value


def transactions(*aborted: tuple[int, int, int]) -> CleanedTransactions:
    """Of these, by producer and offsets, a round knows that they were aborted."""
    made = CleanedTransactions()
    made.add(AbortedTransaction(pid, first, last, last + 1) for pid, first, last in aborted)
    return made


def mapped(
    *raws: bytes, start: int = 0, entries_max: int = 1000, met: CleanedTransactions | None = None
) -> OffsetMap:
    offsets, met = OffsetMap(entries_max, start), met or CleanedTransactions()
    for raw in raws:
        drive(map_batch(offsets, read_header(raw), raw, met))
    drive(offsets.complete())
    return offsets


def keep(
    raw: bytes,
    offsets: OffsetMap,
    *,
    now_ms: int = NOW_MS,
    is_last: bool = False,
    producers: Any = None,
    met: CleanedTransactions | None = None,
) -> Buffer:
    keeps = Filter(offsets, now_ms, RETENTION_MS, producers or {}, met or CleanedTransactions())
    return drive(keeps.keep(read_header(raw), raw, is_last=is_last))  # type: ignore[no-any-return]


def records(raw: Buffer) -> list[Record]:
    check_batch(raw)
    return list(iter_records(raw))


def test_a_batch_that_stays_whole_is_not_touched() -> None:
    raw = batch((b"a", b"1"), (b"b", b"2"))
    assert keep(raw, mapped(raw)) is raw


@pytest.mark.parametrize("codec", range(5))
def test_the_last_record_of_each_key_stays_as_it_was(codec: int) -> None:
    numbered = {"producer_id": 3, "producer_epoch": 1, "base_sequence": 10, "leader_epoch": 5}
    raw = batch(
        (b"a", b"1"), (b"b", b"2"), (b"a", b"3"), (b"c", b"4"), base=40, compression=codec, **numbered
    )
    later = batch((b"c", b"5"), base=44)
    kept = keep(raw, mapped(raw, later, start=40))
    before, after = read_header(raw), check_batch(kept)
    assert records(kept) == [record for record in records(raw) if record.offset in (41, 42)]
    assert after.compression == codec
    assert after.last_offset == 43
    assert after.last_sequence == before.last_sequence
    assert after.partition_leader_epoch == 5
    assert after.max_timestamp_ms == NOW_MS + 2


def test_append_time_is_kept() -> None:
    raw = batch((b"a", b"1"), (b"a", None), timestamp_type=LOG_APPEND_TIME)
    kept = keep(raw, mapped(raw))
    assert [record.timestamp_ms for record in records(kept)] == [NOW_MS + 1]
    assert check_batch(kept).timestamp_type == LOG_APPEND_TIME


@pytest.mark.parametrize("pid", [0, 3])
def test_of_a_superseded_batch_nothing_stays_but_what_it_is_needed_for(pid: int) -> None:
    numbered = {"producer_id": pid, "producer_epoch": 1, "base_sequence": 10}
    raw = batch((b"a", b"1"), (b"a", b"2"), base=7, compression=1, **numbered)
    offsets = mapped(raw, batch((b"a", b"3"), base=9), start=7)
    assert keep(raw, offsets) == b""
    assert keep(raw, offsets, producers={pid: LastRecord(12, 0)}) == b""
    for kept in (keep(raw, offsets, is_last=True), keep(raw, offsets, producers={pid: LastRecord(8, 0)})):
        header = check_batch(kept)
        assert (header.record_count, header.base_offset, header.last_offset) == (0, 7, 8)
        assert (header.producer_id, header.producer_epoch, header.last_sequence) == (pid, 1, 11)
        assert (header.max_timestamp_ms, header.compression, len(kept)) == (NOW_MS + 1, 0, 61)
        assert records(kept) == []
        # The next round keeps it as long as it is needed.
        again = mapped(batch((b"a", b"9"), base=20), start=20)
        assert keep(bytes(kept), again) == b""
        assert keep(bytes(kept), again, is_last=True) == kept


@pytest.mark.parametrize("codec", [0, 4])
def test_a_tombstone_goes_when_its_horizon_has_passed(codec: int) -> None:
    raw = batch((b"a", None), (b"b", b"2"), (b"c", None), compression=codec)
    first = bytes(keep(raw, mapped(raw)))
    header = check_batch(first)
    assert header.attributes == codec | DELETE_HORIZON_BIT
    assert header.base_timestamp_ms == NOW_MS + RETENTION_MS
    assert header.max_timestamp_ms == NOW_MS + 2
    assert records(first) == records(raw)
    offsets = mapped(batch((b"z", b""), base=9), start=9)
    assert keep(first, offsets, now_ms=NOW_MS + RETENTION_MS - 1) is first
    last = bytes(keep(first, offsets, now_ms=NOW_MS + RETENTION_MS))
    assert records(last) == records(raw)[1:2]
    # The horizon stays set, as in Kafka; it is what the timestamps are relative to.
    assert check_batch(last).base_timestamp_ms == NOW_MS + RETENTION_MS
    assert keep(last, offsets, now_ms=NOW_MS * 2) is last


def test_a_retention_without_end() -> None:
    raw = batch((b"a", None))
    keeps = Filter(mapped(raw), NOW_MS, 2**63 - 1, {}, CleanedTransactions())
    kept = drive(keeps.keep(read_header(raw), raw, is_last=False))
    assert records(kept) == records(raw)
    assert check_batch(kept).base_timestamp_ms == 2**63 - 1


def test_what_lies_beyond_the_map_stays() -> None:
    raw = batch((b"a", b"1"), (None, b"2"), base=5)
    offsets = mapped(batch((b"a", b"0")))
    assert keep(raw, offsets) is raw


def test_records_without_a_key_go() -> None:
    """Of a topic that was not compacted when they were written."""
    raw = batch((None, b"1"), (b"a", b"2"), (None, b"3"))
    assert [record.value for record in records(keep(raw, mapped(raw)))] == [b"2"]


def test_a_control_batch_of_another_kind_stays() -> None:
    raw = batch((b"\0\0\0\2", b"\0\0\0\0\0\0"), control=True, transactional=True, producer_id=1)
    offsets = mapped(raw, batch((b"\0\0\0\2", b"x"), base=1))
    assert len(offsets) == 1
    assert keep(raw, offsets) is raw


def marker(base: int, *, commits: bool, pid: int = 1, epoch: int = 0) -> bytes:
    key = b"\0\0\0\1" if commits else bytes(4)
    return batch(
        (key, b"\0\0\0\0\0\0"), base=base, control=True, transactional=True, producer_id=pid,
        producer_epoch=epoch,
    )  # fmt: skip


IN_TRANSACTION = {"transactional": True, "producer_id": 1, "producer_epoch": 0}


def test_what_is_committed_supersedes_and_what_was_aborted_does_not() -> None:
    plain = batch((b"a", b"1"), (b"b", b"1"))
    committed = batch((b"a", None), base=2, **IN_TRANSACTION)
    first_end = marker(3, commits=True)
    aborted = batch((b"b", b"2"), base=4, **IN_TRANSACTION)
    second_end = marker(5, commits=False)
    log = (plain, committed, first_end, aborted, second_end)
    offsets = mapped(*log, met=transactions((1, 4, 5)))
    met = transactions((1, 4, 5))
    kept = [keep(raw, offsets, met=met) for raw in log]
    assert [record.offset for record in records(kept[0])] == [1]
    assert check_batch(kept[1]).attributes & DELETE_HORIZON_BIT
    assert kept[2] is first_end and kept[3] == b"" and kept[4] is second_end
    assert list(met.index) == [(1, 4, 5, 6)]


@pytest.mark.parametrize("commits", [True, False])
def test_a_marker_goes_when_its_horizon_has_passed_and_nothing_else_is_left(commits: bool) -> None:
    raw = marker(5, commits=commits)
    offsets = mapped(raw, batch((b"a", b"1"), base=6))
    aborted = [] if commits else [(1, 4, 5)]
    met = transactions(*aborted)
    once = keep(raw, offsets, met=met)
    header = check_batch(once)
    assert header.attributes & DELETE_HORIZON_BIT and header.base_timestamp_ms == NOW_MS + RETENTION_MS
    assert records(once) == records(raw) and not len(met.index)
    assert keep(once, offsets, now_ms=NOW_MS + RETENTION_MS - 1, met=transactions(*aborted)) is once
    late = NOW_MS + RETENTION_MS
    assert keep(once, offsets, now_ms=late, met=transactions(*aborted)) == b""
    # What there is last of a segment, or of a producer in its epoch, stays as an empty batch, and goes later.
    for options in ({"is_last": True}, {"producers": {1: LastRecord(-1, 0)}}):
        empty = keep(once, offsets, now_ms=late, **options)  # type: ignore[arg-type]
        left = check_batch(empty)
        assert (left.record_count, left.is_control, left.last_offset, left.producer_epoch) == (0, True, 5, 0)
        assert keep(bytes(empty), offsets, **options) == empty  # type: ignore[arg-type]
        assert keep(bytes(empty), offsets) == b""
    # Not where the producer has written since, or raised its epoch.
    for last in (LastRecord(9, 0), LastRecord(-1, 1)):
        assert keep(once, offsets, now_ms=late, producers={1: last}) == b""


def test_an_empty_batch_of_an_aborted_transaction_keeps_its_marker() -> None:
    """Who reads the log anew takes the batch for the beginning of a transaction."""
    aborted = batch((b"a", b"1"), base=4, **IN_TRANSACTION)
    end = marker(5, commits=False)
    offsets = mapped(aborted, end, met=transactions((1, 4, 5)))
    empty = keep(aborted, offsets, producers={1: LastRecord(4, 0)}, met=transactions((1, 4, 5)))
    assert check_batch(empty).record_count == 0
    met = transactions((1, 4, 5))
    assert keep(bytes(empty), offsets, producers={1: LastRecord(4, 0)}, met=met) == empty
    assert keep(end, offsets, met=met) is end
    assert list(met.index) == [(1, 4, 5, 6)]


def test_an_aborted_batch_goes_even_behind_what_the_map_holds() -> None:
    aborted = batch((b"a", b"1"), base=4, **IN_TRANSACTION)
    assert keep(aborted, mapped(batch((b"b", b"1"))), met=transactions((1, 4, 5))) == b""


def test_a_transaction_in_several_segments_is_one() -> None:
    """The same entry comes with each of them."""
    met = transactions((1, 4, 7), (2, 3, 9))
    first, second = (read_header(batch((b"a", b"1"), base=base, **IN_TRANSACTION)) for base in (4, 6))
    assert met.meet(first)
    met.add([AbortedTransaction(1, 4, 7, 8), AbortedTransaction(2, 3, 9, 10)])
    assert met.meet(second)
    end = marker(7, commits=False)
    assert not met.meet_marker(read_header(end), read_marker(end))
    following = read_header(batch((b"a", b"1"), base=8, **IN_TRANSACTION))
    assert not met.meet(following)
    commit = marker(9, commits=True)
    assert not met.meet_marker(read_header(commit), read_marker(commit))
    assert met.meet_marker(read_header(commit), read_marker(commit))
    assert list(met.index) == [(1, 4, 7, 8)]


def resealed(raw: bytes, **changes: int) -> bytes:
    return seal_batch(read_header(raw).replaced(**changes), raw[61:])


DAMAGED = {
    "checksum": lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]),
    "too few records": lambda raw: resealed(raw, record_count=3),
    "too many records": lambda raw: resealed(raw, record_count=1),
    "offsets that do not fit": lambda raw: resealed(raw, last_offset_delta=0),
    "not packed": lambda raw: resealed(raw, attributes=4),
    "garbage": lambda raw: seal_batch(read_header(raw), b"\xff" * 40),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_batch_is_left_alone(name: str) -> None:
    before = batch((b"a", b"0"))
    raw = DAMAGED[name](batch((b"a", b"1"), (b"b", b"2"), base=1))
    after = batch((b"b", b"3"), base=3)
    offsets = mapped(before, raw, after)
    assert keep(before, offsets) is before
    assert keep(raw, offsets) is raw
    # Where it is older than the map it is met only here.
    assert keep(raw, mapped(batch((b"a", b"9"), (b"b", b"9"), base=9), start=9)) is raw


def test_a_large_batch_is_walked_in_pieces() -> None:
    count = RECORDS_AT_ONCE * 3 + 1
    raw = batch(*((b"%d" % (number % 7), b"") for number in range(count)))
    offsets = OffsetMap(10, 0)
    assert list(map_batch(offsets, read_header(raw), raw, CleanedTransactions())) == [RECORDS_AT_ONCE] * 3 + [
        1
    ]
    drive(offsets.complete())
    assert [record.offset for record in records(keep(raw, offsets))] == list(range(count - 7, count))


@given(st.data())
def test_filtering_is_what_a_model_says(data: st.DataObject) -> None:
    pairs = st.tuples(st.none() | st.binary(max_size=40), st.none() | st.binary(max_size=200))
    first = data.draw(st.lists(pairs, min_size=1, max_size=40))
    second = data.draw(st.lists(pairs, min_size=1, max_size=40))
    raws = [batch(*first, compression=data.draw(st.integers(0, 4))), batch(*second, base=len(first))]
    offsets = mapped(*raws)
    everything = [record for raw in raws for record in iter_records(raw)]
    last = {record.key: record.offset for record in everything}
    kept = [record for raw in raws if (left := keep(raw, offsets)) for record in records(left)]
    assert kept == [r for r in everything if r.key is not None and last[r.key] == r.offset]


# -- the map ------------------------------------------------------------------------------------------------


@given(st.binary(max_size=KEY_BYTES_MAX), st.binary(min_size=KEY_BYTES_MAX + 1, max_size=100))
def test_no_short_key_stands_for_a_long_one(short: bytes, long: bytes) -> None:
    assert map_key(short) == short
    assert len(map_key(long)) == DIGEST_BYTES > len(short)


def test_a_map_is_full_after_a_batch_that_fills_it() -> None:
    offsets = OffsetMap(2, 0)
    assert not offsets.is_full
    raw = batch((b"a", b""), (b"b", b""), (b"c", b""))
    drive(map_batch(offsets, read_header(raw), raw, CleanedTransactions()))
    assert offsets.is_full
    assert (len(offsets), offsets.latest_offset) == (3, 2)
    drive(offsets.forget())
    assert len(offsets) == 0


@given(st.lists(st.integers(1, 2**40), min_size=1, max_size=50), st.integers(0, 2**41), st.integers(0, 100))
def test_last_offsets_are_found_wherever_they_are(gaps: list[int], first: int, length: int) -> None:
    offsets = OffsetMap(1000, 5)
    places = [5 + sum(gaps[: number + 1]) for number in range(len(gaps))]
    offsets.take({b"%d" % place: place for place in places})
    offsets.latest_offset = places[-1]
    drive(offsets.complete())
    first = min(first + 5, places[-1])
    if any(first <= place <= first + length for place in places):
        assert offsets.may_have_last_between(first, first + length)


def test_close_by_the_map_is_exact() -> None:
    offsets = mapped(batch((b"a", b"")), batch((b"a", b""), base=1), batch((b"a", b""), base=2))
    assert [offsets.may_have_last_between(n, n) for n in range(3)] == [False, False, True]


# -- what to compact ----------------------------------------------------------------------------------------


def test_compaction_goes_on_where_it_ended() -> None:
    assert first_dirty_offset(-1, 10, 100) == 10
    assert first_dirty_offset(5, 10, 100) == 10
    assert first_dirty_offset(50, 10, 100) == 50
    assert first_dirty_offset(100, 10, 100) == 100
    # The log has been cut, and written again perhaps.
    assert first_dirty_offset(101, 10, 100) == 10


CLOSED = [Extent(0, 10, 100), Extent(10, 20, 300), Extent(20, 30, 100)]


@pytest.mark.parametrize(
    ("dirty", "end", "ratio"),
    [(0, 30, 1.0), (10, 30, 0.8), (10, 20, 0.75), (20, 30, 0.2), (30, 30, 0.0), (15, 30, 400 / 800)],
)
def test_the_dirty_ratio(dirty: int, end: int, ratio: float) -> None:
    assert dirty_ratio(CLOSED, dirty, end) == pytest.approx(ratio)


def extents(*sizes: int, **options: int) -> list[Extent]:
    return [Extent(number, number + 1, size, **options) for number, size in enumerate(sizes)]


def test_small_segments_are_merged() -> None:
    assert group(extents(60, 40, 1, 99, 200, 5), 100, 1000) == [[0, 1], [2, 3], [4], [5]]
    assert group([], 100, 1000) == []
    # All of a group count, not only the last two.
    assert group(extents(40, 30, 30, 30, 30, 40), 100, 1000) == [[0, 1, 2], [3, 4, 5]]
    assert group(extents(50, 30, 30, 30), 100, 1000) == [[0, 1], [2, 3]]
    assert group(extents(30, 30, 50, 30), 100, 1000) == [[0, 1], [2, 3]]
    assert group(extents(*[0] * 7), 100, 1000, count_max=3) == [[0, 1, 2], [3, 4, 5], [6]]
    assert group(extents(*[0] * 5), 100, 1000, count_max=2) == [[0, 1], [2, 3], [4]]


def test_indexes_must_fit_too() -> None:
    assert group(extents(1, 1, 1, index_bytes=8), 100, 16) == [[0, 1], [2]]
    assert group(extents(1, 1, 1, time_index_bytes=12), 100, 12) == [[0], [1], [2]]
    assert group(extents(1, 1, 1, 1, index_bytes=8), 100, 24) == [[0, 1, 2], [3]]
    assert group(extents(1, 1, 1, 1, time_index_bytes=12), 100, 36) == [[0, 1, 2], [3]]


def test_offsets_must_fit_into_an_index() -> None:
    last = RELATIVE_OFFSET_MAX
    near = [Extent(0, 1, 1), Extent(1, last + 1, 1)]
    far = [Extent(0, 1, 1), Extent(1, last + 2, 1)]
    assert group(near, 100, 100) == [[0, 1]]
    assert group(far, 100, 100) == [[0], [1]]
    # From the first of them on.
    assert group([*near[:1], Extent(1, 5, 1), Extent(5, last + 1, 1)], 100, 100) == [[0, 1, 2]]
    assert group([*near[:1], Extent(1, 5, 1), Extent(5, last + 2, 1)], 100, 100) == [[0, 1], [2]]


def test_the_header_of_an_empty_batch_is_a_batch_header() -> None:
    raw = batch((b"a", b"1"))
    kept = keep(raw, mapped(raw, batch((b"a", b"2"), base=1)), is_last=True)
    assert isinstance(read_header(kept), BatchHeader)


@pytest.mark.parametrize("tombstone", [False, True])
def test_timestamps_that_need_more_than_64_bits_do_not_stop_it(tombstone: bool) -> None:
    """They wrap around as in Kafka. Such a batch may have come before its topic was compacted."""
    data = batch((b"a", b"1"), (b"b", None if tombstone else b"2"), (b"a", b"3"))
    data = seal_batch(read_header(data).replaced(base_timestamp_ms=2**63 - 2), data[HEADER_BYTES:])
    before = {record.offset: record.timestamp_ms for record in iter_records(data)}
    assert before == {0: 2**63 - 2, 1: 2**63 - 1, 2: -(2**63)}
    left = list(iter_records(keep(data, mapped(data))))
    assert {record.offset: record.timestamp_ms for record in left} == {n: before[n] for n in (1, 2)}


@pytest.mark.parametrize("codec", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("marked", [False, True])
def test_large_batches_are_the_same_without_a_copy_in_one_piece(
    monkeypatch: pytest.MonkeyPatch, codec: int, marked: bool
) -> None:
    """While bytes are copied no other thread runs: a batch may unpack to 128 MB of them."""
    long_key = b"k" * 100
    made = [
        Record(0, 1_000, b"a", b"x" * 300),
        Record(1, 1_001, long_key, bytes(range(256)) * 3),
        Record(2, 1_002, b"b", None if marked else b"y"),
        Record(3, 1_003, long_key, b"z" * 300),
        Record(4, 1_004, b"a", b"w" * 50),
        Record(5, 1_005, None, b"no key"),
    ]
    raw = build_batch(made, compression=codec)
    whole = keep(raw, mapped(raw))
    monkeypatch.setattr(compaction, "COPIED_AT_ONCE_BYTES", 64)
    assert type(compaction.unpack(read_header(raw), raw)) is memoryview
    in_pieces = keep(raw, mapped(raw))
    assert bytes(in_pieces) == bytes(whole) != raw
    assert [record.offset for record in records(in_pieces)] == [2, 3, 4]


@pytest.mark.parametrize("framed", [False, True])
def test_large_blocks_of_snappy_are_not_copied_in_one_piece(framed: bool) -> None:
    data = bytes(range(256)) * 5_000
    packed = compress(2, data) if framed else bytes(cramjam.snappy.compress_raw(data))
    unpacked = decompress(2, packed)
    assert type(unpacked) is memoryview and bytes(unpacked) == data
    with pytest.raises(KafkaError):
        decompress(2, packed, len(data) - 1)
    with pytest.raises(KafkaError):
        decompress(2, packed[:-1])
