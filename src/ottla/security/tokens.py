"""Delegation tokens (KIP-48, KIP-373): who may ask for them, how long they last, and what they are made of.

A token is its id and the HMAC-SHA-512 of that with the cluster's key: whoever has both authenticates by SCRAM
as its owner, with the HMAC in base 64 for a password. Kafka's DelegationTokenControlManager and
DelegationTokenManager; what they keep is the caller's to keep. KafkaError says what Kafka answers.
"""

from __future__ import annotations

import hmac
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Collection, Iterable, Iterator, Set
from dataclasses import dataclass, replace
from typing import Final, final

from ottla.errors import ErrorCode, KafkaError
from ottla.security.principals import ANONYMOUS, USER, KafkaPrincipal
from ottla.security.sasl.scram import (
    ITERATIONS_MIN,
    NONCE_BYTES,
    ScramCredential,
    ScramHash,
    TokenCredential,
    credential_of,
    salt_of,
)
from ottla.security.secret import Secret

# What Kafka answers for times that there are none of.
NO_TIMESTAMP: Final = -1
_TIME_MAX_MS: Final = 2**63 - 1
# Kafka's defaults: delegation.token.max.lifetime.ms, delegation.token.expiry.time.ms.
MAX_LIFETIME_MS: Final = 7 * 24 * 60 * 60 * 1000
EXPIRY_TIME_MS: Final = 24 * 60 * 60 * 1000
# Characters that the names of a token may have together: each node has all tokens in its memory, and who may
# log in may make some. Kafka lets them be of any length.
CHARACTERS_MAX: Final = 4_096
# How many that have expired are removed at a time (MAX_RECORDS_PER_EXPIRATION).
EXPIRED_AT_A_TIME_MAX: Final = 1_000
# An id has 128 bits, of which few have no sign that command lines would take for an option.
_ID_BYTES: Final = 16
_HMAC: Final = "sha512"


@dataclass(frozen=True, slots=True)
class DelegationToken:
    """What is known of a token, and kept of it; its HMAC is made anew each time."""

    token_id: str
    owner: KafkaPrincipal
    # Who asked for it, which may be another than it is for.
    requester: KafkaPrincipal
    renewers: tuple[KafkaPrincipal, ...]
    issued_ms: int
    # When it ends unless it is renewed, and until when it can be.
    expires_ms: int
    max_ms: int

    def has_expired(self, now_ms: int) -> bool:
        return self.max_ms < now_ms or self.expires_ms < now_ms

    def may_be_renewed_by(self, principal: KafkaPrincipal) -> bool:
        """And be ended by."""
        return principal == self.owner or principal in self.renewers

    def concerns(self, principal: KafkaPrincipal) -> bool:
        """Whether it may see the token without being allowed to."""
        return principal in (self.owner, self.requester) or principal in self.renewers


@dataclass(frozen=True, slots=True)
class TokenSettings:
    """``delegation.token.*``. Without a key, or with an empty one, there are no tokens."""

    secret_key: Secret | None
    max_lifetime_ms: int = MAX_LIFETIME_MS
    expiry_time_ms: int = EXPIRY_TIME_MS

    @property
    def is_enabled(self) -> bool:
        return bool(self.secret_key)

    def hmac_of(self, token_id: str) -> bytes:
        """What makes a token of an id. Only where they are enabled."""
        assert self.secret_key
        return hmac.digest(self.secret_key.reveal().encode(), token_id.encode(), _HMAC)


def new_token_id(random: Callable[[int], bytes]) -> str:
    """As Kafka's Uuid has it: without a dash, which command lines take for an option. ``random``: as many
    bytes as it is asked for."""
    while "-" in (token_id := urlsafe_b64encode(random(_ID_BYTES)).decode().rstrip("=")):
        pass
    return token_id


def check_may_ask(principal: KafkaPrincipal, security_protocol: str) -> None:
    """Whether a client may say anything about tokens: not where it came by one, nor where nobody has looked
    who it is. ``security_protocol``: of its listener."""
    nobody = security_protocol == "PLAINTEXT" or (security_protocol == "SSL" and principal == ANONYMOUS)
    if nobody or principal.token_authenticated:
        raise KafkaError(ErrorCode.delegation_token_request_not_allowed)


def owner_of(requester: KafkaPrincipal, owner_type: str | None, owner_name: str | None) -> KafkaPrincipal:
    """For whom CreateDelegationToken asks: itself, or whom it names."""
    return KafkaPrincipal(owner_type or "", owner_name) if owner_name else requester


def check_users(principals: Iterable[KafkaPrincipal]) -> None:
    if any(one.type != USER for one in principals):
        raise KafkaError(ErrorCode.invalid_principal_type)


def create(
    settings: TokenSettings,
    token_id: str,
    *,
    owner: KafkaPrincipal,
    requester: KafkaPrincipal,
    renewers: Collection[KafkaPrincipal],
    max_lifetime_ms: int,
    now_ms: int,
) -> DelegationToken:
    """A new token. ``max_lifetime_ms``: what the client asks for; 0 or less: as long as may be."""
    _check_enabled(settings)
    # Whoever logs in by it is a user. Were the owner asked for of another type, which Kafka lets be, that one
    # would not be whom the requester was allowed to have tokens for.
    check_users((owner, *renewers))
    if sum(len(one.name) for one in (owner, requester, *renewers)) > CHARACTERS_MAX:
        raise KafkaError(
            ErrorCode.policy_violation, f"A token's names may have {CHARACTERS_MAX} characters together."
        )
    lifetime_ms = settings.max_lifetime_ms
    if max_lifetime_ms > 0:
        lifetime_ms = min(lifetime_ms, max_lifetime_ms)
    max_ms = _sum(now_ms, lifetime_ms)
    expires_ms = min(max_ms, _sum(now_ms, settings.expiry_time_ms))
    return DelegationToken(token_id, owner, requester, tuple(renewers), now_ms, expires_ms, max_ms)


