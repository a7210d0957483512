"""How a classic group rebalances: joining and syncing.

Follows the classic part of Kafka's GroupMetadataManager. In short: a change of membership puts the group
into PreparingRebalance, where JoinGroup requests wait until all members have come or the rebalance timeout
is over; then a generation begins, all are told of it and the leader gets everyone's metadata; in
CompletingRebalance SyncGroup requests wait until the leader's assignment is stored; then it is Stable.
A group that was Empty waits a while for more members first (group.initial.rebalance.delay.ms).

Functions take the group and a `Step`, into which replies and writes go. They move soft state only: what is
durable changes when the shell replays a committed write.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial

from ottla.coordinators.groups.classic_group import (
    COMPLETING_REBALANCE,
    DEAD,
    EMPTY,
    PREPARING_REBALANCE,
    STABLE,
    ClassicGroup,
)
from ottla.coordinators.groups.member import Member, kept_bytes, metadata_of, some_of
from ottla.coordinators.groups.requests import (
    UNKNOWN_MEMBER_ID,
    JoinedMember,
    JoinRequest,
    JoinResponse,
    SyncRequest,
    SyncResponse,
)
from ottla.coordinators.groups.schemas import GroupRecord
from ottla.coordinators.groups.step import Step
from ottla.coordinators.runtime.step import NEVER_MS, Reply, Waiter, append_error
from ottla.errors import ErrorCode, KafkaError

log = logging.getLogger(__name__)

NONE = ErrorCode.none

# Ids that a group hands out and that wait to be used. Kafka knows no limit; a client that asks for ids and
# never uses them would fill the memory for as long as its session timeout.
PENDING_IDS_MAX = 10_000

# What the members of one group may say of themselves, in bytes: its leader is sent all of it, and a
# generation has to fit into one record. Kafka knows no limit.
GROUP_BYTES_MAX = 16 * 1024 * 1024
# What those of all groups of a node may, before members with more than a little are told to come again later.
NODE_BYTES_MAX = 256 * 1024 * 1024
SMALL_MEMBER_BYTES = 16 * 1024
# Members of one group, whatever group.max.size allows: as many as the leader's SyncGroup has room for
# (`wire.apis.MANY`). With more of them no generation could come about.
MEMBERS_MAX = 10_000


# -- joining


def join(group: ClassicGroup, request: JoinRequest, waiter: Waiter, step: Step) -> None:
    """Handle a JoinGroup. The answer comes now or when the rebalance that it belongs to is over."""
    if not _has_room_for(group, request.member_id, min(step.config.group_max_size, MEMBERS_MAX)):
        dismiss(group, request.member_id, step)
        step.reply(waiter, JoinResponse(ErrorCode.group_max_size_reached, UNKNOWN_MEMBER_ID))
        maybe_complete_join(group, step)
    elif (refusal := _refuse_bytes(group, request)) != NONE:
        step.reply(waiter, JoinResponse(refusal, request.member_id))
    elif not group.supports(request.protocol_type, [protocol.name for protocol in request.protocols]):
        step.reply(waiter, JoinResponse(ErrorCode.inconsistent_group_protocol, request.member_id))
    elif request.member_id == UNKNOWN_MEMBER_ID:
        _join_new(group, request, waiter, step)
    elif request.member_id in group.pending and request.group_instance_id is None:
        _add_member(group, request, request.member_id, waiter, step)
    else:
        try:
            member = group.check_member(request.member_id, request.group_instance_id)
        except KafkaError as error:
            step.reply(waiter, JoinResponse(error.code, request.member_id))
        else:
            _rejoin(group, member, request, waiter, step)


def _has_room_for(group: ClassicGroup, member_id: str, size_max: int) -> bool:
    """While members rejoin, those that came first stay, should the group be over its size."""
    if group.state is EMPTY or group.state is DEAD:
        return True
    member = group.members.get(member_id)
    if group.state is PREPARING_REBALANCE:
        return (member is not None and member.join_waiter is not None) or group.joining_count < size_max
    return member is not None or len(group.members) < size_max


def _refuse_bytes(group: ClassicGroup, request: JoinRequest) -> ErrorCode:
    """The error where a member's metadata would take the group, or the node, more than it may."""
    member_id = request.member_id
    if not member_id and request.group_instance_id is not None:
        member_id = group.static_members.get(request.group_instance_id, member_id)
    member = group.members.get(member_id)
    asked = kept_bytes(request.protocols)
    more = asked - (0 if member is None else member.kept_bytes)
    if more <= 0:
        return NONE
    if group.kept_bytes + more > GROUP_BYTES_MAX:
        return ErrorCode.group_max_size_reached
    if asked > SMALL_MEMBER_BYTES and group.node_bytes.count + more > NODE_BYTES_MAX:
        # A passing error: others leave, or their sessions end.
        return ErrorCode.coordinator_not_available
    return NONE


