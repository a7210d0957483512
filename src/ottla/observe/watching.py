"""Who wants requests watched: metrics, the log of slow ones, traces. While nobody does, nothing is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla.broker.turn import Turn
from ottla.observe.requests import Listener, RequestWatcher

if TYPE_CHECKING:
    from ottla.broker.gate import Gate


class Watching:
    """As often as ``begin``, or ``listen``, there is to be an ``end``, or ``leave``."""

    def __init__(self, gate: Gate, turn: Turn) -> None:
        # What has been counted stays, also while nobody looks.
        self.watcher = RequestWatcher()
        self._gate = gate
        self._turn = turn
        self._wanted = 0
        # Who is told of each request, and whether by all of it.
        self._listeners: dict[Listener, bool] = {}

    def begin(self) -> None:
        self._wanted += 1
        if self._wanted == 1:
            self._gate.watch(self.watcher)
            self._turn.is_watched = True

    def end(self) -> None:
        self._wanted -= 1
        assert self._wanted >= 0
        if not self._wanted:
            self._gate.watch(None)
            self._turn.is_watched = False

    def listen(self, listener: Listener, *, to_frames: bool = False) -> None:
        """Tell ``listener`` of each request; ``to_frames``: it is shown all of it, not only its beginning."""
        assert listener not in self._listeners
        self._listeners[listener] = to_frames
        self._tell()
        self.begin()

    def leave(self, listener: Listener) -> None:
        del self._listeners[listener]
        self._tell()
        self.end()

    def _tell(self) -> None:
        self.watcher.listeners = tuple(self._listeners)
        self.watcher.keeps_frames = any(self._listeners.values())
