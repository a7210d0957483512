"""The command behind `ottla serve --processes`: it starts the nodes, again where they die, and stops them.

It serves no client itself. It holds the sockets that all nodes listen at, and where they have no store
elsewhere it keeps one for them, in SQLite, behind a Unix socket. Should it end, they end with it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from typing import Any

from ottla import process
from ottla.config import BrokerConfig
from ottla.config.node import NodeSettings, StartError
from ottla.env.clock import SystemClock
from ottla.env.disk import Lock, RealDisk
from ottla.env.network import listen_everywhere, show_address
from ottla.env.notify import ServiceManager
from ottla.env.parent import ending
from ottla.log.data_dir import (
    NODES_FOLDER,
    DataDir,
    DataDirectoryInUse,
    make_to_stay,
    node_folder,
    others_with_data,
)
from ottla.logging_setup import set_up
from ottla.metadata.alone import elsewhere, end_registrations
from ottla.metadata.image import load
from ottla.metadata.socket_server import StoreServer
from ottla.metadata.sqlite import SqliteStore
from ottla.metadata.store import StoreError
from ottla.metadata.stores import UNIX
from ottla.pieces import whole
from ottla.processes import layout
from ottla.processes.child import line_of

log = logging.getLogger(__name__)

READY = re.compile(rb"ottla: listening on \S+\n")
# Pause before a node that died is started again, doubled while it dies soon.
BACKOFF_MS_MIN, BACKOFF_MS_MAX = 100, 10_000
# A node that lived for so long did not die soon.
LASTED_MS_MIN = 30_000
# How long nodes of an earlier command may take to be gone, and how often they are looked for.
ENDING_S_MAX, ENDING_STEP_S = 5.0, 0.02
# The longest line of what a node prints that is looked at.
LINE_BYTES_MAX = 64 * 1024
STORE_FILE, STORE_FOLDER, LOCK_FILE = "metadata.db", "store", ".lock"


def run(
    *,
    processes: int,
    config_file: str | None,
    overrides: dict[str, str],
    log_format: str,
    log_level: str,
    **options: object,
) -> int:
    """Serve with so many nodes until SIGTERM or SIGINT; the exit code. Options as of ``process.run``."""
    set_up(log_format, log_level)
    # Before nodes are started, to which the environment is handed on.
    manager = ServiceManager.take(os.environ, SystemClock())

    def work(settings: NodeSettings) -> int:
        supervisor = Supervisor(settings, processes, log_format, log_level, manager)
        return process.run_until_asked(supervisor.run)

    return process.with_settings(work, config_file, overrides, options)


class Child:
    """The process of one node, started again whenever it dies."""

    def __init__(self, settings: NodeSettings, log_arguments: tuple[str, str]) -> None:
        self.node_id = settings.node_id
        # Set when it serves for the first time.
        self.ready = asyncio.Event()
        # What it ended with when it was to stop, or before it ever served.
        self.code: int | None = None
        self._line = line_of(settings, *log_arguments, os.getpid())
        self._fds = tuple(fd for _, fd in settings.shared)
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()

    async def keep(self, server: StoreServer | None) -> None:
        """Run it until ``stop``, or until it ends and has never served. OSError: it cannot be started."""
        backoff_ms = BACKOFF_MS_MIN
        loop = asyncio.get_running_loop()
        while True:
            started_s = loop.time()
            code, pid = await self._run()
            if server is not None:
                await _end_leases(server, pid)
            if self._stopping.is_set() or not self.ready.is_set():
                self.code = code
                return
            if (loop.time() - started_s) * 1000 >= LASTED_MS_MIN:
                backoff_ms = BACKOFF_MS_MIN
            log.error(
                "node %d (process %d) ended with %s: it is started again in %d ms",
                self.node_id,
                pid,
                ending(code),
                backoff_ms,
            )
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), backoff_ms / 1000)
                self.code = 0
                return
            backoff_ms = min(2 * backoff_ms, BACKOFF_MS_MAX)

    def stop(self) -> None:
        """Ask it to stop."""
        self._stopping.set()
        self._signal(signal.SIGTERM)
        # One that was paused would not hear it.
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        self._stopping.set()
        self._signal(signal.SIGKILL)

    async def _run(self) -> tuple[int, int]:
        """Start it and wait for its end: its exit code (below 0: the signal that killed it), and its pid."""
        self._process = started = await asyncio.create_subprocess_exec(
            sys.executable,
            # Not with what lies in the working directory.
            "-P",
            "-m",
            "ottla.processes.child",
            # For people who look at processes.
            f"node-{self.node_id}",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LINE_BYTES_MAX,
            pass_fds=self._fds,
            # Ctrl-C goes to the terminal's whole process group; to stop them is ours.
            start_new_session=True,
        )
        assert started.stdin is not None and started.stdout is not None
        if self._stopping.is_set():
            self.stop()
        with suppress(OSError):
            started.stdin.write(self._line)
            await started.stdin.drain()
            started.stdin.close()
        await self._listen(started.stdout)
        return await started.wait(), started.pid

    async def _listen(self, printed: asyncio.StreamReader) -> None:
        """Wait for the line that says that it serves, and for its end."""
        while True:
            try:
                line = await printed.readline()
            except ValueError:
                # Longer than LINE_BYTES_MAX, so not that one: what was read of it is dropped.
                continue
            if not line:
                return
            if READY.fullmatch(line):
                self.ready.set()

    def _signal(self, signum: int) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signum)


class Supervisor:
    """The nodes of one command. ``settings`` are what a single one would be started with."""

    def __init__(
        self,
        settings: NodeSettings,
        processes: int,
        log_format: str,
        log_level: str,
        manager: ServiceManager | None = None,
    ) -> None:
        """ConfigError where so many of them cannot be. ``manager`` is told of the state of all of them."""
        self._manager = manager or ServiceManager(SystemClock())
        self._settings = settings
        self._config = BrokerConfig(settings.to_properties())
        layout.check(self._config, processes)
        self._ids = layout.node_ids(self._config, processes)
        self._log = (log_format, log_level)
        self._disk = RealDisk()
        self._server: StoreServer | None = None

    async def run(self, stopping: asyncio.Event) -> int:
        """Serve until ``stopping``; the exit code. StartError, StoreError or OSError where it cannot."""
        async with AsyncExitStack() as held:
            held.callback((await self._take_directory()).release)
            shared = self._listen(held)
            settings = self._settings
            if settings.store is None:
                settings = replace(settings, store=await self._open_store(held))
            nodes = layout.settings_of(
                settings,
                self._config,
                len(self._ids),
                shared=[(listener, one.fileno()) for listener, one in shared],
                machine=socket.gethostname(),
                embedded=self._settings.store is None,
            )
            return await self._serve(
                [Child(node, self._log) for node in nodes], shared[0][1].getsockname(), stopping
            )

    # The directory

    async def _take_directory(self) -> Lock:
        """Lock the data directory for these nodes. DataDirectoryError, StartError: it is not theirs."""
        path = self._config.data_dir
        nodes = f"{path}/{NODES_FOLDER}"
        # Of an earlier command only nodes can be left, and these are ending. (Others may be using a directory
        # that has never had several, and it is not for us to change.)
        lock = self._lock(nodes) if self._disk.exists(nodes + "/") else None
        try:
            deadline_s = asyncio.get_running_loop().time() + (ENDING_S_MAX if lock is not None else 0)
            for node_id in self._ids:
                await self._check_free(node_id, deadline_s)
            self._check_nobody_is_missing(others_with_data(self._disk, path))
        except BaseException:
            if lock is not None:
                lock.release()
            raise
        if lock is not None:
            return lock
        make_to_stay(self._disk, nodes)
        return self._lock(nodes)

    def _lock(self, nodes: str) -> Lock:
        try:
            return self._disk.lock(f"{nodes}/{LOCK_FILE}")
        except BlockingIOError as error:
            raise DataDirectoryInUse(
                f"the data directory {self._config.data_dir} is in use by another broker: stop it, or use "
                "another directory"
            ) from error

    async def _check_free(self, node_id: int, deadline_s: float) -> None:
        """DataDirectoryError: a node's folder is another's, or another process has it until the deadline."""
        folder = node_folder(self._config.data_dir, self._ids[0], node_id)
        if node_id != self._ids[0] and not self._disk.exists(folder + "/"):
            return
        while True:
            try:
                taken = DataDir.take(self._disk, folder)
                break
            except DataDirectoryInUse:
                if asyncio.get_running_loop().time() >= deadline_s:
                    raise
            await asyncio.sleep(ENDING_STEP_S)
        try:
            taken.check_identity(node_id, None)
        finally:
            taken.release()

    def _check_nobody_is_missing(self, holding: Sequence[int]) -> None:
        """StartError where nodes hold partitions that are none of these."""
        missing = [node_id for node_id in holding if node_id not in self._ids]
        if missing:
            raise StartError(
                f"the data directory {self._config.data_dir} has partitions of nodes that --processes "
                f"{len(self._ids)} would leave out ({', '.join(map(str, missing))}): start it with "
                f"--processes {max(missing) - self._ids[0] + 1}, empty them there, one after the other, with "
                "'ottla cluster drain N' ('ottla log stray' for what was set aside), and then start it with "
                "fewer"
            )

    # What the nodes share

    def _listen(self, held: AsyncExitStack) -> list[tuple[str, socket.socket]]:
        """Sockets at which all nodes listen, with their listeners' names."""
        shared = []
        for endpoint in self._config.listeners():
            try:
                made = listen_everywhere(endpoint.host, endpoint.port)
            except OSError as error:
                where = show_address(endpoint.host, endpoint.port)
                reason = (error.strerror or str(error)).lower()
                raise StartError(f"cannot listen on {where}: {reason}") from error
            for one in made:
                held.callback(one.close)
                shared.append((endpoint.listener, one))
        return shared

    async def _open_store(self, held: AsyncExitStack) -> str:
        """Open the store that the nodes share, with nothing in it of earlier processes; where it is."""
        path = self._config.data_dir
        file = os.path.join(path, STORE_FILE)
        store = await SqliteStore.open(file, SystemClock())
        held.push_async_callback(store.close)
        # Registrations have what nodes' fetches are known by. SQLite gives its log the file's rights.
        for name in (file, f"{file}-wal"):
            with suppress(FileNotFoundError):
                os.chmod(name, 0o600)
        await store.end_leases()
        found = await store.range("")
        image = whole(load(found.items, found.revision))
        self._check_nobody_is_missing(list(elsewhere(image, self._ids)))
        await end_registrations(store, image, self._ids)
        if image.topics and not image.nodes:
            log.info(
                "all partitions are on node %d, which was alone so far: 'ottla cluster reassign --all' "
                "spreads them",
                self._ids[0],
            )
        folder = f"{os.path.abspath(path)}/{NODES_FOLDER}/{STORE_FOLDER}"  # noqa: ASYNC240 - asks for no more than the working directory
        self._server = StoreServer(store, folder)
        await self._server.open()
        held.push_async_callback(self._server.close)
        return UNIX + folder

    # The nodes

    async def _serve(
        self, children: Sequence[Child], address: tuple[str, int], stopping: asyncio.Event
    ) -> int:
        log.info("starting %d nodes", len(children))
        self._manager.status(f"starting {len(children)} nodes")
        tasks = [asyncio.create_task(child.keep(self._server)) for child in children]
        asked = asyncio.create_task(stopping.wait())
        ready = asyncio.create_task(_all_ready(children))
        waiting: list[asyncio.Task[Any]] = [*tasks, asked, ready]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if ready.done() and not asked.done():
                process.say_ready((str(address[0]), int(address[1])), self._manager)
                await asyncio.wait(waiting[:-1], return_when=asyncio.FIRST_COMPLETED)
            return await self._stop(children, tasks)
        finally:
            for task in waiting:
                task.cancel()
            for child in children:
                child.kill()

    async def _stop(self, children: Sequence[Child], tasks: Sequence[asyncio.Task[None]]) -> int:
        """Have all nodes stop; 0 where all of them stop in order."""
        log.info("stopping %d nodes", len(children))
        self._manager.stopping(f"stopping {len(children)} nodes: clean shutdown")
        for child in children:
            child.stop()
        await asyncio.wait(tasks)
        self._manager.close()
        for task in tasks:
            task.result()
        failed = [child for child in children if child.code != 0]
        for child in failed:
            if child.code is not None and child.code < 0:
                log.error("node %d ended with %s", child.node_id, ending(child.code))
        return 1 if failed else 0


async def _all_ready(children: Sequence[Child]) -> None:
    for child in children:
        await child.ready.wait()


async def _end_leases(server: StoreServer, pid: int) -> None:
    """Have others take over at once what a node held that is gone."""
    try:
        await server.process_ended(pid)
    except StoreError as error:
        log.error(
            "the leases of process %d could not be ended, they end after their time-out: %s", pid, error
        )