def _join_new(group: ClassicGroup, request: JoinRequest, waiter: Waiter, step: Step) -> None:
    instance_id = request.group_instance_id
    new_id = request.new_member_id
    if instance_id is not None:
        if instance_id in group.static_members:
            _replace_static(group, request, waiter, step)
        else:
            _add_member(group, request, new_id, waiter, step)
    elif request.requires_known_member_id and len(group.pending) >= PENDING_IDS_MAX:
        step.reply(waiter, JoinResponse(ErrorCode.group_max_size_reached, UNKNOWN_MEMBER_ID))
    elif request.requires_known_member_id:
        deadline_ms = step.now_ms + request.session_timeout_ms
        group.pending[new_id] = deadline_ms
        group.wake_by(deadline_ms)
        step.reply(waiter, JoinResponse(ErrorCode.member_id_required, new_id))
    else:
        _add_member(group, request, new_id, waiter, step)


def _add_member(
    group: ClassicGroup, request: JoinRequest, member_id: str, waiter: Waiter, step: Step
) -> None:
    member = Member(
        member_id=member_id,
        group_instance_id=request.group_instance_id,
        client_id=request.client_id,
        client_host=request.client_host,
        rebalance_timeout_ms=request.rebalance_timeout_ms,
        session_timeout_ms=request.session_timeout_ms,
        protocols=request.protocols,
        join_waiter=waiter,
        is_new=True,
    )
    if group.state is PREPARING_REBALANCE and group.previous_state is EMPTY:
        group.new_member_added = True
    group.add(member, request.protocol_type)
    # A new member has no id yet and cannot send heartbeats, nor is a lost connection seen while it waits:
    # its join times out, or retries from it would fill the group with members that are gone.
    member.deadline_ms = step.now_ms + step.config.new_member_join_timeout_ms
    group.wake_by(member.deadline_ms)
    rebalance_or_complete(group, f"member {member_id} joins (reason: {request.reason})", step)


def _rejoin(group: ClassicGroup, member: Member, request: JoinRequest, waiter: Waiter, step: Step) -> None:
    unchanged = member.protocols == request.protocols
    is_leader = group.leader_id == member.member_id
    if group.state is EMPTY:
        # No member can be in an empty group: let it start anew.
        step.reply(waiter, JoinResponse(ErrorCode.unknown_member_id, request.member_id))
    elif unchanged and (group.state is COMPLETING_REBALANCE or (group.state is STABLE and not is_leader)):
        # It may have missed the answer to its last JoinGroup. A leader that joins a stable group, though,
        # wants to assign anew, for instance because a topic has more partitions.
        step.reply(waiter, _current_generation(group, member))
    else:
        _update_member(group, member, request, waiter, step)
        rebalance_or_complete(group, f"member {member.member_id} rejoins (reason: {request.reason})", step)


def _update_member(
    group: ClassicGroup, member: Member, request: JoinRequest, waiter: Waiter, step: Step
) -> None:
    if member.join_waiter is not None:
        # A retry, probably on another connection. Nobody should wait for ever, so the old request is told
        # to come again.
        step.reply(member.join_waiter, JoinResponse(ErrorCode.rebalance_in_progress, member.member_id))
    group.update(member, request.protocols, request.rebalance_timeout_ms, request.session_timeout_ms)
    group.set_join_waiter(member, waiter)


def _current_generation(
    group: ClassicGroup, member: Member, *, skip_assignment: bool = False
) -> JoinResponse:
    return JoinResponse(
        error=NONE,
        member_id=member.member_id,
        generation_id=group.generation_id,
        protocol_type=group.protocol_type,
        protocol_name=group.protocol_name,
        leader=group.leader_id or "",
        skip_assignment=skip_assignment,
        members=_members_for_leader(group) if group.leader_id == member.member_id else (),
    )


