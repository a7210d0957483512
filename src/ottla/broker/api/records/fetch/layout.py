"""Where in a Fetch request's bytes its partitions are: each takes as many as the next, in one version.

So two requests that are nearly the same can be compared without being read.
"""

from __future__ import annotations

import struct
from functools import cache
from uuid import UUID

from ottla.broker.api.records.fetch.session import TopicKey, Want
from ottla.wire.apis import APIS, FETCH
from ottla.wire.fields import FIXED, describe
from ottla.wire.messages import load
from ottla.wire.primitives import READ_ERRORS, read_uvarint

_COUNT, _LENGTH = struct.Struct(">i"), struct.Struct(">h")
_BY_ID_SINCE, _FLEXIBLE_SINCE = 13, 12

# More make a request that is refused.
_TOPICS_MAX = APIS[FETCH].elements_max

# Partitions that stand below a topic: the topic's bytes, where the first one is, how many there are.
Block = tuple[bytes, int, int]


class Layout:
    """Of one version."""

    __slots__ = (
        "_has_epoch",
        "_has_last_epoch",
        "_has_start",
        "_unpack",
        "by_id",
        "flexible",
        "head",
        "size",
    )

    def __init__(self, version: int) -> None:
        self.by_id = version >= _BY_ID_SINCE
        self.flexible = version >= _FLEXIBLE_SINCE
        fields = describe(load(APIS[FETCH].schema, version, "request"))
        names = [field.name for field in fields]
        before = fields[: names.index("topics")]
        # The bytes before the topics, where none of them is tagged.
        self.head = struct.calcsize(">" + "".join(FIXED[f.kind] for f in before if f.tag is None))
        (topics,) = [field for field in fields if field.name == "topics"]
        assert topics.entity is not None
        (partitions,) = [field for field in describe(topics.entity) if field.name == "partitions"]
        assert partitions.entity is not None
        plain = [field for field in describe(partitions.entity) if field.tag is None]
        layout = struct.Struct(">" + "".join(FIXED[f.kind] for f in plain))
        self._unpack = layout.unpack_from
        # With the number of its tagged fields, which have to be none.
        self.size = layout.size + self.flexible
        inside = [field.name for field in plain]
        self._has_epoch = "current_leader_epoch" in inside
        self._has_last_epoch = "last_fetched_epoch" in inside
        self._has_start = "log_start_offset" in inside
        assert inside == self._names()

    def _names(self) -> list[str]:
        names = ["partition"]
        names += ["current_leader_epoch"] if self._has_epoch else []
        names += ["fetch_offset"]
        names += ["last_fetched_epoch"] if self._has_last_epoch else []
        names += ["log_start_offset"] if self._has_start else []
        return [*names, "partition_max_bytes"]

    def want(self, topic: TopicKey, entry: bytes) -> Want:
        """The partition that these bytes name."""
        values = self._unpack(entry)
        at = 1
        epoch = last_epoch = start = -1
        if self._has_epoch:
            epoch, at = values[at], at + 1
        offset, at = values[at], at + 1
        if self._has_last_epoch:
            last_epoch, at = values[at], at + 1
        if self._has_start:
            start, at = values[at], at + 1
        return Want(topic, values[0], offset, values[at], epoch, last_epoch, start)

    def topic(self, name: bytes) -> TopicKey:
        return UUID(bytes=name) if self.by_id else str(name, "utf-8")

    def blocks(self, body: bytes) -> tuple[list[Block], int] | None:
        """The partitions that a request names, and where what follows them begins. None: it has what cannot
        be compared so, or is none."""
        try:
            return self._blocks(body)
        except READ_ERRORS:
            return None

    def _blocks(self, body: bytes) -> tuple[list[Block], int] | None:
        found: list[Block] = []
        end, size, flexible = len(body), self.size, self.flexible
        topics, at = self._count(body, self.head)
        if topics > _TOPICS_MAX:
            return None
        for _ in range(topics):
            length, at = (16, at) if self.by_id else self._name_length(body, at)
            name = body[at : at + length]
            count, at = self._count(body, at + length)
            after = at + count * size
            if length < 0 or count < 0 or after + flexible > end:
                return None
            if flexible and (body[after] or any(body[at + size - 1 : after : size])):
                return None
            if count:
                found.append((name, at, count))
            at = after + flexible
        return found, at

    def _count(self, body: bytes, at: int) -> tuple[int, int]:
        """An array's, and where its elements begin."""
        if not self.flexible:
            return _COUNT.unpack_from(body, at)[0], at + _COUNT.size
        count = body[at]
        at += 1
        if count >= 128:
            count, at = read_uvarint(body, at, count)
        return count - 1, at

    def _name_length(self, body: bytes, at: int) -> tuple[int, int]:
        if not self.flexible:
            return _LENGTH.unpack_from(body, at)[0], at + _LENGTH.size
        return self._count(body, at)


@cache
def layout_of(version: int) -> Layout:
    return Layout(version)
