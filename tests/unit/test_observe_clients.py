"""`/clients`: what connections cost, the busiest and those that wait, bounded and escaped."""

from __future__ import annotations

import asyncio
import json
import struct
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer
from observe_support import get

from measuring import HANG_S
from ottla.broker.pending import Pending
from ottla.broker.request import Client
from ottla.env.slices import Slices
from ottla.observe.clients import BUSIEST_MAX, FRESH_NS, TEXT_CHARACTERS_MAX, WAITING_MAX, Clients
from ottla.observe.requests import CLIENT_ID_BYTES_MAX, RequestWatcher, client_id_of
from ottla.testing import Broker
from ottla.wire.apis import FETCH


class Time:
    """Nanoseconds, as they are set."""

    def __init__(self) -> None:
        self.now = 1_000

    def __call__(self) -> int:
        return self.now


def frame(client_id: bytes | None = b"me", size: int | None = None) -> bytes:
    length = -1 if client_id is None else len(client_id) if size is None else size
    return struct.pack(">hhih", FETCH, 4, 7, length) + (client_id or b"")


class Node:
    """Connections without sockets, and what watches their requests."""

    def __init__(self) -> None:
        self.time = Time()
        self.watcher = RequestWatcher(self.time)
        self.connections: list[Any] = []
        server = SimpleNamespace(connections=self.connections)
        services = SimpleNamespace(slices=Slices(), node_id=3)
        parts: Any = SimpleNamespace(
            services=services, listeners=SimpleNamespace(servers=[server]), requests=self.watcher
        )
        self.clients = Clients(parts)

    def connect(self, host: str = "h") -> Any:
        connection = SimpleNamespace(client=Client(host, "L", 5), oldest=None, unsent_bytes=0)
        self.connections.append(connection)
        return connection

    def ask(self, connection: Any, took_ns: int, answer: Any = None, client_id: bytes | None = b"me") -> None:
        def handle(client: Client, data: Any) -> Any:
            self.time.now += took_ns
            return [b"12345"] if answer is None else answer

        self.watcher.answer(connection.client, frame(client_id), handle)

    def look(self) -> Any:
        return asyncio.run(self.clients.document())


def test_what_has_come_since_the_last_look() -> None:
    node = Node()
    one = node.connect()
    node.ask(one, 2_500_000)
    node.ask(one, 500_000)
    node.time.now += 7_000_000
    assert node.look() == {
        "node_id": 3,
        "over_ms": 10.0,
        "connections": 1,
        "clients": [
            {
                "host": "h",
                "port": 5,
                "client_id": "me",
                "principal": "User:ANONYMOUS",
                "listener": "L",
                "requests": 2,
                "busy_ms": 3.0,
                "request_bytes": 2 * (len(frame()) + 4),
                "response_bytes": 10,
                "unsent_bytes": 0,
                "oldest_unanswered_ms": None,
            }
        ],
    }
    # For a second it is as it was, whoever asks; then it is what is new.
    node.ask(one, 1_000_000)
    node.time.now += FRESH_NS - 1_000_001
    assert node.look()["clients"][0]["requests"] == 2
    node.time.now += 1
    document = node.look()
    assert (document["clients"][0]["requests"], document["over_ms"]) == (1, 1000.0)
    node.time.now += FRESH_NS
    assert node.look()["clients"] == []


def test_who_waits_is_told_of_though_it_has_asked_for_nothing_new() -> None:
    node = Node()
    one = node.connect()
    one.oldest = Pending(False)
    node.ask(one, 1_000, one.oldest)
    node.look()
    node.time.now += 2 * FRESH_NS
    (told,) = node.look()["clients"]
    assert (told["requests"], told["oldest_unanswered_ms"]) == (0, 2000.0)
    answering = one.oldest.charge
    assert answering([b"abc"]) == [b"abc"]
    one.oldest = None
    node.time.now += FRESH_NS
    (told,) = node.look()["clients"]
    assert (told["response_bytes"], told["oldest_unanswered_ms"]) == (3, None)


def test_no_more_than_there_may_be_and_the_busiest_of_them() -> None:
    node = Node()
    for i in range(300):
        connection = node.connect(f"h{i}")
        if i % 2:
            connection.oldest = Pending(False)
            node.ask(connection, 1_000 * (300 - i), connection.oldest)
        else:
            node.ask(connection, 1_000 * i)
    document = node.look()
    hosts = [told["host"] for told in document["clients"]]
    assert document["connections"] == 300
    assert len(hosts) <= BUSIEST_MAX + WAITING_MAX
    assert hosts[:3] == ["h1", "h298", "h3"]
    busy = [told["busy_ms"] for told in document["clients"][:BUSIEST_MAX]]
    assert busy == sorted(busy, reverse=True)


def test_several_who_ask_wait_for_one_look() -> None:
    node = Node()
    for _ in range(250):
        node.ask(node.connect(), 1_000)

    async def ask() -> None:
        gone = asyncio.ensure_future(node.clients.document())
        await asyncio.sleep(0)
        gone.cancel()
        first, second = await asyncio.gather(node.clients.document(), node.clients.document())
        assert first is second and first["clients"]

    asyncio.run(ask())


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (frame(b"me"), "me"),
        (frame(None), ""),
        (frame(b""), ""),
        (b"\0\1", ""),
        (frame(b"ab", 30_000), "ab"),
        (frame(b"\xff\xfe"), "\ufffd\ufffd"),
        (frame(b"x" * 1000), "x" * CLIENT_ID_BYTES_MAX),
    ],
)
def test_the_client_id_of_a_request(data: bytes, text: str) -> None:
    assert client_id_of(data) == text
    assert client_id_of(memoryview(data)) == text


def test_texts_of_clients_are_short_and_change_no_terminal() -> None:
    node = Node()
    node.ask(node.connect("h" * 1000), 1_000, client_id=b"\x1b[2J\n")
    (told,) = node.look()["clients"]
    assert told["client_id"] == "\\x1b[2J\\n" and told["host"] == "h" * TEXT_CHARACTERS_MAX


# ------------------------------------------------------------ a real node


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker(topics={"orders": 1}, metrics=True) as running:
        yield running


def told_until(broker: Broker, found: Callable[[dict[str, Any]], bool]) -> None:
    """Looks until one client is as it should be."""
    ends_s = time.monotonic() + HANG_S
    while True:
        answer = get(broker.metrics_address, "/clients")
        assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
        document = json.loads(answer.body)
        if any(map(found, document["clients"])):
            return
        assert time.monotonic() < ends_s, document
        time.sleep(0.02)


def test_a_node_tells_of_its_clients(broker: Broker) -> None:
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "client.id": "shop", "log_level": 0})
    producer.produce("orders", b"x" * 1000)
    assert producer.flush(HANG_S) == 0
    told_until(
        broker, lambda one: one["client_id"] == "shop" and one["request_bytes"] > 1000 and one["busy_ms"] > 0
    )
    consumer = Consumer(
        {
            "bootstrap.servers": broker.bootstrap_servers,
            "client.id": "waiting",
            "group.id": "g",
            "fetch.wait.max.ms": 20_000,
            "log_level": 0,
        }
    )
    consumer.subscribe(["orders"])
    consumer.poll(1)
    try:
        told_until(
            broker, lambda one: one["client_id"] == "waiting" and (one["oldest_unanswered_ms"] or 0) > 50
        )
    finally:
        consumer.close()
