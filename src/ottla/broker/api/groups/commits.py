"""What OffsetCommit and TxnOffsetCommit have in common: their topics, and the answers for each partition."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from functools import partial
from typing import Any

from ottla.broker.large import AT_ONCE_MAX, Fields, Framed, in_pieces
from ottla.broker.request import RequestContext
from ottla.coordinators.groups.requests import PartitionErrors, TopicToCommit
from ottla.env.deferred import Deferred
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.image import ClusterImage
from ottla.pieces import whole
from ottla.security.acl_bindings import Operation, ResourceType
from ottla.wire.commits import OffsetToCommit

# What is to be committed of a topic, and the answers for its partitions.
Commit = tuple[list[Fields], TopicToCommit]
Answer = Fields | Deferred[Fields] | Awaitable[Framed]
Committing = Callable[[Sequence[TopicToCommit]], Deferred[PartitionErrors]]
Resolving = Generator[None, None, tuple[list[Commit], Fields]]


def commit_existing(
    ctx: RequestContext,
    request: Any,
    commit: Committing,
    *,
    by_id: bool,
) -> Answer:
    """Have those partitions of a request committed that exist, and answer for all of them.

    UNKNOWN_TOPIC_OR_PARTITION, or UNKNOWN_TOPIC_ID, for the others; TOPIC_AUTHORIZATION_FAILED for those that
    the client may not read, of a name whether there is such a topic or not. ``by_id``: topics have ids, not
    names.
    """
    work = _resolve_all(ctx, request.topics, by_id)
    if sum(len(topic.partitions) for topic in request.topics) + len(request.topics) > AT_ONCE_MAX:
        return _slowly(ctx, work, commit)
    return _commit_all(*whole(work), commit)


async def _slowly(ctx: RequestContext, work: Resolving, commit: Committing) -> Framed:
    commits, answer = await ctx.services.slices.run(work)
    # Since it was looked up a topic may have been deleted, with the offsets of it that groups had.
    there = ctx.services.metadata.image.topics_by_id
    gone = [(answers, topic) for answers, topic in commits if topic.topic_id not in there]
    for answers, topic in gone:
        answers += [
            {"partition_index": each.partition_index, "error_code": ErrorCode.unknown_topic_or_partition}
            for each in topic.partitions
        ]
    if gone:
        commits = [each for each in commits if each[1].topic_id in there]
    fields = _commit_all(commits, answer, commit)
    return await in_pieces(ctx, fields if isinstance(fields, dict) else await fields)


def _commit_all(commits: list[Commit], fields: Fields, commit: Committing) -> Fields | Deferred[Fields]:
    if not commits:
        return fields
    answer: Deferred[Fields] = Deferred()
    commit([topic for _, topic in commits]).listen(partial(_committed, commits, fields, answer))
    return answer


def _resolve_all(ctx: RequestContext, topics: Sequence[Any], by_id: bool) -> Resolving:
    """What is to be committed, and the answer in the making; in pieces."""
    image: ClusterImage = ctx.services.metadata.image
    responses: list[Fields] = []
    commits: list[Commit] = []
    for done, topic in enumerate(topics, 1):
        answers: list[Fields] = []
        resolved = _resolve(ctx, image, topic, by_id, answers)
        if by_id:
            response = {"topic_id": topic.topic_id, "partitions": answers}
        else:
            response = {"name": topic.name, "partitions": answers}
        responses.append(response)
        if resolved is not None:
            commits.append((answers, resolved))
        if done % AT_ONCE_MAX == 0:
            yield
    return commits, {"throttle_time_ms": 0, "topics": responses}


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
