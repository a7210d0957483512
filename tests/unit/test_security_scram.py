"""SCRAM, message by message: the RFCs' examples, Kafka's edges, and clients of other hands."""

from __future__ import annotations

from base64 import b64decode, b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.net.sasl.scram import ScramClient as KafkaPythonClient
from security_support import NOW_MS, PASSWORDS, authenticate, go_through, handshake, machine, scram

from measuring import cpu_at_most
from ottla.security.principals import KafkaPrincipal, user
from ottla.security.sasl import scram as scram_module
from ottla.security.sasl.client import ScramClient, ServerRefused
from ottla.security.sasl.machine import Authenticated, Failed, Reply
from ottla.security.sasl.mechanism import Done, Exchange, Invalid, Refused
from ottla.security.sasl.scram import (
    ScramCredential,
    ScramHash,
    ScramMechanism,
    TokenCredential,
    credential_of,
    credential_of_salted,
    escape_name,
    nonce_of,
    salted_password,
    unescape_name,
)
from ottla.security.secret import Secret

HASHES = list(ScramHash)
SHA_256 = ScramHash.SHA_256
GENERIC = (
    "Authentication failed during authentication due to invalid credentials with SASL mechanism SCRAM-SHA-256"
)

# RFC 7677, section 3.
RFC_SALT = b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
RFC_CLIENT_NONCE = "rOprNGfwEbeRWgbNEkqO"
RFC_SERVER_NONCE = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
RFC_CLIENT_FIRST = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
RFC_SERVER_FIRST = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
RFC_CLIENT_FINAL = (
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
    b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
)
RFC_SERVER_FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def rfc_exchange() -> Exchange:
    users = {"user": credential_of(SHA_256, "pencil", RFC_SALT, 4_096)}
    mechanism = ScramMechanism(
        SHA_256, users=users.get, tokens={}.get, nonce=lambda: RFC_SERVER_NONCE, secret=b""
    )
    return mechanism.begin()


def first(mechanism: ScramMechanism, message: str) -> tuple[Exchange, dict[str, str]]:
    """The server's first message, by its letters."""
    exchange = mechanism.begin()
    answer = exchange.respond(message.encode(), NOW_MS)
    assert isinstance(answer, bytes)
    return exchange, dict(pair.split("=", 1) for pair in answer.decode().split(","))


def failure(exchange: Exchange, message: bytes) -> str:
    with pytest.raises(Invalid) as raised:
        exchange.respond(message, NOW_MS)
    return str(raised.value)


def test_the_rfcs_example_goes_as_it_is_written() -> None:
    exchange = rfc_exchange()
    assert exchange.respond(RFC_CLIENT_FIRST, NOW_MS) == RFC_SERVER_FIRST
    assert exchange.respond(RFC_CLIENT_FINAL, NOW_MS) == Done(RFC_SERVER_FINAL, user("user"), None)
    client = ScramClient(SHA_256, "user", Secret("pencil"), RFC_CLIENT_NONCE)
    assert client.start() == RFC_CLIENT_FIRST
    assert client.respond(RFC_SERVER_FIRST) == RFC_CLIENT_FINAL
    assert client.respond(RFC_SERVER_FINAL) == b""
    assert client.is_complete


@pytest.mark.parametrize("hash", HASHES)
@pytest.mark.parametrize("version", [0, 1])
def test_who_knows_the_password_is_that_user_and_the_broker_shows_itself(
    hash: ScramHash, version: int
) -> None:
    for name, password in PASSWORDS.items():
        client = ScramClient(hash, name, password, "client")
        done = go_through(machine(scram(hash)), client, version=version)
        assert done == Authenticated(user(name), 0, expires=False, again=False)


@pytest.mark.parametrize("hash", HASHES)
def test_kafka_pythons_client_gets_in_and_believes_the_broker(hash: ScramHash) -> None:
    client = KafkaPythonClient("alice", "alice-secret", hash.mechanism)
    exchange = scram(hash).begin()
    answer = exchange.respond(client.first_message(), NOW_MS)
    client.process_server_first_message(answer)
    done = exchange.respond(client.final_message(), NOW_MS)
    assert isinstance(done, Done)
    client.process_server_final_message(done.token)


