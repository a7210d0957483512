"""The shadow model: what clients were told, and what may therefore never be otherwise (the oracle).

Each record's value is unique: it names its producer, the producer's incarnation and its place in what that
incarnation wrote to the partition. The first violation of an invariant ends the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ottla.types import TopicPartition

# The invariants by name, as docs/FAULTS-IN-DETAIL.md has them.
NO_LOST_WRITE = "no lost acknowledged write"
NO_DUPLICATE = "no duplicate within an idempotent producer"
ONE_RECORD = "no offset ever shows two different records"
ORDER = "order within a partition"
WATERMARK = "monotonic high watermark per epoch"
ONE_LEADER = "one leader per epoch"
COMPLETE_LEADER = "a leader has all that is committed"
ONE_OWNER = "one owner per partition per group generation"
STALE_REFUSED = "a stale generation is refused"
COMMITS_STAY = "committed offsets never go back by themselves"
IDENTICAL = "all replicas identical at quiesce"
WHOLE = "a log holds whole batches, one after the other"
SEQUENCES = "an idempotent producer's acknowledged sequence is not forgotten"
RECOVERS = "the cluster recovers once faults end"
NO_INTERNAL_ERROR = "nothing fails inside a node"


class Violation(Exception):
    """An invariant does not hold; the message says which, and how."""

    def __init__(self, invariant: str, detail: str) -> None:
        super().__init__(f"{invariant}: {detail}")
        self.invariant = invariant


@dataclass(slots=True)
class PartitionModel:
    """What is known of one partition."""

    # Written with acks=all and answered, by offset; values that were answered without one (a repeated batch).
    acked: dict[int, bytes] = field(default_factory=dict)
    acked_somewhere: dict[bytes, None] = field(default_factory=dict)
    # What consumers saw, by offset.
    seen: dict[int, bytes] = field(default_factory=dict)
    # Records before this offset may be deleted: somebody asked for that.
    deletable: int = 0


@dataclass(slots=True)
class GroupModel:
    """What is known of one consumer group."""

    # The newest generation that a member was told its assignment of.
    generation: int = -1
    # By generation: which member owns a partition.
    owners: dict[int, dict[TopicPartition, str]] = field(default_factory=dict)
    # The last commit that was answered, and those of which nobody knows.
    committed: dict[TopicPartition, int] = field(default_factory=dict)
    in_doubt: dict[TopicPartition, list[int]] = field(default_factory=dict)


class Model:
    """``violated`` is called with the first violation of each kind, as soon as it is known."""

    def __init__(self, violated: Callable[[Violation], None]) -> None:
        self.partitions: dict[TopicPartition, PartitionModel] = {}
        self.groups: dict[str, GroupModel] = {}
        self.violated = violated
        # How much was done, for the summary.
        self.acked_count = 0
        self.unknown_count = 0
        self.seen_count = 0
        self.commit_count = 0
        self.generation_count = 0

    def violate(self, invariant: str, detail: str) -> None:
        self.violated(Violation(invariant, detail))

    def of(self, where: TopicPartition) -> PartitionModel:
        found = self.partitions.get(where)
        if found is None:
            found = self.partitions[where] = PartitionModel()
        return found

    def group(self, name: str) -> GroupModel:
        found = self.groups.get(name)
        if found is None:
            found = self.groups[name] = GroupModel()
        return found

    # ------------------------------------------------------------ producing and consuming

    def acked(self, where: TopicPartition, base_offset: int, values: list[bytes]) -> None:
        """A batch was answered without an error, with acks=all. ``base_offset`` -1: it was there already."""
        model = self.of(where)
        self.acked_count += len(values)
        if base_offset < 0:
            model.acked_somewhere.update(dict.fromkeys(values))
            return
        for offset, value in enumerate(values, base_offset):
            other = model.acked.setdefault(offset, value)
            if other != value:
                self.violate(ONE_RECORD, f"{where} acknowledged {value!r} and {other!r} at {offset}")
            self._compare_seen(where, model, offset, value, "was acknowledged")

    def saw(self, where: TopicPartition, offset: int, value: bytes, who: str) -> None:
        """A consumer was given a record."""
        model = self.of(where)
        known = model.acked.get(offset, value)
        if known != value:
            self.violate(ONE_RECORD, f"{who} saw {value!r} at {where} {offset}, acknowledged was {known!r}")
        if offset not in model.seen:
            self.seen_count += 1
            model.seen[offset] = value
        else:
            self._compare_seen(where, model, offset, value, f"was seen by {who}")

    def _compare_seen(
        self, where: TopicPartition, model: PartitionModel, offset: int, value: bytes, what: str
    ) -> None:
        seen = model.seen.get(offset, value)
        if seen != value:
            self.violate(ONE_RECORD, f"{value!r} {what} at {where} {offset}, where {seen!r} was seen before")

    def forget_seen(self) -> None:
        """What was seen and not acknowledged need not be there any more."""
        for model in self.partitions.values():
            model.seen = {offset: value for offset, value in model.acked.items() if offset in model.seen}

    def gap(self, where: TopicPartition, expected: int, offset: int, who: str) -> None:
        """A consumer that reads on got a record beyond the next one."""
        if expected >= self.of(where).deletable:
            self.violate(NO_LOST_WRITE, f"{who} reads {where} at {expected} and is given {offset}: a gap")

    # ------------------------------------------------------------ groups

    def assigned(
        self, group: str, generation: int, member: str, partitions: Iterable[TopicPartition]
    ) -> None:
        """A member was told what it owns."""
        model = self.group(group)
        if generation > model.generation:
            model.generation = generation
            self.generation_count += 1
        owners = model.owners.setdefault(generation, {})
        for where in partitions:
            owner = owners.setdefault(where, member)
            if owner != member:
                self.violate(
                    ONE_OWNER, f"{group} generation {generation}: {where} is {owner}'s and {member}'s"
                )

    def committing(self, group: str, offsets: dict[TopicPartition, int]) -> None:
        """A commit is about to be sent: until it is answered, nobody knows."""
        model = self.group(group)
        for where, offset in offsets.items():
            model.in_doubt.setdefault(where, []).append(offset)

    def committed(self, group: str, generation: int, newest: int, offsets: dict[TopicPartition, int]) -> None:
        """A commit was answered; ``newest`` was the newest generation when it was sent."""
        model = self.group(group)
        self.commit_count += 1
        if generation < newest:
            self.violate(
                STALE_REFUSED,
                f"{group}: a commit of generation {generation} was taken while {newest} was known",
            )
        for where, offset in offsets.items():
            model.in_doubt[where].remove(offset)
            model.committed[where] = offset

    def not_committed(self, group: str, offsets: dict[TopicPartition, int]) -> None:
        """A commit was refused."""
        model = self.group(group)
        for where, offset in offsets.items():
            model.in_doubt[where].remove(offset)

    def fetched_commit(self, group: str, where: TopicPartition, least: int, offset: int) -> None:
        """A committed offset was read; ``least`` was the last that was known before it was asked for."""
        doubtful = self.group(group).in_doubt.get(where, ())
        if offset < least and offset not in doubtful:
            self.violate(COMMITS_STAY, f"{group} {where}: {least} was committed, {offset} is read")

    # ------------------------------------------------------------ at quiesce

    def check_log(self, where: TopicPartition, start: int, values: dict[int, bytes]) -> None:
        """What the partition holds in the end, from its start on: all that was acknowledged, all that was
        seen, each value once, each producer's in order."""
        model = self.of(where)
        if start > model.deletable:
            self.violate(
                NO_LOST_WRITE, f"{where} begins at {start}; only {model.deletable} was to be deleted"
            )
        for offset, value in model.acked.items():
            if offset >= start and values.get(offset) != value:
                self.violate(
                    NO_LOST_WRITE,
                    f"{where} {offset}: {value!r} was acknowledged, {values.get(offset)!r} is there",
                )
        for offset, value in model.seen.items():
            if offset >= start and values.get(offset) != value:
                self.violate(
                    ONE_RECORD, f"{where} {offset}: {value!r} was seen, {values.get(offset)!r} is there"
                )
        self._check_values(where, model, start, values)

    def _check_values(
        self, where: TopicPartition, model: PartitionModel, start: int, values: dict[int, bytes]
    ) -> None:
        places: dict[bytes, int] = {}
        last: dict[bytes, int] = {}
        for offset in sorted(values):
            value = values[offset]
            if value in places:
                self.violate(NO_DUPLICATE, f"{where}: {value!r} at {places[value]} and {offset}")
            places[value] = offset
            incarnation, _, number = value.rpartition(b"/")
            if int(number) <= last.get(incarnation, -1):
                self.violate(ORDER, f"{where} {offset}: {value!r} after number {last[incarnation]}")
            last[incarnation] = max(int(number), last.get(incarnation, -1))
        for value in model.acked_somewhere:
            if value not in places and not start:
                self.violate(NO_LOST_WRITE, f"{where}: {value!r} was acknowledged and is not there")
