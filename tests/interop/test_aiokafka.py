"""aiokafka: asyncio producing, consuming, group membership and its admin client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
from aiokafka import (
    AIOKafkaConsumer,
    AIOKafkaProducer,
    ConsumerRebalanceListener,
    OffsetAndMetadata,
    TopicPartition,
)
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import (
    MessageSizeTooLargeError,
    OffsetOutOfRangeError,
    TopicAlreadyExistsError,
)

from measuring import not_waiting


def run(main: Coroutine[Any, Any, None], timeout_s: float = 60.0) -> None:
    async def limited() -> None:
        await asyncio.wait_for(main, timeout_s)

    asyncio.run(limited())


async def eventually(condition: Callable[[], bool | Awaitable[bool]], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if await value if isinstance(value, Awaitable) else value:
            return
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("codec", [None, "gzip", "snappy", "lz4", "zstd"])
@pytest.mark.parametrize("acks", [0, 1, "all", "idempotent"])
def test_round_trip(
    bootstrap: str, make_topic: Callable[..., str], codec: str | None, acks: int | str
) -> None:
    topic = make_topic()
    config = {"enable_idempotence": True} if acks == "idempotent" else {"acks": acks}

    async def main() -> None:
        sent = [
            (
                None if i % 6 == 0 else b"key %d" % i,
                None if i % 6 == 3 else b"x" * (i % 300),
                [("a", b"1"), ("a", b"2"), ("n", b"%d" % i)],
                1_600_000_000_000 + i,
            )
            for i in range(300)
        ]
        async with AIOKafkaProducer(
            bootstrap_servers=bootstrap, compression_type=codec, linger_ms=20, **config
        ) as producer:
            futures = [
                await producer.send(topic, value, key, 0, timestamp_ms, headers)
                for key, value, headers, timestamp_ms in sent
            ]
            reports = await asyncio.gather(*futures)
        if acks != 0:
            assert [report.offset for report in reports] == list(range(300))
        consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
        async with consumer:
            consumer.assign([TopicPartition(topic, 0)])
            for i, (key, value, headers, timestamp_ms) in enumerate(sent):
                got = await consumer.getone()
                assert (got.offset, got.key, got.value, got.timestamp) == (i, key, value, timestamp_ms)
                assert list(got.headers) == headers

    run(main())


def test_seek_offsets_and_times(bootstrap: str, make_topic: Callable[..., str]) -> None:
    topic = make_topic()
    partition = TopicPartition(topic, 0)

    async def main() -> None:
        async with AIOKafkaProducer(bootstrap_servers=bootstrap, max_batch_size=200) as producer:
            for i in range(50):
                await producer.send_and_wait(topic, b"%d" % i, timestamp_ms=1000 * i)
        async with AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="none") as consumer:
            consumer.assign([partition])
            assert await consumer.beginning_offsets([partition]) == {partition: 0}
            assert await consumer.end_offsets([partition]) == {partition: 50}
            for timestamp_ms, offset in [(0, 0), (1, 1), (20_000, 20), (49_000, 49)]:
                found = await consumer.offsets_for_times({partition: timestamp_ms})
                assert found[partition].offset == offset
            assert (await consumer.offsets_for_times({partition: 49_001}))[partition] is None
            consumer.seek(partition, 33)
            assert (await consumer.getone()).value == b"33"
            await consumer.seek_to_beginning(partition)
            assert (await consumer.getone()).offset == 0
            await consumer.seek_to_end(partition)
            assert await consumer.position(partition) == 50
            consumer.seek(partition, 51)
            with pytest.raises(OffsetOutOfRangeError):
                await consumer.getone()

    run(main())


def test_long_poll_and_empty_poll(bootstrap: str, make_topic: Callable[..., str]) -> None:
    topic = make_topic()

    async def main() -> None:
        consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, fetch_max_wait_ms=30_000)
        async with consumer, AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
            assert await consumer.getmany(timeout_ms=300) == {}
            with not_waiting(30):
                await producer.send_and_wait(topic, b"now")
                assert (await consumer.getone()).value == b"now"

    run(main())


def test_too_large(bootstrap: str, make_topic: Callable[..., str]) -> None:
    topic = make_topic(max_message_bytes="5000")

    async def main() -> None:
        async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
            with pytest.raises(MessageSizeTooLargeError):
                await producer.send_and_wait(topic, b"x" * 10_000)
            assert (await producer.send_and_wait(topic, b"x")).offset == 0

    run(main())


class Joined(ConsumerRebalanceListener):  # type: ignore[misc]
    def __init__(self) -> None:
        self.rebalances = 0

    async def on_partitions_revoked(self, revoked: object) -> None:
        pass

    async def on_partitions_assigned(self, assigned: object) -> None:
        self.rebalances += 1


@pytest.mark.parametrize("sticky", [False, True], ids=["roundrobin", "sticky"])
def test_rebalancing(bootstrap: str, make_topic: Callable[..., str], name: str, sticky: bool) -> None:
    """A second member joins and leaves while messages flow; all of them are read."""
    topic = make_topic(4)
    config: dict[str, Any] = {"partition_assignment_strategy": [StickyPartitionAssignor]} if sticky else {}
    read: set[bytes] = set()
    sent: set[bytes] = set()

    async def member() -> tuple[AIOKafkaConsumer, asyncio.Task[None]]:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap,
            group_id=name,
            auto_offset_reset="earliest",
            heartbeat_interval_ms=200,
            auto_commit_interval_ms=100,
            metadata_max_age_ms=5000,
            **config,
        )
        consumer.subscribe([topic], listener=Joined())
        await consumer.start()

        async def loop() -> None:
            async for message in consumer:
                read.add(message.value)

        return consumer, asyncio.create_task(loop())

    async def main() -> None:
        async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all") as producer:

            async def send(count: int) -> None:
                for _ in range(count):
                    value = b"%d" % len(sent)
                    await producer.send_and_wait(topic, value, partition=len(sent) % 4)
                    sent.add(value)

            first, first_loop = await member()
            await eventually(lambda: len(first.assignment()) == 4)
            await send(40)
            second, second_loop = await member()
            await eventually(lambda: len(first.assignment()) == 2 == len(second.assignment()))
            assert not first.assignment() & second.assignment()
            await send(40)
            await second.stop()
            await asyncio.gather(second_loop, return_exceptions=True)
            await eventually(lambda: len(first.assignment()) == 4)
            await send(40)
            await eventually(lambda: read == sent)
            await first.stop()
            await asyncio.gather(first_loop, return_exceptions=True)

    run(main(), 90)


def test_static_member(bootstrap: str, make_topic: Callable[..., str], name: str) -> None:
    """The member id changes, but a static member that comes back causes no rebalance of the others."""
    topic = make_topic(2)

    async def member(instance: str, listener: Joined) -> AIOKafkaConsumer:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap,
            group_id=name,
            group_instance_id=instance,
            heartbeat_interval_ms=200,
            session_timeout_ms=20_000,
        )
        consumer.subscribe([topic], listener=listener)
        await consumer.start()
        return consumer

    async def main() -> None:
        counted = Joined()
        stays = await member("stays", counted)
        returns = await member("returns", Joined())
        await eventually(lambda: len(stays.assignment()) == 1 == len(returns.assignment()))
        await eventually(lambda: counted.rebalances == 2)
        held = returns.assignment()
        await returns.stop()
        returns = await member("returns", Joined())
        await eventually(lambda: returns.assignment() == held)
        assert counted.rebalances == 2
        await returns.stop()
        await stays.stop()

    run(main())


def test_commits(bootstrap: str, make_topic: Callable[..., str], name: str) -> None:
    topic = make_topic()
    partition = TopicPartition(topic, 0)

    async def main() -> None:
        async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
            for i in range(10):
                await producer.send_and_wait(topic, b"%d" % i)
        config = {"bootstrap_servers": bootstrap, "group_id": name, "auto_offset_reset": "earliest"}
        async with AIOKafkaConsumer(topic, enable_auto_commit=False, **config) as consumer:
            assert (await consumer.getone()).offset == 0
            assert await consumer.committed(partition) is None
            await consumer.commit({partition: OffsetAndMetadata(6, "note")})
            assert await consumer.committed(partition) == 6
        async with AIOKafkaConsumer(topic, **config) as consumer:
            assert (await consumer.getone()).offset == 6
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        await admin.start()
        offsets = await admin.list_consumer_group_offsets(name)
        assert offsets[partition].offset == 7
        assert name in [group[0] for group in await admin.list_consumer_groups()]
        await admin.describe_consumer_groups([name])
        await admin.close()

    run(main())


def test_admin(bootstrap: str, name: str) -> None:
    async def main() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        await admin.start()
        try:
            created = await admin.create_topics(
                [NewTopic(name, 2, 1, topic_configs={"retention.ms": "1000"})]
            )
            assert [error[1] for error in created.topic_errors] == [0]
            again = await admin.create_topics([NewTopic(name, 2, 1)])
            assert [error[1] for error in again.topic_errors] == [TopicAlreadyExistsError.errno]
            assert name in await admin.list_topics()
            await admin.create_partitions({name: NewPartitions(3)})
            (described,) = await admin.describe_topics([name])
            assert len(described["partitions"]) == 3
            resource = ConfigResource(ConfigResourceType.TOPIC, name)
            (response,) = await admin.describe_configs([resource])
            configs = {entry[0]: entry[1] for entry in response.resources[0][4]}
            assert configs["retention.ms"] == "1000"
            await admin.alter_configs(
                [ConfigResource(ConfigResourceType.TOPIC, name, configs={"segment.bytes": "1234567"})]
            )
            (response,) = await admin.describe_configs([resource])
            configs = {entry[0]: entry[1] for entry in response.resources[0][4]}
            assert configs["segment.bytes"] == "1234567"
            assert configs["retention.ms"] == "604800000"
            async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
                for _ in range(5):
                    await producer.send_and_wait(name, b"v", partition=1)
            partition = TopicPartition(name, 1)
            assert await admin.delete_records({partition: RecordsToDelete(before_offset=3)}) == {partition: 3}
            assert (await admin.describe_cluster())["brokers"]
            await admin.delete_topics([name])
            assert name not in await admin.list_topics()
        finally:
            await admin.close()

    run(main())
