"""Fetch and ListOffsets against a whole broker: limits, sessions, waiting, and who may ask."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from admin_support import Client, create, new_topic, run

from measuring import HANG_S, not_waiting
from ottla.env.disk import RealFile
from ottla.env.slices import Slices
from ottla.log.log import Log
from ottla.log.segment_file import ColdRead
from ottla.types import Record
from ottla.wire.records import BatchHeader, build_batch, seal_batch

Answers = dict[tuple[str, int], dict[str, Any]]


def batch(*values: bytes) -> bytes:
    return build_batch([Record(0, 1_000, None, value) for value in values])


async def produce(client: Client, topic: str, partition: int, records: bytes) -> None:
    data = {"name": topic, "partition_data": [{"index": partition, "records": records}]}
    fields = {"transactional_id": None, "acks": 1, "timeout_ms": 1000, "topic_data": [data]}
    answer = await client.ask("Produce", 9, fields)
    assert answer["responses"][0]["partition_responses"][0]["error_code"].name == "none"


def wants(topic: str, *partitions: int, **more: Any) -> dict[str, Any]:
    common = {"fetch_offset": 0, "partition_max_bytes": 1 << 20, "current_leader_epoch": -1} | more
    return {
        "topic": topic,
        "partitions": [common | {"partition": index, "log_start_offset": -1} for index in partitions],
    }


FETCH = {
    "replica_id": -1,
    "max_wait_ms": 0,
    "min_bytes": 1,
    "max_bytes": 1 << 26,
    "isolation_level": 0,
    "session_id": 0,
    "session_epoch": -1,
    "forgotten_topics_data": (),
    "rack_id": "",
}


async def fetch(client: Client, *topics: dict[str, Any], version: int = 12, **more: Any) -> dict[str, Any]:
    return await client.ask("Fetch", version, FETCH | {"topics": topics} | more)


def by_partition(answer: dict[str, Any]) -> Answers:
    return {
        (topic["topic"], partition["partition_index"]): partition
        for topic in answer["responses"]
        for partition in topic["partitions"]
    }


def errors(answer: dict[str, Any]) -> dict[tuple[str, int], str]:
    return {where: one["error_code"].name for where, one in by_partition(answer).items()}


def test_what_does_not_fit_any_more_is_left_out_and_never_cut_within_its_first_batch(tmp_path: Path) -> None:
    """Java's consumer raises an exception for records without one whole batch."""
    large = batch(b"x" * 5_000)

    async def body(client: Client) -> None:
        await create(client, new_topic("t", 3))
        for index in range(3):
            await produce(client, "t", index, large)
        answer = await fetch(client, wants("t", 0, 1, 2, partition_max_bytes=1_000))
        sizes = [len(one["records"] or b"") for one in by_partition(answer).values()]
        assert sizes == [len(large), 0, 0]
        answer = await fetch(client, wants("t", 0, 1, 2), max_bytes=2 * len(large) - 1)
        sizes = [len(one["records"] or b"") for one in by_partition(answer).values()]
        assert sizes == [len(large), 0, 0]

    run(tmp_path, body)


def test_a_client_cannot_ask_for_more_than_may_be_sent(tmp_path: Path) -> None:
    """Nor wait for it: no response could ever hold so much."""

    async def body(client: Client) -> None:
        await create(client, new_topic("t"))
        for _ in range(3):
            await produce(client, "t", 0, batch(b"x" * 600))
        answer = await fetch(client, wants("t", 0), max_wait_ms=120_000, min_bytes=1 << 30)
        assert len(by_partition(answer)["t", 0]["records"]) == 1_024

    run(tmp_path, body, {"fetch.max.bytes": "1024"})


def test_each_partitions_error_stands_by_it_and_is_told_at_once(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("t", 4))
        asked = [
            wants("t", 0),
            wants("t", 1, fetch_offset=7),
            wants("t", 2, current_leader_epoch=9),
            wants("t", 9),
            wants("u", 0),
        ]
        answer = await fetch(client, *asked, max_wait_ms=120_000)
        assert errors(answer) == {
            ("t", 0): "none",
            ("t", 1): "offset_out_of_range",
            ("t", 2): "unknown_leader_epoch",
            ("t", 9): "unknown_topic_or_partition",
            ("u", 0): "unknown_topic_or_partition",
        }
        refused = by_partition(answer)["t", 1]
        assert refused["high_watermark"] == refused["log_start_offset"] == -1

    run(tmp_path, body)


