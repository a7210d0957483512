"""`ottla cluster drain`: have other nodes take over everything that one holds, so that it can go."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from ottla.cli import output
from ottla.cli.direct import DirectCluster
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.examples import examples
from ottla.cli.moves import report
from ottla.cli.moves.plan import PlanError, copies, plan
from ottla.cli.moves.requests import Requests, View
from ottla.cli.moves.runner import Copying, wait
from ottla.cli.options import BOOTSTRAP_DEFAULT, Bootstrap, Json, Properties, whole_number
from ottla.cli.reassign import (
    AT_ONCE_DEFAULT,
    AtOnce,
    DryRun,
    How,
    Planned,
    Throttle,
    move,
)

GONE_STEP_S = 0.5
# Which it is, nothing tells that clients can ask for; stopped by itself it would be started again.
OF_SEVERAL = "one of several that 'ottla serve --processes' runs: stop that command, and start it with fewer"
# Topics that are made meanwhile may get replicas on the node: it is emptied again, so many times.
ROUNDS_MAX = 20


@examples(
    ("ottla cluster drain 3 --dry-run", "Show where the replicas of node 3 would go."),
    (
        "ottla cluster drain 3 --unregister",
        "Empty node 3, wait until it is stopped, and remove it from the cluster.",
    ),
)
def drain(
    node: Annotated[int, typer.Argument(metavar="NODE", parser=whole_number(0), help="The node's id.")],
    dry_run: DryRun = False,
    fewer: Annotated[
        bool,
        typer.Option(
            "--allow-fewer-replicas",
            help="Where too few nodes are left for all replicas of a partition, let it have fewer.",
        ),
    ] = False,
    unregister: Annotated[
        bool,
        typer.Option("--unregister", help="Then wait until the node is stopped, and have it forgotten."),
    ] = False,
    throttle: Throttle = None,
    at_once: AtOnce = AT_ONCE_DEFAULT,
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """Move everything off a node, and wait until it holds nothing.

    Replicas go to nodes of the same rack where there are some, and to those that hold least. Clients notice
    nothing. The node may be dead: what it held is copied from the others.
    """
    requests = Requests(DirectCluster(bootstrap, property))
    view = requests.view()
    held = view.held_by(node)
    if node not in view.brokers and not held and not unregister:
        known = ", ".join(map(str, sorted(view.brokers)))
        raise CliError(f"node {node} is not there, and holds nothing; there are: {known}", ExitCode.NOT_FOUND)
    how = How(dry_run=dry_run, throttle=throttle, at_once=at_once, json=json)
    if dry_run:
        _show(requests, view, _planned(view, node, fewer=fewer), how)
        return
    result: dict[str, Any] = {"node": node, **_empty(requests, view, node, how, fewer=fewer)}
    if not json:
        changed = output.counted(result["partitions"], "partition")
        copied = output.counted(result["copied_replicas"], "replica")
        what = f": {changed} changed, {copied} copied" if result["partitions"] else ""
        output.say(f"node {node} holds nothing{what}")
    if unregister:
        _wait_until_gone(requests, node)
        requests.unregister(node)
        result["unregistered"] = True
        if not json:
            output.say(f"node {node} is forgotten")
    elif not json and node in requests.view().brokers:
        output.say(
            "stop it now, before new topics are placed on it; then have it forgotten with "
            f"'ottla cluster drain {node} --unregister'"
        )
        output.say(f"({OF_SEVERAL})")
    if json:
        output.print_json(result)


def _planned(view: View, node: int, *, fewer: bool) -> Planned:
    """What else is to hold the replicas of a node."""
    racks = {other: rack for other, rack in view.racks.items() if other != node}
    if not racks:
        raise CliError(f"there is no node but {node}: start another, which can take over what it holds")
    targets = view.targets()
    # Others that are not there now may be back; what they hold stays with them.
    away = {n for replicas in targets.values() for n in replicas} - view.brokers.keys() - {node}
    try:
        return plan(targets, racks, balance=False, allow_fewer=fewer, keep=away)
    except PlanError as error:
        raise CliError(
            f"{error} without node {node}: start another node, or give --allow-fewer-replicas"
        ) from None


def _empty(requests: Requests, view: View, node: int, how: How, *, fewer: bool) -> dict[str, int]:
    """Move until the node holds nothing; what that took."""
    changed = copied = 0
    for _ in range(ROUNDS_MAX):
        if not view.held_by(node):
            return {"partitions": changed, "copied_replicas": copied}
        planned = _planned(view, node, fewer=fewer)
        if planned:
            done = move(requests, view, planned, how).done
            changed += len(done)
            copied += copies(view.targets(), {partition: planned[partition] for partition in done})
        else:
            # What is left is about to go: somebody else has asked for it.
            wait(requests)
        view = requests.view()
    raise CliError(
        f"node {node} gets new partitions all the time; left: {len(view.held_by(node))}; try again"
    )


def _show(requests: Requests, view: View, planned: Planned, how: How) -> None:
    if how.json:
        from ottla.cli.moves import plan_file

        output.print_json(plan_file.to_document(planned))
    elif planned:
        report.show_plan(view, planned, Copying(requests, view, planned).total_bytes)
    else:
        output.say("nothing to move: it holds nothing")


def _wait_until_gone(requests: Requests, node: int) -> None:
    """Wait until somebody has stopped the node."""
    said = False
    while node in requests.view().brokers:
        if not said:
            output.warn(f"stop node {node} now; it is forgotten as soon as it is gone ({OF_SEVERAL})")
            said = True
        time.sleep(GONE_STEP_S)
