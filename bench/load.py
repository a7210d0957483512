"""Runs the load program, `load.c`, which is compiled when it is first needed.

It costs little for a request, so that on a machine with two processors the broker's limit shows and not the
client's. Where there is no C compiler there is no load program.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from asking import Refused
from ottla.cli.bench import processes

SOURCE = Path(__file__).with_name("load.c")
# What it may need behind the time that it measures: to connect, and for what is under way in the end.
SLACK_S = 60.0
Figures = dict[str, Any]


class Target(NamedTuple):
    """A request, its size in front, and where it goes."""

    host: str
    port: int
    data: bytes


def compiler() -> str | None:
    """The C compiler of this machine, if there is one."""
    return next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)


@dataclass(frozen=True, slots=True)
class Program:
    """The compiled load program, and a folder for what it is given."""

    path: Path
    folder: Path

    def ask(
        self,
        targets: Sequence[Target],
        connections: int,
        seconds: float,
        *,
        in_flight: int = 1,
        rate: float = 0,
        warmup_s: float = 0.5,
        error_at: int = -1,
        brokers: Iterable[int] = (),
    ) -> Running:
        """Send requests on so many connections. ``rate`` is in requests a second of all of them, 0 as fast as
        they are answered; ``brokers`` are processes, whose CPU time is measured meanwhile."""
        words = ["ask", self._file(targets), connections, in_flight, rate, warmup_s, seconds, error_at]
        return Running(self.path, words, frozenset(brokers), warmup_s + seconds + SLACK_S)

    def fan(
        self,
        produce: Target,
        fetch: Target,
        consumers: int,
        seconds: float,
        *,
        rate: float,
        places: tuple[int, int, int],
        session: tuple[int, int] = (-1, -1),
        warmup_s: float = 0.5,
        brokers: Iterable[int] = (),
    ) -> Running:
        """One producer, so many consumers. ``places``: the error in a response to the Produce, the end in one
        to the Fetch, the offset in the Fetch. ``session``: its session's id in the Fetch, in a response."""
        words = ["fan", self._file([produce, fetch]), consumers, rate, warmup_s, seconds, *places, *session]
        return Running(self.path, words, frozenset(brokers), warmup_s + seconds + SLACK_S)

    def _file(self, targets: Sequence[Target]) -> str:
        with tempfile.NamedTemporaryFile(dir=self.folder, suffix=".requests", delete=False) as file:
            for host, port, data in targets:
                file.write(f"{socket.gethostbyname(host)} {port} {len(data)}\n".encode() + data)
        return file.name


def build(folder: Path) -> Program:
    """Compile it into a folder, where that has not been done. Refused where it cannot be."""
    path = folder / "load"
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.stat().st_mtime < SOURCE.stat().st_mtime:
        cc = compiler()
        if cc is None:
            raise Refused("no C compiler (cc, gcc, clang) for bench/load.c")
        command = [cc, "-O2", "-o", str(path), str(SOURCE)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Refused(f"bench/load.c does not compile: {done.stderr.strip()[-300:]}")
    return Program(path, folder)


class Running:
    """A load that was started. ``result`` waits for its end."""

    def __init__(
        self, path: Path, words: Sequence[object], brokers: frozenset[int], timeout_s: float
    ) -> None:
        self._file, self._brokers, self._timeout_s = Path(str(words[1])), brokers, timeout_s
        self._process = subprocess.Popen(
            [str(path), *map(str, words)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def result(self) -> Figures:
        """What was measured, with ``broker_cpu_s``, and ``broker_memory_mb`` in the end, where the broker's
        processes can be seen. Refused where the load failed."""
        assert self._process.stdout is not None
        try:
            measures = self._process.stdout.readline() == "measuring\n"
            before = processes.usage(self._brokers)
            output, errors = self._process.communicate(timeout=self._timeout_s)
            after = processes.usage(self._brokers)
        except subprocess.TimeoutExpired:
            raise Refused(f"the load did not end within {self._timeout_s:.0f} s") from None
        finally:
            self._process.kill()
            self._process.wait()
            self._file.unlink(missing_ok=True)
        if not measures or not output.startswith("{"):
            raise Refused(errors.strip() or "the load failed")
        figures: Figures = json.loads(output)
        if figures["failed"]:
            raise Refused(f"{figures['failed']} requests were refused, one with error {figures['error']}")
        if before is not None and after is not None:
            figures["broker_cpu_s"] = after.cpu_s - before.cpu_s
            figures["broker_memory_mb"] = after.memory_bytes / 1e6
        return figures
