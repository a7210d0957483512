"""What a file: or http(s): address has, or answers, read at once; for threads."""

from __future__ import annotations

import io
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

SCHEMES = ("file", "http", "https")
READ_AT_ONCE_BYTES = 64 * 1024


def read_url(url: str, *, timeout_s: float, bytes_max: int) -> bytes:
    """The whole of it. OSError where it cannot be had, is larger than it may be, or takes longer.

    ``timeout_s`` is for all of it together, but for the time in which the system finds out the address of a
    name. Where an https address refers to one that is none, it cannot be had.
    """
    return _ask(_checked(url), url, timeout_s, bytes_max, _NotLessSafe)


def post_url(url: str, headers: Mapping[str, str], body: bytes, *, timeout_s: float, bytes_max: int) -> bytes:
    """What an http(s) address answers to a form; as ``read_url``. It is not sent on to where that refers to,
    which might be somebody else: headers may have a secret."""
    request = urllib.request.Request(_checked(url), body, dict(headers), method="POST")
    return _ask(request, url, timeout_s, bytes_max, _StayHere)


class _NotLessSafe(urllib.request.HTTPRedirectHandler):
    """Goes where it is referred to, but not from https to where anybody on the way may answer."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme not in ("https", urlsplit(req.full_url).scheme):
            raise ValueError("it refers to an address of another kind")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _StayHere(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def _checked(url: str) -> str:
    if urlsplit(url).scheme not in SCHEMES:
        raise OSError(f"{url}: only {', '.join(SCHEMES)} addresses are read")
    return url


def _ask(what: Any, url: str, timeout_s: float, bytes_max: int, *handlers: type[Any]) -> bytes:
    deadline = _Deadline(timeout_s)
    try:
        with _opener(deadline, *handlers).open(what, timeout=timeout_s) as answer:
            return _read(answer, deadline, bytes_max)
    except (ValueError, HTTPException, urllib.error.HTTPError) as error:
        raise OSError(f"{url}: {error}") from error


def _read(answer: Any, deadline: _Deadline, bytes_max: int) -> bytes:
    """ValueError where it is too much; TimeoutError where it comes drop by drop."""
    data = bytearray()
    while piece := answer.read1(READ_AT_ONCE_BYTES):
        data += piece
        if len(data) > bytes_max:
            raise ValueError(f"more than {bytes_max} bytes")
        deadline.left_s()
    return bytes(data)


class _Deadline:
    """When all has to be over."""

    def __init__(self, timeout_s: float) -> None:
        self._ends_s = time.monotonic() + timeout_s

    def left_s(self) -> float:
        """TimeoutError once it has passed."""
        left_s = self._ends_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("it takes too long to come")
        return left_s


def _opener(deadline: _Deadline, *handlers: type[Any]) -> urllib.request.OpenerDirector:
    """What ``urlopen`` does, redirects and proxies among it, with each connection held to the deadline."""

    class Http(urllib.request.HTTPHandler):
        def http_open(self, req: urllib.request.Request) -> Any:
            return self.do_open(partial(_plain, deadline), req)

    class Https(urllib.request.HTTPSHandler):
        def https_open(self, req: urllib.request.Request) -> Any:
            return self.do_open(partial(_encrypted, deadline), req)

    return urllib.request.build_opener(Http, Https, *handlers)


def _plain(deadline: _Deadline, host: str, **options: Any) -> HTTPConnection:
    return _held(HTTPConnection(host, **options), deadline)


def _encrypted(deadline: _Deadline, host: str, **options: Any) -> HTTPConnection:
    return _held(HTTPSConnection(host, context=ssl.create_default_context(), **options), deadline)


def _held(connection: HTTPConnection, deadline: _Deadline) -> HTTPConnection:
    made: Any = connection
    made._create_connection = partial(_connect, deadline)
    made.response_class = partial(_Response, deadline)
    return connection


def _connect(
    deadline: _Deadline, address: tuple[str, int], timeout: float, source: tuple[str, int] | None = None
) -> socket.socket:
    """As ``socket.create_connection``, whose time is for each of the addresses that a name has. What follows
    of a handshake is bounded by the time that is left."""
    error: OSError = OSError(f"{address[0]} has no address")
    for family, kind, protocol, _, where in socket.getaddrinfo(*address, 0, socket.SOCK_STREAM):
        made = socket.socket(family, kind, protocol)
        try:
            made.settimeout(deadline.left_s())
            made.connect(where)
            made.settimeout(deadline.left_s())
        except OSError as failed:
            made.close()
            error = failed
        else:
            return made
    raise error


class _Response(HTTPResponse):
    """A response that is read no longer than until a deadline, however it drips."""

    def __init__(self, deadline: _Deadline, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(_Timed(deadline, sock), *args, **options)  # type: ignore[arg-type]


class _Timed:
    """A socket, of which a response is read."""

    def __init__(self, deadline: _Deadline, sock: socket.socket) -> None:
        self._deadline = deadline
        self._sock = sock

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reading(self._deadline, self._sock))


class _Reading(io.RawIOBase):
    """What comes by a socket, until a deadline."""

    def __init__(self, deadline: _Deadline, sock: socket.socket) -> None:
        super().__init__()
        self._deadline = deadline
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._deadline.left_s())
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()
