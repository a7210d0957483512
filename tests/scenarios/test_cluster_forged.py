"""A client that fetches in a replica's name moves nothing: neither what is committed nor who is in sync."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from cluster_support import Cluster, running

from interop.raw import RawClient, batch, produce_fields

pytestmark = pytest.mark.skipif(shutil.which("etcd") is None, reason="there is no etcd")

# Long enough for followers to be paused, and be in sync all the same.
SETTINGS = {"broker.session.timeout.ms": "20000", "replica.lag.time.max.ms": "20000"}
TIMED_OUT, NOT_LEADER = 7, 6
# Broker epochs are revisions of the store, of which there are few: they can all be tried.
CLAIMS = (*range(-1, 1_500), 1 << 60, 1 << 62, (1 << 63) - 1)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running(tmp_path_factory.mktemp("cluster"), SETTINGS) as made:
        yield made


def forge(cluster: Cluster, leader: int, topic: str, offset: int, claims: Iterable[int]) -> set[int]:
    """Fetch in the name of each follower with each claim; the errors."""
    errors = set()
    with RawClient(cluster.nodes[leader].bootstrap) as client:
        asked = {"topic_id": None, "name": topic}
        found = client.call(
            "Metadata",
            12,
            topics=[asked],
            allow_auto_topic_creation=False,
            include_topic_authorized_operations=False,
        ).topics[0]
        partition = {
            "partition": 0,
            "current_leader_epoch": found.partitions[0].leader_epoch,
            "fetch_offset": offset,
            "last_fetched_epoch": -1,
            "log_start_offset": 0,
            "partition_max_bytes": 1,
        }
        for node_id in cluster.nodes:
            for claim in claims if node_id != leader else ():
                answer = client.call(
                    "Fetch",
                    17,
                    replica_state={"replica_id": node_id, "replica_epoch": claim},
                    max_wait_ms=0,
                    min_bytes=0,
                    max_bytes=1,
                    isolation_level=0,
                    session_id=0,
                    session_epoch=-1,
                    topics=[{"topic_id": found.topic_id, "partitions": [partition]}],
                    forgotten_topics_data=[],
                    rack_id="",
                )
                errors.add(answer.responses[0].partitions[0].error_code)
    return errors


def test_nothing_is_committed_by_a_forged_fetch(cluster: Cluster) -> None:
    cluster.create("ahead", configs={"min.insync.replicas": "2"})
    leader = cluster.leader("ahead")
    followers = [node for node_id, node in cluster.nodes.items() if node_id != leader]
    answers: list[Any] = []

    def produce() -> None:
        with RawClient(cluster.nodes[leader].bootstrap) as client:
            fields = produce_fields("ahead", batch(b"v"), acks=-1) | {"timeout_ms": 4_000}
            answers.append(client.call("Produce", 9, **fields).responses[0].partition_responses[0].error_code)

    produce()
    assert answers == [0]
    for node in followers:
        node.pause()
    try:
        producing = threading.Thread(target=produce)
        producing.start()
        # They have both records, it says.
        assert forge(cluster, leader, "ahead", 2, CLAIMS) == {NOT_LEADER}
        producing.join()
    finally:
        for node in followers:
            node.resume()
    assert answers == [0, TIMED_OUT]
    # Those who are it really go on, and the log says that somebody was not.
    produce()
    assert answers[2:] == [0]
    (stderr,) = cluster.nodes[leader].directory.glob("*.stderr")
    assert stderr.read_text().count("requests in the name of replicas are refused") == 1


def test_nobody_is_put_out_of_the_isr_by_a_forged_fetch(cluster: Cluster) -> None:
    cluster.create("behind", configs={"min.insync.replicas": "2"})
    leader = cluster.leader("behind")
    # From an earlier offset, with an epoch that would fence all that come after it.
    with RawClient(cluster.nodes[leader].bootstrap) as client:
        client.produce("behind", batch(b"v"))
        assert forge(cluster, leader, "behind", 0, CLAIMS[-3:]) == {NOT_LEADER}
        answer = client.produce("behind", batch(b"v"))
    assert answer.error_code == 0 and sorted(cluster.state("behind")["isr"]) == [1, 2, 3]
