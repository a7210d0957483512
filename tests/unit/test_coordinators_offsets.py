"""Committed offsets: who may commit, what is fetched, what expires, what deletions leave behind."""

from __future__ import annotations

import gc
from uuid import UUID

import pytest
from coordinators_support import Bench, durable, protocols

from ottla.coordinators.groups.offset_requests import is_longer
from ottla.coordinators.groups.offsets import Offsets
from ottla.coordinators.groups.requests import FetchTopic
from ottla.coordinators.groups.schemas import CommittedOffset, OffsetRecord
from ottla.errors import ErrorCode
from ottla.wire.primitives import UUID_ZERO

DAY_MS = 86_400_000
RETENTION_MS = 7 * DAY_MS
OLD_ID, NEW_ID = UUID(int=1), UUID(int=2)


def fetch(
    bench: Bench, *topics: str, topic_id: UUID = UUID_ZERO, stable: bool = False
) -> dict[str, list[int]]:
    wanted = [FetchTopic(topic, topic_id, (0, 1)) for topic in topics] if topics else None
    fetched = bench.fetch("g", wanted, require_stable=stable)
    return {each.topic: [partition.offset for partition in each.partitions] for each in fetched}


# Committing


def test_a_consumer_without_a_group_of_members_may_commit() -> None:
    bench = Bench()
    assert bench.error(bench.commit(5, metadata="note")) == "none"
    assert bench.machine.tables.offsets.get("g", "t", 0) == CommittedOffset(
        5, 3, "note", bench.step().wall_ms, -1, UUID_ZERO
    )
    assert bench.machine.describe("g").state == "Empty"
    assert bench.group().protocol_type is None


def test_a_null_metadata_is_an_empty_one() -> None:
    bench = Bench()
    bench.commit(5, metadata=None)
    value = bench.machine.tables.offsets.get("g", "t", 0)
    assert value is not None
    assert value.metadata == ""


def test_nothing_is_visible_before_it_is_stored_nor_if_it_cannot_be() -> None:
    bench = Bench(auto_commit=False)
    commit = bench.commit(5)
    assert fetch(bench, "t") == {"t": [-1, -1]}
    assert commit not in bench.replies
    bench.fail_one(ErrorCode.not_enough_replicas_after_append)
    assert bench.error(commit) == "coordinator_not_available"
    assert not bench.machine.tables.groups
    bench.commit(6)
    bench.commit_all()
    assert fetch(bench, "t") == {"t": [6, -1]}


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (ErrorCode.not_leader_or_follower, "not_coordinator"),
        (ErrorCode.kafka_storage_error, "not_coordinator"),
        (ErrorCode.message_too_large, "unknown_server_error"),
        (ErrorCode.unknown_topic_or_partition, "coordinator_not_available"),
        (ErrorCode.invalid_required_acks, "invalid_required_acks"),
    ],
)
def test_what_a_failed_append_means_to_the_client(failure: ErrorCode, told: str) -> None:
    bench = Bench(auto_commit=False)
    commit = bench.commit()
    bench.fail_one(failure)
    assert bench.error(commit) == told


def test_members_commit_in_their_generation() -> None:
    bench = Bench()
    generation = bench.stable("m1", "m2")
    assert bench.error(bench.commit(1, member_id="m1", generation=generation)) == "none"
    assert bench.error(bench.commit(2, member_id="m1", generation=generation - 1)) == "illegal_generation"
    assert bench.error(bench.commit(2, member_id="m3", generation=generation)) == "unknown_member_id"
    assert bench.error(bench.commit(2, member_id="m1")) == "illegal_generation"
    assert bench.error(bench.commit(2, instance="i1")) == "unknown_member_id"
    # No stranger may commit while there are members.
    assert bench.error(bench.commit(2)) == "unknown_member_id"
    assert bench.committed() == 1


def test_members_may_commit_while_they_are_asked_to_rejoin_but_not_before_they_sync() -> None:
    bench = Bench()
    bench.stable("m1", "m2")
    bench.join("m1")
    assert bench.error(bench.commit(1, member_id="m2", generation=1)) == "none"
    bench.join("m2")
    assert bench.group().state.value == "CompletingRebalance"
    assert bench.error(bench.commit(2, member_id="m2", generation=2)) == "rebalance_in_progress"


