"""How commands reach the process that runs a local cluster: a lock on the folder, and a socket in it.

The first `ottla cluster up` of a folder holds the lock and listens on ``cluster.sock``. Other commands send
one line of JSON there, with the ``command`` that they ask for, and show the lines of the answer.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ottla.cli import output
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.local.layout import Request
from ottla.cli.local.supervisor import STATE_FILE, Say, Supervisor
from ottla.env.unix import LEFT_ALONE, short_path

LOCK_FILE = "cluster.lock"
SOCKET_FILE = "cluster.sock"
# How long a cluster may take to stop, or to begin to listen for requests, before a later command gives up.
BUSY_TIMEOUT_S = 60.0
BUSY_STEP_S = 0.05
REQUEST_BYTES_MAX = 1024 * 1024

UP, START, KILL, DOWN = "up", "start", "kill", "down"


@contextmanager
def locked(directory: Path) -> Iterator[bool]:
    """Whether we are the one command that runs the cluster there."""
    with (directory / LOCK_FILE).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def find_cluster(directory: Path) -> Path:
    """The folder of a cluster, as an absolute path. CliError where there is none."""
    directory = directory.resolve()
    if not (directory / STATE_FILE).is_file():
        raise CliError(
            f"--data {directory}: there is no cluster; 'ottla cluster up --data DIR' starts one",
            ExitCode.NOT_FOUND,
        )
    return directory


def _line(text: str) -> None:
    # Whoever reads us may have gone; the cluster goes on.
    with suppress(OSError):
        output.say(text, flush=True)


def _remark(text: str) -> None:
    with suppress(OSError):
        output.warn(text)


SAY = Say(_line, _remark)


# -- the process that runs the cluster ----------------------------------------------------------------


async def listen(supervisor: Supervisor, stop: Callable[[], None]) -> asyncio.Server:
    """Do what other commands ask for; ``stop`` has the cluster stopped."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def tell(**message: Any) -> None:
            writer.write(json.dumps(message).encode() + b"\n")

        say = Say(lambda text: tell(line=text), lambda text: tell(remark=text))
        try:
            await _obey(supervisor, stop, json.loads(await reader.readline()), say)
            tell(exit=int(ExitCode.OK))
        except CliError as error:
            tell(error=str(error), exit=int(error.code))
        except (ValueError, TypeError, KeyError) as error:
            tell(error=f"the running cluster does not understand: {error}", exit=int(ExitCode.FAILED))
        finally:
            writer.close()

    listening = socket.socket(socket.AF_UNIX)
    with suppress(FileNotFoundError):
        (supervisor.directory / SOCKET_FILE).unlink()
    mask = os.umask(0o177)
    try:
        with short_path(supervisor.directory, SOCKET_FILE) as path:
            listening.bind(path)
    finally:
        os.umask(mask)
    return await asyncio.start_unix_server(answer, sock=listening, limit=REQUEST_BYTES_MAX, **LEFT_ALONE)


async def _obey(supervisor: Supervisor, stop: Callable[[], None], asked: dict[str, Any], say: Say) -> None:
    command = asked.pop("command", UP)
    if command == UP:
        await supervisor.bring_up(Request.from_json(asked), say)
    elif command == START:
        await supervisor.start_nodes(asked["nodes"], say)
    elif command == KILL:
        await supervisor.end_nodes(asked["nodes"], say, clean=asked["clean"])
    elif command == DOWN:
        supervisor.stops_all = True
        SAY.remark("'ottla cluster down' stops the cluster")
        stop()
    else:
        raise ValueError(f"command {command!r}")


# -- another command ----------------------------------------------------------------------------------


def ask(directory: Path, asked: Mapping[str, Any], note: str | None = None) -> int | None:
    """Have the running command do it; its exit code. CliError for what it refuses.

    None where that one does not listen: there is none, or it is coming or going. ``note`` is said first.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            with short_path(directory, SOCKET_FILE) as path:
                connection.connect(path)
            connection.sendall(json.dumps(asked).encode() + b"\n")
            stream = connection.makefile("rb")
            first = stream.readline()
        except (FileNotFoundError, ConnectionError):
            return None
        if not first:
            return None
        if note is not None:
            output.note(note)
        for line in (first, *stream):
            try:
                message = {**json.loads(line)}
            except (ValueError, TypeError, RecursionError) as error:
                raise CliError(
                    f"{directory / SOCKET_FILE}: what listens there is no cluster: {error}"
                ) from None
            if "line" in message:
                _line(str(message["line"]))
            if "remark" in message:
                _remark(str(message["remark"]))
            if "error" in message:
                raise CliError(str(message["error"]), exit_code(message.get("exit")))
            if "exit" in message:
                return exit_code(message["exit"])
    raise CliError(f"the cluster in {directory} was stopped meanwhile")


def exit_code(value: object) -> ExitCode:
    """The exit code of a command that did it for us."""
    return next((code for code in ExitCode if code == value), ExitCode.FAILED)
