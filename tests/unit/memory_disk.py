"""A file system in memory: it counts reads, runs full, fails on demand and loses what was not synced."""

from __future__ import annotations

import asyncio
import errno
import os
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from ottla.types import Buffer

T = TypeVar("T")


class Inode:
    def __init__(self) -> None:
        self.data = bytearray()
        self.synced = b""
        self.modified_ms = 0


class MemoryFile:
    def __init__(self, disk: MemoryDisk, path: str, inode: Inode) -> None:
        self.disk = disk
        self.path = path
        self.inode = inode
        self.closed = False

    def size(self) -> int:
        return len(self.inode.data)

    def append(self, buffers: Sequence[Buffer]) -> int:
        data = b"".join(buffers)
        self.disk.fail("append", self.path)
        room = self.disk.room()
        if len(data) > room:
            # As a real disk: what fits is written.
            self.inode.data += data[:room]
            raise OSError(errno.ENOSPC, "No space left on device", self.path)
        self.inode.data += data
        return len(data)

    def read(self, position: int, size: int) -> bytes:
        self.disk.fail("read", self.path)
        self.disk.reads[os.path.basename(self.path)] += 1
        return bytes(self.inode.data[position : position + size])

    def read_cached(self, position: int, size: int) -> bytes | None:
        if self.disk.cold and self.path not in self.disk.warm:
            self.disk.warm.add(self.path)
            return None
        return self.read(position, size)

    def read_resident(self, position: int, size: int) -> bytes | None:
        return self.read_cached(position, size)

    def write_at(self, position: int, data: Buffer) -> None:
        self.disk.fail("write_at", self.path)
        if position + len(data) - self.size() > self.disk.room():
            raise OSError(errno.ENOSPC, "No space left on device", self.path)
        self.inode.data[position : position + len(data)] = data

    def truncate(self, size: int) -> None:
        self.disk.fail("truncate", self.path)
        del self.inode.data[size:]
        self.inode.data += bytes(size - self.size())

    def sync(self) -> None:
        self.disk.fail("sync", self.path)
        self.inode.synced = bytes(self.inode.data)

    def close(self) -> None:
        self.closed = True


class BegunWrite:
    """A write that is made in the loop's next turn, or when a test says so."""

    def __init__(self, disk: MemoryDisk, work: Callable[[], None], done: Callable[[], None]) -> None:
        self._disk = disk
        self._work: Callable[[], None] | None = work
        self._done = done

    def make(self) -> None:
        """As the thread does."""
        if self in self._disk.begun:
            self.finish()
            self._done()

    def finish(self) -> None:
        work, self._work = self._work, None
        if work is not None:
            self._disk.begun.remove(self)
            work()


class MemoryLock:
    def __init__(self, disk: MemoryDisk, path: str) -> None:
        self.disk, self.path = disk, path

    def release(self) -> None:
        self.disk.locks.discard(self.path)


# What the data directory lies in.
ROOTS = ("", "/")