def test_a_commit_is_a_sign_of_life() -> None:
    bench = Bench()
    generation = bench.stable("m1", session_ms=10_000)
    bench.wait(9_000)
    bench.commit(1, member_id="m1", generation=generation)
    bench.wait(9_999)
    assert "m1" in bench.group().members
    bench.wait(1)
    assert "m1" not in bench.group().members


@pytest.mark.parametrize(("version", "error"), [(8, "illegal_generation"), (9, "group_id_not_found")])
def test_a_generation_of_no_group(version: int, error: str) -> None:
    bench = Bench()
    assert bench.error(bench.commit(member_id="m1", generation=3, version=version)) == error
    bench.commit()
    assert bench.error(bench.commit(member_id="m1", generation=3, version=version)) == "unknown_member_id"


def test_metadata_has_a_largest_size() -> None:
    bench = Bench(offset_metadata_max_bytes=4)
    assert bench.error(bench.commit(1, metadata="1234")) == "none"
    assert bench.error(bench.commit(2, metadata="12345")) == "offset_metadata_too_large"
    assert bench.committed() == 1


@pytest.mark.parametrize(
    ("text", "longer"), [("abcd", False), ("abcde", True), ("éééé", False), ("😀😀", False), ("😀😀a", True)]
)
def test_sizes_are_in_utf_16_units(text: str, longer: bool) -> None:
    assert is_longer(text, 4) is longer


# Fetching


def test_fetching_what_is_there_and_what_is_not() -> None:
    bench = Bench()
    bench.commit(5, partition=1)
    bench.commit(7, topic="u")
    assert fetch(bench, "t", "v") == {"t": [-1, 5], "v": [-1, -1]}
    assert fetch(bench) == {"t": [5], "u": [7]}
    assert bench.fetch("nobody", None, require_stable=False) == []


def test_an_offset_of_an_earlier_topic_of_the_name_does_not_count() -> None:
    bench = Bench()
    bench.commit(5, topic_id=OLD_ID)
    assert fetch(bench, "t", topic_id=OLD_ID) == {"t": [5, -1]}
    assert fetch(bench, "t", topic_id=NEW_ID) == {"t": [-1, -1]}
    assert fetch(bench, "t") == {"t": [5, -1]}


def test_the_collector_of_garbage_passes_over_what_is_kept() -> None:
    bench = Bench()
    bench.commit(5, metadata="note", topic_id=OLD_ID)
    value = bench.tables.offsets.get("g", "t", 0)
    assert value == CommittedOffset(5, 3, "note", bench.step().wall_ms, -1, OLD_ID)
    (kept,) = bench.tables.offsets.by_group["g"]["t"].values()
    gc.collect()
    assert not gc.is_tracked(kept)


# Expiry (KIP-211)


def test_offsets_of_a_consumer_without_members_expire_from_their_commit_on() -> None:
    bench = Bench()
    bench.commit(1)
    bench.wait(DAY_MS)
    bench.commit(2, partition=1)
    bench.wait(RETENTION_MS - DAY_MS - 1)
    bench.expire_offsets()
    assert fetch(bench) == {"t": [1, 2]}
    bench.wait(1)
    bench.expire_offsets()
    assert fetch(bench) == {"t": [2]}
    bench.wait(DAY_MS)
    bench.expire_offsets()
    assert not bench.machine.tables.groups
    assert durable(bench.failed_over().machine) == ({}, {})


@pytest.mark.parametrize("fails_over", [False, True])
def test_a_group_whose_offsets_are_gone_is_there_until_it_expires(fails_over: bool) -> None:
    """Whoever fails to join it; one that nobody has committed to is not."""
    bench = Bench()
    bench.commit(1)
    if fails_over:
        bench = bench.failed_over()
    bench.delete_offsets("t", 0)
    for group_id in ("g", "h"):
        bench.join("nobody", group_id=group_id)
    assert list(bench.machine.tables.groups) == ["g"]
    bench.expire_offsets()
    assert not bench.machine.tables.groups
    assert durable(bench.failed_over().machine) == ({}, {})


