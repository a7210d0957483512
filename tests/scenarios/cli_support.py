"""Run `ottla` as a user does: a process, its standard input, what it prints and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any, NamedTuple

from cli_forks import forks

from json_fields import check

# Some commands wait for a cluster: this is for what hangs.
TIMEOUT_S = 150


class Ran(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def json_lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


def _documents(ran: Ran) -> list[Any]:
    """What was printed: one document, or many, each on a line."""
    try:
        return [ran.json]
    except ValueError:
        return ran.json_lines


class Ottla:
    """The command line against one broker."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self.environment = {**os.environ, "OTTLA_BOOTSTRAP": bootstrap, "NO_COLOR": "1"}

    def try_(self, *arguments: str, stdin: bytes = b"") -> Ran:
        """Run a command, however it ends."""
        code, out, err = forks().run(arguments, stdin, self.environment, TIMEOUT_S)
        ran = Ran(code, out.decode("utf-8", "surrogateescape"), err.decode())
        assert "Traceback" not in ran.err, ran.err
        if "--json" in arguments and ran.code == 0 and ran.out:
            check(arguments, _documents(ran))
        return ran

    def __call__(self, *arguments: str, stdin: bytes = b"") -> Ran:
        """Run a command that must succeed, and say nothing on stderr."""
        ran = self.try_(*arguments, stdin=stdin)
        assert (ran.code, ran.err) == (0, ""), (arguments, ran)
        return ran

    def fails(self, code: int, *arguments: str, stdin: bytes = b"") -> Ran:
        """Run a command that must end with ``code``, and say why in one line."""
        ran = self.try_(*arguments, stdin=stdin)
        assert ran.code == code, (arguments, ran)
        assert ran.err.startswith("ottla: ")
        assert ran.err.count("\n") == 1, ran.err
        return ran

    def start(self, *arguments: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        """Start a command that goes on by itself."""
        return subprocess.Popen(
            [sys.executable, "-m", "ottla.cli.main", *arguments],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
        )
