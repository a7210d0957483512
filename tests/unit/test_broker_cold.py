"""Partitions that are asked for before they are open: the disk holds up who asks for them, nobody else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from budget_support import ask, longest_step

from ottla.env.disk import RealDisk
from ottla.errors import KafkaError
from ottla.node import Node, NodeSettings
from ottla.replication.openings import OPENED_AT_ONCE_MAX, Openings
from ottla.types import Record, TopicPartition
from ottla.wire.apis import BY_NAME
from ottla.wire.messages import decode_response, frame_request, read_response_header
from ottla.wire.records import build_batch

BATCH = build_batch([Record(0, 1_000, None, b"v")])
PARTITIONS = 150
# What is opened at once when a topic is made, however many there are.
COLD = range(OPENED_AT_ONCE_MAX, PARTITIONS)


class Disk(RealDisk):
    """A disk that knows in which thread each folder was made, and can keep them waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.on_loop: list[str] = []
        self.in_threads: list[str] = []
        self.go_on = threading.Event()
        self.go_on.set()
        self._loop = threading.get_ident()

    def make_dirs(self, path: str) -> None:
        if threading.get_ident() == self._loop:
            self.on_loop.append(path)
        else:
            self.in_threads.append(path)
            assert self.go_on.wait(30)
        super().make_dirs(path)


def cold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: Callable[[Node, Disk, UUID], Awaitable[None]]
) -> None:
    """Run with a topic of many partitions of which hardly any is open, and none will be by itself."""
    monkeypatch.setattr(Openings, "_go_on", lambda _: None)

    async def main() -> None:
        disk = Disk()
        properties = {"auto.create.topics.enable": "false"}
        node = Node(NodeSettings(data=str(tmp_path / "data"), port=0, properties=properties), disk=disk)
        await node.start()
        try:
            assignments: dict[str, Any] = {"replication_factor": 1, "assignments": (), "configs": ()}
            new = [{"name": "t", "num_partitions": PARTITIONS} | assignments]
            await ask(node, "CreateTopics", 5, {"topics": new, "timeout_ms": 5_000, "validate_only": False})
            assert len(disk.on_loop) <= OPENED_AT_ONCE_MAX + 1 and not disk.in_threads
            disk.on_loop.clear()
            await body(node, disk, node.services.metadata.image.topics["t"].topic_id)
        finally:
            disk.go_on.set()
            await node.stop()
            disk.close()

    asyncio.run(main())


def produce(topic_id: UUID) -> dict[str, Any]:
    data = [{"index": index, "records": BATCH} for index in COLD]
    topics = [{"topic_id": topic_id, "partition_data": data}]
    return {"transactional_id": None, "acks": 1, "timeout_ms": 1_000, "topic_data": topics}


def fetch(topic_id: UUID, epoch: int, indexes: range = COLD) -> dict[str, Any]:
    where = {"current_leader_epoch": -1, "fetch_offset": 0, "last_fetched_epoch": -1, "log_start_offset": -1}
    asked = [{"partition": index, "partition_max_bytes": 1_000} | where for index in indexes]
    return {
        "max_wait_ms": 0, "min_bytes": 0, "max_bytes": 1_000_000, "isolation_level": 0, "session_id": 0,
        "session_epoch": epoch, "topics": [{"topic_id": topic_id, "partitions": asked}],
        "forgotten_topics_data": (), "rack_id": "",
    }  # fmt: skip


def list_offsets() -> dict[str, Any]:
    asked = [{"partition_index": i, "current_leader_epoch": -1, "timestamp": -1} for i in COLD]
    return {"replica_id": -1, "isolation_level": 0, "topics": [{"name": "t", "partitions": asked}]}


def epochs() -> dict[str, Any]:
    asked = [{"partition": index, "current_leader_epoch": -1, "leader_epoch": 0} for index in COLD]
    return {"replica_id": -1, "topics": [{"topic": "t", "partitions": asked}]}


def delete_records() -> dict[str, Any]:
    asked = [{"partition_index": index, "offset": -1} for index in COLD]
    return {"timeout_ms": 1_000, "topics": [{"name": "t", "partitions": asked}]}


def requests(topic_id: UUID) -> dict[str, tuple[str, int, dict[str, Any]]]:
    return {
        "produce": ("Produce", 13, produce(topic_id)),
        "fetch": ("Fetch", 17, fetch(topic_id, -1)),
        "fetch a few": ("Fetch", 17, fetch(topic_id, -1, COLD[:3])),
        "session": ("Fetch", 17, fetch(topic_id, 0)),
        "offsets": ("ListOffsets", 8, list_offsets()),
        "epochs": ("OffsetForLeaderEpoch", 4, epochs()),
        "producers": ("DescribeProducers", 0, {"topics": [{"name": "t", "partition_indexes": COLD}]}),
        "records": ("DeleteRecords", 2, delete_records()),
    }


