"""The client's side of each mechanism, for a broker that talks to another (Kafka's *SaslClient).

``start`` gives the first token, ``respond`` what answers the server's next; b"" where nothing is due.
Whatever a server sends, ServerRefused is all that is raised. Once ``is_complete``, the server has shown that
it knows the password, too, if the mechanism has it do so.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from enum import Enum
from hashlib import new as new_hash
from hmac import compare_digest
from hmac import digest as hmac
from typing import Final, Protocol, final

from ottla.security.sasl import scram
from ottla.security.sasl.plain import PLAIN
from ottla.security.sasl.scram import HASHES, ScramHash
from ottla.security.secret import Secret

_BASE64 = r"(?:[a-zA-Z0-9/+]{4})*+(?:[a-zA-Z0-9/+]{3}=|[a-zA-Z0-9/+]{2}==)?"
_SERVER_FIRST: Final = re.compile(
    rf"r=(?P<nonce>[\x21-\x2b\x2d-\x7e]++),s=(?P<salt>{_BASE64}),i=(?P<iterations>[0-9]{{1,9}})(?:,.*)?"
)
_SERVER_FINAL: Final = re.compile(rf"(?:e=(?P<error>[^,]+)|v=(?P<signature>{_BASE64}))(?:,.*)?")
_GS2: Final = "n,,"


class ServerRefused(Exception):
    """The server does not take the client, or is none that should be talked to."""


class ClientExchange(Protocol):
    @property
    def mechanism(self) -> str: ...

    @property
    def is_complete(self) -> bool: ...

    def start(self) -> bytes: ...

    def respond(self, token: bytes) -> bytes: ...


@final
class PlainClient:
    """RFC 4616. The server's answer is empty."""

    __slots__ = ("_name", "_password", "is_complete")

    mechanism = "PLAIN"

    def __init__(self, name: str, password: Secret) -> None:
        self._name = name
        self._password = password
        self.is_complete = False

    def start(self) -> bytes:
        return f"\0{self._name}\0{self._password.reveal()}".encode()

    def respond(self, token: bytes) -> bytes:
        if token or self.is_complete:
            raise ServerRefused("a PLAIN server has nothing to say")
        self.is_complete = True
        return b""


class _ScramState(Enum):
    SERVER_FIRST = 0
    SERVER_FINAL = 1
    COMPLETE = 2
    FAILED = 3


@final
class ScramClient:
    """RFC 5802. ``respond`` salts the password, which takes some milliseconds."""

    __slots__ = ("_bare", "_hash", "_nonce", "_password", "_signature", "_state")

    def __init__(
        self, hash: ScramHash, name: str, password: Secret, nonce: str, *, by_token: bool = False
    ) -> None:
        """``nonce``: a new one, see `scram.nonce_of`. ``by_token``: ``name`` is a delegation token's id."""
        self._hash = hash
        self._password = password
        self._nonce = nonce
        self._bare = f"n={scram.escape_name(name)},r={nonce}"
        if by_token:
            self._bare += f",{scram.TOKEN_AUTH}=true"
        self._signature = b""
        self._state = _ScramState.SERVER_FIRST

    @property
    def mechanism(self) -> str:
        return self._hash.mechanism

    @property
    def is_complete(self) -> bool:
        return self._state is _ScramState.COMPLETE

    def start(self) -> bytes:
        return (_GS2 + self._bare).encode()

    def respond(self, token: bytes) -> bytes:
        state, self._state = self._state, _ScramState.FAILED
        text = token.decode("latin-1")
        if state is _ScramState.SERVER_FIRST:
            answer = self._prove(text)
            self._state = _ScramState.SERVER_FINAL
            return answer
        if state is not _ScramState.SERVER_FINAL:
            raise ServerRefused("a token after the last")
        match = _SERVER_FINAL.fullmatch(text)
        if match is None:
            raise ServerRefused("Invalid SCRAM server final message format")
        if match["error"] is not None:
            raise ServerRefused(f"{self.mechanism} failed with error: {match['error'][:100]!r}")
        if not compare_digest(b64decode(match["signature"]), self._signature):
            raise ServerRefused("Invalid server signature in server final message")
        self._state = _ScramState.COMPLETE
        return b""

    def _prove(self, text: str) -> bytes:
        match = _SERVER_FIRST.fullmatch(text)
        if match is None:
            raise ServerRefused("Invalid SCRAM server first message format")
        nonce, iterations = match["nonce"], int(match["iterations"])
        if not nonce.startswith(self._nonce) or nonce == self._nonce:
            raise ServerRefused("Invalid server nonce: it does not go on from the client's")
        if not scram.ITERATIONS_MIN <= iterations <= scram.ITERATIONS_MAX:
            # Each iteration is a hash, and the server says how many there are.
            raise ServerRefused(
                f"{iterations} iterations are not between {scram.ITERATIONS_MIN} and {scram.ITERATIONS_MAX}"
            )
        algorithm = self._hash.algorithm
        password = self._password.reveal().encode()
        salted = scram.salted_password(self._hash, password, b64decode(match["salt"]), iterations)
        client_key = hmac(salted, b"Client Key", algorithm)
        final = f"c={b64encode(_GS2.encode()).decode()},r={nonce}"
        signed = b",".join((self._bare.encode(), text.encode("latin-1"), final.encode()))
        signature = hmac(new_hash(algorithm, client_key).digest(), signed, algorithm)
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        self._signature = hmac(hmac(salted, b"Server Key", algorithm), signed, algorithm)
        return f"{final},p={b64encode(proof).decode()}".encode()


@final
class OAuthBearerClient:
    """RFC 7628. A token that the server does not take comes back as JSON, which the next answer confirms."""

    __slots__ = ("_extensions", "_refusal", "_token", "is_complete")

    mechanism = "OAUTHBEARER"

    def __init__(self, token: Secret, extensions: Mapping[str, str] | None = None) -> None:
        self._token = token
        self._extensions = dict(extensions or {})
        self._refusal = ""
        self.is_complete = False

    @property
    def refusal(self) -> str:
        """What the server said of the token, or nothing."""
        return self._refusal

    def start(self) -> bytes:
        extensions = "".join(f"{key}={value}\x01" for key, value in self._extensions.items())
        return f"{_GS2}\x01auth=Bearer {self._token.reveal()}\x01{extensions}\x01".encode()

    def respond(self, token: bytes) -> bytes:
        if self._refusal or self.is_complete:
            raise ServerRefused(self._refusal or "a token after the last")
        if not token:
            self.is_complete = True
            return b""
        self._refusal = ascii(token[:1000].decode("utf-8", "replace"))
        return b"\x01"


# Mechanisms by which a name and a password log in.
BY_PASSWORD: Final = (PLAIN, *HASHES)


def log_in_as(
    mechanism: str, name: str, password: Secret, random: Callable[[int], bytes], *, by_token: bool = False
) -> ClientExchange:
    """A login by one of ``BY_PASSWORD``. ``random``: as many bytes as it is asked for."""
    if mechanism == PLAIN:
        return PlainClient(name, password)
    return ScramClient(HASHES[mechanism], name, password, scram.new_nonce(random), by_token=by_token)
