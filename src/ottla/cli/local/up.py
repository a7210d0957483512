"""The process behind `ottla cluster up`: the first for a folder runs the cluster, a later one asks it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from ottla.cli import output
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.local import control
from ottla.cli.local.control import SAY
from ottla.cli.local.layout import Request, check
from ottla.cli.local.secure import ADMIN, EXAMPLE, client_properties
from ottla.cli.local.supervisor import LOGS, Supervisor, find_etcd
from ottla.extras import require

DETACHED_LOG = "cluster-up.log"
DETACHED_STEP_S = 0.02
READY = "ottla: cluster ready"
# How the lines on stdout begin; the others of a detached command are remarks.
LINES = ("ottla: node ", "ottla: clients come in by ", READY)
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def ottla_command() -> list[str]:
    """How `ottla` is called, from anywhere, with this Python and this ottla."""
    script = Path(sys.executable).parent / "ottla"
    return [str(script)] if os.access(script, os.X_OK) else [sys.executable, "-m", "ottla.cli.main"]


def up(directory: Path, request: Request, serve: Sequence[str] | None = None) -> int:
    """Run the cluster in ``directory`` until SIGTERM or Ctrl-C, or have the command do it that runs it now.

    The exit code. ``serve`` is for tests: the program that stands for `ottla serve`.
    """
    check(request)
    require("the command 'cluster up'", "cluster")
    directory = _made(directory)
    deadline_s = time.monotonic() + control.BUSY_TIMEOUT_S
    while True:
        with control.locked(directory) as locked:
            if locked:
                supervisor = Supervisor(directory, find_etcd(), serve or [*ottla_command(), "serve"], SAY)
                supervisor.load()
                try:
                    return asyncio.run(_run(supervisor, request))
                finally:
                    # Whoever asks again, while Python ends, gets the exit code all the same.
                    for signum in STOP_SIGNALS:
                        signal.signal(signum, signal.SIG_IGN)
        note = f"the cluster in {directory} runs already: what of it is dead is started there"
        asked = {"command": control.UP, **request.to_json()}
        if (code := control.ask(directory, asked, note)) is not None:
            return code
        if time.monotonic() > deadline_s:
            raise CliError(f"another 'ottla cluster up' is stopping the cluster in {directory}; try again")
        time.sleep(control.BUSY_STEP_S)


def _made(directory: Path) -> Path:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise CliError(f"--data {directory}: it is not a directory", ExitCode.USAGE) from None
    return directory.resolve()


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
    server = await control.listen(supervisor, ask_to_stop)
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
            (supervisor.directory / control.SOCKET_FILE).unlink()
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


# -- a cluster in the background ----------------------------------------------------------------------


def detach(directory: Path, request: Request) -> int:
    """Run the cluster in a process of its own, and return once it is ready. CliError where it does not start.

    It writes to ``logs/cluster-up.log`` of the folder.
    """
    check(request)
    directory = _made(directory)
    (directory / LOGS).mkdir(exist_ok=True)
    log = directory / LOGS / DETACHED_LOG
    command = [*ottla_command(), "cluster", "up", "--data", str(directory), *request.to_words()]
    with log.open("ab") as file, log.open("rb") as said:
        said.seek(0, os.SEEK_END)
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )
        try:
            last = _relay(process, said)
        except KeyboardInterrupt:
            process.terminate()
            raise
    if last == READY:
        where = f"--data {directory}"
        output.note(f"'ottla cluster status {where}' shows it, 'ottla cluster down {where}' stops it")
        return ExitCode.OK
    why = last.removeprefix("ottla: ") or f"the cluster does not start: see {log}"
    raise CliError(why, control.exit_code(process.wait()))


def _relay(process: subprocess.Popen[bytes], said: BinaryIO) -> str:
    """Show what a detached command says until the cluster is ready, or it ends; the last line, which is not
    shown where it is an error."""
    rest, last = "", ""
    while True:
        ended = process.poll() is not None
        text = said.read().decode(errors="replace")
        *lines, rest = (rest + text).split("\n")
        for line in lines:
            if last and last != READY and not last.startswith(LINES):
                SAY.remark(last.removeprefix("ottla: "))
            last = line
            if line.startswith(LINES):
                SAY.line(line)
            if line == READY:
                return line
        if ended:
            return last
        time.sleep(DETACHED_STEP_S)
