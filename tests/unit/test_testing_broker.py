"""The embedded broker: its life, what it lets a test see, and its faults as clients meet them."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, KafkaException, Producer

import ottla.testing
from measuring import cpu_at_most
from ottla.config import ConfigError
from ottla.errors import ErrorCode, KafkaError
from ottla.node import StartError
from ottla.testing import Broker

# Of the process's CPU, on the machine of known speed (`measuring`): a start with its topics takes 0.006, the
# first start of a process, with Python's own and all imports, 0.18. Much of that is the kernel's, and is not
# compared with what it takes elsewhere.
START_CPU_S_MAX = 0.06
FIRST_START_CPU_S_MAX = 0.40


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker() as broker:
        yield broker


@pytest.fixture(autouse=True)
def _no_fault_outlives_its_test(broker: Broker) -> Iterator[None]:
    broker.faults.forget()
    yield
    broker.faults.clear()


def test_a_topic_id_that_comes_while_it_starts_or_stops_has_no_name() -> None:
    """Consumers go on to fetch by topic ids until the last moment."""
    assert Broker()._topic_name(uuid4()) is None


def producer(broker: Broker, **settings: Any) -> Producer:
    return Producer({"bootstrap.servers": broker.bootstrap_servers} | settings)


def is_closed(client: socket.socket) -> bool:
    """Whether the broker closes the connection, with a reset or without."""
    try:
        return client.recv(1) == b""
    except ConnectionError:
        return True


def test_the_users_collector_of_garbage_is_left_alone() -> None:
    def now() -> tuple[Any, ...]:
        return gc.get_threshold(), list(gc.callbacks), gc.isenabled()

    before, frozen = now(), gc.get_freeze_count()
    with Broker() as broker:
        broker.create_topic("t")
        assert now() == before
        # What another test had frozen may end meanwhile.
        assert gc.get_freeze_count() <= frozen
    assert now() == before
    assert gc.get_freeze_count() <= frozen


def send(broker: Broker, topic: str, *values: bytes, **settings: Any) -> list[str | None]:
    """Produce with librdkafka; the error of each message by name, None where it was acknowledged."""
    outcomes: list[str | None] = []
    client = producer(broker, **settings)
    for value in values:
        client.produce(
            topic,
            value,
            partition=0,
            on_delivery=lambda error, _: outcomes.append(error.name() if error else None),
        )
    assert client.flush(20) == 0
    return outcomes


def values(broker: Broker, topic: str) -> list[bytes | None]:
    return [record.value for record in broker.records(topic)]


# ------------------------------------------------------------ its life


def test_start_takes_little_cpu_and_the_data_go_with_it() -> None:
    with Broker():
        pass  # what is imported and compiled once
    for attempt in cpu_at_most(START_CPU_S_MAX):
        broker = Broker(topics={"orders": 3})
        with attempt.process_cpu():
            broker.start()
        data = broker.data
        assert (data / "meta.properties").exists()
        assert broker.running
        broker.stop()
        assert not data.exists()
        assert not broker.running


def test_the_first_start_of_a_process_takes_little_cpu(tmp_path: Path) -> None:
    """Where sources are compiled already, as pip leaves them; this environment may keep no bytecode."""
    script = """
import time
from ottla.testing import Broker
Broker(topics=["a"]).start()
print(time.process_time())
"""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path)}

    def cpu_s() -> float:
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        return float(done.stdout)

    assert cpu_s() > 0  # which compiles
    for attempt in cpu_at_most(FIRST_START_CPU_S_MAX):
        attempt.took(cpu_s())


def test_a_broker_loads_nothing_that_few_brokers_need() -> None:
    script = """
