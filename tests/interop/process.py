"""A real `ottla serve` process for a test, and waiting for conditions with a deadline.

The process listens on a free port unless told, keeps its data under a directory of the caller, and its
stdout and stderr go to files beside that directory, so that nothing blocks on a full pipe.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from interop.raw import RawClient

T = TypeVar("T")

READY = re.compile(r"^ottla: listening on (\S+):(\d+)$", re.MULTILINE)
# Longer than the slowest machine takes: what hangs is to fail.
START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 60.0

FAST_SETTINGS: Mapping[str, str] = {
    "group.initial.rebalance.delay.ms": "0",
    "offsets.topic.num.partitions": "4",
}


def wait_until(
    condition: Callable[[], T], timeout_s: float = 150.0, what: str = "the condition", pause_s: float = 0.02
) -> T:
    """The first truthy value of `condition`; fails the test after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen within {timeout_s} s (last value: {value!r})")
        time.sleep(pause_s)


class BrokerProcess:
    """One broker process over one data directory; can be killed and started again on the same port."""

    def __init__(
        self,
        directory: Path,
        settings: Mapping[str, str] | None = None,
        *,
        data: Path | None = None,
        files_max: int | None = None,
        file_size_max: int | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        self.arguments = tuple(arguments)
        self.directory = directory
        self.data = data or directory / "data"
        self.settings = {**FAST_SETTINGS, **(settings or {})}
        # Another one has another installation; what is in its environment beside ours.
        self.python = sys.executable
        self.environment: Mapping[str, str] = {}
        # What Python runs; a test may put something around it.
        self.program: Sequence[str] = ("-m", "ottla.cli.main")
        self.files_max = files_max
        self.file_size_max = file_size_max
        self.host, self.port = "127.0.0.1", 0
        self.process: subprocess.Popen[bytes] | None = None
        self._starts = 0

    @property
    def bootstrap(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> BrokerProcess:
        """Start (again, on the same port) and wait for the line that says it serves."""
        self.spawn()
        return self.wait_ready()

    def spawn(self) -> None:
        """Start the process, and do not wait for it."""
        assert self.process is None
        self.directory.mkdir(parents=True, exist_ok=True)
        self._starts += 1
        command = ["prlimit"]
        if self.files_max is not None:
            command += [f"--nofile={self.files_max}"]
        if self.file_size_max is not None:
            command += [f"--fsize={self.file_size_max}:"]
        command = [*command, "--"] if len(command) > 1 else []
        command += [self.python, *self.program, "serve", "--data", str(self.data)]
        if "listeners" not in self.settings:
            command += ["--listen", f"{self.host}:{self.port}"]
        command += self.arguments
        for name, value in self.settings.items():
            command += ["--set", f"{name}={value}"]
        with self._file("stdout").open("wb") as stdout, self._file("stderr").open("wb") as stderr:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **self.environment},
            )

    def wait_ready(self) -> BrokerProcess:
        """Wait for the line that says it serves."""
        assert self.process is not None
        out = self._file("stdout")
        deadline = time.monotonic() + START_TIMEOUT_S
        while not (ready := READY.search(out.read_text())):
            if self.process.poll() is not None:
                raise AssertionError(f"broker ended with {self.process.returncode} at start:\n{self.log()}")
            if time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"broker not ready within {START_TIMEOUT_S} s:\n{self.log()}")
            time.sleep(0.005)
        self.port = int(ready[2])
        return self

    def _file(self, kind: str) -> Path:
        return self.directory / f"broker.{self._starts}.{kind}"

    def log(self) -> str:
        """What this start of the broker wrote to stderr so far."""
        return self._file("stderr").read_text(errors="replace")

    def log_lines(self) -> list[str]:
        return self.log().splitlines()

    def lines_with(self, text: str) -> list[str]:
        """The whole lines of the log that have ``text`` in them: others come whenever the broker likes."""
        return [line for line in self.log().split("\n")[:-1] if text in line]

    def heard(self) -> None:
        """Return when the broker has taken up what was sent before, over whichever connection.

        What has come is read in one turn of its loop: the first answer may be of the same turn, the second
        is of a later one.
        """
        with RawClient(self.bootstrap) as client:
            for _ in range(2):
                client.call("ApiVersions", 0)

    def cpu_s(self) -> float:
        """The CPU time of the process since it was started."""
        user, system = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def rss_bytes(self) -> int:
        """Resident memory of the process (VmRSS)."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None, status
        return int(found[1]) * 1024

    def connections(self) -> int:
        """Open sockets of the process, listeners included."""
        folder = f"/proc/{self.pid}/fd"
        count = 0
        for fd in os.listdir(folder):
            try:
                count += os.readlink(f"{folder}/{fd}").startswith("socket:")
            except FileNotFoundError:
                continue
        return count

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(STOP_TIMEOUT_S)
            self.process = None

    def stop(self) -> int:
        """SIGTERM; the exit code. A broker that does not stop in time is killed and fails the test."""
        assert self.process is not None
        self.process.terminate()
        try:
            code = self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"broker did not stop on SIGTERM:\n{self.log()}") from None
        self.process = None
        return code

    def __enter__(self) -> BrokerProcess:
        return self.start()

    def __exit__(self, failure: object, *_: object) -> None:
        if self.process is None:
            return
        died = self.process.poll()
        if failure is not None or died is not None:
            self.kill()
            assert failure is not None, f"broker died with {died}:\n{self.log()}"
            return
        code = self.stop()
        assert code == 0, f"broker exited with {code}:\n{self.log()}"
