"""Offsets in transactions by raw requests, at every version: one node, real sockets."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from test_transactions_versions import Transactional, versions

from interop.process import BrokerProcess
from interop.raw import RawClient
from ottla.errors import ErrorCode

NONE = ErrorCode.none
FIRST_VERSION_THAT_ADDS = 5
FIRST_VERSION_WITH_IDS = 6


@pytest.fixture(scope="module")
def broker(ottla_process_module: Callable[..., BrokerProcess]) -> BrokerProcess:
    settings = {"transaction.state.log.num.partitions": "3", "offsets.topic.num.partitions": "3"}
    return ottla_process_module(settings)


@pytest.fixture
def client(broker: BrokerProcess) -> Iterator[RawClient]:
    with RawClient(broker.bootstrap) as connection:
        yield connection


class Consuming(Transactional):
    """A transactional producer that commits the offsets of a group of its own name."""

    def __init__(self, client: RawClient, name: str) -> None:
        super().__init__(client, name)
        answer = client.call("FindCoordinator", 4, key_type=0, coordinator_keys=[name])
        assert [(one.error_code, one.node_id) for one in answer.coordinators] == [(NONE, 1)]
        topics = client.call(
            "Metadata",
            12,
            topics=[{"name": name, "topic_id": None}],
            allow_auto_topic_creation=False,
            include_topic_authorized_operations=False,
        ).topics
        self.topic_id: UUID = topics[0].topic_id

    def add_offsets(self, producer: tuple[int, int]) -> None:
        answer = self.client.call(
            "AddOffsetsToTxn",
            3,
            transactional_id=self.name,
            group_id=self.name,
            producer_id=producer[0],
            producer_epoch=producer[1],
        )
        assert answer.error_code == NONE

    def commit(
        self, producer: tuple[int, int], offset: int, version: int, partition: int = 0, **fields: Any
    ) -> ErrorCode:
        one = {"partition_index": partition, "committed_offset": offset, "committed_metadata": "m"}
        topic = {"topic_id": self.topic_id} if version >= FIRST_VERSION_WITH_IDS else {"name": self.name}
        topic |= fields.pop("topic", {})
        asked = {
            "transactional_id": self.name,
            "group_id": self.name,
            "producer_id": producer[0],
            "producer_epoch": producer[1],
            "topics": [topic | {"partitions": [one]}],
        }
        answer = self.client.call("TxnOffsetCommit", version, **(asked | fields))
        ((told,),) = [each.partitions for each in answer.topics]
        assert told.partition_index == partition
        return ErrorCode(told.error_code)

    def fetch(self, *, require_stable: bool = False) -> tuple[int, int]:
        """The offset, and the error."""
        topics = [{"name": self.name, "partition_indexes": [0]}]
        groups = [{"group_id": self.name, "topics": topics}]
        answer = self.client.call("OffsetFetch", 8, groups=groups, require_stable=require_stable)
        ((one,),) = [each.partitions for each in answer.groups[0].topics]
        return one.committed_offset, one.error_code

    def wait_for_offset(self, offset: int) -> None:
        deadline = time.monotonic() + 60
        while self.fetch(require_stable=True) != (offset, NONE):
            assert time.monotonic() < deadline, self.fetch(require_stable=True)
            time.sleep(0.01)


@pytest.fixture
def consuming(client: RawClient, name: str) -> Consuming:
    return Consuming(client, name)


@versions("TxnOffsetCommit")
def test_txn_offset_commit(consuming: Consuming, version: int) -> None:
    """Offsets count once the transaction is committed."""
    producer = consuming.begin()
    adds = version >= FIRST_VERSION_THAT_ADDS
    if not adds:
        consuming.add_offsets(producer)
    assert consuming.commit(producer, 7, version) == NONE
    assert consuming.commit(producer, 8, version) == NONE
    assert consuming.fetch() == (-1, NONE)
    assert consuming.fetch(require_stable=True) == (-1, ErrorCode.unstable_offset_commit)
    answer = consuming.end(producer, version=5 if adds else 4)
    assert answer.error_code == NONE
    consuming.wait_for_offset(8)
    if adds:
        producer = answer.producer_id, answer.producer_epoch
    else:
        consuming.wait_for("CompleteCommit")
        consuming.add_offsets(producer)
    assert retried(lambda: consuming.commit(producer, 9, version)) == NONE
    assert consuming.end(producer, commit=False, version=5 if adds else 4).error_code == NONE
    consuming.wait_for_offset(8)


def retried(commit: Callable[[], ErrorCode]) -> ErrorCode:
    """As a client does while the transaction before is still being ended."""
    deadline = time.monotonic() + 60
    while (code := commit()) == ErrorCode.concurrent_transactions:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return code


@versions("TxnOffsetCommit")
def test_what_is_not_in_a_transaction_is_refused(consuming: Consuming, version: int) -> None:
    producer = consuming.begin()
    if version < FIRST_VERSION_THAT_ADDS:
        refused = ErrorCode.transaction_abortable if version == 4 else ErrorCode.invalid_txn_state
        assert consuming.commit(producer, 7, version) == refused
    fenced = consuming.commit((producer[0], 5), 7, version)
    assert fenced == ErrorCode.invalid_producer_epoch
    assert consuming.commit((producer[0] + 1_000, 0), 7, version) == ErrorCode.invalid_producer_id_mapping
    assert consuming.commit((-1, -1), 7, version) == ErrorCode.invalid_producer_id_mapping
    assert consuming.commit(producer, 7, version, group_id="") == ErrorCode.invalid_group_id
    assert consuming.fetch(require_stable=True) == (-1, NONE)


@versions("TxnOffsetCommit")
def test_topics_and_members_that_there_are_not(consuming: Consuming, version: int) -> None:
    producer = consuming.begin()
    consuming.add_offsets(producer)
    missing = ErrorCode.unknown_topic_or_partition
    assert consuming.commit(producer, 7, version, partition=9) == missing
    if version >= FIRST_VERSION_WITH_IDS:
        assert (
            consuming.commit(producer, 7, version, topic={"topic_id": uuid4()}) == ErrorCode.unknown_topic_id
        )
    else:
        assert consuming.commit(producer, 7, version, topic={"name": "no-such-topic"}) == missing
    if version >= 3:
        unknown = ErrorCode.group_id_not_found if version >= 6 else ErrorCode.illegal_generation
        assert consuming.commit(producer, 7, version, generation_id=3, member_id="m") == unknown
