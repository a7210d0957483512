"""A node that cannot start, or not stop, lets go of everything; one that can takes it over."""

from __future__ import annotations

import asyncio
import errno
import socket
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ottla.env.clock import SystemClock
from ottla.env.disk import RealDisk
from ottla.errors import ErrorCode, KafkaError
from ottla.log.data_dir import DataDirectoryError, RegistrationMark
from ottla.metadata.sqlite import SqliteStore
from ottla.metadata.store import StoreError
from ottla.metadata.topics import NewTopic
from ottla.node import Node, NodeSettings, StartError
from ottla.types import TopicPartition


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


def unreadable_clean_mark(data: Path) -> None:
    (data / ".kafka_cleanshutdown").unlink()
    (data / ".kafka_cleanshutdown").mkdir()


@pytest.mark.parametrize(
    ("break_it", "error"),
    [
        (other_cluster, DataDirectoryError),
        (no_database, StoreError),
        (no_tables, StoreError),
        (unreadable_clean_mark, OSError),
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
            await asyncio.open_connection(*broken._servers[0]._bound.address)  # type: ignore[union-attr]
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


def test_a_partition_that_cannot_be_opened_stops_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        await use(tmp_path)
        with monkeypatch.context() as patch:

            def fail(*_: object, **__: object) -> None:
                raise KafkaError(ErrorCode.inconsistent_topic_id, "t-0 is not what it was")

            patch.setattr("ottla.log.manager.LogManager.get_or_create", fail)
            with pytest.raises(KafkaError):
                await node(tmp_path).start()
        await use(tmp_path)

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
            if told:
                assert address[0] == socket.gethostname()
                assert f"{address[0]}:{address[1]}" in said[0]
        finally:
            await made.stop()

    with caplog.at_level("INFO"):
        asyncio.run(main())


async def member(data: Path, store: Path) -> Node:
    """A node of a cluster, alone in it."""
    made = Node(
        NodeSettings(data=str(data), port=0, node_id=1),
        store=await SqliteStore.open(str(store), SystemClock()),
    )
    await made.start()
    if "t" not in made.services.metadata.image.topics:
        await made.services.metadata.controller.create_topics([NewTopic("t", num_partitions=1)])
    return made


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
        partition.log.failed = OSError(errno.EIO, "Input/output error")
        if ends_in_order:
            await made.stop()
            assert not RegistrationMark(RealDisk(), str(tmp_path / "data")).last.clean  # type: ignore[union-attr]
            return
        made.services.replicas.look_for_laggards()
        await asyncio.wait_for(made.failed.wait(), 10)
        assert may_have_lost_data(tmp_path / "data", made)
        await made.kill()
        again = await member(tmp_path / "data", tmp_path / "store.db")
        assert not may_have_lost_data(tmp_path / "data", again)
        await again.stop()

    asyncio.run(asyncio.wait_for(body(), 30))


def test_a_node_of_a_cluster_that_stops_in_order_vouches_for_its_data(tmp_path: Path) -> None:
    async def body() -> None:
        made = await member(tmp_path / "data", tmp_path / "store.db")
        await made.stop()
        mark = RegistrationMark(RealDisk(), str(tmp_path / "data"))
        assert mark.last is not None
        assert mark.last.clean

    asyncio.run(asyncio.wait_for(body(), 30))
