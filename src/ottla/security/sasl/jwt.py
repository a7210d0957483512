"""Which JSON Web Tokens are good: signed by a key of the provider's, for this cluster, at this time (Kafka's
BrokerJwtValidator, and jose4j's JwtConsumer as it sets that up).

Beside Kafka's checks: only algorithms with a public key are taken, and no header that changes how the rest is
read. It is imported where OAUTHBEARER is configured, since joserfc brings much with it.
"""

from __future__ import annotations

import re
import warnings
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, final

from joserfc import jwk, jws
from joserfc.errors import JoseError

from ottla.security.sasl.json_objects import read_object
from ottla.security.sasl.oauthbearer import BearerToken, InvalidToken

# With the type of key that each needs; the curve is checked where the signature is.
ALGORITHMS: Final = {
    "RS256": "RSA", "RS384": "RSA", "RS512": "RSA",
    "PS256": "RSA", "PS384": "RSA", "PS512": "RSA",
    "ES256": "EC", "ES384": "EC", "ES512": "EC",
    "EdDSA": "OKP", "Ed25519": "OKP",
}  # fmt: skip
RSA_BITS_MIN: Final = 2048
# A provider has a handful of keys; those beyond are not read. Each takes 0.1 ms.
KEYS_MAX: Final = 100
# Where a token does not name its key, so many that it could be are tried.
KEYS_TRIED_MAX: Final = 4
HEADER_BYTES_MAX: Final = 8 * 1024
TOKEN_BYTES_MAX: Final = 96 * 1024
# Times beyond are no times: 285,000 years.
SECONDS_MAX: Final = 1 << 43

# What is not 3 parts; and what a header must not change.
_MALFORMED: Final = "Malformed JWT provided; expected three sections (header, payload, and signature)"
_BASE64: Final = re.compile("[A-Za-z0-9_-]+")
_NOT_TAKEN: Final = ("crit", "b64", "zip")


class JwksError(ValueError):
    """A key set that cannot be read."""


@final
class Jwks:
    """The keys of a provider (RFC 7517), as they were published."""

    __slots__ = ("_keys",)

    def __init__(self, text: bytes | str) -> None:
        """JwksError where it is no key set. Keys of a type that is not known, or are too weak, are not
        taken, and the rest is."""
        try:
            listed = read_object(text).get("keys")
        except ValueError as error:
            raise JwksError(f"a JWKS that is {error}") from None
        if not isinstance(listed, list):
            raise JwksError("a JWKS without keys")
        self._keys = [key for data in listed[:KEYS_MAX] if (key := _import(data)) is not None]

    def __len__(self) -> int:
        return len(self._keys)

    def candidates(self, algorithm: str, kid: str | None) -> list[Any]:
        """Keys that a signature of this algorithm may be checked with; of that id, if one is named."""
        kind = ALGORITHMS[algorithm]
        return [
            key
            for key in self._keys
            if key.key_type == kind
            and (kid is None or key.get("kid") == kid)
            and key.get("use") in (None, "sig")
            and key.get("alg") in (None, algorithm)
        ]


def _import(data: object) -> Any:
    """A public key, or None."""
    if not isinstance(data, dict) or data.get("kty") not in ("RSA", "EC", "OKP"):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            key = jwk.JWKRegistry.import_key(data)
            if key.key_type == "RSA" and key.raw_value.key_size < RSA_BITS_MIN:  # type: ignore[union-attr]
                return None
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    return key


@dataclass(frozen=True, slots=True)
class JwtSettings:
    """``sasl.oauthbearer.*`` of a listener. ValueError where it does not say whose tokens are taken."""

    expected_audiences: frozenset[str] = frozenset()
    expected_issuer: str | None = None
    allow_unverified_audience: bool = False
    allow_unverified_issuer: bool = False
    clock_skew_seconds: int = 30
    scope_claim_name: str = "scope"
    sub_claim_name: str = "sub"

    def __post_init__(self) -> None:
        for is_given, allowed, what in (
            (bool(self.expected_audiences), self.allow_unverified_audience, "audience"),
            (bool(self.expected_issuer), self.allow_unverified_issuer, "issuer"),
        ):
            if not is_given and not allowed:
                raise ValueError(
                    f"sasl.oauthbearer.expected.{what} must be set, so that others' tokens are not taken; or"
                    f" set sasl.oauthbearer.allow.unverified.{what} to true to take tokens of any {what}"
                )
        for name in (self.scope_claim_name, self.sub_claim_name):
            if not name.strip():
                raise ValueError("the name of a claim must not be empty")


