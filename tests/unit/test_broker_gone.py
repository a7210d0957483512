"""A client that is gone: what it wanted no answer to is still handled, and what it holds is counted."""

from __future__ import annotations

from typing import Any

import pytest
from coordinators_support import ManualClock

from ottla.broker.memory import Memory
from ottla.broker.pending import Pending
from ottla.broker.pipeline import Pipeline
from ottla.broker.request import Client, CloseConnection
from ottla.broker.turn import Turn
from ottla.env.slices import Slices
from ottla.types import Buffer
from ottla.wire.apis import APIS, METADATA, PRODUCE, SERVED
from ottla.wire.messages import MalformedMessage, frame_request, wants_no_answer


def produce(number: int, acks: int = 0, version: int = 9, transactional_id: str | None = None) -> bytes:
    fields = {"acks": acks, "timeout_ms": number, "topic_data": ()}
    if version >= 3:
        fields["transactional_id"] = transactional_id
    return frame_request(PRODUCE, version, number, "client", fields)[4:]


METADATA_REQUEST = frame_request(
    METADATA,
    9,
    1,
    "client",
    {
        "topics": None,
        "allow_auto_topic_creation": False,
        "include_cluster_authorized_operations": False,
        "include_topic_authorized_operations": False,
    },
)[4:]


@pytest.mark.parametrize("version", sorted(version for key, version in SERVED if key == PRODUCE))
@pytest.mark.parametrize("transactional_id", [None, "", "t", "t" * 200])
def test_which_requests_want_no_answer(version: int, transactional_id: str | None) -> None:
    for acks in (-1, 0, 1):
        frame = produce(1, acks, version, transactional_id)
        assert wants_no_answer(frame) is wants_no_answer(memoryview(frame)) is (acks == 0)
    header = len(produce(1, 0, version)) // 2
    assert not wants_no_answer(produce(1, 0, version, "t" * 200)[: header + 100])


def test_others_want_one_and_what_is_no_request_nothing() -> None:
    assert not wants_no_answer(METADATA_REQUEST)
    with pytest.raises(MalformedMessage):
        wants_no_answer(b"\0\0")


class Nowhere:
    """A client that must be sent nothing once it is gone."""

    def write(self, pieces: Any) -> None:
        raise AssertionError("it is gone")

    def receive(self, go_on: bool) -> None:
        return

    def close(self) -> None:
        return


class Gone:
    """A pipeline with one request that blocks, as ``cancellable`` as that is, and what is handled."""

    def __init__(self, *, cancellable: bool = False) -> None:
        self.handled: list[bytes] = []
        self.cancelled: list[int] = []
        self.memory = Memory()
        self.blocking = Pending(True, (lambda: self.cancelled.append(1)) if cancellable else None)
        self.answers: list[Any] = [self.blocking]
        turn = Turn(ManualClock(), Slices())
        self.pipeline = Pipeline(Client("h", "PLAINTEXT"), self.handle, Nowhere(), self.memory, turn)

    def handle(self, client: Client, frame: Buffer) -> Any:
        self.handled.append(bytes(frame))
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        return answer


FIRST, WANTED, DROPPED, LAST = produce(1), produce(2), produce(3, acks=1), produce(4)


@pytest.mark.parametrize("cancellable", [False, True])
def test_what_wants_no_answer_is_handled_in_its_order_and_nothing_else(cancellable: bool) -> None:
    it = Gone(cancellable=cancellable)
    it.pipeline.received([FIRST, DROPPED, WANTED, METADATA_REQUEST, LAST])
    assert it.handled == [FIRST]
    it.pipeline.gone()
    if not cancellable:
        # It runs to its end: what follows it comes behind it.
        assert it.handled == [FIRST]
        assert it.memory.request_bytes == len(FIRST) + len(WANTED) + len(LAST)
        it.blocking.resolve(None)
    assert it.cancelled == [1] * cancellable
    assert it.handled == [FIRST, WANTED, LAST] and not it.memory.request_bytes
    it.pipeline.received([produce(5)])
    assert it.handled == [FIRST, WANTED, LAST]


@pytest.mark.parametrize("fails", [CloseConnection("it cannot be appended"), MalformedMessage("nonsense")])
def test_one_that_fails_takes_those_behind_it_along(fails: Exception) -> None:
    it = Gone()
    it.answers.append(fails)
    it.pipeline.received([FIRST, WANTED, LAST])
    it.pipeline.gone()
    it.blocking.resolve(None)
    assert it.handled == [FIRST, WANTED] and not it.memory.request_bytes


def test_what_is_handled_late_and_blocks_is_waited_for_as_well() -> None:
    it = Gone()
    second = Pending(True)
    it.answers.append(second)
    it.pipeline.received([FIRST, WANTED, LAST])
    it.pipeline.gone()
    it.blocking.fail(CloseConnection("an answer that nobody waits for"))
    assert it.handled == [FIRST]
    it = Gone()
    it.answers.append(second)
    it.pipeline.received([FIRST, WANTED, LAST])
    it.pipeline.gone()
    it.blocking.resolve(None)
    assert it.handled == [FIRST, WANTED] and it.memory.request_bytes == len(WANTED) + len(LAST)
    second.resolve(None)
    assert it.handled == [FIRST, WANTED, LAST] and not it.memory.request_bytes


def test_one_that_is_to_end_at_once_handles_nothing_more() -> None:
    it = Gone()
    it.pipeline.received([FIRST, WANTED])
    it.pipeline.lost()
    it.blocking.resolve(None)
    assert it.handled == [FIRST] and not it.memory.request_bytes


def test_one_that_is_gone_does_not_stand_before_those_that_wait_for_room() -> None:
    """Where the memory is full one client goes on: one that is there."""
    it = Gone()
    large = produce(1) + bytes(100_000)
    it.memory.request_bytes_max = 100
    told: list[str] = []

    class Waiter:
        def memory_is_free(self) -> None:
            told.append("free")

    it.pipeline.received([large])
    assert not it.memory.may_hold(Waiter(), 100_000)
    it.pipeline.gone()
    assert told == ["free"] and it.memory.request_bytes == len(large)
    it.blocking.resolve(None)
    assert not it.memory.request_bytes


def test_all_apis_have_a_header_that_is_read() -> None:
    for key, version in SERVED:
        if APIS[key].name != "Produce":
            assert not wants_no_answer(key.to_bytes(2) + version.to_bytes(2) + bytes(40))
