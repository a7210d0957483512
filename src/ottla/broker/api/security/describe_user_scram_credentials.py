"""DescribeUserScramCredentials: which users have passwords, and for which mechanisms (KIP-554, ScramImage).

v0. No users means all. A user who is named twice, or has no credentials, is an error by itself. Nothing tells
what is kept of the passwords.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from ottla.broker.large import AT_ONCE_MAX, Fields, Framed, Lazy, in_pieces
from ottla.broker.request import RequestContext
from ottla.errors import ErrorCode


async def handle(ctx: RequestContext, request: Any) -> Fields | Framed:
    scram = ctx.services.metadata.image.scram
    times = Counter([user.name for user in request.users]) if request.users else dict.fromkeys(scram, 1)

    def described(name: str) -> Fields:
        if times[name] > 1:
            message = f"Cannot describe SCRAM credentials for the same user twice in a single request: {name}"
            return _failed(name, ErrorCode.duplicate_resource, message)
        if name not in scram:
            message = f"Attempt to describe a user credential that does not exist: {name}"
            return _failed(name, ErrorCode.resource_not_found, message)
        infos = [
            {"mechanism": hash.number, "iterations": credential.iterations}
            for hash, credential in scram[name].items()
        ]
        return {"user": name, "error_code": 0, "error_message": "", "credential_infos": infos}

    results = Lazy(len(times), map(described, times))
    fields: Fields = {"throttle_time_ms": 0, "error_code": 0, "error_message": "", "results": results}
    return await in_pieces(ctx, fields) if len(times) > AT_ONCE_MAX else fields


def _failed(name: str, code: ErrorCode, message: str) -> Fields:
    return {"user": name, "error_code": int(code), "error_message": message, "credential_infos": ()}
