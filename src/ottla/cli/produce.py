"""`ottla produce TOPIC`: one message per line of standard input."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from ottla.cli import messages, output
from ottla.cli.client import Cluster, connect, explain
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.messages import Message
from ottla.cli.options import (
    BOOTSTRAP_DEFAULT,
    Acks,
    AcksOption,
    Bootstrap,
    Compression,
    CompressionOption,
    Properties,
    parse_pairs,
    whole_number,
)

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Producer

# How long a message may take from the line that was read to the broker's acknowledgement.
DELIVERY_TIMEOUT_MS = 30_000
# The client waits this long for a topic that the broker may be about to create.
TOPIC_TIMEOUT_MS = 5_000
FULL_QUEUE_POLL_S = 0.1
# librdkafka's own limit is out of the way: how large a message may be is for the topic to say.
MESSAGE_BYTES_MAX = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Source:
    """How a line becomes a message."""

    json: bool
    key: bytes | None
    key_separator: bytes | None
    headers: tuple[messages.Header, ...]
    partition: int
    null: bytes | None

    def read(self, line: bytes, number: int) -> Message:
        if self.json:
            try:
                message = messages.from_json(line)
            except ValueError as error:
                raise CliError(f"line {number}: {error}", ExitCode.USAGE) from None
            key, value, headers = message.key, message.value, self.headers + message.headers
            partition = message.partition if self.partition < 0 else self.partition
            return message._replace(
                key=self.key if key is None else key, value=value, headers=headers, partition=partition
            )
        key, text = messages.from_line(line, self.key_separator)
        value = None if self.null is not None and text == self.null else text
        return Message(self.key if key is None else key, value, self.headers, partition=self.partition)


def produce(
    topic: Annotated[
        str, typer.Argument(metavar="TOPIC", help="The topic; the broker creates it where it allows that.")
    ],
    key: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The key of every message that has none of its own.")
    ] = None,
    key_separator: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Split each line here into key and value, such as ':' or '\\t'."),
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option("--header", "-H", metavar="NAME=VALUE", help="A header on every message. Repeatable."),
    ] = None,
    partition: Annotated[
        int | None,
        typer.Option(
            parser=whole_number(0), help="The partition; else the key's, or any where there is no key."
        ),
    ] = None,
    null: Annotated[
        str | None, typer.Option(metavar="TEXT", help="A value equal to this is sent as null (a tombstone).")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Read JSON lines, in the form that 'ottla consume --json' prints.")
    ] = False,
    report: Annotated[
        bool, typer.Option("--report", help="Print a JSON line with partition and offset for each message.")
    ] = False,
    acks: AcksOption = Acks.ALL,
    compression: CompressionOption = Compression.NONE,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """Send standard input to a topic, one message per line.

    Ends with code 0 only when the broker has acknowledged every message.
    """
    source = Source(
        json=json,
        key=None if key is None else _bytes(key),
        key_separator=_bytes(messages.unescape(key_separator)) if key_separator else None,
        headers=messages.parse_headers(header),
        partition=-1 if partition is None else partition,
        null=None if null is None else _bytes(null),
    )
    cluster = connect(bootstrap, property)
    if partition is not None and topic in cluster.metadata.topics:
        cluster.partitions(topic, [partition])
    sender = _Sender(_producer(cluster, acks, compression, property), topic, report)
    sender.run(sys.stdin.buffer, source)


def _bytes(text: str) -> bytes:
    """An argument's bytes as the shell gave them."""
    return text.encode("utf-8", "surrogateescape")


def _producer(
    cluster: Cluster, acks: Acks, compression: Compression, properties: list[str] | None
) -> Producer:
    settings: dict[str, Any] = {
        "acks": acks.value,
        "compression_type": compression.value,
        "message_max_bytes": MESSAGE_BYTES_MAX,
        "message_timeout_ms": DELIVERY_TIMEOUT_MS,
        "topic_metadata_propagation_max_ms": TOPIC_TIMEOUT_MS,
    }
    # Idempotence keeps the order of lines through retries; it needs acks=all.
    if acks is Acks.ALL and "enable.idempotence" not in parse_pairs("--property", properties):
        settings["enable_idempotence"] = True
    return cluster.producer(**settings)


class _Sender:
    """Hands lines to librdkafka and counts what comes back; the first failure ends the command."""

    def __init__(self, producer: Producer, topic: str, report: bool) -> None:
        self._producer, self._topic, self._report = producer, topic, report
        self._sent = self._done = 0
        self._failure: KafkaError | None = None
        self._show: Callable[[int], None] = lambda count: None

    def run(self, stream: BinaryIO, source: Source) -> None:
        interactive = stream.isatty()
        if interactive:
            output.note("type a message and press Enter; Ctrl-D ends")
        with output.progress(f"Producing to {self._topic}") as self._show:
            try:
                for number, line in _lines(stream, skip_empty=source.json):
                    self._send(self._read(source, line, number))
                    if interactive:
                        self._producer.flush()
                    self._raise()
                self._producer.flush()
            except BaseException:
                # What was read before the interruption is still delivered.
                self._producer.flush(DELIVERY_TIMEOUT_MS / 1000)
                raise
        self._raise()
        output.note(f"{_messages(self._done)} to {self._topic}")

    def _read(self, source: Source, line: bytes, number: int) -> Message:
        try:
            return source.read(line, number)
        except CliError as error:
            self._producer.flush(DELIVERY_TIMEOUT_MS / 1000)
            raise CliError(f"{error} (after {_messages(self._done)} sent)", error.code) from None

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
            place = {"topic": message.topic(), "partition": message.partition(), "offset": message.offset()}
            output.print_json(place)

    def _raise(self) -> None:
        if self._failure is not None:
            self._producer.purge()
            what = f"topic {self._topic!r}: {self._done} of {self._sent} messages delivered, then"
            raise explain(self._failure, what)


def _messages(count: int) -> str:
    return f"{count} message" + ("" if count == 1 else "s")


def _lines(stream: BinaryIO, *, skip_empty: bool) -> Iterator[tuple[int, bytes]]:
    for number, line in enumerate(stream, 1):
        line = line.removesuffix(b"\n").removesuffix(b"\r")
        if line or not skip_empty:
            yield number, line
