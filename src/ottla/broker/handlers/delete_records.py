"""DeleteRecords: move the start of a partition's log forward (KIP-107).

v2 flexible. Offset -1 means the high watermark. The new start is on the disk before it is answered.
"""

from __future__ import annotations

from typing import Any

from ottla.broker.context import RequestContext
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.image import INTERNAL_TOPICS

HIGH_WATERMARK = -1


async def handle(ctx: RequestContext, request: Any) -> dict[str, Any]:
    """OFFSET_OUT_OF_RANGE past the high watermark; POLICY_VIOLATION where the topic does not delete;
    INVALID_TOPIC_EXCEPTION for an internal one; KAFKA_STORAGE_ERROR where it cannot be made to last."""
    topics: list[dict[str, Any]] = [
        {"name": topic.name, "partitions": [_delete(ctx, topic.name, p) for p in topic.partitions]}
        for topic in request.topics
    ]
    try:
        await ctx.services.log_manager.checkpoint_log_starts()
    except OSError:
        for answer in (answer for topic in topics for answer in topic["partitions"]):
            if answer["error_code"] == ErrorCode.none:
                answer |= {"error_code": ErrorCode.kafka_storage_error, "low_watermark": -1}
    return {"topics": topics, "throttle_time_ms": 0}


def _delete(ctx: RequestContext, topic: str, asked: Any) -> dict[str, Any]:
    answer = {"partition_index": asked.partition_index, "error_code": ErrorCode.none}
    try:
        if topic in INTERNAL_TOPICS:
            raise KafkaError(ErrorCode.invalid_topic_exception)
        partition = ctx.services.replicas.get(topic, asked.partition_index)
        partition.check_leader()
        if "delete" not in partition.log.config.cleanup_policy:
            raise KafkaError(ErrorCode.policy_violation)
        offset = partition.high_watermark if asked.offset == HIGH_WATERMARK else asked.offset
        if not 0 <= offset <= partition.high_watermark:
            raise KafkaError(ErrorCode.offset_out_of_range)
        partition.log.advance_log_start(offset)
        return answer | {"low_watermark": partition.log.log_start_offset}
    except KafkaError as error:
        return answer | {"error_code": error.code, "low_watermark": -1}
