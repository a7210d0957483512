"""The detector: reads what the agents measure, and says when something is wrong, once.

    metrics.samples ---> this, with a file of its own ---> metrics.scores, metrics.alerts

It may be killed at any time: see `store.py`. Its group has the offsets as well, for whoever wants to know how
far behind it is (`ottla group describe metrics.detector`); what counts is the file.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition

from examples.common.command import stop_event
from examples.metrics import samples, topics
from examples.metrics.incidents import WATCHES, Series, Watch, watches
from examples.metrics.store import Store
from examples.metrics.usual import RiverScorer

READ_MAX = 500
READ_WAIT_S = 0.2
ASK_TIMEOUT_S = 20.0
FLUSH_TIMEOUT_S = 30.0
# A host that makes up names does not fill our memory.
SERIES_MAX = 5000


class Detector:
    """Everything but the loop."""

    def __init__(self, bootstrap: str, store: Store, watched: list[Watch]) -> None:
        self._bootstrap = bootstrap
        self._store = store
        self._watches = watched
        self._series: dict[tuple[str, str], Series] = {}
        self._unwatched: set[str] = set()
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "client.id": "detector",
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 5,
            }
        )
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "client.id": "detector",
                "group.id": topics.DETECTOR,
                "enable.auto.commit": False,
                # What is gone is gone: go on with what there is, and say so by the count of messages.
                "auto.offset.reset": "earliest",
            }
        )

    def start(self) -> None:
        """Go on where the file says; without one, at the end of the topic."""
        partitions = [TopicPartition(topics.SAMPLES, p) for p in range(topics.PARTITIONS[topics.SAMPLES])]
        positions = self._store.positions()
        if not positions:
            positions = {
                p.partition: self._consumer.get_watermark_offsets(p, ASK_TIMEOUT_S)[1] for p in partitions
            }
            self._store.begin(positions, self._alerts_end())
        for (host, name), saved in self._store.series().items():
            if series := self._of(host, name):
                series.restore(saved)
        self._send_outbox(self._store.unsent(self._bootstrap))
        for partition in partitions:
            partition.offset = positions[partition.partition]
        self._consumer.assign(partitions)

    def _alerts_end(self) -> int:
        partition = TopicPartition(topics.ALERTS, 0)
        return int(self._consumer.get_watermark_offsets(partition, ASK_TIMEOUT_S)[1])

    def _of(self, host: str, name: str) -> Series | None:
        """The series, if it is watched."""
        if series := self._series.get((host, name)):
            return series
        if name in self._unwatched or len(self._series) >= SERIES_MAX:
            return None
        watch = next((watch for watch in self._watches if watch.matches(name)), None)
        if watch is None:
            if len(self._unwatched) < SERIES_MAX:
                self._unwatched.add(name)
            return None
        series = self._series[host, name] = Series(host, name, watch, RiverScorer(watch.floor))
        return series

    def step(self) -> None:
        """Read some messages, and take them up: all of them, or after a crash none."""
        messages: list[Message] = self._consumer.consume(READ_MAX, READ_WAIT_S)
        if not messages:
            return
        read: dict[int, tuple[int, int]] = {}
        changed: dict[tuple[str, str], Series] = {}
        scores: list[dict[str, Any]] = []
        alerts: list[dict[str, Any]] = []
        for message in messages:
            if error := message.error():
                raise KafkaException(error)
            partition = message.partition()
            read[partition] = (message.offset() + 1, read.get(partition, (0, 0))[1] + 1)
            for reading in samples.read(message.value()):
                series = self._of(reading.host, reading.series)
                taken = series.step(reading.at_ms, reading.value) if series is not None else None
                if series is None or taken is None:
                    continue
                changed[reading.host, reading.series] = series
                score, alert = taken
                scores.append(score)
                alerts += [alert] if alert else []
        self._store.step(read, {key: series.saved() for key, series in changed.items()}, alerts)
        for score in scores:
            self._produce(topics.SCORES, score)
        if alerts:
            self._send_outbox(alerts)
        self._producer.poll(0)
        offsets = [TopicPartition(topics.SAMPLES, p, offset) for p, (offset, _) in read.items()]
        self._consumer.commit(offsets=offsets, asynchronous=True)

    def _produce(self, topic: str, content: dict[str, Any], **options: Any) -> None:
        key = f"{content['host']}/{content['series']}"
        while True:
            try:
                return self._producer.produce(topic, topics.encode(content), key, **options)
            except BufferError:
                # The broker is slow: so are we.
                self._producer.poll(0.5)

    def _send_outbox(self, alerts: list[dict[str, Any]]) -> None:
        """Send them, and be sure that they are there; if that cannot be, end: the file still has them."""
        failures: list[str] = []

        def delivered(error: Any, _message: Message) -> None:
            if error is not None:
                failures.append(str(error))

        for alert in alerts:
            print(f"{alert['state']}: {alert['incident']} {alert['reasons']}", flush=True)
            self._produce(topics.ALERTS, alert, on_delivery=delivered)
        if self._producer.flush(FLUSH_TIMEOUT_S) or failures:
            raise SystemExit(f"alerts could not be sent: {failures or 'the broker does not answer'}")
        if self._store.outbox():
            self._store.sent(self._alerts_end())

    def close(self) -> None:
        self._producer.flush(FLUSH_TIMEOUT_S)
        self._consumer.close()


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--bootstrap", required=True, metavar="HOST:PORT")
    options.add_argument("--store", type=Path, required=True, help="the file that it keeps")
    options.add_argument("--watches", type=Path, default=WATCHES, help="what is watched (watches.toml)")
    arguments = options.parse_args()
    stop = stop_event()
    topics.create(arguments.bootstrap)
    with contextlib.closing(Store(arguments.store)) as store:
        detector = Detector(arguments.bootstrap, store, watches(arguments.watches))
        detector.start()
        print("watching", flush=True)
        while not stop.is_set():
            detector.step()
        detector.close()
    sys.stdout.flush()


if __name__ == "__main__":
    main()
