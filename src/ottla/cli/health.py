"""What `ottla cluster describe` says: the nodes, what each leads and holds, and partitions not well."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any

from ottla.cli import output, ranges
from ottla.cli.client import REQUEST_TIMEOUT_S, Cluster
from ottla.cli.config import describe_configs
from ottla.cli.direct import DirectCluster
from ottla.cli.errors import CliError
from ottla.cli.moves.requests import Broker, Members, PartitionView, Requests, View
from ottla.numbers import INT_MAX, parse_whole
from ottla.types import TopicPartition

ALIVE, FENCED = "alive", "fenced"
# Of so many topics the partitions that are not well are named, for people.
NAMES_MAX = 20


MIN_ISR = "min.insync.replicas"


def describe(found: Cluster) -> dict[str, Any]:
    """The whole report, ready for JSON. Any broker that is well can give it: a controller may hang."""
    metadata = found.metadata
    try:
        requests = Requests(DirectCluster(found.bootstrap, found.given))
        members, moving = requests.members(), list(requests.ongoing())

        def min_isr(topics: Sequence[str]) -> Mapping[str, str | None]:
            return requests.topic_configs(topics, MIN_ISR)
    except CliError:
        # Over TLS, or of brokers of another kind, librdkafka gets what it can.
        members, moving = Members(_brokers(found), {}), []

        def min_isr(topics: Sequence[str]) -> Mapping[str, str | None]:
            return {topic: _config(found, topic, MIN_ISR) for topic in topics}

    view = View(
        brokers=members.brokers,
        partitions={
            TopicPartition(name, p.id): PartitionView(p.leader, tuple(p.replicas), tuple(p.isrs))
            for name, topic in sorted(metadata.topics.items())
            for p in sorted(topic.partitions.values(), key=lambda p: p.id)
        },
    )
    return {
        "cluster_id": metadata.cluster_id,
        "controller": metadata.controller_id if metadata.controller_id in view.brokers else None,
        "brokers": nodes(view, members.fenced),
        "topics": len({partition.topic for partition in view.partitions}),
        "partitions": len(view.partitions),
        **unwell(view, min_isr),
        "moving_partitions": [str(partition) for partition in moving],
    }


def living(found: Cluster) -> int:
    """How many nodes are there; those that metadata still names for a while are not."""
    try:
        with closing(DirectCluster(found.bootstrap, found.given)) as cluster:
            return len(Requests(cluster).members().brokers)
    except CliError:
        return len(_brokers(found))


def _brokers(found: Cluster) -> dict[int, Broker]:
    described = found.wait(found.admin.describe_cluster(request_timeout=REQUEST_TIMEOUT_S), "cluster")
    return {node.id: Broker(node.host, node.port, node.rack or None) for node in described.nodes}


def _config(found: Cluster, topic: str, name: str) -> str | None:
    values = {entry["name"]: entry["value"] for entry in describe_configs(found, "topic", topic)}
    return values.get(name)


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


def unwell(view: View, min_isr: Callable[[Sequence[str]], Mapping[str, str | None]]) -> dict[str, list[str]]:
    """Partitions without a leader, short of replicas in sync, and with too few for acks=all.

    ``min_isr`` gives the min.insync.replicas of topics; it is asked once, for those that are short.
    """
    short = [p for p, found in view.partitions.items() if len(found.isr) < len(found.replicas)]
    asked = min_isr(list(dict.fromkeys(p.topic for p in short))) if short else {}
    least = {topic: parse_whole(value or "", 1, INT_MAX) or 1 for topic, value in asked.items()}
    return {
        "offline_partitions": [str(p) for p, found in view.partitions.items() if found.leader < 0],
        "under_replicated_partitions": [str(p) for p in short],
        "under_min_isr_partitions": [
            str(p)
            for p in short
            if len(view.partitions[p].isr) < min(least.get(p.topic, 1), len(view.partitions[p].replicas))
        ],
    }


# Troubles of partitions as `cluster describe` has them, their words, and their colours.
TROUBLES = {
    "offline_partitions": ("offline", output.ALARM),
    "under_min_isr_partitions": (f"under {MIN_ISR}", output.ALARM),
    "under_replicated_partitions": ("under-replicated", output.WARNING),
    "moving_partitions": ("moving", ""),
}


def show(report: Mapping[str, Any]) -> None:
    """The report for people."""
    size = f"{output.counted(report['topics'], 'topic')}, {output.counted(report['partitions'], 'partition')}"
    output.say_marked(f"cluster {report['cluster_id'] or '-'}: {size}", *troubles(report))
    output.table(
        ("broker", "address", "rack", "state", "leads", "replicas", "behind"),
        [
            (
                str(b["node_id"]),
                f"{b['host']}:{b['port']}" if b["host"] else None,
                b["rack"],
                "controller"
                if b["node_id"] == report["controller"]
                else output.marked(b["state"], output.ALARM, when=b["state"] == FENCED),
                b["leads"],
                b["replicas"],
                output.marked(b["behind"], output.WARNING, when=b["behind"] > 0),
            )
            for b in report["brokers"]
        ],
    )
    for key, (words, style) in TROUBLES.items():
        if report[key]:
            output.say_marked(output.Marked(f"{words}:", style), f" {_some(report[key])}")


def troubles(report: Mapping[str, Any]) -> list[str | output.Marked]:
    """What is the matter with partitions, as the rest of a line: ``, 3 under-replicated``."""
    parts: list[str | output.Marked] = []
    for key, (words, style) in TROUBLES.items():
        if report.get(key):
            parts += [", ", output.Marked(f"{len(report[key])} {words}", style)]
    return parts or [", all in sync"]


def _some(names: Iterable[str]) -> str:
    compressed = ranges.compressed_names(names)
    left = len(compressed) - NAMES_MAX
    more = f" and {output.counted(left, 'topic')} more" if left > 0 else ""
    return " ".join(compressed[:NAMES_MAX]) + more