def test_offsets_of_a_group_expire_from_when_it_became_empty() -> None:
    bench = Bench()
    generation = bench.stable("m1", session_ms=1_800_000)
    bench.commit(1, member_id="m1", generation=generation)
    bench.wait(1_000_000)
    bench.leave("m1")
    bench.wait(RETENTION_MS - 1)
    bench.expire_offsets()
    assert fetch(bench) == {"t": [1]}
    # A fail-over does not begin the time again.
    bench = bench.failed_over()
    bench.wait(1)
    bench.expire_offsets()
    assert fetch(bench) == {}
    assert not bench.machine.tables.groups
    assert durable(bench.failed_over().machine) == ({}, {})


def test_topics_that_members_read_do_not_expire_others_do() -> None:
    bench = Bench()
    generation = bench.stable("m1", session_ms=1_800_000)
    bench.commit(1, member_id="m1", generation=generation, topic="t")
    bench.commit(2, member_id="m1", generation=generation, topic="u")
    for _ in range(int(RETENTION_MS / 1_000_000) + 1):
        bench.wait(1_000_000)
        assert bench.heartbeat("m1", generation) == ErrorCode.none
    bench.expire_offsets()
    assert fetch(bench) == {"t": [1]}


def test_offsets_of_members_with_another_protocol_do_not_expire() -> None:
    bench = Bench(offsets_retention_ms=1_000)
    generation = bench.stable("m1", protocol_type="connect", session_ms=1_800_000)
    bench.commit(1, member_id="m1", generation=generation)
    bench.wait(5_000)
    bench.expire_offsets()
    assert fetch(bench) == {"t": [1]}


def test_a_retention_of_the_clients_own() -> None:
    bench = Bench()
    bench.commit(1, retention_ms=5_000)
    other = bench.failed_over()
    other.wait(4_999)
    other.expire_offsets()
    assert fetch(other) == {"t": [1]}
    other.wait(1)
    other.expire_offsets()
    assert fetch(other) == {}


def test_an_offset_that_is_being_committed_again_does_not_expire() -> None:
    bench = Bench()
    bench.commit(1)
    bench.wait(RETENTION_MS)
    bench.auto_commit = False
    bench.commit(2)
    bench.expire_offsets()
    bench.commit_all()
    assert fetch(bench) == {"t": [2]}


def test_many_tombstones_go_in_several_batches() -> None:
    bench = Bench(auto_commit=False)
    for partition in range(2_500):
        bench.commit(1, partition=partition)
    bench.commit(1, partition=0, group_id="other")
    bench.commit_all()
    bench.topic_deleted("t")
    assert [len(write.records) for write in bench.tables.in_flight] == [500] * 5 + [1]
    bench.commit_all()
    assert durable(bench.machine) == ({}, {})


# Deleting


def test_deleting_a_group_leaves_nothing() -> None:
    bench = Bench()
    bench.stable("m1")
    bench.commit(1, member_id="m1", generation=1)
    assert bench.error(bench.delete_group()) == "non_empty_group"
    bench.leave("m1")
    assert bench.error(bench.delete_group()) == "none"
    assert bench.error(bench.delete_group()) == "group_id_not_found"
    assert durable(bench.machine) == durable(bench.failed_over().machine) == ({}, {})


def test_a_group_that_could_not_be_deleted_is_still_there() -> None:
    bench = Bench()
    bench.commit(1)
    bench.auto_commit = False
    delete = bench.delete_group()
    bench.fail_one()
    assert bench.error(delete) == "not_coordinator"
    assert bench.machine.describe("g").state == "Empty"
    assert fetch(bench) == {"t": [1]}


def test_a_commit_in_flight_is_deleted_with_its_group() -> None:
    bench = Bench()
    bench.commit(1)
    bench.auto_commit = False
    bench.commit(2, partition=7)
    bench.delete_group()
    bench.commit_all()
    assert durable(bench.machine) == ({}, {})
    # One that comes later founds the group again.
    bench.delete_group()
    bench.commit(3)
    bench.commit_all()
    assert fetch(bench) == {"t": [3]}


def test_a_group_that_is_founded_anew_while_the_old_one_is_deleted() -> None:
    bench = Bench()
    bench.stable("m1")
    bench.leave("m1")
    bench.auto_commit = False
    bench.delete_group()
    join = bench.join(new_id="m2")
    bench.commit_all()
    bench.wait(3_000)
    assert bench.replies[join].generation_id == 1
    assert durable(bench.machine) == ({}, {})


