"""`ottla topic trim`: delete the records before an offset or a time (DeleteRecords, KIP-107)."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, NamedTuple

import typer

from ottla.cli import output, positions, ranges
from ottla.cli.client import REQUEST_TIMEOUT_S, Cluster, connect
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.examples import examples
from ottla.cli.options import BOOTSTRAP_DEFAULT, Bootstrap, Json, Properties
from ottla.cli.positions import Kind, Position
from ottla.cli.rights import Right
from ottla.text import printable
from ottla.types import TopicPartition


class Cut(NamedTuple):
    """Where a partition begins, and where it is to begin."""

    where: TopicPartition
    start: int
    new_start: int

    @property
    def offsets(self) -> int:
        return self.new_start - self.start

    def to_json(self) -> dict[str, Any]:
        return {
            "partition": self.where.partition,
            "start_offset": self.start,
            "new_start_offset": self.new_start,
            "deleted_offsets": self.offsets,
        }


@examples(
    ("ottla topic trim orders --before 1000", "Delete the records before offset 1000, after a question."),
    ("ottla topic trim orders --before 7d --dry-run", "Show what is older than seven days."),
    (
        "ottla topic trim orders --before 0-2=end --before 3=-100 --yes",
        "Empty partitions 0 to 2, and keep the last 100 offsets of partition 3.",
    ),
)
def trim(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="The topic's name.")],
    before: Annotated[
        list[str],
        typer.Option(
            "--before",
            metavar="[N-N=]POSITION",
            help="Delete the records before this position: an offset, a time, a span back from now, -N for "
            "all but the last N, or 'end' for all. 0-5=POSITION is for these partitions. Repeatable.",
        ),
    ],
    partition: Annotated[
        str | None,
        typer.Option(
            "--partition",
            "-p",
            metavar="N,N-N",
            show_default="all",
            help="Only these partitions, such as 0-5,8.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be deleted, and delete nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """Delete the records of a topic before an offset or a time. It shows what, and asks.

    Deleted records stay deleted, and consumers that are before the new start go on from it. The records that
    arrive meanwhile are kept, also with 'end'. A topic that is only compacted cannot be trimmed. This needs
    the rights to describe the topic and to delete.
    """
    asked = _asked(before, partition)
    cluster = connect(bootstrap, property)
    wanted = _wanted(asked, [one.partition for one in cluster.partitions(topic)])
    cuts = _cuts(cluster, topic, wanted)
    doomed = [cut for cut in cuts if cut.offsets]
    if not json:
        output.table(
            ("partition", "start", "new start", "deleted"),
            [(cut.where.partition, cut.start, cut.new_start, cut.offsets) for cut in cuts],
        )
    if doomed and not dry_run and not yes:
        _confirm(topic, doomed)
    done, errors = _delete(cluster, doomed) if doomed and not dry_run else ([], [])
    if json:
        shown = cuts if dry_run else done
        document = {"topic": topic, "executed": not dry_run, "partitions": [cut.to_json() for cut in shown]}
        output.print_json(document)
    elif dry_run or not doomed:
        output.warn("nothing was deleted" + ("" if doomed else ": no partition has records before that"))
    else:
        count = output.counted(sum(cut.offsets for cut in done), "offset")
        partitions = output.counted(len(done), "partition")
        output.say(f"{topic}: {count} deleted in {partitions}")
    output.raise_last(errors)


def _asked(before: Sequence[str], partition: str | None) -> list[tuple[str | None, Position]]:
    """Each position with its partitions, None for all that have none. CliError (usage) where they make no
    sense, whatever the topic is."""
    now_ms = int(time.time() * 1000)
    if partition is not None:
        ranges.spans("--partition", partition)
    asked: list[tuple[str | None, Position]] = []
    for text in before:
        numbers, equals, where = text.rpartition("=")
        if equals:
            ranges.spans("--before", numbers)
        asked.append((numbers if equals else partition, positions.parse("--before", where, now_ms)))
        if equals and partition is not None:
            output.fail_usage("--partition: give partitions there, or in --before; not both")
    if sum("=" not in text for text in before) > 1:
        output.fail_usage("--before: give one position for all partitions, or N-N=POSITION for each")
    return asked


def _wanted(asked: Sequence[tuple[str | None, Position]], known: Sequence[int]) -> dict[Position, list[int]]:
    """The partitions that are to begin at each position."""
    chosen: dict[int, Position] = {}
    for numbers, position in asked:
        for number in ranges.parse("partitions", numbers, known) if numbers is not None else ():
            if number in chosen:
                output.fail_usage(f"--before: partition {number} is named twice")
            chosen[number] = position
    rest = [position for numbers, position in asked if numbers is None]
    found: dict[Position, list[int]] = {}
    for number in known:
        if number in chosen or rest:
            found.setdefault(chosen[number] if number in chosen else rest[0], []).append(number)
    return found


def _cuts(cluster: Cluster, topic: str, wanted: dict[Position, list[int]]) -> list[Cut]:
    cuts = []
    for position, numbers in wanted.items():
        partitions = [TopicPartition(topic, number) for number in numbers]
        starts = cluster.offsets(partitions, Position(Kind.BEGINNING))
        targets = cluster.offsets(partitions, position)
        for where in partitions:
            # An offset is cut to what the log holds, so that it says where that ends.
            if position.kind is Kind.OFFSET and targets[where] < position.value:
                raise CliError(
                    f"--before {position.value}: {where} ends at offset {targets[where]}; "
                    "give 'end' to delete all of it",
                    ExitCode.USAGE,
                )
            cuts.append(Cut(where, starts[where], max(starts[where], targets[where])))
    return sorted(cuts)


def _confirm(topic: str, doomed: Sequence[Cut]) -> None:
    if not sys.stdin.isatty():
        output.fail_usage("this deletes records for good: give --yes, or --dry-run to see which")
    offsets = output.counted(sum(cut.offsets for cut in doomed), "offset")
    where = f"{output.counted(len(doomed), 'partition')} of {printable(topic)}"
    if not typer.confirm(f"Delete {offsets} in {where} for good?", err=True):
        raise CliError("nothing was deleted")


def _delete(cluster: Cluster, doomed: Iterable[Cut]) -> tuple[list[Cut], list[CliError]]:
    from confluent_kafka import TopicPartition as ClientPartition

    cuts = {cut.where: cut for cut in doomed}
    futures = cluster.admin.delete_records(
        [ClientPartition(*cut.where, cut.new_start) for cut in cuts.values()],
        request_timeout=REQUEST_TIMEOUT_S,
        operation_timeout=REQUEST_TIMEOUT_S,
    )
    done, errors = [], []
    for key, future in futures.items():
        where = TopicPartition(key.topic, key.partition)
        try:
            result = cluster.wait(future, str(where), Right("delete", "topic", where.topic))
            done.append(cuts[where]._replace(new_start=max(result.low_watermark, cuts[where].new_start)))
        except CliError as error:
            errors.append(error)
    return sorted(done), errors
