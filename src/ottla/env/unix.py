"""Unix sockets in a folder that is one user's: nobody else gets in, and a path may be as long as it likes."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
import struct
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

SOCKET_FILE = "socket"
# Connections that may wait to be accepted.
BACKLOG = 512

_UCRED = struct.Struct("iII")
# The same on macOS (sys/un.h, sys/ucred.h), for which Python has no names.
_SOL_LOCAL, _LOCAL_PEERCRED, _LOCAL_PEERPID = 0, 1, 2
_XUCRED, _XUCRED_BYTES = struct.Struct("II"), 76
_DESCRIPTORS = "/proc/self/fd"
# From Python 3.13 on a loop looks for the file of a socket that it is given, to remove it at the end. The
# name that the socket knows is good no longer by then, or is that of another file: `short_path`.
LEFT_ALONE: dict[str, Any] = {} if sys.version_info < (3, 13) else {"cleanup_socket": False}

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def listen(folder: str, serve: Serve, *, limit: int) -> asyncio.Server:
    """Listen in ``folder``, made where it is missing, for processes of this user. OSError where that fails.

    ``limit``: bytes that a connection may keep before it is read. The caller is the only one who listens
    there: a socket that is left over is replaced.
    """
    os.makedirs(folder, mode=0o700, exist_ok=True)
    # It may have been made by somebody else, with other rights.
    os.chmod(folder, 0o700)
    made = socket.socket(socket.AF_UNIX)
    try:
        with short_path(folder) as path:
            with suppress(FileNotFoundError):
                os.unlink(path)
            made.bind(path)
            os.chmod(path, 0o600)
        made.setblocking(False)
        return await asyncio.start_unix_server(serve, sock=made, limit=limit, backlog=BACKLOG, **LEFT_ALONE)
    except BaseException:
        made.close()
        raise


async def connect(folder: str, *, limit: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to whoever listens in ``folder``. OSError where nobody does, or not this user."""
    made = socket.socket(socket.AF_UNIX)
    try:
        made.setblocking(False)
        with short_path(folder) as path:
            await asyncio.get_running_loop().sock_connect(made, path)
        if peer_of(made)[1] != os.geteuid():
            raise PermissionError(f"{folder}: another user listens there")
        return await asyncio.open_unix_connection(sock=made, limit=limit)
    except BaseException:
        made.close()
        raise


class Doorbell:
    """A socket in a folder that others may look into: processes of this user, and no other, can connect.

    Nobody is heard before ``serve``: connections wait in the kernel, and ``when_rung`` tells of the first.
    """

    def __init__(self, folder: str, name: str) -> None:
        """OSError where it cannot be made; FileExistsError where something else is there by that name. What a
        process left that was killed is replaced."""
        self._folder, self._name = folder, name
        self._server: asyncio.Server | None = None
        self._socket = socket.socket(socket.AF_UNIX)
        self._waits = False
        try:
            with short_path(folder, name) as path:
                _make_room(path)
                self._socket.bind(path)
                # Nobody can connect before it listens.
                os.chmod(path, 0o600)
                self._made = _identity(path)
            self._socket.setblocking(False)
            self._socket.listen(BACKLOG)
        except BaseException:
            self._socket.close()
            raise

    def when_rung(self, call: Callable[[], object]) -> None:
        """Call, once, when somebody has connected."""

        def rung() -> None:
            self._be_still()
            call()

        asyncio.get_running_loop().add_reader(self._socket.fileno(), rung)
        self._waits = True

    async def serve(self, factory: Callable[[], asyncio.BaseProtocol]) -> None:
        """Take who has connected, and who will."""
        self._be_still()
        self._server = await asyncio.get_running_loop().create_unix_server(
            factory, sock=self._socket, backlog=BACKLOG, **LEFT_ALONE
        )

    def _be_still(self) -> None:
        if self._waits:
            self._waits = False
            asyncio.get_running_loop().remove_reader(self._socket.fileno())

    def close(self) -> None:
        """Take nobody any more. The file goes, if it is still the one that was made here."""
        self._be_still()
        if self._server is not None:
            self._server.close()
        self._socket.close()
        with suppress(OSError), short_path(self._folder, self._name) as path:
            if _identity(path) == self._made:
                os.unlink(path)


def _identity(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino


def _make_room(path: str) -> None:
    """Remove a socket at which nobody listens any more. FileExistsError where it is anything else."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.geteuid():
        raise FileExistsError(errno.EEXIST, "there is something else by that name, which is left alone")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass
    raise FileExistsError(errno.EEXIST, "another process listens there")


def call(folder: str, name: str, timeout_s: float) -> socket.socket:
    """A connection to who listens in ``folder``, for who may wait. OSError where nobody does;
    PermissionError where that is another user, and this one is not root."""
    made = socket.socket(socket.AF_UNIX)
    try:
        made.settimeout(timeout_s)
        with short_path(folder, name) as path:
            made.connect(path)
        if os.geteuid() not in (0, peer_of(made)[1]):
            raise PermissionError(errno.EACCES, "another user listens there")
        return made
    except BaseException:
        made.close()
        raise


def peer(writer: asyncio.StreamWriter) -> tuple[int, int]:
    """The process and the user at the other end, as the kernel noted them when it connected (SO_PEERCRED)."""
    return peer_of(writer.get_extra_info("socket"))


def peer_of(connected: socket.socket) -> tuple[int, int]:
    if not hasattr(socket, "SO_PEERCRED"):
        # macOS, BSD: a version, the user, then groups; and the process by itself.
        credentials = connected.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED_BYTES)
        return connected.getsockopt(_SOL_LOCAL, _LOCAL_PEERPID), _XUCRED.unpack_from(credentials)[1]
    pid, uid, _ = _UCRED.unpack(connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return pid, uid


@contextmanager
def short_path(folder: str | os.PathLike[str], name: str = SOCKET_FILE) -> Iterator[str]:
    """A path of the socket that the kernel takes, which has room for 107 bytes; without /proc (macOS) the
    folder's own has to be short enough."""
    if not os.path.isdir(_DESCRIPTORS):
        yield os.path.join(folder, name)
        return
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"{_DESCRIPTORS}/{fd}/{name}"
    finally:
        os.close(fd)
