"""The handlers of the group APIs at every version: requests and answers go through the wire's codec."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from importlib import import_module
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from client_support import let_in
from coordinators_support import ManualClock, MemoryLog, settle, subscription

from measuring import not_waiting
from ottla.broker.error_responses import error_fields
from ottla.broker.large import Framed
from ottla.broker.memory import Memory
from ottla.broker.request import RequestContext, fulfilled
from ottla.coordinators.groups.coordinator import GroupCoordinator
from ottla.coordinators.groups.requests import UNKNOWN_MEMBER_ID
from ottla.coordinators.groups.settings import GroupConfig
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.image import BrokerImage, PartitionState, TopicImage
from ottla.wire.apis import APIS, BY_NAME
from ottla.wire.messages import (
    decode_response,
    encode_request,
    encode_response,
    frame_request,
    read_header,
    read_request,
    read_response_header,
)

TOPIC_ID, OTHER_ID, MISSING_ID = UUID(int=7), UUID(int=8), UUID(int=9)
PARTITION = PartitionState(leader=1, leader_epoch=0, partition_epoch=0, replicas=(1,), isr=(1,))


def topic(name: str, topic_id: UUID, partitions: int = 2) -> TopicImage:
    return TopicImage(name, topic_id, (PARTITION,) * partitions, {})


class Broker:
    """A node's services, as far as the group handlers see them."""

    def __init__(self, *, load: bool = True, **settings: Any) -> None:
        settings = {"group_initial_rebalance_delay_ms": 0, **settings}
        self.clock = ManualClock()
        self.log = MemoryLog()
        self.load = load
        ids = (f"id{i}" for i in itertools.count(1))
        self.groups = GroupCoordinator(
            self.log, self.clock, GroupConfig(**settings), new_id=lambda: next(ids)
        )
        self.topics = {"t": topic("t", TOPIC_ID), "u": topic("u", OTHER_ID)}
        self.brokers = {1: BrokerImage(1, "h", 9092, None, 1, {"PLAINTEXT": ("h", 9092)})}
        self.ensure_error: KafkaError | None = None
        # Whether the last answer was made in pieces.
        self.was_large = False

    @property
    def image(self) -> Any:
        by_id = {each.topic_id: each for each in self.topics.values()}
        return SimpleNamespace(topics=self.topics, topics_by_id=by_id, brokers=self.brokers)

    async def ensure(self, name: str) -> TopicImage:
        if self.ensure_error is not None:
            raise self.ensure_error
        await self.start()
        return self.topics.setdefault(name, topic(name, UUID(int=1), 1))

    async def start(self) -> None:
        if self.load:
            await self.groups.load(0, 0)

    async def ask(self, api: str, version: int, **fields: Any) -> Any:
        """The answer to a request, as a client reads it."""
        key = BY_NAME[api].key
        header = read_header(frame_request(key, version, 7, "client", fields)[4:])
        assert header.codec is not None
        request, _ = read_request(header.codec, encode_request(key, version, fields), 0)
        services: Any = SimpleNamespace(
            groups=self.groups,
            # All that is asked of it is whose its ids are.
            transactions=self.groups,
            slices=self.groups.slices,
            memory=Memory(),
            node_id=1,
            metadata=SimpleNamespace(
                image=self.image,
                controller=SimpleNamespace(auto_creation=SimpleNamespace(ensure=self.ensure)),
            ),
        )
        ctx = RequestContext(header, let_in(), services)
        handler = import_module(f"ottla.broker.api.groups.{APIS[key].schema}").handle
        try:
            answer = await fulfilled(handler(ctx, request))
        except KafkaError as error:
            answer = error_fields(key, request, error)
        self.was_large = isinstance(answer, Framed)
        if not isinstance(answer, Framed):
            return decode_response(key, version, encode_response(key, version, answer))
        data = b"".join(answer.pieces)
        assert int.from_bytes(data[:4], "big") == len(data) - 4
        correlation_id, offset = read_response_header(key, version, data[4:])
        assert correlation_id == 7
        return decode_response(key, version, data[4:], offset)

    async def join(self, version: int = 9, member_id: str = "", **fields: Any) -> Any:
        offered = [{"name": "range", "metadata": subscription("t")}]
        defaults = {
            "group_id": "g",
            "session_timeout_ms": 10_000,
            "rebalance_timeout_ms": 60_000,
            "member_id": member_id,
            "group_instance_id": None,
            "protocol_type": "consumer",
            "protocols": offered,
            "reason": None,
        }
        asked = asyncio.ensure_future(self.ask("JoinGroup", version, **(defaults | fields)))
        await settle()
        await self.clock.advance(0)
        return await asked

    async def stable(self, **fields: Any) -> str:
        """A group of one member, generation 1. Returns its id."""
        member_id: str = (await self.join(3, **fields)).member_id
        response = await self.sync(member_id, assignments=[{"member_id": member_id, "assignment": b"mine"}])
        assert response.error_code == 0
        return member_id

    async def sync(self, member_id: str, version: int = 5, **fields: Any) -> Any:
        defaults = {
            "group_id": "g",
            "generation_id": 1,
            "member_id": member_id,
            "group_instance_id": None,
            "protocol_type": "consumer",
            "protocol_name": "range",
            "assignments": [],
        }
        return await self.ask("SyncGroup", version, **(defaults | fields))

    async def commit(self, offset: int = 5, version: int = 9, **fields: Any) -> Any:
        partition = {
            "partition_index": fields.pop("partition", 0),
            "committed_offset": offset,
            "committed_leader_epoch": 2,
            "committed_metadata": "note",
        }
        defaults = {
            "group_id": "g",
            "generation_id_or_member_epoch": -1,
            "member_id": "",
            "group_instance_id": None,
            "retention_time_ms": -1,
            "topics": [{"name": "t", "topic_id": TOPIC_ID, "partitions": [partition]}],
        }
        return await self.ask("OffsetCommit", version, **(defaults | fields))


