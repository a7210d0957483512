"""The cluster, its configurations and directories, and replicas that move."""

from __future__ import annotations

from typing import Any

from protocol.peer import Fields, Peer

TOPIC, BROKER, LOGGER, CLIENT_METRICS, GROUP = 2, 4, 8, 16, 32
SET, DELETE, APPEND, SUBTRACT = range(4)


def versions_and_nodes(peer: Peer) -> None:
    plain = {
        "include_cluster_authorized_operations": False,
        "endpoint_type": 1,
        "include_fenced_brokers": False,
    }
    peer.each("nodes", "DescribeCluster", plain)
    peer.each("operations", "DescribeCluster", plain | {"include_cluster_authorized_operations": True})
    peer.each("fenced too", "DescribeCluster", plain | {"include_fenced_brokers": True})
    for kind in (0, 3, -1):
        peer.each(f"endpoint type {kind}", "DescribeCluster", plain | {"endpoint_type": kind}, (1, 2))
    for name, version in (("", "1"), ("ok", ""), ("a b", "1"), ("-ok", "1.0"), ("ok", "1.0-")):
        fields = {"client_software_name": name, "client_software_version": version}
        answer = peer.send("ApiVersions", 4, fields)
        peer.transcript[f"ApiVersions: software {name!r} {version!r}"] = {4: answer.error_code}
    for node in (-1, 0, 9, 2**31 - 1):
        peer.ask(f"node {node}", "UnregisterBroker", broker_id=node)


# The features whose levels we share with Kafka.
SHARED_FEATURES = ("transaction.version", "metadata.version")


def who_is_meant(peer: Peer) -> None:
    """ApiVersions v5 says which node of which cluster it is for (KIP-1242); and the features it tells."""
    fields = {"include_cluster_authorized_operations": False, "endpoint_type": 1}
    cluster = peer.send("DescribeCluster", 1, fields).cluster_id
    client = {"client_software_name": "ok", "client_software_version": "1"}
    for kind, (asked, node) in {
        "both": (cluster, 1),
        "another node": (cluster, 9),
        "another cluster": ("another", 1),
        "no cluster": (None, 1),
        "no node": (cluster, -1),
        "empty cluster": ("", 1),
        "node -2": (cluster, -2),
        "neither": (None, -1),
    }.items():
        answer = peer.send("ApiVersions", 5, client | {"cluster_id": asked, "node_id": node})
        bad = {
            "client_software_name": "",
            "client_software_version": "1",
            "cluster_id": asked,
            "node_id": node,
        }
        answers = [answer.error_code, peer.send("ApiVersions", 5, bad).error_code]
        peer.transcript[f"ApiVersions: {kind}, and without a name"] = {5: answers}
    for version in (3, 4, 5):
        answer = peer.send("ApiVersions", version, client)
        found = {
            one.name: [one.min_version, one.max_version]
            for one in answer.supported_features
            if one.name in SHARED_FEATURES
        }
        levels = {
            one.name: [one.min_version_level, one.max_version_level]
            for one in answer.finalized_features
            if one.name in SHARED_FEATURES
        }
        told = {"supported": found, "in force": levels}
        peer.transcript.setdefault("ApiVersions: features", {})[version] = told


def described(*resources: tuple[int, str, list[str] | None], synonyms: bool = False) -> Fields:
    return {
        "resources": [
            {"resource_type": kind, "resource_name": name, "configuration_keys": keys}
            for kind, name, keys in resources
        ],
        "include_synonyms": synonyms,
        "include_documentation": False,
    }


def configs_described(peer: Peer) -> None:
    peer.create("shown", 1, retention_ms="1000", cleanup_policy="compact,delete")
    shown = peer.name("shown")
    keys = ["retention.ms", "cleanup.policy", "compression.type", "no.such"]
    kinds: dict[str, tuple[int, str, list[str] | None]] = {
        "topic": (TOPIC, shown, keys),
        "topic, no key": (TOPIC, shown, []),
        "missing topic": (TOPIC, peer.name("no"), keys),
        "topic without name": (TOPIC, "", None),
        "bad topic": (TOPIC, "a/b", None),
        "broker": (BROKER, "1", ["log.retention.ms", "log.segment.bytes", "no.such"]),
        "all brokers": (BROKER, "", ["log.retention.ms"]),
        "another broker": (BROKER, "9", None),
        "no broker": (BROKER, "abc", None),
        "broker -1": (BROKER, "-1", None),
        "type 0": (0, "x", None),
        "type 1": (1, "x", None),
        "type 3": (3, "x", None),
        "type 127": (127, "x", None),
    }
    for kind, resource in kinds.items():
        peer.each(kind, "DescribeConfigs", described(resource))
        peer.each(f"{kind}, synonyms", "DescribeConfigs", described(resource, synonyms=True), (1, 4))
    mixed = [(TOPIC, shown, keys), (0, "x", None), (TOPIC, "a/b", None)]
    peer.each("one kind that is not", "DescribeConfigs", described(*mixed), (1, 4))
    both = [(TOPIC, shown, keys[:1]), (TOPIC, shown, keys[1:2])]
    peer.each("twice", "DescribeConfigs", described(*both), (1, 4))
    peer.each("nothing", "DescribeConfigs", described(), (1, 4))
    peer.ask("unknown type", "ListConfigResources", 1, resource_types=[99])


