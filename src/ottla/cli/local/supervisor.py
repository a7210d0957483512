"""Starts the processes of a local cluster, tells of those that die, and stops them in order.

It is also whom a second `ottla cluster up` of the same folder asks: what is dead is started by the one that
started the rest, so that one Ctrl-C ends all.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import ssl
import tempfile
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ottla.cli.bench.processes import listeners
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.local import processes, secure
from ottla.cli.local.child import STOP_TIMEOUT_S, Child
from ottla.cli.local.layout import HOST, Layout, LocalNode, Member, Request, change
from ottla.cli.local.ports import free_ports
from ottla.cli.ranges import numbers
from ottla.env.disk import RealDisk
from ottla.env.parent import ending
from ottla.env.small_files import read_regular
from ottla.log.folders import Suffix, parse_aside, parse_folder

STATE_FILE = "cluster.json"
STATE_BYTES_MAX = 1024 * 1024
LOGS = "logs"
READY = re.compile(r"ottla: listening on (\S+)")
# How often a member of etcd, and a node that was started by hand, are asked whether they are ready.
ASK_STEP_S = 0.01
ASK_TIMEOUT_S = 2.0
# Until somebody who waits is told for what.
SLOW_S = 10.0
ETCD_TIMEOUT_S = 30.0
HAND_TIMEOUT_S = 60.0


class Say(NamedTuple):
    """Where lines for people go: what is on stdout, and remarks."""

    line: Callable[[str], None]
    remark: Callable[[str], None]


def find_etcd() -> str:
    """The path of etcd's program. CliError where it is not on the PATH."""
    etcd = shutil.which("etcd")
    if etcd is None:
        raise CliError(
            "the program etcd, which keeps a cluster's metadata, is not on the PATH. Debian and Ubuntu have "
            "it in the package etcd-server, Homebrew in etcd, and https://github.com/etcd-io/etcd/releases "
            "has it for every system; 'ottla serve' alone needs none."
        )
    return etcd


