"""Having all of a volume on the disk at once, where thousands of files would be synced one by one otherwise.

syncfs(2) writes what is dirty of a file system, whoever wrote it, and commits its journal once. It tells of
what could not be written since the descriptor that it is given was opened, if the kernel is not older than
5.17 and the file system one of those that hand such errors up. Overlay file systems, for one, do not: there
each file has to be asked, which takes little when it has been written.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable
from typing import Protocol

# The first release of Linux whose syncfs tells of all that fails: since 5.8 of files that could not be
# written, since 5.17 of the file system itself as well, whose journal or disk's cache could not be flushed.
TELLS_SINCE = (5, 17)
# What statfs calls the file systems that are known to tell: ext2 to ext4, XFS, Btrfs.
TELLING = frozenset((0xEF53, 0x58465342, 0x9123683E))
# From so many folders with changes on it is quicker than file by file, though it writes what others left too.
FOLDERS_MIN = 100
# More than any struct statfs has; it begins with the file system's type, a long.
_STATFS_BYTES = 512

# syncfs(descriptor) of the C library: an error number, 0 for none.
SyncAll = Callable[[int], int]


class Volume(Protocol):
    """The file system that a folder is on. Opened before the first write that ``sync`` has to vouch for."""

    # From how many folders with changes on it is better than to sync them file by file.
    @property
    def folders_min(self) -> int: ...

    @property
    def tells(self) -> bool:
        """Whether ``sync`` tells of writes that failed."""
        ...

    def holds(self, folder: str) -> bool:
        """Whether a folder is on it with all its files: not where it, or one of them, is a link elsewhere."""
        ...

    def sync(self) -> None:
        """Block until all that was written on it would survive a loss of power.

        OSError where that fails, or, if it ``tells``, where any write has failed since it was opened: whose
        it was is not known.
        """
        ...

    def close(self) -> None: ...


class RealVolume:
    """A volume of this machine. ``open_volume`` makes one."""

    __slots__ = ("_device", "_fd", "_path", "_sync_all", "tells")

    def __init__(self, path: str, sync_all: SyncAll, *, tells: bool) -> None:
        self.tells = tells
        self._path = path
        self._sync_all = sync_all
        self._fd = -1
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._device = os.fstat(self._fd).st_dev

    @property
    def folders_min(self) -> int:
        return FOLDERS_MIN

    def holds(self, folder: str) -> bool:
        if os.stat(folder).st_dev != self._device:
            return False
        with os.scandir(folder) as entries:
            return not any(entry.is_symlink() for entry in entries)

    def sync(self) -> None:
        error = self._sync_all(self._fd)
        if error:
            raise OSError(error, os.strerror(error), self._path)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        self.close()


def open_volume(path: str) -> RealVolume | None:
    """The volume of a folder; None where the system has no way to sync it at once. OSError: no folder."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "syncfs"):
        return None

    def sync_all(descriptor: int) -> int:
        return ctypes.get_errno() if libc.syncfs(descriptor) else 0

    tells = release_tells(os.uname().release) and _type_of(libc, path) in TELLING
    return RealVolume(path, sync_all, tells=tells)


def _type_of(libc: ctypes.CDLL, path: str) -> int:
    """The number of the type of the file system that a path is on, 0 where it is not known."""
    found = ctypes.create_string_buffer(_STATFS_BYTES)
    if not hasattr(libc, "statfs") or libc.statfs(os.fsencode(path), found):
        return 0
    return ctypes.c_long.from_buffer(found).value


def release_tells(release: str) -> bool:
    """Whether a Linux of this release, ``6.1.0-9-amd64`` say, tells of writes that failed earlier."""
    version = re.match(r"(\d+)\.(\d+)", release)
    return version is not None and (int(version[1]), int(version[2])) >= TELLS_SINCE
