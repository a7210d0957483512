"""Frames cut out of a stream: whole, byte by byte, in random pieces, and with sizes that lie."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from measuring import cpu_at_most
from ottla.types import Buffer
from ottla.wire.apis import BY_NAME, frame_bytes_max
from ottla.wire.framing import (
    CLAIM_FACTOR,
    FRAME_START_BYTES,
    FRAME_TRUSTED_BYTES_MAX,
    SCRATCH_BYTES,
    FrameDecoder,
    FrameError,
)

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
    assert feed(cutter, struct.pack(">ih", 100 * 1024 * 1024, 0) + b"x", iter(())) == []
    assert cutter.waiting
    assert len(cutter.buffer()) <= FRAME_START_BYTES


def test_a_frame_may_be_as_large_as_its_api_lets_it_be() -> None:
    key = BY_NAME["Metadata"].key
    limit = frame_bytes_max(key)
    cutter = decoder(size_max=2**31 - 1)
    assert feed(cutter, struct.pack(">ih", limit, key), iter(())) == []
    assert cutter.large is not None
    with pytest.raises(FrameError):
        feed(decoder(size_max=2**31 - 1), struct.pack(">ih", limit + 1, key), iter(()))


def test_what_is_set_aside_follows_what_has_come() -> None:
    """At most twice as much, however large the frame is said to be, and never more than it.

    Of address space it is CLAIM_FACTOR times as much.
    """
    cutter = decoder(size_max=100 * 1024 * 1024)
    size = 21 * 1024 * 1024
    assert feed(cutter, struct.pack(">ih", size, 0), iter(())) == []
    came, largest = 2, 0
    while came < size:
        room = cutter.buffer()
        assert cutter.got_bytes == came
        assert came <= cutter.held_bytes <= min(size, max(2 * came, FRAME_START_BYTES))
        assert cutter.held_bytes <= came + len(room) <= min(size, max(CLAIM_FACTOR * came, FRAME_START_BYTES))
        largest = max(largest, cutter.held_bytes)
        count = min(len(room), SCRATCH_BYTES)
        frames = list(cutter.received(count))
        came += count
    assert largest == size and [len(frame) for frame in frames] == [size]
    assert cutter.held_bytes == cutter.got_bytes == 0


def test_no_step_of_a_large_frame_takes_long() -> None:
    """Memory for 100 MB is neither filled with zeros nor copied at once, nor given back page by page."""
    size = 100 * 1024 * 1024
    for attempt in cpu_at_most(0.02):
        cutter = decoder(size_max=size)
        piece = bytes(2**20)
        assert feed(cutter, struct.pack(">ih", size, 0), iter(())) == []
        came = 2
        frames: list[Buffer] = []
        while not frames:
            with attempt.cpu():
                room = cutter.buffer()
                count = min(len(room), len(piece))
                room[:count] = piece[:count]
                frames = list(cutter.received(count))
            came += count
        assert came == len(frames[0]) == size
        del room
        with attempt.cpu():
            frames.clear()


def test_a_frame_that_there_is_no_memory_for_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(size_bytes: int) -> memoryview:
        raise MemoryError

    monkeypatch.setattr("ottla.wire.framing.untouched", nothing)
    cutter = decoder(size_max=100 * 1024 * 1024)
    size = 2 * FRAME_TRUSTED_BYTES_MAX
    # As much as goes without it.
    smaller = bytes(FRAME_TRUSTED_BYTES_MAX)
    assert feed(cutter, frame(smaller), iter(())) == [smaller]
    with pytest.raises(FrameError, match=f"no memory for a request of {size} bytes"):
        feed(cutter, struct.pack(">ih", size, 0) + bytes(size - 2), iter(()))
    assert not cutter.waiting and cutter.held_bytes == 0


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (b"\x16\x03\x01\x02\x00\x01", r"; it seems to speak TLS, which this listener does not\)$"),
        (b"GET / HTTP/1.1", r"; it seems to speak HTTP\)$"),
        (b"POST /v1", r"; it seems to speak HTTP\)$"),
        (b"GOT ", r"before a login\)$"),
    ],
)
def test_who_speaks_another_protocol_is_told_which(sent: bytes, told: str) -> None:
    with pytest.raises(FrameError, match=told):
        feed(decoder(size_max=100 * 1024 * 1024), sent, iter(()))


@pytest.mark.parametrize("size", [FRAME_TRUSTED_BYTES_MAX // 2, 2 * FRAME_TRUSTED_BYTES_MAX])
def test_who_has_sent_large_frames_is_believed_up_to_a_limit(size: int) -> None:
    cutter = decoder(size_max=100 * 1024 * 1024)
    for sent in (size, SCRATCH_BYTES + 1):
        (frame,) = feed(cutter, struct.pack(">ih", sent, 0) + bytes(sent - 2), iter(()))
        assert len(frame) == sent
    # The largest counts, not the last.
    assert feed(cutter, struct.pack(">ih", 50 * 1024 * 1024, 0), iter(())) == []
    assert cutter.held_bytes == min(size, FRAME_TRUSTED_BYTES_MAX)
    # No more than what is said to come.
    cutter = decoder(size_max=100 * 1024 * 1024)
    list(feed(cutter, struct.pack(">ih", size, 0) + bytes(size - 2), iter(())))
    assert feed(cutter, struct.pack(">ih", SCRATCH_BYTES + 1, 0), iter(())) == []
    assert cutter.held_bytes == SCRATCH_BYTES + 1


def test_large_frames_are_given_without_a_copy_once_one_has_come() -> None:
    cutter = decoder()
    size = SCRATCH_BYTES * 2
    head = struct.pack(">i", size)
    (first,) = feed(cutter, head + b"\0\0" + b"y" * (size - 2), iter(()))
    assert first == b"\0\0" + b"y" * (size - 2)
    cutter.buffer()[:6] = head + b"\0\0"
    assert list(cutter.received(6)) == []
    room = cutter.buffer()
    assert len(room) == size - 2
    room[:] = b"z" * (size - 2)
    (whole,) = cutter.received(size - 2)
    assert isinstance(whole, memoryview)
    assert whole.obj is room.obj
