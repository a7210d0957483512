"""Replication in a cluster: throttled moves, consumers that read from replicas near them, deleted records."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from cli_support import Ottla
from cluster_support import QUIET, Cluster, running
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from interop.process import wait_until
from measuring import HANG_S, at_most, not_waiting

pytestmark = pytest.mark.skipif(shutil.which("etcd") is None, reason="there is no etcd")

SETTINGS = {
    "replica.selector.class": "org.apache.kafka.common.replica.RackAwareReplicaSelector",
    # Small pieces, so that a rate is kept to the finger's breadth.
    "replica.fetch.max.bytes": "50000",
    "replica.fetch.response.max.bytes": "50000",
}
VALUE_BYTES = 10_000
RATE = 300_000
LEADER_RATE, FOLLOWER_RATE = "leader.replication.throttled.rate", "follower.replication.throttled.rate"
LEADERS, FOLLOWERS = "leader.replication.throttled.replicas", "follower.replication.throttled.replicas"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running(tmp_path_factory.mktemp("cluster"), SETTINGS) as made:
        yield made


@pytest.fixture
def cluster(shared: Cluster) -> Iterator[Cluster]:
    """The shared cluster; a test may end nodes of it, which are there again for the next one."""
    yield shared
    shared.start()
    shared.wait_registered(list(shared.nodes))


def fill(cluster: Cluster, topic: str, count: int) -> None:
    """Produce with acks=all to partition 0."""
    # One record in each batch, since a batch is never fetched in part.
    made = Producer({"bootstrap.servers": cluster.bootstrap, "batch.num.messages": 1, **QUIET})
    failed: list[KafkaError] = []
    for _ in range(count):
        made.produce(
            topic,
            os.urandom(VALUE_BYTES),
            partition=0,
            on_delivery=lambda error, _: failed.append(error) if error else None,
        )
    assert made.flush(60) == 0
    assert not failed


def configure(cluster: Cluster, kind: ResourceType, name: str, values: Mapping[str, str | None]) -> None:
    entries = [
        ConfigEntry(
            key,
            value,
            incremental_operation=AlterConfigOpType.SET if value is not None else AlterConfigOpType.DELETE,
        )
        for key, value in values.items()
    ]
    resource = ConfigResource(kind, name, incremental_configs=entries)
    admin = cluster.admin()
    admin.incremental_alter_configs([resource])[resource].result(60)


def log_bytes(cluster: Cluster, node_id: int, topic: str) -> int:
    folder = cluster.nodes[node_id].data / f"{topic}-0"
    return sum(path.stat().st_size for path in folder.glob("*.log")) if folder.exists() else 0


# Throttling -----------------------------------------------------------------------------------------------


def move(cluster: Cluster, folder: Path, topic: str, *replicas: int) -> subprocess.Popen[bytes]:
    file = folder / f"{topic}.json"
    plan = {"version": 1, "partitions": [{"topic": topic, "partition": 0, "replicas": list(replicas)}]}
    file.write_text(json.dumps(plan))
    return Ottla(cluster.bootstrap).start("cluster", "reassign", "--file", str(file))


@pytest.mark.parametrize("side", ["leader", "follower"])
def test_a_move_is_held_to_the_rate_and_what_is_in_sync_is_not(
    cluster: Cluster, name: str, tmp_path: Path, side: str
) -> None:
    cluster.create(name, replicas=[1])
    fill(cluster, name, 600)
    rate, replicas, node = (LEADER_RATE, LEADERS, 1) if side == "leader" else (FOLLOWER_RATE, FOLLOWERS, 2)
    configure(cluster, ResourceType.BROKER, str(node), {rate: str(RATE)})
    configure(cluster, ResourceType.TOPIC, name, {replicas: f"0:{node}"})
    busy = f"{name}-busy"
    cluster.create(busy, replicas=[1, 2], configs={replicas: "*", "min.insync.replicas": "2"})
    cluster.wait_isr(busy, [1, 2])
    moving = move(cluster, tmp_path, name, 1, 2)
    try:
        wait_until(lambda: log_bytes(cluster, 2, name), what="the move begins")
        begun = time.monotonic()
        while (size := log_bytes(cluster, 2, name)) < 1_200_000:
            assert time.monotonic() < begun + HANG_S, f"{size} bytes in {HANG_S} s"
            # The first second counts whole from its beginning on.
            allowed = RATE * (time.monotonic() - begun + 1.5) + 100_000
            assert size <= allowed, f"{size} bytes, {allowed:.0f} would be right"
            time.sleep(0.02)
        # Twenty seconds' worth, in sync all the time; it counts, too, and leaves nothing for the move.
        with not_waiting(20):
            fill(cluster, busy, 600)
        assert log_bytes(cluster, 2, name) < 2_000_000 and cluster.state(name)["isr"] == [1]
        # It takes effect at once: what is left are more than 4 MB.
        configure(cluster, ResourceType.BROKER, str(node), {rate: None})
        with not_waiting(4_000_000 / RATE):
            cluster.wait_isr(name, [1, 2])
        assert moving.wait(60) == 0
    finally:
        moving.kill()
        moving.wait()


# Reading from the nearest replica -------------------------------------------------------------------------


class Reader:
    """A consumer in a rack, which counts what comes from each node."""

    def __init__(self, cluster: Cluster, topic: str, rack: str) -> None:
        self.bytes_from: dict[int, int] = {}
        self._consumer = Consumer(
            {
                "bootstrap.servers": cluster.bootstrap,
                "group.id": topic,
                "client.rack": rack,
                "auto.offset.reset": "error",
                "statistics.interval.ms": 100,
                "stats_cb": self._count,
                **QUIET,
            }
        )
        self._consumer.assign([TopicPartition(topic, 0, 0)])
        self.offsets: list[int] = []

    def _count(self, text: str) -> None:
        for broker in json.loads(text)["brokers"].values():
            if broker["nodeid"] > 0:
                self.bytes_from[broker["nodeid"]] = broker["rxbytes"]

    def read(self, count: int) -> None:
        """Read until there are ``count`` records in all."""

        def enough() -> bool:
            for message in self._consumer.consume(100, 0.1):
                assert message.error() is None, message.error()
                self.offsets.append(message.offset())
            return len(self.offsets) >= count

        wait_until(enough, 40, f"{count} records")

    def wait_counted(self, condition: Callable[[], bool]) -> None:
        wait_until(lambda: self._consumer.poll(0.05) is None and condition(), 10, "the bytes are counted")

    def close(self) -> None:
        self._consumer.close()


def test_a_consumer_reads_from_the_replica_in_its_rack_and_from_another_when_that_dies(
    cluster: Cluster, name: str
) -> None:
    cluster.create(name, replicas=[1, 2, 3])
    fill(cluster, name, 20)
    near = Reader(cluster, name, "r2")
    try:
        near.read(20)
        before = near.bytes_from.get(1, 0)
        fill(cluster, name, 200)
        near.read(220)
        near.wait_counted(lambda: near.bytes_from.get(2, 0) > 200 * VALUE_BYTES)
        assert near.bytes_from.get(1, 0) - before < 20 * VALUE_BYTES
        assert near.bytes_from.get(3, 0) < 20 * VALUE_BYTES
        cluster.nodes[2].kill()
        fill(cluster, name, 100)
        near.read(320)
        assert near.offsets == list(range(320))
    finally:
        near.close()


@pytest.mark.parametrize("rack", ["r1", "nowhere", ""])
def test_a_consumer_with_no_replica_in_its_rack_reads_from_the_leader(
    cluster: Cluster, name: str, rack: str
) -> None:
    cluster.create(name, replicas=[1, 2])
    fill(cluster, name, 100)
    reader = Reader(cluster, name, rack)
    try:
        reader.read(100)
        reader.wait_counted(lambda: reader.bytes_from.get(1, 0) > 100 * VALUE_BYTES)
        assert reader.bytes_from.get(2, 0) < 10 * VALUE_BYTES
    finally:
        reader.close()


def test_a_near_consumer_hears_of_records_as_soon_as_others(cluster: Cluster, name: str) -> None:
    """A follower is told of each new high watermark at once, not when its fetch has waited long enough."""
    cluster.create(name, replicas=[1, 2])
    fill(cluster, name, 1)
    near = Reader(cluster, name, "r2")
    try:
        near.read(1)
        count = 1
        # Else each takes nearly half a second, the longest that a follower's Fetch waits.
        for attempt in at_most(0.2, "s, most of them"):
            times = []
            for _ in range(10):
                fill(cluster, name, 1)
                count += 1
                begun = time.monotonic()
                near.read(count)
                times.append(time.monotonic() - begun)
            attempt.took(sorted(times)[5])
    finally:
        near.close()


# DeleteRecords --------------------------------------------------------------------------------------------


def delete(cluster: Cluster, topic: str, offset: int, timeout_s: float = 30, first: int | None = None) -> int:
    """The low watermark afterwards. ``first``: the one node that the client turns to; else it is any."""
    return deleted(cluster.admin(first), topic, offset, timeout_s)


def deleted(admin: AdminClient, topic: str, offset: int, timeout_s: float = 30) -> int:
    partition = TopicPartition(topic, 0, offset)
    found = admin.delete_records([partition], request_timeout=40, operation_timeout=timeout_s)
    low: int = found[partition].result(60).low_watermark
    return low


def beginning(cluster: Cluster, topic: str) -> int:
    reader = Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": "any", **QUIET})
    try:
        low: int = reader.get_watermark_offsets(TopicPartition(topic, 0), timeout=60)[0]
    finally:
        reader.close()
    return low


def test_deleted_records_are_gone_from_every_replica_when_that_is_answered(
    cluster: Cluster, name: str
) -> None:
    cluster.create(name, replicas=[1, 2, 3])
    fill(cluster, name, 70)
    assert delete(cluster, name, 10) == 10
    assert delete(cluster, name, 5) == 10
    # One client: a new one may look for its leader for seconds, if its first connection ends too soon.
    admin = cluster.admin()
    assert deleted(admin, name, 10) == 10
    offset = 10
    # Followers hear of it at once, not each half second.
    for attempt in at_most(0.3, "s, many of them"):
        times = []
        for _ in range(10):
            offset += 1
            begun = time.monotonic()
            assert deleted(admin, name, offset) == offset
            times.append(time.monotonic() - begun)
        attempt.took(sorted(times)[3])
    cluster.nodes[1].kill()
    assert cluster.wait_leader(name, other_than=1) == 2
    assert beginning(cluster, name) == offset
    # The dead are not waited for.
    assert delete(cluster, name, -1) == 70
    cluster.start()
    cluster.wait_isr(name, [1, 2, 3])
    cluster.nodes[2].kill()
    cluster.nodes[3].kill()
    assert cluster.wait_leader(name, other_than=2) == 1
    assert beginning(cluster, name) == 70


def test_what_a_living_replica_still_has_is_waited_for(cluster: Cluster, name: str) -> None:
    cluster.create(name, replicas=[1, 2])
    fill(cluster, name, 10)
    # A client that turned to the one that stands still would notice for seconds nothing; and one that has
    # yet to find out who leads may take as long as the other lives on: broker.session.timeout.ms.
    admin = cluster.admin(1)
    assert deleted(admin, name, 1) == 1
    cluster.nodes[2].pause()
    try:
        with pytest.raises(KafkaException) as raised:
            deleted(admin, name, 5, timeout_s=0.5)
        assert raised.value.args[0].code() == KafkaError.REQUEST_TIMED_OUT
        # By then it counts as dead.
        assert deleted(admin, name, 6, timeout_s=20) == 6
    finally:
        cluster.nodes[2].resume()
    cluster.wait_isr(name, [1, 2])
    assert delete(cluster, name, 7) == 7


@pytest.mark.parametrize(
    ("configs", "offset", "code"),
    [
        ({}, 11, KafkaError.OFFSET_OUT_OF_RANGE),
        ({"cleanup.policy": "compact"}, 5, KafkaError.POLICY_VIOLATION),
    ],
)
def test_what_cannot_be_deleted_is_refused(
    cluster: Cluster, name: str, configs: dict[str, str], offset: int, code: Any
) -> None:
    cluster.create(name, replicas=[1, 2], configs=configs)
    if not configs:
        fill(cluster, name, 10)
    with pytest.raises(KafkaException) as raised:
        delete(cluster, name, offset)
    assert raised.value.args[0].code() == code
