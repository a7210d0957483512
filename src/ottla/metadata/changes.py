"""Changes of partition states as transactions: what they compare, and how many go into one (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ottla.metadata import keys
from ottla.metadata.elections import NO_LEADER
from ottla.metadata.image import PartitionState, TopicImage, initial_state, state_value
from ottla.metadata.store import Compare, Operation, Put

# Comparisons in one transaction, and so operations: a store takes 128 of each, and its caller may add a few.
COMPARES_MAX = 120


@dataclass(frozen=True, slots=True)
class PartitionChange:
    """``state`` in place of ``expected``, for partition ``index`` of ``topic``."""

    topic: TopicImage
    index: int
    expected: PartitionState
    state: PartitionState

    @property
    def is_stored(self) -> bool:
        """Whether the partition has a key: it has none as long as nothing has happened to it."""
        return self.expected.partition_epoch > 0 or self.expected != initial_state(
            self.topic.initial[self.index]
        )

    @property
    def moves_leader(self) -> bool:
        return self.state.leader_epoch != self.expected.leader_epoch


class Elections:
    """What the changes that this node has made have done to leaders, since it was started."""

    __slots__ = ("changes", "losses", "unclean")

    def __init__(self) -> None:
        # Partitions that were given another leader, or leader epoch; those of them that were given none, and
        # those that were given one that may have lost records: neither in sync nor in the ELR.
        self.changes = self.losses = self.unclean = 0

    def count(self, done: Iterable[PartitionChange]) -> None:
        """These changes were made."""
        for change in done:
            if not change.moves_leader:
                continue
            leader, before = change.state.leader, change.expected
            self.changes += 1
            self.losses += leader == NO_LEADER
            self.unclean += leader != NO_LEADER and leader not in before.isr and leader not in before.elr


def to_txn(changes: Sequence[PartitionChange]) -> tuple[list[Compare], list[Operation]]:
    """What makes all the changes at once, if every partition still is as it is expected to be."""
    compares: list[Compare] = []
    operations: list[Operation] = []
    topics: dict[str, int] = {}
    # Changes of many partitions are mostly between few states.
    values: dict[PartitionState, bytes] = {}

    def value(state: PartitionState) -> bytes:
        made = values.get(state)
        if made is None:
            made = values[state] = state_value(state)
        return made

    for change in changes:
        key = keys.partition(change.topic.name, change.index)
        if change.is_stored:
            compares.append(Compare(key, value=value(change.expected)))
        else:
            compares.append(Compare(key, 0))
        # It must still be the same topic: one that was made again may have come to the same states.
        topics[change.topic.name] = change.topic.revision
        operations.append(Put(key, value(change.state)))
    compares += [Compare(keys.topic(name), revision) for name, revision in topics.items()]
    return compares, operations


def new_leaders(changes: Iterable[PartitionChange]) -> list[int]:
    """The nodes that become leaders, each once. They do so by their present registrations only."""
    return list(
        dict.fromkeys(c.state.leader for c in changes if c.moves_leader and c.state.leader != NO_LEADER)
    )


def in_txns(changes: Iterable[PartitionChange]) -> Iterator[list[PartitionChange]]:
    """The changes, in order, a transaction's worth at a time: their keys, topics and new leaders."""
    chunk: list[PartitionChange] = []
    compared: dict[object, None] = {}
    for change in changes:
        needed: list[object] = [(change.topic.name, change.index), change.topic.name]
        if change.moves_leader:
            needed.append(change.state.leader)
        if len(compared) + len(needed) > COMPARES_MAX:
            yield chunk
            chunk, compared = [], {}
        chunk.append(change)
        compared.update(dict.fromkeys(needed))
    if chunk:
        yield chunk
