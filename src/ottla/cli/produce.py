"""`ottla produce TOPIC`: one message per line of standard input."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ottla.cli import messages
from ottla.cli.client import connect
from ottla.cli.client_properties import client_properties
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.examples import examples
from ottla.cli.lines import LINE_BYTES_MAX
from ottla.cli.options import (
    BOOTSTRAP_DEFAULT,
    Acks,
    AcksOption,
    Bootstrap,
    Compression,
    CompressionOption,
    Properties,
    decimal_number,
    whole_number,
)
from ottla.cli.output import fail_usage
from ottla.cli.sender import DELIVERY_TIMEOUT_MS, Delivered, Row, Sender
from ottla.cli.transactional_sender import TransactionalSender
from ottla.cli.values import check_transactional_id
from ottla.numbers import LONG_MAX

if TYPE_CHECKING:
    from confluent_kafka import Producer

# The client waits this long for a topic that the broker may be about to create.
TOPIC_TIMEOUT_MS = 5_000
# librdkafka takes the present time for it.
NOW = 0
# librdkafka's own limit is out of the way: how large a message may be is for the topic to say.
MESSAGE_BYTES_MAX = LINE_BYTES_MAX

TransactionalId = Annotated[
    str | None,
    typer.Option(
        metavar="ID",
        help="Send in a transaction, as the producer of this id: all lines in one, unless the next two "
        "options end it. It fences whoever produces with the same id.",
    ),
]
TransactionMessages = Annotated[
    int | None,
    typer.Option(metavar="N", parser=whole_number(1, LONG_MAX), help="Commit after so many messages."),
]
TransactionSeconds = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        parser=decimal_number(0.001),
        help="Commit so long after a transaction's first message. The broker aborts what is open for "
        "longer than a minute: see -X transaction.timeout.ms.",
    ),
]


@dataclass(frozen=True, slots=True)
class Source:
    """How a line becomes a message."""

    json: bool
    key: bytes | None
    key_separator: bytes | None
    headers: tuple[messages.Header, ...]
    partition: int
    null: bytes | None

    def rows(self, topic: str, lines: list[bytes], number: int) -> tuple[list[Row], CliError | None]:
        """What Producer.produce is to be called with; see ottla.cli.sender."""
        if self.json:
            return self._json_rows(topic, lines, number)
        keys: Iterable[bytes | None] = repeat(self.key)
        values: Sequence[bytes | None] = lines
        bad: CliError | None = None
        if self.key_separator:
            try:
                keys, values = messages.split_lines(lines, self.key_separator)
            except messages.BadLine as error:
                bad = CliError(f"line {number + error.index}: {error}", ExitCode.USAGE)
                keys, values = messages.split_lines(lines[: error.index], self.key_separator)
        if self.null is not None:
            values = [None if value == self.null else value for value in values]
        rest: tuple[Any, ...] = ()
        if self.headers:
            rest = (None, None, NOW, list(self.headers))
        return list(zip(repeat(topic), values, keys, repeat(self.partition), *map(repeat, rest))), bad

    def _json_rows(self, topic: str, lines: list[bytes], number: int) -> tuple[list[Row], CliError | None]:
        rows: list[Row] = []
        for index, line in enumerate(lines, number):
            if not line:
                continue
            try:
                message = messages.from_json(line)
            except ValueError as error:
                return rows, CliError(f"line {index}: {error}", ExitCode.USAGE)
            key = self.key if message.key is None else message.key
            partition = message.partition if self.partition < 0 else self.partition
            headers = [*self.headers, *message.headers] or None
            rows.append(
                (topic, message.value, key, partition, None, None, max(NOW, message.timestamp_ms), headers)
            )
        return rows, None


@examples(
    ("echo hello | ottla produce orders", "Send one message."),
    (
        "printf 'k1:one\\nk2:two\\n' | ottla produce orders --key-separator : --header source=shell",
        "Send two messages with keys, and a header on both.",
    ),
    (
        "ottla produce orders --transactional-id loader --transaction-messages 1000 < orders.txt",
        "Send the lines of a file in transactions of 1000 messages.",
    ),
)
def produce(
    topic: Annotated[
        str, typer.Argument(metavar="TOPIC", help="The topic; the broker creates it where it allows that.")
    ],
    key: Annotated[
        str | None,
        typer.Option(
            "--key", "-k", metavar="TEXT", help="The key of every message that has none of its own."
        ),
    ] = None,
    key_separator: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Split each line here into key and value, such as ':' or '\\t'; a line without it is "
            "refused.",
        ),
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option("--header", "-H", metavar="NAME=VALUE", help="A header on every message. Repeatable."),
    ] = None,
    partition: Annotated[
        int | None,
        typer.Option(
            "--partition",
            "-p",
            metavar="N",
            parser=whole_number(0),
            show_default="by the key, or any if there is no key",
            help="The partition of every message.",
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
    transactional_id: TransactionalId = None,
    transaction_messages: TransactionMessages = None,
    transaction_seconds: TransactionSeconds = None,
    acks: AcksOption = Acks.ALL,
    compression: CompressionOption = Compression.NONE,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """Send standard input to a topic, one message per line.

    Ends with code 0 only when the broker has acknowledged every message. With --transactional-id that is when
    all is committed: what is open at an error, or at Ctrl-C, is aborted.
    """
    if transactional_id is not None:
        check_transactional_id(transactional_id)
        if acks is not Acks.ALL:
            fail_usage("--transactional-id: a transaction needs --acks all")
    elif transaction_messages is not None or transaction_seconds is not None:
        fail_usage("--transaction-messages, --transaction-seconds: give --transactional-id as well")
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
    settings = _settings(acks, compression, property, transactional_id, report)

    def make(delivered: Delivered) -> Producer:
        return cluster.producer(on_delivery=delivered, **settings)

    if transactional_id is None:
        sender = Sender(make, topic, report)
    else:
        sender = TransactionalSender(make, topic, report, transaction_messages, transaction_seconds)
    sender.run(sys.stdin.buffer, source)


def _bytes(text: str) -> bytes:
    """An argument's bytes as the shell gave them."""
    return text.encode("utf-8", "surrogateescape")


def _settings(
    acks: Acks,
    compression: Compression,
    properties: list[str] | None,
    transactional_id: str | None,
    report: bool,
) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "acks": acks.value,
        "compression_type": compression.value,
        "message_max_bytes": MESSAGE_BYTES_MAX,
        "message_timeout_ms": DELIVERY_TIMEOUT_MS,
        "topic_metadata_propagation_max_ms": TOPIC_TIMEOUT_MS,
        # A call for each message that arrives takes longer than all else about it.
        "delivery_report_only_error": not report,
    }
    # Idempotence keeps the order of lines through retries; it needs acks=all.
    if acks is Acks.ALL and "enable.idempotence" not in client_properties(properties):
        settings["enable_idempotence"] = True
    if transactional_id is not None:
        settings["transactional_id"] = transactional_id
    return settings
