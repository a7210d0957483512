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
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, Protocol, TypeVar

from ottla.env.held import TIMED_BYTES, Held
from ottla.env.volume import RealVolume, Volume, open_volume
from ottla.env.write_back import STEP_BYTES, WriteBack
from ottla.types import Buffer

T = TypeVar("T")

# Blocking disk work that may be under way at once; more waits in the pool's queue.
DISK_THREADS_MAX = 4
# Large writes under way at once. Mostly they copy memory: more threads than processors gain nothing.
WRITING_THREADS_MAX = 2
# Files are written back in multiples of this, so that a page that goes on changing is written once.
PAGE_BYTES = 64 * 1024
# What is taken for "no limit" of open files.
OPEN_FILES_UNLIMITED = 1 << 20
# What macOS lets any process have (its OPEN_MAX).
OPEN_FILES_ANYWHERE = 10_240
IS_LINUX = sys.platform.startswith("linux")
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

    def read_resident(self, position: int, size: int) -> Buffer | None:
        """Like ``read_cached``, for much: None also behind where something was missing the last time.

        What is asked for there has just come from the disk, if it has, and the kernel reads further ahead for
        it: that takes milliseconds for a megabyte, and is better done in a thread.
        """
        ...

    def write_at(self, position: int, data: Buffer) -> None: ...

    def truncate(self, size: int) -> None: ...

    def sync(self) -> None:
        """Block until the file's data would survive a loss of power."""
        ...

    def close(self) -> None: ...


class Begun(Protocol):
    """Work that was begun in a thread."""

    def finish(self) -> None:
        """Return once it is done: here, if no thread has come to it yet. To be called once."""
        ...


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

    def exists(self, path: str) -> bool:
        """Whether there is anything; with a slash at the end, whether it is a folder."""
        ...

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

    def remove_tree(self, path: str) -> None:
        """Remove a folder and all that is in it; of a link to one, the link."""
        ...

    def sync_dir(self, path: str) -> None: ...

    def open_volume(self, path: str) -> Volume | None:
        """The volume that a folder is on; None where a sync of all of it would not tell of what failed."""
        ...

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

    def writes_aside(self, size: int) -> bool:
        """Whether a write of so many bytes is better made by ``begin_write``."""
        ...

    def begin_write(self, work: Callable[[], None], done: Callable[[], None]) -> Begun:
        """Have a large write, which raises nothing, made off the event loop, apart from what ``run`` does.
        ``done`` is called in a later turn of the loop, once it is made; not where ``finish`` made it."""
        ...


def raise_open_files_max() -> None:
    """Let this process open as many files and connections as the system allows it to."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else OPEN_FILES_UNLIMITED
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (ValueError, OSError):
        # macOS says that there is no limit, and has one.
        if soft < OPEN_FILES_ANYWHERE:
            resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES_ANYWHERE, hard))


def _sync_function() -> Callable[[int], object]:
    """What brings a file's content to its disk, as Java's FileChannel.force does: on macOS the drive has to
    be asked to write what it holds, and there is no fdatasync."""
    full_sync = getattr(fcntl, "F_FULLFSYNC", None)
    if full_sync is not None:
        return lambda descriptor: fcntl.fcntl(descriptor, full_sync)
    return getattr(os, "fdatasync", os.fsync)


_sync: Final = _sync_function()
# Reading without waiting for a disk; 0 where the system does not have it (macOS).
_NO_WAIT: Final = int(getattr(os, "RWF_NOWAIT", 0))


def open_files_max() -> int:
    """How many files and connections this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else OPEN_FILES_UNLIMITED