@pytest.mark.parametrize(("epoch", "code"), [(-1, "not_leader_or_follower"), (0, "unknown_leader_epoch")])
def test_nobody_is_a_follower_here(tmp_path: Path, epoch: int, code: str) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("t"))
        asked = wants("t", 0, current_leader_epoch=epoch)
        assert errors(await fetch(client, asked, replica_id=2, max_wait_ms=120_000)) == {("t", 0): code}

    run(tmp_path, body)


@pytest.mark.parametrize("version", [4, 9, 10])
def test_no_client_is_refused_zstd(tmp_path: Path, version: int) -> None:
    """Kafka 4 has no versions of Fetch from clients that could not read it."""

    async def body(client: Client) -> None:
        await create(client, new_topic("t", configs={"compression.type": "zstd"}))
        assert errors(await fetch(client, wants("t", 0), version=version)) == {("t", 0): "none"}

    run(tmp_path, body)


def test_of_a_partition_that_is_named_twice_the_last_counts(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("t", 2))
        answer = await fetch(client, wants("t", 0, 1), wants("t", 0, fetch_offset=9))
        assert errors(answer) == {("t", 0): "offset_out_of_range", ("t", 1): "none"}
        answer = await fetch(client, wants("t", 0), wants("t", 0, fetch_offset=9))
        assert [len(topic["partitions"]) for topic in answer["responses"]] == [1]
        assert errors(answer) == {("t", 0): "offset_out_of_range"}

    run(tmp_path, body)


def test_a_session_tells_what_is_new_and_only_that(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("t", 3))
        opened = await fetch(client, wants("t", 0, 1, 2), session_epoch=0)
        session = {"session_id": opened["session_id"]}
        assert session["session_id"] and len(by_partition(opened)) == 3
        await produce(client, "t", 1, batch(b"v"))
        answer = await fetch(client, **session, session_epoch=1)
        assert list(by_partition(answer)) == [("t", 1)]
        answer = await fetch(client, wants("t", 1, fetch_offset=1), **session, session_epoch=2)
        assert answer["responses"] == [] and answer["session_id"] == session["session_id"]
        # An offset that went out of range is told again and again; a partition that is forgotten no more.
        for epoch in (3, 4):
            answer = await fetch(client, wants("t", 1, fetch_offset=9), **session, session_epoch=epoch)
            assert errors(answer) == {("t", 1): "offset_out_of_range"}
        forgotten = [{"topic": "t", "partitions": [1]}]
        answer = await fetch(client, **session, session_epoch=5, forgotten_topics_data=forgotten)
        assert answer["responses"] == []
        # With the last partition goes the session.
        forgotten = [{"topic": "t", "partitions": [0, 2]}]
        answer = await fetch(client, **session, session_epoch=6, forgotten_topics_data=forgotten)
        assert (answer["error_code"].name, answer["session_id"]) == ("none", 0)
        answer = await fetch(client, **session, session_epoch=7)
        assert (answer["error_code"].name, answer["session_id"]) == ("fetch_session_id_not_found", 0)

    run(tmp_path, body)


def test_a_wrong_epoch_changes_nothing_in_a_session(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("t", 2))
        session = (await fetch(client, wants("t", 0), session_epoch=0))["session_id"]
        for epoch in (2, -2):
            answer = await fetch(client, wants("t", 1), session_id=session, session_epoch=epoch)
            assert answer["error_code"].name == "invalid_fetch_session_epoch" and not answer["responses"]
        assert not (await fetch(client, session_id=session, session_epoch=1))["responses"]

    run(tmp_path, body)


def test_a_waiting_fetch_hears_of_the_end_of_its_topic(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("t"), new_topic("u"))
        other = await connect(client)
        waiting = asyncio.ensure_future(fetch(other, wants("t", 0), wants("u", 0), max_wait_ms=120_000))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await client.ask("DeleteTopics", 5, {"topic_names": ["u"], "timeout_ms": 1_000})
        answer = await asyncio.wait_for(waiting, HANG_S)
        assert errors(answer) == {("t", 0): "none", ("u", 0): "unknown_topic_or_partition"}
        other.close()

    run(tmp_path, body)


