"""The fetch loop of a follower, against a leader whose every answer is the test's."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from coordinators_support import ManualClock
from log_support import NOW_MS
from memory_disk import MemoryDisk
from replication_support import Asked, FakeLeader, Surroundings, answer_of, make_partition

from measuring import HANG_S
from ottla.config import BrokerConfig
from ottla.env.clock import SystemClock
from ottla.errors import ErrorCode
from ottla.log.settings import LogConfig
from ottla.metadata.image import PartitionState
from ottla.replication import followed
from ottla.replication.follower import Fetcher
from ottla.replication.partition import Partition
from ottla.replication.peer import Peer
from ottla.types import Record
from ottla.wire.apis import LIST_OFFSETS
from ottla.wire.records import build_batch

EPOCH = 5


def batches(*counts: int, epoch: int = EPOCH, start: int = 0) -> bytes:
    """Records as a leader of ``epoch`` sends them, from offset ``start`` on."""
    state = PartitionState(2, epoch, 1, (2,), (2,))
    leader = make_partition(MemoryDisk(), state, node_id=2)
    if start:
        leader.log.truncate_fully_to(start, NOW_MS)
    for count in counts:
        leader.append(build_batch([Record(i, NOW_MS, None, b"v") for i in range(count)]), now_ms=NOW_MS)
    piece = leader.read_uncommitted(start, 1 << 20, min_one=True)
    return b"" if piece is None else piece.file.read(piece.position, piece.size)


class Bench:
    """Node 1, which follows node 2."""

    def __init__(self, settings: dict[str, str], clock: ManualClock | None = None) -> None:
        # What the test moves, where it gave one; the fetcher lives by the system's otherwise.
        self.clock = clock or ManualClock()
        self.leader = FakeLeader()
        self.registered = True
        self.epoch = 77
        self.received_bytes: dict[str, int] = {}
        self.held: dict[str, int] = {}
        self.disks: dict[str, MemoryDisk] = {}
        config = BrokerConfig({"replica.fetch.backoff.ms": "40", **settings})
        network: Any = self.leader
        self.fetcher = Fetcher(1, 2, self, network, clock or SystemClock(), config)

    # What a fetcher asks of its node.

    def claim(self, leader_id: int) -> int:
        assert leader_id == 2
        return self.epoch

    def endpoint(self, node_id: int) -> tuple[str, int] | None:
        assert node_id == 2
        return ("leader", 9092) if self.registered else None

    def received(self, partition: Partition, size: int) -> None:
        name = partition.topic_partition.topic
        self.received_bytes[name] = self.received_bytes.get(name, 0) + size

    def held_ms(self, partition: Partition) -> int:
        return self.held.get(partition.topic_partition.topic, 0)

    # For tests.

    def partition(self, name: str = "t", *, follow: bool = True) -> Partition:
        self.disks[name] = MemoryDisk()
        state = PartitionState(2, EPOCH, 1, (1, 2), (1, 2))
        made = make_partition(self.disks[name], state, around=Surroundings(), name=name)
        if follow:
            self.fetcher.follow(made)
        return made

    async def begin(self, *names: str) -> tuple[Asked, list[Partition]]:
        """Follow, and answer nothing yet."""
        made = [self.partition(name) for name in names or ("t",)]
        return await self.leader.asked(), made

    async def established(self, *names: str) -> tuple[Asked, list[Partition]]:
        """In a session that knows all partitions."""
        asked, made = await self.begin(*names)
        self.leader.answer(asked, *(answer_of(name) for name in names or ("t",)))
        return await self.leader.asked(), made


def run(
    body: Callable[[Bench], Coroutine[Any, Any, None]], clock: ManualClock | None = None, **settings: str
) -> None:
    async def main() -> None:
        bench = Bench({name.replace("_", "."): value for name, value in settings.items()}, clock)
        try:
            await asyncio.wait_for(body(bench), HANG_S)
        finally:
            bench.fetcher.close()
            await asyncio.sleep(0)

    asyncio.run(main())


# Sessions -------------------------------------------------------------------------------------------------


def test_a_request_names_no_more_than_a_leader_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit is in the next one, which does not wait for news of the first."""
    monkeypatch.setattr(followed, "ASKED_MAX", 2)
    monkeypatch.setattr(followed, "FORGOTTEN_MAX", 1)

    async def body(bench: Bench) -> None:
        asked, made = await bench.begin("t", "u", "v")
        assert (asked.session, list(asked.partitions), asked.request.max_wait_ms) == ((0, 0), ["t", "u"], 40)
        bench.leader.answer(asked, answer_of("t"), answer_of("u"))
        asked = await bench.leader.asked()
        assert (asked.session, list(asked.partitions), asked.request.max_wait_ms) == ((7, 1), ["v"], 500)
        for partition in made[:2]:
            bench.fetcher.forget(partition)
        bench.leader.answer(asked)
        asked = await bench.leader.asked()
        assert (asked.forgotten, asked.request.max_wait_ms) == (["t"], 40)
        bench.leader.answer(asked)
        asked = await bench.leader.asked()
        assert (asked.forgotten, asked.request.max_wait_ms) == (["u"], 500)

    run(body)