class MemoryDisk:
    """``fail_with`` maps an operation to the error it raises from now on; ``capacity`` bounds all files."""

    def __init__(self) -> None:
        self.files: dict[str, Inode] = {}
        self.folders: set[str] = set()
        # The names that are on the disk: the others are lost with power.
        self.durable: dict[str, Inode] = {}
        self.durable_folders: set[str] = set()
        self.locks: set[str] = set()
        self.reads: Counter[str] = Counter()
        self.fail_with: dict[str, OSError] = {}
        self.fails_on = ""
        self.capacity = 1 << 40
        self.cold = False
        self.warm: set[str] = set()
        self.boots = 1
        # From how many folders on all is synced at once; 0: that cannot be relied on.
        self.folders_min = 0
        # Folders that are links to another volume.
        self.elsewhere: set[str] = set()
        # Whether a sync of all tells of writes that failed.
        self.volume_tells = True
        # Writes that wait for a thread; where they are ``held`` it does not come by itself.
        self.begun: list[BegunWrite] = []
        self.held = False

    def fail(self, operation: str, path: str) -> None:
        error = self.fail_with.get(operation)
        if error is not None and self.fails_on in path:
            raise OSError(error.errno, error.strerror, path)

    def room(self) -> int:
        return max(0, self.capacity - sum(len(inode.data) for inode in self.files.values()))

    def lose_power(self, *, keeps_names: bool = False) -> None:
        """Keep only what was synced, of files and of folders.

        ``keeps_names``: the disk was ahead of that with the names in folders, as most file systems are: files
        that were never synced are there and empty, and what was removed or renamed is.
        """
        self.boots += 1
        if not keeps_names:
            self.files = {path: self.durable[path] for path in sorted(self.durable) if self._is_found(path)}
            self.folders = {folder for folder in self.durable_folders if self._is_found(folder)}
        for inode in self.files.values():
            inode.data = bytearray(inode.synced)
        self.durable, self.durable_folders = dict(self.files), set(self.folders)

    def _is_found(self, path: str) -> bool:
        """Whether the folders above it are on the disk; what is not below another is always found."""
        above = os.path.dirname(path)
        return above in ROOTS or (above in self.durable_folders and self._is_found(above))

    def _sync_names(self, folder: str) -> None:
        """Have on the disk which names there are in a folder."""
        for path in [path for path in self.durable if os.path.dirname(path) == folder]:
            if path not in self.files:
                del self.durable[path]
        self.durable |= {path: inode for path, inode in self.files.items() if os.path.dirname(path) == folder}
        self.durable_folders = {path for path in self.durable_folders if path in self.folders}
        self.durable_folders |= {path for path in self.folders if os.path.dirname(path) == folder}

    def copy(self) -> MemoryDisk:
        """What another process would find that started now; what it does there does not show here."""
        made = MemoryDisk()
        for path, inode in self.files.items():
            made.files[path] = Inode()
            made.files[path].data = bytearray(inode.data)
        made.folders = set(self.folders)
        return made

    def open(self, path: str, *, create: bool = False) -> MemoryFile:
        self.fail("open", path)
        if path not in self.files:
            if not create:
                raise FileNotFoundError(errno.ENOENT, "No such file", path)
            self.fail("create", path)
            self.files[path] = Inode()
        return MemoryFile(self, path, self.files[path])

    def _inode(self, path: str) -> Inode:
        if path in self.folders:
            raise IsADirectoryError(errno.EISDIR, "Is a directory", path)
        if path not in self.files:
            raise FileNotFoundError(errno.ENOENT, "No such file", path)
        return self.files[path]

    def read_file(self, path: str) -> bytes:
        self.fail("read", path)
        self.reads[os.path.basename(path)] += 1
        return bytes(self._inode(path).data)

    def write_file(self, path: str, data: bytes, *, sync: bool = True) -> None:
        self.fail("write_file", path)
        if len(data) > self.room():
            raise OSError(errno.ENOSPC, "No space left on device", path)
        inode = self.files[path] = Inode()
        inode.data = bytearray(data)
        if sync:
            inode.synced = data
            self._sync_names(os.path.dirname(path))

    def exists(self, path: str) -> bool:
        return path in self.files or path.rstrip("/") in self.folders

    def size(self, path: str) -> int:
        return len(self._inode(path).data)

    def modified_ms(self, path: str) -> int:
        return self.files[path].modified_ms

    def list(self, path: str) -> list[str]:
        prefix = path + "/"
        below = [
            name.removeprefix(prefix) for name in (*self.files, *self.folders) if name.startswith(prefix)
        ]
        return sorted({name.split("/")[0] for name in below})

    def make_dirs(self, path: str) -> None:
        if path in self.files:
            raise FileExistsError(errno.EEXIST, "File exists", path)
        while path:
            self.folders.add(path)
            if os.path.dirname(path) in ROOTS:
                # The data directory itself was there before.
                self.durable_folders.add(path)
            path = os.path.dirname(path).rstrip("/")

    def rename(self, source: str, target: str) -> None:
        self.fail("rename", source)
        if source in self.folders:
            self.folders.remove(source)
            self.folders.add(target)
            for path in [name for name in self.files if name.startswith(source + "/")]:
                self.files[target + path.removeprefix(source)] = self.files.pop(path)
            # A folder's name is on the disk at once: nothing here depends on when it is.
            for path in [name for name in self.durable if name.startswith(source + "/")]:
                self.durable[target + path.removeprefix(source)] = self.durable.pop(path)
            if source in self.durable_folders:
                self.durable_folders = (self.durable_folders - {source}) | {target}
        else:
            self.files[target] = self.files.pop(source)

    def remove(self, path: str) -> None:
        if path in self.folders:
            raise IsADirectoryError(errno.EISDIR, "Is a directory", path)
        self.files.pop(path, None)

    def remove_tree(self, path: str) -> None:
        self.folders.discard(path)
        for name in [name for name in self.files if name.startswith(path + "/")]:
            del self.files[name]

    def sync_dir(self, path: str) -> None:
        self.fail("sync_dir", path)
        self._sync_names(path)

    def open_volume(self, path: str) -> MemoryVolume | None:
        return MemoryVolume(self, self.folders_min) if self.folders_min else None

    def free_bytes(self, path: str) -> tuple[int, int]:
        return self.capacity, self.room()

    def lock(self, path: str) -> MemoryLock:
        if path in self.locks:
            raise BlockingIOError(errno.EAGAIN, "it is locked", path)
        self.locks.add(path)
        return MemoryLock(self, path)

    def open_files_max(self) -> int:
        return 1000

    def boot_id(self) -> str:
        return f"boot {self.boots}"

    async def run(self, work: Callable[[], T]) -> T:
        return work()

    def writes_aside(self, size: int) -> bool:
        return True

    def begin_write(self, work: Callable[[], None], done: Callable[[], None]) -> BegunWrite:
        begun = BegunWrite(self, work, done)
        self.begun.append(begun)
        if not self.held:
            asyncio.get_running_loop().call_soon(begun.make)
        return begun


class MemoryVolume:
    """All of a disk in memory."""

    def __init__(self, disk: MemoryDisk, folders_min: int) -> None:
        self._disk = disk
        self.folders_min = folders_min
        self.tells = disk.volume_tells

    def holds(self, folder: str) -> bool:
        return folder not in self._disk.elsewhere

    def sync(self) -> None:
        self._disk.fail("sync_volume", "")
        for inode in self._disk.files.values():
            inode.synced = bytes(inode.data)
        self._disk.durable, self._disk.durable_folders = dict(self._disk.files), set(self._disk.folders)

    def close(self) -> None:
        return


class Meanwhile(MemoryDisk):
    """Does something in the middle of an operation, as the event loop may while a thread flushes."""

    def __init__(self) -> None:
        super().__init__()
        self.during: dict[tuple[str, str], Callable[[], object]] = {}

    def fail(self, operation: str, path: str) -> None:
        super().fail(operation, path)
        for (name, suffix), meanwhile in list(self.during.items()):
            if name == operation and path.endswith(suffix):
                del self.during[name, suffix]
                meanwhile()
