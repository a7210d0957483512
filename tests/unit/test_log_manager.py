"""All logs of a node: start, checkpoints, deletion, shutdown, and two brokers on one directory."""

from __future__ import annotations

import asyncio
import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from log_support import NOW_MS, append, values
from log_transactions_support import data_batch
from manager_support import TOPIC, WHERE, FakeClock, manager, scenario, settled
from memory_disk import MemoryDisk

from ottla.config import BrokerConfig
from ottla.env.clock import SystemClock
from ottla.env.disk import RealDisk
from ottla.errors import KafkaError
from ottla.log.checkpoints import decode_properties
from ottla.log.data_dir import DataDir, DataDirectoryError
from ottla.log.manager import LogManager
from ottla.log.markers import EndMarker, build_marker
from ottla.log.settings import DAY_MS, LogConfig, Origin
from ottla.log.transactions import NONE_UNSTABLE
from ottla.log.verification import EXEMPT
from ottla.types import TopicPartition


@scenario
async def test_a_clean_shutdown_and_start(disk: MemoryDisk, clock: FakeClock) -> None:
    first = manager(disk, clock)
    await first.start()
    first.set_cluster_id("cluster")
    log = first.get_or_create(WHERE, TOPIC, LogConfig(), NOW_MS)
    assert first.get_or_create(WHERE, TOPIC, LogConfig(), NOW_MS) is log
    append(log, "a", "b")
    await first.close()
    content = json.loads(disk.files["data/.kafka_cleanshutdown"].data)
    assert content == {"version": 0, "brokerEpoch": -1}
    assert disk.files["data/recovery-point-offset-checkpoint"].data == b"0\n1\ntopic 0 2\n"
    second = manager(disk, clock)
    await second.start()
    assert "data/.kafka_cleanshutdown" not in disk.files
    disk.reads.clear()
    log = second.get_or_create(WHERE, TOPIC, LogConfig(), NOW_MS)
    # Its last batch, and its first for the epoch.
    assert disk.reads[f"{0:020d}.log"] <= 2
    assert values(log) == [b"a", b"b"]
    second.abandon()
    third = manager(disk, clock)
    await third.start()
    disk.reads.clear()
    assert values(third.get_or_create(WHERE, TOPIC, LogConfig(), NOW_MS)) == [b"a", b"b"]
    assert disk.reads[f"{0:020d}.log"]


@pytest.mark.parametrize("recorded", [None, 1, 2])
def test_a_transaction_whose_end_may_not_be_committed_is_unstable(recorded: int | None) -> None:
    """By the high watermark that was written down; where none was, a log is not read for it."""

    async def run() -> None:
        disk, clock = MemoryDisk(), FakeClock()
        first = manager(disk, clock)
        await first.start()
        log = first.get_or_create(WHERE, TOPIC, LogConfig(), NOW_MS)
        log.append(data_batch(7, 0), leader_epoch=0, now_ms=NOW_MS, guard=EXEMPT)
        marker = build_marker(EndMarker(True, 0), 7, 0, NOW_MS)
        log.append(marker, leader_epoch=0, now_ms=NOW_MS, origin=Origin.COORDINATOR)
        await first.close()
        if recorded is not None:
            disk.write_file("data/replication-offset-checkpoint", b"0\n1\ntopic 0 %d\n" % recorded)
        second = manager(disk, clock)
        await second.start()
        transactions = second.get_or_create(WHERE, TOPIC, LogConfig(), NOW_MS).producers.transactions
        assert transactions.first_unstable_offset == (0 if recorded == 1 else NONE_UNSTABLE)
        second.abandon()

    asyncio.run(run())


