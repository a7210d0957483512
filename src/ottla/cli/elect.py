"""`ottla cluster elect`: have leaders elected."""

from __future__ import annotations

from typing import Annotated

import typer

from ottla.cli import output
from ottla.cli.direct import DirectCluster
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.examples import examples
from ottla.cli.moves.requests import Requests, View
from ottla.cli.options import BOOTSTRAP_DEFAULT, Bootstrap, Json, Properties, whole_number
from ottla.types import TopicPartition


@examples(
    ("ottla cluster elect --all", "Give all partitions their preferred leaders."),
    ("ottla cluster elect orders --partition 0", "Give one partition its preferred leader."),
)
def elect(
    topic: Annotated[
        list[str] | None, typer.Argument(metavar="TOPIC", help="Topics whose leaders to elect.")
    ] = None,
    partition: Annotated[
        list[int] | None,
        typer.Option(
            "--partition", "-p", metavar="N", parser=whole_number(0), help="Only this partition. Repeatable."
        ),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", "-a", help="All topics.")] = False,
    unclean: Annotated[
        bool,
        typer.Option(
            "--unclean",
            help="Where no replica that has all is there, take one that has not: what it lacks is lost.",
        ),
    ] = False,
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """Have partitions led by their preferred leaders again, the first of their replicas.

    Brokers do so by themselves now and then (auto.leader.rebalance.enable).
    """
    if bool(topic) == all_:
        output.fail_usage("name topics, or give --all")
    if partition and all_:
        output.fail_usage("--partition: name its topic, not --all")
    requests = Requests(DirectCluster(bootstrap, property))
    view = requests.view()
    wanted = None if all_ else _partitions(view, topic or [], partition or [])
    found = requests.elect(wanted, unclean=unclean)
    view = requests.view()
    if json:
        output.print_json(
            [{"partition": str(p), "leader": _leader(view, p)} for p in found.elected]
            + [{"partition": str(p), "error": why} for p, why in found.refused.items()]
        )
    else:
        for p in found.elected:
            output.say(f"{p}: led by {_leader(view, p)}")
        if not found.elected and not found.refused:
            output.say("nothing to elect: the leaders are " + ("there" if unclean else "the preferred ones"))
    errors = [CliError(f"{p}: {why}") for p, why in found.refused.items()]
    for error in errors[:-1]:
        output.warn(str(error))
    if errors:
        raise errors[-1]


def _leader(view: View, partition: TopicPartition) -> int | None:
    return view.partitions[partition].leader if partition in view.partitions else None


def _partitions(view: View, topics: list[str], numbers: list[int]) -> list[TopicPartition]:
    partitions = view.of_topics(topics)
    if not numbers:
        return partitions
    wanted = [TopicPartition(topic, number) for topic in topics for number in sorted(set(numbers))]
    for partition in wanted:
        if partition not in view.partitions:
            raise CliError(f"{partition} does not exist", ExitCode.NOT_FOUND)
    return wanted
