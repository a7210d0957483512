"""Produce, Fetch, ListOffsets and their kind: what is asked of partitions."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from ottla.types import Record
from ottla.wire import records
from protocol.peer import NO_ID, Fields, Peer

INTEGERS = (-3, -2, -1, 0, 1, 2**31 - 1)
OLD_MS, HOUR_MS = 1_000_000_000_000, 3_600_000


def now_ms() -> int:
    return int(time.time() * 1000)


def batch(
    keys: Sequence[bytes | None] = (b"k",), stamps: Sequence[int] | None = None, **options: Any
) -> bytes:
    """A batch with a record of each key, stamped now unless told."""
    times = stamps or [now_ms()] * len(keys)
    return records.build_batch(
        [Record(0, stamp, key, b"value", ()) for key, stamp in zip(keys, times, strict=True)], **options
    )


def sealed(data: bytes, **changes: Any) -> bytes:
    """A batch with other values in its header, and a checksum that is right again."""
    header = records.read_header(data).replaced(**changes)
    return records.seal_batch(header, data[records.HEADER_BYTES :])


def with_magic(data: bytes, magic: int) -> bytes:
    return data[:16] + bytes([magic]) + data[17:]


def produce_fields(
    topic: str, topic_id: UUID, *entries: tuple[int, bytes | None], acks: int = -1, **more: Any
) -> Fields:
    data = [{"index": index, "records": found} for index, found in entries]
    return {
        "transactional_id": None,
        "acks": acks,
        "timeout_ms": 5000,
        "topic_data": [{"name": topic, "topic_id": topic_id, "partition_data": data}],
    } | more


def what_produce_refuses(peer: Peer) -> None:
    good = batch()
    topic = peer.name("produce")
    kinds: dict[str, bytes] = {
        "no bytes": b"",
        "a header cut short": good[:40],
        "a batch cut short": good[:-1],
        "a byte too much": good + b"\0",
        "two batches": good + good,
        "checksum": good[:-1] + bytes([good[-1] ^ 1]),
        "magic 0": with_magic(good, 0),
        "magic 1": with_magic(good, 1),
        "magic 3": with_magic(good, 3),
        "length 0": good[:8] + b"\0\0\0\0" + good[12:],
        "length negative": good[:8] + b"\xff\xff\xff\xff" + good[12:],
        "count 0": sealed(good, record_count=0),
        "count too large": sealed(good, record_count=2),
        "count negative": sealed(good, record_count=-1),
        "last offset delta": sealed(good, last_offset_delta=1),
        "base offset": sealed(good, base_offset=5),
        "control": batch(control=True),
        "control of a producer": batch(control=True, producer_id=5, producer_epoch=0, base_sequence=0),
        "codec 5": sealed(good, attributes=5),
        "codec 7": sealed(good, attributes=7),
        "log append time": batch(timestamp_type=1),
        "unknown attribute": sealed(good, attributes=0x80),
        "compressed garbage": sealed(good, attributes=1),
        "producer without sequence": batch(producer_id=5, producer_epoch=0, base_sequence=-1),
        "producer with epoch -1": batch(producer_id=5, producer_epoch=-1, base_sequence=0),
        "producer with epoch -2": batch(producer_id=5, producer_epoch=-2, base_sequence=0),
        "sequence -2": batch(producer_id=5, producer_epoch=0, base_sequence=-2),
        "producer -2": batch(producer_id=-2, producer_epoch=0, base_sequence=0),
        "producer -2 and nothing": batch(producer_id=-2),
        "epoch without producer": batch(producer_id=-1, producer_epoch=3),
        "sequence without producer": batch(producer_id=-1, base_sequence=3),
        "transactional without producer": batch(transactional=True),
        "first sequence 5": batch(producer_id=77, producer_epoch=0, base_sequence=5),
        "too large": batch([b"k" * 1_100_000]),
        "too new": batch(stamps=[now_ms() + 2 * HOUR_MS]),
        "no timestamp": batch(stamps=[-1]),
        "timestamp -2": batch(stamps=[-2]),
    }
    # A partition for each, so that what one broker takes and the other refuses shows once.
    topic_id = peer.create("produce", len(kinds))
    for index, (kind, data) in enumerate(kinds.items()):
        versions = (3, 7, 8, 12, 13) if kind in ("magic 0", "magic 1", "checksum") else (8,)
        peer.each(kind, "Produce", produce_fields(topic, topic_id, (index, data)), versions)
    asked = [(index, -1) for index in range(len(kinds))]
    peer.ask("what was stored", "ListOffsets", 7, **list_offsets_fields(topic, *asked))


def what_else_produce_refuses(peer: Peer) -> None:
    good = batch()
    topic = peer.name("produce")
    topic_id = peer.create("produce", 2)
    good_fields = produce_fields(topic, topic_id, (0, good))
    for acks in (-2, 2, 32767):
        peer.each(f"acks {acks}", "Produce", good_fields | {"acks": acks}, (3, 8, 13))
    peer.each("transactional id", "Produce", good_fields | {"topic_data": []}, (3, 13))
    for index in (-1, 2, 2**31 - 1):
        peer.each(f"partition {index}", "Produce", produce_fields(topic, topic_id, (index, good)), (8, 13))
    peer.each("missing topic", "Produce", produce_fields(peer.name("no"), UUID(int=7), (0, good)), (8, 13))
    peer.each("no name", "Produce", produce_fields("", NO_ID, (0, good)), (8, 13))
    peer.each("bad name", "Produce", produce_fields("a/b", NO_ID, (0, good)), (8,))
    peer.each("internal", "Produce", produce_fields("__consumer_offsets", NO_ID, (0, good)), (8,))
    mixed = produce_fields(topic, topic_id, (0, good), (1, good[:-1]))
    peer.each("one of two is bad", "Produce", mixed, (8, 13))
    peer.each("zstd", "Produce", produce_fields(topic, topic_id, (0, batch(compression=4))), (3, 6, 7))
    peer.ask("what was stored", "ListOffsets", 7, **list_offsets_fields(topic, (0, -1), (1, -1)))


def transactional_batches(peer: Peer) -> None:
    """A transactional batch needs a transactional id, and the partition in its transaction."""
    topic_id = peer.create("tx", 2)
    topic = peer.name("tx")
    for kind, options in {
        "without producer": {},
        "of a producer": {"producer_id": 5, "producer_epoch": 0, "base_sequence": 0},
    }.items():
        data = batch(transactional=True, **options)
        peer.each(kind, "Produce", produce_fields(topic, topic_id, (0, data)), (8, 11, 12, 13))
        both = produce_fields(topic, topic_id, (0, data), (1, batch()))
        peer.each(f"{kind}, and a plain one", "Produce", both, (8, 13))
    peer.ask("what was stored", "ListOffsets", 7, **list_offsets_fields(topic, (0, -1), (1, -1)))


def bad_records(peer: Peer) -> None:
    """A refused batch names all records that are at fault, INVALID_TIMESTAMP first (KIP-467)."""
    now = now_ms()
    new, old = now + 10 * HOUR_MS, now - HOUR_MS
    topics = {
        "plain": {},
        "compact": {"cleanup_policy": "compact"},
        "young": {"message_timestamp_before_max_ms": "1800000"},
        "young-compact": {"cleanup_policy": "compact", "message_timestamp_before_max_ms": "1800000"},
        "stamped": {"message_timestamp_type": "LogAppendTime", "cleanup_policy": "compact"},
        "squeezed": {"compression_type": "gzip", "cleanup_policy": "compact"},
    }
    many = [b"k"] * 12
    kinds: dict[str, bytes] = {
        "keyless 0 2 4": batch([None, b"a", None, b"b", None]),
        "old 1 3": batch([b"k"] * 4, [now, old, now, old]),
        "new 2": batch([b"k"] * 4, [now, now, new, now]),
        "keyless 0, old 1": batch([None, b"k"], [now, old]),
        "keyless and old 0": batch([None, b"k"], [old, now]),
        "old 0, keyless 1": batch([b"k", None], [old, now]),
        "all keyless": batch([None] * 12),
        "all new": batch(many, [new] * 12),
        "new 9": batch(many, [now] * 9 + [new] * 3),
        "keyless gzip": batch([None, b"a", None], compression=1),
        "new gzip": batch([b"k"] * 4, [now, new, new, now], compression=1),
        "new zstd, many": batch(many, [now] * 9 + [new] * 3, compression=4),
    }
    for name, configs in topics.items():
        topic_id = peer.create(name, **configs)
        for kind, data in kinds.items():
            fields = produce_fields(peer.name(name), topic_id, (0, data))
            versions = (7, 8, 13) if kind == "old 1 3" else (8,)
            peer.each(f"{name}: {kind}", "Produce", fields, versions)


def idempotent_producers(peer: Peer) -> None:
    """Sequences and epochs of one producer, step by step."""
    topic_id = peer.create("idem")
    topic = peer.name("idem")

    def step(question: str, epoch: int, sequence: int, count: int = 1) -> None:
        data = batch([b"k"] * count, producer_id=4242, producer_epoch=epoch, base_sequence=sequence)
        peer.ask(question, "Produce", 9, **produce_fields(topic, topic_id, (0, data)))
        peer.ask(f"after {question}", "DescribeProducers", 0, **producers_fields(topic, 0))

    step("first", 3, 0, 2)
    step("again", 3, 0, 2)
    step("next", 3, 2, 3)
    step("an overlap", 3, 3, 3)
    step("part of the last", 3, 2, 2)
    step("a gap", 3, 9)
    step("an older epoch", 2, 5)
    step("a newer epoch in the middle", 4, 5)
    step("a newer epoch", 4, 0)
    step("the older one's next", 3, 5)
    step("epoch -1", -1, 1)
    step("epoch -2", -2, 1)
    step("sequence -1", 4, -1)
    step("the last sequence", 5, 2**31 - 1)
    step("epoch 32767", 32767, 0)


def list_offsets_fields(
    topic: str, *asked: tuple[int, int], epoch: int = -1, replica: int = -1, isolation: int = 0
) -> Fields:
    found = [
        {"partition_index": index, "current_leader_epoch": epoch, "timestamp": timestamp}
        for index, timestamp in asked
    ]
    return {
        "replica_id": replica,
        "isolation_level": isolation,
        "topics": [{"name": topic, "partitions": found}],
        "timeout_ms": 1000,
    }


def offsets(peer: Peer) -> None:
    peer.create("lo", 2)
    topic = peer.name("lo")
    asked = (-1, -2, -3, -4, -5, -6, -7, 0, 1, OLD_MS, now_ms() + HOUR_MS, 2**63 - 1, -(2**63))

    def ask_all(state: str, versions: tuple[int, ...]) -> None:
        for at, timestamp in enumerate(asked):
            for isolation in (0, 1):
                fields = list_offsets_fields(topic, (0, timestamp), isolation=isolation)
                question = f"{state} time {at} ({'committed' if isolation else 'all'})"
                peer.each(question, "ListOffsets", fields, versions)

    ask_all("empty", (1, 3, 4, 7, 8, 9, 11))
    peer.produce("lo", batch([b"k"] * 3, [OLD_MS, OLD_MS + 5, OLD_MS + 1]))
    peer.produce("lo", batch([b"k"] * 2, [OLD_MS - 1, OLD_MS + 5]))
    ask_all("written", (1, 4, 7, 11))
    for delta in (-2, -1, 0, 1, 2, 5, 6):
        fields = list_offsets_fields(topic, (0, OLD_MS + delta))
        peer.ask(f"time {delta}", "ListOffsets", 10, **fields)
    for epoch in (*INTEGERS, -(2**31)):
        fields = list_offsets_fields(topic, (0, -1), epoch=epoch)
        peer.each(f"leader epoch {epoch}", "ListOffsets", fields, (4, 11))
    for replica in (-3, -2, -1, 0, 1, 5):
        fields = list_offsets_fields(topic, (0, -1), replica=replica)
        peer.each(f"replica {replica}", "ListOffsets", fields, (4, 11))
    for index in (-1, 2):
        peer.each(f"partition {index}", "ListOffsets", list_offsets_fields(topic, (index, -1)), (1, 11))
    twice = list_offsets_fields(topic, (0, -1), (0, -2), (1, -1))
    peer.each("a partition twice", "ListOffsets", twice, (1, 11))
    for name in (peer.name("no"), "", "a/b", "__consumer_offsets_"):
        question = f"topic {name.replace(peer.prefix, '')!r}"
        peer.each(question, "ListOffsets", list_offsets_fields(name, (0, -1)), (1, 11))
    for isolation in (2, -1):
        fields = list_offsets_fields(topic, (0, -1), isolation=isolation)
        peer.each(f"isolation {isolation}", "ListOffsets", fields, (2, 11))
    peer.ask("deleted up to 4", "DeleteRecords", 2, **delete_records_fields(topic, (0, 4)))
    ask_all("deleted", (4, 11))


def fetch_fields(topic: str, topic_id: UUID, *asked: Fields, **more: Any) -> Fields:
    usual = {
        "partition": 0,
        "current_leader_epoch": -1,
        "fetch_offset": 0,
        "last_fetched_epoch": -1,
        "log_start_offset": -1,
        "partition_max_bytes": 1 << 20,
    }
    return {
        "replica_id": -1,
        "replica_state": {"replica_id": -1, "replica_epoch": -1},
        "max_wait_ms": 0,
        "min_bytes": 1,
        "max_bytes": 1 << 24,
        "isolation_level": 0,
        "session_id": 0,
        "session_epoch": -1,
        "topics": [{"topic": topic, "topic_id": topic_id, "partitions": [usual | one for one in asked]}],
        "forgotten_topics_data": [],
        "rack_id": "",
    } | more


def fetches(peer: Peer) -> None:
    topic_id = peer.create("fetch", 2)
    topic = peer.name("fetch")
    peer.each("empty", "Fetch", fetch_fields(topic, topic_id, {}))
    peer.each("empty, committed", "Fetch", fetch_fields(topic, topic_id, {}, isolation_level=1))
    for _ in range(3):
        peer.produce("fetch", batch([b"k"] * 2))
    peer.each("written", "Fetch", fetch_fields(topic, topic_id, {}))
    peer.each("committed", "Fetch", fetch_fields(topic, topic_id, {}, isolation_level=1))
    for offset in (-2, -1, 1, 5, 6, 7, 2**63 - 1):
        fields = fetch_fields(topic, topic_id, {"fetch_offset": offset})
        peer.each(f"offset {offset}", "Fetch", fields, (4, 11, 12, 13, 16, 18))
    for epoch in (*INTEGERS, -(2**31)):
        fields = fetch_fields(topic, topic_id, {"current_leader_epoch": epoch})
        peer.each(f"leader epoch {epoch}", "Fetch", fields, (9, 12, 13, 18))
        fields = fetch_fields(topic, topic_id, {"last_fetched_epoch": epoch, "fetch_offset": 2})
        peer.each(f"last fetched epoch {epoch}", "Fetch", fields, (12, 13, 18))
    for size in (-1, 0, 1, 100):
        fields = fetch_fields(topic, topic_id, {"partition_max_bytes": size})
        peer.each(f"partition_max_bytes {size}", "Fetch", fields, (4, 13))
        peer.each(f"max_bytes {size}", "Fetch", fetch_fields(topic, topic_id, {}, max_bytes=size), (4, 13))
    for index in (-1, 2):
        fields = fetch_fields(topic, topic_id, {"partition": index})
        peer.each(f"partition {index}", "Fetch", fields, (4, 12, 13, 18))
    twice = fetch_fields(topic, topic_id, {}, {"fetch_offset": 4}, {"partition": 1})
    peer.each("a partition twice", "Fetch", twice, (4, 12, 13))
    for name, missing in ((peer.name("no"), UUID(int=7)), ("", NO_ID), ("a/b", UUID(int=2**128 - 1))):
        question = f"topic {name.replace(peer.prefix, '')!r}"
        peer.each(question, "Fetch", fetch_fields(name, missing, {}), (4, 12, 13, 18))
    for isolation in (-1, 2):
        fields = fetch_fields(topic, topic_id, {}, isolation_level=isolation)
        peer.each(f"isolation {isolation}", "Fetch", fields, (4, 13))
    strange: dict[str, Fields] = {
        "too far": {"fetch_offset": 9},
        "another epoch": {"current_leader_epoch": 5},
        "diverging": {"last_fetched_epoch": 3, "fetch_offset": 2},
        "no such partition": {"partition": 9},
    }
    for kind, asked in strange.items():
        committed = fetch_fields(topic, topic_id, asked, isolation_level=1)
        peer.each(f"{kind}, committed", "Fetch", committed, (12, 18))
    for session, epoch in ((0, -1), (0, 1), (5, 0), (5, 1), (5, -1), (-1, 0), (0, -2)):
        fields = fetch_fields(topic, topic_id, {}, session_id=session, session_epoch=epoch)
        fields["topics"] = []
        peer.each(f"session {session} epoch {epoch}, nothing", "Fetch", fields, (7, 13, 18))
    peer.each("waiting", "Fetch", fetch_fields(topic, topic_id, {"partition": 1}, max_wait_ms=20), (4, 18))
    replica = {"replica_id": -2, "replica_state": {"replica_id": -2, "replica_epoch": -1}}
    peer.each("debugging", "Fetch", fetch_fields(topic, topic_id, {}, **replica), (4, 13, 18))


def fetches_of_zstd(peer: Peer) -> None:
    """Since Kafka 4 no version of Fetch is refused zstd."""
    for name, configs in (("zstd", {"compression_type": "zstd"}), ("unzstd", {})):
        topic_id = peer.create(name, **configs)
        peer.each(f"{name} empty", "Fetch", fetch_fields(peer.name(name), topic_id, {}))
        peer.produce(name, batch(compression=4))
        peer.each(name, "Fetch", fetch_fields(peer.name(name), topic_id, {}))


def delete_records_fields(topic: str, *asked: tuple[int, int], timeout_ms: int = 5000) -> Fields:
    found = [{"partition_index": index, "offset": offset} for index, offset in asked]
    return {"topics": [{"name": topic, "partitions": found}], "timeout_ms": timeout_ms}


def deletions_of_records(peer: Peer) -> None:
    policies = {"delete": "delete", "compact": "compact", "both": "compact,delete", "neither": ""}
    for name, policy in policies.items():
        peer.create(name, 1, cleanup_policy=policy)
        for _ in range(4):
            peer.produce(name, batch())
        for offset in (-2, 5, 2**63 - 1, 1, 0, -1):
            fields = delete_records_fields(peer.name(name), (0, offset))
            peer.each(f"{name} up to {offset}", "DeleteRecords", fields)
    topic = peer.name("delete")
    for index in (-1, 1):
        peer.each(f"partition {index}", "DeleteRecords", delete_records_fields(topic, (index, 0)))
    peer.each("twice", "DeleteRecords", delete_records_fields(topic, (0, 0), (0, 1)), (0, 2))
    names = (
        "__consumer_offsets",
        "__transaction_state",
        peer.name("no"),
        "",
        "a/b",
        "x" * 250,
    )
    for name in names:
        question = f"topic {name.replace(peer.prefix, '')[:30]!r}"
        peer.each(question, "DeleteRecords", delete_records_fields(name, (0, 0), (7, 0)), (0, 2))
    peer.each("nothing", "DeleteRecords", {"topics": [], "timeout_ms": 0}, (0, 2))


def producers_fields(topic: str, *indexes: int) -> Fields:
    return {"topics": [{"name": topic, "partition_indexes": list(indexes)}]}


def producers(peer: Peer) -> None:
    peer.create("producers")
    for name in (peer.name("producers"), peer.name("no"), "", "a/b", "..", "x" * 250, "__transaction_state"):
        question = f"topic {name.replace(peer.prefix, '')[:30]!r}"
        peer.ask(question, "DescribeProducers", 0, **producers_fields(name, 0, 1, -1))
    peer.ask("nothing", "DescribeProducers", 0, topics=[])
    fields = [{"name": peer.name("producers"), "partition_indexes": []}]
    peer.ask("no partition", "DescribeProducers", 0, topics=fields)
    peer.ask("twice", "DescribeProducers", 0, **producers_fields(peer.name("producers"), 0, 0))


def epochs_fields(topic: str, *asked: tuple[int, int, int], replica: int = -1) -> Fields:
    found = [
        {"partition": index, "current_leader_epoch": current, "leader_epoch": epoch}
        for index, current, epoch in asked
    ]
    return {"replica_id": replica, "topics": [{"topic": topic, "partitions": found}]}


def epochs(peer: Peer) -> None:
    peer.create("epochs")
    topic = peer.name("epochs")
    for state in ("empty", "written"):
        for epoch in INTEGERS:
            asked = epochs_fields(topic, (0, -1, epoch))
            peer.each(f"{state}, epoch {epoch}", "OffsetForLeaderEpoch", asked)
            asked = epochs_fields(topic, (0, epoch, 0))
            peer.each(f"{state}, current {epoch}", "OffsetForLeaderEpoch", asked)
        peer.produce("epochs", batch())
    for replica in (-3, -2, 0, 1, 9):
        asked = epochs_fields(topic, (0, -1, 0), replica=replica)
        peer.each(f"replica {replica}", "OffsetForLeaderEpoch", asked, (3, 4))
    peer.each("partition 1", "OffsetForLeaderEpoch", epochs_fields(topic, (1, -1, 0), (-1, -1, 0)))
    for name in (peer.name("no"), "", "a/b"):
        question = f"topic {name.replace(peer.prefix, '')!r}"
        peer.each(question, "OffsetForLeaderEpoch", epochs_fields(name, (0, -1, 0)))


SEQUENCES = (
    what_produce_refuses,
    what_else_produce_refuses,
    transactional_batches,
    bad_records,
    idempotent_producers,
    offsets,
    fetches,
    fetches_of_zstd,
    deletions_of_records,
    producers,
    epochs,
)
