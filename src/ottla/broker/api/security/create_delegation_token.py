"""CreateDelegationToken (KIP-48): a token by which others log in as the client, until it ends.

v2: flexible. v3: for another owner, which takes CREATE_TOKENS of that user (KIP-373).
"""

from __future__ import annotations

import os
from typing import Any

from ottla.broker.api.security.tokens import principals, tokens_for
from ottla.broker.request import Fields, RequestContext
from ottla.metadata.access import put_token
from ottla.security.acl_bindings import Operation, ResourceType
from ottla.security.refused import refused
from ottla.security.tokens import create, new_token_id, owner_of


async def handle(ctx: RequestContext, request: Any) -> Fields:
    """KafkaError: DELEGATION_TOKEN_REQUEST_NOT_ALLOWED, _AUTH_DISABLED, _AUTHORIZATION_FAILED,
    INVALID_PRINCIPAL_TYPE."""
    tokens = tokens_for(ctx)
    requester = ctx.client.principal
    owner = owner_of(
        requester,
        getattr(request, "owner_principal_type", None),
        getattr(request, "owner_principal_name", None),
    )
    if owner != requester and not ctx.may(Operation.CREATE_TOKENS, ResourceType.USER, str(owner)):
        raise refused(ResourceType.DELEGATION_TOKEN)
    token = create(
        tokens.settings,
        new_token_id(os.urandom),
        owner=owner,
        requester=requester,
        renewers=principals(request.renewers),
        max_lifetime_ms=request.max_lifetime_ms,
        now_ms=ctx.services.clock.now_ms(),
    )
    await put_token(ctx.services.metadata.controller, token)
    return {
        "error_code": 0,
        "principal_type": owner.type,
        "principal_name": owner.name,
        "token_requester_principal_type": requester.type,
        "token_requester_principal_name": requester.name,
        "issue_timestamp_ms": token.issued_ms,
        "expiry_timestamp_ms": token.expires_ms,
        "max_timestamp_ms": token.max_ms,
        "token_id": token.token_id,
        "hmac": tokens.settings.hmac_of(token.token_id),
        "throttle_time_ms": 0,
    }
