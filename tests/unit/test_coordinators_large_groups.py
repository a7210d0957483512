"""Groups of thousands of members: no step of theirs holds the event loop for long."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from budget_support import Watch
from coordinators_support import Bench, ManualClock, MemoryLog, protocols, subscription

from measuring import HANG_S, Attempt, cpu_at_most
from ottla.coordinators.groups.classic_group import ClassicGroup
from ottla.coordinators.groups.coordinator import GroupCoordinator
from ottla.coordinators.groups.group_machine import GroupMachine
from ottla.coordinators.groups.member import NAMED_MAX, Member, Protocol, some_of
from ottla.coordinators.groups.rebalance import MEMBERS_MAX
from ottla.coordinators.groups.requests import JoinRequest, JoinResponse, SyncRequest, SyncResponse
from ottla.coordinators.groups.schemas import (
    GroupRecord,
    decode_record,
    decoding_record,
    encode_record,
    encoding_record,
)
from ottla.coordinators.groups.settings import GroupConfig
from ottla.coordinators.runtime.machine import SchemaError
from ottla.coordinators.runtime.pieces import PIECE
from ottla.coordinators.runtime.shard import Shard
from ottla.coordinators.runtime.step import Reply
from ottla.env.clock import Clock, SystemClock
from ottla.env.deadlines import Deadlines
from ottla.env.deferred import Deferred
from ottla.env.slices import Slices
from ottla.errors import ErrorCode
from ottla.pieces import whole

STEP_S_MAX = 0.020
# As in `test_broker_budgets`: a machine that runs other tests meanwhile is slower.
ROOM = 1.5
SESSION_MS, REBALANCE_MS = 45_000, 30_000
# What a consumer says of itself, with the partitions that it owned before.
SAID = tuple(Protocol(name, subscription("a", "b", "c", rest=bytes(150))) for name in ("range", "sticky"))
GIVEN = bytes(100)


class Crowd:
    """A group of many members of one coordinator, whose log is in memory."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self.log = MemoryLog()
        self.log.max_message_bytes = 16 * 1024 * 1024
        self.clock = ManualClock()
        self.groups = self.coordinator(self.clock)
        self.answers: dict[str, Any] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def coordinator(self, clock: Clock) -> GroupCoordinator:
        return GroupCoordinator(self.log, clock, GroupConfig(), new_id=lambda: "x")

    async def ask(self, asked: Iterable[tuple[str, Coroutine[Any, Any, Any]]]) -> None:
        """Begin requests of members, some in each turn."""
        for count, (member_id, work) in enumerate(asked):
            self.answers.pop(member_id, None)
            task = asyncio.ensure_future(self._answer(member_id, work))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            if count % 50 == 0:
                await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def _answer(self, member_id: str, work: Awaitable[Any]) -> None:
        self.answers[member_id] = await work

    async def watched(
        self, name: str, begin: Callable[[], object] | None, is_over: Callable[[], bool]
    ) -> None:
        """Note how long the longest step was from ``begin`` on, until it is over; with None, while time goes
        by."""
        self.answers.clear()
        gc.collect()
        gc.disable()
        try:
            with Watch() as watch:
                if begin is not None:
                    asyncio.get_running_loop().call_soon(begin)
                while not is_over():
                    if begin is None:
                        asyncio.get_running_loop().call_soon(self._next_timer)
                    for _ in range(200):
                        await asyncio.sleep(0)
        finally:
            gc.enable()
        self._attempt.took(watch.longest_s, name)

    def _next_timer(self) -> None:
        timer = min(self.clock.timers, key=lambda each: each.at_ms)
        self.clock.timers.remove(timer)
        self.clock.ms = int(timer.at_ms)
        timer.callback()

    def later(self, asked: tuple[str, Coroutine[Any, Any, Any]]) -> Callable[[], None]:
        def begin() -> None:
            self._tasks.add(asyncio.get_running_loop().create_task(self.ask([asked])))

        return begin

    def join(self, member_id: str, *, is_new: bool = False) -> tuple[str, Coroutine[Any, Any, JoinResponse]]:
        request = JoinRequest(
            "g", "" if is_new else member_id, member_id, None, "c", "/h", "consumer", SAID, SESSION_MS,
            REBALANCE_MS, requires_known_member_id=False, supports_skipping_assignment=True,
        )  # fmt: skip
        return member_id, self.groups.join(request)

    def sync(
        self, member_id: str, generation: int, given: dict[str, bytes]
    ) -> tuple[str, Coroutine[Any, Any, SyncResponse]]:
        request = SyncRequest("g", generation, member_id, None, None, None, given)
        return member_id, self.groups.sync(request)


