"""`ottla cluster wait`: wait until all is in sync, as between the steps of a rolling restart."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from ottla.cli import output, ranges
from ottla.cli.client import Cluster
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.examples import examples
from ottla.cli.health import living
from ottla.cli.options import BOOTSTRAP_DEFAULT, Bootstrap, Json, Properties, decimal_number, whole_number
from ottla.types import TopicPartition

TIMEOUT_DEFAULT_S = 300.0
STEP_S = 0.25
NAMES_MAX = 5


@examples(
    ("ottla cluster wait", "Wait until all replicas are in sync."),
    ("ottla cluster wait --nodes 1 --timeout 60", "Wait for one node or more, for a minute at most."),
)
def wait(
    nodes: Annotated[
        int | None,
        typer.Option(
            "--nodes",
            "-n",
            metavar="N",
            parser=whole_number(1),
            help="Also wait until so many nodes are there.",
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", parser=decimal_number(0), help="How long to wait, at most.")
    ] = TIMEOUT_DEFAULT_S,
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """Wait until every partition has a leader and all of its replicas in sync.

    Before a node is stopped, this makes sure that it is not the one that the others need. Where no broker is
    reached, it goes on trying until the time is over.
    """
    begin_s = time.monotonic()
    cluster = Cluster(bootstrap, property)
    most = 0
    with output.progress("partitions in sync again") as show:
        while True:
            lacking, unwell = _lacking(cluster, nodes)
            most = max(most, unwell)
            show(most - unwell)
            waited_s = time.monotonic() - begin_s
            if lacking is None:
                break
            if waited_s >= timeout:
                code = ExitCode.UNREACHABLE if cluster.never_reached else ExitCode.FAILED
                raise CliError(f"after {waited_s:.0f} s {lacking}", code)
            time.sleep(min(STEP_S, timeout - waited_s))
    if json:
        output.print_json({"waited_ms": round(waited_s * 1000)})
    else:
        output.say("all partitions are in sync")


def _lacking(cluster: Cluster, nodes: int | None) -> tuple[str | None, int]:
    """What is lacking, in words, or None; and how many partitions are not in sync."""
    try:
        if cluster.never_reached:
            cluster.connect()
        else:
            cluster.refresh()
    except CliError as error:
        if error.code is not ExitCode.UNREACHABLE:
            raise
        return str(error), 0
    found = cluster.metadata
    unwell = [
        TopicPartition(name, p.id)
        for name, topic in sorted(found.topics.items())
        for p in sorted(topic.partitions.values(), key=lambda p: p.id)
        if p.leader < 0 or len(p.isrs) < len(p.replicas)
    ]
    if unwell:
        names = ranges.compressed(unwell)
        left = len(names) - NAMES_MAX
        more = f" and {output.counted(left, 'topic')} more" if left > 0 else ""
        return f"not in sync: {' '.join(names[:NAMES_MAX])}{more}", len(unwell)
    if nodes is not None and (there := living(cluster)) < nodes:
        return f"there {'is' if there == 1 else 'are'} {output.counted(there, 'node')}, not {nodes}", 0
    return None, 0
