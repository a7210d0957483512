"""What each handler tells a client that may not do what it asks for: nothing more, and nothing else.

Requests go through the gate of a whole broker, from a client whose rights a test gives and takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from admin_support import NO_ID, new_topic

from measuring import HANG_S
from ottla.broker.pending import Pending
from ottla.broker.request import Client, CloseConnection
from ottla.errors import ErrorCode
from ottla.node import Node, NodeSettings
from ottla.security.acl import Authorizer
from ottla.security.acl_bindings import (
    CLUSTER_NAME,
    AclBinding,
    Operation,
    PatternType,
    Permission,
    ResourceType,
)
from ottla.types import Record
from ottla.wire.apis import BY_NAME
from ottla.wire.messages import decode_response, frame_request, read_response_header
from ottla.wire.records import build_batch

TOPIC, GROUP, CLUSTER = ResourceType.TOPIC, ResourceType.GROUP, ResourceType.CLUSTER
TRANSACTIONAL_ID = ResourceType.TRANSACTIONAL_ID
READ, WRITE, DESCRIBE, CREATE = Operation.READ, Operation.WRITE, Operation.DESCRIBE, Operation.CREATE
DELETE, ALTER = Operation.DELETE, Operation.ALTER
BATCH = build_batch([Record(0, 1_000, None, b"v")])
TRANSACTIONAL = build_batch(
    [Record(0, 1_000, None, b"v")], producer_id=7, producer_epoch=0, base_sequence=0, transactional=True
)
NO_TOPIC = ErrorCode.topic_authorization_failed
NO_GROUP = ErrorCode.group_authorization_failed
NO_CLUSTER = ErrorCode.cluster_authorization_failed
NO_TRANSACTION = ErrorCode.transactional_id_authorization_failed
OMITTED = -(2**31)


class Alice:
    """A client by itself, and what it may do."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.authorizer = Authorizer()
        self.client = Client("10.0.0.1", "PLAINTEXT")
        self.client.permissions = self.authorizer.client("User:alice", "10.0.0.1")
        self._acls: list[AclBinding] = []

    def may(self, operation: Operation, kind: ResourceType, name: str) -> None:
        """Allow it something more."""
        acl = AclBinding(kind, name, PatternType.LITERAL, "User:alice", "*", operation, Permission.ALLOW)
        self._acls.append(acl)
        self.authorizer.change(added=[acl])

    def may_nothing(self) -> None:
        self.authorizer.change(removed=self._acls)
        self._acls.clear()

    async def ask(self, name: str, version: int, **fields: Any) -> Any:
        """The answer to a request, as the codec has it."""
        key = BY_NAME[name].key
        frame = frame_request(key, version, 1, "client", fields)[4:]
        answer = self.node._listeners.servers[0].handle(self.client, frame)
        pieces = await asyncio.wait_for(answer, HANG_S) if isinstance(answer, Pending) else answer
        if not pieces:
            return None
        data = b"".join(pieces)
        return decode_response(key, version, data, read_response_header(key, version, data[4:])[1] + 4)

    async def ask_as_root(self, name: str, version: int, **fields: Any) -> Any:
        permissions, self.client.permissions = self.client.permissions, None
        try:
            return await self.ask(name, version, **fields)
        finally:
            self.client.permissions = permissions

    def topic_id(self, name: str) -> UUID:
        return self.node.services.metadata.image.topics[name].topic_id


Body = Callable[[Alice], Awaitable[None]]


def run(path: Path, body: Body, **properties: str) -> None:
    async def main() -> None:
        node = Node(NodeSettings(data=str(path / "data"), port=0, properties=properties))
        await node.start()
        try:
            alice = Alice(node)
            topics = [new_topic(name) for name in ("seen", "hidden")]
            fields = {"topics": topics, "timeout_ms": 5_000, "validate_only": False}
            await alice.ask_as_root("CreateTopics", 7, **fields)
            await asyncio.wait_for(body(alice), HANG_S)
        finally:
            await node.stop()

    asyncio.run(main())


def errors(topics: Any, name: str = "name", partitions: str = "partitions") -> dict[Any, list[int]]:
    """Error codes of partitions, by topic."""
    return {getattr(t, name): [p.error_code for p in getattr(t, partitions)] for t in topics}


# Records ------------------------------------------------


def produced(topic: str, records: bytes = BATCH, count: int = 1) -> dict[str, Any]:
    return {"name": topic, "partition_data": [{"index": 0, "records": records}] * count}


