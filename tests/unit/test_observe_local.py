"""The socket in the data directory: who comes where nothing can be loaded is sent away."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from test_observe_http import on_loop

from measuring import HANG_S
from ottla.env.unix import call
from ottla.observe.http import HttpServer
from ottla.observe.local import SOCKET_FILE, LocalSocket


@on_loop
async def test_what_cannot_be_loaded_sends_away_who_has_come(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fails() -> HttpServer:
        raise ImportError("half an upgrade")

    local = LocalSocket(str(tmp_path), fails)
    local.open()

    def ask() -> bytes:
        with call(str(tmp_path), SOCKET_FILE, HANG_S) as made:
            return made.recv(1)

    with pytest.raises(ConnectionResetError):
        await asyncio.to_thread(ask)
    assert "requests cannot be answered" in caplog.text
    assert not (tmp_path / SOCKET_FILE).exists()
    await local.close()


@on_loop
async def test_a_close_while_nobody_has_come_is_harmless(tmp_path: Path) -> None:
    local = LocalSocket(str(tmp_path), lambda: pytest.fail("nobody came"))
    local.open()
    await local.close()
    assert not (tmp_path / SOCKET_FILE).exists()
    missing = LocalSocket(str(tmp_path / "no"), lambda: pytest.fail("nobody came"))
    missing.open()
    await missing.close()
