"""Files, as the log sees them. Only this module touches the file system on the serving path.

Calls are synchronous. Those that may block for long (``sync``, cold reads, walking directories at start)
are run through ``Disk.run``, which hands them to a small thread pool; the simulator runs them in place
and charges virtual time.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import resource
import shutil
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from ottla.types import Buffer

T = TypeVar("T")

# Blocking disk work that may be under way at once; more waits in the pool's queue.
DISK_THREADS_MAX = 4
# What is taken for "no limit" of open files.
OPEN_FILES_UNLIMITED = 1 << 20
# Linux names each start of the machine; containers see that of their host, whose page cache they use.
BOOT_ID_FILE = "/proc/sys/kernel/random/boot_id"


class File(Protocol):
    """An open file. Positions and sizes are in bytes. Errors are ``OSError`` with its errno."""

    @property
    def path(self) -> str: ...

    def size(self) -> int: ...

    def append(self, buffers: Sequence[Buffer]) -> int:
        """Write all buffers at the end of the file, as one; return the bytes written.

        On an error the file may hold a part of them: the caller truncates to the size that it knows.
        """
        ...

    def read(self, position: int, size: int) -> bytes:
        """Up to ``size`` bytes; fewer only at the end of the file. May block on a cold disk."""
        ...

    def read_cached(self, position: int, size: int) -> Buffer | None:
        """Like ``read``, but None where the bytes are not in memory and the call would block."""
        ...

    def write_at(self, position: int, data: Buffer) -> None: ...

    def truncate(self, size: int) -> None: ...

    def sync(self) -> None:
        """Block until the file's data would survive a loss of power."""
        ...

    def close(self) -> None: ...


class Lock(Protocol):
    """A lock on a file."""

    def release(self) -> None: ...


class Disk(Protocol):
    """A file system. Paths are absolute, or relative to where the process runs."""

    def open(self, path: str, *, create: bool = False) -> File:
        """Open for reading and appending. FileNotFoundError where it is missing and not to be made."""
        ...

    def read_file(self, path: str) -> bytes: ...

    def write_file(self, path: str, data: bytes, *, sync: bool = True) -> None:
        """Replace the file's contents atomically (write aside, sync, rename, sync the folder).

        Without ``sync`` a loss of power may leave the old contents, the new or none.
        """
        ...

    def exists(self, path: str) -> bool: ...

    def size(self, path: str) -> int: ...

    def modified_ms(self, path: str) -> int: ...

    def list(self, path: str) -> list[str]:
        """Names in a folder, sorted."""
        ...

    def make_dirs(self, path: str) -> None: ...

    def rename(self, source: str, target: str) -> None: ...

    def remove(self, path: str) -> None:
        """Remove a file; nothing happens where there is none."""
        ...

    def remove_tree(self, path: str) -> None: ...

    def sync_dir(self, path: str) -> None: ...

    def free_bytes(self, path: str) -> tuple[int, int]:
        """(total, usable) bytes of the volume that holds ``path``."""
        ...

    def lock(self, path: str) -> Lock:
        """Lock the file, made where it is missing, against other processes and other calls of this.

        BlockingIOError where someone has it. It is free again when its holder ends, however it ends.
        """
        ...

    def open_files_max(self) -> int:
        """Files and connections together that the process may have open."""
        ...

    def boot_id(self) -> str:
        """A name for the time since the machine started: what was written in it is lost only with it.

        Empty where the machine cannot tell.
        """
        ...

    async def run(self, work: Callable[[], T]) -> T:
        """Run blocking work off the event loop and return what it returns."""
        ...


