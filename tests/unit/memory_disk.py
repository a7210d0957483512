"""A file system in memory: it counts reads, runs full, fails on demand and loses what was not synced."""

from __future__ import annotations

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


class MemoryLock:
    def __init__(self, disk: MemoryDisk, path: str) -> None:
        self.disk, self.path = disk, path

    def release(self) -> None:
        self.disk.locks.discard(self.path)


class MemoryDisk:
    """``fail_with`` maps an operation to the error it raises from now on; ``capacity`` bounds all files."""

    def __init__(self) -> None:
        self.files: dict[str, Inode] = {}
        self.folders: set[str] = set()
        self.locks: set[str] = set()
        self.reads: Counter[str] = Counter()
        self.fail_with: dict[str, OSError] = {}
        self.fails_on = ""
        self.capacity = 1 << 40
        self.cold = False
        self.warm: set[str] = set()
        self.boots = 1

    def fail(self, operation: str, path: str) -> None:
        error = self.fail_with.get(operation)
        if error is not None and self.fails_on in path:
            raise OSError(error.errno, error.strerror, path)

    def room(self) -> int:
        return max(0, self.capacity - sum(len(inode.data) for inode in self.files.values()))

    def lose_power(self) -> None:
        """Keep only what was synced; files that never were are there and empty."""
        self.boots += 1
        for inode in self.files.values():
            inode.data = bytearray(inode.synced)

    def open(self, path: str, *, create: bool = False) -> MemoryFile:
        self.fail("open", path)
        if path not in self.files:
            if not create:
                raise FileNotFoundError(errno.ENOENT, "No such file", path)
            self.fail("create", path)
            self.files[path] = Inode()
        return MemoryFile(self, path, self.files[path])

    def read_file(self, path: str) -> bytes:
        self.fail("read", path)
        self.reads[os.path.basename(path)] += 1
        if path not in self.files:
            raise FileNotFoundError(errno.ENOENT, "No such file", path)
        return bytes(self.files[path].data)

    def write_file(self, path: str, data: bytes, *, sync: bool = True) -> None:
        self.fail("write_file", path)
        if len(data) > self.room():
            raise OSError(errno.ENOSPC, "No space left on device", path)
        inode = self.files[path] = Inode()
        inode.data = bytearray(data)
        if sync:
            inode.synced = data

    def exists(self, path: str) -> bool:
        return path in self.files or path.rstrip("/") in self.folders

    def size(self, path: str) -> int:
        return len(self.files[path].data)

    def modified_ms(self, path: str) -> int:
        return self.files[path].modified_ms

    def list(self, path: str) -> list[str]:
        prefix = path + "/"
        below = [
            name.removeprefix(prefix) for name in (*self.files, *self.folders) if name.startswith(prefix)
        ]
        return sorted({name.split("/")[0] for name in below})

    def make_dirs(self, path: str) -> None:
        while path:
            self.folders.add(path)
            path = os.path.dirname(path).rstrip("/")

    def rename(self, source: str, target: str) -> None:
        self.fail("rename", source)
        if source in self.folders:
            self.folders.remove(source)
            self.folders.add(target)
            for path in [name for name in self.files if name.startswith(source + "/")]:
                self.files[target + path.removeprefix(source)] = self.files.pop(path)
        else:
            self.files[target] = self.files.pop(source)

    def remove(self, path: str) -> None:
        self.files.pop(path, None)

    def remove_tree(self, path: str) -> None:
        self.folders.discard(path)
        for name in [name for name in self.files if name.startswith(path + "/")]:
            del self.files[name]

    def sync_dir(self, path: str) -> None:
        self.fail("sync_dir", path)

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
