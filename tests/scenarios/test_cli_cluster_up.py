"""`ottla cluster up`, as a person uses it: real processes, and etcd from the PATH."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli_support import Ottla

from interop.process import wait_until
from measuring import HANG_S

pytestmark = pytest.mark.skipif(shutil.which("etcd") is None, reason="there is no etcd")

LISTENING = re.compile(r"^ottla: node (\d+) listening on (127\.0\.0\.1:\d+) \(pid (\d+)\)$")
READY = "ottla: cluster ready"


class Up:
    """One `ottla cluster up`, its output in files."""

    def __init__(self, directory: Path, *arguments: str, environment: dict[str, str] | None = None) -> None:
        self._out = directory.with_suffix(f".out.{time.monotonic_ns()}")
        self._err = self._out.with_suffix(".err")
        command = [sys.executable, "-m", "ottla.cli.main", "cluster", "up", "--data", str(directory)]
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [*command, *arguments], stdout=out, stderr=err, stdin=subprocess.DEVNULL, env=environment
            )

    @property
    def lines(self) -> list[str]:
        return self._out.read_text().splitlines()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def ready(self) -> Up:
        wait_until(lambda: READY in self.lines or self.process.poll() is not None, what="the cluster")
        assert READY in self.lines, (self.lines, self.err)
        return self

    def nodes(self) -> dict[int, tuple[str, int]]:
        """Address and pid of each node, as last said."""
        found = [match for line in self.lines if (match := LISTENING.match(line))]
        return {int(match[1]): (match[2], int(match[3])) for match in found}

    def end(self, signum: int = signal.SIGTERM) -> int:
        self.process.send_signal(signum)
        return self.process.wait(60)


Start = Callable[..., Up]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "c"


@pytest.fixture
def up(directory: Path) -> Iterator[Start]:
    started: list[Up] = []

    def start(*arguments: str, **options: dict[str, str]) -> Up:
        started.append(Up(directory, *arguments, **options))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()
        print("\n".join(one.lines), one.err)
    for log in sorted(directory.glob("logs/*")):
        print(f"--- {log.name}\n{log.read_text()}")


def gone(pid: int) -> bool:
    """Whether a process is no more; one that nobody has waited for counts as gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


