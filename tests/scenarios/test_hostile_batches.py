"""Record batches that lie: each is refused with Kafka's error code, and nothing of it reaches the log."""

from __future__ import annotations

import gzip
import io
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from crc32c import crc32c

from interop.process import BrokerProcess
from interop.raw import RawClient, batch, produce_fields
from ottla.errors import ErrorCode

# Where the fields of a batch header lie.
BASE_OFFSET, LENGTH, LEADER_EPOCH, MAGIC, CRC, ATTRIBUTES, LAST_DELTA = 0, 8, 12, 16, 17, 21, 23
BASE_TIMESTAMP, MAX_TIMESTAMP, PRODUCER_ID, PRODUCER_EPOCH, SEQUENCE, COUNT = 27, 35, 43, 51, 53, 57


@pytest.fixture(scope="module")
def broker(ottla_process_module: Callable[..., BrokerProcess]) -> BrokerProcess:
    return ottla_process_module()


@pytest.fixture
def client(broker: BrokerProcess) -> Iterator[RawClient]:
    with RawClient(broker.bootstrap) as connection:
        yield connection


@pytest.fixture
def topic(client: RawClient, name: str) -> str:
    assert client.create_topic(name).error_code == 0
    return name


def patched(data: bytes, position: int, layout: str, value: int, *, seal: bool = True) -> bytes:
    """`data` with one field of its header changed, and the checksum made to fit unless told otherwise."""
    changed = bytearray(data)
    struct.pack_into(layout, changed, position, value)
    if seal:
        struct.pack_into(">I", changed, CRC, crc32c(bytes(changed[ATTRIBUTES:])))
    return bytes(changed)


GOOD = batch(b"one", b"two", b"three")
LIES: dict[str, tuple[bytes, set[ErrorCode]]] = {
    "flipped bit": (GOOD[:-1] + bytes([GOOD[-1] ^ 1]), {ErrorCode.corrupt_message}),
    "wrong checksum": (patched(GOOD, CRC, ">I", 12345, seal=False), {ErrorCode.corrupt_message}),
    "count too large": (patched(GOOD, COUNT, ">i", 4), {ErrorCode.invalid_record}),
    "count too small": (patched(GOOD, COUNT, ">i", 2), {ErrorCode.invalid_record}),
    "count zero": (patched(GOOD, COUNT, ">i", 0), {ErrorCode.invalid_record}),
    "count negative": (patched(GOOD, COUNT, ">i", -1), {ErrorCode.invalid_record}),
    "count huge": (
        patched(patched(GOOD, COUNT, ">i", 2**31 - 1), LAST_DELTA, ">i", 2**31 - 2),
        {ErrorCode.invalid_record},
    ),
    "count and offsets agree on a lie": (
        patched(patched(GOOD, COUNT, ">i", 5), LAST_DELTA, ">i", 4),
        {ErrorCode.invalid_record},
    ),
    "last offset too large": (patched(GOOD, LAST_DELTA, ">i", 1000), {ErrorCode.invalid_record}),
    "last offset negative": (patched(GOOD, LAST_DELTA, ">i", -5), {ErrorCode.invalid_record}),
    "base offset": (patched(GOOD, BASE_OFFSET, ">q", 77), {ErrorCode.invalid_record}),
    "base offset negative": (patched(GOOD, BASE_OFFSET, ">q", -1), {ErrorCode.invalid_record}),
    "length too large": (
        patched(GOOD, LENGTH, ">i", 10_000, seal=False),
        {ErrorCode.invalid_record, ErrorCode.corrupt_message},
    ),
    "length too small": (
        patched(GOOD, LENGTH, ">i", 20, seal=False),
        {ErrorCode.invalid_record, ErrorCode.corrupt_message},
    ),
    "length negative": (
        patched(GOOD, LENGTH, ">i", -1, seal=False),
        {ErrorCode.invalid_record, ErrorCode.corrupt_message},
    ),
    "cut": (GOOD[:-5], {ErrorCode.invalid_record, ErrorCode.corrupt_message}),
    "half a header": (GOOD[:30], {ErrorCode.invalid_record}),
    "one byte": (GOOD[:1], {ErrorCode.invalid_record}),
    "empty": (b"", {ErrorCode.invalid_record}),
    "two batches": (GOOD + GOOD, {ErrorCode.invalid_record}),
    "bytes behind": (GOOD + b"junk", {ErrorCode.invalid_record, ErrorCode.corrupt_message}),
    "control batch": (patched(GOOD, ATTRIBUTES, ">h", 0x20), {ErrorCode.invalid_record}),
    "unknown codec": (
        patched(GOOD, ATTRIBUTES, ">h", 7),
        {ErrorCode.invalid_record, ErrorCode.unsupported_compression_type, ErrorCode.corrupt_message},
    ),
    "magic 3": (
        patched(GOOD, MAGIC, ">b", 3, seal=False),
        {ErrorCode.invalid_record, ErrorCode.corrupt_message},
    ),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("version", [3, 9, 12])
def test_lie(broker: BrokerProcess, client: RawClient, topic: str, lie: str, version: int) -> None:
    data, codes = LIES[lie]
    assert client.produce(topic, data, version=version).error_code in codes
    assert client.produce(topic, batch(b"fine"), version=version).base_offset == 0
    assert client.values(topic) == [b"fine"]
    assert "Traceback" not in broker.log()


def legacy(magic: int, value: bytes) -> bytes:
    """A message set of one message in the format before record batches."""
    # A time that has the number of a codec, zstd's, where record batches have theirs.
    stamp = struct.pack(">q", 0x0000_0190_0400_0000) if magic else b""
    body = (
        struct.pack(">bb", magic, 0) + stamp + struct.pack(">i", -1) + struct.pack(">i", len(value)) + value
    )
    message = struct.pack(">I", zlib.crc32(body)) + body
    return struct.pack(">qi", 0, len(message)) + message


@pytest.mark.parametrize("magic", [0, 1])
@pytest.mark.parametrize("size", [5, 500])
def test_older_formats(client: RawClient, topic: str, magic: int, size: int) -> None:
    answer = client.produce(topic, legacy(magic, b"v" * size), version=3)
    assert answer.error_code == ErrorCode.invalid_record
    assert client.values(topic) == []


def test_records_that_lie_within_a_good_header(client: RawClient, topic: str) -> None:
    """The record's own length, its offset delta, and the length of its value."""
    for position, value in [(61, 0x7E), (64, 0x08), (66, 0x7E)]:
        data = patched(batch(b"value"), position, ">B", value)
        assert client.produce(topic, data).error_code == ErrorCode.invalid_record
    assert client.values(topic) == []


def test_compressed_garbage_where_the_broker_unpacks(client: RawClient, name: str) -> None:
    """A topic that recompresses has to look inside."""
    assert client.create_topic(name, compression_type="zstd").error_code == 0
    for codec in (1, 2, 3):
        data = patched(batch(b"x" * 100), ATTRIBUTES, ">h", codec)
        answer = client.produce(name, data)
        assert answer.error_code in (ErrorCode.corrupt_message, ErrorCode.invalid_record)
    assert client.values(name) == []


def test_compression_bomb(broker: BrokerProcess, client: RawClient, name: str) -> None:
    """1 MB that unpacks to 1 GB: refused, and the memory is not spent."""
    assert client.create_topic(name, compression_type="zstd").error_code == 0
    before = broker.rss_bytes()
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=9) as packed:
        piece = bytes(1 << 20)
        for _ in range(900):
            packed.write(piece)
    header = bytearray(batch(b"")[:61])
    struct.pack_into(">i", header, LENGTH, 49 + len(out.getvalue()))
    data = patched(bytes(header) + out.getvalue(), ATTRIBUTES, ">h", 1)
    assert client.produce(name, data).error_code != 0
    assert broker.rss_bytes() - before < 300_000_000


