"""DeleteRecords where the disk fails: what would not survive a restart is not answered as done."""

from __future__ import annotations

import asyncio
import errno
from types import SimpleNamespace
from typing import Any

import pytest
from client_support import let_in
from log_support import append, open_log
from memory_disk import MemoryDisk

from ottla.broker.api.records.delete_records import handle
from ottla.broker.request import RequestContext
from ottla.errors import ErrorCode, KafkaError
from ottla.log.settings import LogConfig
from ottla.wire.apis import BY_NAME
from ottla.wire.messages import RequestHeader


def context(services: Any) -> RequestContext:
    header = RequestHeader(BY_NAME["DeleteRecords"].key, 2, 1, "client", 0)
    return RequestContext(header, let_in(), services)


@pytest.mark.parametrize(
    ("policy", "refused"),
    [((), False), (("delete",), False), (("compact", "delete"), False), (("compact",), True)],
)
def test_only_a_topic_that_only_compacts_refuses(policy: tuple[str, ...], refused: bool) -> None:
    log = open_log(MemoryDisk())
    append(log, "a", "b")
    log.update_config(LogConfig(cleanup_policy=policy))
    held = SimpleNamespace(
        log=log, high_watermark=2, check_leader=lambda: None, low_watermark=lambda: 1, leading=1
    )

    async def checkpoint() -> None: ...

    services = SimpleNamespace(
        replicas=SimpleNamespace(get=lambda topic, index: held, unopened=False),
        log_manager=SimpleNamespace(checkpoint_log_starts=checkpoint),
    )
    partitions = [SimpleNamespace(partition_index=0, offset=1)]
    request = SimpleNamespace(topics=[SimpleNamespace(name="topic", partitions=partitions)])
    answer = asyncio.run(handle(context(services), request))
    code = ErrorCode.policy_violation if refused else ErrorCode.none
    assert answer["topics"][0]["partitions"][0]["error_code"] == code


def test_a_start_that_cannot_be_written_down_is_a_storage_error() -> None:
    log = open_log(MemoryDisk())
    append(log, "a", "b")
    held = SimpleNamespace(log=log, high_watermark=2, check_leader=lambda: None, low_watermark=lambda: 1)

    def get(topic: str, index: int) -> Any:
        if index:
            raise KafkaError(ErrorCode.unknown_topic_or_partition)
        return held

    async def checkpoint() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    services = SimpleNamespace(
        replicas=SimpleNamespace(get=get, unopened=False),
        log_manager=SimpleNamespace(checkpoint_log_starts=checkpoint),
    )
    partitions = [SimpleNamespace(partition_index=index, offset=1) for index in (0, 1)]
    request = SimpleNamespace(topics=[SimpleNamespace(name="topic", partitions=partitions)])
    answer = asyncio.run(handle(context(services), request))
    codes = [partition["error_code"] for partition in answer["topics"][0]["partitions"]]
    assert codes == [ErrorCode.kafka_storage_error, ErrorCode.unknown_topic_or_partition]
