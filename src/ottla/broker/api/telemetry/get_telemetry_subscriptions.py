"""GetTelemetrySubscriptions: which metrics a client is to send, and how often (KIP-714; Kafka's
``ClientMetricsManager``).

v0. A client without an id is given one. THROTTLING_QUOTA_EXCEEDED before its interval is over, unless what it
was told before does not hold any more. Listed, as in Kafka, only while somebody reads what clients send.
"""

from __future__ import annotations

from typing import Any

from ottla.broker.api.telemetry.attributes import attributes_of
from ottla.broker.request import Fields, RequestContext
from ottla.telemetry.instances import ACCEPTED_CODECS


def handle(ctx: RequestContext, request: Any) -> Fields:
    services, client = ctx.services, ctx.client
    instances = services.telemetry.instances(services.metadata.image)
    now_ms = services.clock.monotonic_ms()
    instances.forget_expired(now_ms)
    one = instances.get(request.client_instance_id, attributes_of(client, ctx.client_id), now_ms)
    client.instance = one
    return {
        "throttle_time_ms": 0,
        "error_code": 0,
        "client_instance_id": one.id,
        "subscription_id": one.subscription_id,
        "accepted_compression_types": [int(codec) for codec in ACCEPTED_CODECS],
        "push_interval_ms": one.asked.interval_ms,
        "telemetry_max_bytes": services.config.get("telemetry.max.bytes"),
        "delta_temporality": True,
        "requested_metrics": list(one.asked.metrics),
    }
