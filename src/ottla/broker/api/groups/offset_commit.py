"""OffsetCommit: store where a group is in its partitions.

v2-4 have a retention time of their own; v3 throttle time; v6 leader epochs; v7 static members; v8 flexible;
v9 the consumer protocol, and GROUP_ID_NOT_FOUND; v10 topic ids in place of names. Topics and partitions that
do not exist get UNKNOWN_TOPIC_OR_PARTITION, or UNKNOWN_TOPIC_ID; the others are committed all the same.
"""

from __future__ import annotations

from collections.abc import Awaitable
from functools import partial
from typing import Any

from ottla.broker.large import AT_ONCE_MAX, Fields, Framed, in_pieces
from ottla.broker.request import RequestContext
from ottla.coordinators.groups.requests import (
    CommitRequest,
    OffsetToCommit,
    PartitionErrors,
    TopicToCommit,
)
from ottla.env.deferred import Deferred
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.image import ClusterImage

FIRST_VERSION_WITH_GROUP_ID_NOT_FOUND = 9
FIRST_VERSION_WITH_TOPIC_IDS = 10

# What is to be committed of a topic, and the answers for its partitions.
Commit = tuple[list[Fields], TopicToCommit]


def handle(ctx: RequestContext, request: Any) -> Fields | Deferred[Fields] | Awaitable[Framed]:
    image: ClusterImage = ctx.services.metadata.image
    responses: list[Fields] = []
    commits: list[Commit] = []
    count = 0
    by_id = ctx.api_version >= FIRST_VERSION_WITH_TOPIC_IDS
    for topic in request.topics:
        count += 1 + len(topic.partitions)
        answers: list[Fields] = []
        commit = _resolve(image, topic, by_id, answers)
        if by_id:
            response = {"topic_id": topic.topic_id, "partitions": answers}
        else:
            response = {"name": topic.name, "partitions": answers}
        responses.append(response)
        if commit is not None:
            commits.append((answers, commit))
    fields: Fields = {"throttle_time_ms": 0, "topics": responses}
    if not commits:
        return in_pieces(ctx, fields) if count > AT_ONCE_MAX else fields
    answer: Deferred[Fields] = Deferred()
    ctx.services.groups.commit(_asked(ctx, request, commits)).listen(
        partial(_committed, commits, fields, answer)
    )
    return _large(ctx, answer) if count > AT_ONCE_MAX else answer


async def _large(ctx: RequestContext, answer: Deferred[Fields]) -> Framed:
    return await in_pieces(ctx, await answer)


def _resolve(image: ClusterImage, topic: Any, by_id: bool, answers: list[Fields]) -> TopicToCommit | None:
    """What of a topic can be committed; to ``answers`` comes what does not exist."""
    error = ErrorCode.unknown_topic_or_partition
    if by_id:
        found = image.topics_by_id.get(topic.topic_id)
        if found is None:
            error = ErrorCode.unknown_topic_id
    else:
        found = image.topics.get(topic.name)
    count = 0 if found is None else len(found.partitions)
    offsets: list[OffsetToCommit] = []
    for each in topic.partitions:
        index = each.partition_index
        if 0 <= index < count:
            leader_epoch = getattr(each, "committed_leader_epoch", -1)
            fields = (index, each.committed_offset, leader_epoch, each.committed_metadata)
            offsets.append(tuple.__new__(OffsetToCommit, fields))
        else:
            answers.append({"partition_index": index, "error_code": error})
    if found is None or not offsets:
        return None
    return TopicToCommit(found.name, found.topic_id, offsets)


def _asked(ctx: RequestContext, request: Any, commits: list[Commit]) -> CommitRequest:
    return CommitRequest(
        group_id=request.group_id,
        generation_id=request.generation_id_or_member_epoch,
        member_id=request.member_id,
        group_instance_id=getattr(request, "group_instance_id", None),
        retention_time_ms=getattr(request, "retention_time_ms", -1),
        knows_group_id_not_found=ctx.api_version >= FIRST_VERSION_WITH_GROUP_ID_NOT_FOUND,
        topics=[commit for _, commit in commits],
    )


def _committed(
    commits: list[Commit], fields: Fields, answer: Deferred[Fields], done: Deferred[PartitionErrors]
) -> None:
    """The offsets are stored, or are not: say so of each partition."""
    error = done.error
    if error is None:
        for (answers, _), (_, errors) in zip(commits, done.result(), strict=True):
            answers += [{"partition_index": partition, "error_code": error} for partition, error in errors]
    elif isinstance(error, KafkaError):
        for answers, commit in commits:
            answers += [
                {"partition_index": each.partition, "error_code": error.code} for each in commit.partitions
            ]
    else:
        answer.fail(error)
        return
    answer.resolve(fields)
