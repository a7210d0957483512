"""DescribeLogDirs: the size of each partition's log, and the room on the volume
(ReplicaManager.describeLogDirs).

v1-2 and v3 differ in encoding and v3 adds a top-level error; v4 adds the volume's total and usable
bytes, v5 whether the folder is cordoned, which none is. There is one data folder, and no partition is
being moved to another. Partitions that live elsewhere are left out.
"""

from __future__ import annotations

from typing import Any

from ottla.broker.context import RequestContext
from ottla.errors import ErrorCode


def handle(ctx: RequestContext, request: Any) -> dict[str, Any]:
    result: dict[str, Any] = {
        "error_code": 0,
        "log_dir": ctx.services.log_manager.path,
        "topics": [],
        "total_bytes": -1,
        "usable_bytes": -1,
        "is_cordoned": False,
    }
    try:
        total, usable = ctx.services.disk.free_bytes(ctx.services.log_manager.path)
    except OSError:
        result["error_code"] = int(ErrorCode.kafka_storage_error)
    else:
        result |= {"total_bytes": total, "usable_bytes": usable, "topics": _topics(ctx, request)}
    return {"throttle_time_ms": 0, "error_code": 0, "results": [result]}


def _topics(ctx: RequestContext, request: Any) -> list[dict[str, Any]]:
    """Logs that this node has of those asked for; all of them where ``topics`` is null."""
    partitions = ctx.services.replicas.partitions
    if request.topics is None:
        wanted = list(partitions)
    else:
        asked = ((topic.topic, index) for topic in request.topics for index in topic.partitions)
        wanted = [key for key in dict.fromkeys(asked) if key in partitions]
    by_topic: dict[str, list[dict[str, Any]]] = {}
    for name, index in wanted:
        log = partitions[name, index].log
        fields = {
            "partition_index": index,
            "partition_size": log.size_bytes,
            "offset_lag": max(partitions[name, index].high_watermark - log.log_end_offset, 0),
            "is_future_key": False,
        }
        by_topic.setdefault(name, []).append(fields)
    return [{"name": name, "partitions": logs} for name, logs in by_topic.items()]
