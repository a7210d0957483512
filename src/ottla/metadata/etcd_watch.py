"""Following a namespace in etcd: a stream that is made anew, on any member, from where the last one ended.

What the stream is asked for begins one revision early, and that one is dropped: etcd refuses a start before
its compaction, but takes one right at it, of which deletions may be gone already.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from ottla.metadata import etcd_messages as rpc
from ottla.metadata.etcd_channel import Stream
from ottla.metadata.etcd_client import (
    TOKEN_TROUBLES,
    EtcdClient,
    UnreachableError,
    Verdict,
    judge,
    prefix_end,
    refusal,
)
from ottla.metadata.etcd_connection import CallError, Code
from ottla.metadata.store import CompactedError, Event, StoreError, WatchBatch

log = logging.getLogger(__name__)

PAUSE_S_MIN = 0.05
PAUSE_S_MAX = 1.0


class _Broken(Exception):
    """The stream ended, for a reason that another one may not have."""


class _Denied(Exception):
    """etcd does not let us watch: perhaps the token is no longer valid."""


class EtcdWatch:
    """One watch. All of ``namespace`` is followed, whatever ``prefix``, so that ``revision`` moves on."""

    def __init__(
        self, client: EtcdClient, namespace: bytes, hidden: bytes, prefix: str, from_revision: int
    ) -> None:
        """``hidden``: a key whose changes only say that the watch has got further."""
        self._client = client
        self._namespace = namespace
        self._hidden = hidden
        self._prefix = namespace + prefix.encode()
        # The first revision that nobody has been told of.
        self._position = max(from_revision, 1)
        self._call: Stream | None = None
        self._moved = False
        self._created = False

    async def batches(self) -> AsyncIterator[WatchBatch]:
        """As ``MetadataStore.watch``; once."""
        client = self._client
        failures, denials = 0, 0
        client.on_move(self._move)
        try:
            while not client.closed:
                self._created = False
                try:
                    async with contextlib.aclosing(self._stream()) as stream:
                        async for batch in stream:
                            yield batch
                except _Broken as error:
                    if failures == 2 * len(client.settings.endpoints):
                        client.unreachable(error)
                except _Denied as error:
                    denials += 1
                    if denials > 1 or client.token.request is None:
                        raise refusal(Code.PERMISSION_DENIED, str(error)) from error
                    client.token.value = None
                    continue
                if self._created:
                    failures, denials = 0, 0
                failures += 1
                if not client.closed and failures > 1:
                    await asyncio.sleep(min(PAUSE_S_MIN * 2 ** min(failures, 8), PAUSE_S_MAX))
        finally:
            client.off_move(self._move)

    # Inside

    def _move(self) -> None:
        """The member is not the one to ask any more, or the client closes."""
        self._moved = True
        if self._call is not None:
            self._call.cancel()

    async def _stream(self) -> AsyncGenerator[WatchBatch, None]:
        """Batches from one stream to one member. _Broken or _Denied when that has ended."""
        client, self._moved = self._client, False
        member = client.member
        try:
            if client.token.missing:
                # Any call gets a token.
                await client.call("Range", rpc.RangeRequest(key=self._hidden), repeat=True)
                member = client.member
            self._call = call = await member.watch(client.metadata)
            if self._moved:
                # While it was connected to.
                raise _Broken("moved")
            async with asyncio.timeout(client.attempt_s):
                await self._create(call)
            client.reachable(member.address)
            while True:
                batch = await self._batch(call)
                if batch is not None:
                    yield batch
        except (TimeoutError, CallError) as error:
            if self._moved:
                raise _Broken("moved") from error
            client.suspect(member.address)
            raise self._meaning(error, member.address) from error
        except UnreachableError as error:
            raise _Broken(str(error)) from error
        except StoreError as error:
            if client.closed:
                raise _Broken("closed") from error
            raise
        finally:
            if self._call is not None:
                self._call.cancel()
                self._call = None

    @staticmethod
    def _meaning(error: TimeoutError | CallError, address: str) -> Exception:
        if isinstance(error, TimeoutError):
            return _Broken(f"{address}: no answer")
        verdict = judge(error.code, error.details)
        if verdict is Verdict.TOKEN:
            return _Denied(error.details)
        if verdict is Verdict.REFUSED:
            return refusal(error.code, error.details)
        return _Broken(f"{address}: {error.details}")

    async def _create(self, call: Stream) -> None:
        request = rpc.WatchCreateRequest(
            key=self._namespace,
            range_end=prefix_end(self._namespace),
            start_revision=max(self._position - 1, 1),
            fragment=True,
        )
        call.send(rpc.WatchRequest(create_request=request))
        response = await self._read(call)
        while not response.created:
            response = await self._read(call)
        if response.header.revision < self._position - 1:
            # This member lags behind, or all of etcd has forgotten something: a linearizable read tells.
            await self._check_history()
        self._created = True

    async def _check_history(self) -> None:
        answer = await self._client.call("Range", rpc.RangeRequest(key=self._hidden), repeat=True)
        self._client.observe(answer.header, self._position - 1)

    async def _read(self, call: Stream) -> Any:
        """The next response that is not the end. _Broken, _Denied or CompactedError where it is."""
        response = await call.read()
        if response is None:
            raise _Broken("the stream ended")
        self._client.observe(response.header, None)
        if response.compact_revision:
            raise CompactedError(response.compact_revision)
        if response.canceled:
            reason = response.cancel_reason
            denied = any(text in reason for text in ("permission denied", *TOKEN_TROUBLES))
            raise _Denied(reason) if denied else _Broken(reason)
        return response

    async def _batch(self, call: Stream) -> WatchBatch | None:
        """What the next response, put together from its fragments, has that is new."""
        response = await self._read(call)
        found = list(response.events)
        while response.fragment:
            response = await self._read(call)
            found += response.events
        if not found or found[-1].kv.mod_revision < self._position:
            return None
        events = tuple(
            self._event(event)
            for event in found
            if event.kv.mod_revision >= self._position
            and event.kv.key.startswith(self._prefix)
            and event.kv.key != self._hidden
        )
        self._position = found[-1].kv.mod_revision + 1
        return WatchBatch(self._position - 1, events)

    def _event(self, event: Any) -> Event:
        kv = event.kv
        key = kv.key[len(self._namespace) :].decode("utf-8", "surrogateescape")
        return Event(key, None if event.type == rpc.EVENT_DELETE else kv.value, kv.mod_revision)
