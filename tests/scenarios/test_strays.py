"""Metadata that knows less than the disk: what was acknowledged is set aside, and can be had back."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from cli_support import Ottla
from cluster_support import Cluster, running

from interop.process import BrokerProcess, wait_until

RECORDS = [f"record {number}" for number in range(100)]


def produce(ottla: Ottla, topic: str, values: Sequence[str] = RECORDS) -> None:
    ottla("produce", topic, "--acks", "all", stdin="".join(f"{value}\n" for value in values).encode())


def consumed(ottla: Ottla, topic: str) -> list[str]:
    return ottla("consume", topic).out.splitlines()


def strays(data: Path) -> list[str]:
    return sorted(name for name in os.listdir(data) if name.endswith("-stray"))


def test_the_metadata_of_a_node_by_itself_is_lost(tmp_path: Path) -> None:
    with BrokerProcess(tmp_path) as broker:
        ottla = Ottla(broker.bootstrap)
        ottla("topic", "create", "t")
        produce(ottla, "t")
        broker.stop()
        for path in broker.data.glob("metadata.db*"):
            path.unlink()
        broker.spawn()
        assert broker.process is not None and broker.process.wait(60) == 1
        refusal = broker.log_lines()[-1]
        assert "put its metadata.db back" in refusal and "'ottla log stray'" in refusal
        broker.process = None
        (broker.data / "meta.properties").unlink()
        broker.start()
        said = [line for line in broker.log_lines() if "t-0: set aside as" in line]
        assert len(said) == 1 and "ottla log stray" in said[0]
        [folder] = strays(broker.data)
        # The topic is made again, and the copy takes its place.
        ottla("topic", "create", "t")
        assert consumed(ottla, "t") == [] and strays(broker.data) == [folder]
        ottla.fails(1, "log", "stray", "adopt", str(broker.data), folder)
        broker.stop()
        ottla("log", "stray", "adopt", str(broker.data), folder)
        broker.start()
        assert consumed(ottla, "t") == RECORDS
        produce(ottla, "t", ["more"])
        broker.kill()
        broker.start()
        assert consumed(ottla, "t") == [*RECORDS, "more"]
        assert strays(broker.data) == []


def forget_topic(cluster: Cluster, topic: str) -> None:
    """As if etcd had been restored from a backup of before the topic was made."""
    for node in cluster.nodes.values():
        node.stop()
    for kind in ("topics", "partitions"):
        cluster.etcd("del", "--prefix", f"/ottla/{cluster.name}/{kind}/{topic}")
    cluster.start()


@pytest.mark.skipif(shutil.which("etcd") is None, reason="there is no etcd")
def test_a_cluster_whose_metadata_is_of_an_earlier_time(tmp_path: Path) -> None:
    with running(tmp_path) as cluster:
        ottla = Ottla(cluster.bootstrap)
        cluster.create("late")
        produce(ottla, "late")
        cluster.wait_isr("late", [1, 2, 3])
        forget_topic(cluster, "late")
        folders = {node_id: strays(node.data) for node_id, node in cluster.nodes.items()}
        assert all(len(found) == 1 for found in folders.values())
        cluster.create("late", replicas=[2])
        assert consumed(ottla, "late") == []
        node = cluster.nodes[2]
        [shown] = ottla("log", "stray", "list", str(node.data), "--json").json
        assert (shown["topic"], shown["start"], shown["end"]) == ("late", 0, len(RECORDS))
        node.stop()
        ottla("log", "stray", "adopt", str(node.data), folders[2][0])
        cluster.start()
        wait_until(lambda: cluster.leader("late") == 2, what="a leader")
        assert consumed(ottla, "late") == RECORDS
        done = ottla.try_("cluster", "reassign", "--topics", "late", "--replication-factor", "3")
        assert done.code == 0, done
        cluster.wait_isr("late", [1, 2, 3])
        produce(ottla, "late", ["more"])
        # Whoever leads has it all.
        node.kill()
        cluster.wait_leader("late", other_than=2)
        assert consumed(Ottla(cluster.nodes[1].bootstrap), "late") == [*RECORDS, "more"]
        assert [strays(cluster.nodes[node_id].data) for node_id in (1, 3)] == [folders[1], folders[3]]
