"""EndTxn: commit or abort a transaction (KIP-98, KIP-890).

v0-1 plain; v2 PRODUCER_FENCED; v3 flexible; v4 TRANSACTION_ABORTABLE; v5 a new epoch for each transaction:
the answer says which, and which producer id once the epochs are used up. It is answered once it is decided;
the markers follow. With transaction.version 0 v5 is served as well: Kafka cannot write what it asks for, and
the id stays busy.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from ottla.broker.api.transactions.versions import told
from ottla.broker.request import Fields, RequestContext
from ottla.coordinators.transactions.metadata import TV_0, TV_2
from ottla.coordinators.transactions.requests import EndRequest, ProducerResponse

FENCED_SINCE = 2
BUMPS_SINCE = 5


def handle(ctx: RequestContext, request: Any) -> Awaitable[Fields]:
    """NOT_COORDINATOR, COORDINATOR_LOAD_IN_PROGRESS, INVALID_PRODUCER_ID_MAPPING, PRODUCER_FENCED,
    CONCURRENT_TRANSACTIONS, INVALID_TXN_STATE; INVALID_REQUEST for an empty id."""
    version = ctx.api_version
    asked = EndRequest(
        request.transactional_id,
        request.producer_id,
        request.producer_epoch,
        request.committed,
        TV_2 if version >= BUMPS_SINCE else TV_0,
    )
    return ctx.services.transactions.end(asked).then(lambda response: _answer(response, version))


def _answer(response: ProducerResponse, version: int) -> Fields:
    return {
        "throttle_time_ms": 0,
        "error_code": told(response.error, version, FENCED_SINCE),
        "producer_id": response.producer_id,
        "producer_epoch": response.epoch,
    }
