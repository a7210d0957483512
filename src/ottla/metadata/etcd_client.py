"""Calls to etcd's members: one after the other until one answers, with deadlines, TLS and tokens.

aetcd's generated stubs are used directly: its client knows one host, does not reconnect watches, and starts
calls again without saying so. What an error means for the call is decided in ``judge``, by what etcd's
server does (etcdserver/api/v3rpc/rpctypes): a call that may have had its effect is repeated only if that
is harmless.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from enum import Enum, auto
from pathlib import Path
from typing import Any

import grpc
from aetcd import rpc
from grpc import aio

from ottla.metadata.store import CompactedError, LeaseError, OutcomeUnknownError, RewoundError, StoreError
from ottla.metadata.stores import EtcdSettings

log = logging.getLogger(__name__)

# Calls on their way at the same time; more wait for their turn.
IN_FLIGHT_MAX = 64
# A message from etcd: a page of keys, or the events of some revisions.
RECEIVE_BYTES_MAX = 16 * 1024 * 1024
# Pauses between rounds through the members, none of which would serve.
PAUSE_S_MIN = 0.05
PAUSE_S_MAX = 0.5

# After all was cancelled gRPC has a few last events for the loop. A later loop of the same process would
# trip over them.
DRAIN_S = 0.02

OPTIONS: tuple[tuple[str, int | str], ...] = (
    # A call that may have arrived is not for gRPC to repeat.
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", RECEIVE_BYTES_MAX),
    ("grpc.max_send_message_length", -1),
    # A dead connection shows after ten seconds. etcd closes connections that ping more often than every five
    # seconds, or while there is no call on them.
    ("grpc.keepalive_time_ms", 7_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.http2.ping_timeout_ms", 3_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)

# A watch or a keep-alive on a member that has lost its leader is to fail (etcd's WithRequireLeader).
REQUIRE_LEADER = ("hasleader", "true")

# What etcd says where it is not set up to ask for users.
NO_AUTHENTICATION = "authentication is not enabled"
# Calls that change nothing that anybody would want to know of.
_READS = ("Range", "LeaseKeepAlive")

KEEP_ALIVE_PATH = "/etcdserverpb.Lease/LeaseKeepAlive"


class Verdict(Enum):
    """What an error of a call means."""

    NOT_DONE = auto()  # It had no effect; another member may do it.
    UNKNOWN = auto()  # It may have had its effect, or still have it.
    TOKEN = auto()  # It had no effect, for want of a valid token.
    REFUSED = auto()  # It had no effect, and would have none elsewhere.


class UnreachableError(StoreError):
    """No member serves. The call had no effect."""


class TooLargeError(StoreError):
    """An answer is larger than RECEIVE_BYTES_MAX."""


# Errors after which a call surely has not been proposed to the cluster. The first two are gRPC's own, for a
# connection that could not be made; the others etcd's.
_NOT_DONE = (
    "failed to connect to all addresses",
    "connections to all backends failing",
    "etcdserver: no leader",
    "etcdserver: too many requests",
    "etcdserver: not capable",
)
# Errors that a new token may mend.
TOKEN_TROUBLES = ("invalid auth token", "revision of auth store is old", "user name is empty")
_UNKNOWN = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.ABORTED,
)


def judge(code: grpc.StatusCode, details: str) -> Verdict:
    """What an error means. In doubt UNKNOWN."""
    if any(details.startswith(text) for text in _NOT_DONE):
        return Verdict.NOT_DONE
    if any(text in details for text in TOKEN_TROUBLES):
        return Verdict.TOKEN
    return Verdict.UNKNOWN if code in _UNKNOWN else Verdict.REFUSED


def refusal(code: grpc.StatusCode, details: str) -> StoreError:
    """The error to raise for one that no other member would mend."""
    if code is grpc.StatusCode.NOT_FOUND and "lease" in details:
        return LeaseError(details)
    if code is grpc.StatusCode.OUT_OF_RANGE and "compacted" in details:
        return CompactedError(0)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
        return TooLargeError(details)
    if "user name is empty" in details:
        return StoreError("etcd wants a user: add ?user=NAME&password-file=FILE to the store's URL")
    return StoreError(f"etcd refused: {details}")


def read_credentials(settings: EtcdSettings) -> grpc.ChannelCredentials | None:
    """TLS for channels, None for none. OSError where a file cannot be read."""
    if not settings.tls:
        return None
    ca, key, cert = (
        None if path is None else Path(path).read_bytes()
        for path in (settings.ca, settings.key, settings.cert)
    )
    return grpc.ssl_channel_credentials(ca, key, cert)


class Token:
    """Who we are to etcd: a user with a password, and the token that these got us.

    Shared with the thread that keeps leases; either renews it.
    """

    def __init__(self, settings: EtcdSettings) -> None:
        self.value: str | None = None
        self.request: Any = None
        if settings.user is not None and settings.password_file is not None:
            password = Path(settings.password_file).read_text().rstrip("\r\n")
            self.request = rpc.AuthenticateRequest(name=settings.user, password=password)

    @property
    def missing(self) -> bool:
        return self.request is not None and self.value is None

    def metadata(self, *more: tuple[str, str]) -> tuple[tuple[str, str], ...]:
        return more if not self.value else (("token", self.value), *more)


class Member:
    """A member of etcd, its channel and its methods."""

    def __init__(self, address: str, credentials: grpc.ChannelCredentials | None) -> None:
        self.address = address
        if credentials is None:
            self.channel = aio.insecure_channel(address, options=OPTIONS)
        else:
            self.channel = aio.secure_channel(address, credentials, options=OPTIONS)
        kv, lease = rpc.KVStub(self.channel), rpc.LeaseStub(self.channel)
        self.watch = rpc.WatchStub(self.channel).Watch
        self.methods: dict[str, Any] = {
            "Range": kv.Range,
            "Txn": kv.Txn,
            "Compact": kv.Compact,
            "LeaseGrant": lease.LeaseGrant,
            "LeaseRevoke": lease.LeaseRevoke,
            "LeaseKeepAlive": keep_alive(self.channel),
            "Authenticate": rpc.AuthStub(self.channel).Authenticate,
        }


def keep_alive(channel: Any) -> Any:
    """LeaseKeepAlive as a call of one request and one answer; to the server it is a short stream."""
    return channel.unary_unary(
        KEEP_ALIVE_PATH,
        request_serializer=rpc.LeaseKeepAliveRequest.SerializeToString,
        response_deserializer=rpc.LeaseKeepAliveResponse.FromString,
    )


class EtcdClient:
    """Calls and who to make them to. Belongs to the event loop that makes the first call."""

    def __init__(self, settings: EtcdSettings) -> None:
        """OSError where a file of the settings cannot be read."""
        self.settings = settings
        self.attempt_s = settings.timeout_ms / 3_000
        self.token = Token(settings)
        self.credentials = read_credentials(settings)
        self.closed = False
        self._members: list[Member] = []
        # The index of the endpoint that is asked now. Nodes with the same settings spread over the members.
        self.current = random.randrange(len(settings.endpoints))
        self._slots = asyncio.Semaphore(IN_FLIGHT_MAX)
        self._moves: dict[Callable[[], None], None] = {}
        # What is known of the store: the largest revision seen, and which etcd cluster it is.
        self._revision = 0
        self._cluster_id = 0
        self._rewound: RewoundError | None = None
        # Logged once when no member serves, and once when one does again.
        self._down = False

    @property
    def member(self) -> Member:
        """The member that is asked now."""
        if not self._members:
            # Not before there is a loop: a channel belongs to one.
            self._members = [Member(address, self.credentials) for address in self.settings.endpoints]
        return self._members[self.current]

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return self.token.metadata(REQUIRE_LEADER)

    def suspect(self, address: str) -> None:
        """This member did not serve: if it is the present one, go on with the next. Watches move along."""
        if self.closed or self.member.address != address or len(self._members) == 1:
            return
        self.current = (self.current + 1) % len(self._members)
        for move in list(self._moves):
            move()

    def on_move(self, move: Callable[[], None]) -> None:
        """Call ``move`` when another member is asked from now on, and when the client closes."""
        self._moves[move] = None

    def off_move(self, move: Callable[[], None]) -> None:
        self._moves.pop(move, None)

    async def close(self) -> None:
        self.closed = True
        for move in list(self._moves):
            move()
        for member in self._members:
            await member.channel.close()
        if self._members:
            await asyncio.sleep(DRAIN_S)

    # Calls

    async def call(self, method: str, request: Any, *, repeat: bool) -> Any:
        """The answer of the first member that gives one, within ``timeout_ms``.

        ``repeat``: doing it twice is harmless, or cannot be: then it is also tried again after contact was
        lost. StoreError where no member serves, or what etcd refuses; OutcomeUnknownError where it may have
        been done, also by an attempt before the one that failed.
        """
        response, _ = await self.call_saying(method, request, repeat=repeat)
        return response

    async def call_saying(self, method: str, request: Any, *, repeat: bool) -> tuple[Any, bool]:
        """``call``, and whether an attempt before the one that was answered may have been done, too."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.settings.timeout_ms / 1_000
        uncertain, renewed, attempts, error = False, False, 0, "the calls before this one still wait"
        async with self._slots:
            while (left_s := deadline - loop.time()) > 0:
                self.check_open()
                member = self.member
                attempt = _Attempt(self, member, min(self.attempt_s, left_s))
                try:
                    return await attempt.make(method, request), uncertain
                except aio.AioRpcError as failure:
                    error = f"{member.address}: {failure.details()}"
                    verdict = judge(failure.code(), failure.details() or "")
                    if verdict is Verdict.REFUSED or (verdict is Verdict.TOKEN and renewed):
                        raise refusal(failure.code(), failure.details() or "") from failure
                if verdict is Verdict.TOKEN:
                    self.token.value, renewed = None, True
                    continue
                uncertain |= verdict is Verdict.UNKNOWN and attempt.sent
                self.suspect(member.address)
                if uncertain and not repeat:
                    break
                attempts += 1
                await self._pause(attempts, deadline - loop.time())
        if not uncertain or method in _READS:
            self.unreachable(error)
            raise UnreachableError(f"etcd is out of reach: {error}")
        raise OutcomeUnknownError(f"lost contact with etcd, and it is not known whether it was done: {error}")

    async def _pause(self, attempts: int, left_s: float) -> None:
        """Nothing on the first round through the members; then longer and longer."""
        rounds = attempts // len(self._members)
        if rounds and attempts % len(self._members) == 0:
            await asyncio.sleep(max(min(PAUSE_S_MIN * 2 ** (rounds - 1), PAUSE_S_MAX, left_s), 0))

    # What is known of the store

    @property
    def revision(self) -> int:
        """The largest revision seen in an answer that was linearizable."""
        return self._revision

    def observe(self, header: Any, at_least: int | None) -> None:
        """Note what an answer says of the store: ``at_least`` is a revision that it must have reached, None
        where a member may answer that lags behind.

        RewoundError where it has not, or where it is another etcd cluster's answer.
        """
        if self._rewound is None:
            if self._cluster_id not in (0, header.cluster_id):
                self._rewound = RewoundError("this is another etcd cluster than before: restart the node")
            elif at_least is not None and header.revision < at_least:
                self._rewound = RewoundError(
                    f"etcd is at revision {header.revision}, and was at {at_least} before: it has lost data, "
                    "or was restored from a backup; restart the node"
                )
            if self._rewound is not None:
                log.error("%s", self._rewound)
        if self._rewound is not None:
            raise self._rewound
        self._cluster_id = header.cluster_id
        if at_least is not None:
            self._revision = max(self._revision, header.revision)

    def unreachable(self, why: object) -> None:
        if not self._down:
            self._down = True
            log.warning("etcd is out of reach, trying on: %s", why)

    def reachable(self, address: str) -> None:
        if self._down:
            self._down = False
            log.info("etcd answers again, at %s", address)

    def check_open(self) -> None:
        if self.closed:
            raise StoreError("the metadata store is closed")
        if self._rewound is not None:
            raise self._rewound

    def check_cancelled(self) -> None:
        """gRPC says that a call was cancelled, also where it was its channel that was closed."""
        task = asyncio.current_task()
        if self.closed and (task is None or not task.cancelling()):
            raise StoreError("the metadata store is closed")


