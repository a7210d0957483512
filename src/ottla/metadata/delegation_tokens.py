"""The delegation tokens of a node: those of the image, and when they are removed that have ended.

Each node looks; the controller removes (Kafka's ``DelegationTokenControlManager``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator, Mapping

from ottla.config import BrokerConfig
from ottla.env.clock import Clock, Timer
from ottla.errors import KafkaError
from ottla.metadata.access import remove_tokens
from ottla.metadata.image import EMPTY, ClusterImage
from ottla.metadata.service import Metadata
from ottla.metadata.store import StoreError
from ottla.pieces import whole
from ottla.security.secret import Secret
from ottla.security.tokens import DelegationToken, TokenSettings, TokenView

log = logging.getLogger(__name__)

# Tokens that are looked at in one piece, some microseconds each where they have changed.
CHANGED_AT_ONCE = 500


class Tokens:
    """``view`` has them, where ``settings`` has a key. ``start`` on the loop, ``close`` at the end."""

    def __init__(self, config: BrokerConfig, metadata: Metadata, clock: Clock, node_id: int) -> None:
        key = config.get("delegation.token.secret.key")
        self.settings = TokenSettings(
            None if key is None else Secret(key),
            config.get("delegation.token.max.lifetime.ms"),
            config.get("delegation.token.expiry.time.ms"),
        )
        self.view = TokenView(self.settings)
        self._every_ms = config.get("delegation.token.expiry.check.interval.ms")
        self._metadata = metadata
        self._clock = clock
        self._node_id = node_id
        self._timer: Timer | None = None
        self._removing: asyncio.Task[None] | None = None
        if self.settings.is_enabled:
            whole(self._change(EMPTY.tokens, metadata.image.tokens))
            metadata.subscribe(self.follow)

    def follow(self, old: ClusterImage, new: ClusterImage) -> Generator[None, None, None] | None:
        """Know the tokens of the new image, in pieces; None where they did not change."""
        return None if old.tokens is new.tokens else self._change(old.tokens, new.tokens)

    def _change(
        self, old: Mapping[str, DelegationToken], new: Mapping[str, DelegationToken]
    ) -> Generator[None, None, None]:
        for count, token_id in enumerate(old.keys() - new.keys(), 1):
            self.view.remove(token_id)
            if count % CHANGED_AT_ONCE == 0:
                yield
        for count, (token_id, token) in enumerate(new.items(), 1):
            if old.get(token_id) is not token:
                self.view.put(token)
            if count % CHANGED_AT_ONCE == 0:
                yield

    def start(self) -> None:
        """Look for those that have ended from now on."""
        if self.settings.is_enabled:
            self._timer = self._clock.call_later(self._every_ms, self._look)

    def close(self) -> None:
        """Look for them no more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._removing is not None:
            self._removing.cancel()

    def _look(self) -> None:
        self._timer = self._clock.call_later(self._every_ms, self._look)
        ended = self.view.expired(self._clock.now_ms())
        if ended and self._metadata.image.controller_id == self._node_id:
            self._removing = asyncio.get_running_loop().create_task(self._remove(ended), name="tokens")

    async def _remove(self, token_ids: list[str]) -> None:
        try:
            await remove_tokens(self._metadata.controller, token_ids)
        except (KafkaError, StoreError) as error:
            log.warning("expired delegation tokens cannot be removed now: %s", error)