async def produce(alice: Alice, *topics: dict[str, Any], transactional_id: str | None = None) -> Any:
    answer = await alice.ask(
        "Produce", 9, transactional_id=transactional_id, acks=-1, timeout_ms=1_000, topic_data=topics
    )
    return errors(answer.responses, partitions="partition_responses")


def test_who_may_not_write(tmp_path: Path) -> None:
    async def body(alice: Alice) -> None:
        assert await produce(alice, produced("seen")) == {"seen": [NO_TOPIC]}
        # Of a topic that is not there nothing else is told.
        assert await produce(alice, produced("none")) == {"none": [NO_TOPIC]}
        assert await produce(alice, produced("seen"), produced("hidden")) == {
            "seen": [NO_TOPIC],
            "hidden": [NO_TOPIC],
        }
        alice.may(WRITE, TOPIC, "seen")
        assert await produce(alice, produced("seen")) == {"seen": [0]}
        # Also where they are much, and done in pieces.
        assert await produce(alice, produced("seen"), produced("hidden", count=150)) == {
            "seen": [0],
            "hidden": [NO_TOPIC] * 150,
        }
        log = alice.node.services.replicas.get("hidden", 0).log
        assert log.log_end_offset == 0
        topic = {"topic_id": alice.topic_id("hidden"), "partition_data": [{"index": 0, "records": BATCH}]}
        answer = await alice.ask(
            "Produce", 13, transactional_id=None, acks=1, timeout_ms=1_000, topic_data=[topic]
        )
        (partition,) = answer.responses[0].partition_responses
        assert (partition.error_code, partition.log_start_offset) == (NO_TOPIC, -1)
        with pytest.raises(CloseConnection):
            await alice.ask(
                "Produce", 9, transactional_id=None, acks=0, timeout_ms=1, topic_data=[produced("hidden")]
            )

    run(tmp_path, body)


def test_who_may_not_write_in_a_transaction(tmp_path: Path) -> None:
    async def body(alice: Alice) -> None:
        alice.may(WRITE, TOPIC, "seen")
        batch = produced("seen", TRANSACTIONAL)
        assert await produce(alice, batch, transactional_id="t") == {"seen": [NO_TRANSACTION]}
        assert await produce(alice, batch) == {"seen": [NO_TRANSACTION]}
        # What is not of the transaction is not asked about.
        assert await produce(alice, produced("seen"), transactional_id="t") == {"seen": [0]}
        alice.may(WRITE, TRANSACTIONAL_ID, "t")
        hidden = produced("hidden", TRANSACTIONAL)
        assert await produce(alice, hidden, transactional_id="t") == {"hidden": [NO_TOPIC]}

    run(tmp_path, body)


def fetched(topic: Any, *, key: str = "topic") -> dict[str, Any]:
    partition = {"partition": 0, "fetch_offset": 0, "partition_max_bytes": 1_000_000}
    more = {"current_leader_epoch": -1, "last_fetched_epoch": -1, "log_start_offset": -1}
    return {key: topic, "partitions": [partition | more]}


async def fetch(alice: Alice, *topics: dict[str, Any], version: int = 12, **more: Any) -> Any:
    fields = {
        "replica_id": -1,
        "max_wait_ms": 0,
        "min_bytes": 1,
        "max_bytes": 1_000_000,
        "isolation_level": 0,
        "session_id": 0,
        "session_epoch": -1,
        "topics": topics,
        "forgotten_topics_data": (),
        "rack_id": "",
    }
    return await alice.ask("Fetch", version, **(fields | more))


