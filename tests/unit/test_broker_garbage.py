"""Requests leave no cycles behind: one would keep a Produce's megabyte until the collector comes by."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop
from admin_support import Client, code, create, new_topic, run
from client_support import let_in
from test_broker_gate import produce as frame_of
from test_metadata_store_contract import ManualClock

from ottla.broker import request
from ottla.broker.api.records.fetch.reader import Reader
from ottla.broker.api.records.fetch.waiting import Wait
from ottla.broker.api.records.produce.commit import Commit
from ottla.broker.gate import Gate
from ottla.broker.pending import Pending
from ottla.env.deadlines import Deadline, Deadlines
from ottla.env.deferred import Deferred
from ottla.types import Record
from ottla.wire.apis import APIS
from ottla.wire.records import build_batch

WATCHED = (request.RequestContext, Deferred, Pending, Deadline, Reader, Wait, Commit)
BATCH = build_batch([Record(0, 1_000, None, b"v")])


@contextmanager
def nothing_left(of: type | tuple[type, ...] = WATCHED) -> Iterator[None]:
    """What happens inside, and may be frozen meanwhile, leaves nothing of a request to the collector."""
    gc.collect()
    gc.disable()
    try:
        yield
        gc.unfreeze()
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found = {type(one).__name__ for one in gc.garbage if isinstance(one, of)}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert found == set()


def fetch(max_wait_ms: int, offset: int) -> dict[str, Any]:
    partition = {
        "partition": 0, "current_leader_epoch": -1, "fetch_offset": offset, "last_fetched_epoch": -1,
        "log_start_offset": -1, "partition_max_bytes": 1000,
    }  # fmt: skip
    return {
        "replica_id": -1, "max_wait_ms": max_wait_ms, "min_bytes": 1, "max_bytes": 1000, "isolation_level": 0,
        "session_id": 0, "session_epoch": -1, "topics": [{"topic": "t", "partitions": [partition]}],
        "forgotten_topics_data": [], "rack_id": "",
    }  # fmt: skip


def produced(topic: str, acks: int) -> dict[str, Any]:
    topics = [{"name": topic, "partition_data": [{"index": 0, "records": BATCH}]}]
    return {"transactional_id": None, "acks": acks, "timeout_ms": 1_000, "topic_data": topics}


def test_a_fetch_that_waited_and_a_produce_that_was_refused(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("t"))
        partition = client.node.services.replicas.get("t", 0)
        await client.ask("Fetch", 12, fetch(1, 0))
        with nothing_left():
            await client.ask("Fetch", 12, fetch(1, 0))
            waiting = asyncio.ensure_future(client.ask("Fetch", 12, fetch(10_000, 0)))
            while not partition._waiters:
                await asyncio.sleep(0)
            partition.append(BATCH, now_ms=1, acks=1)
            assert (await waiting)["responses"][0]["partitions"][0]["records"]
            answer = await client.ask("Produce", 9, produced("nowhere", -1))
            assert code(answer["responses"][0]["partition_responses"][0]) == "unknown_topic_or_partition"

    run(tmp_path, body)


async def come_and_go(client: Client) -> None:
    """Clients, topics and a group that are there when everything is frozen, and gone at the end."""
    await create(client, new_topic("t", 3))
    await client.ask("Produce", 9, produced("t", 1))
    others = [Client(client.node, *await asyncio.open_connection(*client.node.address)) for _ in range(3)]
    for other in others:
        await other.ask("ApiVersions", 0)
        other.send("Fetch", 12, fetch(60_000, 1))
    session = (await client.ask("Fetch", 12, fetch(1, 1) | {"session_epoch": 0}))["session_id"]
    joined = {
        "group_id": "g", "session_timeout_ms": 6_000, "rebalance_timeout_ms": 6_000, "member_id": "",
        "protocol_type": "consumer", "protocols": [{"name": "range", "metadata": b""}],
    }  # fmt: skip
    while not client.node.services.replicas.get("t", 0)._waiters:
        await asyncio.sleep(0)
    while code(member := await client.ask("JoinGroup", 1, joined)) != "none":
        await asyncio.sleep(0.01)
    gc.freeze()
    left = await client.ask("LeaveGroup", 1, {"group_id": "g", "member_id": member["member_id"]})
    assert code(left) == "none"
    (deleted,) = (await client.ask("DeleteGroups", 1, {"groups_names": ["g"]}))["results"]
    assert code(deleted) == "none"
    await client.ask("Fetch", 12, fetch(1, 1) | {"session_id": session, "topics": []})
    for other in others:
        other.close()
    (deleted,) = (await client.ask("DeleteTopics", 5, {"topic_names": ["t"], "timeout_ms": 1_000}))[
        "responses"
    ]
    assert code(deleted) == "none"
    while client.node.connection_count > 1:
        await asyncio.sleep(0)


def test_what_is_frozen_goes_when_it_is_let_go(tmp_path: Path) -> None:
    """Nothing of a client's leaves a circle: if it was frozen, nobody would ever open it."""

    async def body(client: Client) -> None:
        await client.ask("FindCoordinator", 3, {"key": "g", "key_type": 0})
        with nothing_left(of=object):
            await come_and_go(client)

    # As `ottla serve` does: asyncio's own transports leave circles.
    run(tmp_path, body, runner=uvloop.run)


