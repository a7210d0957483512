"""Small value types that every layer shares."""

from __future__ import annotations

from typing import NamedTuple

# What may be handed to the log or the wire as bytes without copying it first.
Buffer = bytes | bytearray | memoryview


class TopicPartition(NamedTuple):
    """A partition of a topic, by name."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}"


class Record(NamedTuple):
    """A record inside a batch (format v2), offsets and timestamps absolute.

    ``timestamp_ms`` is -1 where the producer gave none. Header values may be null.
    """

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


class TxnMarker(NamedTuple):
    """The end of a producer's transaction in one partition, as the transaction's coordinator decided."""

    producer_id: int
    producer_epoch: int
    coordinator_epoch: int
    commits: bool
    transaction_version: int