def test_who_may_not_read(tmp_path: Path) -> None:
    async def body(alice: Alice) -> None:
        for name in ("seen", "hidden"):
            fields = {"acks": 1, "timeout_ms": 1_000, "transactional_id": None}
            await alice.ask_as_root("Produce", 9, **fields, topic_data=[produced(name)])
        answer = await fetch(alice, fetched("seen"), fetched("none"))
        assert errors(answer.responses, "topic") == {"seen": [NO_TOPIC], "none": [NO_TOPIC]}
        partition = answer.responses[0].partitions[0]
        assert (partition.high_watermark, partition.log_start_offset, partition.records) == (-1, -1, b"")
        alice.may(READ, TOPIC, "seen")
        answer = await fetch(alice, fetched("seen"), fetched("hidden"))
        assert errors(answer.responses, "topic") == {"seen": [0], "hidden": [NO_TOPIC]}
        assert [len(t.partitions[0].records) > 0 for t in answer.responses] == [True, False]
        ids = [fetched(alice.topic_id(name), key="topic_id") for name in ("seen", "hidden")]
        answer = await fetch(alice, *ids, fetched(UUID(int=9), key="topic_id"), version=13)
        assert [t.partitions[0].error_code for t in answer.responses] == [
            0,
            NO_TOPIC,
            ErrorCode.unknown_topic_id,
        ]
        # A follower needs a right of another kind.
        answer = await fetch(alice, fetched("seen"), replica_id=1)
        assert errors(answer.responses, "topic") == {"seen": [NO_TOPIC]}

    run(tmp_path, body)


def test_a_session_ends_with_the_right_to_read(tmp_path: Path) -> None:
    async def body(alice: Alice) -> None:
        alice.may(READ, TOPIC, "seen")
        answer = await fetch(alice, fetched("seen"), session_epoch=0)
        session = {"session_id": answer.session_id, "max_wait_ms": 20}
        assert errors(answer.responses, "topic") == {"seen": [0]}
        # The client knows all, and the partition rests.
        for epoch in (1, 2):
            answer = await fetch(alice, session_epoch=epoch, **session)
            assert not answer.responses
        waiting = asyncio.ensure_future(fetch(alice, session_epoch=3, **(session | {"max_wait_ms": 60_000})))
        await asyncio.sleep(0)
        alice.may_nothing()
        fields = {"acks": 1, "timeout_ms": 1_000, "transactional_id": None}
        await alice.ask_as_root("Produce", 9, **fields, topic_data=[produced("seen")])
        answer = await waiting
        assert errors(answer.responses, "topic") == {"seen": [NO_TOPIC]}
        assert not answer.responses[0].partitions[0].records
        alice.may(READ, TOPIC, "seen")
        answer = await fetch(alice, session_epoch=4, **session)
        assert errors(answer.responses, "topic") == {"seen": [0]}
        assert answer.responses[0].partitions[0].records
        # It is told at once, although nothing has happened to the partition.
        alice.may_nothing()
        answer = await fetch(alice, session_epoch=5, **session)
        assert errors(answer.responses, "topic") == {"seen": [NO_TOPIC]}

    run(tmp_path, body)


def test_a_habit_ends_with_the_right_to_read(tmp_path: Path) -> None:
    async def body(alice: Alice) -> None:
        topic = new_topic("wide", 150)
        fields = {"topics": [topic], "timeout_ms": 5_000, "validate_only": False}
        await alice.ask_as_root("CreateTopics", 7, **fields)
        partitions = [fetched("wide")["partitions"][0] | {"partition": index} for index in range(150)]
        wide = {"topic": "wide", "partitions": partitions}
        alice.may(READ, TOPIC, "wide")
        for _ in range(2):
            answer = await fetch(alice, wide)
            assert errors(answer.responses, "topic") == {"wide": [0] * 150}
        assert alice.client.habit is not None
        alice.may_nothing()
        for _ in range(2):
            answer = await fetch(alice, wide)
            assert errors(answer.responses, "topic") == {"wide": [NO_TOPIC] * 150}
            assert {p.high_watermark for p in answer.responses[0].partitions} == {-1}
        alice.client.leave()

    run(tmp_path, body)


async def check_by_topic(
    alice: Alice, operation: Operation, ask: Callable[[], Awaitable[dict[Any, list[int]]]]
) -> None:
    """Both topics are refused, then only one."""
    alice.may_nothing()
    assert await ask() == {"seen": [NO_TOPIC], "hidden": [NO_TOPIC], "none": [NO_TOPIC]}
    alice.may(operation, TOPIC, "seen")
    assert await ask() == {"seen": [0], "hidden": [NO_TOPIC], "none": [NO_TOPIC]}


NAMES = ("seen", "hidden", "none")


