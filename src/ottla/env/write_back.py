"""Having the kernel write files back to the disk early and evenly, from a thread.

Left alone Linux collects up to a tenth of the memory before it begins, and a little later holds whoever
writes, for up to 0.2 s at a time: here that is the event loop, and everybody waits. See
docs/decisions/0015-writes.md.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

# A file is written back whenever so much has come to it.
STEP_BYTES = 4 * 1024 * 1024
# Steps that may wait for the disk. What comes on top is left to the kernel, or to the file's next step.
WAITING_STEPS_MAX = 64
# Begins to write what is dirty, and does not wait for it (linux/fs.h). With a wait it would take an error
# away from the next fsync, which has to tell that data may be lost.
_SYNC_FILE_RANGE_WRITE = 2

# sync_file_range(descriptor, start, size, flags) of the C library.
Begin = Callable[[int, int, int, int], int]


class Written(Protocol):
    """An open file that has grown."""

    def fileno(self) -> int:
        """Its descriptor, negative once it is closed."""
        ...


class WriteBack:
    """One for all files of a disk: steps are begun one after the other. From any thread."""

    __slots__ = ("_begin", "_lock", "_pool", "_waiting")

    def __init__(self, begin: Begin | None = None) -> None:
        """``begin``: in place of the C library's."""
        # None where the C library has none: then it is all left to the kernel.
        self._begin = begin or _sync_file_range()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="ottla-write-back")
        self._lock = threading.Lock()
        self._waiting = 0

    def soon(self, file: Written, start: int, size: int) -> bool:
        """Have some bytes of a file written soon; whether they will be. The file is kept open until then."""
        if self._begin is None:
            return True
        with self._lock:
            if self._waiting >= WAITING_STEPS_MAX:
                return False
            self._waiting += 1
        self._pool.submit(self._write, file, start, size)
        return True

    def close(self) -> None:
        """Wait for the step under way; the others are dropped."""
        self._pool.shutdown(cancel_futures=True)

    def _write(self, file: Written, start: int, size: int) -> None:
        # What fails is nobody's concern here: the next sync of the file tells.
        descriptor = file.fileno()
        if descriptor >= 0 and self._begin is not None:
            self._begin(descriptor, start, size, _SYNC_FILE_RANGE_WRITE)
        with self._lock:
            self._waiting -= 1


def _sync_file_range() -> Begin | None:
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "sync_file_range"):
        return None
    begin = libc.sync_file_range
    begin.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    begin.restype = ctypes.c_int

    def call(descriptor: int, start: int, size: int, flags: int) -> int:
        result: int = begin(descriptor, start, size, flags)
        return result

    return call
