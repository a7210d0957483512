"""PLAIN (RFC 4616): a name and a password in one token, as Kafka's PlainSaslServer reads them.

``[authzid] NUL authcid NUL passwd``; an authorization id may be given, but must be the name.
"""

from __future__ import annotations

from typing import Final, Protocol, final

from ottla.security.principals import user
from ottla.security.sasl.mechanism import Done, Refused
from ottla.security.secret import Secret

PLAIN: Final = "PLAIN"

# What a password is compared with where there is no such user, so that it takes as long.
_NOBODYS: Final = Secret("")


class Users(Protocol):
    """Whom there is, and by which password."""

    def get(self, name: str, /) -> Secret | None: ...


@final
class PlainMechanism:
    """The users of one listener."""

    __slots__ = ("_users",)

    def __init__(self, users: Users) -> None:
        self._users = users

    @property
    def name(self) -> str:
        return PLAIN

    def begin(self) -> _PlainExchange:
        return _PlainExchange(self._users)


@final
class _PlainExchange:
    __slots__ = ("_users",)

    def __init__(self, users: Users) -> None:
        self._users = users

    def respond(self, token: bytes, now_ms: int) -> bytes | Done:
        parts = token.split(b"\0", 3)
        if len(parts) != 3:
            raise Refused(f"Invalid SASL/PLAIN response: expected 3 tokens, got {len(parts)}")
        if not parts[1]:
            raise Refused("Authentication failed: username not specified")
        if not parts[2]:
            raise Refused("Authentication failed: password not specified")
        try:
            authorization_id, name, password = (part.decode() for part in parts)
        except UnicodeDecodeError:
            # Nobody is called that. The error has the token in it.
            raise Refused("Authentication failed: Invalid username or password") from None
        expected = self._users.get(name)
        if not (expected or _NOBODYS).is_equal_to(password) or not expected:
            raise Refused("Authentication failed: Invalid username or password")
        if authorization_id and authorization_id != name:
            raise Refused(
                "Authentication failed: Client requested an authorization id that is different from username"
            )
        return Done(b"", user(name))
