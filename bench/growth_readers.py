"""Consumers: one that follows a partition among many, and one that reads a partition from its beginning."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import asking
from asking import Connection, Refused

# Consumers wait so long where there is nothing: librdkafka's default.
WAIT_MS = 500
BATCH_RECORDS, BATCH_RECORD_BYTES = 1000, 1000


class Tail:
    """A consumer of many partitions: it stands at the end of all, and follows one."""

    def __init__(
        self, connection: Connection, followed: str, others: Mapping[str, int], *, in_session: bool
    ) -> None:
        self._connection, self._followed = connection, followed
        self._session, self._epoch = 0, 0
        # The one that it follows is the first in the request, and so in a response.
        self._end_at = asking.fetch_end_at(followed)
        self._offset = self._end()
        marker = 0x0123456789ABCDEF
        where = {followed: {0: marker}} | ends(others)
        if in_session:
            where[followed][0] = self._offset
            answer = connection.exchange(asking.fetch(where, session=(0, 0)))
            self._session = asking.fetch_session(answer)
        self._request = bytearray(asking.fetch(where, wait_ms=WAIT_MS))
        self._offset_at = 0 if in_session else self._request.index(marker.to_bytes(8, "big"))

    @property
    def has_session(self) -> bool:
        """Some brokers have none."""
        return self._session != 0

    def _end(self) -> int:
        wanted = {"partition_index": 0, "current_leader_epoch": -1, "timestamp": -1}
        answer = self._connection.ask(
            "ListOffsets",
            replica_id=-1,
            isolation_level=0,
            topics=[{"name": self._followed, "partitions": [wanted]}],
        )
        end: int = answer.topics[0].partitions[0].offset
        return end

    def fetch(self, wait_ms: int = WAIT_MS) -> None:
        """Ask, and take what has come."""
        if self._session:
            self._epoch += 1
            where = {self._followed: {0: self._offset}}
            request = asking.fetch(where, wait_ms=wait_ms, session=(self._session, self._epoch))
        else:
            self._request[self._offset_at : self._offset_at + 8] = self._offset.to_bytes(8, "big")
            request = bytes(self._request)
        answer = self._connection.exchange(request)
        at = asking.fetch_error_at()
        asking.check("Fetch", int.from_bytes(answer[at : at + 2], "big", signed=True))
        # In a session there may be nothing in it.
        if self._followed.encode() in answer[: self._end_at]:
            self._offset = int.from_bytes(answer[self._end_at : self._end_at + 8], "big")


def ends(topics: Mapping[str, int]) -> dict[str, dict[int, int]]:
    """Where partitions with one message end."""
    return {topic: dict.fromkeys(range(count), 1) for topic, count in topics.items()}


class Reader:
    """A consumer that reads a partition of equal batches from its beginning."""

    def __init__(self, connection: Connection, topic: str, batch_bytes: int, end: int) -> None:
        self._connection, self._topic = connection, topic
        self._batch_bytes, self._end = batch_bytes, end
        self._offset = self.bytes = 0

    @property
    def is_done(self) -> bool:
        return self._offset >= self._end

    def fetch(self) -> None:
        answer = self._connection.exchange(
            asking.fetch({self._topic: {0: self._offset}}, wait_ms=WAIT_MS, max_bytes=4 << 20)
        )
        size = asking.fetched_bytes(answer, self._topic)
        if size < self._batch_bytes:
            raise Refused(f"a Fetch from offset {self._offset} brought {size} bytes")
        self._offset += size // self._batch_bytes * BATCH_RECORDS
        self.bytes += size

    def fetch_again(self, at_end: Callable[[], None]) -> None:
        """The same, and from the beginning again at the end, where ``at_end`` is called."""
        if self.is_done:
            at_end()
            self._offset = 0
        self.fetch()
