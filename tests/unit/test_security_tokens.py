"""Delegation tokens: who may ask for what, in which order that is looked at, and how long they last."""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode, urlsafe_b64decode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from security_support import NOW_MS, go_through, machine

from ottla.errors import KafkaError
from ottla.security.principals import ANONYMOUS, KafkaPrincipal, user
from ottla.security.sasl.client import ScramClient
from ottla.security.sasl.machine import Authenticated, Failed
from ottla.security.sasl.scram import ScramHash, ScramMechanism
from ottla.security.secret import Secret
from ottla.security.tokens import (
    CHARACTERS_MAX,
    DelegationToken,
    TokenSettings,
    TokenView,
    check_may_ask,
    create,
    expire,
    may_describe,
    new_token_id,
    owner_of,
    renew,
)

DAY_MS = 24 * 60 * 60 * 1000
SETTINGS = TokenSettings(Secret("the cluster's key"))
ALICE, BOB, CAROL, DAVE = user("alice"), user("bob"), user("carol"), user("dave")
LONG_MAX = 2**63 - 1


def made(settings: TokenSettings = SETTINGS, **changed: Any) -> DelegationToken:
    """Alice's, whom bob asked for it, and which carol may renew."""
    asked: dict[str, Any] = {
        "owner": ALICE, "requester": BOB, "renewers": [CAROL], "max_lifetime_ms": -1, "now_ms": NOW_MS,
    }  # fmt: skip
    return create(settings, "token-1", **(asked | changed))


def code(call: Any, *arguments: Any, **named: Any) -> str:
    with pytest.raises(KafkaError) as raised:
        call(*arguments, **named)
    return raised.value.code.name


def test_a_token_is_the_hmac_sha_512_of_its_id() -> None:
    assert SETTINGS.hmac_of("token-1") == hmac.new(b"the cluster's key", b"token-1", hashlib.sha512).digest()


@pytest.mark.parametrize(
    ("asked_ms", "max_ms", "expires_ms"),
    [
        (-1, 7 * DAY_MS, DAY_MS),
        (0, 7 * DAY_MS, DAY_MS),
        (1, 1, 1),
        (3_600_000, 3_600_000, 3_600_000),
        (2 * DAY_MS, 2 * DAY_MS, DAY_MS),
        (8 * DAY_MS, 7 * DAY_MS, DAY_MS),
        (LONG_MAX, 7 * DAY_MS, DAY_MS),
    ],
)
def test_a_token_lasts_as_long_as_it_is_asked_for_and_may(
    asked_ms: int, max_ms: int, expires_ms: int
) -> None:
    token = made(max_lifetime_ms=asked_ms)
    assert (token.issued_ms, token.max_ms, token.expires_ms) == (NOW_MS, NOW_MS + max_ms, NOW_MS + expires_ms)
    assert (token.owner, token.requester, token.renewers) == (ALICE, BOB, (CAROL,))


def test_times_do_not_go_beyond_what_can_be_written() -> None:
    endless = TokenSettings(Secret("key"), LONG_MAX, LONG_MAX)
    token = made(endless)
    assert (token.max_ms, token.expires_ms) == (LONG_MAX, LONG_MAX)
    assert renew(endless, token, ALICE, LONG_MAX, NOW_MS).expires_ms == LONG_MAX
    after = expire(endless, token, ALICE, LONG_MAX, NOW_MS)
    assert after is not None
    assert after.expires_ms == LONG_MAX


@pytest.mark.parametrize("settings", [TokenSettings(None), TokenSettings(Secret(""))])
def test_without_a_key_there_are_no_tokens(settings: TokenSettings) -> None:
    assert not settings.is_enabled
    assert code(made, settings) == "delegation_token_auth_disabled"
    assert code(renew, settings, None, ALICE, -1, NOW_MS) == "delegation_token_auth_disabled"
    assert code(expire, settings, None, ALICE, -1, NOW_MS) == "delegation_token_auth_disabled"
    view = TokenView(settings)
    view.put(made())
    assert len(view) == 0


def test_owners_are_users() -> None:
    assert code(made, owner=KafkaPrincipal("Group", "alice")) == "invalid_principal_type"


