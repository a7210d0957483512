"""The replica manager: partitions as the image says, on a disk that does not always take part."""

from __future__ import annotations

import asyncio
import errno
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from admin_support import Client, code, create, new_topic, no_room_for, run

from measuring import HANG_S
from ottla.env.disk import RealDisk, RealFile
from ottla.log.log import Log
from ottla.metadata import keys
from ottla.metadata.elections import led_anew
from ottla.metadata.image import ClusterImage, PartitionState, state_value
from ottla.metadata.store import Put
from ottla.replication import manager
from ottla.replication.partition import Partition
from ottla.types import Record
from ottla.wire.records import build_batch

ONE_PARTITION = {"offsets.topic.num.partitions": "1"}
BATCH = build_batch([Record(0, 1_000, None, b"v")])


async def produce(client: Client, topic: str, index: int = 0) -> str:
    data = {"name": topic, "partition_data": [{"index": index, "records": BATCH}]}
    fields = {"transactional_id": None, "acks": 1, "timeout_ms": 1_000, "topic_data": [data]}
    answer = await client.ask("Produce", 9, fields)
    return code(answer["responses"][0]["partition_responses"][0])


async def commit(client: Client) -> str:
    """Commit an offset of topic u for group g."""
    partition = {"partition_index": 0, "committed_offset": 5, "committed_metadata": ""}
    fields = {
        "group_id": "g",
        "generation_id_or_member_epoch": -1,
        "member_id": "",
        "topics": [{"name": "u", "partitions": [partition]}],
    }
    answer = await client.ask("OffsetCommit", 8, fields)
    return code(answer["topics"][0]["partitions"][0])


async def find(client: Client) -> None:
    await client.ask("FindCoordinator", 4, {"key_type": 0, "coordinator_keys": ["g"]})


def test_a_topic_that_was_made_on_a_full_disk_serves_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(client: Client) -> None:
        no_room_for(monkeypatch, "/t-")
        # Both are made by one change, of which one half fails.
        assert [code(made) for made in await create(client, new_topic("t"), new_topic("u"))] == ["none"] * 2
        assert await produce(client, "t") == "kafka_storage_error"
        assert await produce(client, "u") == "none"
        monkeypatch.undo()
        async with asyncio.timeout(HANG_S):
            while await produce(client, "t") != "none":
                await asyncio.sleep(0.05)
        assert await produce(client, "t", 1) == "unknown_topic_or_partition"

    run(tmp_path, body)


def test_groups_are_served_when_there_is_room_for_their_topic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ottla.coordinators.runtime.failover.RETRY_MS", 10)

    async def body(client: Client) -> None:
        whole = no_room_for(monkeypatch, "/__consumer_offsets-")
        monkeypatch.setattr("ottla.coordinators.runtime.host.READY_WAIT_MS", 10)
        await find(client)
        await create(client, new_topic("u"))
        codes = []
        while not codes or codes[-1] != "none":
            codes.append(await commit(client))
            if len(codes) == 3:
                monkeypatch.setattr(RealDisk, "make_dirs", whole)
            await asyncio.sleep(0.01)
        assert len(codes) > 3 and set(codes) <= {"none", "not_coordinator", "coordinator_load_in_progress"}

    run(tmp_path, body)


def keep_a_group(path: Path) -> Path:
    """A broker that keeps an offset, twice, and has stopped; the segment that holds it."""

    async def body(client: Client) -> None:
        await create(client, new_topic("u"))
        await find(client)
        assert [await commit(client) for _ in range(2)] == ["none"] * 2

    run(path, body, ONE_PARTITION)
    return path / "data" / "__consumer_offsets-0" / "00000000000000000000.log"


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    records = [one for one in caplog.records if one.name == "ottla.coordinators.runtime.failover"]
    return [record.getMessage() for record in records]


