"""Files that somebody names, and that may be anything: read whole, in bounded memory and time."""

from __future__ import annotations

import errno
import os
import select
import stat
import time
from typing import Final, NamedTuple

# How often a file is read that changes meanwhile.
TRIES_MAX: Final = 3
STEP_BYTES: Final = 64 * 1024
# A pipe's writer may still have to begin.
PIPE_TIMEOUT_S: Final = 5.0

_FLAGS: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


class Found(NamedTuple):
    """What is in a file, and its permissions."""

    data: bytes
    mode: int


def read_regular(path: str, bytes_max: int) -> Found:
    """The whole of a file, as it was at one moment. OSError, ValueError: it cannot be had, is no file but a
    pipe or a device, is larger, or does not hold still."""
    fd = os.open(path, _FLAGS)
    try:
        for _ in range(TRIES_MAX):
            before = os.fstat(fd)
            if stat.S_ISDIR(before.st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            if not stat.S_ISREG(before.st_mode):
                raise ValueError("it is no file")
            data = _read(fd, bytes_max)
            after = os.fstat(fd)
            if len(data) == after.st_size and _mark(before) == _mark(after):
                return Found(data, stat.S_IMODE(after.st_mode))
            os.lseek(fd, 0, os.SEEK_SET)
    finally:
        os.close(fd)
    raise ValueError("it is being written")


def read_within(path: str, bytes_max: int, timeout_s: float = PIPE_TIMEOUT_S) -> bytes:
    """As ``read_regular``, but a pipe, such as a shell's <(…), may come in its time. TimeoutError where it
    takes longer."""
    fd = os.open(path, _FLAGS)
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return read_regular(path, bytes_max).data
        return _read(fd, bytes_max, time.monotonic() + timeout_s)
    finally:
        os.close(fd)


def _read(fd: int, bytes_max: int, deadline_s: float | None = None) -> bytes:
    data = bytearray()
    while True:
        if deadline_s is not None:
            _await(fd, deadline_s)
        try:
            piece = os.read(fd, min(STEP_BYTES, bytes_max + 1 - len(data)))
        except BlockingIOError:
            continue
        if not piece:
            return bytes(data)
        data += piece
        if len(data) > bytes_max:
            raise ValueError(f"it is larger than {_size(bytes_max)}")


def _await(fd: int, deadline_s: float) -> None:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    left_ms = max(0, int((deadline_s - time.monotonic()) * 1000))
    if not poll.poll(left_ms):
        raise TimeoutError(errno.ETIMEDOUT, "nothing comes from it")


def _mark(state: os.stat_result) -> tuple[int, int, int]:
    return state.st_mtime_ns, state.st_ctime_ns, state.st_size


def _size(count: int) -> str:
    return f"{count // 1024**2} MiB" if count >= 1024**2 else f"{count // 1024} KiB"
