"""WriteTxnMarkers: the ends of transactions, for partitions that this node leads (KIP-98).

v1 flexible; v2 which protocol a transaction ended in (KIP-1228). It comes from coordinators, and from the
admin client that aborts a hanging transaction (KIP-664); Kafka asks for ALTER or CLUSTER_ACTION on the
cluster. Markers are answered once they are committed, and offsets can be seen.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from ottla.broker.large import Pace, is_large
from ottla.broker.request import Fields, RequestContext
from ottla.env.deadlines import Deadline
from ottla.env.deferred import Deferred
from ottla.errors import ErrorCode
from ottla.types import TopicPartition, TxnMarker

# How long markers are waited for; whoever sent them sends them again (Kafka's request.timeout.ms).
TIMEOUT_MS = 30_000


def handle(ctx: RequestContext, request: Any) -> Awaitable[Fields]:
    """By partition: INVALID_REQUEST, UNKNOWN_TOPIC_OR_PARTITION and NOT_LEADER_OR_FOLLOWER,
    NOT_ENOUGH_REPLICAS and what else an append meets, INVALID_PRODUCER_EPOCH, TRANSACTION_COORDINATOR_FENCED;
    REQUEST_TIMED_OUT, after which the marker may still be committed."""
    writing = _Writing(ctx)
    if is_large(ctx):
        return _write_slowly(ctx, request, writing)
    for marker in request.markers:
        for where in _partitions(marker):
            writing.write(_marker(marker), where)
    writing.all_written()
    return writing.done


async def _write_slowly(ctx: RequestContext, request: Any, writing: _Writing) -> Fields:
    pace = Pace(ctx)
    for marker in request.markers:
        for where in _partitions(marker):
            writing.write(_marker(marker), where)
            if pace.is_over():
                await pace.pause()
    writing.all_written()
    return await writing.done


def _partitions(marker: Any) -> list[TopicPartition]:
    return [TopicPartition(topic.name, index) for topic in marker.topics for index in topic.partition_indexes]


def _marker(marker: Any) -> TxnMarker:
    return TxnMarker(
        marker.producer_id,
        marker.producer_epoch,
        marker.coordinator_epoch,
        marker.transaction_result,
        getattr(marker, "transaction_version", 0),
    )


class _Writing:
    """The markers of one request, until it is known what has become of each."""

    __slots__ = ("_ctx", "_deadline", "_left", "_results", "done")

    def __init__(self, ctx: RequestContext) -> None:
        self._ctx = ctx
        self.done: Deferred[Fields] = Deferred()
        # By producer id, as the answer is; None where it is not known yet. One more is left until all are
        # written.
        self._results: dict[int, dict[TopicPartition, ErrorCode | None]] = {}
        self._left = 1
        self._deadline: Deadline | None = None

    def write(self, marker: TxnMarker, where: TopicPartition) -> None:
        results = self._results.setdefault(marker.producer_id, {})
        results[where] = None
        self._left += 1

        def told(code: ErrorCode) -> None:
            results[where] = code
            self._one_less()

        is_one = marker.producer_id >= 0 and marker.producer_epoch >= 0
        if not is_one and where in self._ctx.services.replicas.partitions:
            # No batch may have such; Kafka fails where it would make one.
            told(ErrorCode.invalid_request)
        else:
            self._ctx.services.marker_writer.write(where, marker, told)

    def all_written(self) -> None:
        self._one_less()
        if not self.done.done:
            self._deadline = self._ctx.services.deadlines.add(TIMEOUT_MS, self._answer)

    def _one_less(self) -> None:
        self._left -= 1
        if not self._left:
            if self._deadline is not None:
                self._deadline.cancel()
            self._answer()

    def _answer(self) -> None:
        late = ErrorCode.request_timed_out
        markers = []
        for producer_id, results in self._results.items():
            topics: dict[str, list[Fields]] = {}
            for (topic, partition), code in results.items():
                told = {"partition_index": partition, "error_code": late if code is None else code}
                topics.setdefault(topic, []).append(told)
            markers.append(
                {
                    "producer_id": producer_id,
                    "topics": [{"name": name, "partitions": each} for name, each in topics.items()],
                }
            )
        self.done.resolve({"markers": markers})
