"""CreatePartitions: give topics more partitions, each on its own
(ReplicationControlManager.createPartitions).

v0-3 differ in encoding only. ``count`` is the number of partitions in all; ``assignments`` place the new
ones.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from ottla.broker.large import made
from ottla.broker.request import RequestContext
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.controller import MorePartitions

Fields = dict[str, Any]


async def handle(ctx: RequestContext, request: Any) -> Fields:
    times = Counter(topic.name for topic in request.topics)
    wanted = await made(ctx, _more, [topic for topic in request.topics if times[topic.name] == 1])
    results = await ctx.services.metadata.controller.create_partitions(
        wanted, validate_only=request.validate_only
    )
    twice = KafkaError(ErrorCode.invalid_request, "Duplicate topic name.")
    answers = [_fields(name, twice) for name, count in times.items() if count > 1]
    answers += [_fields(result.name, result.error) for result in results]
    return {"throttle_time_ms": 0, "results": answers}


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
