"""Without what Linux alone has: on macOS all runs, a little slower, and on Windows one line says that nothing
does. The attributes are taken away before anything is imported, as they are missing there."""

from __future__ import annotations

import fcntl
import os
import resource
import select
import socket
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from ottla.cli.bench import cold, raw
from ottla.cli.errors import CliError
from ottla.env import disk, unix

# What CPython has on Linux and not on macOS, of what this package might use.
LINUX_ALONE = """
import builtins, ctypes, fcntl, mmap, os, resource, select, signal, socket, sys, time
for module, names in (
    (os, "RWF_NOWAIT RWF_DSYNC RWF_HIPRI RWF_SYNC RWF_APPEND fdatasync posix_fadvise posix_fallocate"
         " sched_getaffinity sched_setaffinity memfd_create eventfd pidfd_open copy_file_range splice"
         " O_TMPFILE O_DIRECT O_PATH getrandom"),
    (resource, "RUSAGE_THREAD prlimit"),
    (fcntl, "F_OFD_SETLK F_OFD_GETLK F_OFD_SETLKW F_SETPIPE_SZ"),
    (socket, "SO_PEERCRED TCP_USER_TIMEOUT TCP_KEEPIDLE TCP_QUICKACK SOCK_CLOEXEC SOCK_NONBLOCK"),
    (select, "epoll"),
    (mmap, "MADV_HUGEPAGE MAP_POPULATE"),
    (signal, "sigtimedwait pidfd_send_signal"),
    (time, "CLOCK_BOOTTIME"),
):
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)

class Libc:
    def __getattr__(self, name):
        raise AttributeError(name)

real_cdll = ctypes.CDLL
ctypes.CDLL = lambda name, *rest, **more: Libc() if name is None else real_cdll(name, *rest, **more)

def without_proc(real):
    def call(path, *rest, **more):
        if str(path).startswith(("/proc", "/sys")):
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return real(path, *rest, **more)
    return call

builtins.open = without_proc(open)
os.open, os.listdir = without_proc(os.open), without_proc(os.listdir)

real_setrlimit = resource.setrlimit
def setrlimit(what, limits):
    if limits[0] > 10_240:
        raise ValueError("current limit exceeds maximum limit")
    real_setrlimit(what, limits)
resource.setrlimit = setrlimit
"""

SERVES = """
from ottla.env.clock import ThreadDelays
from ottla.env.disk import raise_open_files_max
from ottla.env.processors import usable
from ottla.testing import Broker

if __name__ == "__main__":
    raise_open_files_max()
    assert usable() >= 1 and ThreadDelays().ms() == 0
    with Broker(topics=["t"], tls=True) as broker:
        large = "x" * 300_000
        for value in ("one", large):
            broker.produce("t", value)
        broker.restart()
        assert [record.value for record in broker.records("t")] == [b"one", large.encode()]
    print("served")
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OTTLA_PURE": "1"}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment, check=False
    )


def test_a_broker_serves_without_what_linux_alone_has() -> None:
    done = run(LINUX_ALONE + SERVES)
    assert (done.returncode, done.stdout) == (0, "served\n"), done.stderr


def test_importing_it_on_windows_says_so_in_one_line() -> None:
    done = run("import sys; sys.platform = 'win32'\nimport ottla")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "ImportError: ottla runs on Linux and macOS, not on Windows"
    )


def test_a_file_is_synced_through_the_drive_where_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """macOS has no fdatasync, and its fsync leaves data in the drive: Java asks for F_FULLFSYNC, too."""
    calls = []
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", lambda descriptor, what: calls.append((descriptor, what)))
    disk._sync_function()(7)
    assert calls == [(7, 51)]
    monkeypatch.delattr(fcntl, "F_FULLFSYNC")
    monkeypatch.delattr(os, "fdatasync")
    assert disk._sync_function() is os.fsync


def test_no_limit_of_open_files_that_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    given = []

    def setrlimit(what: int, limits: tuple[int, int]) -> None:
        given.append(limits)
        if limits[0] > disk.OPEN_FILES_ANYWHERE:
            raise ValueError("current limit exceeds maximum limit")

    infinity = resource.RLIM_INFINITY
    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    for soft, tried in ((256, [disk.OPEN_FILES_UNLIMITED, 10_240]), (20_000, [disk.OPEN_FILES_UNLIMITED])):
        given.clear()
        monkeypatch.setattr(resource, "getrlimit", lambda what, soft=soft: (soft, infinity))
        disk.raise_open_files_max()
        assert given == [(limit, infinity) for limit in tried]


def test_a_lock_without_those_of_linux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where others have a F_OFD_SETLK its structure is another: it is not asked for."""
    monkeypatch.setattr(disk, "IS_LINUX", False)
    held = disk.RealLock(str(tmp_path / "lock"))
    with pytest.raises(BlockingIOError):
        disk.RealLock(str(tmp_path / "lock"))
    held.release()
    disk.RealLock(str(tmp_path / "lock")).release()


def test_who_is_at_the_other_end_of_a_unix_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        assert unix.peer_of(one) == (os.getpid(), os.geteuid())
    answers = {(0, 1): struct.pack("IIh", 0, 501, 1).ljust(76, b"\0"), (0, 2): 4711}
    mac = SimpleNamespace(getsockopt=lambda level, name, size=0: answers[level, name])
    monkeypatch.delattr(socket, "SO_PEERCRED")
    assert unix.peer_of(mac) == (4711, 501)  # type: ignore[arg-type]


def test_a_socket_without_proc_is_at_the_folders_own_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unix, "_DESCRIPTORS", "/nowhere")
    with unix.short_path("/some/folder", "socket") as path:
        assert path == "/some/folder/socket"


def test_benchmarks_that_take_linux_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(select, "epoll")
    monkeypatch.delattr(os, "posix_fadvise")
    with pytest.raises(CliError, match="epoll, which Linux alone has"):
        raw._Loop(raw.RawLoad((), in_flight=1, seconds=1, warmup_s=0, error_position=-1))
    with pytest.raises(CliError, match="which Linux has"):
        cold.forget([])
