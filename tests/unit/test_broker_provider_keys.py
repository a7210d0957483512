"""A provider's keys, where the provider is slow, says nonsense, or is asked no more."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.client import HTTPMessage
from itertools import chain, count, repeat
from typing import Any
from urllib.request import Request

import pytest
from coordinators_support import ManualClock

from ottla.broker.provider_keys import ProviderKeys
from ottla.env import fetch
from ottla.env.fetch import read_url


@contextmanager
def answering(*pieces: bytes) -> Iterator[str]:
    """An address where each connection is sent these pieces, one after the other, and then closed."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            for piece in pieces:
                try:
                    connection.sendall(piece)
                except OSError:
                    return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/jwks"
    finally:
        listener.close()


@contextmanager
def dripping(drops: Iterable[bytes], looks: threading.Semaphore) -> Iterator[str]:
    """An address where somebody is sent a drop for each look at the clock, and never all of it."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            for drop in drops:
                looks.acquire()
                try:
                    connection.sendall(drop)
                except OSError:
                    return

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/jwks"
    finally:
        looks.release(1_000)
        listener.close()


HEAD = b"HTTP/1.0 200 OK\r\n\r\n"


@pytest.mark.parametrize(
    "said", [b"no HTTP at all\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n"]
)
def test_nonsense_cannot_be_had(said: bytes) -> None:
    with answering(said) as url, pytest.raises(OSError):
        read_url(url, timeout_s=10, bytes_max=100)


def test_what_is_too_large_cannot_be_had() -> None:
    with answering(HEAD, b"x" * 100) as url:
        assert read_url(url, timeout_s=10, bytes_max=100) == b"x" * 100
    with answering(HEAD, b"x" * 101) as url, pytest.raises(OSError, match="more than 100 bytes"):
        read_url(url, timeout_s=10, bytes_max=100)


@pytest.mark.parametrize(
    "begins", [HEAD, b"HTTP/1.0 200 OK\r\n", b"HTTP/1.0 302 Found\r\nLocation: /else"], ids=len
)
def test_what_comes_drop_by_drop_cannot_be_had(begins: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be it the answer itself that drips, or what comes before it: a thread is held as long as it may be."""
    looks, seconds = threading.Semaphore(0), count(0)

    def monotonic() -> int:
        looks.release()
        return next(seconds)

    monkeypatch.setattr(fetch.time, "monotonic", monotonic)
    drops = chain([begins], repeat(b"x", 1_000))
    with dripping(drops, looks) as url, pytest.raises(OSError, match="takes too long"):
        read_url(url, timeout_s=30, bytes_max=10_000)


class Settings:
    """``sasl.oauthbearer.jwks.endpoint.*``, in milliseconds."""

    def get(self, name: str) -> int:
        return 3_600_000 if name.endswith("refresh.ms") else 100


def test_a_provider_that_is_asked_no_more_is_not_asked_again() -> None:
    let_go = threading.Event()
    asked: list[float] = []

    def parse(data: bytes) -> Any:
        return data

    def read(url: str, **limits: Any) -> bytes:
        asked.append(time.monotonic())
        let_go.wait()
        return b"keys"

    async def main(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("ottla.broker.provider_keys.read_url", read)
        clock = ManualClock()
        keys = ProviderKeys("http://somewhere", Settings(), clock, parse)  # type: ignore[arg-type]
        keys.start()
        fetching = keys._fetching
        assert fetching is not None
        while not asked:
            await asyncio.sleep(0)
        keys.close()
        let_go.set()
        await asyncio.gather(fetching, return_exceptions=True)
        assert keys._timer is None
        keys.look_for("another")
        assert keys._fetching is None and len(asked) == 1

    with pytest.MonkeyPatch.context() as patch:
        asyncio.run(main(patch))


def test_keys_are_made_of_what_came_in_the_thread_that_fetched_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made_in: list[int] = []

    def parse(data: bytes) -> Any:
        made_in.append(threading.get_ident())
        return data

    async def main() -> None:
        monkeypatch.setattr("ottla.broker.provider_keys.read_url", lambda url, **limits: b"keys")
        keys = ProviderKeys("http://somewhere", Settings(), ManualClock(), parse)  # type: ignore[arg-type]
        keys.start()
        assert keys._fetching is not None
        await keys._fetching
        assert keys.keys == b"keys"  # type: ignore[comparison-overlap]
        assert len(made_in) == 2 and made_in[0] == threading.get_ident() != made_in[1]
        keys.close()

    asyncio.run(main())


def test_nobody_is_sent_from_https_to_where_anybody_may_answer() -> None:
    handler = fetch._NotLessSafe()
    headers = HTTPMessage()

    def referred(before: str, after: str) -> Request | None:
        return handler.redirect_request(Request(before), None, 302, "Found", headers, after)

    for before, after in (("https", "https"), ("http", "https"), ("http", "http")):
        found = referred(f"{before}://a/keys", f"{after}://b/keys")
        assert found is not None and found.full_url == f"{after}://b/keys"
    for after in ("http", "ftp", "file"):
        with pytest.raises(ValueError, match="another kind"):
            referred("https://a/keys", f"{after}://b/keys")
    with (
        answering(b"HTTP/1.0 302 Found\r\nLocation: ftp://127.0.0.1/keys\r\n\r\n") as url,
        pytest.raises(OSError),
    ):
        read_url(url, timeout_s=10, bytes_max=100)
