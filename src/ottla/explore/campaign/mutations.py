"""Ways of breaking the product on purpose, in memory, each of which the simulator has to notice.

A mutation takes away one thing on which safety or recovery rests. `tests/sim/test_sim_mutations.py` runs
seeds until an invariant is violated, and shows that the same seeds pass without it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from ottla.broker.api.records.fetch.session import Sent
from ottla.coordinators.groups import offset_requests
from ottla.log.durability import Durability
from ottla.log.log import Log
from ottla.log.producer_entry import ProducerEntry
from ottla.metadata import elections
from ottla.metadata.membership import NOT_REGISTERED, Membership
from ottla.replication import divergence
from ottla.replication.follower import Fetcher
from ottla.replication.internal_topic import InternalTopicLog
from ottla.replication.isr import UNKNOWN_OFFSET, Leading
from ottla.replication.partition import Partition


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """``owner.name`` is ``value`` for a while."""
    before = vars(owner)[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def ack_early(stack: ExitStack) -> None:
    """Answer acks=all as soon as the leader has a batch."""

    def when_committed(self: Partition, offset: int, committed: Callable[[Any], None]) -> None:
        asyncio.get_running_loop().call_soon(committed, None)

    stack.enter_context(replaced(Partition, "when_committed", when_committed))


def ack_at_resignation(stack: ExitStack) -> None:
    """Tell those who wait for a commit that all is well when leadership ends."""
    resign = Partition.resign

    def resigning(self: Partition) -> None:
        self.commits.end(None)
        resign(self)

    stack.enter_context(replaced(Partition, "resign", resigning))


def no_truncation(stack: ExitStack) -> None:
    """A leader does not look whether a follower's log is a part of its own."""
    stack.enter_context(replaced(Partition, "check_divergence", lambda self, offset, last_epoch: None))


def truncate_to_watermark(stack: ExitStack) -> None:
    """Followers of a new leader cut at their high watermarks, instead of where the logs part (KIP-101)."""
    apply = Partition.apply

    def applied(self: Partition, state: Any) -> None:
        new = state.leader_epoch != self.state.leader_epoch
        apply(self, state)
        if new and self.leading is None and self.high_watermark < self.log.log_end_offset:
            self.truncate_to(self.high_watermark, self._cluster.monotonic_ms())

    no_truncation(stack)
    stack.enter_context(replaced(Partition, "apply", applied))


def watermark_early(stack: ExitStack) -> None:
    """The high watermark is where the leader's log ends."""

    def high_watermark(self: Leading, log_end_offset: int, *_: Any) -> int:
        return log_end_offset

    stack.enter_context(replaced(Leading, "high_watermark", high_watermark))


def watermark_of_one(stack: ExitStack) -> None:
    """The high watermark is the furthest that any follower in the ISR has got, not the least."""

    def high_watermark(self: Leading, log_end_offset: int, *_: Any) -> int:
        if self.state.elr:
            return UNKNOWN_OFFSET
        ends = [self.followers[n].log_end_offset for n in self.maximal_isr if n in self.followers]
        return max(ends, default=log_end_offset)

    stack.enter_context(replaced(Leading, "high_watermark", high_watermark))


def watermark_of_too_few(stack: ExitStack) -> None:
    """The high watermark advances whatever the ISR's size, and while there are eligible leaders outside."""
    high_watermark = Leading.high_watermark

    def unlimited(self: Leading, log_end_offset: int, min_isr: int, *rest: Any) -> int:
        state, self.state = self.state, replace(self.state, elr=())
        try:
            return high_watermark(self, log_end_offset, 1, *rest)
        finally:
            self.state = state

    stack.enter_context(replaced(Leading, "high_watermark", unlimited))


def believe_proposals(stack: ExitStack) -> None:
    """A leader counts with the ISR that it has proposed, before the store has agreed."""
    measure = Leading._measure

    def believing(self: Leading) -> None:
        measure(self)
        if self.pending is not None:
            self.maximal_isr = self.pending.isr

    stack.enter_context(replaced(Leading, "_measure", believing))


def join_early(stack: ExitStack) -> None:
    """A follower joins the ISR whether it has caught up or not."""

    def may_join(self: Leading, node_id: int, high_watermark: int) -> bool:
        return node_id in self.followers and node_id not in self.maximal_isr

    stack.enter_context(replaced(Leading, "may_join", may_join))


def join_below_epoch(stack: ExitStack) -> None:
    """A follower joins the ISR at the high watermark, which a new leader may not know yet, not where the
    leader's epoch begins."""

    def may_join(self: Leading, node_id: int, high_watermark: int) -> bool:
        follower = self.followers.get(node_id)
        return (
            follower is not None
            and node_id not in self.maximal_isr
            and follower.log_end_offset >= high_watermark
        )

    stack.enter_context(replaced(Leading, "may_join", may_join))


