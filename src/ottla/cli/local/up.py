"""The process behind `ottla cluster up`: the first for a folder runs the cluster, a later one asks it.

The first holds a lock on the folder and listens on the socket ``cluster.sock`` in it. A later one sends its
request there, shows what is answered, and ends once the cluster is ready.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ottla.cli import output
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.local.layout import Request, check
from ottla.cli.local.secure import ADMIN, EXAMPLE, client_properties
from ottla.cli.local.supervisor import Say, Supervisor, find_etcd
from ottla.env.unix import short_path

LOCK_FILE = "cluster.lock"
SOCKET_FILE = "cluster.sock"
# How long a cluster may take to stop, or to begin to listen for requests, before a later command gives up.
BUSY_TIMEOUT_S = 60.0
BUSY_STEP_S = 0.05
REQUEST_BYTES_MAX = 1024 * 1024
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def serve_command() -> list[str]:
    """How `ottla serve` is called, from anywhere, with this Python and this ottla."""
    script = Path(sys.executable).parent / "ottla"
    if os.access(script, os.X_OK):
        return [str(script), "serve"]
    return [sys.executable, "-m", "ottla.cli.main", "serve"]


def up(directory: Path, request: Request, serve: Sequence[str] | None = None) -> int:
    """Run the cluster in ``directory`` until SIGTERM or Ctrl-C, or have the command do it that runs it now.

    The exit code. ``serve`` is for tests: the program that stands for `ottla serve`.
    """
    check(request)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise CliError(f"--data {directory}: it is not a directory", ExitCode.USAGE) from None
    directory = directory.resolve()
    deadline_s = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        with _locked(directory) as locked:
            if locked:
                supervisor = Supervisor(directory, find_etcd(), serve or serve_command(), SAY)
                supervisor.load()
                try:
                    return asyncio.run(_run(supervisor, request))
                finally:
                    # Whoever asks again, while Python ends, gets the exit code all the same.
                    for signum in STOP_SIGNALS:
                        signal.signal(signum, signal.SIG_IGN)
        if (code := _ask(directory, request)) is not None:
            return code
        if time.monotonic() > deadline_s:
            raise CliError(f"another 'ottla cluster up' is stopping the cluster in {directory}; try again")
        time.sleep(BUSY_STEP_S)


@contextmanager
def _locked(directory: Path) -> Iterator[bool]:
    """Whether we are the one command that runs the cluster there."""
    with (directory / LOCK_FILE).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _line(text: str) -> None:
    # Whoever reads us may have gone; the cluster goes on.
    with suppress(OSError):
        output.say(text, flush=True)


def _remark(text: str) -> None:
    with suppress(OSError):
        output.warn(text)


SAY = Say(_line, _remark)


# -- the first command --------------------------------------------------------------------------------


async def _run(supervisor: Supervisor, request: Request) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def ask_to_stop() -> None:
        if stop.is_set():
            loop.create_task(supervisor.kill())  # noqa: RUF006 - stop() waits for what it does
        stop.set()

    def on_signal(*_: object) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(ask_to_stop)

    for signum in STOP_SIGNALS:
        if signum == signal.SIGHUP and signal.getsignal(signum) == signal.SIG_IGN:
            # nohup: it is to survive its terminal.
            continue
        # Not the loop's own way, which gives signals back their deadly effect as soon as it is closed.
        signal.signal(signum, on_signal)
    server = await _listen(supervisor)
    try:
        starting = asyncio.create_task(supervisor.bring_up(request, SAY))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait((starting, stopped), return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            _welcome(supervisor)
            await stopped
        for task in (starting, stopped):
            task.cancel()
        await asyncio.gather(starting, stopped, return_exceptions=True)
        output.note("stopping the nodes, then etcd; once more to kill them")
        return ExitCode.OK
    finally:
        server.close()
        with suppress(FileNotFoundError):
            (supervisor.directory / SOCKET_FILE).unlink()
        await supervisor.stop()


def _welcome(supervisor: Supervisor) -> None:
    output.note(f"logs are in {supervisor.directory}/logs; Ctrl-C stops the cluster; to try it:")
    output.note(f"  export OTTLA_BOOTSTRAP={supervisor.bootstrap}")
    if supervisor.secure:
        output.note(f"  export OTTLA_CLIENT_PROPERTIES={client_properties(supervisor.directory, ADMIN)}")
    output.note("  ottla cluster describe")
    if supervisor.secure:
        output.note(
            f"{EXAMPLE}, of {client_properties(supervisor.directory, EXAMPLE)}, may do nothing yet: "
            f"ottla acl add {EXAMPLE} --operation all --topic '*'"
        )


async def _listen(supervisor: Supervisor) -> asyncio.Server:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def tell(**message: Any) -> None:
            writer.write(json.dumps(message).encode() + b"\n")

        say = Say(lambda text: tell(line=text), lambda text: tell(remark=text))
        try:
            request = Request.from_json(json.loads(await reader.readline()))
            await supervisor.bring_up(request, say)
            tell(exit=int(ExitCode.OK))
        except CliError as error:
            tell(error=str(error), exit=int(error.code))
        except (ValueError, TypeError) as error:
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
    return await asyncio.start_unix_server(answer, sock=listening, limit=REQUEST_BYTES_MAX)


def _exit_code(value: int) -> ExitCode:
    return next((code for code in ExitCode if code == value), ExitCode.FAILED)


# -- a later command ----------------------------------------------------------------------------------


def _ask(directory: Path, request: Request) -> int | None:
    """Have the running command do it; its exit code. CliError for what it refuses.

    None where that one does not listen: it is coming or going.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            with short_path(directory, SOCKET_FILE) as path:
                connection.connect(path)
            connection.sendall(json.dumps(request.to_json()).encode() + b"\n")
            stream = connection.makefile("rb")
            first = stream.readline()
        except (FileNotFoundError, ConnectionError):
            return None
        if not first:
            return None
        output.note(f"the cluster in {directory} runs already: what of it is dead is started there")
        for line in (first, *stream):
            message = json.loads(line)
            if "line" in message:
                _line(message["line"])
            if "remark" in message:
                _remark(message["remark"])
            if "error" in message:
                raise CliError(message["error"], _exit_code(message["exit"]))
            if "exit" in message:
                return int(message["exit"])
    raise CliError(f"the cluster in {directory} was stopped meanwhile")
