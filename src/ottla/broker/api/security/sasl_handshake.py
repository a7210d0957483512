"""SaslHandshake (KIP-43) where it does not belong: on a listener whose clients do not log in.

v0-1: the same; they tell how the tokens come that follow. Where clients do log in
none comes here (``broker/authentication.py``).
"""

from __future__ import annotations

from typing import Any

from ottla.broker.request import RequestContext
from ottla.errors import ErrorCode


def handle(ctx: RequestContext, request: Any) -> dict[str, Any]:
    """ILLEGAL_SASL_STATE, and no mechanism."""
    return {"error_code": ErrorCode.illegal_sasl_state, "mechanisms": []}
