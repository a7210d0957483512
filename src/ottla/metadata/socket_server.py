"""Serves this process's metadata store to other processes of the same user, over a Unix socket.

One connection is one client. Its requests are done one after the other, so that it has one under way;
watches wait beside them, each until there is something to tell. An answer that the client does not read is
not made: it is written part by part, and the next part waits until there is room.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from typing import Any, cast

from ottla.env import unix
from ottla.metadata import socket_wire as wire
from ottla.metadata.socket_wire import Op, Request, WireError
from ottla.metadata.sqlite import SqliteStore
from ottla.metadata.store import LeaseError, StoreError, WatchBatch

log = logging.getLogger(__name__)

# A node has one, and for a moment two.
CONNECTIONS_MAX = 1_024
# A node has one.
WATCHES_MAX = 16
# A node has one, and others whose end it has not noticed.
LEASES_MAX = 64
# What a connection keeps unread of its requests; the rest stays in the kernel.
READ_BYTES_MAX = 64 * 1024
# A lease is a node's life: nobody needs a shorter one, and a longer one would be never.
LEASE_MS_MIN, LEASE_MS_MAX = 1, 24 * 3_600_000


class StoreServer:
    """``open``, then ``close``. The store stays the caller's."""

    def __init__(self, store: SqliteStore, folder: str, *, user: Callable[[], int] = os.geteuid) -> None:
        """``folder``: where the socket is to be; ``user``: whose processes may come."""
        self._store = store
        self._folder = folder
        self._user = user
        self._server: asyncio.Server | None = None
        self._connections: dict[_Connection, None] = {}
        # Leases by the process that was granted them.
        self._granted: dict[int, dict[int, None]] = {}

    async def open(self) -> None:
        """OSError where the socket cannot be made."""
        self._server = await unix.listen(self._folder, self._serve, limit=READ_BYTES_MAX)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        tasks = [connection.task for connection in self._connections]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def process_ended(self, pid: int) -> None:
        """End the leases of a process that is gone, without waiting for their time. StoreError."""
        for lease in self._granted.pop(pid, {}):
            with suppress(LeaseError):
                await self._store.lease_revoke(lease)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pid, uid = unix.peer(writer)
        if uid != self._user() or len(self._connections) >= CONNECTIONS_MAX:
            log.warning("process %d of user %d was refused by the metadata store", pid, uid)
            writer.close()
            return
        connection = _Connection(self._store, reader, writer, self._granted, pid)
        self._connections[connection] = None
        try:
            await connection.run()
        except WireError as error:
            log.warning("process %d: its connection to the metadata store is closed: %s", pid, error)
        except (OSError, asyncio.IncompleteReadError):
            # It has gone.
            return
        finally:
            del self._connections[connection]
            await connection.end()


class _Connection:
    def __init__(
        self,
        store: SqliteStore,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        granted: dict[int, dict[int, None]],
        pid: int,
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.task: asyncio.Task[Any] = task
        self._store = store
        self._reader, self._writer = reader, writer
        self._granted = granted
        self._pid = pid
        self._watches: dict[int, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Until the client goes. WireError where it says what nobody understands."""
        while True:
            header = await self._reader.readexactly(wire.LENGTH_BYTES)
            size = wire.body_bytes(header, wire.REQUEST_BYTES_MAX)
            request = wire.parse_request(await self._reader.readexactly(size))
            if request.op is Op.WATCH:
                self._watch(request)
            elif request.op is Op.FORGET:
                self._forget(request.id)
            else:
                await self._answer(request)

    async def end(self) -> None:
        tasks = list(self._watches.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._writer.transport.abort()

    async def _answer(self, request: Request) -> None:
        try:
            await self._do(request)
        except (StoreError, ValueError) as error:
            # A ValueError is a transaction that no store takes.
            await self._send(wire.failure(request.id, error))

    async def _do(self, request: Request) -> None:
        store, arguments = self._store, request.arguments
        content: list[Any] = []
        match request.op:
            case Op.GET:
                item = await store.get(*arguments)
                content = [None if item is None else wire.item_of(item)]
            case Op.RANGE:
                found = await store.range(*arguments)
                await self._send_parts(request.id, found.revision, list(map(wire.item_of, found.items)))
                return
            case Op.TXN:
                content = list(await store.txn(*arguments))
            case Op.COMPACT:
                await store.compact(*arguments)
            case Op.GRANT:
                content = [await self._grant(*arguments)]
            case Op.KEEP_ALIVE:
                (lease,) = arguments
                await store.lease_keep_alive(lease)
                content = [store.lease_ttl_ms(lease)]
            case Op.REVOKE:
                (lease,) = arguments
                self._granted.get(self._pid, {}).pop(lease, None)
                await store.lease_revoke(lease)
        await self._send(wire.answer(request.id, *content))

    async def _grant(self, ttl_ms: int) -> int:
        """A lease that the process has. ValueError for one that nobody needs, StoreError for too many."""
        if not LEASE_MS_MIN <= ttl_ms <= LEASE_MS_MAX:
            raise ValueError(f"a lease of {ttl_ms} ms")
        granted = self._granted.setdefault(self._pid, {})
        for lease in [lease for lease in granted if not self._store.has_lease(lease)]:
            del granted[lease]
        if len(granted) >= LEASES_MAX:
            raise StoreError(f"a process has no more than {LEASES_MAX} leases")
        lease = await self._store.lease_grant(ttl_ms)
        granted[lease] = None
        return lease

    # Watches

    def _watch(self, request: Request) -> None:
        if len(self._watches) >= WATCHES_MAX or request.id in self._watches:
            raise WireError("too many watches")
        task = asyncio.create_task(self._tell(request), name="store-watch")
        self._watches[request.id] = task
        task.add_done_callback(lambda _: self._watches.pop(request.id))

    def _forget(self, call_id: int) -> None:
        task = self._watches.get(call_id)
        if task is not None:
            task.cancel()

    async def _tell(self, request: Request) -> None:
        """Answer with what is next to a watch, however long that takes."""
        try:
            watch = cast(AsyncGenerator[WatchBatch, None], self._store.watch(*request.arguments))
            async with aclosing(watch) as batches:
                async for batch in batches:
                    events = list(map(wire.event_of, batch.events))
                    await self._send_parts(request.id, batch.revision, events)
                    return
        except StoreError as error:
            with suppress(OSError):
                await self._send(wire.failure(request.id, error))
        except (OSError, WireError):
            # The connection has gone; or it is to go, since what it asks for does not fit into a frame.
            self._writer.transport.abort()

    # Answers

    async def _send_parts(self, call_id: int, revision: int, elements: list[list[Any]]) -> None:
        pieces = iter(wire.parts(elements))
        piece = next(pieces)
        for following in pieces:
            await self._send(wire.answer(call_id, revision, piece, more=True))
            piece = following
        await self._send(wire.answer(call_id, revision, piece))

    async def _send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()
