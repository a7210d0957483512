"""An internal topic's partition as a coordinator's log: when an append is committed, and who is told."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from coordinators_support import ManualClock, settle
from memory_disk import MemoryDisk
from replication_support import Surroundings, make_partition

from ottla.errors import ErrorCode, KafkaError
from ottla.log.settings import LogConfig
from ottla.metadata.image import PartitionState
from ottla.replication.internal_topic import InternalTopicLog
from ottla.types import Record
from ottla.wire.records import build_batch

LED = PartitionState(1, 5, 1, (1, 2), (1, 2))
ALONE = PartitionState(1, 5, 1, (1,), (1,))


class Topic:
    """One partition on node 1, and what those who wait for it were told."""

    def __init__(self, state: PartitionState, **config: int) -> None:
        self.around = Surroundings()
        self.around.registered = {2: 20}
        self.it = make_partition(MemoryDisk(), state, LogConfig(**config), self.around)
        replicas: Any = SimpleNamespace(get=lambda topic, partition: self.it)
        self.log = InternalTopicLog("t", replicas, ManualClock(), MemoryDisk())
        self.told: list[str | None] = []

    def append(self) -> bool:
        def ended(error: KafkaError | None) -> None:
            self.told.append(None if error is None else error.code.name)

        return self.log.append(0, build_batch([Record(0, 1, b"k", b"v")]), ended)

    def follow(self, offset: int) -> None:
        self.it.follower_fetched(2, 20, offset, -1, 0, current_leader_epoch=5)


def test_where_nobody_follows_it_is_committed_at_once() -> None:
    topic = Topic(ALONE)
    assert topic.append() and topic.told == []


def test_it_is_committed_when_the_followers_have_it() -> None:
    topic = Topic(LED)
    assert not topic.append() and not topic.append()
    topic.follow(1)
    assert topic.told == [None]
    topic.follow(2)
    assert topic.told == [None, None]


def test_one_that_leads_no_longer_says_so() -> None:
    topic = Topic(LED)
    topic.append()
    topic.it.resign()
    assert topic.told == ["not_leader_or_follower"]
    with pytest.raises(KafkaError):
        topic.append()


def test_what_too_few_have_is_committed_all_the_same() -> None:
    """Were it refused the machine would take it for not written, and the next load show otherwise."""
    topic = Topic(LED)
    topic.append()
    topic.it.commits.reached(1, KafkaError(ErrorCode.not_enough_replicas_after_append))
    assert topic.told == [None]


@pytest.mark.parametrize("state", [ALONE, LED])
@pytest.mark.parametrize("fails", [False, True])
def test_it_is_on_the_disk_where_the_topic_asks_for_that(state: PartitionState, fails: bool) -> None:
    async def story() -> None:
        topic = Topic(state, flush_messages=1)
        if fails:
            failure = KafkaError(ErrorCode.kafka_storage_error)

            def fail() -> None:
                raise failure

            topic.it.log.flush = fail  # type: ignore[method-assign, assignment]
        assert not topic.append()
        if state is LED:
            await settle()
            assert topic.told == []
            topic.follow(1)
        assert topic.told == []
        await settle()
        assert topic.told == ["kafka_storage_error" if fails else None]

    asyncio.run(story())


def test_a_flush_that_comes_to_no_end_is_a_failure() -> None:
    async def story() -> None:
        topic = Topic(ALONE, flush_messages=1)
        flushed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        flushes: Any = SimpleNamespace(flushed=lambda: flushed)
        topic.it._flushes = flushes
        topic.append()
        flushed.cancel()
        await settle()
        assert topic.told == ["unknown_server_error"]

    asyncio.run(story())
