"""InitProducerId: an id for a producer, idempotent or transactional (KIP-98, KIP-360).

v0-1 plain; v2 flexible; v3 the producer's current id and epoch; v4 PRODUCER_FENCED; v5 TRANSACTION_ABORTABLE.
v6 (KIP-939) is not listed, as Kafka 4.4 does not list what is unstable. Without a transactional id Kafka
always gives a new id, whatever id the producer had; with one it coordinates.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from ottla.broker.api.transactions.versions import told
from ottla.broker.request import Fields, RequestContext
from ottla.coordinators.transactions.requests import InitRequest, Producer, ProducerResponse
from ottla.errors import ErrorCode, KafkaError
from ottla.security.acl_bindings import CLUSTER_NAME, Operation, ResourceType
from ottla.security.refused import refused

NO_ID, NO_EPOCH = -1, -1
FENCED_SINCE = 4


def handle(ctx: RequestContext, request: Any) -> Fields | Awaitable[Fields]:
    """COORDINATOR_NOT_AVAILABLE (which clients retry) where no id can be reserved now; INVALID_REQUEST for an
    empty transactional id, and for an id without an epoch or the other way round. With a transactional id
    NOT_COORDINATOR, COORDINATOR_LOAD_IN_PROGRESS, CONCURRENT_TRANSACTIONS, PRODUCER_FENCED,
    INVALID_TRANSACTION_TIMEOUT. TRANSACTIONAL_ID_AUTHORIZATION_FAILED without WRITE on the id;
    CLUSTER_AUTHORIZATION_FAILED without one, to whom may neither IDEMPOTENT_WRITE nor write to any topic."""
    _check_allowed(ctx, request)
    known = (getattr(request, "producer_id", NO_ID), getattr(request, "producer_epoch", NO_EPOCH))
    if request.transactional_id == "" or (known[0] == NO_ID) != (known[1] == NO_EPOCH):
        raise KafkaError(ErrorCode.invalid_request)
    if request.transactional_id is not None:
        expected = None if known[0] == NO_ID else Producer(*known)
        asked = InitRequest(
            request.transactional_id,
            request.transaction_timeout_ms,
            expected,
            getattr(request, "enable2_pc", False),
            getattr(request, "keep_prepared_txn", False),
        )
        version = ctx.api_version
        return ctx.services.transactions.init(asked).then(lambda response: _answer(response, version))
    # One in a thousand waits for the metadata store.
    producer_id = ctx.services.producer_ids.at_once()
    return _reserved(ctx) if producer_id is None else _fields(producer_id)


def _check_allowed(ctx: RequestContext, request: Any) -> None:
    """KafkaError where the client may not have an id: one that may write to any topic may have one without a
    transactional id."""
    name, kind = request.transactional_id, ResourceType.TRANSACTIONAL_ID
    if name is not None:
        if not ctx.may(Operation.WRITE, kind, name) or (
            getattr(request, "enable2_pc", False) and not ctx.may(Operation.TWO_PHASE_COMMIT, kind, name)
        ):
            raise refused(kind)
    elif not ctx.may_any(Operation.WRITE, ResourceType.TOPIC) and not ctx.may(
        Operation.IDEMPOTENT_WRITE, ResourceType.CLUSTER, CLUSTER_NAME
    ):
        raise refused(ResourceType.CLUSTER)


async def _reserved(ctx: RequestContext) -> Fields:
    return _fields(await ctx.services.producer_ids.next())


def _fields(producer_id: int) -> Fields:
    return {
        "error_code": ErrorCode.none,
        "producer_id": producer_id,
        "producer_epoch": 0,
        "throttle_time_ms": 0,
    }


def _answer(response: ProducerResponse, version: int) -> Fields:
    return {
        "error_code": told(response.error, version, FENCED_SINCE),
        "producer_id": response.producer_id,
        "producer_epoch": response.epoch,
        "throttle_time_ms": 0,
    }