def ignore_own_epochs(stack: ExitStack) -> None:
    """A follower cuts where its leader says that an epoch ends, whatever it has of that epoch itself."""

    def where_to_cut(log: Log, epoch: int, end_offset: int) -> int:
        return min(end_offset, log.log_end_offset)

    stack.enter_context(replaced(divergence, "where_to_cut", where_to_cut))


def elect_anyone(stack: ExitStack) -> None:
    """Elect the first replica that lives, in sync or not."""
    elect = elections.elect

    def electing(state: Any, live: Any, min_isr: int, **options: Any) -> Any:
        for node_id in state.replicas:
            if node_id in live and node_id != state.leader and state.leader not in live:
                return elections._led_alone(state, node_id, min_isr)
        return elect(state, live, min_isr, **options)

    stack.enter_context(replaced(elections, "elect", electing))


def keep_epoch(stack: ExitStack) -> None:
    """A new leader goes on in the epoch of the one before it."""
    led = elections._led

    def same_epoch(state: Any, *args: Any) -> Any:
        return replace(led(state, *args), leader_epoch=state.leader_epoch)

    without_nodes = elections.without_nodes

    def without(state: Any, *args: Any, **options: Any) -> Any:
        return replace(without_nodes(state, *args, **options), leader_epoch=state.leader_epoch)

    from ottla.metadata import leadership_plan

    stack.enter_context(replaced(elections, "_led", same_epoch))
    stack.enter_context(replaced(leadership_plan, "without_nodes", without))


def trust_lost_data(stack: ExitStack) -> None:
    """A node that lost power stays an eligible leader."""
    stack.enter_context(replaced(Membership, "_may_have_lost_data", lambda self, known: False))


def keep_claims(stack: ExitStack) -> None:
    """A node registers without leaving the ISRs and leaderships of its last registration."""

    async def give_up_nothing(self: Membership, alone: Any, lost_data: bool) -> bool:
        return True

    stack.enter_context(replaced(Membership, "_give_up_claims", give_up_nothing))


def lose_retry_timer(stack: ExitStack) -> None:
    """A follower that has to wait before it fetches again is never woken."""
    stack.enter_context(replaced(Fetcher, "_wake_in", lambda self, delay_ms: None))


def forget_producers(stack: ExitStack) -> None:
    """Followers do not keep the state of idempotent producers."""
    append_as_follower = Partition.append_as_follower

    def appended(self: Partition, *args: Any) -> None:
        append_as_follower(self, *args)
        self.log.producers.clear(self.log.log_end_offset)

    stack.enter_context(replaced(Partition, "append_as_follower", appended))


def load_early(stack: ExitStack) -> None:
    """A coordinator loads what its leader knows to be committed so far, not all that was."""
    read_all = InternalTopicLog.read_all

    async def read_at_once(self: InternalTopicLog, partition: int) -> Any:
        replica = self._replicas.get(self._topic, partition)
        leading = replica.leading
        start = leading.epoch_start_offset if leading is not None else 0
        if leading is not None:
            leading.epoch_start_offset = 0
        try:
            async for data in read_all(self, partition):
                yield data
        finally:
            if leading is not None:
                leading.epoch_start_offset = start

    stack.enter_context(replaced(InternalTopicLog, "read_all", read_at_once))


def any_generation(stack: ExitStack) -> None:
    """Offsets are taken from members of any generation."""
    stack.enter_context(replaced(offset_requests, "check_commit", lambda *_: None))


def say_nothing_twice(stack: ExitStack) -> None:
    """In a fetch session only records and errors are news."""

    def update(self: Sent, answer: dict[str, Any]) -> bool:
        return bool(answer["records"]) or bool(answer["error_code"])

    stack.enter_context(replaced(Sent, "update", update))


def flush_nothing(stack: ExitStack) -> None:
    """A flush says that it is done."""

    def flush(self: Log, *_: Any) -> None:
        return

    stack.enter_context(replaced(Log, "flush", flush))


def no_flush_to_roll(stack: ExitStack) -> None:
    """A log rolls at or before a recovery point of before it was cut, without being flushed."""
    stack.enter_context(replaced(Durability, "must_flush_to_roll", lambda self: False))


def no_folder_sync_after_roll(stack: ExitStack) -> None:
    """A flush does not make sure that new segments are listed in their folder."""
    stack.enter_context(replaced(Durability, "folder_changed", lambda self: None))


