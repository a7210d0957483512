"""`ottla logdirs`: the data directories of each node and what is in them, as kafka-log-dirs.sh shows it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Annotated, Any, NamedTuple

import typer

from ottla.cli import output, ranges
from ottla.cli.direct import DirectCluster, Unanswered, check, error_name
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.examples import examples
from ottla.cli.moves.report import size
from ottla.cli.options import BOOTSTRAP_DEFAULT, Bootstrap, BrokerIds, Json, Properties
from ottla.cli.output import Cell
from ottla.cli.requests import ClusterRequests, by_topic
from ottla.cli.rights import Right
from ottla.errors import ErrorCode


class Replica(NamedTuple):
    """The log of a partition. ``lag``: the offsets that it has yet to copy; ``future``: it is being moved to
    this directory from another one of the node."""

    topic: str
    partition: int
    size_bytes: int
    lag: int
    future: bool


class Directory(NamedTuple):
    """A data directory; ``error`` is Kafka's name of the error, or None. -1: it is not said."""

    node: int
    path: str
    error: str | None
    total_bytes: int
    usable_bytes: int
    replicas: list[Replica]

    @property
    def size_bytes(self) -> int:
        return sum(replica.size_bytes for replica in self.replicas)


@examples(
    ("ottla logdirs", "Show the data directories of all nodes, with the size of each topic."),
    ("ottla logdirs --topic orders --partitions", "Show the size of each partition of a topic."),
)
def logdirs(
    broker_id: BrokerIds = None,
    topic: Annotated[
        list[str] | None, typer.Option("--topic", "-t", metavar="TOPIC", help="Only this topic. Repeatable.")
    ] = None,
    partitions: Annotated[
        bool, typer.Option("--partitions", help="Show each partition in a row of its own.")
    ] = False,
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """Show the data directories of each node: the size and the lag of each topic in them, and totals.

    Lag is the number of offsets that a replica has yet to copy, of the replica that is furthest behind. If a
    node does not answer, the others are shown, and the command exits with 3. This needs the right to describe
    the cluster.
    """
    found: list[Directory] = []
    silent: list[CliError] = []
    with closing(DirectCluster(bootstrap, property)) as cluster:
        requests = ClusterRequests(cluster)
        nodes = requests.nodes()
        for node in broker_id or ():
            requests.check_node(node)
        # A broker tells of a partition once for each time that it is asked.
        names = None if topic is None else dict.fromkeys(topic)
        wanted = None if names is None else [one for name in names for one in requests.partitions(name)]
        topics = None
        if wanted is not None:
            topics = [{"topic": name, "partitions": indexes} for name, indexes in by_topic(wanted).items()]
        for node in sorted(set(broker_id or nodes)):
            try:
                found += _ask(cluster, node, topics)
            except Unanswered as error:
                silent.append(CliError(f"node {node} does not answer: {error}", ExitCode.UNREACHABLE))
    if json:
        output.print_json([_json(directory) for directory in found])
    else:
        _show(found, partitions)
    output.raise_last(silent)


def _ask(cluster: DirectCluster, node: int, topics: Sequence[Any] | None) -> list[Directory]:
    right = Right("describe", "cluster")
    answer = cluster.ask_node(node, "DescribeLogDirs", {"topics": topics})
    code = getattr(answer, "error_code", 0)
    if not code and not answer.results:
        # Before version 3 a broker says so that the right is missing: each has a directory.
        code = ErrorCode.cluster_authorization_failed
    check(code, None, f"node {node}", right)
    return [
        Directory(
            node,
            one.log_dir,
            error_name(one.error_code).upper().replace(" ", "_") if one.error_code else None,
            getattr(one, "total_bytes", -1),
            getattr(one, "usable_bytes", -1),
            [
                Replica(
                    topic.name,
                    each.partition_index,
                    each.partition_size,
                    each.offset_lag,
                    each.is_future_key,
                )
                for topic in sorted(one.topics, key=lambda found: ranges.users_first(found.name))
                for each in sorted(topic.partitions, key=lambda found: int(found.partition_index))
            ],
        )
        for one in answer.results
    ]


def _show(found: Sequence[Directory], partitions: bool) -> None:
    rows = [row for directory in found for row in (_each if partitions else _by_topic)(directory)]
    if rows:
        word = "partition" if partitions else "partitions"
        output.table(("node", "directory", "topic", word, "bytes", "lag", "future"), rows, right=(4, 5))
        output.say()
    for directory in found:
        output.say(f"node {directory.node}, {directory.path}: {_total(directory)}")
    if len(found) > 1:
        replicas = sum(len(directory.replicas) for directory in found)
        everything = sum(directory.size_bytes for directory in found)
        output.say(f"all: {output.counted(replicas, 'replica')}, {size(everything)}")


def _total(directory: Directory) -> str:
    if directory.error is not None:
        return f"offline ({directory.error})"
    parts = [
        output.counted(len(directory.replicas), "replica"),
        size(directory.size_bytes),
    ]
    if directory.usable_bytes >= 0:
        free = f"{size(directory.usable_bytes)} of {size(directory.total_bytes)}"
        parts.append(f"{free} of the volume are free")
    return ", ".join(parts)


def _each(directory: Directory) -> list[tuple[Cell, ...]]:
    return [
        (
            directory.node,
            directory.path,
            replica.topic,
            replica.partition,
            replica.size_bytes,
            replica.lag,
            "future" if replica.future else None,
        )
        for replica in directory.replicas
    ]


def _by_topic(directory: Directory) -> list[tuple[Cell, ...]]:
    topics: dict[str, list[Replica]] = {}
    for replica in directory.replicas:
        topics.setdefault(replica.topic, []).append(replica)
    return [
        (
            directory.node,
            directory.path,
            topic,
            ranges.numbers(replica.partition for replica in replicas),
            sum(replica.size_bytes for replica in replicas),
            max(replica.lag for replica in replicas),
            ranges.numbers(replica.partition for replica in replicas if replica.future) or None,
        )
        for topic, replicas in topics.items()
    ]


def _json(directory: Directory) -> dict[str, Any]:
    return {
        "node_id": directory.node,
        "directory": directory.path,
        "error": directory.error,
        "total_bytes": directory.total_bytes if directory.total_bytes >= 0 else None,
        "usable_bytes": directory.usable_bytes if directory.usable_bytes >= 0 else None,
        "size_bytes": directory.size_bytes,
        "partitions": [
            {
                "topic": replica.topic,
                "partition": replica.partition,
                "size_bytes": replica.size_bytes,
                "lag": replica.lag,
                "future": replica.future,
            }
            for replica in directory.replicas
        ],
    }