def _members_for_leader(group: ClassicGroup) -> tuple[JoinedMember, ...]:
    name = group.protocol_name
    return tuple(
        [
            JoinedMember(member.member_id, member.group_instance_id, member.metadata(name))
            for member in group.members.values()
        ]
    )


# -- static members (KIP-345)


def _replace_static(group: ClassicGroup, request: JoinRequest, waiter: Waiter, step: Step) -> None:
    """A process comes back under its group.instance.id, and fences the one that had it until now."""
    instance_id = request.group_instance_id
    assert instance_id is not None
    old_id = group.static_members[instance_id]
    old_leader = group.leader_id
    member = group.members[old_id]
    answer_join(group, member, JoinResponse(ErrorCode.fenced_instance_id, old_id), step)
    answer_sync(member, SyncResponse(ErrorCode.fenced_instance_id), step)
    group.rename_static(instance_id, old_id, request.new_member_id)
    log.info(
        "group %s: static member %s is back, as member %s", group.group_id, instance_id, member.member_id
    )
    # From now on it knows its id and sends heartbeats.
    member.is_new = False
    group.extend_session(member, step.now_ms)
    _update_member(group, member, request, waiter, step)
    if group.state is STABLE:
        if group.select_protocol() == group.protocol_name:
            _store_replacement(group, member, old_leader, request, step)
        else:
            rebalance_or_complete(group, f"static member {instance_id} changes the protocol", step)
    elif group.state is COMPLETING_REBALANCE:
        # The leader may already be assigning to the old id.
        prepare_rebalance(group, f"static member {instance_id} came back", step)
    else:
        maybe_complete_join(group, step)


def _store_replacement(
    group: ClassicGroup, member: Member, old_leader: str | None, request: JoinRequest, step: Step
) -> None:
    """Nothing else changes, so no rebalance: keep the new id and, once it is stored, answer."""
    new_id = member.member_id
    generation_id = group.generation_id

    def is_current() -> bool:
        # Should a rebalance have begun, its end answers the member and stores its new id.
        return (
            group.state is STABLE
            and group.generation_id == generation_id
            and group.members.get(new_id) is member
        )

    def committed(step: Step) -> None:
        if not is_current():
            return
        if request.supports_skipping_assignment:
            response = _current_generation(group, member, skip_assignment=group.leader_id == new_id)
        else:
            # Without that field the leader must not know that it leads, or it would assign.
            response = _current_generation(group, member)._replace(leader=old_leader or "", members=())
        answer_join(group, member, response, step)

    def failed(code: ErrorCode, step: Step) -> None:
        # Kafka takes the new id back. But a later write that is under way may hold it, so that the log would
        # say otherwise: begin a generation, which stores all ids anew.
        if is_current():
            rebalance_or_complete(group, f"the new id {new_id} could not be stored: {code.name}", step)

    assignments = {each.member_id: each.assignment for each in group.members.values()}
    step.write((GroupRecord(group.group_id, group.to_metadata(assignments)),), committed, failed)


# -- the join phase


def rebalance_or_complete(group: ClassicGroup, reason: str, step: Step) -> None:
    if group.can_rebalance:
        prepare_rebalance(group, reason, step)
    else:
        maybe_complete_join(group, step)


def prepare_rebalance(group: ClassicGroup, reason: str, step: Step) -> None:
    """Ask all members to join again."""
    if group.state is COMPLETING_REBALANCE:
        _cancel_syncs(group, ErrorCode.rebalance_in_progress, step)
    group.pending_sync.clear()
    group.set_sync_deadline(NEVER_MS)
    is_initial = group.state is EMPTY
    log.debug(
        "group %s: preparing to rebalance from generation %d: %s", group.group_id, group.generation_id, reason
    )
    group.transition_to(PREPARING_REBALANCE, step.wall_ms)
    if is_initial:
        delay_ms = step.config.group_initial_rebalance_delay_ms
        group.is_initial_rebalance = True
        group.new_member_added = False
        group.initial_delay_ms = delay_ms
        group.initial_remaining_ms = max(group.rebalance_timeout_ms - delay_ms, 0)
        group.set_join_deadline(step.now_ms + delay_ms)
    elif group.all_joined:
        complete_join(group, step)
    else:
        group.set_join_deadline(step.now_ms + group.rebalance_timeout_ms)