@pytest.mark.parametrize("name", requests(UUID(int=1)))
def test_logs_are_made_off_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    async def body(node: Node, disk: Disk, topic_id: UUID) -> None:
        api, version, fields = requests(topic_id)[name]
        answer = await ask(node, api, version, fields)
        topics = answer.topics if hasattr(answer, "topics") else answer.responses
        (partitions,) = [one[-1] if name == "produce" else one.partitions for one in topics]
        count = 3 if name == "fetch a few" else len(COLD)
        assert [partition.error_code for partition in partitions] == [0] * count
        assert not disk.on_loop and len(disk.in_threads) == count
        assert len(node.services.replicas.partitions) <= OPENED_AT_ONCE_MAX + count

    cold(tmp_path, monkeypatch, body)


def test_a_disk_that_hangs_holds_up_who_needs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one partition, too. What else is asked meanwhile is answered."""

    async def body(node: Node, disk: Disk, topic_id: UUID) -> None:
        disk.go_on.clear()
        fields = produce(topic_id)
        fields["topic_data"][0]["partition_data"] = [{"index": COLD[0], "records": BATCH}]
        asked = asyncio.ensure_future(ask(node, "Produce", 13, fields))
        while not disk.in_threads:
            await asyncio.sleep(0.001)
        metadata = {"topics": None, "allow_auto_topic_creation": False}
        assert len((await ask(node, "Metadata", 7, metadata)).topics) == 1
        assert not asked.done()
        disk.go_on.set()
        assert (await asked).responses[0].partition_responses[0].base_offset == 0
        assert not disk.on_loop

    cold(tmp_path, monkeypatch, body)


def test_who_cannot_wait_goes_on_with_what_a_thread_has_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is one log, whoever comes first."""

    async def body(node: Node, disk: Disk, topic_id: UUID) -> None:
        opening = asyncio.ensure_future(node.services.replicas.open([("t", COLD[0])]))
        await asyncio.sleep(0)
        partition = node.services.replicas.get("t", COLD[0])
        partition.append(BATCH, now_ms=1_000, acks=1)
        await opening
        assert node.services.replicas.get("t", COLD[0]) is partition
        assert len(disk.on_loop + disk.in_threads) == 1
        # Its file is one of those that are counted.
        assert partition.log.segments[0] in node.services.log_manager._cache._holders

    cold(tmp_path, monkeypatch, body)


def test_the_folder_of_a_topic_that_is_gone_by_then_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(node: Node, disk: Disk, topic_id: UUID) -> None:
        disk.go_on.clear()
        opening = asyncio.ensure_future(node.services.replicas.open([("t", COLD[0])]))
        while not disk.in_threads:
            await asyncio.sleep(0.001)
        await ask(node, "DeleteTopics", 5, {"topic_names": ["t"], "timeout_ms": 5_000})
        disk.go_on.set()
        await opening
        with pytest.raises(KafkaError):
            node.services.replicas.get("t", COLD[0])
        assert TopicPartition("t", COLD[0]) not in node.services.log_manager.logs
        assert not (tmp_path / "data" / f"t-{COLD[0]}").exists()

    cold(tmp_path, monkeypatch, body)


def test_a_log_that_cannot_be_made_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """KAFKA_STORAGE_ERROR for its partition; the others are served."""

    async def body(node: Node, disk: Disk, topic_id: UUID) -> None:
        make_dirs = disk.make_dirs

        def failing(path: str) -> None:
            if path.endswith(f"-{COLD[1]}"):
                raise OSError(28, "no space left on device")
            make_dirs(path)

        disk.make_dirs = failing  # type: ignore[method-assign]
        frame = frame_request(BY_NAME["Produce"].key, 13, 1, "client", produce(topic_id))[4:]
        _, data = await longest_step(node, frame)
        answer = decode_response(0, 13, data, read_response_header(0, 13, data[4:])[1] + 4)
        errors = {p.index: p.error_code for p in answer.responses[0].partition_responses}
        assert errors.pop(COLD[1]) == 56 and set(errors.values()) == {0}

    cold(tmp_path, monkeypatch, body)


