"""The fetch loop of a follower, against a leader whose every answer is the test's."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from log_support import NOW_MS
from memory_disk import MemoryDisk
from replication_support import Asked, FakeLeader, Surroundings, answer_of, make_partition

from ottla.config import BrokerConfig
from ottla.env.clock import SystemClock
from ottla.errors import ErrorCode
from ottla.log.settings import LogConfig
from ottla.metadata.image import PartitionState
from ottla.replication.follower import Fetcher
from ottla.replication.partition import Partition
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

    def __init__(self, settings: dict[str, str]) -> None:
        self.leader = FakeLeader()
        self.registered = True
        self.epoch = 77
        self.received_bytes: dict[str, int] = {}
        self.held: dict[str, int] = {}
        self.disks: dict[str, MemoryDisk] = {}
        config = BrokerConfig({"replica.fetch.backoff.ms": "40", **settings})
        self.fetcher = Fetcher(1, 2, self, self.leader, SystemClock(), config)  # type: ignore[arg-type]

    # What a fetcher asks of its node.

    def broker_epoch(self) -> int:
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


def run(body: Callable[[Bench], Coroutine[Any, Any, None]], **settings: str) -> None:
    async def main() -> None:
        bench = Bench({name.replace("_", "."): value for name, value in settings.items()})
        try:
            await asyncio.wait_for(body(bench), 20)
        finally:
            bench.fetcher.close()
            await asyncio.sleep(0)

    asyncio.run(main())


# Sessions -------------------------------------------------------------------------------------------------


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
        loop = asyncio.get_running_loop()
        asked, (t, _) = await bench.established("t", "u")
        pauses = []
        for _ in range(4):
            bench.leader.answer(asked, answer_of("t", error_code=ErrorCode.unknown_leader_epoch))
            begun = loop.time()
            asked = await bench.leader.asked()
            assert asked.forgotten == ["t"] and asked.partitions == {}
            assert asked.request.max_wait_ms == 40, "it must not hold up what may be fetched again"
            while not asked.partitions:
                bench.leader.answer(asked)
                await asyncio.sleep(0.001)
                asked = await bench.leader.asked()
            pauses.append(loop.time() - begun)
            assert list(asked.partitions) == ["t"] and asked.forgotten == []
        assert 0.018 < pauses[0] < pauses[1] and min(pauses[1:]) > 0.038
        bench.leader.answer(asked, answer_of("t", batches(1), 1))
        await bench.leader.asked()
        assert t.log.log_end_offset == 1

    with caplog.at_level(logging.WARNING):
        run(body)
    assert not caplog.messages, "it passes by itself"


def test_where_all_have_to_rest_nothing_is_asked() -> None:
    async def body(bench: Bench) -> None:
        asked, _ = await bench.established("t", "u")
        for name in "tu":
            assert name in bench.disks
        refused = [answer_of(name, error_code=ErrorCode.not_leader_or_follower) for name in "tu"]
        bench.leader.answer(asked, *refused)
        await bench.leader.silence(10)
        asked = await bench.leader.asked()
        assert sorted(asked.partitions) == ["t", "u"]

    run(body)


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
    assert any("t-0: cannot be followed" in message for message in caplog.messages)


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
        assert "t-0: cannot be followed" in caplog.text and t.log.recovery_point == 0
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
    assert len([m for m in caplog.messages if "is reached again" in m]) == 1


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

    run(body, replica_socket_timeout_ms="60")


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
