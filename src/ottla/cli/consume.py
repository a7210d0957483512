"""`ottla consume TOPIC`: print the messages of a topic, up to where it ends now, or as they come."""

from __future__ import annotations

import json as json_module
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ottla.cli import messages, output, positions, ranges
from ottla.cli.client import Cluster, connect
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.examples import examples
from ottla.cli.options import BOOTSTRAP_DEFAULT, Bootstrap, Properties, decimal_number, whole_number
from ottla.cli.positions import Kind, Position
from ottla.cli.reader import Reader, Render, render_each, render_keys, render_values
from ottla.cli.values import check_group, shown
from ottla.numbers import LONG_MAX
from ottla.types import TopicPartition

if TYPE_CHECKING:
    from confluent_kafka import Consumer

# How long a broker may keep a fetch if there is nothing new; and if that is what there is to learn, since
# behind the last message there is the marker of a transaction.
FETCH_WAIT_MS, END_WAIT_MS = 500, 50
# How long no broker may be connected until it is worth a remark, and how often that is looked at.
GONE_S = 5.0
WATCH_MS = 1_000


class Isolation(StrEnum):
    """Whether messages of transactions that were aborted, or are still open, are left out."""

    READ_COMMITTED = "read_committed"
    READ_UNCOMMITTED = "read_uncommitted"


@examples(
    (
        "ottla consume orders --follow --from end --format '{partition}/{offset} {key}: {value}'",
        "Wait for new messages, and print the key and the place of each.",
    ),
    (
        "ottla consume 'orders-.*' --regex --partition 0-3 --from 2h",
        "Print what came in the last two hours into some partitions of several topics.",
    ),
    (
        "ottla consume orders --group billing --max 100 --json",
        "Read 100 messages as a member of a group, and print them as JSON.",
    ),
)
def consume(
    topic: Annotated[
        str,
        typer.Argument(
            metavar="TOPIC", help="The topic to read. With a '^' in front: those whose names match so."
        ),
    ],
    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            "--offset",
            "-o",
            metavar="POSITION",
            show_default="beginning; with --group its offsets",
            help=f"The position to start at: {positions.GRAMMAR}.",
        ),
    ] = None,
    partition: Annotated[
        list[str] | None,
        typer.Option(
            "--partition",
            "-p",
            metavar="N,N-N",
            show_default="all",
            help="Only these partitions, such as 0-5,8. Repeatable.",
        ),
    ] = None,
    regex: Annotated[
        bool,
        typer.Option(
            "--regex",
            "-r",
            help="TOPIC is a regular expression: read each topic whose whole name matches it, except "
            "internal ones. With --follow new topics, too.",
        ),
    ] = False,
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
            show_default="no limit",
            help="Stop after this many messages.",
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            parser=decimal_number(0),
            metavar="SECONDS",
            help="Stop when nothing came for this long, once partitions are assigned.",
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print a JSON document in each line, one for each message.")
    ] = False,
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
    partitions = ",".join(partition) if partition else None
    if partitions is not None:
        ranges.spans("--partition", partitions)
    matches = matching(topic, regex)
    cluster = connect(bootstrap, property)
    names = _names(cluster, topic, matches)
    wanted = _wanted(cluster, names, partitions)
    consumer = _consumer(cluster, group, start, isolation, follow)
    reader = Reader(consumer, render, follow=follow, count_max=max_, idle_s_max=timeout, group=group or None)
    if follow:
        reader.find = _finder(cluster, topic, matches, partitions)
    else:
        reader.ends = cluster.offsets(wanted, Position(Kind.END))
    if group:
        reader.subscribe(names)
    else:
        starts = cluster.offsets(wanted, start)
        for remark in out_of_range(cluster, start, starts):
            output.warn(remark)
        reader.assign(starts)
    if follow:
        # It has no end to be on the way to.
        reader.run(lambda count: None)
        return
    with output.progress(f"Consuming {topic}", max_, prints=True) as show:
        reader.run(show)


