"""What the load processes do with librdkafka. Each function here runs in a process of its own.

Python costs more for a message than a broker does, so messages go to and from librdkafka in large lists, and
only failures are reported back one by one.
"""

from __future__ import annotations

import random
import struct
import time
from dataclasses import dataclass
from typing import Any, Protocol

# Distinct values that a producer cycles through; enough that compression cannot see the repetition.
POOL_MESSAGES = 8192
WORDS = 1000
CHUNK_MESSAGES = 1024
CONSUME_MESSAGES_MAX = 10_000
POLL_S = 0.2
QUEUE_MESSAGES_MAX = 500_000
QUEUE_KBYTES_MAX = 512 * 1024
DRAIN_TIMEOUT_S = 60.0
# A consumer that gets nothing for so long has lost its broker.
SILENCE_S_MAX = 30.0
STAMP = struct.Struct("<d")
# What messages of the warm-up carry in place of a time.
WARMUP_STAMP = -1.0


class Start(Protocol):
    """The barrier at which all load processes and the measuring one meet."""

    def wait(self, timeout: float | None = None) -> int: ...


@dataclass(frozen=True, slots=True)
class Load:
    """What one process does. ``count`` is in messages, as is ``warmup_count``, which comes before and is not
    measured; ``partitions`` are those that it reads."""

    settings: dict[str, Any]
    topic: str
    count: int
    size: int = 0
    partitions: tuple[int, ...] = ()
    rate_per_s: float = 0.0
    warmup_count: int = 0
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Done:
    """What a process did. Times are of the machine's monotonic clock."""

    count: int
    bytes_total: int
    failed: int
    began_s: float
    ended_s: float
    cpu_s: float
    latencies_s: tuple[float, ...] = ()
    error: str | None = None
    # Of transactions alone: how long each commit took, and what had to be asked again.
    commits_s: tuple[float, ...] = ()
    retried: int = 0


