"""Changes of ISRs on their way to the store: batches that fail as a whole, lost races, unknown outcomes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import pytest
from log_support import NOW_MS
from memory_disk import MemoryDisk
from replication_support import Surroundings, make_partition, topic_id_of

from measuring import HANG_S
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.changes import PartitionChange
from ottla.metadata.elections import with_isr
from ottla.metadata.image import PartitionState, TopicImage
from ottla.replication import proposals
from ottla.replication.partition import Partition
from ottla.replication.proposals import PROPOSALS_PER_TXN, Proposal, Proposals
from ottla.types import Record
from ottla.wire.records import build_batch

STATE = PartitionState(1, 5, 1, (1, 2, 3), (1, 2))
JOINING = {3: 30}


class Store:
    """Commits by comparing, as the real one does; how each transaction ends is the test's to say."""

    def __init__(self) -> None:
        self.states: dict[str, PartitionState] = {}
        self.registered = dict(JOINING)
        self.txns: list[list[str]] = []
        # For the next transactions: whether each is done, and whether its answer arrives.
        self.mishaps: list[str] = []
        # Topics whose changes nobody thought of.
        self.odd: list[str] = []
        self.subscribers: list[Callable[[str, PartitionState], None]] = []
        self.held: asyncio.Event | None = None

    async def commit(self, changes: Sequence[PartitionChange], registrations: Mapping[int, int]) -> bool:
        self.txns.append([change.topic.name for change in changes])
        await asyncio.sleep(0)
        if self.held is not None:
            await self.held.wait()
        mishap = self.mishaps.pop(0) if self.mishaps else ""
        if mishap == "unthought-of" or any(change.topic.name in self.odd for change in changes):
            raise ValueError("nobody thought of this")
        if mishap == "unsent":
            raise KafkaError(ErrorCode.request_timed_out, "out of reach")
        done = all(self.states.get(c.topic.name, STATE) == c.expected for c in changes)
        done = done and all(self.registered.get(node) == epoch for node, epoch in registrations.items())
        if done:
            for change in changes:
                self.put(change.topic.name, change.state, tell=mishap != "unheard")
        if mishap == "unheard":
            raise KafkaError(ErrorCode.request_timed_out, "nothing was heard")
        return done

    def put(self, name: str, state: PartitionState, *, tell: bool = True) -> None:
        self.states[name] = state
        if tell:
            for subscriber in self.subscribers:
                subscriber(name, state)


class Bench:
    def __init__(self) -> None:
        self.store = Store()
        self.proposals = Proposals(self.store.commit)
        self.partitions: dict[str, Partition] = {}
        self.store.subscribers.append(lambda name, state: self.partitions[name].apply(state))

    def partition(self, name: str) -> Partition:
        around = Surroundings()
        around.registered = {2: 20, 3: 30}
        made = make_partition(MemoryDisk(), STATE, around=around, name=name)
        self.partitions[name] = made
        return made

    def propose(
        self, it: Partition, isr: tuple[int, ...] = (1, 2, 3), joining: Mapping[int, int] = JOINING
    ) -> PartitionState:
        state = with_isr(it.state, isr, 1)
        assert it.leading is not None
        it.leading.propose(state)
        topic = TopicImage(it.topic_partition.topic, topic_id_of(it.topic_partition.topic), (it.state,), {})
        registrations = joining if 3 in isr else {}
        self.proposals.add(Proposal(it, PartitionChange(topic, 0, it.state, state), registrations))
        return state

    async def settled(self) -> None:
        while self.proposals._working is not None:
            await asyncio.sleep(0)


