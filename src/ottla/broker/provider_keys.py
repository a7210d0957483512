"""The keys by which a provider signs tokens: fetched off the loop, and again as they may have changed.

Kafka's ``RefreshingHttpsJwks``: after ``sasl.oauthbearer.jwks.endpoint.refresh.ms``, sooner where a token
names a key that is not among them, and after a wait that doubles where fetching fails. The keys that were
fetched last are valid until then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from ottla.config.listener_settings import ListenerSettings
from ottla.env.aside import aside
from ottla.env.clock import Clock, Timer
from ottla.env.fetch import read_url

if TYPE_CHECKING:
    from ottla.security.sasl.jwt import Jwks

log = logging.getLogger(__name__)

TIMEOUT_S = 10.0
# A hundred keys with their certificates. Of a megabyte Python may make JSON for 200 ms, and nothing else.
JWKS_BYTES_MAX = 256 * 1024
# Unknown keys have the provider asked not more often than this, whoever makes them up.
ASKED_AGAIN_MS_MIN = 10_000
WAIT_MS_MIN = 100

_NAME = "sasl.oauthbearer.jwks.endpoint"


class ProviderKeys:
    """``start`` on the loop; ``keys`` are those that were fetched last, none at first."""

    def __init__(
        self, url: str, settings: ListenerSettings, clock: Clock, parse: Callable[[bytes], Jwks]
    ) -> None:
        """``parse``: a JWKS from its bytes, or ValueError."""
        self._url = url
        self._settings = settings
        self._clock = clock
        self._parse = parse
        self.keys = parse(b'{"keys": []}')
        self._failures = 0
        self._fetched_ms = -ASKED_AGAIN_MS_MIN
        self._timer: Timer | None = None
        self._fetching: asyncio.Task[None] | None = None
        self._closed = False

    def start(self) -> None:
        """Fetch the keys, and go on with it."""
        self._fetch()

    def close(self) -> None:
        """Fetch them no more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._fetching is not None:
            self._fetching.cancel()

    def look_for(self, key_id: str) -> None:
        """A token names a key that is not among them: there may be new ones."""
        if self._clock.monotonic_ms() - self._fetched_ms >= ASKED_AGAIN_MS_MIN:
            self._fetch()

    def _fetch(self) -> None:
        if self._fetching is not None or self._closed:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._fetched_ms = self._clock.monotonic_ms()
        self._fetching = asyncio.get_running_loop().create_task(self._fetch_once(), name="jwks")

    def _read(self) -> Jwks:
        """In a thread, also to make keys of it, which takes some ten milliseconds."""
        return self._parse(read_url(self._url, timeout_s=TIMEOUT_S, bytes_max=JWKS_BYTES_MAX))

    async def _fetch_once(self) -> None:
        get = self._settings.get
        wait_ms = get(f"{_NAME}.refresh.ms")
        try:
            self.keys = await aside(self._read)
            self._failures = 0
        except (OSError, ValueError) as error:
            backoff_ms = get(f"{_NAME}.retry.backoff.ms") << min(self._failures, 20)
            wait_ms = min(backoff_ms, get(f"{_NAME}.retry.backoff.max.ms"))
            if not self._failures:
                log.error("cannot get the keys that verify tokens: %s", error)
            self._failures += 1
        finally:
            self._fetching = None
            if not self._closed:
                self._timer = self._clock.call_later(max(wait_ms, WAIT_MS_MIN), self._fetch)
