"""One process of a local cluster: its command, its log, when it is ready and how it ended."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
from collections.abc import Sequence
from pathlib import Path

from ottla.env.parent import end_with

STOP_TIMEOUT_S = 30.0
# How much of a log's end is looked through for what a process said last.
LOG_TAIL_BYTES = 16 * 1024
# The longest line that a process may print before it counts as noise.
LINE_BYTES_MAX = 64 * 1024


class Child:
    """A process that ends with us, however we end. What it prints goes to its log."""

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        self.name = name
        self.command = list(command)
        self.log = log
        # Set once somebody means it to end.
        self.stopping = False
        self._process: asyncio.subprocess.Process | None = None

    @property
    def shell_command(self) -> str:
        """What to paste into a shell."""
        return shlex.join(self.command)

    @property
    def pid(self) -> int:
        assert self._process is not None, "start() comes first"
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start it. OSError where the program cannot be."""
        self.note(f"{self.name} is started with: {self.shell_command}")
        parent = os.getpid()
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("ETCD_") or name == "ETCD_UNSUPPORTED_ARCH"
        }

        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=LINE_BYTES_MAX,
                env=environment,
                # Ctrl-C goes to the terminal's whole process group; the order in which to stop is ours.
                start_new_session=True,
                preexec_fn=lambda: end_with(parent),
            )

    async def read_line(self) -> str | None:
        """The next line that it prints, which goes to the log too. None: it will print no more."""
        assert self._process is not None and self._process.stdout is not None
        try:
            line = await self._process.stdout.readline()
        except ValueError:
            return ""
        if not line:
            return None
        self._append(line)
        return line.decode(errors="replace").rstrip("\n")

    async def wait(self) -> int:
        """Its exit code, or less than 0: the signal that killed it."""
        assert self._process is not None
        return await self._process.wait()

    async def stop(self) -> bool:
        """SIGTERM, and wait until it is gone; False where it had to be killed."""
        self.stopping = True
        if not self.alive:
            return True
        self._signal(signal.SIGTERM)
        # One that was paused would not hear it.
        self._signal(signal.SIGCONT)
        try:
            await asyncio.wait_for(self.wait(), STOP_TIMEOUT_S)
        except TimeoutError:
            await self.kill()
            return False
        return True

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.stopping = True
        if self.alive:
            self._signal(signal.SIGKILL)
            await self.wait()

    def _signal(self, signum: int) -> None:
        assert self._process is not None
        try:
            self._process.send_signal(signum)
        except ProcessLookupError:
            return

    def note(self, text: str) -> None:
        """Write a line of ours to its log."""
        self._append(f"ottla: {text}\n".encode())

    def last_words(self) -> str | None:
        """What it said last of why it ended."""
        with self.log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
            lines = log.read().decode(errors="replace").splitlines()
        ours = f"ottla: {self.name} "
        said = [line for line in lines if line.strip()]
        for position in range(len(said) - 1, -1, -1):
            if said[position].startswith(ours):
                said = said[position + 1 :]
                break
        for line in reversed(said):
            if line.startswith("ottla: "):
                return line.removeprefix("ottla: ")
        return said[-1] if said else None

    def _append(self, data: bytes) -> None:
        # The process appends to the same file; one write keeps lines whole.
        with self.log.open("ab", buffering=0) as log:
            log.write(data)