def run(body: Callable[[Bench], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        await asyncio.wait_for(body(Bench()), HANG_S)

    asyncio.run(main())


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposals, "RETRY_MS", 1)


def pending(it: Partition) -> PartitionState | None:
    assert it.leading is not None
    return it.leading.pending


def test_what_comes_while_one_is_under_way_goes_together() -> None:
    async def body(bench: Bench) -> None:
        bench.store.held = asyncio.Event()
        first = bench.partition("a")
        bench.propose(first)
        await asyncio.sleep(0)
        others = [bench.partition(f"p{i}") for i in range(PROPOSALS_PER_TXN + 1)]
        for it in others:
            bench.propose(it)
        bench.store.held.set()
        await bench.settled()
        assert [len(txn) for txn in bench.store.txns] == [1, PROPOSALS_PER_TXN, 1]
        assert all(it.state.isr == (1, 2, 3) and pending(it) is None for it in (first, *others))

    run(body)


def test_one_lost_race_does_not_stop_the_others_of_its_batch() -> None:
    async def body(bench: Bench) -> None:
        first, lost, last = (bench.partition(name) for name in "abc")
        other = with_isr(STATE, (1,), 1)
        bench.store.states["b"] = other
        for it in (first, lost, last):
            bench.propose(it)
        await bench.settled()
        assert bench.store.txns == [["a", "b", "c"], ["a"], ["b"], ["c"]]
        assert first.state.isr == last.state.isr == (1, 2, 3)
        assert lost.state is STATE and pending(lost) is None
        # Its image is as new as what it lost against by now, and it may propose again.
        lost.apply(other)
        bench.propose(lost, (1, 3))
        await bench.settled()
        assert lost.state.isr == (1, 3)
        counted = bench.proposals
        assert (counted.expands, counted.shrinks, counted.failures) == (3, 0, 1)
        bench.propose(lost, (1,))
        bench.store.mishaps = ["unsent"]
        await bench.settled()
        assert (counted.expands, counted.shrinks, counted.failures) == (3, 1, 2)

    run(body)


def test_one_that_has_registered_anew_does_not_join() -> None:
    async def body(bench: Bench) -> None:
        it = bench.partition("a")
        bench.store.registered[3] = 31
        bench.propose(it)
        await bench.settled()
        assert it.state is STATE and pending(it) is None and "a" not in bench.store.states

    run(body)


def test_one_that_was_known_by_an_earlier_registration_does_not_join_with_the_others() -> None:
    """What is proposed together compares together, and the later registration must not stand for both."""

    async def body(bench: Bench) -> None:
        stale, fresh, after = (bench.partition(name) for name in "abc")
        bench.store.registered[3] = 31
        bench.propose(stale)
        bench.propose(fresh, joining={3: 31})
        bench.propose(after, joining={3: 31})
        await bench.settled()
        assert bench.store.txns == [["a"], ["b", "c"]]
        assert stale.state is STATE and pending(stale) is None
        assert fresh.state.isr == after.state.isr == (1, 2, 3)

    run(body)


def test_both_isrs_count_while_the_outcome_is_unknown() -> None:
    async def body(bench: Bench) -> None:
        it = bench.partition("a")
        it.append(build_batch([Record(0, NOW_MS, None, b"v")]), now_ms=NOW_MS)
        bench.store.mishaps = ["unheard", "unsent", "unsent"]
        bench.store.held = asyncio.Event()
        bench.store.held.set()
        proposed = bench.propose(it)
        while len(bench.store.txns) < 3:
            await asyncio.sleep(0)
        assert bench.store.states["a"] == proposed
        assert it.leading is not None and it.leading.maximal_isr == (1, 2, 3)
        it.follower_fetched(2, 20, 1, 5, 0, current_leader_epoch=5)
        assert it.high_watermark == 0, "node 3 may be in sync, and has said nothing"
        # Asked again, the store says that the partition is not as it was: the image is about to say how.
        bench.store.put("a", proposed)
        await bench.settled()
        assert it.state == proposed and pending(it) is None

    run(body)


def test_an_outcome_that_was_not_heard_shows_when_it_is_asked_again() -> None:
    """The second try compares a state that the first has replaced: it fails, and nothing is withdrawn."""

    async def body(bench: Bench) -> None:
        it = bench.partition("a")
        bench.store.mishaps = ["unheard"]
        proposed = bench.propose(it)
        commit = bench.store.commit

        async def late(changes: Sequence[PartitionChange], registrations: Mapping[int, int]) -> bool:
            done = await commit(changes, registrations)
            # As the contract says: the image is as new as the outcome when it returns.
            bench.store.put("a", bench.store.states["a"])
            return done

        bench.proposals._commit = late
        await bench.settled()
        assert len(bench.store.txns) == 2
        assert it.state == proposed and pending(it) is None

    run(body)


def test_a_leader_that_is_deposed_asks_no_more() -> None:
    async def body(bench: Bench) -> None:
        it, other = bench.partition("a"), bench.partition("b")
        bench.store.mishaps = ["unsent"] * 3
        bench.propose(it)
        bench.propose(other)
        while len(bench.store.txns) < 2:
            await asyncio.sleep(0)
        it.apply(PartitionState(2, 6, 9, (1, 2, 3), (2,)))
        await bench.settled()
        assert bench.store.txns[-1] == ["b"] and "a" not in bench.store.states
        assert other.state.isr == (1, 2, 3)

    run(body)


def test_it_ends_when_it_is_closed_even_while_the_store_is_out_of_reach() -> None:
    async def body(bench: Bench) -> None:
        bench.store.mishaps = ["unsent"] * 1_000
        bench.propose(bench.partition("a"))
        while len(bench.store.txns) < 2:
            await asyncio.sleep(0)
        bench.proposals.close()
        await bench.settled()

    run(body)


def test_what_nobody_thought_of_is_tried_again_and_keeps_no_other_waiting() -> None:
    """The outcome is not known, so the proposal counts on; a leader that proposes must hear of an end."""

    async def body(bench: Bench) -> None:
        first, odd, last = (bench.partition(name) for name in "abc")
        bench.store.mishaps = ["unthought-of"]
        bench.store.odd = ["b"]
        for it in (first, odd, last):
            bench.propose(it)
        while len(bench.store.txns) < 8:
            await asyncio.sleep(0.001)
        assert [pending(it) is None for it in (first, odd, last)] == [True, False, True]
        assert first.state.isr == last.state.isr == (1, 2, 3) and odd.state.isr == (1, 2)
        bench.store.odd = []
        await bench.settled()
        assert pending(odd) is None and odd.state.isr == (1, 2, 3)

    run(body)