def test_a_start_after_a_crash_says_so_even_before_the_first_checkpoint(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def run() -> None:
        disk, clock = MemoryDisk(), FakeClock()
        first = manager(disk, clock)
        await first.start()
        append(first.get_or_create(WHERE, TOPIC, LogConfig(), NOW_MS), "a")
        first.abandon()
        assert not caplog.records
        second = manager(disk, clock)
        await second.start()
        assert "unclean shutdown: recovering the logs in" in caplog.text
        second.abandon()

    asyncio.run(run())


@scenario
async def test_a_log_that_was_not_opened_keeps_its_checkpoint(disk: MemoryDisk, clock: FakeClock) -> None:
    first = manager(disk, clock)
    await first.start()
    append(first.get_or_create(WHERE, TOPIC, LogConfig(), NOW_MS), "a")
    await first.close()
    second = manager(disk, clock)
    await second.start()
    await second.close()
    third = manager(disk, clock)
    await third.start()
    disk.reads.clear()
    log = third.get_or_create(WHERE, TOPIC, LogConfig(), NOW_MS)
    assert disk.reads[f"{0:020d}.log"] <= 2 and log.recovery_point == 1
    third.abandon()
    fourth = manager(disk, clock)
    await fourth.start()
    await fourth.close()
    # It was not closed in order by the third, nor opened by the fourth: the fifth has to look.
    fifth = manager(disk, clock)
    await fifth.start()
    disk.reads.clear()
    assert values(fifth.get_or_create(WHERE, TOPIC, LogConfig(), NOW_MS)) == [b"a"]
    assert [name for name in disk.reads if name.endswith(".log")]


@scenario
async def test_one_directory_takes_one_broker(disk: MemoryDisk, clock: FakeClock) -> None:
    first = manager(disk, clock)
    await first.start()
    with pytest.raises(DataDirectoryError, match="in use by another broker"):
        await manager(disk, clock).start()
    await first.close()
    await manager(disk, clock).start()


@scenario
async def test_a_directory_belongs_to_one_node_of_one_cluster(disk: MemoryDisk, clock: FakeClock) -> None:
    first = manager(disk, clock)
    await first.start()
    first.set_cluster_id("ours")
    known = decode_properties(bytes(disk.files["data/meta.properties"].data))
    assert known["version"] == "1" and known["node.id"] == "1" and known["cluster.id"] == "ours"
    await first.close()
    other = manager(disk, clock, node_id=2)
    with pytest.raises(DataDirectoryError, match=r"belongs to node.id 1, not 2"):
        await other.start()
    again = manager(disk, clock)
    with pytest.raises(DataDirectoryError, match=r"belongs to cluster.id ours, not theirs"):
        await start_in(again, "theirs")
    again.abandon()
    # It was not touched, and is as clean as it was.
    assert "data/.kafka_cleanshutdown" in disk.files
    third = manager(disk, clock)
    await start_in(third, "ours")
    third.get_or_create(WHERE, TOPIC, LogConfig(), NOW_MS)
    third.abandon()
    assert "data/.kafka_cleanshutdown" not in disk.files
    assert decode_properties(bytes(disk.files["data/meta.properties"].data)) == known


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "its version is 'missing'"),
        (b"\x00" * 60, "its version is 'missing'"),
        (b"version=2\nnode.id=1\ncluster.id=ours\n", "its version is '2'"),
        (b"version=1\nnode.id=1\n", "cluster.id missing"),
        (b"version=1\n", "cluster.id and node.id missing"),
    ],
)
def test_a_directory_that_does_not_say_whose_it_is_is_not_used(content: bytes, why: str) -> None:
    @scenario
    async def story(disk: MemoryDisk, clock: FakeClock) -> None:
        first = manager(disk, clock)
        await start_in(first, "ours")
        await first.close()
        disk.write_file("data/meta.properties", content)
        again = manager(disk, clock)
        with pytest.raises(DataDirectoryError, match=rf"cannot be used: {why}; put it back from a copy, or"):
            await again.start()
        assert bytes(disk.files["data/meta.properties"].data) == content
        # As the message says.
        disk.remove("data/meta.properties")
        third = manager(disk, clock)
        await start_in(third, "ours")
        assert decode_properties(bytes(disk.files["data/meta.properties"].data))["cluster.id"] == "ours"

    story()


async def start_in(one: LogManager, cluster_id: str) -> None:
    await one.start()
    one.set_cluster_id(cluster_id)


