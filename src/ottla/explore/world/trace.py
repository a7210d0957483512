"""What happened in a run, in order: hashed as a whole, the last of it kept to be shown."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from hashlib import blake2b
from typing import Protocol, TextIO

from ottla.explore.world.loop import Process, VirtualLoop

KEPT_LINES = 400
KEPT_EVENTS = 10_000

# What is said of a process that stands still, and of one that does no longer.
PAUSED, RESUMED = "is paused", "goes on"
# And of a node that answers clients from now on.
SERVES = "serves"


class Observer(Protocol):
    """Who is told what happens in a run. It looks on: the run is the same with it and without."""

    def happened(self, who: object, what: str) -> None:
        """An event: a line of the trace that is not of bytes on the network."""
        ...

    def ended(self, process: Process) -> None:
        """A process is no more, for whatever reason."""
        ...

    def fault(self, lane: str, what: str) -> None:
        """A fault strikes what the lane is of: a machine, by its name, or ``network``."""
        ...

    def fault_lasts(self, undo: Callable[[], None]) -> None:
        """The fault that was told of just now, if one was, lasts until ``undo`` has been called."""
        ...

    def fault_ended(self, undo: Callable[[], None]) -> None: ...


class Trace:
    """Two runs of a seed have the same hash, and if they do not, their files show where they part."""

    def __init__(self, loop: VirtualLoop, file: TextIO | None = None) -> None:
        self._loop = loop
        self._hash = blake2b(digest_size=12)
        self._file = file
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)
        # Lines that are not of bytes on the network: what a person asks for first.
        self.events: deque[str] = deque(maxlen=KEPT_EVENTS)
        self.count = 0
        self.observer: Observer | None = None

    def __call__(self, who: object, what: str) -> None:
        line = self.moved(f"{who}", what)
        self.events.append(line)
        if self.observer is not None:
            self.observer.happened(who, what)

    def moved(self, who: str, what: str) -> str:
        """Bytes on the network; the line of it. Most lines are such ones."""
        line = f"{self._loop.now_us / 1_000_000:.6f} {who} {what}"
        self.count += 1
        self._hash.update(line.encode())
        self.lines.append(line)
        if self._file is not None:
            print(line, file=self._file)
        return line

    def note(self, text: str) -> None:
        """Something to be shown beside, which is not part of the hash."""
        line = f"{self._loop.now_us / 1_000_000:.6f} . {text}"
        self.lines.append(line)
        if self._file is not None:
            print(line, file=self._file)

    def digest(self) -> str:
        return self._hash.hexdigest()
