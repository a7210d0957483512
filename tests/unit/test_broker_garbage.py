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
from admin_support import Client, code, create, new_topic, run
from test_broker_dispatch import produce as frame_of
from test_metadata_store_contract import ManualClock

from ottla.broker.connection import Pending
from ottla.broker.context import RequestContext
from ottla.broker.deferred import Deferred
from ottla.broker.dispatch import Dispatcher
from ottla.broker.handlers import produce
from ottla.broker.handlers._fetch_reading import Reader
from ottla.broker.handlers._fetch_waiting import Wait
from ottla.env.deadlines import Deadline, Deadlines
from ottla.types import Record
from ottla.wire.records import build_batch

WATCHED = (RequestContext, Deferred, Pending, Deadline, Reader, Wait, produce._Commit)
BATCH = build_batch([Record(0, 1_000, None, b"v")])


@contextmanager
def nothing_left() -> Iterator[None]:
    """What happens inside leaves nothing of a request to the collector."""
    gc.collect()
    gc.disable()
    try:
        yield
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found = {type(one).__name__ for one in gc.garbage if isinstance(one, WATCHED)}
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


class Uncommitted:
    """A partition whose followers are the test."""

    topic_partition = ("t", 0)

    def __init__(self) -> None:
        self.waiting: list[Callable[[None], None]] = []

    def when_committed(self, offset: int, committed: Callable[[None], None]) -> None:
        self.waiting.append(committed)

    def forget_commit(self, committed: Callable[[None], None]) -> bool:
        self.waiting.remove(committed)
        return True


@pytest.mark.parametrize("end", ["committed", "expired", "cancelled"])
def test_a_produce_that_waited_for_replicas(end: str) -> None:
    clock, partition = ManualClock(), Uncommitted()
    services: Any = SimpleNamespace(faults=None, deadlines=Deadlines(clock))
    dispatcher = Dispatcher(services)

    def handler(ctx: RequestContext, request: Any) -> Deferred[Any]:
        answer = {"index": 0, "error_code": 0, "base_offset": 0, "log_append_time_ms": -1}
        fields = {"responses": [{"name": "t", "partition_responses": [answer]}], "throttle_time_ms": 0}
        waits: Any = (partition, 1, answer)
        return produce._Commit(ctx, [waits], fields, 1_000).reply

    dispatcher._handlers = dict.fromkeys(dispatcher._handlers, handler)
    connection: Any = SimpleNamespace(client_host="h")
    with nothing_left():
        pending = dispatcher(connection, frame_of(-1))
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