@scenario
async def test_a_deleted_partition_goes_at_once_and_its_files_later(
    disk: MemoryDisk, clock: FakeClock
) -> None:
    one = manager(disk, clock)
    await one.start()
    config = LogConfig(file_delete_delay_ms=5000)
    log = one.get_or_create(WHERE, TOPIC, config, NOW_MS)
    append(log, "a")
    held = log.read(0, 100, end_offset=1)
    assert held is not None
    one.delete(WHERE)
    assert WHERE not in one.logs and not disk.exists("data/topic-0")
    [doomed] = [name for name in disk.list("data") if name.endswith("-delete")]
    assert doomed.startswith("topic-0.") and len(doomed) == len("topic-0.") + 32 + len("-delete")
    with pytest.raises(KafkaError):
        append(log, "b")
    log.flush()
    assert held.file.read(held.position, held.size)
    fresh = one.get_or_create(WHERE, UUID(int=2), LogConfig(), NOW_MS)
    assert fresh.log_end_offset == 0
    await clock.advance(4999)
    assert doomed in disk.list("data")
    await clock.advance(1)
    assert doomed not in disk.list("data")
    await one.close()


@scenario
async def test_what_a_deletion_left_goes_at_the_next_start(disk: MemoryDisk, clock: FakeClock) -> None:
    one = manager(disk, clock)
    await one.start()
    append(one.get_or_create(WHERE, TOPIC, LogConfig(), NOW_MS), "a")
    one.delete(WHERE)
    one.abandon()
    two = manager(disk, clock)
    await two.start()
    await settled()
    assert [name for name in disk.list("data") if "topic" in name] == []


@scenario
async def test_long_topic_names_can_be_deleted(disk: MemoryDisk, clock: FakeClock) -> None:
    one = manager(disk, clock)
    await one.start()
    where = TopicPartition("t" * 249, 1000)
    one.get_or_create(where, TOPIC, LogConfig(), NOW_MS)
    one.delete(where)
    assert all(len(name) <= 255 for name in disk.list("data"))


@scenario
async def test_deleted_records_stay_deleted_after_a_crash(disk: MemoryDisk, clock: FakeClock) -> None:
    one = manager(disk, clock)
    await one.start()
    log = one.get_or_create(WHERE, TOPIC, LogConfig(), NOW_MS)
    append(log, "a", "b", "c")
    log.advance_log_start(1)
    await one.checkpoint_log_starts()
    log.advance_log_start(2)
    await clock.advance(1000)
    one.abandon()
    two = manager(disk, clock)
    await two.start()
    log = two.get_or_create(WHERE, TOPIC, LogConfig(), NOW_MS)
    assert (log.log_start_offset, values(log)) == (2, [b"c"])


# So that two days have fewer checkpoints.
RARE = {"replica.high.watermark.checkpoint.interval.ms": "60000"}


@scenario
async def test_retention_and_checkpoints_recur(disk: MemoryDisk, clock: FakeClock) -> None:
    one = manager(disk, clock, **RARE)
    await one.start()
    log = one.get_or_create(WHERE, TOPIC, LogConfig(segment_bytes=100, retention_ms=DAY_MS), NOW_MS)
    append(log, "a", producer_id=1, producer_epoch=0, base_sequence=0)
    append(log, "b")
    await settled()
    await clock.advance(60_000)
    assert disk.files["data/recovery-point-offset-checkpoint"].data == b"0\n1\ntopic 0 1\n"
    await clock.advance(2 * DAY_MS)
    assert (log.log_start_offset, log.log_end_offset) == (2, 2)
    assert len(log.producers) == 0
    await clock.advance(60_000)
    assert [name for name in disk.list("data/topic-0") if name.endswith(".deleted")] == []
    await one.close()


