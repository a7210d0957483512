"""Moving replicas, draining nodes and electing leaders from the command line, against real clusters."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_support import Ottla

from interop.process import wait_until

pytestmark = pytest.mark.skipif(shutil.which("etcd") is None, reason="there is no etcd")

MESSAGES = "".join(f"m{i}\n" for i in range(2_000)).encode()


# How long a node that is killed counts as alive: a third of what it is for users.
SESSION_MS = 3_000


class LocalCluster:
    """A cluster that `ottla cluster up` runs, and the command line against it."""

    def __init__(self, directory: Path, session_ms: int) -> None:
        self.directory = directory
        self._command = [sys.executable, "-m", "ottla.cli.main", "cluster", "up", "--data", str(directory)]
        self._err = (directory.with_suffix(".err")).open("wb")
        self.process = subprocess.Popen(
            [
                *self._command,
                *["--port", "0", "--nodes", "3", "--racks", "a,b,c"],
                *["--set", f"broker.session.timeout.ms={session_ms}"],
            ],
            stdout=subprocess.PIPE,
            stderr=self._err,
            text=True,
        )
        assert self.process.stdout is not None
        lines = []
        while (line := self.process.stdout.readline()) != "ottla: cluster ready\n":
            assert line, (lines, Path(self._err.name).read_text()[-3000:])
            lines.append(line)
        self.ottla = Ottla(self.state["bootstrap"])

    @property
    def state(self) -> Any:
        return json.loads((self.directory / "cluster.json").read_text())

    def pid(self, node: int) -> int:
        (found,) = [one["pid"] for one in self.state["nodes"] if one["id"] == node]
        assert isinstance(found, int)
        return found

    def up(self, *arguments: str) -> None:
        """Ask for the cluster again."""
        subprocess.run([*self._command, *arguments], check=True, timeout=60, stdout=subprocess.DEVNULL)

    def end(self, node: int, signum: int) -> None:
        """Have a node end, and wait until its cluster has noticed."""
        os.kill(self.pid(node), signum)
        self.await_end(node)

    def here(self, command: str, *arguments: str) -> Any:
        """Run a command on the cluster's folder, as in another terminal."""
        return self.ottla("cluster", command, "--data", str(self.directory), *arguments)

    def states(self) -> dict[int, tuple[str, int | None]]:
        """The state and the process of each node, as `ottla cluster status` has them."""
        nodes = self.here("status", "--json").json["nodes"]
        return {node["node_id"]: (node["state"], node["pid"]) for node in nodes}

    def await_end(self, node: int) -> None:
        """Wait until the cluster has noticed that a node has ended."""
        wait_until(lambda: self.brokers().get(node, {}).get("state") != "alive", what="the node's end")

    def brokers(self) -> dict[int, Any]:
        return {one["node_id"]: one for one in self.describe()["brokers"]}

    def describe(self) -> Any:
        return self.ottla("cluster", "describe", "--json").json

    def partitions(self, topic: str) -> dict[int, Any]:
        (found,) = self.ottla("topic", "describe", topic, "--json").json
        return {one["partition"]: one for one in found["partitions"]}

    def messages(self, topic: str) -> list[str]:
        return sorted(self.ottla("consume", topic, "--from", "beginning").out.split())

    def stop(self) -> None:
        self.process.terminate()
        assert self.process.wait(60) == 0


@pytest.fixture
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LocalCluster]:
    cluster = LocalCluster(tmp_path / "c", getattr(request, "param", SESSION_MS))
    try:
        yield cluster
        cluster.stop()
    finally:
        cluster.process.kill()
        for log in sorted(cluster.directory.glob("logs/*")):
            print(f"--- {log.name}\n{log.read_text()}")