def versions(api: str) -> pytest.MarkDecorator:
    spec = BY_NAME[api]
    return pytest.mark.parametrize("version", range(spec.version_min, spec.version_max + 1))


def run(story: Callable[[Broker], Coroutine[Any, Any, None]], **settings: Any) -> None:
    async def whole() -> None:
        broker = Broker(**settings)
        await broker.start()
        await story(broker)

    asyncio.run(whole())


# FindCoordinator


@versions("FindCoordinator")
def test_the_coordinator_of_a_group(version: int) -> None:
    async def story(broker: Broker) -> None:
        answer = await broker.ask(
            "FindCoordinator", version, key="g", key_type=0, coordinator_keys=["g", "h"]
        )
        found = answer.coordinators if version >= 4 else [answer]
        assert [(each.error_code, each.node_id, each.host, each.port) for each in found] == [
            (0, 1, "h", 9092)
        ] * len(found)
        if version >= 4:
            assert [each.key for each in found] == ["g", "h"]
        assert "__consumer_offsets" in broker.topics

    run(story)


@pytest.mark.parametrize("version", [1, 3, 4, 6])
def test_a_transactional_id_is_sent_to_its_coordinator(version: int) -> None:
    """Whose topic is made when it is first looked for."""

    async def story(broker: Broker) -> None:
        if version < 4:
            found = await broker.ask("FindCoordinator", version, key="x", key_type=1)
        else:
            answer = await broker.ask("FindCoordinator", version, key_type=1, coordinator_keys=["x"])
            (found,) = answer.coordinators
        assert (found.error_code, found.node_id, found.host, found.port) == (0, 1, "h", 9092)

    run(story)


