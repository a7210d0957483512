"""The interface between a shard and the machine that it hosts, and the rules that both keep."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from ottla.coordinators.runtime.step import Pieces, Step, Write
from ottla.errors import ErrorCode
from ottla.types import Buffer


class SchemaError(ValueError):
    """A record's key or value is not what its version says."""


class UnknownRecord(NamedTuple):
    """A record of a kind that is not kept here."""

    key_version: int


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operator can set of any coordinator."""

    # How long a client waits for a write, whatever becomes of that.
    write_timeout_ms: int
    # The codec that batches are compressed with.
    compression: int


class Machine(Protocol):
    """A state machine whose records are one partition of an internal topic (Kafka's CoordinatorShard).

    It is given the time in each step, does no I/O, and answers and writes through the step. Its durable state
    changes only in ``replay``, which it also calls itself where it is told that a write is committed. Of each
    write it is told that it is on its way, then, in log order, that it is committed or has failed.
    """

    # Encoding and decoding --------------------------------------------------------------------------------

    def encode(self, record: Any) -> tuple[bytes, bytes | None]:
        """A record's key and value. SchemaError where it cannot be stored."""
        ...

    def is_large(self, record: Any) -> bool:
        """Whether that takes some milliseconds: then it is ``encoding`` that is called."""
        ...

    def encoding(self, record: Any) -> Generator[None, None, tuple[bytes, bytes | None]]:
        """As ``encode``; yields after each piece of its work."""
        ...

    def decode(self, key: Buffer | None, value: Buffer | None) -> Any:
        """The record that a key and value stand for, or an UnknownRecord. SchemaError."""
        ...

    def decoding(self, key: Buffer | None, value: Buffer | None) -> Generator[None, None, Any]:
        """As ``decode``; yields after each piece of its work."""
        ...

    # The log ----------------------------------------------------------------------------------------------

    def replay(self, record: Any, producer_id: int) -> None:
        """Apply a committed record; ``producer_id`` is that of a transactional batch, or -1."""
        ...

    def end_transaction(self, producer_id: int, *, committed: bool) -> Iterator[None]:
        """Apply a transaction's marker; yields after each piece of its work, and is run to its end.

        Nothing is replayed in between.
        """
        ...

    def submitted(self, write: Write) -> None:
        """``write`` is on its way, behind all that are."""
        ...

    def committed(self, write: Write, step: Any) -> None:
        """``write``, the oldest in flight, is in the log for good."""
        ...

    def failed(self, write: Write, code: ErrorCode, step: Any) -> None:
        """``write``, the oldest in flight, is not in the log and never will be."""
        ...

    @property
    def in_flight_count(self) -> int:
        """How many writes are on their way."""
        ...

    # Steps ------------------------------------------------------------------------------------------------

    def step(self, now_ms: int, wall_ms: int) -> Step:
        """A new step, at that time."""
        ...

    @property
    def wake_ms(self) -> int:
        """When the first of its deadlines comes (monotonic); NEVER_MS where there is none."""
        ...

    def expire(self, step: Any) -> None:
        """Do what deadlines ask for by now: a piece of it, where it is much."""
        ...

    @property
    def has_work(self) -> bool:
        """Whether there is something to be done piece by piece, whenever there is time."""
        ...

    def work(self, step: Any) -> None:
        """Do one piece of that."""
        ...

    # Fail-over --------------------------------------------------------------------------------------------

    def loading(self) -> Pieces:
        """All of the log was replayed: bring to life what it holds."""
        ...

    def unloading(self) -> Pieces:
        """Another node takes over: tell all who wait, and forget everything."""
        ...
