"""OffsetCommit: store where a group is in its partitions.

v2-4 have a retention time of their own; v3 throttle time; v6 leader epochs; v7 static members; v8 flexible;
v9 the consumer protocol, and GROUP_ID_NOT_FOUND; v10 topic ids in place of names. Topics and partitions that
do not exist get UNKNOWN_TOPIC_OR_PARTITION, or UNKNOWN_TOPIC_ID; the others are committed all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from ottla.broker.api.groups.commits import Answer, commit_existing
from ottla.broker.request import RequestContext
from ottla.coordinators.groups.requests import CommitRequest, PartitionErrors, TopicToCommit
from ottla.env.deferred import Deferred

FIRST_VERSION_WITH_GROUP_ID_NOT_FOUND = 9
FIRST_VERSION_WITH_TOPIC_IDS = 10


def handle(ctx: RequestContext, request: Any) -> Answer:
    by_id = ctx.api_version >= FIRST_VERSION_WITH_TOPIC_IDS
    return commit_existing(ctx, request, partial(_commit, ctx, request), by_id=by_id)


def _commit(ctx: RequestContext, request: Any, topics: Sequence[TopicToCommit]) -> Deferred[PartitionErrors]:
    return ctx.services.groups.commit(
        CommitRequest(
            group_id=request.group_id,
            generation_id=request.generation_id_or_member_epoch,
            member_id=request.member_id,
            group_instance_id=getattr(request, "group_instance_id", None),
            retention_time_ms=getattr(request, "retention_time_ms", -1),
            knows_group_id_not_found=ctx.api_version >= FIRST_VERSION_WITH_GROUP_ID_NOT_FOUND,
            topics=topics,
        )
    )
