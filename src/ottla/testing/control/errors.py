"""What is answered instead of what was asked for: an HTTP status, a code for programs, words for people."""

from __future__ import annotations

import json
from collections.abc import Iterable
from http import HTTPStatus

from ottla.errors import ErrorCode, KafkaError
from ottla.observe.http import Response
from ottla.testing.names import nearest

JSON = "application/json"
# Known words that are named if none of them is like the one that was given.
NAMED_MAX = 20
# What of a word from outside is shown.
SHOWN_MAX = 100

_STATUS = {
    ErrorCode.unknown_topic_or_partition: HTTPStatus.NOT_FOUND,
    ErrorCode.unknown_topic_id: HTTPStatus.NOT_FOUND,
    ErrorCode.transactional_id_not_found: HTTPStatus.NOT_FOUND,
    ErrorCode.topic_already_exists: HTTPStatus.CONFLICT,
    ErrorCode.message_too_large: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    ErrorCode.invalid_topic_exception: HTTPStatus.BAD_REQUEST,
    ErrorCode.invalid_partitions: HTTPStatus.BAD_REQUEST,
    ErrorCode.invalid_config: HTTPStatus.BAD_REQUEST,
    ErrorCode.invalid_record: HTTPStatus.BAD_REQUEST,
}


class ControlError(Exception):
    """``code`` is for programs, in capitals; the message says what is wrong and what to do."""

    def __init__(
        self, status: HTTPStatus, code: str, message: str, headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self._headers = headers

    def response(self) -> Response:
        return error_response(self.status, self.code, str(self))._replace(headers=self._headers)


def bad_request(code: str, message: str) -> ControlError:
    return ControlError(HTTPStatus.BAD_REQUEST, code, message)


def timed_out(message: str) -> ControlError:
    """A wait that ended before its condition was met."""
    return ControlError(HTTPStatus.GATEWAY_TIMEOUT, "TIMED_OUT", message)


def from_kafka(error: KafkaError) -> ControlError:
    """An error of Kafka's, under its own name."""
    status = _STATUS.get(error.code, HTTPStatus.CONFLICT)
    return ControlError(status, error.code.name.upper(), error.text)


def error_response(status: HTTPStatus, code: str, message: str) -> Response:
    body = json.dumps({"error": {"code": code, "message": message}}, ensure_ascii=False)
    return Response(status, f"{body}\n".encode(errors="replace"), JSON)


def without_endpoint(status: HTTPStatus, why: str) -> Response:
    """An error that is met before any endpoint is: the status's name is its code."""
    return error_response(status, status.name, why)


def shown(text: str) -> str:
    """A word from outside, quoted, of bounded length."""
    return repr(text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}…")


def meant(word: str, known: Iterable[str]) -> str:
    """A sentence that says which known word is like ``word``, or which there are."""
    names = sorted(known)
    if (near := nearest(word, names)) is not None:
        return f"Did you mean {near!r}?"
    if not names:
        return "There is none."
    more = f", and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
    return f"Known: {', '.join(names[:NAMED_MAX])}{more}."
