"""OAUTHBEARER (RFC 7628): a token of somebody who knows who the client is, as Kafka's OAuthBearerSaslServer.

``n,[a=authzid],^A auth=Bearer TOKEN ^A [name=value ^A …] ^A``. A token that is not good is answered with
JSON, which the client confirms with ^A, and then fails with it. What makes a token good is the validator's.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple, Protocol, final

from ottla.security.principals import user
from ottla.security.sasl.mechanism import Done, Exchange, Invalid, Refused

OAUTHBEARER: Final = "OAUTHBEARER"

INVALID_TOKEN: Final = "invalid_token"
INSUFFICIENT_SCOPE: Final = "insufficient_scope"
# A token, its claims and signature, with up to 100 extensions. Tokens with a few hundred groups have 20 KB.
MESSAGE_BYTES_MAX: Final = 128 * 1024

# Nothing that was matched is given back (++, *+), so that no message takes longer than it is long.
_SASLNAME = r"(?:[\x01-\x2b\x2d-\x3c\x3e-\x7f]++|=2C|=3D)++"
_FIRST: Final = re.compile(
    rf"n,(?:a=(?P<authzid>{_SASLNAME}))?,\x01(?P<pairs>(?:[A-Za-z]++=[\x21-\x7e \t\r\n]++\x01){{0,100}}+)\x01"
)
_AUTH: Final = re.compile(r"(?P<scheme>[a-zA-Z0-9_]++) ++(?P<token>[-_~+/.a-zA-Z0-9]++=*+)")
_CONFIRMED: Final = b"\x01"


class BearerToken(NamedTuple):
    """What a good token says. The token itself is not in here, since who has it is let in."""

    principal: str
    expires_ms: int
    scope: frozenset[str] = frozenset()
    issued_ms: int | None = None


class InvalidToken(Exception):
    """A token that is not good. The message is for the log; the client hears `status`."""

    def __init__(self, reason: str, status: str = INVALID_TOKEN, scope: str | None = None) -> None:
        super().__init__(reason)
        self.status = status
        # What scope would have been enough.
        self.scope = scope


class Validator(Protocol):
    """What tells good tokens from others."""

    def validate(self, token: str, now_ms: int) -> BearerToken:
        """InvalidToken, and nothing else, where it is not good at this time."""
        ...


@final
class OAuthBearerMechanism:
    """The mechanism of the listeners that take the same tokens."""

    __slots__ = ("_validator",)

    def __init__(self, validator: Validator) -> None:
        self._validator = validator

    @property
    def name(self) -> str:
        return OAUTHBEARER

    def begin(self) -> Exchange:
        return _OAuthBearerExchange(self._validator)


@final
class _OAuthBearerExchange:
    __slots__ = ("_refusal", "_validator")

    def __init__(self, validator: Validator) -> None:
        self._validator = validator
        # What the client was told of its token.
        self._refusal: str | None = None

    def respond(self, token: bytes, now_ms: int) -> bytes | Done:
        if self._refusal is not None:
            # Whether it confirms or tries another: for each connection there is one.
            raise Refused(self._refusal)
        authorization_id, bearer = _read(token)
        try:
            good = self._validator.validate(bearer, now_ms)
        except InvalidToken as invalid:
            self._refusal = _as_json(invalid)
            return self._refusal.encode()
        if authorization_id and authorization_id != good.principal:
            raise Refused(
                f"Authentication failed: Client requested an authorization id ({authorization_id})"
                f" that is different from the token's principal name ({good.principal})"
            )
        return Done(b"", user(good.principal), good.expires_ms)


def _read(message: bytes) -> tuple[str, str]:
    """The authorization id, which may be empty, and the token."""
    if len(message) > MESSAGE_BYTES_MAX:
        raise Invalid(f"an OAUTHBEARER message of {len(message)} bytes")
    # Whatever is not ASCII does not match.
    match = _FIRST.fullmatch(message.decode("latin-1"))
    if match is None:
        raise Invalid("Invalid OAUTHBEARER client first message")
    pairs = dict(pair.split("=", 1) for pair in match["pairs"].split(_CONFIRMED.decode()) if pair)
    authorization = pairs.get("auth")
    if authorization is None:
        raise Invalid("Invalid OAUTHBEARER client first message: 'auth' not specified")
    found = _AUTH.fullmatch(authorization)
    if found is None:
        raise Invalid("Invalid OAUTHBEARER client first message: invalid 'auth' format")
    if found["scheme"].lower() != "bearer":
        raise Invalid("Invalid scheme in OAUTHBEARER client first message")
    return match["authzid"] or "", found["token"]


def _as_json(invalid: InvalidToken) -> str:
    scope = "" if invalid.scope is None else f', "scope":"{invalid.scope}"'
    return f'{{"status":"{invalid.status}"{scope}}}'
