"""Looks into the nodes while they run: who leads, what is committed, and that this stays as it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from ottla.errors import KafkaError
from ottla.explore.campaign.model import COMPLETE_LEADER, IDENTICAL, ONE_LEADER, ONE_RECORD, WATERMARK, Model
from ottla.explore.world.disk import SimFile
from ottla.explore.world.loop import Process
from ottla.explore.world.nodes import SimNode
from ottla.log.segment_file import ColdRead
from ottla.replication.partition import Partition
from ottla.types import TopicPartition
from ottla.wire.records import BatchHeader, iter_batches, iter_records

# What is read of a log at once.
READ_BYTES = 1 << 20
# Of the committed batches, so many at the end are compared with the log of a new leader.
COMPARED_BATCHES = 300


class Committed:
    """What leaders have committed of one partition: batches by their first offset, and where it ends."""

    def __init__(self) -> None:
        self.batches: dict[int, tuple[int, int]] = {}
        self.end = 0


class Observer:
    """``look`` is called every few steps of the loop."""

    def __init__(self, nodes: Mapping[int, SimNode], model: Model) -> None:
        self._nodes = nodes
        self._others: list[SimNode] = []
        self._model = model
        self._committed: dict[tuple[str, int], Committed] = {}
        # By partition and leader epoch: who leads, and the highest high watermark.
        self._leaders: dict[tuple[str, int, int], Process] = {}
        self._watermarks: dict[tuple[str, int, int], int] = {}
        self._newest: dict[tuple[str, int], int] = {}
        # How often a partition got another leader, for the summary.
        self.elections = 0

    def also_look_at(self, other: SimNode) -> None:
        """A node beside those that are there in the end."""
        self._others.append(other)

    def look(self) -> None:
        for sim_node in (*self._nodes.values(), *self._others):
            node, process = sim_node.node, sim_node.process
            if node is None or process is None:
                continue
            for key, partition in node._replicas.partitions.items():
                if partition.leading is not None:
                    self._look_at_leader(key, partition, process)

    def _look_at_leader(self, key: tuple[str, int], partition: Partition, process: Process) -> None:
        epoch, watermark = partition.leader_epoch, partition.high_watermark
        reign = (*key, epoch)
        leader = self._leaders.get(reign)
        if leader is not process:
            if leader is not None:
                self._model.violate(
                    ONE_LEADER, f"{partition.topic_partition} epoch {epoch}: {leader} and {process} lead"
                )
            self._leaders[reign] = process
            if epoch > self._newest.get(key, -1):
                self._newest[key] = epoch
                self.elections += 1
                self._check_complete(key, partition, process)
        known = self._watermarks.get(reign, 0)
        if watermark == known:
            return
        if watermark < known:
            self._model.violate(
                WATERMARK,
                f"{partition.topic_partition} epoch {epoch}: from {known} back to {watermark} on {process}",
            )
        self._watermarks[reign] = watermark
        committed = self._committed.setdefault(key, Committed())
        if watermark > committed.end:
            self._note_committed(committed, partition, watermark, process)

    def _note_committed(
        self, committed: Committed, partition: Partition, watermark: int, process: Process
    ) -> None:
        start = max(committed.end, partition.log.log_start_offset)
        for header in headers(partition, start, watermark):
            mark = (header.last_offset, header.crc)
            known = committed.batches.setdefault(header.base_offset, mark)
            if known != mark:
                self._model.violate(
                    ONE_RECORD,
                    f"{process} commits another batch at {partition.topic_partition} {header.base_offset}",
                )
            committed.end = max(committed.end, header.next_offset)
        committed.end = max(committed.end, partition.log.log_start_offset)

    def _check_complete(self, key: tuple[str, int], partition: Partition, process: Process) -> None:
        """A new leader has all that was ever committed."""
        committed = self._committed.get(key)
        if committed is None:
            return
        log = partition.log
        if log.log_end_offset < committed.end:
            self._model.violate(
                COMPLETE_LEADER,
                f"{process} leads {partition.topic_partition} from epoch {partition.leader_epoch} on and "
                f"ends at {log.log_end_offset}; {committed.end} was committed",
            )
            return
        if log.config.compacts:
            return
        recent = dict(islice(reversed(committed.batches.items()), COMPARED_BATCHES))
        start = max(min(recent, default=0), log.log_start_offset)
        for header in headers(partition, start, committed.end):
            known = recent.get(header.base_offset)
            if known is not None and known != (header.last_offset, header.crc):
                self._model.violate(
                    COMPLETE_LEADER,
                    f"{process} leads {partition.topic_partition} and has another batch at "
                    f"{header.base_offset} than was committed",
                )

    def forget_committed(self) -> None:
        """What was committed by the only replica need not be there any more."""
        self._committed.clear()

    # ------------------------------------------------------------ at quiesce

    def compare_replicas(self, topic: str, index: int, replicas: list[int]) -> None:
        """All replicas hold the same bytes, from where all of them begin."""
        where = TopicPartition(topic, index)
        logs: dict[int, Partition] = {}
        for node_id in replicas:
            node = self._nodes[node_id].node
            partition = node._replicas.partitions.get((topic, index)) if node is not None else None
            if partition is None:
                self._model.violate(IDENTICAL, f"{where}: node {node_id} does not hold it")
                return
            logs[node_id] = partition
        if any(partition.log.config.compacts for partition in logs.values()):
            return
        start = max(partition.log.log_start_offset for partition in logs.values())
        ends = {node_id: partition.log.log_end_offset for node_id, partition in logs.items()}
        if len(set(ends.values())) > 1:
            self._model.violate(IDENTICAL, f"{where}: the replicas' ends are {ends}")
        contents = {node_id: list(batches(partition, start)) for node_id, partition in logs.items()}
        first, *others = contents
        for other in others:
            for mine, theirs in zip(contents[first], contents[other], strict=False):
                if mine[1] != theirs[1] and mine[0].base_offset >= start <= theirs[0].base_offset:
                    self._model.violate(
                        IDENTICAL,
                        f"{where}: nodes {first} and {other} differ at {mine[0].base_offset}: "
                        f"{mine[0]} and {theirs[0]}",
                    )
                    break
            if len(contents[first]) != len(contents[other]):
                self._model.violate(
                    IDENTICAL,
                    f"{where}: nodes {first} and {other} have {len(contents[first])} and "
                    f"{len(contents[other])} batches",
                )


def values_of(partition: Partition) -> dict[int, bytes]:
    """All records of a log by offset."""
    values = {}
    start = partition.log.log_start_offset
    for _, data in batches(partition, start):
        for record in iter_records(data):
            if record.offset >= start:
                values[record.offset] = record.value or b""
    return values


def headers(partition: Partition, start: int, end: int) -> Iterator[BatchHeader]:
    """The headers of the batches from ``start`` to before ``end``; fewer where the log cannot be read now."""
    for header, _ in batches(partition, start):
        if header.base_offset >= end:
            return
        yield header


def batches(partition: Partition, start: int) -> Iterator[tuple[BatchHeader, bytes]]:
    """Each batch from the one that holds ``start`` on, past all that a disk may refuse."""
    log = partition.log
    offset = start
    while offset < log.log_end_offset:
        try:
            piece = log.read(offset, READ_BYTES, end_offset=log.log_end_offset, min_one=True)
        except ColdRead as cold:
            try:
                cold.warm()
            except KafkaError:
                return
            continue
        except KafkaError:
            return
        if piece is None:
            return
        found = False
        for header, data in iter_batches(_raw(piece)):
            if header.next_offset > offset:
                offset = header.next_offset
                found = True
                yield header, bytes(data)
        if not found:
            return


def _raw(piece: Any) -> bytes:
    file = piece.file
    assert isinstance(file, SimFile)
    return bytes(file._inode.data[piece.position : piece.position + piece.size])