@scenario
async def test_an_interval_of_nothing_means_once(disk: MemoryDisk, clock: FakeClock) -> None:
    """As Kafka's scheduler has it; again and again it would take all of the loop."""
    names = ("log.flush.offset.checkpoint.interval.ms", "replica.high.watermark.checkpoint.interval.ms")
    one = manager(disk, clock, **dict.fromkeys(names, "0"))
    timers = len(clock.timers)
    await one.start()
    await clock.advance(5)
    assert len(clock.timers) - timers < 3
    await one.close()


@scenario
async def test_an_idle_broker_writes_nothing(disk: MemoryDisk, clock: FakeClock) -> None:
    one = manager(disk, clock)
    await one.start()
    one.get_or_create(WHERE, TOPIC, LogConfig(), NOW_MS)
    await clock.advance(120_000)
    before = dict(disk.files)
    await clock.advance(3_600_000)
    assert dict(disk.files) == before


@scenario
async def test_flush_ms_is_kept(disk: MemoryDisk, clock: FakeClock) -> None:
    one = manager(disk, clock)
    await one.start()
    log = one.get_or_create(WHERE, TOPIC, LogConfig(flush_ms=500), NOW_MS)
    append(log, "a")
    await clock.advance(499)
    assert log.recovery_point == 0
    await clock.advance(600)
    assert log.recovery_point == 1


@scenario
async def test_flush_ms_costs_nothing_where_nothing_is_unflushed(disk: MemoryDisk, clock: FakeClock) -> None:
    one = manager(disk, clock)
    await one.start()

    def timers() -> int:
        return sum(not timer.cancelled for timer in clock.timers)

    other = one.get_or_create(TopicPartition("other", 0), uuid4(), LogConfig(flush_ms=900), NOW_MS)
    log = one.get_or_create(WHERE, TOPIC, LogConfig(flush_ms=1), NOW_MS)
    idle = timers()
    append(other, "a")
    assert timers() == idle + 1
    # The one that is due first is not kept waiting by the other.
    append(log, "a")
    await clock.advance(2)
    assert (log.recovery_point, other.recovery_point) == (1, 0)
    await clock.advance(900)
    assert other.recovery_point == 1
    # Once all is on the disk nobody looks any more, until something is appended.
    assert timers() == idle
    append(log, "b")
    await clock.advance(2)
    assert log.recovery_point == 2 and timers() == idle


@scenario
async def test_a_flush_by_age_that_fails_is_not_tried_at_once(disk: MemoryDisk, clock: FakeClock) -> None:
    one = manager(disk, clock)
    await one.start()
    log = one.get_or_create(WHERE, TOPIC, LogConfig(flush_ms=1), NOW_MS)
    tried: list[int] = []

    def fails() -> None:
        tried.append(clock.time_ms)
        raise OSError(errno.EMFILE, "too many open files")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(log, "flush", fails)
        append(log, "a")
        for _ in range(90):
            await clock.advance(10)
        assert len(tried) == 1
    await clock.advance(1_000)
    assert log.recovery_point == 1


@scenario
async def test_flush_ms_may_come_later(disk: MemoryDisk, clock: FakeClock) -> None:
    one = manager(disk, clock)
    await one.start()
    log = one.get_or_create(WHERE, TOPIC, LogConfig(), NOW_MS)
    append(log, "a")
    await clock.advance(5_000)
    assert log.recovery_point == 0
    log.update_config(LogConfig(flush_ms=100))
    await clock.advance(200)
    assert log.recovery_point == 1
    log.update_config(LogConfig())
    await clock.advance(2_000)
    assert not [
        timer for timer in clock.timers if not timer.cancelled and timer.at_ms < clock.time_ms + 2_000
    ]


@scenario
async def test_high_watermarks_are_written_and_read(disk: MemoryDisk, clock: FakeClock) -> None:
    """Those of partitions that are not open yet stay, those of folders that are gone do not."""
    one = manager(disk, clock)
    await one.start()
    one.get_or_create(WHERE, TOPIC, LogConfig(), NOW_MS)
    one.high_watermarks = {WHERE: 42, TopicPartition("gone", 1): 5}
    await one.close()
    path = "data/replication-offset-checkpoint"
    assert disk.files[path].data == b"0\n2\ntopic 0 42\ngone 1 5\n"
    two = manager(disk, clock)
    await two.start()
    assert two.recorded_high_watermark(WHERE) == 42
    assert two.recorded_high_watermark(TopicPartition("gone", 1)) == 0
    two.high_watermarks = {TopicPartition("other", 0): 7}
    await clock.advance(5_000)
    assert disk.files[path].data == b"0\n2\ntopic 0 42\nother 0 7\n"


