"""GSSAPI, as RFC 4752 has it after the context is established; the contexts are made up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from security_support import NOW_MS, at, authenticate, handshake, machine

from ottla.security.principal_rules import KerberosShortNamer
from ottla.security.principals import user
from ottla.security.sasl.gssapi import TOKENS_MAX, GssapiMechanism, GssError
from ottla.security.sasl.machine import Authenticated, Failed, RawReply, Reply
from ottla.security.sasl.mechanism import Done, Exchange, Invalid, Unavailable

OFFER = b"wrapped:\x01\0\0\0"
CHOICE = b"wrapped:\x01\0\0\0"


class Context:
    """Established by the token ``ticket NAME``, after as many others as it takes."""

    def __init__(self, answer: bytes = b"proof", others: int = 0) -> None:
        self.answer = answer
        self.others = others
        self.initiator = ""
        self.is_established = False

    def step(self, token: bytes) -> bytes:
        if token == b"too early":
            raise GssError("Ticket not yet valid", is_transient=True)
        if self.others:
            self.others -= 1
            return b"more"
        if not token.startswith(b"ticket "):
            raise GssError("no ticket")
        self.is_established = True
        self.initiator = token.removeprefix(b"ticket ").decode()
        return self.answer

    def wrap(self, message: bytes) -> bytes:
        return b"wrapped:" + message

    def unwrap(self, message: bytes) -> bytes:
        if not message.startswith(b"wrapped:"):
            raise GssError("not wrapped")
        return message.removeprefix(b"wrapped:")


def mechanism(answer: bytes = b"proof", others: int = 0, *rules: str) -> GssapiMechanism:
    namer = KerberosShortNamer("REALM", rules or ("DEFAULT",))
    return GssapiMechanism(lambda: Context(answer, others), namer)


def exchange(answer: bytes = b"proof", others: int = 0) -> Exchange:
    return mechanism(answer, others).begin()


def test_a_client_with_a_ticket_is_whom_the_ticket_names() -> None:
    one = exchange()
    assert one.respond(b"ticket alice@REALM", NOW_MS) == b"proof"
    assert one.respond(b"", NOW_MS) == OFFER
    assert one.respond(CHOICE + b"somebody else", NOW_MS) == Done(None, user("alice"))


def test_without_a_last_token_the_layer_is_offered_at_once_and_there_may_be_more_tokens() -> None:
    one = exchange(answer=b"", others=2)
    assert one.respond(b"x", NOW_MS) == b"more"
    assert one.respond(b"", NOW_MS) == b"more"
    assert one.respond(b"ticket kafka/host.x@REALM", NOW_MS) == OFFER
    assert one.respond(CHOICE, NOW_MS) == Done(None, user("kafka"))


def failure(one: Exchange, token: bytes) -> str:
    with pytest.raises(Invalid) as raised:
        one.respond(token, NOW_MS)
    with pytest.raises(Invalid, match=r"after the last|th$"):
        one.respond(CHOICE, NOW_MS)
    return str(raised.value)


def test_what_does_not_go_as_it_should_ends_it() -> None:
    assert failure(exchange(), b"") == "no ticket"
    one = exchange()
    one.respond(b"ticket alice@REALM", NOW_MS)
    assert failure(one, b"x") == "a token where nothing is due"
    for choice, reason in (
        (b"x", "not wrapped"),
        (b"wrapped:", "unsupported protection"),
        (b"wrapped:\x01\0\0", "unsupported protection"),
        (b"wrapped:\x04\0\0\0", "unsupported protection"),
        (b"wrapped:\x03\0\0\0", "unsupported protection"),
    ):
        one = exchange(answer=b"")
        one.respond(b"ticket alice@REALM", NOW_MS)
        assert reason in failure(one, choice)


def test_a_principal_without_a_short_name_is_nobody() -> None:
    for principal in (b"alice@OTHER", b"a@b@c", b""):
        one = exchange(answer=b"")
        one.respond(b"ticket " + principal, NOW_MS)
        if principal:
            failure(one, CHOICE)
    one = mechanism(b"", 0, "RULE:[1:$1.$0]/L").begin()
    one.respond(b"ticket Alice@OTHER", NOW_MS)
    assert one.respond(CHOICE, NOW_MS) == Done(None, user("alice.other"))


def test_a_ticket_of_tomorrow_may_be_tried_again() -> None:
    with pytest.raises(Unavailable, match="not yet valid"):
        exchange().respond(b"too early", NOW_MS)
    sasl = machine(mechanism())
    handshake(sasl, "GSSAPI")
    assert authenticate(sasl, b"too early") == (Failed("Ticket not yet valid", delayed=False),)


def test_tokens_are_bounded_in_number_and_size() -> None:
    one = exchange(others=100)
    for _ in range(TOKENS_MAX):
        assert one.respond(b"", NOW_MS) == b"more"
    assert "11th" in failure(one, b"")
    assert "200000 bytes" in failure(exchange(), bytes(200_000))


def test_an_old_client_sends_tokens_alone_and_gets_none_for_its_last() -> None:
    sasl = machine(mechanism())
    handshake(sasl, "GSSAPI", version=0)
    assert sasl.raw_token(b"ticket alice@REALM", at()) == (RawReply(b"proof"),)
    assert sasl.raw_token(b"", at()) == (RawReply(OFFER),)
    assert sasl.raw_token(CHOICE, at()) == (Authenticated(user("alice"), 0, expires=False, again=False),)
    sasl = machine(mechanism(answer=b""))
    handshake(sasl, "GSSAPI")
    authenticate(sasl, b"ticket alice@REALM")
    reply, _ = authenticate(sasl, CHOICE)
    assert isinstance(reply, Reply)
    assert reply.fields["auth_bytes"] == b""


@given(st.lists(st.binary(max_size=20), max_size=4))
def test_any_tokens_are_refused(tokens: list[bytes]) -> None:
    one = exchange(others=1)
    try:
        for token in tokens:
            assert isinstance(one.respond(token, NOW_MS), bytes)
    except (Invalid, Unavailable) as error:
        assert str(error)
