"""A metadata store that another process of this machine keeps: ``socket_server``'s other side.

While it does not answer this is as with an etcd that is out of reach: calls fail after their time, watches
wait and go on where they were, and a lease counts until it is said to have ended. Leases are renewed on the
event loop, so that those of a loop that stands still are not.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import Any

from ottla.env import unix
from ottla.env.clock import Clock
from ottla.metadata import socket_wire as wire
from ottla.metadata.socket_wire import Op, Status, WireError
from ottla.metadata.store import (
    Compare,
    KeyValue,
    LeaseError,
    Operation,
    OutcomeUnknownError,
    Range,
    StoreError,
    TxnResult,
    WatchBatch,
    check_txn,
)

log = logging.getLogger(__name__)

# How long a call may take, with all attempts to connect.
TIMEOUT_MS = 6_000
# Pauses between attempts to connect.
CONNECT_PAUSE_MS = 50
# Renewals in the time of a lease, and the pause after one that failed.
RENEWALS = 3
RENEWAL_PAUSE_MS = 200
READ_BYTES_MAX = 256 * 1024


class _Lost(Exception):
    """The connection has ended. What was ``asked`` for on it may have been done or not."""

    def __init__(self, *, asked: bool) -> None:
        super().__init__()
        self.asked = asked


class _Connection:
    """One connection and what was asked for on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._ids = itertools.count(1)
        # What is waited for: parts of the answer so far, and who wants it.
        self._waiting: dict[int, tuple[list[list[Any]], asyncio.Future[list[list[Any]]]]] = {}
        self._task = asyncio.create_task(self._read(), name="metadata-store")

    @property
    def open(self) -> bool:
        return not self._task.done()

    async def call(self, op: Op, *arguments: Any) -> list[list[Any]]:
        """The answer, each part's content. What the store says failed is raised; _Lost; WireError where the
        request is too large."""
        call_id = next(self._ids)
        request = wire.request(call_id, op, *arguments)
        if not self.open:
            raise _Lost(asked=False)
        future: asyncio.Future[list[list[Any]]] = asyncio.get_running_loop().create_future()
        self._waiting[call_id] = ([], future)
        self._writer.write(request)
        try:
            return await future
        finally:
            del self._waiting[call_id]
            if op is Op.WATCH and not future.done() and self.open:
                self._writer.write(wire.request(call_id, Op.FORGET))

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _read(self) -> None:
        try:
            while True:
                header = await self._reader.readexactly(wire.LENGTH_BYTES)
                self._take(await self._reader.readexactly(wire.body_bytes(header)))
        except (OSError, asyncio.IncompleteReadError):
            # Whoever waits is told below.
            return
        except WireError as error:
            log.error("the metadata store sent a malformed message: %s", error)
        finally:
            self._writer.transport.abort()
            for _, future in self._waiting.values():
                if not future.done():
                    future.set_exception(_Lost(asked=True))

    def _take(self, body: bytes) -> None:
        answer = wire.parse_answer(body)
        # Nobody waits for one that came too late.
        found, future = self._waiting.get(answer.id, ([], None))
        if future is None or future.done():
            return
        if answer.status is Status.FAILED:
            future.set_exception(wire.error_of(answer.content))
            return
        found.append(answer.content)
        if answer.status is Status.OK:
            future.set_result(found)


class _Held:
    """A lease that is held: until when it lasts, and whom to tell when it has ended."""

    def __init__(self, lost: Callable[[], None]) -> None:
        self.lost = lost
        self.until_ms = 0
        self.task: asyncio.Task[None] | None = None


