"""Keeping etcd's leases alive from a thread with a connection of its own, however busy the event loop is.

The thread sleeps between renewals. It also finds out quickly when a member does not serve any more, and
says so, so that the rest of the store goes on with another one.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import grpc
from aetcd import rpc

from ottla.env.clock import Clock
from ottla.metadata.etcd_client import (
    NO_AUTHENTICATION,
    OPTIONS,
    REQUIRE_LEADER,
    EtcdClient,
    Verdict,
    judge,
    keep_alive,
)

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
    """A lease, when it is due, and whom to tell when it has ended."""

    __slots__ = ("denials", "due_ms", "interval_ms", "lease", "lost")

    def __init__(self, lease: int, interval_ms: int, due_ms: int, lost: Callable[[], None]) -> None:
        self.lease = lease
        self.interval_ms = interval_ms
        self.due_ms = due_ms
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
        self._stopped: asyncio.Future[None] = self._loop.create_future()
        self._renewer = _Renewer(client, self._suspect)
        # A daemon, so that a process that ends without closing the store does end.
        self._thread = threading.Thread(target=self._run, name="ottla-leases", daemon=True)
        self._thread.start()

    def hold(self, lease: int, ttl_s: int, lost: Callable[[], None]) -> None:
        """Keep a lease alive that was renewed just now."""
        interval_ms = ttl_s * 1000 // RENEWALS
        with self._wake:
            self._held[lease] = _Held(lease, interval_ms, self._clock.monotonic_ms() + interval_ms, lost)
            self._wake.notify()

    def release(self, lease: int) -> bool:
        """Hold a lease no more; say whether it was held."""
        with self._wake:
            return self._held.pop(lease, None) is not None

    async def close(self) -> None:
        with self._wake:
            self._held.clear()
            self._stopping = True
            self._wake.notify()
        # Ends a call that is on its way.
        self._renewer.close()
        await asyncio.wait([self._stopped], timeout=STOP_S_MAX)

    # On the thread

    def _run(self) -> None:
        try:
            while (held := self._next()) is not None:
                self._renew(held)
        finally:
            self._tell(_finish, self._stopped)

    def _next(self) -> _Held | None:
        """The next lease, when it is due; None when it is time to stop."""
        with self._wake:
            while not self._stopping:
                held = min(self._held.values(), key=lambda held: held.due_ms, default=None)
                if held is None:
                    self._wake.wait()
                    continue
                wait_ms = held.due_ms - self._clock.monotonic_ms()
                if wait_ms <= 0:
                    return held
                self._wake.wait(wait_ms / 1000)
            return None

    def _renew(self, held: _Held) -> None:
        # A member that does not answer must not take all of the time that is left.
        ttl_s = self._renewer.renew(held.lease, held.interval_ms / 1000)
        now_ms = self._clock.monotonic_ms()
        with self._wake:
            if ttl_s is None:
                held.due_ms = now_ms + PAUSE_MS
            elif ttl_s > 0:
                held.denials = 0
                held.due_ms = now_ms + held.interval_ms
            else:
                held.denials += 1
                held.due_ms = now_ms + DENIAL_PAUSE_MS
                if held.denials >= DENIALS and self._held.get(held.lease) is held:
                    self._tell(self._lost, held)

    def _suspect(self, address: str) -> None:
        self._tell(self._client.suspect, address)

    def _tell(self, callback: Callable[..., None], argument: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, argument)
        except RuntimeError:
            # The loop was closed before the store was: nobody is left to be told.
            self._stopping = True

    # On the event loop again

    def _lost(self, held: _Held) -> None:
        with self._wake:
            # It may have been released meanwhile, or told already.
            if self._held.get(held.lease) is not held:
                return
            del self._held[held.lease]
        held.lost()


class _Renewer:
    """LeaseKeepAlive at one member after the other, blocking; beginning with the one that the rest of the
    store uses, so that it is soon noticed when that one hangs."""

    def __init__(self, client: EtcdClient, suspect: Callable[[str], None]) -> None:
        self._client = client
        self._addresses = client.settings.endpoints
        self._token = client.token
        self._suspect = suspect
        self._current = self._followed = client.current
        self._channel: Any = None
        self._closed = False

    def renew(self, lease: int, timeout_s: float) -> int | None:
        """The seconds that the lease has from now on, 0 where it has ended, None where nobody answered."""
        request = rpc.LeaseKeepAliveRequest(ID=lease)
        timeout_s = min(timeout_s, self._client.attempt_s)
        if self._followed != self._client.current:
            self._followed = self._client.current
            self._go(self._followed)
        for _ in self._addresses:
            if self._closed:
                return None
            address = self._addresses[self._current]
            try:
                ttl_s: int = self._call(address, request, timeout_s).TTL
                return max(ttl_s, 0)
            except grpc.RpcError as error:
                if judge(error.code(), error.details() or "") is Verdict.TOKEN:
                    self._token.value = None
            except ValueError:
                # The channel was closed under the call.
                return None
            self._suspect(address)
            self._go((self._current + 1) % len(self._addresses))
        return None

    def close(self) -> None:
        """May be called from another thread."""
        self._closed = True
        if self._channel is not None:
            self._channel.close()

    def _call(self, address: str, request: Any, timeout_s: float) -> Any:
        if self._channel is None:
            # Not shared with the channels of the loop: what these have to say may be much.
            options = (*OPTIONS, ("grpc.use_local_subchannel_pool", 1))
            credentials = self._client.credentials
            if credentials is None:
                self._channel = grpc.insecure_channel(address, options)
            else:
                self._channel = grpc.secure_channel(address, credentials, options)
        if self._token.missing:
            self._authenticate()
        return keep_alive(self._channel)(
            request, timeout=timeout_s, metadata=self._token.metadata(REQUIRE_LEADER)
        )

    def _authenticate(self) -> None:
        stub = rpc.AuthStub(self._channel)
        try:
            self._token.value = stub.Authenticate(self._token.request, timeout=self._client.attempt_s).token
        except grpc.RpcError as error:
            if NO_AUTHENTICATION not in (error.details() or ""):
                raise
            self._token.value = ""

    def _go(self, index: int) -> None:
        """Ask another member from now on."""
        if index != self._current and self._channel is not None:
            self._channel.close()
            self._channel = None
        self._current = index


def _finish(stopped: asyncio.Future[None]) -> None:
    if not stopped.done():
        stopped.set_result(None)
