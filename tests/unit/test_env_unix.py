"""A socket that only one user can connect to: what is in its place, who may, and that paths may be long."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from pathlib import Path

import pytest
from test_observe_http import on_loop

from measuring import HANG_S
from ottla.env.unix import Doorbell, call, short_path

NAME = "a.sock"


class Greets(asyncio.Protocol):
    """Says something to who connects."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"hello")
        transport.close()


async def hear(folder: str) -> bytes:
    def listen() -> bytes:
        with call(folder, NAME, HANG_S) as made:
            return made.recv(100)

    return await asyncio.to_thread(listen)


@on_loop
async def test_who_connects_waits_until_somebody_serves(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 50)
    folder.mkdir()
    bell = Doorbell(str(folder), NAME)
    # What the folder was reached by is something else now, as the next file that is opened often is.
    others = [os.open(__file__, os.O_RDONLY) for _ in range(8)]
    rung = asyncio.Event()
    bell.when_rung(rung.set)
    heard = asyncio.ensure_future(hear(str(folder)))
    async with asyncio.timeout(HANG_S):
        await rung.wait()
    assert not heard.done()
    await bell.serve(Greets)
    assert await heard == b"hello"
    assert await hear(str(folder)) == b"hello"
    assert stat.S_IMODE((folder / NAME).lstat().st_mode) == 0o600
    bell.close()
    assert not (folder / NAME).exists()
    with pytest.raises(FileNotFoundError):
        await hear(str(folder))
    for other in others:
        os.close(other)


@on_loop
async def test_what_is_left_over_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left, short_path(tmp_path, NAME) as path:
        left.bind(path)
    assert (tmp_path / NAME).is_socket()
    bell = Doorbell(str(tmp_path), NAME)
    bell.when_rung(lambda: None)
    await bell.serve(Greets)
    assert await hear(str(tmp_path)) == b"hello"
    bell.close()


@pytest.mark.parametrize("kind", ["file", "folder", "link", "served"])
@on_loop
async def test_what_is_not_ours_is_left_alone(kind: str, tmp_path: Path) -> None:
    there = tmp_path / NAME
    served = Doorbell(str(tmp_path), NAME) if kind == "served" else None
    if kind == "file":
        there.write_text("mine")
    elif kind == "folder":
        there.mkdir()
    elif kind == "link":
        there.symlink_to("nowhere")
    before = os.lstat(there)
    with pytest.raises(FileExistsError):
        Doorbell(str(tmp_path), NAME)
    assert os.lstat(there) == before
    if served is not None:
        served.close()


@on_loop
async def test_a_socket_that_took_its_place_is_not_removed(tmp_path: Path) -> None:
    bell = Doorbell(str(tmp_path), NAME)
    (tmp_path / NAME).unlink()
    # Another inode, whatever the file system gives next.
    (tmp_path / "other").write_text("")
    (tmp_path / "more").write_text("")
    (tmp_path / "more").rename(tmp_path / NAME)
    bell.close()
    assert (tmp_path / NAME).exists()


@on_loop
async def test_a_folder_that_is_gone_is_no_trouble(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    bell = Doorbell(str(folder), NAME)
    (folder / NAME).unlink()
    folder.rmdir()
    bell.close()
    with pytest.raises(FileNotFoundError):
        Doorbell(str(folder), NAME)
