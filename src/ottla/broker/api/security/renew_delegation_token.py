"""RenewDelegationToken (KIP-48): have a token end later, but not behind its last day.

v2: flexible. The token is named by its HMAC. Its owner may renew it, and those whom the owner named then.
"""

from __future__ import annotations

from typing import Any

from ottla.broker.api.security.tokens import tokens_for
from ottla.broker.request import Fields, RequestContext
from ottla.metadata.access import put_token
from ottla.security.tokens import renew


async def handle(ctx: RequestContext, request: Any) -> Fields:
    """KafkaError: DELEGATION_TOKEN_NOT_FOUND, _EXPIRED, _OWNER_MISMATCH; those of CreateDelegationToken."""
    tokens = tokens_for(ctx)
    token = renew(
        tokens.settings,
        tokens.view.of_hmac(bytes(request.hmac)),
        ctx.client.principal,
        request.renew_period_ms,
        ctx.services.clock.now_ms(),
    )
    await put_token(ctx.services.metadata.controller, token)
    return {"error_code": 0, "expiry_timestamp_ms": token.expires_ms, "throttle_time_ms": 0}
