"""What is read from the bytes between programs and nodes: requests, records, offsets; and nonsense."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottla.explore.recording import frames, wiretap
from ottla.explore.recording.frames import Frames
from ottla.explore.recording.recording import TEXT_MAX, Call, Recording
from ottla.explore.recording.wiretap import WireTap
from ottla.types import Record
from ottla.wire.apis import APIS, BY_NAME
from ottla.wire.compression import Codec
from ottla.wire.messages import RequestHeader, frame_request, frame_response
from ottla.wire.records import build_batch

ORDERS = UUID(int=7)
NOT_LEADER, ABORTED_EPOCH = 6, 47


@dataclass(frozen=True)
class Machine:
    name: str


@dataclass(frozen=True)
class Process:
    machine: Machine
    is_program: bool


@dataclass(eq=False)
class End:
    process: Process
    peer: Any = field(default=None, repr=False)


class Talk:
    """A connection of the program ``shop`` to the node ``n1``, with a tap on it."""

    def __init__(self, recording: Recording | None = None) -> None:
        self.recording = recording or Recording()
        self.now_s = 0.0
        names = {ORDERS: "orders"}
        self.tap = WireTap(self.recording, lambda: self.now_s, lambda topic_id: names.get(topic_id, "?"))
        self.near, self.far = End(Process(Machine("shop"), True)), End(Process(Machine("n1"), False))
        self.near.peer, self.far.peer = self.far, self.near
        self._asked: dict[int, tuple[int, int]] = {}

    def ask(self, api: str, version: int, correlation_id: int = 1, **fields: Any) -> Call:
        """The call that a request becomes."""
        key = BY_NAME[api].key
        self._asked[correlation_id] = key, version
        self.now_s += 1
        self.tap.written(self.near, frame_request(key, version, correlation_id, "client", fields))
        return self.recording.calls[-1]

    def answer(self, correlation_id: int = 1, *, is_heard: bool = True, **fields: Any) -> None:
        key, version = self._asked[correlation_id]
        data = b"".join(frame_response(RequestHeader(key, version, correlation_id, "client", 0), fields))
        self.now_s += 1
        self.tap.written(self.far, data)
        if is_heard:
            self.now_s += 1
            self.tap.taken(self.near, len(data))


def records(*values: bytes, key: bytes | None = None, **options: Any) -> bytes:
    return build_batch([Record(0, 0, key, value, ()) for value in values], **options)


def produce(
    talk: Talk, batch: bytes, *, acks: int = -1, transaction: str | None = None, version: int = 9
) -> Call:
    topic: dict[str, Any] = {"name": "orders"} if version < 13 else {"topic_id": ORDERS}
    topic["partition_data"] = [{"index": 2, "records": batch}]
    return talk.ask(
        "Produce", version, transactional_id=transaction, acks=acks, timeout_ms=1000, topic_data=[topic]
    )


def stored(talk: Talk, offset: int, error: int = 0, *, is_heard: bool = True, version: int = 9) -> None:
    topic: dict[str, Any] = {"name": "orders"} if version < 13 else {"topic_id": ORDERS}
    topic["partition_responses"] = [
        {
            "index": 2,
            "error_code": error,
            "base_offset": offset,
            "log_append_time_ms": -1,
            "log_start_offset": 0,
        }
        | {"record_errors": [], "error_message": None}
    ]
    talk.answer(responses=[topic], is_heard=is_heard)


# ------------------------------------------------------------ records


@pytest.mark.parametrize("version", [3, 9, 13])
@pytest.mark.parametrize("codec", [Codec.NONE, Codec.GZIP, Codec.ZSTD])
def test_the_records_of_a_produce_and_where_they_lie(codec: Codec, version: int) -> None:
    talk = Talk()
    call = produce(talk, records(b"a", b"b", key=b"k", compression=codec), version=version)
    assert (call.program, call.node, call.api, call.about) == (
        "shop",
        "n1",
        "Produce",
        "orders-2 (2 records)",
    )
    assert [(one.key, one.value, one.offset) for one in talk.recording.written] == [
        (b"k", b"a", None),
        (b"k", b"b", None),
    ]
    assert (call.answered_s, call.lost_s, call.result) == (None, None, "")
    stored(talk, 7, version=version)
    assert [(one.topic, one.partition, one.offset, one.result) for one in talk.recording.written] == [
        ("orders", 2, 7, "ok"),
        ("orders", 2, 8, "ok"),
    ]
    assert {(one.sent_s, one.acknowledged_s) for one in talk.recording.written} == {(1, 3)}
    assert (call.sent_s, call.answered_s, call.result) == (1, 3, "ok")


def test_what_lies_there_without_its_program_having_heard_of_it() -> None:
    talk = Talk()
    call = produce(talk, records(b"a"))
    stored(talk, 7, is_heard=False)
    (written,) = talk.recording.written
    assert (written.offset, written.acknowledged_s, call.answered_s) == (7, None, None)
    talk.tap.closed(talk.near)
    assert (call.lost_s, call.result) == (2, "ok")
    # What is read after that, if anything is, concerns nobody.
    talk.tap.taken(talk.near, 1000)
    assert call.answered_s is None


def test_an_answer_is_heard_once_all_of_it_has_come() -> None:
    talk = Talk()
    call = produce(talk, records(b"a"))
    stored(talk, 7, is_heard=False)
    talk.tap.taken(talk.near, 10)
    assert call.answered_s is None
    talk.now_s = 9
    talk.tap.taken(talk.near, 1000)
    assert call.answered_s == talk.recording.written[0].acknowledged_s == 9


def test_what_a_node_answers_a_program_that_is_gone_counts() -> None:
    talk = Talk()
    call = produce(talk, records(b"a"))
    talk.tap.closed(talk.near)
    assert call.lost_s == 1
    stored(talk, 7)
    (written,) = talk.recording.written
    assert (written.offset, written.acknowledged_s, call.answered_s, call.result) == (7, None, None, "ok")
    talk.tap.closed(talk.far)
    talk.tap.closed(talk.far)


def test_an_error_is_no_offset() -> None:
    talk = Talk()
    call = produce(talk, records(b"a"))
    stored(talk, -1, NOT_LEADER)
    (written,) = talk.recording.written
    assert (written.offset, written.acknowledged_s) == (None, None)
    assert written.result == call.result == "NOT_LEADER_OR_FOLLOWER"


def test_nobody_waits_for_an_answer_that_is_not_wanted() -> None:
    talk = Talk()
    call = produce(talk, records(b"a"), acks=0)
    talk.tap.closed(talk.near)
    assert (call.result, call.lost_s) == ("acks=0", None)


def test_records_are_kept_in_part_and_so_many_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wiretap, "ENTRIES_MAX", 3)
    talk = Talk()
    for _ in range(2):
        produce(talk, records(b"x" * 5000, b"y", key=b"k" * 5000))
        stored(talk, 0)
    assert [len(one.value or b"") for one in talk.recording.written] == [TEXT_MAX, 1, TEXT_MAX]
    assert {len(one.key or b"") for one in talk.recording.written} == {TEXT_MAX}


def test_a_batch_that_is_broken_is_a_remark() -> None:
    talk = Talk()
    batch = bytearray(records(b"a"))
    batch[-1] = 77
    call = produce(talk, bytes(batch))
    stored(talk, -1, 2)
    assert call.result == "CORRUPT_MESSAGE" and not talk.recording.written
    (remark,) = talk.recording.remarks
    assert remark.lane == "shop" and "n1" in remark.text and "cannot be read" in remark.text


# ------------------------------------------------------------ fetched


def fetch(talk: Talk, offset: int, *, correlation_id: int = 1, **answer: Any) -> None:
    topics = [
        {
            "topic": "orders",
            "partitions": [{"partition": 0, "fetch_offset": offset, "partition_max_bytes": 9}],
        }
    ]
    asked = {"replica_id": -1, "max_wait_ms": 1, "min_bytes": 1, "max_bytes": 9, "isolation_level": 1}
    call = talk.ask("Fetch", 4, correlation_id, **asked, topics=topics)
    assert call.about == f"orders-0 from {offset}"
    partition = {"partition_index": 0, "error_code": 0, "high_watermark": 99, "last_stable_offset": 99}
    partition |= {"aborted_transactions": None} | answer
    talk.answer(correlation_id, responses=[{"topic": "orders", "partitions": [partition]}])


def test_what_has_arrived_begins_where_it_was_asked_for() -> None:
    talk = Talk()
    fetch(talk, 12, records=records(b"a", b"b", b"c", base_offset=10) + records(b"d", base_offset=13))
    fetch(talk, 14, records=b"")
    fetch(talk, 14, records=records(b"e", base_offset=14)[:-1])
    (read,) = talk.recording.read
    assert (read.program, read.topic, read.partition) == ("shop", "orders", 0)
    assert (read.first_offset, read.last_offset, read.at_s) == (12, 13, 3)


def test_aborted_records_and_markers_arrive_at_no_program() -> None:
    talk = Talk()
    of = {"producer_id": 5, "producer_epoch": 0, "base_sequence": 0, "transactional": True}
    marker = build_batch(
        [Record(0, 0, struct.pack(">hh", 0, 0), b"\0" * 6, ())], base_offset=11, control=True, **of
    )
    batches = [records(b"aborted", base_offset=10, **of), marker]
    fetch(talk, 10, records=b"".join(batches), aborted_transactions=[{"producer_id": 5, "first_offset": 10}])
    assert not talk.recording.read
    batches.append(records(b"next", base_offset=12, **of))
    fetch(talk, 10, records=b"".join(batches), aborted_transactions=[{"producer_id": 5, "first_offset": 10}])
    assert [(read.first_offset, read.last_offset) for read in talk.recording.read] == [(12, 12)]


# ------------------------------------------------------------ groups and transactions


def commit(talk: Talk, *offsets: int) -> Call:
    partitions = [
        {
            "partition_index": n,
            "committed_offset": offset,
            "committed_leader_epoch": -1,
            "committed_metadata": "",
        }
        for n, offset in enumerate(offsets)
    ]
    member = {
        "group_id": "shipping",
        "generation_id_or_member_epoch": 4,
        "member_id": "m",
        "group_instance_id": None,
    }
    return talk.ask("OffsetCommit", 8, **member, topics=[{"name": "orders", "partitions": partitions}])


def test_offsets_that_are_committed_and_that_are_not() -> None:
    talk = Talk()
    call = commit(talk, 3, 5)
    assert call.about == "group shipping, orders-0 to 3, orders-1 to 5"
    assert [one.result for one in talk.recording.committed] == ["", ""]
    codes = [{"partition_index": n, "error_code": code} for n, code in enumerate((0, 22))]
    talk.answer(topics=[{"name": "orders", "partitions": codes}])
    assert [
        (one.group, one.topic, one.partition, one.offset, one.result) for one in talk.recording.committed
    ] == [
        ("shipping", "orders", 0, 3, "ok"),
        ("shipping", "orders", 1, 5, "ILLEGAL_GENERATION"),
    ]
    assert {one.at_s for one in talk.recording.committed} == {1}
    assert call.result == "ILLEGAL_GENERATION"


def end(talk: Talk, *, is_committed: bool, error: int | None = 0) -> None:
    talk.ask("EndTxn", 3, transactional_id="t", producer_id=5, producer_epoch=0, committed=is_committed)
    if error is not None:
        talk.answer(error_code=error)


def begin(talk: Talk) -> None:
    talk.ask(
        "InitProducerId", 3, transactional_id="t", transaction_timeout_ms=1, producer_id=-1, producer_epoch=-1
    )
    talk.answer(error_code=0, producer_id=5, producer_epoch=1)


def in_transaction(talk: Talk) -> None:
    batch = records(b"a", producer_id=5, producer_epoch=0, base_sequence=0, transactional=True)
    produce(talk, batch, transaction="t")
    stored(talk, 7)
    partition = {
        "partition_index": 0,
        "committed_offset": 3,
        "committed_leader_epoch": -1,
        "committed_metadata": "",
    }
    member = {
        "producer_id": 5,
        "producer_epoch": 0,
        "generation_id": 1,
        "member_id": "m",
        "group_instance_id": None,
    }
    topics = [{"name": "orders", "partitions": [partition]}]
    talk.ask("TxnOffsetCommit", 3, transactional_id="t", group_id="shipping", **member, topics=topics)
    talk.answer(topics=[{"name": "orders", "partitions": [{"partition_index": 0, "error_code": 0}]}])


def outcomes(talk: Talk) -> set[tuple[str, str]]:
    return {(one.transaction, one.outcome) for one in (*talk.recording.written, *talk.recording.committed)}


@pytest.mark.parametrize(("outcome", "asked"), [("committed", "commit"), ("aborted", "abort")])
def test_how_a_transaction_ends(outcome: str, asked: str) -> None:
    talk = Talk()
    in_transaction(talk)
    assert outcomes(talk) == {("t", "")} and len(talk.recording.committed) == 1
    end(talk, is_committed=asked == "commit", error=ABORTED_EPOCH)
    assert outcomes(talk) == {("t", "")}
    end(talk, is_committed=asked == "commit")
    assert outcomes(talk) == {("t", outcome)}
    assert talk.recording.calls[-1].about == f"transaction t, {asked}"


def test_another_process_of_an_id_aborts_what_is_open() -> None:
    talk = Talk()
    in_transaction(talk)
    begin(talk)
    assert outcomes(talk) == {("t", "aborted")}
    assert talk.recording.calls[-1].about == "transaction t: producer 5, epoch 1"


def test_nobody_knows_how_a_transaction_has_ended_whose_commit_was_not_answered() -> None:
    talk = Talk()
    in_transaction(talk)
    end(talk, is_committed=True, error=None)
    begin(talk)
    assert outcomes(talk) == {("t", "")}


def test_what_a_group_gives_its_member() -> None:
    talk = Talk()
    member = {"group_id": "shipping", "session_timeout_ms": 9, "rebalance_timeout_ms": 9, "member_id": "m"}
    call = talk.ask("JoinGroup", 2, **member, protocol_type="consumer", protocols=[])
    talk.answer(error_code=0, generation_id=4, protocol_name="range", leader="m", member_id="m", members=[])
    assert call.about == "group shipping: generation 4, as its leader"
    call = talk.ask("SyncGroup", 2, group_id="shipping", generation_id=4, member_id="m", assignments=[])
    talk.answer(
        error_code=0, assignment=struct.pack(">hih6sii", 0, 1, 6, b"orders", 1, 2) + b"\xff\xff\xff\xff"
    )
    assert call.about == "group shipping, generation 4: orders-2"
    call = talk.ask("SyncGroup", 2, group_id="shipping", generation_id=4, member_id="m", assignments=[])
    talk.answer(error_code=27, assignment=b"")
    assert (call.about, call.result) == ("group shipping, generation 4", "REBALANCE_IN_PROGRESS")


def test_a_version_that_is_too_high_is_answered_in_the_first() -> None:
    talk = Talk()
    call = talk.ask("ApiVersions", 3, client_software_name="x", client_software_version="1")
    data = b"".join(frame_response(RequestHeader(18, 0, 1, "c", 0), {"error_code": 35, "api_keys": []}))
    talk.tap.written(talk.far, data)
    assert call.result == "UNSUPPORTED_VERSION" and not talk.recording.remarks


# ------------------------------------------------------------ frames and nonsense


@given(st.lists(st.binary(max_size=40), max_size=6), st.lists(st.integers(1, 30), min_size=1, max_size=9))
def test_frames_come_whole_however_they_are_cut(sent: list[bytes], cuts: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames, "FRAME_BYTES_MAX", 20)
        patch.setattr(frames, "HEAD_BYTES", 5)
        stream = b"".join(struct.pack(">i", len(data)) + data for data in sent)
        reader, found, position, turn = Frames(), [], 0, 0
        while position < len(stream):
            count = cuts[turn % len(cuts)]
            found += reader.feed(stream[position : position + count])
            position, turn = position + count, turn + 1
    assert [one.data for one in found] == [data if len(data) <= 20 else data[:5] for data in sent]
    assert [one.is_whole for one in found] == [len(data) <= 20 for data in sent]
    ends = [sum(4 + len(data) for data in sent[: n + 1]) for n in range(len(sent))]
    assert [one.end for one in found] == ends


def test_behind_a_size_below_zero_nothing_is_read() -> None:
    reader = Frames()
    data = b"\0\0\0\1x" + b"\xff\xff\xff\xff" + b"\0\0\0\1y"
    assert [one.data for one in reader.feed(data)] == [b"x"]
    assert reader.broken and not reader.feed(b"\0\0\0\1z")


def test_a_large_request_is_named_and_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "FRAME_BYTES_MAX", 100)
    monkeypatch.setattr(frames, "HEAD_BYTES", 50)
    talk = Talk()
    call = produce(talk, records(b"x" * 200))
    assert (call.api, call.about) == ("Produce", "too large to be read")
    stored(talk, 7)
    assert call.answered_s == 3 and not talk.recording.written and not talk.recording.remarks


KEYS = sorted(APIS)


@st.composite
def _nonsense(draw: st.DrawFn) -> bytes:
    """Bytes that may look like a request or an answer for a while."""
    body = draw(st.binary(max_size=80))
    if draw(st.booleans()):
        header = struct.pack(">hhih", draw(st.sampled_from(KEYS)), draw(st.integers(0, 18)), 1, 1) + b"c"
        body = header + draw(st.sampled_from([b"", b"\0"])) + body
    elif draw(st.booleans()):
        body = struct.pack(">i", 1) + body
    return struct.pack(">i", len(body) if draw(st.integers(0, 9)) else draw(st.integers(-9, 200))) + body


@given(st.lists(st.tuples(st.booleans(), _nonsense()), max_size=8))
def test_nonsense_on_the_wire_is_at_most_a_remark(said: list[tuple[bool, bytes]]) -> None:
    talk = Talk()
    for is_program, data in said:
        talk.tap.written(talk.near if is_program else talk.far, data)
        talk.tap.taken(talk.near, len(data))
    for each in (talk.near, talk.far):
        talk.tap.closed(each)
    assert len(talk.recording.remarks) <= 1
    assert all(len(call.about) <= TEXT_MAX and len(call.result) <= TEXT_MAX for call in talk.recording.calls)


@given(st.data())
def test_a_batch_that_was_changed_anywhere_is_at_most_a_remark(data: st.DataObject) -> None:
    codec = data.draw(st.sampled_from([Codec.NONE, Codec.GZIP, Codec.LZ4]))
    batch = bytearray(records(b"a" * 30, b"b", compression=codec))
    batch[data.draw(st.integers(0, len(batch) - 1))] = data.draw(st.integers(0, 255))
    talk = Talk()
    produce(talk, bytes(batch))
    stored(talk, 7)
    assert len(talk.recording.remarks) <= 1
    fetch(talk, 0, records=bytes(batch))


def test_programs_that_speak_to_each_other_are_left_alone() -> None:
    talk = Talk()
    talk.far.process = Process(Machine("bank"), True)
    for end in (talk.near, talk.far):
        talk.tap.written(end, b"hello")
        talk.tap.taken(end, 5)
        talk.tap.closed(end)
    assert talk.recording == Recording()
