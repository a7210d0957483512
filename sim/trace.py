"""What happened in a run, in order: hashed as a whole, the last of it kept to be shown."""

from __future__ import annotations

from collections import deque
from hashlib import blake2b
from typing import TextIO

from sim.loop import VirtualLoop

KEPT_LINES = 400


class Trace:
    """Two runs of a seed have the same hash, and if they do not, their files show where they part."""

    def __init__(self, loop: VirtualLoop, file: TextIO | None = None) -> None:
        self._loop = loop
        self._hash = blake2b(digest_size=12)
        self._file = file
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)
        self.count = 0

    def __call__(self, who: object, what: str) -> None:
        line = f"{self._loop.now_us / 1_000_000:.6f} {who} {what}"
        self.count += 1
        self._hash.update(line.encode())
        self.lines.append(line)
        if self._file is not None:
            print(line, file=self._file)

    def note(self, text: str) -> None:
        """Something to be shown beside, which is not part of the hash."""
        line = f"{self._loop.now_us / 1_000_000:.6f} . {text}"
        self.lines.append(line)
        if self._file is not None:
            print(line, file=self._file)

    def digest(self) -> str:
        return self._hash.hexdigest()
