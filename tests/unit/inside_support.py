"""Commands against an embedded broker, run in this process: milliseconds instead of a process each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest

from measuring import HANG_S
from ottla.cli import client, direct
from ottla.cli.app import run
from ottla.cli.errors import CliError, ExitCode
from ottla.testing import Broker


@contextmanager
def patient() -> Iterator[None]:
    """Have commands wait for answers as long as a machine may take that others keep busy."""
    with patch.object(direct, "READ_TIMEOUT_S", HANG_S), patch.object(client, "CONNECT_TIMEOUT_S", HANG_S):
        yield


class Inside:
    """The command line against one broker. ``user``: who logs in, with the password "secret"."""

    def __init__(self, broker: Broker, capsys: pytest.CaptureFixture[str], user: str | None = None) -> None:
        self._capsys = capsys
        # What the last command said beside its output.
        self.notes = ""
        self._given = ["--bootstrap", broker.bootstrap_servers]
        if user is not None:
            properties = broker.client_properties(user)
            del properties["bootstrap.servers"]
            self._given += [word for pair in properties.items() for word in ("-X", "=".join(pair))]

    def out(self, *words: str) -> str:
        """What a command prints that must succeed."""
        self._capsys.readouterr()
        with patient():
            code = run([*words, *self._given])
        printed = self._capsys.readouterr()
        assert code == ExitCode.OK, printed
        self.notes = printed.err
        return printed.out

    def rows(self, *words: str) -> list[list[str]]:
        """The words of each line that a command prints."""
        return [line.split() for line in self.out(*words).splitlines()]

    def json(self, *words: str) -> Any:
        """What a command prints with --json."""
        return json.loads(self.out(*words, "--json"))

    def fails(self, code: ExitCode, *words: str) -> str:
        """Why a command fails that must end with this code."""
        self._capsys.readouterr()
        with pytest.raises(CliError) as caught, patient():
            run([*words, *self._given])
        assert caught.value.code is code, caught.value
        text = str(caught.value)
        assert "\n" not in text
        return text