def change(kind: int, name: str, *changes: tuple[str, int, str | None], validate: bool = True) -> Fields:
    return {
        "resources": [
            {
                "resource_type": kind,
                "resource_name": name,
                "configs": [
                    {"name": key, "config_operation": operation, "value": value}
                    for key, operation, value in changes
                ],
            }
        ],
        "validate_only": validate,
    }


def configs_altered(peer: Peer) -> None:
    peer.create("altered", 1, retention_ms="1000")
    altered = peer.name("altered")
    changes: dict[str, list[tuple[str, int, str | None]]] = {
        "set": [("retention.ms", SET, "5")],
        "set null": [("retention.ms", SET, None)],
        "set empty": [("retention.ms", SET, "")],
        "delete": [("retention.ms", DELETE, None)],
        "delete with a value": [("retention.ms", DELETE, "5")],
        "delete what is not set": [("segment.ms", DELETE, None)],
        "delete unknown": [("no.such", DELETE, None)],
        "append": [("cleanup.policy", APPEND, "compact")],
        "append what is there": [("cleanup.policy", APPEND, "delete")],
        "append to no list": [("retention.ms", APPEND, "5")],
        "append null": [("cleanup.policy", APPEND, None)],
        "append nothing": [("cleanup.policy", APPEND, "")],
        "subtract": [("cleanup.policy", SUBTRACT, "delete")],
        "subtract what is not there": [("cleanup.policy", SUBTRACT, "compact")],
        "unknown key": [("no.such", SET, "5")],
        "no key": [("", SET, "5")],
        "operation 4": [("retention.ms", 4, "5")],
        "operation -1": [("retention.ms", -1, "5")],
        "a key twice": [("retention.ms", SET, "5"), ("retention.ms", SET, "6")],
        "one bad of two": [("retention.ms", SET, "5"), ("segment.ms", SET, "abc")],
        "out of range": [("retention.ms", SET, "-5")],
        "no change": [],
    }
    for kind, wanted in changes.items():
        peer.each(kind, "IncrementalAlterConfigs", change(TOPIC, altered, *wanted))
    for kind, resource in {
        "missing topic": (TOPIC, peer.name("no")),
        "topic without name": (TOPIC, ""),
        "bad topic": (TOPIC, "a/b"),
        "another broker": (BROKER, "9"),
        "no broker": (BROKER, "abc"),
        "type 0": (0, "x"),
        "type 1": (1, "x"),
        "type 127": (127, "x"),
    }.items():
        fields = change(*resource, ("retention.ms", SET, "5"))
        peer.each(kind, "IncrementalAlterConfigs", fields)
        fields["resources"][0]["configs"] = [{"name": "retention.ms", "value": "5"}]
        peer.each(kind, "AlterConfigs", fields)
    twice = change(TOPIC, altered, ("retention.ms", SET, "5"))
    twice["resources"] *= 2
    peer.each("a resource twice", "IncrementalAlterConfigs", twice)
    for kind, value in {"set": "7", "null": None, "empty": "", "bad": "abc"}.items():
        fields = change(TOPIC, altered)
        fields["resources"][0]["configs"] = [{"name": "retention.ms", "value": value}]
        peer.each(kind, "AlterConfigs", fields)
    peer.ask(
        "kept as given",
        "IncrementalAlterConfigs",
        **change(
            TOPIC,
            altered,
            ("retention.ms", SET, " 0100 "),
            ("cleanup.policy", SET, "compact , delete"),
            validate=False,
        ),
    )
    keys = ["retention.ms", "cleanup.policy"]
    peer.ask("after it", "DescribeConfigs", 4, **described((TOPIC, altered, keys)))


