"""FindCoordinator: which broker coordinates a group (Kafka's KafkaApis.getCoordinator).

v0 groups only; v1-3 key type and error message; v3 flexible; v4 many keys in one request; v6 share groups.
`__consumer_offsets` is made when a group is first looked for; unlike Kafka's, the answer waits for that, and
for a coordinator on this node that is still loading, which spares the client a retry. A transactional id
is sent to this node, whose InitProducerId says that transactions are not served; share groups get
INVALID_REQUEST.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from ottla.broker.context import RequestContext
from ottla.coordinators.settings import GROUP_METADATA_TOPIC
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.image import TopicImage

GROUP_KEY = 0
TRANSACTION_KEY = 1

Fields = dict[str, Any]


async def handle(ctx: RequestContext, request: Any) -> Fields:
    key_type = getattr(request, "key_type", GROUP_KEY)
    if ctx.api_version < 4:
        (found,) = await _find(ctx, key_type, [request.key])
        return {"throttle_time_ms": 0} | found
    keys = request.coordinator_keys
    found_all = await _find(ctx, key_type, keys)
    coordinators = [{"key": key} | found for key, found in zip(keys, found_all, strict=True)]
    return {"throttle_time_ms": 0, "coordinators": coordinators}


async def _find(ctx: RequestContext, key_type: int, keys: Sequence[str]) -> list[Fields]:
    """The coordinator of each key, or why there is none. What is to be waited for is waited for once."""
    if key_type == TRANSACTION_KEY:
        # A coordinator is found, so that InitProducerId can say that it does not serve transactions: here
        # clients would take any error for a passing one, and ask again until their time is up.
        return [_found(ctx, ctx.services.node_id)] * len(keys)
    try:
        topic = await _topic(ctx, key_type)
    except KafkaError as error:
        return [_nowhere(error)] * len(keys)
    groups, me = ctx.services.groups, ctx.services.node_id
    partitions = [groups.partition_for(key) for key in keys]
    answers = [_found(ctx, topic.partitions[partition].leader) for partition in partitions]
    # Any key of a partition stands for all.
    here = {p: key for p, key in zip(partitions, keys, strict=True) if topic.partitions[p].leader == me}
    await asyncio.gather(*map(groups.ready, here.values()))
    return answers


async def _topic(ctx: RequestContext, key_type: int) -> TopicImage:
    if key_type != GROUP_KEY:
        raise KafkaError(
            ErrorCode.invalid_request, f"there are no coordinators for keys of type {key_type} here"
        )
    try:
        return await ctx.services.metadata.controller.ensure_topic(GROUP_METADATA_TOPIC)
    except KafkaError as error:
        raise KafkaError(
            ErrorCode.coordinator_not_available, f"{GROUP_METADATA_TOPIC} cannot be made: {error}"
        ) from error


def _nowhere(error: KafkaError) -> Fields:
    return {
        "error_code": error.code,
        "error_message": error.message,
        "node_id": -1,
        "host": "",
        "port": -1,
    }


def _found(ctx: RequestContext, node_id: int) -> Fields:
    broker = ctx.services.metadata.image.brokers.get(node_id)
    endpoint = broker.endpoint(ctx.listener) if broker is not None else None
    if endpoint is None:
        return _nowhere(KafkaError(ErrorCode.coordinator_not_available))
    host, port = endpoint
    return {
        "error_code": ErrorCode.none,
        "error_message": None,
        "node_id": node_id,
        "host": host,
        "port": port,
    }
