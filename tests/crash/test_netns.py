"""The machines that tests cut apart: a cut loses packets in silence, one way or both, and can be mended."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from netns import FOLDER, Namespaces, NotPermitted, namespaces

PORT = 9000


@pytest.fixture
def machines() -> Iterator[Namespaces]:
    try:
        with namespaces(["a", "b", "c"]) as made:
            yield made
    except NotPermitted as reason:
        pytest.skip(str(reason))


def listen(machines: Namespaces, name: str) -> socket.socket:
    with machines.inside(name):
        return socket.create_server((machines.hosts[name].address, PORT))


def connect(machines: Namespaces, source: str, target: str, timeout_s: float = 5.0) -> socket.socket:
    with machines.inside(source):
        return socket.create_connection((machines.hosts[target].address, PORT), timeout_s)


def test_a_cut_loses_packets_one_way_and_connections_go_on_after_it(machines: Namespaces) -> None:
    with listen(machines, "a") as server, connect(machines, "b", "a") as client:
        there, _ = server.accept()
        with there:
            there.settimeout(0.5)
            client.settimeout(0.5)
            client.sendall(b"1")
            assert there.recv(9) == b"1"
            machines.cut("b", "a", both=False)
            there.sendall(b"2")
            assert client.recv(9) == b"2"
            client.sendall(b"3")
            with pytest.raises(TimeoutError):
                there.recv(9)
            machines.mend()
            there.settimeout(30)
            assert there.recv(9) == b"3"


def test_a_machine_that_is_cut_off_is_silent_and_one_without_a_process_refuses(machines: Namespaces) -> None:
    with pytest.raises(ConnectionRefusedError):
        connect(machines, "b", "a")
    machines.cut("a", "b")
    for source, target in (("a", "b"), ("b", "a")):
        with pytest.raises(TimeoutError):
            connect(machines, source, target, 0.3)
    with pytest.raises(ConnectionRefusedError):
        connect(machines, "c", "a")


def test_processes_run_on_their_machine_and_this_thread_comes_back(machines: Namespaces) -> None:
    before = os.readlink("/proc/thread-self/ns/net")
    with pytest.raises(ZeroDivisionError), machines.inside("a"):
        assert os.readlink("/proc/thread-self/ns/net") != before
        raise ZeroDivisionError
    assert os.readlink("/proc/thread-self/ns/net") == before
    addresses = subprocess.run(
        machines.hosts["b"].command("ip", "-br", "addr"), check=True, capture_output=True, text=True
    ).stdout
    assert machines.hosts["b"].address in addresses
    assert machines.hosts["a"].address not in addresses


def test_nothing_is_left_behind() -> None:
    def ours() -> list[Path]:
        return list(FOLDER.glob(f"ottla-{os.getpid()}-*"))

    try:
        with pytest.raises(ZeroDivisionError), namespaces(["a"]):
            assert len(ours()) == 2
            raise ZeroDivisionError
    except NotPermitted as reason:
        pytest.skip(str(reason))
    assert ours() == []


def test_what_a_killed_test_left_is_cleared_away() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    left = f"ottla-{ended.pid}-a"
    try:
        with namespaces(["a"]):
            pass
    except NotPermitted as reason:
        pytest.skip(str(reason))
    subprocess.run(["ip", "netns", "add", left], check=True)
    with namespaces(["a"]):
        assert not (FOLDER / left).exists()
