"""Which open transactions nobody is going to end (KIP-664, Kafka's FindHangingTransactionsCommand). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from ottla.types import TopicPartition


class ProducerState(NamedTuple):
    """A producer that a partition's log knows; offset, sequence, time and coordinator epoch are -1 where it
    has none."""

    producer_id: int
    producer_epoch: int
    coordinator_epoch: int
    last_sequence: int
    last_timestamp_ms: int
    start_offset: int

    @property
    def is_open(self) -> bool:
        """Whether it has a transaction open in the partition."""
        return self.start_offset >= 0

    def to_json(self) -> dict[str, int | None]:
        """For `--json`; an offset that there is not is null."""
        return {**self._asdict(), "start_offset": self.start_offset if self.is_open else None}


class Description(NamedTuple):
    """What the coordinator knows of a transactional id; ``start_ms`` is -1 where no transaction is open."""

    transactional_id: str
    coordinator_id: int
    producer_id: int
    producer_epoch: int
    state: str
    timeout_ms: int
    start_ms: int
    partitions: frozenset[TopicPartition]


class OpenTransaction(NamedTuple):
    """A transaction that is open in a partition."""

    partition: TopicPartition
    producer: ProducerState

    def age_ms(self, now_ms: int) -> int:
        """Since its last record."""
        return now_ms - self.producer.last_timestamp_ms


def open_longer(
    producers: Mapping[TopicPartition, Iterable[ProducerState]], now_ms: int, timeout_ms: int
) -> Iterator[OpenTransaction]:
    """The transactions whose last record is older than ``timeout_ms``: producers may have none so long."""
    for partition, states in producers.items():
        for state in states:
            found = OpenTransaction(partition, state)
            if state.is_open and found.age_ms(now_ms) > timeout_ms:
                yield found


def hanging(
    candidates: Iterable[OpenTransaction],
    transactional_ids: Mapping[int, str],
    descriptions: Mapping[str, Description | None],
) -> list[OpenTransaction]:
    """Those whose partition no coordinator knows as part of the producer's transaction, so that no marker
    is going to come.

    ``transactional_ids`` by producer id; where one has none, or the coordinator does not know it any more,
    whatever its producer has open hangs.
    """
    found = []
    for one in candidates:
        transactional_id = transactional_ids.get(one.producer.producer_id)
        description = None if transactional_id is None else descriptions.get(transactional_id)
        if description is None or one.partition not in description.partitions:
            found.append(one)
    return found