@scenario
async def test_high_watermarks_are_on_disk_soon_and_only_where_they_moved(
    disk: MemoryDisk, clock: FakeClock
) -> None:
    one = manager(disk, clock, replica_high_watermark_checkpoint_interval_ms="300")
    await one.start()
    path, known = "data/replication-offset-checkpoint", {WHERE: 1}
    one.high_watermarks = known
    await clock.advance(299)
    assert not disk.exists(path)
    await clock.advance(1)
    written = disk.files[path]
    assert written.data == b"0\n1\ntopic 0 1\n"
    await clock.advance(3_000)
    assert disk.files[path] is written
    known[WHERE] = 2
    await clock.advance(300)
    assert disk.files[path].data == b"0\n1\ntopic 0 2\n"


@scenario
async def test_retention_stops_at_the_high_watermark(disk: MemoryDisk, clock: FakeClock) -> None:
    one = manager(disk, clock, **RARE)
    await one.start()
    config = LogConfig(segment_bytes=100, retention_ms=DAY_MS)
    log = one.get_or_create(WHERE, TOPIC, config, NOW_MS)
    other = one.get_or_create(TopicPartition("other", 0), UUID(int=2), config, NOW_MS)
    for number in range(4):
        append(log, str(number))
        append(other, str(number))
    known = {WHERE: 2}
    one.high_watermarks = known
    await clock.advance(2 * DAY_MS)
    assert (log.log_start_offset, log.log_end_offset) == (2, 4)
    # Nobody vouches for this one.
    assert other.log_start_offset == 0
    known[WHERE] = 4
    await clock.advance(300_000)
    assert (log.log_start_offset, log.log_end_offset) == (4, 4)


@scenario
async def test_a_log_that_cannot_be_closed_is_recovered(disk: MemoryDisk, clock: FakeClock) -> None:
    import errno

    one = manager(disk, clock)
    await one.start()
    append(one.get_or_create(WHERE, TOPIC, LogConfig(), NOW_MS), "a")
    disk.fail_with["sync"] = OSError(errno.EIO, "Input/output error")
    await one.close()
    assert "data/.kafka_cleanshutdown" not in disk.files
    disk.fail_with.clear()
    two = manager(disk, clock)
    await two.start()
    assert values(two.get_or_create(WHERE, TOPIC, LogConfig(), NOW_MS)) == [b"a"]


@scenario
async def test_a_damaged_checkpoint_means_looking(disk: MemoryDisk, clock: FakeClock) -> None:
    one = manager(disk, clock)
    await one.start()
    append(one.get_or_create(WHERE, TOPIC, LogConfig(), NOW_MS), "a")
    await one.close()
    disk.files["data/recovery-point-offset-checkpoint"].data = bytearray(b"0\n1\ntopic 0 x\n")
    two = manager(disk, clock)
    await two.start()
    assert values(two.get_or_create(WHERE, TOPIC, LogConfig(), NOW_MS)) == [b"a"]


@scenario
async def test_checkpoints_of_a_deleted_topic_are_not_taken_for_the_next_of_its_name(
    disk: MemoryDisk, clock: FakeClock
) -> None:
    """Deleted, made again, and a crash before the next checkpoint: the new topic's records are all there."""
    one = manager(disk, clock)
    await one.start()
    old = one.get_or_create(WHERE, TOPIC, LogConfig(), NOW_MS)
    append(old, *map(str, range(10)))
    old.advance_log_start(9)
    await one.checkpoint()
    one.delete(WHERE)
    append(one.get_or_create(WHERE, UUID(int=2), LogConfig(), NOW_MS), "a", "b")
    one.abandon()
    two = manager(disk, clock)
    await two.start()
    assert values(two.get_or_create(WHERE, UUID(int=2), LogConfig(), NOW_MS)) == [b"a", b"b"]