import sys
from ottla.testing import Broker
Broker(topics=["a"]).start()
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "ottla.security.principals" in loaded
    # Security, quotas, a cluster, and what administrators ask for; what packages load for themselves alone.
    assert not loaded & {
        "argparse",
        "importlib.metadata",
        "ottla.broker.api.configs.describe_configs",
        "ottla.broker.api.transactions.patterns",
        "ottla.broker.error_responses",
        "ottla.broker.secured",
        "ottla.broker.throttling",
        "ottla.metadata.access",
        "ottla.metadata.membership",
        "ottla.metadata.stores",
        "ottla.observe.catalogue",
        "ottla.observe.http",
        "ottla.observe.observer",
        "ottla.replication.fetchers",
        "ottla.security.acl",
        "ottla.security.demands",
        "ottla.security.quotas",
        "ottla.testing.security",
    }


def test_a_text_is_no_list_of_topics() -> None:
    with pytest.raises(TypeError, match="topics='orders': give a list of names"):
        Broker(topics="orders")


def test_options_and_topics(tmp_path: Path) -> None:
    config = {"auto.create.topics.enable": False, "message.max.bytes": 2000}
    with Broker(topics=["a", "b"], config=config, data=tmp_path / "kept", node_id=7) as broker:
        assert broker.topics() == {"a": 1, "b": 1}
        broker.create_topic("c", partitions=3, config={"retention.ms": 60_000})
        assert broker.topics() == {"a": 1, "b": 1, "c": 3}
        with pytest.raises(KafkaError) as caught:
            broker.produce("a", b"x" * 3000)
        assert caught.value.code == ErrorCode.message_too_large
    assert (tmp_path / "kept" / "c-2").is_dir()
    with Broker(topics={"a": 9, "d": 1}, data=tmp_path / "kept", node_id=7) as again:
        assert again.topics() == {"a": 1, "b": 1, "c": 3, "d": 1}


def test_several_at_once_are_strangers() -> None:
    with Broker(topics=["a"]) as one, Broker(topics=["b"]) as other:
        assert one.bootstrap_servers != other.bootstrap_servers
        assert (one.topics(), other.topics()) == ({"a": 1}, {"b": 1})


def test_async_with_does_not_block_the_loop() -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.001)

    async def main() -> None:
        ticking = asyncio.create_task(tick())
        async with Broker(topics=["a"]) as broker:
            started_after = ticks
            assert broker.topics() == {"a": 1}
        ticking.cancel()
        assert started_after > 3

    asyncio.run(main())


def test_async_clients_in_the_callers_loop() -> None:
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

    async def main() -> list[bytes | None]:
        async with Broker(topics=["a"]) as broker:
            async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers) as client:
                await client.send_and_wait("a", b"hello")
            servers, start = broker.bootstrap_servers, "earliest"
            async with AIOKafkaConsumer("a", bootstrap_servers=servers, auto_offset_reset=start) as reader:
                return [(await reader.getone()).value]

    assert asyncio.run(main()) == [b"hello"]


def test_restart_keeps_port_and_data() -> None:
    with Broker(topics=["a"]) as broker:
        address = broker.bootstrap_servers
        assert send(broker, "a", b"1") == [None]
        broker.restart()
        assert broker.bootstrap_servers == address
        assert send(broker, "a", b"2") == [None]
        assert values(broker, "a") == [b"1", b"2"]
        assert broker.topics() == {"a": 1}


def test_kill_leaves_no_mark_of_a_clean_stop_and_start_recovers() -> None:
    with Broker(topics=["a"]) as broker:
        assert send(broker, "a", b"1", b"2") == [None, None]
        broker.kill()
        assert not broker.running
        assert not (broker.data / ".kafka_cleanshutdown").exists()
        broker.start()
        assert values(broker, "a") == [b"1", b"2"]
        broker.kill()
        broker.restart()
        assert values(broker, "a") == [b"1", b"2"]


def test_stop_leaves_the_mark_of_a_clean_stop(tmp_path: Path) -> None:
    with Broker(data=tmp_path) as broker:
        pass
    assert (broker.data / ".kafka_cleanshutdown").exists()


