"""Keeping etcd's leases alive from a thread with a connection of its own, while the event loop turns.

The thread sleeps between renewals, and before each it has the loop answer. A loop that is busy answers late,
and the lease, renewed three times in its life, bears that; for one that stands still, in a long computation
or a write to a disk that hangs, nobody renews, and the lease ends: a node that does nothing must not count as
living. The thread also finds out quickly when a member does not serve any more, and says so, so that the rest
of the store goes on with another one.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ottla.env.clock import Clock
from ottla.metadata import etcd_messages as rpc
from ottla.metadata.etcd_channel import Stream
from ottla.metadata.etcd_client import METHODS, EtcdClient, Member, Verdict, judge
from ottla.metadata.etcd_connection import CallError, Code

log = logging.getLogger(__name__)

# Renewals in the time of a lease.
RENEWALS = 3
# Pause after a round through all members, none of which would serve.
PAUSE_MS = 200
# A lease is lost when etcd has said twice that it does not know it: a leader that has just been elected may
# not have read yet that it was granted.
DENIALS = 2
DENIAL_PAUSE_MS = 100
STOP_S_MAX = 5.0


class _Held:
    """A lease, when it is due, until when it lasts, and whom to tell when it has ended."""

    __slots__ = ("denials", "due_ms", "interval_ms", "lease", "lost", "until_ms")

    def __init__(self, lease: int, ttl_ms: int, sent_ms: int, due_ms: int, lost: Callable[[], None]) -> None:
        self.lease = lease
        self.interval_ms = ttl_ms // RENEWALS
        self.due_ms = due_ms
        # Its time counts from when its last renewal was sent: when that arrived is not known.
        self.until_ms = sent_ms + ttl_ms
        self.lost = lost
        self.denials = 0


class LeaseKeeper:
    """The thread and the leases that it holds. Its methods are called on the event loop."""

    def __init__(self, client: EtcdClient, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._wake = threading.Condition()
        # Guarded by _wake, as is all that follows.
        self._held: dict[int, _Held] = {}
        self._stopping = False
        # When the loop last answered, and whether it has been asked to since.
        self._turned_ms = 0
        self._asked = False
        self._stopped: asyncio.Future[None] = self._loop.create_future()
        self._renewer = _Renewer(client, self._suspect, self._served)
        # A daemon, so that a process that ends without closing the store does end.
        self._thread = threading.Thread(target=self._run, name="ottla-leases", daemon=True)
        self._thread.start()

    def hold(self, lease: int, ttl_s: int, sent_ms: int, lost: Callable[[], None]) -> None:
        """Keep a lease alive that was renewed just now, by a request that was sent at ``sent_ms``."""
        ttl_ms = ttl_s * 1000
        with self._wake:
            due_ms = self._clock.monotonic_ms() + ttl_ms // RENEWALS
            self._held[lease] = _Held(lease, ttl_ms, sent_ms, due_ms, lost)
            self._wake.notify()

    def lasts(self, lease: int) -> bool:
        """Whether a lease is held, and cannot have ended yet."""
        with self._wake:
            held = self._held.get(lease)
            return held is not None and self._clock.monotonic_ms() < held.until_ms

    def release(self, lease: int) -> bool:
        """Hold a lease no more; say whether it was held."""
        with self._wake:
            return self._held.pop(lease, None) is not None

    async def close(self) -> None:
        with self._wake:
            self._held.clear()
            self._stopping = True
            self._wake.notify()
        self._renewer.stop()
        await asyncio.wait([self._stopped], timeout=STOP_S_MAX)

    # On the thread

    def _run(self) -> None:
        try:
            while (held := self._next()) is not None:
                try:
                    self._renew(held)
                except Exception:
                    # Without this thread every lease would end.
                    log.exception("a lease could not be renewed, retrying")
                    held.due_ms = self._clock.monotonic_ms() + PAUSE_MS
        finally:
            self._renewer.close()
            self._tell(_finish, self._stopped)

    def _next(self) -> _Held | None:
        """The next lease, when it is due and the loop has answered since; None when it is time to stop."""
        with self._wake:
            while not self._stopping:
                held = min(self._held.values(), key=lambda held: held.due_ms, default=None)
                if held is None:
                    self._wake.wait()
                    continue
                wait_ms = held.due_ms - self._clock.monotonic_ms()
                if wait_ms > 0:
                    self._wake.wait(wait_ms / 1000)
                elif self._turned_ms >= held.due_ms:
                    return held
                else:
                    self._ask()
                    self._wake.wait()
            return None

    def _ask(self) -> None:
        """Have the loop say that it turns. However long it does not, it is asked once."""
        if not self._asked:
            self._asked = True
            self._tell(self._answer, None)

    def _renew(self, held: _Held) -> None:
        # A member that does not answer must not take all of the time that is left.
        sent_ms = self._clock.monotonic_ms()
        ttl_s = self._renewer.renew(held.lease, held.interval_ms / 1000)
        now_ms = self._clock.monotonic_ms()
        with self._wake:
            if ttl_s is None:
                held.due_ms = now_ms + PAUSE_MS
            elif ttl_s > 0:
                held.denials = 0
                # Not from now: the process may have been stopped since.
                held.due_ms = sent_ms + held.interval_ms
                held.until_ms = sent_ms + ttl_s * 1000
            else:
                held.denials += 1
                held.due_ms = now_ms + DENIAL_PAUSE_MS
                if held.denials >= DENIALS and self._held.get(held.lease) is held:
                    self._tell(self._lost, held)

    def _suspect(self, address: str) -> None:
        self._tell(self._client.suspect, address)

    def _served(self, address: str) -> None:
        self._tell(self._client.reachable, address)

    def _tell(self, callback: Callable[..., None], argument: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, argument)
        except RuntimeError:
            # The loop was closed before the store was: nobody is left to be told.
            self._stopping = True

    # On the event loop again

    def _answer(self, _: None) -> None:
        with self._wake:
            self._asked = False
            self._turned_ms = self._clock.monotonic_ms()
            self._wake.notify()

    def _lost(self, held: _Held) -> None:
        with self._wake:
            # It may have been released meanwhile, or told already.
            if self._held.get(held.lease) is not held:
                return
            del self._held[held.lease]
        held.lost()


class _Renewer:
    """LeaseKeepAlive at one member after the other, blocking; beginning with the one that the rest of the
    store uses, so that it is soon noticed when that one hangs.

    It has a loop of its own, which runs while a renewal does. One stream serves all renewals at a member.
    """

    def __init__(
        self, client: EtcdClient, suspect: Callable[[str], None], served: Callable[[str], None]
    ) -> None:
        """``suspect``, ``served``: told of each attempt, by its member's address."""
        self._client = client
        self._suspect = suspect
        self._served = served
        self._loop = asyncio.new_event_loop()
        self._under_way: asyncio.Task[int] | None = None
        self._member: Member | None = None
        self._stream: Stream | None = None
        self._closed = False

    def renew(self, lease: int, timeout_s: float) -> int | None:
        """The seconds that the lease has from now on, 0 where it has ended, None where nobody answered."""
        timeout_s = min(timeout_s, self._client.attempt_s)
        addresses = self._client.settings.endpoints
        first = self._client.current
        for number in range(len(addresses)):
            if self._closed:
                return None
            address = addresses[(first + number) % len(addresses)]
            try:
                ttl_s = self._loop.run_until_complete(self._begin(address, lease, timeout_s))
            except CallError as error:
                if judge(error.code, error.details) is Verdict.TOKEN:
                    self._client.token.value = None
            except TimeoutError:
                log.debug("%s does not answer a renewal", address)
            except asyncio.CancelledError:
                return None
            else:
                self._served(address)
                return ttl_s
            self._loop.run_until_complete(self._leave())
            self._suspect(address)
        return None

    def stop(self) -> None:
        """End a renewal that is under way, from another thread."""
        self._closed = True
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._cancel)

    def close(self) -> None:
        """On the thread, in the end."""
        self._loop.run_until_complete(self._leave())
        self._loop.close()

    def _cancel(self) -> None:
        if self._under_way is not None:
            self._under_way.cancel()

    def _begin(self, address: str, lease: int, timeout_s: float) -> asyncio.Task[int]:
        self._under_way = self._loop.create_task(self._ask(address, lease, timeout_s))
        return self._under_way

    async def _ask(self, address: str, lease: int, timeout_s: float) -> int:
        async with asyncio.timeout(timeout_s):
            # What happened to the connection since the last renewal is noticed first.
            for _ in range(2):
                await asyncio.sleep(0)
            if self._member is not None and self._member.address != address:
                await self._leave()
            if self._stream is None or self._stream.is_over:
                self._stream = await self._open(address)
            self._stream.send(rpc.LeaseKeepAliveRequest(ID=lease))
            answer = await self._stream.read()
            if answer is None:
                raise CallError(Code.UNAVAILABLE, "the stream ended")
            return max(int(answer.TTL), 0)

    async def _open(self, address: str) -> Stream:
        if self._member is None:
            self._member = self._client.make_member(address)
        if self._client.token.missing:
            await self._client.authenticate(self._member, self._client.attempt_s)
        path, answer = METHODS["LeaseKeepAlive"]
        metadata = self._client.metadata
        return await self._member.channel.stream(path, answer, self._client.attempt_s, metadata)

    async def _leave(self) -> None:
        member, self._member, self._stream = self._member, None, None
        if member is not None:
            await member.channel.close()


def _finish(stopped: asyncio.Future[None]) -> None:
    if not stopped.done():
        stopped.set_result(None)