def test_who_asks_for_one_of_the_last_waits_for_the_thread_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No partition waits for its turn any more, but some are being made."""

    async def body(node: Node, disk: Disk, topic_id: UUID) -> None:
        openings: Any = node.services.replicas.openings
        while len(openings._waiting) > OPENED_AT_ONCE_MAX:
            openings._waiting.popitem()
        (_, index) = next(reversed(openings._waiting))
        disk.go_on.clear()
        rest = asyncio.ensure_future(openings._open_rest())
        while not disk.in_threads:
            await asyncio.sleep(0.001)
        fields = produce(topic_id)
        fields["topic_data"][0]["partition_data"] = [{"index": index, "records": BATCH}]
        asked = asyncio.ensure_future(ask(node, "Produce", 13, fields))
        await asyncio.sleep(0.05)
        assert not asked.done() and not disk.on_loop
        disk.go_on.set()
        assert (await asked).responses[0].partition_responses[0].base_offset == 0
        await rest
        assert not disk.on_loop and not node.services.replicas.unopened

    cold(tmp_path, monkeypatch, body)


def test_whoever_was_told_that_a_topic_is_made_finds_all_of_its_logs(tmp_path: Path) -> None:
    async def main() -> None:
        settings = NodeSettings(data=str(tmp_path / "data"), port=0, properties={})
        node = Node(settings)
        await node.start()
        try:
            none: dict[str, Any] = {"replication_factor": 1, "assignments": (), "configs": ()}
            new = [{"name": "t", "num_partitions": PARTITIONS} | none]
            await ask(node, "CreateTopics", 5, {"topics": new, "timeout_ms": 5_000, "validate_only": False})
            assert node.services.replicas.unopened
            (folder,) = (await ask(node, "DescribeLogDirs", 4, {"topics": None})).results
            (topic,) = folder.topics
            assert {partition.partition_index for partition in topic.partitions} == set(range(PARTITIONS))
        finally:
            await node.stop()

    asyncio.run(main())


def test_a_node_that_stops_waits_for_folders_that_are_being_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory may be another process's from then on."""

    async def body(node: Node, disk: Disk, topic_id: UUID) -> None:
        disk.go_on.clear()
        opening = asyncio.ensure_future(node.services.replicas.open([("t", COLD[0])]))
        while not disk.in_threads:
            await asyncio.sleep(0.001)
        opening.cancel()
        stopping = asyncio.ensure_future(node.stop())
        await asyncio.sleep(0.1)
        assert not stopping.done()
        disk.go_on.set()
        await stopping
        assert (tmp_path / "data" / f"t-{COLD[0]}").exists()
        # No log is opened when all of them are closed.
        assert TopicPartition("t", COLD[0]) not in node.services.log_manager.logs

        async def stopped() -> None:
            pass

        monkeypatch.setattr(node, "stop", stopped)

    cold(tmp_path, monkeypatch, body)


def test_what_waits_is_one_partition_however_often_its_topic_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(node: Node, disk: Disk, topic_id: UUID) -> None:
        openings: Any = node.services.replicas.openings
        for number in range(10):
            config = {"name": "retention.ms", "config_operation": 0, "value": str(1_000_000 + number)}
            resource = {"resource_type": 2, "resource_name": "t", "configs": [config]}
            await ask(node, "IncrementalAlterConfigs", 1, {"resources": [resource], "validate_only": False})
        assert len(openings._waiting) < PARTITIONS

    cold(tmp_path, monkeypatch, body)


def test_what_could_not_be_opened_is_forgotten_with_its_topic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(node: Node, disk: Disk, topic_id: UUID) -> None:
        openings: Any = node.services.replicas.openings
        (tmp_path / "data" / f"t-{COLD[0]}").touch()
        with pytest.raises(KafkaError):
            node.services.replicas.get("t", COLD[0])
        assert openings._refused
        await ask(node, "DeleteTopics", 5, {"topic_names": ["t"], "timeout_ms": 5_000})
        assert not openings._refused
        for _ in range(PARTITIONS):
            openings.some()
        openings.try_again()
        assert not openings.pending

    cold(tmp_path, monkeypatch, body)


def test_a_configuration_that_cannot_be_read_fails_its_own_partition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a later version's topic, say: the others of the same request are served."""

    async def body(node: Node, disk: Disk, topic_id: UUID) -> None:
        replicas: Any = node.services.replicas
        find, asked = replicas._log_configs.find, []

        def once(topic: Any) -> Any:
            asked.append(topic)
            if len(asked) == 1:
                raise ValueError("nobody knows this")
            return find(topic)

        monkeypatch.setattr(replicas._log_configs, "find", once)
        await replicas.open([("t", index) for index in COLD])
        assert {("t", index) for index in COLD[1:]} <= replicas.partitions.keys()

    cold(tmp_path, monkeypatch, body)
