"""ListConfigResources: names of what has configurations (KIP-1142; before, ListClientMetricsResources).

v0 lists subscriptions to clients' metrics. v1 lists the types asked for, all where none is: of groups and
subscriptions those that have configurations.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from ottla.broker.large import AT_ONCE_MAX, Fields, Framed, Lazy, in_pieces
from ottla.broker.request import RequestContext
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.configs import ResourceType


def handle(ctx: RequestContext, request: Any) -> Fields | Awaitable[Framed]:
    image = ctx.services.metadata.image
    names: dict[int, list[str]] = {ResourceType.CLIENT_METRICS: list(image.client_metrics)}
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
    asked = dict.fromkeys(kinds)
    count = sum(len(names[kind]) for kind in asked)
    resources = (
        {"resource_name": name, "resource_type": int(kind)} for kind in asked for name in names[kind]
    )
    fields: Fields = {"throttle_time_ms": 0, "error_code": 0, "config_resources": Lazy(count, resources)}
    return in_pieces(ctx, fields) if count > AT_ONCE_MAX else fields
