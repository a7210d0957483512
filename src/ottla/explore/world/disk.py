"""A file system in memory that keeps what POSIX promises after a crash, and as little more as can be.

What a process wrote is in the page cache: it survives the process, not the machine. A loss of power keeps
what was synced, of each file's later writes the first few, the last of them torn, and of each folder's later
changes the first few. A failed sync loses what it was to save, also where a later one succeeds.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from collections.abc import Callable, Sequence
from random import Random
from typing import TypeVar

from ottla.explore.world.inodes import Folder, Inode, Node, files_below, is_hint, size_of, sync_below
from ottla.explore.world.loop import SECOND_US, Process
from ottla.explore.world.machine import Machine
from ottla.types import Buffer

T = TypeVar("T")

CAPACITY_BYTES = 1 << 30
OPEN_FILES_MAX = 4000


class Volume:
    """A machine's disk. Its faults are set from outside; what a process sees of it is a ``SimDisk``."""

    def __init__(self, machine: Machine, rng: Random) -> None:
        self.machine = machine
        self.rng = rng
        self.root = Folder()
        self.locks: dict[str, Process] = {}
        self.used_bytes = 0
        # Faults: how much fits, what every operation of a kind fails with, what each takes in addition.
        self.capacity_bytes = CAPACITY_BYTES
        self.failing: dict[str, int] = {}
        self.slow_us = 0
        # Told the folder of a log that has got a new file, or (True) was cut.
        self.on_log_change: Callable[[str, bool], None] | None = None
        # What a sync usually takes.
        self.sync_us = rng.choice((50, 300, 2_000, 8_000))

    def lose_power(self) -> None:
        self.root.lose_power(self.rng)
        self.locks.clear()
        self.used_bytes = size_of(self.root)

    def wipe(self) -> None:
        """A new disk is in its place."""
        self.root = Folder()
        self.locks.clear()
        self.used_bytes = 0

    def damage(self, name: str, rng: Random) -> str:
        """Damage a file below a folder that its broker must be able to do without; which, and how."""
        found = [(path, file) for path, file in files_below(self.root.entries[name], name) if is_hint(path)]
        if not found:
            return ""
        path, file = rng.choice(found)
        data, how = bytearray(file.data), rng.choice(("cut", "zeroed", "emptied", "flipped"))
        at = rng.randrange(len(data)) if data else 0
        if how == "cut":
            del data[at:]
        elif how == "zeroed":
            data[at:] = bytes(len(data) - at)
        elif how == "emptied" or path.endswith("offset-checkpoint"):
            # One wrong digit there is as good as any other.
            data.clear()
        elif data:
            data[at] ^= 1 << rng.randrange(8)
        self.used_bytes += len(data) - len(file.data)
        file.data, file.durable, file.pending = data, bytearray(data), []
        return f"{path} {how} at {at}"

    def provide(self, name: str) -> None:
        """An empty folder at the root, on the disk, as an operator makes one before the first start."""
        self.root.change({name: Folder()})
        self.root.sync()

    def mount(self, process: Process) -> SimDisk:
        """The disk as a process sees it."""
        return SimDisk(self, process)

    def unlock(self, process: Process) -> None:
        """The process has ended."""
        for path in [path for path, holder in self.locks.items() if holder is process]:
            del self.locks[path]


class SimFile:
    """``ottla.env.disk.File``."""

    __slots__ = ("_disk", "_inode", "path")

    def __init__(self, disk: SimDisk, path: str, inode: Inode) -> None:
        self._disk = disk
        self._inode = inode
        self.path = path

    def size(self) -> int:
        return len(self._inode.data)

    def append(self, buffers: Sequence[Buffer]) -> int:
        data = b"".join(buffers)
        self._write(len(self._inode.data), data)
        return len(data)

    def write_at(self, position: int, data: Buffer) -> None:
        self._write(position, bytes(data))

    def _write(self, position: int, data: bytes) -> None:
        self._disk.begin("write", self.path)
        grown = position + len(data) - len(self._inode.data)
        room = self._disk.room_bytes()
        if grown > room:
            # As a real disk: what fits is written.
            fits = data[: max(0, len(data) - (grown - room))]
            self._disk.write(self._inode, position, fits)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path)
        self._disk.write(self._inode, position, data)

    def read(self, position: int, size: int) -> bytes:
        self._disk.begin("read", self.path)
        return bytes(self._inode.data[position : position + size])

    def read_cached(self, position: int, size: int) -> Buffer | None:
        if not self._disk.is_warm(self._inode):
            return None
        return self.read(position, size)

    def read_resident(self, position: int, size: int) -> Buffer | None:
        return self.read_cached(position, size)

    def truncate(self, size: int) -> None:
        self._disk.begin("write", self.path)
        self._disk.volume.used_bytes += size - len(self._inode.data)
        self._inode.truncate(size)
        self._disk.log_changed(self.path, is_cut=True)

    def sync(self) -> None:
        self._disk.sync_inode(self._inode, self.path)

    def close(self) -> None:
        return