class Uncommitted:
    """A partition whose followers are the test."""

    topic_partition = ("t", 0)

    def __init__(self) -> None:
        self.leading = object()
        self.waiting: list[Callable[[None], None]] = []

    def when_committed(self, offset: int, committed: Callable[[None], None]) -> None:
        self.waiting.append(committed)

    def forget_commit(self, committed: Callable[[None], None]) -> bool:
        self.waiting.remove(committed)
        return True


def test_offsets_that_were_committed_or_refused(tmp_path: Path) -> None:
    def commit(group_id: str, generation: int = -1, topic: str = "t") -> dict[str, Any]:
        partition = {"partition_index": 0, "committed_offset": 1, "committed_leader_epoch": -1}
        topics = [{"name": topic, "partitions": [partition | {"committed_metadata": None}]}]
        whom = {"generation_id_or_member_epoch": generation, "member_id": "m", "group_instance_id": None}
        return {"group_id": group_id, **whom, "topics": topics}

    async def body(client: Client) -> None:
        await create(client, new_topic("t"))
        found = await client.ask("FindCoordinator", 2, {"key": "g", "key_type": 0})
        assert code(found) == "none"
        asked = [commit("g"), commit("other", 3), commit("g" * 32_767), commit("g", topic="unknown")]
        for fields in asked:
            await client.ask("OffsetCommit", 8, fields)
        with nothing_left():
            codes = [
                (await client.ask("OffsetCommit", 8, fields))["topics"][0]["partitions"][0]["error_code"].name
                for fields in asked
            ]
        assert codes == ["none", "illegal_generation", "none", "unknown_topic_or_partition"]

    run(tmp_path, body)


@pytest.mark.parametrize("end", ["committed", "expired", "cancelled"])
def test_a_produce_that_waited_for_replicas(end: str) -> None:
    clock, partition = ManualClock(), Uncommitted()
    services: Any = SimpleNamespace(deadlines=Deadlines(clock))

    def handler(ctx: request.RequestContext, request: Any) -> Deferred[Any]:
        answer = {"index": 0, "error_code": 0, "base_offset": 0, "log_append_time_ms": -1}
        fields = {"responses": [{"name": "t", "partition_responses": [answer]}], "throttle_time_ms": 0}
        waits: Any = (partition, partition.leading, 1, answer)
        return Commit(ctx, [waits], fields, 1_000).reply

    gate = Gate(services, dict.fromkeys(APIS, handler))
    with nothing_left():
        pending = gate(let_in(), frame_of(-1))
        assert isinstance(pending, Pending)
        told: list[bool] = []
        pending.listen(lambda done: told.append(done.done))
        if end == "committed":
            partition.waiting.pop()(None)
        elif end == "expired":
            clock.advance(2_000)
        else:
            pending.cancel()
        assert partition.waiting == []
        assert told == ([] if end == "cancelled" else [True])
        del pending