@scenario
async def test_a_topic_made_long_after_a_deletion_and_a_crash_begins_at_zero(
    disk: MemoryDisk, clock: FakeClock
) -> None:
    one = manager(disk, clock)
    await one.start()
    old = one.get_or_create(WHERE, TOPIC, LogConfig(), NOW_MS)
    append(old, *map(str, range(10)))
    old.advance_log_start(9)
    await one.checkpoint()
    one.delete(WHERE)
    one.abandon()
    two = manager(disk, clock)
    await two.start()
    log = two.get_or_create(WHERE, UUID(int=2), LogConfig(), NOW_MS)
    assert (log.log_start_offset, log.log_end_offset) == (0, 0)
    append(log, "a")
    two.abandon()
    three = manager(disk, clock)
    await three.start()
    assert values(three.get_or_create(WHERE, UUID(int=2), LogConfig(), NOW_MS)) == [b"a"]


class Held(MemoryDisk):
    """Keeps back what is to run off the event loop."""

    def __init__(self) -> None:
        super().__init__()
        self.let_go = asyncio.Event()

    async def run(self, work: Callable[[], Any]) -> Any:
        await self.let_go.wait()
        return work()


def test_a_checkpoint_that_was_under_way_does_not_bring_a_deleted_topic_back() -> None:
    async def test() -> None:
        disk, clock = Held(), FakeClock()
        one = manager(disk, clock)
        await one.start()
        old = one.get_or_create(WHERE, TOPIC, LogConfig(), NOW_MS)
        append(old, *map(str, range(10)))
        old.advance_log_start(9)
        writing = asyncio.ensure_future(one.checkpoint())
        await settled()
        one.delete(WHERE)
        append(one.get_or_create(WHERE, UUID(int=2), LogConfig(), NOW_MS), "a", "b")
        disk.let_go.set()
        await writing
        one.abandon()
        two = manager(disk, clock)
        await two.start()
        assert values(two.get_or_create(WHERE, UUID(int=2), LogConfig(), NOW_MS)) == [b"a", b"b"]

    asyncio.run(test())


@scenario
async def test_a_stop_without_room_for_checkpoints_is_not_clean(disk: MemoryDisk, clock: FakeClock) -> None:
    one = manager(disk, clock)
    await one.start()
    append(one.get_or_create(WHERE, TOPIC, LogConfig(), NOW_MS), "a")
    disk.fail_with["write_file"] = OSError(errno.ENOSPC, "No space left on device")
    disk.fails_on = "checkpoint"
    await one.close()
    disk.fail_with.clear()
    assert "data/.kafka_cleanshutdown" not in disk.files
    two = manager(disk, clock)
    await two.start()
    assert values(two.get_or_create(WHERE, TOPIC, LogConfig(), NOW_MS)) == [b"a"]


class Observed(MemoryDisk):
    """Counts what is under way off the event loop, and the syncs of the data directory."""

    def __init__(self) -> None:
        super().__init__()
        self.under_way = self.most = self.directory_syncs = 0

    async def run(self, work: Callable[[], Any]) -> Any:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await asyncio.sleep(0)
        try:
            return work()
        finally:
            self.under_way -= 1

    def sync_dir(self, path: str) -> None:
        self.directory_syncs += path == "data"
        super().sync_dir(path)


