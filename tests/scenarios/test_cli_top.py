"""`ottla top` against a real broker: one document, tables, and a terminal that is as it was when it ends."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from uuid import uuid4

import pytest
from cli_support import Ottla

from interop.process import BrokerProcess
from measuring import HANG_S
from ottla.cli.local.ports import free_ports
from ottla.testing import Broker


@pytest.fixture
def ottla(ottla_server: BrokerProcess) -> Ottla:
    return Ottla(ottla_server.bootstrap)


@pytest.fixture
def name() -> str:
    return f"top-{uuid4().hex[:10]}"


def test_one_interval_for_scripts_and_for_people(ottla: Ottla, name: str) -> None:
    ottla("topic", "create", name, "--partitions", "2")
    ottla("produce", name, stdin=b"a\nb\nc\n")
    ottla("consume", name, "--group", name, "--max", "2")
    found = ottla("top", "--once", "--json", "--interval", "0.1").json
    assert found["cluster_id"] and found["interval_s"] >= 0.1 and found["silent"] == []
    (broker,) = found["brokers"]
    assert (broker["node_id"], broker["state"], broker["behind"]) == (1, "controller", 0)
    assert broker["address"] == ottla.bootstrap and broker["size_bytes"] > 0
    (topic,) = [one for one in found["topics"] if one["topic"] == name]
    assert (topic["partitions"], topic["replication_factor"], topic["messages_per_s"]) == (2, 1, 0.0)
    assert topic["size_bytes"] > 0
    assert not any(one["internal"] for one in found["topics"])
    (group,) = [one for one in found["groups"] if one["group"] == name]
    assert (group["state"].lower(), group["members"], group["lag_per_s"]) == ("empty", 0, 0.0)
    assert group["lag"] + 2 <= 3
    assert found["notes"] == ["node 1 has no metrics.listener"]
    tables = ottla("top", "--once", "--interval", "0.1", "--internal").out
    assert "\nGROUP" in tables and tables.startswith("brokers: 1\n")
    assert name in tables and "__consumer_offsets" in tables
    assert "metrics.listener=127.0.0.1:9308" in tables


def test_clients_are_told_of_where_nodes_listen(name: str) -> None:
    (port,) = free_ports(1)
    listener = f"127.0.0.1:{port}"
    with Broker(topics={name: 1}, config={"metrics.listener": listener}) as broker:
        ottla = Ottla(broker.bootstrap_servers)
        found = ottla("top", "--once", "--json", "--interval", "0.1").json
        clients = {one["client_id"]: one for one in found["clients"]}
        assert clients["ottla"]["requests_per_s"] > 0 and clients["ottla"]["node_id"] == 1
        assert found["notes"] == []


class Terminal:
    """`ottla top` in a terminal of 80x24, and what it writes there."""

    def __init__(self, ottla: Ottla) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self._theirs = theirs
        self.before = termios.tcgetattr(theirs)
        self.written = b""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ottla.cli.main", "top", "--interval", "0.5"],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**ottla.environment, "TERM": "xterm-16color", "COLORTERM": ""},
            start_new_session=True,
        )

    @property
    def now(self) -> list[object]:
        return termios.tcgetattr(self._theirs)

    def press(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def read_until(self, text: bytes) -> None:
        """Read what it writes until that is in it."""
        ends_s = time.monotonic() + HANG_S
        start = len(self.written)
        while text not in self.written[start:]:
            assert time.monotonic() < ends_s, self.written
            if select.select([self._ours], [], [], 0.1)[0]:
                self.written += os.read(self._ours, 65_536)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)


def test_it_draws_in_a_terminal_and_leaves_it_as_it_was(ottla: Ottla, name: str) -> None:
    ottla("topic", "create", name, "--partitions", "2")
    terminal = Terminal(ottla)
    try:
        terminal.read_until(b"all in sync")
        terminal.press(b"2/" + name[-6:].encode())
        terminal.read_until(name.encode())
        terminal.press(b"\rq")
        # The screen as it was before, and the cursor to be seen.
        terminal.read_until(b"\x1b[?1049l")
        assert terminal.process.wait(HANG_S) == 0
        assert terminal.now == terminal.before
        # The terminal's own colours.
        assert b"38;2;" not in terminal.written and b"38;5;" not in terminal.written
    finally:
        terminal.close()


def test_sigterm_gives_the_terminal_back(ottla: Ottla) -> None:
    terminal = Terminal(ottla)
    try:
        terminal.read_until(b"all in sync")
        assert terminal.now != terminal.before
        terminal.process.terminate()
        terminal.read_until(b"\x1b[?1049l")
        assert terminal.process.wait(HANG_S) == -signal.SIGTERM
        assert terminal.now == terminal.before
    finally:
        terminal.close()
