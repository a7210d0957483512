"""OffsetCommit: store where a group is in its partitions.

v2-4 have a retention time of their own; v3 throttle time; v6 leader epochs; v7 static members; v8 flexible;
v9 the consumer protocol, and GROUP_ID_NOT_FOUND; v10 topic ids in place of names. Topics and partitions that
do not exist get UNKNOWN_TOPIC_OR_PARTITION, or UNKNOWN_TOPIC_ID; the others are committed all the same.
"""

from __future__ import annotations

from typing import Any

from ottla.broker.context import RequestContext
from ottla.coordinators.requests import CommitRequest, OffsetToCommit, PartitionError, TopicToCommit
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.image import ClusterImage

FIRST_VERSION_WITH_GROUP_ID_NOT_FOUND = 9
FIRST_VERSION_WITH_TOPIC_IDS = 10


async def handle(ctx: RequestContext, request: Any) -> dict[str, Any]:
    image = ctx.services.metadata.image
    responses: list[dict[str, Any]] = []
    commits: list[tuple[dict[str, Any], TopicToCommit]] = []
    for topic in request.topics:
        if ctx.api_version >= FIRST_VERSION_WITH_TOPIC_IDS:
            response = {"topic_id": topic.topic_id, "partitions": []}
        else:
            response = {"name": topic.name, "partitions": []}
        responses.append(response)
        errors, commit = _resolve(image, topic, ctx.api_version)
        _add(response, errors)
        if commit is not None:
            commits.append((response, commit))
    if commits:
        await _commit(ctx, request, commits)
    return {"throttle_time_ms": 0, "topics": responses}


def _resolve(
    image: ClusterImage, topic: Any, version: int
) -> tuple[list[PartitionError], TopicToCommit | None]:
    """What of a topic cannot be committed because it does not exist, and what can."""
    error = ErrorCode.unknown_topic_or_partition
    if version >= FIRST_VERSION_WITH_TOPIC_IDS:
        found = image.topics_by_id.get(topic.topic_id)
        if found is None:
            error = ErrorCode.unknown_topic_id
    else:
        found = image.topics.get(topic.name)
    count = 0 if found is None else len(found.partitions)
    errors: list[PartitionError] = []
    offsets: list[OffsetToCommit] = []
    for each in topic.partitions:
        index = each.partition_index
        if 0 <= index < count:
            leader_epoch = getattr(each, "committed_leader_epoch", -1)
            offsets.append(
                OffsetToCommit(index, each.committed_offset, leader_epoch, each.committed_metadata)
            )
        else:
            errors.append(PartitionError(index, error))
    if found is None or not offsets:
        return errors, None
    return errors, TopicToCommit(found.name, found.topic_id, offsets)


async def _commit(
    ctx: RequestContext, request: Any, commits: list[tuple[dict[str, Any], TopicToCommit]]
) -> None:
    try:
        results = await ctx.services.groups.commit(
            CommitRequest(
                group_id=request.group_id,
                generation_id=request.generation_id_or_member_epoch,
                member_id=request.member_id,
                group_instance_id=getattr(request, "group_instance_id", None),
                retention_time_ms=getattr(request, "retention_time_ms", -1),
                knows_group_id_not_found=ctx.api_version >= FIRST_VERSION_WITH_GROUP_ID_NOT_FOUND,
                topics=[commit for _, commit in commits],
            )
        )
    except KafkaError as error:
        for response, commit in commits:
            _add(response, [PartitionError(each.partition, error.code) for each in commit.partitions])
        return
    for (response, _), (_, errors) in zip(commits, results, strict=True):
        _add(response, errors)


def _add(response: dict[str, Any], errors: list[PartitionError]) -> None:
    response["partitions"] += [
        {"partition_index": partition, "error_code": error} for partition, error in errors
    ]
