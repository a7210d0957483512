"""The order of what a producer sends: where a batch out of order is to blame, and where it may wait.

Judged from what the connection was refused before (``refusals``), and from what this leader knows.
"""

from __future__ import annotations

from typing import Any

from ottla.broker.api.records.produce.refusals import Refusals, has_come_over, is_followed
from ottla.broker.request import RequestContext
from ottla.errors import ErrorCode, KafkaError
from ottla.replication.partition import Partition
from ottla.types import Buffer

# A follower fetches as often as this, at least; longer silence means that it does not follow.
SILENT_FETCHES_MAX = 3


def check_order(
    ctx: RequestContext,
    partition: Partition,
    topic: Any,
    index: int,
    records: Buffer | None,
    error: KafkaError,
) -> None:
    """OUT_OF_ORDER_SEQUENCE_NUMBER ends a producer: say so only where it is certain."""
    silence_ms_max = SILENT_FETCHES_MAX * ctx.services.config.get("replica.fetch.wait.max.ms")
    if not is_followed(partition, ctx.services.clock.monotonic_ms(), silence_ms_max):
        raise KafkaError(ErrorCode.not_leader_or_follower, "nobody follows this leader") from error
    if has_come_over(partition, records):
        excuse(ctx, topic, index, records, error.message)


def excuse(ctx: RequestContext, topic: Any, index: int, records: Buffer | None, why: str | None) -> None:
    """Refuse a batch before which others are missing that may still come, for as long as that may be."""
    now_ms = ctx.services.clock.monotonic_ms()
    if refusals_of(ctx).excuses_gap(topic, index, records, now_ms):
        raise KafkaError(ErrorCode.not_leader_or_follower, f"not yet: {why}")


def refusals_of(ctx: RequestContext) -> Refusals:
    refusals = ctx.client.refusals
    if refusals is None:
        refusals = ctx.client.refusals = Refusals()
    return refusals


def remember(ctx: RequestContext, topic: Any, data: Any, error: KafkaError) -> None:
    """What the client has sent behind a batch that was refused is not to be taken before it."""
    refusals_of(ctx).refused(topic, data.index, data.records, error, ctx.services.clock.monotonic_ms())
