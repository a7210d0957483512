"""What OffsetCommit and TxnOffsetCommit have in common: their topics, and the answers for each partition."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from ottla.broker.large import AT_ONCE_MAX, Fields, Framed, in_pieces
from ottla.broker.request import RequestContext
from ottla.coordinators.groups.requests import PartitionErrors, TopicToCommit
from ottla.env.deferred import Deferred
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.image import ClusterImage
from ottla.security.acl_bindings import Operation, ResourceType
from ottla.wire.commits import OffsetToCommit

# What is to be committed of a topic, and the answers for its partitions.
Commit = tuple[list[Fields], TopicToCommit]
Answer = Fields | Deferred[Fields] | Awaitable[Framed]


def commit_existing(
    ctx: RequestContext,
    request: Any,
    commit: Callable[[Sequence[TopicToCommit]], Deferred[PartitionErrors]],
    *,
    by_id: bool,
) -> Answer:
    """Have those partitions of a request committed that exist, and answer for all of them.

    UNKNOWN_TOPIC_OR_PARTITION, or UNKNOWN_TOPIC_ID, for the others; TOPIC_AUTHORIZATION_FAILED for those that
    the client may not read, of a name whether there is such a topic or not. ``by_id``: topics have ids, not
    names.
    """
    image: ClusterImage = ctx.services.metadata.image
    responses: list[Fields] = []
    commits: list[Commit] = []
    count = 0
    for topic in request.topics:
        count += 1 + len(topic.partitions)
        answers: list[Fields] = []
        resolved = _resolve(ctx, image, topic, by_id, answers)
        if by_id:
            response = {"topic_id": topic.topic_id, "partitions": answers}
        else:
            response = {"name": topic.name, "partitions": answers}
        responses.append(response)
        if resolved is not None:
            commits.append((answers, resolved))
    fields: Fields = {"throttle_time_ms": 0, "topics": responses}
    if not commits:
        return in_pieces(ctx, fields) if count > AT_ONCE_MAX else fields
    answer: Deferred[Fields] = Deferred()
    commit([topic for _, topic in commits]).listen(partial(_committed, commits, fields, answer))
    return _large(ctx, answer) if count > AT_ONCE_MAX else answer


async def _large(ctx: RequestContext, answer: Deferred[Fields]) -> Framed:
    return await in_pieces(ctx, await answer)


def _resolve(
    ctx: RequestContext, image: ClusterImage, topic: Any, by_id: bool, answers: list[Fields]
) -> TopicToCommit | None:
    """What of a topic can be committed; to ``answers`` comes what does not exist, or is not for it."""
    error = ErrorCode.unknown_topic_or_partition
    if by_id:
        found = image.topics_by_id.get(topic.topic_id)
        if found is None:
            error = ErrorCode.unknown_topic_id
    else:
        found = image.topics.get(topic.name)
    if not (by_id and found is None):
        name = topic.name if found is None else found.name
        if not ctx.may(Operation.READ, ResourceType.TOPIC, name):
            found, error = None, ErrorCode.topic_authorization_failed
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
                {"partition_index": each.partition_index, "error_code": error.code}
                for each in commit.partitions
            ]
    else:
        answer.fail(error)
        return
    answer.resolve(fields)
