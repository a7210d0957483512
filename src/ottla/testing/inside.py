"""What is in a broker or a cluster for tests: topics, records, groups, transactions; looked at, changed and
waited for without a client."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from ottla.testing import groups, topics, transactions
from ottla.testing.contents import StoredRecord
from ottla.testing.running import RunningNodes
from ottla.testing.transactions import Transaction
from ottla.types import Record, TopicPartition
from ottla.wire.records import build_batch

T = TypeVar("T")

WAIT_TIMEOUT_S = 10.0


class Group(NamedTuple):
    """A consumer group: ``state`` is Kafka's name (Empty, PreparingRebalance, CompletingRebalance, Stable,
    Dead), ``members`` how many consumers are in it."""

    state: str
    members: int


class Inside(ABC):
    """The methods that `Broker` and `Cluster` share. All of them may be called from any thread.

    A method whose name begins with ``wait`` blocks its thread: a coroutine calls it by ``asyncio.to_thread``.
    """

    @abstractmethod
    def _call(self, work: Callable[[RunningNodes], Coroutine[Any, Any, T]], timeout_s: float = 0) -> T:
        """Run on the nodes' event loop, and wait for the result, ``timeout_s`` longer than for others."""

    # ------------------------------------------------------------ topics and records

    def topics(self) -> dict[str, int]:
        """The topics and their numbers of partitions, without Kafka's internal ones."""
        return self._call(topics.topics)

    def delete_topic(self, name: str) -> None:
        """Delete a topic with its records and the groups' offsets of it; it is gone when this returns.

        KafkaError UNKNOWN_TOPIC_OR_PARTITION if there is no such topic.
        """
        self._call(lambda nodes: topics.delete(nodes, name))

    def delete_records(self, topic: str, partition: int | None = None) -> None:
        """Delete the records of a topic, or of one partition of it. Later records go on with the next offset.

        KafkaError if there is no such topic or partition.
        """
        self._call(lambda nodes: topics.delete_records(nodes, topic, partition))

    def produce(
        self,
        topic: str,
        *values: str | bytes | None,
        key: str | bytes | None = None,
        partition: int = 0,
        headers: Mapping[str, str | bytes | None] | None = None,
        timestamp_ms: int | None = None,
    ) -> int:
        """Append records with these values as one batch, and return the offset of the first.

        They share key, headers and timestamp (now). KafkaError where a client would get one.
        """
        packed = tuple((name, to_bytes(value)) for name, value in (headers or {}).items())

        def append(nodes: RunningNodes) -> Coroutine[Any, Any, int]:
            at_ms = nodes.any.services.clock.now_ms() if timestamp_ms is None else timestamp_ms
            batch = build_batch(
                [Record(0, at_ms, to_bytes(key), to_bytes(value), packed) for value in values]
            )
            return topics.append(nodes, topic, partition, batch)

        return self._call(append)

    def records(
        self, topic: str, partition: int | None = None, *, read_committed: bool = False
    ) -> list[StoredRecord]:
        """The records of a topic, or of one partition of it, by partition and offset. KafkaError if there is
        no such topic or partition.

        ``read_committed``: without records of aborted transactions, and up to the first open transaction.
        """
        return self._call(lambda nodes: topics.records(nodes, topic, partition, read_committed))

    def wait_for_records(
        self,
        topic: str,
        count: int = 1,
        *,
        partition: int | None = None,
        read_committed: bool = False,
        timeout_s: float = WAIT_TIMEOUT_S,
    ) -> list[StoredRecord]:
        """Wait until a topic has ``count`` records or more, and return all that it has, as `records` does.

        The topic may be created meanwhile. TimeoutError after ``timeout_s``: it says which records are there.
        """
        found = self._call(
            lambda nodes: topics.wait_for_records(nodes, topic, partition, read_committed, count, timeout_s),
            timeout_s,
        )
        return or_timeout(found)

    # ------------------------------------------------------------ groups

    def groups(self) -> dict[str, Group]:
        """The consumer groups.

        While a coordinator moves to another node or is loaded there, this waits, 20 s at most. So do
        `committed`, `transactions` and `abort`.
        """
        return {name: Group(*group) for name, group in self._call(groups.groups).items()}

    def committed(self, group: str) -> dict[TopicPartition, int]:
        """The offsets that a group has committed; empty if it has none. Keys equal plain pairs of topic and
        partition."""
        return self._call(lambda nodes: groups.committed(nodes, group))

    def wait_for_group(self, group: str, members: int = 1, *, timeout_s: float = WAIT_TIMEOUT_S) -> None:
        """Wait until a group is Stable with exactly ``members`` consumers: each has its partitions.

        ``members=0``: until the last consumer has left. TimeoutError after ``timeout_s``: it says in which
        state the group is.
        """
        found = self._call(lambda nodes: groups.wait_for_group(nodes, group, members, timeout_s), timeout_s)
        or_timeout(found)

    def wait_until_consumed(
        self, group: str, topic: str | None = None, *, timeout_s: float = WAIT_TIMEOUT_S
    ) -> None:
        """Wait until a group has committed offsets behind the last record of each partition of a topic, or
        of all topics of which it has committed any (then it must have committed one at least).

        Records of aborted and of open transactions do not count. TimeoutError after ``timeout_s``: it says
        what is committed and what is there, by partition.
        """
        found = self._call(
            lambda nodes: groups.wait_until_consumed(nodes, group, topic, timeout_s), timeout_s
        )
        or_timeout(found)

    # ------------------------------------------------------------ transactions

    def transactions(self) -> dict[str, Transaction]:
        """All transactional ids, with their producers and the states of their transactions."""
        return self._call(transactions.transactions)

    def abort(self, transactional_id: str) -> None:
        """Abort the open transaction of an id, and fence its producer, as the next one of that id does.

        KafkaError TRANSACTIONAL_ID_NOT_FOUND. Nothing happens where no transaction is open.
        """
        self._call(lambda nodes: transactions.abort(nodes, transactional_id))


def or_timeout(found: T | groups.Unmet) -> T:
    """What was waited for. TimeoutError if it did not come, with a hint if the wait itself prevented it."""
    if not isinstance(found, groups.Unmet):
        return found
    message = found.message
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise TimeoutError(message) from None
    raise TimeoutError(
        f"{message} (The wait blocked the event loop that it was called on, with all clients of that loop: "
        "write 'await asyncio.to_thread(broker.wait_..., ...)'.)"
    )


def topic_counts(topics: Mapping[str, int] | Iterable[str]) -> dict[str, int]:
    """Topics with their numbers of partitions, given so or as names. TypeError for one name alone."""
    if isinstance(topics, str):
        # Its characters would each be a topic.
        raise TypeError(f"topics={topics!r}: give a list of names, or names with partitions")
    return dict(topics) if isinstance(topics, Mapping) else dict.fromkeys(topics, 1)


def to_text(value: str | int | bool) -> str:
    """A setting's value as Kafka writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def to_bytes(value: str | bytes | None) -> bytes | None:
    """A key or value as it is stored. TypeError for anything else."""
    if isinstance(value, str):
        return value.encode()
    if value is None or isinstance(value, bytes):
        return value
    raise TypeError(f"give bytes, str or None, not {type(value).__name__}")