def test_stop_twice_and_use_when_stopped() -> None:
    broker = Broker()
    with pytest.raises(RuntimeError):
        _ = broker.bootstrap_servers
    broker.start()
    with pytest.raises(RuntimeError):
        broker.start()
    broker.stop()
    broker.stop()
    with pytest.raises(RuntimeError):
        broker.topics()


def test_what_hinders_the_start_is_raised_and_nothing_stays_behind(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartError, match=f"^cannot listen on 127.0.0.1:{port}: address already in use$"):
            Broker(port=port).start()
    with Broker(data=tmp_path) as first:
        second = Broker(data=tmp_path)
        with pytest.raises(Exception, match=r"(?i)lock|in use|another"):
            second.start()
        assert not second.running
        assert first.topics() == {}
    with pytest.raises(KafkaError), Broker(topics=["not/a/name"]):
        pass


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("num.partitionz", "'num.partitionz' is no broker configuration. Did you mean 'num.partitions'?"),
        (
            "retention.ms",
            "'retention.ms' is a configuration of topics; that of brokers is 'log.retention.ms'",
        ),
        ("zzz", "'zzz' is no broker configuration."),
    ],
)
def test_a_setting_that_does_not_exist_is_refused(name: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Broker(config={name: 3})
    assert str(raised.value) == said


def test_a_setting_of_one_listener_is_none_that_does_not_exist() -> None:
    Broker(config={"listener.name.plaintext.max.connections": 3})


def test_a_forgotten_broker_does_not_keep_the_process_alive() -> None:
    script = "from ottla.testing import Broker; Broker(topics=['a']).start(); print('done')"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "done\n"


# ------------------------------------------------------------ looking in


def test_produce_and_records_without_a_client(broker: Broker) -> None:
    broker.create_topic("direct", partitions=2)
    assert (
        broker.produce("direct", b"a", "b", None, key="k", headers={"h": b"1", "n": None}, timestamp_ms=5)
        == 0
    )
    assert broker.produce("direct", b"c") == 3
    assert broker.produce("direct", b"d", partition=1) == 0
    found = broker.records("direct")
    assert [(r.partition, r.offset, r.value) for r in found] == [
        (0, 0, b"a"),
        (0, 1, b"b"),
        (0, 2, None),
        (0, 3, b"c"),
        (1, 0, b"d"),
    ]
    assert (found[0].key, found[0].headers, found[0].timestamp_ms) == (b"k", (("h", b"1"), ("n", None)), 5)
    assert [r.value for r in broker.records("direct", partition=1)] == [b"d"]
    with pytest.raises(KafkaError, match=r"'direct' has no partition 2: it has 2"):
        broker.records("direct", partition=2)
    with pytest.raises(KafkaError, match="'nowhere' does not exist"):
        broker.records("nowhere")
    with pytest.raises(KafkaError, match="'nowhere' does not exist"):
        broker.produce("nowhere", b"v")
    with pytest.raises(TypeError, match="bytes, str or None, not dict"):
        broker.produce("direct", {"json": 1})  # type: ignore[arg-type]


def test_records_sees_what_clients_wrote_and_clients_read_what_produce_wrote(broker: Broker) -> None:
    broker.create_topic("both")
    assert send(broker, "both", b"1", b"2", **{"compression.type": "lz4"}) == [None, None]
    broker.produce("both", b"3")
    assert values(broker, "both") == [b"1", b"2", b"3"]
    reader = Consumer(
        {"bootstrap.servers": broker.bootstrap_servers, "group.id": "both", "auto.offset.reset": "earliest"}
    )
    reader.subscribe(["both"])
    assert [m.value() for m in reader.consume(3, timeout=60)] == [b"1", b"2", b"3"]
    reader.commit(asynchronous=False)
    reader.close()
    assert broker.committed("both") == {("both", 0): 3}
    assert broker.committed("nobody") == {}
    with Broker() as fresh:
        assert fresh.committed("both") == {}


# ------------------------------------------------------------ faults, as clients meet them


def test_a_producer_retries_what_failed(broker: Broker) -> None:
    broker.create_topic("retried")
    fault = broker.faults.fail("Produce", "NOT_ENOUGH_REPLICAS", times=2, topic="retried")
    assert send(broker, "retried", b"x", **{"retry.backoff.ms": 10}) == [None]
    assert fault.hits == 2
    assert len(broker.faults.seen("Produce", topic="retried")) == 3
    assert values(broker, "retried") == [b"x"]


def test_a_producer_reports_what_is_not_retriable(broker: Broker) -> None:
    broker.create_topic("refused")
    broker.faults.fail("Produce", "TOPIC_AUTHORIZATION_FAILED", topic="refused")
    assert send(broker, "refused", b"x") == ["TOPIC_AUTHORIZATION_FAILED"]
    assert values(broker, "refused") == []


def test_a_producer_that_wants_no_answer_loses_its_connection(broker: Broker) -> None:
    broker.create_topic("unanswered")
    with broker.faults.fail("Produce", "KAFKA_STORAGE_ERROR", times=1) as fault:
        client = producer(broker, acks=0, **{"reconnect.backoff.ms": 10})
        client.produce("unanswered", b"lost", partition=0)
        client.flush(20)
        broker.faults.wait_for("Produce", topic="unanswered")
        # Until the client notices, what it sends goes to the connection that is lost.
        deadline = time.monotonic() + 60
        while len(broker.faults.seen("Produce", topic="unanswered")) < 2 and time.monotonic() < deadline:
            client.produce("unanswered", b"x", partition=0)
            client.flush(20)
    assert fault.hits == 1
    assert set(values(broker, "unanswered")) == {b"x"}


def test_a_fault_is_for_its_client_alone(broker: Broker) -> None:
    broker.create_topic("shared")
    broker.faults.fail("Produce", "INVALID_REQUIRED_ACKS", client_id="bad-*")
    assert send(broker, "shared", b"1", **{"client.id": "bad-1"}) == ["INVALID_REQUIRED_ACKS"]
    assert send(broker, "shared", b"2", **{"client.id": "good"}) == [None]
    assert broker.faults.seen("Produce", client_id="good")[0].fields["acks"] == -1


def test_a_lost_answer_makes_a_plain_producer_write_twice(broker: Broker) -> None:
    broker.create_topic("twice")
    broker.faults.drop("Produce", after=True, times=1, topic="twice")
    assert send(broker, "twice", b"x", **{"retry.backoff.ms": 10, "reconnect.backoff.ms": 10}) == [None]
    assert values(broker, "twice") == [b"x", b"x"]


def test_a_lost_answer_does_not_make_an_idempotent_producer_write_twice(broker: Broker) -> None:
    broker.create_topic("once")
    broker.faults.drop("Produce", after=True, times=1, topic="once")
    settings = {"enable.idempotence": True, "retry.backoff.ms": 10, "reconnect.backoff.ms": 10}
    assert send(broker, "once", b"x", **settings) == [None]
    assert values(broker, "once") == [b"x"]
    assert len(broker.faults.seen("Produce", topic="once")) == 2


def test_a_lost_request_was_not_executed(broker: Broker) -> None:
    broker.create_topic("lost")
    fault = broker.faults.drop("Produce", topic="lost", times=1)
    assert send(broker, "lost", b"x", **{"retry.backoff.ms": 10, "reconnect.backoff.ms": 10}) == [None]
    assert (fault.hits, values(broker, "lost")) == (1, [b"x"])


def test_a_delay_delays(broker: Broker) -> None:
    broker.create_topic("slow")
    client = producer(broker)
    client.produce("slow", b"warm-up", partition=0)
    client.flush(20)
    with broker.faults.delay("Produce", ms=300, topic="slow"):
        began = time.monotonic()
        client.produce("slow", b"x", partition=0)
        client.flush(20)
        assert time.monotonic() - began >= 0.3


def test_refused_connections_come_through_later(broker: Broker) -> None:
    broker.create_topic("later")
    refusal = broker.faults.refuse_connections(times=2)
    settings = {"reconnect.backoff.ms": 10, "reconnect.backoff.max.ms": 20}
    assert send(broker, "later", b"x", **settings) == [None]
    assert refusal.hits == 2


def test_while_connections_are_refused_there_is_no_way_in(broker: Broker) -> None:
    with broker.faults.refuse_connections():
        with socket.create_connection((broker.host, broker.port), timeout=60) as client:
            assert is_closed(client)
        with pytest.raises(KafkaException):
            Consumer({"bootstrap.servers": broker.bootstrap_servers, "group.id": "g"}).list_topics(
                timeout=0.5
            )


def test_disconnect_closes_what_is_open(broker: Broker) -> None:
    with socket.create_connection((broker.host, broker.port), timeout=60) as client:
        client.sendall(b"\0")
        while not broker.connections:
            time.sleep(0.001)
        broker.disconnect()
        assert is_closed(client)


def consumer(broker: Broker, group: str, **settings: Any) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": broker.bootstrap_servers,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "retry.backoff.ms": 10,
        }
        | settings
    )