def test_without_a_session_all_have_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(followed, "ASKED_MAX", 2)

    async def body(bench: Bench) -> None:
        asked, _ = await bench.begin("t", "u", "v")
        rounds = []
        for _ in range(3):
            rounds.append(list(asked.partitions))
            bench.leader.answer(asked, *map(answer_of, asked.partitions), session=0)
            asked = await bench.leader.asked()
        assert rounds == [["t", "u"], ["v", "t"], ["u", "v"]]

    run(body)


def test_a_session_is_told_what_changes_and_nothing_else() -> None:
    async def body(bench: Bench) -> None:
        asked, (t, u) = await bench.begin("t", "u")
        assert asked.session == (0, 0)
        assert asked.partitions == {
            name: {"offset": 0, "epoch": EPOCH, "last_epoch": -1, "start": 0} for name in "tu"
        }
        state = asked.request.replica_state
        assert (state.replica_id, state.replica_epoch) == (1, 77)
        bench.leader.answer(asked, answer_of("t", batches(3), 2), answer_of("u"))
        asked = await bench.leader.asked()
        assert asked.session == (7, 1)
        assert asked.partitions == {"t": {"offset": 3, "epoch": EPOCH, "last_epoch": EPOCH, "start": 0}}
        assert (t.log.log_end_offset, t.high_watermark, u.log.log_end_offset) == (3, 2, 0)
        # A high watermark is news, and changes nothing of what we want.
        bench.leader.answer(asked, answer_of("t", b"", 3))
        asked = await bench.leader.asked()
        assert (asked.session, asked.partitions, t.high_watermark) == ((7, 2), {}, 3)
        bench.epoch = 78
        bench.leader.answer(asked)
        asked = await bench.leader.asked()
        assert asked.request.replica_state.replica_epoch == 78
        assert bench.received_bytes == {"t": len(batches(3))}

    run(body)


@pytest.mark.parametrize(
    "error",
    [ErrorCode.fetch_session_id_not_found, ErrorCode.invalid_fetch_session_epoch, 9_999],
)
def test_a_session_that_is_lost_begins_anew(error: int) -> None:
    async def body(bench: Bench) -> None:
        asked, _ = await bench.established("t", "u")
        assert asked.partitions == {}
        bench.leader.answer(asked, error=int(error), session=0)
        asked = await bench.leader.asked()
        assert asked.session == (0, 0) and list(asked.partitions) == ["t", "u"]

    run(body)


def test_a_leader_without_room_for_sessions_is_asked_for_everything_each_time() -> None:
    async def body(bench: Bench) -> None:
        asked, _ = await bench.begin("t", "u")
        for _ in range(3):
            bench.leader.answer(asked, session=0)
            asked = await bench.leader.asked()
            assert asked.session == (0, 0) and list(asked.partitions) == ["t", "u"]

    run(body)


def test_what_a_leader_without_room_for_sessions_sends_is_taken() -> None:
    async def body(bench: Bench) -> None:
        asked, (t, _) = await bench.begin("t", "u")
        bench.leader.answer(asked, answer_of("t", batches(3), 3), answer_of("u"), session=0)
        asked = await bench.leader.asked()
        assert (t.log.log_end_offset, t.high_watermark) == (3, 3)
        # Whoever got something is last, so that it does not take all the room of the next response, too.
        assert [(name, want["offset"]) for name, want in asked.partitions.items()] == [("u", 0), ("t", 3)]
        bench.leader.answer(
            asked,
            answer_of("u", error_code=ErrorCode.offset_out_of_range),
            answer_of("t", batches(2, start=3), 4),
            session=0,
        )
        assert (await bench.leader.asked()).header.api_key == LIST_OFFSETS
        assert (t.log.log_end_offset, t.high_watermark) == (5, 4)

    run(body)