def maybe_complete_join(group: ClassicGroup, step: Step) -> None:
    if group.state is PREPARING_REBALANCE and group.previous_state is not EMPTY and group.all_joined:
        complete_join(group, step)


def extend_initial_rebalance(group: ClassicGroup, step: Step) -> None:
    """The delay is over. As long as members kept coming, wait again, up to the rebalance timeout."""
    remaining_ms = group.initial_remaining_ms
    if not group.new_member_added or remaining_ms == 0:
        complete_join(group, step)
        return
    group.new_member_added = False
    delay_ms = min(step.config.group_initial_rebalance_delay_ms, remaining_ms)
    group.initial_remaining_ms = max(remaining_ms - group.initial_delay_ms, 0)
    group.initial_delay_ms = delay_ms
    group.set_join_deadline(step.now_ms + delay_ms)


def complete_join(group: ClassicGroup, step: Step) -> None:
    """Begin a generation with the members that have joined, and with static ones even if they have not."""
    group.set_join_deadline(NEVER_MS)
    group.is_initial_rebalance = False
    absent = [m.member_id for m in group.members.values() if m.join_waiter is None and not m.is_static]
    if absent:
        group.remove_all(absent)
        log.info("group %s: removed members that did not rejoin: %s", group.group_id, some_of(absent))
    if group.members and not group.elect_joined_leader():
        # Only static members that are away: wait for one, until their sessions end.
        group.set_join_deadline(step.now_ms + group.rebalance_timeout_ms)
        return
    group.next_generation(step.wall_ms)
    if group.state is EMPTY:
        log.info("group %s: empty at generation %d", group.group_id, group.generation_id)
        step.write(
            (GroupRecord(group.group_id, group.to_metadata({})),), _ignore, partial(_not_stored, group)
        )
        return
    log.info(
        "group %s: generation %d of %d members (%s)",
        group.group_id,
        group.generation_id,
        len(group.members),
        group.protocol_name,
    )
    _announce_generation(group, step)
    group.set_sync_deadline(step.now_ms + group.rebalance_timeout_ms)


def _announce_generation(group: ClassicGroup, step: Step) -> None:
    """Tell all who wait of the generation. There may be thousands: what is told is only noted here."""
    waiting: list[tuple[str, Waiter]] = []
    deadline_ms = NEVER_MS
    for member_id, member in group.members.items():
        if member.join_waiter is not None:
            waiting.append((member_id, member.join_waiter))
            member.join_waiter = None
        member.is_new = False
        member.deadline_ms = step.now_ms + member.session_timeout_ms
        deadline_ms = min(deadline_ms, member.deadline_ms)
    group.wake_by(deadline_ms)
    group.joining_count = 0
    group.pending_sync.update(group.members)
    step.reply_later(_generation_replies(group, waiting))


def _generation_replies(group: ClassicGroup, waiting: list[tuple[str, Waiter]]) -> Iterator[Reply]:
    """What those who wait are told of the generation, as the group is now."""
    leader_id, generation_id = group.leader_id or "", group.generation_id
    protocol_type, protocol_name = group.protocol_type, group.protocol_name
    members = [
        (member_id, member.group_instance_id, member.protocols) for member_id, member in group.members.items()
    ]

    def replies() -> Iterator[Reply]:
        for member_id, waiter in waiting:
            response = JoinResponse(NONE, member_id, generation_id, protocol_type, protocol_name, leader_id)
            if member_id == leader_id:
                joined = [
                    JoinedMember(i, instance, metadata_of(p, protocol_name)) for i, instance, p in members
                ]
                response = response._replace(members=tuple(joined))
            yield Reply(waiter, response)

    return replies()


def answer_join(group: ClassicGroup, member: Member, response: JoinResponse, step: Step) -> None:
    if member.join_waiter is not None:
        step.reply(member.join_waiter, response)
        group.set_join_waiter(member, None)


def dismiss(group: ClassicGroup, member_id: str, step: Step) -> None:
    """Remove a member. If it waits, it is told that it is unknown, and so joins anew if it is still there."""
    member = group.members.get(member_id)
    if member is not None:
        answer_waiting(group, member, step)
    group.remove(member_id)