def test_offsets_producers_and_records_by_topic(tmp_path: Path) -> None:
    async def body(alice: Alice) -> None:
        async def list_offsets() -> Any:
            asked = {"partition_index": 0, "current_leader_epoch": -1, "timestamp": -1}
            topics = [{"name": name, "partitions": [asked]} for name in NAMES]
            answer = await alice.ask("ListOffsets", 7, replica_id=-1, isolation_level=0, topics=topics)
            return errors(answer.topics)

        async def epochs() -> Any:
            asked = {"partition": 0, "current_leader_epoch": -1, "leader_epoch": 0}
            topics = [{"topic": name, "partitions": [asked]} for name in NAMES]
            answer = await alice.ask("OffsetForLeaderEpoch", 4, replica_id=-1, topics=topics)
            return errors(answer.topics, "topic")

        async def delete_records() -> Any:
            topics = [{"name": name, "partitions": [{"partition_index": 0, "offset": 0}]} for name in NAMES]
            answer = await alice.ask("DeleteRecords", 2, topics=topics, timeout_ms=1_000)
            return errors(answer.topics)

        async def producers() -> Any:
            topics = [{"name": name, "partition_indexes": [0]} for name in NAMES]
            answer = await alice.ask("DescribeProducers", 0, topics=topics)
            return errors(answer.topics)

        await check_by_topic(alice, DESCRIBE, list_offsets)
        await check_by_topic(alice, DESCRIBE, epochs)
        await check_by_topic(alice, DELETE, delete_records)
        await check_by_topic(alice, READ, producers)
        # Nodes may ask for epochs of any topic.
        alice.may_nothing()
        alice.may(Operation.CLUSTER_ACTION, CLUSTER, CLUSTER_NAME)
        assert (await epochs())["hidden"] == [0]

    run(tmp_path, body)


# Topics -------------------------------------------------


async def metadata(alice: Alice, *names: str, version: int = 9, **more: Any) -> dict[Any, Any]:
    topics = [{"name": name, "topic_id": NO_ID} for name in names] if names else None
    fields = {
        "topics": topics,
        "allow_auto_topic_creation": False,
        "include_cluster_authorized_operations": True,
        "include_topic_authorized_operations": True,
    }
    answer = await alice.ask("Metadata", version, **(fields | more))
    return {t.name: t for t in answer.topics} | {"cluster": answer}


def test_which_topics_are_seen(tmp_path: Path) -> None:
    async def body(alice: Alice) -> None:
        found = await metadata(alice)
        assert set(found) == {"cluster"}
        assert found["cluster"].cluster_authorized_operations == 0
        alice.may(READ, TOPIC, "seen")
        alice.may(DESCRIBE, CLUSTER, CLUSTER_NAME)
        found = await metadata(alice)
        assert set(found) == {"seen", "cluster"}
        assert found["cluster"].cluster_authorized_operations == 1 << DESCRIBE
        assert found["seen"].topic_authorized_operations == (1 << READ) | (1 << DESCRIBE)
        # Whoever may do everything still sees all, and nobody's answer is kept for another.
        assert set(await metadata(alice, include_topic_authorized_operations=False)) == {"seen", "cluster"}
        everything = await alice.ask_as_root("Metadata", 1, topics=None)
        assert [t.name for t in everything.topics] == ["seen", "hidden"]
        found = await metadata(alice, "seen", "hidden", "none", version=10)
        codes = {name: found[name].error_code for name in NAMES}
        assert codes == {"seen": 0, "hidden": NO_TOPIC, "none": NO_TOPIC}
        hidden = found["hidden"]
        assert (hidden.topic_id, hidden.partitions, hidden.topic_authorized_operations) == (
            NO_ID,
            (),
            OMITTED,
        )
        ids = [{"name": None, "topic_id": alice.topic_id(name)} for name in ("seen", "hidden")]
        topics = (await metadata(alice, version=12, topics=ids))["cluster"].topics
        assert [(t.name, t.error_code) for t in topics] == [("seen", 0), (None, NO_TOPIC)]
        assert topics[1].topic_id == alice.topic_id("hidden")

    run(tmp_path, body)


def test_which_topics_metadata_makes(tmp_path: Path) -> None:
    async def body(alice: Alice) -> None:
        async def made(*names: str) -> dict[str, int]:
            found = await metadata(alice, *names, allow_auto_topic_creation=True)
            return {name: found[name].error_code for name in names}

        alice.may(DESCRIBE, TOPIC, "new-1")
        alice.may(DESCRIBE, TOPIC, "new-2")
        alice.may(CREATE, TOPIC, "new-2")
        alice.may(CREATE, TOPIC, "new-3")
        expected = {"new-1": NO_TOPIC, "new-2": 0, "new-3": NO_TOPIC}
        assert await made("new-1", "new-2", "new-3") == expected
        there = alice.node.services.metadata.image.topics
        assert set(there) == {"seen", "hidden", "new-2"}
        alice.may(CREATE, CLUSTER, CLUSTER_NAME)
        assert await made("new-1", "new-3") == {"new-1": 0, "new-3": NO_TOPIC}

    run(tmp_path, body, **{"auto.create.topics.enable": "true"})


