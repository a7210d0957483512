"""Requests and responses as bytes, by API key and version.

Readers and writers are compiled (``codec``) when a version is first asked for, so that a broker loads only
the messages that its clients speak.
"""

from __future__ import annotations

import struct
from importlib import import_module
from typing import Any, NamedTuple

import ottla.errors  # noqa: F401  (imports kio with care: see there)
from ottla.types import Buffer
from ottla.wire import codec
from ottla.wire.apis import API_VERSIONS, APIS
from ottla.wire.primitives import READ_ERRORS, MalformedMessage, skip_tags

__all__ = (
    "MalformedMessage",
    "RequestHeader",
    "decode_request",
    "decode_response",
    "encode_request",
    "encode_response",
    "frame_request",
    "frame_response",
    "read_header",
    "read_response_header",
)

_HEADER = struct.Struct(">hhih")
_SIZE = struct.Struct(">i")
_FRAME = struct.Struct(">ii")
_FRAME_FLEXIBLE = struct.Struct(">iib")


class RequestHeader(NamedTuple):
    """The header before each request (versions 1 and 2)."""

    api_key: int
    api_version: int
    correlation_id: int
    client_id: str | None
    # Where the request's body begins; for a version that we do not serve, where the header's client id ends.
    body_offset: int


class Codec(NamedTuple):
    """The compiled pair for one side of one version of an API."""

    read: codec.Reader
    write: codec.Writer
    # Whether the header before it has tagged fields. That of an ApiVersions response never has, so that a
    # client that guessed the version too high can still read the answer (KIP-511).
    flexible_header: bool


_requests: dict[tuple[int, int], Codec] = {}
_responses: dict[tuple[int, int], Codec] = {}


def load(schema: str, version: int, kind: str) -> type[Any]:
    """kio's class of a message, e.g. ``load("metadata", 12, "request")``; ModuleNotFoundError if none."""
    module = import_module(f"kio.schema.{schema}.v{version}.{kind}")
    # A module's last class is the message itself; those before it are nested in it.
    return [c for c in vars(module).values() if isinstance(c, type) and c.__module__ == module.__name__][-1]


def _compile(table: dict[tuple[int, int], Codec], kind: str, api_key: int, version: int) -> Codec:
    entity = load(APIS[api_key].schema, version, kind)
    flexible_header = entity.__flexible__ and not (kind == "response" and api_key == API_VERSIONS)
    made = Codec(codec.reader(entity), codec.writer(entity), flexible_header)
    table[api_key, version] = made
    return made


def _request(api_key: int, version: int) -> Codec:
    return _requests.get((api_key, version)) or _compile(_requests, "request", api_key, version)


def _response(api_key: int, version: int) -> Codec:
    return _responses.get((api_key, version)) or _compile(_responses, "response", api_key, version)


def read_header(buffer: Buffer, offset: int = 0) -> RequestHeader:
    """The header of the request at ``offset``. MalformedMessage where it is not one."""
    try:
        api_key, version, correlation_id, length = _HEADER.unpack_from(buffer, offset)
        offset += _HEADER.size
        client_id = None
        if length >= 0:
            if length > len(buffer) - offset:
                raise MalformedMessage("the client id ends behind its request")
            client_id = str(buffer[offset : offset + length], "utf-8")
            offset += length
        api = APIS.get(api_key)
        if api is not None and api.serves(version) and _request(api_key, version).flexible_header:
            offset = skip_tags(buffer, offset)
    except READ_ERRORS as error:
        raise MalformedMessage(f"request header: {error}") from error
    return RequestHeader(api_key, version, correlation_id, client_id, offset)


def decode_request(api_key: int, version: int, buffer: Buffer, offset: int = 0) -> Any:
    """The request whose body is at ``offset``. MalformedMessage where the bytes are not one."""
    try:
        return _request(api_key, version).read(buffer, offset)[0]
    except READ_ERRORS as error:
        raise MalformedMessage(f"{APIS[api_key].name} v{version}: {error}") from error


def decode_response(api_key: int, version: int, buffer: Buffer, offset: int = 0) -> Any:
    """The response whose body is at ``offset``, for clients."""
    try:
        return _response(api_key, version).read(buffer, offset)[0]
    except READ_ERRORS as error:
        raise MalformedMessage(f"{APIS[api_key].name} v{version} response: {error}") from error


def encode_request(api_key: int, version: int, fields: dict[str, Any]) -> bytes:
    """A request's body, for clients."""
    out: list[Any] = []
    _request(api_key, version).write(fields, out)
    return b"".join(out)


def encode_response(api_key: int, version: int, fields: dict[str, Any]) -> bytes:
    """A response's body."""
    out: list[Any] = []
    _response(api_key, version).write(fields, out)
    return b"".join(out)


def response_header_flexible(api_key: int, version: int) -> bool:
    """Whether the response's header has tagged fields, for clients."""
    return _response(api_key, version).flexible_header


def frame_request(
    api_key: int, version: int, correlation_id: int, client_id: str, fields: dict[str, Any]
) -> bytes:
    """A whole request with its size and header, for clients and followers."""
    made = _request(api_key, version)
    name = client_id.encode()
    head = _HEADER.pack(api_key, version, correlation_id, len(name)) + name
    out: list[Any] = [b"", head + b"\0" if made.flexible_header else head]
    made.write(fields, out)
    out[0] = _SIZE.pack(sum(map(len, out)))
    return b"".join(out)


def read_response_header(api_key: int, version: int, buffer: Buffer) -> tuple[int, int]:
    """A response's correlation id, and where its body begins. MalformedMessage where it is not one."""
    try:
        (correlation_id,) = _SIZE.unpack_from(buffer)
        offset = _SIZE.size
        if _response(api_key, version).flexible_header:
            offset = skip_tags(buffer, offset)
    except READ_ERRORS as error:
        raise MalformedMessage(f"response header: {error}") from error
    return correlation_id, offset


# Responses up to this size are joined and sent as one piece; larger ones go out as they are, unjoined.
JOIN_BYTES_MAX = 64 * 1024


def frame_response(header: RequestHeader, fields: dict[str, Any]) -> list[Any]:
    """A whole response with its size and header, as pieces to write one after the other."""
    api_key, version = header.api_key, header.api_version
    made = _response(api_key, version)
    out: list[Any] = [b""]
    made.write(fields, out)
    size = sum(map(len, out))
    if made.flexible_header:
        out[0] = _FRAME_FLEXIBLE.pack(size + 5, header.correlation_id, 0)
    else:
        out[0] = _FRAME.pack(size + 4, header.correlation_id)
    return [b"".join(out)] if size <= JOIN_BYTES_MAX else _join_small(out)


def _join_small(pieces: list[Any]) -> list[Any]:
    """Join runs of small pieces, leaving the large ones (records) alone."""
    joined: list[Any] = []
    run: list[Any] = []
    for piece in pieces:
        if len(piece) < JOIN_BYTES_MAX // 4:
            run.append(piece)
            continue
        if run:
            joined.append(b"".join(run))
            run = []
        joined.append(piece)
    if run:
        joined.append(b"".join(run))
    return joined
