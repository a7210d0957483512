"""OffsetForLeaderEpoch: where an epoch's records end in this leader's log (KIP-101, KIP-279, KIP-320).

v2 the leader epoch that the client believes in; v3 replica id; v4 flexible.
"""

from __future__ import annotations

from typing import Any

from ottla.broker.context import RequestContext
from ottla.errors import ErrorCode, KafkaError


def handle(ctx: RequestContext, request: Any) -> dict[str, Any]:
    """FENCED_LEADER_EPOCH, UNKNOWN_LEADER_EPOCH, NOT_LEADER_OR_FOLLOWER, UNKNOWN_TOPIC_OR_PARTITION."""
    return {
        "topics": [
            {"topic": topic.topic, "partitions": [_answer(ctx, topic.topic, p) for p in topic.partitions]}
            for topic in request.topics
        ],
        "throttle_time_ms": 0,
    }


def _answer(ctx: RequestContext, topic: str, asked: Any) -> dict[str, Any]:
    answer = {"partition": asked.partition, "error_code": ErrorCode.none}
    try:
        partition = ctx.services.replicas.get(topic, asked.partition)
        partition.check_leader(asked.current_leader_epoch)
        epoch, end_offset = partition.epoch_end_offset(asked.leader_epoch)
    except KafkaError as error:
        return answer | {"error_code": error.code, "leader_epoch": -1, "end_offset": -1}
    return answer | {"leader_epoch": epoch, "end_offset": end_offset}
