"""GSSAPI (RFC 4752): Kerberos, the broker's side, as Java's server does it for Kafka.

The client's tokens go to a security context until that is established; then both agree, in wrapped messages,
that there is no security layer. Whom the client asks to act as is not looked at, as in Kafka: it is whom its
ticket names. The context is somebody else's (`gssapi_context`), so that nothing of Kerberos is loaded where
nobody asks for it.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final, Protocol, final

from ottla.security.principal_rules import KerberosShortNamer, NoName, parse_kerberos_name
from ottla.security.principals import user
from ottla.security.sasl.mechanism import Done, Exchange, Invalid, Unavailable

GSSAPI: Final = "GSSAPI"

# Kerberos takes two.
TOKENS_MAX: Final = 10
# A ticket with the groups of a large directory has 64 KB at most.
TOKEN_BYTES_MAX: Final = 128 * 1024
# The security layers that there are, as bits: none. Then how much may be wrapped at a time: nothing.
_NO_LAYER: Final = 1
_OFFER: Final = bytes([_NO_LAYER, 0, 0, 0])


class GssError(Exception):
    """A context that does not come about, or a message that was not wrapped by the other side."""

    def __init__(self, reason: str, *, is_transient: bool = False) -> None:
        super().__init__(reason)
        # Clocks that differ a little, or what looks like a replay: Kafka lets the client try again.
        self.is_transient = is_transient


class GssContext(Protocol):
    """One security context, of which this is the acceptor. GssError from each method."""

    def step(self, token: bytes) -> bytes:
        """What is to be sent to the client; b"" for nothing."""
        ...

    @property
    def is_established(self) -> bool: ...

    @property
    def initiator(self) -> str:
        """The client's principal, once it is established."""
        ...

    def wrap(self, message: bytes) -> bytes:
        """So that the client can see who it is of. It is not encrypted."""
        ...

    def unwrap(self, message: bytes) -> bytes: ...


class _State(Enum):
    TOKENS = 0
    # The last token of the context has been sent, and the client is to say that it has it.
    NOTHING = 1
    LAYER = 2
    OVER = 3


@final
class GssapiMechanism:
    __slots__ = ("_context", "_namer")

    def __init__(self, context: Callable[[], GssContext], namer: KerberosShortNamer) -> None:
        """``context``: a new one for each connection."""
        self._context = context
        self._namer = namer

    @property
    def name(self) -> str:
        return GSSAPI

    def begin(self) -> Exchange:
        return _GssapiExchange(self._context, self._namer)


@final
class _GssapiExchange:
    __slots__ = ("_context", "_namer", "_new_context", "_state", "_tokens")

    def __init__(self, new_context: Callable[[], GssContext], namer: KerberosShortNamer) -> None:
        self._new_context = new_context
        self._context: GssContext | None = None
        self._namer = namer
        self._state = _State.TOKENS
        self._tokens = 0

    def respond(self, token: bytes, now_ms: int) -> bytes | Done:
        state, self._state = self._state, _State.OVER
        self._tokens += 1
        if len(token) > TOKEN_BYTES_MAX or self._tokens > TOKENS_MAX:
            raise Invalid(f"a token of {len(token)} bytes, the {self._tokens}th")
        try:
            if self._context is None:
                self._context = self._new_context()
            return self._respond(self._context, state, token)
        except GssError as error:
            if error.is_transient:
                raise Unavailable(str(error)) from None
            raise Invalid(str(error)) from None

    def _respond(self, context: GssContext, state: _State, token: bytes) -> bytes | Done:
        if state is _State.TOKENS:
            answer = context.step(token)
            if not context.is_established:
                self._state = _State.TOKENS
                return answer
            if answer:
                self._state = _State.NOTHING
                return answer
        elif state is _State.NOTHING:
            if token:
                raise Invalid("a token where nothing is due")
        elif state is _State.LAYER:
            return self._chosen(context, context.unwrap(token))
        else:
            raise Invalid("a token after the last")
        self._state = _State.LAYER
        return context.wrap(_OFFER)

    def _chosen(self, context: GssContext, chosen: bytes) -> Done:
        """What the client has chosen: a layer, a size, and a name to act as."""
        if len(chosen) < len(_OFFER) or chosen[0] != _NO_LAYER:
            raise Invalid("Client selected unsupported protection")
        try:
            name = self._namer.name(parse_kerberos_name(context.initiator))
        except (NoName, ValueError) as error:
            raise Invalid(str(error)) from None
        return Done(None, user(name))
