"""What an answer waits for: the disk where the topic asks for it, and with acks=all the replicas in sync."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial as bind
from typing import Any

from ottla.broker.request import RequestContext
from ottla.broker.views.leader import leader_fields, leader_nodes
from ottla.env.deferred import Deferred
from ottla.errors import ErrorCode, KafkaError
from ottla.log.validation import Faults, RecordsRefused
from ottla.replication.isr import Leading
from ottla.replication.partition import Partition

# A flush under way, and the answer that is true only after it.
Flush = tuple[asyncio.Future[None], dict[str, Any]]
# A partition, as what it led when it appended, the offset that has to be committed, and the answer that is
# true only then.
Uncommitted = tuple[Partition, Leading | None, int, dict[str, Any]]
Fields = dict[str, Any]
# What finds the records for whose sake a batch was refused, and the answer that is to name them.
Search = tuple[Callable[[], Faults], Fields]


def add_nodes(ctx: RequestContext, fields: Fields) -> None:
    """Say where the leaders are to be found that the answers name."""
    answers = [answer for topic in fields["responses"] for answer in topic["partition_responses"]]
    fields["node_endpoints"] = leader_nodes(ctx, answers)


def leader_of(ctx: RequestContext, topic: Any, index: int, error: KafkaError) -> Fields:
    leader = leader_fields(ctx, topic, index, error)
    return {} if leader is None else {"current_leader": leader}


def log_start(ctx: RequestContext, topic: Any, index: int, by_id: bool) -> int:
    """Where a partition's log begins, -1 where there is none here."""
    replicas = ctx.services.replicas
    try:
        return replicas.get(replicas.topic_name(topic) if by_id else topic, index).log.log_start_offset
    except KafkaError:
        return -1


def refusal(index: int, error: KafkaError, log_start_offset: int = -1) -> Fields:
    """The answer for a partition of which nothing was appended."""
    return {
        "index": index,
        "error_code": error.code,
        "base_offset": -1,
        "log_append_time_ms": -1,
        "log_start_offset": log_start_offset,
        "record_errors": named(error.faults) if isinstance(error, RecordsRefused) else (),
        "error_message": error.message,
    }


def named(faults: Faults) -> list[Fields]:
    """Records that are at fault (KIP-467)."""
    return [{"batch_index": at, "batch_index_error_message": why} for at, why in faults.records]


def failure(error: KafkaError) -> Fields:
    """What becomes of the answer for a batch that was appended, but of which no more can be promised: as in
    Kafka it says where the batch was put all the same."""
    return {"error_code": error.code, "error_message": error.message}


async def when_searched(ctx: RequestContext, searches: list[Search], reply: Any) -> Fields:
    """Name the records for whose sake batches were refused, once they have been found off the loop."""
    for search, answer in searches:
        try:
            faults = await ctx.services.disk.run(search)
        except KafkaError as error:
            # What cannot be read is refused for that instead.
            answer |= {"error_code": error.code, "error_message": error.message}
        else:
            answer |= {
                "error_code": faults.code,
                "error_message": faults.message,
                "record_errors": named(faults),
            }
    fields: Fields = reply if isinstance(reply, dict) else await reply
    return fields


async def when_flushed(flushes: list[Flush], fields: dict[str, Any]) -> dict[str, Any]:
    for flushed, answer in flushes:
        try:
            await flushed
        except KafkaError as error:
            answer.update(refusal(answer["index"], error))
    return fields


async def when_both(flushes: list[Flush], committed: Deferred[Fields]) -> Fields:
    """On this node's disk, and in the logs of the others: either way round."""
    fields = await committed
    return await when_flushed(flushes, fields)


class Commit:
    """A Produce with acks=all that waits until its batches are in the log of every in-sync replica.

    They stay in the log whatever becomes of the request: one that expires, or whose client goes away, is only
    not told of them.
    """

    __slots__ = ("_ctx", "_failed", "_fields", "_left", "_timer", "_waiting", "reply")

    def __init__(
        self, ctx: RequestContext, uncommitted: list[Uncommitted], fields: Fields, timeout_ms: int
    ) -> None:
        self.reply: Deferred[Fields] = Deferred(on_cancel=self._forget)
        self._ctx = ctx
        self._fields = fields
        self._failed = False
        self._left = len(uncommitted)
        self._waiting = [
            (partition, bind(self._committed, partition, answer), answer)
            for partition, _, _, answer in uncommitted
        ]
        self._timer = ctx.services.deadlines.add(max(timeout_ms, 0), self._expire)
        for (partition, leading, offset, _), (_, committed, _) in zip(
            uncommitted, self._waiting, strict=True
        ):
            if partition.leading is leading:
                partition.when_committed(offset, committed)
            else:
                # While others were appended somebody else may have led, with other records at that offset.
                committed(KafkaError(ErrorCode.not_leader_or_follower))

    def _committed(self, partition: Partition, answer: Fields, error: KafkaError | None) -> None:
        if error is not None:
            self._failed = True
            name, index = partition.topic_partition
            answer.update(failure(error), **leader_of(self._ctx, name, index, error))
        self._left -= 1
        if not self._left:
            self._timer.cancel()
            self._answer()

    def _answer(self) -> None:
        self._waiting = []
        if self._failed:
            add_nodes(self._ctx, self._fields)
        self.reply.resolve(self._fields)

    def _expire(self) -> None:
        """The batches stay in the log, and may still be committed: the client cannot know."""
        for partition, committed, answer in self._waiting:
            if partition.forget_commit(committed):
                answer.update(failure(KafkaError(ErrorCode.request_timed_out)))
        self._answer()

    def _forget(self) -> None:
        self._timer.cancel()
        waiting, self._waiting = self._waiting, []
        for partition, committed, _ in waiting:
            partition.forget_commit(committed)
