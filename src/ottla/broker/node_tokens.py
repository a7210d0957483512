"""The token by which a node logs in to others (OAUTHBEARER): fetched off the loop when it is first needed,
and again before it ends.

Kafka's ``DefaultJwtRetriever``: ``sasl.oauthbearer.token.endpoint.url`` is a file that has a token, or where
a provider gives one to whom shows a client's id and secret (RFC 6749, client credentials). The secret may
stand in ``sasl.jaas.config`` as well. Claims are not verified here: others do that.
"""

from __future__ import annotations

import asyncio
import binascii
import json
import logging
from base64 import b64encode, urlsafe_b64decode
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

from ottla.config import ConfigError
from ottla.config.listener_settings import ListenerSettings
from ottla.env.aside import aside
from ottla.env.clock import Clock
from ottla.env.fetch import SCHEMES, post_url, read_url
from ottla.security.jaas import LoginModule
from ottla.security.sasl.client import OAuthBearerClient
from ottla.security.secret import Secret

log = logging.getLogger(__name__)

TIMEOUT_S = 10.0
ANSWER_BYTES_MAX = 256 * 1024
# Of a token's life, after how much another one is asked for (sasl.login.refresh.window.factor's default).
USED = 0.8
# A provider that fails is not asked more often than this, however many nodes are waited for.
ASKED_AGAIN_MS_MIN = 1_000

_URL = "sasl.oauthbearer.token.endpoint.url"
_CLIENT = "sasl.oauthbearer.client.credentials.client"
_EXTENSION = "extension_"
# What an answer may have the token in (``JwtResponseParser``).
_FIELDS = ("access_token", "id_token")


class NoToken(OSError):
    """There is none now."""


class _Token(NamedTuple):
    text: Secret
    # In time of the clock's that only goes forward.
    renew_at_ms: int
    ends_at_ms: int


class NodeTokens:
    """Of one listener's settings, as they are when a token is fetched. ``begin`` on the loop."""

    def __init__(self, settings: ListenerSettings, module: LoginModule | None, clock: Clock) -> None:
        """ConfigError where no token could ever be had by these settings."""
        self._clock = clock
        self._url, self._headers, self._body = _request(settings, module)
        options = module.options if module is not None else {}
        self._extensions = {
            name.removeprefix(_EXTENSION): value.reveal()
            for name, value in options.items()
            if name.startswith(_EXTENSION)
        }
        self._token: _Token | None = None
        self._fetching: asyncio.Task[None] | None = None
        # Until when nobody is asked again, and why.
        self._failed: tuple[int, str] | None = None
        # The login that was begun last, by which it is known whether the token is taken.
        self._last: OAuthBearerClient | None = None

    async def begin(self) -> OAuthBearerClient:
        """A login with a token that is good for a while. NoToken where none can be had."""
        if self._last is not None and self._last.refusal:
            # The provider has changed its keys, say: another token may be good.
            self._last = self._token = None
        token = self._token
        if token is None or self._clock.monotonic_ms() >= token.renew_at_ms:
            await self._renew()
            token = self._token
        if token is None or self._clock.monotonic_ms() >= token.ends_at_ms:
            raise NoToken("the token has ended already" if self._failed is None else self._failed[1])
        self._last = OAuthBearerClient(token.text, self._extensions)
        return self._last

    async def _renew(self) -> None:
        """Have another token, if there is one to be had; one fetch for all who wait."""
        if self._fetching is None:
            if self._failed is not None and self._clock.monotonic_ms() < self._failed[0]:
                return
            self._fetching = asyncio.get_running_loop().create_task(self._fetch(), name="token")
        await asyncio.shield(self._fetching)

    async def _fetch(self) -> None:
        try:
            self._token = self._look_at(await aside(self._read))
            self._failed = None
        except (OSError, ValueError) as error:
            if self._failed is None:
                log.error("cannot get the token for logins to other nodes: %s", error)
            self._failed = (
                self._clock.monotonic_ms() + ASKED_AGAIN_MS_MIN,
                f"no token to log in with: {error}",
            )
        finally:
            self._fetching = None

    def _read(self) -> str:
        """In a thread."""
        if self._body is None:
            read = read_url(self._url, timeout_s=TIMEOUT_S, bytes_max=ANSWER_BYTES_MAX)
            return read.decode("ascii").strip()
        read = post_url(self._url, self._headers, self._body, timeout_s=TIMEOUT_S, bytes_max=ANSWER_BYTES_MAX)
        answer = _object(read, "the answer")
        for name in _FIELDS:
            if isinstance(token := answer.get(name), str) and token.strip():
                return token.strip()
        raise ValueError(f"{self._url}: there is no token in the answer")

    def _look_at(self, text: str) -> _Token:
        """ValueError where it is no token, or over. It shows nothing of it."""
        parts = text.split(".")
        if len(parts) != 3 or not text.isascii() or any(c.isspace() for c in text):
            raise ValueError(f"{self._url}: what is there is no JWT")
        try:
            claims = _object(urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)), "the token")
        except binascii.Error:
            raise ValueError(f"{self._url}: what is there is no JWT") from None
        ends_s = claims.get("exp")
        if not isinstance(ends_s, int | float) or not abs(ends_s) < 1e12:
            raise ValueError(f"{self._url}: the token does not say when it ends (exp)")
        left_ms = int(ends_s * 1000) - self._clock.now_ms()
        if left_ms <= 0:
            raise ValueError(f"{self._url}: the token has ended")
        now_ms = self._clock.monotonic_ms()
        return _Token(Secret(text), now_ms + int(left_ms * USED), now_ms + left_ms)


def _request(
    settings: ListenerSettings, module: LoginModule | None
) -> tuple[str, dict[str, str], bytes | None]:
    """Where tokens are, and what is to be sent there: nothing to a file."""
    url = settings.get(_URL)
    if not url:
        raise ConfigError(f"nodes log in to each other by OAUTHBEARER: set {_URL} to the URL of the token")
    scheme = urlsplit(url).scheme
    if scheme not in SCHEMES:
        raise ConfigError(f"{_URL} must begin with {', '.join(f'{one}:' for one in SCHEMES)}")
    if scheme == "file":
        return url, {}, None
    name = settings.get(f"{_CLIENT}.id") or _option(module, "clientId")
    secret = settings.get(f"{_CLIENT}.secret") or _option(module, "clientSecret")
    if not name or not secret:
        raise ConfigError(f"nodes log in to each other by OAUTHBEARER: {_CLIENT}.id and .secret are missing")
    scope = settings.get("sasl.oauthbearer.scope") or _option(module, "scope")
    basic = b64encode(f"{name.strip()}:{secret.strip()}".encode()).decode()
    headers = {
        "Accept": "application/json",
        "Authorization": f"Basic {basic}",
        "Cache-Control": "no-cache",
        "Content-Type": "application/x-www-form-urlencoded",
    }
    body = "grant_type=client_credentials" + (f"&scope={quote(scope.strip(), safe='')}" if scope else "")
    return url, headers, body.encode()


def _option(module: LoginModule | None, name: str) -> str | None:
    return None if module is None else module.option(name)


def _object(data: bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError(f"{what} is not JSON") from None
    if not isinstance(found, dict):
        raise ValueError(f"{what} is no JSON object")
    return found
