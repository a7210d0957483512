"""What tests of the simulator's parts share: a loop, hosts, protocols that note what they are told."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from random import Random
from typing import Any

from ottla.explore.world.loop import Process, VirtualLoop
from ottla.explore.world.machine import Machine
from ottla.explore.world.network import Fabric
from ottla.explore.world.trace import Trace

ROOT = Path(__file__).parents[2]


class Hosts:
    """Two or more machines on a fabric, each with a process."""

    def __init__(self, seed: object = 1, count: int = 2) -> None:
        self.loop = VirtualLoop()
        self.trace = Trace(self.loop)
        self.fabric = Fabric(self.loop, Random(f"{seed}"), self.trace)
        self.machines = [Machine(self.loop, f"m{n}", f"10.0.0.{n}") for n in range(count)]
        self.processes: list[Process] = []
        for machine in self.machines:
            self.fabric.add(machine)
            self.processes.append(machine.begin())

    def run(self, main: Coroutine[Any, Any, None], time_max_s: float = 600) -> None:
        try:
            self.loop.run(main, time_max_s=time_max_s)
            assert not self.loop.failures
        finally:
            self.loop.close()

    async def serve(self, number: int, factory: Callable[[], asyncio.BaseProtocol]) -> tuple[str, int]:
        network = self.fabric.network(self.processes[number])

        async def bind() -> tuple[str, int]:
            listener = await network.bind(factory, self.machines[number].host, 0)
            await listener.start()
            return listener.address

        return await self.loop.spawn(self.processes[number], bind())

    async def connect(
        self, number: int, factory: Callable[[], asyncio.BaseProtocol], address: tuple[str, int]
    ) -> None:
        network = self.fabric.network(self.processes[number])
        await self.loop.spawn(self.processes[number], network.connect(factory, *address))

    def crash(self, number: int) -> None:
        """Power is lost."""
        machine = self.machines[number]
        self.loop.kill(self.processes[number])
        machine.up = False
        self.fabric.machine_died(machine)

    def kill(self, number: int) -> None:
        """The process ends."""
        self.loop.kill(self.processes[number])
        self.fabric.process_died(self.processes[number])

    def cut(self, source: int, target: int, *, both: bool = False) -> None:
        self.fabric.cut(self.machines[source].host, self.machines[target].host)
        if both:
            self.cut(target, source)

    def heal(self, source: int, target: int, *, both: bool = False) -> None:
        self.fabric.heal(self.machines[source].host, self.machines[target].host)
        if both:
            self.heal(target, source)


class Notes(asyncio.Protocol):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.data = b""
        self.pieces = 0
        self.lost: list[Exception | None] = []
        self.paused: list[bool] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.pieces += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)

    def pause_writing(self) -> None:
        self.paused.append(True)

    def resume_writing(self) -> None:
        self.paused.append(False)


class BufferedNotes(asyncio.BufferedProtocol):
    """The same with a small buffer of its own."""

    def __init__(self, size: int = 7) -> None:
        self.buffer = bytearray(size)
        self.data = b""
        self.transport: Any = None
        self.lost: list[Exception | None] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data += self.buffer[:nbytes]

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)


class Echo(asyncio.Protocol):
    """Sends back what it gets."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


def replay(seed: int, hash_seed: str, tmp_path: Path, *arguments: str) -> tuple[str, str]:
    """The printed hash of a seed's trace in a process of its own, and the trace."""
    trace = tmp_path / f"{hash_seed}.trace"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "ottla.cli.main",
            "simulate",
            "--seed",
            str(seed),
            "--seconds",
            "10",
            "--trace",
            str(trace),
            *arguments,
        ],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if "trace:" in line]
    return line.split()[-1], trace.read_text()
