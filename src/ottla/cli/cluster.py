"""`ottla cluster`: the brokers, and whether every partition is served."""

from __future__ import annotations

from typing import Any

import typer

from ottla.cli import output
from ottla.cli.client import REQUEST_TIMEOUT_S, connect
from ottla.cli.options import BOOTSTRAP_DEFAULT, Bootstrap, Json, Properties

app = typer.Typer(no_args_is_help=True, help="Show the cluster.")


@app.callback()
def cluster() -> None:
    """Show the cluster."""


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
