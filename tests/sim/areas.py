"""What aiokafka offers, a program for each area under faults; explored by `test_areas.py`."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from itertools import count
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, ProducerFenced, for_code
from aiokafka.structs import OffsetAndMetadata

from ottla.explore import World, checks, explore

# Clients that ask again soon, so that a world is seen to be idle soon.
QUICK = {"metadata_max_age_ms": 3000, "request_timeout_ms": 8000}
IDLE_S = 12.0
COMPRESSIONS = (None, "gzip", "snappy", "lz4", "zstd")
ROUNDS = 5
FAULTS = {"kill": 2, "break": 2, "isolate": 1, "pause": 1, "slow-link": 1, "restart": 1}
PROGRAMS = FAULTS | {"program-kill": 2, "program-pause": 1, "program-cut": 1}


# ------------------------------------------------------------ producer


async def producing(bootstrap: str, acknowledged: list[bytes]) -> None:
    """Each way to send, with each compression. What was acknowledged is to be there, once and in order."""
    for number, compression in enumerate(COMPRESSIONS):
        producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap,
            enable_idempotence=True,
            compression_type=compression,
            linger_ms=20,
            **QUICK,
        )
        await producer.start()
        for index in range(ROUNDS):
            name = b"%d.%03d." % (number, index)
            sent = {name + b"%d" % i: await producer.send("numbers", name + b"%d" % i) for i in range(5)}
            await producer.flush()
            acknowledged += [value for value, future in sent.items() if future.exception() is None]
            batch = producer.create_batch()
            values = [name + b"batch%d" % i for i in range(3)]
            for value in values:
                assert batch.append(key=b"batch", value=value, timestamp=None) is not None
            future = await producer.send_batch(batch, "numbers", partition=index % 3)
            await producer.send_and_wait("numbers", name + b"last", key=b"last", partition=0)
            await future
            acknowledged += [*values, name + b"last"]
            await asyncio.sleep(0.2)
        await producer.stop()


@explore(topics={"numbers": 3}, faults=FAULTS)
async def all_of_the_producer(world: World) -> None:
    acknowledged: list[bytes] = []
    world.program("producing", producing, world.bootstrap, acknowledged)
    await world.run(15)
    await world.settle(IDLE_S)
    there = await world.records("numbers")
    checks.nothing_twice(there)
    assert set(acknowledged) <= {record.value for record in there}
    assert len(acknowledged) >= len(COMPRESSIONS) * ROUNDS * 4
    last = [record for record in there if record.key == b"last"]
    checks.in_order(last, number=lambda record: record.value)


# ------------------------------------------------------------ consumers of groups


async def feeding(bootstrap: str, topics: Sequence[str]) -> None:
    """Each value says when the program began that sent it: it begins anew if it was killed."""
    began_s = asyncio.get_running_loop().time()
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True, **QUICK)
    await producer.start()
    for number in range(40):
        for topic in topics:
            value = f"{topic} {number} {began_s}".encode()
            await producer.send_and_wait(topic, value, key=b"%d" % (number % 7))
        await asyncio.sleep(0.2)
    await producer.stop()


class Remembering(ConsumerRebalanceListener):  # type: ignore[misc]
    """Commits what was worked on when partitions are taken away, with a word beside the offset."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self.consumer = consumer
        self.positions: dict[TopicPartition, OffsetAndMetadata] = {}
        self.assignments = 0

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        positions, self.positions = self.positions, {}
        mine = {tp: position for tp, position in positions.items() if tp in revoked}
        if mine:
            try:
                await self.consumer.commit(mine)
            except KafkaError:
                return  # it was too late: another member works on them again

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self.assignments += 1


