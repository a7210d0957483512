"""FindCoordinator: which broker coordinates a group (Kafka's KafkaApis.getCoordinator).

v0 groups only; v1-3 key type and error message; v3 flexible; v4 many keys in one request; v6 share groups.
`__consumer_offsets` is made when a group is first looked for; unlike Kafka's, the answer waits for that, and
for a coordinator on this node that is still loading, which spares the client a retry. A transactional id
is sent to this node, whose InitProducerId says that transactions are not served; share groups get
INVALID_REQUEST.
"""

from __future__ import annotations

from typing import Any

from ottla.broker.context import RequestContext
from ottla.coordinators.settings import GROUP_METADATA_TOPIC
from ottla.errors import ErrorCode, KafkaError

GROUP_KEY = 0
TRANSACTION_KEY = 1


async def handle(ctx: RequestContext, request: Any) -> dict[str, Any]:
    key_type = getattr(request, "key_type", GROUP_KEY)
    if ctx.api_version >= 4:
        found = [{"key": key} | await _find(ctx, key_type, key) for key in request.coordinator_keys]
        return {"throttle_time_ms": 0, "coordinators": found}
    return {"throttle_time_ms": 0} | await _find(ctx, key_type, request.key)


async def _find(ctx: RequestContext, key_type: int, key: str) -> dict[str, Any]:
    try:
        node_id, host, port = await _coordinator(ctx, key_type, key)
    except KafkaError as error:
        return {
            "error_code": error.code,
            "error_message": error.message,
            "node_id": -1,
            "host": "",
            "port": -1,
        }
    return {
        "error_code": ErrorCode.none,
        "error_message": None,
        "node_id": node_id,
        "host": host,
        "port": port,
    }


async def _coordinator(ctx: RequestContext, key_type: int, key: str) -> tuple[int, str, int]:
    if key_type == TRANSACTION_KEY:
        # A coordinator is found, so that InitProducerId can say that it does not serve transactions: here
        # clients would take any error for a passing one, and ask again until their time is up.
        return _address(ctx, ctx.services.node_id)
    if key_type != GROUP_KEY:
        raise KafkaError(
            ErrorCode.invalid_request, f"there are no coordinators for keys of type {key_type} here"
        )
    services = ctx.services
    try:
        topic = await services.metadata.controller.ensure_topic(GROUP_METADATA_TOPIC)
    except KafkaError as error:
        raise KafkaError(
            ErrorCode.coordinator_not_available, f"{GROUP_METADATA_TOPIC} cannot be made: {error}"
        ) from error
    leader = topic.partitions[services.groups.partition_for(key)].leader
    found = _address(ctx, leader)
    if leader == services.node_id:
        await services.groups.ready(key)
    return found


def _address(ctx: RequestContext, node_id: int) -> tuple[int, str, int]:
    broker = ctx.services.metadata.image.brokers.get(node_id)
    endpoint = broker.endpoint(ctx.listener) if broker is not None else None
    if endpoint is None:
        raise KafkaError(ErrorCode.coordinator_not_available)
    return node_id, *endpoint