def keep_batches_of_old_epochs(stack: ExitStack) -> None:
    """A producer's batches are known although it has begun a new epoch, and its sequence again."""
    keep = ProducerEntry.keep

    def keeping(self: ProducerEntry, batches: Any) -> None:
        if batches:
            keep(self, batches)

    stack.enter_context(replaced(ProducerEntry, "keep", keeping))


def trust_own_data(stack: ExitStack) -> None:
    """A process that registers again does not ask whether another one had its id meanwhile."""
    may_have_lost_data = Membership._may_have_lost_data

    def may_have(self: Membership, known: Any) -> bool:
        return self._own_epoch == NOT_REGISTERED and may_have_lost_data(self, known)

    stack.enter_context(replaced(Membership, "_may_have_lost_data", may_have))


@dataclass(frozen=True, slots=True)
class Mutation:
    """How to break something, and on what kind of run that shows."""

    apply: Callable[[ExitStack], None]
    faults: tuple[str, ...]
    nodes: int = 5
    # Of what is drawn for a run, what it needs.
    given: Mapping[str, Any] = field(default_factory=dict)
    # It has to show within so many seeds.
    seeds_max: int = 40
    # With these it has shown, and so is looked for there first; any change may make other runs of them.
    shown_by: tuple[int, ...] = ()

    def seeds(self) -> Iterator[int]:
        """Where it is to be looked for: in the likeliest place first."""
        yield from self.shown_by
        yield from (seed for seed in range(1, self.seeds_max + 1) if seed not in self.shown_by)

    @contextmanager
    def active(self) -> Iterator[None]:
        with ExitStack() as stack:
            self.apply(stack)
            yield


# Mixtures of faults: a few, so that the runs without a mutation are few.
CRASHES = ("kill", "kill-many", "pause", "isolate", "split", "restart", "lease")
CUTS = ("split", "isolate")
STRANDED = ("strand", "kill", "elect", "at-change")
AIMED = ("wipe", "kill", "slow-link", "at-change")
POWER = ("kill", "kill-many", "power", "wipe", "split")
ROLLS = ("at-roll", "strand")
TWINS = ("twin", "kill", "kill-many")
# Logs that part roll at the same offsets, where recovery points were, and a checkpoint has these by then.
ROLLING = {
    "internal.segment.bytes": "2000",
    "log.flush.offset.checkpoint.interval.ms": "1000",
    "flush.messages": "",
    "even": True,
}

MUTATIONS: dict[str, Mutation] = {
    "ack-early": Mutation(ack_early, CRASHES),
    "ack-at-resignation": Mutation(ack_at_resignation, CRASHES),
    "no-truncation": Mutation(no_truncation, CRASHES),
    "truncate-to-watermark": Mutation(truncate_to_watermark, CRASHES),
    "watermark-early": Mutation(watermark_early, CRASHES),
    "watermark-of-one": Mutation(watermark_of_one, CRASHES),
    "watermark-of-too-few": Mutation(watermark_of_too_few, POWER),
    "believe-proposals": Mutation(believe_proposals, CUTS),
    "join-early": Mutation(join_early, AIMED),
    "join-below-epoch": Mutation(join_below_epoch, STRANDED, seeds_max=200, shown_by=(17, 128, 156)),
    "ignore-own-epochs": Mutation(ignore_own_epochs, ("strand",), shown_by=(1, 17, 26)),
    "elect-anyone": Mutation(elect_anyone, CRASHES),
    "keep-epoch": Mutation(keep_epoch, CRASHES),
    "trust-lost-data": Mutation(trust_lost_data, POWER),
    "keep-claims": Mutation(keep_claims, POWER),
    "lose-retry-timer": Mutation(lose_retry_timer, CRASHES),
    "forget-producers": Mutation(forget_producers, CRASHES),
    "load-early": Mutation(load_early, CRASHES),
    "any-generation": Mutation(any_generation, CRASHES, shown_by=(2, 4, 6)),
    "say-nothing-twice": Mutation(say_nothing_twice, CRASHES),
    "flush-nothing": Mutation(flush_nothing, ("kill", "power"), nodes=1),
    "no-flush-to-roll": Mutation(no_flush_to_roll, ROLLS, given=ROLLING, seeds_max=100, shown_by=(8, 12, 36)),
    "no-folder-sync-after-roll": Mutation(no_folder_sync_after_roll, ("at-roll", "power"), 1, ROLLING),
    "keep-batches-of-old-epochs": Mutation(
        keep_batches_of_old_epochs,
        ("strand",),
        given={"restless": 0.2, "even": True},
        seeds_max=60,
        shown_by=(5, 13, 17),
    ),
    "trust-own-data": Mutation(trust_own_data, TWINS, seeds_max=150, shown_by=(8, 36)),
}
