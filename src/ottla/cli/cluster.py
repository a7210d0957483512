"""`ottla cluster`: try one, look at one, and move what it holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ottla.cli import output
from ottla.cli.client import REQUEST_TIMEOUT_S, connect
from ottla.cli.options import BOOTSTRAP_DEFAULT, Bootstrap, Json, Properties
from ottla.cli.serve import parse_overrides

app = typer.Typer(no_args_is_help=True, help="Try a cluster, look at one, and move what it holds.")


@app.command()
def up(
    nodes: Annotated[
        int | None,
        typer.Option("--nodes", "-n", metavar="N", min=1, help="Nodes: as many as there were, or 3."),
    ] = None,
    data: Annotated[Path, typer.Option(metavar="DIR", help="Where everything is kept, the logs too.")] = Path(
        "cluster"
    ),
    port: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="The first node's port; the others' follow. 0 takes free ones. As it was, or 9092.",
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
    etcd_members: Annotated[
        int | None,
        typer.Option(metavar="1|3", help="Members of etcd: 3 go on when one is killed. As it was, or 1."),
    ] = None,
) -> int:
    """Run a cluster on this machine, to try: etcd, which must be on the PATH, and some nodes.

    Prints 'ottla: node N listening on HOST:PORT (pid P)' for each node, then 'ottla: cluster ready'. Ctrl-C
    or SIGTERM stops the nodes, one after the other, and then etcd; the same command with the same DIR goes on
    with the same data on the same ports.

    A node that dies stays dead until this command is given again, in another terminal, or the node is started
    with the command that its log (DIR/logs/node-N.log) shows.
    """
    from ottla.cli.local.layout import Request
    from ottla.cli.local.up import up as run

    request = Request(
        nodes=nodes,
        port=port,
        racks=None if racks is None else [rack.strip() for rack in racks.split(",")],
        settings=parse_overrides(set_ or ()),
        etcd_members=etcd_members,
    )
    return run(data, request)


@app.command()
def describe(
    json: Json = False, bootstrap: Bootstrap = BOOTSTRAP_DEFAULT, property: Properties = None
) -> None:
    """Show the cluster's id, brokers and controller, and partitions without a leader or short of replicas."""
    found = connect(bootstrap, property)
    described = found.wait(found.admin.describe_cluster(request_timeout=REQUEST_TIMEOUT_S), "cluster")
    controller = described.controller.id if described.controller else None
    topics = found.metadata.topics
    partitions = [(name, p) for name, topic in sorted(topics.items()) for p in topic.partitions.values()]
    offline = [f"{name}-{p.id}" for name, p in partitions if p.leader < 0]
    short = [f"{name}-{p.id}" for name, p in partitions if len(p.isrs) < len(p.replicas)]
    led: dict[int, int] = {}
    for _, partition in partitions:
        led[partition.leader] = led.get(partition.leader, 0) + 1
    report: dict[str, Any] = {
        "cluster_id": described.cluster_id,
        "controller": controller,
        "brokers": [
            {
                "node_id": node.id,
                "host": node.host,
                "port": node.port,
                "rack": node.rack or None,
                "leads": led.get(node.id, 0),
            }
            for node in sorted(described.nodes, key=lambda node: node.id)
        ],
        "topics": len(topics),
        "partitions": len(partitions),
        "offline_partitions": offline,
        "under_replicated_partitions": short,
    }
    if json:
        output.print_json(report)
        return
    print(f"cluster {report['cluster_id'] or '-'}: {len(topics)} topics, {len(partitions)} partitions")
    output.table(
        ("broker", "host", "port", "rack", "controller", "leads"),
        [
            (
                str(b["node_id"]),
                b["host"],
                str(b["port"]),
                b["rack"],
                "yes" if b["node_id"] == controller else "no",
                b["leads"],
            )
            for b in report["brokers"]
        ],
    )
    for label, names in (("without a leader", offline), ("short of replicas", short)):
        if names:
            print(f"{label}: {' '.join(names)}")
