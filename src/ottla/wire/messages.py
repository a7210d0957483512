"""Requests and responses as bytes, by API key and version.

Readers and writers are compiled (``codec``) when a version is first asked for, so that a broker loads only
the messages that its clients speak.
"""

from __future__ import annotations

import struct
from collections.abc import Generator
from functools import cache
from importlib import import_module
from typing import Any, Final, final

from ottla.errors import ErrorCode, KafkaError
from ottla.types import Buffer
from ottla.wire import codec, newer
from ottla.wire.apis import API_VERSIONS, APIS, OFFSET_COMMIT, PRODUCE, SERVED
from ottla.wire.commits import read_commit
from ottla.wire.fields import describe
from ottla.wire.primitives import READ_ERRORS, MalformedMessage, TooManyElements, read_uvarint, skip_tags
from ottla.wire.produce import ELEMENTS_OF_ONE, FLEXIBLE_SINCE, read_one

__all__ = (
    "MalformedMessage",
    "RequestHeader",
    "decode_request",
    "decode_response",
    "element",
    "encode_request",
    "encode_response",
    "frame_request",
    "frame_response",
    "read_header",
    "read_request",
    "read_response_header",
    "wants_no_answer",
)

# Tagged fields that a header may have. Kafka's clients send none.
HEADER_TAGS_MAX: Final = 100
# What a response may have, for clients. A cluster of 100,000 partitions has 800,000 elements in Metadata.
RESPONSE_ELEMENTS_MAX: Final = 5_000_000

# Since when a Produce begins with a transactional id, null or not; then come its acks.
PRODUCE_TRANSACTIONAL_SINCE: Final = 3

_HEADER: Final = struct.Struct(">hhih")
_HEADER_BYTES: Final = 10
assert _HEADER.size == _HEADER_BYTES
_unpack_header: Final = _HEADER.unpack_from
_SHORT: Final = struct.Struct(">h")
_SIZE: Final = struct.Struct(">i")
_FRAME: Final = struct.Struct(">ii")
_FRAME_FLEXIBLE: Final = struct.Struct(">iib")
_pack_frame: Final = _FRAME.pack
_pack_flexible_frame: Final = _FRAME_FLEXIBLE.pack


@final
class Codec:
    """The compiled pair for one side of one version of an API."""

    __slots__ = (
        "api_key", "elements_max", "flexible_header", "has_records", "read", "reads_bytes_only", "version",
        "write",
    )  # fmt: skip

    def __init__(
        self,
        api_key: int,
        version: int,
        read: codec.Reader,
        write: codec.Writer,
        *,
        flexible_header: bool,
        has_records: bool,
        reads_bytes_only: bool,
    ) -> None:
        self.api_key = api_key
        self.version = version
        self.read = read
        self.write = write
        # Whether the header before it has tagged fields. That of an ApiVersions response never has, so that a
        # client that guessed the version too high can still read the answer (KIP-511).
        self.flexible_header = flexible_header
        # How many elements a request may have.
        self.elements_max: int = APIS[api_key].elements_max
        # Whether it has records, which are not to be copied: all else is joined as soon as it is written.
        self.has_records = has_records
        # Whether ``read`` takes nothing but bytes.
        self.reads_bytes_only = reads_bytes_only


@final
class RequestHeader:
    """The header before each request (versions 1 and 2)."""

    __slots__ = ("api_key", "api_version", "body_offset", "client_id", "codec", "correlation_id")

    def __init__(
        self,
        api_key: int,
        api_version: int,
        correlation_id: int,
        client_id: str | None,
        body_offset: int,
        codec: Codec | None = None,
    ) -> None:
        self.api_key = api_key
        self.api_version = api_version
        self.correlation_id = correlation_id
        self.client_id = client_id
        # Where the request's body begins; for a version that we do not serve, where the header's client id
        # ends.
        self.body_offset = body_offset
        # What reads the body; None where the version is not served.
        self.codec = codec


# By API key and version: see ``_number``.
_requests: Final[dict[int, Codec]] = {}
_responses: Final[dict[int, Codec]] = {}


def _number(api_key: int, version: int) -> int:
    """One number for an API and its version, which are 16 bits each."""
    return (api_key << 16) | (version & 0xFFFF)


def load(schema: str, version: int, kind: str) -> type[Any]:
    """kio's class of a message, e.g. ``load("metadata", 12, "request")``, or ours where kio lacks the version
    (``newer``). ModuleNotFoundError if there is none."""
    if (schema, version) in newer.VERSIONS:
        module = import_module(f"ottla.wire.newer.{schema}_v{version}.{kind}")
    else:
        module = import_module(f"kio.schema.{schema}.v{version}.{kind}")
    # A module's last class is the message itself; those before it are nested in it.
    return [c for c in vars(module).values() if isinstance(c, type) and c.__module__ == module.__name__][-1]


