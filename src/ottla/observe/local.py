"""A socket in a node's data directory, for processes of the same user on the same machine: they may see more
than whoever reaches ``metrics.listener``. What answers there is loaded when the first of them comes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from ottla.env.unix import Doorbell

if TYPE_CHECKING:
    from ottla.observe.http import HttpServer

log = logging.getLogger(__name__)

SOCKET_FILE = "ottla.sock"
# What is loaded, in a thread, before the first one is answered.
LOADED = ("ottla.observe.observer", "ottla.observe.trace")


class LocalSocket:
    """``open``, then ``close``. ``make`` is called in the event loop, once somebody has come."""

    def __init__(self, folder: str, make: Callable[[], HttpServer]) -> None:
        self._folder = folder
        self._make = make
        self._bell: Doorbell | None = None
        self._server: HttpServer | None = None
        self._serving: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Have them come. Where that cannot be, the log says why, and the node goes on without."""
        try:
            self._bell = Doorbell(self._folder, SOCKET_FILE)
        except OSError as error:
            reason = error.strerror or str(error)
            log.warning(
                "'ottla trace' cannot reach this broker, no socket at %s/%s: %s",
                self._folder,
                SOCKET_FILE,
                reason,
            )
            return
        self._bell.when_rung(self._rung)

    def _rung(self) -> None:
        self._serving = asyncio.ensure_future(self._serve())

    async def _serve(self) -> None:
        assert self._bell is not None
        try:
            # Not in a thread of the disk's: that may be what hangs, and is asked about.
            await asyncio.get_running_loop().run_in_executor(None, _load)
            self._server = self._make()
            await self._bell.serve(self._server.connection)
        except Exception:
            # Who waits is not to wait for ever, and the node goes on.
            log.exception("requests cannot be answered at %s/%s", self._folder, SOCKET_FILE)
            self._bell.close()

    async def close(self) -> None:
        """End all connections, and remove the socket."""
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.wait((self._serving,))
        if self._server is not None:
            self._server.close()
        bell, self._bell = self._bell, None
        if bell is not None:
            bell.close()


def _load() -> None:
    for name in LOADED:
        import_module(name)