class SocketStore:
    """A MetadataStore behind the socket in ``folder``. Belongs to one event loop."""

    def __init__(self, folder: str, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock
        self._connection: _Connection | None = None
        self._connecting: asyncio.Task[_Connection] | None = None
        self._held: dict[int, _Held] = {}
        self._closed = False
        self._closing = asyncio.Event()
        self._silent_since_s: float | None = None
        # Whether it was said that the store is out of reach.
        self._said = False

    @property
    def silent_since_s(self) -> float | None:
        return self._silent_since_s

    async def get(self, key: str) -> KeyValue | None:
        ((item,),) = await self._call(Op.GET, key)
        return None if item is None else wire.parse_item(item)

    async def range(self, prefix: str) -> Range:
        parts = await self._call(Op.RANGE, prefix)
        found: list[KeyValue] = []
        for _, items in parts:
            found += map(wire.parse_item, items)
            # There may be any number of them.
            await asyncio.sleep(0)
        return Range(parts[0][0], found)

    async def txn(self, compares: Sequence[Compare], operations: Sequence[Operation]) -> TxnResult:
        check_txn(compares, operations)
        arguments = wire.txn_arguments(compares, operations)
        ((succeeded, revision),) = await self._call(Op.TXN, *arguments, repeat=False)
        return TxnResult(succeeded, revision)

    async def watch(self, prefix: str, from_revision: int) -> AsyncIterator[WatchBatch]:
        position = from_revision
        while not self._closed:
            try:
                connection = await self._connect()
                self._silent_since_s = None
                parts = await connection.call(Op.WATCH, prefix, position)
            except _Lost:
                continue
            except OSError:
                self._is_silent()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), CONNECT_PAUSE_MS / 1000)
                continue
            revision = parts[0][0]
            events = tuple(wire.parse_event(event) for _, some in parts for event in some)
            yield WatchBatch(revision, events)
            position = revision + 1

    async def compact(self, revision: int) -> None:
        await self._call(Op.COMPACT, revision)

    async def lease_grant(self, ttl_ms: int) -> int:
        ((lease,),) = await self._call(Op.GRANT, ttl_ms)
        return int(lease)

    async def lease_keep_alive(self, lease: int) -> None:
        await self._call(Op.KEEP_ALIVE, lease)

    async def lease_hold(self, lease: int, lost: Callable[[], None]) -> None:
        held = _Held(lost)
        ttl_ms = await self._renew(lease, held)
        await self.lease_release(lease)
        self._held[lease] = held
        held.task = asyncio.create_task(self._keep(lease, held, ttl_ms), name="lease")

    def lease_lasts(self, lease: int) -> bool:
        held = self._held.get(lease)
        return held is not None and self._clock.monotonic_ms() < held.until_ms

    async def lease_release(self, lease: int) -> None:
        held = self._held.pop(lease, None)
        if held is not None and held.task is not None:
            held.task.cancel()
            await asyncio.wait([held.task])

    async def lease_revoke(self, lease: int) -> None:
        await self.lease_release(lease)
        await self._call(Op.REVOKE, lease)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._closing.set()
        for lease in list(self._held):
            await self.lease_release(lease)
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        if self._connection is not None:
            await self._connection.close()

    # Inside

    async def _call(self, op: Op, *arguments: Any, repeat: bool = True) -> list[list[Any]]:
        """The answer; where a connection is lost, and ``repeat``, it is asked for again on another one."""
        deadline_s = asyncio.get_running_loop().time() + TIMEOUT_MS / 1000
        while True:
            connection = await self._reach(deadline_s)
            try:
                async with asyncio.timeout_at(deadline_s):
                    found = await connection.call(op, *arguments)
            except WireError as error:
                raise StoreError(f"the metadata store refused the request: {error}") from error
            except TimeoutError:
                self._say("it does not answer")
                kind = StoreError if repeat else OutcomeUnknownError
                raise kind("the metadata store does not answer") from None
            except _Lost as error:
                if error.asked and not repeat:
                    raise OutcomeUnknownError("lost contact with the metadata store") from None
            else:
                self._silent_since_s = None
                if self._said:
                    self._said = False
                    log.info("the metadata store answers again")
                return found

    async def _reach(self, deadline_s: float) -> _Connection:
        """The connection, once there is one. StoreError: there is none in time, or the store is closed."""
        while not self._closed:
            try:
                return await self._connect()
            except _Lost:
                continue
            except OSError as error:
                trouble = (error.strerror or str(error)).lower()
                self._say(trouble)
                if asyncio.get_running_loop().time() >= deadline_s:
                    raise StoreError(f"the metadata store cannot be reached: {trouble}") from error
            await asyncio.sleep(CONNECT_PAUSE_MS / 1000)
        raise StoreError("the metadata store is closed")

    async def _connect(self) -> _Connection:
        """The connection, made where there is none; by one for all. OSError; _Lost where the store closes."""
        connection = self._connection
        if connection is not None and connection.open:
            return connection
        if self._closed:
            raise _Lost(asked=False)
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._make(), name="metadata-store-connect")
        task = self._connecting
        await asyncio.wait([task])
        if task.cancelled():
            raise _Lost(asked=False)
        return task.result()

    async def _make(self) -> _Connection:
        reader, writer = await unix.connect(self._folder, limit=READ_BYTES_MAX)
        self._connection = _Connection(reader, writer)
        return self._connection

    async def _renew(self, lease: int, held: _Held) -> int:
        sent_ms = self._clock.monotonic_ms()
        ((ttl_ms,),) = await self._call(Op.KEEP_ALIVE, lease)
        # Its time counts from when its renewal was sent: when that arrived is not known.
        held.until_ms = sent_ms + ttl_ms
        return int(ttl_ms)

    async def _keep(self, lease: int, held: _Held, ttl_ms: int) -> None:
        """Renew a lease in its time until it is released, or has ended."""
        pause_ms = ttl_ms / RENEWALS
        while True:
            await asyncio.sleep(pause_ms / 1000)
            try:
                pause_ms = await self._renew(lease, held) / RENEWALS
            except LeaseError:
                break
            except StoreError:
                # It was said; and no lease ends because its store does not answer.
                pause_ms = RENEWAL_PAUSE_MS
        if self._held.get(lease) is held:
            del self._held[lease]
            held.lost()

    def _is_silent(self) -> None:
        if self._silent_since_s is None:
            self._silent_since_s = asyncio.get_running_loop().time()

    def _say(self, trouble: str) -> None:
        self._is_silent()
        if not self._said and not self._closed:
            self._said = True
            log.error("the metadata store cannot be reached, retrying: %s", trouble)
