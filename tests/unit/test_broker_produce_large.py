"""Produce of large batches, which threads write: in order, refused where that fails, and in nobody's way."""

from __future__ import annotations

import asyncio
import errno
import gc
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from budget_support import ask
from test_broker_garbage import WATCHED, nothing_left

from measuring import HANG_S
from ottla.broker.api.records.produce.handler import WRITTEN_ASIDE_BYTES
from ottla.env.disk import Begun, RealDisk
from ottla.errors import ErrorCode, KafkaError
from ottla.log.log import Log
from ottla.log.settings import LogConfig
from ottla.log.writing import Aside, Writing
from ottla.node import Node, NodeSettings
from ottla.types import Record
from ottla.wire.apis import PRODUCE
from ottla.wire.messages import frame_request
from ottla.wire.records import build_batch

LARGE = build_batch([Record(0, 1_000, None, bytes(WRITTEN_ASIDE_BYTES))])
SMALL = build_batch([Record(0, 1_000, None, b"v")])


class Waited:
    """A write that the event loop has to wait for: then its thread goes on."""

    def __init__(self, go_on: threading.Event, begun: Begun) -> None:
        self._go_on = go_on
        self._begun = begun

    def finish(self) -> None:
        self._go_on.set()
        self._begun.finish()


class Disk(RealDisk):
    """Its threads wait before each write."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()
        self.begun = threading.Semaphore(0)

    def writes_aside(self, size: int) -> bool:
        return True

    def begin_write(self, work: Callable[[], None], done: Callable[[], None]) -> Begun:
        def slowly() -> None:
            self.begun.release()
            assert self.go_on.wait(30)
            work()

        return Waited(self.go_on, super().begin_write(slowly, done))

    async def has_begun(self) -> None:
        await asyncio.to_thread(self.begun.acquire)


def run(tmp_path: Path, body: Callable[[Node, Disk], Awaitable[None]]) -> None:
    async def main() -> None:
        disk = Disk()
        node = Node(NodeSettings(data=str(tmp_path / "data"), port=0), disk=disk)
        await node.start()
        try:
            new = {
                "name": "t",
                "num_partitions": 2,
                "replication_factor": 1,
                "assignments": (),
                "configs": (),
            }
            await ask(node, "CreateTopics", 5, {"topics": [new], "timeout_ms": 5_000, "validate_only": False})
            await asyncio.wait_for(body(node, disk), HANG_S)
        finally:
            disk.go_on.set()
            await node.stop()
            disk.close()

    asyncio.run(main())


async def produce(node: Node, records: bytes, *partitions: int, acks: int = -1) -> list[tuple[str, int]]:
    data = [{"index": index, "records": records} for index in partitions]
    answer = await ask(
        node,
        "Produce",
        12,
        {
            "transactional_id": None, "acks": acks, "timeout_ms": 30_000,
            "topic_data": [{"name": "t", "partition_data": data}],
        },
    )  # fmt: skip
    return [
        (ErrorCode(one.error_code).name, one.base_offset)
        for topic in answer.responses
        for one in topic.partition_responses
    ]


async def send_and_go(node: Node, disk: Disk, *batches: bytes) -> None:
    """Send batches with acks=0 and close the connection; return when the first is being written, and the node
    knows that the client is gone."""
    _, writer = await asyncio.open_connection(*node.address)
    for records in batches:
        fields = {
            "transactional_id": None, "acks": 0, "timeout_ms": 30_000,
            "topic_data": [{"name": "t", "partition_data": [{"index": 0, "records": records}]}],
        }  # fmt: skip
        writer.write(frame_request(PRODUCE, 9, 1, "client", fields))
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    await disk.has_begun()
    while node.connection_count:
        await asyncio.sleep(0.001)


async def waits_behind(log: Log, count: int) -> None:
    """Return once so many requests wait for the batch that is being written."""
    while log.writing is None or log.waiting < count:
        await asyncio.sleep(0)


def begin(node: Node, records: bytes, *partitions: int, acks: int = -1) -> asyncio.Task[Any]:
    return asyncio.ensure_future(produce(node, records, *partitions, acks=acks))


@pytest.mark.parametrize("acks", [1, -1])
def test_others_are_served_while_a_large_batch_is_written(tmp_path: Path, acks: int) -> None:
    async def body(node: Node, disk: Disk) -> None:
        large = begin(node, LARGE, 0, acks=acks)
        await disk.has_begun()
        # To another partition, and to this one: behind it.
        assert await produce(node, SMALL, 1) == [("none", 0)]
        partition = node.services.replicas.get("t", 0)
        behind = [begin(node, SMALL, 0, acks=acks)]
        await waits_behind(partition.log, 1)
        behind.append(begin(node, LARGE, 0, 1, acks=acks))
        await waits_behind(partition.log, 2)
        assert await produce(node, SMALL, 1) == [("none", 1)]
        assert (
            partition.log.log_end_offset == 0 and not large.done() and not any(map(asyncio.Task.done, behind))
        )
        disk.go_on.set()
        assert await large == [("none", 0)]
        assert await asyncio.gather(*behind) == [[("none", 1)], [("none", 2), ("none", 2)]]
        assert partition.high_watermark == partition.log.log_end_offset == 3

    run(tmp_path, body)


def test_each_waits_once_however_many_large_batches_are_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[bool] = []
    wait = Aside.wait

    def counted(self: Aside, let_in: Any, *, is_large: bool) -> None:
        waits.append(is_large)
        wait(self, let_in, is_large=is_large)

    monkeypatch.setattr(Aside, "wait", counted)

    async def body(node: Node, disk: Disk) -> None:
        large = begin(node, LARGE, 0)
        await disk.has_begun()
        behind = [begin(node, LARGE if number % 50 == 25 else SMALL, 0) for number in range(150)]
        log = node.services.replicas.get("t", 0).log
        await waits_behind(log, len(behind))
        disk.go_on.set()
        assert await large == [("none", 0)]
        answers = [answer for (answer,) in await asyncio.gather(*behind)]
        assert sorted(offset for _, offset in answers) == [*range(1, 151)]
        assert len(waits) == len(behind) and sum(waits) == 3 and not log.taken
        assert await produce(node, SMALL, 0) == [("none", 151)]

    run(tmp_path, body)


def test_a_write_that_fails_refuses_its_batch_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(node: Node, disk: Disk) -> None:
        large = begin(node, LARGE, 0)
        await disk.has_begun()
        behind = begin(node, SMALL, 0)
        writing = node.services.replicas.get("t", 0).log.writing
        assert writing is not None
        monkeypatch.setattr(writing, "file", Full(writing.file))
        disk.go_on.set()
        assert await large == [("kafka_storage_error", -1)]
        assert await behind == [("none", 0)]
        assert await produce(node, LARGE, 0) == [("none", 1)]

    run(tmp_path, body)


class Full:
    """A file that there is no room for, after half of what comes."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def append(self, buffers: Any) -> int:
        data = b"".join(buffers)
        self._file.append([data[: len(data) // 2]])
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_topic_that_is_deleted_meanwhile(tmp_path: Path) -> None:
    async def body(node: Node, disk: Disk) -> None:
        large = begin(node, LARGE, 0)
        await disk.has_begun()
        behind = begin(node, SMALL, 0)
        await ask(node, "DeleteTopics", 5, {"topic_names": ["t"], "timeout_ms": 5_000})
        (after,) = await behind
        assert after[0] in ("unknown_topic_or_partition", "not_leader_or_follower")
        (answer,) = await large
        # It was in the log before the topic was gone, or it is gone with it.
        assert answer[0] in ("none", "unknown_topic_or_partition", "not_leader_or_follower")

    run(tmp_path, body)


def test_a_stop_waits_for_it(tmp_path: Path) -> None:
    async def body(node: Node, disk: Disk) -> None:
        large = begin(node, LARGE, 0)
        await disk.has_begun()
        log = node.services.replicas.get("t", 0).log
        await node.stop()
        assert log.log_end_offset == 1 and log.recovery_point == 1
        assert await large == [("none", 0)]

    run(tmp_path, body)


def test_what_waits_behind_it_is_refused_at_a_stop(tmp_path: Path) -> None:
    """The logs are being closed, by threads."""

    async def body(node: Node, disk: Disk) -> None:
        large = begin(node, LARGE, 0)
        await disk.has_begun()
        behind = [begin(node, SMALL, 0), begin(node, LARGE, 0)]
        log = node.services.replicas.get("t", 0).log
        await waits_behind(log, 2)
        await node.stop()
        assert await large == [("none", 0)]
        assert await asyncio.gather(*behind) == [[("kafka_storage_error", -1)]] * 2
        assert log.log_end_offset == log.recovery_point == 1

    run(tmp_path, body)


def test_the_time_of_what_waits_is_when_it_is_appended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in Kafka: where the broker gives records their time, that goes on from one to the next."""

    async def body(node: Node, disk: Disk) -> None:
        clock = node.services.clock
        partition = node.services.replicas.get("t", 0)
        partition.log.update_config(LogConfig(message_timestamp_type="LogAppendTime"))
        large = begin(node, LARGE, 0)
        await disk.has_begun()
        behind = begin(node, SMALL, 0)
        await waits_behind(partition.log, 1)
        later_ms = clock.now_ms() + 10_000
        monkeypatch.setattr(clock, "now_ms", lambda: later_ms)
        disk.go_on.set()
        await asyncio.gather(large, behind)
        assert partition.log.segments[-1].max_timestamp_ms == later_ms

    run(tmp_path, body)


def test_what_a_client_sent_without_waiting_is_written_though_it_is_gone(tmp_path: Path) -> None:
    """With acks=0 it closes its connection once all is sent; Kafka writes what has come by then."""

    async def body(node: Node, disk: Disk) -> None:
        await send_and_go(node, disk, *[LARGE] * 6)
        log = node.services.replicas.get("t", 0).log
        assert log.log_end_offset == 0 and node.services.memory.request_bytes
        disk.go_on.set()
        while log.log_end_offset < 6 or node.services.memory.request_bytes:
            await asyncio.sleep(0.001)

    run(tmp_path, body)


def test_a_stop_does_not_wait_for_what_a_client_that_is_gone_sent(tmp_path: Path) -> None:
    """Nor does it come to logs that threads are closing: the stop waits for the write before it, and then it
    would be its turn."""

    async def body(node: Node, disk: Disk) -> None:
        await send_and_go(node, disk, LARGE, SMALL, SMALL)
        log = node.services.replicas.get("t", 0).log
        await node.stop()
        for _ in range(10):
            await asyncio.sleep(0)
        assert log.log_end_offset == log.recovery_point == 1
        assert not node.services.memory.request_bytes

    run(tmp_path, body)


@pytest.mark.parametrize("end", ["written", "refused", "settled"])
def test_its_records_are_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    """At once, and however often the collector came by meanwhile: it would freeze them in what leads back."""

    async def body(node: Node, disk: Disk) -> None:
        log = node.services.replicas.get("t", 0).log
        with nothing_left((*WATCHED, Writing, KafkaError, OSError, memoryview)):
            large = begin(node, LARGE, 0)
            await disk.has_begun()
            behind = begin(node, LARGE, 0)
            await waits_behind(log, 1)
            assert log.writing is not None
            if end == "refused":
                monkeypatch.setattr(log.writing, "file", Full(log.writing.file))
            gc.freeze()
            if end == "settled":
                log.settle()
            disk.go_on.set()
            first, second = await asyncio.gather(large, behind)
            del large, behind
        refused = end == "refused"
        assert first == [("kafka_storage_error", -1) if refused else ("none", 0)]
        assert second == [("none", 0 if refused else 1)]

    run(tmp_path, body)


def test_small_batches_are_written_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    whole = Writing.__init__

    def counted(self: Writing, *args: Any) -> None:
        whole(self, *args)
        made.append(self.size)

    monkeypatch.setattr(Writing, "__init__", counted)

    async def body(node: Node, disk: Disk) -> None:
        disk.go_on.set()
        assert await produce(node, SMALL, 0) == [("none", 0)]
        assert made == []
        assert await produce(node, LARGE, 0, 1) == [("none", 1), ("none", 0)]
        assert made == [len(LARGE)] * 2

    run(tmp_path, body)