def out_of_range(cluster: Cluster, start: Position, starts: dict[TopicPartition, int]) -> Iterator[str]:
    """What there is to say where a position is not in partitions, so that reading starts elsewhere in them,
    as a consumer of Kafka does whose auto.offset.reset is latest or earliest."""
    if start.kind is Kind.TIME and start.value > time.time() * 1000:
        if starts == cluster.offsets(starts, Position(Kind.END)):
            yield f"no message is as new as {positions.format_time(start.value)}"
    elif start.kind is Kind.OFFSET:
        short = [f"{key} ends at offset {offset}" for key, offset in starts.items() if offset < start.value]
        if short:
            yield f"{_several(short)}, before {start.value}: reading starts at the end"
        late = [f"{key} begins at offset {offset}" for key, offset in starts.items() if offset > start.value]
        if late:
            yield f"{_several(late)}, behind {start.value}: reading starts at the beginning"


def _several(remarks: list[str]) -> str:
    """The first remark, and how many partitions there are others like it about."""
    others = len(remarks) - 1
    return remarks[0] + (f" (and {output.counted(others, 'other partition')} likewise)" if others else "")


def matching(topic: str, is_regex: bool) -> Callable[[str], Any] | None:
    """What says whether a topic of a name is meant; None where ``topic`` is a name, not a regular expression.

    As for Kafka's console consumer (--include) all of a name has to match, and the internal topics never do.
    A leading '^', which no name has, makes a regular expression as in librdkafka: a beginning has to match.
    CliError (usage) where it is no regular expression.
    """
    if not is_regex and not topic.startswith("^"):
        return None
    try:
        pattern = re.compile(topic)
    except (re.error, RecursionError, OverflowError) as error:
        raise CliError(f"{shown(topic)} is not a regular expression: {error}", ExitCode.USAGE) from None
    match = pattern.fullmatch if is_regex else pattern.match
    return lambda name: None if name in ranges.INTERNAL else match(name)


def _wanted(cluster: Cluster, topics: Iterable[str], partitions: str | None) -> list[TopicPartition]:
    """The partitions to read. CliError (not found) where there is no such topic or partition."""
    found = []
    for topic in topics:
        known = cluster.partitions(topic)
        if partitions is None:
            found += known
        else:
            numbers = ranges.parse("--partition", partitions, [number for _, number in known])
            found += [TopicPartition(topic, number) for number in numbers]
    return found


def _names(cluster: Cluster, topic: str, matches: Callable[[str], Any] | None) -> list[str]:
    if matches is None:
        return [topic]
    names = sorted(name for name in cluster.metadata.topics if matches(name))
    if not names:
        raise CliError(f"no topic matches {shown(topic)}; see 'ottla topic list'", ExitCode.NOT_FOUND)
    return names


def _finder(
    cluster: Cluster, topic: str, matches: Callable[[str], Any] | None, partitions: str | None
) -> Callable[[], list[TopicPartition]] | None:
    """What looks for topics that come later; None where only one of that name can."""
    if matches is None:
        return None

    def find() -> list[TopicPartition]:
        # If a broker is away, it is asked the next time. If a topic cannot be read, or lacks a partition that
        # is asked for, the others are read.
        found: list[TopicPartition] = []
        with suppress(CliError):
            cluster.refresh()
            for name in _names(cluster, topic, matches):
                with suppress(CliError):
                    found += _wanted(cluster, [name], partitions)
        return found

    return find


def _renderer(json: bool, template: str | None, key_separator: str | None) -> Render:
    if json:
        return render_each(
            lambda message: messages.to_json(message).encode("utf-8", "surrogatepass"), with_headers=True
        )
    if template is not None:
        return render_each(messages.Format(template).render, with_headers="{headers}" in template)
    if key_separator is not None:
        return render_keys(messages.unescape(key_separator).encode("utf-8", "surrogateescape"))
    return render_values


def _consumer(
    cluster: Cluster, group: str | None, start: Position, isolation: Isolation, follow: bool
) -> Consumer:
    return cluster.consumer(
        # A consumer must name a group even where it neither joins one nor commits, and needs no right to it.
        group_id=group or "ottla-consume",
        enable_auto_commit=bool(group),
        enable_auto_offset_store=False,
        auto_offset_reset="latest" if start.kind is Kind.END else "earliest",
        isolation_level=isolation.value,
        enable_partition_eof=True,
        # librdkafka's default pauses for a second whenever it is ahead of us.
        fetch_queue_backoff_ms=10,
        fetch_wait_max_ms=FETCH_WAIT_MS if follow else END_WAIT_MS,
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
