"""`ottla cluster reassign`: move replicas to other nodes, change how many there are, or see what moves."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ottla.cli import output
from ottla.cli.direct import DirectCluster
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.examples import examples
from ottla.cli.moves import plan_file, report, throttle
from ottla.cli.moves.outcome import Outcome, compare
from ottla.cli.moves.plan import PlanError, copies, plan
from ottla.cli.moves.requests import Requests, View
from ottla.cli.moves.runner import Copying, carry_out_with_progress, wait
from ottla.cli.options import BOOTSTRAP_DEFAULT, Bootstrap, Json, Properties, whole_number
from ottla.cli.values import whole
from ottla.numbers import INT_MAX, LONG_MAX
from ottla.types import TopicPartition

AT_ONCE_DEFAULT = 50
# So many of those that are not as planned are named.
MISSED_SHOWN_MAX = 5
# How often, and after what time, it is looked again where something is not as planned.
LOOKS_MAX = 5
LOOK_STEP_S = 0.2

Planned = Mapping[TopicPartition, Sequence[int]]

Topics = Annotated[
    str | None, typer.Option("--topics", "-t", metavar="A,B,…", help="The topics whose replicas to move.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan, and move nothing.")]
Throttle = Annotated[
    int | None,
    typer.Option(
        "--throttle",
        metavar="BYTES",
        parser=whole_number(1, LONG_MAX),
        show_default="no limit",
        help="Copy no more than so many bytes a second, each broker.",
    ),
]
AtOnce = Annotated[
    int,
    typer.Option(
        "--at-once", metavar="N", parser=whole_number(1), help="How many partitions move at the same time."
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """How a plan is carried out. ``throttle``: bytes a second for each broker."""

    dry_run: bool
    throttle: int | None
    at_once: int
    json: bool


Targets = Annotated[
    str | None,
    typer.Option(
        "--to",
        metavar="N,N,…",
        show_default="all nodes that are there",
        help="The nodes that are to hold the replicas.",
    ),
]


@examples(
    (
        "ottla cluster reassign --all --dry-run",
        "Show which replicas would move so that all nodes have their share.",
    ),
    (
        "ottla cluster reassign --topics orders,payments --to 1,2,3 --throttle 10000000",
        "Move two topics to three nodes, with 10 MB a second.",
    ),
    ("ottla cluster reassign", "Show what is moving."),
)
def reassign(
    topics: Topics = None,
    all_: Annotated[bool, typer.Option("--all", "-a", help="All topics, those of brokers too.")] = False,
    to: Targets = None,
    replication_factor: Annotated[
        int | None,
        typer.Option(
            "--replication-factor",
            "-r",
            metavar="N",
            parser=whole_number(1),
            show_default="as it is",
            help="The number of replicas of each partition.",
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", "-f", metavar="FILE", help="A plan in Kafka's JSON, as --dry-run --json has it."
        ),
    ] = None,
    dry_run: DryRun = False,
    throttle: Throttle = None,
    at_once: AtOnce = AT_ONCE_DEFAULT,
    wait_: Annotated[
        bool, typer.Option("--wait", help="Wait until nothing moves, and remove a throttle.")
    ] = False,
    cancel: Annotated[
        bool,
        typer.Option("--cancel", help="Undo what is under way, of all topics or those of --topics."),
    ] = False,
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """Spread replicas over nodes anew, with the fewest moves, and wait until it is done.

    After a node was added, 'ottla cluster reassign --all' gives it its share. Racks are kept apart, and
    leaders are spread as well. With nothing to do given, shows what is moving.

    Ctrl-C ends the command only; what moves goes on ('--wait' waits for it, '--cancel' undoes it).
    """
    chosen = [name for name, given in _actions(topics, all_, file, wait_, cancel) if given]
    if len(chosen) > 1:
        output.fail_usage(f"give one of {' and '.join(chosen)}")
    if (to or replication_factor) and not (topics or all_):
        output.fail_usage("--to and --replication-factor: say of what, with --topics or --all")
    cluster = DirectCluster(bootstrap, property)
    requests = Requests(cluster)
    view = requests.view()
    names = split(topics)
    if cancel:
        cancel_moves(requests, view, names, json=json)
    elif wait_:
        wait_for_moves(requests, view, json=json)
    elif file is not None:
        planned = _checked(view, plan_file.read(file))
        execute(requests, view, planned, How(dry_run=dry_run, throttle=throttle, at_once=at_once, json=json))
    elif names or all_:
        planned = _planned(view, None if all_ else names, _nodes(to), replication_factor)
        execute(requests, view, planned, How(dry_run=dry_run, throttle=throttle, at_once=at_once, json=json))
    else:
        show_moves(view, json=json)


def _actions(
    topics: str | None, all_: bool, file: Path | None, wait: bool, cancel: bool
) -> list[tuple[str, bool]]:
    """What can be asked for, one at a time; --topics only narrows --cancel."""
    return [
        ("--topics", topics is not None and not cancel),
        ("--all", all_),
        ("--file", file is not None),
        ("--wait", wait),
        ("--cancel", cancel),
    ]


def split(names: str | None) -> list[str]:
    """The names of a list with commas."""
    return [name for name in (part.strip() for part in (names or "").split(",")) if name]


def _nodes(text: str | None) -> list[int] | None:
    if text is None:
        return None
    parts = split(text)
    if not parts:
        raise CliError("--to: give node ids with commas between them, such as 1,2,3", ExitCode.USAGE)
    return sorted({whole("--to", part, 0, INT_MAX) for part in parts})


def _planned(
    view: View, topics: Sequence[str] | None, to: Sequence[int] | None, factor: int | None
) -> Planned:
    """The plan that spreads topics (None: all) over nodes (None: all that are there)."""
    targets = view.targets()
    partitions = list(targets) if topics is None else view.of_topics(topics)
    view.check_nodes(to or ())
    racks = {node: rack for node, rack in view.racks.items() if to is None or node in to}
    if to is None:
        _check_all_there(view, [targets[p] for p in partitions])
    others = Counter(n for p, replicas in targets.items() for n in replicas)
    others.subtract(n for p in partitions for n in targets[p])
    try:
        return plan({p: targets[p] for p in partitions}, racks, replication_factor=factor, others=others)
    except PlanError as error:
        raise CliError(f"{error}; start more nodes, or give a smaller --replication-factor") from None


def _check_all_there(view: View, assigned: Iterable[Sequence[int]]) -> None:
    """CliError where a node that holds something is not there: is it to be given up, or only restarting?"""
    away = sorted({node for replicas in assigned for node in replicas} - view.brokers.keys())
    if away:
        raise CliError(
            f"node {report.nodes(away)} holds replicas and is not there: start it, or say with --to which "
            "nodes are to hold all of them"
        )


def _checked(view: View, planned: Planned) -> Planned:
    """What of a plan from a file is not so already. CliError where it does not fit the cluster."""
    for partition in planned:
        if partition not in view.partitions:
            raise CliError(f"--file: {partition} does not exist", ExitCode.NOT_FOUND)
    view.check_nodes(sorted({node for replicas in planned.values() for node in replicas}))
    targets = view.targets()
    return {p: replicas for p, replicas in planned.items() if tuple(replicas) != targets[p]}


def execute(requests: Requests, view: View, planned: Planned, how: How) -> None:
    """Show a plan, or have it carried out and say what was done."""
    copying = Copying(requests, view, planned)
    if how.dry_run:
        if how.json:
            output.print_json(plan_file.to_document(planned))
        elif planned:
            report.show_plan(view, planned, copying.total_bytes)
        else:
            output.say(_nothing_to_move(view))
        return
    if not planned:
        if how.json:
            _report(Outcome([], {}), 0, 0, json=True)
        else:
            output.say(_nothing_to_move(view))
        return
    outcome = move(requests, view, planned, how)
    done = {partition: planned[partition] for partition in outcome.done}
    _report(outcome, copies(view.targets(), done), copying.bytes_of(outcome.done), json=how.json)


def _nothing_to_move(view: View) -> str:
    """Why there is nothing to do: all is so already, or is about to be."""
    if not view.ongoing:
        return "nothing to move: everything is where the plan would have it"
    moving = output.counted(len(view.ongoing), "partition")
    return (
        f"nothing more to move: what the plan asks for is so, or under way already ({moving} moving); "
        "'ottla cluster reassign' shows it, --wait waits for it"
    )


def _report(outcome: Outcome, copied: int, copied_bytes: int, *, json: bool) -> None:
    """Say what came about; CliError where something did not."""
    if json:
        output.print_json(
            {
                "partitions": len(outcome.done),
                "copied_replicas": copied,
                "copied_bytes": copied_bytes,
                "not_changed": {str(partition): why for partition, why in outcome.missed.items()},
            }
        )
    else:
        what = f"; {output.counted(copied, 'replica')} copied, {report.size(copied_bytes)}" if copied else ""
        output.say(f"{output.counted(len(outcome.done), 'partition')} changed{what}")
    fail_missed(outcome)


def fail_missed(outcome: Outcome) -> None:
    """CliError where partitions are not as planned; it names some of them."""
    if not outcome.missed:
        return
    several = [f"{partition} {why}" for partition, why in outcome.missed.items()]
    more = len(several) - MISSED_SHOWN_MAX
    raise CliError(
        f"{len(several)} of {len(several) + len(outcome.done)} partitions are not as planned: "
        + "; ".join(several[:MISSED_SHOWN_MAX])
        + (f"; and {more} more" if more > 0 else "")
    )


def move(requests: Requests, view: View, planned: Planned, how: How) -> Outcome:
    """Carry a plan out, wait until it is done, and look what has come of it."""
    current = view.targets()
    if how.throttle is not None:
        throttle.set_throttle(requests, current, planned, how.throttle)
    try:
        carry_out_with_progress(requests, view, planned, at_once=how.at_once)
    except KeyboardInterrupt:
        left = len(requests.ongoing())
        output.warn(
            f"{left} partitions go on moving; 'ottla cluster reassign --wait' waits for them, "
            "--cancel undoes it"
        )
        raise
    if how.throttle is not None:
        nodes = {node for p in planned for node in (*current[p], *planned[p])}
        throttle.remove_throttle(requests, {p.topic for p in planned}, nodes)
    outcome = look(requests, current, planned)
    elect_preferred(requests, outcome.done)
    return outcome


def look(requests: Requests, before: Planned, planned: Planned) -> Outcome:
    """What came of a plan. Who is asked may know of it a moment later than who said that nothing moves."""
    outcome = compare(before, planned, requests.view())
    for _ in range(LOOKS_MAX):
        if not outcome.missed:
            break
        time.sleep(LOOK_STEP_S)
        outcome = compare(before, planned, requests.view())
    return outcome


def elect_preferred(requests: Requests, moved: Sequence[TopicPartition]) -> None:
    """Have the preferred leaders of moved partitions elected; where one cannot be now, it will be later."""
    refused = requests.elect(moved).refused if moved else {}
    for partition, why in refused.items():
        output.note(f"{partition}: its preferred leader does not lead yet: {why}")


def show_moves(view: View, *, json: bool) -> None:
    """What is under way."""
    if json:
        output.print_json(
            [
                {
                    "topic": p.topic,
                    "partition": p.partition,
                    "replicas": list(o.target),
                    "adding": list(o.adding),
                    "removing": list(o.removing),
                }
                for p, o in view.ongoing.items()
            ]
        )
    elif view.ongoing:
        output.table(
            ("partition", "to be", "adding", "removing", "in sync"),
            [
                (
                    str(p),
                    report.nodes(o.target),
                    report.nodes(o.adding) or None,
                    report.nodes(o.removing) or None,
                    report.nodes(view.partitions[p].isr) if p in view.partitions else None,
                )
                for p, o in view.ongoing.items()
            ],
        )
    else:
        output.say("no partition is moving; --topics A,B or --all says what to move, --help how")


def wait_for_moves(requests: Requests, view: View, *, json: bool) -> None:
    """Wait until nothing moves."""
    before = {partition: found.before for partition, found in view.ongoing.items()}
    planned = {partition: found.target for partition, found in view.ongoing.items()}
    wait(requests)
    throttle.remove_throttle(requests, {p.topic for p in view.ongoing}, view.brokers)
    outcome = look(requests, before, planned) if planned else Outcome([], {})
    if json:
        missed = {str(partition): why for partition, why in outcome.missed.items()}
        output.print_json({"partitions": len(outcome.done), "not_changed": missed})
    elif planned:
        output.say(f"{output.counted(len(outcome.done), 'partition')} changed")
    else:
        output.say("no partition was moving")
    fail_missed(outcome)


def cancel_moves(requests: Requests, view: View, topics: Sequence[str], *, json: bool) -> None:
    """Undo what is under way: each partition's replicas are as they were."""
    if topics:
        view.of_topics(topics)
    wanted = [p for p in view.ongoing if not topics or p.topic in topics]
    cancelled = requests.reassign(dict.fromkeys(wanted)) if wanted else []
    left = [p for p in view.ongoing if p not in set(wanted)]
    throttle.remove_throttle(requests, {p.topic for p in wanted}, () if left else view.brokers)
    if json:
        output.print_json([{"topic": p.topic, "partition": p.partition} for p in cancelled])
    elif wanted:
        for partition in wanted:
            output.say(f"{partition}: {'cancelled' if partition in cancelled else 'does not move any more'}")
    else:
        output.say("no partition was moving")