def next_value(reader: Consumer) -> bytes | None:
    """The next record's value; errors that the client tells of on the way are passed over."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        message = reader.poll(1)
        if message is not None and message.error() is None:
            return message.value()
    raise AssertionError("no record came")


def test_a_consumer_hears_of_a_fetch_error_on_its_partition(broker: Broker) -> None:
    """OFFSET_OUT_OF_RANGE makes it start over, as it does when retention overtook it."""
    broker.create_topic("fetched")
    broker.produce("fetched", b"1", b"2")
    reader = consumer(broker, "fetched", **{"auto.offset.reset": "error"})
    from confluent_kafka import TopicPartition

    reader.assign([TopicPartition("fetched", 0, 0)])
    with broker.faults.fail("Fetch", "OFFSET_OUT_OF_RANGE", topic="fetched", times=1):
        message = reader.poll(20)
    assert message is not None and message.error() is not None
    assert message.error().name() in ("_AUTO_OFFSET_RESET", "OFFSET_OUT_OF_RANGE")
    reader.close()


@pytest.mark.parametrize(
    ("api", "error"),
    [
        ("FindCoordinator", "COORDINATOR_NOT_AVAILABLE"),
        ("JoinGroup", "COORDINATOR_LOAD_IN_PROGRESS"),
        ("SyncGroup", "NOT_COORDINATOR"),
        ("OffsetFetch", "COORDINATOR_LOAD_IN_PROGRESS"),
        ("ListOffsets", "LEADER_NOT_AVAILABLE"),
        ("Fetch", "NOT_LEADER_OR_FOLLOWER"),
        ("Metadata", "LEADER_NOT_AVAILABLE"),
    ],
)
def test_a_group_consumer_gets_through_every_retriable_error(broker: Broker, api: str, error: str) -> None:
    topic = f"retry-{api}"
    broker.create_topic(topic)
    broker.produce(topic, b"x")
    fault = broker.faults.fail(api, error, times=1, client_id=f"client-{api}")
    reader = consumer(broker, topic, **{"client.id": f"client-{api}"})
    reader.subscribe([topic])
    assert next_value(reader) == b"x"
    reader.close()
    assert fault.hits == 1


# ------------------------------------------------------------ the package


def test_the_package_exports_what_it_says_and_nothing_else() -> None:
    for name in ottla.testing.__all__:
        assert getattr(ottla.testing, name).__name__ == name
    with pytest.raises(AttributeError):
        _ = ottla.testing.Brocker


def test_the_plugin_costs_nearly_nothing_until_it_is_used() -> None:
    """Whoever has Ottla installed pays for it in each run of pytest."""
    script = """
import sys, pytest
before = set(sys.modules)
import ottla.testing.plugin
print(*sorted(set(sys.modules) - before))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["ottla", "ottla.implementation", "ottla.testing", "ottla.testing.plugin"]
