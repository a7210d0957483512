"""What a program prints: kept in a file, of much only the last of it."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

# Of what a program prints, so much is kept.
PRINTED_BYTES_MAX = 4 * 1024 * 1024
# When that is too much, so much stays; and so much is looked at for last lines.
TAIL_BYTES = 64 * 1024
# How long the rest of what was printed may take, once a program has ended. A process that it has left behind
# may have the pipe for longer.
REST_S = 2.0


class Output:
    """The file of one program. A thread reads each pipe, so that no program waits for the test."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._reader: threading.Thread | None = None

    def write(self, data: bytes) -> None:
        """Append, and leave out the oldest if that is too much."""
        # A world that has ended has removed it.
        with self._lock, suppress(FileNotFoundError):
            with self.path.open("ab") as file:
                file.write(data)
                size = file.tell()
            if size > PRINTED_BYTES_MAX:
                self.path.write_bytes(self._tail())

    def read_from(self, pipe: int) -> None:
        """Keep what comes from a pipe, which is closed at its end."""
        self._reader = threading.Thread(target=self._read, args=(pipe,), name="output", daemon=True)
        self._reader.start()

    def finish(self) -> None:
        """Wait for the rest, since who wrote it has ended."""
        if self._reader is not None:
            self._reader.join(REST_S)

    def last_lines(self, count: int) -> list[str]:
        """What was printed last."""
        with self._lock, suppress(FileNotFoundError):
            return self._tail().decode(errors="replace").splitlines()[-count:]
        return []

    def _read(self, pipe: int) -> None:
        with os.fdopen(pipe, "rb", buffering=0) as file:
            while data := file.read(TAIL_BYTES):
                self.write(data)

    def _tail(self) -> bytes:
        with self.path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            return file.read()
