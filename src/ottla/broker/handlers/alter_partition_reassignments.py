"""AlterPartitionReassignments: move partitions to other nodes, or cancel that (KIP-455,
ReplicationControlManager.alterPartitionReassignments).

v1 adds ``allow_replication_factor_change`` (KIP-860). Null replicas cancel. Each partition stands on its own,
and is on its way when the answer arrives: ListPartitionReassignments tells which still are. Any node answers,
since any can change the metadata. Where a partition is named twice, the last counts.
"""

from __future__ import annotations

from typing import Any

from ottla.broker.context import RequestContext
from ottla.metadata.partition_admin import Plan, change_each, goes_back, moves_to
from ottla.types import TopicPartition

Fields = dict[str, Any]


async def handle(ctx: RequestContext, request: Any) -> Fields:
    allowed = getattr(request, "allow_replication_factor_change", True)
    plans: dict[TopicPartition, Plan] = {}
    for topic in request.topics:
        for partition in topic.partitions:
            target = partition.replicas
            plans[TopicPartition(topic.name, partition.partition_index)] = (
                goes_back if target is None else moves_to(target, allow_factor_change=allowed)
            )
    results = await change_each(ctx.services.metadata, ctx.services.config, plans)

    def answer(where: TopicPartition) -> Fields:
        error = results[where]
        return {
            "partition_index": where.partition,
            "error_code": 0 if error is None else int(error.code),
            "error_message": None if error is None else error.message,
        }

    return {
        "throttle_time_ms": 0,
        "allow_replication_factor_change": allowed,
        "error_code": 0,
        "error_message": None,
        "responses": [
            {
                "name": topic.name,
                "partitions": [
                    answer(TopicPartition(topic.name, one.partition_index)) for one in topic.partitions
                ],
            }
            for topic in request.topics
        ],
    }