def test_a_session_that_the_leader_gives_later_is_gone_on_with() -> None:
    async def body(bench: Bench) -> None:
        asked, (t, _) = await bench.begin("t", "u")
        bench.leader.answer(asked, answer_of("t", batches(1), 1), answer_of("u"), session=0)
        asked = await bench.leader.asked()
        bench.leader.answer(asked, answer_of("t", batches(1, start=1), 2), answer_of("u"), session=7)
        asked = await bench.leader.asked()
        assert (asked.session, list(asked.partitions), t.log.log_end_offset) == ((7, 1), ["t"], 2)

    run(body)


def test_the_leader_hears_where_our_log_begins() -> None:
    async def body(bench: Bench) -> None:
        asked, (t,) = await bench.begin()
        bench.leader.answer(asked, answer_of("t", batches(3, 3), 6))
        asked = await bench.leader.asked()
        bench.leader.answer(asked, answer_of("t", b"", 6, log_start_offset=4))
        asked = await bench.leader.asked()
        assert t.log.log_start_offset == 4
        assert asked.partitions["t"]["start"] == 4 and asked.partitions["t"]["offset"] == 6
        bench.leader.answer(asked)
        assert (await bench.leader.asked()).partitions == {}

    run(body)


# What changes while a request is under way ----------------------------------------------------------------


def test_what_was_fetched_in_an_earlier_leader_epoch_is_dropped() -> None:
    async def body(bench: Bench) -> None:
        asked, (t,) = await bench.established()
        t.apply(PartitionState(2, EPOCH + 1, 2, (1, 2), (1, 2)))
        bench.fetcher.follow(t)
        bench.leader.answer(asked, answer_of("t", batches(3), 3))
        asked = await bench.leader.asked()
        assert t.log.log_end_offset == t.high_watermark == 0
        assert asked.partitions["t"] == {"offset": 0, "epoch": EPOCH + 1, "last_epoch": -1, "start": 0}

    run(body)


@pytest.mark.parametrize("leads", [True, False])
def test_what_comes_for_a_partition_that_is_not_followed_any_more_is_dropped(leads: bool) -> None:
    async def body(bench: Bench) -> None:
        asked, (t, _) = await bench.established("t", "u")
        bench.fetcher.forget(t)
        if leads:
            t.apply(PartitionState(1, EPOCH + 1, 2, (1, 2), (1, 2)))
        bench.leader.answer(asked, answer_of("t", batches(3), 3))
        asked = await bench.leader.asked()
        assert t.log.log_end_offset == 0 and asked.forgotten == ["t"] and asked.partitions == {}
        bench.leader.answer(asked)
        assert (await bench.leader.asked()).forgotten == []

    run(body)


def test_one_that_is_followed_again_is_not_forgotten() -> None:
    async def body(bench: Bench) -> None:
        asked, (t, _) = await bench.established("t", "u")
        bench.fetcher.forget(t)
        bench.fetcher.follow(t)
        bench.leader.answer(asked)
        asked = await bench.leader.asked()
        assert list(asked.partitions) == ["t"] and asked.forgotten == []

    run(body)


def test_partitions_that_come_in_one_turn_go_into_one_request() -> None:
    async def body(bench: Bench) -> None:
        asked, _ = await bench.begin("a", "b", "c")
        assert list(asked.partitions) == ["a", "b", "c"]
        bench.partition("d")
        await bench.leader.silence(20)
        bench.leader.answer(asked)
        assert list((await bench.leader.asked()).partitions) == ["d"]

    run(body)


# Errors of a partition ------------------------------------------------------------------------------------