def test_timestamps(client: RawClient, name: str, topic: str) -> None:
    """Beyond message.timestamp.after.max.ms (an hour) nothing is taken; a topic may bound the past too."""
    now_ms = int(time.time() * 1000)
    late = client.produce(topic, batch(b"v", timestamp_ms=now_ms + 7_200_000))
    assert late.error_code == ErrorCode.invalid_timestamp
    assert client.produce(topic, batch(b"v", timestamp_ms=now_ms + 1_800_000)).error_code == 0
    other = f"{name}-past"
    assert client.create_topic(other, message_timestamp_before_max_ms="60000").error_code == 0
    assert (
        client.produce(other, batch(b"v", timestamp_ms=now_ms - 120_000)).error_code
        == ErrorCode.invalid_timestamp
    )
    assert client.produce(other, batch(b"v", timestamp_ms=now_ms - 1000)).error_code == 0


def test_too_large(client: RawClient, name: str) -> None:
    assert client.create_topic(name, max_message_bytes="1000").error_code == 0
    assert client.produce(name, batch(b"x" * 2000)).error_code == ErrorCode.message_too_large
    fits = batch(b"x" * (1000 - len(batch(b"")) - 2))
    assert client.produce(name, fits).error_code in (0, ErrorCode.message_too_large)
    assert (
        client.create_topic(f"{name}-s", segment_bytes="1048576", max_message_bytes="5000000").error_code == 0
    )
    answer = client.produce(f"{name}-s", batch(b"x" * 2_000_000))
    assert answer.error_code == ErrorCode.record_list_too_large


