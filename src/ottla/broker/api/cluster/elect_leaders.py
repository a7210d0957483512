"""ElectLeaders: have partitions led by their preferred replicas, or by anybody (KIP-183, KIP-460,
ReplicationControlManager.electLeaders).

v0 elects preferred replicas only, v1 adds the type of election and a top-level error, v2 is flexible. Type 1,
unclean, is for partitions without a leader: it takes any replica that lives, and may lose records. Null asks
for all partitions: those for which there is nothing to do are left out of the answer. Each partition stands
on its own, and the image has its new leader when the answer arrives.
"""

from __future__ import annotations

from typing import Any

from ottla.broker.large import AT_ONCE_MAX, Framed, in_pieces, is_large, listed, mapped
from ottla.broker.request import RequestContext
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.partition_admin import change_each, elects_preferred, elects_unclean
from ottla.types import TopicPartition

Fields = dict[str, Any]

PREFERRED, UNCLEAN = 0, 1


async def handle(ctx: RequestContext, request: Any) -> Fields | Framed:
    kind = getattr(request, "election_type", PREFERRED)
    if kind not in (PREFERRED, UNCLEAN) and request.topic_partitions != ():
        raise KafkaError(ErrorCode.invalid_request, f"Unknown election type {kind}")
    plan = elects_preferred if kind == PREFERRED else elects_unclean
    asked: dict[str, list[int]] = {}
    if request.topic_partitions is None:
        topics = ctx.services.metadata.image.topics.values()
        asked = {topic.name: list(range(len(topic.partitions))) for topic in topics}
    else:
        for topic in request.topic_partitions:
            asked.setdefault(topic.topic, []).extend(topic.partitions)
    plans = {TopicPartition(name, index): plan for name, indexes in asked.items() for index in indexes}
    results = await change_each(ctx.services.metadata, ctx.services.config, plans)
    if request.topic_partitions is None:
        needless = ErrorCode.election_not_needed
        results = {where: error for where, error in results.items() if not error or error.code != needless}
    found = [
        (name, answers)
        for name, indexes in asked.items()
        if (answers := [i for i in indexes if TopicPartition(name, i) in results])
    ]
    is_much = len(results) > AT_ONCE_MAX or is_large(ctx)
    each = mapped if is_much else listed

    def topic_fields(topic: tuple[str, list[int]]) -> Fields:
        name, indexes = topic

        def fields(index: int) -> Fields:
            return _fields(index, results[TopicPartition(name, index)])

        return {"topic": name, "partition_result": each(fields, indexes)}

    fields = {"throttle_time_ms": 0, "error_code": 0, "replica_election_results": each(topic_fields, found)}
    return await in_pieces(ctx, fields) if is_much else fields


def _fields(index: int, error: KafkaError | None) -> Fields:
    return {
        "partition_id": index,
        "error_code": 0 if error is None else int(error.code),
        "error_message": None if error is None else error.text,
    }
