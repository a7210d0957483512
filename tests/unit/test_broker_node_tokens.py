"""The token by which a node logs in to others: where it is from, how long it is used, what is said."""

from __future__ import annotations

import asyncio
import json
import threading
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Callable, Coroutine, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from measuring import HANG_S
from ottla.broker import node_tokens
from ottla.broker.among_nodes import AmongNodes
from ottla.broker.node_tokens import NodeTokens, NoToken
from ottla.config import BrokerConfig, ConfigError
from ottla.env.clock import SystemClock
from ottla.env.network import TcpNetwork
from ottla.security.jaas import read_login_module

URL = "sasl.oauthbearer.token.endpoint.url"
CLIENT = "sasl.oauthbearer.client.credentials.client"
MODULE = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required"


class Clock(SystemClock):
    shift_ms = 0

    def monotonic_ms(self) -> int:
        return super().monotonic_ms() + self.shift_ms

    def now_ms(self) -> int:
        return super().now_ms() + self.shift_ms


def token(clock: Clock, lasts_s: float = 1000, **claims: Any) -> str:
    claims = {"sub": "node", "exp": clock.now_ms() / 1000 + lasts_s, **claims}
    parts = ({"alg": "none"}, claims)
    return (
        ".".join(urlsafe_b64encode(json.dumps(one).encode()).decode().rstrip("=") for one in parts) + ".c2ln"
    )


def tokens(clock: Clock, module: str | None = None, **settings: str) -> NodeTokens:
    config = BrokerConfig({name.replace("__", "."): value for name, value in settings.items()})
    read = None if module is None else read_login_module(f"{MODULE} {module};", "OAUTHBEARER")
    return NodeTokens(config.for_listener("PLAINTEXT"), read, clock)


def of(clock: Clock, url: str, **settings: str) -> NodeTokens:
    return tokens(clock, None, **{URL: url, f"{CLIENT}.id": "me", f"{CLIENT}.secret": "secret", **settings})


def run(body: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(body, HANG_S))


class Provider:
    """Answers in turn; the last answer again and again."""

    def __init__(self, *answers: tuple[int, bytes, dict[str, str]]) -> None:
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        it = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, data, headers = answers[min(len(it.asked), len(answers) - 1)]
                it.asked.append((self.path, dict(self.headers), body))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/token"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def provided() -> Iterator[Callable[..., Provider]]:
    made: list[Provider] = []

    def provide(*answers: tuple[int, bytes, dict[str, str]]) -> Provider:
        made.append(Provider(*answers))
        return made[-1]

    yield provide
    for one in made:
        one.close()


def answer(text: str) -> tuple[int, bytes, dict[str, str]]:
    return 200, json.dumps({"access_token": text, "token_type": "Bearer"}).encode(), {}


def test_a_provider_gives_one_to_whom_shows_a_secret(provided: Callable[..., Provider]) -> None:
    async def body() -> None:
        clock = Clock()
        text = token(clock)
        provider = provided(answer(text))
        it = of(clock, provider.url, **{"sasl.oauthbearer.scope": "kafka nodes"})
        logins = await asyncio.gather(*(it.begin() for _ in range(20)))
        assert {login.start() for login in logins} == {f"n,,\x01auth=Bearer {text}\x01\x01".encode()}
        ((path, headers, sent),) = provider.asked
        assert path == "/token" and sent == b"grant_type=client_credentials&scope=kafka%20nodes"
        assert b64decode(headers["Authorization"].removeprefix("Basic ")) == b"me:secret"
        assert headers["Content-Type"] == "application/x-www-form-urlencoded"

    run(body())


def test_options_of_the_login_module_count_where_settings_say_nothing(
    provided: Callable[..., Provider],
) -> None:
    async def body() -> None:
        clock = Clock()
        provider = provided(answer(token(clock)))
        module = 'clientId="old" clientSecret="older" scope="s" extension_a="b"'
        login = await tokens(clock, module, **{URL: provider.url}).begin()
        assert login.start().endswith(b"\x01a=b\x01\x01")
        ((_, headers, sent),) = provider.asked
        assert b64decode(headers["Authorization"].removeprefix("Basic ")) == b"old:older"
        assert sent.endswith(b"&scope=s")

    run(body())


def test_it_is_used_for_most_of_its_life_and_to_its_end_where_there_is_no_other(
    provided: Callable[..., Provider],
) -> None:
    async def body() -> None:
        clock = Clock()
        first, second = token(clock, 1000), token(clock, 5000)
        provider = provided(answer(first), (503, b"", {}), (503, b"", {}), answer(second))
        it = of(clock, provider.url)

        async def used() -> str:
            return (await it.begin()).start().decode().split()[1].rstrip("\x01")

        for shift_s, expected, asked in ((0, first, 1), (790, first, 1), (810, first, 2), (990, first, 3)):
            clock.shift_ms = shift_s * 1000
            assert (await used(), len(provider.asked)) == (expected, asked)
        clock.shift_ms = 1_001_000
        assert await used() == second

    run(body())


