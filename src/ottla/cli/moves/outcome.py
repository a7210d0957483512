"""What became of a plan: not what it says, but how the cluster stands when it is over (pure).

Whoever waits for moves is not alone: others cancel them, move on elsewhere, or delete a topic meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ottla.cli.moves.report import nodes
from ottla.cli.moves.requests import View
from ottla.types import TopicPartition

Planned = Mapping[TopicPartition, Sequence[int]]


class Outcome(NamedTuple):
    """The partitions that are as planned, and what became of the others, in words."""

    done: list[TopicPartition]
    missed: dict[TopicPartition, str]


def compare(before: Planned, planned: Planned, after: View) -> Outcome:
    """What came of moving from ``before`` to ``planned``."""
    outcome = Outcome([], {})
    for partition in sorted(planned):
        wanted = tuple(planned[partition])
        found = after.partitions.get(partition)
        if found is None:
            outcome.missed[partition] = "was deleted"
        elif (ongoing := after.ongoing.get(partition)) is not None:
            where = "is still moving" if ongoing.target == wanted else f"is moving to {nodes(ongoing.target)}"
            outcome.missed[partition] = where
        elif found.replicas == wanted:
            outcome.done.append(partition)
        elif set(found.replicas) == set(before[partition]):
            # In another order, perhaps: that is what a cancelled move leaves behind.
            outcome.missed[partition] = f"was cancelled, and is at {nodes(found.replicas)} as before"
        else:
            outcome.missed[partition] = f"is at {nodes(found.replicas)} instead: somebody else has moved it"
    return outcome