class RealFile:
    """A POSIX file descriptor opened for append and positional reads.

    It closes with its last reference, so that whoever holds one for a read under way keeps it readable.
    """

    __slots__ = ("_cold_end", "_cold_start", "_fd", "_held", "_path", "_size", "_step_end", "_write_back")

    def __init__(self, path: str, create: bool, write_back: WriteBack, held: Held) -> None:
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        self._path = path
        self._fd = -1
        self._fd = os.open(path, flags, 0o644)
        self._size = os.fstat(self._fd).st_size
        self._write_back = write_back
        # Where something was not in memory, and up to where the rest is taken for so.
        self._cold_start = self._cold_end = 0
        self._held = held
        # What is appended up to here stays in memory until the kernel, or a sync, writes it.
        self._step_end = self._size + STEP_BYTES

    @property
    def path(self) -> str:
        return self._path

    def size(self) -> int:
        return self._size

    def append(self, buffers: Sequence[Buffer]) -> int:
        size = 0
        for buffer in buffers:
            size += len(buffer)
        if size < TIMED_BYTES:
            done = os.pwritev(self._fd, buffers, self._size)
        else:
            mark = self._held.begin()
            done = os.pwritev(self._fd, buffers, self._size)
            self._held.wrote(size, mark)
        if done != size:
            # A short write: a nearly full disk, or a signal. The rest decides which.
            self._append_rest(buffers, done)
        self._size += size
        if self._size >= self._step_end:
            start = self._step_end - STEP_BYTES
            # The last page is left for the next step: more comes to it.
            end = self._size - self._size % PAGE_BYTES
            if self._write_back.soon(self, start, end - start):
                self._step_end = end + STEP_BYTES
        return size

    def _append_rest(self, buffers: Sequence[Buffer], done: int) -> None:
        """Write what lies behind the first ``done`` bytes of all buffers."""
        start = 0
        for buffer in buffers:
            rest = memoryview(buffer)[max(done - start, 0) :]
            end = start + len(buffer)
            while rest:
                rest = rest[os.pwrite(self._fd, rest, self._size + end - len(rest)) :]
            start = end

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
        if not _NO_WAIT:
            # The system cannot tell; most that is asked for was written just now.
            return self.read(position, len(buffer))
        try:
            got = os.preadv(self._fd, [buffer], position, _NO_WAIT)
        except OSError as error:
            if error.errno == errno.EAGAIN:
                return None
            if error.errno == errno.EOPNOTSUPP:
                # The file system cannot tell: tmpfs on older kernels, network file systems.
                return self.read(position, size)
            raise
        return buffer if got == len(buffer) else None

    def read_resident(self, position: int, size: int) -> Buffer | None:
        if self._cold_start < position < self._cold_end:
            return None
        data = self.read_cached(position, size)
        if data is None:
            # Not beyond where the file ends now: what will be appended is in memory.
            self._cold_start, self._cold_end = position, self._size
        elif position == self._cold_start:
            # Whoever comes after the one who had to wait finds it there.
            self._cold_end = position
        return data

    def write_at(self, position: int, data: Buffer) -> None:
        rest = memoryview(data)
        while rest:
            done = os.pwrite(self._fd, rest, position)
            rest, position = rest[done:], position + done
        self._size = max(self._size, position)

    def truncate(self, size: int) -> None:
        os.ftruncate(self._fd, size)
        self._size = size
        self._cold_end = min(self._cold_end, size)
        self._step_end = min(self._step_end, size + STEP_BYTES)

    def fileno(self) -> int:
        return self._fd

    def sync(self) -> None:
        _sync(self._fd)

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
            # Where others have it, the structure is another.
            if IS_LINUX and hasattr(fcntl, "F_OFD_SETLK"):
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


class _BegunWrite:
    """A write that waits for a thread, or has one: whoever comes to it first makes it."""

    __slots__ = ("_work", "made")

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self.made: Future[None] = Future()

    def run(self) -> None:
        """Make it, in a thread."""
        if not self.made.set_running_or_notify_cancel():
            return
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001 - whoever finishes it hears of it
            self.made.set_exception(error)
        else:
            self.made.set_result(None)

    def finish(self) -> None:
        if self.made.cancel():
            self._work()
        else:
            self.made.result()


class RealDisk:
    """The machine's file system and a small thread pool for what blocks."""

    def __init__(self, write_back: WriteBack | None = None) -> None:
        self._pool = ThreadPoolExecutor(DISK_THREADS_MAX, thread_name_prefix="ottla-disk")
        self._held = Held()
        # Of their own: a sync takes as long as the disk does.
        self._writing = ThreadPoolExecutor(WRITING_THREADS_MAX, thread_name_prefix="ottla-write")
        self._write_back = write_back or WriteBack()

    def open(self, path: str, *, create: bool = False) -> RealFile:
        return RealFile(path, create, self._write_back, self._held)

    def read_file(self, path: str) -> bytes:
        # A third of what Python's own way takes: a start reads four for each partition.
        # Without O_NONBLOCK a pipe of that name, which somebody may have put there, would hold us for ever.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            size = os.fstat(fd).st_size
            parts = [os.read(fd, size + 1)]
            while parts[-1] and sum(map(len, parts)) < size:
                parts.append(os.read(fd, size))
            return parts[0] if len(parts) == 1 else b"".join(parts)
        finally:
            os.close(fd)

    def write_file(self, path: str, data: bytes, *, sync: bool = True) -> None:
        aside = path + ".tmp"
        # A third of what Python's own way takes: a stop writes two for each partition.
        fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(fd, rest) :]
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)
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
        if os.path.islink(path):
            os.unlink(path)
            return
        shutil.rmtree(path)

    def sync_dir(self, path: str) -> None:
        fd = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def open_volume(self, path: str) -> RealVolume | None:
        return open_volume(path)

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

    def writes_aside(self, size: int) -> bool:
        return size >= self._held.aside_bytes

    def begin_write(self, work: Callable[[], None], done: Callable[[], None]) -> Begun:
        loop = asyncio.get_running_loop()
        begun = _BegunWrite(work)

        def tell(written: Future[None]) -> None:
            if not (written.cancelled() or loop.is_closed()):
                loop.call_soon_threadsafe(done)

        begun.made.add_done_callback(tell)
        try:
            self._writing.submit(begun.run)
        except RuntimeError:
            # The system allows no more threads. It is made in place; a thread that finds it later leaves it.
            loop.call_soon(done)
        return begun

    def close(self) -> None:
        """Wait for what is under way and end the pool's threads."""
        self._writing.shutdown()
        self._pool.shutdown()
        self._write_back.close()
