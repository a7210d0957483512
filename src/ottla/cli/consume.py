"""`ottla consume TOPIC`: print the messages of a topic, up to where it ends now, or as they come."""

from __future__ import annotations

import json as json_module
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ottla.cli import messages, output, positions
from ottla.cli.client import Cluster, connect, explain
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.messages import Message
from ottla.cli.options import BOOTSTRAP_DEFAULT, Bootstrap, Properties, decimal_number, whole_number
from ottla.cli.positions import Kind, Position
from ottla.cli.values import check_group
from ottla.numbers import LONG_MAX
from ottla.types import TopicPartition

if TYPE_CHECKING:
    from confluent_kafka import Consumer

FETCH_MESSAGES_MAX = 1_000
POLL_S = 0.2
# How long no broker may be connected until it is worth a remark, and how often that is looked at.
GONE_S = 5.0
WATCH_MS = 1_000


class Isolation(StrEnum):
    """Whether messages of transactions that were aborted, or are still open, are left out."""

    READ_COMMITTED = "read_committed"
    READ_UNCOMMITTED = "read_uncommitted"


def consume(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="The topic to read.")],
    from_: Annotated[
        str | None, typer.Option("--from", metavar="POSITION", help=f"Where to start: {positions.GRAMMAR}.")
    ] = None,
    partition: Annotated[
        list[int] | None,
        typer.Option(
            "--partition", "-p", metavar="N", parser=whole_number(0), help="Only this partition. Repeatable."
        ),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            "--group", "-g", help="Join this group: start at its offsets, and commit what was printed."
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Wait for new messages; Ctrl-C ends.")
    ] = False,
    max_: Annotated[
        int | None,
        typer.Option(
            "--max",
            "-n",
            metavar="N",
            parser=whole_number(1, LONG_MAX),
            help="Stop after this many messages.",
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            parser=decimal_number(0), metavar="SECONDS", help="Stop when nothing came for this long."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON line for each message.")] = False,
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="TEMPLATE",
            help="Print each message so: '{partition} {offset} {key}: {value}'; also {timestamp}, "
            "{timestamp_ms}, {headers}, {topic}.",
        ),
    ] = None,
    key_separator: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Print the key and this text before the value.")
    ] = None,
    isolation: Annotated[
        Isolation, typer.Option(help="Whether open and aborted transactions are left out.")
    ] = Isolation.READ_COMMITTED,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """Print a topic's messages, the value of each on a line.

    Without --follow it ends where the topic ended when the command started. With --group, --from says where
    to start in partitions for which the group has no offset.
    """
    check_group(group or "")
    if group and partition:
        raise CliError(
            "--group and --partition: the group assigns the partitions; leave one out", ExitCode.USAGE
        )
    if sum((json, format_ is not None, key_separator is not None)) > 1:
        raise CliError("--json, --format, --key-separator: give one of them", ExitCode.USAGE)
    start = positions.parse("--from", "beginning" if from_ is None else from_, int(time.time() * 1000))
    if group and start.kind not in (Kind.BEGINNING, Kind.END):
        raise CliError(
            "--from with --group: give beginning or end (or see 'ottla group reset-offsets')", ExitCode.USAGE
        )
    render = _renderer(json, format_, key_separator)
    cluster = connect(bootstrap, property)
    wanted = cluster.partitions(topic, partition)
    consumer = _consumer(cluster, group, start, isolation)
    reader = _Reader(consumer, render, follow=follow, count_max=max_, idle_s_max=timeout, commits=bool(group))
    reader.with_headers = json or "{headers}" in (format_ or "")
    reader.ends = {} if follow else cluster.offsets(wanted, Position(Kind.END))
    if group:
        reader.subscribe(topic)
    else:
        starts = cluster.offsets(wanted, start)
        for remark in out_of_range(cluster, start, starts):
            output.warn(remark)
        reader.assign(starts)
    with output.progress(f"Consuming {topic}", max_) as show:
        reader.run(show)


def out_of_range(cluster: Cluster, start: Position, starts: dict[TopicPartition, int]) -> Iterator[str]:
    """What there is to say where a position is not in a partition, so that reading starts elsewhere."""
    if start.kind is Kind.TIME and start.value > time.time() * 1000:
        if starts == cluster.offsets(starts, Position(Kind.END)):
            yield f"no message is as new as {positions.format_time(start.value)}"
    elif start.kind is Kind.OFFSET:
        for partition, offset in starts.items():
            if offset < start.value:
                yield f"{partition} ends at offset {offset}, before {start.value}"
            elif offset > start.value:
                yield f"{partition} begins at offset {offset}, behind {start.value}"


def _renderer(json: bool, template: str | None, key_separator: str | None) -> Callable[[Message], bytes]:
    if json:
        return lambda message: messages.to_json(message).encode("utf-8", "surrogatepass")
    if template is not None:
        return messages.Format(template).render
    if key_separator is not None:
        separator = messages.unescape(key_separator).encode("utf-8", "surrogateescape")
        return lambda message: (message.key or b"") + separator + (message.value or b"")
    return lambda message: message.value or b""


def _consumer(cluster: Cluster, group: str | None, start: Position, isolation: Isolation) -> Consumer:
    return cluster.consumer(
        # A consumer must name a group even where it neither joins one nor commits.
        group_id=group or "ottla-consume",
        enable_auto_commit=bool(group),
        enable_auto_offset_store=False,
        auto_offset_reset="latest" if start.kind is Kind.END else "earliest",
        isolation_level=isolation.value,
        enable_partition_eof=True,
        # librdkafka's default pauses for a second whenever it is ahead of us.
        fetch_queue_backoff_ms=10,
        allow_auto_create_topics=False,
        statistics_interval_ms=WATCH_MS,
        stats=_Watch(cluster.bootstrap).see,
    )