class SimLock:
    """``ottla.env.disk.Lock``."""

    def __init__(self, volume: Volume, path: str, process: Process) -> None:
        self._volume = volume
        self._path = path
        self._process = process

    def release(self) -> None:
        if self._volume.locks.get(self._path) is self._process:
            del self._volume.locks[self._path]


class SimVolume:
    """``ottla.env.volume.Volume``: on a quick disk worth it for any log, on a slow one never."""

    def __init__(self, disk: SimDisk) -> None:
        self._disk = disk
        self.tells = disk.volume.sync_us != 300
        self.folders_min = 1 if disk.volume.sync_us < SECOND_US // 1000 else sys.maxsize

    def holds(self, folder: str) -> bool:
        return True

    def sync(self) -> None:
        self._disk.begin("sync", "/")
        sync_below(self._disk.volume.root)

    def close(self) -> None:
        return


class BegunWrite:
    """A write that a thread makes some time from now, and tells of a while later."""

    def __init__(self, disk: SimDisk, work: Callable[[], None], done: Callable[[], None]) -> None:
        self._disk = disk
        self._work: Callable[[], None] | None = work
        self._done = done
        self._timer = asyncio.get_running_loop().call_later(disk.thread_delay_s(), self._make)

    def _make(self) -> None:
        cost_us = self._disk.make_in_thread(self._work_once)
        asyncio.get_running_loop().call_later(cost_us / SECOND_US + self._disk.thread_delay_s(), self._done)

    def _work_once(self) -> None:
        work, self._work = self._work, None
        if work is not None:
            work()

    def finish(self) -> None:
        self._timer.cancel()
        self._work_once()


