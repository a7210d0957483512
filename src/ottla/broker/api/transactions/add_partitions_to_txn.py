"""AddPartitionsToTxn: partitions that a transaction writes to (KIP-98, KIP-890).

v0-1 plain; v2 PRODUCER_FENCED; v3 flexible: these come from clients, for one transaction. v4 many
transactions, each of which may only be asked about (``verify_only``); v5 TRANSACTION_ABORTABLE: these come
from the leaders of partitions, before they take the first batch of a transaction. All partitions of one are
added, or none: where one cannot be, the others get OPERATION_NOT_ATTEMPTED.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from ottla.broker.api.transactions.versions import told
from ottla.broker.large import Pace, allowed, is_large
from ottla.broker.request import Fields, RequestContext
from ottla.coordinators.transactions.metadata import TV_0, TV_2
from ottla.coordinators.transactions.requests import AddRequest
from ottla.env.deferred import Deferred
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.image import INTERNAL_TOPICS
from ottla.security.acl_bindings import Operation, ResourceType
from ottla.security.refused import refused
from ottla.types import TopicPartition

log = logging.getLogger(__name__)

FENCED_SINCE = 2
BATCHED_SINCE = 4

Errors = Mapping[TopicPartition, ErrorCode]


def handle(ctx: RequestContext, request: Any) -> Fields | Awaitable[Fields]:
    """By partition: NOT_COORDINATOR, COORDINATOR_LOAD_IN_PROGRESS, INVALID_PRODUCER_ID_MAPPING,
    PRODUCER_FENCED, CONCURRENT_TRANSACTIONS, TRANSACTION_ABORTABLE; UNKNOWN_TOPIC_OR_PARTITION, and from
    clients TRANSACTIONAL_ID_AUTHORIZATION_FAILED without WRITE on the id, TOPIC_AUTHORIZATION_FAILED without
    it on the topic, and for internal ones. CLUSTER_AUTHORIZATION_FAILED for a node's request
    on a listener that is not for nodes."""
    if ctx.api_version >= BATCHED_SINCE:
        if not ctx.services.replicas.is_for_nodes(ctx.listener):
            raise KafkaError(ErrorCode.cluster_authorization_failed)
        batch = _Batch(ctx, request.transactions)
        return batch.ask_slowly() if is_large(ctx) else batch.ask_all()
    if not ctx.may(Operation.WRITE, ResourceType.TRANSACTIONAL_ID, request.v3_and_below_transactional_id):
        raise refused(ResourceType.TRANSACTIONAL_ID)
    if is_large(ctx):
        return _add_slowly(ctx, request)

    def may_write(topic: str) -> bool:
        return topic not in INTERNAL_TOPICS and ctx.may(Operation.WRITE, ResourceType.TOPIC, topic)

    return _add_old(ctx, request, may_write)


async def _add_slowly(ctx: RequestContext, request: Any) -> Fields:
    """Of many topics it is asked first what the client may do, with others' turns in between."""
    names = [topic.name for topic in request.v3_and_below_topics if topic.name not in INTERNAL_TOPICS]
    writable = await allowed(ctx, Operation.WRITE, ResourceType.TOPIC, names)

    def may_write(topic: str) -> bool:
        return topic not in INTERNAL_TOPICS and topic in writable

    fields: Fields = await _add_old(ctx, request, may_write)
    return fields


def _add_old(ctx: RequestContext, request: Any, may_write: Callable[[str], bool]) -> Deferred[Fields]:
    """What a client asks for up to v3."""
    asked = AddRequest(
        request.v3_and_below_transactional_id,
        request.v3_and_below_producer_id,
        request.v3_and_below_producer_epoch,
        _partitions(request.v3_and_below_topics),
        TV_0,
        may_wait=True,
    )
    return _add(ctx, asked, request.v3_and_below_topics, may_write).then(
        lambda results: {"throttle_time_ms": 0, "results_by_topic_v3_and_below": results}
    )


