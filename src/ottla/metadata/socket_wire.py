"""The protocol between a metadata store and its clients on this machine, over a Unix socket (pure).

A frame is four bytes of length and a JSON array. A request is ``[id, operation, argument, …]``, an answer
``[id, status, content, …]`` with the same id; answers come as they are ready. ``more`` is a part of an
answer, of which others follow. Values are bytes of any kind, and travel in base64.

A reader trusts no input: a frame has a limit that is known before it is received, and each part of it is
checked for what it is.
"""

from __future__ import annotations

import json
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from ottla.metadata.store import (
    TXN_OPERATIONS_MAX,
    CompactedError,
    Compare,
    Delete,
    Event,
    KeyValue,
    LeaseError,
    Operation,
    OutcomeUnknownError,
    Put,
    StoreError,
)

LENGTH_BYTES = 4
# The largest request. etcd takes none beyond 1.5 MiB, so no operation of ours needs more than 2 in base64.
REQUEST_BYTES_MAX = 2 * 1024 * 1024
# The largest frame at all: what came in a request goes out again with some more around it.
FRAME_BYTES_MAX = 4 * 1024 * 1024
# An answer with many keys or events is cut into parts of about so many bytes.
PART_BYTES = 512 * 1024
INTEGER_MAX = (1 << 63) - 1
# A prefix or a key is at most so long; the longest of ours is some 270 characters.
KEY_CHARACTERS_MAX = 64 * 1024


class WireError(ValueError):
    """What was received is no frame, no request or no answer."""


class Op(StrEnum):
    """What can be asked for."""

    GET = "get"
    RANGE = "range"
    TXN = "txn"
    # The next changes, when there are any.
    WATCH = "watch"
    # Nobody waits for an answer any more.
    FORGET = "forget"
    COMPACT = "compact"
    GRANT = "grant"
    KEEP_ALIVE = "keep-alive"
    REVOKE = "revoke"


class Status(StrEnum):
    """What an answer is."""

    OK = "ok"
    MORE = "more"
    FAILED = "failed"


class Request(NamedTuple):
    """A request, checked: ``arguments`` are those of the operation, as ``_ARGUMENTS`` says."""

    id: int
    op: Op
    arguments: tuple[Any, ...]


class Answer(NamedTuple):
    """An answer or a part of one; ``content`` is as the operation has it."""

    id: int
    status: Status
    content: list[Any]


# Frames


def frame(document: list[Any], bytes_max: int = FRAME_BYTES_MAX) -> bytes:
    """A frame. WireError where it would be larger than anybody takes."""
    # All of it is ASCII: lone surrogates, which a key may have, are escaped like the rest.
    body = json.dumps(document, separators=(",", ":")).encode()
    if len(body) > bytes_max:
        raise WireError(f"{len(body)} bytes are more than the {bytes_max} that are taken at once")
    return len(body).to_bytes(LENGTH_BYTES) + body


def body_bytes(header: bytes, bytes_max: int = FRAME_BYTES_MAX) -> int:
    """How long the body is that follows. WireError where that is no length of one."""
    size = int.from_bytes(header)
    if not 0 < size <= bytes_max:
        raise WireError(f"a frame of {size} bytes was announced")
    return size


