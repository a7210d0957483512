"""Two logs that parted, by whatever history of leaders: a follower comes to have what its leader has, and
loses nothing that both had (KIP-101, KIP-279, KIP-595)."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import currently_in_test_context, given, note
from hypothesis import strategies as st
from log_support import NOW_MS
from memory_disk import MemoryDisk
from replication_support import Surroundings, make_partition

from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.image import PartitionState
from ottla.replication.divergence import Divergence, where_to_cut
from ottla.replication.partition import Partition
from ottla.types import Record
from ottla.wire.records import build_batch, iter_batches, iter_records

NODES = (1, 2, 3)
# (epoch, value) of each record, from the log's start on: no two records of a history are the same.
Records = list[tuple[int, int]]


@dataclass
class Replica:
    """A replica as a naive model has it."""

    start: int = 0
    records: Records = field(default_factory=list)

    @property
    def end(self) -> int:
        return self.start + len(self.records)

    def at(self, offset: int) -> tuple[int, int] | None:
        return self.records[offset - self.start] if self.start <= offset < self.end else None


def in_common(one: Replica, other: Replica) -> int:
    """The offset up to which both have the same, as far as both go back; -1 where nothing they have meets."""
    start = max(one.start, other.start)
    if start > min(one.end, other.end):
        return -1
    offset = start
    while offset < min(one.end, other.end) and one.at(offset) == other.at(offset):
        offset += 1
    return offset


@dataclass(frozen=True)
class Reign:
    """One leader epoch: who led, how much it wrote, how much the others took over, and how much the leader
    deleted at its start then."""

    leader: int
    writes: int
    copied: tuple[int, int, int]
    deleted: int
    epochs_skipped: int


REIGNS = st.lists(
    st.builds(
        Reign,
        st.sampled_from(NODES),
        st.integers(0, 4),
        st.tuples(*[st.integers(-1, 6)] * 3),
        st.sampled_from([0, 0, 0, 1, 3]),
        st.sampled_from([0, 0, 1, 3]),
    ),
    min_size=1,
    max_size=9,
)


def play(reigns: list[Reign]) -> tuple[dict[int, Replica], int]:
    """What each replica has after these reigns, any of which may have begun uncleanly; and the last epoch."""
    replicas = {node: Replica() for node in NODES}
    epoch = value = 0
    for reign in reigns:
        epoch += 1 + reign.epochs_skipped
        leader = replicas[reign.leader]
        for _ in range(reign.writes):
            value += 1
            leader.records.append((epoch, value))
        for node, copied in zip(NODES, reign.copied, strict=True):
            if node != reign.leader and copied >= 0:
                follow(replicas[node], leader, copied)
        cut = min(reign.deleted, len(leader.records))
        leader.start += cut
        del leader.records[:cut]
    return replicas, epoch


def follow(follower: Replica, leader: Replica, count: int) -> None:
    """Truncate to what is the leader's, take over up to ``count`` records more, and begin where it does."""
    end = in_common(follower, leader)
    if end < leader.start:
        follower.start = end = leader.start
        follower.records.clear()
    del follower.records[end - follower.start :]
    follower.records += leader.records[end - leader.start :][:count]
    if leader.start > follower.start:
        del follower.records[: leader.start - follower.start]
        follower.start = leader.start


def build(replica: Replica, node_id: int, leader: int, epoch: int) -> Partition:
    """A real partition that has the same, its epochs known as one that lived through it knows them."""
    state = PartitionState(leader, epoch, 1, NODES, NODES)
    around = Surroundings()
    around.registered = dict.fromkeys(NODES, 1)
    made = make_partition(MemoryDisk(), state, around=around, node_id=node_id)
    log = made.log
    if replica.start:
        log.truncate_fully_to(replica.start, NOW_MS)
    for record_epoch, value in replica.records:
        batch = build_batch([Record(0, NOW_MS, None, b"%d" % value)])
        log.append(batch, leader_epoch=record_epoch, now_ms=NOW_MS)
    made.apply(state)
    return made


def content(it: Partition) -> list[tuple[int, int, int]]:
    """(offset, epoch, value) of each record."""
    found: list[tuple[int, int, int]] = []
    offset = it.log.log_start_offset
    while (piece := it.read_uncommitted(offset, 1 << 20, min_one=True)) is not None:
        for header, raw in iter_batches(piece.file.read(piece.position, piece.size)):
            found += [
                (record.offset, header.partition_leader_epoch, int(record.value or b"0"))
                for record in iter_records(raw)
            ]
            offset = header.next_offset
    return [entry for entry in found if entry[0] >= it.log.log_start_offset]