def etcd_says(port: int, context: ssl.SSLContext | None) -> bytes:
    """What etcd says at a port; nothing where it lets nobody in who comes so."""
    with socket.create_connection(("127.0.0.1", port), HANG_S) as client:
        try:
            stream = client if context is None else context.wrap_socket(client, server_hostname="127.0.0.1")
            stream.sendall(b"GET /health HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
            said = b""
            while more := stream.recv(4096):
                said += more
            return said
        except (ssl.SSLError, ConnectionError):
            return b""


def command_in_log(directory: Path, node: int) -> list[str]:
    """The command that the node's log says it can be started with, last said."""
    log = (directory / "logs" / f"node-{node}.log").read_text()
    return shlex.split(re.findall(r"with: (.* serve .*)$", log, re.MULTILINE)[-1])


def test_it_says_where_nodes_listen_and_stops_all_of_them(directory: Path, up: Start) -> None:
    cluster = up("--port", "0", "--racks", "a,b").ready()
    nodes = cluster.nodes()
    assert sorted(nodes) == [1, 2, 3]
    assert [bool(LISTENING.match(line)) for line in cluster.lines] == [True, True, True, False]
    assert cluster.lines[-1] == READY
    for node, (address, pid) in nodes.items():
        assert answers(address)
        arguments = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        assert {"serve", f"{directory}/node-{node}", address} <= set(arguments), "the pid is the broker's own"
    document = json.loads((directory / "cluster.json").read_text())
    assert {node["id"]: node["pid"] for node in document["nodes"]} == {
        n: pid for n, (_, pid) in nodes.items()
    }
    etcd = document["etcd"][0]["pid"]
    assert not gone(etcd)
    assert cluster.end() == 0
    assert cluster.err == ""
    assert all(gone(pid) for pid in (etcd, *(pid for _, pid in nodes.values())))
    for node in nodes:
        assert (directory / f"node-{node}" / ".kafka_cleanshutdown").exists()
        assert "stopped" in (directory / "logs" / f"node-{node}.log").read_text()
    assert up().ready().nodes().keys() == nodes.keys()


def test_a_secured_cluster_lets_in_who_has_its_properties(directory: Path, up: Start) -> None:
    first = up("--nodes", "2", "--port", "0", "--secure").ready()
    bootstrap = ",".join(address for address, _ in first.nodes().values())
    files = directory / "secure"
    assert {path.stat().st_mode & 0o077 for path in files.iterdir()} == {0}
    ottla = Ottla(bootstrap)
    assert ottla.try_("topic", "list").code != 0
    assert f"ottla: clients come in by {files / 'admin.properties'}" in first.lines
    ottla.environment["OTTLA_CLIENT_PROPERTIES"] = str(files / "admin.properties")
    ottla("topic", "create", "t", "--replication-factor", "2")
    alice = f"@{files / 'alice.properties'}"
    assert ottla.try_("produce", "t", "-X", alice, stdin=b"refused\n").code != 0
    ottla("acl", "add", "alice", "--operation", "all", "--topic", "t")
    ottla("produce", "t", "-X", alice, stdin=b"taken\n")
    # Who is on this machine, and has no file of this user, does not get into etcd.
    document = json.loads((directory / "cluster.json").read_text())
    stranger = ssl.create_default_context(cafile=str(files / "ca.pem"))
    for kind in ("client_port", "peer_port"):
        assert etcd_says(document["etcd"][0][kind], None) == b""
        assert etcd_says(document["etcd"][0][kind], stranger) == b""
    stranger.load_cert_chain(files / "node.pem")
    assert b'"health":"true"' in etcd_says(document["etcd"][0]["client_port"], stranger)
    token = json.loads(ottla("token", "create", "--json").out)
    assert (token["owner"], bool(token["hmac"])) == ("User:admin", True)
    password = (files / "admin.properties").read_text().split("sasl.password=")[1].split()[0]
    assert not any(password in path.read_text() for path in (directory / "logs").iterdir())
    assert first.end() == 0


def test_the_ports_are_the_same_the_next_time(up: Start) -> None:
    first = up("--port", "0", "--nodes", "2").ready()
    addresses = {node: address for node, (address, _) in first.nodes().items()}
    assert first.end(signal.SIGINT) == 0
    second = up("--port", "0").ready()
    assert {node: address for node, (address, _) in second.nodes().items()} == addresses
    assert second.end() == 0


def test_a_dead_node_stays_dead_until_the_cluster_is_asked_for_again(directory: Path, up: Start) -> None:
    first = up("--port", "0").ready()
    before = first.nodes()
    os.kill(before[2][1], signal.SIGKILL)
    wait_until(lambda: "node 2 died (SIGKILL)" in first.err)
    (line,) = first.err.splitlines()
    assert line.endswith(shlex.join(command_in_log(directory, 2)))
    time.sleep(0.5)
    assert not answers(before[2][0])
    second = up().ready()
    after = second.nodes()
    assert second.process.wait(60) == 0
    assert after.keys() == before.keys()
    assert after[1] == before[1] and after[3] == before[3]
    assert after[2][0] == before[2][0] and after[2][1] != before[2][1]
    assert first.nodes() == after, "who started the cluster hears of it too"
    assert first.end() == 0
    assert all(gone(pid) for _, pid in after.values())


def test_a_node_can_be_started_by_hand_with_the_command_in_its_log(directory: Path, up: Start) -> None:
    first = up("--port", "0").ready()
    address, pid = first.nodes()[3]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: "node 3 died" in first.err)
    by_hand = subprocess.Popen(
        command_in_log(directory, 3), cwd="/", stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert by_hand.stdout is not None
        assert by_hand.stdout.readline() == f"ottla: listening on {address}\n".encode()
        second = up().ready()
        assert second.nodes()[3] == (address, by_hand.pid), "it runs, so nothing is to be done"
        assert first.end() == 0
        assert "node 3 was started by hand and goes on" in first.err
        assert by_hand.poll() is None
        third = up().ready()
        assert third.nodes()[3] == (address, by_hand.pid)
        # It is found, and stops with the others.
        Ottla(address)("cluster", "down", "--data", str(directory))
        assert third.process.wait(60) == 0
        assert by_hand.wait(60) == 0
    finally:
        by_hand.kill()
        by_hand.wait()


def test_another_node_is_added_while_the_cluster_runs(up: Start) -> None:
    first = up("--port", "0", "--nodes", "1").ready()
    second = up("--nodes", "2").ready()
    assert second.process.wait(60) == 0
    assert sorted(second.nodes()) == [1, 2]
    assert second.nodes()[1] == first.nodes()[1]
    refused = up("--nodes", "1")
    assert refused.process.wait(60) == 2
    assert "node 2 runs, and cannot be left out" in refused.err
    assert answers(first.nodes()[2][0])
    assert first.end() == 0


def test_a_cluster_runs_in_the_background_until_it_is_stopped(directory: Path, up: Start) -> None:
    first = up("--port", "0", "--nodes", "1", "--detach")
    assert first.process.wait(60) == 0, first.err
    assert (READY in first.lines, first.err) == (True, "")
    ((address, pid),) = first.nodes().values()
    ottla = Ottla(address)
    try:
        assert answers(address)
        again = up("--detach")
        assert again.process.wait(60) == 0
        assert again.nodes() == first.nodes()
    finally:
        assert ottla("cluster", "down", "--data", str(directory)).out == "ottla: cluster stopped\n"
    assert gone(pid)
    failed = up("--detach", "--etcd-members", "3")
    assert failed.process.wait(60) == 2
    assert "which cannot change" in failed.err and failed.err.count("\n") == 1


def test_nothing_is_left_behind_when_it_is_killed(directory: Path, up: Start) -> None:
    first = up("--port", "0", "--nodes", "2", "--etcd-members", "3").ready()
    document = json.loads((directory / "cluster.json").read_text())
    pids = [process["pid"] for process in (*document["etcd"], *document["nodes"])]
    assert len(pids) == 5
    first.end(signal.SIGKILL)
    wait_until(lambda: all(gone(pid) for pid in pids))
    assert up().ready().end() == 0


def test_a_node_that_cannot_start_ends_the_first_command(directory: Path, up: Start) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        failed = up("--port", str(port), "--nodes", "1")
        assert failed.process.wait(60) == 1
    (line,) = failed.err.splitlines()
    assert (
        f"node 1 does not start: cannot listen on 127.0.0.1:{port}: address already in use; --port N" in line
    )
    assert READY not in failed.lines
    document = json.loads((directory / "cluster.json").read_text())
    assert document["etcd"][0]["pid"] is None


def test_a_paused_node_is_stopped_all_the_same(up: Start) -> None:
    first = up("--port", "0", "--nodes", "2").ready()
    os.kill(first.nodes()[2][1], signal.SIGSTOP)
    assert first.end() == 0


def test_signal_after_signal_ends_it_in_order(up: Start) -> None:
    first = up("--port", "0", "--nodes", "1").ready()
    while first.process.poll() is None:
        first.process.terminate()
        time.sleep(0.0005)
    assert first.process.wait() == 0
    assert all(gone(pid) for _, pid in first.nodes().values())


DEAF = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ottla: listening on 127.0.0.1:1", flush=True)
time.sleep(60)
"""


def test_a_second_signal_kills_what_does_not_stop(directory: Path, tmp_path: Path) -> None:
    deaf = tmp_path / "deaf.py"
    deaf.write_text(DEAF)
    program = (
        "import sys; from pathlib import Path; from ottla.cli.local.layout import Request\n"
        "from ottla.cli.local.up import up\n"
        f"sys.exit(up(Path({str(directory)!r}), Request(nodes=2), [sys.executable, {str(deaf)!r}]))"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pids = [int(LISTENING.match(process.stdout.readline().strip())[3]) for _ in range(2)]  # type: ignore[index]
    assert process.stdout.readline().strip() == READY
    process.terminate()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)
    assert not any(gone(pid) for pid in pids)
    process.terminate()
    assert process.wait(60) == 0
    assert all(gone(pid) for pid in pids)


def test_without_etcd_it_says_what_to_install(directory: Path, up: Start, tmp_path: Path) -> None:
    failed = up(environment={**os.environ, "PATH": str(tmp_path)})
    assert failed.process.wait(60) == 1
    (line,) = failed.err.splitlines()
    assert "etcd" in line and "not on the PATH" in line and "etcd-server" in line
    assert not list(directory.glob("node-*"))


def test_a_file_in_place_of_the_folder_is_one_line(directory: Path, up: Start) -> None:
    directory.write_text("")
    failed = up()
    assert failed.process.wait(60) == 2
    assert failed.err.splitlines() == [f"ottla: --data {directory}: it is not a directory"]


def test_other_peoples_etcd_settings_do_not_matter(up: Start) -> None:
    environment = {**os.environ, "ETCD_NAME": "x", "ETCD_LISTEN_CLIENT_URLS": "http://127.0.0.1:1"}
    assert up("--port", "0", "--nodes", "1", environment=environment).ready().end() == 0
