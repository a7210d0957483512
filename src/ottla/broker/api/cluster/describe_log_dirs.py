"""DescribeLogDirs: the size of each partition's log, and the room on the volume
(ReplicaManager.describeLogDirs).

v1-2 and v3 differ in encoding and v3 adds a top-level error; v4 adds the volume's total and usable
bytes, v5 whether the folder is cordoned, which none is. There is one data folder, and no partition is
being moved to another. Partitions that live elsewhere are left out.
"""

from __future__ import annotations

from typing import Any

from ottla.broker.large import AT_ONCE_MAX, Fields, Framed, in_pieces
from ottla.broker.request import RequestContext
from ottla.errors import ErrorCode
from ottla.replication.partition import Partition


async def handle(ctx: RequestContext, request: Any) -> Fields | Framed:
    result: Fields = {
        "error_code": 0,
        "log_dir": ctx.services.log_manager.absolute_path,
        "topics": [],
        "total_bytes": -1,
        "usable_bytes": -1,
        "is_cordoned": False,
    }
    fields: Fields = {"throttle_time_ms": 0, "error_code": 0, "results": [result]}
    try:
        total, usable = ctx.services.disk.free_bytes(ctx.services.log_manager.path)
    except OSError:
        result["error_code"] = int(ErrorCode.kafka_storage_error)
        return fields
    wanted = await _wanted(ctx, request)
    result |= {"total_bytes": total, "usable_bytes": usable, "topics": await _topics(ctx, wanted)}
    return await in_pieces(ctx, fields) if len(wanted) > AT_ONCE_MAX else fields


async def _wanted(ctx: RequestContext, request: Any) -> list[tuple[str, int]]:
    """The partitions that this node has of those asked for; all of them where ``topics`` is null.

    Those of a topic that was made a moment ago may not be open yet. They are waited for: whoever made the
    topic, and was answered, expects to find them.
    """
    replicas = ctx.services.replicas
    partitions = replicas.partitions
    if replicas.unopened:
        await replicas.open_all()
    if request.topics is None:
        return list(partitions)
    wanted: dict[tuple[str, int], None] = {}
    for count, topic in enumerate(request.topics, 1):
        keys = ((topic.topic, index) for index in topic.partitions)
        wanted.update((key, None) for key in keys if key in partitions)
        if count % AT_ONCE_MAX == 0:
            await ctx.services.slices.pause()
    return list(wanted)


async def _topics(ctx: RequestContext, wanted: list[tuple[str, int]]) -> list[Fields]:
    by_topic: dict[str, list[Fields]] = {}
    for count, (name, index) in enumerate(wanted, 1):
        # It may have gone while others had their turn.
        partition = ctx.services.replicas.partitions.get((name, index))
        if partition is not None:
            by_topic.setdefault(name, []).append(_fields(index, partition))
        if count % AT_ONCE_MAX == 0:
            await ctx.services.slices.pause()
    return [{"name": name, "partitions": logs} for name, logs in by_topic.items()]


def _fields(index: int, partition: Partition) -> Fields:
    log = partition.log
    return {
        "partition_index": index,
        "partition_size": log.size_bytes,
        "offset_lag": max(partition.high_watermark - log.log_end_offset, 0),
        "is_future_key": False,
    }