def _document(body: bytes) -> list[Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise WireError(f"a frame has something else than JSON: {error}") from None
    if not isinstance(document, list) or len(document) < 2:
        raise WireError("a frame has something else than a request or an answer")
    return document


# Requests


def request(call_id: int, op: Op, *arguments: Any) -> bytes:
    """A request's frame; a transaction's arguments as ``txn_arguments`` makes them."""
    return frame([call_id, op, *arguments], REQUEST_BYTES_MAX)


def txn_arguments(compares: Sequence[Compare], operations: Sequence[Operation]) -> tuple[Any, Any]:
    return (
        [[c.key, c.mod_revision, None if c.value is None else _text(c.value)] for c in compares],
        [
            ["put", one.key, _text(one.value), one.lease]
            if isinstance(one, Put)
            else ["delete", one.key, one.prefix]
            for one in operations
        ],
    )


def parse_request(body: bytes) -> Request:
    """WireError for whatever is none."""
    call_id, op, *arguments = _document(body)
    if not isinstance(op, str) or op not in _ARGUMENTS:
        raise WireError("a request for something that there is not")
    parsers = _ARGUMENTS[Op(op)]
    if len(arguments) != len(parsers):
        raise WireError(f"{op} has {len(parsers)} arguments, not {len(arguments)}")
    made = tuple(parse(argument) for parse, argument in zip(parsers, arguments, strict=True))
    return Request(_number(call_id), Op(op), made)


def _number(value: Any) -> int:
    # True is an int to Python.
    if type(value) is not int or not 0 <= value <= INTEGER_MAX:
        raise WireError("a number is none, or out of its range")
    return value


def _key(value: Any) -> str:
    if not isinstance(value, str) or len(value) > KEY_CHARACTERS_MAX:
        raise WireError("a key is no text, or too long")
    return value


def _bytes(value: Any) -> bytes:
    if not isinstance(value, str):
        raise WireError("a value is no base64")
    try:
        return a2b_base64(value, strict_mode=True)
    except (Base64Error, ValueError):
        # Also where it has characters beyond ASCII.
        raise WireError("a value is no base64") from None


def _text(value: bytes) -> str:
    return b2a_base64(value, newline=False).decode()


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise WireError("a list is none")
    return value


def _few(value: Any) -> list[Any]:
    if len(_list(value)) > TXN_OPERATIONS_MAX:
        raise WireError("a transaction is too large")
    return list(value)


def _compares(value: Any) -> list[Compare]:
    made = []
    for one in _few(value):
        if len(_list(one)) != 3:
            raise WireError("a comparison has three parts")
        key, revision, content = one
        made.append(
            Compare(
                _key(key),
                None if revision is None else _number(revision),
                None if content is None else _bytes(content),
            )
        )
    return made


def _operations(value: Any) -> list[Operation]:
    made: list[Operation] = []
    for one in _few(value):
        match _list(one):
            case ["put", key, content, lease]:
                made.append(Put(_key(key), _bytes(content), _number(lease)))
            case ["delete", key, bool(prefix)]:
                made.append(Delete(_key(key), prefix))
            case _:
                raise WireError("an operation is neither a put nor a delete")
    return made


_ARGUMENTS: dict[Op, tuple[Any, ...]] = {
    Op.GET: (_key,),
    Op.RANGE: (_key,),
    Op.TXN: (_compares, _operations),
    Op.WATCH: (_key, _number),
    Op.FORGET: (),
    Op.COMPACT: (_number,),
    Op.GRANT: (_number,),
    Op.KEEP_ALIVE: (_number,),
    Op.REVOKE: (_number,),
}


# Answers


def answer(call_id: int, *content: Any, more: bool = False) -> bytes:
    """An answer's frame; keys and events as ``item_of`` and ``event_of`` make them."""
    return frame([call_id, Status.MORE if more else Status.OK, *content])


def failure(call_id: int, error: Exception) -> bytes:
    """The frame of an answer that says what went wrong."""
    kind, number = "store", 0
    if isinstance(error, CompactedError):
        kind, number = "compacted", error.compact_revision
    elif isinstance(error, LeaseError):
        kind = "lease"
    elif isinstance(error, OutcomeUnknownError):
        kind = "unknown"
    elif isinstance(error, ValueError):
        kind = "value"
    return frame([call_id, Status.FAILED, kind, number, str(error)[:1000]])


def parse_answer(body: bytes) -> Answer:
    """WireError for whatever is none."""
    call_id, status, *content = _document(body)
    if not isinstance(status, str) or status not in set(Status):
        raise WireError("an answer is of no known kind")
    return Answer(_number(call_id), Status(status), content)


def error_of(content: Sequence[Any]) -> Exception:
    """The error that an answer tells of. WireError where it tells of none."""
    match content:
        case ["compacted", int(revision), str()]:
            return CompactedError(revision)
        case [str(kind), int(), str(text)]:
            kinds: dict[str, type[Exception]] = {
                "lease": LeaseError,
                "unknown": OutcomeUnknownError,
                "value": ValueError,
            }
            return kinds.get(kind, StoreError)(text)
    raise WireError("an answer says that something failed, and not what")


def item_of(item: KeyValue) -> list[Any]:
    return [item.key, _text(item.value), *item[2:]]


def event_of(event: Event) -> list[Any]:
    return [event.key, None if event.value is None else _text(event.value), event.revision]


def parse_item(value: Any) -> KeyValue:
    if len(_list(value)) != 6:
        raise WireError("a key has six parts")
    key, content, *numbers = value
    return KeyValue(_key(key), _bytes(content), *map(_number, numbers))


def parse_event(value: Any) -> Event:
    if len(_list(value)) != 3:
        raise WireError("an event has three parts")
    key, content, revision = value
    return Event(_key(key), None if content is None else _bytes(content), _number(revision))


def parts(elements: Iterable[list[Any]]) -> Iterable[list[list[Any]]]:
    """Keys or events in pieces of about PART_BYTES; there is one at least, which may be empty."""
    piece: list[list[Any]] = []
    size = 0
    for element in elements:
        length = 64 + 6 * len(element[0]) + len(element[1] or "")
        if piece and size + length > PART_BYTES:
            yield piece
            piece, size = [], 0
        piece.append(element)
        size += length
    yield piece