def test_a_node_is_added_and_another_removed_while_messages_stay(cluster: LocalCluster) -> None:
    ottla = cluster.ottla
    ottla("topic", "create", "t", "-p", "8")
    ottla("produce", "t", stdin=MESSAGES)
    expected = sorted(MESSAGES.decode().split())

    cluster.up("--nodes", "4")
    assert cluster.brokers()[4]["rack"] == "a"
    plan = ottla("cluster", "reassign", "--all", "--dry-run", "--json").json
    assert any(4 in one["replicas"] for one in plan["partitions"])
    assert cluster.brokers()[4]["replicas"] == 0, "a dry run moves nothing"
    done = ottla("cluster", "reassign", "--all", "--json").json
    assert done["partitions"] == len(plan["partitions"])
    brokers = cluster.brokers()
    # Nodes 1 and 4 share rack a, and each partition has one replica there.
    assert brokers[1]["replicas"] == brokers[4]["replicas"] == 4
    assert sum(broker["leads"] for broker in brokers.values()) == 8
    assert all(broker["leads"] for broker in brokers.values())
    assert ottla("cluster", "reassign", "--all").out.startswith("nothing to move")
    assert cluster.messages("t") == expected

    out = ottla("cluster", "drain", "1").out
    assert out.startswith("node 1 holds nothing")
    assert "--unregister" in out and "start it with fewer" in out
    assert cluster.brokers()[1]["replicas"] == cluster.brokers()[1]["leads"] == 0
    cluster.end(1, signal.SIGTERM)
    assert ottla("cluster", "drain", "1", "--unregister", "--json").json["unregistered"] is True
    assert sorted(cluster.brokers()) == [2, 3, 4]
    ottla.fails(4, "cluster", "drain", "9", "--unregister")
    found = cluster.describe()
    assert found["under_replicated_partitions"] == found["offline_partitions"] == []
    assert cluster.messages("t") == expected


def test_a_dead_node_is_seen_and_replaced(cluster: LocalCluster) -> None:
    ottla = cluster.ottla
    ottla("topic", "create", "t", "-p", "3", "-c", "min.insync.replicas=3")
    ottla("produce", "t", stdin=MESSAGES)
    assert {node: state for node, (state, _) in cluster.states().items()} == dict.fromkeys(
        (1, 2, 3), "running"
    )
    assert cluster.states()[2] == ("running", pid := cluster.pid(2))
    assert cluster.here("kill", "2").out == f"ottla: node 2 killed (pid {pid})\n"
    assert cluster.here("kill", "2").out == "ottla: node 2 does not run\n"
    assert (
        "no node 7: it has 1-3"
        in ottla.fails(4, "cluster", "kill", "7", "--data", str(cluster.directory)).err
    )
    cluster.await_end(2)
    wait_until(lambda: len(cluster.describe()["under_replicated_partitions"]) == 3)
    report = cluster.here("status", "--json").json
    assert report["under_replicated_partitions"] == ["t-0", "t-1", "t-2"]
    (dead,) = (node for node in report["nodes"] if node["pid"] is None)
    assert (dead["node_id"], dead["state"], dead["under_replicated"]) == (2, "dead", 3)
    assert (
        "2 of 3 nodes running, 3 under min.insync.replicas, 3 under-replicated" in cluster.here("status").out
    )
    found = cluster.describe()
    assert {one["node_id"]: one["state"] for one in found["brokers"]} == {1: "alive", 2: "fenced", 3: "alive"}
    assert cluster.brokers()[2]["behind"] == 3
    assert len(found["under_min_isr_partitions"]) == 3
    assert found["offline_partitions"] == []
    seen = ottla("top", "--once", "--json", "--interval", "0.1").json
    assert [(one["node_id"], one["state"] == "away", one["behind"]) for one in seen["brokers"]] == [
        (1, False, 0),
        (2, True, 3),
        (3, False, 0),
    ]
    assert [(one["topic"], one["under_replicated"], one["offline"]) for one in seen["topics"]] == [
        ("t", 3, 0)
    ]
    late = ottla.fails(1, "cluster", "wait", "--timeout", "0.5").err
    assert "not in sync: t-[0-2]" in late
    assert "3 under-replicated" in ottla("cluster", "describe").out
    assert "--allow-fewer-replicas" in ottla.fails(1, "cluster", "drain", "2").err
    assert "is not there" in ottla.fails(1, "cluster", "reassign", "--all").err
    cluster.up("--nodes", "4")
    # That has started node 2 again, too.
    assert ottla("cluster", "wait", "--nodes", "4", "--timeout", "30").out == "all partitions are in sync\n"
    cluster.end(2, signal.SIGKILL)
    ottla("cluster", "drain", "2")
    ottla("cluster", "drain", "2", "--unregister")
    assert sorted(cluster.brokers()) == [1, 3, 4]
    assert cluster.describe()["under_replicated_partitions"] == []
    assert cluster.messages("t") == sorted(MESSAGES.decode().split())


