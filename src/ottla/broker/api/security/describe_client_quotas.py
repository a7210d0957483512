"""DescribeClientQuotas: the quotas of whichever users, clients and addresses (KIP-546, ClientQuotasImage).

v1 is flexible. A component names one, the default, or all that have any; ``strict`` leaves out entities that
have more types than were asked for. No components mean all, if not strict.
"""

from __future__ import annotations

from typing import Any

from ottla.broker.large import AT_ONCE_MAX, Fields, Framed, Lazy, in_pieces
from ottla.broker.request import RequestContext
from ottla.errors import ErrorCode, KafkaError
from ottla.security.quota_entities import CLIENT_ID, IP, TYPES, USER, Entity

EXACT, DEFAULT, SPECIFIED = 0, 1, 2
# Entities that are looked at in one turn.
LOOKED_AT_ONCE = 5_000


async def handle(ctx: RequestContext, request: Any) -> Fields | Framed:
    """INVALID_REQUEST, or UNSUPPORTED_VERSION for a type that there is not."""
    exact, specified = _components(request.components)
    quotas = ctx.services.metadata.image.quotas
    found: list[Entity] = []
    wanted = len(exact) + len(specified)
    for count, entity in enumerate(quotas, 1):
        names = entity.names
        if (
            (not request.strict or len(names) == wanted)
            and all(kind in names and names[kind] == name for kind, name in exact.items())
            and all(kind in names for kind in specified)
        ):
            found.append(entity)
        if count % LOOKED_AT_ONCE == 0:
            await ctx.services.slices.pause()
    entries = Lazy(len(found), (_entry(entity, quotas[entity]) for entity in found))
    fields: Fields = {"throttle_time_ms": 0, "error_code": 0, "error_message": "", "entries": entries}
    return await in_pieces(ctx, fields) if len(found) > AT_ONCE_MAX else fields


def _components(components: Any) -> tuple[dict[str, str | None], set[str]]:
    """Types with the names asked for, None for the default, and types of which any name will do."""
    exact: dict[str, str | None] = {}
    specified: set[str] = set()
    for component in components:
        kind, name = component.entity_type, component.match
        if not kind:
            raise _invalid("Invalid empty entity type.")
        if kind in exact or kind in specified:
            raise _invalid(f"Entity type {kind} cannot appear more than once in the filter.")
        if kind not in TYPES:
            raise KafkaError(ErrorCode.unsupported_version, f"Unsupported entity type {kind}")
        if component.match_type == EXACT:
            if name is None:
                raise _invalid("Request specified MATCH_TYPE_EXACT, but set match string to null.")
            exact[kind] = name
            continue
        if component.match_type not in (DEFAULT, SPECIFIED):
            raise _invalid(f"Unknown match type {component.match_type}")
        if name is not None:
            which = "DEFAULT" if component.match_type == DEFAULT else "SPECIFIED"
            raise _invalid(f"Request specified MATCH_TYPE_{which}, but also specified a match string.")
        if component.match_type == DEFAULT:
            exact[kind] = None
        else:
            specified.add(kind)
    kinds = {*exact, *specified}
    if IP in kinds and kinds & {USER, CLIENT_ID}:
        raise _invalid(
            "Invalid entity filter component combination. IP filter component should not be used with "
            "user or clientId filter component."
        )
    return exact, specified


def _invalid(why: str) -> KafkaError:
    return KafkaError(ErrorCode.invalid_request, why)


def _entry(entity: Entity, values: Any) -> Fields:
    return {
        "entity": [{"entity_type": kind, "entity_name": name} for kind, name in entity.parts],
        "values": [{"key": key, "value": value} for key, value in values.items()],
    }
