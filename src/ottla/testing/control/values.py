"""Keys, values and faults as JSON (pure).

Bytes that are UTF-8 are a string; others are an object with their base64. Both are accepted as well.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any
from uuid import UUID

from ottla.broker.faults import Fault
from ottla.errors import ErrorCode
from ottla.observe.http import Response
from ottla.testing.control.errors import JSON, bad_request
from ottla.testing.faults import CONNECTION_REFUSED, MARKERS_HELD, Request, Rule
from ottla.text import id_text

# Longest answer that is a list of small things.
ANSWER_BYTES_MAX = 4 * 1024 * 1024
# What is shown of a request that a client has sent.
TOPICS_MAX, TEXT_LENGTH_MAX = 100, 500

Document = dict[str, Any]


def as_json(document: Document) -> str:
    return json.dumps(document, ensure_ascii=False, default=str)


def answer(document: Document, status: HTTPStatus = HTTPStatus.OK) -> Response:
    return Response(status, f"{as_json(document)}\n".encode(errors="replace"), JSON)


def answer_list(name: str, elements: Iterable[Document], more: Document | None = None) -> Response:
    """An answer with a list, of which so many elements are left off at the end as make it too long."""
    written: list[str] = []
    size = left_off = 0
    for element in elements:
        text = as_json(element)
        size += len(text)
        if size > ANSWER_BYTES_MAX:
            left_off += 1
        else:
            written.append(text)
    rest = as_json((more or {}) | {"left_off": left_off})
    body = f'{{"{name}": [{", ".join(written)}], {rest[1:]}\n'
    return Response(HTTPStatus.OK, body.encode(errors="replace"), JSON)


def from_bytes(data: bytes | None) -> str | Document | None:
    if data is None:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(data).decode()}


def to_bytes(value: Any, what: str) -> bytes | None:
    """What ``from_bytes`` gives, as bytes. ControlError where it is something else."""
    if value is None:
        return None
    if isinstance(value, str):
        return value.encode(errors="surrogatepass")
    if isinstance(value, dict) and value.keys() == {"base64"} and isinstance(value["base64"], str):
        try:
            return b64decode(value["base64"], validate=True)
        except ValueError as error:
            raise bad_request("INVALID_FIELD", f"The {what} has a base64 that is none: {error}.") from error
    raise bad_request("INVALID_FIELD", f'The {what} is not a string, null or {{"base64": "…"}}.')


def shown_rule(rule: Rule) -> Document:
    """A fault that was asked for."""
    fault, selector = rule.fault, rule.selector
    return {
        "id": rule.id,
        **_shown_fault(fault),
        "apis": None if selector.apis is None else sorted(selector.apis),
        "topic": selector.topic,
        "client_id": selector.client_id,
        "hits": rule.hits,
        "times_left": rule.left,
    }


def _shown_fault(fault: Fault) -> Document:
    if fault is CONNECTION_REFUSED:
        return {"fault": "refuse_connections"}
    if fault is MARKERS_HELD:
        return {"fault": "hold_markers"}
    if fault.drop is not None:
        return {"fault": "drop", "after": fault.drop == "after"}
    if fault.error_code is not None:
        return {"fault": "fail", "error": ErrorCode(fault.error_code).name.upper()}
    return {"fault": "delay", "ms": fault.delay_ms}


def shown_request(request: Request) -> Document:
    """A request that a client has sent, in part where it is long."""
    topics = request.topics
    fault = request.fault
    return {
        "api": request.api,
        "version": request.version,
        "client_id": _cut(request.client_id),
        "topics": list(topics[:TOPICS_MAX]),
        "topic_count": len(topics),
        "fields": _shown_fields(request.fields),
        "fault": None if fault is None else _met(fault),
    }


def _met(fault: Fault) -> Document:
    """What a request met, which may have been several faults at once."""
    return {
        "error": None if fault.error_code is None else ErrorCode(fault.error_code).name.upper(),
        "delay_ms": fault.delay_ms,
        "drop": fault.drop,
    }


def _shown_fields(fields: Mapping[str, object]) -> Document:
    return {name: _plain(value) for name, value in fields.items()}


def _plain(value: object) -> object:
    if isinstance(value, UUID):
        return id_text(value)
    return _cut(value) if isinstance(value, str) else value


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_LENGTH_MAX else f"{text[:TEXT_LENGTH_MAX]}…"