def log_dirs(peer: Peer) -> None:
    peer.create("dirs", 2)
    topic = peer.name("dirs")
    kinds: dict[str, list[Fields] | None] = {
        "one": [{"topic": topic, "partitions": [0]}],
        "twice": [{"topic": topic, "partitions": [0, 0]}, {"topic": topic, "partitions": [1]}],
        "missing": [{"topic": peer.name("no"), "partitions": [0]}, {"topic": topic, "partitions": [7, -1]}],
        "no partition": [{"topic": topic, "partitions": []}],
        "nothing": [],
    }
    for kind, topics in kinds.items():
        peer.each(kind, "DescribeLogDirs", {"topics": topics})


def moves_between_directories(peer: Peer) -> None:
    """AlterReplicaLogDirs: there is nowhere else to go, on either broker."""
    peer.create("stays", 2)
    topic = peer.name("stays")
    here = peer.send("DescribeLogDirs", 4, {"topics": []}).results[0].log_dir

    def move(question: str, *wanted: tuple[str, str, list[int]]) -> None:
        dirs = [{"path": path, "topics": [{"name": name, "partitions": ids}]} for path, name, ids in wanted]
        peer.each(question, "AlterReplicaLogDirs", {"dirs": dirs})

    move("where it is", (here, topic, [0, 1]))
    move("elsewhere", ("/no/such/directory", topic, [0]))
    move("to no path", ("", topic, [0]))
    move("to a relative path", ("data", topic, [0]))
    move("a partition that is not", (here, topic, [0, 7, -1]))
    move("a partition twice", (here, topic, [0, 0]))
    move("both ways", (here, topic, [0]), ("/no/such/directory", topic, [0]))
    move("the other way round", ("/no/such/directory", topic, [0]), (here, topic, [0]))
    for name in (peer.name("no"), "", "a/b", "x" * 249, "x" * 211, "x" * 214):
        move(f"topic {name.replace(peer.prefix, '')[:5]!r} of {len(name)}", (here, name, [0]))
    move("nothing")


def reassignments(peer: Peer) -> None:
    peer.create("moved", 2)
    moved = peer.name("moved")

    def move(question: str, name: str, *wanted: tuple[int, list[int] | None], more: Any = ()) -> None:
        partitions = [{"partition_index": index, "replicas": ids} for index, ids in wanted]
        fields = {"timeout_ms": 5000, "topics": [{"name": name, "partitions": partitions}, *more]}
        peer.each(question, "AlterPartitionReassignments", fields | {"allow_replication_factor_change": True})

    for kind, ids in {
        "to where it is": [1],
        "cancelled": None,
        "to nobody": [],
        "to a broker that is not": [9],
        "to two": [1, 9],
        "to one twice": [1, 1],
        "to -1": [-1],
    }.items():
        move(kind, moved, (0, ids))
    for allowed in (True, False):
        fields = {"timeout_ms": 5000, "topics": [], "allow_replication_factor_change": allowed}
        peer.each(f"nothing, {allowed}", "AlterPartitionReassignments", fields)
        fields = fields | {"topics": [{"name": moved, "partitions": []}]}
        peer.each(f"no partition, {allowed}", "AlterPartitionReassignments", fields)
    move("partition 2", moved, (2, [1]))
    move("partition -1", moved, (-1, [1]))
    move("partition twice", moved, (0, [1]), (0, [1]))
    for name in (peer.name("no"), "", "a/b"):
        move(f"topic {name.replace(peer.prefix, '')!r}", name, (0, [1]))
    for kind, topics in {
        "one": [{"name": moved, "partition_indexes": [0]}],
        "missing": [{"name": peer.name("no"), "partition_indexes": [0, -1]}],
        "nothing": [],
        "all": None,
    }.items():
        peer.ask(kind, "ListPartitionReassignments", timeout_ms=1000, topics=topics)


def elections(peer: Peer) -> None:
    peer.create("elected", 2)
    elected = peer.name("elected")
    for election in (-1, 0, 1, 2):
        for kind, topics in {
            "one": [{"topic": elected, "partitions": [0]}],
            "two and wrong": [{"topic": elected, "partitions": [0, 7, -1]}],
            "twice": [{"topic": elected, "partitions": [0, 0]}],
            "missing": [{"topic": peer.name("no"), "partitions": [0]}],
            "bad name": [{"topic": "a/b", "partitions": [0]}],
            "nothing": [],
        }.items():
            fields = {"election_type": election, "topic_partitions": topics, "timeout_ms": 5000}
            versions = (0, 1, 2) if election == 0 else (1, 2)
            peer.each(f"type {election}: {kind}", "ElectLeaders", fields, versions)


SEQUENCES = (
    versions_and_nodes,
    who_is_meant,
    configs_described,
    configs_altered,
    log_dirs,
    moves_between_directories,
    reassignments,
    elections,
)
