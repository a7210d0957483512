"""One connection's authentication by SASL, without the connection (Kafka's SaslServerAuthenticator, KIP-43,
KIP-152, KIP-368).

How to wire it. Each connection of a SASL listener has a ``SaslMachine`` of its own, which is given the
listener's ``Settings``. For each frame, until the connection is closed:

1. ``machine.takes_raw_tokens``: the frame (what comes after its size) is no request but a token; give it to
   ``raw_token``. That is so after SaslHandshake v0.
2. Otherwise read the request's header and ask ``admit(api_key, monotonic_ms)``, before the body is decoded:
   None, or a ``Failed``. Once ``machine.is_complete``, it only refuses what comes after the session's end.
3. SaslHandshake goes to ``handshake``, SaslAuthenticate to ``authenticate``: before, during and after the
   first authentication. An ApiVersions is answered as ever; where it was answered without an error call
   ``versions_told()``. A request or version that is not served, and a body that cannot be read, close the
   connection without an answer.

Those three return events, to be carried out in their order. ``Reply``: the response's fields. ``RawReply``:
a token that goes out behind its size (int32) and without a header. ``Authenticated``: from now on requests
are this principal's; after a re-authentication it is equal to the one before. ``Failed``: it is over. Receive
no more; if ``delayed``, wait for ``connection.failed.authentication.delay.ms``; send ``answer``, or the
request's own error response with ``error``, if there is one; close. ``reason`` is for the log, and has no
secrets in it.

While ``machine.is_complete`` is false no frame may be larger than ``sasl.server.max.receive.size``; one that
is counts as a failed authentication, delayed and without an answer. Times are the caller's: ``Moment``. A
session that has ended closes its connection at the next request (``expired``), not before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, NamedTuple, final

from ottla.errors import ErrorCode
from ottla.security.principals import KafkaPrincipal
from ottla.security.sasl.mechanism import Done, Exchange, Invalid, Mechanism, Refused, Unavailable
from ottla.text import printable

Fields = dict[str, Any]

SASL_HANDSHAKE: Final = 17
API_VERSIONS: Final = 18
SASL_AUTHENTICATE: Final = 36

# A connection may authenticate again as often as this (KafkaChannel.MIN_REAUTH_INTERVAL_ONE_SECOND_NANOS).
REAUTHENTICATION_INTERVAL_MS: Final = 1_000
# Kafka's default for sasl.server.max.receive.size.
RECEIVE_BYTES_MAX: Final = 524_288
# What a client says of itself is shown in the log up to here.
SHOWN_CHARACTERS_MAX: Final = 100


class State(Enum):
    """The next that a client may send."""

    INITIAL_REQUEST = "its first request, SaslHandshake or ApiVersions"
    HANDSHAKE_OR_VERSIONS_REQUEST = "SaslHandshake or ApiVersions"
    HANDSHAKE_REQUEST = "SaslHandshake"
    # As SaslAuthenticate requests, or, after SaslHandshake v0, as they are.
    AUTHENTICATE = "tokens"
    RAW_TOKENS = "tokens without headers"
    COMPLETE = "any request"
    # It wants to authenticate again by another mechanism, and hears of it when it goes on.
    REAUTH_BAD_MECHANISM = "nothing that would do"
    FAILED = "nothing"


# Looked up at each request: a module's names are found faster than those of an enumeration.
_COMPLETE: Final = State.COMPLETE
_MAY_HANDSHAKE: Final = frozenset(
    {State.INITIAL_REQUEST, State.HANDSHAKE_OR_VERSIONS_REQUEST, State.HANDSHAKE_REQUEST}
)
_MAY_ASK_VERSIONS: Final = frozenset({State.INITIAL_REQUEST, State.HANDSHAKE_OR_VERSIONS_REQUEST})


class Moment(NamedTuple):
    """When something happens, by both of a node's clocks."""

    # Since the Unix epoch: what credentials end by.
    now_ms: int
    # What sessions end by: it is not set back.
    monotonic_ms: int


class Reply(NamedTuple):
    """Answer the request with these fields."""

    fields: Fields


class RawReply(NamedTuple):
    """Answer a token with this, behind its size. It may be empty."""

    token: bytes


class Authenticated(NamedTuple):
    """It is known who the client is."""

    principal: KafkaPrincipal
    # For how long, as the client heard it; 0: as long as the connection lasts, unless `expires` is set.
    session_lifetime_ms: int
    expires: bool
    # Whether it was known before.
    again: bool


