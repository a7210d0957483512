"""Consumers that wait for the same are given the same, made once; those that do not are not."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import MethodType
from typing import Any

import pytest
from admin_support import Client, create, new_topic, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_broker_fetch import batch, by_partition, fetch, wants

from ottla.broker import turn
from ottla.broker.api.records.fetch import alike
from ottla.broker.api.records.fetch.reader import Reader
from ottla.broker.api.records.fetch.session import Session
from ottla.replication.partition import Partition

PARTITIONS = 2
CONSUMERS = 5


async def join(client: Client, count: int) -> list[Client]:
    return [Client(client.node, *await asyncio.open_connection(*client.node.address)) for _ in range(count)]


async def wait_for(*partitions: Partition, waiters: int) -> None:
    while sum(len(partition._waiters) for partition in partitions) < waiters:
        await asyncio.sleep(0.001)


async def produced(client: Client, index: int, records: bytes) -> None:
    """Within a turn in which others are woken."""
    data = {"name": "t", "partition_data": [{"index": index, "records": records}]}
    client.send(
        "Produce", 9, {"transactional_id": None, "acks": 1, "timeout_ms": 1_000, "topic_data": [data]}
    )
    await client.receive("Produce", 9)


def test_it_is_looked_at_and_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    responded = []
    respond = Reader.respond

    def counted(*of: Any) -> Any:
        responded.append(of)
        return respond(*of)

    monkeypatch.setattr(Reader, "respond", counted)
    monkeypatch.setattr(turn, "TURN_MS", 10_000)

    async def body(client: Client) -> None:
        await create(client, new_topic("t"))
        partition = client.node.services.replicas.get("t", 0)
        consumers = await join(client, CONSUMERS)
        asked = [fetch(one, wants("t", 0), max_wait_ms=120_000) for one in consumers]
        # Another version, other limits, what is committed alone, and another belief.
        others = await join(client, 6)
        differing: list[dict[str, Any]] = [{"version": 11}, {"min_bytes": 2}, {"isolation_level": 1}]
        differing += [{"max_bytes": 1_000}]
        asked += [
            fetch(other, wants("t", 0), max_wait_ms=120_000, **more)
            for other, more in zip(others, differing, strict=False)
        ]
        for other, more in zip(
            others[-2:], ({"partition_max_bytes": 1}, {"current_leader_epoch": 0}), strict=True
        ):
            asked.append(fetch(other, wants("t", 0, **more), max_wait_ms=120_000))
        asking = [asyncio.ensure_future(one) for one in asked]
        await wait_for(partition, waiters=len(asking))
        responded.clear()
        await produced(client, 0, batch(b"v"))
        first, *rest = [by_partition(one)["t", 0] for one in await asyncio.gather(*asking)]
        assert first["records"] and all(one["records"] == first["records"] for one in rest)
        assert len(responded) == 1 + len(others)
        assert client.node.services.turn.answers is None
        for one in (*consumers, *others):
            one.close()

    run(tmp_path, body)


def test_sessions_share_with_each_other_and_with_those_that_have_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    responded = []
    respond = Reader.respond

    def counted(*of: Any) -> Any:
        responded.append(of)
        return respond(*of)

    monkeypatch.setattr(turn, "TURN_MS", 10_000)
    monkeypatch.setattr(Reader, "respond", counted)

    async def body(client: Client) -> None:
        await create(client, new_topic("t", PARTITIONS))
        consumers = await join(client, CONSUMERS)
        # One of them has a second partition, of which it knows all.
        first = [
            await fetch(one, wants("t", *range(1 + (one is consumers[-1]))), session_epoch=0)
            for one in consumers
        ]
        ids = [one["session_id"] for one in first]
        assert 0 not in ids and len(set(ids)) == CONSUMERS
        alone = Client(client.node, *await asyncio.open_connection(*client.node.address))
        sessions = [client.node.services.fetch_sessions._sessions[one] for one in ids]
        for epoch in range(1, 4):
            asking = [
                asyncio.ensure_future(
                    fetch(
                        one,
                        wants("t", 0, fetch_offset=epoch - 1),
                        max_wait_ms=120_000,
                        session_id=session_id,
                        session_epoch=epoch,
                    )
                )
                for one, session_id in zip(consumers, ids, strict=True)
            ]
            without = asyncio.ensure_future(
                fetch(alone, wants("t", 0, fetch_offset=epoch - 1), max_wait_ms=120_000)
            )
            partition = client.node.services.replicas.get("t", 0)
            while any(one.waiter is None for one in sessions) or len(partition._waiters) <= CONSUMERS:
                await asyncio.sleep(0.001)
            responded.clear()
            await produced(client, 0, batch(b"v"))
            answers = await asyncio.gather(*asking)
            expected = by_partition(await without)
            assert len(responded) == 1
            assert [one["session_id"] for one in answers] == ids
            assert all(by_partition(one) == expected for one in answers)
            assert expected["t", 0]["high_watermark"] == epoch and expected["t", 0]["records"]
        # They know what they were told: nothing is due but what was given and not asked for again.
        for session in sessions:
            assert [want.partition for want in session.due] == [0]
            assert all(want.sent is not None for want in session.wants.values())
            assert session.wants["t", 0].sent.high_watermark == 3  # type: ignore[union-attr]
        assert list(sessions[-1].wants) == [("t", 1), ("t", 0)]
        for one in (*consumers, alone):
            one.close()

    run(tmp_path, body)


ASKED = st.fixed_dictionaries(
    {
        "partition": st.integers(0, PARTITIONS - 1),
        "version": st.sampled_from((4, 11, 12, 17)),
        "in_session": st.booleans(),
        "max_bytes": st.sampled_from((1, 200, 100_000)),
        "min_bytes": st.sampled_from((1, 150, 400)),
        "isolation_level": st.integers(0, 1),
        "epoch": st.sampled_from((-1, 0, 1)),
    }
)


def waiting(partitions: list[Partition], sessions: list[Session]) -> int:
    """How many requests wait, in sessions and without."""
    alone = sum(isinstance(who, MethodType) for partition in partitions for who in partition._waiters)
    return alone + sum(session.waiter is not None for session in sessions)


def plain(answer: dict[str, Any] | None) -> dict[str, Any] | None:
    """An answer without what differs from broker to broker."""
    if answer is None:
        return None
    for topic in answer["responses"]:
        topic.pop("topic_id", None)
    return answer | {"session_id": bool(answer.get("session_id"))}


def known(sessions: list[Session]) -> list[Any]:
    """What sessions believe that their clients know, and whether more is due."""
    found = []
    for session in sessions:
        for want in session.wants.values():
            sent = want.sent
            assert sent is not None
            told = sent.high_watermark, sent.last_stable_offset, sent.log_start_offset
            found.append((want.partition, told, want in session.due))
    return found


async def ask_each(
    client: Client, consumers: list[Client], asked: list[dict[str, Any]]
) -> tuple[list[asyncio.Future[dict[str, Any]]], list[Session]]:
    asking, sessions = [], []
    topic_id = client.node.services.replicas.get("t", 0).topic_id
    for consumer, one in zip(consumers, asked, strict=True):
        part = wants(
            "t", one["partition"], current_leader_epoch=one["epoch"], partition_max_bytes=one["max_bytes"]
        ) | {"topic_id": topic_id}
        limits = {key: one[key] for key in ("version", "min_bytes", "isolation_level")}
        if one["in_session"] and one["version"] >= 7:
            opened = await fetch(consumer, part, session_epoch=0, **limits)
            sessions.append(client.node.services.fetch_sessions._sessions[opened["session_id"]])
            limits |= {"session_id": opened["session_id"], "session_epoch": 1}
        asking.append(asyncio.ensure_future(fetch(consumer, part, max_wait_ms=120_000, **limits)))
    return asking, sessions


async def answers(
    client: Client, asked: list[dict[str, Any]], sizes: list[int], *, shared: bool
) -> tuple[list[Any], list[Any]]:
    """What each is answered, and what is known of the sessions then."""
    await create(client, new_topic("t", PARTITIONS))
    partitions = [client.node.services.replicas.get("t", index) for index in range(PARTITIONS)]
    consumers = await join(client, len(asked))
    asking, sessions = await ask_each(client, consumers, asked)
    # Those that believe in another epoch are answered at once.
    expected = sum(one["version"] < 9 or one["epoch"] < 1 for one in asked)
    while waiting(partitions, sessions) < expected:
        await asyncio.sleep(0.001)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(turn, "TURN_MS", 10_000)
        if not shared:
            patch.setattr(alike, "place_of", lambda *_: None)
        client.node.services.turn.begin()
        for index, partition in enumerate(partitions):
            for size in sizes[index:]:
                partition.append(batch(b"v" * size), now_ms=1)
        client.node.services.turn.end()
        left = waiting(partitions, sessions)
        while sum(one.done() for one in asking) < len(asked) - left:
            await asyncio.sleep(0.001)
        found = [plain(one.result()) if one.done() else None for one in asking]
        for one in asking:
            one.cancel()
    for consumer in consumers:
        consumer.close()
    return found, known(sessions)


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    asked=st.lists(ASKED, min_size=2, max_size=8), sizes=st.lists(st.integers(1, 300), min_size=1, max_size=3)
)
def test_each_gets_what_it_would_get_alone(
    tmp_path_factory: pytest.TempPathFactory, asked: list[dict[str, Any]], sizes: list[int]
) -> None:
    outcome = []
    for shared in (False, True):

        async def body(client: Client, shared: bool = shared) -> None:
            outcome.append(await answers(client, asked, sizes, shared=shared))

        run(tmp_path_factory.mktemp("broker"), body)
    assert outcome[0] == outcome[1]