class _Batch:
    """Transactions that are asked for together, and answered once each is."""

    __slots__ = ("_answer", "_ctx", "_left", "_results", "_transactions")

    def __init__(self, ctx: RequestContext, transactions: Sequence[Any]) -> None:
        self._ctx = ctx
        self._transactions = transactions
        self._answer: Deferred[Fields] = Deferred()
        self._results: list[Fields] = [{}] * len(transactions)
        # One more is left until all are asked for.
        self._left = len(transactions) + 1

    def ask_all(self) -> Deferred[Fields]:
        for place, one in enumerate(self._transactions):
            self._ask(place, one)
        self._one_less()
        return self._answer

    async def ask_slowly(self) -> Fields:
        """As ``ask_all``, where they are many: others have their turns in between."""
        pace = Pace(self._ctx)
        for place, one in enumerate(self._transactions):
            self._ask(place, one)
            if pace.is_over():
                await pace.pause()
        self._one_less()
        return await self._answer

    def _ask(self, place: int, one: Any) -> None:
        partitions = _partitions(one.topics)
        asked = AddRequest(one.transactional_id, one.producer_id, one.producer_epoch, partitions, TV_2)
        if one.verify_only:
            errors = _unknown(self._ctx, asked, None)
            errors = errors or self._ctx.services.transactions.verify(asked)
            self._told(place, asked, _results(errors, self._ctx.api_version))
        else:
            self._wait(place, asked, _add(self._ctx, asked, one.topics, None))

    def _wait(self, place: int, asked: AddRequest, results: Deferred[list[Fields]]) -> None:
        results.listen(lambda done: self._told(place, asked, done.result()))

    def _told(self, place: int, asked: AddRequest, results: list[Fields]) -> None:
        self._results[place] = {"transactional_id": asked.transactional_id, "topic_results": results}
        self._one_less()

    def _one_less(self) -> None:
        self._left -= 1
        if not self._left:
            self._answer.resolve(
                {
                    "throttle_time_ms": 0,
                    "error_code": ErrorCode.none,
                    "results_by_transaction": self._results,
                }
            )


def _partitions(topics: Iterable[Any]) -> frozenset[TopicPartition]:
    return frozenset([TopicPartition(topic.name, index) for topic in topics for index in topic.partitions])


def _add(
    ctx: RequestContext, asked: AddRequest, topics: Sequence[Any], may_write: Callable[[str], bool] | None
) -> Deferred[list[Fields]]:
    """What becomes of each partition of ``topics``; it never fails. ``may_write``: to which topics a client
    may write, where it is one that asks."""
    answer: Deferred[list[Fields]] = Deferred()
    unknown = _unknown(ctx, asked, may_write)
    if unknown:
        answer.resolve(_results(unknown, ctx.api_version))
        return answer

    def tell(done: Deferred[ErrorCode]) -> None:
        error = done.error
        if error is None:
            code = done.result()
        elif isinstance(error, KafkaError):
            code = error.code
        else:
            log.error("transactional id %s: %r", asked.transactional_id, error, exc_info=error)
            code = ErrorCode.unknown_server_error
        answer.resolve(_alike(topics, told(code, ctx.api_version, FENCED_SINCE)))

    ctx.services.transactions.add(asked).listen(tell)
    return answer


def _unknown(ctx: RequestContext, asked: AddRequest, may_write: Callable[[str], bool] | None) -> Errors:
    """Empty, or why the partitions cannot be written to: some of them, and the others for their sake."""
    topics = ctx.services.metadata.image.topics
    errors: dict[TopicPartition, ErrorCode] = {}
    for where in asked.partitions:
        topic = topics.get(where.topic)
        if may_write is not None and not may_write(where.topic):
            errors[where] = ErrorCode.topic_authorization_failed
        elif topic is None or not 0 <= where.partition < len(topic.partitions):
            errors[where] = ErrorCode.unknown_topic_or_partition
    if errors:
        others = ErrorCode.operation_not_attempted
        errors |= {where: others for where in asked.partitions if where not in errors}
    return errors


def _alike(topics: Iterable[Any], code: ErrorCode) -> list[Fields]:
    """All partitions fare alike: each is told as often as it was named, and topics without any are told."""
    return [
        {
            "name": topic.name,
            "results_by_partition": [
                {"partition_index": index, "partition_error_code": code} for index in topic.partitions
            ],
        }
        for topic in topics
    ]


def _results(errors: Errors, version: int) -> list[Fields]:
    topics: dict[str, list[Fields]] = {}
    for (topic, partition), code in errors.items():
        result = {"partition_index": partition, "partition_error_code": told(code, version, FENCED_SINCE)}
        topics.setdefault(topic, []).append(result)
    return [{"name": name, "results_by_partition": results} for name, results in topics.items()]