@final
class JwtValidator:
    """Takes tokens that a key of `keys` has signed."""

    __slots__ = ("_keys", "_registry", "_settings", "_unknown_key")

    def __init__(
        self,
        settings: JwtSettings,
        keys: Callable[[], Jwks],
        unknown_key: Callable[[str], None] = lambda kid: None,
    ) -> None:
        """``keys``: those that are known at the moment. ``unknown_key`` is told of the id of a key that is
        not among them, as a client gave it, so that they can be fetched anew; the token is refused."""
        self._settings = settings
        self._keys = keys
        self._unknown_key = unknown_key
        self._registry = jws.JWSRegistry(algorithms=list(ALGORITHMS), strict_check_header=False)
        self._registry.max_header_length = HEADER_BYTES_MAX
        self._registry.max_payload_length = TOKEN_BYTES_MAX

    def validate(self, token: str, now_ms: int) -> BearerToken:
        if len(token) > TOKEN_BYTES_MAX:
            raise InvalidToken(f"a token of {len(token)} bytes")
        parts = token.split(".", 3)
        if len(parts) != 3 or not all(parts):
            raise InvalidToken(_MALFORMED)
        if len(parts[0]) > HEADER_BYTES_MAX:
            raise InvalidToken("the token's header is too large")
        header = _part(parts[0], "header")
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
            raise InvalidToken("the token's algorithm is not taken")
        if any(name in header for name in _NOT_TAKEN):
            raise InvalidToken("the token's header has what is not taken")
        self._verify(token, algorithm, header.get("kid"))
        return self._check(_part(parts[1], "payload"), now_ms)

    def _verify(self, token: str, algorithm: str, kid: object) -> None:
        if kid is not None and not isinstance(kid, str):
            raise InvalidToken("the id of the token's key is no text")
        candidates = self._keys().candidates(algorithm, kid)
        if not candidates and kid is not None:
            self._unknown_key(kid)
        for key in candidates[:KEYS_TRIED_MAX]:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    jws.deserialize_compact(token, key, registry=self._registry)
            except (JoseError, ValueError):
                continue
            return
        raise InvalidToken(
            "no key that is known has signed the token" if candidates else "no such key is known"
        )

    def _check(self, claims: dict[str, Any], now_ms: int) -> BearerToken:
        settings = self._settings
        expires, issued = self._check_times(claims, now_ms // 1000)
        if settings.expected_audiences:
            audiences = _texts(claims.get("aud"), "aud")
            if settings.expected_audiences.isdisjoint(audiences):
                raise InvalidToken("the token is not for an audience that is expected here")
        if settings.expected_issuer is not None and claims.get("iss") != settings.expected_issuer:
            raise InvalidToken("the token is not of the issuer that is expected here")
        scope = claims.get(settings.scope_claim_name.strip())
        scopes = _unique(_texts(scope, "scope")) if isinstance(scope, str | list) else frozenset()
        subject = claims.get(settings.sub_claim_name.strip())
        if not isinstance(subject, str) or not subject.strip():
            raise InvalidToken("the token does not say whose it is")
        return BearerToken(subject.strip(), expires * 1000, scopes, issued * 1000)

    def _check_times(self, claims: dict[str, Any], now: int) -> tuple[int, int]:
        """When it ends and when it was made, in seconds, as ``now`` is."""
        skew = self._settings.clock_skew_seconds
        expires = _seconds(claims, "exp")
        issued = _seconds(claims, "iat")
        not_before = _seconds(claims, "nbf")
        if expires is None or issued is None:
            raise InvalidToken("the token does not say when it ends, or when it was made")
        if issued < 0:
            raise InvalidToken("the token was made before there was time")
        if now - skew >= expires:
            raise InvalidToken("the token has expired")
        if expires < issued or (not_before is not None and expires < not_before):
            raise InvalidToken("the token ends before it begins")
        if not_before is not None and now + skew < not_before:
            raise InvalidToken("the token is not good yet")
        return expires, issued


def _part(text: str, what: str) -> dict[str, Any]:
    """One of the parts of a token that are JSON."""
    if not _BASE64.fullmatch(text):
        raise InvalidToken(f"the token's {what} is malformed")
    try:
        return read_object(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except ValueError:
        raise InvalidToken(f"the token's {what} is malformed") from None


def _seconds(claims: dict[str, Any], name: str) -> int | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > SECONDS_MAX:
        raise InvalidToken(f"the token's {name} is no time")
    return int(value)


def _texts(value: object, name: str) -> list[str]:
    """A claim that is a text or several."""
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(text, str) for text in listed):
        raise InvalidToken(f"the token's {name} is no text, nor several")
    return listed


def _unique(texts: Iterable[str]) -> frozenset[str]:
    found: set[str] = set()
    for text in texts:
        stripped = text.strip()
        if not stripped or stripped in found:
            raise InvalidToken("the token's scope has an empty text, or one twice")
        found.add(stripped)
    return frozenset(found)