def test_preferred_leaders_are_elected(cluster: LocalCluster) -> None:
    ottla = cluster.ottla
    ottla("topic", "create", "t", "-p", "3")
    before = {number: one["leader"] for number, one in cluster.partitions("t").items()}
    pid = cluster.pid(1)
    assert cluster.here("kill", "1", "--clean").out == f"ottla: node 1 stopped (pid {pid})\n"
    cluster.await_end(1)
    assert cluster.states()[1] == ("stopped", None)
    away = cluster.partitions("t")
    assert all(one["leader"] != 1 for one in away.values())
    (number,) = [n for n, leader in before.items() if leader == 1]
    refused = ottla.fails(1, "cluster", "elect", "t")
    assert f"t-{number}" in refused.err
    assert "listening on" in cluster.here("start", "1").out
    wait_until(lambda: len(cluster.partitions("t")[number]["isr"]) == 3)
    assert ottla("cluster", "elect", "t", "-p", str(number)).out in (
        f"t-{number}: led by 1\n",
        # It was elected by itself meanwhile.
        "nothing to elect: the leaders are the preferred ones\n",
    )
    assert {n: one["leader"] for n, one in cluster.partitions("t").items()} == before
    assert ottla("cluster", "elect", "--all").out.startswith("nothing to elect")
    assert cluster.here("down").out == "ottla: cluster stopped\n"
    assert cluster.process.wait(60) == 0, "the command that runs the cluster ends with it"
    assert {state for state, _ in cluster.states().values()} == {"stopped"}
    assert cluster.here("down").out == "ottla: the cluster does not run\n"


def test_replicas_are_changed_by_file_and_by_number(cluster: LocalCluster, tmp_path: Path) -> None:
    ottla = cluster.ottla
    ottla("topic", "create", "t", "-p", "2", "-r", "1")
    ottla("produce", "t", stdin=MESSAGES)
    file = tmp_path / "plan.json"
    file.write_text('{"version":1,"partitions":[{"topic":"t","partition":0,"replicas":[3,2]}]}')
    assert ottla("cluster", "reassign", "--file", str(file)).out.startswith("1 partition changed")
    assert cluster.partitions("t")[0]["replicas"] == [3, 2]
    assert cluster.partitions("t")[0]["leader"] == 3
    ottla("cluster", "reassign", "--topics", "t", "-r", "3", "--throttle", "50000000")
    assert all(sorted(one["isr"]) == [1, 2, 3] for one in cluster.partitions("t").values())
    assert "throttled" not in ottla("config", "describe", "topic", "t").out
    assert "throttled" not in ottla("config", "describe", "broker", "1").out
    ottla("cluster", "reassign", "--topics", "t", "-r", "1", "--to", "2")
    assert all(one["replicas"] == [2] for one in cluster.partitions("t").values())
    assert cluster.messages("t") == sorted(MESSAGES.decode().split())


# A command has to begin while the paused node still counts as alive.
@pytest.mark.parametrize("cluster", [9_000], indirect=True)
def test_moves_can_be_seen_and_cancelled(cluster: LocalCluster, tmp_path: Path) -> None:
    ottla = cluster.ottla
    ottla("topic", "create", "t", "-r", "2", "-p", "1")
    # A paused node keeps a move from ending. It is the controller, so that nobody may rely on its answers.
    away = cluster.describe()["controller"]
    before = sorted({1, 2, 3} - {away})
    file = tmp_path / "plan.json"

    def write_plan(*replicas: int) -> None:
        partition = {"topic": "t", "partition": 0, "replicas": replicas}
        file.write_text(json.dumps({"version": 1, "partitions": [partition]}))

    write_plan(*before)
    ottla("cluster", "reassign", "--file", str(file))
    pid = cluster.pid(away)
    os.kill(pid, signal.SIGSTOP)
    replicas = [before[0], away]
    write_plan(*replicas)
    moving = ottla.start("cluster", "reassign", "--file", str(file))
    try:
        wait_until(lambda: cluster.describe()["moving_partitions"] == ["t-0"])
        (shown,) = ottla("cluster", "reassign", "--json").json
        assert (shown["replicas"], shown["adding"], shown["removing"]) == (replicas, [away], [before[1]])
        assert moving.poll() is None
        assert ottla("cluster", "reassign", "--cancel").out == "t-0: cancelled\n"
        # What has come about is said, not what was planned.
        out, err = moving.communicate(timeout=60)
        assert (moving.returncode, out) == (1, b"0 partitions changed\n"), err
        assert b"1 of 1 partitions are not as planned: t-0 was cancelled, and is at" in err
        assert ottla("cluster", "reassign").out.startswith("no partition is moving")
        assert cluster.partitions("t")[0]["replicas"] == before
    finally:
        os.kill(pid, signal.SIGCONT)
        moving.kill()


