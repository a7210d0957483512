"""One connection's authentication, state by state, as Kafka's SaslServerAuthenticator has it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from security_support import NOW_MS, PASSWORDS, at, authenticate, go_through, handshake, machine, plain, scram

from ottla.errors import ErrorCode
from ottla.security.principals import user
from ottla.security.sasl.client import PlainClient
from ottla.security.sasl.machine import (
    API_VERSIONS,
    SASL_AUTHENTICATE,
    SASL_HANDSHAKE,
    Authenticated,
    Failed,
    Moment,
    RawReply,
    Reply,
    SaslMachine,
    State,
)
from ottla.security.sasl.mechanism import Done, Invalid, Refused, Unavailable
from ottla.security.sasl.plain import PlainMechanism

METADATA = 3
ALICE = PlainClient("alice", PASSWORDS["alice"])


def complete(max_reauth_ms: int = 0) -> SaslMachine:
    sasl = machine(max_reauth_ms=max_reauth_ms)
    assert isinstance(go_through(sasl, PlainClient("alice", PASSWORDS["alice"])), Authenticated)
    return sasl


class Token:
    """A mechanism that believes ``name:expiry`` and has other words for its failures."""

    name = "TOKEN"

    def begin(self) -> Token:
        return self

    def respond(self, token: bytes, now_ms: int) -> bytes | Done:
        if token == b"?":
            return b"who?"
        if token == b"refuse":
            raise Refused("go away")
        if token == b"invalid":
            raise Invalid("nobody is called mallory")
        if token == b"unavailable":
            raise Unavailable("no ticket yet")
        name, _, expires_ms = token.decode().partition(":")
        return Done(b"hello", user(name), int(expires_ms) if expires_ms else None)


def test_a_client_asks_for_versions_then_shakes_hands_then_authenticates() -> None:
    sasl = machine()
    assert (sasl.state, sasl.principal) == (State.INITIAL_REQUEST, None)
    assert sasl.admit(API_VERSIONS, 0) is None
    sasl.versions_told()
    assert sasl.state is State.HANDSHAKE_REQUEST
    assert handshake(sasl, "PLAIN") == (
        Reply({"error_code": ErrorCode.none, "mechanisms": ["PLAIN", "SCRAM-SHA-256"]}),
    )
    assert (sasl.state, sasl.takes_raw_tokens, sasl.is_complete) == (State.AUTHENTICATE, False, False)
    reply, authenticated = authenticate(sasl, plain("alice", "alice-secret"))
    assert reply == Reply(
        {"error_code": ErrorCode.none, "error_message": "", "auth_bytes": b"", "session_lifetime_ms": 0}
    )
    assert authenticated == Authenticated(user("alice"), 0, expires=False, again=False)
    assert (sasl.is_complete, sasl.principal) == (True, user("alice"))


def test_versions_may_be_asked_again_where_the_first_answer_was_an_error_but_not_otherwise() -> None:
    sasl = machine()
    assert sasl.admit(API_VERSIONS, 0) is None
    assert sasl.admit(API_VERSIONS, 0) is None
    sasl.versions_told()
    failed = sasl.admit(API_VERSIONS, 0)
    assert failed is not None
    assert (failed.delayed, failed.answer, failed.error) == (False, None, None)
    assert sasl.state is State.FAILED


@pytest.mark.parametrize("key", [METADATA, SASL_AUTHENTICATE, 0, 999, -1])
def test_before_the_handshake_nothing_else_is_decoded_and_the_connection_is_closed(key: int) -> None:
    failed = machine().admit(key, 0)
    assert failed is not None
    assert (failed.delayed, failed.answer, failed.error) == (False, None, None)
    assert "may not use SASL" in failed.reason
    sasl = machine()
    sasl.admit(API_VERSIONS, 0)
    later = sasl.admit(key, 0)
    assert later is not None
    assert "may not use SASL" not in later.reason


def test_an_unknown_mechanism_is_answered_with_those_that_are_enabled_after_a_delay() -> None:
    sasl = machine()
    (failed,) = handshake(sasl, "CRAM-MD5\n")
    assert failed == Failed(
        "the mechanism CRAM-MD5\\n is not enabled",
        delayed=True,
        answer={
            "error_code": ErrorCode.unsupported_sasl_mechanism,
            "mechanisms": ["PLAIN", "SCRAM-SHA-256"],
        },
    )
    assert sasl.state is State.FAILED


def test_what_a_client_names_is_not_shown_at_any_length() -> None:
    (failed,) = handshake(machine(), "x" * 30_000)
    assert isinstance(failed, Failed)
    assert len(failed.reason) < 200


@pytest.mark.parametrize("key", [METADATA, SASL_HANDSHAKE, API_VERSIONS])
def test_other_requests_in_place_of_a_token_are_answered_with_illegal_sasl_state(key: int) -> None:
    sasl = machine()
    handshake(sasl, "PLAIN")
    failed = sasl.admit(key, 0)
    assert failed is not None
    assert (failed.delayed, failed.answer, failed.error) == (True, None, ErrorCode.illegal_sasl_state)


def test_a_wrong_password_is_answered_after_a_delay_and_nothing_is_taken_then() -> None:
    sasl = machine()
    handshake(sasl, "PLAIN")
    (failed,) = authenticate(sasl, plain("alice", "wrong"))
    assert isinstance(failed, Failed)
    assert failed.delayed
    assert failed.answer == {
        "error_code": ErrorCode.sasl_authentication_failed,
        "error_message": "Authentication failed: Invalid username or password",
        "auth_bytes": b"",
        "session_lifetime_ms": 0,
    }
    for key in (SASL_AUTHENTICATE, SASL_HANDSHAKE, API_VERSIONS, METADATA):
        assert sasl.admit(key, 0) is not None
    (again,) = sasl.authenticate(2, plain("alice", "alice-secret"), at())
    assert isinstance(again, Failed)
    assert isinstance(sasl.handshake(1, "PLAIN", at())[0], Failed)
    assert isinstance(sasl.raw_token(plain("alice", "alice-secret"), at())[0], Failed)
    assert sasl.principal is None


def test_a_failure_that_must_not_be_told_has_the_same_words_for_all_of_its_kind() -> None:
    sasl = machine(Token())
    handshake(sasl, "TOKEN")
    (failed,) = authenticate(sasl, b"invalid")
    assert isinstance(failed, Failed)
    assert failed.reason == "nobody is called mallory"
    assert failed.answer is not None
    assert failed.answer["error_message"] == (
        "Authentication failed during authentication due to invalid credentials with SASL mechanism TOKEN"
    )


def test_what_may_go_better_next_time_closes_the_connection_without_a_word() -> None:
    sasl = machine(Token())
    handshake(sasl, "TOKEN")
    assert authenticate(sasl, b"unavailable") == (Failed("no ticket yet", delayed=False),)


def test_several_tokens_are_answered_one_by_one() -> None:
    sasl = machine(Token())
    handshake(sasl, "TOKEN")
    (reply,) = authenticate(sasl, b"?")
    assert isinstance(reply, Reply)
    assert (reply.fields["auth_bytes"], reply.fields["session_lifetime_ms"]) == (b"who?", 0)
    reply, authenticated = authenticate(sasl, b"carol")
    assert isinstance(reply, Reply)
    assert reply.fields["auth_bytes"] == b"hello"
    assert authenticated == Authenticated(user("carol"), 0, expires=False, again=False)


def test_after_a_handshake_of_version_0_tokens_have_no_headers() -> None:
    sasl = machine(Token())
    handshake(sasl, "TOKEN", version=0)
    assert sasl.takes_raw_tokens
    assert sasl.raw_token(b"?", at()) == (RawReply(b"who?"),)
    assert sasl.raw_token(b"carol", at()) == (
        RawReply(b"hello"),
        Authenticated(user("carol"), 0, expires=False, again=False),
    )
    assert (sasl.takes_raw_tokens, sasl.is_complete) == (False, True)


@pytest.mark.parametrize(
    ("token", "failed"),
    [
        (b"refuse", Failed("go away", delayed=True)),
        (b"invalid", Failed("nobody is called mallory", delayed=False)),
        (b"unavailable", Failed("no ticket yet", delayed=False)),
    ],
)
def test_without_headers_a_failure_has_no_words(token: bytes, failed: Failed) -> None:
    sasl = machine(Token())
    handshake(sasl, "TOKEN", version=0)
    assert sasl.raw_token(token, at()) == (failed,)


def test_requests_of_an_authenticated_client_are_admitted_for_good_where_sessions_do_not_end() -> None:
    sasl = complete()
    for key in (METADATA, API_VERSIONS, SASL_HANDSHAKE, SASL_AUTHENTICATE):
        assert sasl.admit(key, at(10**12).monotonic_ms) is None
    assert sasl.handshake(1, "PLAIN", at(10**12)) == (
        Reply({"error_code": ErrorCode.illegal_sasl_state, "mechanisms": []}),
    )
    (reply,) = sasl.authenticate(2, plain("bob", "bob-secret"), at(10**12))
    assert isinstance(reply, Reply)
    assert reply.fields["error_code"] is ErrorCode.illegal_sasl_state
    assert (
        reply.fields["error_message"] == "SaslAuthenticate request received after successful authentication"
    )
    assert (sasl.is_complete, sasl.principal) == (True, user("alice"))


@pytest.mark.parametrize(
    ("max_reauth_ms", "expires_in_ms", "lifetime_ms"),
    [
        (0, 7_000, 7_000),
        (5_000, 7_000, 5_000),
        (9_000, 7_000, 7_000),
        (5_000, None, 5_000),
        (0, -1, 0),
        (5_000, -1, 0),
    ],
)
def test_a_session_lasts_as_long_as_the_broker_and_the_credential_let_it(
    max_reauth_ms: int, expires_in_ms: int | None, lifetime_ms: int
) -> None:
    sasl = machine(Token(), max_reauth_ms=max_reauth_ms)
    handshake(sasl, "TOKEN")
    expiry = "" if expires_in_ms is None else f":{NOW_MS + expires_in_ms}"
    reply, authenticated = authenticate(sasl, f"carol{expiry}".encode())
    assert isinstance(reply, Reply)
    assert reply.fields["session_lifetime_ms"] == lifetime_ms
    assert authenticated == Authenticated(user("carol"), lifetime_ms, expires=True, again=False)
    assert not sasl.expired(at(lifetime_ms).monotonic_ms)
    assert sasl.expired(at(lifetime_ms + 1).monotonic_ms)


def test_the_first_request_after_the_sessions_end_closes_the_connection() -> None:
    sasl = complete(max_reauth_ms=5_000)
    assert sasl.admit(METADATA, at(5_000).monotonic_ms) is None
    failed = sasl.admit(METADATA, at(5_001).monotonic_ms)
    assert failed is not None
    assert (failed.delayed, failed.answer, failed.error) == (False, None, None)


def test_a_client_may_authenticate_again_before_and_after_the_sessions_end() -> None:
    sasl = complete(max_reauth_ms=5_000)
    for ms in (2_000, 7_500, 12_500):
        again = go_through(sasl, PlainClient("alice", PASSWORDS["alice"]), ms)
        assert again == Authenticated(user("alice"), 5_000, expires=True, again=True)
        assert sasl.admit(METADATA, at(ms + 5_000).monotonic_ms) is None


def test_while_it_authenticates_again_nothing_else_is_served_and_a_failure_ends_the_connection() -> None:
    sasl = complete(max_reauth_ms=5_000)
    handshake(sasl, "PLAIN", 1_000)
    assert (sasl.is_complete, sasl.principal) == (False, user("alice"))
    failed = sasl.admit(METADATA, at(1_000).monotonic_ms)
    assert failed is not None
    assert failed.error is ErrorCode.illegal_sasl_state
    sasl = complete(max_reauth_ms=5_000)
    handshake(sasl, "PLAIN", 1_000)
    (refused,) = authenticate(sasl, plain("alice", "wrong"), 1_000)
    assert isinstance(refused, Failed)
    assert sasl.state is State.FAILED


def test_again_as_somebody_else_is_refused_in_kafkas_words() -> None:
    sasl = complete(max_reauth_ms=5_000)
    handshake(sasl, "PLAIN", 1_000)
    (failed,) = authenticate(sasl, plain("bob", "bob-secret"), 1_000)
    assert isinstance(failed, Failed)
    assert failed.answer is not None
    assert failed.answer["error_code"] is ErrorCode.sasl_authentication_failed
    assert failed.answer["error_message"] == (
        "Cannot change principals during re-authentication from User.alice: User.bob"
    )
    assert sasl.principal == user("alice")


def test_again_by_another_mechanism_is_refused_when_it_goes_on() -> None:
    sasl = complete(max_reauth_ms=5_000)
    (reply,) = handshake(sasl, "SCRAM-SHA-256", 1_000)
    assert isinstance(reply, Reply)
    assert reply.fields["error_code"] is ErrorCode.none
    assert not sasl.is_complete
    failed = sasl.admit(SASL_AUTHENTICATE, at(1_000).monotonic_ms)
    assert failed is not None
    assert (failed.delayed, failed.answer, failed.error) == (True, None, None)


def test_again_and_again_is_once_a_second() -> None:
    sasl = complete(max_reauth_ms=5_000)
    assert isinstance(go_through(sasl, PlainClient("alice", PASSWORDS["alice"]), 100), Authenticated)
    (early,) = handshake(sasl, "PLAIN", 1_099)
    assert isinstance(early, Reply)
    assert early.fields["error_code"] is ErrorCode.illegal_sasl_state
    assert sasl.is_complete
    assert isinstance(go_through(sasl, PlainClient("alice", PASSWORDS["alice"]), 1_100), Authenticated)


def test_a_handshake_that_comes_too_early_does_not_outlive_the_session() -> None:
    sasl = complete(max_reauth_ms=500)
    assert isinstance(go_through(sasl, PlainClient("alice", PASSWORDS["alice"]), 100), Authenticated)
    assert sasl.admit(SASL_HANDSHAKE, at(700).monotonic_ms) is not None


def test_a_wall_clock_that_is_set_does_not_end_a_session() -> None:
    sasl = complete(max_reauth_ms=5_000)
    assert sasl.admit(METADATA, at(4_000).monotonic_ms) is None
    handshaken = sasl.handshake(1, "PLAIN", Moment(NOW_MS - 10**9, at(4_000).monotonic_ms))
    assert isinstance(handshaken[0], Reply)
    events = sasl.authenticate(
        2, plain("alice", "alice-secret"), Moment(NOW_MS + 10**9, at(4_000).monotonic_ms)
    )
    assert events[-1] == Authenticated(user("alice"), 5_000, expires=True, again=True)
    assert not sasl.expired(at(9_000).monotonic_ms)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("admit"), st.sampled_from([0, 3, 17, 18, 36, 99])),
        st.tuples(st.just("told"), st.none()),
        st.tuples(st.just("handshake"), st.sampled_from(["PLAIN", "SCRAM-SHA-256", "GSSAPI"])),
        st.tuples(st.just("handshake 0"), st.sampled_from(["PLAIN", "SCRAM-SHA-256"])),
        st.tuples(
            st.just("token"),
            st.one_of(
                st.binary(max_size=40),
                st.sampled_from([plain("alice", "alice-secret"), plain("bob", "bob-secret")]),
            ),
        ),
        st.tuples(st.just("raw"), st.sampled_from([b"", plain("alice", "alice-secret")])),
    ),
    max_size=12,
)
SCRAM = scram()


@given(STEPS, st.integers(0, 3_000))
def test_whatever_comes_in_whatever_order_nobody_is_let_in_without_a_password(
    steps: list[tuple[str, object]], apart_ms: int
) -> None:
    sasl = machine(PlainMechanism(PASSWORDS), SCRAM, max_reauth_ms=4_000)
    known = None
    for number, (what, value) in enumerate(steps):
        moment = at(number * apart_ms)
        over = sasl.state is State.FAILED
        events: tuple[object, ...] = ()
        if what == "admit":
            assert isinstance(value, int)
            failed = sasl.admit(value, moment.monotonic_ms)
            events = () if failed is None else (failed,)
        elif what == "told":
            sasl.versions_told()
        elif what.startswith("handshake"):
            assert isinstance(value, str)
            events = sasl.handshake(0 if what.endswith("0") else 1, value, moment)
        else:
            assert isinstance(value, bytes)
            call = sasl.raw_token if what == "raw" else lambda token, at: sasl.authenticate(2, token, at)
            events = call(value, moment)
        for event in events:
            if isinstance(event, Authenticated):
                assert value in (plain("alice", "alice-secret"), plain("bob", "bob-secret"))
                assert known in (None, event.principal)
                known = event.principal
            elif isinstance(event, Failed):
                assert sasl.state is State.FAILED
        assert sasl.principal == known
        assert not (over and sasl.state is not State.FAILED)
        assert not sasl.is_complete or known is not None
