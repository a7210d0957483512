"""What tests of transactions in a log share: a partition of two replicas, what is appended to it, and how a
read_committed consumer reads it."""

from __future__ import annotations

from typing import Any

from log_support import NOW_MS, open_log
from memory_disk import MemoryDisk
from replication_support import Surroundings, topic_id_of

from ottla.log.markers import EndMarker
from ottla.log.settings import LogConfig
from ottla.log.verification import EXEMPT
from ottla.metadata.image import PartitionState
from ottla.replication.partition import Partition
from ottla.types import Record, TopicPartition
from ottla.wire.records import build_batch, iter_batches, iter_records

STATE = PartitionState(leader=1, leader_epoch=0, partition_epoch=0, replicas=(1, 2), isr=(1, 2))
FOLLOWING = PartitionState(leader=2, leader_epoch=0, partition_epoch=0, replicas=(1, 2), isr=(1, 2))


def open_partition(
    disk: MemoryDisk, config: LogConfig | None = None, *, high_watermark: int = 0, **options: Any
) -> Partition:
    """The leader of a partition that another node follows, as that asks: see ``commit``."""
    around = Surroundings()
    around.registered = {1: 1, 2: 1}
    log = open_log(disk, config, high_watermark=high_watermark, **options)
    made = Partition(
        TopicPartition("topic", 0),
        topic_id_of("topic"),
        STATE,
        log,
        node_id=1,
        disk=disk,
        cluster=around,
        high_watermark=high_watermark,
    )
    made.apply(STATE)
    return made


def commit(partition: Partition, offset: int | None = None) -> None:
    """The follower has everything before an offset, by default all there is."""
    log = partition.log
    offset = log.log_end_offset if offset is None else offset
    partition.follower_fetched(2, 1, offset, -1, log.log_start_offset, current_leader_epoch=0)


def data_batch(pid: int, sequence: int, count: int = 1, *, epoch: int = 0, **options: Any) -> bytes:
    """A batch of ``count`` records in a transaction; ``transactional=False``: in none."""
    key, at_ms = options.pop("key", None), options.pop("at_ms", NOW_MS)
    records = [Record(n, at_ms, key, f"{pid}.{epoch}.{sequence + n}".encode(), ()) for n in range(count)]
    options = {"transactional": True, **options}
    return build_batch(records, producer_id=pid, producer_epoch=epoch, base_sequence=sequence, **options)


def send(
    partition: Partition, pid: int, sequence: int, count: int = 1, *, guard: Any = EXEMPT, **options: Any
) -> int:
    """Append such a batch; its base offset."""
    batch = data_batch(pid, sequence, count, **options)
    return partition.append(batch, now_ms=NOW_MS, guard=guard).base_offset


def end(
    partition: Partition,
    pid: int,
    *,
    commits: bool,
    epoch: int = 0,
    coordinator_epoch: int = 0,
    version: int = 0,
) -> int:
    """End a producer's transaction; the marker's offset."""
    marker = EndMarker(commits, coordinator_epoch)
    return partition.append_marker(
        marker, pid, epoch, now_ms=NOW_MS, transaction_version=version
    ).base_offset  # fmt: skip


def read_committed(
    partition: Partition, offset: int, max_bytes: int = 1 << 20
) -> tuple[bytes, list[tuple[int, int]]]:
    """The bytes of one look, and its aborted transactions."""
    piece, aborted = partition.read_committed(offset, max_bytes, min_one=True)
    return (piece.file.read(piece.position, piece.size) if piece is not None else b""), list(aborted)


def consume(partition: Partition, offset: int | None = None, max_bytes: int = 1 << 20) -> list[Record]:
    """All that a read_committed consumer gets, looking as often as it has to (Kafka's CompletedFetch)."""
    offset = partition.log.log_start_offset if offset is None else offset
    found: list[Record] = []
    while True:
        data, aborted = read_committed(partition, offset, max_bytes)
        before, waiting = offset, sorted(aborted, key=lambda one: one[1])
        dropped: set[int] = set()
        for header, raw in iter_batches(data):
            while waiting and waiting[0][1] <= header.last_offset:
                dropped.add(waiting.pop(0)[0])
            if header.is_control:
                record = next(iter_records(raw), None)
                if record is not None and record.key == b"\0\0\0\0":
                    dropped.discard(header.producer_id)
            elif not (header.is_transactional and header.producer_id in dropped):
                found += [record for record in iter_records(raw) if record.offset >= offset]
            offset = header.next_offset
        if offset == before:
            return found
