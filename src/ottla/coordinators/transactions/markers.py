"""Markers to the leaders of a transaction's partitions, until each has one (TransactionMarkerChannelManager).

One request at a time goes to each node, with all markers that have come for it by then. What fails is sent
again, to whoever leads by then: for as long as the coordinator is one, or until the topic is gone. What this
node leads is written at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Any, Protocol

from ottla.coordinators.transactions.marker_writer import MarkerWriter
from ottla.coordinators.transactions.requests import MarkersToSend
from ottla.env.clock import Clock, Timer
from ottla.env.slices import Slices
from ottla.errors import ErrorCode
from ottla.metadata.image import ClusterImage
from ottla.replication.nodes import Nodes
from ottla.types import TopicPartition, TxnMarker
from ottla.wire.apis import WRITE_TXN_MARKERS

log = logging.getLogger(__name__)

WRITE_TXN_MARKERS_VERSION = 2
# In one request: with their topics they are to be within what one may have.
PARTITIONS_PER_REQUEST = 4_000
# Partitions of this node that are written to in one turn, of however many transactions.
WRITTEN_AT_ONCE = 50
# How long until markers are sent again that a leader has refused, or that have no leader.
RETRY_MS_MIN, RETRY_MS_MAX = 50, 1_000

# What a partition's error means: its marker is there, or not wanted any more.
_DONE = frozenset(
    {
        ErrorCode.none,
        # A later producer writes there already: nothing of this transaction is open.
        ErrorCode.invalid_producer_epoch,
        # Nothing could be written to it in a transaction.
        ErrorCode.unsupported_for_message_format,
        ErrorCode.unsupported_version,
    }
)


class HasImage(Protocol):
    """Who has the image, always the latest."""

    image: ClusterImage


class Sending:
    """The markers of one transaction, as far as they are not written."""

    __slots__ = ("backoff_ms", "done", "failed", "is_wanted", "marker", "name")

    def __init__(
        self,
        name: str,
        marker: TxnMarker,
        done: Callable[[set[TopicPartition]], None],
        is_wanted: Callable[[], bool],
    ) -> None:
        self.name = name
        self.marker = marker
        self.done = done
        self.is_wanted = is_wanted
        self.backoff_ms = RETRY_MS_MIN
        # The partitions that are tried again when the time comes, all of them together.
        self.failed: list[TopicPartition] = []

    def next_backoff_ms(self) -> int:
        backoff_ms, self.backoff_ms = self.backoff_ms, min(self.backoff_ms * 2, RETRY_MS_MAX)
        return backoff_ms


# Partitions of one transaction that have one leader.
Part = tuple[Sending, list[TopicPartition]]


class Markers:
    """See the module's docstring. All methods run on the event loop."""

    def __init__(
        self,
        node_id: int,
        images: HasImage,
        writer: MarkerWriter,
        nodes: Nodes | None,
        clock: Clock,
        slices: Slices,
    ) -> None:
        """``nodes``: None where there are no others."""
        self._node_id = node_id
        self._images = images
        self._writer = writer
        self._nodes = nodes
        self._clock = clock
        self._slices = slices
        # What is to go to each node, and those that have been asked and not answered.
        self._queues: dict[int, list[Part]] = {}
        self._asked: set[int] = set()
        self._retries: set[Timer] = set()
        # Partitions of this node that may still be written to in this turn of the loop.
        self._left = WRITTEN_AT_ONCE
        # Those that wait for one of the next, and whether that is to come.
        self._here: deque[Part] = deque()
        self._writes_soon = False
        self._closed = False

    def send(
        self,
        markers: MarkersToSend,
        coordinator_epoch: int,
        done: Callable[[set[TopicPartition]], None],
        is_wanted: Callable[[], bool],
    ) -> None:
        """Have each partition get its marker; ``done`` is told of some at a time, while ``is_wanted``."""
        marker = TxnMarker(
            markers.producer_id,
            markers.producer_epoch,
            coordinator_epoch,
            markers.commit,
            markers.transaction_version,
        )
        self._route(Sending(markers.transactional_id, marker, done, is_wanted), markers.partitions)

    def close(self) -> None:
        """Send no more, and tell nobody."""
        self._closed = True
        self._queues.clear()
        self._here.clear()
        for timer in self._retries:
            timer.cancel()
        self._retries.clear()

    # -- who leads

    def _route(self, sending: Sending, partitions: Collection[TopicPartition]) -> None:
        """Send markers to where their partitions are led now: of a usual transaction in an order that does
        not follow addresses, so that what happens can be repeated."""
        if self._closed or not sending.is_wanted():
            return
        topics, brokers = self._images.image.topics, self._images.image.brokers
        gone: set[TopicPartition] = set()
        led: dict[int, list[TopicPartition]] = {}
        in_order = len(partitions) <= PARTITIONS_PER_REQUEST
        for where in sorted(partitions) if in_order else partitions:
            topic = topics.get(where.topic)
            if topic is None or not 0 <= where.partition < len(topic.partitions):
                gone.add(where)
                continue
            leader = topic.partitions[where.partition].leader
            led.setdefault(leader if leader in brokers else -1, []).append(where)
        for leader, parts in led.items():
            if leader == self._node_id:
                self._write(sending, parts)
            elif leader < 0 or self._nodes is None:
                self._retry(sending, parts)
            else:
                self._queues.setdefault(leader, []).append((sending, parts))
                self._ask(leader)
        if gone:
            log.info("transaction %s: %d partitions of it are gone", sending.name, len(gone))
            sending.done(gone)

    def _retry(self, sending: Sending, partitions: Iterable[TopicPartition]) -> None:
        is_first = not sending.failed
        sending.failed += partitions
        if not is_first:
            return

        def again() -> None:
            self._retries.discard(timer)
            failed, sending.failed = sending.failed, []
            self._route(sending, failed)

        timer = self._clock.call_later(sending.next_backoff_ms(), again)
        self._retries.add(timer)

    # -- here

    def _write(self, sending: Sending, partitions: list[TopicPartition]) -> None:
        """Write markers here: now, or in the loop's next turns behind those of others."""
        rest = partitions if self._here else self._write_some(sending, partitions)
        if rest:
            self._here.append((sending, rest))
            self._write_soon()

    def _write_soon(self) -> None:
        if self._here and not self._writes_soon:
            self._writes_soon = True
            self._slices.soon(self._write_more)

    def _write_more(self) -> None:
        self._writes_soon = False
        try:
            while self._here and self._left:
                sending, partitions = self._here.popleft()
                rest = self._write_some(sending, partitions) if sending.is_wanted() else None
                if rest:
                    # A large transaction is not to be in the way of all that come behind it.
                    self._here.append((sending, rest))
        finally:
            # Whatever has happened to one of them.
            self._write_soon()

    def _write_some(self, sending: Sending, partitions: list[TopicPartition]) -> list[TopicPartition]:
        """Write as many as this turn has room for; the rest."""
        if self._left == WRITTEN_AT_ONCE:
            asyncio.get_running_loop().call_soon(self._begin_turn)
        count = min(len(partitions), self._left)
        self._left -= count
        written: dict[TopicPartition, ErrorCode] = {}
        # Those that are written at once are told of together; those that are not, each when it is.
        told: Callable[[TopicPartition, ErrorCode], None] = written.__setitem__

        for where in partitions[:count]:
            self._writer.write(where, sending.marker, lambda code, where=where: told(where, code))  # type: ignore[misc]
        told = partial(self._written, sending)
        if written:
            self._take(sending, written)
        return partitions[count:]

    def _begin_turn(self) -> None:
        self._left = WRITTEN_AT_ONCE

    def _written(self, sending: Sending, where: TopicPartition, code: ErrorCode) -> None:
        self._take(sending, {where: code})

    # -- elsewhere

    def _ask(self, node_id: int) -> None:
        """Send a node what has come for it, unless it has something to answer."""
        queue = self._queues.get(node_id)
        if not queue or node_id in self._asked or self._closed:
            return
        assert self._nodes is not None
        self._asked.add(node_id)
        parts = _some(queue)
        if not queue:
            del self._queues[node_id]
        fields = {"markers": [_fields(sending.marker, some) for sending, some in parts]}
        self._nodes.ask(
            node_id,
            WRITE_TXN_MARKERS,
            WRITE_TXN_MARKERS_VERSION,
            fields,
            lambda response: self._answered(node_id, parts, response),
        )

    def _answered(self, node_id: int, parts: list[Part], response: Any) -> None:
        self._asked.discard(node_id)
        results = {} if response is None else _results(response)
        for sending, partitions in parts:
            # A partition that is not answered for may have its marker or not: it can have another.
            told = results.get(sending.marker.producer_id, {})
            unknown = ErrorCode.network_exception
            self._take(sending, {where: told.get(where, unknown) for where in partitions})
        self._ask(node_id)

    def _take(self, sending: Sending, errors: dict[TopicPartition, ErrorCode]) -> None:
        """What has become of some of a transaction's markers (TransactionMarkerRequestCompletionHandler)."""
        if self._closed or not sending.is_wanted():
            return
        failed = [where for where, code in errors.items() if code not in _DONE]
        for where, code in errors.items():
            if code == ErrorCode.invalid_producer_epoch:
                log.warning("transaction %s: %s has a later producer already", sending.name, where)
        done = errors.keys() - failed
        if failed:
            code = errors[failed[0]]
            if code == ErrorCode.transaction_coordinator_fenced:
                # Somebody else coordinates it by now, and the image will say so here.
                log.info("transaction %s: another coordinator has written its markers", sending.name)
            self._retry(sending, failed)
        else:
            sending.backoff_ms = RETRY_MS_MIN
        if done:
            sending.done(set(done))