def raise_open_files_max() -> None:
    """Let this process open as many files and connections as the system allows it to."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else OPEN_FILES_UNLIMITED
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class RealFile:
    """A POSIX file descriptor opened for append and positional reads.

    It closes with its last reference, so that whoever holds one for a read under way keeps it readable.
    """

    __slots__ = ("_fd", "_path", "_size")

    def __init__(self, path: str, create: bool) -> None:
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        self._path = path
        self._fd = -1
        self._fd = os.open(path, flags, 0o644)
        self._size = os.fstat(self._fd).st_size

    @property
    def path(self) -> str:
        return self._path

    def size(self) -> int:
        return self._size

    def append(self, buffers: Sequence[Buffer]) -> int:
        size = sum(map(len, buffers))
        done = os.pwritev(self._fd, buffers, self._size)
        if done != size:
            # A short write: a nearly full disk, or a signal. The rest decides which.
            rest = memoryview(b"".join(buffers))[done:]
            while rest:
                rest = rest[os.pwrite(self._fd, rest, self._size + size - len(rest)) :]
        self._size += size
        return size

    def read(self, position: int, size: int) -> bytes:
        data = os.pread(self._fd, size, position)
        if len(data) == size or not data:
            return data
        parts = [data]
        got = len(data)
        while got < size and (data := os.pread(self._fd, size - got, position + got)):
            parts.append(data)
            got += len(data)
        return b"".join(parts)

    def read_cached(self, position: int, size: int) -> Buffer | None:
        buffer = bytearray(min(size, max(0, self._size - position)))
        if not buffer:
            return b""
        try:
            got = os.preadv(self._fd, [buffer], position, os.RWF_NOWAIT)
        except OSError as error:
            if error.errno == errno.EAGAIN:
                return None
            if error.errno == errno.EOPNOTSUPP:
                # The file system cannot tell: tmpfs on older kernels, network file systems.
                return self.read(position, size)
            raise
        return buffer if got == len(buffer) else None

    def write_at(self, position: int, data: Buffer) -> None:
        rest = memoryview(data)
        while rest:
            done = os.pwrite(self._fd, rest, position)
            rest, position = rest[done:], position + done
        self._size = max(self._size, position)

    def truncate(self, size: int) -> None:
        os.ftruncate(self._fd, size)
        self._size = size

    def sync(self) -> None:
        os.fdatasync(self._fd)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        self.close()


class RealLock:
    """A lock on the whole of a file that belongs to this one opening of it.

    Apache Kafka takes a POSIX record lock, which these keep out and are kept out by. A record lock of our
    own would be lost as soon as anything in this process closed the file, a second attempt to lock it, say.
    """

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if hasattr(fcntl, "F_OFD_SETLK"):
                # struct flock: type, whence, start, length (0: to the end), process.
                whole_file = struct.pack("@hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
                fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, whole_file)
            else:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.release()
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise BlockingIOError(error.errno, "it is locked", path) from error
            raise

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class RealDisk:
    """The machine's file system and a small thread pool for what blocks."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(DISK_THREADS_MAX, thread_name_prefix="ottla-disk")

    def open(self, path: str, *, create: bool = False) -> RealFile:
        return RealFile(path, create)

    def read_file(self, path: str) -> bytes:
        with open(path, "rb") as file:
            return file.read()

    def write_file(self, path: str, data: bytes, *, sync: bool = True) -> None:
        aside = path + ".tmp"
        with open(aside, "wb") as file:
            file.write(data)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(aside, path)
        if sync:
            self.sync_dir(os.path.dirname(path))

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def size(self, path: str) -> int:
        return os.stat(path).st_size

    def modified_ms(self, path: str) -> int:
        return os.stat(path).st_mtime_ns // 1_000_000

    def list(self, path: str) -> list[str]:
        return sorted(os.listdir(path))

    def make_dirs(self, path: str) -> None:
        os.makedirs(path, exist_ok=True)

    def rename(self, source: str, target: str) -> None:
        os.rename(source, target)

    def remove(self, path: str) -> None:
        try:
            os.unlink(path)
        except FileNotFoundError:
            return

    def remove_tree(self, path: str) -> None:
        shutil.rmtree(path)

    def sync_dir(self, path: str) -> None:
        fd = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def free_bytes(self, path: str) -> tuple[int, int]:
        stat = os.statvfs(path)
        return stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize

    def lock(self, path: str) -> RealLock:
        return RealLock(path)

    def open_files_max(self) -> int:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return soft if soft != resource.RLIM_INFINITY else OPEN_FILES_UNLIMITED

    def boot_id(self) -> str:
        try:
            with open(BOOT_ID_FILE, encoding="ascii") as file:
                return file.read().strip()
        except OSError:
            return ""

    async def run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def close(self) -> None:
        """Wait for what is under way and end the pool's threads."""
        self._pool.shutdown()
