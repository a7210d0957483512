"""What nobody thought of happens in one partition: the others go on, and so does what recurs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from admin_support import Client, create, new_topic, run
from log_support import NOW_MS
from memory_disk import MemoryDisk
from replication_support import make_partition
from test_metadata_store_contract import ManualClock
from test_replication_leading import Bench, state

from measuring import HANG_S
from ottla.errors import KafkaError
from ottla.metadata.changes import PartitionChange
from ottla.metadata.image import BrokerImage, ClusterImage, PartitionState, TopicImage
from ottla.replication import laggards, openings
from ottla.replication.hand_over import HandOvers, handed_over
from ottla.replication.laggards import Laggards
from ottla.replication.manager import ReplicaManager
from ottla.replication.partition import Partition
from ottla.replication.proposals import Proposals
from ottla.types import Record, TopicPartition
from ottla.wire.records import build_batch


async def settle(condition: Callable[[], object]) -> None:
    deadline = asyncio.get_running_loop().time() + 10
    while not condition():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.002)


def unexpected(*args: Any, **more: Any) -> Any:
    raise ValueError("nobody thought of this")


class Watched:
    """A partition that notes what is asked of it, and may not bear it."""

    def __init__(self, index: int, asked: list[tuple[int, str]], *, fails: bool = False) -> None:
        self.topic_partition = TopicPartition("t", index)
        self.log: Any = type("Log", (), {"failed": None})
        self.index, self.asked, self.fails = index, asked, fails

    def look_again(self) -> None:
        self.asked.append((self.index, "look"))
        if self.fails:
            unexpected()

    def shrink(self) -> None:
        self.asked.append((self.index, "shrink"))


def with_laggards(path: Path, body: Callable[[ReplicaManager, ManualClock, list[Any]], None]) -> None:
    async def main(client: Client) -> None:
        replicas: Any = client.node.services.replicas
        clock, asked = ManualClock(), list[Any]()
        kept = replicas.partitions, replicas._laggards
        replicas._laggards = Laggards(replicas, clock, lambda: None)  # type: ignore[arg-type]
        replicas.partitions = {("t", index): Watched(index, asked, fails=index == 1) for index in range(3)}
        try:
            body(replicas, clock, asked)
        finally:
            replicas.partitions, replicas._laggards = kept

    run(path, main)


def test_laggards_are_looked_for_again_and_in_all_other_partitions(tmp_path: Path) -> None:
    def body(replicas: ReplicaManager, clock: ManualClock, asked: list[Any]) -> None:
        replicas.look_for_laggards()
        for _ in range(2):
            assert asked == [(0, "look"), (0, "shrink"), (1, "look"), (2, "look"), (2, "shrink")]
            asked.clear()
            clock.advance(replicas.lag_ms_max // 2)

    with_laggards(tmp_path, body)


def test_many_partitions_are_looked_at_a_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(laggards, "LOOKED_AT_ONCE", 2)

    def body(replicas: ReplicaManager, clock: ManualClock, asked: list[Any]) -> None:
        replicas.look_for_laggards()
        assert asked == [(0, "look"), (0, "shrink"), (1, "look")]
        clock.advance(0)
        assert asked[3:] == [(2, "look"), (2, "shrink")]
        clock.advance(replicas.lag_ms_max // 2)
        clock.advance(0)
        assert len(asked) == 10

    with_laggards(tmp_path, body)


def test_a_node_that_stood_still_judges_nobody_before_it_has_looked_once_more(tmp_path: Path) -> None:
    """What its followers asked meanwhile is yet to be read."""

    def body(replicas: ReplicaManager, clock: ManualClock, asked: list[Any]) -> None:
        def judged(after_ms: int) -> bool:
            asked.clear()
            clock.advance(after_ms)
            assert (0, "look") in asked
            return (0, "shrink") in asked

        every_ms = replicas.lag_ms_max // 2
        replicas.look_for_laggards()
        assert judged(every_ms) and judged(every_ms)
        assert not judged(4 * every_ms)
        assert judged(every_ms)
        # Always late: every other look counts.
        assert [judged(2 * every_ms) for _ in range(4)] == [False, True, False, True]

    with_laggards(tmp_path, body)


# Roles ----------------------------------------------------------------------------------------------------


def elsewhere(image: ClusterImage, *names: str) -> ClusterImage:
    """Topics whose partition nobody leads any more, as the store might say."""
    topics = dict(image.topics)
    for name in names:
        topic = topics[name]
        led = topic.partitions[0]
        gone = replace(
            led, leader=-1, leader_epoch=led.leader_epoch + 1, partition_epoch=led.partition_epoch + 1
        )
        topics[name] = replace(topic, partitions=(gone,))
    by_id = {topic.topic_id: topic for topic in topics.values()}
    return replace(image, topics=topics, topics_by_id=by_id, revision=image.revision + 1)


def test_a_configuration_that_cannot_be_put_into_effect_keeps_nobody_from_a_role(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("a"), new_topic("b"))
        services = client.node.services
        a, b = (services.replicas.get(name, 0) for name in "ab")
        monkeypatch.setattr(type(a.log), "update_config", unexpected)
        await services.metadata._replace(elsewhere(services.metadata.image, "a", "b"))
        assert a.leading is None and b.leading is None
        assert "a-0 cannot take its configuration" in caplog.text

    run(tmp_path, body)


def test_a_partition_that_cannot_take_its_role_resigns_and_tries_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("a"), new_topic("b"))
        services = client.node.services
        a, b = (services.replicas.get(name, 0) for name in "ab")
        image = services.metadata.image
        whole = Partition.apply

        def apply(it: Partition, *args: Any, **more: Any) -> None:
            whole(it, *args, **more)
            if it is a:
                unexpected()

        monkeypatch.setattr(Partition, "apply", apply)
        await services.metadata._replace(elsewhere(image, "a", "b"))
        await services.metadata._replace(replace(image, revision=image.revision + 2))
        # Both lead again, says the store.
        assert (a.leading, b.leading is not None) == (None, True)
        assert "a-0 cannot take its role" in caplog.text
        monkeypatch.undo()
        await settle(lambda: a.leading is not None)
        a.append(build_batch([Record(0, NOW_MS, None, b"v")]), now_ms=NOW_MS)

    run(tmp_path, body)


def test_whoever_cannot_be_woken_keeps_nobody_asleep() -> None:
    bench, woken = Bench(state(isr=(1,))), list[str]()
    for follower in (False, True):
        bench.it.add_waiter(unexpected, follower=follower)
        bench.it.add_waiter(lambda name=follower: woken.append(name), follower=follower)  # type: ignore[misc]
    bench.append()
    assert woken == [False, True]
    bench.it.wake()
    assert woken == [False, True] * 2
    bench.it.when_deleted(5, unexpected)
    bench.wait_deleted("a", 5)
    bench.it.resign()
    assert bench.told == [("a", "not_leader_or_follower")]


# Flushes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", ["fails", "is cancelled"])
def test_a_flush_that_ends_in_no_way_that_was_thought_of_is_not_the_last(ends: str) -> None:
    class Disk(MemoryDisk):
        trouble = True

        async def run(self, work: Callable[[], Any]) -> Any:
            if self.trouble and ends == "fails":
                unexpected()
            if self.trouble:
                await asyncio.Event().wait()
            return work()

    async def main() -> None:
        disk = Disk()
        it = make_partition(disk, state())
        first = it.flushed()
        assert it._flushes._running is not None
        if ends == "fails":
            with pytest.raises(ValueError, match="nobody thought"):
                await asyncio.wait_for(first, HANG_S)
        else:
            await asyncio.sleep(0)
            it._flushes._running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
        await settle(lambda: it._flushes._running is None)
        disk.trouble = False
        await asyncio.wait_for(it.flushed(), HANG_S)

    asyncio.run(main())


# Retention ------------------------------------------------------------------------------------------------


def test_retention_goes_on_for_all_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("a"), new_topic("b"))
        looked = {"a": 0, "b": 0}
        log_class = type(client.node.services.replicas.get("a", 0).log)
        whole = log_class.apply_retention

        def apply_retention(log: Any, *args: Any) -> Any:
            looked[log.topic_partition.topic] += 1
            if log.topic_partition.topic == "a":
                unexpected()
            return whole(log, *args)

        monkeypatch.setattr(log_class, "apply_retention", apply_retention)
        await settle(lambda: min(looked.values()) >= 3)

    run(tmp_path, body, {"log.retention.check.interval.ms": "10"})


def test_work_that_recurs_comes_again_whatever_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(client: Client) -> None:
        count = [0]

        class HighWatermarks(dict[Any, int]):
            def __iter__(self) -> Any:
                count[0] += 1
                unexpected()

        known = client.node._logs.high_watermarks
        assert known is not None
        client.node._logs.high_watermarks = HighWatermarks()
        await settle(lambda: count[0] >= 4)
        client.node._logs.high_watermarks = known

    run(tmp_path, body, {"replica.high.watermark.checkpoint.interval.ms": "10"})


# Partitions that cannot be opened ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("held", "alive", "stopping", "leader"),
    [
        (state(isr=(1, 2, 3)), (1, 2, 3), (), 2),
        (state(isr=(1, 3)), (1, 2, 3), (), 3),
        (state(isr=(1, 2, 3)), (1, 3), (), 3),
        (state(isr=(1, 2, 3)), (1, 2, 3), (2,), 3),
        # Nobody else has all of it, or nobody lives who has: better late than incomplete.
        (state(isr=(1,)), (1, 2, 3), (), None),
        (state(isr=(1, 2)), (1, 3), (), None),
        # It is led elsewhere.
        (state(leader=2), (1, 2, 3), (), None),
    ],
)
def test_who_leads_what_a_node_cannot_open(
    held: PartitionState, alive: tuple[int, ...], stopping: tuple[int, ...], leader: int | None
) -> None:
    brokers = {node_id: BrokerImage(node_id, "h", 1, None, 1) for node_id in alive}
    image = ClusterImage(brokers=brokers, stopping=dict.fromkeys(stopping, True))
    handed = handed_over(image, held, 1, 1)
    if leader is None:
        assert handed is None
    else:
        assert handed is not None
        assert (handed.leader, handed.leader_epoch) == (leader, held.leader_epoch + 1)
        assert handed.isr == tuple(node_id for node_id in held.isr if node_id != 1)


@pytest.mark.parametrize("min_isr", [1, 2, 3])
def test_what_nobody_can_open_is_not_handed_round_for_ever(min_isr: int) -> None:
    """Three nodes that cannot open a partition, and may lead it since they have all that was committed."""
    clock = ManualClock()
    nodes = {node_id: BrokerImage(node_id, "h", 1, None, 1) for node_id in (1, 2, 3)}
    held = [TopicImage("t", uuid4(), (state(isr=(1, 2, 3)),), {}, ((1, 2, 3),))]
    changes: list[PartitionState] = []

    def propose(proposer: Any, changed: PartitionState) -> None:
        changes.append(changed)
        held[0] = replace(held[0], partitions=(changed,))

    image = ClusterImage(brokers=nodes)
    several = [HandOvers(node_id, propose, lambda: image, {}, clock) for node_id in nodes]
    for _ in range(3_600):
        for one in several:
            one.ask(held[0], 0, min_isr)
        clock.advance(1_000)
    # Two at least, and in the second half of the hour hardly any.
    assert 2 <= len(changes) <= 60
    count = len(changes)
    # Who has opened it meanwhile may hand it over at once.
    for one in several:
        one.forget(TopicPartition("t", 0))
        one.ask(held[0], 0, min_isr)
    assert len(changes) > count or min_isr == 1


def test_a_partition_that_cannot_be_opened_is_handed_over_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[PartitionChange] = []

    async def commit(changes: Any, registrations: Any) -> bool:
        asked.extend(changes)
        return True

    async def body(client: Client) -> None:
        await create(client, new_topic("a"))
        services = client.node.services
        replicas: Any = services.replicas
        image = services.metadata.image
        led = replace(image.topics["a"].partitions[0], replicas=(1, 2), isr=(1, 2))
        topic = replace(image.topics["a"], name="x", topic_id=uuid4(), partitions=(led,))
        both = replace(
            image,
            brokers={**image.brokers, 2: image.brokers[1]},
            topics={**image.topics, "x": topic},
            topics_by_id={**image.topics_by_id, topic.topic_id: topic},
            revision=image.revision + 1,
        )
        monkeypatch.setattr(replicas, "make", unexpected)
        monkeypatch.setattr(replicas, "proposals", Proposals(commit))
        monkeypatch.setattr(openings, "OPENED_AGAIN_AFTER_MS", 0)
        monkeypatch.setattr(openings, "OPENED_AGAIN_AFTER_TIMES", 0)
        replicas.apply(image, both)
        await settle(lambda: asked)
        for _ in range(3):
            with pytest.raises(KafkaError, match="x-0 cannot be opened"):
                replicas.get("x", 0)
            await asyncio.sleep(0)
        (change,) = asked
        assert change.expected is led
        assert (change.state.leader, change.state.isr) == (2, (2,))
        assert caplog.text.count("x-0: the leader cannot open the log: proposing node 2 as the leader") == 1
        replicas.apply(both, image)

    run(tmp_path, body)