def test_one_that_fails_rests_ever_longer_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    async def body(bench: Bench) -> None:
        asked, (t, _) = await bench.established("t", "u")

        async def fails(asked: Asked, rest_ms: int) -> Asked:
            """It is asked for again after so long, and not before."""
            bench.leader.answer(asked, answer_of("t", error_code=ErrorCode.unknown_leader_epoch))
            asked = await bench.leader.asked()
            assert asked.forgotten == ["t"] and asked.partitions == {}
            assert asked.request.max_wait_ms == 40, "it must not hold up what may be fetched again"
            await bench.clock.advance(rest_ms - 1)
            bench.leader.answer(asked)
            asked = await bench.leader.asked()
            assert asked.partitions == {}
            await bench.clock.advance(1)
            bench.leader.answer(asked)
            asked = await bench.leader.asked()
            assert list(asked.partitions) == ["t"] and asked.forgotten == []
            return asked

        for rest_ms in (20, 40, 40):
            asked = await fails(asked, rest_ms)
        bench.leader.answer(asked, answer_of("t", batches(1), 1))
        asked = await bench.leader.asked()
        assert t.log.log_end_offset == 1
        await fails(asked, 20)

    with caplog.at_level(logging.WARNING):
        run(body, clock=ManualClock())
    assert not caplog.messages, "it passes by itself"


def test_where_all_have_to_rest_nothing_is_asked() -> None:
    async def body(bench: Bench) -> None:
        asked, _ = await bench.established("t", "u")
        refused = [answer_of(name, error_code=ErrorCode.not_leader_or_follower) for name in "tu"]
        bench.leader.answer(asked, *refused)
        await bench.clock.advance(19)
        assert bench.leader.requests.empty()
        await bench.clock.advance(1)
        assert sorted((await bench.leader.asked()).partitions) == ["t", "u"]

    run(body, clock=ManualClock())


@pytest.mark.parametrize(
    ("records", "said"),
    [
        (batches(2)[:-1] + b"\xff", "checksum"),
        (batches(1, epoch=EPOCH - 2, start=3)[:8] + b"\xff\xff\xff\xff" + batches(1)[12:], "format v2"),
    ],
)
def test_damaged_records_are_not_taken(records: bytes, said: str, caplog: pytest.LogCaptureFixture) -> None:
    async def body(bench: Bench) -> None:
        asked, (t,) = await bench.established()
        bench.leader.answer(asked, answer_of("t", records, 2))
        asked = await bench.leader.asked()
        assert t.log.log_end_offset == t.high_watermark == 0
        bench.leader.answer(asked, answer_of("t", batches(2), 2))
        await bench.leader.asked()
        assert t.log.log_end_offset == t.high_watermark == 2

    run(body)
    assert any(said in message for message in caplog.messages)


def test_a_disk_that_fails_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    async def body(bench: Bench) -> None:
        asked, (t, _) = await bench.established("t", "u")
        bench.disks["t"].fail_with["append"] = OSError(28, "No space left on device")
        bench.leader.answer(asked, answer_of("t", batches(2), 2))
        asked = await bench.leader.asked()
        assert asked.forgotten == ["t"]
        bench.disks["t"].fail_with.clear()
        while not asked.partitions:
            bench.leader.answer(asked)
            asked = await bench.leader.asked()
        bench.leader.answer(asked, answer_of("t", batches(2), 2))
        await bench.leader.asked()
        assert t.log.log_end_offset == 2

    run(body)
    assert any("t-0: cannot follow the leader" in message for message in caplog.messages)


class Flushing:
    """Lets a partition's flushes be done one by one. It is asked for two messages at a time."""

    def __init__(self, bench: Bench, of: Partition) -> None:
        self.disk = bench.disks[of.topic_partition.topic]
        self.disk.run = self.run  # type: ignore[method-assign]
        self.allowed = asyncio.Semaphore(0)
        of.log.update_config(LogConfig(flush_messages=2))

    async def run(self, work: Callable[[], Any]) -> Any:
        await self.allowed.acquire()
        return work()


def test_the_leader_hears_of_what_is_on_the_disk_where_the_topic_asks_for_that() -> None:
    async def body(bench: Bench) -> None:
        asked, (t, _) = await bench.begin("t", "u")
        flushing = Flushing(bench, t)
        bench.leader.answer(asked, answer_of("t", batches(1), 1), answer_of("u", batches(3), 3))
        asked = await bench.leader.asked()
        assert asked.partitions["t"]["offset"] == 1 and t.log.recovery_point == 0
        bench.leader.answer(asked, answer_of("t", batches(1, start=1), 2))
        await bench.leader.silence()
        # Neither does a new connection tell of it before it is so.
        bench.leader.link.drop()
        await bench.leader.silence()
        flushing.allowed.release()
        asked = await bench.leader.asked()
        assert asked.partitions["t"]["offset"] == 2 and t.log.recovery_point == 2

    run(body)


