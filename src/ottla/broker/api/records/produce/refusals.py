"""What producers on a connection were refused for a reason that passes, so that what they had sent behind it
is refused as well (pure).

An idempotent producer has several batches under way. Where the first finds a node that does not lead yet, or
too few replicas in sync, and the next one finds that over, the next is out of order, or, of a producer that
the log does not know, would be taken before the first. Kafka lets that happen. librdkafka then takes records
for lost, begins another producer epoch for all of its partitions, and sends again what it has no answer for,
though it may be in the log: records come twice. But it was we who left the first one out. So the next one
gets the same answer, and both are sent again in their order.

The same happens where a producer comes over from another leader: librdkafka may send the second batch to the
new leader before the old one has said that it refuses the first. A leader that has nothing of that producer
would even take it, as Kafka does since KIP-360, and librdkafka would hold the first for acknowledged as well:
it would be lost. Or the old leader has refused all of them, and the thread that heard so has given back all
but the last when another thread sends them to the new leader: that gets the first, and then one too far on.
To a gap from a producer that has come over a few batches ago the answer is NOT_LEADER_OR_FOLLOWER therefore,
for a moment. If more than the order is wrong, or the producer's records have been deleted, it is Kafka's.
"""

from __future__ import annotations

import struct
from collections.abc import Hashable
from typing import Final, NamedTuple

from ottla.errors import ErrorCode, KafkaError
from ottla.replication.partition import Partition
from ottla.types import Buffer
from ottla.wire.records import HEADER_BYTES, NO_SEQUENCE, SEQUENCE_MAX, BatchHeader, header_at

# How long a refusal counts, unless the log has the batch sooner. What was under way behind it may come late:
# this process stood still, or packets were lost. No client waits for an answer much longer.
REMEMBERED_MS_MAX: Final = 60_000
# How long a gap is put down to a change of leaders. A client that has made it so closes it at its next try.
EXCUSED_MS_MAX: Final = 1_000
# Producers and partitions that are remembered for a connection; beyond that the answers are Kafka's.
REMEMBERED_MAX: Final = 10_000
# Errors that leave nothing in the log and go away by themselves.
_PASSING: Final = frozenset(
    {
        ErrorCode.not_leader_or_follower,
        ErrorCode.not_enough_replicas,
        # The transaction before is still being ended.
        ErrorCode.concurrent_transactions,
        ErrorCode.unknown_topic_or_partition,
        ErrorCode.unknown_topic_id,
    }
)

# Where a batch has its producer's id and epoch, and its first sequence number: looked at in each Produce.
_PRODUCER: Final = struct.Struct(">qhi")
_PRODUCER_POSITION: Final = 43

# Topic (name or id), partition, producer id and epoch.
_Key = tuple[Hashable, int, int, int]


class _Refused(NamedTuple):
    sequence: int
    code: ErrorCode
    since_ms: int


class Refusals:
    """The first batch of each producer and partition that was refused and has not been appended since.

    Times are monotonic milliseconds.
    """

    __slots__ = ("_first", "_gaps")

    def __init__(self) -> None:
        self._first: dict[_Key, _Refused] = {}
        # Since when a gap has been put down to a change of leaders.
        self._gaps: dict[_Key, int] = {}

    def __len__(self) -> int:
        return len(self._first) + len(self._gaps)

    def check(
        self, topic: Hashable, index: int, records: Buffer | None, partition: Partition, now_ms: int
    ) -> None:
        """Refuse a batch that comes behind one that was refused, and is still missing in the partition's log,
        with the same KafkaError."""
        header = _header(records)
        if header is None:
            return
        key = _key(topic, index, header)
        known = self._first.get(key)
        if known is None:
            return
        if now_ms - known.since_ms > REMEMBERED_MS_MAX or not _lacks(partition, header, known.sequence):
            # Whoever led meanwhile has taken it, or it has been given up.
            del self._first[key]
        elif _is_behind(header.base_sequence, known.sequence):
            raise KafkaError(known.code, "a batch that comes before it was refused")

    def refused(
        self, topic: Hashable, index: int, records: Buffer | None, error: KafkaError, now_ms: int
    ) -> None:
        """Appending ``records`` failed with ``error``."""
        header = _header(records)
        if header is None or error.code not in _PASSING:
            return
        key = _key(topic, index, header)
        known = self._first.get(key)
        if known is None and len(self._first) >= REMEMBERED_MAX:
            return
        if known is None or not _is_behind(header.base_sequence, known.sequence):
            self._first[key] = _Refused(header.base_sequence, ErrorCode(error.code), now_ms)

    def excuses_gap(self, topic: Hashable, index: int, records: Buffer | None, now_ms: int) -> bool:
        """Whether a gap before a batch may still close by itself; call it where ``has_come_over`` or
        ``is_unknown`` says that there is one."""
        header = _header(records)
        if header is None:
            return False
        key = _key(topic, index, header)
        since_ms = self._gaps.get(key)
        if since_ms is None:
            if len(self._gaps) < REMEMBERED_MAX:
                self._gaps[key] = now_ms
                return True
            return False
        return now_ms - since_ms <= EXCUSED_MS_MAX

    def appended(self, topic: Hashable, index: int, records: Buffer | None) -> None:
        """Records were appended: what comes now is judged by itself."""
        header = _header(records)
        if header is not None:
            key = _key(topic, index, header)
            self._first.pop(key, None)
            self._gaps.pop(key, None)