@pytest.mark.parametrize("version", [0, 1])
def test_the_consumer_protocol_is_refused_as_by_a_kafka_without_it(version: int) -> None:
    async def story(broker: Broker) -> None:
        answer = await broker.ask(
            "ConsumerGroupHeartbeat", version, group_id="g", member_id="m", member_epoch=0,
            instance_id=None, rack_id=None, rebalance_timeout_ms=-1, subscribed_topic_names=["t"],
            subscribed_topic_regex=None, server_assignor=None, topic_partitions=None,
        )  # fmt: skip
        assert answer.error_code == ErrorCode.unsupported_version
        assert answer.error_message
        assert answer.assignment is None
        assert not broker.groups.group_count

    run(story)


@pytest.mark.parametrize("version", [3, 6])
@pytest.mark.parametrize(("key_type", "error"), [(2, ErrorCode.invalid_request), (9, 42)])
def test_there_are_no_coordinators_of_other_kinds(version: int, key_type: int, error: int) -> None:
    async def story(broker: Broker) -> None:
        answer = await broker.ask(
            "FindCoordinator", version, key="x", key_type=key_type, coordinator_keys=["x"]
        )
        found = answer.coordinators[0] if version >= 4 else answer
        assert (found.error_code, found.node_id, found.host, found.port) == (error, -1, "", -1)
        assert found.error_message

    run(story)


def test_a_coordinator_that_cannot_be_reached() -> None:
    async def story(broker: Broker) -> None:
        async def error() -> int:
            answer = await broker.ask("FindCoordinator", 3, key="g", key_type=0)
            code: int = answer.error_code
            return code

        broker.brokers = {1: BrokerImage(1, "h", 1, None, 1, {"INTERNAL": ("h", 1)})}
        assert await error() == ErrorCode.coordinator_not_available
        broker.brokers = {}
        assert await error() == ErrorCode.coordinator_not_available
        broker.ensure_error = KafkaError(ErrorCode.invalid_replication_factor, "too few brokers")
        assert await error() == ErrorCode.coordinator_not_available

    run(story)


def test_looking_for_a_coordinator_waits_until_it_is_loaded() -> None:
    async def story(broker: Broker) -> None:
        asked = asyncio.ensure_future(broker.ask("FindCoordinator", 3, key="g", key_type=0))
        await settle()
        assert not asked.done()
        await broker.groups.load(0, 0)
        assert (await asked).error_code == 0

    run(story, load=False)


def test_a_coordinator_that_is_there_is_found_without_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(broker: Broker) -> None:
        asked = {"key_type": 0, "coordinator_keys": ["g", "h"]}
        first = await broker.ask("FindCoordinator", 4, **asked)
        monkeypatch.setattr("ottla.broker.api.groups.find_coordinator._handle", None)
        assert await broker.ask("FindCoordinator", 4, **asked) == first
        assert (await broker.ask("FindCoordinator", 0, key="g")).node_id == 1

    run(story)


def test_many_coordinators_that_do_not_load_are_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ottla.coordinators.runtime.host.READY_WAIT_MS", 300)

    async def story(broker: Broker) -> None:
        broker.log.partition_count = 50
        broker.topics["__consumer_offsets"] = topic("__consumer_offsets", UUID(int=1), 50)
        keys = [f"g{number}" for number in range(200)]
        with not_waiting(50 * 0.3):
            answer = await broker.ask("FindCoordinator", 4, key_type=0, coordinator_keys=keys)
        assert [each.key for each in answer.coordinators] == keys
        assert {each.error_code for each in answer.coordinators} == {0}

    run(story, load=False)


# Membership


@versions("JoinGroup")
def test_a_life_in_a_group(version: int) -> None:
    async def story(broker: Broker) -> None:
        joined = await broker.join(version)
        if version >= 4:
            assert joined.error_code == ErrorCode.member_id_required
            joined = await broker.join(version, joined.member_id)
        assert (joined.error_code, joined.generation_id) == (0, 1)
        assert joined.member_id == joined.leader == "client-id1"
        assert joined.protocol_name == "range"
        assert [(m.member_id, m.metadata) for m in joined.members] == [("client-id1", subscription("t"))]
        if version >= 7:
            assert joined.protocol_type == "consumer"
        member = broker.groups.describe("g").members[0]
        assert (member.client_id, member.client_host) == ("client", "/10.0.0.1")
        stored = broker.groups.host.shards[0].machine.tables.groups["g"].members["client-id1"]
        assert stored.rebalance_timeout_ms == (60_000 if version >= 1 else 10_000)

    run(story)


