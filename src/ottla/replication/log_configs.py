"""What logs of topics are configured with: made once for all topics that say the same."""

from __future__ import annotations

import logging

from ottla.config import BrokerConfig
from ottla.log.settings import LogConfig
from ottla.metadata.image import TopicImage

log = logging.getLogger(__name__)

# Configurations that are remembered.
KNOWN_MAX = 1_000


class LogConfigs:
    """Topics' configurations over the broker's. All are made anew when the broker's change."""

    def __init__(self, config: BrokerConfig) -> None:
        self._config = config
        self._known: dict[tuple[tuple[str, str], ...], LogConfig] = {}
        config.subscribe(lambda names: self._known.clear())

    def find(self, topic: TopicImage) -> LogConfig:
        key = tuple(sorted(topic.configs.items()))
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            known = self._known[key] = LogConfig.from_values(self._config.topic_values(topic.configs))
        return known

    def readable(self, topic: TopicImage) -> LogConfig | None:
        """The same; None, and the log says why, where it cannot be understood."""
        try:
            return self.find(topic)
        except Exception:
            log.exception("topic %s: the configuration cannot be parsed", topic.name)
            return None
