"""The processes of an example: started, listed, stopped or killed by the command that the user typed.

Each has its output in a file of its own. They do not get the terminal's Ctrl-C: the command gets it, and
stops them in order. If the command itself is killed, the kernel stops them (`setpriv --pdeathsig`).
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from examples.common.command import ROOT

_END_WITH_PARENT = ("setpriv", "--pdeathsig", "TERM", "--")


class Processes:
    """The child processes of this command, by name. Use from the main thread only."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        # Exit codes of those that are gone: negative for a signal, as subprocess has it.
        self.ended: dict[str, int] = {}
        logs.mkdir(parents=True, exist_ok=True)

    def start(self, name: str, command: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        """Start `command` in the repository's root. Its stdout and stderr go to `NAME.log`."""
        assert name not in self.running, f"{name} runs already"
        with self.log(name).open("ab") as output:
            self.running[name] = subprocess.Popen(
                [*_END_WITH_PARENT, *command],
                cwd=ROOT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def log(self, name: str) -> Path:
        """Where the output of a process goes."""
        return self.logs / f"{name}.log"

    def kill(self, name: str) -> None:
        """SIGKILL: the process has no time for a farewell. Waits until it is gone."""
        process = self.running.pop(name)
        process.kill()
        self.ended[name] = process.wait()

    def stop(self, *names: str, timeout_s: float = 10.0) -> None:
        """SIGTERM to those named (all of them without names), then wait; who does not listen is killed."""
        going = {name: self.running.pop(name) for name in names or tuple(self.running)}
        for process in going.values():
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        deadline = time.monotonic() + timeout_s
        for name, process in going.items():
            try:
                self.ended[name] = process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                # Not the signal's number: that a stop had to become a kill is a finding.
                self.ended[name] = 1

    def fallen(self) -> dict[str, int]:
        """Those that ended without being asked since the last look, with their exit codes."""
        gone = {name: code for name, process in self.running.items() if (code := process.poll()) is not None}
        for name, code in gone.items():
            del self.running[name]
            self.ended[name] = code
        return gone

    def tail(self, name: str, lines: int = 20) -> str:
        """The end of what a process wrote."""
        path = self.log(name)
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
