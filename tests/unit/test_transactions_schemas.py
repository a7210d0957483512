"""The records of `__transaction_state`: the very bytes that Kafka writes, and what else may stand there."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottla.coordinators.runtime.machine import SchemaError, UnknownRecord
from ottla.coordinators.transactions.metadata import TransactionMetadata
from ottla.coordinators.transactions.schemas import (
    ROUGHLY_MAX,
    TransactionRecord,
    decode_record,
    encode_record,
    encoding_record,
    last_epoch,
    size_of,
)
from ottla.coordinators.transactions.states import NUMBERS, PREVIOUS, TransactionState
from ottla.types import TopicPartition
from ottla.wire.primitives import write_uvarint

KEY = bytes.fromhex("000000027478")
ONGOING = TransactionMetadata(
    producer_id=7,
    previous_producer_id=7,
    next_producer_id=-1,
    producer_epoch=3,
    last_producer_epoch=-1,
    timeout_ms=60_000,
    state=TransactionState.ONGOING,
    partitions=frozenset({TopicPartition("t", 2), TopicPartition("t", 0)}),
    start_ms=900,
    last_update_ms=1_000,
    client_version=2,
)
HEAD = "000000000000000700030000ea6001"
TIMES = "00000000000003e80000000000000384"
PARTITIONS = "02027403000000000000000200"
PREVIOUS_7 = "00080000000000000007"
CLIENT_2 = "02020002"
EMPTY = ONGOING._replace(state=TransactionState.EMPTY, partitions=frozenset(), start_ms=-1, client_version=0)
OVERFLOWN = ONGOING._replace(
    state=TransactionState.PREPARE_COMMIT,
    producer_epoch=32_767,
    last_producer_epoch=32_766,
    next_producer_id=9,
)


@pytest.mark.parametrize(
    ("value", "version", "stored"),
    [
        pytest.param(ONGOING, 1, "0001" + HEAD + PARTITIONS + TIMES + "02" + PREVIOUS_7 + CLIENT_2, id="v1"),
        pytest.param(
            ONGOING.storable(0),
            0,
            "0000" + HEAD + "00000001" "0001" "74" "00000002" "00000000" "00000002" + TIMES,
            id="v0",
        ),
        pytest.param(
            EMPTY,
            1,
            "0001" "0000000000000007" "0003" "0000ea60" "00" "00" "00000000000003e8" "ffffffffffffffff"
            "01" + PREVIOUS_7,
            id="empty",
        ),
        pytest.param(
            EMPTY.storable(0),
            0,
            "0000" "0000000000000007" "0003" "0000ea60" "00" "ffffffff" "00000000000003e8" "ffffffffffffffff",
            id="empty, v0",
        ),
        pytest.param(
            EMPTY._replace(last_producer_epoch=2),
            1,
            "0001" "0000000000000007" "0003" "0000ea60" "00" "00" "00000000000003e8" "ffffffffffffffff"
            "02" + PREVIOUS_7 + "04" "02" "0002",
            id="begun anew after an error",
        ),
        pytest.param(
            OVERFLOWN,
            1,
            "0001" "0000000000000007" "7fff" "0000ea60" "02" + PARTITIONS + TIMES + "03" + PREVIOUS_7
            + "01" "08" "0000000000000009" + CLIENT_2,
            id="the last epoch",
        ),
        pytest.param(
            ONGOING._replace(
                state=TransactionState.COMPLETE_ABORT, partitions=frozenset(), last_producer_epoch=2
            ),
            1,
            "0001" "0000000000000007" "0003" "0000ea60" "05" "01" + TIMES + "02" + PREVIOUS_7 + CLIENT_2,
            id="no partitions any more",
        ),
    ],
)  # fmt: skip
def test_golden_bytes(value: TransactionMetadata, version: int, stored: str) -> None:
    record = TransactionRecord("tx", value, version)
    assert encode_record(record) == (KEY, bytes.fromhex(stored))
    assert decode_record(KEY, bytes.fromhex(stored)) == record


def test_a_removal_has_no_value() -> None:
    assert encode_record(TransactionRecord("tx", None)) == (KEY, None)
    assert decode_record(KEY, None) == TransactionRecord("tx", None)


def test_tagged_fields_of_later_versions_are_stepped_over() -> None:
    later = "03" + "02" + "7fff" + "7f" + "01" + "00"
    stored = bytes.fromhex("0001" + HEAD + PARTITIONS + TIMES + "04" + PREVIOUS_7 + CLIENT_2 + later)
    assert decode_record(KEY, stored) == TransactionRecord("tx", ONGOING)


def test_kinds_of_records_that_are_not_known_are_told_apart() -> None:
    assert decode_record(bytes.fromhex("000100027478"), b"") == UnknownRecord(1)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        pytest.param(None, None, id="no key"),
        pytest.param(b"\x00", None, id="half a version"),
        pytest.param(KEY[:-1], None, id="a key that ends too soon"),
        pytest.param(KEY, bytes.fromhex("0002" + HEAD), id="a later value"),
        pytest.param(KEY, bytes.fromhex("ffff" + HEAD), id="a negative version"),
        pytest.param(KEY, bytes.fromhex("0001" + HEAD), id="no partitions"),
        pytest.param(KEY, bytes.fromhex("0001000000000000000700030000ea600601" + TIMES + "00"), id="dead"),
        pytest.param(
            KEY, bytes.fromhex("0001" + HEAD + "ffffffff07" + TIMES + "00"), id="two billion topics"
        ),
        pytest.param(
            KEY, bytes.fromhex("0001" + HEAD + "020274ffffffff07" + TIMES), id="two billion partitions"
        ),
        pytest.param(KEY, bytes.fromhex("0001" + HEAD + PARTITIONS + TIMES + "ffffffff07"), id="many tags"),
        pytest.param(KEY, bytes.fromhex("0001" + HEAD + PARTITIONS + TIMES + "0100020007"), id="a short id"),
    ],
)
def test_what_makes_no_sense_is_refused(key: bytes | None, value: bytes | None) -> None:
    with pytest.raises(SchemaError):
        decode_record(key, value)


@given(st.binary(max_size=80), st.sampled_from([b"\x00\x00", b"\x00\x01"]))
def test_no_bytes_at_all_are_believed_blindly(noise: bytes, version: bytes) -> None:
    with suppress(SchemaError):
        decode_record(KEY, version + noise)


names = st.text(st.characters(codec="ascii", categories=["L"]), min_size=1, max_size=5)
shorts = st.integers(0, 32_767)
values = st.builds(
    TransactionMetadata,
    producer_id=st.integers(0, 2**62),
    previous_producer_id=st.integers(-1, 2**62),
    next_producer_id=st.integers(-1, 2**62),
    producer_epoch=shorts,
    last_producer_epoch=st.integers(-1, 32_767),
    timeout_ms=st.integers(1, 2**31 - 1),
    state=st.sampled_from(list(TransactionState)[:6]),
    partitions=st.frozensets(st.builds(TopicPartition, names, st.integers(0, 2**31 - 1)), max_size=8),
    start_ms=st.integers(-1, 2**50),
    last_update_ms=st.integers(0, 2**50),
    client_version=st.integers(0, 2),
)


@given(values, st.integers(0, 1), st.text(max_size=20))
def test_what_is_written_is_read_again(value: TransactionMetadata, version: int, name: str) -> None:
    if value.state is TransactionState.EMPTY:
        value = value._replace(partitions=frozenset())
    value = value.storable(version)
    record = TransactionRecord(name, value, version)
    assert decode_record(*encode_record(record)) == record


def test_many_partitions_are_written_and_read_in_pieces() -> None:
    many = frozenset(TopicPartition(f"topic-{index % 7}", index) for index in range(ROUGHLY_MAX + 1))
    record = TransactionRecord("tx", ONGOING._replace(partitions=many))
    pieces = encoding_record(record)
    assert len(list(pieces)) >= 6
    key, stored = encode_record(record)
    assert decode_record(key, stored) == record
    assert stored is not None
    assert len(stored) <= size_of(many) + 100


def test_strings_that_are_too_long_cannot_be_stored() -> None:
    with pytest.raises(SchemaError):
        encode_record(TransactionRecord("x" * 40_000, None))


def test_what_is_left_out_is_what_follows_from_the_rest() -> None:
    assert last_epoch(TransactionState.COMPLETE_COMMIT, 5, 2) == 4
    assert last_epoch(TransactionState.COMPLETE_COMMIT, 0, 2) == 32_766
    assert last_epoch(TransactionState.COMPLETE_COMMIT, 5, 0) == -1
    assert last_epoch(TransactionState.ONGOING, 5, 2) == -1
    assert last_epoch(TransactionState.EMPTY, 5, 2) == -1


def test_states_have_kafkas_numbers_and_names() -> None:
    assert [(NUMBERS[state], state.value) for state in TransactionState] == [
        (0, "Empty"),
        (1, "Ongoing"),
        (2, "PrepareCommit"),
        (3, "PrepareAbort"),
        (4, "CompleteCommit"),
        (5, "CompleteAbort"),
        (6, "Dead"),
        (7, "PrepareEpochFence"),
    ]
    assert set(PREVIOUS) == set(TransactionState)


def test_a_varint_of_six_bytes_is_no_length() -> None:
    with pytest.raises(SchemaError):
        decode_record(KEY, bytes.fromhex("0001" + HEAD) + b"\xff" * 6 + write_uvarint(1))


@pytest.mark.parametrize(("stored", "read"), [(3, 2), (300, 2), (-1, 0)])
def test_a_protocol_that_nobody_knows_is_the_nearest_that_is_known(stored: int, read: int) -> None:
    record = decode_record(*encode_record(TransactionRecord("tx", ONGOING._replace(client_version=stored))))
    assert isinstance(record, TransactionRecord) and record.value is not None
    assert record.value.client_version == read
