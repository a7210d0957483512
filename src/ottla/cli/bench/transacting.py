"""What the load processes of `ottla bench transactions` do with librdkafka, in transactions and without."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from ottla.cli.bench.workers import (
    CONSUME_MESSAGES_MAX,
    POOL_MESSAGES,
    SILENCE_S_MAX,
    Done,
    Start,
    values,
)

TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class PiecesLoad:
    """Messages that are sent in pieces, each of which is waited for: a transaction, or a flush where
    ``transactional_id`` is None. ``abort_every``: 0, or which of the transactions are aborted.

    ``source``: where messages are read that become the others, by which group.
    """

    settings: dict[str, Any]
    topic: str
    count: int
    size: int
    piece: int
    transactional_id: str | None
    abort_every: int = 0
    source: str = ""
    partitions: tuple[int, ...] = ()
    group: str = ""


def _producer(load: PiecesLoad) -> Any:
    from confluent_kafka import Producer

    settings: dict[str, Any] = {"enable.idempotence": True, "linger.ms": 5, **load.settings}
    if load.transactional_id is not None:
        settings["transactional.id"] = load.transactional_id
    producer = Producer(settings)
    producer.list_topics(load.topic, timeout=10)
    if load.transactional_id is not None:
        producer.init_transactions(TIMEOUT_S)
    return producer


class _Sent:
    """Counts what was not delivered."""

    def __init__(self) -> None:
        self.failed = 0
        self.first: str | None = None

    def __call__(self, error: Any, message: Any) -> None:
        # What an abort takes back has not failed.
        if error is not None and error.name() not in ("_PURGE_QUEUE", "_PURGE_INFLIGHT"):
            self.failed += 1
            self.first = self.first or error.str()


def produce(load: PiecesLoad, start: Start, progress: Any, index: int) -> Done:
    """Send ``count`` messages, a piece after the other. Times are of pieces."""
    producer, sent = _producer(load), _Sent()
    pool = [{"value": value} for value in values(max(POOL_MESSAGES, load.piece), load.size, 1)]
    pieces = [pool[i : i + load.piece] for i in range(0, len(pool) - load.piece + 1, load.piece)]
    start.wait()
    began_s, cpu_s = time.monotonic(), time.process_time()
    times_s: list[float] = []
    count = number = 0
    while count < load.count and sent.first is None:
        piece = pieces[number % len(pieces)][: load.count - count]
        number += 1
        piece_s = time.perf_counter()
        if load.transactional_id is not None:
            producer.begin_transaction()
        if producer.produce_batch(load.topic, piece, on_delivery=sent) < len(piece):
            sent.first = "the messages do not fit into the producer's queue"
        if load.transactional_id is None:
            producer.flush(TIMEOUT_S)
        elif load.abort_every and number % load.abort_every == 0:
            producer.flush(TIMEOUT_S)
            producer.abort_transaction(TIMEOUT_S)
        else:
            producer.commit_transaction(TIMEOUT_S)
        times_s.append(time.perf_counter() - piece_s)
        count += len(piece)
        progress[index] = count
    ended_s, used_s = time.monotonic(), time.process_time() - cpu_s
    done = count - sent.failed
    return Done(
        done, done * load.size, sent.failed, began_s, ended_s, used_s, tuple(times_s), error=sent.first
    )


def process(load: PiecesLoad, start: Start, progress: Any, index: int) -> Done:
    """Read ``count`` messages of ``source``, a piece at a time, and send each on, changed, to ``topic``; then
    the offsets are committed, in the same transaction where there is one. Times are of such rounds."""
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

    consumer = Consumer(
        {
            "group.id": load.group,
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            **load.settings,
        }
    )
    consumer.assign([TopicPartition(load.source, p, OFFSET_BEGINNING) for p in load.partitions])
    producer, sent = _producer(load), _Sent()
    start.wait()
    began_s, cpu_s = time.monotonic(), time.process_time()
    times_s: list[float] = []
    count = size = 0
    while count < load.count and sent.first is None:
        round_s = time.perf_counter()
        piece = consumer.consume(min(load.piece, load.count - count, CONSUME_MESSAGES_MAX), SILENCE_S_MAX)
        if not piece:
            sent.first = f"nothing came for {SILENCE_S_MAX:.0f} s"
            break
        if load.transactional_id is not None:
            producer.begin_transaction()
        for message in piece:
            value = message.value() or b""
            producer.produce(load.topic, value.upper(), on_delivery=sent)
            size += len(value)
        offsets = consumer.position(consumer.assignment())
        if load.transactional_id is None:
            producer.flush(TIMEOUT_S)
            consumer.commit(offsets=[o for o in offsets if o.offset >= 0], asynchronous=False)
        else:
            producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), TIMEOUT_S)
            producer.commit_transaction(TIMEOUT_S)
        times_s.append(time.perf_counter() - round_s)
        count += len(piece)
        progress[index] = count
    ended_s, used_s = time.monotonic(), time.process_time() - cpu_s
    consumer.close()
    return Done(count, size, sent.failed, began_s, ended_s, used_s, tuple(times_s), error=sent.first)
