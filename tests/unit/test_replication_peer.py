"""A connection to another node whose answers are anything but what they should be."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottla.replication.peer import Peer
from ottla.wire.apis import FETCH
from ottla.wire.messages import RequestHeader, frame_response

VERSION = 17
FIELDS = {
    "replica_state": {"replica_id": 1, "replica_epoch": 5},
    "max_wait_ms": 0,
    "min_bytes": 1,
    "max_bytes": 1,
    "isolation_level": 0,
    "session_id": 0,
    "session_epoch": 0,
    "topics": [],
    "forgotten_topics_data": [],
    "rack_id": "",
}


class Socket(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.aborted = False

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def abort(self) -> None:
        self.aborted = True


class Bench:
    def __init__(self) -> None:
        self.lost = 0
        self.answers: list[int] = []
        self.peer = Peer("test", self._lost)
        self.socket = Socket()
        self.peer.connection_made(self.socket)

    def _lost(self, peer: Peer) -> None:
        assert peer is self.peer
        self.lost += 1

    def ask(self, count: int = 1) -> None:
        for _ in range(count):
            self.peer.send(FETCH, VERSION, FIELDS, lambda response: self.answers.append(response.session_id))

    def receive(self, data: bytes, piece: int = 1 << 30) -> None:
        for start in range(0, len(data), piece):
            part = data[start : start + piece]
            while part and not self.socket.aborted:
                buffer = self.peer.get_buffer(-1)
                count = min(len(part), len(buffer))
                buffer[:count] = part[:count]
                part = part[count:]
                self.peer.buffer_updated(count)


def response(correlation_id: int, session_id: int, records: bytes = b"") -> bytes:
    partition = {
        "partition_index": 0,
        "error_code": 0,
        "high_watermark": 0,
        "last_stable_offset": 0,
        "log_start_offset": 0,
        "aborted_transactions": None,
        "records": records,
    }
    topics = [{"topic_id": UUID(int=1), "partitions": [partition]}] if records else []
    fields = {"error_code": 0, "session_id": session_id, "responses": topics, "throttle_time_ms": 0}
    pieces = frame_response(RequestHeader(FETCH, VERSION, correlation_id, "", 0), fields)
    return b"".join(bytes(piece) for piece in pieces)


@given(st.integers(1, 200), st.sampled_from([0, 10, 70_000]))
def test_answers_come_in_order_however_they_are_cut(piece: int, size: int) -> None:
    bench = Bench()
    bench.ask(3)
    stream = b"".join(response(number, 10 * number, b"x" * size) for number in (1, 2, 3))
    bench.receive(stream, piece * (1 + size // 100))
    assert bench.answers == [10, 20, 30] and not bench.socket.aborted


def test_what_nobody_asked_for_ends_it() -> None:
    bench = Bench()
    bench.receive(response(1, 1))
    assert bench.socket.aborted and bench.answers == []


@pytest.mark.parametrize("correlation_id", [0, 2, -1, 2**31 - 1])
def test_an_answer_to_something_else_ends_it(correlation_id: int) -> None:
    bench = Bench()
    bench.ask(2)
    bench.receive(response(correlation_id, 1) + response(1, 1))
    assert bench.socket.aborted and bench.answers == []


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff\xff",
        b"\x80\x00\x00\x00",
        b"\x00\x00\x00\x00",
        b"\x00\x00\x00\x03abc",
        # A header and nothing behind it, and one with tagged fields that do not end.
        b"\x00\x00\x00\x05\x00\x00\x00\x01\x00",
        b"\x00\x00\x00\x05\x00\x00\x00\x01\xff",
        b"\x00\x00\x00\x0a\x00\x00\x00\x01\xff\xff\xff\xff\xff\xff",
    ],
)
def test_lying_sizes_end_it(data: bytes) -> None:
    bench = Bench()
    bench.ask()
    bench.receive(data, 1)
    assert bench.socket.aborted and bench.answers == []


def test_a_huge_size_costs_nothing_until_the_bytes_come() -> None:
    bench = Bench()
    bench.ask()
    bench.receive(b"\x7f\xff\xff\xff" + b"x" * 70_000)
    assert not bench.socket.aborted
    assert len(bench.peer.get_buffer(-1)) < 1 << 20


@given(st.data())
def test_bytes_that_are_changed_are_an_answer_or_the_end(data: st.DataObject) -> None:
    """Never anything that reaches the event loop."""
    bench = Bench()
    bench.ask()
    frame = bytearray(response(1, 1, b"some records"))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(frame) - 1))
        frame[at] = data.draw(st.integers(0, 255))
    bench.receive(bytes(frame))
    assert len(bench.answers) <= 1


def test_the_end_is_told_once_and_answers_no_more() -> None:
    bench = Bench()
    bench.ask()
    bench.peer.close()
    assert bench.socket.aborted and bench.lost == 0
    bench.peer.connection_lost(None)
    assert bench.lost == 1 and not bench.peer.connected
    bench.ask()
    assert len(bench.socket.written) == 1
    bench.peer.close()


def test_correlation_ids_do_not_end() -> None:
    bench = Bench()
    bench.peer._correlation_id = 2**31 - 2
    bench.ask(2)
    bench.receive(response(2**31 - 1, 1) + response(0, 2))
    assert bench.answers == [1, 2]
