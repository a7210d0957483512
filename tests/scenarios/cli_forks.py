"""Commands as processes that need not import anything: each is a fork of one that has imported it all.

A Python that starts with the command line's modules takes 0.3 s of CPU time, a fork next to none of it, and
tests run hundreds of commands. A command has its own standard streams, environment, folder and end, as any
process has; how Python itself starts is left to those tests that start an `ottla` of their own.

Run as a program, this is the process that forks: it takes requests from the socket that it was given.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import io
import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout, suppress
from functools import cache

# What commands import when they begin.
MODULES = ("confluent_kafka.admin", "rich.console", "rich.table")
_LENGTH = struct.Struct(">I")
_STATUS = struct.Struct(">i")


# ------------------------------------------------------------ who asks


class Forks:
    """The process that forks, and how to ask it. Threads may ask at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair()
        with theirs:
            # It ends with the socket, when this process does.
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                # As those of the commands: Python's own streams know what they were made for.
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, "NO_COLOR": "1"},
            )
        atexit.register(self.close)

    def close(self) -> None:
        self._socket.close()
        self._process.communicate(timeout=60)

    def run(
        self, arguments: Sequence[str], stdin: bytes, environment: Mapping[str, str], timeout_s: float
    ) -> tuple[int, bytes, bytes]:
        """Run a command: its exit code as `subprocess` has it, and what it printed. TimeoutExpired."""
        request = json.dumps([list(arguments), dict(environment), os.getcwd()]).encode()
        control, answers = socket.socketpair()
        input_read, input_write = os.pipe()
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        sent = [input_read, out_write, err_write, answers.fileno()]
        with control, answers:
            with self._lock:
                socket.send_fds(self._socket, [_LENGTH.pack(len(request))], sent)
                self._socket.sendall(request)
            for one in sent[:3]:
                os.close(one)
            answers.close()
            printed: dict[int, bytes] = {}
            threads = [
                threading.Thread(target=_write, args=(input_write, stdin)),
                *(threading.Thread(target=_read, args=(one, printed)) for one in (out_read, err_read)),
            ]
            for thread in threads:
                thread.start()
            control.settimeout(timeout_s)
            (pid,) = _STATUS.unpack(_exactly(control, _STATUS.size))
            try:
                (status,) = _STATUS.unpack(_exactly(control, _STATUS.size))
            except TimeoutError:
                os.kill(pid, 9)
                raise subprocess.TimeoutExpired(list(arguments), timeout_s) from None
            finally:
                for thread in threads:
                    thread.join()
        return status, printed[out_read], printed[err_read]


@cache
def forks() -> Forks:
    """The one of this process."""
    return Forks()


def _write(fd: int, content: bytes) -> None:
    with os.fdopen(fd, "wb", buffering=0) as file:
        view = memoryview(content)
        with suppress(BrokenPipeError):
            while view:
                view = view[file.write(view) :]


def _read(fd: int, printed: dict[int, bytes]) -> None:
    with os.fdopen(fd, "rb") as file:
        printed[fd] = file.read()


def _exactly(sock: socket.socket, count: int) -> bytes:
    content = b""
    while len(content) < count:
        chunk = sock.recv(count - len(content))
        if not chunk:
            raise EOFError("the process that forks has ended")
        content += chunk
    return content


# ------------------------------------------------------------ who forks


def _serve(requests: socket.socket) -> bool:
    """Whether this is the process of a command, now; if not, nobody will ask any more."""
    while True:
        head, fds, _, _ = socket.recv_fds(requests, _LENGTH.size, 4)
        if not head:
            return False
        arguments, environment, folder = json.loads(_exactly(requests, _LENGTH.unpack(head)[0]))
        if os.fork() == 0:
            requests.close()
            _attend(arguments, environment, folder, fds)
            return True
        for fd in fds:
            os.close(fd)
        # Those who have attended a command have ended by themselves.
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _attend(arguments: list[str], environment: dict[str, str], folder: str, fds: list[int]) -> None:
    """Fork the command, and tell its pid and how it ended. Returns in the command's process."""
    *streams, answers = fds
    pid = os.fork()
    if pid == 0:
        os.close(answers)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        sys.path[0] = folder
        sys.argv = ["ottla", *arguments]
        return
    for stream in streams:
        os.close(stream)
    os.write(answers, _STATUS.pack(pid))
    _, status = os.waitpid(pid, 0)
    os.write(answers, _STATUS.pack(os.waitstatus_to_exitcode(status)))
    os._exit(0)


def _main() -> None:
    from ottla import implementation
    from ottla.cli.main import main

    implementation.use_build()
    for name in MODULES:
        importlib.import_module(name)
    from ottla.cli import app

    for name in app.COMMANDS:
        app.app_of(name)
    # Typer imports half of what it needs with the first command that it runs.
    with redirect_stdout(io.StringIO()), suppress(SystemExit):
        app.run(["topic", "list", "--help"])
    # A collection in a fork would copy all that there is by now.
    gc.collect()
    gc.freeze()
    requests = socket.socket(fileno=int(sys.argv[1]))
    if _serve(requests):
        main()


if __name__ == "__main__":
    _main()
