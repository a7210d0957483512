"""Changes to who may do what: ACLs, SCRAM credentials and client quotas (Kafka's ``AclControlManager``,
``ScramControlManager``, ``ClientQuotaControlManager``).

Any node makes them. Kafka's controller writes what one request changes as one batch. So it is here, as far
as a transaction of the store can hold it: 128 ACLs, credentials, or entities with quotas, each whole. More
than these are changed 128 at a time, in order. Where the store fails in between, the answer says of each
whether it was changed, may have been, or was not tried.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Mapping, Sequence
from typing import NamedTuple

from ottla.errors import ErrorCode, KafkaError
from ottla.metadata import keys
from ottla.metadata.access_records import (
    acl_id,
    acl_key,
    acl_value,
    credential_value,
    quota_key,
    scram_key,
    token_key,
    token_value,
)
from ottla.metadata.controller import Controller, Plan
from ottla.metadata.image import ClusterImage
from ottla.metadata.store import Compare, Delete, Put
from ottla.security.acl_bindings import AclBinding, AclFilter, PatternType, invalid
from ottla.security.quota_entities import Entity, invalid_value
from ottla.security.sasl.scram import ScramCredential, ScramHash
from ottla.security.tokens import DelegationToken

# ACLs, users with credentials, and entities with quotas that a cluster may have: nodes have them in memory.
ACLS_MAX = 50_000
USERS_MAX = 50_000
ENTITIES_MAX = 50_000
TOKENS_MAX = 10_000
# Those that one principal may have asked for: nobody needs to be allowed anything for that, and others are to
# have theirs.
TOKENS_OF_ONE_MAX = 5_000
# ACLs that one request may delete (Kafka's MAX_RECORDS_PER_USER_OP).
DELETED_MAX = 10_000
# ACLs that are compared with filters, half a microsecond each: at once, and for one request.
COMPARED_AT_ONCE = 10_000
COMPARED_MAX = 2_000_000
# ACLs that are checked at once, some 20 microseconds each.
CHECKED_AT_ONCE = 250


async def create_acls(controller: Controller, acls: Sequence[AclBinding]) -> list[KafkaError | None]:
    """Create ACLs; for each, in order, the error or None. One that is there already is no error.

    Up to ``TXN_OPERATIONS_MAX`` that are new are created all at once.
    """
    results: dict[AclBinding, KafkaError | None] = {}
    new: list[AclBinding] = []
    for count, acl in enumerate(acls, 1):
        if acl not in results:
            fault = invalid(acl)
            results[acl] = None if fault is None else KafkaError(ErrorCode.invalid_request, fault)
            if fault is None and acl_id(acl) not in controller.image.acls:
                new.append(acl)
        if count % CHECKED_AT_ONCE == 0:
            await asyncio.sleep(0)

    async def plan(image: ClusterImage, chunk: Sequence[AclBinding]) -> Plan[KafkaError | None]:
        made = Plan[KafkaError | None]()
        for acl in chunk:
            error = None
            if acl_id(acl) not in image.acls:
                if len(image.acls) + len(made.operations) >= ACLS_MAX:
                    error = KafkaError(
                        ErrorCode.policy_violation, f"A cluster may have {ACLS_MAX} ACLs, and not more."
                    )
                else:
                    made.operations.append(Put(acl_key(acl), acl_value(acl)))
            made.results.append(error)
        return made

    results.update(zip(new, await controller.change_each(new, plan), strict=True))
    return [results[acl] for acl in acls]


def found_by(
    acls: Mapping[str, AclBinding], filters: Sequence[AclFilter]
) -> Generator[None, None, list[list[AclBinding]]]:
    """For each filter the ACLs that it asks for; in pieces.

    KafkaError(INVALID_REQUEST) where they are too many, or where too many ACLs would have to be looked at.
    """
    by_name: dict[str, list[AclBinding]] | None = None
    compared, since, count = 0, 0, 0
    found: list[list[AclBinding]] = []
    for wanted in filters:
        exact = _exact(wanted)
        if exact is not None:
            candidates = [exact] if acl_id(exact) in acls else []
        elif wanted.resource_name is None or wanted.pattern_type is PatternType.MATCH:
            candidates = list(acls.values())
        else:
            if by_name is None:
                by_name = yield from _by_name(acls)
            candidates = by_name.get(wanted.resource_name, [])
        mine: list[AclBinding] = []
        for first in range(0, len(candidates), COMPARED_AT_ONCE):
            piece = candidates[first : first + COMPARED_AT_ONCE]
            mine += filter(wanted.matches, piece)
            since += len(piece)
            if since >= COMPARED_AT_ONCE:
                since = 0
                yield
        compared += len(candidates) + 1
        count += len(mine)
        if compared > COMPARED_MAX:
            raise KafkaError(ErrorCode.invalid_request, "Too many filters that name no resource.")
        if count > DELETED_MAX:
            raise KafkaError(
                ErrorCode.invalid_request,
                f"Cannot remove more than {DELETED_MAX} acls in a single delete operation.",
            )
        found.append(mine)
    return found


def _exact(wanted: AclFilter) -> AclBinding | None:
    """The one ACL that can be meant; None where there may be several."""
    if wanted.resource_name is None or wanted.principal is None or wanted.host is None:
        return None
    acl = AclBinding(
        wanted.resource_type,
        wanted.resource_name,
        wanted.pattern_type,
        wanted.principal,
        wanted.host,
        wanted.operation,
        wanted.permission,
    )
    return acl if invalid(acl) is None else None


def _by_name(acls: Mapping[str, AclBinding]) -> Generator[None, None, dict[str, list[AclBinding]]]:
    made: dict[str, list[AclBinding]] = {}
    for count, acl in enumerate(acls.values(), 1):
        made.setdefault(acl.resource_name, []).append(acl)
        if count % COMPARED_AT_ONCE == 0:
            yield
    return made


async def delete_acls(
    controller: Controller, acls: Sequence[AclBinding]
) -> Mapping[AclBinding, KafkaError | None]:
    """Delete ACLs; for each the error or None. Those that are not there are no error. Up to
    ``TXN_OPERATIONS_MAX`` are deleted all at once."""

    async def plan(image: ClusterImage, chunk: Sequence[AclBinding]) -> Plan[KafkaError | None]:
        made = Plan[KafkaError | None]()
        made.results += [None] * len(chunk)
        made.operations += [Delete(acl_key(acl)) for acl in chunk if acl_id(acl) in image.acls]
        return made

    wanted = list(dict.fromkeys(acls))
    return dict(zip(wanted, await controller.change_each(wanted, plan), strict=True))


NO_SUCH_CREDENTIAL = KafkaError(
    ErrorCode.resource_not_found, "Attempt to delete a user credential that does not exist"
)


class CredentialChange(NamedTuple):
    """A user's credential for one hash; None: there is to be none any more."""

    user: str
    hash: ScramHash
    credential: ScramCredential | None