async def connect(client: Client) -> Client:
    return Client(client.node, *await asyncio.open_connection(*client.node.address))


def freeze(monkeypatch: pytest.MonkeyPatch, error: OSError | None = None) -> list[int]:
    """From now on no segment is in memory; reading one succeeds, or fails with ``error``."""
    reads: list[int] = []
    whole = RealFile.read

    def read(file: RealFile, position: int, size: int) -> bytes:
        reads.append(size)
        if error is not None:
            raise error
        return whole(file, position, size)

    monkeypatch.setattr(RealFile, "read_cached", lambda file, position, size: None)
    monkeypatch.setattr(RealFile, "read", read)
    return reads


def test_records_on_a_cold_disk_are_read_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("t", 2))
        for index in range(2):
            await produce(client, "t", index, batch(b"v"))
        reads = freeze(monkeypatch)
        answer = by_partition(await fetch(client, wants("t", 0, 1), max_wait_ms=120_000))
        assert [len(one["records"]) for one in answer.values()] == reads and len(reads) == 2

    run(tmp_path, body)


def test_what_is_much_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To copy it takes long also where it is in memory. What is too large for a piece is read beside."""
    records = batch(bytes(1000))
    monkeypatch.setattr("ottla.broker.api.records.fetch.reader.READ_AT_ONCE_BYTES_MAX", 2 * len(records))
    beside: list[int] = []
    pauses: list[Slices] = []
    read, pause = RealFile.read, Slices.pause

    def counted(file: RealFile, position: int, size: int) -> Any:
        beside.append(size)
        return read(file, position, size)

    async def pausing(slices: Slices) -> None:
        pauses.append(slices)
        await pause(slices)

    monkeypatch.setattr(RealFile, "read", counted)
    monkeypatch.setattr(Slices, "pause", pausing)

    async def body(client: Client) -> None:
        await create(client, new_topic("t", 6))
        for partition in (*range(6), 5, 5):
            await produce(client, "t", partition, records)
        for count, expected in ((2, 0), (3, 1), (4, 1), (5, 2)):
            beside.clear(), pauses.clear()
            answers = by_partition(await fetch(client, wants("t", *range(count))))
            assert (len(beside), len(pauses)) == (0, expected)
            assert [len(one["records"]) for one in answers.values()] == [len(records)] * count
        answer = by_partition(await fetch(client, wants("t", 5)))["t", 5]
        assert beside == [len(answer["records"])] == [3 * len(records)]

    run(tmp_path, body)


def test_a_disk_that_fails_is_told_by_partition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("t", 2))
        await produce(client, "t", 0, batch(b"v"))
        freeze(monkeypatch, OSError(5, "Input/output error"))
        answer = await fetch(client, wants("t", 0, 1), session_epoch=0)
        assert errors(answer) == {("t", 0): "kafka_storage_error", ("t", 1): "none"}
        monkeypatch.undo()
        answer = await fetch(client, session_id=answer["session_id"], session_epoch=1)
        assert errors(answer) == {("t", 0): "none"} and by_partition(answer)["t", 0]["records"]

    run(tmp_path, body)


def test_a_cold_look_up_waits_once_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look-up that has to read first is a wait like any other: it has one deadline, hears of appends, and
    is given up when its client goes."""
    cold = [True]
    whole = Log.read

    def read(log: Log, *args: Any, **more: Any) -> Any:
        if cold and cold.pop():
            raise ColdRead("test", lambda: None)
        return whole(log, *args, **more)

    async def body(client: Client) -> None:
        await create(client, new_topic("t"))
        monkeypatch.setattr(Log, "read", read)
        waiters = client.node.services.replicas.get("t", 0)._waiters
        assert (await fetch(client, wants("t", 0)))["responses"] and not cold
        cold.append(True)
        other = await connect(client)
        waiting = asyncio.ensure_future(fetch(other, wants("t", 0), max_wait_ms=120_000))
        while cold or not waiters:
            await asyncio.sleep(0.001)
        await produce(client, "t", 0, batch(b"v"))
        assert by_partition(await asyncio.wait_for(waiting, HANG_S))["t", 0]["records"] and not waiters
        cold.append(True)
        other.send("Fetch", 12, FETCH | {"topics": [wants("t", 0, fetch_offset=1)], "max_wait_ms": 2**31 - 1})
        while cold or not waiters:
            await asyncio.sleep(0.001)
        other.close()
        while waiters:
            await asyncio.sleep(0.001)

    run(tmp_path, body)


