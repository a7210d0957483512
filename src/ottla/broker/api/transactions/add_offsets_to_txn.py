"""AddOffsetsToTxn: a group whose offsets a transaction is to commit.

v0-1 plain; v2 PRODUCER_FENCED; v3 flexible; v4 TRANSACTION_ABORTABLE. It adds the group's partition of
`__consumer_offsets`. Clients of KIP-890's protocol do not send it.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from ottla.broker.api.transactions.versions import told
from ottla.broker.request import Fields, RequestContext
from ottla.coordinators.transactions.metadata import TV_0
from ottla.coordinators.transactions.requests import AddRequest
from ottla.metadata.image import OFFSETS_TOPIC
from ottla.types import TopicPartition

FENCED_SINCE = 2


def handle(ctx: RequestContext, request: Any) -> Awaitable[Fields]:
    """NOT_COORDINATOR, COORDINATOR_LOAD_IN_PROGRESS, INVALID_PRODUCER_ID_MAPPING, PRODUCER_FENCED,
    CONCURRENT_TRANSACTIONS; INVALID_REQUEST for an empty id."""
    version = ctx.api_version
    where = TopicPartition(OFFSETS_TOPIC, ctx.services.groups.partition_for(request.group_id))
    asked = AddRequest(
        request.transactional_id,
        request.producer_id,
        request.producer_epoch,
        frozenset({where}),
        TV_0,
        may_wait=True,
    )
    return ctx.services.transactions.add(asked).then(
        lambda code: {"throttle_time_ms": 0, "error_code": told(code, version, FENCED_SINCE)}
    )
