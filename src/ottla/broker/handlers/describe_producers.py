"""DescribeProducers: the idempotent producers that a replica remembers, leading or not (KIP-664)."""

from __future__ import annotations

from typing import Any

from ottla.broker.context import RequestContext
from ottla.errors import ErrorCode, KafkaError


def handle(ctx: RequestContext, request: Any) -> dict[str, Any]:
    """NOT_LEADER_OR_FOLLOWER or UNKNOWN_TOPIC_OR_PARTITION, by partition."""
    return {
        "topics": [
            {
                "name": topic.name,
                "partitions": [_describe(ctx, topic.name, i) for i in topic.partition_indexes],
            }
            for topic in request.topics
        ],
        "throttle_time_ms": 0,
    }


def _describe(ctx: RequestContext, topic: str, index: int) -> dict[str, Any]:
    try:
        partition = ctx.services.replicas.get(topic, index)
    except KafkaError as error:
        return {
            "partition_index": index,
            "error_code": error.code,
            "error_message": error.message,
            "active_producers": (),
        }
    producers = [
        {
            "producer_id": entry.producer_id,
            "producer_epoch": entry.epoch,
            "last_sequence": entry.last_sequence,
            "last_timestamp": entry.last_timestamp_ms,
            "coordinator_epoch": -1,
            "current_txn_start_offset": -1,
        }
        for entry in partition.log.producers
    ]
    return {"partition_index": index, "error_code": ErrorCode.none, "active_producers": producers}
