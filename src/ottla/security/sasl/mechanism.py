"""What a mechanism is to the machine of a connection, and how an exchange of tokens may end."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from ottla.security.principals import KafkaPrincipal


class Done(NamedTuple):
    """The client is who it says; ``token`` is the last that it gets, and may be empty. None: none is due,
    where tokens have no headers."""

    token: bytes | None
    principal: KafkaPrincipal
    # When its credential ends, in milliseconds since the Unix epoch; None: it does not.
    expires_ms: int | None = None


class Refused(Exception):
    """Authentication failed, and the client may hear why: the message goes to it, so it must not tell
    whether a user exists (Kafka's SaslAuthenticationException)."""


class Invalid(Exception):
    """Authentication failed; the message is for the log alone, the client hears the same of each such failure
    (Java's SaslException). It has no secret in it either."""


class Unavailable(Exception):
    """It could not be found out who the client is, which may try again: its connection is closed without a
    word (a retriable Kerberos error)."""


class Exchange(Protocol):
    """The tokens of one authentication."""

    def respond(self, token: bytes, now_ms: int) -> bytes | Done:
        """What answers the client's next token. ``now_ms``: wall time. Refused, Invalid or Unavailable end
        it; nothing else is raised, whatever the token is."""
        ...


class Mechanism(Protocol):
    """One mechanism of one listener. What it looks users up in is in memory."""

    @property
    def name(self) -> str:
        """As SaslHandshake has it."""
        ...

    def begin(self) -> Exchange: ...
