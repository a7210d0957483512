"""DescribeDelegationToken (KIP-48): the tokens that a client owns, asked for or may renew, and others that it
may see.

v2: flexible. v3: who asked for each (KIP-373). Whoever sees a token can log in by it: its HMAC is shown.
"""

from __future__ import annotations

from typing import Any

from ottla.broker.api.security.tokens import principals, tokens_for
from ottla.broker.large import AT_ONCE_MAX, Framed, Pace, in_pieces
from ottla.broker.request import Fields, RequestContext
from ottla.errors import ErrorCode, KafkaError
from ottla.security.acl_bindings import Operation, ResourceType
from ottla.security.tokens import DelegationToken, TokenSettings, may_describe


async def handle(ctx: RequestContext, request: Any) -> Fields | Framed:
    """KafkaError: DELEGATION_TOKEN_REQUEST_NOT_ALLOWED, _AUTH_DISABLED."""
    tokens = tokens_for(ctx)
    if not tokens.settings.is_enabled:
        raise KafkaError(ErrorCode.delegation_token_auth_disabled)
    owners = None if request.owners is None else frozenset(principals(request.owners))
    pace, found = Pace(ctx), []
    for token in list(tokens.view):
        if may_describe(
            token,
            ctx.client.principal,
            owners,
            lambda token_id: ctx.may(Operation.DESCRIBE, ResourceType.DELEGATION_TOKEN, token_id),
            lambda owner: ctx.may(Operation.DESCRIBE_TOKENS, ResourceType.USER, str(owner)),
        ):
            found.append(_described(token, tokens.settings))
        if pace.is_over():
            await pace.pause()
    fields: Fields = {"error_code": 0, "tokens": found, "throttle_time_ms": 0}
    return await in_pieces(ctx, fields) if len(found) > AT_ONCE_MAX else fields


def _described(token: DelegationToken, settings: TokenSettings) -> Fields:
    return {
        "principal_type": token.owner.type,
        "principal_name": token.owner.name,
        "token_requester_principal_type": token.requester.type,
        "token_requester_principal_name": token.requester.name,
        "issue_timestamp": token.issued_ms,
        "expiry_timestamp": token.expires_ms,
        "max_timestamp": token.max_ms,
        "token_id": token.token_id,
        "hmac": settings.hmac_of(token.token_id),
        "renewers": [{"principal_type": one.type, "principal_name": one.name} for one in token.renewers],
    }