def renew(
    settings: TokenSettings,
    token: DelegationToken | None,
    who: KafkaPrincipal,
    renew_period_ms: int,
    now_ms: int,
) -> DelegationToken:
    """The token as it is to be kept from now on. ``token``: the one of the request's HMAC, if there is one;
    ``renew_period_ms``: 0 or less: as long as may be."""
    _check_enabled(settings)
    known = _known(token)
    if known.has_expired(now_ms):
        raise KafkaError(ErrorCode.delegation_token_expired)
    if not known.may_be_renewed_by(who):
        raise KafkaError(ErrorCode.delegation_token_owner_mismatch)
    period_ms = settings.expiry_time_ms
    if renew_period_ms > 0:
        period_ms = min(period_ms, renew_period_ms)
    return replace(known, expires_ms=min(known.max_ms, _sum(now_ms, period_ms)))


def expire(
    settings: TokenSettings,
    token: DelegationToken | None,
    who: KafkaPrincipal,
    expiry_period_ms: int,
    now_ms: int,
) -> DelegationToken | None:
    """The token as it is to be kept from now on; None: it is to be removed, and has ended now. It ends after
    ``expiry_period_ms``, which may be later than before; at once where that is negative."""
    _check_enabled(settings)
    known = _known(token)
    if not known.may_be_renewed_by(who):
        raise KafkaError(ErrorCode.delegation_token_owner_mismatch)
    if expiry_period_ms < 0:
        return None
    if known.has_expired(now_ms):
        raise KafkaError(ErrorCode.delegation_token_expired)
    return replace(known, expires_ms=min(known.max_ms, _sum(now_ms, expiry_period_ms)))


def may_describe(
    token: DelegationToken,
    who: KafkaPrincipal,
    owners: Set[KafkaPrincipal] | None,
    may_see_token: Callable[[str], bool],
    may_see_tokens_of: Callable[[KafkaPrincipal], bool],
) -> bool:
    """Whether DescribeDelegationToken shows a token. ``owners``: whose tokens are asked for; None: anybody's.
    ``may_see_token``: DESCRIBE of the token of that id; ``may_see_tokens_of``: DESCRIBE_TOKENS of its owner.
    """
    if owners is not None and owners.isdisjoint((token.owner, token.requester, *token.renewers)):
        return False
    return token.concerns(who) or may_see_token(token.token_id) or may_see_tokens_of(token.owner)


@final
class TokenView:
    """The tokens that a node knows of, for whoever authenticates by one or names one by its HMAC."""

    __slots__ = ("_by_hmac", "_credentials", "_settings", "_tokens")

    def __init__(self, settings: TokenSettings) -> None:
        self._settings = settings
        self._tokens: dict[str, DelegationToken] = {}
        self._by_hmac: dict[bytes, str] = {}
        # Made when they are first needed, since each costs some milliseconds.
        self._credentials: dict[tuple[ScramHash, str], ScramCredential] = {}

    def __len__(self) -> int:
        return len(self._tokens)

    def __iter__(self) -> Iterator[DelegationToken]:
        return iter(self._tokens.values())

    def get(self, token_id: str) -> DelegationToken | None:
        return self._tokens.get(token_id)

    def of_hmac(self, hmac: bytes) -> DelegationToken | None:
        """The token that RenewDelegationToken and ExpireDelegationToken mean."""
        token_id = self._by_hmac.get(hmac)
        return None if token_id is None else self._tokens[token_id]

    def put(self, token: DelegationToken) -> None:
        """A token that is new, or has changed."""
        if self._settings.is_enabled:
            self._tokens[token.token_id] = token
            self._by_hmac[self._settings.hmac_of(token.token_id)] = token.token_id

    def remove(self, token_id: str) -> None:
        if self._tokens.pop(token_id, None) is not None:
            del self._by_hmac[self._settings.hmac_of(token_id)]
            for hash in ScramHash:
                self._credentials.pop((hash, token_id), None)

    def expired(self, now_ms: int) -> list[str]:
        """Ids of tokens that are to be removed, some of them where they are many."""
        found = []
        for token in self._tokens.values():
            if token.has_expired(now_ms):
                found.append(token.token_id)
                if len(found) == EXPIRED_AT_A_TIME_MAX:
                    break
        return found

    def credential(self, hash: ScramHash, token_id: str) -> TokenCredential | None:
        """For SCRAM. The first time that a token is asked for it takes milliseconds."""
        token = self._tokens.get(token_id)
        if token is None:
            return None
        made = self._credentials.get((hash, token_id))
        if made is None:
            key = self._settings.hmac_of(token_id)
            salt = salt_of(hmac.digest(key, hash.mechanism.encode(), _HMAC)[:NONCE_BYTES])
            made = credential_of(hash, b64encode(key).decode(), salt, ITERATIONS_MIN)
            self._credentials[hash, token_id] = made
        return TokenCredential(made, token.owner, min(token.expires_ms, token.max_ms))


def _check_enabled(settings: TokenSettings) -> None:
    if not settings.is_enabled:
        raise KafkaError(ErrorCode.delegation_token_auth_disabled)


def _known(token: DelegationToken | None) -> DelegationToken:
    if token is None:
        raise KafkaError(ErrorCode.delegation_token_not_found)
    return token


def _sum(now_ms: int, duration_ms: int) -> int:
    return min(now_ms + duration_ms, _TIME_MAX_MS)
