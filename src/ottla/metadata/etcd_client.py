"""Calls to etcd's members: one after the other until one answers, with deadlines, TLS and tokens.

``etcd_channel`` makes the calls. What an error means for the call is decided in ``judge``, by what etcd's
server does (etcdserver/api/v3rpc/rpctypes): a call that may have had its effect is repeated only if that
is harmless.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import Callable
from enum import Enum, auto
from pathlib import Path
from typing import Any

from ottla.metadata import etcd_messages as rpc
from ottla.metadata.etcd_channel import Channel, Stream
from ottla.metadata.etcd_connection import NOT_BEGUN, NOT_CONNECTED, CallError, Code
from ottla.metadata.etcd_settings import EtcdSettings
from ottla.metadata.store import CompactedError, LeaseError, OutcomeUnknownError, RewoundError, StoreError

log = logging.getLogger(__name__)

# Calls on their way at the same time; more wait for their turn.
IN_FLIGHT_MAX = 64
# Pauses between rounds through the members, none of which would serve.
PAUSE_S_MIN = 0.05
PAUSE_S_MAX = 0.5

# A watch or a keep-alive on a member that has lost its leader is to fail (etcd's WithRequireLeader).
REQUIRE_LEADER = ("hasleader", "true")

# What etcd says where it is not set up to ask for users.
NO_AUTHENTICATION = "authentication is not enabled"
# Calls that change nothing that anybody would want to know of.
_READS = ("Range", "LeaseKeepAlive")

# What is called, and what answers. LeaseKeepAlive may be called as one of one request and one answer: to the
# server it is a short stream.
METHODS: dict[str, tuple[str, Any]] = {
    "Range": ("/etcdserverpb.KV/Range", rpc.RangeResponse),
    "Txn": ("/etcdserverpb.KV/Txn", rpc.TxnResponse),
    "Compact": ("/etcdserverpb.KV/Compact", rpc.CompactionResponse),
    "LeaseGrant": ("/etcdserverpb.Lease/LeaseGrant", rpc.LeaseGrantResponse),
    "LeaseRevoke": ("/etcdserverpb.Lease/LeaseRevoke", rpc.LeaseRevokeResponse),
    "LeaseKeepAlive": ("/etcdserverpb.Lease/LeaseKeepAlive", rpc.LeaseKeepAliveResponse),
    "Watch": ("/etcdserverpb.Watch/Watch", rpc.WatchResponse),
    "Authenticate": ("/etcdserverpb.Auth/Authenticate", rpc.AuthenticateResponse),
}


Pairs = tuple[tuple[str, str], ...]


class Verdict(Enum):
    """What an error of a call means."""

    NOT_DONE = auto()  # It had no effect; another member may do it.
    UNKNOWN = auto()  # It may have had its effect, or still have it.
    TOKEN = auto()  # It had no effect, for want of a valid token.
    REFUSED = auto()  # It had no effect, and would have none elsewhere.


class UnreachableError(StoreError):
    """No member serves. The call had no effect."""


class TooLargeError(StoreError):
    """An answer is larger than etcd_connection.RECEIVE_BYTES_MAX."""


# Errors after which a call surely has not been proposed to the cluster. The first two are the connection's;
# the others are etcd's.
_NOT_DONE = (
    NOT_CONNECTED,
    NOT_BEGUN,
    "etcdserver: no leader",
    "etcdserver: too many requests",
    "etcdserver: not capable",
)
# Errors that a new token may mend.
TOKEN_TROUBLES = ("invalid auth token", "revision of auth store is old", "user name is empty")
_UNKNOWN = (
    Code.UNAVAILABLE,
    Code.DEADLINE_EXCEEDED,
    Code.CANCELLED,
    Code.UNKNOWN,
    Code.INTERNAL,
    Code.ABORTED,
)


def judge(code: Code, details: str) -> Verdict:
    """What an error means. In doubt UNKNOWN."""
    if any(details.startswith(text) for text in _NOT_DONE):
        return Verdict.NOT_DONE
    if any(text in details for text in TOKEN_TROUBLES):
        return Verdict.TOKEN
    return Verdict.UNKNOWN if code in _UNKNOWN else Verdict.REFUSED


def refusal(code: Code, details: str) -> StoreError:
    """The error to raise for one that no other member would mend."""
    if code is Code.NOT_FOUND and "lease" in details:
        return LeaseError(details)
    if code is Code.OUT_OF_RANGE and "compacted" in details:
        return CompactedError(0)
    if code is Code.RESOURCE_EXHAUSTED and "larger than max" in details:
        return TooLargeError(details)
    if "user name is empty" in details:
        return StoreError("etcd wants a user: add ?user=NAME&password-file=FILE to the store's URL")
    return StoreError(f"etcd refused: {details}")


def read_tls(settings: EtcdSettings) -> ssl.SSLContext | None:
    """TLS for channels, None for none. OSError where a file cannot be read."""
    if not settings.tls:
        return None
    for path in (settings.ca, settings.cert, settings.key):
        if path is not None:
            # Python's own error, for one that is missing, would not name it.
            Path(path).read_bytes()
    context = ssl.create_default_context(cafile=settings.ca)
    # Authorities that people make for their etcd often lack what this asks for, from Python 3.13 on.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.set_alpn_protocols(["h2"])
    if settings.cert is not None:
        context.load_cert_chain(settings.cert, settings.key)
    return context


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
    """A member of etcd, and its methods."""

    def __init__(self, address: str, tls: ssl.SSLContext | None, attempt_s: float) -> None:
        self.address = address
        self.channel = Channel(address, tls, attempt_s)
        self._attempt_s = attempt_s

    async def call(self, method: str, request: Any, timeout_s: float, metadata: Pairs) -> Any:
        """The answer. CallError where there is none."""
        path, answer = METHODS[method]
        return await self.channel.call(path, request, answer, timeout_s, metadata)

    async def watch(self, metadata: Pairs) -> Stream:
        """A stream of watches. CallError where there is none."""
        path, answer = METHODS["Watch"]
        return await self.channel.stream(path, answer, self._attempt_s, metadata)


class EtcdClient:
    """Calls and who to make them to. Belongs to the event loop that makes the first call."""

    def __init__(self, settings: EtcdSettings) -> None:
        """OSError where a file of the settings cannot be read."""
        self.settings = settings
        self.attempt_s = settings.timeout_ms / 3_000
        self.token = Token(settings)
        self._tls = read_tls(settings)
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
        # Since when no member has served, by the event loop's clock: see MetadataStore.
        self.silent_since_s: float | None = None

    @property
    def member(self) -> Member:
        """The member that is asked now."""
        if not self._members:
            # Not before there is a loop: a channel belongs to one.
            self._members = [self.make_member(address) for address in self.settings.endpoints]
        return self._members[self.current]

    def make_member(self, address: str) -> Member:
        """One to be used on the running loop, and on no other."""
        return Member(address, self._tls, self.attempt_s)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return self.token.metadata(REQUIRE_LEADER)

    def suspect(self, address: str) -> None:
        """This member did not serve: if it is the present one, go on with the next. Watches move along."""
        if self.closed:
            return
        if self.silent_since_s is None:
            self.silent_since_s = asyncio.get_running_loop().time()
        if self.member.address != address or len(self._members) == 1:
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
                except CallError as failure:
                    error = f"{member.address}: {failure.details}"
                    verdict = judge(failure.code, failure.details)
                    if verdict is Verdict.REFUSED or (verdict is Verdict.TOKEN and renewed):
                        raise refusal(failure.code, failure.details) from failure
                    if self.closed:
                        raise StoreError("the metadata store is closed") from failure
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
            raise UnreachableError(f"etcd cannot be reached: {error}")
        raise OutcomeUnknownError(f"lost contact with etcd, and it is not known whether it was done: {error}")

    async def authenticate(self, member: Member, timeout_s: float) -> None:
        """Get a token. CallError where there is none to be had."""
        try:
            answer = await member.call("Authenticate", self.token.request, timeout_s, ())
            self.token.value = answer.token
        except CallError as error:
            if NO_AUTHENTICATION not in error.details:
                raise
            # etcd has not been told to ask for users, yet.
            self.token.value = ""

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
            log.warning("etcd cannot be reached, retrying: %s", why)

    def reachable(self, address: str) -> None:
        """This member has served, now."""
        self.silent_since_s = None
        if self._down:
            self._down = False
            log.info("etcd answers again: %s", address)

    def check_open(self) -> None:
        if self.closed:
            raise StoreError("the metadata store is closed")
        if self._rewound is not None:
            raise self._rewound


class _Attempt:
    """One call to one member, with a token where one is needed."""

    def __init__(self, client: EtcdClient, member: Member, timeout_s: float) -> None:
        self._client = client
        self._member = member
        self._timeout_s = timeout_s
        # Whether the call itself, rather than the one for a token, may have arrived.
        self.sent = False

    async def make(self, method: str, request: Any) -> Any:
        """The answer. CallError where there is none; StoreError for what cannot be believed."""
        client = self._client
        before = client.revision if method in ("Range", "Txn") else None
        if client.token.missing:
            await client.authenticate(self._member, self._timeout_s)
        self.sent = True
        response = await self._member.call(method, request, self._timeout_s, client.metadata)
        client.observe(response.header, before)
        client.reachable(self._member.address)
        return response


def prefix_end(prefix: bytes) -> bytes:
    """The first key after all that begin with ``prefix``, which does not end with 0xff."""
    return prefix[:-1] + bytes([prefix[-1] + 1])