class Supervisor:
    """The processes of the cluster in ``directory``. ``serve``: how `ottla serve` is called here."""

    def __init__(self, directory: Path, etcd: str, serve: Sequence[str], say: Say) -> None:
        self.directory = directory
        self._etcd, self._serve = etcd, list(serve)
        self._say = say
        self._layout: Layout | None = None
        self._members: dict[str, Child] = {}
        self._nodes: dict[int, Child] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # One `ottla cluster up` after the other.
        self._turn = asyncio.Lock()
        self._stopping = False
        # Whether nodes that were started by hand are to stop with the others.
        self.stops_all = False

    @property
    def bootstrap(self) -> str:
        return self._layout.bootstrap if self._layout is not None else ""

    @property
    def secure(self) -> bool:
        """Whether clients must log in."""
        return self._layout is not None and self._layout.secure

    def load(self) -> None:
        """Read what this folder's cluster is. CliError where that is damaged."""
        if (self.directory / STATE_FILE).exists():
            self._layout, _ = read_state(self.directory)

    async def bring_up(self, request: Request, say: Say) -> None:
        """Start what does not run, and say of each node where it listens. CliError where one does not."""
        async with self._turn:
            running = {node.id for node in self._known_nodes() if self._runs(node)}
            holding = {node.id for node in self._known_nodes() if self._holds_data(node)}
            self._layout = change(self._layout, request, free_ports, running=running, holding=holding)
            (self.directory / LOGS).mkdir(exist_ok=True)
            if self._layout.secure:
                secure.make(self.directory, store=self._layout.secure_store)
            self._save()
            await _all(self._start_member(member) for member in self._layout.members)
            await _all(self._start_node(node, say) for node in self._layout.nodes)
            if self._layout.secure:
                say.line(
                    f"ottla: clients come in by {secure.client_properties(self.directory, secure.ADMIN)}"
                )
            say.line("ottla: cluster ready")

    def _known_nodes(self) -> tuple[LocalNode, ...]:
        return self._layout.nodes if self._layout is not None else ()

    def _runs(self, node: LocalNode) -> bool:
        child = self._nodes.get(node.id)
        return (child is not None and child.alive) or self._runs_by_hand(node)

    def _runs_by_hand(self, node: LocalNode) -> bool:
        """Whether somebody else's process holds the node's data."""
        path = self.directory / node.folder / ".lock"
        if not path.exists():
            return False
        try:
            RealDisk().lock(str(path)).release()
        except BlockingIOError:
            return True
        return False

    def _holds_data(self, node: LocalNode) -> bool:
        """Whether there are partitions in the node's folder, those that were set aside among them."""
        folder = self.directory / node.folder
        return folder.is_dir() and any(
            entry.is_dir() and _holds_partition(entry.name) for entry in folder.iterdir()
        )

    # -- starting -----------------------------------------------------------------------------------------

    async def _start_member(self, member: Member) -> None:
        assert self._layout is not None
        child = self._members.get(member.name)
        if child is not None and child.alive:
            return
        command = self._layout.etcd_command(self._etcd, str(self.directory), member)
        child = await self._start(self._members, member.name, member.name, command)
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._spawn(self._watch(child, ready))
        self._spawn(self._ask_member(member, child, ready))
        await ready

    async def _ask_member(self, member: Member, child: Child, ready: asyncio.Future[str]) -> None:
        """Settle ``ready`` once the member works."""
        assert self._layout is not None
        context = secure.store_context(self.directory) if self._layout.secure_store else None
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + ETCD_TIMEOUT_S
        while not ready.done():
            if await _etcd_healthy(member.client_port, context):
                # Somebody else's etcd may have its port: then our process is about to end.
                if child.alive and not ready.done():
                    ready.set_result(f"{HOST}:{member.client_port}")
                return
            if loop.time() > deadline_s and not ready.done():
                text = f"{member.name} is not ready after {ETCD_TIMEOUT_S:.0f} s: see {child.log}"
                ready.set_exception(CliError(text))
            await asyncio.sleep(ASK_STEP_S)

    async def _start_node(self, node: LocalNode, say: Say) -> None:
        assert self._layout is not None
        child = self._nodes.get(node.id)
        if child is not None and child.alive:
            say.line(_listening(node, f"{HOST}:{node.port}", child.pid))
            return
        if self._runs_by_hand(node):
            pid = await self._pid_by_hand(node)
            say.line(_listening(node, f"{HOST}:{node.port}", pid))
            return
        command = self._layout.node_command(self._serve, str(self.directory), node)
        child = await self._start(self._nodes, node.id, node.name, command)
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[str] = loop.create_future()
        self._spawn(self._watch(child, ready))
        slow = loop.call_later(SLOW_S, say.remark, f"{node.name} takes long to start; its log is {child.log}")
        try:
            address = await ready
        finally:
            slow.cancel()
        line = _listening(node, address, child.pid)
        say.line(line)
        if say is not self._say:
            self._say.line(line)

    async def _start(self, table: dict[Any, Child], key: Any, name: str, command: list[str]) -> Child:
        child = Child(name, command, self.directory / LOGS / f"{name.replace(' ', '-')}.log")
        table[key] = child
        try:
            await child.start()
        except OSError as error:
            raise CliError(f"{command[0]}: {(error.strerror or str(error)).lower()}") from error
        self._save()
        return child

    async def _pid_by_hand(self, node: LocalNode) -> int:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + HAND_TIMEOUT_S
        while not (pids := listeners([node.port])):
            if loop.time() > deadline_s:
                raise CliError(
                    f"{node.name} was started by hand, and does not listen on {HOST}:{node.port}: stop it, "
                    "or start it with the command in its log"
                )
            await asyncio.sleep(10 * ASK_STEP_S)
        return min(pids)

    async def start_nodes(self, ids: Sequence[int], say: Say) -> None:
        """Start the nodes with these ids, or all that do not run. CliError where there is no such node."""
        async with self._turn:
            await _all(self._start_node(node, say) for node in self._chosen(ids))

    def _chosen(self, ids: Sequence[int]) -> list[LocalNode]:
        return chosen(self._known_nodes(), ids, self.directory)

    # -- ending single nodes ------------------------------------------------------------------------------

    async def end_nodes(self, ids: Sequence[int], say: Say, *, clean: bool) -> None:
        """Kill nodes, or with ``clean`` have them stop. CliError where there is no such node."""
        async with self._turn:
            for node in self._chosen(ids):
                child = self._nodes.get(node.id)
                if child is not None and child.alive:
                    pid = child.pid
                    killed = not await child.stop() if clean else True
                    await child.kill()
                    self._save()
                    child.note(f"{node.name} was ended by 'ottla cluster kill'")
                elif (found := await asyncio.to_thread(self._end_by_hand, node, clean)) is not None:
                    pid, killed = found
                else:
                    say.line(f"ottla: {node.name} does not run")
                    continue
                text = f"ottla: {node.name} {'killed' if killed else 'stopped'} (pid {pid})"
                say.line(text)
                self._say.line(text)

    def _end_by_hand(self, node: LocalNode, clean: bool) -> tuple[int, bool] | None:
        """End a node that was started by hand: its process, and whether it was killed; None without one."""
        matches = processes.of_node(self.directory, node)
        (pid,) = processes.find([matches], ())
        if pid is None:
            return None
        return pid, not processes.end(pid, matches, clean=clean, timeout_s=STOP_TIMEOUT_S)

    # -- watching -----------------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _watch(self, child: Child, ready: asyncio.Future[str] | None) -> None:
        """Copy what it prints to its log; resolve ``ready`` once it serves or cannot; tell when it dies."""
        while (line := await child.read_line()) is not None:
            found = READY.fullmatch(line)
            if found and ready is not None and not ready.done():
                ready.set_result(found[1])
        code = await child.wait()
        if child.stopping or self._stopping:
            if ready is not None:
                ready.cancel()
            return
        if ready is not None and not ready.done():
            why = _plain(child.last_words()) or ending(code)
            if "address already in use" in why and child in self._nodes.values():
                why += "; --port N has the nodes listen on others, from N on"
            ready.set_exception(CliError(f"{child.name} does not start: {why} ({child.log})"))
            return
        self._save()
        ended = "has stopped" if code == 0 else f"died ({ending(code)})"
        again = shlex.join(("ottla", "cluster", "up", "--data", str(self.directory)))
        text = f"{child.name} {ended}; it starts again with '{again}', or by hand with: {child.shell_command}"
        child.note(text)
        self._say.remark(text)

    # -- stopping -----------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Stop the nodes one after the other, each handing over what it leads, and then etcd."""
        self._stopping = True
        await self._stop_all(self._nodes.values())
        for node in self._known_nodes():
            if self.stops_all:
                await asyncio.to_thread(self._end_by_hand, node, True)
            elif self._runs_by_hand(node):
                self._say.remark(f"{node.name} was started by hand and goes on, without etcd")
        await self._stop_all(self._members.values())
        self._save()

    async def _stop_all(self, children: Iterable[Child]) -> None:
        for child in children:
            if not await child.stop():
                self._say.remark(f"{child.name} did not stop in time and was killed: see {child.log}")

    async def kill(self) -> None:
        """End everything at once."""
        self._stopping = True
        for child in (*self._nodes.values(), *self._members.values()):
            await child.kill()

    # -- the file -----------------------------------------------------------------------------------------

    def _save(self) -> None:
        """Write ``cluster.json``: what the cluster is, and, for other programs, what runs."""
        if self._layout is None:
            return
        document = self._layout.to_json(str(self.directory))
        for entry, child in (
            *((entry, self._members.get(entry["name"])) for entry in document["etcd"]),
            *((entry, self._nodes.get(entry["id"])) for entry in document["nodes"]),
        ):
            entry["pid"] = child.pid if child is not None and child.alive else None
        text = json.dumps(document, indent=2) + "\n"
        fd, path = tempfile.mkstemp(dir=self.directory, prefix=STATE_FILE)
        with os.fdopen(fd, "w") as file:
            file.write(text)
        os.replace(path, self.directory / STATE_FILE)


