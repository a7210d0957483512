"""Bytes that are no Kafka requests: a closed connection, a line in the log, and no harm to anybody."""

from __future__ import annotations

import random
import re
import struct
import time
from collections.abc import Callable, Iterator

import pytest

from interop.bystander import Bystander
from interop.process import BrokerProcess, wait_until
from interop.raw import RawClient, framed, request_header
from ottla.wire.apis import BY_NAME

IDLE_MS = 1000
CLOSING = "closing the connection"


@pytest.fixture(scope="module")
def broker(ottla_process_module: Callable[..., BrokerProcess]) -> BrokerProcess:
    return ottla_process_module({"socket.request.max.bytes": "1000000"})


@pytest.fixture(scope="module")
def noisy(ottla_process_module: Callable[..., BrokerProcess]) -> BrokerProcess:
    """Of tests that cause more lines than the log has of one address."""
    return ottla_process_module()


@pytest.fixture
def bystander(broker: BrokerProcess) -> Iterator[Bystander]:
    with Bystander(broker.bootstrap) as other:
        yield other


@pytest.fixture
def closes(broker: BrokerProcess, bystander: Bystander) -> Callable[..., None]:
    """closes(data): the broker closes the connection that sent `data` and says why in one line."""

    def check(data: bytes, reason: str = "") -> None:
        before = len(broker.lines_with(CLOSING))
        with RawClient(broker.bootstrap) as client:
            client.send(data)
            assert client.closed()
        lines = wait_until(lambda: broker.lines_with(CLOSING)[before:], what="a line in the log")
        assert len(lines) == 1, lines
        assert re.search(reason, lines[0]), lines[0]
        assert "Traceback" not in broker.log()

    return check


@pytest.mark.parametrize("size", [-1, -(2**31), 1_000_001, 2**31 - 1])
def test_frame_lengths_that_cannot_be(closes: Callable[..., None], size: int) -> None:
    closes(struct.pack(">i", size), f"a request of {size} bytes")


def test_the_largest_request_is_taken(broker: BrokerProcess) -> None:
    """A frame of just socket.request.max.bytes is read whole before it is judged."""
    with RawClient(broker.bootstrap) as client:
        header = request_header(3, 1)
        body = struct.pack(">ih", 1, 2) + b"ab"
        client.send(framed((header + body).ljust(1_000_000, b"\0")))
        # Trailing bytes behind a request's body: Kafka ignores them.
        assert client.receive()


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /topics HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_http(closes: Callable[..., None], request_line: bytes) -> None:
    closes(request_line)


def test_tls_hello(closes: Callable[..., None]) -> None:
    """A client set to TLS on a plain listener."""
    closes(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(512))


@pytest.mark.parametrize("seed", range(5))
def test_random_bytes(noisy: BrokerProcess, seed: int) -> None:
    """As random streams, and as random payloads of well-formed frames."""
    chance = random.Random(seed)
    with Bystander(noisy.bootstrap):
        for _ in range(60):
            data = chance.randbytes(chance.randrange(1, 3000))
            with RawClient(noisy.bootstrap) as client:
                client.send(data if chance.random() < 0.3 else framed(data))
                client.socket.shutdown(1)
                while client.socket.recv(65536):
                    pass
    assert noisy.alive()
    assert "Traceback" not in noisy.log()


def test_empty_frame(closes: Callable[..., None]) -> None:
    closes(struct.pack(">i", 0))


@pytest.mark.parametrize("cut", [1, 2, 7, 9, 12])
def test_header_that_is_cut(closes: Callable[..., None], cut: int) -> None:
    closes(framed(request_header(18, 0)[:cut]))


def test_client_id_that_lies(closes: Callable[..., None]) -> None:
    closes(framed(struct.pack(">hhih", 18, 0, 1, 30_000) + b"abc"))


def test_client_id_that_is_no_text(closes: Callable[..., None]) -> None:
    closes(framed(struct.pack(">hhih", 3, 1, 1, 2) + b"\xff\xfe" + struct.pack(">i", -1)))


def test_null_client_id(broker: BrokerProcess) -> None:
    with RawClient(broker.bootstrap) as client:
        client.send(framed(request_header(18, 0, client_id=None)))
        assert client.receive()[4:6] == b"\0\0"


def test_byte_by_byte(broker: BrokerProcess) -> None:
    """A slow writer is served all the same."""
    with RawClient(broker.bootstrap) as client:
        for byte in framed(request_header(18, 0, 77)):
            client.send(bytes([byte]))
        assert client.receive()[:6] == struct.pack(">ih", 77, 0)


def test_many_requests_in_one_segment(broker: BrokerProcess) -> None:
    """Answers come in the order of the requests."""
    with RawClient(broker.bootstrap) as client:
        client.send(b"".join(framed(request_header(18, 0, i)) for i in range(500)))
        for i in range(500):
            assert client.receive()[:6] == struct.pack(">ih", i, 0)


@pytest.mark.parametrize(
    "data",
    [b"", b"\0\0", struct.pack(">i", 100) + b"half", struct.pack(">i", 900_000) + bytes(200_000)],
    ids=["nothing", "half a size", "half a frame", "half a large frame"],
)
def test_idle_connections_are_closed(ottla_process: Callable[..., BrokerProcess], data: bytes) -> None:
    """After connections.max.idle.ms; a connection that is in use stays."""
    broker = ottla_process({"connections.max.idle.ms": str(IDLE_MS)})
    with Bystander(broker.bootstrap), RawClient(broker.bootstrap) as client:
        started = time.monotonic()
        client.send(data)
        # Within its own timeout, of 20 s.
        assert client.closed()
        assert time.monotonic() - started >= IDLE_MS / 1000 * 0.9
        assert len(broker.lines_with(CLOSING)) == 1


def test_waiting_is_not_idling(ottla_process: Callable[..., BrokerProcess]) -> None:
    """A long poll that outlasts connections.max.idle.ms is answered."""
    broker = ottla_process({"connections.max.idle.ms": str(IDLE_MS)})
    with RawClient(broker.bootstrap) as client:
        assert client.create_topic("t").error_code == 0
        started = time.monotonic()
        assert client.fetch("t", 0, max_wait_ms=4 * IDLE_MS).error_code == 0
        assert time.monotonic() - started >= 4 * IDLE_MS / 1000 - 0.05


def test_claimed_sizes_cost_no_memory(ottla_process: Callable[..., BrokerProcess]) -> None:
    """A thousand connections that announce the largest request, and send ten bytes of it."""
    broker = ottla_process({})
    largest = 104_857_600  # socket.request.max.bytes
    produce = BY_NAME["Produce"].key
    before = broker.rss_bytes()
    with Bystander(broker.bootstrap) as bystander:
        clients = [RawClient(broker.bootstrap) for _ in range(1000)]
        try:
            for client in clients:
                client.send(struct.pack(">ih", largest, produce) + bytes(10))
            wait_until(lambda: broker.connections() > 1000, what="all are connected")
            rounds = bystander.rounds
            wait_until(lambda: bystander.rounds > rounds + 50, what="the bystander goes on")
            assert broker.rss_bytes() - before < 50_000_000
        finally:
            for client in clients:
                client.socket.close()
        wait_until(lambda: broker.connections() < 20, what="their sockets are gone")
