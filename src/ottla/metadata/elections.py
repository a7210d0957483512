"""Who is in sync, who may lead and who does: changes of one partition's state (pure).

After Kafka's ``PartitionChangeBuilder`` with eligible leader replicas always enabled (KIP-966). Every
function takes a state and returns the next one, or the same object where nothing changes. A change makes
the partition epoch one larger; a change of the leader, also to none, the leader epoch too.

``min_isr`` is the topic's ``min.insync.replicas`` as configured. ``live`` are the nodes that may be made
leaders: registered, and not stopping.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from ottla.metadata.image import PartitionState

NO_LEADER = -1
_NOBODY: frozenset[int] = frozenset()


def effective_min_isr(min_isr: int, replicas: Sequence[int]) -> int:
    """How many replicas must be in sync for records to be committed: not more than there are."""
    return min(min_isr, len(replicas))


def with_isr(
    state: PartitionState, isr: Sequence[int], min_isr: int, *, unclean: Collection[int] = _NOBODY
) -> PartitionState:
    """The state with another ISR, which may be empty; the leader is left as it is.

    While the ISR is smaller than it must be, nothing is committed: who leaves it then has all that was, and
    is in the ELR. Not so the nodes in ``unclean``, which may have lost records. When the ISR becomes empty,
    ``last_elr`` is who led last.
    """
    made = tuple(isr)
    elr: tuple[int, ...] = ()
    if len(made) < effective_min_isr(min_isr, state.replicas):
        known = (*state.isr, *state.elr)
        elr = tuple(n for n in state.replicas if n in known and n not in made and n not in unclean)
    return replace(
        state,
        partition_epoch=state.partition_epoch + 1,
        isr=made,
        elr=elr,
        last_elr=() if made else _last_leader(state),
    )


def _last_leader(state: PartitionState) -> tuple[int, ...]:
    if not state.isr:
        return state.last_elr
    return (state.leader,) if state.leader != NO_LEADER else state.isr[:1]


def elect(
    state: PartitionState,
    live: Collection[int],
    min_isr: int,
    *,
    stopping: Collection[int] = _NOBODY,
    unclean_enabled: bool = False,
) -> PartitionState:
    """The state with the leader that it should have (``PartitionChangeBuilder.electAnyLeader``).

    A leader that can stay does. Otherwise, in the order of the assignment: a node of the ISR; where that is
    empty one of the ELR; where both are empty the last leader; any replica, but only with
    ``unclean_enabled`` and an empty ISR; nobody. A leader that is ``stopping`` stays where no other node of
    the ISR can take over.
    """
    if state.leader in live and state.leader in state.isr:
        return state
    for node_id in state.replicas:
        if node_id in live and node_id in state.isr:
            return _led(state, node_id, state.isr, state.elr)
    if state.leader in stopping and state.leader in state.isr:
        return state
    if not state.isr:
        for node_id in state.replicas:
            if node_id in live and node_id in state.elr:
                return _led_alone(state, node_id, min_isr, state.elr)
        last = state.last_elr
        if not state.elr and len(last) == 1 and last[0] in live and last[0] in state.replicas:
            return _led_alone(state, last[0], min_isr)
        if unclean_enabled:
            for node_id in state.replicas:
                if node_id in live:
                    return _led_alone(state, node_id, min_isr)
    return state if state.leader == NO_LEADER else _led(state, NO_LEADER, state.isr, state.elr)


def _led(state: PartitionState, leader: int, isr: tuple[int, ...], elr: tuple[int, ...]) -> PartitionState:
    return replace(
        state,
        leader=leader,
        leader_epoch=state.leader_epoch + 1,
        partition_epoch=state.partition_epoch + 1,
        isr=isr,
        elr=elr,
        last_elr=state.last_elr if leader == NO_LEADER else (),
    )


def _led_alone(state: PartitionState, leader: int, min_isr: int, elr: tuple[int, ...] = ()) -> PartitionState:
    """``leader`` is the ISR; the rest of the ELR stays where it alone is too few."""
    alone_is_enough = effective_min_isr(min_isr, state.replicas) <= 1
    rest = () if alone_is_enough else tuple(node_id for node_id in elr if node_id != leader)
    return _led(state, leader, (leader,), rest)


def without_nodes(
    state: PartitionState,
    gone: Collection[int],
    live: Collection[int],
    min_isr: int,
    *,
    stopping: Collection[int] = _NOBODY,
    lost: Collection[int] = _NOBODY,
    unclean_enabled: bool = False,
) -> PartitionState:
    """The state without nodes that died, or registered anew, in its ISR; led by whoever can now.

    Those in ``lost`` may have lost records: they leave the ELR as well. If the leader is among ``gone``
    there is a new leader epoch, also where it comes out the same node: it may be ``live`` again.
    """
    isr = tuple(node_id for node_id in state.isr if node_id not in gone)
    made = state
    if len(isr) != len(state.isr) or any(node_id in lost for node_id in state.elr):
        made = with_isr(state, isr, min_isr, unclean=lost)
    deposed = state.leader in gone
    if deposed:
        made = replace(made, leader=NO_LEADER)
    made = elect(made, live, min_isr, stopping=stopping, unclean_enabled=unclean_enabled)
    if made is state:
        return state
    new_epoch = deposed or made.leader != state.leader
    return replace(
        made,
        leader_epoch=state.leader_epoch + new_epoch,
        partition_epoch=state.partition_epoch + 1,
    )


def without_unneeded_elr(state: PartitionState, min_isr: int) -> PartitionState:
    """The state without an ELR where the ISR is large enough: ``min.insync.replicas`` became smaller."""
    if not state.elr or len(state.isr) < effective_min_isr(min_isr, state.replicas):
        return state
    return with_isr(state, state.isr, min_isr)


def preferred(state: PartitionState, live: Collection[int]) -> PartitionState | None:
    """The state led by its first replica; None where that leads already, or is not live and in sync."""
    first = state.replicas[0]
    if first == state.leader or first not in live or first not in state.isr:
        return None
    return _led(state, first, state.isr, state.elr)


def led_anew(state: PartitionState, written_epoch: int = -1) -> PartitionState:
    """The state with the same leader in a new leader epoch: its process, or its registration, is another.

    ``written_epoch``: the latest one that its log was written in, which is later than the state's where the
    metadata comes from a backup.
    """
    epoch = max(state.leader_epoch, written_epoch) + 1
    return replace(state, leader_epoch=epoch, partition_epoch=state.partition_epoch + 1)


def elect_unclean(state: PartitionState, live: Collection[int], min_isr: int) -> PartitionState | None:
    """The state with a leader at any price (ElectLeaders of type UNCLEAN); None where nobody lives.

    Clean candidates go first. KafkaError is the caller's: a partition that has a leader needs no election.
    """
    made = elect(state, live, min_isr, unclean_enabled=True)
    if made.leader != NO_LEADER:
        return made
    for node_id in state.replicas:
        if node_id in live:
            return _led_alone(state, node_id, min_isr)
    return None
