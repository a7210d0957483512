"""The levels of features on real nodes: seen, moved, and what a node does at one that it does not know."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_support import Ottla
from cluster_support import Cluster, Node, running
from kafka import KafkaAdminClient
from kafka.errors import InvalidUpdateVersionError

from interop.process import BrokerProcess, wait_until

MV, ELR, KRAFT = "metadata.version", "eligible.leader.replicas.version", "kraft.version"


def in_force(ottla: Ottla, *arguments: str) -> dict[str, int]:
    """The levels, without those that are 0."""
    found = ottla("feature", "describe", "--json", *arguments).json
    return {one["feature"]: one["level"] for one in found["features"] if one["level"]}


@pytest.fixture
def ottla(ottla_server: Any) -> Ottla:
    return Ottla(ottla_server.bootstrap)


def test_features_are_shown_for_people_and_programs(ottla: Ottla) -> None:
    lines = [line.split() for line in ottla("feature", "describe").out.splitlines()]
    assert lines[0] == ["FEATURE", "SUPPORTED", "FROM", "TO", "IN", "FORCE", "EPOCH"]
    rows = {line[0]: line[1:] for line in lines[1:]}
    assert rows[MV][:3] == ["3.3-IV3", "4.3-IV0", "4.3-IV0"]
    assert rows[ELR][:3] == ["1", "1", "1"]
    found = ottla("feature", "describe", "--node-id", "1", "--json").json
    assert found["epoch"] == int(rows[MV][3]) >= 1
    by_name = {one.pop("feature"): one for one in found["features"]}
    assert by_name[MV] == {"supported_min": 7, "supported_max": 30, "level": 30, "release": "4.3-IV0"}
    assert by_name[KRAFT] == {"supported_min": 0, "supported_max": 1, "level": 1}
    assert by_name.keys() == rows.keys()


def test_what_cannot_be_is_said_in_one_line(ottla: Ottla) -> None:
    before = ottla("feature", "describe", "--json").json
    for arguments, said in (
        (
            ("upgrade", "-f", "no.such=1"),
            "feature no.such. Local controller 1 does not support this feature.",
        ),
        (("upgrade", "-f", f"{MV}=31", "--dry-run"), "Local controller 1 only supports versions 7-30"),
        (("downgrade", "-f", f"{MV}=29"), "Refusing to perform the requested downgrade"),
        (("downgrade", "-f", f"{MV}=29", "--unsafe"), "Unsafe metadata downgrade is not supported"),
        (("downgrade", "-f", f"{KRAFT}=0", "-f", f"{MV}=30"), "Can't downgrade the version of this feature."),
    ):
        assert said in ottla.fails(1, "feature", *arguments).err
    for arguments, said in (
        (("upgrade",), "name features with --feature, or give --release-version"),
        (("upgrade", "-f", f"{MV}=30", "--release-version", "4.3"), "name features with --feature, or give"),
        (("upgrade", "--release-version", "9.9"), "there is no release '9.9'; there are 3.3-IV3, "),
        (("downgrade", "-f", f"{MV}=x"), "is no level"),
        (("downgrade", "-f", f"{MV}=-1"), "is no level"),
        (("downgrade", "-f", MV), "give NAME=VALUE"),
        (("upgrade", "-f", f"{MV}=1", "-f", f"{MV}=2"), "one is named twice"),
    ):
        assert said in ottla.fails(2, "feature", *arguments).err
    assert "node 77 is not there" in ottla.fails(4, "feature", "describe", "--node-id", "77").err
    assert ottla("feature", "describe", "--json").json == before


def test_all_features_are_moved_to_those_of_a_release(ottla: Ottla) -> None:
    """What the broker does not support yet is left out, and said."""
    ran = ottla.try_("feature", "upgrade", "--release-version", "4.3", "--dry-run")
    assert ran.code == 0
    assert f"{MV} can be upgraded to 30 (4.3-IV0)\n" in ran.out
    assert "group.version: the release has level 1; the broker supports 0" in ran.err
    ran = ottla.try_("feature", "upgrade", "--release-version", "4.3", "--json")
    assert ran.json["dry_run"] is False
    assert ran.json["features"].items() >= {MV: 30, ELR: 1, KRAFT: 1}.items()
    assert "group.version" not in ran.json["features"]


def test_another_client_sees_and_moves_them(ottla_server: Any) -> None:
    client = KafkaAdminClient(bootstrap_servers=ottla_server.bootstrap)
    try:
        found = client.describe_features()
        assert found[MV]["supported"] == (7, 30)
        assert found[MV]["finalized"] == (30, 30)
        assert found[MV]["finalized_epoch"] >= 1
        assert client.update_features({MV: ("UPGRADE", 30)}) == {MV: "OK"}
        with pytest.raises(InvalidUpdateVersionError, match="Can't downgrade the version of this feature"):
            client.update_features({KRAFT: ("SAFE_DOWNGRADE", 0), MV: 30})
    finally:
        client.close()


# One node ------------------------------------------------------------------------------


def test_a_node_that_meets_a_level_that_it_does_not_know(tmp_path: Path) -> None:
    """Its data directory was used by a later release."""
    import sqlite3

    broker = BrokerProcess(tmp_path)
    broker.start()
    broker.stop()
    database = sqlite3.connect(broker.data / "metadata.db")
    value = json.dumps({"epoch": 2, "levels": {MV: 40, ELR: 1}}).encode()
    changed = database.execute("UPDATE kv SET value = ? WHERE key = 'features'", (value,))
    assert changed.rowcount == 1
    database.commit()
    database.close()
    with pytest.raises(AssertionError, match="broker ended with 1 at start") as ended:
        broker.start()
    assert "ottla: node 1 cannot start: this release does not support what the cluster has agreed on" in str(
        ended.value
    )
    assert "metadata.version is at level 40, of which this release supports 7-30" in str(ended.value)


# Three nodes ------------------------------------------------------------------------------

needs_etcd = pytest.mark.skipif(shutil.which("etcd") is None, reason="there is no etcd")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running(tmp_path_factory.mktemp("features")) as made:
        yield made


def store(cluster: Cluster, value: Any) -> None:
    """Have the store say what a later release might."""
    key = f"/ottla/{cluster.name}/features"
    if value is None:
        cluster.etcd("del", key)
    else:
        cluster.etcd("put", key, json.dumps(value, sort_keys=True, separators=(",", ":")))


@needs_etcd
def test_a_rolling_upgrade_ends_with_the_levels(shared: Cluster) -> None:
    """The store is of an earlier release, and one of its nodes has not come back yet."""
    ottla = Ottla(shared.bootstrap)
    store(shared, None)
    for node in shared.nodes:
        wait_until(lambda node=node: in_force(ottla, "--node-id", str(node)) == {MV: 7, ELR: 1})  # type: ignore[misc]
    endpoints = {"PLAINTEXT": ["127.0.0.1", 1]}
    shared.etcd("put", f"/ottla/{shared.name}/nodes/9", json.dumps({"endpoints": endpoints, "rack": None}))
    wait_until(lambda: "9" in str(ottla("cluster", "describe", "--json").json["brokers"]))
    refused = ottla.try_("feature", "upgrade", "--release-version", "4.3")
    assert refused.code == 1 and "Broker 9 only supports versions 7" in refused.err
    assert "features" not in shared.stored("features")
    shared.etcd("del", f"/ottla/{shared.name}/nodes/9")

    def moved() -> bool:
        """Another node may not have heard of it yet."""
        return ottla.try_("feature", "upgrade", "--release-version", "4.3").code == 0

    wait_until(moved, what="an upgrade")
    for node in shared.nodes:
        wait_until(lambda node=node: in_force(ottla, "--node-id", str(node))[MV] == 30)  # type: ignore[misc]
    found = shared.stored("features")["features"]
    assert found["epoch"] == 1 and found["levels"].items() >= {MV: 30, ELR: 1, KRAFT: 1}.items()
    registered = shared.stored("brokers/")
    assert all(one["features"][MV] == [7, 30] for one in registered.values())


@needs_etcd
def test_nodes_stop_at_a_level_that_they_do_not_know_and_do_not_join(shared: Cluster) -> None:
    before = shared.stored("features")["features"]
    levels = {**before["levels"], "later.version": 3}
    store(shared, {"epoch": before["epoch"] + 1, "levels": levels})
    for node in shared.nodes.values():
        wait_until(lambda node=node: not node.alive(), what="the node's end")  # type: ignore[misc]
        assert node.process is not None and node.process.returncode == 1
        assert f"node {node.node_id} stops: this release does not support" in log_of(node)
        node.process = None
    first = shared.nodes[1]
    first.spawn()
    assert first.process is not None
    assert first.process.wait(60) == 1
    assert "ottla: node 1 cannot start: this release does not support what the cluster" in log_of(first)
    assert "later.version is at level 3, of which this release supports 0" in log_of(first)
    first.process = None
    store(shared, before)
    shared.start()
    shared.wait_registered(list(shared.nodes))
    assert in_force(Ottla(shared.bootstrap)) == before["levels"]


def log_of(node: Node) -> str:
    return "\n".join(path.read_text() for path in sorted(node.directory.glob("*.stderr")))