def test_pages_of_topics(tmp_path: Path) -> None:
    async def body(alice: Alice) -> None:
        async def page(*names: str) -> dict[str, Any]:
            topics = [{"name": name} for name in names]
            answer = await alice.ask(
                "DescribeTopicPartitions", 0, topics=topics, response_partition_limit=100, cursor=None
            )
            return {t.name: t for t in answer.topics}

        alice.may(DESCRIBE, TOPIC, "seen")
        assert set(await page()) == {"seen"}
        found = await page("seen", "hidden", "none")
        assert {name: t.error_code for name, t in found.items()} == {
            "seen": 0,
            "hidden": NO_TOPIC,
            "none": NO_TOPIC,
        }
        assert found["seen"].topic_authorized_operations == 1 << DESCRIBE
        assert (found["hidden"].topic_id, found["hidden"].partitions) == (NO_ID, ())

    run(tmp_path, body)


def test_topics_are_made_changed_and_deleted_by_whom(tmp_path: Path) -> None:
    async def body(alice: Alice) -> None:
        async def create(*names: str) -> dict[str, Any]:
            answer = await alice.ask(
                "CreateTopics",
                7,
                topics=[new_topic(name) for name in names],
                timeout_ms=5_000,
                validate_only=False,
            )
            return {t.name: t for t in answer.topics}

        alice.may(CREATE, TOPIC, "mine")
        made = await create("mine", "other", "seen")
        assert {name: t.error_code for name, t in made.items()} == {
            "mine": 0,
            "other": NO_TOPIC,
            "seen": NO_TOPIC,
        }
        assert made["other"].error_message == "Authorization failed."
        mine = made["mine"]
        assert (mine.num_partitions, mine.configs) == (-1, ())
        assert mine.topic_config_error_code == NO_TOPIC
        alice.may(CREATE, CLUSTER, CLUSTER_NAME)
        alice.may(Operation.DESCRIBE_CONFIGS, TOPIC, "other")
        other = (await create("other"))["other"]
        assert (other.error_code, other.num_partitions, other.topic_config_error_code) == (0, 1, 0)
        assert len(other.configs) > 10

        more = [{"name": name, "count": 2, "assignments": None} for name in ("mine", "other")]
        alice.may(ALTER, TOPIC, "mine")
        answer = await alice.ask("CreatePartitions", 3, topics=more, timeout_ms=5_000, validate_only=False)
        assert {t.name: t.error_code for t in answer.results} == {"mine": 0, "other": NO_TOPIC}

    run(tmp_path, body)


def test_which_topics_can_be_deleted(tmp_path: Path) -> None:
    async def body(alice: Alice) -> None:
        async def delete(*topics: Any) -> list[Any]:
            asked = [
                {
                    "name": one if isinstance(one, str) else None,
                    "topic_id": NO_ID if isinstance(one, str) else one,
                }
                for one in topics
            ]
            answer = await alice.ask("DeleteTopics", 6, topics=asked, timeout_ms=5_000)
            return [(t.name, t.topic_id, t.error_code) for t in answer.responses]

        seen, hidden = alice.topic_id("seen"), alice.topic_id("hidden")
        alice.may(DESCRIBE, TOPIC, "seen")
        assert await delete("seen", "hidden", "none") == [
            ("seen", NO_ID, NO_TOPIC),
            ("hidden", NO_ID, NO_TOPIC),
            ("none", NO_ID, NO_TOPIC),
        ]
        nobody = UUID(int=7)
        assert await delete(seen, hidden, nobody) == [
            ("seen", seen, NO_TOPIC),
            (None, hidden, NO_TOPIC),
            (None, nobody, ErrorCode.unknown_topic_id),
        ]
        alice.may(DESCRIBE, TOPIC, "none")
        assert await delete("none") == [("none", NO_ID, ErrorCode.unknown_topic_or_partition)]
        alice.may(DELETE, TOPIC, "seen")
        assert await delete("seen") == [("seen", seen, 0)]
        alice.may(DELETE, CLUSTER, CLUSTER_NAME)
        assert await delete("hidden") == [("hidden", hidden, 0)]

    run(tmp_path, body)


