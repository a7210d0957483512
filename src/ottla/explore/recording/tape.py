"""Keeps what goes over the connections of programs, to be read once a run is told: most runs are not."""

from __future__ import annotations

from collections.abc import Callable

from ottla.explore.world.transport import SimTransport, Tap

# When there is so much, it is read before more is kept.
TAPE_BYTES_MAX = 64 * 1024 * 1024


class Tape:
    """``world.transport.Tap``, whose ``play`` has another one see what it has seen, when ``now_s`` was so."""

    def __init__(self, clock_s: Callable[[], float]) -> None:
        self._clock_s = clock_s
        self._seen: list[tuple[float, str, SimTransport, bytes | int | None]] = []
        self._held_bytes = 0
        self._played_s = 0.0
        self.player: Tap | None = None

    def now_s(self) -> float:
        """When that happened which is played just now."""
        return self._played_s

    def written(self, end: SimTransport, data: bytes) -> None:
        # Nodes among themselves say far more.
        if end.process.is_program or end.peer.process.is_program:
            self._seen.append((self._clock_s(), "written", end, data))
            self._held_bytes += len(data)
            if self._held_bytes > TAPE_BYTES_MAX:
                self.play()

    def taken(self, end: SimTransport, count: int) -> None:
        if end.process.is_program:
            self._seen.append((self._clock_s(), "taken", end, count))

    def closed(self, end: SimTransport) -> None:
        if end.process.is_program or end.peer.process.is_program:
            self._seen.append((self._clock_s(), "closed", end, None))

    def play(self) -> None:
        seen, self._seen, self._held_bytes = self._seen, [], 0
        for self._played_s, what, end, given in seen:
            see = getattr(self.player, what)
            see(end) if given is None else see(end, given)
