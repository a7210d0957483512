"""ConsumerGroupHeartbeat: UNSUPPORTED_VERSION, as from a Kafka whose groups are classic ones only (KIP-848).

v1 has member ids of the clients' own making. It is listed so that this can be said: where it is not,
librdkafka looks for another coordinator again and again.
"""

from __future__ import annotations

from typing import Any

from ottla.broker.request import RequestContext
from ottla.errors import ErrorCode, KafkaError


def handle(ctx: RequestContext, request: Any) -> dict[str, Any]:
    """Always KafkaError."""
    raise KafkaError(
        ErrorCode.unsupported_version, "groups of the consumer protocol are not served by this broker yet"
    )