def test_a_credential_is_what_kafkas_tools_make_of_the_password() -> None:
    for hash in HASHES:
        made = credential_of(hash, "pencil", RFC_SALT, 4_096)
        client = KafkaPythonClient("user", "pencil", hash.mechanism)
        client.create_salted_password(RFC_SALT, 4_096)
        assert made == credential_of_salted(hash, client.salted_password, RFC_SALT, 4_096)
        assert client.salted_password == salted_password(hash, b"pencil", RFC_SALT, 4_096)
    assert b64encode(credential_of(SHA_256, "pencil", RFC_SALT, 4_096).stored_key) == (
        b"WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY="
    )


def test_wrong_passwords_and_unknown_users_fail_at_the_same_step_in_the_same_words() -> None:
    for name in ("alice", "mallory"):
        failed = go_through(machine(scram()), ScramClient(SHA_256, name, Secret("a guess"), "client"))
        assert isinstance(failed, Failed)
        assert failed.reason == "Invalid client credentials"
        assert failed.answer is not None
        assert failed.answer["error_message"] == GENERIC


@pytest.mark.parametrize("by_token", [False, True])
def test_an_unknown_user_costs_as_many_hashes_as_a_wrong_password(
    monkeypatch: pytest.MonkeyPatch, by_token: bool
) -> None:
    counted: list[str] = []
    hmac, new_hash = scram_module.hmac, scram_module.new_hash
    alice = credential_of(SHA_256, "alice-secret", b"salt", 4_096)
    mechanism = scram(
        credentials={"alice": alice}, tokens={"alice": TokenCredential(alice, user("carol"), NOW_MS)}
    )
    monkeypatch.setattr(scram_module, "hmac", lambda *a: (counted.append("hmac"), hmac(*a))[1])
    monkeypatch.setattr(scram_module, "new_hash", lambda *a: (counted.append("hash"), new_hash(*a))[1])
    costs = []
    for name in ("alice", "mallory"):
        counted.clear()
        exchange, told = first(mechanism, f"n,,n={name},r=x{',tokenauth=true' if by_token else ''}")
        at_first = tuple(counted)
        proof = b64encode(bytes(32)).decode()
        assert failure(exchange, f"c=biws,r={told['r']},p={proof}".encode()) == "Invalid client credentials"
        costs.append((at_first, tuple(counted)))
    assert costs[0] == costs[1]
    assert costs[0][1]


def test_a_made_up_salt_stays_the_same_and_looks_like_others() -> None:
    def salt(mechanism: ScramMechanism, name: str) -> bytes:
        _, told = first(mechanism, f"n,,n={name},r=x")
        assert told["i"] == "4096"
        return b64decode(told["s"])

    salts = {salt(scram(), "mallory"), salt(scram(), "mallory")}
    assert len(salts) == 1
    made_up = salts.pop().decode()
    assert made_up.isalnum()
    assert 20 <= len(made_up) <= 26
    others = {
        salt(scram(), "trudy"),
        salt(scram(secret=b"another"), "mallory"),
        salt(scram(ScramHash.SHA_512), "mallory"),
        made_up.encode(),
    }
    assert len(others) == 4


