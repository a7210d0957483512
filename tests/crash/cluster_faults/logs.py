"""The logs on the nodes' disks: read with nothing but Kafka's description of the format, and compared."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import crc32c

# Base offset, length, leader epoch, magic, CRC; then what the CRC covers: attributes, last offset delta, two
# timestamps, producer id and epoch, base sequence, count.
HEADER = struct.Struct(">qiibIhiqqqhii")
CRC_START = 21
LENGTH_START = 12
NO_PRODUCER = -1


class Batch(NamedTuple):
    base_offset: int
    last_offset: int
    leader_epoch: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    count: int
    # Of its records, as their producer set it, or of its append, as the topic asks for.
    max_timestamp_ms: int


def log_bytes(folder: Path) -> bytes:
    """All segments of a partition, one after the other."""
    return b"".join(path.read_bytes() for path in sorted(folder.glob("*.log")))


def batches(data: bytes) -> Iterator[Batch]:
    """The batches, as they lie there. AssertionError where one is damaged."""
    position = 0
    while position < len(data):
        fields = HEADER.unpack_from(data, position)
        base, length, leader_epoch, magic, crc, _, last_delta = fields[:7]
        end = position + LENGTH_START + length
        assert magic == 2 and end <= len(data), f"no batch at byte {position}"
        assert crc32c.crc32c(data[position + CRC_START : end]) == crc, f"wrong CRC at offset {base}"
        yield Batch(base, base + last_delta, leader_epoch, *fields[9:], fields[8])
        position = end


def check_log(name: str, data: bytes) -> Iterator[str]:
    """What is wrong with a log by itself: offsets without gaps, leader epochs that only grow, and of each
    producer and epoch the sequence numbers from 0 on, each once."""
    offset, leader_epoch = 0, 0
    sequences: dict[tuple[int, int], int] = {}
    for batch in batches(data):
        if batch.base_offset != offset:
            yield f"GAP {name}: {batch} follows offset {offset - 1}"
        if batch.leader_epoch < leader_epoch:
            yield f"EPOCH {name}: {batch} follows one of leader epoch {leader_epoch}"
        offset, leader_epoch = batch.last_offset + 1, batch.leader_epoch
        if batch.producer_id == NO_PRODUCER:
            continue
        producer = (batch.producer_id, batch.producer_epoch)
        expected = sequences.get(producer, 0)
        if batch.base_sequence != expected:
            yield f"SEQUENCE {name}: {batch} where {expected} is due"
        sequences[producer] = batch.base_sequence + batch.count


def differences(name: str, copies: Mapping[int, bytes]) -> Iterator[str]:
    """Where the copies of a partition, by node, differ first."""
    (first, data), *others = copies.items()
    for node_id, other in others:
        if other == data:
            continue
        mine, theirs = list(batches(data)), list(batches(other))
        pairs = zip(mine, theirs, strict=False)
        parts = next(((a, b) for a, b in pairs if a != b), None)
        if parts is not None:
            yield f"REPLICAS {name}: node {first} has {parts[0]}, node {node_id} {parts[1]}"
        elif len(mine) != len(theirs):
            ends = (mine[-1].last_offset if mine else -1, theirs[-1].last_offset if theirs else -1)
            yield f"REPLICAS {name}: node {first} ends with {ends[0]}, node {node_id} with {ends[1]}"
        else:
            yield f"REPLICAS {name}: batches of nodes {first} and {node_id} differ in what they hold"