# Configurations and the cluster -------------------------


def test_configurations_of_what(tmp_path: Path) -> None:
    async def body(alice: Alice) -> None:
        resources = [(2, "seen"), (2, "none"), (4, "1"), (4, ""), (8, "1"), (16, "m"), (32, "g")]
        refused = [NO_TOPIC, NO_TOPIC, NO_CLUSTER, NO_CLUSTER, NO_CLUSTER, NO_CLUSTER, NO_GROUP]

        async def describe() -> list[int]:
            asked = [
                {"resource_type": kind, "resource_name": name, "configuration_keys": ("x",)}
                for kind, name in resources
            ]
            answer = await alice.ask(
                "DescribeConfigs", 4, resources=asked, include_synonyms=False, include_documentation=False
            )
            assert all(not r.configs for r in answer.results)
            return [r.error_code for r in answer.results]

        async def alter(name: str) -> list[int]:
            asked = [
                {"resource_type": kind, "resource_name": of, "configs": []}
                for kind, of in resources
                if name != "AlterConfigs" or kind != 8
            ]
            version = BY_NAME[name].version_max
            answer = await alice.ask(name, version, resources=asked, validate_only=True)
            return [r.error_code for r in answer.responses]

        assert await describe() == refused
        assert await alter("IncrementalAlterConfigs") == refused
        assert await alter("AlterConfigs") == [*refused[:4], *refused[5:]]
        for operation in (Operation.DESCRIBE_CONFIGS, Operation.ALTER_CONFIGS):
            alice.may(operation, TOPIC, "seen")
            alice.may(operation, CLUSTER, CLUSTER_NAME)
            alice.may(operation, GROUP, "g")
        assert await describe() == [0, NO_TOPIC, 0, 0, 0, 0, 0]
        assert (await alter("IncrementalAlterConfigs"))[:2] == [0, NO_TOPIC]
        # It cannot take away what all nodes have to agree on.
        kept = ErrorCode.invalid_config
        assert (await alter("AlterConfigs"))[1:] == [NO_TOPIC, 0, kept, 0, 0]

    run(tmp_path, body)


def test_the_cluster_and_what_one_may_do_to_it(tmp_path: Path) -> None:
    async def body(alice: Alice) -> None:
        async def shown() -> int:
            fields = {"include_cluster_authorized_operations": True, "endpoint_type": 1}
            answer = await alice.ask("DescribeCluster", 1, **fields)
            assert (answer.error_code, len(answer.brokers)) == (0, 1)
            operations: int = answer.cluster_authorized_operations
            return operations

        assert await shown() == 0
        alice.may(ALTER, CLUSTER, CLUSTER_NAME)
        assert await shown() == (1 << ALTER) | (1 << DESCRIBE)

    run(tmp_path, body)


def test_the_gate_refuses_what_is_its_own(tmp_path: Path) -> None:
    """Those of its APIs whose error is at the top; the others have the same way."""

    async def body(alice: Alice) -> None:
        for name, version, fields, code in (
            ("DescribeLogDirs", 3, {"topics": None}, NO_CLUSTER),
            ("ListConfigResources", 1, {"resource_types": ()}, NO_CLUSTER),
            ("UnregisterBroker", 0, {"broker_id": 9}, NO_CLUSTER),
            ("ListPartitionReassignments", 0, {"timeout_ms": 1, "topics": None}, NO_CLUSTER),
            ("Heartbeat", 4, {"group_id": "g", "generation_id": 1, "member_id": "m"}, NO_GROUP),
            (
                "EndTxn",
                3,
                {"transactional_id": "t", "producer_id": 1, "producer_epoch": 0, "committed": True},
                NO_TRANSACTION,
            ),
        ):
            answer = await alice.ask(name, version, **fields)
            assert answer.error_code == code

    run(tmp_path, body)


# Groups and transactions --------------------------------


