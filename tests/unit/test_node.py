"""A node that cannot start, or not stop, lets go of everything; one that can takes it over."""

from __future__ import annotations

import asyncio
import errno
import socket
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from measuring import HANG_S
from ottla.broker.api.records.produce import handler as produce
from ottla.env.clock import SystemClock
from ottla.env.disk import RealDisk
from ottla.errors import ErrorCode, KafkaError
from ottla.log.data_dir import DataDirectoryError, RegistrationMark
from ottla.log.log import Log
from ottla.log.manager import LogManager
from ottla.log.validation import AT_ONCE_RECORDS_MAX
from ottla.metadata import keys
from ottla.metadata.image import state_value
from ottla.metadata.sqlite import SqliteStore
from ottla.metadata.store import Delete, KeyValue, Put, StoreError
from ottla.metadata.topics import NewTopic
from ottla.node import Node, NodeSettings, StartError
from ottla.replication.partition import Partition
from ottla.types import Record, TopicPartition
from ottla.wire.apis import METADATA, PRODUCE
from ottla.wire.messages import decode_response, frame_request
from ottla.wire.records import build_batch


def node(data: Path, **settings: Any) -> Node:
    return Node(NodeSettings(data=str(data), **{"port": 0, "properties": {"num.partitions": "1"}} | settings))


async def use(data: Path) -> None:
    """Start a node and stop it."""
    made = node(data)
    await made.start()
    image = made.services.metadata.image
    if "t" not in image.topics:
        await made.services.metadata.controller.create_topics([NewTopic("t", num_partitions=1)])
    await made.stop()


def other_cluster(data: Path) -> None:
    path = data / "meta.properties"
    lines = path.read_text().splitlines()
    path.write_text("\n".join("cluster.id=other" if "cluster.id" in line else line for line in lines))


def no_database(data: Path) -> None:
    (data / "metadata.db").write_bytes(b"nothing that SQLite could read" * 100)


def no_tables(data: Path) -> None:
    (data / "metadata.db").unlink()
    with sqlite3.connect(data / "metadata.db") as db:
        db.execute("CREATE TABLE state (name TEXT, value INTEGER)")
        db.execute("INSERT INTO state VALUES ('revision', 0), ('compacted', 0)")


def unreadable_identity(data: Path) -> None:
    (data / "meta.properties").unlink()
    (data / "meta.properties").mkdir()


@pytest.mark.parametrize(
    ("break_it", "error"),
    [
        (other_cluster, DataDirectoryError),
        (no_database, StoreError),
        (no_tables, StoreError),
        (unreadable_identity, DataDirectoryError),
    ],
)
def test_a_start_that_fails_holds_nothing(
    tmp_path: Path, break_it: Callable[[Path], None], error: type[Exception]
) -> None:
    async def main() -> None:
        await use(tmp_path)
        saved = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
        break_it(tmp_path)
        before = set(threading.enumerate())
        broken = node(tmp_path)
        with pytest.raises(error):
            await broken.start()
        with pytest.raises(ConnectionError):
            await asyncio.open_connection(*broken._listeners.servers[0]._bound.address)  # type: ignore[union-attr]
        left = [thread.name for thread in set(threading.enumerate()) - before]
        assert not [name for name in left if "metadata" in name]
        assert len(asyncio.all_tasks()) == 1
        for path, content in saved.items():
            if path.is_dir():
                path.rmdir()
            path.write_bytes(content)
        await use(tmp_path)

    asyncio.run(main())


def test_a_start_that_finds_its_port_taken_touches_no_data(tmp_path: Path) -> None:
    async def main() -> None:
        first = node(tmp_path / "first")
        await first.start()
        with pytest.raises(StartError, match="cannot listen on "):
            await node(tmp_path / "second", port=first.address[1]).start()
        assert not (tmp_path / "second").exists()
        with pytest.raises(DataDirectoryError, match="in use by another broker"):
            await node(tmp_path / "first").start()
        await first.stop()

    asyncio.run(main())


