"""InitProducerId: an id for an idempotent producer (KIP-98, KIP-360).

v0-1 plain; v2 flexible; v3 the producer's current id and epoch; v4-5 more error codes. Without a
transactional id Kafka always gives a new id, whatever id the producer had. With one: UNSUPPORTED_VERSION,
which clients report as final, since transactions are not served yet.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from ottla.broker.request import Fields, RequestContext
from ottla.errors import ErrorCode, KafkaError

NO_ID, NO_EPOCH = -1, -1


def handle(ctx: RequestContext, request: Any) -> Fields | Awaitable[Fields]:
    """COORDINATOR_NOT_AVAILABLE (which clients retry) where no id can be reserved now; INVALID_REQUEST for an
    empty transactional id, and for an id without an epoch or the other way round."""
    known = (getattr(request, "producer_id", NO_ID), getattr(request, "producer_epoch", NO_EPOCH))
    if request.transactional_id == "" or (known[0] == NO_ID) != (known[1] == NO_EPOCH):
        raise KafkaError(ErrorCode.invalid_request)
    if request.transactional_id is not None:
        raise KafkaError(ErrorCode.unsupported_version, "transactions are not served by this broker yet")
    # One in a thousand waits for the metadata store.
    producer_id = ctx.services.producer_ids.at_once()
    return _reserved(ctx) if producer_id is None else _fields(producer_id)


async def _reserved(ctx: RequestContext) -> Fields:
    return _fields(await ctx.services.producer_ids.next())


def _fields(producer_id: int) -> Fields:
    return {
        "error_code": ErrorCode.none,
        "producer_id": producer_id,
        "producer_epoch": 0,
        "throttle_time_ms": 0,
    }
