"""`ottla serve` with whole command lines, for clusters whose nodes have several listeners."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from measuring import HANG_S

READY = re.compile(r"^ottla: listening on ", re.MULTILINE)


class Served:
    """One node; ``arguments`` of `ottla serve` may be others at each start."""

    def __init__(self, folder: Path, arguments: Sequence[str] = ()) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.arguments = tuple(arguments)
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0

    def spawn(self) -> None:
        assert self._process is None
        self._starts += 1
        with self._file("stdout").open("wb") as stdout, self._file("stderr").open("wb") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-u", "-m", "ottla.cli.main", "serve", *self.arguments],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
            )

    def wait_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + HANG_S
        while not READY.search(self._file("stdout").read_text()):
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.005)

    def restart(self) -> None:
        """In order, and return when it serves again."""
        self.stop(signal.SIGTERM)
        self.spawn()
        self.wait_ready()

    def stop(self, by: signal.Signals = signal.SIGKILL) -> None:
        if self._process is not None:
            self._process.send_signal(by)
            self._process.wait(HANG_S)
            self._process = None

    def log(self) -> str:
        """What this start of it wrote to stderr."""
        return self._file("stderr").read_text(errors="replace")

    def _file(self, kind: str) -> Path:
        return self.folder / f"node.{self._starts}.{kind}"
