"""How members of a classic group come, stay, leave and are lost; and what a fail-over does to them.

Continues `rebalance`, to which every change of membership leads.
"""

from __future__ import annotations

import logging

from ottla.coordinators.groups.classic_group import (
    COMPLETING_REBALANCE,
    DEAD,
    EMPTY,
    PREPARING_REBALANCE,
    STABLE,
    ClassicGroup,
)
from ottla.coordinators.groups.member import Member, some_of
from ottla.coordinators.groups.rebalance import (
    answer_join,
    answer_sync,
    answer_waiting,
    complete_join,
    dismiss,
    extend_initial_rebalance,
    maybe_complete_join,
    prepare_rebalance,
    rebalance_or_complete,
)
from ottla.coordinators.groups.requests import (
    UNKNOWN_MEMBER_ID,
    JoinResponse,
    LeaveResponse,
    LeavingMember,
    LeftMember,
    SyncResponse,
)
from ottla.coordinators.groups.step import Step
from ottla.coordinators.runtime.step import NEVER_MS, Waiter, Write, append_error
from ottla.errors import ErrorCode, KafkaError

log = logging.getLogger(__name__)

NONE = ErrorCode.none

# Sessions of one group that are ended in one piece, each with a line in the log.
SESSIONS_PIECE = 200


# -- heartbeats


def heartbeat(
    group: ClassicGroup, member_id: str, group_instance_id: str | None, generation_id: int, now_ms: int
) -> ErrorCode:
    """Handle a Heartbeat; the hot path of a stable group."""
    try:
        member = group.check_member(member_id, group_instance_id)
    except KafkaError as error:
        return error.code
    if generation_id != group.generation_id:
        return ErrorCode.illegal_generation
    state = group.state
    if state is EMPTY:
        return ErrorCode.unknown_member_id
    group.extend_session(member, now_ms)
    return ErrorCode.rebalance_in_progress if state is PREPARING_REBALANCE else NONE


# -- leaving


def leave(group: ClassicGroup, leaving: tuple[LeavingMember, ...], waiter: Waiter, step: Step) -> None:
    """Handle a LeaveGroup. The answer waits until an end of the group's last generation is stored."""
    results = tuple(_leave_one(group, each, step) for each in leaving)
    writes_before = len(step.writes)
    if any(result.error == NONE for result in results):
        if group.state is STABLE or group.state is COMPLETING_REBALANCE:
            rebalance_or_complete(group, "members left", step)
        elif group.state is PREPARING_REBALANCE:
            maybe_complete_join(group, step)
    response = LeaveResponse(NONE, results)
    if len(step.writes) == writes_before:
        step.reply(waiter, response)
        return
    write = step.writes[-1]

    def failed(code: ErrorCode, step: Step) -> None:
        write.failed(code, step)
        step.reply(waiter, LeaveResponse(append_error(code)))

    step.writes[-1] = Write(
        write.records, lambda step: step.reply(waiter, response), failed, write.about, write.producer
    )


def _leave_one(group: ClassicGroup, leaving: LeavingMember, step: Step) -> LeftMember:
    member_id, instance_id = leaving.member_id, leaving.group_instance_id
    error = NONE
    if member_id == UNKNOWN_MEMBER_ID:
        owner = group.static_members.get(instance_id) if instance_id is not None else None
        if owner is None:
            error = ErrorCode.unknown_member_id
        else:
            dismiss(group, owner, step)
    elif member_id in group.pending:
        group.remove(member_id)
    else:
        try:
            group.check_member(member_id, instance_id)
        except KafkaError as refusal:
            error = refusal.code
        else:
            dismiss(group, member_id, step)
    if error == NONE:
        why = f" ({leaving.reason})" if leaving.reason else ""
        log.info("group %s: member %s left%s", group.group_id, member_id or instance_id, why)
    return LeftMember(member_id, instance_id, error)


# -- time


def expire(group: ClassicGroup, step: Step) -> None:
    """Do what was due by ``step.now_ms``, and find when to wake next."""
    now_ms = step.now_ms
    if group.join_deadline_ms <= now_ms:
        if group.is_initial_rebalance:
            extend_initial_rebalance(group, step)
        else:
            complete_join(group, step)
    if group.sync_deadline_ms <= now_ms:
        _expire_sync(group, step)
    for member_id in [each for each, deadline_ms in group.pending.items() if deadline_ms <= now_ms]:
        group.remove(member_id)
        if group.state is PREPARING_REBALANCE and group.all_joined:
            complete_join(group, step)
    ended = [each for each in group.members.values() if each.deadline_ms <= now_ms]
    for member in ended[:SESSIONS_PIECE]:
        # One that ends a rebalance gives those that wait a new session.
        if group.members.get(member.member_id) is member and member.deadline_ms <= now_ms:
            _expire_session(group, member, step)
    # At once, where there are more whose sessions have ended.
    group.reset_wake()


def _expire_sync(group: ClassicGroup, step: Step) -> None:
    group.set_sync_deadline(NEVER_MS)
    if group.state is not COMPLETING_REBALANCE and group.state is not STABLE:
        return
    absent = sorted(group.pending_sync)
    if not absent:
        return
    for member_id in absent:
        answer_waiting(group, group.members[member_id], step)
    group.remove_all(absent)
    prepare_rebalance(group, f"members did not sync: {some_of(absent)}", step)


def _expire_session(group: ClassicGroup, member: Member, step: Step) -> None:
    waits = member.join_waiter is not None or member.sync_waiter is not None
    if waits and not member.is_new:
        # It is there: the broker keeps it waiting. Its session begins again with the answer.
        member.deadline_ms = NEVER_MS
        return
    log.info("group %s: the session of member %s has ended", group.group_id, member.member_id)
    dismiss(group, member.member_id, step)
    if group.state is STABLE or group.state is COMPLETING_REBALANCE:
        rebalance_or_complete(group, f"the session of {member.member_id} has ended", step)
    elif group.state is PREPARING_REBALANCE and group.all_joined:
        complete_join(group, step)


# -- fail-over


def resume(group: ClassicGroup, step: Step) -> None:
    """The group was loaded: give each member a session's time to show itself."""
    for member in group.members.values():
        group.extend_session(member, step.now_ms)
    if len(group.members) > step.config.group_max_size:
        # The limit was lowered; whoever rejoins first stays, and all can commit their offsets before.
        prepare_rebalance(group, "the group is larger than group.max.size", step)


def abandon(group: ClassicGroup, step: Step) -> None:
    """Another node coordinates the group from now on: tell all who wait."""
    for member in group.members.values():
        answer_join(group, member, JoinResponse(ErrorCode.not_coordinator, member.member_id), step)
        answer_sync(member, SyncResponse(ErrorCode.not_coordinator), step)
    group.transition_to(DEAD, step.wall_ms)
    group.forget()
    group.wake_ms = NEVER_MS