def test_groups_and_their_offsets(tmp_path: Path) -> None:
    async def body(alice: Alice) -> None:
        async def commit(group: str, version: int = 8) -> Any:
            partition = {
                "partition_index": 0,
                "committed_offset": 5,
                "committed_leader_epoch": -1,
                "committed_metadata": "",
            }
            answer = await alice.ask(
                "OffsetCommit",
                version,
                group_id=group,
                generation_id_or_member_epoch=-1,
                member_id="",
                group_instance_id=None,
                topics=[{"name": name, "partitions": [partition]} for name in NAMES],
            )
            return errors(answer.topics)

        async def offsets(group: str, *names: str) -> Any:
            topics = [{"name": name, "partition_indexes": [0]} for name in names] or None
            asked = [{"group_id": group, "member_id": None, "member_epoch": -1, "topics": topics}]
            answer = await alice.ask("OffsetFetch", 8, groups=asked, require_stable=False)
            (found,) = answer.groups
            if found.error_code:
                assert not found.topics
                return found.error_code
            return {t.name: [(p.committed_offset, p.error_code) for p in t.partitions] for t in found.topics}

        key = {"key_type": 0, "coordinator_keys": ("g", "h")}
        answer = await alice.ask("FindCoordinator", 4, **key)
        assert [(c.key, c.error_code, c.node_id) for c in answer.coordinators] == [
            ("g", NO_GROUP, -1),
            ("h", NO_GROUP, -1),
        ]
        alice.may(READ, GROUP, "g")
        answer = await alice.ask("FindCoordinator", 4, **key)
        assert [(c.key, c.error_code, c.node_id) for c in answer.coordinators] == [
            ("g", 0, 1),
            ("h", NO_GROUP, -1),
        ]
        answer = await alice.ask("FindCoordinator", 3, key_type=0, key="h")
        assert (answer.error_code, answer.error_message) == (NO_GROUP, "Group authorization failed.")
        answer = await alice.ask("FindCoordinator", 4, key_type=1, coordinator_keys=("t",))
        assert answer.coordinators[0].error_code == NO_TRANSACTION

        alice.may(READ, TOPIC, "seen")
        assert await commit("h") == {name: [NO_GROUP] for name in NAMES}
        assert await commit("g") == {"seen": [0], "hidden": [NO_TOPIC], "none": [NO_TOPIC]}
        await alice.ask_as_root("FindCoordinator", 4, key_type=0, coordinator_keys=("h",))
        assert await offsets("h", "seen") == NO_GROUP
        assert await offsets("g", *NAMES) == {
            "seen": [(5, 0)],
            "hidden": [(-1, NO_TOPIC)],
            "none": [(-1, NO_TOPIC)],
        }
        assert await offsets("g") == {"seen": [(5, 0)]}
        alice.may_nothing()
        alice.may(READ, GROUP, "g")
        assert await offsets("g") == {}

    run(tmp_path, body)


def test_groups_are_described_listed_and_deleted_by_whom(tmp_path: Path) -> None:
    async def body(alice: Alice) -> None:
        partition = {
            "partition_index": 0,
            "committed_offset": 5,
            "committed_leader_epoch": -1,
            "committed_metadata": "",
        }
        for group in ("g", "h"):
            await alice.ask_as_root("FindCoordinator", 4, key_type=0, coordinator_keys=(group,))
            await alice.ask_as_root(
                "OffsetCommit",
                8,
                group_id=group,
                generation_id_or_member_epoch=-1,
                member_id="",
                group_instance_id=None,
                topics=[{"name": name, "partitions": [partition]} for name in ("seen", "hidden")],
            )

        async def described() -> Any:
            answer = await alice.ask(
                "DescribeGroups", 5, groups=("g", "h"), include_authorized_operations=True
            )
            return [(g.group_id, g.error_code, g.authorized_operations) for g in answer.groups]

        async def listed() -> set[str]:
            answer = await alice.ask("ListGroups", 4, states_filter=())
            return {g.group_id for g in answer.groups}

        assert await described() == [("g", NO_GROUP, OMITTED), ("h", NO_GROUP, OMITTED)]
        assert await listed() == set()
        alice.may(DESCRIBE, GROUP, "g")
        assert await described() == [("g", 0, 1 << DESCRIBE), ("h", NO_GROUP, OMITTED)]
        assert await listed() == {"g"}
        alice.may(DESCRIBE, CLUSTER, CLUSTER_NAME)
        assert await listed() == {"g", "h"}

        async def forget(group: str) -> Any:
            topics = [{"name": name, "partitions": [{"partition_index": 0}]} for name in NAMES]
            answer = await alice.ask("OffsetDelete", 0, group_id=group, topics=topics)
            return answer.error_code or errors(answer.topics)

        assert await forget("g") == NO_GROUP
        alice.may(DELETE, GROUP, "g")
        alice.may(READ, TOPIC, "seen")
        assert await forget("g") == {"seen": [0], "hidden": [NO_TOPIC], "none": [NO_TOPIC]}
        answer = await alice.ask("DeleteGroups", 2, groups_names=("h", "g"))
        assert {r.group_id: r.error_code for r in answer.results} == {"g": 0, "h": NO_GROUP}

    run(tmp_path, body)


