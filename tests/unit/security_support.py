"""A listener's users, and a client that goes through an authentication with a machine."""

from __future__ import annotations

from collections.abc import Mapping

from ottla.security.sasl.client import ClientExchange
from ottla.security.sasl.machine import (
    Authenticated,
    Events,
    Failed,
    Moment,
    RawReply,
    Reply,
    SaslMachine,
    Settings,
)
from ottla.security.sasl.mechanism import Mechanism
from ottla.security.sasl.plain import PlainMechanism
from ottla.security.sasl.scram import (
    ScramCredential,
    ScramHash,
    ScramMechanism,
    TokenCredential,
    credential_of,
)
from ottla.security.secret import Secret

NOW_MS = 1_790_000_000_000
PASSWORDS = {"alice": Secret("alice-secret"), "bob": Secret("bob-secret"), "ann, of=us": Secret("pass,word=")}
NONCES = [f"server{n}" for n in range(1_000)]


def at(ms: int = 0) -> Moment:
    """``ms`` after all began, on a machine that had run for a while."""
    return Moment(NOW_MS + ms, 50_000 + ms)


def scram(
    hash: ScramHash = ScramHash.SHA_256,
    *,
    credentials: Mapping[str, ScramCredential] | None = None,
    tokens: Mapping[str, TokenCredential] | None = None,
    secret: bytes = b"what salts are made up with",
) -> ScramMechanism:
    if credentials is None:
        credentials = {
            name: credential_of(hash, password.reveal(), b"salt of " + name.encode(), 4_096)
            for name, password in PASSWORDS.items()
        }
    nonces = iter(NONCES)
    return ScramMechanism(
        hash,
        users=credentials.get,
        tokens=(tokens or {}).get,
        nonce=lambda: next(nonces),
        secret=secret,
    )


def machine(*mechanisms: Mechanism, max_reauth_ms: int = 0) -> SaslMachine:
    all_of_them = mechanisms or (PlainMechanism(PASSWORDS), scram())
    return SaslMachine(
        Settings({m.name: m for m in all_of_them}, {m.name: max_reauth_ms for m in all_of_them})
    )


def plain(name: str, password: str, authorization_id: str = "") -> bytes:
    return f"{authorization_id}\0{name}\0{password}".encode()


def handshake(sasl: SaslMachine, mechanism: str, ms: int = 0, version: int = 1) -> Events:
    assert sasl.admit(17, at(ms).monotonic_ms) is None
    return sasl.handshake(version, mechanism, at(ms))


def authenticate(sasl: SaslMachine, token: bytes, ms: int = 0, version: int = 2) -> Events:
    assert sasl.admit(36, at(ms).monotonic_ms) is None
    return sasl.authenticate(version, token, at(ms))


def go_through(
    sasl: SaslMachine, client: ClientExchange, ms: int = 0, version: int = 1
) -> Authenticated | Failed:
    """From the handshake to the end; ``version`` is the handshake's, 0: tokens have no headers."""
    (answer,) = handshake(sasl, client.mechanism, ms, version)
    assert isinstance(answer, Reply)
    token = client.start()
    for _ in range(5):
        events = authenticate(sasl, token, ms) if version else sasl.raw_token(token, at(ms))
        if isinstance(failed := events[-1], Failed):
            return failed
        first = events[0]
        if isinstance(first, Reply):
            answered = first.fields["auth_bytes"]
        else:
            assert isinstance(first, RawReply)
            answered = first.token
        token = client.respond(answered)
        if isinstance(done := events[-1], Authenticated):
            assert client.is_complete
            return done
    raise AssertionError("it does not end")