def test_a_stop_closes_many_logs_in_a_few_goes() -> None:
    """The event loop is not handed as many tasks as there are logs, nor the directory as many syncs; all is
    on the disk, and one that fails keeps the others from nothing."""

    async def test(fails: bool) -> None:
        disk, clock = Observed(), FakeClock()
        one = manager(disk, clock)
        await one.start()
        folders = [TopicPartition("many", index) for index in range(100)]
        for where in folders:
            append(one.get_or_create(where, TOPIC, LogConfig(), NOW_MS), "a")
        disk.directory_syncs = 0
        if fails:
            disk.fails_on = "data/many-7/"
            disk.fail_with["sync"] = OSError(errno.EIO, "Input/output error")
        assert await one.close() is not fails
        assert disk.directory_syncs == 1
        assert disk.most <= 4
        disk.fail_with.clear()
        assert disk.exists("data/.kafka_cleanshutdown") is not fails
        disk.lose_power()
        two = manager(disk, clock)
        await two.start()
        found = [values(two.get_or_create(where, TOPIC, LogConfig(), NOW_MS)) for where in folders]
        assert found == [[] if fails and where.partition == 7 else [b"a"] for where in folders]

    for fails in (False, True):
        asyncio.run(test(fails))


@scenario
async def test_what_compaction_left_out_is_no_loss_when_the_policy_has_changed(
    disk: MemoryDisk, clock: FakeClock
) -> None:
    compacted = LogConfig(segment_bytes=150, cleanup_policy=("compact",))
    one = manager(disk, clock)
    await one.start()
    log = one.get_or_create(WHERE, TOPIC, compacted, NOW_MS)
    for number in range(9):
        append(log, str(number), key=b"k")
    first, second = log.segments[0], log.segments[1]
    last = first.locate(second.base_offset - 1)
    assert last is not None
    # As compaction does: the last batch of a segment has gone.
    del disk.files[first.path(".log")].data[last.position :]
    log.replacement.advance(second.base_offset)
    await one.checkpoint()
    disk.files["data/recovery-point-offset-checkpoint"].data = bytearray(b"0\n0\n")
    one.abandon()
    two = manager(disk, clock)
    await two.start()
    again = two.get_or_create(WHERE, TOPIC, LogConfig(segment_bytes=150), NOW_MS)
    assert again.log_end_offset == 9


def test_on_a_real_disk(tmp_path: Path) -> None:
    async def run() -> None:
        disk, clock, config = RealDisk(), SystemClock(), BrokerConfig({})
        one = LogManager(disk, str(tmp_path / "data"), config, clock, node_id=1)
        await one.start()
        one.set_cluster_id("cluster")
        with pytest.raises(DataDirectoryError, match="in use"):
            await LogManager(disk, str(tmp_path / "data"), config, clock, node_id=1).start()
        ids = [uuid4() for _ in range(5)]
        for number, topic_id in enumerate(ids):
            where = TopicPartition("topic", number)
            log = one.get_or_create(where, topic_id, LogConfig(segment_bytes=200), clock.now_ms())
            for value in "abcdef":
                append(log, value)
        one.delete(TopicPartition("topic", 4))
        await one.close()
        two = LogManager(disk, str(tmp_path / "data"), config, clock, node_id=1)
        await two.start()
        two.set_cluster_id("cluster")
        for number, topic_id in enumerate(ids[:4]):
            where = TopicPartition("topic", number)
            log = two.get_or_create(where, topic_id, LogConfig(segment_bytes=200), clock.now_ms())
            assert len(log.segments) > 1
            assert values(log) == [b"a", b"b", b"c", b"d", b"e", b"f"]
        await two.close()
        disk.close()

    asyncio.run(run())


@pytest.mark.parametrize(("path", "expected"), [("a/b", ["a", ""]), ("c/", [""]), ("", [])])
def test_a_directory_that_is_made_survives_a_loss_of_power(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, expected: list[str]
) -> None:
    synced: list[str] = []
    monkeypatch.setattr(RealDisk, "sync_dir", lambda disk, at: synced.append(at))
    for _ in range(2):
        DataDir.take(RealDisk(), f"{tmp_path}/{path}").release()
    assert synced == [str(tmp_path / one) for one in expected]


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    async def run() -> None:
        one = LogManager(RealDisk(), str(tmp_path / "file"), BrokerConfig({}), SystemClock(), node_id=1)
        with pytest.raises(DataDirectoryError, match="is not a directory"):
            await one.start()

    asyncio.run(run())
