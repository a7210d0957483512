"""`ottla cluster`: try one, look at one, and move what it holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ottla.addresses import PORT_MAX
from ottla.cli import drain, elect, health, output, reassign, wait
from ottla.cli.client import connect
from ottla.cli.examples import examples
from ottla.cli.local import commands
from ottla.cli.options import BOOTSTRAP_DEFAULT, Bootstrap, Json, Properties, whole_number
from ottla.cli.serve import parse_overrides

app = typer.Typer(no_args_is_help=True, help="Try a cluster, look at one, and move what it holds.")


EtcdMembers = Annotated[
    int | None,
    typer.Option(
        metavar="1|3",
        parser=whole_number(1, 3),
        show_default="as it was, or 1",
        help="Members of etcd: 3 go on when one is killed.",
    ),
]


@app.command()
@examples(
    ("ottla cluster up", "Run three nodes and etcd, with the data in the folder 'cluster'."),
    ("ottla cluster up --nodes 5 --racks a,b,c --data ./try", "Run five nodes in three racks."),
    ("ottla cluster up --secure --detach", "Run one with TLS and a login, in the background."),
)
def up(
    nodes: Annotated[
        int | None,
        typer.Option(
            "--nodes",
            "-n",
            metavar="N",
            parser=whole_number(1),
            show_default="as many as there were, or 3",
            help="The number of nodes.",
        ),
    ] = None,
    data: Annotated[Path, typer.Option(metavar="DIR", help="Where everything is kept, the logs too.")] = Path(
        "cluster"
    ),
    port: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            parser=whole_number(0, PORT_MAX),
            show_default="as it was, or 9092",
            help="The first node's port; the others' follow. 0 takes free ones.",
        ),
    ] = None,
    racks: Annotated[
        str | None,
        typer.Option(metavar="A,B,…", help="The nodes' racks in turn, to see replicas spread over them."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A configuration of all nodes. Repeatable."),
    ] = None,
    etcd_members: EtcdMembers = None,
    secure: Annotated[
        bool,
        typer.Option(
            "--secure", help="Clients speak TLS and log in, and do what ACLs allow: DIR/secure has all of it."
        ),
    ] = False,
    detach: Annotated[
        bool,
        typer.Option("--detach", "-d", help="Run it in the background; 'ottla cluster down' stops it then."),
    ] = False,
) -> int:
    """Run a cluster on this machine, to try: etcd, which must be on the PATH, and some nodes.

    Prints 'ottla: node N listening on HOST:PORT (pid P)' for each node, with --secure 'ottla: clients come in
    by FILE', a file of client properties for -X @FILE, and then 'ottla: cluster ready'. Ctrl-C
    or SIGTERM stops the nodes, one after the other, and then etcd; the same command with the same DIR goes on
    with the same data on the same ports.

    A node that dies stays dead until 'ottla cluster start N' in another terminal, or this command there, or
    the command that the node's log (DIR/logs/node-N.log) shows. 'ottla cluster kill N' has one die.
    """
    from ottla.cli.local.layout import Request
    from ottla.cli.local.up import detach as run_detached
    from ottla.cli.local.up import up as run

    request = Request(
        nodes=nodes,
        port=port,
        racks=None if racks is None else [rack.strip() for rack in racks.split(",")],
        settings=parse_overrides(set_ or ()),
        etcd_members=etcd_members,
        secure=secure,
    )
    return run_detached(data, request) if detach else run(data, request)


for _command in (commands.status, commands.kill, commands.start, commands.down):
    app.command()(_command)


@app.command()
@examples(
    ("ottla cluster describe", "Show the nodes, and the partitions that are offline or under-replicated."),
    ("ottla cluster describe --json", "Show the same as JSON."),
)
def describe(
    json: Json = False, bootstrap: Bootstrap = BOOTSTRAP_DEFAULT, property: Properties = None
) -> None:
    """Show the nodes, what each leads and holds, and partitions that lack a leader or replicas in sync.

    A node that is fenced has been there and is not now; what it holds is short of a replica until it is back.
    """
    report = health.describe(connect(bootstrap, property))
    if json:
        output.print_json(report)
    else:
        health.show(report)


app.command(name="wait")(wait.wait)
app.command(name="reassign")(reassign.reassign)
app.command(name="drain")(drain.drain)
app.command(name="elect")(elect.elect)