def serve(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ottla.cli.main", "serve", "--listen", "127.0.0.1:0", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_what_keeps_a_node_out_of_a_cluster_is_one_line(cluster: LocalCluster, tmp_path: Path) -> None:
    store = cluster.state["store"]
    soon = ["--set", "initial.broker.registration.timeout.ms=500"]

    def fails(*arguments: str) -> str:
        process = serve(*arguments, *soon)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (1, ""), err
        (line,) = (line for line in err.splitlines() if line.startswith("ottla: "))
        assert line == err.splitlines()[-1]
        assert "Traceback" not in err
        return line

    impostor = ("--node-id", "1", "--store", store, "--data", str(tmp_path / "other"))
    assert "the cluster knows node 1" in fails(*impostor)
    assert "node 1 is already registered" in fails(*impostor, "--replace")
    assert "in use by another broker" in fails(
        "--node-id", "1", "--store", store, "--data", str(cluster.directory / "node-1")
    )
    cluster.end(3, signal.SIGTERM)
    data = str(cluster.directory / "node-3")
    wait_until(lambda: cluster.state["nodes"][2]["pid"] is None)
    assert "belongs to node.id 3, not 8" in fails("--node-id", "8", "--store", store, "--data", data)
    assert "belongs to cluster.id" in fails(
        "--node-id", "3", "--store", store, "--cluster", "x", "--data", data
    )
    assert "belongs to cluster.id" in fails("--node-id", "3", "--data", data)
    assert "etcd cannot be reached" in fails(
        "--node-id", "3", "--store", "etcd://127.0.0.1:1?timeout-ms=300", "--data", data
    )


def test_a_node_that_waits_for_its_store_stops_when_asked(tmp_path: Path) -> None:
    node = serve("--node-id", "1", "--store", "etcd://127.0.0.1:1", "--data", str(tmp_path / "data"))
    assert node.stderr is not None
    while "waiting for the metadata store" not in (line := node.stderr.readline()):
        assert line, node.poll()
    node.terminate()
    out, err = node.communicate(timeout=60)
    assert (node.returncode, out) == (0, ""), err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["cluster", "reassign", "--to", "1"], "--topics or --all"),
        (["cluster", "reassign", "--all", "--wait"], "give one of --all and --wait"),
        (["cluster", "reassign", "--topics", "t", "--to", "x"], "--to: 'x' is not a whole number"),
        (["cluster", "elect"], "name topics, or give --all"),
        (["cluster", "elect", "t", "--all"], "name topics, or give --all"),
        (["cluster", "elect", "--all", "-p", "1"], "--partition: name its topic"),
    ],
)
def test_command_lines_that_make_no_sense(arguments: list[str], said: str, ottla_server: Any) -> None:
    assert said in Ottla(ottla_server.bootstrap).fails(2, *arguments).err


def test_a_single_broker_has_nothing_to_move(ottla_server: Any, name: str) -> None:
    ottla = Ottla(ottla_server.bootstrap)
    ottla("topic", "create", name)
    assert ottla("cluster", "reassign", "--topics", name).out.startswith("nothing to move")
    assert "there is 1 node, not 2" in ottla.fails(1, "cluster", "wait", "-n", "2", "--timeout", "0").err
    assert "there is no node but 1" in ottla.fails(1, "cluster", "drain", "1").err
    assert "node 9 is not there, and holds nothing" in ottla.fails(4, "cluster", "drain", "9").err
    assert "does not exist" in ottla.fails(4, "cluster", "elect", name, "-p", "7").err


def test_nobody_there_is_said_soon() -> None:
    for command in (["reassign"], ["drain", "1"], ["elect", "--all"], ["wait", "--timeout", "0"]):
        assert "cannot reach a broker" in Ottla("127.0.0.1:1").fails(3, "cluster", *command).err


@pytest.mark.parametrize(
    ("given", "said"),
    [("security.protocol=TLS", "give one of"), ("security.protocol=SASL_SSL", "sasl.mechanisms")],
)
def test_a_way_in_that_there_is_not_is_refused_with_a_reason(given: str, said: str) -> None:
    assert said in Ottla("127.0.0.1:1").fails(2, "cluster", "reassign", "-X", given).err
