"""Indexes: Kafka's bytes, look-ups against a plain list, and files that Kafka left half filled."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from ottla.log.index import OffsetIndex, TimeIndex

BASE = 1000
offset_entries = st.lists(
    st.tuples(st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 2)), max_size=20
).map(
    lambda pairs: list(
        zip(sorted({a for a, _ in pairs}), sorted({b for _, b in pairs}), strict=False)
    )
)  # fmt: skip
time_entries = st.lists(st.tuples(st.integers(0, 2**50), st.integers(0, 2**31 - 1)), max_size=20).map(
    lambda pairs: list(zip(sorted({a for a, _ in pairs}), sorted(b for _, b in pairs), strict=False))
)


def offset_index(entries: list[tuple[int, int]]) -> OffsetIndex:
    index = OffsetIndex(BASE)
    for offset, position in entries:
        index.append(BASE + offset, position)
    return index


@given(offset_entries, st.integers(0, 3))
def test_offset_entries_are_kafkas_bytes(entries: list[tuple[int, int]], preallocated: int) -> None:
    data = b"".join(struct.pack(">ii", *entry) for entry in entries)
    assert offset_index(entries).encode() == data
    decoded = OffsetIndex.decode(BASE, data + bytes(8 * preallocated), 2**31)
    assert decoded is not None
    assert decoded.encode() == data or entries == [(0, 0)]


@given(offset_entries, st.integers(BASE - 10, BASE + 2**31 + 10))
def test_looking_up_an_offset(entries: list[tuple[int, int]], target: int) -> None:
    before = [position for offset, position in entries if BASE + offset <= target]
    assert offset_index(entries).lookup(target) == (before[-1] if before else 0)


@given(offset_entries, st.integers(BASE, BASE + 2**31 - 1))
def test_truncating_an_offset_index(entries: list[tuple[int, int]], target: int) -> None:
    index = offset_index(entries)
    index.truncate_to(target)
    left = [entry for entry in entries if BASE + entry[0] < target]
    assert index.encode() == offset_index(left).encode()


def test_offset_files_that_cannot_be_right() -> None:
    def decode(*entries: tuple[int, int], size: int = 10_000) -> OffsetIndex | None:
        return OffsetIndex.decode(BASE, b"".join(struct.pack(">ii", *entry) for entry in entries), size)

    assert decode((5, 100), (9, 200)) is not None
    assert decode((5, 100), (5, 200)) is None
    assert decode((5, 100), (9, 100)) is None
    assert decode((-5, 100)) is None
    assert decode((5, -1)) is None
    assert decode((5, 100), size=100) is None
    assert decode((5, 100), (0, 0), (9, 200)) is None
    half = OffsetIndex.decode(BASE, struct.pack(">ii", 5, 100) + b"\1\2\3", 10_000)
    assert half is not None and len(half) == 1


@given(time_entries, st.sampled_from([0, 2, 3]))
def test_time_entries_are_kafkas_bytes(entries: list[tuple[int, int]], preallocated: int) -> None:
    index = TimeIndex(BASE)
    for timestamp, offset in entries:
        index.maybe_append(timestamp, BASE + offset)
    data = b"".join(struct.pack(">qi", *entry) for entry in entries)
    assert index.encode() == data
    assert index.last == ((entries[-1][0], BASE + entries[-1][1]) if entries else (-1, BASE))
    decoded = TimeIndex.decode(BASE, data + bytes(12 * preallocated))
    assert decoded is not None
    assert decoded.encode() == data or entries == [(0, 0)]


@given(time_entries, st.integers(-1, 2**50))
def test_looking_up_a_time(entries: list[tuple[int, int]], target: int) -> None:
    index = TimeIndex(BASE)
    for timestamp, offset in entries:
        index.maybe_append(timestamp, BASE + offset)
    before = [(timestamp, BASE + offset) for timestamp, offset in entries if timestamp <= target]
    assert index.lookup(target) == (before[-1] if before else (-1, BASE))


def test_times_that_do_not_grow_are_not_entered() -> None:
    index = TimeIndex(BASE)
    for timestamp, offset in ((-1, 1), (5, 2), (5, 3), (4, 4), (6, 5)):
        index.maybe_append(timestamp, BASE + offset)
    assert index.encode() == struct.pack(">qiqi", 5, 2, 6, 5)
    index.truncate_to(BASE + 5)
    assert index.encode() == struct.pack(">qi", 5, 2)


def test_time_files_that_cannot_be_right() -> None:
    def decode(*entries: tuple[int, int]) -> TimeIndex | None:
        return TimeIndex.decode(BASE, b"".join(struct.pack(">qi", *entry) for entry in entries))

    assert decode((5, 1), (6, 1)) is not None
    assert decode((5, 1), (5, 2)) is None
    assert decode((5, 2), (6, 1)) is None
    assert decode((5, -1)) is None
