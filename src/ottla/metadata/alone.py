"""One store, used in turn by a node alone and by several nodes of one machine: what has to change in between.

A node alone registers without a lease, and remembers no nodes; several do so with leases, and give up what
they lead when they go. Whoever opens the store alone is certain that all earlier processes have ended.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from ottla.metadata import keys
from ottla.metadata.elections import NO_LEADER
from ottla.metadata.image import ClusterImage, PartitionState, state_value
from ottla.metadata.store import TXN_OPERATIONS_MAX, Delete, MetadataStore, Operation, Put


def elsewhere(image: ClusterImage, node_ids: Collection[int]) -> dict[int, int]:
    """How many partitions other nodes than these hold, by node."""
    found: dict[int, int] = {}
    for topic in image.topics.values():
        for state in topic.partitions:
            for node_id in state.replicas:
                if node_id not in node_ids:
                    found[node_id] = found.get(node_id, 0) + 1
    return dict(sorted(found.items()))


def was_one_of_several(image: ClusterImage) -> bool:
    """Whether the store was last used by several nodes, or these had begun to.

    A node alone always leads; one that joins others gives up what it led first, and is remembered then.
    """
    return bool(image.nodes) or any(
        state.leader == NO_LEADER for topic in image.topics.values() for state in topic.partitions
    )


async def end_registrations(store: MetadataStore, image: ClusterImage, node_ids: Collection[int]) -> None:
    """End what earlier processes registered, and forget nodes other than these. StoreError.

    Nodes that are forgotten must hold nothing.
    """
    forgotten = [Delete(keys.node(node_id)) for node_id in image.nodes if node_id not in node_ids]
    await _write(store, [*_registrations(), *forgotten])


async def stand_alone(store: MetadataStore, image: ClusterImage, node_id: int) -> int:
    """Have a node alone lead all partitions, of which it has the only replicas; the revision. StoreError."""
    operations = _registrations()
    for topic in image.topics.values():
        for index, state in enumerate(topic.partitions):
            if state.leader != node_id or state.isr != (node_id,):
                operations.append(Put(keys.partition(topic.name, index), state_value(_led(state, node_id))))
    # Last: that there are any says that this has to be done.
    return await _write(store, [*operations, Delete(keys.NODES, prefix=True)])


def _led(state: PartitionState, node_id: int) -> PartitionState:
    """The only replica has whatever there is, as the last leader that comes back has."""
    return replace(
        state,
        leader=node_id,
        leader_epoch=state.leader_epoch + 1,
        partition_epoch=state.partition_epoch + 1,
        isr=(node_id,),
        adding_replicas=(),
        removing_replicas=(),
        elr=(),
        last_elr=(),
    )


def _registrations() -> list[Operation]:
    return [Delete(keys.BROKERS, prefix=True), Delete(keys.STOPPING, prefix=True), Delete(keys.CONTROLLER)]


async def _write(store: MetadataStore, operations: Sequence[Operation]) -> int:
    revision = 0
    for at in range(0, len(operations), TXN_OPERATIONS_MAX):
        revision = (await store.txn([], operations[at : at + TXN_OPERATIONS_MAX])).revision
    return revision
