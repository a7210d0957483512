"""ExpireDelegationToken (KIP-48): have a token end at another time, or at once.

v2: flexible. The token is named by its HMAC. A principal that may renew a token may end it, too.
"""

from __future__ import annotations

from typing import Any

from ottla.broker.api.security.tokens import tokens_for
from ottla.broker.request import Fields, RequestContext
from ottla.metadata.access import put_token, remove_tokens
from ottla.security.tokens import expire


async def handle(ctx: RequestContext, request: Any) -> Fields:
    """KafkaError as of RenewDelegationToken. What ends at once is removed."""
    tokens, controller = tokens_for(ctx), ctx.services.metadata.controller
    known = tokens.view.of_hmac(bytes(request.hmac))
    now_ms = ctx.services.clock.now_ms()
    token = expire(tokens.settings, known, ctx.client.principal, request.expiry_time_period_ms, now_ms)
    if token is not None:
        await put_token(controller, token)
    elif known is not None:
        await remove_tokens(controller, [known.token_id])
    expires_ms = now_ms if token is None else token.expires_ms
    return {"error_code": 0, "expiry_timestamp_ms": expires_ms, "throttle_time_ms": 0}
