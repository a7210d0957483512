"""A terminal: a process runs on its pseudo-terminal, and its screen is what somebody would have seen."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from typing import IO

ROWS, COLUMNS = 50, 100
TIMEOUT_S = 150

# Bars show at once: nobody waits a second to see whether they stand in the way.
AT_ONCE = "from ottla.cli import output; output.PROGRESS_DELAY_S = output.PROGRESS_STEP_S = 0.0\n"
COMMAND = f"{AT_ONCE}from ottla.cli.main import main; main()"

# What moves a cursor or clears something, or else is for colours and the cursor's looks.
CONTROL = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])")


class Screen:
    """What is on a terminal's lines, for the few things that programs send it. It never scrolls away."""

    def __init__(self, columns: int = COLUMNS) -> None:
        self.lines = [""]
        self._columns = columns
        self._row = self._column = 0

    def feed(self, text: str) -> None:
        """What a program writes."""
        at = 0
        while at < len(text):
            if found := CONTROL.match(text, at):
                self._control(found[1], found[2])
                at = found.end()
                continue
            self._character(text[at])
            at += 1

    def _character(self, char: str) -> None:
        if char == "\r":
            self._column = 0
        elif char == "\n" or self._column == self._columns:
            self._row += 1
            if char != "\n":
                self._column = 0
            if self._row == len(self.lines):
                self.lines.append("")
        if char not in "\r\n":
            line = self.lines[self._row].ljust(self._column)
            self.lines[self._row] = line[: self._column] + char + line[self._column + 1 :]
            self._column += 1

    def _control(self, numbers: str, kind: str) -> None:
        if kind == "A":
            self._row = max(0, self._row - int(numbers or 1))
        elif kind == "K":
            line = self.lines[self._row]
            self.lines[self._row] = "" if numbers == "2" else line[: self._column]
        else:
            assert kind in "mhl", f"a control that this terminal does not know: {numbers}{kind}"

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.lines).rstrip("\n")


class Terminal:
    """A process whose stderr is a terminal, and so are its stdout and stdin where nothing else is said."""

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        *,
        code: str = COMMAND,
        stdin: int | IO[bytes] | None = subprocess.DEVNULL,
        stdout: IO[bytes] | None = None,
        columns: int = COLUMNS,
    ) -> None:
        self._columns = columns
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            stdin=slave if stdin is None else stdin,
            stdout=slave if stdout is None else stdout,
            stderr=slave,
            env={**environment, "TERM": "xterm", "COLUMNS": str(columns)},
        )
        os.close(slave)
        self.written = b""

    def type(self, text: str) -> None:
        """What somebody types."""
        os.write(self._master, text.encode())

    def read_until(self, wanted: str | None) -> None:
        """Read until that is written, or to the end."""
        deadline_s = time.monotonic() + TIMEOUT_S
        while wanted is None or wanted.encode() not in self.written:
            ready, _, _ = select.select([self._master], [], [], deadline_s - time.monotonic())
            assert ready, f"{wanted!r} is not there after {TIMEOUT_S} s: {self.written!r}"
            try:
                piece = os.read(self._master, 65536)
            except OSError:
                # EIO: everybody has closed the other end.
                assert wanted is None, self.written
                break
            if not piece:
                break
            self.written += piece

    def screen(self, code: int = 0) -> str:
        """What is on the screen when the process has ended, with this exit code."""
        self.read_until(None)
        assert self.process.wait(TIMEOUT_S) == code, self.written
        os.close(self._master)
        screen = Screen(self._columns)
        screen.feed(self.written.decode())
        return screen.text