@versions("JoinGroup")
def test_a_join_that_fails_has_no_protocol(version: int) -> None:
    async def story(broker: Broker) -> None:
        answer = await broker.join(version, "nobody")
        assert (answer.error_code, answer.member_id) == (ErrorCode.unknown_member_id, "nobody")
        assert (answer.generation_id, answer.leader, tuple(answer.members)) == (-1, "", ())
        assert answer.protocol_name == (None if version >= 7 else "")

    run(story)


def test_joins_that_are_refused() -> None:
    async def story(broker: Broker) -> None:
        assert (await broker.join(group_id="")).error_code == ErrorCode.invalid_group_id
        for timeout_ms in (5_999, 1_800_001, -1):
            answer = await broker.join(session_timeout_ms=timeout_ms)
            assert answer.error_code == ErrorCode.invalid_session_timeout

    run(story)


def test_a_static_leader_skips_the_assignment() -> None:
    async def story(broker: Broker) -> None:
        joined = await broker.join(9, group_instance_id="i")
        assert joined.member_id == "i-id1"
        await broker.sync(joined.member_id, group_instance_id="i")
        again = await broker.join(9, group_instance_id="i")
        assert (again.error_code, again.skip_assignment, again.leader) == (0, True, "i-id2")
        assert [member.group_instance_id for member in again.members] == ["i"]
        fenced = await broker.ask(
            "Heartbeat", 4, group_id="g", generation_id=1, member_id="i-id1", group_instance_id="i"
        )
        assert fenced.error_code == ErrorCode.fenced_instance_id

    run(story)


@versions("SyncGroup")
def test_an_assignment_comes_back(version: int) -> None:
    async def story(broker: Broker) -> None:
        joined = await broker.join(3)
        given = [{"member_id": joined.member_id, "assignment": b"mine"}]
        answer = await broker.sync(joined.member_id, version, assignments=given)
        assert (answer.error_code, bytes(answer.assignment)) == (0, b"mine")
        if version >= 5:
            assert (answer.protocol_type, answer.protocol_name) == ("consumer", "range")
        other = await broker.sync("nobody", version)
        assert (other.error_code, bytes(other.assignment)) == (ErrorCode.unknown_member_id, b"")

    run(story)


@pytest.mark.parametrize("missing", ["protocol_type", "protocol_name"])
def test_a_sync_must_name_the_protocol(missing: str) -> None:
    async def story(broker: Broker) -> None:
        member_id = await broker.stable()
        answer = await broker.sync(member_id, 5, **{missing: None})
        assert answer.error_code == ErrorCode.inconsistent_group_protocol

    run(story)


@versions("Heartbeat")
def test_heartbeats(version: int) -> None:
    async def story(broker: Broker) -> None:
        member_id = await broker.stable()

        async def beat(generation: int, member: str) -> int:
            answer = await broker.ask(
                "Heartbeat",
                version,
                group_id="g",
                generation_id=generation,
                member_id=member,
                group_instance_id=None,
            )
            code: int = answer.error_code
            return code

        assert await beat(1, member_id) == 0
        assert await beat(2, member_id) == ErrorCode.illegal_generation
        assert await beat(1, "nobody") == ErrorCode.unknown_member_id

    run(story)


