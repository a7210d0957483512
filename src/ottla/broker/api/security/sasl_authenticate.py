"""SaslAuthenticate (KIP-152) where it does not belong: on a listener whose clients do not log in.

v1+: the answer says how long the session lasts (KIP-368). Where clients do log in
none comes here (``broker/authentication.py``).
"""

from __future__ import annotations

from typing import Any

from ottla.broker.request import RequestContext
from ottla.errors import ErrorCode


def handle(ctx: RequestContext, request: Any) -> dict[str, Any]:
    """ILLEGAL_SASL_STATE."""
    return {
        "error_code": ErrorCode.illegal_sasl_state,
        "error_message": "SaslAuthenticate request received after successful authentication",
        "auth_bytes": b"",
        "session_lifetime_ms": 0,
    }
