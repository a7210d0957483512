"""AlterReplicaLogDirs: have replicas live in other data directories of this node (KIP-113,
ReplicaManager.alterReplicaLogDirs).

v2 flexible. There is one data directory: a replica that is asked to live in it does so already. Paths are
compared letter by letter with what DescribeLogDirs says, as in Kafka.
"""

from __future__ import annotations

from typing import Any

from ottla.broker.request import RequestContext
from ottla.errors import ErrorCode, KafkaError

# A replica moves by way of a folder NAME-INDEX.UUID-future; file systems take names of 255 bytes.
_FOLDER_CHARACTERS_MAX = 255
_FUTURE = len(f".{'0' * 32}-future")


def handle(ctx: RequestContext, request: Any) -> dict[str, Any]:
    """LOG_DIR_NOT_FOUND for a directory that is not this node's; REPLICA_NOT_AVAILABLE for a replica that it
    does not hold, UNKNOWN_TOPIC_OR_PARTITION; INVALID_TOPIC_EXCEPTION where the name is too long to move."""
    # A partition that is named for two directories is to live in the last of them.
    asked: dict[tuple[str, int], str] = {}
    for folder in request.dirs:
        for topic in folder.topics:
            for index in topic.partitions:
                asked[topic.name, index] = folder.path
    by_topic: dict[str, list[dict[str, Any]]] = {}
    for (name, index), path in asked.items():
        answer = {"partition_index": index, "error_code": int(_move(ctx, name, index, path))}
        by_topic.setdefault(name, []).append(answer)
    results = [{"topic_name": name, "partitions": answers} for name, answers in by_topic.items()]
    return {"throttle_time_ms": 0, "results": results}


def _move(ctx: RequestContext, name: str, index: int, path: str) -> ErrorCode:
    if len(f"{name}-{index}") + _FUTURE > _FOLDER_CHARACTERS_MAX:
        return ErrorCode.invalid_topic_exception
    if path != ctx.services.log_manager.absolute_path:
        return ErrorCode.log_dir_not_found
    try:
        if (name, index) not in ctx.services.replicas.partitions:
            ctx.services.replicas.absent(name, index)
    except KafkaError as error:
        elsewhere = error.code is ErrorCode.not_leader_or_follower
        return ErrorCode.replica_not_available if elsewhere else error.code
    return ErrorCode.none
