"""What a leader may conclude of its followers' fetches, against a model that knows everything."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ottla.metadata.elections import with_isr
from ottla.metadata.image import PartitionState
from ottla.replication.isr import Follower, Leading

LEADER = 1
LAG_MS_MAX = 1_000
NOBODY = -(2**62)


def always(node_id: int, follower: Follower) -> bool:
    return True


def never(node_id: int, follower: Follower) -> bool:
    return False


def state(
    isr: tuple[int, ...], replicas: tuple[int, ...] = (1, 2, 3), **more: tuple[int, ...]
) -> PartitionState:
    return PartitionState(LEADER, 5, 1, replicas, isr, **more)


def fetched(leading: Leading, node_id: int, offset: int, end: int, now_ms: int = 0) -> None:
    leading.followers[node_id].fetched(offset, 0, 1, end, now_ms)


def high_watermark(leading: Leading, end: int, min_isr: int = 1, now_ms: int = 0) -> int:
    return leading.high_watermark(end, min_isr, now_ms, LAG_MS_MAX, always)


class Knowing(RuleBasedStateMachine):
    """A leader, its followers as they are, and everything that ever happened between them."""

    @initialize(
        replicas=st.integers(1, 4),
        min_isr=st.integers(1, 4),
        end=st.integers(0, 5),
        data=st.data(),
    )
    def begin(self, replicas: int, min_isr: int, end: int, data: st.DataObject) -> None:
        self.now_ms = 0
        self.end = self.epoch_start = end
        self.min_isr = min_isr
        self.watermark = data.draw(st.integers(0, end))
        nodes = tuple(range(1, replicas + 1))
        isr = tuple(n for n in nodes if n == LEADER or data.draw(st.booleans()))
        self.has = {n: data.draw(st.integers(self.watermark if n in isr else 0, 8)) for n in nodes[1:]}
        elr = tuple(
            n for n in nodes if n not in isr and self.has[n] >= self.watermark and data.draw(st.booleans())
        )
        too_few = len(isr) < min(min_isr, replicas)
        self.state = PartitionState(LEADER, 5, 1, nodes, isr, elr=elr if too_few else ())
        self.proposed: PartitionState | None = None
        self.in_force = False
        self.fetches: dict[int, list[tuple[int, int, int]]] = {n: [] for n in nodes[1:]}
        self.first_isr = isr
        self.eligible = dict.fromkeys(nodes[1:], True)
        self.leading = Leading(LEADER, self.state, end, 0)

    @property
    def members(self) -> set[int]:
        return set(self.state.isr) | set(self.proposed.isr if self.proposed else ())

    def caught_up_ms(self, node: int) -> int:
        """Kafka's definition, from all that was ever fetched."""
        found = 0 if node in self.first_isr else NOBODY
        before: tuple[int, int, int] | None = None
        for at_ms, offset, end in self.fetches[node]:
            if offset >= end:
                found = max(found, at_ms)
            elif before is not None and offset >= before[2]:
                found = max(found, before[0])
            before = (at_ms, offset, end)
        return found

    def is_near(self, node: int) -> bool:
        known = self.fetches[node][-1][1] if self.fetches[node] else -1
        return known == self.end or self.now_ms - self.caught_up_ms(node) <= LAG_MS_MAX

    @rule(count=st.integers(1, 4))
    def append(self, count: int) -> None:
        self.end += count

    @rule(ms=st.sampled_from([1, 400, 1_001]))
    def wait(self, ms: int) -> None:
        self.now_ms += ms

    @rule(node=st.integers(2, 4), count=st.integers(0, 9))
    def fetch(self, node: int, count: int) -> None:
        """A follower, which has what it has, asks for what comes next, and gets some of it. One that has more
        than its leader truncates first."""
        if node not in self.has:
            return
        self.has[node] = min(self.has[node], self.end)
        self.fetches[node].append((self.now_ms, self.has[node], self.end))
        fetched(self.leading, node, self.has[node], self.end, self.now_ms)
        self.has[node] = min(self.has[node] + count, self.end)

    @rule(node=st.integers(2, 4))
    def switch(self, node: int) -> None:
        if node in self.has:
            self.eligible[node] = not self.eligible[node]

    @precondition(lambda self: self.proposed is None)
    @rule(node=st.integers(2, 4), in_force=st.booleans())
    def expand(self, node: int, in_force: bool) -> None:
        may = self.leading.may_join(node, self.watermark)
        known = self.fetches.get(node) or [(0, -1, 0)]
        assert may == (
            node in self.has
            and node not in self.state.isr
            and known[-1][1] >= max(self.watermark, self.epoch_start)
        )
        if may:
            self.propose(tuple(sorted((*self.state.isr, node))), in_force)

    @precondition(lambda self: self.proposed is None)
    @rule(in_force=st.booleans())
    def shrink(self, in_force: bool) -> None:
        out = self.leading.out_of_sync(self.end, self.now_ms, LAG_MS_MAX)
        assert out == [n for n in self.state.isr if n != LEADER and not self.is_near(n)]
        if out:
            self.propose(tuple(n for n in self.state.isr if n not in out), in_force)

    def propose(self, isr: tuple[int, ...], in_force: bool) -> None:
        self.proposed = with_isr(self.state, isr, self.min_isr)
        self.in_force = in_force
        self.leading.propose(self.proposed)

    @precondition(lambda self: self.proposed is not None)
    @rule()
    def hear(self) -> None:
        """What became of a proposal."""
        assert self.proposed is not None
        if self.in_force:
            self.take(self.proposed)
        else:
            self.proposed = None
            self.leading.withdraw()

    @precondition(lambda self: not self.in_force or self.proposed is None)
    @rule(data=st.data())
    def lose_one(self, data: st.DataObject) -> None:
        """The controller takes a node that died out of the ISR; a proposal that was under way has lost."""
        if len(self.state.isr) > 1:
            gone = data.draw(st.sampled_from([n for n in self.state.isr if n != LEADER]))
            self.take(with_isr(self.state, tuple(n for n in self.state.isr if n != gone), self.min_isr))

    def take(self, new: PartitionState) -> None:
        self.state, self.proposed, self.in_force = new, None, False
        self.leading.update(new, self.now_ms)

    @invariant()
    def nothing_is_committed_that_a_member_lacks(self) -> None:
        if not hasattr(self, "leading"):
            return
        found = self.leading.high_watermark(
            self.end, self.min_isr, self.now_ms, LAG_MS_MAX, lambda node, _: self.eligible[node]
        )
        enough = len(self.state.isr) >= min(self.min_isr, len(self.state.replicas))
        if self.state.elr or not enough:
            assert found == -1
        else:
            known = {n: (self.fetches[n][-1][1] if self.fetches[n] else -1) for n in self.has}
            waited_for = {n for n in self.has if known[n] >= 0 and self.eligible[n] and self.is_near(n)} | (
                self.members - {LEADER}
            )
            assert found == min([self.end, *(known[n] for n in waited_for)])
        self.watermark = max(self.watermark, found)
        for node in self.members - {LEADER}:
            assert self.has[node] >= self.watermark
        for node in self.state.elr:
            assert self.has[node] >= self.watermark


