"""`ottla produce TOPIC`: one message per line of standard input."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ottla.cli import messages
from ottla.cli.client import Cluster, connect
from ottla.cli.client_properties import client_properties
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
    decimal_number,
    whole_number,
)
from ottla.cli.output import fail_usage
from ottla.cli.sender import DELIVERY_TIMEOUT_MS, Sender
from ottla.cli.transactional_sender import TransactionalSender
from ottla.cli.values import check_transactional_id
from ottla.numbers import LONG_MAX

if TYPE_CHECKING:
    from confluent_kafka import Producer

# The client waits this long for a topic that the broker may be about to create.
TOPIC_TIMEOUT_MS = 5_000
# librdkafka's own limit is out of the way: how large a message may be is for the topic to say.
MESSAGE_BYTES_MAX = 1_000_000_000

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
    producer = _producer(cluster, acks, compression, property, transactional_id)
    if transactional_id is None:
        sender = Sender(producer, topic, report)
    else:
        sender = TransactionalSender(producer, topic, report, transaction_messages, transaction_seconds)
    sender.run(sys.stdin.buffer, source)


def _bytes(text: str) -> bytes:
    """An argument's bytes as the shell gave them."""
    return text.encode("utf-8", "surrogateescape")


def _producer(
    cluster: Cluster,
    acks: Acks,
    compression: Compression,
    properties: list[str] | None,
    transactional_id: str | None,
) -> Producer:
    settings: dict[str, Any] = {
        "acks": acks.value,
        "compression_type": compression.value,
        "message_max_bytes": MESSAGE_BYTES_MAX,
        "message_timeout_ms": DELIVERY_TIMEOUT_MS,
        "topic_metadata_propagation_max_ms": TOPIC_TIMEOUT_MS,
    }
    # Idempotence keeps the order of lines through retries; it needs acks=all.
    if acks is Acks.ALL and "enable.idempotence" not in client_properties(properties):
        settings["enable_idempotence"] = True
    if transactional_id is not None:
        settings["transactional_id"] = transactional_id
    return cluster.producer(**settings)
