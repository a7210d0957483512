"""A machine: its name, its clock, whether it is up, and the process that runs on it."""

from __future__ import annotations

from collections.abc import Callable

from ottla.explore.world.loop import MS_US, WORLD, Handle, Process, VirtualLoop

# The wall clock at the beginning of each run: some time in 2025, the same always.
EPOCH_MS = 1_750_000_000_000


class SimClock:
    """A process's clocks: wall time may be off and jump, monotonic time counts from the machine's boot."""

    def __init__(self, loop: VirtualLoop, machine: Machine | None = None) -> None:
        self._loop = loop
        self._machine = machine

    def now_ms(self) -> int:
        offset_ms = self._machine.wall_offset_ms if self._machine is not None else 0
        return EPOCH_MS + self._loop.now_us // MS_US + offset_ms

    def monotonic_ms(self) -> int:
        booted_us = self._machine.booted_us if self._machine is not None else 0
        return (self._loop.now_us - booted_us) // MS_US

    def call_later(self, delay_ms: float, callback: Callable[[], object]) -> Handle:
        return self._loop.call_later(delay_ms / 1000, callback)


class WorldClock(SimClock):
    """For what belongs to no process; its timers are never held back."""

    def call_later(self, delay_ms: float, callback: Callable[[], object]) -> Handle:
        return self._loop.call_at_us(self._loop.now_us + round(delay_ms * MS_US), callback, context=WORLD)


class Machine:
    """A host with an address of its own. It is up or down; a process runs on it or does not."""

    def __init__(self, loop: VirtualLoop, name: str, host: str) -> None:
        self.loop = loop
        self.name = name
        self.host = host
        self.up = True
        self.boots = 1
        self.booted_us = loop.now_us
        self.wall_offset_ms = 0
        self.clock = SimClock(loop, self)
        self.process: Process | None = None
        self._runs = 0

    def __repr__(self) -> str:
        return self.name

    def begin(self, *, is_program: bool = False) -> Process:
        """A new process; the one before it must have ended."""
        assert self.up and (self.process is None or self.process.dead)
        self._runs += 1
        self.process = Process(f"{self.name}.{self._runs}", self, is_program=is_program)
        return self.process

    def boot(self) -> None:
        """Up again after a crash."""
        self.up = True
        self.boots += 1
        self.booted_us = self.loop.now_us