@versions("LeaveGroup")
def test_leaving(version: int) -> None:
    async def story(broker: Broker) -> None:
        member_id = await broker.stable()

        async def leave(member: str) -> Any:
            members = [{"member_id": member, "group_instance_id": None, "reason": None}]
            return await broker.ask("LeaveGroup", version, group_id="g", member_id=member, members=members)

        unknown = await leave("nobody")
        if version >= 3:
            assert (unknown.error_code, unknown.members[0].error_code) == (0, 25)
            assert unknown.members[0].member_id == "nobody"
        else:
            assert unknown.error_code == ErrorCode.unknown_member_id
        left = await leave(member_id)
        assert left.error_code == 0
        assert broker.groups.describe("g").state == "Empty"

    run(story)


def test_an_administrator_removes_a_static_member() -> None:
    async def story(broker: Broker) -> None:
        await broker.join(9, group_instance_id="i")
        members = [{"member_id": UNKNOWN_MEMBER_ID, "group_instance_id": "i", "reason": "scaled down"}]
        answer = await broker.ask("LeaveGroup", 5, group_id="g", members=members)
        assert [(m.group_instance_id, m.error_code) for m in answer.members] == [("i", 0)]

    run(story)


# Looking at groups


@versions("DescribeGroups")
def test_describing(version: int) -> None:
    async def story(broker: Broker) -> None:
        member_id = await broker.stable()
        answer = await broker.ask(
            "DescribeGroups", version, groups=["g", "nobody"], include_authorized_operations=True
        )
        group, missing = answer.groups
        assert (group.error_code, group.group_state, group.protocol_type) == (0, "Stable", "consumer")
        assert (group.protocol_data, len(group.members)) == ("range", 1)
        member = group.members[0]
        assert (member.member_id, bytes(member.member_assignment)) == (member_id, b"mine")
        assert bytes(member.member_metadata) == subscription("t")
        assert missing.group_state == "Dead"
        assert missing.error_code == (ErrorCode.group_id_not_found if version >= 6 else 0)
        if version >= 6:
            assert missing.error_message == "Group nobody not found."
        if version >= 3:
            assert group.authorized_operations == 3400

    run(story)


@versions("ListGroups")
def test_listing(version: int) -> None:
    async def story(broker: Broker) -> None:
        await broker.stable()
        await broker.commit(group_id="simple")
        answer = await broker.ask("ListGroups", version, states_filter=[], types_filter=[])
        assert [(each.group_id, each.protocol_type) for each in answer.groups] == [
            ("g", "consumer"),
            ("simple", ""),
        ]
        if version >= 4:
            stable = await broker.ask("ListGroups", version, states_filter=[" STABLE"], types_filter=[])
            assert [(each.group_id, each.group_state) for each in stable.groups] == [("g", "Stable")]
        if version >= 5:
            assert {each.group_type for each in answer.groups} == {"classic"}
            other = await broker.ask("ListGroups", version, states_filter=[], types_filter=["Share"])
            assert tuple(other.groups) == ()

    run(story)


def test_listing_while_loading() -> None:
    async def story(broker: Broker) -> None:
        gate = asyncio.Event()

        async def read_all(partition: int) -> Any:
            await gate.wait()
            yield b""

        broker.log.read_all = read_all  # type: ignore[method-assign]
        load = asyncio.ensure_future(broker.groups.load(0, 0))
        await settle()
        answer = await broker.ask("ListGroups", 3)
        assert answer.error_code == ErrorCode.coordinator_load_in_progress
        fetched = await broker.ask(
            "OffsetFetch", 1, group_id="g", topics=[{"name": "t", "partition_indexes": [0]}]
        )
        assert fetched.topics[0].partitions[0].error_code == ErrorCode.coordinator_load_in_progress
        gate.set()
        await load

    run(story, load=False)


@versions("DeleteGroups")
def test_deleting(version: int) -> None:
    async def story(broker: Broker) -> None:
        await broker.stable()
        await broker.commit(group_id="simple")
        answer = await broker.ask("DeleteGroups", version, groups_names=["g", "simple", "nobody", "simple"])
        assert [(each.group_id, each.error_code) for each in answer.results] == [
            ("g", ErrorCode.non_empty_group),
            ("simple", 0),
            ("nobody", ErrorCode.group_id_not_found),
        ]

    run(story)