async def counting(bootstrap: str, instance: str | None, seen: Counter[bytes]) -> None:
    """A member that subscribes by pattern, reads many at once, and holds a partition now and then."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id="counting",
        group_instance_id=instance,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        session_timeout_ms=8000,
        **QUICK,
    )
    listener = Remembering(consumer)
    consumer.subscribe(pattern="^clicks", listener=listener)
    await consumer.start()
    try:
        while True:
            for tp, records in (await consumer.getmany(timeout_ms=500, max_records=5)).items():
                seen.update(record.value for record in records)
                listener.positions[tp] = OffsetAndMetadata(records[-1].offset + 1, f"by {instance}")
                consumer.pause(tp)
                await asyncio.sleep(0.05)
                if tp in consumer.paused():
                    consumer.resume(tp)
            if listener.positions:
                positions, listener.positions = listener.positions, {}
                await consumer.commit(positions)
    finally:
        await consumer.stop()


async def committing_by_itself(bootstrap: str, seen: Counter[bytes]) -> None:
    """The default: offsets are committed each second, of what was handed out before."""
    consumer = AIOKafkaConsumer(
        "clicks", bootstrap_servers=bootstrap, group_id="auto", auto_offset_reset="earliest",
        auto_commit_interval_ms=1000, **QUICK
    )  # fmt: skip
    await consumer.start()
    try:
        async for record in consumer:
            seen[record.value] += 1
    finally:
        await consumer.stop()


@explore(topics={"clicks": 3, "clicks-of-robots": 2}, faults=PROGRAMS)
async def members_of_groups(world: World) -> None:
    seen: dict[str, Counter[bytes]] = {"counting": Counter(), "auto": Counter()}
    topics = ("clicks", "clicks-of-robots")
    world.program("feeding", feeding, world.bootstrap, topics, restarts=True)
    for name, instance in (("one", "one"), ("two", None)):
        world.program(name, counting, world.bootstrap, instance, seen["counting"], restarts=True)
    world.program("auto", committing_by_itself, world.bootstrap, seen["auto"], restarts=True)
    await world.run(15)
    await world.settle(IDLE_S)
    clicks, robots = await world.records("clicks"), await world.records("clicks-of-robots")
    assert {record.value for record in [*clicks, *robots]} == set(seen["counting"])
    assert {record.value for record in clicks} == set(seen["auto"])
    for group, records in (("counting", [*clicks, *robots]), ("auto", clicks)):
        committed = await world.committed(group)
        assert sum(committed.values()) == len(records), f"{group}: {committed}"


async def by_hand(bootstrap: str, found: dict[str, object]) -> None:
    """Partitions that are assigned by hand: positions, ends, times, seeks."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True, **QUICK)
    await producer.start()
    for number in range(20):
        await producer.send_and_wait(
            "numbers", b"%d" % number, partition=0, timestamp_ms=1_750_000_000_000 + number
        )
    await producer.stop()
    first, second = TopicPartition("numbers", 0), TopicPartition("numbers", 1)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, enable_auto_commit=False, group_id="by hand", **QUICK
    )
    await consumer.start()
    consumer.assign([first, second])
    found["ends"] = await consumer.end_offsets([first, second])
    found["beginnings"] = await consumer.beginning_offsets([first, second])
    times = await consumer.offsets_for_times({first: 1_750_000_000_005})
    found["at"] = times[first].offset
    consumer.seek(first, 5)
    found["fifth"] = (await consumer.getone(first)).value
    await consumer.seek_to_beginning(first)
    found["first"] = (await consumer.getone(first)).value
    found["position"] = await consumer.position(first)
    await consumer.seek_to_end(first)
    found["end"] = await consumer.position(first)
    await consumer.commit({first: OffsetAndMetadata(7, "seven")})
    found["committed"] = await consumer.committed(first)
    await consumer.seek_to_committed(first)
    found["seventh"] = (await consumer.getone(first)).value
    await consumer.stop()


@explore(topics={"numbers": 2}, faults="flaky network")
async def partitions_by_hand(world: World) -> None:
    found: dict[str, object] = {}
    world.program("by hand", by_hand, world.bootstrap, found, restarts=True)
    await world.run(5)
    await world.settle(IDLE_S)
    records = await world.records("numbers")
    assert found["committed"] == 7
    assert found["first"] == b"0" and found["fifth"] == b"5" and found["seventh"] == b"7"
    assert found["position"] == 1 and found["at"] == 5
    assert found["end"] == len(records) or len(records) > 20


# ------------------------------------------------------------ transactions


class Waiting(ConsumerRebalanceListener):  # type: ignore[misc]
    """Has a rebalance wait until the transaction that is under way has ended.

    aiokafka asks for a group's offsets without waiting for open transactions (KIP-447). Without this a member
    that joins again in the middle of one is given records which that one works on already.
    """

    def __init__(self) -> None:
        self.lock = asyncio.Lock()

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        async with self.lock:
            return

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Nothing is kept between transactions."""


async def transforming(bootstrap: str, waits: bool) -> None:
    """Reads, writes and commits in one transaction; now and then aborts one on purpose and starts anew."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id="sums",
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        session_timeout_ms=8000,
        **QUICK,
    )
    listener = Waiting()
    consumer.subscribe(["numbers"], listener=listener if waits else None)
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, transactional_id="sums", transaction_timeout_ms=10_000, **QUICK
    )
    await producer.start()
    await consumer.start()
    try:
        for turn in count(1):
            async with listener.lock:
                found = await consumer.getmany(timeout_ms=1000, max_records=4)
                if found:
                    await transform(producer, found, is_aborted=turn % 9 == 0)
    finally:
        await consumer.stop()
        await producer.stop()


async def transform(
    producer: AIOKafkaProducer, found: dict[TopicPartition, list[Any]], is_aborted: bool
) -> None:
    async with producer.transaction():
        for tp, records in found.items():
            for record in records:
                await producer.send("sums", record.value, key=record.key, partition=tp.partition)
        offsets = {tp: records[-1].offset + 1 for tp, records in found.items()}
        await producer.send_offsets_to_transaction(offsets, "sums")
        if is_aborted:
            raise KafkaError("changed its mind")