def element(api_key: int, version: int, array: str) -> type[Any]:
    """kio's class of the elements of a response's array."""
    fields = describe(load(APIS[api_key].schema, version, "response"))
    (found,) = [field.entity for field in fields if field.name == array]
    assert found is not None
    return found


@cache
def _ready(kind: str) -> dict[tuple[int, int], Any]:
    """Readers of requests, or writers of responses, that were compiled with the rest, where it was."""
    try:
        module = import_module("ottla.wire.generated")
    except ModuleNotFoundError:
        return {}
    tables: dict[tuple[int, int], Any] = module.READERS if kind == "request" else module.WRITERS
    return tables


def _compile(table: dict[int, Codec], kind: str, api_key: int, version: int) -> Codec:
    entity = load(APIS[api_key].schema, version, kind)
    flexible_header = entity.__flexible__ and not (kind == "response" and api_key == API_VERSIONS)
    ready = _ready(kind).get((api_key, version))
    is_request = kind == "request"
    made = Codec(
        api_key,
        version,
        ready if ready is not None and is_request else codec.reader(entity),
        ready if ready is not None and not is_request else codec.writer(entity),
        flexible_header=flexible_header,
        has_records=codec.has_records(entity),
        reads_bytes_only=ready is not None and is_request,
    )
    table[_number(api_key, version)] = made
    return made


def _request(api_key: int, version: int) -> Codec:
    made = _requests.get(_number(api_key, version))
    return made if made is not None else _compile(_requests, "request", api_key, version)


def _response(api_key: int, version: int) -> Codec:
    made = _responses.get(_number(api_key, version))
    return made if made is not None else _compile(_responses, "response", api_key, version)


def compiled() -> list[tuple[str, int, int]]:
    """What is compiled by now: "request" or "response", API key and version."""
    made = [("request", codec.api_key, codec.version) for codec in _requests.values()]
    return made + [("response", codec.api_key, codec.version) for codec in _responses.values()]


def compile_now(kind: str, api_key: int, version: int) -> None:
    """Compile what otherwise is when it is first asked for."""
    _request(api_key, version) if kind == "request" else _response(api_key, version)


def read_header(buffer: Buffer, offset: int = 0) -> RequestHeader:
    """The header of the request at ``offset``. MalformedMessage where it is not one."""
    try:
        fields: tuple[int, int, int, int] = _unpack_header(buffer, offset)
        api_key, version, correlation_id, length = fields
        offset += _HEADER_BYTES
        client_id = None
        if length >= 0:
            if length > len(buffer) - offset:
                raise MalformedMessage("the client id ends behind its request")
            if isinstance(buffer, bytes):
                client_id = buffer[offset : offset + length].decode()
            else:
                client_id = str(buffer[offset : offset + length], "utf-8")
            offset += length
        made = _requests.get(_number(api_key, version))
        if made is None and (api_key, version) in SERVED:
            made = _request(api_key, version)
        if made is not None and made.flexible_header:
            offset = skip_tags(buffer, offset, [HEADER_TAGS_MAX]) if buffer[offset] else offset + 1
    except READ_ERRORS as error:
        raise MalformedMessage(f"request header: {error}") from error
    return RequestHeader(api_key, version, correlation_id, client_id, offset, made)


def wants_no_answer(buffer: Buffer) -> bool:
    """Whether a request, header and all, is a Produce with acks=0. MalformedMessage: it has no header."""
    header = read_header(buffer)
    if header.api_key != PRODUCE:
        return False
    offset, version = header.body_offset, header.api_version
    try:
        if version >= FLEXIBLE_SINCE:
            size = buffer[offset]
            offset += 1
            if size >= 0x80:
                size, offset = read_uvarint(buffer, offset, size)
            offset += max(size - 1, 0)
        elif version >= PRODUCE_TRANSACTIONAL_SINCE:
            (size,) = _SHORT.unpack_from(buffer, offset)
            offset += _SHORT.size + max(size, 0)
        return bool(_SHORT.unpack_from(buffer, offset)[0] == 0)
    except READ_ERRORS:
        return False


