"""AlterClientQuotas: set and remove quotas (KIP-546, ClientQuotaControlManager).

v1 is flexible. Each entity is changed whole or not at all, and has its own answer. Of one that is named twice
the first change counts, although the answer says INVALID_REQUEST, as Kafka's does. An address must be one:
names of hosts, which Kafka looks up, are refused.
"""

from __future__ import annotations

from typing import Any

from ottla.broker.large import AT_ONCE_MAX, Fields, Framed, Lazy, Pace, in_pieces
from ottla.broker.request import RequestContext
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.access import QuotaChange, alter_quotas
from ottla.security.quota_entities import Entity, invalid_entity


async def handle(ctx: RequestContext, request: Any) -> Fields | Framed:
    pace = Pace(ctx)
    outcome: dict[Entity, KafkaError | None] = {}
    changes: list[QuotaChange] = []
    for entry in request.entries:
        entity = Entity.of({part.entity_type: part.entity_name for part in entry.entity})
        fault = _fault(entry, entity, outcome)
        if fault is None:
            values = {op.key: None if op.remove else op.value for op in entry.ops}
            changes.append(QuotaChange(entity, values))
        outcome[entity] = None if fault is None else KafkaError(ErrorCode.invalid_request, fault)
        if pace.is_over():
            await pace.pause()
    errors = await alter_quotas(
        ctx.services.metadata.controller, changes, validate_only=request.validate_only
    )
    for change, error in zip(changes, errors, strict=True):
        if outcome[change.entity] is None:
            outcome[change.entity] = error
    entries = Lazy(len(outcome), (_entry(entity, error) for entity, error in outcome.items()))
    fields: Fields = {"throttle_time_ms": 0, "entries": entries}
    return await in_pieces(ctx, fields) if len(outcome) > AT_ONCE_MAX else fields


def _fault(entry: Any, entity: Entity, outcome: dict[Entity, KafkaError | None]) -> str | None:
    """Why an entry is not even tried."""
    names = [op.key for op in entry.ops]
    if entity in outcome or len(set(names)) < len(names):
        # Kafka has words for a key that is named twice, and then puts these in their place.
        return f"Ignoring duplicate entity {entity}"
    return invalid_entity(entity.parts)


def _entry(entity: Entity, error: KafkaError | None) -> Fields:
    return {
        "error_code": 0 if error is None else int(error.code),
        "error_message": None if error is None else error.message,
        "entity": [{"entity_type": kind, "entity_name": name} for kind, name in entity.parts],
    }
