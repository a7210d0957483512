"""SCRAM-SHA-256 and -512 (RFC 5802, RFC 7677), the broker's side, as Kafka's ScramSaslServer.

What differs: a user that does not exist is asked for a proof as any other, with a salt that is made up and
stays the same, and fails where a wrong password does, so that nobody finds out who exists. What the client
proves is what it sent, byte by byte; Kafka's puts the message together anew. A mandatory extension (``m=``)
is refused, and so is a channel binding that is not that of the first message, as the RFC has it.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from hashlib import new as new_hash
from hashlib import pbkdf2_hmac
from hmac import compare_digest
from hmac import digest as hmac
from typing import Final, NamedTuple, final

from ottla.security.principals import USER, KafkaPrincipal, user
from ottla.security.sasl.mechanism import Done, Exchange, Invalid, Refused


class ScramHash(Enum):
    """By the names of their mechanisms; the hash's name in hashlib is the second."""

    SHA_256 = ("SCRAM-SHA-256", "sha256", 1)
    SHA_512 = ("SCRAM-SHA-512", "sha512", 2)

    @property
    def mechanism(self) -> str:
        return self.value[0]

    @property
    def algorithm(self) -> str:
        return self.value[1]

    @property
    def number(self) -> int:
        """As DescribeUserScramCredentials and AlterUserScramCredentials have it."""
        return self.value[2]


ITERATIONS_MIN: Final = 4_096
ITERATIONS_MAX: Final = 16_384
# Bits of a nonce, and of a salt that is made here, as Kafka's tools have them.
NONCE_BITS: Final = 130
# As many bytes as have them.
NONCE_BYTES: Final = 20
# By the names of their mechanisms.
HASHES: Final = {hash.mechanism: hash for hash in ScramHash}
# What asks for a delegation token to be looked up in place of a user.
TOKEN_AUTH: Final = "tokenauth"
# A name, a nonce and extensions, 100 of them at most; Kafka's own take some hundred bytes.
MESSAGE_BYTES_MAX: Final = 16 * 1024
# What a client may give as channel binding without its GS2 header being just that.
NO_BINDING: Final = b"n,,"

# Nothing that was matched is given back (++, *+), so that no message takes longer than it is long.
_VALUE = r"[\x01-\x2b\x2d-\x7f]++"
_SASLNAME = r"(?:[\x01-\x2b\x2d-\x3c\x3e-\x7f]++|=2C|=3D)++"
_NONCE = r"[\x21-\x2b\x2d-\x7e]++"
_BASE64 = r"(?:[a-zA-Z0-9/+]{4})*+(?:[a-zA-Z0-9/+]{3}=|[a-zA-Z0-9/+]{2}==)?"
_EXTENSIONS = rf"(?:,(?!p=)[A-Za-z]++={_VALUE}){{0,100}}+"
_CLIENT_FIRST: Final = re.compile(
    rf"(?P<gs2>n,(?:a=(?P<authzid>{_SASLNAME}))?,)"
    rf"(?P<bare>n=(?P<name>{_SASLNAME}),r=(?P<nonce>{_NONCE})(?P<extensions>{_EXTENSIONS}))"
)
_CLIENT_FINAL: Final = re.compile(
    rf"(?P<without_proof>c=(?P<binding>{_BASE64}),r=(?P<nonce>{_NONCE}){_EXTENSIONS}),p=(?P<proof>{_BASE64})"
)


@dataclass(frozen=True, slots=True)
class ScramCredential:
    """What is kept of a password. It shows itself in no text, since passwords can be tried against it."""

    salt: bytes = field(repr=False)
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)
    iterations: int


class TokenCredential(NamedTuple):
    """A delegation token, as one authenticates by it: its id is the name, its HMAC in base 64 the password.
    The credential is made of that."""

    credential: ScramCredential
    owner: KafkaPrincipal
    expires_ms: int


def credential_of(hash: ScramHash, password: str, salt: bytes, iterations: int) -> ScramCredential:
    """Costs a hash per iteration, some milliseconds in all."""
    return credential_of_salted(
        hash, salted_password(hash, password.encode(), salt, iterations), salt, iterations
    )


def salted_password(hash: ScramHash, password: bytes, salt: bytes, iterations: int) -> bytes:
    return pbkdf2_hmac(hash.algorithm, password, salt, iterations)


def credential_of_salted(hash: ScramHash, salted: bytes, salt: bytes, iterations: int) -> ScramCredential:
    """What AlterUserScramCredentials brings: the client has salted the password."""
    algorithm = hash.algorithm
    stored_key = new_hash(algorithm, hmac(salted, b"Client Key", algorithm)).digest()
    return ScramCredential(salt, stored_key, hmac(salted, b"Server Key", algorithm), iterations)


def escape_name(name: str) -> str:
    return name.replace("=", "=3D").replace(",", "=2C")


def unescape_name(name: str) -> str:
    """Of a saslname, in which each ``=`` begins an escape."""
    return name.replace("=2C", ",").replace("=3D", "=")


def new_nonce(random: Callable[[int], bytes]) -> str:
    """A nonce. ``random``: as many bytes as it is asked for."""
    return nonce_of(random(NONCE_BYTES))


def nonce_of(random: bytes) -> str:
    """A nonce of some random bytes, in the letters and digits that Kafka's are of."""
    return _base36(int.from_bytes(random) & ((1 << NONCE_BITS) - 1))


def salt_of(random: bytes) -> bytes:
    """A salt of some random bytes. All that are made here are of this form, as Kafka's tools make them: one
    of another form would tell a user that exists from one who does not (see ``_made_up``)."""
    return nonce_of(random).encode()