TestKnowing = Knowing.TestCase


def test_the_high_watermark_is_the_least_of_the_isr() -> None:
    leading = Leading(LEADER, state((1, 2, 3)), 10, 0)
    assert high_watermark(leading, 10) == -1
    fetched(leading, 2, 10, 10)
    assert high_watermark(leading, 10) == -1
    fetched(leading, 3, 7, 10)
    assert high_watermark(leading, 12) == 7
    fetched(leading, 3, 12, 12)
    assert high_watermark(leading, 12) == 10


def test_one_outside_the_isr_does_not_hold_it_back_unless_it_is_about_to_join() -> None:
    leading = Leading(LEADER, state((1, 2)), 10, 0)
    fetched(leading, 2, 20, 20)
    fetched(leading, 3, 4, 20)
    assert high_watermark(leading, 20) == 20
    # It has had everything a moment ago, and would be in sync but for what came since.
    fetched(leading, 3, 20, 20)
    fetched(leading, 2, 25, 25)
    assert high_watermark(leading, 25) == 20
    assert leading.high_watermark(25, 1, 0, LAG_MS_MAX, never) == 25
    assert high_watermark(leading, 25, now_ms=LAG_MS_MAX + 1) == 25


@pytest.mark.parametrize("min_isr", [2, 3])
def test_too_few_in_sync_or_an_elr_commit_nothing(min_isr: int) -> None:
    leading = Leading(LEADER, state((1,)), 10, 0)
    assert high_watermark(leading, 10, min_isr) == -1
    assert high_watermark(leading, 10, 1) == 10
    leading.update(state((1,), elr=(2,)), 0)
    assert high_watermark(leading, 10, 1) == -1
    alone = Leading(LEADER, state((1,), replicas=(1,)), 10, 0)
    assert high_watermark(alone, 10, min_isr) == 10