async def story(crowd: Crowd, count: int) -> None:
    """A group comes together, is assigned to, fails over, is joined by one more, and loses half of it."""
    await crowd.groups.load(0, 0)
    ids = [f"member-{index:05}-9f2c1f0e-7a5c-4d2b-8a53-5a1f6e0d7c11" for index in range(count)]
    await crowd.ask(crowd.join(each, is_new=True) for each in ids)
    answers = crowd.answers
    await crowd.watched("join", None, lambda: len(answers) == count)
    assert {answer.error for answer in answers.values()} == {ErrorCode.none}
    assert [len(answers[each].members) for each in ids[:3]] == [count, 0, 0]
    assert answers[ids[0]].members[7] == (ids[7], None, SAID[0].metadata)
    assert {answer.leader for answer in answers.values()} == {ids[0]}

    given = dict.fromkeys(ids, GIVEN) | {ids[-1]: b"last"}
    await crowd.ask(crowd.sync(each, 1, {}) for each in ids[1:])
    leader = crowd.sync(ids[0], 1, given)
    await crowd.watched("sync", crowd.later(leader), lambda: len(answers) == count)
    assert answers[ids[0]] == (ErrorCode.none, "consumer", "range", GIVEN)
    assert answers[ids[-1]].assignment == b"last"

    # Loading pauses as time goes by.
    other = crowd.coordinator(SystemClock())
    loaded: list[object] = []

    def load() -> None:
        task = asyncio.get_running_loop().create_task(other.load(0, 1))
        task.add_done_callback(loaded.append)

    await crowd.watched("load", load, lambda: bool(loaded))
    assert [each.assignment for each in other.describe("g").members] == list(given.values())
    other.close()

    # One more comes: all join again, and those that have asked for their assignment are told to.
    await crowd.ask([crowd.join("newcomer", is_new=True)])
    await crowd.ask(crowd.join(each) for each in ids[:-1])
    last = crowd.join(ids[-1])
    await crowd.watched("rejoin", crowd.later(last), lambda: len(answers) == count + 1)
    await crowd.ask(crowd.sync(each, 2, {}) for each in ids[1 : count // 2])
    another = crowd.join("another", is_new=True)
    await crowd.watched("cancel", crowd.later(another), lambda: len(answers) == count // 2 - 1)
    assert {answer.error for answer in answers.values()} == {ErrorCode.rebalance_in_progress}

    # Half of them join in time, and none of these asks for its assignment.
    await crowd.ask(crowd.join(each) for each in ids[: count // 2])
    await crowd.watched("absent in the join", None, lambda: len(answers) == count // 2 + 1)
    group = crowd.groups.host.shards[0].machine.tables.groups["g"]
    assert (group.generation_id, len(group.members)) == (3, count // 2 + 1)
    await crowd.watched("absent in the sync", None, lambda: not group.members)
    crowd.groups.close()


@pytest.mark.parametrize("count", [PIECE + 1, MEMBERS_MAX - 2])
def test_no_step_of_a_large_group_takes_long(count: int) -> None:
    for attempt in cpu_at_most(STEP_S_MAX, room=ROOM):
        asyncio.run(story(Crowd(attempt), count))


def test_no_session_of_a_large_group_ends_in_a_long_step() -> None:
    async def sessions(crowd: Crowd) -> None:
        count = MEMBERS_MAX - 1
        await crowd.groups.load(0, 0)
        ids = [f"member-{index:05}" for index in range(count)]
        await crowd.ask(crowd.join(each, is_new=True) for each in ids)
        await crowd.watched("join", None, lambda: len(crowd.answers) == count)
        await crowd.ask(crowd.sync(each, 1, {}) for each in ids[1:])
        await crowd.watched(
            "sync", crowd.later(crowd.sync(ids[0], 1, {})), lambda: len(crowd.answers) == count
        )
        group = crowd.groups.host.shards[0].machine.tables.groups["g"]
        assert group.state.value == "Stable"
        await crowd.watched("sessions", None, lambda: not group.members)
        crowd.groups.close()

    for attempt in cpu_at_most(STEP_S_MAX, room=ROOM):
        asyncio.run(sessions(Crowd(attempt)))


def test_a_group_has_no_more_members_than_its_leader_can_assign_to() -> None:
    bench = Bench()
    first = bench.join(new_id="m-0")
    group = bench.group()
    for index in range(1, MEMBERS_MAX):
        group.add(bench_member(group, f"m-{index}"), "consumer")
    assert bench.error(bench.join(new_id="more")) == "group_max_size_reached"
    group.remove_all([f"m-{index}" for index in range(1, MEMBERS_MAX)])
    last = bench.join(new_id="more")
    bench.wait(10_000)
    assert {bench.error(first), bench.error(last)} == {"none"}


def bench_member(group: ClassicGroup, member_id: str) -> Member:
    """One that waits as the others do."""
    return replace(group.members["m-0"], member_id=member_id, join_waiter=f"waiter of {member_id}")


def test_many_that_are_removed_are_as_if_one_by_one() -> None:
    benches = []
    for _ in range(2):
        bench = Bench()
        bench.stable("a", "b", "c", "d", offered=protocols("range", "sticky"))
        benches.append(bench)
    one_by_one, together = (bench.group() for bench in benches)
    for each in ("b", "a", "a", "nobody"):
        one_by_one.remove(each)
    together.remove_all(("b", "a", "a", "nobody"))
    for group in (one_by_one, together):
        assert group.leader_id == "c"
        assert list(group.members) == ["c", "d"]
        assert group.supporters == {"range": 2, "sticky": 2}
        assert group.preferences == {("range", "sticky"): 2}
        assert group.kept_bytes == sum(member.kept_bytes for member in group.members.values())
        assert group.node_bytes.count == group.kept_bytes
    together.remove_all(("c", "d"))
    assert (together.leader_id, together.supporters, together.kept_bytes) == (None, {}, 0)


def test_topics_are_those_of_the_generation_whatever_members_say_later() -> None:
    bench = Bench()
    bench.stable("a", "b", offered=protocols("range", topics=("t",)))
    bench.join("b", offered=protocols("range", topics=("u",)))
    assert bench.group().subscribed_topics == {"t"}
    bench.join("a", offered=protocols("range", topics=("t",)))
    assert bench.group().subscribed_topics == {"t", "u"}


@pytest.mark.parametrize("count", [0, 1, PIECE - 1, PIECE, 2 * PIECE + 1])
def test_a_large_record_is_the_same_in_pieces(count: int) -> None:
    bench = Bench(auto_commit=False)
    waiter = bench.join(new_id="m-0")
    group = bench.group()
    for index in range(1, count):
        group.add(bench_member(group, f"m-{index}"), "consumer")
    bench.wait(10_000)
    assert bench.error(waiter) == "none"
    record = GroupRecord("g", group.to_metadata({"m-0": b"a"}))
    key, value = encode_record(record)
    assert whole(encoding_record(record)) == (key, value)
    assert whole(decoding_record(key, value)) == decode_record(key, value) == record
    assert sum(1 for _ in encoding_record(record)) == max(count, 1) // PIECE
    assert value is not None
    with pytest.raises(SchemaError):
        whole(decoding_record(key, value[:-1]))


def test_a_large_generation_that_cannot_be_stored_is_said_to_those_who_wait() -> None:
    async def refused(crowd: Crowd) -> None:
        count = PIECE + 1
        await crowd.groups.load(0, 0)
        crowd.log.max_message_bytes = 10_000
        ids = [f"member-{index:05}" for index in range(count)]
        await crowd.ask(crowd.join(each, is_new=True) for each in ids)
        await crowd.watched("join", None, lambda: len(crowd.answers) == count)
        await crowd.ask(crowd.sync(each, 1, {}) for each in ids[1:])
        leader = crowd.sync(ids[0], 1, dict.fromkeys(ids, GIVEN))
        await crowd.watched("sync", crowd.later(leader), lambda: len(crowd.answers) == count)
        assert {each.error for each in crowd.answers.values()} == {ErrorCode.unknown_server_error}
        assert crowd.log.batches[0] == []
        group = crowd.groups.host.shards[0].machine.tables.groups["g"]
        assert group.state.value == "PreparingRebalance"
        crowd.groups.close()

    asyncio.run(refused(Crowd(Attempt())))


def test_a_line_of_the_log_names_some_members_only() -> None:
    ids = [f"m-{index}" for index in range(NAMED_MAX + 2)]
    assert some_of(ids[:2]) == "m-0, m-1"
    assert some_of(ids) == ", ".join(ids[:NAMED_MAX]) + " and 2 more"


def test_an_answer_that_cannot_be_made_keeps_nobody_else_from_theirs() -> None:
    """What nobody thought of, in one of the many answers of a shard."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        told: list[Any] = []
        loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
        clock = ManualClock()
        config = GroupConfig()
        shard = Shard(
            0, 1, GroupMachine(config), MemoryLog(), clock, Deadlines(clock), Slices(), config.runtime()
        )
        first: Deferred[int] = Deferred()
        second: Deferred[int] = Deferred()

        def failing() -> Iterator[Reply]:
            yield Reply(first, 1)
            raise ValueError("nobody thought of this")

        step = shard.step()
        step.reply_later(failing())
        step.reply_later(iter([Reply(second, 2)]))
        shard.finish(step)
        assert await asyncio.wait_for(second, HANG_S) == 2 and await first == 1
        assert [type(error) for error in told] == [ValueError]

    asyncio.run(main())