def answer_waiting(group: ClassicGroup, member: Member, step: Step) -> None:
    """Tell a member that is about to be removed, if it waits, that it is unknown."""
    if member.join_waiter is not None:
        answer_join(group, member, JoinResponse(ErrorCode.unknown_member_id, UNKNOWN_MEMBER_ID), step)
    if member.sync_waiter is not None:
        answer_sync(member, SyncResponse(ErrorCode.unknown_member_id), step)


def _ignore(step: Step) -> None:
    pass


def _not_stored(group: ClassicGroup, code: ErrorCode, step: Step) -> None:
    # Harmless: after a fail-over the last generation would come back, and its members' sessions time out.
    log.warning("group %s: the end of generation could not be stored: %s", group.group_id, code.name)


# -- the sync phase


def sync(group: ClassicGroup, request: SyncRequest, waiter: Waiter, step: Step) -> None:
    """Handle a SyncGroup. The answer comes now or when the leader's assignment is stored."""
    try:
        member = _check_sync(group, request)
    except KafkaError as error:
        step.reply(waiter, SyncResponse(error.code))
        return
    group.pending_sync.discard(member.member_id)
    if not group.pending_sync:
        group.set_sync_deadline(NEVER_MS)
    if group.state is STABLE:
        step.reply(waiter, SyncResponse(NONE, group.protocol_type, group.protocol_name, member.assignment))
        return
    if member.sync_waiter is not None:
        step.reply(member.sync_waiter, SyncResponse(ErrorCode.rebalance_in_progress))
    member.sync_waiter = waiter
    if group.leader_id == member.member_id and group.storing_generation_id != group.generation_id:
        _store_assignment(group, request, step)


def _check_sync(group: ClassicGroup, request: SyncRequest) -> Member:
    if group.state is EMPTY:
        raise KafkaError(ErrorCode.unknown_member_id)
    member = group.check_member(request.member_id, request.group_instance_id)
    if request.generation_id != group.generation_id:
        raise KafkaError(ErrorCode.illegal_generation)
    for given, actual in (
        (request.protocol_type, group.protocol_type),
        (request.protocol_name, group.protocol_name),
    ):
        if given is not None and actual is not None and given != actual:
            raise KafkaError(ErrorCode.inconsistent_group_protocol)
    if group.state is PREPARING_REBALANCE:
        raise KafkaError(ErrorCode.rebalance_in_progress)
    return member


def _store_assignment(group: ClassicGroup, request: SyncRequest, step: Step) -> None:
    generation_id = group.storing_generation_id = group.generation_id
    assignments = {member_id: request.assignments.get(member_id, b"") for member_id in group.members}

    def is_current() -> bool:
        # Another member may have joined, or the leader been lost, while the write was under way.
        return group.state is COMPLETING_REBALANCE and group.generation_id == generation_id

    def committed(step: Step) -> None:
        if not is_current():
            return
        waiting: list[tuple[Waiter, bytes]] = []
        for member_id, member in group.members.items():
            member.assignment = assignment = assignments[member_id]
            if member.sync_waiter is not None:
                waiting.append((member.sync_waiter, assignment))
                member.sync_waiter = None
                # Its session may have run out while it waited, which does not count.
                group.extend_session(member, step.now_ms)
        step.reply_later(_assignment_replies(group.protocol_type, group.protocol_name, waiting))
        group.transition_to(STABLE, step.wall_ms)

    def failed(code: ErrorCode, step: Step) -> None:
        if not is_current():
            return
        group.storing_generation_id = None
        _cancel_syncs(group, append_error(code), step)
        rebalance_or_complete(group, f"the assignment could not be stored: {code.name}", step)

    step.write((GroupRecord(group.group_id, group.to_metadata(assignments)),), committed, failed)


def _assignment_replies(
    protocol_type: str | None, protocol_name: str | None, waiting: list[tuple[Waiter, bytes]]
) -> Iterator[Reply]:
    for waiter, assignment in waiting:
        yield Reply(waiter, SyncResponse(NONE, protocol_type, protocol_name, assignment))


def _cancel_syncs(group: ClassicGroup, error: ErrorCode, step: Step) -> None:
    response = SyncResponse(error)
    for member in group.members.values():
        member.assignment = b""
        if answer_sync(member, response, step):
            group.extend_session(member, step.now_ms)


def answer_sync(member: Member, response: SyncResponse, step: Step) -> bool:
    if member.sync_waiter is None:
        return False
    step.reply(member.sync_waiter, response)
    member.sync_waiter = None
    return True