def test_compacted_topics_need_keys(client: RawClient, name: str) -> None:
    assert client.create_topic(name, cleanup_policy="compact").error_code == 0
    answer = client.produce(name, batch(b"no key"))
    assert answer.error_code == ErrorCode.invalid_record
    assert [error.batch_index for error in answer.record_errors] == [0]


def test_internal_topics_are_not_for_clients(client: RawClient) -> None:
    """__consumer_offsets takes no records from a client (InvalidTopicException)."""
    client.call("FindCoordinator", 4, key_type=0, coordinator_keys=["g"])
    answer = client.produce("__consumer_offsets", batch(b"v"))
    assert answer.error_code == ErrorCode.invalid_topic_exception


@pytest.mark.parametrize("acks", [2, -2, 1000])
def test_acks_that_do_not_exist(client: RawClient, topic: str, acks: int) -> None:
    assert client.produce(topic, GOOD, acks=acks).error_code == ErrorCode.invalid_required_acks
    assert client.values(topic) == []


def test_acks_0_that_fails_closes_the_connection(
    broker: BrokerProcess, client: RawClient, topic: str
) -> None:
    with RawClient(broker.bootstrap) as other:
        other.send(other.frame("Produce", 9, produce_fields(topic, GOOD[:-1] + b"!", acks=0)))
        assert other.closed()
    assert client.values(topic) == []


def idempotent(producer_id: int, sequence: int, *values: bytes, epoch: int = 0) -> bytes:
    return batch(*values, producer_id=producer_id, producer_epoch=epoch, base_sequence=sequence)


def test_idempotent_sequences(client: RawClient, topic: str) -> None:
    """Duplicates of the last five batches are acknowledged with their offsets; gaps are refused."""
    made = client.call(
        "InitProducerId",
        transactional_id=None,
        transaction_timeout_ms=1000,
        producer_id=-1,
        producer_epoch=-1,
    )
    assert (made.error_code, made.producer_epoch) == (0, 0)
    pid = made.producer_id
    for i in range(6):
        assert client.produce(topic, idempotent(pid, 2 * i, b"a", b"b")).base_offset == 2 * i
    for i in range(1, 6):
        again = client.produce(topic, idempotent(pid, 2 * i, b"a", b"b"))
        assert (again.error_code, again.base_offset) == (0, 2 * i)
    old = client.produce(topic, idempotent(pid, 0, b"a", b"b"))
    assert old.error_code in (ErrorCode.duplicate_sequence_number, ErrorCode.out_of_order_sequence_number)
    gap = client.produce(topic, idempotent(pid, 14, b"c"))
    assert gap.error_code == ErrorCode.out_of_order_sequence_number
    overlap = client.produce(topic, idempotent(pid, 11, b"b", b"c"))
    assert overlap.error_code == ErrorCode.out_of_order_sequence_number
    fenced = client.produce(topic, idempotent(pid, 0, b"c", epoch=1))
    assert (fenced.error_code, fenced.base_offset) == (0, 12)
    stale = client.produce(topic, idempotent(pid, 12, b"d"))
    assert stale.error_code == ErrorCode.invalid_producer_epoch
    jump = client.produce(topic, idempotent(pid, 5, b"d", epoch=2))
    assert jump.error_code == ErrorCode.out_of_order_sequence_number
    assert len(client.values(topic)) == 13


def test_new_producer_that_starts_late(client: RawClient, topic: str) -> None:
    """A producer the log knows nothing of may begin at any sequence (its state may have expired)."""
    answer = client.produce(topic, idempotent(123_456, 40, b"v"))
    assert (answer.error_code, answer.base_offset) == (0, 0)


def test_sequences_survive_a_kill(ottla_process: Callable[..., BrokerProcess]) -> None:
    broker = ottla_process()
    with RawClient(broker.bootstrap) as client:
        client.create_topic("t")
        assert client.produce("t", idempotent(7, 0, b"a", b"b")).base_offset == 0
        assert client.produce("t", idempotent(7, 2, b"c")).base_offset == 2
    broker.kill()
    broker.start()
    with RawClient(broker.bootstrap) as client:
        assert client.produce("t", idempotent(7, 2, b"c")).base_offset == 2
        assert (
            client.produce("t", idempotent(7, 4, b"e")).error_code == ErrorCode.out_of_order_sequence_number
        )
        assert client.produce("t", idempotent(7, 3, b"d")).base_offset == 3
        assert client.values("t") == [b"a", b"b", b"c", b"d"]


def test_every_bit_of_a_batch_is_guarded(client: RawClient, topic: str) -> None:
    """Flip each bit of the checked part once: nothing gets in."""
    answers: set[Any] = set()
    data = batch(b"v")
    for position in range(MAGIC, len(data)):
        for bit in range(8):
            wrong = bytearray(data)
            wrong[position] ^= 1 << bit
            answers.add(client.produce(topic, bytes(wrong)).error_code)
    assert 0 not in answers
    assert client.values(topic) == []