def test_what_is_made_up_cannot_be_proved() -> None:
    """Also by whoever knows all of it: there is nobody to be."""
    mechanism = scram(credentials={})
    made_up = mechanism.look_up("mallory", False, NOW_MS)
    assert made_up.principal is None
    exchange, told = first(mechanism, "n,,n=mallory,r=x")
    # The stored key is the hash of a client key that is not known, so take one of both our own.
    client_key = b"k" * 32
    exchange._first = exchange._first._replace(  # type: ignore[attr-defined]
        known=made_up._replace(
            credential=ScramCredential(b"", scram_module.new_hash("sha256", client_key).digest(), b"", 4_096)
        )
    )
    signed = exchange._first.messages + f",c=biws,r={told['r']}".encode()  # type: ignore[attr-defined]
    signature = scram_module.hmac(scram_module.new_hash("sha256", client_key).digest(), signed, "sha256")
    proof = b64encode(bytes(a ^ b for a, b in zip(client_key, signature, strict=True))).decode()
    assert failure(exchange, f"c=biws,r={told['r']},p={proof}".encode()) == "Invalid client credentials"


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"n,,",
        b"n,,n=,r=x",
        b"n,,n=alice,r=",
        b"n,,r=x,n=alice",
        b"y,,n=alice,r=x",
        b"p=tls-unique,,n=alice,r=x",
        b"n,,m=ext,n=alice,r=x",
        b"n,,n=al=ice,r=x",
        b"n,,n=alice=2c,r=x",
        b"n,,n=alice,r=x,",
        b"n,,n=alice,r=x,ext",
        b"n,,n=alice,r=x,ext=",
        b"n,,n=alice,r=x y",
        b"n,,n=j\xc3\xb6rg,r=x",
        b"n,,n=al\0ice,r=x",
        b"n,a=,n=alice,r=x",
        b"\xff\xfe",
        b"n,,n=alice,r=" + b"x" * 100_000,
        b"n,,n=alice,r=x" + b",a=b" * 101,
    ],
)
def test_what_is_no_first_message_is_refused_without_words(message: bytes) -> None:
    sasl = machine(scram())
    handshake(sasl, "SCRAM-SHA-256")
    (failed,) = authenticate(sasl, message)
    assert isinstance(failed, Failed)
    assert failed.answer is not None
    assert failed.answer["error_message"] == GENERIC
    assert "alice" not in failed.reason


def test_a_message_may_be_large_but_not_huge() -> None:
    start = "n,,n=alice,r="
    _, told = first(scram(), start + "x" * (16_384 - len(start)))
    assert len(told["r"]) > 16_000
    assert "16385 bytes" in failure(scram().begin(), (start + "x" * (16_385 - len(start))).encode())


def test_hashes_have_kafkas_numbers() -> None:
    assert [(hash.number, hash.mechanism) for hash in ScramHash] == [
        (1, "SCRAM-SHA-256"),
        (2, "SCRAM-SHA-512"),
    ]


def test_an_authorization_id_has_to_be_the_name() -> None:
    first(scram(), "n,a=alice,n=alice,r=x")
    for name in ("alice", "mallory"):
        with pytest.raises(Refused) as raised:
            scram().begin().respond(f"n,a=bob,n={name},r=x".encode(), NOW_MS)
        assert "different from username" in str(raised.value)


def test_extensions_are_signed_and_otherwise_passed_over() -> None:
    exchange, told = first(scram(), "n,a=alice,n=alice,r=x,some=thing,other=too")
    client = ScramClient(SHA_256, "alice", PASSWORDS["alice"], "x")
    client._bare += ",some=thing,other=too"
    server_first = f"r={told['r']},s={told['s']},i={told['i']}".encode()
    done = exchange.respond(client.respond(server_first), NOW_MS)
    assert isinstance(done, Done)
    assert client.respond(done.token) == b""


@pytest.mark.parametrize(
    "message",
    [
        b"n,,n=" + b"a" * 20_000,
        b"n,a=" + b"=2C" * 10_000,
        b"n,,n=a,r=x" + b",a=b" * 5_000,
        b"n,,n=a,r=x" + b",a=" + b"=" * 16_000 + b",",
        b"c=" + b"A" * 20_000,
        b"c=biws,r=x" + b",a=b" * 4_000 + b",p=?",
        b"c=biws,r=x,p=" + b"A" * 16_000 + b"?",
    ],
)
def test_messages_take_no_longer_than_they_are_long(message: bytes) -> None:
    """Of the sizes that are taken. What does not match used to be tried again from each of its signs."""
    mechanism = scram()
    for attempt in cpu_at_most(0.005):
        exchange = mechanism.begin()
        if message.startswith(b"c="):
            exchange.respond(b"n,,n=alice,r=x", NOW_MS)
        with attempt.cpu():
            failure(exchange, message[:16_384])


@pytest.mark.parametrize("binding", ["y,,", "p=tls-unique,,", "n,a=bob,", "", "n"])
def test_a_channel_binding_has_to_be_that_of_the_first_message(binding: str) -> None:
    """Else somebody between the two could have taken it out of the first one."""
    exchange, told = first(scram(), "n,a=alice,n=alice,r=x")
    encoded = b64encode(binding.encode()).decode()
    message = f"c={encoded},r={told['r']},p={b64encode(bytes(32)).decode()}".encode()
    assert failure(exchange, message) == "the channel binding is not that of the first message"