class Failed(NamedTuple):
    """The connection is to be closed."""

    reason: str
    # After connection.failed.authentication.delay.ms, until when nothing is answered.
    delayed: bool = True
    # Fields of the last response, or the code of the request's own error response, or neither.
    answer: Fields | None = None
    error: ErrorCode | None = None


Event = Reply | RawReply | Authenticated | Failed
Events = tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Settings:
    """What a listener's connections have in common."""

    # By name, in the order in which clients see them: sasl.enabled.mechanisms.
    mechanisms: Mapping[str, Mechanism]
    # connections.max.reauth.ms by mechanism; 0, or no entry: no end.
    max_reauth_ms: Mapping[str, int] = field(default_factory=dict)


@final
class SaslMachine:
    """See the module's docstring."""

    __slots__ = (
        "_exchange", "_expires_ms", "_mechanism", "_principal", "_reauthenticated_ms", "_settings", "_state",
    )  # fmt: skip

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._state = State.INITIAL_REQUEST
        self._mechanism = ""
        self._exchange: Exchange | None = None
        # Who the client is, also while it authenticates again.
        self._principal: KafkaPrincipal | None = None
        # When its session ends, monotonic; None: never.
        self._expires_ms: int | None = None
        self._reauthenticated_ms: int | None = None

    @property
    def state(self) -> State:
        return self._state

    @property
    def is_complete(self) -> bool:
        """Whether requests are to be handled: those of `principal`."""
        return self._state is _COMPLETE

    @property
    def takes_raw_tokens(self) -> bool:
        return self._state is State.RAW_TOKENS

    @property
    def principal(self) -> KafkaPrincipal | None:
        """Who the client is; None before it has been authenticated."""
        return self._principal

    @property
    def mechanism(self) -> str:
        """By which it is authenticated, or wants to be; empty before it has said so."""
        return self._mechanism

    def expired(self, monotonic_ms: int) -> bool:
        """Whether the session has ended: nothing but a new authentication is taken."""
        return self._expires_ms is not None and monotonic_ms > self._expires_ms

    def admit(self, api_key: int, monotonic_ms: int) -> Failed | None:
        """Whether a request of this kind may be decoded and handled now; None where it may."""
        state = self._state
        if state is State.COMPLETE:
            if not self.expired(monotonic_ms):
                return None
            if api_key == SASL_HANDSHAKE and self._may_reauthenticate(monotonic_ms):
                return None
            return self._fail("its session has ended and it has not authenticated again", delayed=False)
        if state is State.AUTHENTICATE:
            if api_key == SASL_AUTHENTICATE:
                return None
            reason = f"a request with key {api_key} in place of SaslAuthenticate"
            return self._fail(reason, error=ErrorCode.illegal_sasl_state)
        if state is State.REAUTH_BAD_MECHANISM:
            return self._fail("it authenticates again by another mechanism than before")
        if api_key == SASL_HANDSHAKE and state in _MAY_HANDSHAKE:
            return None
        if api_key == API_VERSIONS and state in _MAY_ASK_VERSIONS:
            self._state = State.HANDSHAKE_OR_VERSIONS_REQUEST
            return None
        return self._fail(self._unexpected(api_key), delayed=False)

    def versions_told(self) -> None:
        """An ApiVersions was answered, without an error; before authentication it is not answered again."""
        if self._state is State.HANDSHAKE_OR_VERSIONS_REQUEST:
            self._state = State.HANDSHAKE_REQUEST

    def handshake(self, version: int, mechanism: str, at: Moment) -> Events:
        """A SaslHandshake that was admitted: which mechanism the client wants."""
        again = self._state is State.COMPLETE
        if not again and self._state not in _MAY_HANDSHAKE:
            return (self._fail(self._unexpected(SASL_HANDSHAKE), delayed=False),)
        if again and not self._may_reauthenticate(at.monotonic_ms):
            return (Reply({"error_code": ErrorCode.illegal_sasl_state, "mechanisms": []}),)
        names = list(self._settings.mechanisms)
        if again:
            self._reauthenticated_ms = at.monotonic_ms
        found = self._settings.mechanisms.get(mechanism)
        if found is None:
            answer = {"error_code": ErrorCode.unsupported_sasl_mechanism, "mechanisms": names}
            return (self._fail(f"the mechanism {_shown(mechanism)} is not enabled", answer=answer),)
        if again and mechanism != self._mechanism:
            self._state = State.REAUTH_BAD_MECHANISM
        else:
            self._mechanism = mechanism
            self._exchange = found.begin()
            self._state = State.AUTHENTICATE if version >= 1 else State.RAW_TOKENS
        return (Reply({"error_code": ErrorCode.none, "mechanisms": names}),)

    def authenticate(self, version: int, token: bytes, at: Moment) -> Events:
        """A SaslAuthenticate that was admitted. Only version 1 and newer tell how long the session lasts,
        which is for the writer of the response to leave out."""
        if self._state is State.COMPLETE:
            message = "SaslAuthenticate request received after successful authentication"
            return (Reply(_authenticated(ErrorCode.illegal_sasl_state, message)),)
        try:
            outcome = self._respond(token, at)
        except Refused as refusal:
            return (self._refuse(str(refusal), str(refusal)),)
        except Invalid as invalid:
            text = "re-authentication" if self._principal is not None else "authentication"
            message = (
                f"Authentication failed during {text} due to invalid credentials"
                f" with SASL mechanism {self._mechanism}"
            )
            return (self._refuse(message, str(invalid)),)
        except Unavailable as unavailable:
            return (self._fail(str(unavailable), delayed=False),)
        if isinstance(outcome, bytes):
            return (Reply(_authenticated(ErrorCode.none, "", outcome)),)
        done, authenticated = outcome
        answer = _authenticated(ErrorCode.none, "", done.token or b"", authenticated.session_lifetime_ms)
        return Reply(answer), authenticated

    def raw_token(self, token: bytes, at: Moment) -> Events:
        """A token without a header, from a client that sent SaslHandshake v0."""
        try:
            outcome = self._respond(token, at)
        except Refused as refusal:
            return (self._fail(str(refusal)),)
        except (Invalid, Unavailable) as invalid:
            return (self._fail(str(invalid), delayed=False),)
        if isinstance(outcome, bytes):
            return (RawReply(outcome),)
        done, authenticated = outcome
        return (authenticated,) if done.token is None else (RawReply(done.token), authenticated)

    def _respond(self, token: bytes, at: Moment) -> bytes | tuple[Done, Authenticated]:
        """Take the exchange one step on. Refused, Invalid and Unavailable are passed on."""
        exchange = self._exchange
        if exchange is None:
            raise Invalid(f"a token while it may send {self._state.value}")
        outcome = exchange.respond(token, at.now_ms)
        return outcome if isinstance(outcome, bytes) else (outcome, self._complete(outcome, at))

    def _complete(self, done: Done, at: Moment) -> Authenticated:
        before = self._principal
        if before is not None and before != done.principal:
            raise Refused(
                "Cannot change principals during re-authentication from"
                f" {before.type}.{before.name}: {done.principal.type}.{done.principal.name}"
            )
        ends = []
        if done.expires_ms is not None:
            ends.append(done.expires_ms - at.now_ms)
        if (max_reauth_ms := self._settings.max_reauth_ms.get(self._mechanism, 0)) > 0:
            ends.append(max_reauth_ms)
        lifetime_ms = max(min(ends), 0) if ends else 0
        self._expires_ms = at.monotonic_ms + lifetime_ms if ends else None
        self._principal = done.principal
        self._exchange = None
        self._state = State.COMPLETE
        return Authenticated(done.principal, lifetime_ms, bool(ends), before is not None)

    def _may_reauthenticate(self, monotonic_ms: int) -> bool:
        """Where sessions have no end there is nothing to renew; and not more often than once a second."""
        if self._expires_ms is None:
            return False
        last_ms = self._reauthenticated_ms
        return last_ms is None or monotonic_ms - last_ms >= REAUTHENTICATION_INTERVAL_MS

    def _unexpected(self, api_key: int) -> str:
        reason = f"a request with key {api_key} where it may send {self._state.value}"
        if self._state is not State.INITIAL_REQUEST:
            return reason
        return f"{reason}: it may not use SASL, or not be a Kafka client"

    def _refuse(self, message: str, reason: str) -> Failed:
        answer = _authenticated(ErrorCode.sasl_authentication_failed, message)
        return self._fail(reason, answer=answer)

    def _fail(
        self,
        reason: str,
        *,
        delayed: bool = True,
        answer: Fields | None = None,
        error: ErrorCode | None = None,
    ) -> Failed:
        self._exchange = None
        self._state = State.FAILED
        return Failed(printable(reason), delayed, answer, error)


def _authenticated(code: ErrorCode, message: str, token: bytes = b"", session_lifetime_ms: int = 0) -> Fields:
    return {
        "error_code": code,
        "error_message": message,
        "auth_bytes": token,
        "session_lifetime_ms": session_lifetime_ms,
    }


def _shown(text: str) -> str:
    return printable(text[:SHOWN_CHARACTERS_MAX])
