"""What each API demands of whoever asks, as Kafka's ``KafkaApis`` and ``ControllerApis`` do: one row per API.

Those demands that are about one thing, the cluster or a name at the top of the request, and whose refusal is
the whole answer, are the gate's: ``refusal`` says whether a client falls short of one. The others are the
handlers', each of which looks after what its row says.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Final, NamedTuple, Protocol

from ottla.errors import KafkaError
from ottla.security.acl_bindings import CLUSTER_NAME, Operation, ResourceType
from ottla.security.refused import refused
from ottla.wire.apis import BY_NAME

TOPIC, GROUP, CLUSTER = ResourceType.TOPIC, ResourceType.GROUP, ResourceType.CLUSTER
TRANSACTIONAL_ID = ResourceType.TRANSACTIONAL_ID


class Refusal(Enum):
    """What a client is told that may not do what it asks for."""

    # Nothing else: the whole request is refused, by the gate where the demand says nothing of when.
    REQUEST = "the request"
    # That very thing is refused, with an error of its own.
    ITEM = "each by itself"
    # Nothing: what it may not see is left out of the answer.
    LEFT_OUT = "left out"


class Demand(NamedTuple):
    """What a client must be allowed, and what it is told otherwise.

    ``names`` says where the names of resources are in the request, as ``topics.name``; empty for the cluster.
    ``or_else`` is enough instead, and asked for first. ``when``: in which circumstances. ``applies`` says so
    of a version and a request, where the gate is to know.
    """

    operation: Operation
    resource_type: ResourceType
    names: str = ""
    refusal: Refusal = Refusal.REQUEST
    or_else: tuple[Operation, ResourceType] | None = None
    when: str = ""
    applies: Callable[[int, Any], bool] | None = None

    @property
    def is_of_gate(self) -> bool:
        """Whether it is looked after before the handler, which need not care."""
        return self.refusal is Refusal.REQUEST and (not self.when or self.applies is not None)


_ITEM, _LEFT_OUT = Refusal.ITEM, Refusal.LEFT_OUT


def _cluster(operation: Operation) -> tuple[Demand, ...]:
    return (Demand(operation, CLUSTER),)


def _member(*more: Demand, applies: Callable[[int, Any], bool] | None = None) -> tuple[Demand, ...]:
    return (Demand(Operation.READ, GROUP, "group_id", applies=applies), *more)


def _of_transaction(*more: Demand) -> tuple[Demand, ...]:
    return (Demand(Operation.WRITE, TRANSACTIONAL_ID, "transactional_id"), *more)


def _topics(operation: Operation, names: str = "topics.name", when: str = "") -> Demand:
    return Demand(operation, TOPIC, names, _ITEM, when=when)


def _configs(operation: Operation) -> tuple[Demand, ...]:
    return (
        Demand(operation, CLUSTER, "resources", _ITEM, when="of brokers, their loggers, and client metrics"),
        Demand(operation, TOPIC, "resources.resource_name", _ITEM, when="of topics"),
        Demand(operation, GROUP, "resources.resource_name", _ITEM, when="of groups"),
    )


# A sync that lacks what its version demands is told so first (``handleSyncGroupRequest``).
def _is_whole_sync(version: int, request: Any) -> bool:
    return version < 5 or (request.protocol_type is not None and request.protocol_name is not None)


def _is_of_node(version: int, request: Any) -> bool:
    return version >= 4


_BY_NAME: Final[dict[str, tuple[Demand, ...]]] = {
    "Produce": (
        Demand(
            Operation.WRITE,
            TRANSACTIONAL_ID,
            "transactional_id",
            when="batches are transactional, be it without an id",
        ),
        _topics(Operation.WRITE, "topic_data.name"),
    ),
    "Fetch": (
        Demand(
            Operation.CLUSTER_ACTION,
            CLUSTER,
            refusal=_ITEM,
            when="from followers; told as TOPIC_AUTHORIZATION_FAILED",
        ),
        _topics(Operation.READ, "topics.topic", when="from consumers"),
    ),
    "ListOffsets": (_topics(Operation.DESCRIBE),),
    "Metadata": (
        _topics(Operation.DESCRIBE, when="named; without the id where asked by name, without the name by id"),
        Demand(Operation.DESCRIBE, TOPIC, refusal=_LEFT_OUT, when="all topics are asked for"),
        Demand(
            Operation.CREATE,
            TOPIC,
            "topics.name",
            _ITEM,
            (Operation.CREATE, CLUSTER),
            when="a topic would be made by it",
        ),
        Demand(
            Operation.DESCRIBE,
            CLUSTER,
            refusal=_LEFT_OUT,
            when="its operations are asked for: then 0",
        ),
    ),
    "OffsetCommit": _member(_topics(Operation.READ)),
    "OffsetFetch": (
        Demand(Operation.DESCRIBE, GROUP, "groups.group_id", _ITEM),
        _topics(Operation.DESCRIBE, "groups.topics.name", when="named"),
        Demand(Operation.DESCRIBE, TOPIC, refusal=_LEFT_OUT, when="all topics are asked for"),
    ),
    "FindCoordinator": (
        Demand(Operation.DESCRIBE, GROUP, "coordinator_keys", _ITEM, when="of groups"),
        Demand(Operation.DESCRIBE, TRANSACTIONAL_ID, "coordinator_keys", _ITEM, when="of transactional ids"),
        Demand(Operation.CLUSTER_ACTION, CLUSTER, when="of share groups' partitions, from v6"),
    ),
    "JoinGroup": _member(),
    "Heartbeat": _member(),
    "LeaveGroup": _member(),
    "SyncGroup": _member(applies=_is_whole_sync),
    "DescribeGroups": (Demand(Operation.DESCRIBE, GROUP, "groups", _ITEM),),
    "ListGroups": (
        Demand(Operation.DESCRIBE, GROUP, refusal=_LEFT_OUT, or_else=(Operation.DESCRIBE, CLUSTER)),
    ),
    "SaslHandshake": (),
    "ApiVersions": (),
    "CreateTopics": (
        Demand(Operation.CREATE, TOPIC, "topics.name", _ITEM, (Operation.CREATE, CLUSTER)),
        Demand(
            Operation.DESCRIBE_CONFIGS,
            TOPIC,
            "topics.name",
            _LEFT_OUT,
            when="configurations and counts of a topic that was made; topic_config_error_code says so",
        ),
    ),
    "DeleteTopics": (
        Demand(
            Operation.DESCRIBE,
            TOPIC,
            "topics.name",
            _ITEM,
            (Operation.DELETE, CLUSTER),
            when="whether there is one: otherwise the name, or the id, as it came",
        ),
        Demand(Operation.DELETE, TOPIC, "topics.name", _ITEM, (Operation.DELETE, CLUSTER)),
    ),
    "DeleteRecords": (_topics(Operation.DELETE),),
    "InitProducerId": (
        Demand(Operation.WRITE, TRANSACTIONAL_ID, "transactional_id", when="there is one"),
        Demand(
            Operation.TWO_PHASE_COMMIT,
            TRANSACTIONAL_ID,
            "transactional_id",
            when="two-phase commit is asked for",
        ),
        Demand(
            Operation.IDEMPOTENT_WRITE,
            CLUSTER,
            or_else=(Operation.WRITE, TOPIC),
            when="there is no transactional id; WRITE to whichever topic is enough",
        ),
    ),
    "OffsetForLeaderEpoch": (
        Demand(Operation.DESCRIBE, TOPIC, "topics.topic", _ITEM, (Operation.CLUSTER_ACTION, CLUSTER)),
    ),
    "AddPartitionsToTxn": (
        Demand(Operation.CLUSTER_ACTION, CLUSTER, when="from nodes, v4 and later", applies=_is_of_node),
        Demand(
            Operation.WRITE,
            TRANSACTIONAL_ID,
            "v3_and_below_transactional_id",
            _ITEM,
            when="up to v3; told of each partition",
        ),
        _topics(
            Operation.WRITE,
            "v3_and_below_topics.name",
            when="up to v3; the others are OPERATION_NOT_ATTEMPTED",
        ),
    ),
    "AddOffsetsToTxn": _of_transaction(Demand(Operation.READ, GROUP, "group_id")),
    "EndTxn": _of_transaction(),
    "WriteTxnMarkers": (Demand(Operation.CLUSTER_ACTION, CLUSTER, or_else=(Operation.ALTER, CLUSTER)),),
    "TxnOffsetCommit": _of_transaction(Demand(Operation.READ, GROUP, "group_id"), _topics(Operation.READ)),
    "DescribeAcls": _cluster(Operation.DESCRIBE),
    "CreateAcls": _cluster(Operation.ALTER),
    "DeleteAcls": _cluster(Operation.ALTER),
    "DescribeConfigs": _configs(Operation.DESCRIBE_CONFIGS),
    "AlterConfigs": _configs(Operation.ALTER_CONFIGS),
    "AlterReplicaLogDirs": _cluster(Operation.ALTER),
    "DescribeLogDirs": _cluster(Operation.DESCRIBE),
    "SaslAuthenticate": (),
    "CreateDelegationToken": (
        Demand(Operation.CREATE_TOKENS, ResourceType.USER, when="for another owner than who asks"),
    ),
    "RenewDelegationToken": (),
    "ExpireDelegationToken": (),
    "DescribeDelegationToken": (
        Demand(
            Operation.DESCRIBE,
            ResourceType.DELEGATION_TOKEN,
            refusal=_LEFT_OUT,
            when="of others; or DESCRIBE_TOKENS of their owner",
        ),
    ),
    "CreatePartitions": (_topics(Operation.ALTER),),
    "DeleteGroups": (Demand(Operation.DELETE, GROUP, "groups_names", _ITEM),),
    "ElectLeaders": _cluster(Operation.ALTER),
    "IncrementalAlterConfigs": _configs(Operation.ALTER_CONFIGS),
    "AlterPartitionReassignments": _cluster(Operation.ALTER),
    "ListPartitionReassignments": _cluster(Operation.DESCRIBE),
    "OffsetDelete": (Demand(Operation.DELETE, GROUP, "group_id"), _topics(Operation.READ)),
    "DescribeClientQuotas": _cluster(Operation.DESCRIBE_CONFIGS),
    "AlterClientQuotas": _cluster(Operation.ALTER_CONFIGS),
    "DescribeUserScramCredentials": _cluster(Operation.DESCRIBE),
    "AlterUserScramCredentials": _cluster(Operation.ALTER),
    "UpdateFeatures": _cluster(Operation.ALTER),
    "DescribeCluster": (
        Demand(
            Operation.DESCRIBE,
            CLUSTER,
            refusal=_LEFT_OUT,
            when="its operations are asked for: then 0",
        ),
    ),
    "DescribeProducers": (_topics(Operation.READ, when="whose name is one"),),
    "UnregisterBroker": _cluster(Operation.ALTER),
    "DescribeTransactions": (
        Demand(Operation.DESCRIBE, TRANSACTIONAL_ID, "transactional_ids", _ITEM),
        Demand(Operation.DESCRIBE, TOPIC, refusal=_LEFT_OUT, when="topics of a transaction"),
    ),
    "ListTransactions": (Demand(Operation.DESCRIBE, TRANSACTIONAL_ID, refusal=_LEFT_OUT),),
    "ConsumerGroupHeartbeat": (
        Demand(Operation.READ, GROUP, "group_id", when="the protocol is served"),
        Demand(Operation.DESCRIBE, TOPIC, "subscribed_topic_names", when="the protocol is served"),
    ),
    "GetTelemetrySubscriptions": (),
    "PushTelemetry": (),
    "ListConfigResources": _cluster(Operation.DESCRIBE_CONFIGS),
    "DescribeTopicPartitions": (
        _topics(Operation.DESCRIBE, when="named; without the id"),
        Demand(Operation.DESCRIBE, TOPIC, refusal=_LEFT_OUT, when="all topics are asked for"),
    ),
}

# By the keys of APIs.
DEMANDS: Final[dict[int, tuple[Demand, ...]]] = {
    BY_NAME[name].key: demands for name, demands in _BY_NAME.items() if name in BY_NAME
}
# Of these the gate's: an API without any is not in here.
OF_GATE: Final[dict[int, tuple[Demand, ...]]] = {
    key: found for key, demands in DEMANDS.items() if (found := tuple(d for d in demands if d.is_of_gate))
}


class May(Protocol):
    """Whether a client may do something to a resource. ``quietly``: nobody needs to hear that it may not,
    since something else is asked for then."""

    def __call__(
        self, operation: Operation, kind: ResourceType, name: str, /, *, quietly: bool = False
    ) -> bool: ...


def refusal(api_key: int, api_version: int, request: Any, may: May) -> KafkaError | None:
    """Why the whole request is refused before it comes to its handler; None where it is not."""
    for demand in OF_GATE.get(api_key, ()):
        if demand.applies is not None and not demand.applies(api_version, request):
            continue
        kind = demand.resource_type
        if demand.or_else is not None and may(*demand.or_else, CLUSTER_NAME, quietly=True):
            continue
        name = getattr(request, demand.names) if demand.names else CLUSTER_NAME
        if not may(demand.operation, kind, name):
            return refused(kind)
    return None
