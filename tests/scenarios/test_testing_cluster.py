"""`ottla.testing.Cluster`: nodes of one process that fail over, and are cut off, under real clients."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from confluent_kafka import Consumer, Producer, TopicPartition

from interop.raw import RawClient
from ottla.errors import ErrorCode
from ottla.testing import Cluster, ConfigError, KafkaError, StartError
from ottla.testing.cluster import is_of_node

QUIET = {"log_level": 0}
# Short, since the tests wait for them.
CONFIG = {"replica.lag.time.max.ms": 600, "broker.session.timeout.ms": 1000}


@pytest.fixture(scope="module")
def shared() -> Iterator[Cluster]:
    with Cluster(3, topics={"orders": 3}, config=CONFIG) as cluster:
        yield cluster


@pytest.fixture
def cluster(shared: Cluster) -> Cluster:
    shared.reset()
    shared.wait_for_isr("orders")
    return shared


def producer(cluster: Cluster, **settings: Any) -> Producer:
    fast = {"acks": "all", "retry.backoff.ms": 20, "reconnect.backoff.max.ms": 100}
    return Producer({"bootstrap.servers": cluster.bootstrap_servers} | QUIET | fast | settings)


def send(client: Producer, *values: str, partition: int = 0) -> None:
    """Send and wait until all are acknowledged."""
    errors: list[object] = []
    for value in values:
        client.produce("orders", value, partition=partition, on_delivery=lambda e, _: e and errors.append(e))
    assert client.flush(20) == 0
    assert errors == []


def values(cluster: Cluster, partition: int | None = 0) -> list[str]:
    return [one.value.decode() for one in cluster.records("orders", partition) if one.value is not None]


def others(cluster: Cluster, *node_ids: int) -> list[int]:
    return [each for each in cluster.nodes if each not in node_ids]


# ------------------------------------------------------------ life


def test_each_partition_has_its_leader_and_all_replicas(cluster: Cluster) -> None:
    assert cluster.running == (1, 2, 3)
    assert cluster.controller in cluster.nodes
    assert {cluster.leader("orders", index) for index in range(3)} == {1, 2, 3}
    assert cluster.isr("orders", 1) == (1, 2, 3)
    assert cluster.topics() == {"orders": 3}
    assert cluster.produce("orders", "a", "b", partition=2) == 0
    assert values(cluster, 2) == ["a", "b"]
    assert all(str(node.port) in cluster.bootstrap_servers for node in cluster.nodes.values())


def test_a_leader_is_killed_and_nothing_acknowledged_is_lost(cluster: Cluster) -> None:
    client = producer(cluster)
    send(client, "a", "b")
    leader = cluster.leader("orders")
    cluster.kill(leader)
    assert cluster.running == tuple(others(cluster, leader))
    assert not cluster.nodes[leader].running
    send(client, "c")
    assert cluster.wait_for_leader("orders", other_than=leader) in cluster.running
    cluster.wait_for_isr("orders", cluster.running)
    cluster.start(leader)
    cluster.wait_for_isr("orders")
    assert values(cluster) == ["a", "b", "c"]
    # What it had when it was killed, and what it has caught up with, is what it leads with.
    for other in others(cluster, leader):
        cluster.stop(other)
        cluster.wait_for_leader("orders", other_than=other)
    assert cluster.leader("orders") == leader
    assert values(cluster) == ["a", "b", "c"]


def test_nothing_of_a_killed_node_runs_on(cluster: Cluster) -> None:
    life = cluster._lives[2]
    assert life.tasks
    cluster.kill(2)
    assert not life.tasks
    cluster.wait_for_isr("orders", {1, 3})


def test_a_group_goes_on_when_its_coordinator_is_killed(cluster: Cluster) -> None:
    cluster.produce("orders", "a")

    async def test() -> None:
        consumer = AIOKafkaConsumer(
            "orders",
            bootstrap_servers=cluster.bootstrap_servers,
            group_id="readers",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            retry_backoff_ms=20,
        )
        await consumer.start()
        try:
            assert (await consumer.getone()).value == b"a"
            await consumer.commit()
            assert cluster.committed("readers")["orders", 0] == 1
            coordinator = await asyncio.to_thread(cluster.leader, "__consumer_offsets")
            await asyncio.to_thread(cluster.kill, coordinator)
            await asyncio.to_thread(cluster.wait_for_leader, "__consumer_offsets", other_than=coordinator)
            await asyncio.to_thread(cluster.wait_for_leader, "orders", other_than=coordinator)
            await asyncio.to_thread(cluster.produce, "orders", "b")
            assert (await consumer.getone()).value == b"b"
            await consumer.commit()
        finally:
            # aiokafka's own fetch of a node that is gone is cancelled, and it says so.
            with suppress(asyncio.CancelledError):
                await consumer.stop()

    asyncio.run(asyncio.wait_for(test(), 60))
    cluster.wait_until_consumed("readers")


def test_what_a_killed_coordinator_knew_is_told_by_the_next(cluster: Cluster) -> None:
    producer(cluster, **{"transactional.id": "payments"}).init_transactions(20)
    reader = Consumer({"bootstrap.servers": cluster.bootstrap_servers, "group.id": "readers"} | QUIET)
    reader.commit(offsets=[TopicPartition("orders", 0, 5)], asynchronous=False)
    reader.close()
    for internal in ("__consumer_offsets", "__transaction_state"):
        # At once: the other nodes do not even know yet that it is gone.
        killed = cluster.leader(internal)
        cluster.kill(killed)
        assert [*cluster.groups()] == ["readers"]
        assert cluster.committed("readers") == {("orders", 0): 5}
        assert [*cluster.transactions()] == ["payments"]
        cluster.start(killed)
        cluster.wait_for_isr(internal)


def test_all_nodes_are_restarted_one_by_one_under_a_producer(cluster: Cluster) -> None:
    client = producer(cluster)
    for node_id in cluster.nodes:
        send(client, f"before {node_id}")
        cluster.restart(node_id)
        cluster.wait_for_isr("orders")
    assert values(cluster) == ["before 1", "before 2", "before 3"]


def test_transactions_have_a_coordinator_among_the_nodes(cluster: Cluster) -> None:
    client = producer(cluster, **{"transactional.id": "t"})
    client.init_transactions(20)
    client.begin_transaction()
    for partition in range(3):
        client.produce("orders", "a", partition=partition)
    client.flush(10)
    assert cluster.transactions()["t"].state == "Ongoing"
    client.commit_transaction(20)
    assert len(cluster.wait_for_records("orders", 3, read_committed=True)) == 3
    client.begin_transaction()
    client.produce("orders", "b", partition=0)
    client.flush(10)
    cluster.abort("t")
    assert len(cluster.records("orders", read_committed=True)) == 3


# ------------------------------------------------------------ the network


def test_a_follower_that_is_cut_off_from_its_leader_leaves_the_isr(cluster: Cluster) -> None:
    leader = cluster.leader("orders")
    follower, other = others(cluster, leader)
    cluster.cut(leader, follower)
    # As long as nothing is written it lacks nothing; and what is written waits for it.
    assert cluster.produce("orders", "a") == 0
    cluster.wait_for_isr("orders", {leader, other}, 0)
    # The third node reaches both: whom it leads, and who leads it, go on.
    index = next(index for index in range(3) if cluster.leader("orders", index) == other)
    assert cluster.isr("orders", index) == (1, 2, 3)
    send(producer(cluster), "b")
    cluster.heal()
    cluster.wait_for_isr("orders")


def test_an_isolated_leader_is_replaced_and_commits_nothing(cluster: Cluster) -> None:
    leader = cluster.leader("orders")
    alone = Producer(
        {"bootstrap.servers": cluster.nodes[leader].bootstrap_servers, "acks": "all"}
        | QUIET
        | {"message.timeout.ms": 1200}
    )
    send(alone, "a")
    cluster.isolate(leader)
    outcomes: list[str] = []
    alone.produce("orders", "lost", partition=0, on_delivery=lambda e, _: outcomes.append(e.name()))
    alone.poll(0)
    assert cluster.wait_for_leader("orders", other_than=leader) in others(cluster, leader)
    cluster.produce("orders", "b")
    alone.flush(20)
    assert outcomes == ["_MSG_TIMED_OUT"]
    cluster.heal()
    cluster.wait_for_isr("orders")
    assert values(cluster) == ["a", "b"]


def test_one_cut_is_healed_while_another_lasts(cluster: Cluster) -> None:
    leader = cluster.leader("orders")
    follower, other = others(cluster, leader)
    cluster.cut(leader, follower)
    cluster.cut(leader, other)
    cluster.heal(other, leader)
    cluster.produce("orders", "a")
    cluster.wait_for_isr("orders", {leader, other}, 0)
    cluster.heal(leader, follower)
    cluster.wait_for_isr("orders")


def test_one_node_is_isolated_no_more_while_another_is(cluster: Cluster) -> None:
    one, other = others(cluster, cluster.controller)
    cluster.isolate(one)
    cluster.isolate(other)
    cluster.heal(one)
    index = next(index for index in range(3) if cluster.leader("orders", index) != other)
    cluster.produce("orders", "a", partition=index)
    cluster.wait_for_isr("orders", {cluster.controller, one}, index)
    cluster.heal(other)
    cluster.wait_for_isr("orders")


@pytest.mark.parametrize("node_ids", [(1, 1), (1, 2, 3), (7,)])
def test_heal_takes_what_isolate_and_cut_take(cluster: Cluster, node_ids: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"heal|node 7"):
        cluster.heal(*node_ids)


def test_a_node_closes_its_connections_and_takes_others(cluster: Cluster) -> None:
    leader = cluster.leader("orders")
    client = producer(cluster)
    send(client, "a")
    with RawClient(cluster.nodes[leader].bootstrap_servers) as raw:
        raw.call("ApiVersions", 0)
        cluster.disconnect(leader)
        with pytest.raises(OSError):
            raw.call("ApiVersions", 0)
    send(client, "b")
    assert values(cluster) == ["a", "b"]
    cluster.stop(leader)
    with pytest.raises(RuntimeError, match="not running"):
        cluster.disconnect(leader)


def test_an_isolated_node_is_killed_and_stopped_as_others_are(cluster: Cluster) -> None:
    """The store, which it does not reach, ends its lease."""
    cluster.isolate(1)
    cluster.kill(1)
    cluster.isolate(2)
    cluster.stop(2)
    assert cluster.running == (3,)
    cluster.heal()
    cluster.start()
    cluster.wait_for_isr("orders")


# ------------------------------------------------------------ faults


def test_faults_are_for_all_nodes_or_for_one_and_spare_replication(cluster: Cluster) -> None:
    leader = cluster.leader("orders")
    with cluster.faults.fail("Fetch", "NOT_LEADER_OR_FOLLOWER"):
        # Followers fetch on.
        assert cluster.produce("orders", "a") == 0
    assert cluster.faults.seen("Fetch") == []
    with cluster.faults.drop("Produce", after=True, times=1) as fault:
        send(producer(cluster, **{"enable.idempotence": True}), "b")
        assert fault.hits == 1
    assert values(cluster) == ["a", "b"]
    idle = others(cluster, leader)[0]
    with cluster.nodes[idle].faults.fail("Produce", "NOT_LEADER_OR_FOLLOWER") as fault:
        send(producer(cluster), "c")
        assert fault.hits == 0
    assert len(cluster.nodes[leader].faults.seen("Produce")) == len(cluster.faults.seen("Produce")) == 3
    with cluster.nodes[leader].faults.delay("Fetch", 5, client_id="broker-*") as fault:
        cluster.produce("orders", "d")
        cluster.nodes[leader].faults.wait_for("Fetch", client_id=f"broker-{idle}-fetcher-{leader}")
        assert fault.hits > 0


def test_whose_requests_are_of_nodes() -> None:
    assert is_of_node("broker-2-fetcher-1")
    assert is_of_node("broker-12-verification-3")
    for client_id in (
        "",
        "broker",
        "broker-2",
        "broker-2-fetcher",
        "broker-x-fetcher-1",
        "broker-2-fetcher-x",
        "shop",
    ):
        assert not is_of_node(client_id)


# ------------------------------------------------------------ errors


def test_errors_say_what_there_is(cluster: Cluster) -> None:
    with pytest.raises(ValueError, match="there is no node 4: the nodes are 1, 2, 3"):
        cluster.kill(4)
    with pytest.raises(ValueError, match="replication_factor=4: with 3 nodes it is 1 to 3"):
        Cluster(3, replication_factor=4)
    with pytest.raises(ConfigError, match=r"Did you mean 'num\.partitions'"):
        Cluster(3, config={"num.partition": 3})
    with pytest.raises(KafkaError, match="Did you mean 'orders'") as raised:
        cluster.leader("order")
    assert raised.value.code is ErrorCode.unknown_topic_or_partition
    with pytest.raises(TimeoutError) as late:
        cluster.wait_for_isr("orders", {1, 2}, 0, timeout_s=0)
    said = str(late.value)
    assert said.startswith(
        "The ISR of 'orders' was not exactly the nodes 1,2 after 0 s: orders-0 has leader "
    )
    assert said.endswith("The nodes that run are 1,2,3.")
    for node_id in (1, 2):
        cluster.kill(node_id)
    with pytest.raises(TimeoutError, match="Partition orders-0 had no leader other than node 3 after 0 s"):
        cluster.wait_for_leader("orders", other_than=3, timeout_s=0)
    with pytest.raises(RuntimeError, match="node 3 runs already"):
        cluster.start(3)


def test_what_stops_a_node_from_starting_is_a_start_error(cluster: Cluster) -> None:
    cluster.kill(2)
    cluster.wait_for_isr("orders", {1, 3})
    mark = cluster.nodes[2].data / "meta.properties"
    kept = mark.read_bytes()
    mark.write_bytes(kept.replace(b"node.id=2", b"node.id=7"))
    with pytest.raises(StartError, match="node 2 cannot start: "):
        cluster.start(2)
    assert cluster.running == (1, 3)
    mark.write_bytes(kept)
    cluster.start(2)
    cluster.wait_for_isr("orders")


def test_a_cluster_that_does_not_start_keeps_no_port() -> None:
    made = Cluster(1, topics=["no name"])
    with pytest.raises(KafkaError), made:
        pass
    with socket.socket() as free:
        free.bind(("127.0.0.1", made.nodes[1].port))


def test_it_needs_nothing_that_only_etcd_or_tls_need() -> None:
    """Nor a client; and a cluster that is stopped leaves nothing behind."""
    script = """
import sys, threading
from ottla.testing import Cluster
with Cluster(2, topics=["orders"]) as cluster:
    cluster.produce("orders", "x")
    folder = cluster.nodes[1].data.parent
    assert cluster.isr("orders") == (1, 2)
assert not folder.exists()
assert threading.active_count() == 1, threading.enumerate()
loaded = {name.partition(".")[0] for name in sys.modules}
assert not loaded & {"h2", "google", "cryptography", "confluent_kafka", "typer", "rich"}, loaded
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