class _Watch:
    """Says when no broker has been connected for a while, and when one is again: librdkafka keeps trying."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._connected_s = time.monotonic()
        self._is_gone = False

    def see(self, statistics: str) -> None:
        """The next statistics of librdkafka."""
        now_s = time.monotonic()
        if any(broker["state"] == "UP" for broker in json_module.loads(statistics)["brokers"].values()):
            self._connected_s = now_s
            if self._is_gone:
                output.warn("a broker is back")
            self._is_gone = False
        elif not self._is_gone and now_s - self._connected_s >= GONE_S - WATCH_MS / 1000:
            output.warn(
                f"no broker can be reached any more ({self._bootstrap}): waiting for one to come back"
            )
            self._is_gone = True


@dataclass
class _Reader:
    """Reads until it is done, and knows when that is."""

    consumer: Consumer
    render: Callable[[Message], bytes]
    follow: bool
    count_max: int | None
    idle_s_max: float | None
    commits: bool
    # Whether headers are printed: otherwise nobody looks at them.
    with_headers: bool = False
    # First offsets not to print, by partition; empty when following.
    ends: dict[TopicPartition, int] = field(default_factory=dict)
    # Partitions assigned and not yet read to their end; None until there is an assignment.
    pending: set[TopicPartition] | None = None
    stopped: bool = False
    count: int = 0

    def assign(self, starts: dict[TopicPartition, int]) -> None:
        """Read these partitions from these offsets, without a group."""
        from confluent_kafka import TopicPartition as ClientPartition

        self.pending = {key for key, offset in starts.items() if self.follow or offset < self.ends[key]}
        self.consumer.assign([ClientPartition(*key, starts[key]) for key in starts if key in self.pending])

    def subscribe(self, topic: str) -> None:
        """Join the group and read what it assigns."""
        output.note("joining the group")

        def assigned(consumer: Consumer, partitions: list[Any]) -> None:
            self.pending = (self.pending or set()) | {
                TopicPartition(p.topic, p.partition) for p in partitions
            }

        def revoked(consumer: Consumer, partitions: list[Any]) -> None:
            self.pending = (self.pending or set()) - {
                TopicPartition(p.topic, p.partition) for p in partitions
            }

        self.consumer.subscribe([topic], on_assign=assigned, on_revoke=revoked)

    def run(self, show: Callable[[int], None]) -> None:
        """Print until the end, the limit, the idle time, or a signal."""
        previous = [(number, signal.signal(number, self._stop)) for number in (signal.SIGINT, signal.SIGTERM)]
        last_s = time.monotonic()
        try:
            while not self._finished():
                before = self.count
                self._batch()
                show(self.count)
                now = time.monotonic()
                if self.count != before:
                    last_s = now
                elif self.idle_s_max is not None and now - last_s >= self.idle_s_max:
                    break
        finally:
            self.consumer.close()
            for number, handler in previous:
                signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopped = True

    def _finished(self) -> bool:
        if self.stopped or (self.count_max is not None and self.count >= self.count_max):
            return True
        return not self.follow and self.pending is not None and not self.pending

    def _batch(self) -> None:
        limit = FETCH_MESSAGES_MAX
        if self.count_max is not None:
            limit = min(limit, self.count_max - self.count)
        # One that we wait for, and those that are there already: nothing is held back to fill a batch.
        batch = self.consumer.consume(1, POLL_S)
        if batch and limit > 1:
            batch += self.consumer.consume(limit - 1, 0)
        lines, printed = [], []
        for item in batch:
            if item.error() is not None:
                self._event(item)
            elif (message := self._accept(item)) is not None:
                lines.append(self.render(message))
                printed.append(item)
        if lines:
            sys.stdout.buffer.write(b"\n".join(lines) + b"\n")
            sys.stdout.buffer.flush()
            self.count += len(lines)
        if self.commits:
            # Only what has left this process is committed: a reader that dies sees it again.
            for item in printed:
                self.consumer.store_offsets(item)

    def _accept(self, item: Any) -> Message | None:
        partition = TopicPartition(item.topic(), item.partition())
        end = self.ends.get(partition)
        if end is not None and self.pending is not None and item.offset() >= end - 1:
            self.pending.discard(partition)
            if item.offset() >= end:
                return None
        kind, timestamp_ms = item.timestamp()
        return Message(
            item.key(),
            item.value(),
            self._headers(item),
            *partition,
            item.offset(),
            timestamp_ms if kind else -1,
        )

    def _headers(self, item: Any) -> tuple[messages.Header, ...]:
        if not self.with_headers:
            return ()
        try:
            return tuple(item.headers() or ())
        except (UnicodeDecodeError, SystemError) as error:
            # The binding makes a SystemError of the other one.
            if not isinstance(error.__cause__ or error, UnicodeDecodeError):
                raise
            place = f"{item.topic()}-{item.partition()}, offset {item.offset()}"
            raise CliError(f"{place}: the name of a header is not UTF-8, and cannot be shown") from None

    def _event(self, item: Any) -> None:
        error = item.error()
        if error.name() == "_PARTITION_EOF":
            if self.pending is not None and not self.follow:
                self.pending.discard(TopicPartition(item.topic(), item.partition()))
        elif not error.retriable() or error.fatal():
            raise explain(error, f"topic {item.topic()!r}" if item.topic() else "consume")