def test_a_flush_that_fails_is_tried_again_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    async def body(bench: Bench) -> None:
        asked, (t, u) = await bench.begin("t", "u")
        flushing = Flushing(bench, t)
        bench.leader.answer(asked, answer_of("t", batches(2), 2), answer_of("u", batches(1), 1))
        flushing.disk.fail_with["sync_dir"] = OSError(5, "Input/output error")
        flushing.allowed.release()
        asked = await bench.leader.asked()
        assert list(asked.partitions) == ["u"] and asked.forgotten == ["t"]
        assert "t-0: cannot follow the leader" in caplog.text and t.log.recovery_point == 0
        flushing.disk.fail_with.clear()
        bench.leader.answer(asked, answer_of("u", batches(1, start=1), 2))
        flushing.allowed.release()
        while "t" not in asked.partitions:
            asked = await bench.leader.asked()
            bench.leader.answer(asked)
        assert asked.partitions["t"]["offset"] == 2 and t.log.recovery_point == 2
        assert u.log.log_end_offset == 2

    run(body)


def test_a_partition_that_is_given_up_while_it_is_flushed() -> None:
    async def body(bench: Bench) -> None:
        asked, (t, _) = await bench.begin("t", "u")
        flushing = Flushing(bench, t)
        bench.leader.answer(asked, answer_of("t", batches(2), 2), answer_of("u"))
        await bench.leader.silence(20)
        bench.fetcher.forget(t)
        flushing.disk.fail_with["sync_dir"] = OSError(5, "Input/output error")
        flushing.allowed.release()
        asked = await bench.leader.asked()
        assert asked.partitions == {} and asked.forgotten == ["t"]
        bench.leader.answer(asked)
        await bench.leader.asked()

    run(body)


def test_an_error_of_a_later_version_is_waited_out() -> None:
    async def body(bench: Bench) -> None:
        asked, _ = await bench.established()
        bench.leader.answer(asked, answer_of("t", error_code=9_999))
        assert list((await bench.leader.asked()).partitions) == ["t"]
        assert len(bench.leader.links) == 1

    run(body)


# Logs that part -------------------------------------------------------------------------------------------


def test_what_the_leader_does_not_have_is_cut_off() -> None:
    async def body(bench: Bench) -> None:
        asked, (t,) = await bench.begin()
        bench.leader.answer(asked, answer_of("t", batches(2, 2, 2), 3))
        asked = await bench.leader.asked()
        t.apply(PartitionState(2, EPOCH + 1, 2, (1, 2), (2,)))
        bench.fetcher.follow(t)
        bench.leader.answer(asked)
        asked = await bench.leader.asked()
        diverging = {"epoch": EPOCH, "end_offset": 4}
        # Nothing else in such an answer counts: it is not about the log that we have.
        data = batches(9, epoch=EPOCH + 1, start=6)
        bench.leader.answer(asked, answer_of("t", data, 15, diverging_epoch=diverging))
        asked = await bench.leader.asked()
        assert asked.partitions["t"] == {
            "offset": 4, "epoch": EPOCH + 1, "last_epoch": EPOCH, "start": 0,
        }  # fmt: skip
        assert (t.log.log_end_offset, t.high_watermark) == (4, 3)

    run(body)


async def out_of_range(bench: Bench, start: int, end: int) -> tuple[Asked, Partition]:
    """A follower that ends at 4 is told that it is out of range, and of its leader's log."""
    asked, (t,) = await bench.begin()
    bench.leader.answer(asked, answer_of("t", batches(2, 2), 4))
    asked = await bench.leader.asked()
    bench.leader.answer(asked, answer_of("t", error_code=ErrorCode.offset_out_of_range))
    for timestamp, offset in ((-2, start), (-1, end)):
        asked = await bench.leader.asked()
        assert asked.header.api_key == LIST_OFFSETS and asked.request.replica_id == 1
        (one,) = asked.request.topics[0].partitions
        assert (one.timestamp, one.current_leader_epoch) == (timestamp, EPOCH)
        answer_offset(bench, asked, offset)
    return await bench.leader.asked(), t


def answer_offset(bench: Bench, asked: Asked, offset: int, error: ErrorCode = ErrorCode.none) -> None:
    found = {"partition_index": 0, "error_code": error, "timestamp": -1, "offset": offset, "leader_epoch": 1}
    bench.leader.reply(asked, {"topics": [{"name": "t", "partitions": [found]}], "throttle_time_ms": 0})


