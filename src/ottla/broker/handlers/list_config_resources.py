"""ListConfigResources: names of what has configurations (KIP-1142; before, ListClientMetricsResources).

v0 lists client metrics subscriptions, of which there are none here. v1 lists the types asked for, all
where none is.
"""

from __future__ import annotations

from typing import Any

from ottla.broker.context import RequestContext
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.configs import ResourceType


def handle(ctx: RequestContext, request: Any) -> dict[str, Any]:
    image = ctx.services.metadata.image
    names: dict[int, list[str]] = {ResourceType.CLIENT_METRICS: []}
    if ctx.header.api_version >= 1:
        brokers = [str(node_id) for node_id in image.brokers]
        names |= {
            ResourceType.TOPIC: list(image.topics),
            ResourceType.BROKER: brokers,
            ResourceType.BROKER_LOGGER: brokers,
            ResourceType.GROUP: list(image.group_configs),
        }
    kinds = getattr(request, "resource_types", ()) or sorted(names)
    unknown = [kind for kind in kinds if kind not in names]
    if unknown:
        raise KafkaError(ErrorCode.unsupported_version, f"Unsupported resource type {unknown[0]}")
    resources = [
        {"resource_name": name, "resource_type": int(kind)}
        for kind in dict.fromkeys(kinds)
        for name in names[kind]
    ]
    return {"throttle_time_ms": 0, "error_code": 0, "config_resources": resources}
