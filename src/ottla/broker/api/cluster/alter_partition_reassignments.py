"""AlterPartitionReassignments: move partitions to other nodes, or cancel that (KIP-455,
ReplicationControlManager.alterPartitionReassignments).

v1 adds ``allow_replication_factor_change`` (KIP-860). Null replicas cancel. Each partition stands on its own,
and is on its way when the answer arrives: ListPartitionReassignments tells which still are. Any node answers,
since any can change the metadata. Where a partition is named twice, the last counts.
"""

from __future__ import annotations

from typing import Any

from ottla.broker.large import Fields, several
from ottla.broker.request import RequestContext
from ottla.metadata.partition_admin import Plan, change_each, goes_back, moves_to
from ottla.types import TopicPartition

# How many plans are made before others have their turn.
PLANNED_AT_ONCE = 2_000


async def handle(ctx: RequestContext, request: Any) -> Fields:
    if not request.topics:
        # QuorumController answers it with the message's defaults.
        return {
            "error_code": 0,
            "error_message": "",
            "responses": (),
            "allow_replication_factor_change": True,
        }
    allowed = getattr(request, "allow_replication_factor_change", True)
    plans: dict[TopicPartition, Plan] = {}
    done = 0
    for topic in request.topics:
        for partition in topic.partitions:
            target = partition.replicas
            plans[TopicPartition(topic.name, partition.partition_index)] = (
                goes_back if target is None else moves_to(target, allow_factor_change=allowed)
            )
            done += 1
            if done % PLANNED_AT_ONCE == 0:
                await ctx.services.slices.pause()
    results = await change_each(ctx.services.metadata, ctx.services.config, plans)

    def told(topic: Any) -> Fields:
        def answer(asked: Any) -> Fields:
            error = results[TopicPartition(topic.name, asked.partition_index)]
            return {
                "partition_index": asked.partition_index,
                "error_code": 0 if error is None else int(error.code),
                "error_message": None if error is None else error.message,
            }

        return {"name": topic.name, "partitions": several(ctx, answer, topic.partitions)}

    return {
        "throttle_time_ms": 0,
        "allow_replication_factor_change": allowed,
        "error_code": 0,
        "error_message": None,
        "responses": several(ctx, told, request.topics),
    }