class SimDisk:
    """``ottla.env.disk.Disk`` for one process."""

    def __init__(self, volume: Volume, process: Process) -> None:
        self.volume = volume
        self._process = process
        self._loop = volume.machine.loop
        # Within ``run`` time is charged to the work alone, outside of it to the whole process.
        self._in_run = False
        self._cost_us = 0

    # ------------------------------------------------------------ for files

    def begin(self, operation: str, path: str) -> None:
        """An operation is asked for: it costs time, and may fail."""
        if self._process.dead:
            raise OSError(errno.EBADF, "the process is dead", path)
        volume = self.volume
        if volume.slow_us:
            self._charge(int(volume.rng.random() * volume.slow_us))
        if volume.failing:
            code = volume.failing.get(operation)
            if code is not None:
                raise OSError(code, os.strerror(code), path)

    def _charge(self, cost_us: int) -> None:
        if self._in_run:
            self._cost_us += cost_us
        else:
            self._loop.charge(self._process, cost_us)

    def log_changed(self, path: str, *, is_cut: bool) -> None:
        if self.volume.on_log_change is not None and path.endswith(".log"):
            self.volume.on_log_change(os.path.dirname(path), is_cut)

    def room_bytes(self) -> int:
        return max(0, self.volume.capacity_bytes - self.volume.used_bytes)

    def write(self, inode: Inode, position: int, data: bytes) -> None:
        before = len(inode.data)
        inode.write(position, data)
        inode.modified_ms = self.volume.machine.clock.now_ms()
        self.volume.used_bytes += len(inode.data) - before

    def is_warm(self, inode: Inode) -> bool:
        """Whether a read need not wait; sometimes it has to, for whatever reason."""
        return self.volume.rng.random() > 0.01

    def sync_inode(self, inode: Inode, path: str) -> None:
        self._charge(self.volume.sync_us)
        try:
            self.begin("sync", path)
        except OSError:
            inode.lose_pending()
            raise
        inode.sync()

    # ------------------------------------------------------------ paths

    def _find(self, path: str) -> Node | None:
        node: Node | None = self.volume.root
        for name in path.split("/"):
            if name:
                if not isinstance(node, Folder):
                    return None
                node = node.entries.get(name)
        return node

    def _file(self, path: str) -> Inode:
        node = self._find(path)
        if not isinstance(node, Inode):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return node

    def _folder(self, path: str) -> Folder:
        node = self._find(path)
        if not isinstance(node, Folder):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return node

    def _parent(self, path: str) -> tuple[Folder, str]:
        folder, _, name = path.rstrip("/").rpartition("/")
        return self._folder(folder), name

    # ------------------------------------------------------------ the protocol

    def open(self, path: str, *, create: bool = False) -> SimFile:
        self.begin("open", path)
        node = self._find(path)
        if node is None and create:
            if not self.room_bytes():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
            folder, name = self._parent(path)
            node = Inode(self.volume.machine.clock.now_ms())
            folder.change({name: node})
            self.log_changed(path, is_cut=False)
        return SimFile(self, path, node if isinstance(node, Inode) else self._file(path))

    def read_file(self, path: str) -> bytes:
        self.begin("read", path)
        return bytes(self._file(path).data)

    def write_file(self, path: str, data: bytes, *, sync: bool = True) -> None:
        self.begin("write", path)
        if len(data) > self.room_bytes():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        folder, name = self._parent(path)
        made = Inode(self.volume.machine.clock.now_ms())
        made.whole = True
        self.write(made, 0, bytes(data))
        if sync:
            self.sync_inode(made, path)
        old = folder.entries.get(name)
        if isinstance(old, Inode):
            self.volume.used_bytes -= len(old.data)
        folder.change({name: made})
        if sync:
            self.sync_dir(os.path.dirname(path))

    def exists(self, path: str) -> bool:
        node = self._find(path)
        return isinstance(node, Folder) if path.endswith("/") else node is not None

    def size(self, path: str) -> int:
        return len(self._file(path).data)

    def modified_ms(self, path: str) -> int:
        return self._file(path).modified_ms

    def list(self, path: str) -> list[str]:
        self.begin("read", path)
        return sorted(self._folder(path).entries)

    def make_dirs(self, path: str) -> None:
        self.begin("write", path)
        folder = self.volume.root
        for name in path.split("/"):
            if not name:
                continue
            node = folder.entries.get(name)
            if node is None:
                node = Folder()
                folder.change({name: node})
            if not isinstance(node, Folder):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
            folder = node

    def rename(self, source: str, target: str) -> None:
        self.begin("write", source)
        old_folder, old_name = self._parent(source)
        new_folder, new_name = self._parent(target)
        node = old_folder.entries.get(old_name)
        if node is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), source)
        replaced = new_folder.entries.get(new_name)
        if isinstance(replaced, Folder) and replaced.entries:
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), target)
        if isinstance(replaced, Inode):
            self.volume.used_bytes -= len(replaced.data)
        if old_folder is new_folder:
            old_folder.change({old_name: None, new_name: node})
        else:
            old_folder.change({old_name: None})
            new_folder.change({new_name: node})

    def remove(self, path: str) -> None:
        self.begin("write", path)
        node = self._find(path)
        if node is None:
            return
        if isinstance(node, Folder):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        self.volume.used_bytes -= len(node.data)
        folder, name = self._parent(path)
        folder.change({name: None})

    def remove_tree(self, path: str) -> None:
        self.begin("write", path)
        self.volume.used_bytes -= size_of(self._folder(path))
        folder, name = self._parent(path)
        folder.change({name: None})

    def sync_dir(self, path: str) -> None:
        self.begin("sync", path)
        self._folder(path).sync()

    def open_volume(self, path: str) -> SimVolume:
        return SimVolume(self)

    def free_bytes(self, path: str) -> tuple[int, int]:
        return self.volume.capacity_bytes, self.room_bytes()

    def lock(self, path: str) -> SimLock:
        holder = self.volume.locks.get(path)
        if holder is not None and not holder.dead:
            raise BlockingIOError(errno.EAGAIN, "it is locked", path)
        self.volume.locks[path] = self._process
        return SimLock(self.volume, path, self._process)

    def open_files_max(self) -> int:
        return OPEN_FILES_MAX

    def boot_id(self) -> str:
        return f"{self.volume.machine.name}-boot-{self.volume.machine.boots}"

    def thread_delay_s(self) -> float:
        """How long it takes until a thread comes to what it is given."""
        rng = self.volume.rng
        return rng.random() * rng.choice((50, self.volume.sync_us)) / SECOND_US

    def writes_aside(self, size: int) -> bool:
        return True

    def begin_write(self, work: Callable[[], None], done: Callable[[], None]) -> BegunWrite:
        return BegunWrite(self, work, done)

    def make_in_thread(self, work: Callable[[], None]) -> int:
        """Do work that costs the process no time; how long it took."""
        self._in_run, self._cost_us = True, 0
        try:
            work()
        finally:
            self._in_run = False
            cost_us, self._cost_us = self._cost_us, 0
        return cost_us

    async def run(self, work: Callable[[], T]) -> T:
        """As in a thread: some time before the work, some after it, and others run meanwhile."""
        await asyncio.sleep(self.thread_delay_s())
        self._in_run, self._cost_us = True, 0
        try:
            result = work()
        finally:
            self._in_run = False
            cost_us, self._cost_us = self._cost_us, 0
            if cost_us:
                await asyncio.sleep(cost_us / SECOND_US)
        return result
