"""A node of a cluster that cannot open one partition's folder: others lead it, and clients go on."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cluster_support import QUIET, Cluster, Node, running
from confluent_kafka import Consumer, Producer, TopicPartition

from interop.process import wait_until

pytestmark = pytest.mark.skipif(shutil.which("etcd") is None, reason="there is no etcd")


class Clients:
    """A producer that does not give up, and what it was acknowledged."""

    def __init__(self, cluster: Cluster, topic: str) -> None:
        self.acknowledged: list[bytes] = []
        self.failed: list[str] = []
        self._cluster = cluster
        self._topic = topic
        self._stop = threading.Event()
        self._producer = Producer(
            {
                "bootstrap.servers": cluster.bootstrap,
                "enable.idempotence": True,
                "linger.ms": 0,
                "request.timeout.ms": 2_000,
                "retry.backoff.ms": 50,
                **QUIET,
            }
        )
        self._thread = threading.Thread(target=self._work)

    def _work(self) -> None:
        number = 0
        while not self._stop.wait(0.01):
            value = str(number).encode()

            def told(error: object, message: object, value: bytes = value) -> None:
                if error is None:
                    self.acknowledged.append(value)
                else:
                    self.failed.append(str(error))

            self._producer.produce(self._topic, value, partition=0, on_delivery=told)
            self._producer.poll(0)
            number += 1
        self._producer.flush(30)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._thread.join()

    def go_on(self) -> None:
        """Wait until more is acknowledged than was."""
        before = len(self.acknowledged)
        wait_until(lambda: len(self.acknowledged) > before + 20, what="more to be acknowledged")

    def check(self) -> None:
        """All that was sent was acknowledged, and is there once, in order."""
        assert not self.failed
        count = len(self.acknowledged)
        assert consumed(self._cluster, self._topic, count) == self.acknowledged
        assert self.acknowledged == [str(number).encode() for number in range(count)]


def consumed(cluster: Cluster, topic: str, count: int) -> list[bytes]:
    consumer = Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": topic, **QUIET})
    consumer.assign([TopicPartition(topic, 0, 0)])
    values: list[bytes] = []
    try:
        while len(values) < count:
            message = consumer.poll(20)
            assert message is not None and message.error() is None, f"{len(values)} of {count}"
            values.append(message.value() or b"")
    finally:
        consumer.close()
    return values


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with running(tmp_path, {"replica.lag.time.max.ms": "2000"}) as made:
        yield made


def in_its_place(node: Node, topic: str) -> Path:
    """A file where the folder of a topic's partition belongs: root has the right to any folder."""
    path = node.data / f"{topic}-0"
    if path.exists():
        shutil.rmtree(path)
    path.write_text("nobody's")
    return path


@pytest.mark.timeout(180)
def test_others_lead_what_a_leader_cannot_open(cluster: Cluster) -> None:
    """It was made leader of a new topic, hands that over, serves what else it has, and follows later."""
    topic = "unopened"
    controller = cluster.admin().list_topics(timeout=60).controller_id
    bad, *others = sorted(cluster.nodes, key=lambda node_id: node_id == controller)
    file = in_its_place(cluster.nodes[bad], topic)
    cluster.create("other", replicas=(bad, *others))
    cluster.create(topic, replicas=(bad, *others), configs={"min.insync.replicas": "2"})
    clients = Clients(cluster, topic)
    with clients.at_work():
        assert cluster.wait_leader(topic, other_than=bad) in others
        clients.go_on()
        assert sorted(cluster.state(topic)["isr"]) == sorted(others)
        assert cluster.leader("other") == bad
        assert (
            f"{topic}-0: the leader cannot open the log: proposing node {others[0]} as the leader"
            in cluster.logs()
        )
        epoch = cluster.state(topic)["leader_epoch"]
        file.unlink()
        cluster.wait_isr(topic, (bad, *others))
        clients.go_on()
    # It was handed over once.
    assert cluster.state(topic)["leader_epoch"] == epoch == 1
    clients.check()


@pytest.mark.timeout(180)
def test_the_only_one_that_can_open_it_leads_it(cluster: Cluster) -> None:
    """Two of three nodes cannot open a partition that needs two in sync: the third leads it, and what is sent
    with acks=all waits until another one can."""
    topic = "unopened"
    controller = cluster.admin().list_topics(timeout=60).controller_id
    *bad, good = sorted(cluster.nodes, key=lambda node_id: node_id == controller)
    files = [in_its_place(cluster.nodes[node_id], topic) for node_id in bad]
    cluster.create(topic, replicas=(*bad, good), configs={"min.insync.replicas": "2"})
    clients = Clients(cluster, topic)
    with clients.at_work():
        wait_until(lambda: cluster.leader(topic) == good, what="the one that can to lead")
        assert cluster.state(topic)["isr"] == [good] and not clients.acknowledged
        for file in files:
            file.unlink()
        cluster.wait_isr(topic, cluster.nodes.keys())
        clients.go_on()
    assert cluster.state(topic)["leader_epoch"] <= 4
    clients.check()


@pytest.mark.timeout(180)
def test_a_node_that_comes_back_and_cannot_open_what_it_has(cluster: Cluster) -> None:
    """Others lead it already, and are not disturbed."""
    topic = "unopened"
    cluster.create(topic, replicas=(1, 2, 3), configs={"min.insync.replicas": "2"})
    cluster.create("other", replicas=(1, 2, 3))
    clients = Clients(cluster, topic)
    with clients.at_work():
        clients.go_on()
        first = cluster.nodes[1]
        first.kill()
        cluster.wait_leader(topic, other_than=1)
        file = in_its_place(first, topic)
        first.spawn()
        first.wait_ready()
        cluster.wait_isr("other", (1, 2, 3))
        clients.go_on()
        assert sorted(cluster.state(topic)["isr"]) == [2, 3]
        file.unlink()
        cluster.wait_isr(topic, (1, 2, 3))
        clients.go_on()
    clients.check()
