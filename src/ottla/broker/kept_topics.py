"""The cache of topics in Metadata responses, which ``views.topics`` makes, and its eviction."""

from __future__ import annotations

from collections.abc import Mapping

from ottla.metadata.image import BrokerImage, ClusterImage, TopicImage
from ottla.wire.codec import Encoded

# What is kept of topics, for all listeners and versions: a partition with three replicas is some 60 bytes.
KEPT_BYTES_MAX = 32 * 1024 * 1024
# What a topic that is kept takes besides its bytes.
ENTRY_BYTES = 200
# Topics that are gone may be kept up to this count, and that of those which are there.
GONE_MAX = 100


class Table:
    """The topics of one listener and version by name, each with the image that it was made of."""

    __slots__ = ("_all", "entries", "kept_bytes")

    def __init__(self) -> None:
        self.entries: dict[str, tuple[TopicImage, bytes]] = {}
        # All topics of an image put together, once somebody has asked for them.
        self._all: tuple[Mapping[str, TopicImage], Encoded] | None = None
        self.kept_bytes = 0

    def all(self, topics: Mapping[str, TopicImage]) -> Encoded | None:
        """All topics put together, if it is these."""
        return self._all[1] if self._all is not None and self._all[0] is topics else None

    def keep_all(self, topics: Mapping[str, TopicImage], encoded: Encoded) -> None:
        self.forget_all()
        self._all = topics, encoded
        self.kept_bytes += encoded.size_bytes

    def forget_all(self) -> None:
        if self._all is not None:
            self.kept_bytes -= self._all[1].size_bytes
            self._all = None

    def keep(self, topic: TopicImage, data: bytes) -> None:
        self.forget(topic.name)
        self.entries[topic.name] = topic, data
        self.kept_bytes += len(data) + ENTRY_BYTES

    def forget(self, name: str) -> None:
        gone = self.entries.pop(name, None)
        if gone is not None:
            self.kept_bytes -= len(gone[1]) + ENTRY_BYTES

    def clear(self) -> None:
        self.entries.clear()
        self._all = None
        self.kept_bytes = 0


class KeptTopics:
    """What is kept for a node's clients, of whichever listener and version. Not more than ``bytes_max``: the
    table that was taken up least recently goes first."""

    __slots__ = ("_brokers", "_bytes_max", "_tables")

    def __init__(self, bytes_max: int = KEPT_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        # The brokers that all of it was made with: whether a partition's leader is there is part of it.
        self._brokers: Mapping[int, BrokerImage] = {}
        self._tables: dict[tuple[str, int], Table] = {}

    @property
    def kept_bytes(self) -> int:
        return sum(table.kept_bytes for table in self._tables.values())

    def table(self, image: ClusterImage, listener: str, version: int) -> Table:
        """The table for responses of a version that tell of ``image``."""
        if image.brokers is not self._brokers:
            self._brokers = image.brokers
            self._tables = {}
        table = self._tables.pop((listener, version), None) or Table()
        self._tables[listener, version] = table
        if len(table.entries) > 2 * len(image.topics) + GONE_MAX:
            for name in [name for name in table.entries if name not in image.topics]:
                table.forget(name)
        return table

    def has_room(self, table: Table, size: int) -> bool:
        """Whether a table may keep so much more, which others may have to give way to; not one that is of
        other brokers by now."""
        others = [other for other in self._tables.values() if other is not table]
        if len(others) == len(self._tables) or table.kept_bytes + size > self._bytes_max:
            return False
        for other in others:
            if self.kept_bytes + size <= self._bytes_max:
                break
            other.clear()
        return True
