"""What a test waits for, and what it puts back, at the embedded broker; and what errors say of it."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

import ottla.testing
from measuring import HANG_S
from ottla.errors import ErrorCode
from ottla.testing import Broker, ConfigError, Group, KafkaError, StartError

SOON_S = 0.05


@pytest.fixture(scope="module")
def shared() -> Iterator[Broker]:
    with Broker(topics={"orders": 2}) as broker:
        yield broker


@pytest.fixture
def broker(shared: Broker) -> Broker:
    shared.reset()
    return shared


@contextmanager
def saying(kind: type[Exception], text: str) -> Iterator[pytest.ExceptionInfo[Exception]]:
    """An error of this kind is raised that says, among others, this."""
    with pytest.raises(kind) as raised:
        yield raised
    assert text in str(raised.value)


def later(work: object, *arguments: object) -> threading.Thread:
    thread = threading.Timer(SOON_S, work, arguments)  # type: ignore[arg-type]
    thread.start()
    return thread


def consumer(broker: Broker, group: str, **settings: object) -> Consumer:
    return Consumer(
        {"bootstrap.servers": broker.bootstrap_servers, "group.id": group, "auto.offset.reset": "earliest"}
        | settings
    )


# ------------------------------------------------------------ records


def test_records_that_are_there_or_come(broker: Broker) -> None:
    broker.produce("orders", "a", "b")
    assert [one.value for one in broker.wait_for_records("orders", 2)] == [b"a", b"b"]
    thread = later(broker.produce, "orders", "c")
    assert [one.value for one in broker.wait_for_records("orders", 3)] == [b"a", b"b", b"c"]
    thread.join()
    # More than were waited for.
    assert len(broker.wait_for_records("orders", 1)) == 3
    assert broker.wait_for_records("orders", 0, partition=1) == []


def test_records_of_a_topic_that_is_still_to_be_made(broker: Broker) -> None:
    def make() -> None:
        broker.create_topic("later")
        broker.produce("later", "x")

    thread = later(make)
    assert [one.value for one in broker.wait_for_records("later")] == [b"x"]
    thread.join()


def test_too_few_records_are_shown(broker: Broker) -> None:
    broker.produce("orders", *"123456", None, "x" * 50, partition=1)
    with pytest.raises(TimeoutError) as raised:
        broker.wait_for_records("orders", 9, timeout_s=0)
    assert str(raised.value) == (
        "8 of 9 records of 'orders' were there after 0 s; partition-offset: value are ..., 1-3: b'4', "
        f"1-4: b'5', 1-5: b'6', 1-6: None, 1-7: b'{'x' * 40}...'."
    )
    with saying(TimeoutError, "0 of 1 records of partition 0 of 'orders' were there after 0 s."):
        broker.wait_for_records("orders", partition=0, timeout_s=0)
    with saying(TimeoutError, "Topic 'order' does not exist. Did you mean 'orders'?"):
        broker.wait_for_records("order", timeout_s=0)


def test_records_of_transactions(broker: Broker) -> None:
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "transactional.id": "t"})
    producer.init_transactions(10)
    producer.begin_transaction()
    producer.produce("orders", b"a", partition=0)
    producer.flush(10)
    with saying(TimeoutError, "; 1 more are of transactions that are aborted or open."):
        broker.wait_for_records("orders", read_committed=True, timeout_s=0)
    thread = later(producer.commit_transaction)
    assert [one.value for one in broker.wait_for_records("orders", read_committed=True)] == [b"a"]
    thread.join()
    # The group is behind the record, and before the transaction's end, which it never gets.
    with consumer(broker, "readers", **{"enable.auto.commit": False}) as reader:
        reader.subscribe(["orders"])
        message = reader.poll(10)
        assert message is not None
        reader.commit(message, asynchronous=False)
        assert broker.committed("readers") == {("orders", 0): 1}
        broker.wait_until_consumed("readers", "orders")


def test_a_wait_on_a_loop_says_what_it_has_blocked(broker: Broker) -> None:
    async def test() -> None:
        with saying(TimeoutError, "write 'await asyncio.to_thread"):
            broker.wait_for_records("orders", timeout_s=0)
        task = asyncio.create_task(asyncio.to_thread(broker.wait_for_records, "orders"))
        await asyncio.sleep(SOON_S)
        broker.produce("orders", "x")
        assert len(await task) == 1

    asyncio.run(test())


# ------------------------------------------------------------ groups


def test_a_group_that_consumes(broker: Broker) -> None:
    with saying(TimeoutError, "There was no group 'readers' after 0 s. There is no group."):
        broker.wait_for_group("readers", timeout_s=0)
    broker.produce("orders", "a", "b")
    with pytest.raises(TimeoutError) as raised:
        broker.wait_until_consumed("readers", "orders", timeout_s=0)
    assert str(raised.value) == (
        "Group 'readers' had not consumed 'orders' after 0 s: orders-0: nothing is committed, the end is 2, "
        "2 records are left; orders-1: nothing is committed, the end is 0, 0 records are left; the group has "
        "committed nothing. There is no group."
    )
    with consumer(broker, "readers", **{"enable.auto.commit": False}) as reader:
        reader.subscribe(["orders"])
        first = reader.poll(10)
        assert first is not None
        broker.wait_for_group("readers", members=1)
        assert broker.groups() == {"readers": Group("Stable", 1)}
        with saying(TimeoutError, "Group 'readers' had 1 members and was Stable after 0 s; it wa"):
            broker.wait_for_group("readers", 2, timeout_s=0)
        with saying(TimeoutError, "Did you mean 'readers'?"):
            broker.wait_until_consumed("reader", "orders", timeout_s=0)
        reader.commit(first, asynchronous=False)
        with saying(TimeoutError, "Group 'readers' had not consumed its topics after 0 s: orders-0: 1"):
            broker.wait_until_consumed("readers", timeout_s=0)
        second = reader.poll(10)
        thread = later(reader.commit, second)
        broker.wait_until_consumed("readers")
        thread.join()
    broker.wait_for_group("readers", members=0)


# ------------------------------------------------------------ putting back


@contextmanager
def loading(broker: Broker) -> Iterator[None]:
    """As if all coordinators were still reading their partitions, until this is left."""
    services = broker._node.services
    shards = [*services.groups.host.shards.values(), *services.transactions.host.shards.values()]
    assert len(shards) > 1
    for shard in shards:
        shard.is_active = False
    try:
        yield
    finally:
        for shard in shards:
            shard.is_active = True


@pytest.fixture
def known(broker: Broker) -> Broker:
    """A group and a transactional id are known."""
    broker.produce("orders", "a")
    reader = consumer(broker, "readers")
    reader.commit(offsets=[TopicPartition("orders", 0, 1)], asynchronous=False)
    reader.close()
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "transactional.id": "payments"})
    producer.init_transactions(HANG_S)
    return broker


@pytest.mark.parametrize(
    ("call", "found"),
    [
        (lambda broker: [*broker.groups()], ["readers"]),
        (lambda broker: broker.committed("readers"), {("orders", 0): 1}),
        (lambda broker: "payments" in broker.transactions(), True),
        (lambda broker: broker.abort("payments"), None),
        (lambda broker: broker.reset() or broker.groups(), {}),
    ],
    ids=["groups", "committed", "transactions", "abort", "reset"],
)
def test_what_coordinators_know_is_told_once_they_are_loaded(
    known: Broker, call: Callable[[Broker], object], found: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:
        stack.enter_context(loading(known))
        ends = later(stack.close)
        assert call(known) == found
        ends.join()
    monkeypatch.setattr("ottla.testing.running.SERVED_S_MAX", SOON_S)
    with loading(known), saying(KafkaError, "coordinator_load_in_progress"):
        call(known)


def test_a_wait_for_a_group_says_that_its_coordinator_is_not_loaded(known: Broker) -> None:
    with loading(known):
        with saying(
            TimeoutError, "Group 'readers' could not be looked at after 0 s: coordinator load in progress"
        ):
            known.wait_for_group("readers", 0, timeout_s=0)
        with saying(
            TimeoutError, "'readers' had not consumed its topics after 0 s: coordinator load in progress"
        ):
            known.wait_until_consumed("readers", timeout_s=0)
    known.wait_for_group("readers", 0)


def test_a_topic_is_deleted_with_its_offsets(broker: Broker) -> None:
    broker.create_topic("audit")
    broker.produce("audit", "x")
    broker.delete_topic("audit")
    assert broker.topics() == {"orders": 2}
    broker.create_topic("audit")
    assert broker.records("audit") == []
    with saying(KafkaError, "Topic 'audits' does not exist. Did you mean 'audit'?") as raised:
        broker.delete_topic("audits")
    assert isinstance(raised.value, KafkaError)
    assert raised.value.code is ErrorCode.unknown_topic_or_partition


def test_records_are_deleted_and_offsets_go_on(broker: Broker) -> None:
    broker.produce("orders", "a", "b")
    broker.produce("orders", "c", partition=1)
    broker.delete_records("orders", 0)
    assert [one.value for one in broker.records("orders")] == [b"c"]
    assert broker.produce("orders", "d") == 2
    broker.delete_records("orders")
    assert broker.records("orders") == []


def test_a_reset_leaves_what_the_start_had(broker: Broker) -> None:
    broker.create_topic("more")
    broker.produce("orders", "a")
    with consumer(broker, "readers") as reader:
        reader.subscribe(["orders"])
        assert reader.poll(10) is not None
        reader.commit(asynchronous=False)
    broker.wait_for_group("readers", members=0)
    broker.faults.fail("Fetch", "NOT_LEADER_OR_FOLLOWER")
    broker.reset()
    assert broker.topics() == {"orders": 2}
    assert broker.records("orders") == []
    assert broker.groups() == {}
    assert broker.committed("readers") == {}
    assert broker.faults.rules == ()
    assert broker.requests == ()


# ------------------------------------------------------------ errors


def test_errors_name_what_was_meant(broker: Broker) -> None:
    with saying(ValueError, "'Produse' is no API that Ottla serves. Did you mean 'Produce'?"):
        broker.faults.drop("Produse")
    with saying(ValueError, "'NOT_LEADER' is no error of Kafka's. Did you mean 'NOT_LEADER_OR_FOLL"):
        broker.faults.fail("Produce", "NOT_LEADER")
    with saying(KafkaError, "'retention' is no configuration of topics. Did you mean 'retention.ms'"):
        broker.create_topic("t", config={"retention": 1})
    with saying(KafkaError, "Topic 'zzz' does not exist. The topics are 'orders'."):
        broker.delete_topic("zzz")


def test_requests_that_do_not_come_are_told_from_those_that_do(broker: Broker) -> None:
    with saying(
        TimeoutError, "saw 0 of 1 requests (Produce) in 0 s; all requests that it has recorded, by API: none"
    ):
        broker.faults.wait_for("Produce", timeout_s=0)
    with consumer(broker, "readers") as reader:
        reader.list_topics(timeout=60)
    with saying(TimeoutError, "by API: ApiVersions "):
        broker.faults.wait_for("Produce", timeout_s=0)


def test_a_port_stays_with_its_broker_while_that_is_killed(broker: Broker) -> None:
    if sys.platform != "linux":
        pytest.skip("elsewhere nobody can hold a port without listening")
    broker.kill()
    with socket.socket() as client, pytest.raises(ConnectionRefusedError):
        client.connect((broker.host, broker.port))
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind((broker.host, broker.port))
    broker.start()


def test_what_stops_a_start_is_a_start_error(tmp_path: Path) -> None:
    assert {"ConfigError", "StartError"} <= set(ottla.testing.__all__)
    with Broker(data=tmp_path), saying(StartError, f"the data directory {tmp_path} is in use"):
        Broker(data=tmp_path).start()
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(StartError):
        Broker(data=file).start()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with saying(StartError, "address already in use"):
            Broker(port=taken.getsockname()[1]).start()
    with pytest.raises(ConfigError):
        Broker(config={"log.retention.ms": "soon"}).start()
    # It may be started when the reason is gone.
    broker = Broker(data=file)
    with pytest.raises(StartError):
        broker.start()
    file.unlink()
    with broker:
        assert broker.topics() == {}
