"""What read_committed is told: Fetch in every way of asking, ListOffsets, DescribeProducers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from admin_support import Client, create, new_topic, run
from log_support import NOW_MS
from log_transactions_support import end, send
from test_broker_fetch import FETCH, by_partition, fetch, wants
from test_broker_fetch_alike import join, wait_for

from ottla.broker.api.records.fetch import habit_fetch, reader
from ottla.replication.partition import Partition
from ottla.wire.records import iter_batches

COMMITTED = {"isolation_level": 1}


async def made(client: Client, partitions: int = 1) -> Partition:
    await create(client, new_topic("t", partitions))
    partition: Partition = client.node.services.replicas.get("t", 0)
    return partition


async def ask(client: Client, offset: int = 0, *, isolation: int = 1, **more: Any) -> dict[str, Any]:
    answer = await fetch(client, wants("t", 0, fetch_offset=offset), isolation_level=isolation, **more)
    one: dict[str, Any] = by_partition(answer)["t", 0]
    return one


def bases(answer: dict[str, Any]) -> list[int]:
    return [header.base_offset for header, _ in iter_batches(answer["records"] or b"")]


def aborted(answer: dict[str, Any]) -> list[tuple[int, int]]:
    return [(one["producer_id"], one["first_offset"]) for one in answer["aborted_transactions"] or ()]


@pytest.mark.parametrize("version", range(4, 18))
def test_it_gets_what_is_stable_and_what_of_that_was_aborted(tmp_path: Path, version: int) -> None:
    async def body(client: Client) -> None:
        it = await made(client)
        topic_id = client.node.services.metadata.image.topics["t"].topic_id
        send(it, 2, 0)
        end(it, 2, commits=False)
        send(it, 1, 0)
        send(it, 9, 0, transactional=False)
        replica = {"replica_state": {"replica_id": -1, "replica_epoch": -1}}

        async def look(isolation: int, offset: int = 0) -> dict[str, Any]:
            topic = wants("t", 0, fetch_offset=offset) | {"topic_id": topic_id}
            fields = FETCH | replica | {"topics": [topic], "isolation_level": isolation}
            answer = await client.ask("Fetch", version, fields)
            one: dict[str, Any] = answer["responses"][0]["partitions"][0]
            return one

        one = await look(1)
        assert (one["high_watermark"], one["last_stable_offset"]) == (4, 2)
        assert (bases(one), aborted(one)) == ([0, 1], [(2, 0)])
        all_of_it = await look(0)
        assert (all_of_it["last_stable_offset"], all_of_it["aborted_transactions"]) == (2, None)
        assert bases(all_of_it) == [0, 1, 2, 3]
        nothing = await look(1, 2)
        assert (bases(nothing), nothing["aborted_transactions"]) == ([], [])
        end(it, 1, commits=True)
        rest = await look(1, 2)
        assert (bases(rest), aborted(rest), rest["last_stable_offset"]) == ([2, 3, 4], [], 5)

    run(tmp_path, body)


def test_a_fetch_that_waits_wakes_when_the_stable_offset_moves(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        it = await made(client)
        (other,) = await join(client, 1)
        send(it, 1, 0)
        waiting = asyncio.ensure_future(ask(other, max_wait_ms=600_000, version=11))
        await wait_for(it, waiters=1)
        send(it, 1, 1)
        # Not at what is not decided: it has looked again by the time that this is answered.
        assert (await ask(client, isolation=0, offset=1))["high_watermark"] == 2
        assert not waiting.done()
        end(it, 1, commits=False)
        one = await asyncio.wait_for(waiting, 60)
        assert (bases(one), aborted(one), one["last_stable_offset"]) == ([0, 1, 2], [(1, 0)], 3)
        other.close()

    run(tmp_path, body)


def test_bytes_that_are_waited_for_are_stable_ones(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        it = await made(client)
        (other,) = await join(client, 1)
        send(it, 9, 0, transactional=False)
        send(it, 1, 0, 10)
        few = asyncio.ensure_future(ask(other, max_wait_ms=600_000, min_bytes=200))
        await wait_for(it, waiters=1)
        end(it, 1, commits=True)
        assert bases(await asyncio.wait_for(few, 60)) == [0, 1, 11]
        other.close()

    run(tmp_path, body)


def test_consumers_of_either_level_do_not_get_each_others_answers(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        it = await made(client)
        consumers = await join(client, 4)
        asked = [
            asyncio.ensure_future(ask(one, isolation=number % 2, max_wait_ms=600_000))
            for number, one in enumerate(consumers)
        ]
        await wait_for(it, waiters=4)
        turn = client.node.services.turn
        answers = turn.answers
        send(it, 9, 0, transactional=False)
        send(it, 1, 0)
        found = await asyncio.gather(*asked)
        assert answers is None or turn.answers is None
        assert [bases(one) for one in found] == [[0, 1], [0], [0, 1], [0]]
        assert [one["aborted_transactions"] for one in found] == [None, [], None, []]
        for one in consumers:
            one.close()

    run(tmp_path, body)


def test_a_session_tells_of_a_stable_offset_that_moves(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        it = await made(client)
        opened = await fetch(client, wants("t", 0), session_epoch=0, **COMMITTED)
        session_id, epoch = opened["session_id"], 0

        async def again(*topics: dict[str, Any], **more: Any) -> Any:
            nonlocal epoch
            epoch += 1
            return by_partition(
                await fetch(client, *topics, session_id=session_id, session_epoch=epoch, **COMMITTED, **more)
            )

        send(it, 1, 0)
        told = (await again())["t", 0]
        assert (told["high_watermark"], told["last_stable_offset"], bases(told)) == (1, 0, [])
        assert await again() == {}
        end(it, 1, commits=False)
        told = (await again(max_wait_ms=600_000))["t", 0]
        assert (bases(told), aborted(told), told["last_stable_offset"]) == ([0, 1], [(1, 0)], 2)
        assert await again(wants("t", 0, fetch_offset=2)) == {}

    run(tmp_path, body)


@pytest.mark.parametrize("few", [1, 1000])
def test_a_client_that_asks_for_the_same_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(habit_fetch, "FEW", few)

    async def body(client: Client) -> None:
        it = await made(client, 3)
        other = client.node.services.replicas.get("t", 1)

        async def look(offset: int = 0, **more: Any) -> dict[str, Any]:
            (first,) = wants("t", 0, fetch_offset=offset)["partitions"]
            topic = {"topic": "t", "partitions": [first, *wants("t", 1, 2)["partitions"]]}
            answer = by_partition(await fetch(client, topic, **COMMITTED, **more))
            one: dict[str, Any] = answer["t", 0]
            assert answer["t", 2]["aborted_transactions"] == []
            return one

        await look()
        send(it, 1, 0)
        for _ in range(2):
            one = await look()
            assert (one["high_watermark"], one["last_stable_offset"], bases(one)) == (1, 0, [])
        if few == 1:
            assert client.node.services.fetch_sessions.habits is not None
        end(it, 1, commits=False)
        one = await look(max_wait_ms=600_000)
        assert (bases(one), aborted(one), one["last_stable_offset"]) == ([0, 1], [(1, 0)], 2)
        assert aborted(await look(2)) == []
        send(other, 1, 0)
        assert bases(await look(2)) == []

    run(tmp_path, body)


def test_less_is_read_where_very_much_was_aborted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "ABORTED_MAX", 4)
    monkeypatch.setattr(reader, "READ_BYTES_MIN", 1)

    async def body(client: Client) -> None:
        it = await made(client)
        it.log._segments._interval = 1
        for number in range(20):
            send(it, 1, number)
            end(it, 1, commits=False)
        offset, looks = 0, 0
        while offset < 40:
            one = await ask(client, offset)
            assert 0 < len(aborted(one)) <= 5
            offset = bases(one)[-1] + 1
            looks += 1
        assert looks > 3

    run(tmp_path, body)


def test_list_offsets_ends_at_what_is_stable(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        it = await made(client)
        send(it, 9, 0, transactional=False)
        send(it, 1, 0)

        async def offset(timestamp: int, isolation: int) -> tuple[int, int]:
            topics = [
                {
                    "name": "t",
                    "partitions": [
                        {"partition_index": 0, "timestamp": timestamp, "current_leader_epoch": -1}
                    ],
                }
            ]
            fields = {"replica_id": -1, "isolation_level": isolation, "topics": topics}
            answer = await client.ask("ListOffsets", 7, fields)
            one = answer["topics"][0]["partitions"][0]
            assert one["error_code"].name == "none"
            return one["offset"], one["timestamp"]

        assert (await offset(-1, 0), await offset(-1, 1)) == ((2, -1), (1, -1))
        assert (await offset(-2, 0), await offset(-2, 1)) == ((0, -1), (0, -1))
        late = NOW_MS + 10_000
        send(it, 1, 1, at_ms=late)
        assert (await offset(late, 0), await offset(late, 1)) == ((2, late), (-1, -1))
        assert (await offset(-3, 0), await offset(-3, 1)) == ((2, late), (-1, -1))
        end(it, 1, commits=True)
        assert (await offset(late, 1), await offset(-3, 1)) == ((2, late), (2, late))
        assert await offset(-1, 1) == (4, -1)

    run(tmp_path, body)


def test_producers_are_described_with_their_transactions(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        it = await made(client)
        send(it, 9, 0, transactional=False)
        send(it, 1, 0, 2, epoch=3)
        send(it, 2, 0)
        end(it, 2, commits=True, coordinator_epoch=4)
        fields = {"topics": [{"name": "t", "partition_indexes": [0]}]}
        answer = await client.ask("DescribeProducers", 0, fields)
        (one,) = answer["topics"][0]["partitions"]
        told = {
            p["producer_id"]: (
                p["producer_epoch"], p["last_sequence"], p["coordinator_epoch"], p["current_txn_start_offset"]
            )
            for p in one["active_producers"]
        }  # fmt: skip
        assert told == {9: (0, 0, -1, -1), 1: (3, 1, -1, 1), 2: (0, 0, 4, -1)}

    run(tmp_path, body)
