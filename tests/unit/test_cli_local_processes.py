"""Which processes are those of a local cluster, and that no other one gets a signal."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ottla.cli.app import run
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.local import control, operate, processes, status, up
from ottla.cli.local.layout import Layout, LocalNode, Member, Request
from ottla.env.unix import short_path

NODE = LocalNode(id=1, port=1)
LAYOUT = Layout(
    members=(Member(name="etcd", client_port=2, peer_port=3),), nodes=(NODE, LocalNode(id=2, port=4))
)
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
WAITS = "import sys; print('up', flush=True); sys.stdin.read()"

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a process with these words in its command line, which waits; ``name`` is what it is called."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(*words: str, deaf: bool = False, name: str = "python") -> subprocess.Popen[bytes]:
        command = [name, "-c", DEAF * deaf + WAITS, *words]
        process = subprocess.Popen(
            command, executable=sys.executable, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()


def test_processes_are_found_by_their_folder(start: Start, tmp_path: Path) -> None:
    ours = start("ottla", "serve", "--data", f"{tmp_path}/node-1")
    start("ottla", "serve", "--data", f"{tmp_path}/node-11")
    start("ottla", "serve", "--data", f"{tmp_path}x/node-1")
    start("tail", f"{tmp_path}/node-1")
    # Other programs that have the folder under an option of this name.
    start("vim", "serve", "--data", f"{tmp_path}/node-1")
    start("--data", f"{tmp_path}/node-1", "ottla", "serve")
    start("agent", "--data-dir", f"{tmp_path}/etcd", name="consul")
    store = start(f"--data-dir={tmp_path}/etcd", name="/usr/bin/etcd")
    wanted = [
        processes.of_node(tmp_path, NODE),
        processes.of_node(tmp_path, LAYOUT.nodes[1]),
        processes.of_member(tmp_path, LAYOUT.members[0]),
    ]
    assert processes.find(wanted, ()) == [ours.pid, None, store.pid]


@pytest.mark.parametrize("has_descriptors", [True, False])
def test_a_process_that_is_another_gets_no_signal(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_descriptors: bool
) -> None:
    if not has_descriptors:
        monkeypatch.delattr("os.pidfd_open", raising=False)
    matches = processes.of_node(tmp_path, NODE)
    other = start("ottla", "serve", "--data", f"{tmp_path}/node-2")
    assert not processes.send(other.pid, matches, 9)
    assert other.poll() is None
    ours = start("ottla", "serve", "--data", f"{tmp_path}/node-1")
    assert processes.send(ours.pid, matches, 9)
    assert ours.wait(60) == -9
    assert not processes.send(ours.pid, matches, 9), "it has gone"


@pytest.mark.parametrize(("deaf", "clean"), [(False, True), (True, True), (False, False)])
def test_a_process_is_ended(start: Start, tmp_path: Path, deaf: bool, clean: bool) -> None:
    well = clean and not deaf
    matches = processes.of_node(tmp_path, NODE)
    ours = start("ottla", "serve", f"--data={tmp_path}/node-1", deaf=deaf)
    assert processes.end(ours.pid, matches, clean=clean, timeout_s=0.05 if deaf else 30) is well
    assert ours.wait(60) == (-15 if well else -9)


def test_without_a_list_of_processes_those_of_the_file_are_looked_at(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "PROC", tmp_path / "none")
    ours = start("ottla", "serve", "--data", f"{tmp_path}/node-1")
    matches = processes.of_node(tmp_path, NODE)
    shown = subprocess.CompletedProcess([], 0, f"python -m ottla.cli.main serve --data {tmp_path}/node-1\n")
    monkeypatch.setattr(subprocess, "run", lambda *words, **options: shown)
    assert processes.find([matches], [ours.pid]) == [ours.pid]
    assert processes.find([matches], []) == [None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A cluster that does not run: node 1 had a clean shutdown, node 2 has never run."""
    (tmp_path / "cluster.json").write_text(json.dumps(LAYOUT.to_json(str(tmp_path))))
    (tmp_path / "node-1").mkdir()
    (tmp_path / "node-1" / ".kafka_cleanshutdown").touch()
    return tmp_path