@pytest.mark.parametrize("length", [-1, -12, -100, 0, 2**31 - 1])
def test_groups_in_a_damaged_log_have_no_coordinator(
    tmp_path: Path, length: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ottla.coordinators.runtime.failover.RETRY_MS", 1)
    monkeypatch.setattr("ottla.coordinators.runtime.host.READY_WAIT_MS", 10)
    segment = keep_a_group(tmp_path)
    data = bytearray(segment.read_bytes())
    data[8:12] = length.to_bytes(4, "big", signed=True)
    segment.write_bytes(data)

    async def body(client: Client) -> None:
        await find(client)
        while not said(caplog):
            await asyncio.sleep(0.01)
        assert await commit(client) == "not_coordinator"
        # What else the broker does is not touched.
        assert await produce(client, "u") == "none"

    run(tmp_path, body, ONE_PARTITION)
    (line,) = said(caplog)
    assert line.startswith("__consumer_offsets-0 cannot be read: ")


def test_groups_are_served_when_the_disk_can_be_read_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ottla.coordinators.runtime.failover.RETRY_MS", 1)
    segment = keep_a_group(tmp_path)
    whole = RealFile.read
    tries = []

    def read(file: RealFile, position: int, size: int) -> bytes:
        if file.path == str(segment):
            tries.append(position)
            raise OSError(errno.EIO, "Input/output error", file.path)
        return whole(file, position, size)

    monkeypatch.setattr(RealFile, "read", read)

    async def body(client: Client) -> None:
        while len(tries) < 5:
            await asyncio.sleep(0.01)
        assert await commit(client) in ("not_coordinator", "coordinator_load_in_progress")
        monkeypatch.setattr(RealFile, "read", whole)
        while await commit(client) != "none":
            await asyncio.sleep(0.01)

    with caplog.at_level("INFO"):
        run(tmp_path, body, ONE_PARTITION)
    broken, mended = said(caplog)
    assert "Input/output error" in broken and mended.endswith("can be read again")


def test_a_node_whose_registration_has_ended_leads_and_coordinates_nothing_until_it_has_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the image still says so, for as long as it has not caught up."""
    monkeypatch.setattr("ottla.coordinators.runtime.host.READY_WAIT_MS", 10)

    async def body(client: Client) -> None:
        node = client.node
        metadata, store = node.services.metadata, node._store

        async def change(*operations: Put) -> None:
            await metadata.reached((await store.txn([], operations)).revision)

        async def lead(topic: str, epoch: int) -> None:
            state = replace(
                metadata.image.topics[topic].partitions[0], leader_epoch=epoch, partition_epoch=epoch
            )
            await change(Put(keys.partition(topic, 0), state_value(state)))

        async def fetch() -> str:
            partition = {
                "partition": 0, "current_leader_epoch": -1, "fetch_offset": 0, "last_fetched_epoch": -1,
                "log_start_offset": -1, "partition_max_bytes": 1000,
            }  # fmt: skip
            fields = {
                "replica_id": -1, "max_wait_ms": 0, "min_bytes": 1, "max_bytes": 1000, "isolation_level": 0,
                "session_id": 0, "session_epoch": -1, "forgotten_topics_data": [], "rack_id": "",
                "topics": [{"topic": "t", "partitions": [partition]}],
            }  # fmt: skip
            answer = await client.ask("Fetch", 12, fields)
            return code(answer["responses"][0]["partitions"][0])

        await create(client, new_topic("t"), new_topic("u"))
        await find(client)
        assert (await produce(client, "t"), await commit(client), await fetch()) == ("none", "none", "none")
        node._step_down()
        for _ in range(2):
            assert await produce(client, "t") == "not_leader_or_follower"
            assert await fetch() == "not_leader_or_follower"
            assert await commit(client) == "not_coordinator"
            # Made before the registration ended, and only seen now.
            await lead("t", 1)
            await lead("__consumer_offsets", 1)
        value = keys.broker_value({"PLAINTEXT": node.address}, None)
        await change(Put(keys.broker(node.node_id), value))
        await lead("t", 2)
        await lead("__consumer_offsets", 2)
        assert (await produce(client, "t"), await fetch()) == ("none", "none")
        assert await commit(client) in ("none", "coordinator_load_in_progress")

    run(tmp_path, body, properties=ONE_PARTITION)


def test_a_topic_that_is_made_again_begins_anew(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("t", 2))
        assert await produce(client, "t", 1) == "none"
        old: Any = client.node.services.replicas.get("t", 1)
        await client.ask("DeleteTopics", 5, {"topic_names": ["t"], "timeout_ms": 1_000})
        assert await produce(client, "t", 1) == "unknown_topic_or_partition"
        await create(client, new_topic("t", 1))
        new: Any = client.node.services.replicas.get("t", 0)
        assert new.topic_id != old.topic_id and new.high_watermark == 0
        assert await produce(client, "t", 1) == "unknown_topic_or_partition"
        with pytest.raises(Exception, match="unknown_topic_id"):
            client.node.services.replicas.topic_name(UUID(int=5))

    run(tmp_path, body)


def test_a_changed_configuration_reaches_the_logs(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("t", configs={"retention.ms": "5"}), new_topic("u"))
        logs = [client.node.services.replicas.get(name, 0).log for name in "tu"]
        assert [log.config.retention_ms for log in logs] == [5, 604_800_000]
        config = {"name": "log.retention.ms", "config_operation": 0, "value": "77"}
        resource = {"resource_type": 4, "resource_name": "", "configs": [config]}
        await client.ask("IncrementalAlterConfigs", 1, {"resources": [resource], "validate_only": False})
        await asyncio.sleep(0)
        assert [log.config.retention_ms for log in logs] == [5, 77]

    run(tmp_path, body)


@pytest.mark.parametrize("what", ["apply", "update_config"])
def test_a_partition_that_fails_stands_in_nobody_s_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    """One that cannot take its role has none, and all try again."""
    monkeypatch.setattr(manager, "AGAIN_MS", 50)

    async def body(client: Client) -> None:
        await create(client, new_topic("a"), new_topic("b"))
        replicas, metadata = client.node.services.replicas, client.node.services.metadata
        a, b = (replicas.get(name, 0) for name in "ab")
        broken = Partition if what == "apply" else Log
        original = getattr(broken, what)

        def fail(self: Any, *arguments: Any, **named: Any) -> Any:
            if self in (a, a.log):
                raise ValueError("a bug")
            return original(self, *arguments, **named)

        monkeypatch.setattr(broken, what, fail)
        image = metadata.image
        topics = {
            name: replace(image.topics[name], partitions=tuple(map(led_anew, image.topics[name].partitions)))
            for name in "ab"
        }
        new = replace(image, topics={**image.topics, **topics}, revision=image.revision + 1)
        replicas.apply(image, new)
        assert (a.leader_epoch, b.leader_epoch) == (topics["a"].partitions[0].leader_epoch,) * 2
        assert (a.leading is None, b.leading is None) == (what == "apply", False)
        assert "a-0 cannot take its" in caplog.text
        monkeypatch.setattr(broken, what, original)
        deadline = asyncio.get_running_loop().time() + 10
        while a.leading is None or replicas._again:
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.01)
        assert a.leading.state.leader_epoch == b.leading.state.leader_epoch  # type: ignore[union-attr]

    run(tmp_path, body)


def test_a_look_for_laggards_goes_on_after_one_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("a"), new_topic("b"))
        replicas = client.node.services.replicas
        looked: list[str] = []

        def shrink(self: Partition) -> None:
            looked.append(self.topic_partition.topic)
            raise ValueError("a bug")

        monkeypatch.setattr(Partition, "shrink", shrink)
        replicas.lag_ms_max = 20
        replicas.look_for_laggards()
        while len(looked) < 4:
            await asyncio.sleep(0.01)
        assert looked[:4] == ["a", "b", "a", "b"]
        assert "a-0: whether its followers keep up cannot be told" in caplog.text

    run(tmp_path, body)


def test_many_partitions_are_made_a_few_at_a_time_and_each_at_once_when_asked_for(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        partitions = client.node.services.replicas.partitions
        assert [code(made) for made in await create(client, new_topic("t", num_partitions=200))] == ["none"]
        assert 0 < len(partitions) < 200
        assert ("t", 199) not in partitions
        assert await produce(client, "t", 199) == "none"
        assert ("t", 199) in partitions
        while len(partitions) < 200:
            await asyncio.sleep(0.001)

    run(tmp_path, body)


def test_whom_to_follow_is_known_from_the_first_piece_of_a_change_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fetcher connects between two pieces: a leader that came with the same change is to be found then."""

    class Followed:
        """Stands for the fetchers."""

        def __init__(self) -> None:
            self.image: ClusterImage | None = None
            self.seen: list[bool] = []

        def apply(self, old: ClusterImage | None, new: ClusterImage) -> None:
            self.image = new

        def follow(self, partition: Partition, leader_id: int) -> None:
            self.seen.append(self.image is not None and leader_id in self.image.brokers)

        def forget(self, partition: Partition) -> None: ...

        def close(self) -> None: ...

    async def body(client: Client) -> None:
        await create(client, new_topic("t", num_partitions=3))
        replicas = client.node.services.replicas
        while len(replicas.partitions) < 3:
            await asyncio.sleep(0.001)
        # The node itself follows no change any more that would be between its pieces.
        monkeypatch.setattr(manager, "FOLLOWED_AT_ONCE", 1)
        image = client.node.services.metadata.image
        topic, own = image.topics["t"], client.node.services.node_id
        state = PartitionState(own + 1, 1, 1, (own, own + 1), (own, own + 1))
        moved = replace(topic, partitions=(state,) * 3)
        leader = replace(image.brokers[own], node_id=own + 1, epoch=image.revision + 1)
        new = replace(
            image,
            brokers=image.brokers | {own + 1: leader},  # type: ignore[operator]
            topics={"t": moved},
            topics_by_id={topic.topic_id: moved},
        )
        followed = Followed()
        monkeypatch.setattr(replicas, "_fetchers", followed)
        for _ in replicas.follow(image, new):
            assert all(followed.seen)
        assert followed.seen == [True] * 3
        monkeypatch.setattr(replicas, "_fetchers", None)

    run(tmp_path, body)


def test_what_is_deleted_before_its_turn_is_never_made(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        services = client.node.services
        await create(client, new_topic("t", num_partitions=200), new_topic("u", num_partitions=40))
        await services.metadata.controller.delete_topics([services.metadata.image.topics["t"].topic_id])
        while len(services.replicas.partitions) < 40:
            await asyncio.sleep(0.001)
        assert {topic for topic, _ in services.replicas.partitions} == {"u"}

    run(tmp_path, body)


@pytest.mark.parametrize("registers_again", [False, True])
def test_many_partitions_resign_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registers_again: bool
) -> None:
    """Not one of them leads for the registration before once there is another."""

    async def body(client: Client) -> None:
        await create(client, new_topic("t", 6))
        replicas, metadata = client.node._replicas, client.node.services.metadata
        partitions = [replicas.get("t", index) for index in range(6)]

        def leading() -> int:
            return sum(partition.leading is not None for partition in partitions)

        assert leading() == 6
        monkeypatch.setattr(manager, "FOLLOWED_AT_ONCE", 2)
        replicas.step_down()
        assert leading() == 4
        if registers_again:
            image: ClusterImage = metadata.image
            own = image.brokers[client.node.node_id]
            brokers = {**image.brokers, client.node.node_id: replace(own, epoch=own.epoch + 1)}
            replicas.apply(image, replace(image, brokers=brokers))
        else:
            # Told again meanwhile, as when the lease is lost and the registration is seen to be gone.
            replicas.step_down()
            while leading():
                before = leading()
                await asyncio.sleep(0.001)
                assert before - leading() in (0, 2, 4, 6)
        assert leading() == 0

    run(tmp_path, body)


def test_roles_are_given_and_waiters_woken_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("t", 6))
        replicas = client.node._replicas
        partitions = [replicas.get("t", index) for index in range(6)]
        monkeypatch.setattr(manager, "FOLLOWED_AT_ONCE", 2)
        for partition in partitions:
            partition.resign()
        pieces = replicas.activate()
        next(pieces)
        assert [partition.leading is not None for partition in partitions] == [True] * 2 + [False] * 4
        # What goes meanwhile gets no role.
        partitions[3].remove()
        for _ in pieces:
            pass
        assert [partition.leading is not None for partition in partitions] == [True] * 3 + [False] + [
            True
        ] * 2
        woken: list[int] = []
        for index, partition in enumerate(partitions):
            partition.add_waiter(lambda index=index: woken.append(index))
        waking = replicas.wake_all()
        next(waking)
        assert replicas.stopping and woken == [0, 1]
        for _ in waking:
            pass
        assert woken == list(range(6))
        replicas.stopping = False

    run(tmp_path, body)
