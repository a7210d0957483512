"""What `ottla cluster describe` says: the nodes, what each leads and holds, and partitions not well."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ottla.cli import output
from ottla.cli.client import REQUEST_TIMEOUT_S, Cluster
from ottla.cli.config import describe_configs
from ottla.cli.direct import DirectCluster
from ottla.cli.errors import CliError
from ottla.cli.moves.requests import Broker, PartitionView, Requests, View
from ottla.types import TopicPartition

ALIVE, FENCED = "alive", "fenced"
# What is listed of partitions that are not well, in a table for people.
NAMES_MAX = 20


def describe(found: Cluster) -> dict[str, Any]:
    """The whole report, ready for JSON. Any broker that is well can give it: a controller may hang."""
    metadata = found.metadata
    racks, fenced, moving = _directly(found) or (_racks(found), {}, [])
    view = View(
        brokers={b.id: Broker(b.host, b.port, racks.get(b.id)) for b in metadata.brokers.values()},
        partitions={
            TopicPartition(name, p.id): PartitionView(p.leader, tuple(p.replicas), tuple(p.isrs))
            for name, topic in sorted(metadata.topics.items())
            for p in sorted(topic.partitions.values(), key=lambda p: p.id)
        },
    )
    return {
        "cluster_id": metadata.cluster_id,
        "controller": metadata.controller_id if metadata.controller_id in view.brokers else None,
        "brokers": nodes(view, fenced),
        "topics": len({partition.topic for partition in view.partitions}),
        "partitions": len(view.partitions),
        **unwell(view, lambda topic: _min_isr(found, topic)),
        "moving_partitions": [str(partition) for partition in moving],
    }


def _directly(
    found: Cluster,
) -> tuple[dict[int, str | None], dict[int, Broker], list[TopicPartition]] | None:
    """Racks, nodes that have been there and are not now, and partitions that move.

    None where brokers do not say, or only over TLS: librdkafka does not ask for all of it.
    """
    try:
        cluster = DirectCluster(found.bootstrap, found.given)
        response = cluster.ask(
            "DescribeCluster",
            {
                "include_cluster_authorized_operations": False,
                "endpoint_type": 1,
                "include_fenced_brokers": True,
            },
            retry_s=0,
        )
        fenced = {b.broker_id: b for b in response.brokers if getattr(b, "is_fenced", False)}
        return (
            {b.broker_id: b.rack for b in response.brokers if b.broker_id not in fenced},
            {node: Broker(b.host, b.port, b.rack) for node, b in fenced.items()},
            list(Requests(cluster).ongoing()),
        )
    except CliError:
        return None


def _racks(found: Cluster) -> dict[int, str | None]:
    described = found.wait(found.admin.describe_cluster(request_timeout=REQUEST_TIMEOUT_S), "cluster")
    return {node.id: node.rack or None for node in described.nodes}


def _min_isr(found: Cluster, topic: str) -> int:
    values = {entry["name"]: entry["value"] for entry in describe_configs(found, "topic", topic)}
    return int(values.get("min.insync.replicas") or 1)


def nodes(view: View, fenced: Mapping[int, Broker]) -> list[dict[str, Any]]:
    """Each node with what it leads, holds, and holds without being in sync."""
    led, held, behind = Counter[int](), Counter[int](), Counter[int]()
    for partition in view.partitions.values():
        led[partition.leader] += 1
        held.update(partition.replicas)
        behind.update(set(partition.replicas) - set(partition.isr))
    away = {
        node: fenced.get(node) for node in sorted(held.keys() | fenced.keys()) if node not in view.brokers
    }
    everyone: list[tuple[int, Broker | None, str]] = [
        *((node, broker, ALIVE) for node, broker in view.brokers.items()),
        *((node, broker, FENCED) for node, broker in away.items()),
    ]
    return [
        {
            "node_id": node,
            "host": broker.host or None if broker else None,
            "port": broker.port if broker and broker.port > 0 else None,
            "rack": broker.rack if broker else None,
            "state": state,
            "leads": led[node],
            "replicas": held[node],
            "behind": behind[node],
        }
        for node, broker, state in sorted(everyone, key=lambda one: one[0])
    ]


def unwell(view: View, min_isr: Callable[[str], int]) -> dict[str, list[str]]:
    """Partitions without a leader, short of replicas in sync, and with too few for acks=all."""
    short = [p for p, found in view.partitions.items() if len(found.isr) < len(found.replicas)]
    least = {topic: min_isr(topic) for topic in dict.fromkeys(p.topic for p in short)}
    return {
        "offline_partitions": [str(p) for p, found in view.partitions.items() if found.leader < 0],
        "under_replicated_partitions": [str(p) for p in short],
        "under_min_isr_partitions": [
            str(p)
            for p in short
            if len(view.partitions[p].isr) < min(least[p.topic], len(view.partitions[p].replicas))
        ],
    }


def show(report: Mapping[str, Any]) -> None:
    """The report for people."""
    labels = {
        "offline_partitions": "without a leader",
        "under_min_isr_partitions": "with too few in sync for acks=all (min.insync.replicas)",
        "under_replicated_partitions": "short of replicas",
        "moving_partitions": "moving",
    }
    state = ", ".join(f"{len(report[key])} {label}" for key, label in labels.items() if report[key])
    size = f"{report['topics']} topics, {report['partitions']} partitions"
    print(f"cluster {report['cluster_id'] or '-'}: {size}, {state or 'all in sync'}")
    output.table(
        ("broker", "address", "rack", "state", "leads", "replicas", "behind"),
        [
            (
                str(b["node_id"]),
                f"{b['host']}:{b['port']}" if b["host"] else None,
                b["rack"],
                "controller" if b["node_id"] == report["controller"] else b["state"],
                b["leads"],
                b["replicas"],
                b["behind"],
            )
            for b in report["brokers"]
        ],
    )
    for key, label in labels.items():
        if report[key]:
            print(f"{label}: {_some(report[key])}")


def _some(names: Iterable[str]) -> str:
    names = list(names)
    left = len(names) - NAMES_MAX
    return " ".join(names[:NAMES_MAX]) + (f" and {left} more" if left > 0 else "")