def test_the_states_of_nodes_that_do_not_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def states() -> list[str]:
        return [node["state"] for node in status.status(folder)["nodes"]]

    assert states() == ["stopped", "new"]
    (folder / "node-1" / ".kafka_cleanshutdown").unlink()
    assert states() == ["dead", "new"]
    report = status.status(folder)
    assert (report["running"], report["cluster_id"], report["offline_partitions"]) == (False, None, None)
    status.show(report)
    head, columns, first, *_ = capsys.readouterr().out.splitlines()
    assert head == f"cluster in {folder}: 0 of 2 nodes running"
    assert columns.split()[:4] == ["NODE", "PID", "ADDRESS", "STATE"]
    assert first.split()[:4] == ["1", "-", "127.0.0.1:1", "dead"]


def test_a_node_whose_cluster_does_not_answer_is_fenced(
    folder: Path, start: Start, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    start("ottla", "serve", "--data", f"{folder}/node-1")

    def refused(*words: Any) -> Any:
        raise CliError("nobody there", ExitCode.UNREACHABLE)

    monkeypatch.setattr(status, "connect", refused)
    report = status.status(folder)
    assert report["nodes"][0]["state"] == "fenced"
    assert report["etcd"][0]["state"] == "dead", "its nodes run without it"
    status.show(report)
    assert "no node says how the partitions are: nobody there" in capsys.readouterr().err


def test_what_was_left_behind_is_ended(
    folder: Path, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    node = start("ottla", "serve", "--data", f"{folder}/node-2")
    other = start("ottla", "serve", "--data", f"{folder}x/node-1")
    assert operate.kill(folder, [1, 2], clean=False) == 0
    assert capsys.readouterr().out == f"ottla: node 1 does not run\nottla: node 2 killed (pid {node.pid})\n"
    etcd = start("--data-dir", f"{folder}/etcd", name="etcd")
    assert operate.down(folder) == 0
    assert etcd.wait(60) == -15
    assert other.poll() is None
    assert operate.down(folder) == 0
    assert capsys.readouterr().out == "ottla: cluster stopped\nottla: the cluster does not run\n"
    with pytest.raises(CliError, match=f"'ottla cluster up --data {folder}' starts it"):
        operate.start(folder, [])


@pytest.mark.parametrize("words", [("status",), ("kill", "1"), ("start",), ("down",)])
def test_a_folder_without_a_cluster(words: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(CliError, match="there is no cluster") as caught:
        run(["cluster", *words, "--data", str(tmp_path)])
    assert caught.value.code is ExitCode.NOT_FOUND


@pytest.mark.parametrize(
    "request_",
    [
        Request(),
        Request(nodes=2, port=0, racks=["a", "b"], settings={"x.y": "1=2"}, etcd_members=3, secure=True),
    ],
)
def test_a_request_is_the_same_as_words(
    request_: Request, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[Path, Request]] = []
    monkeypatch.setattr(up, "up", lambda *given: asked.append(given))
    run(["cluster", "up", "--data", str(tmp_path), *request_.to_words()])
    assert asked == [(tmp_path, request_)]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"\n", "is no cluster"),
        (b"[1]\n", "is no cluster"),
        (b"[" * 100_000 + b"\n", "is no cluster"),
        (b'{"line": 5}\n', "was stopped meanwhile"),
        (b'{"error": ["x"]}\n', "x"),
    ],
)
def test_a_socket_of_something_else_is_one_line(folder: Path, answer: bytes, error: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        with short_path(folder, control.SOCKET_FILE) as path:
            listener.bind(path)
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(CliError, match=error):
            operate.down(folder)
        thread.join()
