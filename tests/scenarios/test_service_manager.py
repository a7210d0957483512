"""`ottla serve` under a service manager (Type=notify): what real processes tell its socket."""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from interop.process import BrokerProcess
from interop.raw import RawClient
from measuring import HANG_S

BEAT_USEC = 40_000
CREDENTIALS = struct.Struct("iII")


class Manager:
    """The socket of a manager; an abstract one where ``address`` begins with @."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.socket.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)

    @property
    def environment(self) -> dict[str, str]:
        return {"NOTIFY_SOCKET": self.address, "WATCHDOG_USEC": str(BEAT_USEC)}

    def heard(self, wait_s: float = HANG_S) -> tuple[int, str]:
        """The next message, and the process that it came from."""
        assert select.select([self.socket], [], [], wait_s)[0], "the manager was told nothing"
        message, ancillary, _, _ = self.socket.recvmsg(4096, socket.CMSG_SPACE(CREDENTIALS.size))
        return CREDENTIALS.unpack(ancillary[0][2])[0], message.decode()

    def until(self, first_line: str) -> list[tuple[int, str]]:
        """All messages up to the one that begins with a line."""
        found = []
        while True:
            found.append(self.heard())
            if found[-1][1].split("\n")[0] == first_line:
                return found

    def silent(self, wait_s: float) -> bool:
        return not select.select([self.socket], [], [], wait_s)[0]


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    made = Manager(str(tmp_path / "notify") if request.param == "path" else f"@ottla-test-{os.getpid()}")
    yield made
    made.socket.close()


def serves(broker: BrokerProcess) -> bool:
    with RawClient(broker.bootstrap):
        return True


@pytest.mark.parametrize("arguments", [(), ("--processes", "2")], ids=["one", "two"])
def test_the_manager_is_told_of_the_whole_life(
    manager: Manager, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    broker = BrokerProcess(tmp_path / "node", arguments=arguments)
    broker.environment, broker.port = manager.environment, port
    broker.spawn()
    try:
        starting = manager.until("READY=1")
        # Now, not after the line on stdout: a unit that comes after this one connects at once.
        assert serves(broker)
        assert starting[0][1].startswith("STATUS=starting")
        assert starting[-1][1] == f"READY=1\nSTATUS=listening on 127.0.0.1:{port}"
        assert [text for _, text in starting].count("WATCHDOG=1") == 0
        alive = [manager.heard() for _ in range(5)]
        assert {text for _, text in alive} == {"WATCHDOG=1"}
        # NotifyAccess=main, which Type=notify means, hears no other process.
        assert {pid for pid, _ in starting + alive} == {broker.pid}
        os.kill(broker.pid, signal.SIGTERM)
        assert "clean shutdown" in manager.until("STOPPING=1")[-1][1]
        assert broker.process is not None and broker.process.wait(HANG_S) == 0
    finally:
        broker.kill()


def test_the_manager_hears_nothing_of_a_loop_that_stands_still(tmp_path: Path) -> None:
    manager = Manager(str(tmp_path / "notify"))
    broker = BrokerProcess(tmp_path / "node")
    broker.environment = manager.environment
    with manager.socket:
        broker.start()
        try:
            manager.until("WATCHDOG=1")
            os.kill(broker.pid, signal.SIGSTOP)
            while not manager.silent(0):
                manager.heard()
            assert manager.silent(5 * BEAT_USEC / 1e6)
            os.kill(broker.pid, signal.SIGCONT)
            assert manager.until("WATCHDOG=1")
        finally:
            broker.kill()


def test_a_manager_that_has_gone_does_not_keep_a_node_from_serving(tmp_path: Path) -> None:
    manager = Manager(str(tmp_path / "notify"))
    broker = BrokerProcess(tmp_path / "node")
    broker.environment = {**manager.environment, "WATCHDOG_PID": "1"}
    manager.socket.close()
    broker.start()
    try:
        assert serves(broker)
        assert "the service manager could not be notified of READY=1" in broker.log()
        # The watchdog is another process's.
        assert "WATCHDOG=1" not in broker.log()
    finally:
        broker.kill()
