"""A provider's keys, where the provider is slow, says nonsense, or is asked no more."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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


HEAD = b"HTTP/1.0 200 OK\r\n\r\n"


@pytest.mark.parametrize(
    "said", [b"no HTTP at all\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n"]
)
def test_nonsense_cannot_be_had(said: bytes) -> None:
    with answering(said) as url, pytest.raises(OSError):
        read_url(url, timeout_s=10, bytes_max=100)


def test_what_is_too_large_or_comes_drop_by_drop_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(HEAD, b"x" * 100) as url:
        assert read_url(url, timeout_s=10, bytes_max=100) == b"x" * 100
    with answering(HEAD, b"x" * 101) as url, pytest.raises(OSError, match="more than 100 bytes"):
        read_url(url, timeout_s=10, bytes_max=100)
    ticks = iter([0.0, *range(1, 1_000)])
    monkeypatch.setattr(fetch.time, "monotonic", lambda: next(ticks))
    monkeypatch.setattr(fetch, "READ_AT_ONCE_BYTES", 1)
    with answering(HEAD, b"x" * 100) as url, pytest.raises(OSError, match="takes too long"):
        read_url(url, timeout_s=10, bytes_max=100)


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