@pytest.mark.parametrize(
    ("start", "end", "expected"), [(0, 2, (0, 2)), (9, 12, (9, 9)), (0, 0, (0, 0)), (4, 4, (0, 4))]
)
def test_out_of_range_at_either_end(start: int, end: int, expected: tuple[int, int]) -> None:
    async def body(bench: Bench) -> None:
        asked, t = await out_of_range(bench, start, end)
        assert (t.log.log_start_offset, t.log.log_end_offset) == expected
        assert asked.partitions["t"]["offset"] == expected[1]

    run(body)


@pytest.mark.parametrize("change", ["forgotten", "another epoch"])
def test_a_partition_that_is_moved_while_offsets_are_asked_for(change: str) -> None:
    async def body(bench: Bench) -> None:
        asked, (t, _) = await bench.established("t", "u")
        bench.leader.answer(asked, answer_of("t", error_code=ErrorCode.offset_out_of_range))
        asked = await bench.leader.asked()
        assert asked.header.api_key == LIST_OFFSETS
        if change == "forgotten":
            bench.fetcher.forget(t)
        else:
            t.apply(PartitionState(2, EPOCH + 1, 2, (1, 2), (1, 2)))
            bench.fetcher.follow(t)
        answer_offset(bench, asked, -1, ErrorCode.not_leader_or_follower)
        asked = await bench.leader.asked()
        if change == "forgotten":
            assert asked.forgotten == ["t"]
        else:
            assert asked.partitions["t"]["epoch"] == EPOCH + 1
        # And it goes on beyond the longest rest.
        for _ in range(3):
            bench.leader.answer(asked)
            asked = await bench.leader.asked()
            await asyncio.sleep(0.03)

    run(body)


