"""Snapshots of a broker that runs: a bounded part at a time, and nodes that hang or lie."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, Producer
from confluent_kafka import TopicPartition as ClientPartition
from confluent_kafka.admin import AdminClient

from measuring import HANG_S
from ottla.cli.errors import CliError
from ottla.cli.top import nodes as nodes_module
from ottla.cli.top import taking
from ottla.cli.top.listening import ANSWER_BYTES_MAX, Listening, fetch
from ottla.cli.top.nodes import SILENT_S, Ask, Nodes, at_once
from ottla.cli.top.snapshot import Broker as Node
from ottla.cli.top.snapshot import Snapshot, Wanted
from ottla.cli.top.taking import Taker
from ottla.testing import Broker
from ottla.types import TopicPartition

GROUPS = [f"g{i}" for i in range(5)]


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker(topics={"a": 3, "b": 4}) as running:
        settings = {"bootstrap.servers": running.bootstrap_servers, "log_level": 0}
        producer = Producer(settings)
        for partition in range(3):
            producer.produce("a", b"x" * 100, partition=partition)
        assert producer.flush(HANG_S) == 0
        admin = AdminClient(settings)
        for group in GROUPS:
            wanted = [ConsumerGroupTopicPartitions(group, [ClientPartition("a", 0, 0)])]
            admin.alter_consumer_group_offsets(wanted)[group].result(HANG_S)
        yield running


class Time:
    """Seconds, as they are set."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def taker(broker: Broker, time: Time) -> Iterator[Taker]:
    with closing(Taker(Nodes(broker.bootstrap_servers, now_s=time), now_s=time)) as made:
        yield made


def test_everything_at_once(taker: Taker, time: Time) -> None:
    found = taker.take(None, Wanted(everything=True))
    assert list(found.brokers) == [1] and found.controller == 1
    assert {p.topic for p in found.partitions} >= {"a", "b"}
    assert [found.ends[TopicPartition("a", p)].value for p in range(3)] == [1, 1, 1]
    assert found.sizes[TopicPartition("a", 0)].value > 100
    assert found.held_bytes[1] >= sum(size.value for size in found.sizes.values()) > 300
    assert all((group.lag is not None and group.lag.value) == 1 for group in found.groups.values())
    assert sorted(found.groups) == GROUPS
    assert found.took_s == 0.0
    time.now += 2.0
    again = taker.take(found, Wanted(everything=True))
    assert again.ends[TopicPartition("a", 0)].per_s == 0.0
    lag = again.groups["g0"].lag
    assert lag is not None and (lag.value, lag.per_s) == (1, 0.0)


def test_of_many_some_at_a_time_and_first_what_is_seen(
    taker: Taker, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taking, "ENDS_MAX", 3)
    monkeypatch.setattr(taking, "GROUPS_MAX", 2)
    found = taker.take(None, Wanted(topics=["b"], groups=["g4"]))
    asked = [name for name, group in found.groups.items() if group.at_s is not None]
    assert len(asked) == 2 and "g4" in asked
    assert len(found.ends) == 3
    for _ in range(4):
        time.now += 1.0
        found = taker.take(found, Wanted(topics=["b"], groups=["g4"]))
        assert found.groups["g4"].at_s == time.now, "what is seen is new"
        lag = found.groups["g4"].lag
        assert lag is not None and lag.at_s == time.now, "and the ends of what it reads are asked for with it"
    assert all(group.at_s is not None for group in found.groups.values()), "and all others have their turn"


def test_what_costs_a_lot_is_asked_for_now_and_then(
    taker: Taker, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taking, "METADATA_PER_S", 1)
    monkeypatch.setattr(taking, "SIZES_PER_S", 1)
    first = taker.take(None, Wanted())
    time.now += 1.0
    assert taker.take(first, Wanted()).metadata_at_s == first.at_s
    time.now += len(first.partitions)
    third = taker.take(first, Wanted())
    assert third.metadata_at_s == third.sizes_at_s == time.now


def test_a_cluster_that_is_not_there() -> None:
    with (
        closing(Taker(Nodes("127.0.0.1:1"))) as taker,
        pytest.raises(CliError, match="cannot reach a broker"),
    ):
        taker.take(None, Wanted())


# ------------------------------------------------------------ nodes


def asked(ask: Ask) -> int:
    return len(ask("DescribeCluster", taking.CLUSTER).brokers)


def test_a_node_that_hangs_is_left_alone_for_a_while(
    broker: Broker, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes_module, "ANSWER_TIMEOUT_S", 0.05)
    host, port = broker.bootstrap_servers.split(":")
    with (
        socket.create_server(("127.0.0.1", 0)) as hangs,
        closing(Nodes(f"{host}:{port}", now_s=time)) as nodes,
    ):
        nodes.learn({1: Node(host, int(port), None), 2: Node("127.0.0.1", hangs.getsockname()[1], None)})
        # The clock stands still for it: as if it had said so at once.
        assert nodes.ask_each(dict.fromkeys((1, 2, 3), asked)) == {1: 1}
        assert list(nodes.silent()) == [2]

        def hang(ask: Ask) -> int:
            real, time_now = nodes_module.DirectConnection.ask, time.now

            def late(*arguments: Any, **options: Any) -> Any:
                time.now = time_now + 5.0
                return real(*arguments, **options)

            monkeypatch.setattr(nodes_module.DirectConnection, "ask", late)
            try:
                return asked(ask)
            finally:
                monkeypatch.setattr(nodes_module.DirectConnection, "ask", real)

        assert nodes.ask_each({2: hang}) == {}
        calls: list[int] = []
        assert nodes.ask_each({2: lambda ask: calls.append(1)}) == {} and not calls
        time.now += SILENT_S
        nodes.ask_each({2: lambda ask: calls.append(1)})
        assert calls


