"""Hands messages to a producer, and knows what became of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from ottla.cli import output
from ottla.cli.client import explain
from ottla.cli.errors import CliError
from ottla.cli.messages import Message

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Producer

# How long a message may take from the line that was read to the broker's acknowledgement.
DELIVERY_TIMEOUT_MS = 30_000
FULL_QUEUE_POLL_S = 0.1


class Source(Protocol):
    """How a line becomes a message."""

    @property
    def json(self) -> bool:
        """Whether lines are JSON: an empty one is none then."""
        ...

    def read(self, line: bytes, number: int) -> Message:
        """The message of a line. CliError (usage) where it holds none."""
        ...


class Sender:
    """Hands lines to librdkafka and counts what comes back; the first failure ends the command."""

    def __init__(self, producer: Producer, topic: str, report: bool) -> None:
        self._producer, self._topic, self._report = producer, topic, report
        self._sent = self._done = 0
        self._failure: KafkaError | None = None
        self._show: Callable[[int], None] = lambda count: None

    def run(self, stream: BinaryIO, source: Source) -> None:
        """Send all lines. CliError where one is no message, or is not delivered."""
        interactive = stream.isatty()
        if interactive:
            output.note("type a message and press Enter; Ctrl-D ends")
        with output.progress(f"Producing to {self._topic}") as self._show:
            try:
                self._start()
                for number, line in self._lines(stream, skip_empty=source.json):
                    self._send(self._read(source, line, number))
                    if interactive:
                        self._producer.flush()
                    self._raise()
                self._finish()
            except BaseException as error:
                self._give_up(error)
                raise
        output.note(f"{self._sum()} to {self._topic}")

    def _start(self) -> None:
        """Before the first line."""

    def _finish(self) -> None:
        """Behind the last line. CliError where anything was not delivered."""
        self._producer.flush()
        self._raise()

    def _give_up(self, error: BaseException) -> None:
        """Something failed, or was interrupted: what was read before is still delivered."""
        self._producer.flush(DELIVERY_TIMEOUT_MS / 1000)

    def _sum(self) -> str:
        return output.counted(self._done, "message")

    def _read(self, source: Source, line: bytes, number: int) -> Message:
        try:
            return source.read(line, number)
        except CliError as error:
            self._producer.flush(DELIVERY_TIMEOUT_MS / 1000)
            raise CliError(
                f"{error} (after {output.counted(self._done, 'message')} sent)", error.code
            ) from None

    def _send(self, message: Message) -> None:
        fields: dict[str, Any] = {"key": message.key, "value": message.value, "on_delivery": self._delivered}
        if message.headers:
            fields["headers"] = list(message.headers)
        if message.partition >= 0:
            fields["partition"] = message.partition
        if message.timestamp_ms >= 0:
            fields["timestamp"] = message.timestamp_ms
        from confluent_kafka import KafkaException

        while True:
            try:
                self._producer.produce(self._topic, **fields)
                break
            except BufferError:
                self._producer.poll(FULL_QUEUE_POLL_S)
            except KafkaException as error:
                raise explain(error.args[0], f"topic {self._topic!r}") from None
        self._sent += 1
        self._producer.poll(0)

    def _delivered(self, error: KafkaError | None, message: Any) -> None:
        if error is not None:
            self._failure = self._failure or error
            return
        self._done += 1
        self._show(self._done)
        if self._report:
            self._tell(
                {"topic": message.topic(), "partition": message.partition(), "offset": message.offset()}
            )

    def _tell(self, place: dict[str, Any]) -> None:
        output.print_json(place)

    def _raise(self) -> None:
        if self._failure is not None:
            self._producer.purge()
            what = f"topic {self._topic!r}: {self._done} of {self._sent} messages delivered, then"
            raise explain(self._failure, what)

    def _lines(self, stream: BinaryIO, *, skip_empty: bool) -> Iterator[tuple[int, bytes]]:
        for number, line in enumerate(self._read_lines(stream), 1):
            line = line.removesuffix(b"\n").removesuffix(b"\r")
            if line or not skip_empty:
                yield number, line

    def _read_lines(self, stream: BinaryIO) -> Iterator[bytes]:
        return iter(stream)
