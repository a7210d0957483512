"""Real etcd for tests: one member or three, on free ports, to be killed, paused, wiped and started again.

``shared`` is one member for all tests of this process that keep to a namespace of their own (``url`` makes
one). A test that breaks something starts an ``EtcdCluster`` for itself. Data is kept in memory (/dev/shm)
where there is such a folder: durability of etcd is not what is tested here, and a sync costs milliseconds.
"""

from __future__ import annotations

import asyncio
import atexit
import http.client
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

START_TIMEOUT_S = 90.0
ATTEMPTS_MAX = 5
# A lease cannot be shorter than one and a half election timeouts; etcd's own default is 1,000.
HEARTBEAT_MS = 50
ELECTION_MS = 500

_namespaces = itertools.count(1)


def _start_spawner() -> ThreadPoolExecutor:
    """The thread that starts processes. They die with it (``setpriv --pdeathsig``), so it is one that lives
    as long as this process. It starts at once: later, the thread that asks may be in another network's
    namespace, where this one and all members that it starts would stay."""
    spawner = ThreadPoolExecutor(1)
    spawner.submit(os.getpid).result()
    return spawner


_SPAWNER = _start_spawner()


@dataclass(frozen=True)
class Tls:
    """Files that members serve with (``ca``, ``cert``, ``key``); they ask clients for certificates of
    ``ca`` where ``client_auth`` is set."""

    ca: Path
    cert: Path
    key: Path
    client_auth: bool = False


class Machine(Protocol):
    """Where a member may run, if not here: ``command`` makes a command line run there."""

    @property
    def address(self) -> str: ...

    def command(self, *words: str) -> list[str]: ...