def test_a_connection_that_has_ended_is_made_again(broker: Broker) -> None:
    with closing(Nodes(broker.bootstrap_servers)) as nodes:
        assert len(nodes.ask_any("DescribeCluster", taking.CLUSTER).brokers) == 1
        for connection in nodes._connections.values():
            connection._socket.shutdown(socket.SHUT_RDWR)
        assert len(nodes.ask_any("DescribeCluster", taking.CLUSTER).brokers) == 1
        assert nodes.silent() == {}


def test_work_is_done_at_once_and_in_order() -> None:
    together = threading.Barrier(3)
    assert at_once([lambda: together.wait(HANG_S) >= 0 for _ in range(3)]) == [True] * 3
    assert at_once([lambda i=i: i for i in range(100)]) == list(range(100))  # type: ignore[misc]
    assert at_once([]) == []
    with pytest.raises(ZeroDivisionError):
        at_once([lambda: 1, lambda: 1 // 0])


def test_of_many_that_hang_not_all_are_waited_for(time: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    class Hangs:
        def __init__(self, address: Any, *arguments: Any) -> None:
            tried.append(address)
            time.now += 3.0
            raise nodes_module.Unanswered("timed out")

    monkeypatch.setattr(nodes_module, "DirectConnection", Hangs)
    with closing(Nodes("h:1", now_s=time)) as nodes:
        nodes.learn({i: Node(f"h{i}", 1, None) for i in range(9)})
        with pytest.raises(CliError, match="timed out"):
            nodes.ask_any("DescribeCluster", taking.CLUSTER)
        assert len(tried) == 4
        with pytest.raises(CliError, match="timed out"):
            nodes.ask_any("DescribeCluster", taking.CLUSTER)
        assert len(set(tried)) == 8, "others are asked first the next time"


# ------------------------------------------------------------ metrics listeners


class Answers:
    """An HTTP server that answers as it is told to."""

    def __init__(self) -> None:
        self.status, self.body = 200, b"{}"
        answers = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(answers.status)
                self.end_headers()
                self.wfile.write(answers.body)

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.address = ("127.0.0.1", self.server.server_port)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def answers() -> Iterator[Answers]:
    with closing(Answers()) as made:
        yield made


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (404, b"", "it answers 404 to /clients"),
        (200, b"[" * 100_000, "its answer is not what it should be"),
        (200, b"[]", "its answer is not what it should be"),
        (200, b"\xff", "its answer is not what it should be"),
        (200, b" " * (ANSWER_BYTES_MAX + 1), "its answer is too large"),
    ],
)
def test_answers_that_are_none(answers: Answers, status: int, body: bytes, why: str) -> None:
    answers.status, answers.body = status, body
    assert fetch(answers.address) == why


def test_what_listeners_say_is_put_together(answers: Answers, broker: Broker) -> None:
    client = {"client_id": "c", "requests": 1}
    answers.body = json.dumps({"node_id": 7, "over_ms": 1000, "clients": [client]}).encode()
    listening = Listening([answers.address, ("127.0.0.1", 1)])
    with closing(Nodes(broker.bootstrap_servers)) as nodes:
        found = listening(Snapshot(at_s=1.0), nodes)
    assert [one.node_id for one in found.connections] == [7]
    assert found.notes == ("127.0.0.1:1: connection refused",)


def test_nodes_say_where_they_listen(answers: Answers, broker: Broker, time: Time) -> None:
    with closing(Taker(Nodes(broker.bootstrap_servers), Listening(now_s=time))) as taker:
        found = taker.take(None, Wanted())
        assert found.listened.notes == ("node 1 has no metrics.listener",) and not found.listened.asked


def test_who_may_not_ask_where_nodes_listen_is_told_so() -> None:
    with Broker(users={"alice": "secret"}, acls=[]) as secured:
        given = secured.client_properties("alice")
        bootstrap = str(given.pop("bootstrap.servers"))
        pairs = [f"{name}={value}" for name, value in given.items()]
        with closing(Taker(Nodes(bootstrap, pairs), Listening())) as taker:
            found = taker.take(None, Wanted())
    assert found.listened.notes == (
        "node 1: whether it has metrics.listener needs describe-configs of the cluster",
    )


def test_nodes_that_listen_everywhere_are_asked_where_their_clients_find_them(answers: Answers) -> None:
    answers.body = json.dumps({"node_id": 1, "over_ms": 1000, "clients": [{"client_id": "c"}]}).encode()
    asked = []

    class Found:
        """Nodes that say where they listen."""

        def ask_each(self, work: dict[int, Any]) -> dict[int, str | None]:
            asked.append(set(work))
            return {1: f"0.0.0.0:{answers.address[1]}", 2: "h:0"}

    nodes: Any = Found()
    snapshot = Snapshot(at_s=1.0, brokers={1: Node("127.0.0.1", 1, None), 2: Node("h", 1, None)})
    listening = Listening(now_s=lambda: 5.0)
    found = listening(snapshot, nodes)
    assert [one.client_id for one in found.connections] == ["c"]
    assert found.asked == (f"127.0.0.1:{answers.address[1]}",)
    assert found.notes == ("node 2 says no port",)
    # They are not asked again for a while, but where others are there.
    listening(snapshot, nodes)
    assert asked == [{1, 2}]
    gone = Snapshot(at_s=2.0, brokers={2: Node("h", 1, None), 1: Node("h", 1, None, is_fenced=True)})
    assert listening(gone, nodes).connections == ()
    assert asked == [{1, 2}, {2}]
