"""A node whose event loop stands still while its process runs: a computation, or a disk that hangs."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
from cluster_support import Cluster

from interop.process import wait_until
from interop.raw import RawClient, batch, produce_fields

pytestmark = pytest.mark.skipif(shutil.which("etcd") is None, reason="there is no etcd")

SESSION_MS = 3_000
# On SIGUSR1 the loop's thread sleeps until a file is there; the others go on.
HELD = """
import os, signal, time
from ottla.cli.main import main

def hold(*_):
    while not os.path.exists(os.environ["OTTLA_TEST_GO_ON"]):
        time.sleep(0.01)

signal.signal(signal.SIGUSR1, hold)
main()
"""


def send(client: RawClient, topic: str, number: int) -> None:
    fields = produce_fields(topic, batch(b"late"), acks=1)
    client.send(client.frame("Produce", 9, fields, number))


def answered(client: RawClient, number: int) -> int:
    """The error code of the Produce with this number."""
    answer = client.answer("Produce", 9, number)
    return int(answer.responses[0].partition_responses[0].error_code)


def test_a_leader_whose_loop_stands_still_is_replaced_and_takes_nothing_when_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    go_on = tmp_path / "go-on"
    monkeypatch.setenv("OTTLA_TEST_GO_ON", str(go_on))
    cluster = Cluster(tmp_path, {"broker.session.timeout.ms": str(SESSION_MS)})
    for node in cluster.nodes.values():
        node.program = ("-c", HELD)
    try:
        cluster.start()
        cluster.create(name, replicas=[2, 3, 1])
        node = cluster.nodes[2]
        clients = [RawClient(node.bootstrap, 60) for _ in range(3)]
        send(clients[0], name, 1)
        assert answered(clients[0], 1) == 0
        os.kill(node.pid, signal.SIGUSR1)
        # It is there for the kernel, takes what it is sent, and does nothing.
        for client in clients:
            send(client, name, 2)
        wait_until(lambda: cluster.leader(name) == 3, what="another leader")
        assert "brokers/2" not in cluster.stored("brokers/")
        go_on.touch()
        assert [answered(client, 2) for client in clients] == [6, 6, 6]
        for client in clients:
            client.socket.close()
        cluster.wait_registered([1, 2, 3])
        cluster.wait_isr(name, [1, 2, 3])
        assert "node 2 is fenced: it stood still for longer than its session" in node.log()
    finally:
        cluster.stop()
        print(cluster.logs())
