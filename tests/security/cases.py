"""What each API demands, as requests: for each right what is told to whom has all of them but that one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from rights_support import ALICE, BATCH, LOGIN_LISTENER, NO_ID, Broker, Right, everybody

from measuring import HANG_S
from ottla.errors import ErrorCode
from ottla.security.acl_bindings import Operation, ResourceType
from ottla.security.principals import user
from ottla.types import Record
from ottla.wire.records import build_batch

TOPIC, GROUP, CLUSTER, TXN = (
    ResourceType.TOPIC,
    ResourceType.GROUP,
    ResourceType.CLUSTER,
    ResourceType.TRANSACTIONAL_ID,
)
READ, WRITE, CREATE, DELETE = Operation.READ, Operation.WRITE, Operation.CREATE, Operation.DELETE
ALTER, DESCRIBE, CLUSTER_ACTION = Operation.ALTER, Operation.DESCRIBE, Operation.CLUSTER_ACTION
DESCRIBE_CONFIGS, ALTER_CONFIGS = Operation.DESCRIBE_CONFIGS, Operation.ALTER_CONFIGS

NO_TOPIC = ErrorCode.topic_authorization_failed
NO_GROUP = ErrorCode.group_authorization_failed
NO_CLUSTER = ErrorCode.cluster_authorization_failed
NO_TOKEN = ErrorCode.delegation_token_authorization_failed
NO_TXN = ErrorCode.transactional_id_authorization_failed

Fields = Mapping[str, Any]
# For each right what is told without it; None: nothing, since what it is about is left out.
Needs = dict[Right, ErrorCode | None]


class Case(NamedTuple):
    """A request that demands some rights."""

    api: str
    version: int
    fields: Fields | Callable[[Broker], Fields]
    needs: Needs
    # Enough instead of all of them.
    instead: tuple[Right, ...] = ()
    # Whether an answer shows what may be left out of it.
    shows: Callable[[Any], bool] | None = None
    listener: str = "PLAINTEXT"

    def request(self, broker: Broker) -> Fields:
        return self.fields(broker) if callable(self.fields) else self.fields


def transactional(producer_id: int, epoch: int) -> bytes:
    return build_batch(
        [Record(0, 1_000, None, b"v")], producer_id=producer_id, producer_epoch=epoch, base_sequence=0,
        transactional=True,
    )  # fmt: skip


async def prepare(broker: Broker) -> None:
    """A topic "t" with a record, a group "g" that is somewhere in it, a transaction "tx" that writes it."""
    free = everybody()
    await broker.create("t")
    await broker.produce(free, "t")
    for key_type, key in enumerate(("g", "tx")):
        await broker.ask(free, "FindCoordinator", 3, {"key": key, "key_type": key_type})
    await broker.ask(free, "OffsetCommit", 8, commit_fields())
    made = await broker.ask(free, "InitProducerId", 4, INIT)
    assert made.error_code == 0
    await broker.ask(free, "AddPartitionsToTxn", 3, add_fields(made.producer_id, made.producer_epoch))
    # And a token of bob's.
    bob = everybody(LOGIN_LISTENER)
    bob.principal = user("bob")
    made = await broker.ask(bob, "CreateDelegationToken", 3, {"max_lifetime_ms": -1})
    assert made.error_code == 0
    async with asyncio.timeout(HANG_S):
        while not len(list(broker.node.services.tokens.view)):
            await asyncio.sleep(0.01)


INIT = {"transactional_id": "tx", "transaction_timeout_ms": 60_000, "producer_id": -1, "producer_epoch": -1}


def add_fields(producer_id: int = 0, epoch: int = 0) -> Fields:
    return {
        "v3_and_below_transactional_id": "tx",
        "v3_and_below_producer_id": producer_id,
        "v3_and_below_producer_epoch": epoch,
        "v3_and_below_topics": [{"name": "t", "partitions": [0]}],
    }


def commit_fields(broker: Broker | None = None, **more: Any) -> Fields:
    topic = {"name": "t", "partitions": [{"partition_index": 0, "committed_offset": 0}]}
    if broker is not None:
        topic["topic_id"] = broker.topic_id("t")
    return {
        "group_id": "g",
        "generation_id_or_member_epoch": -1,
        "generation_id": -1,
        "transactional_id": "tx",
        "topics": [topic],
    } | more


def produce_fields(broker: Broker | None = None, **more: Any) -> Fields:
    topic: dict[str, Any] = {"name": "t", "partition_data": [{"index": 0, "records": BATCH}]}
    if broker is not None:
        topic["topic_id"] = broker.topic_id("t")
    return {"acks": 1, "timeout_ms": 1_000, "transactional_id": None, "topic_data": [topic]} | more


def fetch_fields(broker: Broker | None = None, **more: Any) -> Fields:
    partition = {"partition": 0, "partition_max_bytes": 1_000, "current_leader_epoch": -1}
    topic: dict[str, Any] = {"topic": "t", "partitions": [partition | {"last_fetched_epoch": -1}]}
    if broker is not None:
        topic["topic_id"] = broker.topic_id("t")
    given = {"replica_id": -1, "max_bytes": 1_000, "session_epoch": -1, "topics": [topic]}
    return given | {"replica_state": {"replica_id": -1, "replica_epoch": -1}} | more


def named(*names: str) -> Fields:
    return {"topics": [{"name": name, "topic_id": NO_ID} for name in names]}


def metadata_fields(*names: str, **more: Any) -> Fields:
    return {**named(*names), "allow_auto_topic_creation": False} | more


def offsets_fields(topics: Any, version: int) -> Fields:
    if version < 8:
        return {"group_id": "g", "topics": topics}
    return {"groups": [{"group_id": "g", "topics": topics}]}


OFFSETS = [{"name": "t", "partition_indexes": [0]}]


def resources(kind: int, name: str) -> Fields:
    return {"validate_only": True, "resources": [{"resource_type": kind, "resource_name": name}]}


def _records() -> list[Case]:
    needs = {Right(WRITE, TOPIC, "t"): NO_TOPIC}
    in_transaction = produce_fields() | {
        "transactional_id": "tx",
        "topic_data": [{"name": "t", "partition_data": [{"index": 0, "records": transactional(0, 0)}]}],
    }
    reads: Needs = {Right(READ, TOPIC, "t"): NO_TOPIC}
    follows: Needs = {Right(CLUSTER_ACTION, CLUSTER): NO_TOPIC}
    listed = {"replica_id": -1, "topics": [{"name": "t", "partitions": [{"timestamp": -1}]}]}
    epochs = {"replica_id": -1, "topics": [{"topic": "t", "partitions": [{"current_leader_epoch": -1}]}]}
    return [
        *[Case("Produce", version, produce_fields(), {**needs}) for version in (3, 8, 9, 12)],
        Case("Produce", 13, produce_fields, {**needs}),
        Case("Produce", 9, produce_fields(topic_data=[*produce_fields()["topic_data"]] * 2), {**needs}),
        Case("Produce", 11, in_transaction, {Right(WRITE, TXN, "tx"): NO_TXN, **needs}),
        Case("Produce", 12, in_transaction, {Right(WRITE, TXN, "tx"): NO_TXN, **needs}),
        *[Case("Fetch", version, fetch_fields(), reads) for version in (4, 7, 12)],
        *[Case("Fetch", version, fetch_fields, reads) for version in (13, 17)],
        Case("Fetch", 12, fetch_fields(session_epoch=0), reads),
        Case("Fetch", 12, fetch_fields(replica_id=2), follows),
        Case(
            "Fetch", 17, lambda b: fetch_fields(b, replica_state={"replica_id": 2, "replica_epoch": 1}),
            follows,
        ),
        Case("ListOffsets", 7, listed, {Right(DESCRIBE, TOPIC, "t"): NO_TOPIC}),
        Case(
            "OffsetForLeaderEpoch", 4, epochs, {Right(DESCRIBE, TOPIC, "t"): NO_TOPIC},
            (Right(CLUSTER_ACTION, CLUSTER),),
        ),
        Case(
            "DeleteRecords", 2,
            {"topics": [{"name": "t", "partitions": [{"offset": 0}]}], "timeout_ms": 1_000},
            {Right(DELETE, TOPIC, "t"): NO_TOPIC},
        ),
        Case(
            "DescribeProducers", 0, {"topics": [{"name": "t", "partition_indexes": [0]}]},
            {Right(READ, TOPIC, "t"): NO_TOPIC},
        ),
    ]  # fmt: skip


def _groups() -> list[Case]:
    group: Needs = {Right(READ, GROUP, "g"): NO_GROUP}
    commits: Needs = {**group, Right(READ, TOPIC, "t"): NO_TOPIC}
    fetches: Needs = {Right(DESCRIBE, GROUP, "g"): NO_GROUP, Right(DESCRIBE, TOPIC, "t"): NO_TOPIC}
    shown: Needs = {Right(DESCRIBE, GROUP, "g"): NO_GROUP, Right(DESCRIBE, TOPIC, "t"): None}
    in_transaction: Needs = {Right(WRITE, TXN, "tx"): NO_TXN, **commits}
    join = {
        "group_id": "g", "session_timeout_ms": 10_000, "rebalance_timeout_ms": 10_000, "protocol_type": "p",
        "protocols": [{"name": "n"}],
    }  # fmt: skip
    return [
        *[Case("OffsetCommit", version, commit_fields(), commits) for version in (2, 6, 8, 9)],
        Case("OffsetCommit", 10, commit_fields, commits),
        *[Case("OffsetFetch", v, offsets_fields(OFFSETS, v), fetches) for v in (1, 2, 7, 8, 9)],
        Case(
            "OffsetFetch", 10,
            lambda b: offsets_fields([{"topic_id": b.topic_id("t"), "partition_indexes": [0]}], 10), fetches,
        ),
        Case(
            "OffsetFetch", 7, offsets_fields(None, 7), shown,
            shows=lambda a: [topic.name for topic in a.topics] == ["t"],
        ),
        Case(
            "OffsetFetch", 10, offsets_fields(None, 10), shown, shows=lambda a: bool(a.groups[0].topics)
        ),
        Case("FindCoordinator", 0, {"key": "g"}, {Right(DESCRIBE, GROUP, "g"): NO_GROUP}),
        Case("FindCoordinator", 3, {"key": "tx", "key_type": 1}, {Right(DESCRIBE, TXN, "tx"): NO_TXN}),
        Case("FindCoordinator", 6, {"coordinator_keys": ["g"]}, {Right(DESCRIBE, GROUP, "g"): NO_GROUP}),
        Case(
            "FindCoordinator", 6, {"coordinator_keys": ["tx"], "key_type": 1},
            {Right(DESCRIBE, TXN, "tx"): NO_TXN},
        ),
        Case(
            "FindCoordinator", 6, {"coordinator_keys": ["k"], "key_type": 2},
            {Right(CLUSTER_ACTION, CLUSTER): NO_CLUSTER},
        ),
        Case("JoinGroup", 9, join, group),
        Case("Heartbeat", 4, {"group_id": "g", "member_id": "m"}, group),
        Case("LeaveGroup", 5, {"group_id": "g", "members": [{"member_id": "m"}]}, group),
        Case("SyncGroup", 5, {"group_id": "g", "protocol_type": "p", "protocol_name": "n"}, group),
        *[
            Case("DescribeGroups", version, {"groups": ["g"]}, {Right(DESCRIBE, GROUP, "g"): NO_GROUP})
            for version in (0, 6)
        ],
        Case(
            "ListGroups", 5, {}, {Right(DESCRIBE, GROUP, "g"): None}, (Right(DESCRIBE, CLUSTER),),
            shows=lambda a: "g" in [group.group_id for group in a.groups],
        ),
        Case("DeleteGroups", 2, {"groups_names": ["h"]}, {Right(DELETE, GROUP, "h"): NO_GROUP}),
        Case(
            "OffsetDelete", 0, {"group_id": "h", "topics": [{"name": "t", "partitions": [{}]}]},
            # The first of them is the whole answer where the group is not there.
            {Right(DELETE, GROUP, "h"): NO_GROUP},
        ),
        Case(
            "OffsetDelete", 0, {"group_id": "g", "topics": [{"name": "u", "partitions": [{}]}]},
            {Right(DELETE, GROUP, "g"): NO_GROUP, Right(READ, TOPIC, "u"): NO_TOPIC},
        ),
        *[Case("TxnOffsetCommit", version, commit_fields(), in_transaction) for version in (0, 3, 5)],
        Case("TxnOffsetCommit", 6, commit_fields, in_transaction),
        # It is not served yet, whoever asks.
        Case("ConsumerGroupHeartbeat", 1, {"group_id": "g", "subscribed_topic_names": ["t"]}, {}),
    ]  # fmt: skip


def _topics() -> list[Case]:
    sees: Needs = {Right(DESCRIBE, TOPIC, "t"): NO_TOPIC}
    seen: Needs = {Right(DESCRIBE, TOPIC, "t"): None}
    new = {"num_partitions": 1, "replication_factor": 1}
    creates = {"topics": [{"name": "new", **new}], "timeout_ms": 5_000, "validate_only": True}
    more = {"topics": [{"name": "t", "count": 2, "assignments": None}], "validate_only": True}
    gone = {"topics": [{"name": "gone", "topic_id": NO_ID}], "timeout_ms": 1_000}
    cluster = {"include_cluster_authorized_operations": True}

    def shows_t(answer: Any) -> bool:
        return "t" in [topic.name for topic in answer.topics]

    return [
        *[Case("Metadata", version, metadata_fields("t"), sees) for version in (0, 4, 8, 12, 13)],
        Case(
            "Metadata", 12, lambda b: {"topics": [{"name": None, "topic_id": b.topic_id("t")}]},
            sees,
        ),
        *[Case("Metadata", v, {"topics": None if v else ()}, seen, shows=shows_t) for v in (0, 1, 12)],
        Case(
            "Metadata", 12, metadata_fields("auto", allow_auto_topic_creation=True),
            {Right(DESCRIBE, TOPIC, "auto"): NO_TOPIC, Right(CREATE, TOPIC, "auto"): NO_TOPIC},
        ),
        Case(
            "Metadata", 12, metadata_fields("self", allow_auto_topic_creation=True),
            {Right(DESCRIBE, TOPIC, "self"): NO_TOPIC, Right(CREATE, CLUSTER): NO_TOPIC},
        ),
        Case(
            "Metadata", 9, metadata_fields(**cluster), {Right(DESCRIBE, CLUSTER): None},
            shows=lambda a: a.cluster_authorized_operations != 0,
        ),
        Case(
            "CreateTopics", 7, creates,
            {Right(CREATE, TOPIC, "new"): NO_TOPIC, Right(DESCRIBE_CONFIGS, TOPIC, "new"): NO_TOPIC},
        ),
        Case("CreateTopics", 4, creates, {Right(CREATE, TOPIC, "new"): NO_TOPIC}, (Right(CREATE, CLUSTER),)),
        Case(
            "DeleteTopics", 6, gone, {Right(DELETE, TOPIC, "gone"): NO_TOPIC}, (Right(DELETE, CLUSTER),)
        ),
        Case(
            "DeleteTopics", 1, {"topic_names": ["gone"], "timeout_ms": 1_000},
            {Right(DELETE, TOPIC, "gone"): NO_TOPIC}, (Right(DELETE, CLUSTER),),
        ),
        Case("CreatePartitions", 3, more, {Right(ALTER, TOPIC, "t"): NO_TOPIC}),
        Case("DescribeTopicPartitions", 0, named("t") | {"response_partition_limit": 10}, sees),
        Case("DescribeTopicPartitions", 0, {"response_partition_limit": 10}, seen, shows=shows_t),
        Case(
            "DescribeCluster", 1, cluster | {"endpoint_type": 1}, {Right(DESCRIBE, CLUSTER): None},
            shows=lambda a: a.cluster_authorized_operations != 0,
        ),
    ]  # fmt: skip


def _configs() -> list[Case]:
    found: list[Case] = []
    for api, version, operation in (
        ("DescribeConfigs", 4, DESCRIBE_CONFIGS),
        ("AlterConfigs", 2, ALTER_CONFIGS),
        ("IncrementalAlterConfigs", 1, ALTER_CONFIGS),
    ):
        for kind, name, right, error in (
            (2, "t", Right(operation, TOPIC, "t"), NO_TOPIC),
            (2, "none", Right(operation, TOPIC, "none"), NO_TOPIC),
            (4, "1", Right(operation, CLUSTER), NO_CLUSTER),
            (4, "", Right(operation, CLUSTER), NO_CLUSTER),
            (16, "metrics", Right(operation, CLUSTER), NO_CLUSTER),
            (32, "g", Right(operation, GROUP, "g"), NO_GROUP),
        ):
            found.append(Case(api, version, resources(kind, name), {right: error}))
        if api != "AlterConfigs":
            found.append(Case(api, version, resources(8, "1"), {Right(operation, CLUSTER): NO_CLUSTER}))
    return found


def _transactions() -> list[Case]:
    writes: Needs = {Right(WRITE, TXN, "tx"): NO_TXN}
    asks = {"transactions": [{"transactional_id": "tx", "topics": [{"name": "t", "partitions": [0]}]}]}
    return [
        Case("InitProducerId", 4, INIT | {"transactional_id": "other"}, {Right(WRITE, TXN, "other"): NO_TXN}),
        Case(
            "InitProducerId", 4, INIT | {"transactional_id": None},
            {Right(Operation.IDEMPOTENT_WRITE, CLUSTER): NO_CLUSTER}, (Right(WRITE, TOPIC, "whichever"),),
        ),
        *[
            Case("AddPartitionsToTxn", v, add_fields(), {**writes, Right(WRITE, TOPIC, "t"): NO_TOPIC})
            for v in (0, 3)
        ],
        *[
            Case("AddPartitionsToTxn", v, asks, {Right(CLUSTER_ACTION, CLUSTER): NO_CLUSTER})
            for v in (4, 5)
        ],
        Case(
            "AddOffsetsToTxn", 3, {"transactional_id": "tx", "group_id": "g"},
            {**writes, Right(READ, GROUP, "g"): NO_GROUP},
        ),
        *[Case("EndTxn", v, {"transactional_id": "tx", "producer_id": 9}, writes) for v in range(6)],
        Case(
            "WriteTxnMarkers", 1, {"markers": [{"topics": [{"name": "none", "partition_indexes": [0]}]}]},
            {Right(CLUSTER_ACTION, CLUSTER): NO_CLUSTER}, (Right(ALTER, CLUSTER),),
        ),
        Case(
            "DescribeTransactions", 0, {"transactional_ids": ["tx"]},
            {Right(DESCRIBE, TXN, "tx"): NO_TXN, Right(DESCRIBE, TOPIC, "t"): None},
            shows=lambda a: [topic.topic for topic in a.transaction_states[0].topics] == ["t"],
        ),
        Case(
            "ListTransactions", 2, {"duration_filter": -1, "transactional_id_pattern": None},
            {Right(DESCRIBE, TXN, "tx"): None},
            shows=lambda a: "tx" in [one.transactional_id for one in a.transaction_states],
        ),
    ]  # fmt: skip


def _tokens() -> list[Case]:
    of_bob = {"owner_principal_type": "User", "owner_principal_name": "bob", "max_lifetime_ms": -1}
    return [
        Case(
            "CreateDelegationToken", 3, of_bob,
            {Right(Operation.CREATE_TOKENS, ResourceType.USER, "User:bob"): NO_TOKEN},
            listener=LOGIN_LISTENER,
        ),
        Case(
            "DescribeDelegationToken", 3, {"owners": None},
            {Right(DESCRIBE, ResourceType.DELEGATION_TOKEN, "*"): None},
            (Right(Operation.DESCRIBE_TOKENS, ResourceType.USER, "User:bob"),),
            shows=lambda a: bool(a.tokens), listener=LOGIN_LISTENER,
        ),
    ]  # fmt: skip


CASES = [*_records(), *_groups(), *_topics(), *_configs(), *_transactions(), *_tokens()]

# Demands that no request here can tell.
UNTOLD = {
    # Whoever may DELETE a topic may DESCRIBE it.
    ("DeleteTopics", DESCRIBE, TOPIC),
    # In no version that is served.
    ("InitProducerId", Operation.TWO_PHASE_COMMIT, TXN),
    ("ConsumerGroupHeartbeat", READ, GROUP),
    ("ConsumerGroupHeartbeat", DESCRIBE, TOPIC),
}

__all__ = ("ALICE", "CASES", "UNTOLD", "Case", "prepare")