def test_the_binding_may_name_the_authorization_id() -> None:
    exchange, told = first(scram(), "n,a=alice,n=alice,r=x")
    encoded = b64encode(b"n,a=alice,").decode()
    message = f"c={encoded},r={told['r']},p={b64encode(bytes(32)).decode()}".encode()
    assert failure(exchange, message) == "Invalid client credentials"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("", "Invalid SCRAM client final message format"),
        ("c=biws,r={nonce}", "Invalid SCRAM client final message format"),
        ("c=biws,r={nonce},p=not base 64", "Invalid SCRAM client final message format"),
        ("c=biws,r={nonce},p=" + "A" * 44 + ",x=y", "Invalid SCRAM client final message format"),
        ("c=biws,r={nonce}x,p=" + "A" * 44, "Invalid client nonce in the final client message."),
        ("c=biws,r=x,p=" + "A" * 44, "Invalid client nonce in the final client message."),
        ("c=biws,r={nonce},p=", "a proof of another length than the hash's"),
        ("c=biws,r={nonce},p=" + "A" * 40, "a proof of another length than the hash's"),
        ("c=biws,r={nonce},p=" + "A" * 88, "a proof of another length than the hash's"),
        ("c=biws,r={nonce},x=y,p=" + "A" * 43 + "=", "Invalid client credentials"),
    ],
)
def test_what_is_no_proof_is_refused(message: str, reason: str) -> None:
    exchange, told = first(scram(), "n,,n=alice,r=x")
    assert failure(exchange, message.format(nonce=told["r"]).encode()) == reason


def test_a_proof_is_good_for_the_nonce_that_it_was_made_for_and_no_other() -> None:
    mechanism = scram()
    first_exchange, second_exchange = mechanism.begin(), mechanism.begin()
    client = ScramClient(SHA_256, "alice", PASSWORDS["alice"], "x")
    answer = first_exchange.respond(client.start(), NOW_MS)
    assert isinstance(answer, bytes)
    second_exchange.respond(client.start(), NOW_MS)
    proof = client.respond(answer)
    assert isinstance(first_exchange.respond(proof, NOW_MS), Done)
    assert failure(second_exchange, proof) == "Invalid client nonce in the final client message."
    _, _, proof_alone = proof.rpartition(b"p=")
    third, told = first(mechanism, client.start().decode())
    assert failure(third, f"c=biws,r={told['r']},p=".encode() + proof_alone) == "Invalid client credentials"


@pytest.mark.parametrize("iterations", [1, 4_095])
def test_a_credential_of_too_few_iterations_is_of_no_use(iterations: int) -> None:
    weak = ScramCredential(b"salt", bytes(32), bytes(32), iterations)
    assert "fewer than 4096" in failure(scram(credentials={"alice": weak}).begin(), b"n,,n=alice,r=x")


def test_a_delegation_token_is_taken_where_the_client_says_that_it_is_one() -> None:
    hmac = "aGVsbG8="
    token = TokenCredential(
        credential_of(SHA_256, hmac, b"salt", 4_096), KafkaPrincipal("User", "carol"), NOW_MS + 60_000
    )
    mechanism = scram(tokens={"token-1": token})
    done = go_through(
        machine(mechanism), ScramClient(SHA_256, "token-1", Secret(hmac), "client", by_token=True)
    )
    assert isinstance(done, Authenticated)
    assert (str(done.principal), done.principal.token_authenticated) == ("User:carol", True)
    assert (done.session_lifetime_ms, done.expires) == (60_000, True)
    for name, by_token in (("token-1", False), ("alice", True), ("token-2", True)):
        client = ScramClient(SHA_256, name, Secret(hmac), "client", by_token=by_token)
        assert isinstance(go_through(machine(mechanism), client), Failed)


