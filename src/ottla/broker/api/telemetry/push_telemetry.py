"""PushTelemetry: metrics that a client was asked for (KIP-714; Kafka's ``ClientMetricsManager``).

v0. INVALID_REQUEST without an id, and from a client that has said before that it ends;
THROTTLING_QUOTA_EXCEEDED before its interval is over; UNKNOWN_SUBSCRIPTION_ID where subscriptions have
changed; UNSUPPORTED_COMPRESSION_TYPE; TELEMETRY_TOO_LARGE beyond telemetry.max.bytes. Data that cannot be
read, or unpacks to more than that, is INVALID_RECORD; where others have sent so much that it would wait for
long, THROTTLING_QUOTA_EXCEEDED, so that it comes again. Kafka hands metrics to a plugin; here they are kept
(``telemetry/received.py``), while somebody reads them.
"""

from __future__ import annotations

from typing import Any

from ottla.broker.api.telemetry.attributes import attributes_of
from ottla.broker.request import Fields, RequestContext
from ottla.errors import ErrorCode, KafkaError
from ottla.telemetry.instances import Instance
from ottla.telemetry.otlp import Malformed
from ottla.text import id_text
from ottla.wire.compression import decompress


async def handle(ctx: RequestContext, request: Any) -> Fields:
    services, client = ctx.services, ctx.client
    instances = services.telemetry.instances(services.metadata.image)
    bytes_max = services.config.get("telemetry.max.bytes")
    attributes = attributes_of(client, ctx.client_id)
    now_ms = services.clock.monotonic_ms()
    instances.forget_expired(now_ms)
    one = instances.push(request, attributes, bytes_max, now_ms)
    client.instance = one
    if request.metrics and services.telemetry.readers:
        try:
            async with services.telemetry.turn(len(request.metrics)):
                await _take(ctx, one, attributes, request, bytes_max)
        except KafkaError as error:
            instances.throttled += error.code is ErrorCode.throttling_quota_exceeded
            one.last_error = error.code
            raise
    return {"throttle_time_ms": 0, "error_code": 0}


async def _take(
    ctx: RequestContext, one: Instance, attributes: dict[str, str | None], request: Any, bytes_max: int
) -> None:
    """Keep what was sent. KafkaError (INVALID_RECORD) where it cannot be read."""
    services, telemetry = ctx.services, ctx.services.telemetry
    telemetry.received.forget_expired(services.clock.monotonic_ms())
    try:
        metrics = bytes(decompress(request.compression_type, request.metrics, bytes_max))
        await services.slices.run(telemetry.received.take(one.id, attributes, metrics, one.expires_ms))
    except (KafkaError, Malformed) as error:
        raise KafkaError(ErrorCode.invalid_record) from error
    if telemetry.forward is not None:
        who = {**attributes, "client_instance_id": id_text(one.id)}
        await services.slices.run(telemetry.forward(who, metrics))
