"""Topics as Metadata responses have them: written once for each listener and version, and kept until the
topic or the brokers change.

A client that asks for all topics of a large cluster asks for the same again and again, and others for some of
them. What is kept is one topic's bytes, so that which of them a response has is decided for each request.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from uuid import UUID
from weakref import WeakKeyDictionary

from ottla.broker.kept_topics import ENTRY_BYTES, KeptTopics
from ottla.broker.large import Lazy
from ottla.broker.views.cluster import (
    OPERATIONS_OMITTED,
    denied_topic_fields,
    known_brokers,
    leave_out_offline,
    missing_topic_fields,
    partition_fields,
    topic_fields,
)
from ottla.errors import ErrorCode
from ottla.metadata.image import TopicImage
from ottla.metadata.service import Metadata
from ottla.wire.apis import METADATA
from ottla.wire.codec import PIECE, Encoded, PiecesWriter, pieces_writer, writer
from ottla.wire.messages import element

if TYPE_CHECKING:
    from ottla.security.acl import Permissions

_INT32 = struct.Struct(">i")
# From here on a topic ends with what its client may do with it.
_OPERATIONS_SINCE = 8
_FLEXIBLE_SINCE = 9


class EncodedTopics:
    """The topics of one image, and its brokers, in Metadata responses of one listener and version."""

    def __init__(self, kept: KeptTopics, metadata: Metadata, listener: str, version: int) -> None:
        self.image = metadata.image
        brokers = known_brokers(metadata, listener)
        write_broker = writer(element(METADATA, version, "brokers"))
        out: list[Any] = []
        for broker in brokers:
            write_broker(broker, out)
        self.brokers = Encoded(len(brokers), [b"".join(out)])
        # Clients that may see all of these topics, with what their rights were of then.
        self._whole_for: WeakKeyDictionary[Permissions, int] = WeakKeyDictionary()
        self._kept = kept
        self._table = kept.table(metadata.image, listener, version)
        self._listener = listener
        # v0: offline replicas are an error. Up to v5: a leader without the listener is "not available".
        self._unavailable = version == 0
        self._error = ErrorCode.listener_not_found if version > 5 else ErrorCode.leader_not_available
        self._write: PiecesWriter = pieces_writer(element(METADATA, version, "topics"))
        self._end_bytes = 0
        if version >= _OPERATIONS_SINCE:
            self._end_bytes = 4 if version < _FLEXIBLE_SINCE else 5

    def find(self, name: str | UUID) -> TopicImage | None:
        """A topic of this image, by its name or its id."""
        image = self.image
        return image.topics.get(name) if isinstance(name, str) else image.topics_by_id.get(name)

    def kept(self, topic: TopicImage) -> bytes | None:
        """A topic's bytes, if they are there."""
        entry = self._table.entries.get(topic.name)
        return entry[1] if entry is not None and entry[0] is topic else None

    @property
    def all(self) -> Encoded | None:
        """All topics put together, if they are there."""
        return self._table.all(self.image.topics)

    def are_all_for(self, permissions: Permissions) -> bool:
        """Whether a client is known to see all topics."""
        return self._whole_for.get(permissions) == permissions.version

    def were_all_for(self, permissions: Permissions, version: int) -> None:
        """A client was found to see all topics, by rights that were of this version before."""
        self._whole_for[permissions] = version

    def keep_all(self, pieces: list[bytes]) -> Encoded:
        """All topics, of which these are the pieces, put together."""
        joined = Encoded(len(pieces), [b"".join(pieces)])
        self._table.forget_all()
        if self._kept.has_room(self._table, joined.size_bytes):
            self._table.keep_all(self.image.topics, joined)
        return joined

    def make(self, topic: TopicImage, made: list[bytes], left: list[int]) -> Iterator[None]:
        """Put a topic's bytes into ``made``. Yields after so many partitions, which ``left`` counts: one list
        with one number, for several topics."""
        image, listener, error = self.image, self._listener, self._error
        partitions = (
            partition_fields(image, state, index, listener, error)
            for index, state in enumerate(topic.partitions)
        )
        if self._unavailable:
            partitions = map(leave_out_offline, partitions)  # type: ignore[assignment]
        out: list[Any] = []
        yield from self._write(topic_fields(topic, Lazy(len(topic.partitions), partitions)), out, left)
        data = b"".join(out)
        self._table.forget(topic.name)
        if self._kept.has_room(self._table, len(data) + ENTRY_BYTES):
            self._table.keep(topic, data)
        made.append(data)

    def made(self, topic: TopicImage) -> bytes:
        """A topic's bytes, made at once."""
        out: list[bytes] = []
        for _ in self.make(topic, out, [PIECE]):
            pass
        return out[0]

    def missing(self, name: str | None, topic_id: UUID | None, error: ErrorCode) -> bytes:
        """A topic that does not exist, or may not."""
        out: list[Any] = []
        for _ in self._write(missing_topic_fields(name, topic_id, error), out, [PIECE]):
            pass
        return b"".join(out)

    def denied(self, name: str | None, topic_id: UUID | None = None) -> bytes:
        """A topic that is not for the client to know of."""
        out: list[Any] = []
        for _ in self._write(denied_topic_fields(name, topic_id), out, [PIECE]):
            pass
        return b"".join(out)

    def with_operations(self, data: bytes, operations: int) -> bytes:
        """A topic's bytes, telling what its client may do with it, which none says otherwise."""
        if not self._end_bytes or operations == OPERATIONS_OMITTED:
            return data
        end = _INT32.pack(operations) + b"\0"
        return data[: -self._end_bytes] + end[: self._end_bytes]


def encoded_topics(kept: KeptTopics, metadata: Metadata, listener: str, version: int) -> EncodedTopics:
    """Those of the present image, for a Metadata request of a version."""
    topics: EncodedTopics | None = metadata.views.get((listener, version))
    if topics is None:
        topics = metadata.views[listener, version] = EncodedTopics(kept, metadata, listener, version)
    return topics
