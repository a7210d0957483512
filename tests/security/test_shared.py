"""What is kept or made for several clients, and who they are: nobody gets what only others may see."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from cases import fetch_fields, metadata_fields
from rights_support import HOST, NO_ID, Broker, Right, allow, client, codes, denials, everybody, run

from ottla.broker.request import Client
from ottla.broker.views.topics import EncodedTopics, encoded_topics
from ottla.errors import ErrorCode
from ottla.security.acl import Authorizer, bits
from ottla.security.acl_bindings import (
    SUPPORTED,
    AclBinding,
    Operation,
    PatternType,
    Permission,
    ResourceType,
)
from ottla.wire.apis import BY_NAME

TOPIC, GROUP, CLUSTER = ResourceType.TOPIC, ResourceType.GROUP, ResourceType.CLUSTER
READS = Right(Operation.READ, TOPIC, "t")
DENIED = ErrorCode.topic_authorization_failed
OMITTED = -(2**31)


def of(authorizer: Authorizer, principal: str) -> Client:
    made = Client(HOST, "PLAINTEXT")
    made.permissions = authorizer.client(principal, HOST)
    return made


def partitions(answer: Any) -> list[tuple[int, int]]:
    """Of a Fetch: error codes, and how many bytes there are."""
    return [(p.error_code, len(p.records or b"")) for t in answer.responses for p in t.partitions]


def read(asker: Client, broker: Broker, **more: Any) -> Any:
    return broker.ask(asker, "Fetch", 12, fetch_fields(**more))


@pytest.mark.parametrize("alice_first", [False, True])
def test_who_waits_for_the_same_gets_it_only_with_the_right(tmp_path: Path, alice_first: bool) -> None:
    """Both are woken by one batch, and what the first is told is kept for the second."""

    async def body(broker: Broker) -> None:
        await broker.create("t")
        authorizer = Authorizer()
        authorizer.change(added=[allow(READS, "User:alice"), allow(READS, "User:bob")])
        alice, bob = of(authorizer, "User:alice"), of(authorizer, "User:bob")
        askers = (alice, bob) if alice_first else (bob, alice)
        waiting = [
            asyncio.ensure_future(read(asker, broker, max_wait_ms=60_000, min_bytes=1)) for asker in askers
        ]
        await asyncio.sleep(0)
        authorizer.change(removed=[allow(READS, "User:bob")])
        await broker.produce(everybody(), "t")
        answers = dict(zip(askers, await asyncio.gather(*waiting), strict=True))
        ((error, size),) = partitions(answers[alice])
        assert not error and size
        assert partitions(answers[bob]) == [(DENIED, 0)]

    run(tmp_path, body)


def test_a_session_of_partitions_that_rest_ends_with_the_right(tmp_path: Path) -> None:
    """Nothing happens to them: the client hears of it all the same, each time until it may read again."""

    async def body(broker: Broker) -> None:
        await broker.create("t")
        await broker.produce(everybody(), "t")
        authorizer = Authorizer()
        authorizer.change(added=[allow(READS)])
        alice = of(authorizer, "User:alice")
        first = await read(alice, broker, session_epoch=0)
        ((error, size),) = partitions(first)
        assert not error and size
        epoch = 0

        async def again() -> list[tuple[int, int]]:
            nonlocal epoch
            epoch += 1
            asked = fetch_fields()["topics"] if epoch == 1 else ()
            for topic in asked:
                topic["partitions"][0]["fetch_offset"] = 1
            session = {"session_id": first.session_id, "session_epoch": epoch}
            return partitions(await read(alice, broker, topics=asked, **session))

        assert await again() == await again() == []
        authorizer.change(removed=[allow(READS)])
        assert await again() == await again() == [(DENIED, 0)]
        authorizer.change(added=[allow(READS)])
        assert await again() == [(0, 0)]
        assert await again() == []
        await broker.produce(everybody(), "t")
        ((error, size),) = await again()
        assert not error and size

    run(tmp_path, body)


def test_another_client_with_a_sessions_id_reads_by_its_own_rights(tmp_path: Path) -> None:
    async def body(broker: Broker) -> None:
        await broker.create("t")
        await broker.produce(everybody(), "t")
        first = await read(client(READS), broker, session_epoch=0)
        session = {"session_id": first.session_id, "session_epoch": 1, "topics": ()}
        assert partitions(await read(client(), broker, **session)) == [(DENIED, 0)]

    run(tmp_path, body)


def test_topics_that_are_kept_written_are_for_whom_may_see_them(tmp_path: Path) -> None:
    sees_all = Right(Operation.DESCRIBE, TOPIC, "*")
    sees_t = Right(Operation.DESCRIBE, TOPIC, "t")
    version_range = range(BY_NAME["Metadata"].version_min, BY_NAME["Metadata"].version_max + 1)

    async def body(broker: Broker) -> None:
        await broker.create("t", "u")
        for version in version_range:
            await check(broker, version)

    async def check(broker: Broker, version: int) -> None:
        asked = {"topics": None if version else ()}

        async def raw(asker: Client) -> bytes:
            return await broker.raw(asker, "Metadata", version, asked)

        async def names(asker: Client) -> list[str]:
            answer = await broker.ask(asker, "Metadata", version, asked)
            return [topic.name for topic in answer.topics]

        whole = await raw(client(sees_all))
        for _ in range(2):
            assert await names(client(sees_t)) == ["t"]
            assert await names(client()) == []
            assert await raw(client(sees_all)) == await raw(everybody()) == whole
        assert await names(everybody()) == ["t", "u"]

    run(tmp_path, body)


def test_many_topics_are_put_together_for_whom_may_see_them(tmp_path: Path) -> None:
    """In pieces, and from all of them at once where that is the same."""

    async def body(broker: Broker) -> None:
        count = 400
        await broker.create(*(f"t{n:03}" for n in range(count)))
        asked = {"topics": None}
        some = [Right(Operation.DESCRIBE, TOPIC, f"t{n:03}") for n in range(0, count, 2)]
        every = Right(Operation.DESCRIBE, TOPIC, "*")

        def view() -> EncodedTopics:
            services = broker.node.services
            return encoded_topics(services.topics, services.metadata, "PLAINTEXT", 12)

        authorizer = Authorizer()
        authorizer.change(added=[allow(each) for each in (every, *some)])
        alice = of(authorizer, "User:alice")
        for _ in range(2):
            answer = await broker.ask(client(*some), "Metadata", 12, asked)
            assert sorted(topic.name for topic in answer.topics) == [right.name for right in some]
            whole = await broker.raw(alice, "Metadata", 12, asked)
            assert whole == await broker.raw(everybody(), "Metadata", 12, asked)
            # The next time no topic is asked for by itself.
            assert view().are_all_for(alice.permissions)
        authorizer.change(removed=[allow(every)])
        assert not view().are_all_for(alice.permissions)
        answer = await broker.ask(alice, "Metadata", 12, asked)
        assert sorted(topic.name for topic in answer.topics) == [right.name for right in some]
        authorizer.change(added=[allow(every)])
        assert await broker.raw(alice, "Metadata", 12, asked) == whole
        # Another topic comes, which is not for it.
        hidden = AclBinding(
            TOPIC, "hidden", PatternType.LITERAL, "User:alice", "*", Operation.ALL, Permission.DENY
        )
        authorizer.change(added=[hidden])
        assert await broker.raw(alice, "Metadata", 12, asked) == whole
        await broker.create("hidden")
        assert await broker.raw(alice, "Metadata", 12, asked) == whole

    run(tmp_path, body)


def test_a_replica_needs_the_right_and_the_key(tmp_path: Path) -> None:
    """Neither is enough: what is committed follows from what replicas say that they have."""
    acts = Right(Operation.CLUSTER_ACTION, CLUSTER)

    async def body(broker: Broker) -> None:
        metadata = broker.node.services.metadata
        await metadata.controller.register_broker(9, {"PLAINTEXT": ("h", 1)}, None, is_controller=False)
        placed = [{"partition_index": 0, "broker_ids": [1, 9]}]
        topic = {"name": "t", "num_partitions": -1, "replication_factor": -1, "assignments": placed}
        await broker.ask(everybody(), "CreateTopics", 7, {"topics": [topic], "timeout_ms": 5_000})
        await broker.produce(everybody(), "t")
        partition = broker.node.services.replicas.get("t", 0)
        key = metadata.image.brokers[9].claim

        async def fetch(asker: Client, claim: int) -> list[int]:
            fields = fetch_fields(broker, replica_state={"replica_id": 9, "replica_epoch": claim})
            (topic,) = fields["topics"]
            topic["partitions"][0] |= {"fetch_offset": 1, "last_fetched_epoch": 0}
            answer = await broker.ask(asker, "Fetch", 17, fields)
            return [p.error_code for t in answer.responses for p in t.partitions]

        everything = [Right(operation, TOPIC, "*") for operation in SUPPORTED[TOPIC]]
        assert await fetch(client(*everything), key) == [DENIED]
        assert await fetch(client(acts), key + 1) == [ErrorCode.not_leader_or_follower]
        assert partition.high_watermark == 0
        assert await fetch(client(acts), key) == [ErrorCode.none]
        assert partition.high_watermark == 1

    run(tmp_path, body)


def test_what_a_client_may_do_is_told_in_bits(tmp_path: Path) -> None:
    rights = [
        Right(Operation.READ, TOPIC, "t"),
        Right(Operation.ALTER_CONFIGS, TOPIC, "t"),
        Right(Operation.DELETE, GROUP, "g"),
        Right(Operation.ALTER, CLUSTER),
    ]
    of_topic = bits((Operation.READ, Operation.DESCRIBE, Operation.ALTER_CONFIGS, Operation.DESCRIBE_CONFIGS))
    of_group = bits((Operation.DELETE, Operation.DESCRIBE))
    of_cluster = bits((Operation.ALTER, Operation.DESCRIBE))

    async def body(broker: Broker) -> None:
        await broker.create("t")
        free = everybody()
        await broker.ask(free, "FindCoordinator", 3, {"key": "g"})
        topic = {"name": "t", "partitions": [{"committed_offset": 0}]}
        commit = {"group_id": "g", "generation_id_or_member_epoch": -1, "topics": [topic]}
        await broker.ask(free, "OffsetCommit", 8, commit)
        for asker, expected in ((client(*rights), (of_topic, of_group, of_cluster)), (free, everything())):
            wanted = {"include_topic_authorized_operations": True}
            answer = await broker.ask(asker, "Metadata", 12, metadata_fields("t", **wanted))
            assert [each.topic_authorized_operations for each in answer.topics] == [expected[0]]
            page = {"topics": [{"name": "t"}], "response_partition_limit": 10}
            answer = await broker.ask(asker, "DescribeTopicPartitions", 0, page)
            assert [each.topic_authorized_operations for each in answer.topics] == [expected[0]]
            described = {"groups": ["g"], "include_authorized_operations": True}
            answer = await broker.ask(asker, "DescribeGroups", 5, described)
            assert [each.authorized_operations for each in answer.groups] == [expected[1]]
            told = {"include_cluster_authorized_operations": True, "endpoint_type": 1}
            answer = await broker.ask(asker, "DescribeCluster", 1, told)
            assert answer.cluster_authorized_operations == expected[2]
            answer = await broker.ask(asker, "Metadata", 10, metadata_fields(**told))
            assert answer.cluster_authorized_operations == expected[2]
        # Of what it may not see, and where it has not asked, nothing is told.
        answer = await broker.ask(client(), "Metadata", 12, metadata_fields("t", **wanted))
        assert [each.topic_authorized_operations for each in answer.topics] == [OMITTED]
        answer = await broker.ask(client(), "DescribeCluster", 1, told)
        assert answer.cluster_authorized_operations == 0

    def everything() -> tuple[int, int, int]:
        return bits(SUPPORTED[TOPIC]), bits(SUPPORTED[GROUP]), bits(SUPPORTED[CLUSTER])

    run(tmp_path, body)


def test_ids_are_told_apart_from_those_of_nobody(tmp_path: Path) -> None:
    """Topic ids are no secret (KIP-516), but whose they are is."""

    async def body(broker: Broker) -> None:
        await broker.create("t")
        topics = [{"name": None, "topic_id": broker.topic_id("t")}]
        answer = await broker.ask(client(), "Metadata", 12, {"topics": topics})
        assert [(each.error_code, each.name) for each in answer.topics] == [(DENIED, None)]
        answer = await broker.ask(client(), "Metadata", 12, metadata_fields("t"))
        assert [(each.error_code, each.topic_id) for each in answer.topics] == [(DENIED, NO_ID)]
        gone = {"topics": topics, "timeout_ms": 1_000}
        answer = await broker.ask(client(), "DeleteTopics", 6, gone)
        assert [(each.error_code, each.name) for each in answer.responses] == [(DENIED, None)]
        answer = await broker.ask(client(READS), "DeleteTopics", 6, gone)
        assert [(each.error_code, each.name) for each in answer.responses] == [(DENIED, "t")]
        allowed = client(Right(Operation.DELETE, TOPIC, "t"))
        answer = await broker.ask(allowed, "DeleteTopics", 6, gone)
        assert not denials(answer) and set(codes(answer)) == {ErrorCode.none}

    run(tmp_path, body)