async def until_both_wait(client: Client) -> None:
    """A Fetch of t's partition, and a member of the group g."""
    waiters = client.node.services.replicas.get("t", 0)._waiters
    state = ""
    while not waiters or state != "PreparingRebalance":
        found = await client.ask(
            "DescribeGroups", 4, {"groups": ["g"], "include_authorized_operations": False}
        )
        state = found["groups"][0]["group_state"]


def test_a_stop_answers_whoever_waits(tmp_path: Path) -> None:
    """A long poll and a member that waits for its group, and what is queued behind them."""

    async def body(client: Client) -> None:
        await create(client, new_topic("t"))
        found = await client.ask("FindCoordinator", 4, {"key_type": 0, "coordinator_keys": ["g"]})
        assert found["coordinators"][0]["error_code"].name == "none"
        other, member = await connect(client), await connect(client)
        first = asyncio.ensure_future(fetch(other, wants("t", 0), max_wait_ms=120_000))
        joining = {
            "group_id": "g",
            "session_timeout_ms": 30_000,
            "rebalance_timeout_ms": 60_000,
            "member_id": "",
            "protocol_type": "consumer",
            "protocols": [{"name": "range", "metadata": b""}],
        }
        join = asyncio.ensure_future(member.ask("JoinGroup", 1, joining))
        await until_both_wait(client)
        with not_waiting(60):
            await client.node.stop()
        assert errors(await asyncio.wait_for(first, HANG_S)) == {("t", 0): "none"}
        assert (await asyncio.wait_for(join, HANG_S))["error_code"].name == "not_coordinator"
        for one in (client, other, member):
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await one.ask("ApiVersions", 0)

    run(tmp_path, body, {"group.initial.rebalance.delay.ms": "30000"})


def test_garbage_with_a_right_checksum_does_not_hide_what_is_around_it(tmp_path: Path) -> None:
    """What is compressed is not looked into when it comes: anything may lie in it."""

    async def body(client: Client) -> None:
        now_ms = int(time.time() * 1000)
        await create(client, new_topic("t"))

        async def offset_at(timestamp_ms: int) -> tuple[int, int, str]:
            asked = {"partition_index": 0, "current_leader_epoch": -1, "timestamp": timestamp_ms}
            topics = ({"name": "t", "partitions": (asked,)},)
            fields = {"replica_id": -1, "isolation_level": 0, "topics": topics}
            found = (await client.ask("ListOffsets", 7, fields))["topics"][0]["partitions"][0]
            return found["offset"], found["timestamp"], found["error_code"].name

        await produce(client, "t", 0, build_batch([Record(0, now_ms - 10_000, None, b"a")]))
        header = BatchHeader(0, 0, -1, 2, 0, 1, 0, now_ms, now_ms + 1000, -1, -1, -1, 1)
        await produce(client, "t", 0, seal_batch(header, b"no gzip at all"))
        await produce(client, "t", 0, build_batch([Record(0, now_ms, None, b"b")]))
        assert await offset_at(now_ms - 10_000) == (0, now_ms - 10_000, "none")
        assert await offset_at(now_ms - 9_999) == (2, now_ms, "none")
        assert await offset_at(now_ms + 1) == (-1, -1, "none")
        assert await offset_at(-3) == (2, now_ms, "none")

    run(tmp_path, body)


def test_a_session_with_too_little_to_tell_is_woken_by_more(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("t", 1))
        await produce(client, "t", 0, batch(b"v"))
        asked = fetch(client, wants("t", 0), min_bytes=1_000, max_wait_ms=120_000, session_epoch=0)
        waiting = asyncio.ensure_future(asked)
        sessions = client.node.services.fetch_sessions._sessions
        while not any(session.waiter for session in sessions.values()):
            await asyncio.sleep(0.001)
        client.node.services.replicas.get("t", 0).append(batch(b"v" * 1_000), now_ms=1)
        found = by_partition(await asyncio.wait_for(waiting, HANG_S))
        assert len(found["t", 0]["records"]) > 1_000

    run(tmp_path, body)
