"""A handler for Python's logging that writes to Kafka, and never holds the program up.

    logging.getLogger().addHandler(KafkaHandler("127.0.0.1:9092", service="checkout"))

`emit` puts the line into librdkafka's queue and returns: microseconds, whether the broker answers or not.
librdkafka batches, compresses and sends from a thread of its own. The queue has a limit; what does not fit,
or is not delivered in time, is dropped and counted, and the next line that gets through says how many.

Make one in each process, after it has forked.
"""

from __future__ import annotations

import datetime
import logging
import socket

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from examples.logs import topics


class KafkaHandler(logging.Handler):
    """Sends each record to `topic` as JSON, with the service as its key.

    `queued_max` lines wait at most, each for `timeout_ms` at most; `linger_ms` is how long a batch is
    collected. `dropped` counts the lines that are lost, `sent` those that the broker has."""

    def __init__(
        self,
        bootstrap: str,
        *,
        service: str,
        topic: str = topics.LINES,
        queued_max: int = 20_000,
        linger_ms: int = 100,
        timeout_ms: int = 60_000,
    ) -> None:
        super().__init__()
        self.sent = 0
        self.dropped = 0
        self._told = 0
        self._service = service
        self._topic = topic
        self._host = socket.gethostname()
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "client.id": service,
                "enable.idempotence": True,
                "compression.type": "lz4",
                "linger.ms": linger_ms,
                "message.timeout.ms": timeout_ms,
                "queue.buffering.max.messages": queued_max,
                # Its own troubles belong neither on the program's stderr nor into the log that it carries.
                "log_level": 0,
            }
        )

    def emit(self, record: logging.LogRecord) -> None:
        """Never blocks, never raises."""
        try:
            line = self._encoded(record.created, record.levelname, self.format(record), record.process)
        except (TypeError, ValueError):
            self.handleError(record)
            return
        if self._send(line) and self.dropped > self._told:
            missing, self._told = self.dropped - self._told, self.dropped
            text = f"{missing} lines of this service were dropped before this one"
            self._send(self._encoded(record.created, "WARNING", text, record.process))

    def close(self, timeout_s: float = 10.0) -> None:
        """Wait until what is queued is sent, but no longer than `timeout_s`; the rest is dropped."""
        if self._producer.flush(timeout_s):
            self._producer.purge()
            # Serves the reports of what was purged, which counts it.
            self._producer.flush(1.0)
        super().close()

    def _encoded(self, at_s: float, level: str, text: str, pid: int | None) -> bytes:
        at = datetime.datetime.fromtimestamp(at_s, datetime.UTC).isoformat(timespec="milliseconds")
        return topics.encode(
            {
                "at": at,
                "host": self._host,
                "service": self._service,
                "level": topics.LEVELS.get(level, level.lower()),
                "pid": str(pid),
                "text": text,
                "via": "python",
            }
        )

    def _send(self, line: bytes) -> bool:
        """Queue it; False if there is no room."""
        # Serves the delivery reports that are there, which is what makes room.
        self._producer.poll(0)
        try:
            self._producer.produce(self._topic, line, self._service, on_delivery=self._delivered)
        except (BufferError, KafkaException):
            self.dropped += 1
            return False
        return True

    def _delivered(self, error: KafkaError | None, _: Message) -> None:
        if error is None:
            self.sent += 1
        else:
            self.dropped += 1
