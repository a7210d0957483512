"""A read_committed consumer: it passes over what was aborted, as Kafka's does by the list of each answer."""

from __future__ import annotations

from typing import Any

from ottla.explore.campaign.consumer import Consumer
from ottla.explore.campaign.model import NO_LOST_WRITE
from ottla.explore.campaign.txn_model import NOTHING_UNDECIDED, STABLE, TransactionModel
from ottla.log.markers import read_marker
from ottla.types import TopicPartition
from ottla.wire.records import iter_batches, iter_records


class CommittedConsumer(Consumer):
    """Reads all partitions of its topics, again and again from the start now and then."""

    isolation_level = 1

    def __init__(self, *args: Any, transactions: TransactionModel, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.transactions = transactions
        # All that it was given, by partition and offset.
        self.view: dict[TopicPartition, dict[int, bytes]] = {}
        self._asked_epochs: dict[TopicPartition, int] = {}
        self._stable: dict[tuple[TopicPartition, int], int] = {}

    def _request(self, wheres: list[TopicPartition]) -> dict[str, Any]:
        for where in wheres:
            self._asked_epochs[where] = self.leaders[where][1]
        return super()._request(wheres)

    def _take_answer(self, where: TopicPartition, answer: Any) -> None:
        stable = answer.last_stable_offset
        reign = where, self._asked_epochs[where]
        if stable < self._stable.get(reign, 0):
            self.model.violate(STABLE, f"{where} epoch {reign[1]}: {self._stable[reign]}, then {stable}")
        self._stable[reign] = stable
        # Producers whose aborted transaction begins at or before a batch, and has not ended before it.
        waiting = sorted(
            ((one.first_offset, one.producer_id) for one in answer.aborted_transactions or ()), reverse=True
        )
        aborted: set[int] = set()
        position = self.positions[where]
        for header, batch in iter_batches(answer.records or b""):
            if header.next_offset <= position:
                continue
            if header.base_offset > position:
                what = f"{self.name} reads {where} at {position} and is given {header.base_offset}"
                self.model.violate(NO_LOST_WRITE, what)
            if header.next_offset > stable:
                self.model.violate(
                    NOTHING_UNDECIDED, f"{where} {header.base_offset}: {stable} is the last stable offset"
                )
            while waiting and waiting[-1][0] <= header.last_offset:
                aborted.add(waiting.pop()[1])
            if header.is_control:
                marker = read_marker(batch)
                if marker is not None and not marker.commits:
                    aborted.discard(header.producer_id)
            elif not (header.is_transactional and header.producer_id in aborted):
                self._take_batch(where, position, batch)
            position = header.next_offset
        self.positions[where] = position

    def _take_batch(self, where: TopicPartition, position: int, batch: Any) -> None:
        for record in iter_records(batch):
            if record.offset >= position:
                value = bytes(record.value or b"")
                self.transactions.saw(where, record.offset, value, self.name)
                self.view.setdefault(where, {})[record.offset] = value
