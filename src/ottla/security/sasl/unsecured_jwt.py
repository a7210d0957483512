"""Tokens that nobody has signed, for trying things out (OAuthBearerUnsecuredValidatorCallbackHandler).

Whoever comes is who they say. Only where a broker is configured to take them.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, final

from ottla.security.sasl.json_objects import read_object
from ottla.security.sasl.oauthbearer import INSUFFICIENT_SCOPE, BearerToken, InvalidToken

_PREFIX: Final = "unsecuredValidator"
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
# Times beyond are no times.
SECONDS_MAX: Final = 1 << 43


@dataclass(frozen=True, slots=True)
class UnsecuredSettings:
    """The options of OAuthBearerLoginModule whose names begin with ``unsecuredValidator``."""

    principal_claim_name: str = "sub"
    scope_claim_name: str = "scope"
    required_scope: tuple[str, ...] = ()
    clock_skew_ms: int = 0


def settings_of(options: Mapping[str, str]) -> UnsecuredSettings:
    """From a login module's options. ValueError where one cannot be."""

    def option(name: str) -> str:
        return options.get(_PREFIX + name, "").strip()

    required = tuple(scope for scope in option("RequiredScope").split(" ") if scope)
    for scope in required:
        if not _SCOPE.fullmatch(scope):
            raise ValueError(f"Invalid scope value: {scope}")
    skew = option("AllowableClockSkewMs") or "0"
    if not skew.isascii() or not skew.isdigit():
        raise ValueError(f"Allowable clock skew millis must be a number that is not negative: {skew}")
    return UnsecuredSettings(
        option("PrincipalClaimName") or "sub", option("ScopeClaimName") or "scope", required, int(skew)
    )


@final
class UnsecuredValidator:
    __slots__ = ("_settings",)

    def __init__(self, settings: UnsecuredSettings) -> None:
        self._settings = settings

    def validate(self, token: str, now_ms: int) -> BearerToken:
        settings = self._settings
        parts = token.split(".", 3)
        if len(parts) != 3 or not parts[0] or not parts[1]:
            raise InvalidToken("an unsecured token has 3 parts, the last of which is empty")
        header, claims = _part(parts[0]), _part(parts[1])
        if header.get("alg") != "none":
            raise InvalidToken("Unsecured JWS must have 'none' for an algorithm")
        if parts[2]:
            raise InvalidToken("Unsecured JWS must not contain a digital signature")
        expires_ms, issued_ms = _ms(claims, "exp"), _ms(claims, "iat")
        if expires_ms is None:
            raise InvalidToken("No expiration time in JWT")
        principal = claims.get(settings.principal_claim_name)
        if not isinstance(principal, str) or not principal.strip():
            raise InvalidToken("No principal name in JWT")
        if issued_ms is not None and issued_ms > now_ms + settings.clock_skew_ms:
            raise InvalidToken("the token was made after now")
        if now_ms - settings.clock_skew_ms >= expires_ms:
            raise InvalidToken("the token has expired")
        if issued_ms is not None and expires_ms <= issued_ms:
            raise InvalidToken("the token ends before it was made")
        scope = _scope(claims.get(settings.scope_claim_name))
        if not scope.issuperset(settings.required_scope):
            required = f"[{', '.join(settings.required_scope)}]"
            raise InvalidToken("the token's scope is not enough", INSUFFICIENT_SCOPE, required)
        return BearerToken(
            principal, round(expires_ms), scope, None if issued_ms is None else round(issued_ms)
        )


def _part(text: str) -> dict[str, Any]:
    try:
        return read_object(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except ValueError:
        raise InvalidToken("a part of the token is malformed") from None


def _ms(claims: Mapping[str, Any], name: str) -> float | None:
    """A claim in seconds, of which there may be fractions."""
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > SECONDS_MAX:
        raise InvalidToken(f"the token's {name} is no time")
    return value * 1000


def _scope(value: object) -> frozenset[str]:
    """A text is one scope, blanks and all, as in Kafka."""
    listed = [value] if isinstance(value, str) else value
    if listed is None:
        return frozenset()
    if not isinstance(listed, list) or not all(isinstance(text, str) for text in listed):
        raise InvalidToken("the token's scope is no text, nor several")
    return frozenset(text.strip() for text in listed if text.strip())
