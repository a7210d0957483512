"""Kafka's small text files, byte by byte."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottla.log import checkpoints
from ottla.log.checkpoints import CheckpointDamaged
from ottla.text import id_text
from ottla.types import TopicPartition


def test_offset_checkpoints_are_kafkas_bytes() -> None:
    offsets = {TopicPartition("orders", 0): 12, TopicPartition("__consumer_offsets", 49): 0}
    data = b"0\n2\norders 0 12\n__consumer_offsets 49 0\n"
    assert checkpoints.encode_offsets(offsets) == data
    assert checkpoints.decode_offsets(data) == offsets
    assert checkpoints.encode_offsets({}) == b"0\n0\n"
    assert checkpoints.decode_offsets(b"0\n0\n") == checkpoints.decode_offsets(b"") == {}


def test_epoch_checkpoints_are_kafkas_bytes() -> None:
    assert checkpoints.encode_epochs([(0, 0), (3, 17)]) == b"0\n2\n0 0\n3 17\n"
    assert checkpoints.decode_epochs(b"0\n2\n0 0\n3 17\n") == [(0, 0), (3, 17)]


@pytest.mark.parametrize(
    "data",
    [
        b"1\n0\n",
        b"1",
        b"0\n2\na 0 1\n",
        b"0\nx\n",
        b"0\n1\na b 1\n",
        b"0\n1\na 1\n",
        b"0\n1\na 0 1 2\n",
        b"\xff\n1\n",
    ],
)
def test_damaged_checkpoints_are_told_apart(data: bytes) -> None:
    with pytest.raises(CheckpointDamaged):
        checkpoints.decode_offsets(data)


@given(st.binary(max_size=60))
def test_random_bytes_are_read_or_refused(data: bytes) -> None:
    for decode in (
        checkpoints.decode_offsets,
        checkpoints.decode_epochs,
        checkpoints.decode_partition_metadata,
    ):
        try:
            decode(data)
        except CheckpointDamaged:
            continue


def test_partition_metadata_is_kafkas_bytes() -> None:
    topic_id = UUID("7d6a1f3c-9a1b-4c8e-8f3e-2b1a0c9d8e7f")
    data = b"version: 0\ntopic_id: fWofPJobTI6PPisaDJ2Ofw"
    assert checkpoints.encode_partition_metadata(topic_id) == data
    assert checkpoints.decode_partition_metadata(data) == topic_id
    with pytest.raises(CheckpointDamaged):
        checkpoints.decode_partition_metadata(b"version: 1\ntopic_id: fWofPJobTI6PPisaDJ2Ofw")
    with pytest.raises(CheckpointDamaged):
        checkpoints.decode_partition_metadata(b"version: 0\ntopic_id: fWof")


@given(st.uuids())
def test_ids_read_back(value: UUID) -> None:
    assert checkpoints.decode_uuid(id_text(value)) == value


def test_properties_as_java_writes_them() -> None:
    data = b"#\n#Sat Oct 26 10:00:00 UTC 2024\nnode.id=1\nversion = 1\n\n! note\ncluster.id=abc=\n"
    assert checkpoints.decode_properties(data) == {"node.id": "1", "version": "1", "cluster.id": "abc="}
    assert checkpoints.encode_properties({"a": "b"}) == b"a=b\n"


@pytest.mark.parametrize("number", ["-1", "٣", "1_0", "+1", "9" * 5000, str(2**63), "0x1", "1.0", "nan", "²"])
def test_numbers_that_are_none(number: str) -> None:
    with pytest.raises(CheckpointDamaged):
        checkpoints.decode_offsets(f"0\n1\ntopic 0 {number}\n".encode())
    with pytest.raises(CheckpointDamaged):
        checkpoints.decode_epochs(f"0\n1\n{number} 0\n".encode())
    with pytest.raises(CheckpointDamaged):
        checkpoints.decode_offsets(f"0\n1\ntopic {number} 0\n".encode())


def test_what_is_told_of_a_damaged_file_is_short() -> None:
    for data in (b"x" * 10**6, b"0\n" + b"9" * 10**6 + b"\n", b"0\n1\n" + b"x" * 10**6 + b"\n"):
        with pytest.raises(CheckpointDamaged) as caught:
            checkpoints.decode_offsets(data + b"\n\n")
        assert len(str(caught.value)) < 200
