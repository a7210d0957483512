"""Moving a partition to other nodes: begin, complete, cancel (pure).

After Kafka's ``ReplicationControlManager.changePartitionReassignment``, ``PartitionReassignmentReplicas`` and
``PartitionReassignmentRevert``. While it moves, a partition's replicas are the target's, in that order, and
then those that are to go. ``adding_replicas`` were none before it began, ``removing_replicas`` are none when
it is complete. A node that one reassignment brought and the next does not want is in both, so that it goes
with either outcome; Kafka forgets there that it was not always a replica.

Every function returns the next state, with a partition epoch one larger. Where a replica went or the leader
changed, the leader epoch is larger too: those that went are fenced by it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.elections import NO_LEADER, effective_min_isr, elect, with_isr
from ottla.metadata.image import PartitionState

_NOBODY: frozenset[int] = frozenset()


def is_reassigning(state: PartitionState) -> bool:
    return bool(state.adding_replicas or state.removing_replicas)


def original_replicas(state: PartitionState) -> tuple[int, ...]:
    """The replicas from before the reassignment, to which it can go back."""
    return tuple(node_id for node_id in state.replicas if node_id not in state.adding_replicas)


def target_replicas(state: PartitionState) -> tuple[int, ...]:
    """The replicas that the partition will have."""
    return tuple(node_id for node_id in state.replicas if node_id not in state.removing_replicas)


def check_factor_unchanged(state: PartitionState, target: Sequence[int]) -> None:
    """KafkaError(INVALID_REPLICATION_FACTOR) where the target has more or fewer replicas (KIP-860).

    A reassignment that is under way counts as complete.
    """
    now = len(target_replicas(state))
    if len(target) != now:
        raise KafkaError(
            ErrorCode.invalid_replication_factor,
            f"The replication factor is changed from {now} to {len(target)}",
        )


def reassign(
    state: PartitionState,
    target: Sequence[int],
    live: Collection[int],
    min_isr: int,
    *,
    stopping: Collection[int] = _NOBODY,
) -> PartitionState:
    """The state on its way to the ``target`` replicas, or there already; the same object where it was.

    ``target`` is checked: nodes of the cluster, each once. It replaces a reassignment that is under way.
    """
    original = original_replicas(state)
    unwanted = tuple(node_id for node_id in state.adding_replicas if node_id not in target)
    adding = (*(node_id for node_id in target if node_id not in original), *unwanted)
    removing = sorted(node_id for node_id in state.replicas if node_id not in target)
    made = replace(
        state,
        partition_epoch=state.partition_epoch + 1,
        replicas=(*target, *removing),
        adding_replicas=tuple(sorted(adding)),
        removing_replicas=tuple(removing),
    )
    if replace(made, partition_epoch=state.partition_epoch) == state:
        return state
    done = complete_reassignment(made, live, min_isr, stopping=stopping)
    return made if done is None else replace(done, partition_epoch=made.partition_epoch)


def complete_reassignment(
    state: PartitionState,
    live: Collection[int],
    min_isr: int,
    *,
    stopping: Collection[int] = _NOBODY,
) -> PartitionState | None:
    """The state after its reassignment; None where there is none, or it has to wait.

    It waits until all that it adds are in the ISR; where it leaves fewer replicas than there were, until all
    that stay are. It waits also rather than leave the partition without a leader that it has, or, by taking
    nodes out of the ISR, with fewer in sync than ``min_isr`` demands.
    """
    if not is_reassigning(state):
        return None
    target = target_replicas(state)
    isr = tuple(node_id for node_id in state.isr if node_id in target)
    shrinks = len(target) < len(original_replicas(state))
    needed = [node_id for node_id in target if shrinks or node_id in state.adding_replicas]
    if not isr or any(node_id not in isr for node_id in needed):
        return None
    if len(isr) < min(len(state.isr), effective_min_isr(min_isr, target)):
        return None
    made = _on(state, target, isr, live, min_isr, stopping)
    return None if made.leader == NO_LEADER != state.leader else made


def cancel_reassignment(
    state: PartitionState,
    live: Collection[int],
    min_isr: int,
    *,
    stopping: Collection[int] = _NOBODY,
    unclean_enabled: bool = False,
) -> PartitionState:
    """The state with its replicas from before the reassignment.

    KafkaError NO_REASSIGNMENT_IN_PROGRESS, or INVALID_REPLICA_ASSIGNMENT where only nodes that it added have
    what was committed, and ``unclean_enabled`` does not allow to lose it.
    """
    if not is_reassigning(state):
        raise KafkaError(ErrorCode.no_reassignment_in_progress)
    original = original_replicas(state)
    isr = tuple(node_id for node_id in state.isr if node_id in original)
    made = _on(state, original, isr, live, min_isr, stopping, unclean_enabled)
    had_any = state.isr or state.elr or state.last_elr
    if had_any and not (made.isr or made.elr or made.last_elr or unclean_enabled):
        raise KafkaError(
            ErrorCode.invalid_replica_assignment,
            "The reassignment cannot be cancelled because it would require an unclean leader election.",
        )
    return made


def _on(
    state: PartitionState,
    replicas: tuple[int, ...],
    isr: tuple[int, ...],
    live: Collection[int],
    min_isr: int,
    stopping: Collection[int],
    unclean_enabled: bool = False,
) -> PartitionState:
    """The state at rest on ``replicas``, with this ISR."""
    rest = replace(state, replicas=replicas, adding_replicas=(), removing_replicas=())
    made = with_isr(rest, isr, min_isr)
    made = replace(made, last_elr=tuple(node_id for node_id in made.last_elr if node_id in replicas))
    if made.leader not in made.isr or not (made.leader in live or made.leader in stopping):
        made = elect(made, live, min_isr, stopping=stopping, unclean_enabled=unclean_enabled)
    left = any(node_id not in replicas for node_id in state.replicas)
    return replace(
        made,
        partition_epoch=state.partition_epoch + 1,
        leader_epoch=state.leader_epoch + (left or made.leader != state.leader),
    )
