"""Consumers that wait for the same are given the same, made once; those that do not are not."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from admin_support import Client, create, new_topic, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_broker_fetch import batch, by_partition, fetch, wants

from ottla.broker import turn
from ottla.broker.api.records.fetch import waiting
from ottla.broker.api.records.fetch.reader import Reader
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
        # Another version, and another limit.
        others = await join(client, 2)
        asked.append(fetch(others[0], wants("t", 0), max_wait_ms=120_000, version=11))
        asked.append(fetch(others[1], wants("t", 0), max_wait_ms=120_000, min_bytes=2))
        asking = [asyncio.ensure_future(one) for one in asked]
        await wait_for(partition, waiters=len(asking))
        responded.clear()
        await produced(client, 0, batch(b"v"))
        first, *rest = [by_partition(one)["t", 0] for one in await asyncio.gather(*asking)]
        assert first["records"] and all(one["records"] == first["records"] for one in rest)
        assert len(responded) == 3
        assert client.node.services.turn.answers is None
        for one in (*consumers, *others):
            one.close()

    run(tmp_path, body)


ASKED = st.fixed_dictionaries(
    {
        "partition": st.integers(0, PARTITIONS - 1),
        "version": st.sampled_from((4, 11, 12)),
        "max_bytes": st.sampled_from((1, 200, 100_000)),
        "min_bytes": st.sampled_from((1, 150, 400)),
        "isolation_level": st.integers(0, 1),
        "epoch": st.sampled_from((-1, 0, 1)),
    }
)


@settings(
    max_examples=6,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    asked=st.lists(ASKED, min_size=2, max_size=8), sizes=st.lists(st.integers(1, 300), min_size=1, max_size=3)
)
def test_each_gets_what_it_would_get_alone(
    tmp_path_factory: pytest.TempPathFactory, asked: list[dict[str, Any]], sizes: list[int]
) -> None:
    async def answers(client: Client, *, shared: bool) -> list[Any]:
        await create(client, new_topic("t", PARTITIONS))
        partitions = [client.node.services.replicas.get("t", index) for index in range(PARTITIONS)]
        consumers = await join(client, len(asked))
        asking = []
        for consumer, one in zip(consumers, asked, strict=True):
            part = wants(
                "t", one["partition"], current_leader_epoch=one["epoch"], partition_max_bytes=one["max_bytes"]
            )
            limits = {key: one[key] for key in ("version", "min_bytes", "isolation_level")}
            asking.append(asyncio.ensure_future(fetch(consumer, part, max_wait_ms=120_000, **limits)))
        # Those that believe in another epoch are answered at once.
        waiters = sum(one["version"] < 9 or one["epoch"] < 1 for one in asked)
        await wait_for(*partitions, waiters=waiters)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(turn, "TURN_MS", 10_000)
            if not shared:
                patch.setattr(waiting, "key_of", lambda *_: None)
            client.node.services.turn.begin()
            for index, partition in enumerate(partitions):
                for size in sizes[index:]:
                    partition.append(batch(b"v" * size), now_ms=1)
            client.node.services.turn.end()
            left = sum(len(partition._waiters) for partition in partitions)
            while sum(one.done() for one in asking) < len(asked) - left:
                await asyncio.sleep(0.001)
            found = [one.result() if one.done() else None for one in asking]
            for one in asking:
                one.cancel()
        for consumer in consumers:
            consumer.close()
        return found

    outcome = []
    for shared in (False, True):

        async def body(client: Client, shared: bool = shared) -> None:
            outcome.append(await answers(client, shared=shared))

        run(tmp_path_factory.mktemp("broker"), body)
    assert outcome[0] == outcome[1]
