"""What is told of one request, in a log or a trace (pure): who asked for what, its stages, its errors.

Whatever a client has given is bounded here; it is made printable where it is shown.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from ottla.broker.pending import Pieces
from ottla.errors import ErrorCode
from ottla.observe.requests import Seen
from ottla.types import Buffer
from ottla.wire.apis import APIS, SASL_AUTHENTICATE, SERVED
from ottla.wire.messages import MalformedMessage, decode_response, read_header, read_response_header

# Characters that are shown of a name that a client has given.
TEXT_CHARACTERS_MAX = 200
# Answers that are looked through for errors.
ANSWER_BYTES_MAX, ANSWER_ELEMENTS_MAX = 256 * 1024, 1_000

_HEADER = struct.Struct(">hhih")
_SIZE_BYTES = 4


def bounded(text: str) -> str:
    """As much of a name as is shown."""
    return text if len(text) <= TEXT_CHARACTERS_MAX else f"{text[: TEXT_CHARACTERS_MAX - 1]}…"


class Head(NamedTuple):
    """A request's header, as far as it can be read."""

    version: int | None
    correlation_id: int | None
    # As much of it as there is; None where there is none.
    client_id: str | None
    # Where its body begins; 0 where that is not known.
    body_offset: int


NO_HEAD = Head(None, None, None, 0)


def read_head(frame: Buffer) -> Head:
    """The header of a request, of which only the beginning may be there."""
    try:
        header = read_header(frame)
    except MalformedMessage:
        if len(frame) < _HEADER.size:
            return NO_HEAD
        _, version, correlation_id, length = _HEADER.unpack_from(frame)
        client_id = bytes(frame[_HEADER.size : _HEADER.size + max(length, 0)]).decode(errors="replace")
        return Head(version, correlation_id, client_id if length >= 0 else None, 0)
    offset = 0 if header.codec is None else header.body_offset
    return Head(header.api_version, header.correlation_id, header.client_id, offset)


class Errors(NamedTuple):
    """What an answer says that failed: the first error, and how many there are."""

    first: str | None
    number: int


NO_ERRORS = Errors(None, 0)


def errors_of(api_key: int, version: int | None, pieces: Pieces | None) -> Errors:
    """The errors of an answer; none where it is too large to be looked through."""
    if pieces is None or (api_key, version) not in SERVED or sum(map(len, pieces)) > ANSWER_BYTES_MAX:
        return NO_ERRORS
    assert version is not None
    answer = b"".join(pieces)[_SIZE_BYTES:]
    try:
        _, offset = read_response_header(api_key, version, answer)
        fields = decode_response(api_key, version, answer, offset, elements_max=ANSWER_ELEMENTS_MAX)
    except MalformedMessage:
        # There are too many elements, or it is of another version: see ApiVersions.
        return NO_ERRORS
    codes = list(error_codes(fields))
    return Errors(name_of(codes[0]), len(codes)) if codes else NO_ERRORS


def error_codes(value: tuple[Any, ...]) -> Iterator[int]:
    """The errors in a decoded answer, in the order in which they stand there."""
    names = getattr(value, "_fields", None)
    if names is None:
        # An array, whose elements are all alike.
        if value and isinstance(value[0], tuple):
            for each in value:
                yield from error_codes(each)
        return
    for name, inner in zip(names, value, strict=True):
        if isinstance(inner, tuple):
            yield from error_codes(inner)
        elif inner and name.endswith("error_code"):
            yield inner


def name_of(code: int) -> str:
    """Kafka's name of an error code."""
    try:
        return ErrorCode(code).name.upper()
    except ValueError:
        return str(code)


class Told(NamedTuple):
    """One request. Times are in milliseconds; ``principal`` is as Kafka writes it, ``User:alice``."""

    api: str
    version: int | None
    correlation_id: int | None
    client_id: str | None
    host: str
    principal: str
    listener: str
    queue_ms: float
    local_ms: float
    remote_ms: float
    throttle_ms: int
    # None where it says how long a password is.
    request_bytes: int | None
    response_bytes: int
    error: str | None
    errors: int
    ended_connection: bool


def describe(seen: Seen, head: Head) -> Told:
    """All that is told of it."""
    api, client = APIS.get(seen.api_key), seen.client
    errors = errors_of(seen.api_key, head.version, seen.pieces)
    return Told(
        api=f"key {seen.api_key}" if api is None else api.name,
        version=head.version,
        correlation_id=head.correlation_id,
        client_id=None if head.client_id is None else bounded(head.client_id),
        host=client.host,
        principal=bounded(str(client.principal)),
        listener=client.listener,
        queue_ms=as_ms(seen.queue_ns),
        local_ms=as_ms(seen.local_ns),
        remote_ms=as_ms(seen.remote_ns),
        throttle_ms=seen.throttle_ms,
        request_bytes=None if seen.api_key == SASL_AUTHENTICATE else seen.request_bytes,
        response_bytes=seen.response_bytes,
        error=errors.first,
        errors=errors.number,
        ended_connection=seen.ended_connection,
    )


def as_ms(duration_ns: int) -> float:
    return round(duration_ns / 1_000_000, 3)
