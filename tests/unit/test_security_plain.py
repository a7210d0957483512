"""PLAIN, token by token: what Kafka's PlainSaslServer takes, and in which words it refuses."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from security_support import NOW_MS, PASSWORDS, go_through, machine, plain

from ottla.security import secret as secrets
from ottla.security.principals import user
from ottla.security.sasl.client import PlainClient, ServerRefused
from ottla.security.sasl.machine import Authenticated, Failed
from ottla.security.sasl.mechanism import Done, Refused
from ottla.security.sasl.plain import PlainMechanism
from ottla.security.secret import Secret

PLAIN = PlainMechanism(PASSWORDS | {"jörg €": Secret("pass wörd"), "nobody": Secret("")})
INVALID = "Authentication failed: Invalid username or password"


def refusal(token: bytes) -> str:
    with pytest.raises(Refused) as raised:
        PLAIN.begin().respond(token, NOW_MS)
    return str(raised.value)


@pytest.mark.parametrize(
    ("name", "password", "authorization_id"),
    [
        ("alice", "alice-secret", ""),
        ("alice", "alice-secret", "alice"),
        ("ann, of=us", "pass,word=", ""),
        ("jörg €", "pass wörd", ""),
    ],
)
def test_who_knows_the_password_is_that_user(name: str, password: str, authorization_id: str) -> None:
    token = plain(name, password, authorization_id)
    assert PLAIN.begin().respond(token, NOW_MS) == Done(b"", user(name), None)


@pytest.mark.parametrize(
    ("token", "message"),
    [
        (b"", "Invalid SASL/PLAIN response: expected 3 tokens, got 1"),
        (b"alice", "Invalid SASL/PLAIN response: expected 3 tokens, got 1"),
        (b"alice\0alice-secret", "Invalid SASL/PLAIN response: expected 3 tokens, got 2"),
        (b"\0alice\0alice-secret\0", "Invalid SASL/PLAIN response: expected 3 tokens, got 4"),
        (b"\0" * 1_000, "Invalid SASL/PLAIN response: expected 3 tokens, got 4"),
        (b"\0\0", "Authentication failed: username not specified"),
        (b"alice\0\0alice-secret", "Authentication failed: username not specified"),
        (b"\0alice\0", "Authentication failed: password not specified"),
        (plain("alice", "bob-secret"), INVALID),
        (plain("alice", "alice-secre"), INVALID),
        (plain("alice", "alice-secret "), INVALID),
        (plain("Alice", "alice-secret"), INVALID),
        (plain("mallory", "alice-secret"), INVALID),
        (plain("mallory", "x", "alice"), INVALID),
        (plain("nobody", "x"), INVALID),
        (b"\0alice\0\xff\xfe", INVALID),
        (b"\0\xff\0alice-secret", INVALID),
        (b"\xff\0alice\0alice-secret", INVALID),
        (
            plain("alice", "alice-secret", "bob"),
            "Authentication failed: Client requested an authorization id that is different from username",
        ),
    ],
)
def test_everybody_else_is_refused_in_kafkas_words(token: bytes, message: str) -> None:
    assert refusal(token) == message


def test_a_user_that_does_not_exist_costs_as_many_hashes_as_a_wrong_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hashed: list[int] = []
    real = secrets.sha256
    monkeypatch.setattr(secrets, "sha256", lambda data: (hashed.append(len(data)), real(data))[1])
    costs = []
    for name in ("alice", "mallory"):
        hashed.clear()
        refusal(plain(name, "a guess"))
        costs.append(len(hashed))
    assert costs == [2, 2]


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_are_a_user(token: bytes) -> None:
    try:
        done = PLAIN.begin().respond(token, NOW_MS)
    except Refused as refusal:
        assert "alice-secret" not in str(refusal)
    else:
        assert isinstance(done, Done)
        assert done.principal.name in PASSWORDS


def test_a_token_that_is_no_text_is_not_shown_by_the_error_either() -> None:
    with pytest.raises(Refused) as raised:
        PLAIN.begin().respond(b"\0alice\0my password\xff", NOW_MS)
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__


def test_a_broker_can_be_the_client() -> None:
    for version in (0, 1):
        assert isinstance(
            go_through(machine(), PlainClient("bob", PASSWORDS["bob"]), version=version), Authenticated
        )
        assert isinstance(
            go_through(machine(), PlainClient("bob", PASSWORDS["alice"]), version=version), Failed
        )
    with pytest.raises(ServerRefused):
        PlainClient("bob", PASSWORDS["bob"]).respond(b"what?")


def test_secrets_are_in_no_text() -> None:
    hidden = Secret("do not show")
    shown = f"{hidden} {hidden!r} {hidden!s} {[hidden]} { {'password': hidden} } {vars(PlainMechanism)}"
    assert "do not" not in shown
    assert "%s" % hidden == "[hidden]"  # noqa: UP031
    assert hidden.reveal() == "do not show"
    assert hidden == Secret("do not show")
    assert hidden != Secret("do not")
    assert hidden != "do not show"
    assert len({hidden, Secret("do not show")}) == 1
    assert not Secret("")
    with pytest.raises(TypeError):
        pickle.dumps(hidden)
