"""Operations of the controller over a real store: Kafka's answers, and that the image follows."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from metadata_support import Cluster, apply, run

from measuring import not_waiting
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.configs import ResourceType
from ottla.metadata.controller import MorePartitions
from ottla.metadata.image import EMPTY, ClusterImage, initial_state
from ottla.metadata.producer_ids import PRODUCER_IDS_AHEAD_MAX
from ottla.metadata.service import Metadata
from ottla.metadata.store import TXN_OPERATIONS_MAX
from ottla.metadata.topics import NewTopic, name_fault
from ottla.text import id_text


async def create(cluster: Cluster, *topics: NewTopic, validate_only: bool = False) -> list[ErrorCode]:
    results = await cluster.metadata.controller.create_topics(topics, validate_only=validate_only)
    return [result.error.code if result.error else ErrorCode.none for result in results]


def test_a_topic_can_be_used_when_it_was_made(tmp_path: Path) -> None:
    async def body(cluster: Cluster) -> None:
        told: list[ClusterImage] = []
        cluster.metadata.subscribe(lambda old, new: told.append(new))
        (result,) = await cluster.metadata.controller.create_topics([NewTopic("t", 3, 1)])
        assert result.topic is not None
        image = cluster.metadata.image
        assert image.topics["t"].partitions == (initial_state((1,)),) * 3
        assert image.topics_by_id[result.topic.topic_id] is image.topics["t"]
        assert told[-1] is image

    run(tmp_path, body)


def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    async def write(cluster: Cluster) -> ClusterImage:
        await create(cluster, NewTopic("a", 2, configs={"retention.ms": "5"}), NewTopic("b"))
        await cluster.metadata.controller.delete_topics([cluster.metadata.image.topics["b"].topic_id])
        return cluster.metadata.image

    async def read(cluster: Cluster) -> ClusterImage:
        return cluster.metadata.image

    before, after = run(tmp_path, write), run(tmp_path, read)
    assert after.topics == before.topics
    assert after.cluster_id == before.cluster_id
    assert len(after.cluster_id) == 22
    assert after.brokers[1].epoch > before.brokers[1].epoch


def test_defaults_come_from_the_broker(tmp_path: Path) -> None:
    async def body(cluster: Cluster) -> None:
        await create(cluster, NewTopic("t"))
        partitions = cluster.metadata.image.topics["t"].partitions
        assert [len(state.replicas) for state in partitions] == [2, 2, 2, 2]

    run(tmp_path, body, brokers=3, properties={"num.partitions": "4", "default.replication.factor": "2"})


@pytest.mark.parametrize(
    ("new", "code", "message"),
    [
        (NewTopic(""), "invalid_topic_exception", "Topic name is invalid: the empty string is not allowed"),
        (NewTopic(".."), "invalid_topic_exception", "Topic name is invalid: '..' is not allowed"),
        (NewTopic("a/b"), "invalid_topic_exception", "contains one or more characters other than"),
        (NewTopic("x" * 250), "invalid_topic_exception", "is longer than the max allowed length 249"),
        (NewTopic("old"), "topic_already_exists", "Topic 'old' already exists."),
        (NewTopic("a_b"), "invalid_topic_exception", "Topic 'a_b' collides with existing topic: a.b"),
        (
            NewTopic("t", 0),
            "invalid_partitions",
            "Number of partitions was set to an invalid non-positive value.",
        ),
        (NewTopic("t", -2), "invalid_partitions", "non-positive"),
        (NewTopic("t", 1, 0), "invalid_replication_factor", "Replication factor must be larger than 0"),
        (NewTopic("t", 1, -3), "invalid_replication_factor", "larger than 0, or -1"),
        (NewTopic("t", 1, 3), "invalid_replication_factor", "only 2 broker(s) are registered"),
        (NewTopic("t", 1, -1, [(0, [1])]), "invalid_request", "numPartitions was not set to -1"),
        (NewTopic("t", -1, 1, [(0, [1])]), "invalid_request", "replication factor was not set to -1"),
        (
            NewTopic("t", -1, -1, [(0, [1]), (0, [2])]),
            "invalid_replica_assignment",
            "multiple manual partition",
        ),
        (NewTopic("t", -1, -1, [(1, [1])]), "invalid_replica_assignment", "consecutive 0-based"),
        (NewTopic("t", -1, -1, [(0, [])]), "invalid_replica_assignment", "empty replica list"),
        (NewTopic("t", -1, -1, [(0, [1, 1])]), "invalid_replica_assignment", "broker 1 more than once"),
        (NewTopic("t", -1, -1, [(0, [7])]), "invalid_replica_assignment", "no such broker is registered"),
        (NewTopic("t", -1, -1, [(0, [1]), (1, [1, 2])]), "invalid_replica_assignment", "not consistent"),
        (NewTopic("t", configs={"no.such": "1"}), "invalid_config", "Unknown topic config name: no.such"),
        (NewTopic("t", configs={"retention.ms": "-2"}), "invalid_config", "Value must be at least -1"),
        (NewTopic("t", configs={"retention.ms": None}), "invalid_config", "Null value not supported"),
    ],
)
def test_topics_that_kafka_refuses(tmp_path: Path, new: NewTopic, code: str, message: str) -> None:
    async def body(cluster: Cluster) -> None:
        await create(cluster, NewTopic("old"), NewTopic("a.b"))
        before = cluster.metadata.image
        results = await cluster.metadata.controller.create_topics([new, NewTopic("fine")])
        assert results[0].error is not None
        assert results[0].error.code is ErrorCode[code]
        assert message in (results[0].error.message or "")
        # The others of the request are made all the same.
        assert cluster.metadata.image.topics.keys() == {*before.topics, "fine"}

    run(tmp_path, body, brokers=2)


def test_topics_of_one_request_must_differ(tmp_path: Path) -> None:
    async def body(cluster: Cluster) -> None:
        codes = await create(cluster, NewTopic("t"), NewTopic("t"), NewTopic("x.y"), NewTopic("x_y"))
        none = ErrorCode.none
        assert codes == [none, ErrorCode.topic_already_exists, none, ErrorCode.invalid_topic_exception]

    run(tmp_path, body)


def test_validate_only_makes_nothing(tmp_path: Path) -> None:
    async def body(cluster: Cluster) -> None:
        codes = await create(cluster, NewTopic("t"), NewTopic(""), validate_only=True)
        assert codes == [ErrorCode.none, ErrorCode.invalid_topic_exception]
        more = [MorePartitions("t", 2)]
        await create(cluster, NewTopic("t"))
        await cluster.metadata.controller.create_partitions(more, validate_only=True)
        change: Any = lambda configs: {"retention.ms": "1"}  # noqa: E731
        await cluster.metadata.controller.alter_configs(ResourceType.TOPIC, "t", change, validate_only=True)
        topic = cluster.metadata.image.topics["t"]
        assert (len(topic.partitions), topic.configs) == (1, {})

    run(tmp_path, body)


def test_one_request_can_make_many_topics_but_not_any_number(tmp_path: Path) -> None:
    async def body(cluster: Cluster) -> None:
        codes = await create(cluster, *(NewTopic(f"t{number}", 10) for number in range(300)))
        assert set(codes) == {ErrorCode.none}
        assert len(cluster.metadata.image.topics) == 300
        with pytest.raises(KafkaError) as caught:
            await create(cluster, NewTopic("a", 9_000), NewTopic("b", 1_001))
        assert caught.value.code is ErrorCode.policy_violation
        ids = list(cluster.metadata.image.topics_by_id)
        assert await cluster.metadata.controller.delete_topics(ids) == [None] * 300
        assert not cluster.metadata.image.topics

    run(tmp_path, body)


def test_manual_assignments_are_kept_in_their_order(tmp_path: Path) -> None:
    async def body(cluster: Cluster) -> None:
        await create(cluster, NewTopic("t", assignments=[(1, [3, 1]), (0, [2, 3])]))
        partitions = cluster.metadata.image.topics["t"].partitions
        assert partitions == (initial_state((2, 3)), initial_state((3, 1)))

    run(tmp_path, body, brokers=3)


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (MorePartitions("none", 3), "unknown_topic_or_partition", ""),
        (MorePartitions("t", 2), "invalid_partitions", "Topic already has 2 partition(s)."),
        (MorePartitions("t", 1), "invalid_partitions", "has 2 partition(s); 1 would not be an increase."),
        (MorePartitions("t", 4, [[1]]), "invalid_replica_assignment", "only 1 assignment(s) were specified"),
        (MorePartitions("t", 3, [[1, 2]]), "invalid_replica_assignment", "which have 1 replica(s)."),
        (MorePartitions("t", 3, [[9]]), "invalid_replica_assignment", "no such broker is registered"),
    ],
)  # fmt: skip
def test_partitions_that_kafka_refuses(tmp_path: Path, more: MorePartitions, code: str, message: str) -> None:
    async def body(cluster: Cluster) -> None:
        await create(cluster, NewTopic("t", 2, 1))
        (result,) = await cluster.metadata.controller.create_partitions([more])
        assert result.error is not None
        assert result.error.code is ErrorCode[code]
        assert message in (result.error.message or "")

    run(tmp_path, body, brokers=2)


def test_partitions_are_added_behind_those_that_are_there(tmp_path: Path) -> None:
    async def body(cluster: Cluster) -> None:
        await create(cluster, NewTopic("t", 2, 2))
        before = cluster.metadata.image.topics["t"]
        additions = [MorePartitions("t", 4, [[3, 1], [1, 2]])]
        (result,) = await cluster.metadata.controller.create_partitions(additions)
        assert result.error is None
        after = cluster.metadata.image.topics["t"]
        assert after.partitions == (*before.partitions, initial_state((3, 1)), initial_state((1, 2)))
        assert after.topic_id == before.topic_id

    run(tmp_path, body, brokers=3)


def test_deleting_twice_is_refused(tmp_path: Path) -> None:
    async def body(cluster: Cluster) -> None:
        await create(cluster, NewTopic("t"))
        topic_id = cluster.metadata.image.topics["t"].topic_id
        deleting = cluster.metadata.controller.delete_topics
        first, second = await asyncio.gather(deleting([topic_id]), deleting([topic_id]))
        errors = [error for error in (*first, *second) if error is not None]
        assert [error.code for error in errors] == [ErrorCode.unknown_topic_id]

    run(tmp_path, body)


def test_of_many_who_make_the_same_topic_one_does(tmp_path: Path) -> None:
    async def body(cluster: Cluster) -> None:
        codes = await asyncio.gather(*(create(cluster, NewTopic("t")) for _ in range(10)))
        assert Counter(code for (code,) in codes) == {
            ErrorCode.none: 1,
            ErrorCode.topic_already_exists: 9,
        }

    run(tmp_path, body)


def test_changes_to_the_same_topic_at_the_same_time_all_count(tmp_path: Path) -> None:
    async def body(cluster: Cluster) -> None:
        await create(cluster, NewTopic("t"))
        controller = cluster.metadata.controller

        def setting(name: str) -> Coroutine[Any, Any, None]:
            return controller.alter_configs(ResourceType.TOPIC, "t", lambda configs: {**configs, name: "1"})

        names = ["retention.ms", "flush.ms", "segment.ms", "flush.messages"]
        await asyncio.gather(*map(setting, names), controller.create_partitions([MorePartitions("t", 5)]))
        topic = cluster.metadata.image.topics["t"]
        assert topic.configs == dict.fromkeys(names, "1")
        assert len(topic.partitions) == 5

    run(tmp_path, body)


def test_internal_topics_have_their_own_settings(tmp_path: Path) -> None:
    async def body(cluster: Cluster) -> None:
        topic = await cluster.metadata.controller.auto_creation.ensure("__consumer_offsets")
        assert len(topic.partitions) == 50
        # Three replicas are Kafka's default; a single node must still be able to have groups.
        assert topic.partitions[0].replicas == (1,)
        assert topic.configs == {
            "cleanup.policy": "compact",
            "compression.type": "producer",
            "segment.bytes": str(100 * 1024 * 1024),
        }
        assert await cluster.metadata.controller.auto_creation.ensure("__consumer_offsets") is topic

    run(tmp_path, body)


def test_a_replication_factor_that_was_asked_for_is_not_lowered(tmp_path: Path) -> None:
    async def body(cluster: Cluster) -> None:
        with pytest.raises(KafkaError) as caught:
            await cluster.metadata.controller.auto_creation.ensure("__consumer_offsets")
        assert caught.value.code is ErrorCode.invalid_replication_factor

    run(tmp_path, body, properties={"offsets.topic.replication.factor": "3"})


def test_producer_ids_are_handed_out_once(tmp_path: Path) -> None:
    async def body(cluster: Cluster) -> list[range]:
        controller = cluster.metadata.controller
        return list(await asyncio.gather(*(controller.reserve_producer_ids() for _ in range(5))))

    blocks = run(tmp_path, body) + run(tmp_path, body)
    ids = [producer_id for block in blocks for producer_id in block]
    assert len(ids) == len(set(ids)) == 10_000


def test_producer_ids_begin_behind_those_that_logs_know(tmp_path: Path) -> None:
    async def body(cluster: Cluster) -> None:
        reserve = cluster.metadata.controller.reserve_producer_ids
        first = await reserve()
        assert not await reserve({first[-1]})
        following = range(first[-1] + 501, first[-1] + 501 + len(first))
        assert await reserve({first[-1] + 500, first[-1]}) == following
        assert (await reserve())[0] == following[-1] + 1
        # One that a client made up does not use up all that are left, start after start.
        following = range(following[-1] + 1 + len(first), following[-1] + 1 + 2 * len(first))
        assert not await reserve({2**62 - 1, 2**63 - 1, following[0] + PRODUCER_IDS_AHEAD_MAX, 7})
        far = following[0] + PRODUCER_IDS_AHEAD_MAX - 1
        assert (await reserve({far, 2**62 - 1}))[0] == far + 1

    run(tmp_path, body)


def test_broker_configurations_hold_at_once_and_after_a_restart(tmp_path: Path) -> None:
    def put(value: str) -> Any:
        return lambda configs: {**configs, "message.max.bytes": value}

    async def change(cluster: Cluster) -> None:
        controller = cluster.metadata.controller
        await controller.alter_configs(ResourceType.BROKER, "", put("2000"))
        assert cluster.config.get("message.max.bytes") == 2000
        await controller.alter_configs(ResourceType.BROKER, "1", put("3000"))
        assert cluster.config.get("message.max.bytes") == 3000

    async def look(cluster: Cluster) -> None:
        assert cluster.config.get("message.max.bytes") == 3000
        await cluster.metadata.controller.alter_configs(ResourceType.BROKER, "1", lambda configs: {})
        assert cluster.config.get("message.max.bytes") == 2000
        with pytest.raises(KafkaError) as caught:
            await cluster.metadata.controller.alter_configs(ResourceType.BROKER, "", put("x"))
        assert caught.value.code is ErrorCode.invalid_request

    run(tmp_path, change)
    run(tmp_path, look)


@pytest.mark.parametrize(
    ("name", "named", "made", "refusal"),
    [
        ("1", ["min.insync.replicas"], {"min.insync.replicas": "2"}, "Broker-level min.insync.replicas"),
        # Deleting what is not there.
        ("1", ["min.insync.replicas"], {}, "Broker-level min.insync.replicas"),
        ("", ["min.insync.replicas"], {}, "Cluster-level min.insync.replicas"),
        # Replacing all without naming it.
        ("", ["message.max.bytes"], {"message.max.bytes": "2000"}, "Cluster-level min.insync.replicas"),
        ("", ["min.insync.replicas"], {"min.insync.replicas": "2"}, None),
    ],
)
def test_the_cluster_has_one_min_isr_and_its_nodes_none(
    tmp_path: Path, name: str, named: list[str], made: dict[str, str], refusal: str | None
) -> None:
    async def body(cluster: Cluster) -> None:
        changing = cluster.metadata.controller.alter_configs(
            ResourceType.BROKER, name, lambda configs: made, named=named
        )
        if refusal is None:
            await changing
            assert cluster.config.topic_default("min.insync.replicas") == 2
            return
        with pytest.raises(KafkaError, match=f"{refusal} cannot be .* while ELR is enabled") as caught:
            await changing
        assert caught.value.code is ErrorCode.invalid_config
        assert cluster.config.topic_default("min.insync.replicas") == 1

    run(tmp_path, body)


def test_a_start_begins_a_new_epoch_in_all_that_the_node_leads(tmp_path: Path) -> None:
    """In more partitions than one transaction takes, whether or not anything has happened to them."""

    async def body(cluster: Cluster) -> None:
        await create(
            cluster,
            NewTopic("mine", assignments=[(index, [1]) for index in range(2 * TXN_OPERATIONS_MAX)]),
            NewTopic("other", assignments=[(0, [1, 2])]),
        )
        controller = cluster.metadata.controller
        topic = cluster.metadata.image.topics["mine"]
        moved = replace(topic.partitions[3], leader_epoch=4, partition_epoch=7)
        assert await controller.change_partition(topic, 3, topic.partitions[3], moved)
        other = cluster.metadata.image.topics["other"]
        led = replace(other.partitions[0], leader=2, leader_epoch=1, partition_epoch=1)
        assert await controller.change_partition(other, 0, other.partitions[0], led)
        for start in (1, 2):
            await controller.lead_anew(1)
            mine = cluster.metadata.image.topics["mine"].partitions
            epochs = {(state.leader_epoch, state.partition_epoch) for state in mine}
            assert epochs == {(start, start), (4 + start, 7 + start)}
            assert {(state.leader, state.isr) for state in mine} == {(1, (1,))}
            assert cluster.metadata.image.topics["other"].partitions == (led,)

    run(tmp_path, body, brokers=2)


def test_a_partition_s_state_changes_only_from_what_was_expected(tmp_path: Path) -> None:
    async def body(cluster: Cluster) -> None:
        await create(cluster, NewTopic("t", assignments=[(0, [1, 2])]))
        controller = cluster.metadata.controller
        topic = cluster.metadata.image.topics["t"]
        first = topic.partitions[0]
        second = replace(first, leader=2, leader_epoch=1, partition_epoch=1, isr=(2,))
        third = replace(second, partition_epoch=2, isr=(2, 1))
        assert not await controller.change_partition(topic, 0, second, third)
        assert await controller.change_partition(topic, 0, first, second)
        assert cluster.metadata.image.topics["t"].partitions == (second,)
        assert not await controller.change_partition(topic, 0, first, second)
        assert await controller.change_partition(topic, 0, second, third)
        assert cluster.metadata.image.topics["t"].partitions == (third,)
        await controller.delete_topics([topic.topic_id])
        assert not await controller.change_partition(topic, 0, third, second)

    run(tmp_path, body, brokers=2)


def test_a_subscriber_that_fails_does_not_stop_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(cluster: Cluster) -> None:
        told: list[ClusterImage] = []

        def fails(old: ClusterImage, new: ClusterImage) -> None:
            raise RuntimeError("a bug")

        cluster.metadata.subscribe(fails)
        cluster.metadata.subscribe(lambda old, new: told.append(new))
        assert await create(cluster, NewTopic("t")) == [ErrorCode.none]
        assert told

    run(tmp_path, body)
    assert "could not be applied" in caplog.text


def test_operations_fail_when_the_store_is_gone(tmp_path: Path) -> None:
    async def body(cluster: Cluster) -> None:
        await cluster.store.close()
        with pytest.raises(KafkaError) as caught:
            await create(cluster, NewTopic("t"))
        assert caught.value.code is ErrorCode.request_timed_out

    run(tmp_path, body)


def test_who_asks_for_topics_that_cannot_be_made_is_not_refused(tmp_path: Path) -> None:
    async def body(cluster: Cluster) -> None:
        auto_create = cluster.metadata.controller.auto_creation.create
        await auto_create([f"t{number}" for number in range(10_001)])
        assert len(cluster.metadata.image.topics) <= 1_000
        await cluster.store.close()
        await auto_create(["t"])
        assert "t" not in cluster.metadata.image.topics

    run(tmp_path, body)


def test_a_topic_that_is_asked_for_is_waited_for_only_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ottla.metadata.auto_creation.WAIT_MS_MAX", 500)

    async def body(cluster: Cluster) -> None:
        controller, txn, free = cluster.metadata.controller, cluster.store.txn, asyncio.Event()
        begun = 0

        async def slow_txn(*args: Any) -> Any:
            nonlocal begun
            begun += 1
            await free.wait()
            return await txn(*args)

        monkeypatch.setattr(cluster.store, "txn", slow_txn)
        # Not one after the other, however many ask.
        with not_waiting(100 * 0.5):
            await asyncio.gather(*(controller.auto_creation.create(["t"]) for _ in range(100)))
        assert "t" not in cluster.metadata.image.topics
        free.set()
        await controller.auto_creation.create(["t"])
        assert "t" in cluster.metadata.image.topics
        assert begun == 1

    run(tmp_path, body)


def test_ids_are_written_as_kafka_writes_them() -> None:
    assert id_text(UUID(int=0)) == "AAAAAAAAAAAAAAAAAAAAAA"
    made = {id_text(uuid4()) for _ in range(50)}
    assert all(len(text) == 22 and not set(text) & set("+/=") for text in made)


def test_names() -> None:
    assert name_fault("a.b_c-D9") is None
    assert name_fault("x" * 249) is None
    for name in ("", ".", "..", "a b", "å", "a\n", "x" * 250, "a:b"):
        assert name_fault(name)


names = st.sampled_from(["a", "b", "c.d", "c_d", ""])
operations = st.lists(
    st.one_of(
        st.tuples(st.just("create"), names, st.integers(-1, 4), st.integers(-1, 4)),
        st.tuples(st.just("delete"), names, st.just(0), st.just(0)),
        st.tuples(st.just("grow"), names, st.integers(0, 6), st.just(0)),
        st.tuples(st.just("configure"), names, st.integers(-3, 9), st.just(0)),
        st.tuples(st.just("demote"), names, st.integers(0, 9), st.just(0)),
    ),
    max_size=12,
)


async def perform(cluster: Cluster, kind: str, name: str, number: int, factor: int) -> None:
    controller = cluster.metadata.controller
    topic = cluster.metadata.image.topics.get(name)
    if kind == "create":
        await controller.create_topics([NewTopic(name, number, factor)])
    elif kind == "delete":
        await controller.delete_topics([topic.topic_id if topic else uuid4()])
    elif kind == "grow":
        await controller.create_partitions([MorePartitions(name, number)])
    elif kind == "configure":
        change: Any = lambda configs: {"retention.ms": str(number)}  # noqa: E731
        await controller.alter_configs(ResourceType.TOPIC, name, change)
    elif topic is not None:
        index = number % len(topic.partitions)
        old = topic.partitions[index]
        leader = old.replicas[number % len(old.replicas)]
        new = replace(
            old, leader=leader, leader_epoch=old.leader_epoch + 1, partition_epoch=old.partition_epoch + 1
        )
        assert await controller.change_partition(topic, index, old, new)


def check(image: ClusterImage) -> None:
    ids = [topic.topic_id for topic in image.topics.values()]
    assert len(ids) == len(set(ids))
    assert {topic.topic_id: topic for topic in image.topics.values()} == dict(image.topics_by_id)
    unified = [name.replace(".", "_") for name in image.topics]
    assert len(unified) == len(set(unified))
    for topic in image.topics.values():
        factors = {len(state.replicas) for state in topic.partitions}
        assert len(factors) == 1
        for state in topic.partitions:
            assert state.leader in state.replicas
            assert len(set(state.replicas)) == len(state.replicas)


async def replayed(metadata: Metadata, store: Any) -> ClusterImage:
    image = EMPTY
    async for batch in store.watch("", 1):
        image = apply(image, batch.events, batch.revision)
        if image.revision >= metadata.image.revision:
            return image
    return image


@settings(max_examples=25)
@given(history=operations, together=st.booleans())
@example(history=[("create", "c.d", 1, 1), ("create", "c_d", 1, 1)], together=True)
def test_any_history_keeps_the_image_sound_and_can_be_replayed(
    tmp_path_factory: pytest.TempPathFactory,
    history: Sequence[tuple[str, str, int, int]],
    together: bool,
) -> None:
    path = tmp_path_factory.mktemp("cluster")

    async def body(cluster: Cluster) -> ClusterImage:
        async def attempt(step: tuple[str, str, int, int]) -> None:
            try:
                await perform(cluster, *step)
            except KafkaError as error:
                assert error.code is not ErrorCode.unknown_server_error
            check(cluster.metadata.image)

        safe = [step for step in history if not (together and step[0] == "demote")]
        if together:
            await asyncio.gather(*map(attempt, safe))
        else:
            for step in safe:
                await attempt(step)
        assert await replayed(cluster.metadata, cluster.store) == cluster.metadata.image
        return cluster.metadata.image

    async def again(cluster: Cluster) -> Mapping[str, Any]:
        return cluster.metadata.image.topics

    before = run(path, body, brokers=3)
    assert run(path, again, brokers=3) == before.topics