def _some(queue: list[Part]) -> list[Part]:
    """What goes into one request, taken from the queue: of each producer id one marker, since the answer is
    by that."""
    parts: list[Part] = []
    left = PARTITIONS_PER_REQUEST
    ids: set[int] = set()
    position = 0
    while position < len(queue) and left > 0:
        sending, partitions = queue[position]
        if sending.marker.producer_id in ids:
            position += 1
            continue
        ids.add(sending.marker.producer_id)
        parts.append((sending, partitions[:left]))
        if len(partitions) > left:
            queue[position] = (sending, partitions[left:])
            break
        left -= len(partitions)
        del queue[position]
    return parts


def _fields(marker: TxnMarker, partitions: Iterable[TopicPartition]) -> dict[str, Any]:
    topics: dict[str, list[int]] = {}
    for topic, partition in partitions:
        topics.setdefault(topic, []).append(partition)
    return {
        "producer_id": marker.producer_id,
        "producer_epoch": marker.producer_epoch,
        "transaction_result": marker.commits,
        "topics": [{"name": name, "partition_indexes": indexes} for name, indexes in topics.items()],
        "coordinator_epoch": marker.coordinator_epoch,
        "transaction_version": marker.transaction_version,
    }


def _results(response: Any) -> dict[int, dict[TopicPartition, ErrorCode]]:
    """The errors that a node has answered, by producer id; of a later version than ours, perhaps."""
    results: dict[int, dict[TopicPartition, ErrorCode]] = {}
    for marker in response.markers:
        errors = results.setdefault(marker.producer_id, {})
        for topic in marker.topics:
            for one in topic.partitions:
                errors[TopicPartition(topic.name, one.partition_index)] = _error(one.error_code)
    return results


def _error(code: int) -> ErrorCode:
    try:
        return ErrorCode(code)
    except ValueError:
        return ErrorCode.unknown_server_error