def read_state(directory: Path) -> tuple[Layout, list[int]]:
    """What the cluster in a folder is, and the processes that it had when that was written. CliError where
    it cannot be read."""
    path = directory / STATE_FILE
    try:
        text = read_regular(str(path), STATE_BYTES_MAX).data.decode()
    except (OSError, ValueError) as error:
        raise CliError(f"{path} cannot be read: {error}") from error
    layout = Layout.from_json(text, str(path))
    document = json.loads(text)
    pids = [entry.get("pid") for entry in (*document["etcd"], *document["nodes"])]
    return layout, [pid for pid in pids if isinstance(pid, int)]


def chosen(nodes: Sequence[LocalNode], ids: Sequence[int], directory: Path) -> list[LocalNode]:
    """The nodes with these ids, or all. CliError (not found) where there is no such node."""
    by_id = {node.id: node for node in nodes}
    for number in ids:
        if number not in by_id:
            there = numbers(by_id)
            raise CliError(
                f"the cluster in {directory} has no node {number}: it has {there}", ExitCode.NOT_FOUND
            )
    return [by_id[number] for number in dict.fromkeys(ids)] or list(nodes)


def _listening(node: LocalNode, address: str, pid: int) -> str:
    return f"ottla: {node.name} listening on {address} (pid {pid})"


def _plain(line: str | None) -> str | None:
    """A line of a log as people read it: etcd's are JSON."""
    try:
        document = json.loads(line or "")
        return f"{document['msg']}: {document['error']}" if "error" in document else str(document["msg"])
    except (ValueError, LookupError, TypeError):
        return line


def _holds_partition(folder: str) -> bool:
    aside = parse_aside(folder)
    return parse_folder(folder) is not None or (aside is not None and aside.suffix is Suffix.STRAY)


async def _all(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do all of it at once; raises the first error, when all of it has ended."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


async def _etcd_healthy(port: int, context: ssl.SSLContext | None) -> bool:
    """Whether the member of etcd that listens there says that it is of a working cluster."""
    try:
        async with asyncio.timeout(ASK_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(HOST, port, ssl=context)
            try:
                writer.write(f"GET /health HTTP/1.0\r\nHost: {HOST}\r\n\r\n".encode())
                return b'"health":"true"' in await reader.read()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
