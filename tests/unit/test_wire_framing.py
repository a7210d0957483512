"""Frames cut out of a stream: whole, byte by byte, in random pieces, and with sizes that lie."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ottla.wire.framing import FRAME_START_BYTES, SCRATCH_BYTES, FrameDecoder, FrameError

SIZE_MAX = 8 * 1024 * 1024


def frame(payload: bytes) -> bytes:
    return struct.pack(">i", len(payload)) + payload


def feed(decoder: FrameDecoder, data: bytes, pieces: Iterator[int]) -> list[bytes]:
    """Receive ``data`` in pieces as a socket would; the frames that came out."""
    frames = []
    while data:
        room = decoder.buffer()
        count = min(len(room), len(data), next(pieces, len(data)))
        room[:count] = data[:count]
        data = data[count:]
        frames += [bytes(f) for f in decoder.received(count)]
    return frames


def decoder(size_max: int = SIZE_MAX) -> FrameDecoder:
    return FrameDecoder(memoryview(bytearray(SCRATCH_BYTES)), size_max)


@given(
    st.lists(st.one_of(st.binary(max_size=50), st.integers(0, 3 * SCRATCH_BYTES).map(bytes)), max_size=6),
    st.lists(st.integers(1, SCRATCH_BYTES), max_size=30),
)
@settings(deadline=None)
def test_any_pieces_give_the_same_frames(payloads: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(map(frame, payloads))
    cutter = decoder()
    assert feed(cutter, stream, iter(cuts)) == payloads
    assert not cutter.waiting


def test_byte_by_byte() -> None:
    payloads = [b"", b"a", b"hello" * 10]
    cutter = decoder()
    assert feed(cutter, b"".join(map(frame, payloads)), iter([1] * 1000)) == payloads


def test_two_decoders_may_share_one_scratch_buffer() -> None:
    scratch = memoryview(bytearray(SCRATCH_BYTES))
    one, two = FrameDecoder(scratch, SIZE_MAX), FrameDecoder(scratch, SIZE_MAX)
    first, second = frame(b"x" * 100), frame(b"y" * 100)
    assert feed(one, first[:50], iter(())) == []
    assert feed(two, second[:70], iter(())) == []
    assert feed(one, first[50:], iter(())) == [b"x" * 100]
    assert feed(two, second[70:], iter(())) == [b"y" * 100]


@pytest.mark.parametrize("size", [-1, -(2**31), SIZE_MAX + 1, 2**31 - 1])
def test_a_size_that_no_request_has_is_refused_after_the_frames_before_it(size: int) -> None:
    cutter = decoder()
    data = frame(b"good") + struct.pack(">i", size)
    cutter.buffer()[: len(data)] = data
    frames = cutter.received(len(data))
    assert bytes(next(frames)) == b"good"
    with pytest.raises(FrameError, match=r"socket\.request\.max\.bytes"):
        next(frames)


def test_a_claimed_size_costs_no_memory_until_bytes_come() -> None:
    cutter = decoder(size_max=100 * 1024 * 1024)
    assert feed(cutter, struct.pack(">i", 100 * 1024 * 1024) + b"x", iter(())) == []
    assert cutter.waiting
    assert len(cutter.buffer()) <= FRAME_START_BYTES


def test_large_frames_are_given_without_a_copy_once_one_has_come() -> None:
    cutter = decoder()
    size = SCRATCH_BYTES * 2
    head = struct.pack(">i", size)
    (first,) = feed(cutter, head + b"y" * size, iter(()))
    assert first == b"y" * size
    cutter.buffer()[:4] = head
    assert list(cutter.received(4)) == []
    room = cutter.buffer()
    assert len(room) == size
    room[:] = b"z" * size
    (whole,) = cutter.received(size)
    assert isinstance(whole, memoryview)
    assert whole.obj is room.obj
