"""`ottla cluster status`, `kill`, `start` and `down`: the cluster that `ottla cluster up` runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ottla.cli import output
from ottla.cli.examples import examples
from ottla.cli.options import Json, whole_number

Data = Annotated[Path, typer.Option("--data", metavar="DIR", help="The folder of the cluster.")]
DATA_DEFAULT = Path("cluster")


@examples(
    ("ottla cluster status", "Show the processes of the cluster in ./cluster and its partitions."),
    ("ottla cluster status --data ./try --json", "Print JSON, of the cluster in ./try."),
)
def status(data: Data = DATA_DEFAULT, json: Json = False) -> None:
    """Show the processes of a cluster on this machine, and how many partitions are under-replicated.

    States of a node: running; fenced, which runs while the cluster does not count on it (yet); stopped, by a
    clean shutdown; dead, without one; new, which has never run.
    """
    from ottla.cli.local.control import find_cluster
    from ottla.cli.local.status import show
    from ottla.cli.local.status import status as look

    report = look(find_cluster(data))
    if json:
        output.print_json(report)
    else:
        show(report)


@examples(
    ("ottla cluster kill 2", "Kill node 2, to see another one lead its partitions."),
    ("ottla cluster kill 2 --clean", "Have node 2 stop by a clean shutdown."),
)
def kill(
    node: Annotated[list[int], typer.Argument(metavar="N", parser=whole_number(0), help="The node's id.")],
    clean: Annotated[
        bool,
        typer.Option("--clean", help="Have it stop (SIGTERM): it hands over what it leads. Else SIGKILL."),
    ] = False,
    data: Data = DATA_DEFAULT,
) -> int:
    """Kill nodes of a cluster on this machine, to try a failover; 'ottla cluster start N' starts them again.

    Only processes of this cluster get a signal, those that were started by hand among them.
    """
    from ottla.cli.local import operate

    return operate.kill(data, node, clean=clean)


@examples(
    ("ottla cluster start 2", "Start node 2, which was killed."),
    ("ottla cluster start", "Start all nodes that do not run."),
)
def start(
    node: Annotated[
        list[int] | None,
        typer.Argument(metavar="N", parser=whole_number(0), show_default="all", help="The node's id."),
    ] = None,
    data: Data = DATA_DEFAULT,
) -> int:
    """Start nodes that do not run, of a cluster that does: 'ottla cluster up' started it and goes on.

    The nodes are started by the command that runs the cluster, and end with it.
    """
    from ottla.cli.local import operate

    return operate.start(data, node or [])


@examples(
    ("ottla cluster down", "Stop the cluster in ./cluster; its data stays."),
    ("ottla cluster down --data ./try", "Stop the cluster in ./try."),
)
def down(data: Data = DATA_DEFAULT) -> int:
    """Stop a cluster on this machine: the nodes, one after the other, and then etcd. Its data stays.

    'ottla cluster up' with the same folder goes on with the same data on the same ports.
    """
    from ottla.cli.local import operate

    return operate.down(data)
