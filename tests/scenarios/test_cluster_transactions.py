"""Transactions on three nodes, whose coordinators and leaders die meanwhile: each ends as it was decided."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from cluster_support import QUIET, Cluster, running
from confluent_kafka import IsolationLevel, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from interop.process import wait_until
from interop.raw import RawClient

pytestmark = pytest.mark.skipif(shutil.which("etcd") is None, reason="there is no etcd")

STATE = "__transaction_state"
PARTITIONS = 6


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    settings = {
        "transaction.state.log.num.partitions": "1",
        "transaction.state.log.replication.factor": "3",
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
    }
    with running(tmp_path_factory.mktemp("cluster"), settings) as made:
        yield made


@pytest.fixture
def cluster(shared: Cluster) -> Iterator[Cluster]:
    """The shared cluster; a test may end nodes of it, which are there again for the next one."""
    yield shared
    shared.start()
    shared.wait_registered(list(shared.nodes))


def transactional(cluster: Cluster, name: str, **settings: object) -> Producer:
    producer = Producer(
        {
            "bootstrap.servers": cluster.bootstrap,
            "transactional.id": name,
            "linger.ms": 0,
            "transaction.timeout.ms": 60_000,
            **QUIET,
            **settings,
        }
    )
    producer.init_transactions(60)
    return producer


def ends(admin: AdminClient, topic: str, isolation: IsolationLevel) -> list[int]:
    asked = {TopicPartition(topic, index): OffsetSpec.latest() for index in range(PARTITIONS)}
    found = admin.list_offsets(asked, isolation_level=isolation)
    return [found[where].result(60).offset for where in asked]


def nothing_is_open(cluster: Cluster, topic: str) -> bool:
    admin = cluster.admin()
    try:
        stable = ends(admin, topic, IsolationLevel.READ_COMMITTED)
        return stable == ends(admin, topic, IsolationLevel.READ_UNCOMMITTED)
    except KafkaException:
        # Leaders change.
        return False


def write(producer: Producer, topic: str, number: int) -> None:
    for index in range(PARTITIONS):
        producer.produce(topic, f"{number}-{index}", partition=index)


def finish(producer: Producer, *, commit: bool) -> bool:
    """End a transaction as is wished; where it has to be aborted, abort it. Whether it was committed."""
    while True:
        try:
            if commit:
                producer.commit_transaction(60)
            else:
                producer.abort_transaction(60)
        except KafkaException as error:
            reason = error.args[0]
            if reason.txn_requires_abort():
                commit = False
            elif not reason.retriable():
                raise
        else:
            return commit


@pytest.mark.parametrize("victim", ["coordinator", "leader"])
def test_a_node_is_killed_in_the_middle_of_a_transaction(cluster: Cluster, name: str, victim: str) -> None:
    cluster.create(name, partitions=PARTITIONS)
    producer = transactional(cluster, name)
    for number in range(4):
        producer.begin_transaction()
        write(producer, name, number)
        if number == 2:
            producer.flush(30)
            node_id = cluster.leader(STATE) if victim == "coordinator" else cluster.leader(name)
            cluster.nodes[node_id].kill()
        finish(producer, commit=number % 2 == 0)
    wait_until(lambda: nothing_is_open(cluster, name), timeout_s=60)


def test_what_was_decided_is_finished_though_its_coordinator_dies_at_once(
    cluster: Cluster, name: str
) -> None:
    cluster.create(name, partitions=PARTITIONS)
    producer = transactional(cluster, name)
    for number in range(3):
        producer.begin_transaction()
        write(producer, name, number)
        producer.commit_transaction(60)
        # Its markers may be on their way.
        leader = cluster.leader(STATE)
        cluster.nodes[leader].kill()
        cluster.wait_leader(STATE, other_than=leader)
        wait_until(lambda: nothing_is_open(cluster, name), timeout_s=60)
        cluster.start()
        cluster.wait_isr(STATE, [1, 2, 3])


def test_a_producer_that_has_died_is_timed_out(cluster: Cluster, name: str) -> None:
    cluster.create(name, partitions=PARTITIONS)
    producer = transactional(cluster, name, **{"transaction.timeout.ms": 2_000})
    producer.begin_transaction()
    write(producer, name, 0)
    producer.flush(30)
    assert not nothing_is_open(cluster, name)
    # Nobody ends it.
    wait_until(lambda: nothing_is_open(cluster, name), timeout_s=60)
    with RawClient(cluster.nodes[cluster.leader(STATE)].bootstrap) as client:
        answer = client.call("DescribeTransactions", 0, transactional_ids=[name])
    assert [one.transaction_state for one in answer.transaction_states] == ["CompleteAbort"]