def has_come_over(partition: Partition, records: Buffer | None) -> bool:
    """Whether batches are missing before this one that another leader may have refused: this leader has not
    had as many from the producer yet as it may have under way."""
    header = _header(records)
    leading = partition.leading
    if header is None or leading is None or not leading.followers or not partition.leader_epoch:
        return False
    entry = partition.log.producers.get(header.producer_id)
    if entry is None:
        return False
    if entry.epoch < header.producer_epoch:
        return header.base_sequence > 0
    return (
        entry.epoch == header.producer_epoch
        and entry.next_sequence != NO_SEQUENCE
        and not (entry.is_full and entry.batches[0].last_offset >= leading.epoch_start_offset)
        and _is_behind(header.base_sequence, entry.next_sequence)
    )


def _lacks(partition: Partition, header: BatchHeader, sequence: int) -> bool:
    """Whether a partition's log is without a sequence number that a batch's producer used in its epoch."""
    entry = partition.log.producers.get(header.producer_id)
    if entry is None or entry.epoch < header.producer_epoch:
        return True
    return entry.epoch == header.producer_epoch and not _is_behind(entry.next_sequence, sequence)


def is_unknown(partition: Partition, records: Buffer | None) -> bool:
    """Whether a batch that is not its producer's first comes to a leader that has nothing of that producer,
    and is not the partition's first leader."""
    leading = partition.leading
    if leading is None or not leading.followers or not partition.leader_epoch:
        return False
    if records is None or len(records) < HEADER_BYTES:
        return False
    producer_id, _, sequence = _PRODUCER.unpack_from(records, _PRODUCER_POSITION)
    return sequence > 0 and producer_id >= 0 and partition.log.producers.get(producer_id) is None


def is_followed(partition: Partition, now_ms: int, silence_ms_max: int) -> bool:
    """Whether a follower in sync has fetched in the last while, or there is none.

    A leader that nobody follows any more may have been replaced, and not have heard of it.
    """
    leading = partition.leading
    if leading is None:
        return True
    in_sync = [follower for node, follower in leading.followers.items() if node in partition.state.isr]
    return not in_sync or any(now_ms - follower.fetched_ms <= silence_ms_max for follower in in_sync)


def _key(topic: Hashable, index: int, header: BatchHeader) -> _Key:
    return topic, index, header.producer_id, header.producer_epoch


def _header(records: Buffer | None) -> BatchHeader | None:
    """The header of an idempotent producer's batch."""
    if records is None or len(records) < HEADER_BYTES:
        return None
    header = header_at(records, 0)
    return header if header.producer_id >= 0 and header.base_sequence >= 0 else None


def _is_behind(sequence: int, first: int) -> bool:
    """Whether a sequence number comes after another; they begin again after the largest."""
    return 0 < ((sequence - first) & SEQUENCE_MAX) <= SEQUENCE_MAX // 2
