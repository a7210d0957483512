"""DescribeProducers: the producers that a replica remembers, leading or not, and where the transactions
began that they have open (KIP-664)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from ottla.broker.large import AT_ONCE_MAX, Fields, Framed, allowed, in_pieces, is_large, mapped, several
from ottla.broker.request import RequestContext
from ottla.errors import ErrorCode, KafkaError
from ottla.log.producer_entry import ProducerEntry
from ottla.metadata.topics import check_name, name_fault
from ottla.security.acl_bindings import Operation, ResourceType
from ottla.security.refused import refused


def handle(ctx: RequestContext, request: Any) -> Fields | Awaitable[Framed]:
    """By partition INVALID_TOPIC_EXCEPTION, TOPIC_AUTHORIZATION_FAILED without READ on the topic,
    NOT_LEADER_OR_FOLLOWER or UNKNOWN_TOPIC_OR_PARTITION."""
    if ctx.services.replicas.unopened or (is_large(ctx) and ctx.client.permissions is not None):
        return _slowly(ctx, request)

    def may(name: str) -> bool:
        return ctx.may(Operation.READ, ResourceType.TOPIC, name)

    return _answer(ctx, request, may)


async def _slowly(ctx: RequestContext, request: Any) -> Framed:
    """Who may know is asked first, and then partitions are opened that are not."""
    names = (t.name for t in request.topics if name_fault(t.name) is None)
    readable = await allowed(ctx, Operation.READ, ResourceType.TOPIC, names)
    if ctx.services.replicas.unopened:
        await ctx.services.replicas.open(
            (t.name, index) for t in request.topics if t.name in readable for index in t.partition_indexes
        )
    answer = _answer(ctx, request, readable.__contains__)
    return await (in_pieces(ctx, answer) if isinstance(answer, dict) else answer)


def _answer(ctx: RequestContext, request: Any, may: Callable[[str], bool]) -> Fields | Awaitable[Framed]:
    def told(topic: Any) -> Fields:
        refusal = _refusal(topic.name, may)

        def describe(index: int) -> Fields:
            return _describe(ctx, topic.name, index, refusal)

        return {"name": topic.name, "partitions": several(ctx, describe, topic.partition_indexes)}

    fields = {"topics": several(ctx, told, request.topics), "throttle_time_ms": 0}
    if is_large(ctx):
        return fields
    return in_pieces(ctx, fields) if _producers(ctx, request) > AT_ONCE_MAX else fields


def _producers(ctx: RequestContext, request: Any) -> int:
    partitions = ctx.services.replicas.partitions
    asked = (partitions.get((topic.name, i)) for topic in request.topics for i in topic.partition_indexes)
    return sum(len(partition.log.producers) for partition in asked if partition is not None)


def _refusal(topic: str, may: Callable[[str], bool]) -> KafkaError | None:
    """Why nothing is told of a topic."""
    try:
        check_name(topic)
    except KafkaError as error:
        return KafkaError(error.code, error.message)
    return None if may(topic) else refused(ResourceType.TOPIC)


def _describe(ctx: RequestContext, topic: str, index: int, refusal: KafkaError | None) -> Fields:
    if refusal is not None:
        return _refused(index, refusal)
    try:
        partition = ctx.services.replicas.get(topic, index)
    except KafkaError as error:
        return _refused(index, error)
    # As many as there are now: more may come while the answer is made.
    producers = mapped(_producer, list(partition.log.producers))
    return {"partition_index": index, "error_code": ErrorCode.none, "active_producers": producers}


def _refused(index: int, error: KafkaError) -> Fields:
    return {
        "partition_index": index,
        "error_code": error.code,
        "error_message": error.text,
        "active_producers": (),
    }


def _producer(entry: ProducerEntry) -> Fields:
    return {
        "producer_id": entry.producer_id,
        "producer_epoch": entry.epoch,
        "last_sequence": entry.last_sequence,
        "last_timestamp": entry.last_timestamp_ms,
        "coordinator_epoch": entry.coordinator_epoch,
        "current_txn_start_offset": entry.txn_first_offset,
    }
