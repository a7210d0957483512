"""The cluster as clients of one listener see it: brokers, topics and partitions as response fields.

Follows ``KRaftMetadataCache``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sized
from typing import Any

from ottla.broker.request import RequestContext
from ottla.errors import ErrorCode
from ottla.metadata.image import INTERNAL_TOPICS, BrokerImage, ClusterImage, PartitionState, TopicImage
from ottla.metadata.service import Metadata
from ottla.security.acl_bindings import CLUSTER_NAME, Operation, ResourceType

Fields = dict[str, Any]

# Where a response says nothing of what its client may do.
OPERATIONS_OMITTED = -(2**31)
# Everything that there is to allow, as bits of AclOperation codes: what a broker without an authorizer says.
# READ, WRITE, CREATE, DELETE, ALTER, DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS
TOPIC_OPERATIONS = sum(1 << code for code in (3, 4, 5, 6, 7, 8, 10, 11))

_NONE = int(ErrorCode.none)
_NO_LEADER = -1


def cluster_operations(ctx: RequestContext) -> int:
    """What a client may do with the cluster: nothing is told to who may not DESCRIBE it."""
    if not ctx.may(Operation.DESCRIBE, ResourceType.CLUSTER, CLUSTER_NAME):
        return 0
    return ctx.operations(ResourceType.CLUSTER, CLUSTER_NAME)


def broker_fields(image: ClusterImage, listener: str) -> list[Fields]:
    """The live brokers that have the listener."""
    return _with_listener(image.brokers.values(), listener, is_fenced=False)


def known_brokers(metadata: Metadata, listener: str) -> list[Fields]:
    """The same, and those that have only just gone."""
    known = {**metadata.departed, **metadata.image.brokers}
    return _with_listener(known.values(), listener, is_fenced=False)


def fenced_broker_fields(image: ClusterImage, listener: str) -> list[Fields]:
    """The nodes that have joined once, do not live now, and had the listener."""
    gone = [node for node in image.nodes.values() if node.node_id not in image.brokers]
    return _with_listener(gone, listener, is_fenced=True)


def _with_listener(brokers: Iterable[BrokerImage], listener: str, *, is_fenced: bool) -> list[Fields]:
    found = []
    for broker in brokers:
        endpoint = broker.endpoint(listener)
        if endpoint is not None:
            host, port = endpoint
            fields = {"node_id": broker.node_id, "broker_id": broker.node_id, "host": host, "port": port}
            found.append(fields | {"rack": broker.rack, "is_fenced": is_fenced})
    return found


def partition_fields(
    image: ClusterImage, state: PartitionState, index: int, listener: str, error: ErrorCode
) -> Fields:
    """A partition; ``error`` is for one whose leader is there without the listener."""
    brokers = image.brokers
    leader = brokers.get(state.leader)
    code = ErrorCode.none
    if leader is None:
        code = ErrorCode.leader_not_available
    elif leader.endpoint(listener) is None:
        code = error
    return {
        "error_code": int(code),
        "partition_index": index,
        "leader_id": state.leader if code is ErrorCode.none else _NO_LEADER,
        "leader_epoch": state.leader_epoch,
        "replica_nodes": state.replicas,
        "isr_nodes": state.isr,
        "eligible_leader_replicas": state.elr,
        "last_known_elr": state.last_elr,
        "offline_replicas": [node for node in state.replicas if not _serves(brokers.get(node), listener)],
    }


def _serves(broker: BrokerImage | None, listener: str) -> bool:
    return broker is not None and broker.endpoint(listener) is not None


def topic_fields(topic: TopicImage, partitions: Sized) -> Fields:
    return {
        "error_code": _NONE,
        "name": topic.name,
        "topic_id": topic.topic_id,
        "is_internal": topic.name in INTERNAL_TOPICS,
        "partitions": partitions,
        "topic_authorized_operations": OPERATIONS_OMITTED,
    }


def missing_topic_fields(name: str | None, topic_id: Any, error: ErrorCode) -> Fields:
    return {
        "error_code": int(error),
        "name": name,
        "topic_id": topic_id,
        "is_internal": name in INTERNAL_TOPICS,
        "partitions": (),
        "topic_authorized_operations": OPERATIONS_OMITTED,
    }


def denied_topic_fields(name: str | None, topic_id: Any = None) -> Fields:
    """A topic that the client may not know of, be there one or not: nothing but what it is asked for by."""
    fields = missing_topic_fields(name, topic_id, ErrorCode.topic_authorization_failed)
    return fields | {"is_internal": False}


def leave_out_offline(fields: Fields) -> Fields:
    """Metadata v0 names live replicas only, and says where some are missing."""
    offline = fields["offline_replicas"]
    if offline:
        for name in ("replica_nodes", "isr_nodes"):
            fields[name] = [node for node in fields[name] if node not in offline]
        if fields["error_code"] == _NONE:
            fields["error_code"] = int(ErrorCode.replica_not_available)
    return fields
