"""HTTP requests as bytes, of which only what a server accepts is taken (pure): GET and HEAD without a body,
unless it says otherwise.

RFC 9112, and no more of it than that: a body has a length that is known from the beginning. Whatever is not
quite a request of this kind is refused, and ends its connection.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import NamedTuple

# A request's line and headers.
HEAD_BYTES_MAX = 8 * 1024
HEADERS_MAX = 64

_END = b"\r\n\r\n"
_LINE = re.compile(rb"([A-Z]{1,20}) (/[!-~]*) HTTP/1\.([01])")
_HEADER = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t -~\x80-\xff]*?)[ \t]*")
_LENGTH = re.compile(r"[0-9]{1,12}")


class Accepted(NamedTuple):
    """What a server accepts: methods, and how many bytes the body of a request may have."""

    methods: tuple[str, ...] = ("GET", "HEAD")
    body_bytes_max: int = 0


READS = Accepted()


class Refused(Exception):
    """It is no request that is answered here."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


class Request(NamedTuple):
    """What is asked for. Names of headers are in lower case; one that comes twice counts as a list."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    keeps_alive: bool
    body: bytes = b""

    @property
    def takes_gzip(self) -> bool:
        """Whether the client says that it does; a weight of 0 says that it does not."""
        for part in self.headers.get("accept-encoding", "").split(","):
            coding, _, weight = part.partition(";")
            if coding.strip().lower() == "gzip":
                return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
        return False


class Incoming:
    """The requests of one connection, taken out of its buffer one after the other."""

    def __init__(self, accepted: Accepted = READS) -> None:
        self._accepted = accepted
        # The request whose body is missing, and how long that is.
        self._head: Request | None = None
        self._length = 0

    @property
    def is_midway(self) -> bool:
        """Whether a request has come but for its body."""
        return self._head is not None

    @property
    def is_asked_for_body(self) -> bool:
        """Whether the client sends the body once it is told to (RFC 9110, 10.1.1)."""
        return self._head is not None and self._head.headers.get("expect", "").lower() == "100-continue"

    @property
    def size_max(self) -> int:
        """How many bytes the buffer may have and still be a part of one request."""
        return HEAD_BYTES_MAX if self._head is None else self._length

    def take(self, buffer: bytearray) -> Request | None:
        """The request that the buffer begins with, which is taken out of it; None where a part of it is
        missing. Refused where it is none."""
        if self._head is None:
            head = _take_head(buffer)
            if head is None:
                return None
            self._head, self._length = _parse(head, self._accepted)
        if len(buffer) < self._length:
            return None
        request, self._head = self._head._replace(body=bytes(buffer[: self._length])), None
        del buffer[: self._length]
        return request


def take(buffer: bytearray) -> Request | None:
    """The request without a body that the buffer begins with, as `Incoming.take`."""
    return Incoming().take(buffer)


def _take_head(buffer: bytearray) -> bytes | None:
    # An empty line before a request is passed over; more of them are a malformed one.
    if buffer.startswith(b"\r\n"):
        del buffer[:2]
    end = buffer.find(_END, 0, HEAD_BYTES_MAX)
    if end < 0:
        if len(buffer) >= HEAD_BYTES_MAX:
            raise Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"more than {HEAD_BYTES_MAX} bytes")
        return None
    head = bytes(buffer[:end])
    del buffer[: end + len(_END)]
    return head


def _parse(head: bytes, accepted: Accepted) -> tuple[Request, int]:
    """A request without its body, and how long that is."""
    first, *lines = head.split(b"\r\n")
    line = _LINE.fullmatch(first)
    if line is None:
        raise Refused(HTTPStatus.BAD_REQUEST, "that is no request")
    method, target, minor = line[1].decode(), line[2].decode(), line[3]
    if len(lines) > HEADERS_MAX:
        raise Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"more than {HEADERS_MAX} headers")
    headers: dict[str, str] = {}
    for each in lines:
        header = _HEADER.fullmatch(each)
        if header is None:
            raise Refused(HTTPStatus.BAD_REQUEST, "a header is malformed")
        name, value = header[1].decode().lower(), header[2].decode("latin-1")
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    if method not in accepted.methods:
        only = f"{', '.join(accepted.methods[:-1])} and {accepted.methods[-1]}"
        raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, f"the methods here are {only}")
    length = _length_of_body(headers, accepted.body_bytes_max)
    if minor == b"1" and "host" not in headers:
        raise Refused(HTTPStatus.BAD_REQUEST, "HTTP/1.1 asks for a Host header")
    path, _, query = target.partition("?")
    options = [option.strip() for option in headers.get("connection", "").lower().split(",")]
    keeps_alive = "close" not in options and (minor == b"1" or "keep-alive" in options)
    return Request(method, path, query, headers, keeps_alive), length


def _length_of_body(headers: Mapping[str, str], bytes_max: int) -> int:
    length = headers.get("content-length", "0")
    if not bytes_max and ("transfer-encoding" in headers or length != "0"):
        raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "a request has no body here")
    if "transfer-encoding" in headers:
        raise Refused(HTTPStatus.LENGTH_REQUIRED, "a body needs a Content-Length: it cannot come in chunks")
    if not _LENGTH.fullmatch(length):
        raise Refused(HTTPStatus.BAD_REQUEST, "Content-Length is no number")
    if int(length) > bytes_max:
        raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body has at most {bytes_max} bytes here")
    return int(length)