def converse(leader: Partition, follower: Partition, kept: int) -> int:
    """Fetch until there is no more; the least offset that was truncated to. It never cuts below ``kept``."""
    lowest = follower.log.log_end_offset
    for _ in range(100):
        log = follower.log
        offset = log.log_end_offset
        try:
            leader.follower_fetched(
                follower.node_id, 1, offset, log.latest_epoch, log.log_start_offset,
                current_leader_epoch=leader.leader_epoch,
            )  # fmt: skip
        except Divergence as found:
            cut = where_to_cut(follower.log, found.epoch, found.end_offset)
            assert cut < offset, "an answer that does not lead on"
            if currently_in_test_context():
                note(f"truncated from {offset} to {cut}: epoch {found.epoch} ends at {found.end_offset}")
            follower.truncate_to(cut, NOW_MS)
            lowest = min(lowest, log.log_end_offset)
            assert log.log_end_offset >= kept
            continue
        except KafkaError as error:
            assert error.code is ErrorCode.offset_out_of_range
            start, end = leader.log.log_start_offset, leader.log.log_end_offset
            assert end < offset or start > offset, "it is in range"
            if end < offset:
                follower.truncate_to(end, NOW_MS)
            else:
                follower.restart_at(start, NOW_MS)
            assert log.log_end_offset >= kept
            continue
        # As large as one record, so that the dialogue has many turns.
        piece = leader.read_uncommitted(offset, 100, min_one=True)
        data = b"" if piece is None else piece.file.read(piece.position, piece.size)
        follower.append_as_follower(data, leader.high_watermark, leader.log.log_start_offset, NOW_MS)
        if piece is None:
            return lowest
    raise AssertionError("it does not end")


@given(REIGNS, st.sampled_from(NODES), st.sampled_from(NODES), st.integers(1, 3))
def test_a_follower_comes_to_have_what_its_leader_has(
    reigns: list[Reign], leader_id: int, follower_id: int, epochs_later: int
) -> None:
    if leader_id == follower_id:
        return
    replicas, epoch = play(reigns)
    ours, theirs = replicas[leader_id], replicas[follower_id]
    note(f"leader {ours}, follower {theirs}")
    epoch += epochs_later
    leader = build(ours, leader_id, leader_id, epoch)
    follower = build(theirs, follower_id, leader_id, epoch)
    common = in_common(theirs, ours)
    converse(leader, follower, common if common > max(ours.start, theirs.start) else 0)
    expected = [(ours.start + i, *record) for i, record in enumerate(ours.records)]
    found = content(follower)
    # What it had deleted already it does not fetch again.
    start = follower.log.log_start_offset
    assert found == [entry for entry in expected if entry[0] >= start]
    assert ours.start <= start <= max(ours.start, theirs.start)
    assert follower.log.log_end_offset == leader.log.log_end_offset
    # And as the leader goes on, so does it.
    leader.append(build_batch([Record(0, NOW_MS, None, b"0")]), now_ms=NOW_MS)
    assert converse(leader, follower, leader.log.log_end_offset - 1) == leader.log.log_end_offset - 1
    assert content(follower)[-1] == (leader.log.log_end_offset - 1, epoch, 0)
    assert follower.log.epochs.latest == epoch


@pytest.mark.parametrize(
    ("epoch", "end_offset", "cut"),
    [
        # An epoch that both have: what the leader has of it, or what we have.
        (3, 5, 5),
        (3, 9, 6),
        (1, 2, 2),
        (1, 9, 3),
        # One that we have not: where what we have from before it ends, however far the leader's goes.
        (2, 8, 3),
        (2, 4, 3),
        (2, 2, 3),
    ],
)
def test_where_a_follower_cuts_follows_from_its_own_epochs_too(epoch: int, end_offset: int, cut: int) -> None:
    replica = Replica(0, [(1, 1), (1, 2), (1, 3), (3, 4), (3, 5), (3, 6)])
    assert where_to_cut(build(replica, 2, 1, 4).log, epoch, end_offset) == cut


def test_a_leader_s_epoch_that_the_follower_never_had_does_not_end_beyond_its_log_for_ever() -> None:
    """To cut where the leader's epoch ends would be to cut nothing, and to be told the same again."""
    ours = Replica(0, [(1, 1), (1, 2), (1, 3), *((2, 10 + n) for n in range(7))])
    theirs = Replica(0, [(1, 1), (1, 2), (1, 3), (3, 4), (3, 5)])
    leader, follower = build(ours, 1, 1, 4), build(theirs, 2, 1, 4)
    assert converse(leader, follower, 3) == 3
    assert content(follower) == content(leader)
