"""CreatePartitions: give topics more partitions, each on its own
(ReplicationControlManager.createPartitions).

v0-3 differ in encoding only. ``count`` is the number of partitions in all; ``assignments`` place the new
ones. TOPIC_AUTHORIZATION_FAILED for topics that the client may not ALTER.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from ottla.broker.api.topics.mutations import Mutations
from ottla.broker.large import allowed, made
from ottla.broker.request import RequestContext
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.controller import MorePartitions
from ottla.security.acl_bindings import Operation, ResourceType

Fields = dict[str, Any]


async def handle(ctx: RequestContext, request: Any) -> Fields:
    times = Counter(topic.name for topic in request.topics)
    named_once = [topic for topic in request.topics if times[topic.name] == 1]
    denied = await _denied(ctx, named_once)
    mutations = Mutations(ctx, strict_since=3)
    over: dict[str, KafkaError] = {}
    if mutations.are_limited:
        for topic in named_once:
            if topic.name not in denied and (error := mutations.make(_added(ctx, topic))) is not None:
                over[topic.name] = error
    tried = [topic for topic in named_once if topic.name not in denied and topic.name not in over]
    wanted = await made(ctx, _more, tried)
    results = await ctx.services.metadata.controller.create_partitions(
        wanted, validate_only=request.validate_only
    )
    twice = KafkaError(ErrorCode.invalid_request, "Duplicate topic name.")
    answers = [_fields(name, twice) for name, count in times.items() if count > 1]
    answers += [_fields(name, KafkaError(ErrorCode.topic_authorization_failed)) for name in denied]
    answers += [_fields(name, error) for name, error in over.items()]
    answers += [_fields(result.name, result.error) for result in results]
    return {"throttle_time_ms": mutations.finish(), "results": answers}


def _added(ctx: RequestContext, topic: Any) -> int:
    """How many partitions a topic is to get."""
    known = ctx.services.metadata.image.topics.get(topic.name)
    return 0 if known is None else max(0, topic.count - len(known.partitions))


async def _denied(ctx: RequestContext, topics: Sequence[Any]) -> dict[str, None]:
    """Those that the client may not ALTER, whether they exist or not."""
    if ctx.client.permissions is None:
        return {}
    may_alter = await allowed(ctx, Operation.ALTER, ResourceType.TOPIC, (topic.name for topic in topics))
    return {topic.name: None for topic in topics if topic.name not in may_alter}


def _more(topic: Any) -> MorePartitions:
    assignments = topic.assignments
    if assignments is not None:
        assignments = [assignment.broker_ids for assignment in assignments]
    return MorePartitions(topic.name, topic.count, assignments)


def _fields(name: str, error: KafkaError | None) -> Fields:
    return {
        "name": name,
        "error_code": 0 if error is None else int(error.code),
        "error_message": None if error is None else error.message,
    }
