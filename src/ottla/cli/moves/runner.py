"""Having a plan carried out: some partitions at a time, with progress, until all of it is done."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence

from ottla.cli import output
from ottla.cli.moves.requests import Requests, View
from ottla.types import TopicPartition

Planned = Mapping[TopicPartition, Sequence[int]]

# How often it is asked what still moves, and how often how much was copied.
STEP_S = 0.25
COPIED_STEP_S = 1.0


class Copying:
    """How many bytes a plan has copied to new replicas, and how many there are to copy."""

    def __init__(self, requests: Requests, view: View, planned: Planned) -> None:
        self._requests = requests
        self._new = {
            partition: [node for node in replicas if node not in view.partitions[partition].replicas]
            for partition, replicas in planned.items()
        }
        sources = {view.partitions[partition].leader for partition, new in self._new.items() if new}
        held = requests.sizes(sorted(sources & view.brokers.keys()), planned)
        self._bytes = {
            partition: held.get(view.partitions[partition].leader, {}).get(partition, 0)
            for partition in planned
        }
        self.total_bytes = self.bytes_of(planned)

    def bytes_of(self, partitions: Collection[TopicPartition]) -> int:
        """How many it takes to copy some of them."""
        return sum(self._bytes[partition] * len(self._new[partition]) for partition in partitions)

    def done_bytes(self, finished: Collection[TopicPartition], moving: Collection[TopicPartition]) -> int:
        """How many are copied by now."""
        done = self.bytes_of(finished)
        nodes = sorted({node for partition in moving for node in self._new[partition]})
        held = self._requests.sizes(nodes, moving)
        return done + sum(
            min(self._bytes[partition], held.get(node, {}).get(partition, 0))
            for partition in moving
            for node in self._new[partition]
        )


def carry_out(
    requests: Requests,
    planned: Planned,
    *,
    at_once: int,
    moved: Callable[[Collection[TopicPartition], Collection[TopicPartition]], None],
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Move partitions, ``at_once`` of them at a time, and wait until all are where they should be.

    ``moved`` is told now and then which have moved and which do. CliError where something is refused; what
    was begun goes on then.
    """
    waiting = deque(sorted(planned))
    moving: list[TopicPartition] = []
    finished: list[TopicPartition] = []
    while waiting or moving:
        ongoing = requests.ongoing() if moving else {}
        finished += [partition for partition in moving if partition not in ongoing]
        moving = [partition for partition in moving if partition in ongoing]
        batch = [waiting.popleft() for _ in range(min(len(waiting), at_once - len(moving)))]
        if batch:
            requests.reassign({partition: planned[partition] for partition in batch})
            moving += batch
        moved(finished, moving)
        if moving:
            pause(STEP_S)


def carry_out_with_progress(requests: Requests, view: View, planned: Planned, *, at_once: int) -> None:
    """``carry_out`` under a bar of the bytes copied, or, where there is little to copy, of partitions."""
    if not sys.stderr.isatty():
        carry_out(requests, planned, at_once=at_once, moved=lambda finished, moving: None)
        return
    copying = Copying(requests, view, planned)
    next_s = 0.0
    if copying.total_bytes:
        label, total = f"moving {output.counted(len(planned), 'partition')}, bytes", copying.total_bytes
    else:
        label, total = "partitions moved", len(planned)
    with output.progress(label, total) as show:

        def moved(finished: Collection[TopicPartition], moving: Collection[TopicPartition]) -> None:
            nonlocal next_s
            if not copying.total_bytes:
                show(len(finished))
            elif time.monotonic() >= next_s:
                next_s = time.monotonic() + COPIED_STEP_S
                show(copying.done_bytes(finished, moving))

        carry_out(requests, planned, at_once=at_once, moved=moved)


def wait(requests: Requests, pause: Callable[[float], None] = time.sleep) -> int:
    """Wait until nothing moves; how many partitions did when it began."""
    begun = len(requests.ongoing())
    with output.progress("partitions moved", begun) as show:
        while left := len(requests.ongoing()):
            show(max(0, begun - left))
            pause(STEP_S)
    return begun