@pytest.mark.parametrize(
    "failure",
    [
        OSError(errno.EACCES, "Permission denied"),
        KafkaError(ErrorCode.inconsistent_topic_id, "t-0 is not what it was"),
        OverflowError("what nobody thought of"),
    ],
)
def test_a_partition_that_cannot_be_opened_says_why_and_the_others_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, failure: Exception
) -> None:
    async def main() -> None:
        await use(tmp_path)
        open_log = LogManager.get_or_create

        def fail(self: LogManager, where: TopicPartition, *rest: Any) -> Log:
            if where.topic == "t":
                raise failure
            return open_log(self, where, *rest)

        made = node(tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr(LogManager, "get_or_create", fail)
            await made.start()
            replicas = made.services.replicas
            for _ in range(3):
                with pytest.raises(KafkaError, match="t-0 cannot be opened: ") as caught:
                    replicas.get("t", 0)
                assert caught.value.code is ErrorCode.kafka_storage_error
            await made.services.metadata.controller.create_topics([NewTopic("u", num_partitions=1)])
            assert replicas.get("u", 0).log.log_end_offset == 0
            said = [record for record in caplog.records if "t-0 cannot be opened" in record.getMessage()]
            assert len(said) == 1 and said[0].levelname == "ERROR"
        # Its folder is where it was, and it is tried again.
        assert [path.name for path in tmp_path.glob("t-*")] == ["t-0"]
        deadline = time.monotonic() + 60
        while ("t", 0) not in replicas.partitions and time.monotonic() < deadline:
            with suppress(KafkaError):
                replicas.get("t", 0)
            await asyncio.sleep(0.05)
        assert ("t", 0) in replicas.partitions
        await made.stop()

    asyncio.run(main())


def test_a_stop_that_fails_lets_go_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        made = node(tmp_path)
        await made.start()
        await made.services.metadata.controller.create_topics([NewTopic("t", num_partitions=1)])
        assert made.services.log_manager.logs.keys() == {TopicPartition("t", 0)}
        with monkeypatch.context() as patch:
            patch.setattr("ottla.log.manager.LogManager.close", full)
            with pytest.raises(OSError, match="No space"):
                await made.stop()
        await use(tmp_path)

    async def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    asyncio.run(main())


def test_a_clean_stop_writes_down_the_high_watermarks(tmp_path: Path) -> None:
    data = tmp_path / "data"
    asyncio.run(use(data))
    assert (data / "replication-offset-checkpoint").read_text().splitlines() == ["0", "1", "t 0 0"]


def test_a_refusal_to_start_is_not_preceded_by_what_has_no_effect(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    properties = {"log.preallocate": "true", "num.io.threads": "2", "num.network.threads": "2"}

    async def main() -> None:
        first = node(tmp_path, properties=properties)
        await first.start()
        try:
            said = [record for record in caplog.records if "preallocate" in record.getMessage()]
            assert [record.levelname for record in said] == ["WARNING"]
            said = [record for record in caplog.records if ".threads" in record.getMessage()]
            assert [record.levelname for record in said] == ["INFO"]
            caplog.clear()
            with pytest.raises(DataDirectoryError):
                await node(tmp_path, properties=properties).start()
            assert caplog.messages == []
        finally:
            await first.stop()

    with caplog.at_level("INFO"):
        asyncio.run(main())


@pytest.mark.parametrize(("host", "told"), [("0.0.0.0", True), ("127.0.0.1", False)])
def test_a_node_that_listens_everywhere_says_where_clients_are_sent(
    tmp_path: Path, host: str, told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        made = node(tmp_path, host=host)
        await made.start()
        try:
            (broker,) = made.services.metadata.image.brokers.values()
            address = broker.endpoints["PLAINTEXT"]
            said = [message for message in caplog.messages if "--advertise" in message]
            assert bool(said) is told
            assert any("is open: clients need no login" in message for message in caplog.messages) is told
            if told:
                assert address[0] == socket.gethostname()
                assert f"{address[0]}:{address[1]}" in said[0]
        finally:
            await made.stop()

    with caplog.at_level("INFO"):
        asyncio.run(main())


async def member(data: Path, store: Path, **settings: Any) -> Node:
    """A node of a cluster, alone in it."""
    # A start after a kill waits until the session of the killed one has ended.
    properties = {"broker.session.timeout.ms": "4000"}
    made = Node(
        NodeSettings(data=str(data), **{"port": 0, "node_id": 1, "properties": properties} | settings),
        store=await SqliteStore.open(str(store), SystemClock()),
    )
    await made.start()
    if "t" not in made.services.metadata.image.topics:
        await made.services.metadata.controller.create_topics([NewTopic("t", num_partitions=1)])
    return made


async def until_led(made: Node) -> None:
    async with asyncio.timeout(HANG_S):
        while made.services.replicas.get("t", 0).leading is None:
            await asyncio.sleep(0.01)


def may_have_lost_data(data: Path, made: Node) -> bool:
    """Whether the next start would say so, on the same machine."""
    epoch = made.services.metadata.image.nodes[1].epoch
    return RegistrationMark(RealDisk(), str(data)).may_have_lost_data(epoch)


@pytest.mark.parametrize("ends_in_order", [True, False])
def test_a_node_of_a_cluster_gives_up_when_a_sync_has_failed(tmp_path: Path, ends_in_order: bool) -> None:
    """It leads no more, and does not vouch for data that the disk may have dropped."""

    async def body() -> None:
        made = await member(tmp_path / "data", tmp_path / "store.db")
        partition = made.services.replicas.get("t", 0)
        assert not may_have_lost_data(tmp_path / "data", made)
        partition.log.durability.fail(OSError(errno.EIO, "Input/output error"))
        if ends_in_order:
            await made.stop()
            assert not RegistrationMark(RealDisk(), str(tmp_path / "data")).last.clean  # type: ignore[union-attr]
            return
        made.services.replicas.look_for_laggards()
        await asyncio.wait_for(made.failed.wait(), HANG_S)
        assert may_have_lost_data(tmp_path / "data", made)
        await made.kill()
        again = await member(tmp_path / "data", tmp_path / "store.db")
        assert not may_have_lost_data(tmp_path / "data", again)
        await again.stop()

    asyncio.run(asyncio.wait_for(body(), HANG_S))


def test_a_node_of_a_cluster_that_stops_in_order_vouches_for_its_data(tmp_path: Path) -> None:
    async def body() -> None:
        made = await member(tmp_path / "data", tmp_path / "store.db")
        await made.stop()
        mark = RegistrationMark(RealDisk(), str(tmp_path / "data"))
        assert mark.last is not None
        assert mark.last.clean

    asyncio.run(asyncio.wait_for(body(), HANG_S))


class LeapingClock(SystemClock):
    """Time may pass for a node that does nothing meanwhile."""

    leapt_ms = 0

    def monotonic_ms(self) -> int:
        return super().monotonic_ms() + self.leapt_ms


@pytest.mark.parametrize("while_it", ["appends", "prepares"])
def test_a_node_of_a_cluster_that_stood_still_takes_nothing_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, while_it: str
) -> None:
    """Not even what came together with the request that held it up, or was being made ready meanwhile."""

    async def body() -> None:
        clock = LeapingClock()
        store = await SqliteStore.open(str(tmp_path / "store.db"), SystemClock())
        monkeypatch.setattr(store, "lease_lasts", lambda lease: clock.leapt_ms == 0)
        made = Node(NodeSettings(data=str(tmp_path / "data"), port=0, node_id=1), clock=clock, store=store)
        await made.start()
        configs = {"compression.type": "zstd"} if while_it == "prepares" else {}
        topic = NewTopic("t", num_partitions=1, configs=configs)
        await made.services.metadata.controller.create_topics([topic])
        partition = made.services.replicas.get("t", 0)
        epoch = made.services.metadata.image.brokers[1].epoch
        append = Partition.append

        def hold(*arguments: Any, **named: Any) -> Any:
            clock.leapt_ms = 7_000
            return append(*arguments, **named)

        prepare = produce._prepare

        async def hold_to_prepare(*arguments: Any) -> Any:
            prepared = await prepare(*arguments)
            clock.leapt_ms = 7_000
            return prepared

        if while_it == "appends":
            monkeypatch.setattr(Partition, "append", hold)
        monkeypatch.setattr(produce, "_prepare", hold_to_prepare)
        reader, writer = await asyncio.open_connection(*made.address)
        count = 1 if while_it == "appends" else AT_ONCE_RECORDS_MAX + 1
        records = build_batch([Record(0, 1_000, None, b"v")] * count)
        data = [{"name": "t", "partition_data": [{"index": 0, "records": records}]}]
        fields = {"transactional_id": None, "acks": 1, "timeout_ms": 1_000, "topic_data": data}
        writer.write(b"".join(frame_request(PRODUCE, 9, number, "test", fields) for number in (1, 2)))
        codes = []
        for _ in range(2):
            answer = await reader.readexactly(int.from_bytes(await reader.readexactly(4)))
            responses = decode_response(PRODUCE, 9, answer, 5).responses
            codes.append(responses[0].partition_responses[0].error_code)
        first = ErrorCode.none if while_it == "appends" else ErrorCode.not_leader_or_follower
        assert codes == [first, ErrorCode.not_leader_or_follower]
        assert partition.log.log_end_offset == (while_it == "appends")
        # It joins again by itself.
        while partition.leading is None:
            await asyncio.sleep(0.01)
        assert made.services.metadata.image.brokers[1].epoch > epoch
        writer.close()
        await made.stop()

    asyncio.run(asyncio.wait_for(body(), HANG_S))


def test_a_node_whose_id_another_process_has_leads_nothing(tmp_path: Path) -> None:
    """What names the id leader means the other process: it started when this one was out of reach."""

    async def body() -> None:
        made = await member(tmp_path / "data", tmp_path / "store.db")
        metadata, store = made.services.metadata, made._store
        partition = made.services.replicas.get("t", 0)
        await until_led(made)
        before = partition.state
        after = replace(
            before, leader_epoch=before.leader_epoch + 1, partition_epoch=before.partition_epoch + 1
        )
        other = keys.broker_value({"PLAINTEXT": ("elsewhere", 1)}, None, fetch_key=7)
        operations = [Put(keys.broker(1), other), Put(keys.partition("t", 0), state_value(after))]
        for operation in operations:
            await metadata.reached((await store.txn([], [operation])).revision)
            assert partition.leading is None
        with pytest.raises(KafkaError) as refused:
            write(made, "v")
        assert refused.value.code is ErrorCode.not_leader_or_follower
        await store.txn([], [Delete(keys.broker(1))])
        await until_led(made)
        assert partition.leader_epoch > after.leader_epoch
        await made.stop()

    asyncio.run(asyncio.wait_for(body(), HANG_S))


class Slow(SqliteStore):
    """A store that takes its time to register a node."""

    registers: asyncio.Event
    may_go_on: asyncio.Event

    async def txn(self, compares: Any, operations: Any) -> Any:
        if any(isinstance(one, Put) and one.key == keys.broker(1) for one in operations):
            self.registers.set()
            await self.may_go_on.wait()
        return await super().txn(compares, operations)


def test_who_connects_before_a_node_has_joined_is_answered_when_it_has(tmp_path: Path) -> None:
    """Clients forget a broker that metadata do not name, and wait for what it coordinated."""

    async def body() -> None:
        store = await Slow.open(str(tmp_path / "store.db"), SystemClock())
        store.registers, store.may_go_on = asyncio.Event(), asyncio.Event()
        made = Node(NodeSettings(data=str(tmp_path / "data"), port=0, node_id=1), store=store)
        starting = asyncio.create_task(made.start())
        await store.registers.wait()
        reader, writer = await asyncio.open_connection(*made.address)
        nothing = dict.fromkeys(("allow_auto_topic_creation", "include_topic_authorized_operations"), False)
        fields = {"topics": [], "include_cluster_authorized_operations": False, **nothing}
        writer.write(frame_request(METADATA, 9, 1, "test", fields))
        answering = asyncio.create_task(reader.readexactly(4))
        done, _ = await asyncio.wait([answering], timeout=0.2)
        assert not done
        store.may_go_on.set()
        answer = await reader.readexactly(int.from_bytes(await answering))
        brokers = decode_response(METADATA, 9, answer, 5).brokers
        assert [broker.node_id for broker in brokers] == [1]
        writer.close()
        await starting
        await made.stop()

    asyncio.run(asyncio.wait_for(body(), HANG_S))


class Away(SqliteStore):
    """A store that cannot be asked for producer ids so many times."""

    times = 0

    async def get(self, key: str) -> KeyValue | None:
        if key == keys.PRODUCER_IDS and self.times:
            self.times -= 1
            raise StoreError("the store does not answer")
        return await super().get(key)


def test_a_node_waits_for_a_store_that_goes_away_while_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also once it has read its metadata: there is more that it asks for."""
    data, store_path = tmp_path / "data", tmp_path / "store.db"

    async def body() -> None:
        made = await member(data, store_path)
        now_ms = SystemClock().now_ms()
        data_of_7 = build_batch(
            [Record(0, now_ms, None, b"v")], producer_id=7, producer_epoch=0, base_sequence=0
        )
        made.services.replicas.get("t", 0).append(data_of_7, now_ms=now_ms)
        await made.stop()
        for timeout_ms, times in (("300", 1000), ("60000", 3)):
            store = await Away.open(str(store_path), SystemClock())
            store.times = times
            settings = NodeSettings(
                data=str(data),
                port=0,
                node_id=1,
                properties={"initial.broker.registration.timeout.ms": timeout_ms},
            )
            made = Node(settings, store=store)
            if timeout_ms == "300":
                with pytest.raises(StartError, match="metadata store cannot be used: the store does not"):
                    await made.start()
                continue
            await made.start()
            assert not store.times
            await made.stop()

    monkeypatch.setattr("ottla.node.STORE_RETRY_MS", 10)
    asyncio.run(asyncio.wait_for(body(), 60))


class Silent(SqliteStore):
    """A store that answers a read neither well nor badly."""

    async def range(self, prefix: str, *rest: Any, **more: Any) -> Any:
        await asyncio.Event().wait()


def test_a_store_that_does_not_answer_is_waited_for_no_longer_than_is_set(tmp_path: Path) -> None:
    async def body() -> None:
        store = await Silent.open(str(tmp_path / "store.db"), SystemClock())
        properties = {"initial.broker.registration.timeout.ms": "100"}
        made = Node(
            NodeSettings(data=str(tmp_path / "data"), port=0, node_id=1, properties=properties), store=store
        )
        with pytest.raises(StartError, match="metadata store cannot be used: it does not answer"):
            await made.start()

    asyncio.run(asyncio.wait_for(body(), HANG_S))


def write(made: Node, *values: str) -> list[int]:
    """Append to partition t-0 as a leader does; in which epochs its log was written by then."""
    partition = made.services.replicas.get("t", 0)
    for value in values:
        partition.append(build_batch([Record(0, 1_000, None, value.encode())]), now_ms=1_000)
    return [epoch for epoch, _ in partition.log.epochs.entries]


@pytest.mark.parametrize("in_a_cluster", [False, True])
def test_metadata_of_an_earlier_time_than_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_a_cluster: bool
) -> None:
    """The leader epoch goes on from that of the log: recovery keeps what is written, and so do followers."""
    data, store_path = tmp_path / "data", tmp_path / "store.db"

    async def started() -> Node:
        if not in_a_cluster:
            made = node(data, node_id=1)
            await made.start()
            return made
        store = await SqliteStore.open(str(store_path), SystemClock())
        made = Node(NodeSettings(data=str(data), port=0, node_id=1), store=store)
        await made.start()
        return made

    async def body() -> None:
        made = await started()
        await made.services.metadata.controller.create_topics([NewTopic("t", num_partitions=1)])
        write(made, "a")
        await made.stop()
        database = data / "metadata.db" if not in_a_cluster else store_path
        backup = {path: path.read_bytes() for path in database.parent.glob(f"{database.name}*")}
        for _ in range(3):
            made = await started()
            await until_led(made)
            before = write(made, "b")
            await made.stop()
        for path in database.parent.glob(f"{database.name}*"):
            path.unlink()
        for path, content in backup.items():
            path.write_bytes(content)
        made = await started()
        await until_led(made)
        after = write(made, "c", "d")
        assert after[: len(before)] == before and len(after) == len(before) + 1 and after[-1] > before[-1]
        await made.kill()
        made = await started()
        assert made.services.replicas.get("t", 0).log.log_end_offset == 6
        await made.stop()

    asyncio.run(asyncio.wait_for(body(), 60))


def test_an_empty_directory_does_not_take_the_place_of_a_node_that_the_cluster_knows(tmp_path: Path) -> None:
    """Nor at the second attempt: unless that is asked for."""
    store, empty = tmp_path / "store.db", tmp_path / "empty"

    async def body() -> None:
        await (await member(tmp_path / "data", store)).stop()
        for _ in range(2):
            with pytest.raises(StartError, match=r"knows node 1.*is empty: give .*--replace"):
                await member(empty, store)
            assert not (empty / "meta.properties").exists()
        # Who has the data needs to say nothing, and an id that nobody had is free.
        for data, settings in ((tmp_path / "data", {}), (tmp_path / "other", {"node_id": 2})):
            await (await member(data, store, **settings)).stop()
        for _ in range(2):
            # It has no effect where there is data.
            replaced = await member(empty, store, replace=True)
            assert (empty / "meta.properties").exists()
            await replaced.stop()
        await (await member(empty, store)).stop()

    asyncio.run(body())