def test_a_delegation_token_that_has_expired_is_nobodys() -> None:
    token = TokenCredential(credential_of(SHA_256, "hmac", b"salt", 4_096), user("carol"), NOW_MS)
    client = ScramClient(SHA_256, "t", Secret("hmac"), "client", by_token=True)
    assert isinstance(go_through(machine(scram(tokens={"t": token})), client, 0), Authenticated)
    client = ScramClient(SHA_256, "t", Secret("hmac"), "client", by_token=True)
    assert isinstance(go_through(machine(scram(tokens={"t": token})), client, 1), Failed)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"r=clientserver,s=c2FsdA==,i=4095", "not between"),
        (b"r=clientserver,s=c2FsdA==,i=16385", "not between"),
        (b"r=clientserver,s=c2FsdA==,i=999999999", "not between"),
        (b"r=clientserver,s=c2FsdA==,i=9999999999", "format"),
        (b"r=clientserver,s=c2FsdA==,i=-1", "format"),
        (b"r=other,s=c2FsdA==,i=4096", "does not go on"),
        (b"r=client,s=c2FsdA==,i=4096", "does not go on"),
        (b"m=x,r=clientserver,s=c2FsdA==,i=4096", "format"),
        (b"", "format"),
    ],
)
def test_a_broker_as_a_client_does_not_do_what_a_server_must_not_ask(message: bytes, reason: str) -> None:
    client = ScramClient(SHA_256, "alice", PASSWORDS["alice"], "client")
    with pytest.raises(ServerRefused, match=reason):
        client.respond(message)
    with pytest.raises(ServerRefused):
        client.respond(b"r=clientserver,s=c2FsdA==,i=4096")
    assert not client.is_complete


@pytest.mark.parametrize("answer", [b"v=" + b64encode(bytes(32)), b"v=", b"e=invalid-proof", b"", b"v=?"])
def test_a_server_that_does_not_know_the_password_is_not_believed(answer: bytes) -> None:
    client = ScramClient(SHA_256, "alice", PASSWORDS["alice"], "client")
    client.respond(b"r=clientserver,s=c2FsdA==,i=4096")
    with pytest.raises(ServerRefused):
        client.respond(answer)
    assert not client.is_complete


NAMES = st.text(st.characters(min_codepoint=1, max_codepoint=127), min_size=1, max_size=30)


@given(NAMES)
def test_any_ascii_name_goes_there_and_back(name: str) -> None:
    assert unescape_name(escape_name(name)) == name
    mechanism = scram(credentials={name: ScramCredential(b"its salt", bytes(32), bytes(32), 8_192)})
    _, told = first(mechanism, f"n,,n={escape_name(name)},r=x")
    assert told["i"] == "8192"


@given(st.binary(max_size=120), st.binary(max_size=120))
def test_any_bytes_are_refused_or_answered(one: bytes, two: bytes) -> None:
    mechanism = scram(credentials={})
    for start in (b"", b"n,,n=alice,r="):
        exchange = mechanism.begin()
        try:
            answer = exchange.respond(start + one, NOW_MS)
        except (Invalid, Refused):
            continue
        assert isinstance(answer, bytes)
        with pytest.raises(Invalid):
            exchange.respond(two, NOW_MS)


@given(st.binary(max_size=100))
def test_a_client_takes_any_bytes_for_no_server(token: bytes) -> None:
    client = ScramClient(SHA_256, "alice", PASSWORDS["alice"], "client")
    with pytest.raises(ServerRefused):
        client.respond(token)


def test_nonces_have_130_bits_and_no_comma() -> None:
    assert nonce_of(b"") == "0"
    assert nonce_of(b"\xff" * 17).isalnum()
    assert int(nonce_of(b"\xff" * 30), 36) == 2**130 - 1


def test_a_credential_shows_nothing() -> None:
    credential = credential_of(SHA_256, "pencil", b"the salt", 4_096)
    text = f"{credential!r}{credential}{TokenCredential(credential, user('x'), 0)!r}"
    for hidden in ("the salt", "salt=", "key"):
        assert hidden not in text


def test_a_handshake_says_which_are_there() -> None:
    (reply,) = handshake(machine(scram(), scram(ScramHash.SHA_512)), "SCRAM-SHA-512")
    assert isinstance(reply, Reply)
    assert reply.fields["mechanisms"] == ["SCRAM-SHA-256", "SCRAM-SHA-512"]
