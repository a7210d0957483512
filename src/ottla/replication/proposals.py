"""Changes of ISRs on their way to the metadata store (Kafka's ``AlterPartitionManager``).

Leaders propose; what comes in while a transaction is under way goes into the next one, together. A
transaction fails as a whole, so after a failure its proposals are tried one by one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from ottla.errors import KafkaError
from ottla.metadata.changes import PartitionChange
from ottla.metadata.image import ClusterImage, PartitionState
from ottla.replication.surroundings import Proposer

log = logging.getLogger(__name__)

# Proposals in one transaction: each takes a put and up to three comparisons.
PROPOSALS_PER_TXN = 40
# The store is out of reach: try again after this time.
RETRY_MS = 500


class Proposal(NamedTuple):
    """A leader's change of its partition, and the registrations that joining nodes must have (id, epoch)."""

    partition: Proposer
    change: PartitionChange
    registrations: Mapping[int, int]


# Commits all changes or none, and says which; returns once the image is as new as the outcome. KafkaError
# where the store cannot be reached, and the outcome is not known (``Controller.change_partitions``).
Commit = Callable[[Sequence[PartitionChange], Mapping[int, int]], Awaitable[bool]]


class Proposals:
    """One node's proposals. ``add`` at any time; ``close`` at the end."""

    def __init__(self, commit: Commit) -> None:
        self._commit = commit
        self._queue: list[Proposal] = []
        self._working: asyncio.Task[None] | None = None
        # Changes that were made: ISRs that lost a node, and that got one; and attempts that failed.
        self.shrinks = self.expands = self.failures = 0

    def propose(self, image: ClusterImage, partition: Proposer, state: PartitionState) -> bool:
        """Have a partition's state replaced; False where its topic, or a node that is to join, is gone."""
        topic = image.topics_by_id.get(partition.topic_id)
        joining = [node_id for node_id in state.isr if node_id not in partition.state.isr]
        if topic is None or any(node_id not in image.brokers for node_id in joining):
            return False
        registrations = {node_id: image.brokers[node_id].epoch for node_id in joining}
        change = PartitionChange(topic, partition.topic_partition.partition, partition.state, state)
        self.add(Proposal(partition, change, registrations))
        return True

    def add(self, proposal: Proposal) -> None:
        self._queue.append(proposal)
        if self._working is None:
            self._working = asyncio.ensure_future(self._work())

    def close(self) -> None:
        if self._working is not None:
            self._working.cancel()

    async def _work(self) -> None:
        try:
            while self._queue:
                chunk = self._take_some()
                if not await self._commit_or_requeue(chunk) and len(chunk) > 1:
                    for proposal in chunk:
                        await self._commit_or_requeue([proposal])
        finally:
            self._working = None

    async def _commit_or_requeue(self, chunk: Sequence[Proposal]) -> bool:
        """`_commit_until_known`, also where something is wrong that nobody thought of. Whether it is in force
        is not known then, so one goes to the end of the queue, for its leader waits for the outcome."""
        try:
            return await self._commit_until_known(chunk)
        except Exception:
            where = chunk[0].partition.topic_partition
            log.exception("changes of in-sync replicas, of %s and %d more, fail", where, len(chunk) - 1)
            if len(chunk) == 1:
                self._queue.append(chunk[0])
                await asyncio.sleep(RETRY_MS / 1000)
            return False

    def _take_some(self) -> list[Proposal]:
        """The next ones that can go together: those that know a joining node by the same registration.

        One that knows it by an earlier one must fail, since what the node had then it may not have now.
        """
        registrations: dict[int, int] = {}
        chunk: list[Proposal] = []
        for proposal in self._queue[:PROPOSALS_PER_TXN]:
            joining = proposal.registrations
            if any(registrations.get(node_id, epoch) != epoch for node_id, epoch in joining.items()):
                break
            registrations.update(joining)
            chunk.append(proposal)
        del self._queue[: len(chunk)]
        return chunk

    async def _commit_until_known(self, chunk: Sequence[Proposal]) -> bool:
        """Commit, again and again while the store is out of reach; whether it was committed.

        Repeating is safe: it compares the states that are replaced, so it takes effect once at most. One that
        took effect without our hearing of it shows in the image.
        """
        while True:
            current = [one for one in chunk if one.partition.awaits(one.change.state)]
            if not current:
                return True
            try:
                registrations: dict[int, int] = {}
                for proposal in current:
                    registrations.update(proposal.registrations)
                done = await self._commit([proposal.change for proposal in current], registrations)
            except KafkaError as error:
                self.failures += 1
                log.warning("changes of in-sync replicas wait for the metadata store: %s", error)
                await asyncio.sleep(RETRY_MS / 1000)
                continue
            if done:
                self._count(current)
            elif len(chunk) == 1:
                self.failures += 1
                proposal = chunk[0]
                proposal.partition.proposal_failed(proposal.change.state)
            return done

    def _count(self, made: Sequence[Proposal]) -> None:
        for proposal in made:
            before, after = proposal.change.expected.isr, proposal.change.state.isr
            self.shrinks += len(after) < len(before)
            self.expands += len(after) > len(before)