@explore(topics={"numbers": 3, "sums": 3}, faults=PROGRAMS)
async def read_work_and_write_in_transactions(world: World) -> None:
    world.program("feeding", feeding, world.bootstrap, ["numbers"], restarts=True)
    world.program("transforming", transforming, world.bootstrap, True, restarts=True)
    await world.run(15)
    await world.settle(IDLE_S)
    checks.exactly_once(await world.records("numbers"), await world.records("sums"))


async def zombie(bootstrap: str, told: list[str]) -> None:
    """Two producers with one id: the second fences the first, and what that had begun is aborted."""
    first = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id="one", **QUICK)
    second = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id="one", **QUICK)
    await first.start()
    await first.begin_transaction()
    await first.send_and_wait("ledger", b"of the zombie")
    await second.start()
    await second.begin_transaction()
    await second.send_and_wait("ledger", b"of the living")
    await second.commit_transaction()
    try:
        await first.commit_transaction()
        told.append("committed")
    except ProducerFenced:
        told.append("fenced")
    await second.begin_transaction()
    await second.send_and_wait("ledger", b"taken back")
    await second.abort_transaction()
    await first.stop()
    await second.stop()


@explore(topics={"ledger": 1}, faults=["break", "kill", "restart"])
async def zombies_are_fenced(world: World) -> None:
    told: list[str] = []
    world.program("zombie", zombie, world.bootstrap, told)
    await world.run(5)
    await world.settle(IDLE_S)
    assert told == ["fenced"]
    assert [record.value for record in await world.records("ledger")] == [b"of the living"]
    uncommitted = await world.records("ledger", read_committed=False)
    assert {record.value for record in uncommitted} == {b"of the zombie", b"of the living", b"taken back"}


# ------------------------------------------------------------ the administrator


def _succeeded(codes: Sequence[tuple[object, ...]], *also: int) -> bool:
    """Whether each answer has code 0, or one of ``also``."""
    return all(entry[1] in (0, *also) for entry in codes)


async def administrating(bootstrap: str, found: dict[str, object]) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, **QUICK)
    await admin.start()
    await admin.create_topics([NewTopic("made", 2, 3, topic_configs={"retention.ms": "60000"})])
    await admin.create_partitions({"made": NewPartitions(4)})
    resource = ConfigResource(ConfigResourceType.TOPIC, "made", configs={"retention.ms": "120000"})
    await admin.alter_configs([resource])
    (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, "made")])
    found["configs"] = {entry[0]: entry[1] for entry in answer.resources[0][4]}
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, **QUICK)
    await producer.start()
    await producer.send_and_wait("made", b"x", partition=0)
    await producer.stop()
    consumer = AIOKafkaConsumer(
        "made", bootstrap_servers=bootstrap, group_id="readers", auto_offset_reset="earliest", **QUICK
    )
    await consumer.start()
    await consumer.getone()
    await consumer.commit()
    found["groups"] = [group[0] for group in await admin.list_consumer_groups()]
    (described,) = await admin.describe_consumer_groups(["readers"])
    found["described"] = described.groups[0][1:3]
    found["offsets"] = await admin.list_consumer_group_offsets("readers")
    await consumer.stop()
    found["deleted records"] = await admin.delete_records({TopicPartition("made", 0): RecordsToDelete(1)})
    found["topics"] = await admin.list_topics()
    (topic,) = await admin.describe_topics(["made"])
    found["partitions"] = len(topic["partitions"])
    found["brokers"] = len((await admin.describe_cluster())["brokers"])
    found["deleted"] = await admin.delete_topics(["made"])
    await admin.close()


@explore(topics={"there": 1}, faults="calm")
async def all_of_the_administrator(world: World) -> None:
    found: dict[str, object] = {}
    world.program("administrating", administrating, world.bootstrap, found)
    await world.run(5)
    await world.settle(IDLE_S)
    print(found)
    assert found["brokers"] == 3 and found["partitions"] == 4


async def wanting_topics(bootstrap: str, wanted: Sequence[str]) -> None:
    """Makes each topic, however often it has to ask, and whoever made it."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, **QUICK)
    await admin.start()
    try:
        for name in wanted:
            while True:
                answer = await admin.create_topics([NewTopic(name, 2, 3)])
                error = for_code(answer.topic_errors[0][1])
                if error.errno in (0, 36):
                    break
                await asyncio.sleep(0.5)
    finally:
        await admin.close()


@explore(faults=FAULTS)
async def topics_are_made_under_faults(world: World) -> None:
    wanted = [f"made-{number}" for number in range(12)]
    world.program("one", wanting_topics, world.bootstrap, wanted, restarts=True)
    world.program("two", wanting_topics, world.bootstrap, wanted, restarts=True)
    await world.run(10)
    await world.settle(IDLE_S)
    for name in wanted:
        assert await world.records(name) == []
