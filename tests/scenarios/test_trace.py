"""`ottla trace` as a user runs it: while clients work, two at once, readers that stop, nodes that stop."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from interop.process import BrokerProcess, wait_until
from interop.raw import RawClient, batch, produce_fields
from measuring import HANG_S
from ottla.cli.app import run
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.trace_streams import open_streams
from ottla.env.unix import Doorbell, call, short_path
from ottla.observe import trace
from ottla.observe.local import SOCKET_FILE
from ottla.testing import Broker

Start = Callable[..., BrokerProcess]


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker(topics={"t": 1}, socket=True) as running:
        yield running


class Reader:
    """What reads a trace, without the command."""

    def __init__(self, data: Path, query: str = "") -> None:
        self.socket = call(str(data), SOCKET_FILE, HANG_S)
        self.socket.sendall(f"GET /trace?{query} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        self.text = b""
        while b'"seconds"' not in self.text:
            self.more()

    def more(self) -> bytes:
        piece = self.socket.recv(1 << 20)
        self.text += piece
        return piece

    def lines(self) -> list[dict[str, Any]]:
        return [
            json.loads(line)
            for line in self.text.splitlines()
            if line.startswith(b"{") and line.endswith(b"}")
        ]

    def close(self) -> None:
        self.socket.close()


def listeners(broker: Broker) -> int:
    watched = broker._node._observation._watched
    return 0 if watched is None else len(watched.watcher.listeners)


@contextmanager
def asking(address: str, pause_s: float = 0.005) -> Iterator[None]:
    """A client that asks for something all the time."""
    over = threading.Event()

    def ask() -> None:
        with RawClient(address) as client:
            while not over.wait(pause_s):
                client.call("Produce", 9, **produce_fields("t", batch(b"v"), acks=1))
                client.call("Metadata", 1, topics=[])

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def traced(capsys: pytest.CaptureFixture[str], *words: str, seen: set[int] | None = None) -> list[str]:
    """What the command prints in a second in which there is something, of those nodes."""
    for _ in range(10):
        assert run(["trace", "--seconds", "1", *words]) == ExitCode.OK
        lines = capsys.readouterr().out.splitlines()
        if lines and (seen is None or {json.loads(line)["node"] for line in lines} == seen):
            return lines
    raise AssertionError(words)


def test_the_command_shows_what_clients_ask_for(broker: Broker, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(broker.data)
    with asking(broker.bootstrap_servers):
        head, first, body, *_ = traced(capsys, "--data", data, "--api", "produce", "--bodies")
        assert head.split()[:3] == ["TIME", "NODE", "CLIENT"]
        assert " raw " in first and " 127.0.0.1 " in first and " Produce v9 " in first
        assert json.loads(body)["topic_data"][0]["name"] == "t"
        printed = traced(capsys, "--data", data, "--client", "ra*", "--node", "1", "--json")
        lines = [json.loads(line) for line in printed]
        assert {one["api"] for one in lines} <= {"Produce", "Metadata"}
        assert {one["client_id"] for one in lines} == {"raw"}
    assert listeners(broker) == 0


def test_what_is_wrong_is_said_in_one_line(broker: Broker, tmp_path: Path) -> None:
    def fails(*words: str) -> CliError:
        with pytest.raises(CliError) as caught:
            run(["trace", *words])
        return caught.value

    data = str(broker.data)
    assert fails("--data", str(tmp_path / "no")).code is ExitCode.NOT_FOUND
    nobody = fails("--data", str(tmp_path))
    assert nobody.code is ExitCode.UNREACHABLE and "ottla serve --data" in str(nobody)
    assert fails("--data", data, "--node", "7").code is ExitCode.NOT_FOUND
    assert fails("--data", data, "--api", "Nope").code is ExitCode.USAGE
    assert fails("--data", data, "--seconds", "601").code is ExitCode.USAGE
    with socket.socket(socket.AF_UNIX) as left, short_path(tmp_path, SOCKET_FILE) as path:
        left.bind(path)
    assert fails("--data", str(tmp_path)).code is ExitCode.UNREACHABLE


def test_several_at_once_and_one_that_goes_away(broker: Broker) -> None:
    produces = Reader(broker.data, "api=Produce")
    everything = Reader(broker.data, "bodies=1")
    gone = Reader(broker.data)
    assert listeners(broker) == 3
    gone.close()
    wait_until(lambda: listeners(broker) == 2)
    with asking(broker.bootstrap_servers):
        while len(produces.lines()) < 5:
            produces.more()
        while len(everything.lines()) < 5:
            everything.more()
    assert {one["api"] for one in produces.lines()[1:]} == {"Produce"}
    assert all("body" in one for one in everything.lines()[1:])
    produces.close()
    everything.close()
    wait_until(lambda: listeners(broker) == 0)
    assert broker._node._gate._watcher is None


def test_a_reader_that_stops_reading_holds_nobody_up(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "LINES_PER_SECOND_MAX", 1_000_000)
    monkeypatch.setattr(trace, "UNREAD_BYTES_MAX", 20_000)
    reader = Reader(broker.data)
    (running,) = broker._node._observation._watched.watcher.listeners
    with RawClient(broker.bootstrap_servers) as client:
        frames = client.frame("Metadata", 1, {"topics": []}) * 200
        ends_s = time.monotonic() + HANG_S
        while not running.__self__._missed:
            client.send(frames)
            for _ in range(200):
                client.receive()
            assert time.monotonic() < ends_s
    assert running.__self__._unread_bytes < 21_000
    # It goes on reading, and hears of it.
    while b'"unread"' not in reader.text:
        assert reader.more()
    missing = next(one for one in reader.lines() if "missed" in one)
    assert missing["unread"] > 0 and missing["over_rate"] == 0
    reader.close()


def test_the_socket_answers_all_else_that_a_node_tells(broker: Broker) -> None:
    # Nothing of it is loaded before somebody comes.
    assert broker._node._observation.observer is None
    for path, expected in (("/healthz", b"ok"), ("/readyz", b"ready"), ("/metrics", b"ottla_build_info")):
        with call(str(broker.data), SOCKET_FILE, HANG_S) as made:
            made.sendall(f"GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
            answer = b"".join(iter(lambda made=made: made.recv(1 << 16), b""))
            assert answer.startswith(b"HTTP/1.1 200 OK") and expected in answer


def test_brokers_of_tests_have_none_unless_they_are_asked_to() -> None:
    with Broker() as running:
        assert not (running.data / SOCKET_FILE).exists()


# ------------------------------------------------------------ processes


@contextmanager
def command(data: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """The command as a process, once it traces."""
    started = subprocess.Popen(
        [sys.executable, "-m", "ottla.cli.main", "trace", "--data", str(data), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


def test_a_process_its_socket_and_its_ends(ottla_process: Start, tmp_path: Path) -> None:
    # A path that no socket could have.
    data = tmp_path / ("d" * 120) / "data"
    data.mkdir(parents=True)
    broker = ottla_process(data=data)
    there = data / SOCKET_FILE
    assert stat.S_IMODE(there.lstat().st_mode) == 0o600
    # Killed: the next one takes its place.
    broker.kill()
    assert there.is_socket()
    broker.start()
    with RawClient(broker.bootstrap) as client:
        client.create_topic("t")
    with asking(broker.bootstrap), command(data, "--seconds", "600", "--json") as tracing:
        assert tracing.stdout is not None and json.loads(tracing.stdout.readline())["node"] == 1
        tracing.send_signal(signal.SIGINT)
        _, said = tracing.communicate(timeout=HANG_S)
        assert (tracing.returncode, said) == (ExitCode.INTERRUPTED, "")
    reader = Reader(data)
    with command(data, "--seconds", "600", "--json") as tracing, RawClient(broker.bootstrap) as client:
        client.call("Metadata", 1, topics=[])
        wait_until(lambda: client.call("Metadata", 1, topics=[]) and _has_line(tracing))
        assert broker.stop() == 0
        _, said = tracing.communicate(timeout=HANG_S)
        assert tracing.returncode == ExitCode.FAILED
        assert said == f"ottla: the node in {data} has ended: it was stopped, or it died\n"
    while reader.more():
        pass
    reader.close()
    assert not there.exists()


def _has_line(tracing: subprocess.Popen[str]) -> bool:
    assert tracing.stdout is not None
    os.set_blocking(tracing.stdout.fileno(), False)
    try:
        return bool(os.read(tracing.stdout.fileno(), 1 << 16))
    except BlockingIOError:
        return False
    finally:
        os.set_blocking(tracing.stdout.fileno(), True)


def test_what_is_not_a_socket_is_left_and_the_node_starts(ottla_process: Start, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / SOCKET_FILE).write_text("mine")
    broker = ottla_process(data=data)
    assert broker.lines_with("'ottla trace' cannot reach this broker")
    assert broker.stop() == 0
    assert (data / SOCKET_FILE).read_text() == "mine"


def test_each_of_several_processes_has_its_own(
    ottla_process: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    broker = ottla_process(arguments=("--processes", "2"))
    found = {}
    for node in (1, 2):
        folder = broker.data if node == 1 else broker.data / "nodes" / str(node)
        assert (folder / SOCKET_FILE).is_socket()
        reader = Reader(folder)
        found[node] = reader.lines()[0]["node"]
        reader.close()
    assert found == {1: 1, 2: 2}
    with RawClient(broker.bootstrap) as client:
        addresses = [f"{one.host}:{one.port}" for one in client.call("Metadata", 1, topics=[]).brokers]
    for nodes, expected in ((("--node", "2"), {2}), ((), {1, 2})):
        over = threading.Event()
        asked = [threading.Thread(target=_ask, args=(address, over)) for address in addresses]
        for thread in asked:
            thread.start()
        try:
            traced(capsys, "--data", str(broker.data), "--json", "--client", "raw", *nodes, seen=expected)
        finally:
            over.set()
            for thread in asked:
                thread.join()


def _ask(address: str, over: threading.Event) -> None:
    with RawClient(address) as client:
        while not over.wait(0.01):
            client.call("Metadata", 1, topics=[])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_another_user_is_told_whose_it_is(mode: int) -> None:
    # Where everybody can come to it, unlike pytest's own.
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, mode)
        bell = Doorbell(folder, SOCKET_FILE)
        os.seteuid(65534)
        try:
            with pytest.raises(CliError, match="belongs to another user: run this as the one who runs it"):
                open_streams(folder, (), "")
        finally:
            os.seteuid(0)
            bell.close()