def test_names_are_of_a_bounded_length() -> None:
    half = user("x" * (CHARACTERS_MAX // 2 - 4))
    made(renewers=[half, half])
    assert code(made, renewers=[half, half, CAROL]) == "policy_violation"
    assert code(made, owner=user("x" * CHARACTERS_MAX)) == "policy_violation"


def test_renewers_are_users() -> None:
    assert code(made, renewers=[CAROL, KafkaPrincipal("Group", "x")]) == "invalid_principal_type"


@pytest.mark.parametrize(
    ("principal", "protocol", "allowed"),
    [
        (ALICE, "SASL_SSL", True),
        (ALICE, "SASL_PLAINTEXT", True),
        (ALICE, "SSL", True),
        (ANONYMOUS, "SSL", False),
        (ANONYMOUS, "PLAINTEXT", False),
        (ALICE, "PLAINTEXT", False),
        (user("ANONYMOUS"), "SASL_SSL", True),
        (KafkaPrincipal("User", "alice", token_authenticated=True), "SASL_SSL", False),
    ],
)
def test_who_came_by_a_token_or_is_not_known_may_not_ask(
    principal: KafkaPrincipal, protocol: str, allowed: bool
) -> None:
    if allowed:
        check_may_ask(principal, protocol)
    else:
        assert code(check_may_ask, principal, protocol) == "delegation_token_request_not_allowed"


def test_one_asks_for_oneself_or_for_whom_one_names() -> None:
    assert owner_of(BOB, None, None) == BOB
    assert owner_of(BOB, "User", "") == BOB
    assert owner_of(BOB, "User", "alice") == ALICE


def test_the_owner_and_the_renewers_may_renew_and_nobody_else() -> None:
    for who in (ALICE, CAROL):
        renewed = renew(SETTINGS, made(), who, -1, NOW_MS + 1_000)
        assert renewed.expires_ms == NOW_MS + 1_000 + DAY_MS
        assert (renewed.max_ms, renewed.issued_ms) == (NOW_MS + 7 * DAY_MS, NOW_MS)
    for who in (BOB, DAVE, KafkaPrincipal("Group", "alice")):
        assert code(renew, SETTINGS, made(), who, -1, NOW_MS) == "delegation_token_owner_mismatch"
        assert code(expire, SETTINGS, made(), who, -1, NOW_MS) == "delegation_token_owner_mismatch"


@pytest.mark.parametrize(
    ("period_ms", "later_ms", "expires_ms"),
    [
        (5, 1_000, 1_005),
        (0, 1_000, DAY_MS + 1_000),
        (DAY_MS + 1, 1_000, DAY_MS + 1_000),
        (-1, DAY_MS, 2 * DAY_MS),
    ],
)
def test_a_renewal_counts_from_now(period_ms: int, later_ms: int, expires_ms: int) -> None:
    assert renew(SETTINGS, made(), ALICE, period_ms, NOW_MS + later_ms).expires_ms == NOW_MS + expires_ms


def test_no_renewal_outlasts_the_token() -> None:
    token = made()
    for day in range(1, 7):
        token = renew(SETTINGS, token, ALICE, -1, NOW_MS + day * DAY_MS)
    assert token.expires_ms == token.max_ms == NOW_MS + 7 * DAY_MS
    assert renew(SETTINGS, token, ALICE, -1, NOW_MS + 7 * DAY_MS).expires_ms == token.max_ms
    assert code(renew, SETTINGS, token, ALICE, -1, NOW_MS + 7 * DAY_MS + 1) == "delegation_token_expired"


def test_what_has_expired_is_said_before_whose_it_is_where_it_is_renewed_and_after_where_it_is_ended() -> (
    None
):
    token, late_ms = made(), NOW_MS + DAY_MS + 1
    assert code(renew, SETTINGS, None, ALICE, -1, late_ms) == "delegation_token_not_found"
    assert code(expire, SETTINGS, None, ALICE, -1, late_ms) == "delegation_token_not_found"
    assert code(renew, SETTINGS, token, DAVE, -1, late_ms) == "delegation_token_expired"
    assert code(expire, SETTINGS, token, DAVE, 5, late_ms) == "delegation_token_owner_mismatch"
    assert code(expire, SETTINGS, token, ALICE, 5, late_ms) == "delegation_token_expired"
    assert expire(SETTINGS, token, ALICE, -1, late_ms) is None


@pytest.mark.parametrize(
    ("period_ms", "expires_ms"), [(0, 0), (5, 5), (2 * DAY_MS, 2 * DAY_MS), (8 * DAY_MS, 7 * DAY_MS)]
)
def test_a_token_can_be_made_to_end_later_too(period_ms: int, expires_ms: int) -> None:
    after = expire(SETTINGS, made(), CAROL, period_ms, NOW_MS)
    assert after is not None
    assert after.expires_ms == NOW_MS + expires_ms


def test_a_token_is_shown_to_whom_it_concerns_and_who_may() -> None:
    def shown(who: KafkaPrincipal, owners: set[KafkaPrincipal] | None, ids: str = "", of: str = "") -> bool:
        return may_describe(made(), who, owners, ids.split().__contains__, lambda owner: owner.name == of)

    for who in (ALICE, BOB, CAROL):
        assert shown(who, None)
        assert shown(who, {DAVE, ALICE})
        assert not shown(who, {DAVE})
        assert not shown(who, set())
    assert not shown(DAVE, None)
    assert not shown(DAVE, {ALICE})
    assert shown(DAVE, None, "token-1")
    assert shown(DAVE, {BOB}, of="alice")
    assert not shown(DAVE, {DAVE}, "token-1", "alice")
    assert not shown(DAVE, None, "token-2", "bob")


def test_ids_are_kafkas_and_have_no_dash() -> None:
    drawn = iter([b"\xff" * 16, b"\xfb\xef\xbe" * 5 + b"\xfb", bytes(range(16))])
    asked: list[int] = []
    token_id = new_token_id(lambda size: (asked.append(size), next(drawn))[1])
    assert asked in ([16], [16, 16], [16, 16, 16])
    assert "-" not in token_id
    assert len(token_id) == 22
    assert len(urlsafe_b64decode(token_id + "==")) == 16


@pytest.mark.parametrize("hash", list(ScramHash))
def test_who_has_a_token_is_its_owner_until_it_ends(hash: ScramHash) -> None:
    view = TokenView(SETTINGS)
    view.put(made(max_lifetime_ms=60_000))

    def come(password: bytes, ms: int = 0) -> Authenticated | Failed:
        mechanism = ScramMechanism(
            hash,
            users={}.get,
            tokens=lambda token_id: view.credential(hash, token_id),
            nonce=lambda: "server",
            secret=b"",
        )
        secret = Secret(b64encode(password).decode())
        return go_through(
            machine(mechanism), ScramClient(hash, "token-1", secret, "client", by_token=True), ms
        )

    done = come(SETTINGS.hmac_of("token-1"), 20_000)
    assert done == Authenticated(ALICE, 40_000, expires=True, again=False)
    assert isinstance(done, Authenticated)
    assert done.principal.token_authenticated
    assert isinstance(come(SETTINGS.hmac_of("token-2")), Failed)
    assert isinstance(come(SETTINGS.hmac_of("token-1"), 60_001), Failed)
    view.remove("token-1")
    assert isinstance(come(SETTINGS.hmac_of("token-1")), Failed)


def test_a_view_finds_tokens_by_id_and_by_hmac() -> None:
    view = TokenView(SETTINGS)
    assert view.of_hmac(b"") is None
    token = made()
    view.put(token)
    assert view.of_hmac(SETTINGS.hmac_of("token-1")) is view.get("token-1") is token
    first = view.credential(ScramHash.SHA_256, "token-1")
    assert first is not None
    later = renew(SETTINGS, token, ALICE, 5, NOW_MS)
    view.put(later)
    assert view.of_hmac(SETTINGS.hmac_of("token-1")) is later
    again = view.credential(ScramHash.SHA_256, "token-1")
    assert again is not None
    assert again.credential is first.credential
    assert again.expires_ms == later.expires_ms
    other = TokenView(SETTINGS)
    other.put(token)
    assert other.credential(ScramHash.SHA_256, "token-1") == first
    assert list(view) == [later]
    view.remove("token-1")
    view.remove("token-1")
    assert (len(view), view.get("token-1"), view.of_hmac(SETTINGS.hmac_of("token-1"))) == (0, None, None)
    assert view.credential(ScramHash.SHA_256, "token-1") is None


def test_what_has_expired_is_removed_some_at_a_time() -> None:
    view = TokenView(SETTINGS)
    for number in range(1_200):
        expires_ms = NOW_MS + number
        view.put(DelegationToken(f"t{number}", ALICE, ALICE, (), NOW_MS, expires_ms, NOW_MS + DAY_MS))
    assert view.expired(NOW_MS) == []
    assert view.expired(NOW_MS + 2) == ["t0", "t1"]
    assert len(view.expired(NOW_MS + DAY_MS)) == 1_000
    for token_id in view.expired(NOW_MS + DAY_MS):
        view.remove(token_id)
    assert len(view.expired(NOW_MS + DAY_MS)) == 200


def test_the_key_is_in_no_text() -> None:
    view = TokenView(SETTINGS)
    view.put(made())
    shown = f"{SETTINGS}{SETTINGS!r}{made()!r}{view!r}{view.credential(ScramHash.SHA_256, 'token-1')!r}"
    assert "cluster's key" not in shown
    assert SETTINGS.hmac_of("token-1").hex() not in shown


@given(
    st.integers(-(2**63), LONG_MAX), st.integers(1, LONG_MAX), st.integers(1, LONG_MAX), st.integers(0, 2**62)
)
def test_a_token_never_ends_after_what_its_cluster_lets_it(
    asked_ms: int, max_ms: int, expiry_ms: int, now_ms: int
) -> None:
    settings = TokenSettings(Secret("key"), max_ms, expiry_ms)
    token = made(settings, max_lifetime_ms=asked_ms, now_ms=now_ms)
    for after in (
        token,
        renew(settings, token, ALICE, asked_ms, now_ms),
        expire(settings, token, ALICE, abs(asked_ms) & LONG_MAX, now_ms),
    ):
        assert after is not None
        assert now_ms <= after.expires_ms <= after.max_ms <= min(now_ms + max_ms, LONG_MAX)
        assert not after.has_expired(now_ms)