# Offsets


async def fetch(broker: Broker, version: int, topics: list[str] | None, group_id: str = "g") -> Any:
    """The group's part of an answer to an OffsetFetch."""
    ids = {"t": TOPIC_ID, "u": OTHER_ID}
    asked = None
    if topics is not None:
        asked = [
            {"name": name, "topic_id": ids.get(name, MISSING_ID), "partition_indexes": [0, 1]}
            for name in topics
        ]
    group = {"group_id": group_id, "member_id": None, "member_epoch": -1, "topics": asked}
    answer = await broker.ask(
        "OffsetFetch", version, group_id=group_id, topics=asked, groups=[group], require_stable=True
    )
    return answer.groups[0] if version >= 8 else answer


@versions("OffsetCommit")
def test_committing(version: int) -> None:
    async def story(broker: Broker) -> None:
        answer = await broker.commit(5, version)
        (topic,) = answer.topics
        assert [(each.partition_index, each.error_code) for each in topic.partitions] == [(0, 0)]
        assert (topic.topic_id == TOPIC_ID) if version >= 10 else (topic.name == "t")
        stored = broker.groups.host.shards[0].machine.tables.offsets.get("g", "t", 0)
        assert (stored.offset, stored.metadata, stored.topic_id) == (5, "note", TOPIC_ID)
        assert stored.leader_epoch == (2 if version >= 6 else -1)
        assert stored.commit_timestamp_ms == broker.clock.now_ms()

    run(story)


@pytest.mark.parametrize("version", [2, 4, 5])
def test_a_retention_of_the_clients_own(version: int) -> None:
    async def story(broker: Broker) -> None:
        await broker.commit(5, version, retention_time_ms=1_000)
        stored = broker.groups.host.shards[0].machine.tables.offsets.get("g", "t", 0)
        assert stored.expire_timestamp_ms == (broker.clock.now_ms() + 1_000 if version <= 4 else -1)

    run(story)


@versions("OffsetCommit")
def test_a_commit_that_is_refused_as_a_whole(version: int) -> None:
    async def story(broker: Broker) -> None:
        answer = await broker.commit(5, version, generation_id_or_member_epoch=3, member_id="m")
        expected = ErrorCode.group_id_not_found if version >= 9 else ErrorCode.illegal_generation
        assert [each.error_code for each in answer.topics[0].partitions] == [expected]

    run(story)


@versions("OffsetCommit")
def test_what_does_not_exist_is_not_committed_and_the_rest_is(version: int) -> None:
    async def story(broker: Broker) -> None:
        def partitions(*indexes: int) -> list[dict[str, Any]]:
            common = {"committed_offset": 5, "committed_leader_epoch": -1, "committed_metadata": None}
            return [common | {"partition_index": index} for index in indexes]

        answer = await broker.commit(
            5,
            version,
            topics=[
                {"name": "v", "topic_id": MISSING_ID, "partitions": partitions(0)},
                {"name": "t", "topic_id": TOPIC_ID, "partitions": partitions(0, 2, -1)},
            ],
        )
        missing = ErrorCode.unknown_topic_id if version >= 10 else ErrorCode.unknown_topic_or_partition
        unknown = ErrorCode.unknown_topic_or_partition
        assert [{p.partition_index: p.error_code for p in topic.partitions} for topic in answer.topics] == [
            {0: missing},
            {0: 0, 2: unknown, -1: unknown},
        ]
        assert list(broker.groups.host.shards[0].machine.tables.offsets.by_group["g"]["t"]) == [0]

    run(story)