def values(count: int, size: int, seed: int) -> list[bytes]:
    """``count`` values of ``size`` bytes: words of a small made-up language, work for a codec."""
    rng = random.Random(seed)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(rng.choices(letters, k=rng.randint(3, 10))) for _ in range(WORDS)]
    needed = min(count * size, 4_000_000) + size + 1
    parts: list[str] = []
    length = 0
    while length < needed:
        chosen = rng.choices(words, k=1000)
        parts += chosen
        length += sum(map(len, chosen)) + len(chosen)
    data = " ".join(parts).encode()
    step = max(1, (len(data) - size) // max(1, count))
    return [data[i * step % (len(data) - size) :][:size] for i in range(count)]


class _Failures:
    def __init__(self) -> None:
        self.count = 0
        self.first: str | None = None

    def __call__(self, error: Any, message: Any) -> None:
        if error is not None:
            self.count += 1
            self.first = self.first or error.str()


def produce(load: Load, start: Start, progress: Any, index: int) -> Done:
    """Send ``count`` messages as fast as they go, and wait for every acknowledgement."""
    from confluent_kafka import Producer

    failures = _Failures()
    producer = Producer(
        {
            "queue.buffering.max.messages": 2 * QUEUE_MESSAGES_MAX,
            "queue.buffering.max.kbytes": 2 * QUEUE_KBYTES_MAX,
            "delivery.report.only.error": True,
            **load.settings,
        }
    )
    pool = [{"value": value} for value in values(POOL_MESSAGES, load.size, load.seed)]
    chunks = [pool[i : i + CHUNK_MESSAGES] for i in range(0, len(pool), CHUNK_MESSAGES)]
    producer.list_topics(load.topic, timeout=10)
    queue_max = max(CHUNK_MESSAGES, min(QUEUE_MESSAGES_MAX, QUEUE_KBYTES_MAX * 1024 // max(1, load.size)))
    start.wait()
    began_s, cpu_s = time.monotonic(), time.process_time()
    sent = 0
    while sent < load.count and not failures.first:
        while len(producer) > queue_max:
            producer.poll(0.005)
        chunk = chunks[sent // CHUNK_MESSAGES % len(chunks)]
        if load.count - sent < len(chunk):
            chunk = chunk[: load.count - sent]
        sent += producer.produce_batch(load.topic, chunk, on_delivery=failures)
        producer.poll(0)
        progress[index] = sent - len(producer)
    left = producer.flush(DRAIN_TIMEOUT_S)
    failed = failures.count + left
    if left and not failures.first:
        failures.first = f"{left} messages were not acknowledged within {DRAIN_TIMEOUT_S:.0f} s"
    ended_s = time.monotonic()
    done = sent - failed
    return Done(
        done, done * load.size, failed, began_s, ended_s, time.process_time() - cpu_s, error=failures.first
    )


def consume(load: Load, start: Start, progress: Any, index: int) -> Done:
    """Read ``count`` messages from the beginning of the partitions."""
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

    consumer = Consumer(
        {
            "group.id": "ottla-bench",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            # Without these librdkafka pauses for a second whenever it is ahead of the application.
            "queued.min.messages": 1_000_000,
            "queued.max.messages.kbytes": 256 * 1024,
            "fetch.queue.backoff.ms": 5,
            **load.settings,
        }
    )
    consumer.list_topics(load.topic, timeout=10)
    start.wait()
    began_s, cpu_s = time.monotonic(), time.process_time()
    consumer.assign([TopicPartition(load.topic, p, OFFSET_BEGINNING) for p in load.partitions])
    count = size = failed = 0
    error = None
    last_s = began_s
    while count < load.count:
        batch = consumer.consume(min(CONSUME_MESSAGES_MAX, load.count - count), POLL_S)
        now = time.monotonic()
        if not batch:
            if now - last_s > SILENCE_S_MAX:
                error = f"nothing came for {SILENCE_S_MAX:.0f} s"
                break
            continue
        last_s = now
        for message in batch:
            if (problem := message.error()) is None:
                count += 1
                size += len(message)
            else:
                failed += 1
                error = error or problem.str()
        progress[index] = count
    ended_s = time.monotonic()
    used_s = time.process_time() - cpu_s
    consumer.close()
    return Done(count, size, failed, began_s, ended_s, used_s, error=error)


def pace(load: Load, start: Start, progress: Any, index: int) -> Done:
    """Send at a fixed rate, each message stamped with the time when it left this process.

    Meets ``receive`` twice: when both are connected, and when both have warmed up.
    """
    from confluent_kafka import Producer

    failures = _Failures()
    producer = Producer({"linger.ms": 0, "delivery.report.only.error": True, **load.settings})
    padding = values(1, max(0, load.size - STAMP.size), load.seed)[0]
    producer.list_topics(load.topic, timeout=10)

    def send(count: int, *, is_warmup: bool) -> None:
        began_s = time.monotonic()
        for number in range(count):
            due_s = began_s + number / load.rate_per_s
            while (left_s := due_s - time.monotonic()) > 0:
                time.sleep(left_s)
            stamp = STAMP.pack(WARMUP_STAMP if is_warmup else time.monotonic())
            producer.produce(load.topic, stamp + padding, partition=0, on_delivery=failures)
            producer.poll(0)
            if not is_warmup:
                progress[index] = number
        failures.count += producer.flush(DRAIN_TIMEOUT_S)

    start.wait()
    send(load.warmup_count, is_warmup=True)
    start.wait()
    failures.count = 0
    began_s, cpu_s = time.monotonic(), time.process_time()
    send(load.count, is_warmup=False)
    done = load.count - failures.count
    return Done(
        done,
        done * load.size,
        failures.count,
        began_s,
        time.monotonic(),
        time.process_time() - cpu_s,
        error=failures.first,
    )


def receive(load: Load, start: Start, progress: Any, index: int) -> Done:
    """Take what ``pace`` sends, and note how long each message was under way; the warm-up is left out."""
    from confluent_kafka import OFFSET_END, Consumer, TopicPartition

    consumer = Consumer(
        {
            "group.id": "ottla-bench",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            **load.settings,
        }
    )
    consumer.assign([TopicPartition(load.topic, 0, OFFSET_END)])
    deadline_s = time.monotonic() + 15
    # At the end of the partition, and only from here on, can no message be missed.
    while (event := consumer.poll(0.2)) is None or event.error() is None:
        if time.monotonic() > deadline_s:
            break
    latencies: list[float] = []

    def take(count: int, *, is_warmup: bool) -> tuple[int, float]:
        """How many came, and when the last did."""
        taken, last_s = 0, time.monotonic()
        while taken < count and time.monotonic() - last_s < 5.0 + 1 / load.rate_per_s:
            message = consumer.poll(0.5)
            if message is None or message.error() is not None:
                continue
            (sent_s,) = STAMP.unpack_from(message.value() or b"")
            if (sent_s == WARMUP_STAMP) is not is_warmup:
                continue
            taken, last_s = taken + 1, time.monotonic()
            if not is_warmup:
                latencies.append(last_s - sent_s)
        return taken, last_s

    start.wait()
    take(load.warmup_count, is_warmup=True)
    start.wait()
    began_s, cpu_s = time.monotonic(), time.process_time()
    count, last_s = take(load.count, is_warmup=False)
    used_s = time.process_time() - cpu_s
    consumer.close()
    missing = load.count - count
    error = f"{missing} of {load.count} messages did not arrive" if missing else None
    return Done(count, count * load.size, missing, began_s, last_s, used_s, tuple(latencies), error)
