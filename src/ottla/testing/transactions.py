"""Transactions of the broker for tests: what there is, and ending one without its client."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import NamedTuple

from ottla.coordinators.transactions.requests import InitRequest
from ottla.errors import ErrorCode, KafkaError
from ottla.log.markers import read_marker
from ottla.metadata.image import TRANSACTION_STATE_TOPIC
from ottla.node import Node
from ottla.testing.running import RunningNodes
from ottla.types import Buffer, TopicPartition
from ottla.wire.records import BatchHeader


class Transaction(NamedTuple):
    """What the broker knows of a transactional id.

    ``state`` is Kafka's name: Empty, Ongoing, PrepareCommit, PrepareAbort, CompleteCommit, CompleteAbort.
    ``partitions`` have been written to by the transaction that is open, or being ended.
    """

    state: str
    producer_id: int
    producer_epoch: int
    timeout_ms: int
    partitions: tuple[TopicPartition, ...]


async def transactions(nodes: RunningNodes) -> dict[str, Transaction]:
    """All transactional ids of all nodes that run, once all coordinators are loaded."""
    return await nodes.served(partial(_all, nodes))


async def _all(nodes: RunningNodes) -> dict[str, Transaction]:
    nodes.check_served(TRANSACTION_STATE_TOPIC)
    found: dict[str, Transaction] = {}
    for node in nodes.nodes.values():
        found |= _of_node(node)
    return dict(sorted(found.items()))


def _of_node(node: Node) -> dict[str, Transaction]:
    """KafkaError while one of its coordinators is being loaded."""
    coordinator = node.services.transactions
    found = {}
    for listed in sorted(coordinator.transactions()):
        name = listed.transactional_id
        one = coordinator.describe(name)
        if one.error == ErrorCode.none:
            partitions = tuple(sorted(one.partitions))
            found[name] = Transaction(
                one.state, one.producer_id, one.producer_epoch, one.timeout_ms, partitions
            )
    return found


async def abort(nodes: RunningNodes, transactional_id: str) -> None:
    """Abort what is open, and fence who opened it, as another producer of that id does at its start.

    KafkaError TRANSACTIONAL_ID_NOT_FOUND where nobody has had the id. Nothing happens where nothing is open.
    """
    await nodes.served(partial(_abort, nodes, transactional_id))


async def _abort(nodes: RunningNodes, transactional_id: str) -> None:
    node = await nodes.coordinator(TRANSACTION_STATE_TOPIC, transactional_id)
    known = None
    if node is not None:
        node.services.transactions.host.shard(transactional_id)
        known = _of_node(node).get(transactional_id)
    if node is None or known is None:
        raise KafkaError(ErrorCode.transactional_id_not_found, f"nobody had {transactional_id!r} so far")
    if known.state != "Ongoing":
        return
    answer = await node.services.transactions.init(InitRequest(transactional_id, known.timeout_ms))
    # It is told to ask for its own id again once the other's transaction is ended.
    if answer.error not in (ErrorCode.none, ErrorCode.concurrent_transactions):
        raise KafkaError(answer.error)


def read_committed(batches: Iterable[tuple[BatchHeader, Buffer]]) -> Iterator[tuple[BatchHeader, Buffer]]:
    """Of a partition's batches those that a consumer with isolation.level=read_committed gets."""
    kept = list(batches)
    # Where the open transaction of each producer began, by producer id.
    open_since: dict[int, int] = {}
    aborted: list[tuple[int, int, int]] = []
    for header, batch in kept:
        if not header.is_control:
            if header.is_transactional:
                open_since.setdefault(header.producer_id, header.base_offset)
            continue
        start = open_since.pop(header.producer_id, None)
        marker = read_marker(batch)
        if start is not None and (marker is None or not marker.commits):
            aborted.append((header.producer_id, start, header.base_offset))
    stable = min(open_since.values(), default=None)
    for header, batch in kept:
        if stable is not None and header.base_offset >= stable:
            return
        is_aborted = header.is_transactional and any(
            header.producer_id == producer_id and start <= header.base_offset < end
            for producer_id, start, end in aborted
        )
        if not is_aborted:
            yield header, batch
