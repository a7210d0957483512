"""What cannot be simulated is refused, with the line that asked for it and what to use in its place.

Python tells its audit hooks before it opens a socket or starts a process, also for code in C. A hook cannot
be taken out again: it looks whether a program of a run is at work. Threads, sleeps and loops have no such
event in every version of Python; the functions for them are replaced.
"""

from __future__ import annotations

import _thread
import asyncio
import os
import signal
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Mapping
from functools import cache, wraps
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

import uvloop

from ottla.explore.programs import current, lines
from ottla.extras import line

THREAD = line("a thread of a program", "threads") + ", or use asyncio tasks"
SLEEP = "a real sleep holds all programs, and no virtual time goes by: use `await asyncio.sleep()`"
SOCKET = "real sockets do not reach the simulated network: use asyncio's streams or connections"
NAME = f"{SOCKET}, and `await asyncio.get_running_loop().getaddrinfo()` for an address alone"
PROCESS = "processes cannot be simulated: make it a program of the world, with `world.program()`"
LOOP = "a run has one event loop: await the coroutine, or give its function to `world.program()`"
TLS = "TLS is not simulated: use plain connections, for Kafka `security_protocol='PLAINTEXT'`"
UNIX = "unix sockets are not simulated: use a host and a port"
DATAGRAM = "datagrams are not simulated: use connections"
PIPE = "pipes are not simulated: use asyncio's queues inside a program, and connections between programs"
ABORT = "it would end the whole run: `raise SystemExit`, which ends the program"
KILL = "real signals reach the whole run: the fault `program-kill` ends programs"
ALARM = "alarms come in real time: use `asyncio.get_running_loop().call_later()`"
FACTORY = "tasks are made by the run: leave the task factory as it is"
# Audit events, and why they are refused.
REFUSED: Mapping[str, str] = {
    "socket.__new__": SOCKET,
    "socket.getaddrinfo": NAME,
    "socket.gethostbyaddr": NAME,
    "socket.gethostbyname": NAME,
    "socket.getnameinfo": NAME,
    "subprocess.Popen": PROCESS,
    "os.exec": PROCESS,
    "os.fork": PROCESS,
    "os.forkpty": PROCESS,
    "os.kill": KILL,
    "os.killpg": KILL,
    "os.posix_spawn": PROCESS,
    "os.system": PROCESS,
}
# Functions that are replaced, and why they are refused.
REPLACED: tuple[tuple[Any, str, str], ...] = (
    (threading.Thread, "start", THREAD),
    (_thread, "start_new_thread", THREAD),
    (time, "sleep", SLEEP),
    (asyncio, "run", LOOP),
    (asyncio.Runner, "run", LOOP),
    (asyncio, "new_event_loop", LOOP),
    (uvloop, "run", LOOP),
    (uvloop, "new_event_loop", LOOP),
    (BaseProcess, "start", PROCESS),
    (os, "abort", ABORT),
    (signal, "alarm", ALARM),
    (signal, "setitimer", ALARM),
    (signal, "raise_signal", KILL),
)
_OURS = __name__.rpartition(".")[0].rpartition(".")[0]
_STANDARD = sysconfig.get_path("stdlib") + os.sep
# Where packages are installed.
_PACKAGES = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


class NotSimulated(RuntimeError):
    """A program asked for something that cannot be simulated. ``str()`` names the line and the remedy."""


def refused(reason: str) -> NotSimulated:
    """The error to raise where a program asks for what is not simulated.

    The run fails by it, also where the program takes it for an error that it knows how to go on after.
    """
    frame = sys._getframe(1)
    error = NotSimulated(f"{_line(frame)}: {reason}")
    if not _is_imported(frame):
        current.refuse(error)
    return error


def _is_imported(frame: FrameType | None) -> bool:
    """Whether a package asks while it is imported: it tries what there is, as urllib3 does with IPv6."""
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith("<frozen importlib"):
            return True
        if lines.is_own(file):
            return False
        frame = frame.f_back
    return False


def _line(frame: FrameType | None) -> str:
    """The line that asked, neither ours nor of the standard library; if a package's, after the user's own."""
    asked = ""
    while frame is not None:
        file = frame.f_code.co_filename
        is_packaged = any(part in file for part in _PACKAGES)
        is_ours = str(frame.f_globals.get("__name__", "")).startswith(_OURS)
        # Frozen modules, which importing goes through, have no file.
        if not is_ours and (is_packaged or not file.startswith((_STANDARD, "<"))):
            here = f"{file}:{frame.f_lineno}"
            if not is_packaged:
                return f"{here} (by {asked})" if asked else here
            asked = asked or here
        frame = frame.f_back
    return asked or "?"


def _check(reason: str) -> None:
    if current.program() is None:
        return
    asking = str(sys._getframe(2).f_globals.get("__name__", ""))
    # What runs the runs may end a process in which a program is at work.
    if not asking.startswith(_OURS) or asking.startswith(__name__.rpartition(".")[0]):
        raise refused(reason)


def _hook(event: str, _arguments: tuple[object, ...]) -> None:
    reason = REFUSED.get(event)
    if reason is not None:
        _check(reason)


def _refusing(function: Callable[..., Any], reason: str) -> Callable[..., Any]:
    @wraps(function)
    def checked(*arguments: Any, **named: Any) -> Any:
        _check(reason)
        return function(*arguments, **named)

    return checked


def _leaving(real: Callable[[int], Any]) -> Callable[[int], Any]:
    """``os._exit()`` that ends the process of the program, which does nothing more."""

    @wraps(real)
    def leave(status: int) -> Any:
        process, loop = current.program(), current.loop()
        asking = str(sys._getframe(1).f_globals.get("__name__", ""))
        if process is None or loop is None or process.on_exit is None or asking.startswith(_OURS):
            return real(status)
        loop.pause(process)
        process.on_exit(SystemExit(status))
        raise SystemExit(status)

    return leave


@cache
def _listen() -> None:
    sys.addaudithook(_hook)


def install() -> None:
    """Refuse from now on, in programs of runs; a second call changes nothing."""
    for owner, name, reason in REPLACED:
        if not hasattr(getattr(owner, name), "__wrapped__"):
            setattr(owner, name, _refusing(getattr(owner, name), reason))
    if not hasattr(os._exit, "__wrapped__"):
        os._exit = _leaving(os._exit)  # type: ignore[assignment]
    _listen()
