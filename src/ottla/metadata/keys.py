"""What is stored under which key (docs/decisions/0004-metadata-keys.md). Values are JSON, written the same
way each time, so that they can be compared as bytes.

    cluster                      {"id"}
    controller                   {"node_id"}; goes with its node's lease
    nodes/<node id>              {"endpoints": {listener: [host, port]}, "rack"}; every node that ever joined,
                                 written anew at each registration
    brokers/<node id>            the same, for those that live; goes with the node's lease; besides
                                 "fetch_key", which is a secret of the cluster's nodes, and "peer_listener";
                                 both with "features", the levels that the node supports: {name: [min, max]}
    stopping/<node id>           {}; while a live node hands over what it leads; goes with its lease
    names                        {}; written with each new topic whose name could be taken for another's
    topics/<name>                {"id", "replicas": [[node id, …], …], "configs": {name: value}}
    partitions/<name>/<index>    {"leader", "leader_epoch", "epoch", "replicas", "isr", "adding", "removing",
                                  "elr", "last_elr"}
    configs/brokers/<node id>    {name: value}; "default" for the whole cluster
    configs/groups/<group>       {name: value}
    configs/client-metrics/<subscription>   {name: value}
    features                     {"epoch", "levels": {name: level}}; what is not there is at level 0
    ids/producers                {"next"}
    tokens/<token id>            {"owner", "requester", "renewers", "issued_ms", "expires_ms", "max_ms"}
    secret                       {"value"}; known to the cluster's nodes alone; where clients log in
    acls/<hash>                  an ACL, by the hash of what it says ("resource_type", "resource_name",
                                 "pattern_type", "principal", "host", "operation", "permission")
    users/<name>/scram/<hash>    {"salt", "stored_key", "server_key", "iterations"}
    quotas/<entity>              {name: number}
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

CLUSTER = "cluster"
CONTROLLER = "controller"
NODES = "nodes/"
BROKERS = "brokers/"
STOPPING = "stopping/"
NAMES = "names"
TOPICS = "topics/"
PARTITIONS = "partitions/"
BROKER_CONFIGS = "configs/brokers/"
GROUP_CONFIGS = "configs/groups/"
CLIENT_METRICS_CONFIGS = "configs/client-metrics/"
PRODUCER_IDS = "ids/producers"
ACLS = "acls/"
USERS = "users/"
QUOTAS = "quotas/"
FEATURES = "features"
SECRET = "secret"
TOKENS = "tokens/"

# The entity that stands for all brokers, in keys and, as a node id, in images.
DEFAULT_ENTITY = "default"
DEFAULT_BROKER = -1

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


def encode(value: Mapping[str, Any]) -> bytes:
    return _encode(value).encode()


def decode(value: bytes) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(value)
    return made


def node(node_id: int) -> str:
    return f"{NODES}{node_id}"


def broker(node_id: int) -> str:
    return f"{BROKERS}{node_id}"


def stopping(node_id: int) -> str:
    return f"{STOPPING}{node_id}"


def topic(name: str) -> str:
    return TOPICS + name


def partitions(name: str) -> str:
    """The prefix of a topic's partition states."""
    return f"{PARTITIONS}{name}/"


def partition(name: str, index: int) -> str:
    return f"{PARTITIONS}{name}/{index}"


def broker_configs(node_id: int) -> str:
    return BROKER_CONFIGS + (DEFAULT_ENTITY if node_id == DEFAULT_BROKER else str(node_id))


def group_configs(group: str) -> str:
    return GROUP_CONFIGS + group


def client_metrics_configs(subscription: str) -> str:
    return CLIENT_METRICS_CONFIGS + subscription


def topic_value(topic_id: UUID, replicas: Sequence[Sequence[int]], configs: Mapping[str, str]) -> bytes:
    return encode({"id": topic_id.hex, "replicas": replicas, "configs": dict(configs)})


def broker_value(
    endpoints: Mapping[str, tuple[str, int]],
    rack: str | None,
    incarnation: int = 0,
    *,
    fetch_key: int = 0,
    peer_listener: str | None = None,
    features: Mapping[str, tuple[int, int]] | None = None,
) -> bytes:
    """``incarnation``: what the node's data directory knows the registration by before it is made;
    ``fetch_key``: what its fetches show that they are from this registration; 0: its epoch does;
    ``features``: the levels that it supports, where it says so."""
    at = {name: list(address) for name, address in endpoints.items()}
    value: dict[str, Any] = {"endpoints": at, "rack": rack, "incarnation": incarnation}
    if features is not None:
        value["features"] = {name: list(levels) for name, levels in features.items()}
    if fetch_key:
        value["fetch_key"] = fetch_key
    if peer_listener is not None:
        value["peer_listener"] = peer_listener
    return encode(value)
