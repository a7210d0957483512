"""The small text files that Kafka keeps beside its logs: read and written exactly as Kafka does. Pure."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from uuid import UUID

from ottla.text import id_text
from ottla.types import TopicPartition

CHECKPOINT_VERSION = 0
PARTITION_METADATA_VERSION = 0
# Larger files of these kinds are not read: hundreds of thousands of partitions, or one topic id, take less.
CHECKPOINT_BYTES_MAX = 64 * 1024 * 1024
PROPERTIES_BYTES_MAX = 64 * 1024
UUID_CHARACTERS = 22
# How much of a line that makes no sense is told.
LINE_SHOWN_MAX = 80
OFFSET_MAX = 2**63 - 1
INT_MAX = 2**31 - 1


class CheckpointDamaged(Exception):
    """A file is not what Kafka or we write; says which rule it breaks."""


def read_number(text: str, largest: int) -> int:
    """A number as these files have it: ASCII digits, from 0 to ``largest``. ValueError: it is none."""
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(OFFSET_MAX))):
        raise ValueError(f"no number: {text[:20]!r}")
    value = int(text)
    if value > largest:
        raise ValueError(f"too large: {value}")
    return value


def encode_lines(lines: Iterable[str]) -> bytes:
    """A checkpoint file: its version, the number of lines, the lines (Kafka's CheckpointFile)."""
    lines = list(lines)
    return "\n".join([str(CHECKPOINT_VERSION), str(len(lines)), *lines, ""]).encode()


def decode_lines(data: bytes) -> list[str]:
    """The lines of a checkpoint file; none where it is empty, as Kafka leaves it until the first write."""
    lines = data.decode("utf-8", "replace").splitlines()
    if len(lines) < 2:
        if lines and lines[0] != str(CHECKPOINT_VERSION):
            raise CheckpointDamaged(f"unknown version {lines[0][:LINE_SHOWN_MAX]!r}")
        return []
    if lines[0] != str(CHECKPOINT_VERSION):
        raise CheckpointDamaged(f"unknown version {lines[0][:LINE_SHOWN_MAX]!r}")
    if lines[1] != str(len(lines) - 2):
        raise CheckpointDamaged(f"it claims {lines[1][:LINE_SHOWN_MAX]} entries and has {len(lines) - 2}")
    return lines[2:]


def encode_offsets(offsets: Mapping[TopicPartition, int]) -> bytes:
    """``recovery-point-offset-checkpoint`` and its kin: topic, partition and offset on each line."""
    return encode_lines(offset_line(where, offset) for where, offset in offsets.items())


def offset_line(where: TopicPartition, offset: int) -> str:
    """A line of such a file."""
    return f"{where.topic} {where.partition} {offset}"


def decode_offsets(data: bytes) -> dict[TopicPartition, int]:
    offsets = {}
    for line in decode_lines(data):
        fields = line.split()
        try:
            topic, partition, offset = fields
            where = TopicPartition(topic, read_number(partition, INT_MAX))
            offsets[where] = read_number(offset, OFFSET_MAX)
        except ValueError as error:
            raise CheckpointDamaged(f"malformed line {line[:LINE_SHOWN_MAX]!r}") from error
    return offsets


def encode_epochs(entries: Iterable[tuple[int, int]]) -> bytes:
    """``leader-epoch-checkpoint``: an epoch and the offset it began at on each line."""
    return encode_lines(f"{epoch} {start}" for epoch, start in entries)


def decode_epochs(data: bytes) -> list[tuple[int, int]]:
    entries = []
    for line in decode_lines(data):
        try:
            epoch, start = line.split()
            entries.append((read_number(epoch, INT_MAX), read_number(start, OFFSET_MAX)))
        except ValueError as error:
            raise CheckpointDamaged(f"malformed line {line[:LINE_SHOWN_MAX]!r}") from error
    return entries


def decode_uuid(text: str) -> UUID:
    """A topic id as ``id_text`` writes it. ValueError where it is none."""
    if len(text) != UUID_CHARACTERS:
        raise ValueError(f"no topic id: {text[:LINE_SHOWN_MAX]!r}")
    return UUID(bytes=base64.b64decode(text + "==", altchars=b"-_", validate=True))


def encode_partition_metadata(topic_id: UUID) -> bytes:
    """``partition.metadata``: the id of the topic that the folder belongs to (KIP-516)."""
    return f"version: {PARTITION_METADATA_VERSION}\ntopic_id: {id_text(topic_id)}".encode()


def decode_partition_metadata(data: bytes) -> UUID:
    fields = decode_properties(data, ":")
    if fields.get("version") != str(PARTITION_METADATA_VERSION):
        raise CheckpointDamaged(f"unknown version {fields.get('version')!r}")
    try:
        return decode_uuid(fields["topic_id"])
    except (KeyError, ValueError) as error:
        raise CheckpointDamaged("it names no topic id") from error


def encode_properties(values: Mapping[str, str]) -> bytes:
    """``meta.properties``: plain names and values, as Java's Properties reads them."""
    return "".join(f"{name}={value}\n" for name, value in values.items()).encode()


def decode_properties(data: bytes, separator: str = "=") -> dict[str, str]:
    values = {}
    for line in data.decode("utf-8", "replace").splitlines():
        line = line.strip()
        if line and line[0] not in "#!":
            name, _, value = line.partition(separator)
            values[name.strip()] = value.strip()
    return values
