"""OffsetCommit: store where a group is in its partitions.

v2-4 have a retention time of their own; v3 throttle time; v6 leader epochs; v7 static members; v8 flexible;
v9 the consumer protocol, and GROUP_ID_NOT_FOUND; v10 topic ids in place of names. Topics and partitions that
do not exist get UNKNOWN_TOPIC_OR_PARTITION, or UNKNOWN_TOPIC_ID, those of topics that the client may not read
TOPIC_AUTHORIZATION_FAILED; the others are committed all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from ottla.broker.api.groups.commits import Answer, commit_existing
from ottla.broker.large import Framed
from ottla.broker.request import Fields, RequestContext
from ottla.coordinators.groups.requests import CommitRequest, PartitionErrors, TopicToCommit
from ottla.env.deferred import Deferred
from ottla.errors import KafkaError
from ottla.metadata.image import ClusterImage
from ottla.security.acl_bindings import Operation, ResourceType
from ottla.wire.commits import TOPIC_IDS_SINCE, OffsetCommit, write_committed
from ottla.wire.messages import RequestHeader

FIRST_VERSION_WITH_GROUP_ID_NOT_FOUND: Final = 9
_READ: Final = Operation.READ
_TOPIC: Final = ResourceType.TOPIC


def handle(ctx: RequestContext, request: Any) -> Answer:
    by_id = ctx.header.api_version >= TOPIC_IDS_SINCE
    if isinstance(request, OffsetCommit):
        topics = _find_all(ctx.services.metadata.image, request, by_id)
        if topics is not None and ctx.client.permissions is not None and not _may_read_all(ctx, topics):
            topics = None
        if topics is not None:
            answer = _Answer(ctx.header, request, topics)
            ctx.services.groups.commit(_asked(ctx, request, topics), answer)
            return answer
    return commit_existing(ctx, request, partial(_commit, ctx, request), by_id=by_id)


def _find_all(image: ClusterImage, asked: OffsetCommit, by_id: bool) -> list[TopicToCommit] | None:
    """What is to be committed, where all of it exists, as nearly always; None where something does not."""
    commits: list[TopicToCommit] = []
    for topic in asked.topics:
        found = image.topics_by_id.get(topic.topic_id) if by_id else image.topics.get(topic.name)
        partitions = topic.partitions
        if found is None or not partitions:
            return None
        count = len(found.partitions)
        for index, _, _, _ in partitions:
            if not 0 <= index < count:
                return None
        commits.append(TopicToCommit(found.name, found.topic_id, partitions))
    return commits or None


def _may_read_all(ctx: RequestContext, topics: Sequence[TopicToCommit]) -> bool:
    for topic in topics:
        name = topic.topic
        if not ctx.may(_READ, _TOPIC, name):
            return False
    return True


def _asked(ctx: RequestContext, request: OffsetCommit, topics: Sequence[TopicToCommit]) -> CommitRequest:
    return CommitRequest(
        request.group_id,
        request.generation_id_or_member_epoch,
        request.member_id,
        request.group_instance_id,
        request.retention_time_ms,
        ctx.header.api_version >= FIRST_VERSION_WITH_GROUP_ID_NOT_FOUND,
        topics,
    )


def _commit(ctx: RequestContext, request: Any, topics: Sequence[TopicToCommit]) -> Deferred[PartitionErrors]:
    """As the codec has read it, or not."""
    return ctx.services.groups.commit(
        CommitRequest(
            request.group_id,
            request.generation_id_or_member_epoch,
            request.member_id,
            getattr(request, "group_instance_id", None),
            getattr(request, "retention_time_ms", -1),
            ctx.api_version >= FIRST_VERSION_WITH_GROUP_ID_NOT_FOUND,
            topics,
        )
    )


class _Answer(Deferred[Any]):
    """Told what has become of all that a request names; what it gives is written already."""

    __slots__ = ("_asked", "_header", "_topics")

    def __init__(self, header: RequestHeader, asked: OffsetCommit, topics: Sequence[TopicToCommit]) -> None:
        super().__init__()
        self._header = header
        self._asked = asked
        self._topics = topics

    def resolve(self, value: PartitionErrors) -> None:
        if not self.done:
            self._write([[each[1] for each in errors] for _, errors in value])

    def fail(self, error: BaseException) -> None:
        if self.done:
            return
        if isinstance(error, KafkaError):
            self._write([[int(error.code)] * len(topic.partitions) for topic in self._topics])
        else:
            super().fail(error)

    def _write(self, codes: Sequence[Sequence[int]]) -> None:
        header = self._header
        written = write_committed(header.api_version, header.correlation_id, self._asked, codes)
        refused: list[Fields] = [{"error_code": code} for each in codes for code in each if code]
        super().resolve(Framed([written], refused))