class Member:
    """One etcd process. It keeps its ports and its data from start to start."""

    def __init__(
        self, name: str, path: Path, ports: Sequence[int], tls: Tls | None, machine: Machine | None = None
    ) -> None:
        self.name = name
        self.path = path
        self.client_port, self.peer_port, self.metrics_port = ports
        self.tls = tls
        self._machine = machine
        self.address = "127.0.0.1" if machine is None else machine.address
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"{self.address}:{self.client_port}"

    @property
    def peer_url(self) -> str:
        return f"http://{self.address}:{self.peer_port}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def spawn(self, initial_cluster: str, extra: Sequence[str]) -> None:
        """Start the process, and do not wait for it."""
        assert self.process is None
        scheme = "http" if self.tls is None else "https"
        client = f"{scheme}://{self.endpoint}"
        command = ["setpriv", "--pdeathsig", "KILL"] if self._machine is None else self._machine.command()
        command += ["etcd", "--name", self.name]
        command += ["--data-dir", str(self.path / "data"), "--logger", "zap", "--log-level", "warn"]
        command += ["--listen-client-urls", client, "--advertise-client-urls", client]
        command += ["--listen-peer-urls", self.peer_url, "--initial-advertise-peer-urls", self.peer_url]
        command += ["--listen-metrics-urls", f"http://{self.address}:{self.metrics_port}"]
        command += ["--initial-cluster", initial_cluster, "--initial-cluster-token", str(self.path.parent)]
        command += ["--heartbeat-interval", str(HEARTBEAT_MS), "--election-timeout", str(ELECTION_MS)]
        if self.tls is not None:
            command += ["--cert-file", str(self.tls.cert), "--key-file", str(self.tls.key)]
            if self.tls.client_auth:
                # The file alone has it ask clients for certificates, too.
                command += ["--client-cert-auth", "--trusted-ca-file", str(self.tls.ca)]
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "log").open("ab") as log:
            spawned = _SPAWNER.submit(
                subprocess.Popen,
                [*command, *extra],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            self.process = spawned.result()

    def log(self) -> str:
        return (self.path / "log").read_text(errors="replace")

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def healthy(self) -> bool:
        """Whether it serves and knows a leader (a linearizable read went through)."""
        return b'"true"' in self._page("/health")

    def leads(self) -> bool:
        return b"\netcd_server_is_leader 1" in self._page("/metrics")

    def _page(self, path: str) -> bytes:
        connection = http.client.HTTPConnection(self.address, self.metrics_port, timeout=3)
        try:
            connection.request("GET", path)
            return connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            return b""
        finally:
            connection.close()

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone. Its data stays."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


class EtcdCluster:
    """``members`` etcd processes under ``path``, or a temporary folder; members go by index, from 0."""

    def __init__(
        self,
        members: int = 1,
        path: Path | None = None,
        *,
        tls: Tls | None = None,
        extra: Sequence[str] = (),
        machines: Sequence[Machine] = (),
    ) -> None:
        """``machines``: where the members run, one each, if not here."""
        self._temporary = path is None
        self.path = path or Path(tempfile.mkdtemp(prefix="ottla-etcd-", dir=_memory()))
        self.tls = tls
        self._extra = tuple(extra)
        self._machines = tuple(machines)
        self._size = members
        self.members: list[Member] = []

    @property
    def endpoints(self) -> str:
        """As in a store's URL: ``host:port,host:port``."""
        return ",".join(member.endpoint for member in self.members)

    def start(self) -> EtcdCluster:
        """Start all members, new or again, and wait until they are healthy."""
        if self.members:
            for member in self.members:
                if member.process is None:
                    self._spawn(member)
            self.wait_healthy()
            return self
        for attempt in range(ATTEMPTS_MAX):
            ports = iter(_free_ports(3 * self._size))
            self.members = [
                Member(
                    f"m{index}",
                    self.path / f"{attempt}-m{index}",
                    [next(ports) for _ in range(3)],
                    self.tls,
                    self._machines[index] if self._machines else None,
                )
                for index in range(self._size)
            ]
            for member in self.members:
                self._spawn(member)
            try:
                self.wait_healthy()
                return self
            except AssertionError:
                for member in self.members:
                    member.kill()
                if not any("address already in use" in member.log() for member in self.members):
                    raise
        raise AssertionError("no free ports for etcd")

    def stop(self) -> None:
        """Kill all members, and remove the data if it was put into a temporary folder."""
        for member in self.members:
            member.kill()
        if self._temporary:
            shutil.rmtree(self.path, ignore_errors=True)

    def __enter__(self) -> EtcdCluster:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # One member

    def kill(self, index: int) -> None:
        """SIGKILL. The member keeps its data and can be started again."""
        self.members[index].kill()

    def start_member(self, index: int, *, wait: bool = True) -> None:
        """Start a member that was killed, and wait until it is healthy."""
        self._spawn(self.members[index])
        if wait:
            self.wait_healthy([index])

    def pause(self, index: int) -> None:
        """SIGSTOP: connections stay, nothing is answered."""
        self.members[index].signal(signal.SIGSTOP)

    def resume(self, index: int) -> None:
        self.members[index].signal(signal.SIGCONT)

    # All

    def kill_all(self) -> None:
        for member in self.members:
            member.kill()

    def wipe(self) -> None:
        """Kill all members and lose what they stored."""
        self.kill_all()
        for member in self.members:
            shutil.rmtree(member.path / "data")

    def leader(self, timeout_s: float = START_TIMEOUT_S) -> int:
        """The index of the member that leads, waiting until there is one."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            for index, member in enumerate(self.members):
                if member.alive() and member.leads():
                    return index
            time.sleep(0.01)
        raise AssertionError(f"no etcd member led within {timeout_s} s")

    def wait_healthy(self, indexes: Sequence[int] | None = None) -> None:
        """Wait until these members (all) serve."""
        deadline = time.monotonic() + START_TIMEOUT_S
        for member in self.members if indexes is None else [self.members[index] for index in indexes]:
            while not member.healthy():
                dead = [other for other in self.members if other.process is not None and not other.alive()]
                if dead or time.monotonic() > deadline:
                    raise AssertionError(f"etcd {member.name} is not healthy:\n{(dead or [member])[0].log()}")
                time.sleep(0.01)

    def url(self, *, scheme: str | None = None, query: str = "") -> str:
        """A store's URL, for ``ottla serve --store`` and ``open_store``."""
        scheme = scheme or ("etcd" if self.tls is None else "etcds")
        return f"{scheme}://{self.endpoints}" + (f"?{query}" if query else "")

    def ctl(self, *arguments: str, environment: dict[str, str] | None = None) -> str:
        """What `etcdctl` prints; the test fails where it fails."""
        command = ["etcdctl", "--endpoints", self.endpoints]
        if self.tls is not None:
            command += ["--cacert", str(self.tls.ca)]
            if self.tls.client_auth:
                command += ["--cert", str(self.tls.cert), "--key", str(self.tls.key)]
        done = subprocess.run(
            [*command, *arguments],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "ETCDCTL_API": "3", **(environment or {})},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _spawn(self, member: Member) -> None:
        initial = ",".join(f"{other.name}={other.peer_url}" for other in self.members)
        member.spawn(initial, self._extra)


class Proxy:
    """A port between a client and a member, on the running loop; what comes through is the test's to say.

    ``deaf``: what the client sends is swallowed. ``mute``: what the member answers is. ``refuse`` breaks all
    connections.
    """

    def __init__(self, member: Member) -> None:
        self._member = member
        self._server: asyncio.Server | None = None
        self._port = 0
        self._writers: dict[asyncio.StreamWriter, None] = {}
        self._tasks: dict[asyncio.Task[None], None] = {}
        self.deaf = False
        self.mute = False

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self._port}"

    async def open(self) -> Proxy:
        """Listen, always at the same port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def refuse(self) -> None:
        """Break connections, and refuse new ones until ``open``."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()
        if self._tasks:
            await asyncio.wait(list(self._tasks))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(self._member.address, self._member.client_port)
        for source, sink, kind in ((reader, back, "deaf"), (there, writer, "mute")):
            self._writers[sink] = None
            task = asyncio.create_task(self._pump(source, sink, kind))
            self._tasks[task] = None
            task.add_done_callback(lambda done: self._tasks.pop(done, None))

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, kind: str) -> None:
        try:
            while chunk := await source.read(1 << 16):
                if not getattr(self, kind):
                    sink.write(chunk)
        except OSError:
            pass
        finally:
            self._writers.pop(sink, None)
            sink.transport.abort()


@cache
def shared() -> EtcdCluster:
    """A member that runs as long as this process: for tests that use namespaces of their own."""
    cluster = EtcdCluster().start()
    atexit.register(cluster.stop)
    return cluster


def namespace() -> str:
    """A name for an Ottla cluster that no other test of this process uses."""
    return f"test-{os.getpid()}-{next(_namespaces)}"


def _memory() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