def test_a_provider_that_fails_is_not_asked_for_each_connection(
    provided: Callable[..., Provider], caplog: pytest.LogCaptureFixture
) -> None:
    async def body() -> None:
        clock = Clock()
        provider = provided((401, b'{"error": "x"}', {}))
        it = of(clock, provider.url)
        for _ in range(5):
            with pytest.raises(NoToken, match=r"no token to log in with: .*401"):
                await it.begin()
        assert len(provider.asked) == 1
        clock.shift_ms = 1_100
        with pytest.raises(NoToken):
            await it.begin()
        assert len(provider.asked) == 2
        assert caplog.text.count("cannot get the token") == 1
        assert "secret" not in caplog.text

    run(body())


def test_one_that_is_refused_is_not_used_again(provided: Callable[..., Provider]) -> None:
    async def body() -> None:
        clock = Clock()
        first, second = token(clock), token(clock, n=2)
        it = of(clock, provided(answer(first), answer(second)).url)
        login = await it.begin()
        login.respond(b'{"status": "invalid_token"}')
        assert second.encode() in (await it.begin()).start()

    run(body())


def test_a_secret_goes_nowhere_else(provided: Callable[..., Provider]) -> None:
    async def body() -> None:
        clock = Clock()
        other = provided(answer(token(clock)))
        provider = provided((307, b"", {"Location": other.url}))
        with pytest.raises(NoToken, match="307"):
            await of(clock, provider.url).begin()
        assert not other.asked

    run(body())


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("not a token", "no JWT"),
        ("a.b.c", "no JWT"),
        ("a.YWFh.c", "not JSON"),
        (token(Clock(), exp="soon"), "exp"),
        (token(Clock(), exp=1e300), "exp"),
        (token(Clock(), -5), "has ended"),
        ("", "no JWT"),
        ("ä.b.c", "can't decode"),
    ],
    ids=["no token", "no base64", "no JSON", "no end", "no time", "ended", "empty", "no ascii"],
)
def test_a_file_without_a_token_is_said(text: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(text)

    async def body() -> None:
        with pytest.raises(NoToken, match=why):
            await tokens(Clock(), None, **{URL: (tmp_path / "token").as_uri()}).begin()

    run(body())


def test_a_file_is_read_again_when_its_token_ends(tmp_path: Path) -> None:
    async def body() -> None:
        clock = Clock()
        file = tmp_path / "token"
        file.write_text(token(clock, 10) + "\n")
        it = tokens(clock, None, **{URL: file.as_uri()})
        await it.begin()
        second = token(clock, 100)
        file.write_text(second)
        clock.shift_ms = 8_100
        assert second.encode() in (await it.begin()).start()
        file.unlink()
        clock.shift_ms = 200_000
        with pytest.raises(NoToken, match="No such file"):
            await it.begin()

    run(body())


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"access_token": 1}', b"[" * 100_000, b"x" * 300_000])
def test_an_answer_without_one_is_said(data: bytes, provided: Callable[..., Provider]) -> None:
    async def body() -> None:
        with pytest.raises(NoToken, match="no token to log in with"):
            await of(Clock(), provided((200, data, {})).url).begin()

    run(body())


NODES = {
    "listeners": "SASL_PLAINTEXT://127.0.0.1:0",
    "security.inter.broker.protocol": "SASL_PLAINTEXT",
    "sasl.enabled.mechanisms": "OAUTHBEARER",
    "sasl.mechanism.inter.broker.protocol": "OAUTHBEARER",
}


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({}, "token.endpoint.url to the URL"),
        ({URL: "ftp://x"}, "must begin with file:, http:, https:"),
        ({URL: "https://x"}, "client.id and .secret are missing"),
        ({URL: "https://x", f"{CLIENT}.id": "a"}, "client.id and .secret are missing"),
        (
            {"sasl.mechanism.inter.broker.protocol": "GSSAPI"},
            "set it to one of PLAIN, .*OAUTHBEARER, or have",
        ),
        ({"sasl.enabled.mechanisms": "PLAIN"}, "must be included"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_the_start(settings: dict[str, str], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        AmongNodes(BrokerConfig(NODES | settings), Clock(), TcpNetwork(), users=lambda _: {})


def test_a_provider_has_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def post(*_: object, **bounds: Any) -> bytes:
        asked.append(bounds)
        raise OSError("x")

    monkeypatch.setattr(node_tokens, "post_url", post)

    async def body() -> None:
        with pytest.raises(NoToken):
            await of(Clock(), "https://x.invalid").begin()

    run(body())
    assert asked == [{"timeout_s": 10.0, "bytes_max": 256 * 1024}]