def test_producers_and_their_transactions(tmp_path: Path) -> None:
    async def body(alice: Alice) -> None:
        async def init(transactional_id: str | None) -> Any:
            return await alice.ask(
                "InitProducerId",
                4,
                transactional_id=transactional_id,
                transaction_timeout_ms=60_000,
                producer_id=-1,
                producer_epoch=-1,
            )

        assert (await init(None)).error_code == NO_CLUSTER
        assert (await init("t")).error_code == NO_TRANSACTION
        alice.may(WRITE, TOPIC, "whichever")
        assert (await init(None)).error_code == 0
        alice.may_nothing()
        alice.may(Operation.IDEMPOTENT_WRITE, CLUSTER, CLUSTER_NAME)
        assert (await init(None)).error_code == 0
        alice.may(WRITE, TRANSACTIONAL_ID, "t")
        await alice.ask_as_root("FindCoordinator", 4, key_type=1, coordinator_keys=("t",))
        producer = await init("t")
        assert producer.error_code == 0

        async def add(transactional_id: str) -> Any:
            answer = await alice.ask(
                "AddPartitionsToTxn",
                3,
                v3_and_below_transactional_id=transactional_id,
                v3_and_below_producer_id=producer.producer_id,
                v3_and_below_producer_epoch=producer.producer_epoch,
                v3_and_below_topics=[{"name": name, "partitions": (0,)} for name in ("seen", "hidden")],
            )
            return {
                t.name: [p.partition_error_code for p in t.results_by_partition]
                for t in answer.results_by_topic_v3_and_below
            }

        assert await add("u") == {"seen": [NO_TRANSACTION], "hidden": [NO_TRANSACTION]}
        alice.may(WRITE, TOPIC, "seen")
        left = ErrorCode.operation_not_attempted
        assert await add("t") == {"seen": [left], "hidden": [NO_TOPIC]}
        alice.may(WRITE, TOPIC, "hidden")
        assert await add("t") == {"seen": [0], "hidden": [0]}
        await alice.ask_as_root("FindCoordinator", 4, key_type=1, coordinator_keys=("u",))
        permissions, alice.client.permissions = alice.client.permissions, None
        assert (await init("u")).error_code == 0
        alice.client.permissions = permissions

        answer = await alice.ask("DescribeTransactions", 0, transactional_ids=("t", "u"))
        assert [(s.transactional_id, s.error_code) for s in answer.transaction_states] == [
            ("t", 0),
            ("u", NO_TRANSACTION),
        ]
        assert {t.topic for t in answer.transaction_states[0].topics} == {"seen", "hidden"}
        alice.may_nothing()
        alice.may(DESCRIBE, TRANSACTIONAL_ID, "t")
        alice.may(DESCRIBE, TOPIC, "seen")
        answer = await alice.ask("DescribeTransactions", 0, transactional_ids=("t",))
        assert [t.topic for t in answer.transaction_states[0].topics] == ["seen"]
        answer = await alice.ask("ListTransactions", 0, state_filters=(), producer_id_filters=())
        assert [s.transactional_id for s in answer.transaction_states] == ["t"]

    run(tmp_path, body)


def test_transactional_offsets(tmp_path: Path) -> None:
    async def body(alice: Alice) -> None:
        alice.may(WRITE, TRANSACTIONAL_ID, "t")
        alice.may(READ, GROUP, "g")
        partition = {
            "partition_index": 0,
            "committed_offset": 5,
            "committed_leader_epoch": -1,
            "committed_metadata": "",
        }
        answer = await alice.ask(
            "TxnOffsetCommit",
            3,
            transactional_id="t",
            group_id="g",
            producer_id=1,
            producer_epoch=0,
            generation_id=-1,
            member_id="",
            group_instance_id=None,
            topics=[{"name": name, "partitions": [partition]} for name in ("hidden", "none")],
        )
        assert errors(answer.topics) == {"hidden": [NO_TOPIC], "none": [NO_TOPIC]}

    run(tmp_path, body)
