"""Unix sockets in a folder that is one user's: nobody else gets in, and a path may be as long as it likes."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

SOCKET_FILE = "socket"
# Connections that may wait to be accepted.
BACKLOG = 512

_UCRED = struct.Struct("iII")

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
        return await asyncio.start_unix_server(serve, sock=made, limit=limit, backlog=BACKLOG)
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


def peer(writer: asyncio.StreamWriter) -> tuple[int, int]:
    """The process and the user at the other end, as the kernel noted them when it connected (SO_PEERCRED)."""
    return peer_of(writer.get_extra_info("socket"))


def peer_of(connected: socket.socket) -> tuple[int, int]:
    pid, uid, _ = _UCRED.unpack(connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return pid, uid


@contextmanager
def short_path(folder: str | os.PathLike[str], name: str = SOCKET_FILE) -> Iterator[str]:
    """A path of the socket that the kernel takes, which has room for 107 bytes."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{fd}/{name}"
    finally:
        os.close(fd)