class _Attempt:
    """One call to one member, with a token where one is needed."""

    def __init__(self, client: EtcdClient, member: Member, timeout_s: float) -> None:
        self._client = client
        self._member = member
        self._timeout_s = timeout_s
        # Whether the call itself, rather than the one for a token, may have arrived.
        self.sent = False

    async def make(self, method: str, request: Any) -> Any:
        """The answer. AioRpcError where there is none; StoreError where the client was closed."""
        client = self._client
        before = client.revision if method in ("Range", "Txn") else None
        try:
            if client.token.missing:
                await self._authenticate()
            self.sent = True
            call = self._member.methods[method]
            response = await call(request, timeout=self._timeout_s, metadata=client.metadata)
        except asyncio.CancelledError:
            client.check_cancelled()
            raise
        client.observe(response.header, before)
        client.reachable(self._member.address)
        return response

    async def _authenticate(self) -> None:
        token = self._client.token
        try:
            answer = await self._member.methods["Authenticate"](token.request, timeout=self._timeout_s)
            token.value = answer.token
        except aio.AioRpcError as error:
            if NO_AUTHENTICATION not in (error.details() or ""):
                raise
            # etcd has not been told to ask for users, yet.
            token.value = ""


def prefix_end(prefix: bytes) -> bytes:
    """The first key after all that begin with ``prefix``, which does not end with 0xff."""
    return prefix[:-1] + bytes([prefix[-1] + 1])