def _base36(number: int) -> str:
    digits = []
    while number:
        number, digit = divmod(number, 36)
        digits.append("0123456789abcdefghijklmnopqrstuvwxyz"[digit])
    return "".join(reversed(digits)) or "0"


class _Known(NamedTuple):
    """Who wants to authenticate, as far as it is known."""

    credential: ScramCredential
    # None: nobody.
    principal: KafkaPrincipal | None
    expires_ms: int | None


class _First(NamedTuple):
    """What was said before the proof, by both sides."""

    gs2: bytes
    # client-first-message-bare and server-first-message, as they went over the wire.
    messages: bytes
    nonce: str
    known: _Known


@final
class ScramMechanism:
    """One of the two mechanisms, on the listeners that share its users."""

    __slots__ = ("_hash", "_nonce", "_secret", "_tokens", "_users")

    def __init__(
        self,
        hash: ScramHash,
        *,
        users: Callable[[str], ScramCredential | None],
        tokens: Callable[[str], TokenCredential | None],
        nonce: Callable[[], str],
        secret: bytes,
    ) -> None:
        """``users`` and ``tokens``: credentials by name and by token id. ``nonce``: a new one each time, see
        `nonce_of`. ``secret``: what salts are made up with; the same on all nodes of a cluster and over
        their restarts, and known to nobody."""
        self._hash = hash
        self._users = users
        self._tokens = tokens
        self._nonce = nonce
        self._secret = secret

    @property
    def name(self) -> str:
        return self._hash.mechanism

    def begin(self) -> Exchange:
        return _ScramExchange(self)

    def look_up(self, name: str, by_token: bool, now_ms: int) -> _Known:
        """Who that is; also of nobody there is a credential, whose proof cannot be given. Takes as long
        either way."""
        made_up = self._made_up(name)
        if by_token:
            token = self._tokens(name)
            if token is None or token.expires_ms < now_ms:
                return _Known(made_up, None, None)
            owner = KafkaPrincipal(USER, token.owner.name, token_authenticated=True)
            return _Known(token.credential, owner, token.expires_ms)
        credential = self._users(name)
        if credential is None:
            return _Known(made_up, None, None)
        return _Known(credential, user(name), None)

    def _made_up(self, name: str) -> ScramCredential:
        """Looks as a real one does: its salt is of the form that our tools and Kafka's give one."""
        seed = hmac(self._secret, self.name.encode() + b"\0" + name.encode(), "sha512")
        size = new_hash(self._hash.algorithm).digest_size
        return ScramCredential(salt_of(seed[:NONCE_BYTES]), seed[-size:], bytes(size), ITERATIONS_MIN)

    def new_nonce(self) -> str:
        return self._nonce()

    @property
    def hash(self) -> ScramHash:
        return self._hash


@final
class _ScramExchange:
    __slots__ = ("_first", "_mechanism")

    def __init__(self, mechanism: ScramMechanism) -> None:
        self._mechanism = mechanism
        self._first: _First | None = None

    def respond(self, token: bytes, now_ms: int) -> bytes | Done:
        if len(token) > MESSAGE_BYTES_MAX:
            raise Invalid(f"a SCRAM message of {len(token)} bytes")
        # Whatever is not ASCII does not match.
        text = token.decode("latin-1")
        first = self._first
        return self._begin(text, now_ms) if first is None else self._finish(text, first)

    def _begin(self, text: str, now_ms: int) -> bytes:
        match = _CLIENT_FIRST.fullmatch(text)
        if match is None:
            raise Invalid("Invalid SCRAM client first message format")
        name = unescape_name(match["name"])
        authorization_id = match["authzid"]
        if authorization_id is not None and authorization_id != name:
            raise Refused(
                "Authentication failed: Client requested an authorization id that is different from username"
            )
        extensions = dict(pair.split("=", 1) for pair in match["extensions"].split(",") if pair)
        by_token = extensions.get(TOKEN_AUTH, "").lower() == "true"
        known = self._mechanism.look_up(name, by_token, now_ms)
        credential = known.credential
        if credential.iterations < ITERATIONS_MIN:
            raise Invalid(f"{credential.iterations} iterations are fewer than {ITERATIONS_MIN}")
        nonce = match["nonce"] + self._mechanism.new_nonce()
        answer = f"r={nonce},s={b64encode(credential.salt).decode()},i={credential.iterations}".encode()
        self._first = _First(match["gs2"].encode(), match["bare"].encode() + b"," + answer, nonce, known)
        return answer

    def _finish(self, text: str, first: _First) -> Done:
        match = _CLIENT_FINAL.fullmatch(text)
        if match is None:
            raise Invalid("Invalid SCRAM client final message format")
        if match["nonce"] != first.nonce:
            raise Invalid("Invalid client nonce in the final client message.")
        if _decode(match["binding"]) not in (first.gs2, NO_BINDING):
            raise Invalid("the channel binding is not that of the first message")
        algorithm = self._mechanism.hash.algorithm
        credential, principal, expires_ms = first.known
        signed = first.messages + b"," + match["without_proof"].encode()
        signature = hmac(credential.stored_key, signed, algorithm)
        proof = _decode(match["proof"])
        if len(proof) != len(signature):
            raise Invalid("a proof of another length than the hash's")
        client_key = bytes(a ^ b for a, b in zip(signature, proof, strict=True))
        stored_key = new_hash(algorithm, client_key).digest()
        if not compare_digest(stored_key, credential.stored_key) or principal is None:
            raise Invalid("Invalid client credentials")
        verifier = b64encode(hmac(credential.server_key, signed, algorithm))
        return Done(b"v=" + verifier, principal, expires_ms)


def _decode(base64: str) -> bytes:
    """Of what matches ``_BASE64``."""
    return b64decode(base64, validate=True)
