"""Keeps what goes over the connections of programs, to be read once a run is told: most runs are not."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from ottla.explore.world.transport import SimTransport, Tap

# When there is so much, it is read before more is kept.
TAPE_BYTES_MAX = 64 * 1024 * 1024
# What is kept beside the bytes themselves: of each entry, and of an end of a connection that has ended, which
# nobody but the tape holds any more.
ENTRY_BYTES, END_BYTES = 160, 4096


class Tape:
    """``world.transport.Tap``, whose ``play`` has another one see what it has seen, when ``now_s`` was so."""

    def __init__(self, clock_s: Callable[[], float]) -> None:
        self._clock_s = clock_s
        self._seen: deque[tuple[float, str, SimTransport, bytes | int | None]] = deque()
        self._held_bytes = 0
        self._played_s = 0.0
        self.player: Tap | None = None

    def now_s(self) -> float:
        """When that happened which is played just now."""
        return self._played_s

    def written(self, end: SimTransport, data: bytes) -> None:
        if _is_kept(end):
            self._keep("written", end, data, len(data))

    def taken(self, end: SimTransport, count: int) -> None:
        if end.process.is_program and _is_kept(end):
            self._keep("taken", end, count, 0)

    def closed(self, end: SimTransport) -> None:
        if _is_kept(end):
            self._keep("closed", end, None, END_BYTES)

    def _keep(self, what: str, end: SimTransport, given: bytes | int | None, held_bytes: int) -> None:
        self._seen.append((self._clock_s(), what, end, given))
        self._held_bytes += ENTRY_BYTES + held_bytes
        if self._held_bytes > TAPE_BYTES_MAX:
            self.play()

    def play(self) -> None:
        # A limit of the run may interrupt this, and have the rest of it played.
        self._held_bytes = 0
        while self._seen:
            self._played_s, what, end, given = self._seen.popleft()
            see = getattr(self.player, what)
            see(end) if given is None else see(end, given)


def _is_kept(end: SimTransport) -> bool:
    """Whether a program talks to a node. Nodes among themselves say far more, programs nothing of Kafka's."""
    return end.process.is_program != end.peer.process.is_program
