"""DescribeProducers: the producers that a replica remembers, leading or not, and where the transactions
began that they have open (KIP-664)."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from ottla.broker.large import AT_ONCE_MAX, Fields, Framed, in_pieces, is_large, mapped, several
from ottla.broker.request import RequestContext
from ottla.errors import ErrorCode, KafkaError
from ottla.log.producer_entry import ProducerEntry
from ottla.metadata.topics import check_name
from ottla.security.acl_bindings import Operation, ResourceType
from ottla.security.refused import refused


def handle(ctx: RequestContext, request: Any) -> Fields | Awaitable[Framed]:
    """By partition INVALID_TOPIC_EXCEPTION, TOPIC_AUTHORIZATION_FAILED without READ on the topic,
    NOT_LEADER_OR_FOLLOWER or UNKNOWN_TOPIC_OR_PARTITION."""
    return _when_open(ctx, request) if ctx.services.replicas.unopened else _answer(ctx, request)


async def _when_open(ctx: RequestContext, request: Any) -> Framed:
    await ctx.services.replicas.open((t.name, index) for t in request.topics for index in t.partition_indexes)
    answer = _answer(ctx, request)
    return await (in_pieces(ctx, answer) if isinstance(answer, dict) else answer)


def _answer(ctx: RequestContext, request: Any) -> Fields | Awaitable[Framed]:
    def told(topic: Any) -> Fields:
        def describe(index: int) -> Fields:
            return _describe(ctx, topic.name, index)

        return {"name": topic.name, "partitions": several(ctx, describe, topic.partition_indexes)}

    fields = {"topics": several(ctx, told, request.topics), "throttle_time_ms": 0}
    if is_large(ctx):
        return fields
    return in_pieces(ctx, fields) if _producers(ctx, request) > AT_ONCE_MAX else fields


def _producers(ctx: RequestContext, request: Any) -> int:
    partitions = ctx.services.replicas.partitions
    asked = (partitions.get((topic.name, i)) for topic in request.topics for i in topic.partition_indexes)
    return sum(len(partition.log.producers) for partition in asked if partition is not None)


def _describe(ctx: RequestContext, topic: str, index: int) -> Fields:
    try:
        check_name(topic)
        if not ctx.may(Operation.READ, ResourceType.TOPIC, topic):
            raise refused(ResourceType.TOPIC)
        partition = ctx.services.replicas.get(topic, index)
    except KafkaError as error:
        return {
            "partition_index": index,
            "error_code": error.code,
            "error_message": error.text,
            "active_producers": (),
        }
    # As many as there are now: more may come while the answer is made.
    producers = mapped(_producer, list(partition.log.producers))
    return {"partition_index": index, "error_code": ErrorCode.none, "active_producers": producers}


def _producer(entry: ProducerEntry) -> Fields:
    return {
        "producer_id": entry.producer_id,
        "producer_epoch": entry.epoch,
        "last_sequence": entry.last_sequence,
        "last_timestamp": entry.last_timestamp_ms,
        "coordinator_epoch": entry.coordinator_epoch,
        "current_txn_start_offset": entry.txn_first_offset,
    }