# Connections ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("behaviour", ["refuse", "hang up"])
def test_a_leader_that_cannot_be_reached_is_tried_on(
    behaviour: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(bench: Bench) -> None:
        bench.leader.behaviour = behaviour
        bench.partition()
        while bench.leader.attempts < 4:
            await asyncio.sleep(0.005)
        bench.leader.behaviour = "accept"
        assert list((await bench.leader.asked()).partitions) == ["t"]

    with caplog.at_level(logging.INFO):
        run(body)
    assert len([m for m in caplog.messages if "cannot be reached" in m]) == 1
    assert len([m for m in caplog.messages if "can be reached again" in m]) == 1


def test_a_leader_that_is_not_registered_is_waited_for() -> None:
    async def body(bench: Bench) -> None:
        bench.registered = False
        bench.partition()
        await bench.leader.silence()
        assert bench.leader.attempts == 0
        bench.registered = True
        await bench.leader.asked()

    run(body)


@pytest.mark.parametrize("turns", range(4))
def test_one_that_hangs_is_left_when_it_is_known_to_be_elsewhere(turns: int) -> None:
    """Also where it does not hang after all: there is one connection in the end."""

    async def body(bench: Bench) -> None:
        bench.leader.behaviour = "hang" if turns else "accept"
        bench.partition()
        while not bench.leader.attempts:
            await asyncio.sleep(0)
        for _ in range(turns):
            await asyncio.sleep(0)
        bench.leader.behaviour = "accept"
        bench.fetcher.reconnect()
        await bench.leader.asked()
        await bench.leader.silence(20)
        assert bench.leader.attempts == 2
        assert [link.open for link in bench.leader.links].count(True) == 1 and bench.leader.link.open

    run(body)


@pytest.mark.parametrize("how", ["drop", "reconnect"])
def test_a_connection_that_ends_is_made_again_with_a_new_session(how: str) -> None:
    async def body(bench: Bench) -> None:
        asked, (t, _) = await bench.established("t", "u")
        bench.leader.answer(asked, answer_of("t", batches(2), 2))
        await bench.leader.asked()
        if how == "drop":
            bench.leader.link.drop()
        else:
            bench.fetcher.reconnect()
        asked = await bench.leader.asked()
        assert len(bench.leader.links) == 2
        assert asked.session == (0, 0) and list(asked.partitions) == ["t", "u"]
        assert asked.partitions["t"]["offset"] == 2
        assert t.log.log_end_offset == 2

    run(body)


def test_one_that_does_not_answer_is_left() -> None:
    async def body(bench: Bench) -> None:
        await bench.established()
        asked = await bench.leader.asked()
        assert len(bench.leader.links) == 2 and asked.session == (0, 0)

    run(body, replica_socket_timeout_ms="60", replica_fetch_wait_max_ms="50")


def test_resting_partitions_are_taken_up_by_the_next_connection() -> None:
    async def body(bench: Bench) -> None:
        asked, _ = await bench.established("t", "u")
        bench.leader.answer(asked, answer_of("t", error_code=ErrorCode.unknown_leader_epoch))
        await bench.leader.asked()
        bench.leader.link.drop()
        seen: set[str] = set()
        while seen != {"t", "u"}:
            asked = await bench.leader.asked()
            seen |= set(asked.partitions)
            bench.leader.answer(asked)

    run(body)


def test_nothing_is_left_after_the_end() -> None:
    async def body(bench: Bench) -> None:
        asked, _ = await bench.established()
        bench.fetcher.close()
        bench.leader.answer(asked, answer_of("t", batches(1), 1))
        bench.fetcher.reconnect()
        await bench.leader.silence()
        assert len(bench.leader.links) == 1 and not bench.leader.link.open
        await asyncio.sleep(0)
        assert [task for task in asyncio.all_tasks() if "_connect" in repr(task)] == []

    run(body)


# Throttling -----------------------------------------------------------------------------------------------


def test_only_what_is_behind_is_held_back() -> None:
    async def body(bench: Bench) -> None:
        bench.held = {"t": 50, "u": 50}
        t, u = bench.partition("t"), bench.partition("u")
        await bench.leader.silence(30)
        bench.held = {}
        asked = await bench.leader.asked()
        assert sorted(asked.partitions) == ["t", "u"]
        # t has all that is committed by this, u has not.
        bench.held = {"t": 50, "u": 50}
        bench.leader.answer(asked, answer_of("t", batches(2), 2), answer_of("u", batches(2), 9))
        asked = await bench.leader.asked()
        assert list(asked.partitions) == ["t"] and asked.forgotten == ["u"]
        assert (t.log.log_end_offset, u.log.log_end_offset) == (2, 2)

    run(body)


def test_what_is_held_back_in_a_later_epoch_is_forgotten_until_then() -> None:
    """The leader would refuse it in the epoch that its session knows, at once and for each request."""

    async def body(bench: Bench) -> None:
        asked, (t, _) = await bench.begin("t", "u")
        assert sorted(asked.partitions) == ["t", "u"]
        bench.held = {"t": 60_000}
        t.apply(PartitionState(2, EPOCH + 1, 2, (1, 2), (1, 2)))
        bench.fetcher.follow(t)
        bench.leader.answer(asked, answer_of("u", batches(1), 1))
        asked = await bench.leader.asked()
        assert list(asked.partitions) == ["u"] and asked.forgotten == ["t"]

    run(body)


def test_a_rest_ends_when_the_rate_is_another_one() -> None:
    async def body(bench: Bench) -> None:
        bench.held = {"t": 60_000}
        bench.partition("t")
        await bench.leader.silence(30)
        bench.held = {}
        bench.fetcher.end_rests()
        assert list((await bench.leader.asked()).partitions) == ["t"]

    run(body)


def test_a_fetch_waits_no_longer_than_the_shortest_rest() -> None:
    async def body(bench: Bench) -> None:
        bench.held = {"u": 300}
        asked, _ = await bench.begin("t", "u")
        assert list(asked.partitions) == ["t"]
        assert 200 <= asked.request.max_wait_ms <= 300

    run(body)


# What nobody thought of ------------------------------------------------------------------------------------


def odd(*args: Any, **more: Any) -> Any:
    raise ValueError("nobody thought of this")


@pytest.mark.parametrize("where", ["append_as_follower", "truncate_to", "held_ms", "flushed", "received"])
def test_what_is_odd_about_one_partition_holds_up_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    async def body(bench: Bench) -> None:
        asked, (t, u) = await bench.established("t", "u")
        owner, name = (bench, where) if where in ("held_ms", "received") else (type(t), where)
        whole = getattr(owner, name)

        def once_odd(*args: Any, **more: Any) -> Any:
            it = args[0]
            return odd() if it is t and trouble else whole(*args, **more)

        trouble = [True]
        if where == "flushed":
            t.log.update_config(LogConfig(flush_messages=1))
        monkeypatch.setattr(owner, name, once_odd)
        parts = {"diverging_epoch": {"epoch": 3, "end_offset": 0}} if where == "truncate_to" else {}
        for offset in (1, 2, 3):
            sent = b"" if parts else batches(1, start=t.log.log_end_offset)
            others = batches(1, start=u.log.log_end_offset)
            bench.leader.answer(asked, answer_of("t", sent, 9, **parts), answer_of("u", others, offset))
            asked = await bench.leader.asked()
            while "u" not in asked.partitions and u.log.log_end_offset < offset:
                bench.leader.answer(asked)
                asked = await bench.leader.asked()
            assert u.log.log_end_offset == offset
        assert t.log.log_end_offset <= (1 if where in ("held_ms", "flushed") else 0)
        assert "t-0: cannot follow the leader\n" in caplog.text and "u-0" not in caplog.text
        assert "nobody thought of this" in caplog.text
        trouble.clear()
        while "t" not in asked.partitions:
            bench.leader.answer(asked)
            asked = await asyncio.wait_for(bench.leader.asked(), HANG_S)

    run(body)


@pytest.mark.parametrize("behaviour", ["refuse", "hang up"])
def test_a_connection_that_has_ended_leaves_no_circle(behaviour: str) -> None:
    """A node that is away is tried each second, and each connection has 64 KiB to receive into."""

    def peers() -> list[Peer]:
        return [one for one in gc.get_objects() if type(one) is Peer]

    async def body(bench: Bench) -> None:
        gc.collect()
        others = peers()
        await bench.begin()
        gc.collect()
        bench.leader.behaviour = behaviour
        bench.leader.link.abort()
        while bench.leader.attempts < 4:
            await asyncio.sleep(0.005)
        bench.leader.behaviour = "accept"
        await bench.leader.asked()
        # The test's own.
        bench.leader.links.clear()
        assert [one for one in peers() if one not in others] == [bench.fetcher._peer]

    gc.disable()
    try:
        run(body)
    finally:
        gc.enable()


def test_a_fetcher_that_is_closed_leaves_no_circle() -> None:
    async def body(bench: Bench) -> None:
        await bench.established()
        gc.freeze()
        watched = weakref.ref(bench.fetcher)
        bench.fetcher.close()
        bench.leader.links.clear()
        await asyncio.sleep(0)
        spare, bench.fetcher = bench.fetcher, Bench({}).fetcher
        del spare
        assert watched() is None

    gc.disable()
    try:
        run(body)
    finally:
        gc.unfreeze()
        gc.enable()


def test_a_name_that_cannot_be_resolved_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    async def body(bench: Bench) -> None:
        whole, tries = bench.leader.connect, [0]

        async def connect(*args: Any) -> None:
            tries[0] += 1
            if tries[0] < 4:
                # As a label of more than 63 characters, which is no OSError.
                raise UnicodeError("encoding with 'idna' codec failed")
            await whole(*args)

        bench.leader.connect = connect  # type: ignore[method-assign]
        asked, _ = await bench.begin("t")
        assert tries[0] == 4 and list(asked.partitions) == ["t"]
        assert caplog.text.count("node 2 cannot be reached") == 1

    run(body)


def test_an_answer_that_makes_no_sense_is_asked_for_anew(caplog: pytest.LogCaptureFixture) -> None:
    async def body(bench: Bench) -> None:
        asked, _ = await bench.established("t")
        # The answer to the question for an offset has no partitions.
        bench.leader.answer(asked, answer_of("t", error_code=ErrorCode.offset_out_of_range))
        asked = await bench.leader.asked()
        assert asked.header.api_key == LIST_OFFSETS
        bench.leader.reply(asked, {"topics": [], "throttle_time_ms": 0})
        asked = await bench.leader.asked()
        assert asked.forgotten == ["t"] or "t" in asked.partitions
        assert "t-0: cannot follow the leader" in caplog.text

    run(body)


def test_an_answer_that_is_odd_as_a_whole_is_asked_for_anew(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(bench: Bench) -> None:
        asked, _ = await bench.established("t", "u")
        with monkeypatch.context() as patch:
            patch.setattr(followed.Followed, "answered", odd)
            bench.leader.answer(asked)
        assert bench.leader.requests.empty() and "cannot be processed" in caplog.text
        await bench.clock.advance(20)
        asked = await bench.leader.asked()
        assert asked.session == (0, 0) and sorted(asked.partitions) == ["t", "u"]

    run(body, clock=ManualClock())
