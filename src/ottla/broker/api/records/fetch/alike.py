"""Consumers that wait for the same get the same, which is looked up, read and written once.

What is appended to a partition wakes all that wait for it at once (`Turn`). Where two of them have asked for
the same, in the same version, their answers differ in the correlation id alone.
"""

from __future__ import annotations

from typing import Any, Final

from ottla.broker.api.records.fetch.reader import Collected, Limits, Reader
from ottla.broker.request import RequestContext

# Answers that are kept until the turn is over, each of so many bytes at most: those who wait for more do so
# for longer than it takes to make it.
ANSWERS_MAX: Final = 64
ANSWER_BYTES_MAX: Final = 256 * 1024

Key = tuple[Any, ...]


def key_of(ctx: RequestContext, reader: Reader) -> Key | None:
    """What the answer follows from to a consumer of one partition, without a session; None for others."""
    wants, limits = reader.wants, reader.limits
    if len(wants) != 1 or limits.follower_id >= 0 or limits.rack:
        return None
    want = wants[0]
    partition = want.replica
    if partition is None or partition.removed:
        return None
    state = partition.state
    return (
        partition,
        want.fetch_offset,
        partition.high_watermark,
        partition.log.log_start_offset,
        ctx.header.api_version,
        min(want.max_bytes, limits.max_bytes, ctx.services.memory.room_bytes),
        limits.min_bytes,
        limits.committed,
        want.current_leader_epoch,
        want.last_fetched_epoch,
        state.leader_epoch,
        state.partition_epoch,
        partition.leading is None,
        want.topic,
    )


def is_for_all(collected: Collected, limits: Limits) -> bool:
    """Whether others may get the same: it has records, and as many as are waited for."""
    return (
        not collected.final
        and max(limits.min_bytes, 1) <= collected.size <= ANSWER_BYTES_MAX
        and not any(one.answer["error_code"] for one in collected.found)
    )
