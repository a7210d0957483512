"""What somebody who has not logged in does again and again: the log says so, and is not filled by it."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator

import pytest

from interop.raw import RawClient
from ottla.logging_setup import STRANGER_LINES_MAX, Limiter
from ottla.testing import Broker

TIMES = STRANGER_LINES_MAX + 30


@pytest.fixture
def lines() -> Iterator[Callable[[], list[str]]]:
    """What a process would have logged by now."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.addFilter(Limiter())
    logger = logging.getLogger("ottla")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield lambda: out.getvalue().splitlines()
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def speaks_http(client: RawClient) -> None:
    client.send(b"GET / HTTP/1.1\r\n\r\n")


def asks_without_a_login(client: RawClient) -> None:
    client.send(client.frame("Metadata", 1, {"topics": None}))


def gives_a_wrong_password(client: RawClient) -> None:
    client.call("SaslHandshake", mechanism="PLAIN")
    client.send(client.frame("SaslAuthenticate", 2, {"auth_bytes": b"\0alice\0wrong"}))


@pytest.mark.parametrize(
    ("tls", "act", "said"),
    [
        (True, speaks_http, "connection refused: it does not speak TLS"),
        (False, speaks_http, "closing the connection"),
        (False, asks_without_a_login, "the login failed"),
        (False, gives_a_wrong_password, "the login failed"),
    ],
)
def test_what_strangers_do_again_and_again_fills_no_log(
    tls: bool, act: Callable[[RawClient], None], said: str, lines: Callable[[], list[str]]
) -> None:
    config = {"connection.failed.authentication.delay.ms": 0}
    with Broker(tls=tls, users={"alice": "secret"}, config=config) as broker:
        for _ in range(TIMES):
            with RawClient(broker.bootstrap_servers) as client:
                act(client)
                while client.socket.recv(4096):
                    pass
        told = [line for line in lines() if said in line]
    assert len(told) == STRANGER_LINES_MAX, lines()[-5:]
    assert "more lines like this from there are left out" in told[-1]
    # Nor does it have anything else said each time.
    assert len(lines()) < TIMES