def test_both_isrs_count_until_it_is_known_which_holds() -> None:
    old = state((1, 2))
    leading = Leading(LEADER, old, 0, 0)
    fetched(leading, 2, 5, 10)
    fetched(leading, 3, 8, 10)
    wider = with_isr(old, (1, 2, 3), 1)
    leading.propose(wider)
    assert leading.maximal_isr == (1, 2, 3) and high_watermark(leading, 10, now_ms=9_999) == 5
    fetched(leading, 2, 10, 10)
    assert high_watermark(leading, 10, now_ms=9_999) == 8
    # An image that is older than the outcome says nothing.
    leading.update(replace(old, partition_epoch=1), 0)
    assert leading.pending is wider and leading.maximal_isr == (1, 2, 3)
    leading.update(wider, 0)
    narrower = with_isr(wider, (1, 2), 1)
    leading.propose(narrower)
    assert high_watermark(leading, 10, now_ms=9_999) == 8
    leading.withdraw()
    assert leading.pending is None and leading.maximal_isr == (1, 2, 3)
    leading.propose(narrower)
    # Somebody else's change came first.
    leading.update(with_isr(wider, (1, 3), 1), 0)
    assert leading.pending is None and leading.maximal_isr == (1, 3)


def test_whoever_joins_has_what_came_before_the_epoch_and_what_is_committed() -> None:
    leading = Leading(LEADER, state((1, 2)), 10, 0)
    assert not leading.may_join(3, 0)
    fetched(leading, 3, 9, 20)
    assert not leading.may_join(3, 0), "it lacks what came before the epoch"
    fetched(leading, 3, 10, 20)
    assert leading.may_join(3, 10)
    assert not leading.may_join(3, 11), "it lacks what is committed"
    fetched(leading, 2, 20, 20)
    assert not leading.may_join(2, 10), "it is a member"
    assert not leading.may_join(4, 0), "it is no replica"


def test_laggards_are_told_by_when_they_last_had_everything() -> None:
    leading = Leading(LEADER, state((1, 2, 3)), 10, 5_000)
    assert leading.out_of_sync(10, 5_000 + LAG_MS_MAX, LAG_MS_MAX) == []
    assert leading.out_of_sync(10, 5_001 + LAG_MS_MAX, LAG_MS_MAX) == [2, 3]
    fetched(leading, 2, 10, 10, 6_000)
    # It fetches and never has everything, but what there was at its fetch before.
    fetched(leading, 3, 8, 10, 6_000)
    fetched(leading, 3, 10, 12, 6_900)
    assert leading.followers[3].caught_up_ms == 6_000
    assert leading.out_of_sync(12, 6_900 + LAG_MS_MAX, LAG_MS_MAX) == [2, 3]
    assert leading.out_of_sync(12, 7_000, LAG_MS_MAX) == []
    # Nothing comes: who has everything is in sync, however long ago it fetched.
    assert leading.out_of_sync(10, 10**9, LAG_MS_MAX) == []


def test_replicas_come_and_go_with_the_state() -> None:
    leading = Leading(LEADER, state((1, 2)), 0, 0)
    fetched(leading, 3, 5, 5, 0)
    leading.update(state((1, 2), replicas=(1, 2)), 0)
    assert list(leading.followers) == [2]
    leading.update(state((1, 2), replicas=(1, 2, 3)), 0)
    # It is as one that was never heard of.
    assert leading.followers[3].log_end_offset == -1
