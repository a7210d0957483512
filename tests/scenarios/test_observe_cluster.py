"""What the metrics of a cluster say while a follower stands still, and while a leader moves."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
from cluster_support import QUIET, Cluster, free_port
from confluent_kafka import Producer
from observe_support import Scraped, get

from interop.process import wait_until
from interop.raw import RawClient
from measuring import HANG_S

BEHIND = ("ottla_under_replicated_partitions", "ottla_under_min_isr_partitions")


class Watched:
    """A cluster, and all that was scraped of its nodes, in order."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.addresses = {}
        for number, node in cluster.nodes.items():
            self.addresses[number] = f"127.0.0.1:{free_port()}"
            node.arguments = (*node.arguments, "--metrics", self.addresses[number])
        self.scraped: dict[int, list[Scraped]] = {number: [] for number in cluster.nodes}

    def scrape(self, number: int) -> Scraped:
        answer = get(self.addresses[number], "/metrics")
        assert answer.status == 200, answer
        found = Scraped(answer.body.decode())
        self.scraped[number].append(found)
        return found

    def sum(self, name: str, **labels: str) -> float:
        """Over all nodes, as Prometheus' ``sum``."""
        return sum(self.scrape(number).total(name, **labels) for number in self.addresses)

    def assert_counters_never_go_down(self) -> None:
        for number, all_found in self.scraped.items():
            for before, after in pairwise(all_found):
                counters = {
                    sample.name
                    for family in before.families
                    if family.type in ("counter", "histogram")
                    for sample in family.samples
                }
                for (name, labels), value in before.samples.items():
                    if name in counters:
                        now = after.samples.get((name, labels))
                        assert now is not None and now >= value, (number, name, labels, value, now)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    settings = {"broker.session.timeout.ms": "6000", "replica.lag.time.max.ms": "800"}
    cluster = Cluster(tmp_path_factory.mktemp("watched"), settings)
    try:
        made = Watched(cluster)
        cluster.start()
        yield made
    finally:
        cluster.stop()
        print(cluster.logs())


class Load:
    """Records for a partition, each of them once."""

    def __init__(self, cluster: Cluster, topic: str, **settings: object) -> None:
        self._producer = Producer(
            {"bootstrap.servers": cluster.bootstrap, "linger.ms": 0, **settings, **QUIET}
        )
        self._topic = topic
        self.count = 0

    def go_on(self, count: int = 10) -> None:
        for _ in range(count):
            self._producer.produce(self._topic, b"x", partition=0)
        assert self._producer.flush(HANG_S) == 0
        self.count += count


def test_a_follower_that_stands_still_is_told_of_and_all_is_as_before_once_it_goes_on(
    watched: Watched,
) -> None:
    cluster = watched.cluster
    cluster.create("strict", replicas=[1, 2, 3], configs={"min.insync.replicas": "3"})
    # Only so is anything appended below min.insync.replicas.
    load = Load(cluster, "strict", acks=1)
    load.go_on()

    def in_sync() -> bool:
        now = watched.scrape(1)
        behind = [now.value(name) for name in BEHIND]
        return behind == [0, 0] and now.value("ottla_at_min_isr_partitions") >= 1

    # A machine that is busy may have a follower out of sync for a while by itself.
    wait_until(in_sync, what="all followers in sync")
    cluster.nodes[3].pause()
    try:

        def shrunk() -> Scraped | None:
            load.go_on()
            found = watched.scrape(1)
            return found if all(found.value(name) >= 1 for name in BEHIND) else None

        found = wait_until(shrunk, what="the follower out of sync")
        assert found is not None
        assert found.value("ottla_isr_shrinks_total") > 0
        assert found.value("ottla_follower_lag_messages", follower="2") < load.count
    finally:
        cluster.nodes[3].resume()

    def whole() -> bool:
        load.go_on(1)
        now = watched.scrape(1)
        return (
            [now.value(name) for name in BEHIND] == [0, 0]
            and now.value("ottla_isr_expands_total") > 0
            and now.value("ottla_follower_lag_seconds", follower="3") < 1
        )

    wait_until(whole, what="the follower in sync again")
    assert watched.sum("ottla_isr_shrinks_total") >= 1
    assert watched.sum("ottla_topic_messages_in_total", topic="strict") == load.count
    watched.assert_counters_never_go_down()


def test_what_is_produced_while_a_leader_moves_is_counted_once_over_all_nodes(watched: Watched) -> None:
    cluster = watched.cluster
    cluster.create("moved", replicas=[1, 2, 3])
    load = Load(cluster, "moved", **{"enable.idempotence": True})
    load.go_on()
    led = watched.sum("ottla_leaders")
    changes = watched.sum("ottla_leader_changes_total")

    def leaders() -> dict[int, float]:
        return {number: watched.scrape(number).value("ottla_leaders") for number in watched.addresses}

    with RawClient(cluster.nodes[1].bootstrap) as client:
        for leader in (2, 1):
            counts = leaders()
            replicas = [leader, *({1, 2, 3} - {leader})]
            partition = {"partition_index": 0, "replicas": replicas}
            topics = [{"name": "moved", "partitions": [partition]}]
            client.call("AlterPartitionReassignments", 0, timeout_ms=10_000, topics=topics)
            asked = [{"topic": "moved", "partitions": [0]}]
            client.call("ElectLeaders", 2, election_type=0, topic_partitions=asked, timeout_ms=10_000)

            # What is sent to who does not know yet that it leads no more is appended, and cut off again.
            after = dict(counts)
            after[leader] += 1
            after[3 - leader] -= 1
            wait_until(lambda after=after: leaders() == after, what=f"node {leader} leads")  # type: ignore[misc]
            load.go_on()
    assert watched.sum("ottla_topic_messages_in_total", topic="moved") == load.count
    counted = {n: watched.scrape(n).value("ottla_topic_messages_in_total", topic="moved") for n in (1, 2)}
    assert all(counted.values()), counted
    wait_until(lambda: watched.sum("ottla_leaders") == led, what="each partition led by one node")
    assert watched.sum("ottla_leader_changes_total") >= changes + 2
    assert watched.sum("ottla_unclean_leader_elections_total") == 0
    # Whoever followed has fetched what others have led; who counts what it sent does not count it as read.
    assert watched.sum("ottla_topic_replication_bytes_in_total", topic="moved") > 0
    assert watched.sum("ottla_topic_bytes_out_total", topic="moved") == 0
    watched.assert_counters_never_go_down()
