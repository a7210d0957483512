"""``throttle_time_ms`` in a response that is written already.

It is the first field of nearly all responses, so whoever writes one need not know of it (Kafka's
``maybeSetThrottleTimeMs``).
"""

from __future__ import annotations

import struct
from functools import cache
from typing import Any

from ottla.types import Buffer
from ottla.wire.apis import API_VERSIONS, APIS, OFFSET_DELETE
from ottla.wire.fields import describe
from ottla.wire.messages import load, response_header_flexible

_TIME = struct.Struct(">i")
_NAME = "throttle_time_ms"
# A framed response begins with its size and its correlation id.
_HEADER_BYTES = 8
_OFFSET_DELETE_CODE_BYTES = 2


def with_throttle_time(pieces: list[Any], api_key: int, version: int, throttle_ms: int) -> list[Any]:
    """A framed response with that time in it; as it is where its version has no such field, or, in an
    ApiVersions, has it behind what is of any length."""
    offset = _offset(api_key, version)
    if offset is None:
        return pieces
    if offset < 0:
        return _at_end(pieces, offset, throttle_ms)
    first = pieces[0] if len(pieces[0]) >= offset + _TIME.size else b"".join(pieces)
    rest = pieces[1:] if first is pieces[0] else []
    return [_put(first, offset, throttle_ms), *rest]


@cache
def _offset(api_key: int, version: int) -> int | None:
    """Where it is; from the end, where that is what follows it."""
    fields = describe(load(APIS[api_key].schema, version, "response"))
    names = [field.name for field in fields if field.tag is None]
    flexible = response_header_flexible(api_key, version)
    if names[0] == _NAME:
        return _HEADER_BYTES + flexible
    if api_key == OFFSET_DELETE:
        return _HEADER_BYTES + flexible + _OFFSET_DELETE_CODE_BYTES
    return -_TIME.size - flexible if names[-1] == _NAME and api_key != API_VERSIONS else None


def _at_end(pieces: list[Any], offset: int, throttle_ms: int) -> list[Any]:
    """Nothing follows it but tagged fields, of which there are none unless, in a Produce, a leader has moved;
    then it is left as it is."""
    whole = b"".join(pieces)
    if whole[offset:].strip(b"\0"):
        return pieces
    return [_put(whole, len(whole) + offset, throttle_ms)]


def _put(piece: Buffer, offset: int, throttle_ms: int) -> bytes:
    return bytes(piece[:offset]) + _TIME.pack(throttle_ms) + bytes(piece[offset + _TIME.size :])