def decode_request(
    api_key: int, version: int, buffer: Buffer, offset: int = 0, *, elements_max: int | None = None
) -> Any:
    """The request whose body is at ``offset``. MalformedMessage where the bytes are not one, or where it has
    more elements than ``elements_max``, or than its API may have."""
    return _read(_request(api_key, version), buffer, offset, elements_max)[0]


def read_request(made: Codec, buffer: Buffer, offset: int) -> tuple[Any, int]:
    """As ``decode_request``: the request, or what ``produce.read_one`` or ``commits.read_commit`` makes of
    it, and how many elements it has."""
    if made.api_key == PRODUCE and isinstance(buffer, bytes):
        one = read_one(buffer, offset, made.version)
        if one is not None:
            return one, ELEMENTS_OF_ONE
    elif made.api_key == OFFSET_COMMIT and isinstance(buffer, bytes):
        read = read_commit(buffer, offset, made.version)
        if read is not None:
            return read
    return _read(made, buffer, offset)


def _read(made: Codec, buffer: Buffer, offset: int, elements_max: int | None = None) -> tuple[Any, int]:
    read, budget = made.read, made.elements_max
    if elements_max is not None:
        budget = elements_max
    left = [budget]
    if made.reads_bytes_only and type(buffer) is not bytes:
        # A large one.
        read = codec.reader(load(APIS[made.api_key].schema, made.version, "request"))
    try:
        return read(buffer, offset, left)[0], budget - left[0]
    except TooManyElements as many:
        raise TooManyElements(f"{APIS[made.api_key].name} v{made.version}: {many}") from many
    except READ_ERRORS as error:
        raise MalformedMessage(f"{APIS[made.api_key].name} v{made.version}: {error}") from error


def decode_response(
    api_key: int,
    version: int,
    buffer: Buffer,
    offset: int = 0,
    *,
    elements_max: int = RESPONSE_ELEMENTS_MAX,
) -> Any:
    """The response whose body is at ``offset``, for clients."""
    try:
        return _response(api_key, version).read(buffer, offset, [elements_max])[0]
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
            offset = skip_tags(buffer, offset, [HEADER_TAGS_MAX])
    except READ_ERRORS as error:
        raise MalformedMessage(f"response header: {error}") from error
    return correlation_id, offset


# The largest response that is made in pieces: two million committed offsets, say. What it is made of could be
# asked for by names that are repeated.
RESPONSE_BYTES_MAX: Final = 64 * 1024 * 1024
# What a frame's size can say.
FRAME_BYTES_MAX: Final = 2**31 - 1
# Responses up to this size are joined and sent as one piece; larger ones go out as they are, unjoined.
JOIN_BYTES_MAX: Final = 64 * 1024


def frame_response(header: RequestHeader, fields: dict[str, Any]) -> list[Any]:
    """A whole response with its size and header, as pieces to write one after the other."""
    made = _response(header.api_key, header.api_version)
    out: list[Any] = []
    made.write(fields, out)
    if made.has_records:
        size = sum(map(len, out))
        if size > JOIN_BYTES_MAX:
            return join_small([_frame_head(made, header, size), *out])
    body = b"".join(out)
    size = len(body)
    head = _frame_head(made, header, size)
    return [head + body] if size <= JOIN_BYTES_MAX else [head, body]


def _frame_head(made: Codec, header: RequestHeader, size: int) -> bytes:
    """What comes before a response's body of so many bytes: the size of both, and the header."""
    if made.flexible_header:
        return _pack_flexible_frame(size + 5, header.correlation_id, 0)
    return _pack_frame(size + 4, header.correlation_id)


def response_in_pieces(
    header: RequestHeader, fields: dict[str, Any], *, bytes_max: int = RESPONSE_BYTES_MAX
) -> Generator[int, None, list[Any]]:
    """As `frame_response`, for large ones: yields after each piece of its work, how many bytes there are.

    Arrays may be anything with a length that can be gone through once; their elements are not needed any more
    once they are written. KafkaError where the response has more than ``bytes_max``.
    """
    entity = load(APIS[header.api_key].schema, header.api_version, "response")
    out: list[Any] = []
    joined: list[Any] = [b""]
    made = _response(header.api_key, header.api_version)
    size = 0
    for _ in codec.pieces_writer(entity)(fields, out, [codec.PIECE]):
        size += sum(map(len, out))
        joined += join_small(out)
        out.clear()
        if size > bytes_max:
            raise KafkaError(ErrorCode.unknown_server_error, "the response is too large")
        yield size
    size += sum(map(len, out))
    joined += join_small(out)
    joined[0] = _frame_head(made, header, size)
    return joined


def join_small(pieces: list[Any]) -> list[Any]:
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