def test_deleting_offsets() -> None:
    bench = Bench()
    bench.commit(1)
    bench.commit(2, partition=1)
    reply = bench.replies[bench.delete_offsets("t", 0, 5, 0)]
    assert reply.topics == [("t", [(0, 0), (5, 0), (0, 0)])]
    assert fetch(bench) == {"t": [2]}
    assert bench.error(bench.delete_offsets("t", 0, group_id="nobody")) == "group_id_not_found"


def test_offsets_of_topics_that_members_read_stay() -> None:
    bench = Bench()
    bench.stable("m1", offered=protocols("range", topics=("t",)))
    for topic in ("t", "u"):
        bench.commit(1, member_id="m1", generation=1, topic=topic)
    reply = bench.replies[bench.delete_offsets("t", 0)]
    assert reply.topics == [("t", [(0, ErrorCode.group_subscribed_to_topic)])]
    bench.delete_offsets("u", 0)
    assert fetch(bench) == {"t": [1]}


def test_what_members_of_another_protocol_read_is_not_known() -> None:
    bench = Bench()
    bench.stable("m1", protocol_type="connect")
    assert bench.error(bench.delete_offsets("t", 0)) == "non_empty_group"
    bench.leave("m1")
    assert bench.error(bench.delete_offsets("t", 0)) == "none"


def test_a_deleted_topic_takes_all_its_offsets_along() -> None:
    bench = Bench()
    bench.commit(1)
    bench.commit(1, group_id="h")
    bench.commit(1, topic="u")
    bench.auto_commit = False
    bench.commit(2, partition=1)
    bench.topic_deleted("t")
    bench.commit_all()
    assert {group: set(topics) for group, topics in bench.machine.tables.offsets.by_group.items()} == {
        "g": {"u"}
    }


# Transactions, as far as the log may hold them


def record(offset: int | None, partition: int = 0) -> OffsetRecord:
    value = None if offset is None else CommittedOffset(offset, -1, "", 0)
    return OffsetRecord("g", "t", partition, value)


def value(offsets: Offsets, partition: int = 0) -> int | None:
    found = offsets.get("g", "t", partition)
    return None if found is None else found.offset


def end(offsets: Offsets, producer_id: int, *, committed: bool) -> int:
    """Apply a marker; in how many pieces."""
    return 1 + len(list(offsets.end_transaction(producer_id, committed=committed)))


def test_offsets_of_a_transaction_count_when_it_commits() -> None:
    offsets = Offsets()
    offsets.replay(record(1))
    offsets.replay(record(5), producer_id=9)
    assert value(offsets) == 1
    assert offsets.is_unstable("g", "t", 0)
    end(offsets, 9, committed=True)
    assert value(offsets) == 5
    assert not offsets.is_unstable("g", "t", 0)


def test_offsets_of_an_aborted_transaction_do_not_count() -> None:
    offsets = Offsets()
    offsets.replay(record(5), producer_id=9)
    end(offsets, 9, committed=False)
    assert value(offsets) is None
    end(offsets, 9, committed=True)
    assert value(offsets) is None


def test_the_later_record_prevails_whenever_transactions_end() -> None:
    offsets = Offsets()
    offsets.replay(record(1), producer_id=8)
    offsets.replay(record(2), producer_id=9)
    end(offsets, 9, committed=True)
    end(offsets, 8, committed=True)
    assert value(offsets) == 2
    offsets.replay(record(3), producer_id=8)
    offsets.replay(record(4))
    end(offsets, 8, committed=True)
    assert value(offsets) == 4
    offsets.replay(record(5), producer_id=8)
    offsets.replay(record(None))
    end(offsets, 8, committed=True)
    assert value(offsets) is None


def test_an_unstable_offset_is_fetched_as_such_if_that_is_asked() -> None:
    bench = Bench()
    bench.commit(1)
    bench.machine.tables.replay(record(5), producer_id=9)
    (topic,) = bench.fetch("g", None, require_stable=True)
    assert topic.partitions[0].error == ErrorCode.unstable_offset_commit
    assert fetch(bench) == {"t": [1]}
