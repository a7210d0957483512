"""Users' programs as processes of this machine: started, killed, paused, and none of them left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from ottla.explore.real import guardian
from ottla.explore.real.launch import packed
from ottla.explore.real.output import Output

Main = Callable[..., Any] | Sequence[str | Path]
# A program that ended, if it is to run again, is started again after so long, as by a service manager.
RESTART_S = 1.0
# How long it may take until all processes of a world are gone, once they are killed.
GONE_S = 30.0


class Guard:
    """Has a process of its own end whatever was started, also if this process is killed (see `guardian`)."""

    def __init__(self, folder: Path | None) -> None:
        """``folder``: where what programs print is kept. None: in one that goes with the world."""
        self.mark = uuid4().hex
        self.folder = Path(tempfile.mkdtemp(prefix="ottla-explore-")) if folder is None else folder
        command = [sys.executable, "-I", "-S", guardian.__file__, self.mark]
        self._guardian = subprocess.Popen(
            [*command, "" if folder is not None else str(self.folder)],
            stdin=subprocess.PIPE,
            # Ctrl-C is for the test alone.
            start_new_session=True,
            text=True,
        )

    def note(self, sign: str, group: int) -> None:
        """A process group runs (``+``) or is over (``-``)."""
        pipe = self._guardian.stdin
        assert pipe is not None
        pipe.write(f"{sign}{group}\n")
        pipe.flush()

    def close(self) -> None:
        """Return when all that was started is gone."""
        pipe = self._guardian.stdin
        assert pipe is not None
        pipe.close()
        self._guardian.wait(GONE_S)


class Program:
    """A command, or a function in a process of its own, with a process group of its own.

    A fault that has killed it starts it again. ``restarts``: so does an exit code other than 0; otherwise
    such an exit ends the run. A program that has ended with 0 is done.
    """

    def __init__(
        self,
        name: str,
        main: Main,
        arguments: tuple[Any, ...],
        guard: Guard,
        tell: Callable[[str], None],
        *,
        restarts: bool,
        environment: Mapping[str, str] | None = None,
        cwd: Path | str | None = None,
    ) -> None:
        self.name = name
        self.restarts = restarts
        self.starts = 0
        self.done = False
        # The exit codes that it ended with on its own, without 0. Negative: the signal, as in `subprocess`.
        self.failures: list[int] = []
        self._output = Output(guard.folder / f"{name}.out")
        self._guard = guard
        self._tell = tell
        self._cwd = cwd
        # What is printed before a kill is to be seen, also if it goes to a file.
        self._environment = {
            **os.environ,
            "PYTHONUNBUFFERED": "1",
            **(environment or {}),
            guardian.MARK_VARIABLE: guard.mark,
        }
        self._command = _command_of(main, arguments, guard.folder / f"{name}.function")
        self._process: subprocess.Popen[bytes] | None = None
        self._paused = False
        self._closed = False
        # When it is to be started again, after an error.
        self._again_s: float | None = None

    def __repr__(self) -> str:
        return f"{self.name}.{self.starts}"

    @property
    def running(self) -> bool:
        """Whether it has a process, which may be paused."""
        return self._process is not None

    @property
    def output(self) -> Path:
        """The file with what it has printed, of all of its starts: of much the last of it."""
        return self._output.path

    @property
    def pid(self) -> int:
        """Of its process now. RuntimeError: it has none."""
        if self._process is None:
            raise RuntimeError(f"the program {self.name} does not run")
        return self._process.pid

    def start(self) -> None:
        """Begin, if it does not run and is not done. OSError: there is no such command."""
        self._again_s = None
        if self.running or self.done or self._closed:
            return
        self.starts += 1
        self._output.write(f"--- {self}\n".encode())
        ours, theirs = os.pipe()
        try:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=theirs,
                stderr=subprocess.STDOUT,
                env=self._environment,
                cwd=self._cwd,
                start_new_session=True,
            )
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        self._guard.note("+", self._process.pid)
        self._output.read_from(ours)
        self._tell(f"{self} starts")

    def kill(self) -> None:
        """SIGKILL to all of its process group, at whatever it does. It stays dead until ``start``."""
        self._again_s = None
        if self._process is not None:
            self._tell(f"{self} is killed")
            self._end()

    def close(self) -> None:
        """`kill` it, for good."""
        self._closed = True
        self.kill()

    def pause(self) -> None:
        """SIGSTOP: time goes by, and its sessions may end."""
        if self.running and not self._paused:
            self._paused = True
            self._tell(f"{self} is paused")
            self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        if self.running and self._paused:
            self._paused = False
            self._tell(f"{self} goes on")
            self._signal(signal.SIGCONT)

    def look(self, now_s: float) -> int | None:
        """Notice its end, and start it again where that is due. The exit code by which it fails a run."""
        if self._process is None:
            if self._again_s is not None and now_s >= self._again_s:
                self.start()
            return None
        # It stays as it is, so that its group cannot be another one's yet.
        if os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return None
        code = self._end()
        if code == 0:
            self.done = True
            self._tell(f"{self} has ended")
            return None
        self.failures.append(code)
        self._tell(f"{self} ended with {code}")
        if not self.restarts:
            return code
        self._again_s = now_s + RESTART_S
        return None

    def last_lines(self, count: int) -> list[str]:
        """What it printed last."""
        return self._output.last_lines(count)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def _end(self) -> int:
        """Have all of its group be gone. The exit code of its first process."""
        assert self._process is not None
        process, self._process, self._paused = self._process, None, False
        os.killpg(process.pid, signal.SIGKILL)
        code = process.wait(GONE_S)
        self._output.finish()
        self._guard.note("-", process.pid)
        return code


def _command_of(main: Main, arguments: tuple[Any, ...], file: Path) -> list[str]:
    """TypeError where it is neither a command nor a function that another process can find."""
    if isinstance(main, str):
        raise TypeError(f"{main!r} cannot be a program: give the command as a list, {main.split()!r}")
    if isinstance(main, Sequence):
        return [str(part) for part in (*main, *arguments)]
    file.write_bytes(packed(main, arguments))
    return [sys.executable, "-m", "ottla.explore.real.launch", str(file)]