@versions("OffsetFetch")
def test_fetching(version: int) -> None:
    async def story(broker: Broker) -> None:
        await broker.commit(5)
        group = await fetch(broker, version, ["t", "u"])
        offsets = [
            [(p.partition_index, p.committed_offset) for p in each.partitions] for each in group.topics
        ]
        assert offsets == [[(0, 5), (1, -1)], [(0, -1), (1, -1)]]
        first = group.topics[0].partitions[0]
        assert (first.metadata, first.error_code) == ("note", 0)
        if version >= 5:
            assert first.committed_leader_epoch == 2
        if version >= 2:
            assert group.error_code == 0
        nobody = await fetch(broker, version, ["t"], "nobody")
        assert [each.committed_offset for each in nobody.topics[0].partitions] == [-1, -1]

    run(story)


@pytest.mark.parametrize("version", range(2, 11))
def test_fetching_all_topics(version: int) -> None:
    async def story(broker: Broker) -> None:
        await broker.commit(5)
        await broker.commit(6, topics=[])
        group = await fetch(broker, version, None)
        (topic,) = group.topics
        assert (topic.topic_id == TOPIC_ID) if version >= 10 else (topic.name == "t")
        assert [(p.partition_index, p.committed_offset) for p in topic.partitions] == [(0, 5)]
        del broker.topics["t"]
        gone = await fetch(broker, version, None)
        assert len(gone.topics) == (0 if version >= 10 else 1)

    run(story)


def test_fetching_by_an_id_that_is_not_known() -> None:
    async def story(broker: Broker) -> None:
        group = await fetch(broker, 10, ["v", "t"])
        by_id = {topic.topic_id: [p.error_code for p in topic.partitions] for topic in group.topics}
        assert by_id == {TOPIC_ID: [0, 0], MISSING_ID: [ErrorCode.unknown_topic_id] * 2}

    run(story)


@pytest.mark.parametrize("version", [1, 9])
def test_a_topic_of_the_same_name_starts_without_offsets(version: int) -> None:
    async def story(broker: Broker) -> None:
        await broker.commit(5)
        broker.topics["t"] = topic("t", MISSING_ID)
        group = await fetch(broker, version, ["t"])
        assert [each.committed_offset for each in group.topics[0].partitions] == [-1, -1]

    run(story)


@versions("OffsetFetch")
def test_fetching_where_this_is_not_the_coordinator(version: int) -> None:
    async def story(broker: Broker) -> None:
        group = await fetch(broker, version, ["t"])
        if version >= 2:
            assert (group.error_code, tuple(group.topics)) == (ErrorCode.not_coordinator, ())
        else:
            codes = [each.error_code for each in group.topics[0].partitions]
            assert codes == [ErrorCode.not_coordinator] * 2

    run(story, load=False)


def test_deleting_offsets() -> None:
    async def story(broker: Broker) -> None:
        member_id = await broker.stable()
        member = {"member_id": member_id, "generation_id_or_member_epoch": 1}
        await broker.commit(5, **member)
        partition = {
            "partition_index": 0,
            "committed_offset": 6,
            "committed_leader_epoch": -1,
            "committed_metadata": None,
        }
        await broker.commit(**member, topics=[{"name": "u", "partitions": [partition]}])

        async def delete(group_id: str) -> Any:
            topics = [
                {"name": name, "partitions": [{"partition_index": 0}, {"partition_index": 9}]}
                for name in ("t", "u", "v")
            ]
            return await broker.ask("OffsetDelete", 0, group_id=group_id, topics=topics)

        answer = await delete("g")
        assert answer.error_code == 0
        unknown = ErrorCode.unknown_topic_or_partition
        assert {t.name: {p.partition_index: p.error_code for p in t.partitions} for t in answer.topics} == {
            "t": {0: ErrorCode.group_subscribed_to_topic, 9: unknown},
            "u": {0: 0, 9: unknown},
            "v": {0: unknown, 9: unknown},
        }
        assert list(broker.groups.host.shards[0].machine.tables.offsets.by_group["g"]) == ["t"]
        assert (await delete("nobody")).error_code == ErrorCode.group_id_not_found
        assert (await delete("")).error_code == ErrorCode.invalid_group_id

    run(story)