async def alter_credentials(
    controller: Controller, changes: Sequence[CredentialChange]
) -> list[KafkaError | None]:
    """Change credentials, at most one of each user; for each, in order, the error or None."""

    async def plan(image: ClusterImage, chunk: Sequence[CredentialChange]) -> Plan[KafkaError | None]:
        made = Plan[KafkaError | None]()
        added = 0
        for user, hash, credential in chunk:
            error: KafkaError | None = None
            current = image.scram.get(user, {})
            if credential is None and hash not in current:
                error = NO_SUCH_CREDENTIAL
            elif credential is not None and not current and len(image.scram) + added >= USERS_MAX:
                error = KafkaError(
                    ErrorCode.policy_violation, f"A cluster may have credentials of {USERS_MAX} users."
                )
            elif credential is None:
                made.operations.append(Delete(scram_key(user, hash)))
            else:
                added += not current
                made.operations.append(Put(scram_key(user, hash), credential_value(credential)))
            made.results.append(error)
        return made

    return await controller.change_each(changes, plan)


async def put_token(controller: Controller, token: DelegationToken) -> None:
    """Have a token that is new, or renewed. KafkaError where there are too many, or of its requester."""

    async def plan(image: ClusterImage, chunk: Sequence[DelegationToken]) -> Plan[None]:
        made = Plan[None]()
        for one in chunk:
            if one.token_id not in image.tokens:
                _check_room(image, one)
            made.operations.append(Put(token_key(one.token_id), token_value(one)))
            made.results.append(None)
        return made

    await controller.change([token], plan)


def _check_room(image: ClusterImage, token: DelegationToken) -> None:
    """KafkaError where there can be no other token, or none of its requester's."""
    tokens = image.tokens
    if len(tokens) >= TOKENS_MAX:
        raise KafkaError(ErrorCode.policy_violation, f"A cluster may have {TOKENS_MAX} tokens.")
    if len(tokens) < TOKENS_OF_ONE_MAX:
        return
    if sum(one.requester == token.requester for one in tokens.values()) >= TOKENS_OF_ONE_MAX:
        raise KafkaError(ErrorCode.policy_violation, f"One may ask for {TOKENS_OF_ONE_MAX} tokens.")


async def remove_tokens(controller: Controller, token_ids: Sequence[str]) -> None:
    """Have tokens no more."""

    async def plan(image: ClusterImage, chunk: Sequence[str]) -> Plan[None]:
        made = Plan[None]()
        made.operations += [Delete(token_key(one)) for one in chunk if one in image.tokens]
        made.results += [None] * len(chunk)
        return made

    await controller.change(token_ids, plan)


class QuotaChange(NamedTuple):
    """Quotas of an entity, each None where it is to have no such quota any more."""

    entity: Entity
    values: Mapping[str, float | None]


async def alter_quotas(
    controller: Controller, changes: Sequence[QuotaChange], *, validate_only: bool = False
) -> list[KafkaError | None]:
    """Change quotas of entities, each of which comes once; for each, in order, the error or None."""

    async def plan(image: ClusterImage, chunk: Sequence[QuotaChange]) -> Plan[KafkaError | None]:
        made = Plan[KafkaError | None]()
        added = 0
        for entity, values in chunk:
            current = image.quotas.get(entity, {})
            faults = (invalid_value(entity, key, value) for key, value in values.items() if value is not None)
            fault = next(filter(None, faults), None)
            quotas = {key: value for key, value in {**current, **values}.items() if value is not None}
            is_new = bool(quotas) and not current
            if fault is not None:
                made.results.append(KafkaError(ErrorCode.invalid_request, fault))
            elif is_new and len(image.quotas) + added >= ENTITIES_MAX:
                made.results.append(
                    KafkaError(
                        ErrorCode.policy_violation, f"A cluster may have quotas of {ENTITIES_MAX} entities."
                    )
                )
            else:
                made.results.append(None)
                added += is_new
                if quotas != current:
                    key = quota_key(entity)
                    compare = Compare(key, value=keys.encode(current)) if current else Compare(key, 0)
                    made.change(compare, Put(key, keys.encode(quotas)) if quotas else Delete(key))
        return made

    return await controller.change_each(changes, plan, validate_only)
