"""Which API keys and versions we serve: ApiVersions and the gate both read this one table."""

from __future__ import annotations

from typing import Final, NamedTuple

# The largest request of an API, its four bytes of size aside. Kafka lets each of them be as large as
# socket.request.max.bytes (100 MiB), which is what one client can have us receive and keep for nothing.
# A handful of strings, each of at most 32,767 bytes, with the client's id among them:
SMALL = 256 * 1024
# Lists of names and numbers: 10,000 of the longest topic names are 2.5 MB.
LISTS = 4 * 1024 * 1024
# What clients keep here in bytes of their own: assignments of a whole group, metadata of commits. Kafka keeps
# a group's assignments in one record, of some MB at most.
LARGE = 16 * 1024 * 1024
# Records: socket.request.max.bytes alone decides.
UNBOUNDED = 2**31 - 1

# How many elements of arrays (nested ones together) and tagged fields one request may have. An element is
# 0.3 to 1.5 microseconds of decoding, and the event loop is to be held for 20 ms at most. Requests whose
# fields are fixed, but for some filter, and tagged fields that we do not know:
FEW = 100
# Members' protocols: every client has fewer than ten.
SOME = 1_000
# What is asked by topic, partition, group, member or resource. Kafka's controller creates at most as many
# partitions in one request.
MANY = 10_000
# Where a partition takes several: with three replicas these are 3,000 partitions. A Fetch names each of a
# session's partitions once, those of a follower or mirror all that the other node leads.
MOST = 12_000


class Api(NamedTuple):
    """What one API demands: the gate, the frame decoder, the documents and the tests read it here."""

    key: int
    name: str  # Kafka's name
    schema: str  # kio's name for the messages, and our handler's module
    room: str  # the folder of broker/api that has the handler
    version_min: int
    version_max: int
    elements_max: int = FEW
    frame_bytes_max: int = SMALL
    # Versions from here are listed although only those from version_min are served.
    listed_min: int | None = None


# Kafka 4 lists Produce from version 0, since older librdkafka falls back to old message formats when it
# does not see those versions (KAFKA-18659).
_TABLE = (
    Api(0, "Produce", "produce", "records", 3, 13, MANY, UNBOUNDED, listed_min=0),
    Api(1, "Fetch", "fetch", "records", 4, 18, MOST, LISTS),
    Api(2, "ListOffsets", "list_offsets", "records", 1, 11, MANY, LISTS),
    Api(3, "Metadata", "metadata", "topics", 0, 13, MANY, LISTS),
    Api(8, "OffsetCommit", "offset_commit", "groups", 2, 10, MANY, LARGE),
    Api(9, "OffsetFetch", "offset_fetch", "groups", 1, 10, MANY, LISTS),
    Api(10, "FindCoordinator", "find_coordinator", "groups", 0, 6, MANY, LISTS),
    Api(11, "JoinGroup", "join_group", "groups", 0, 9, SOME, LISTS),
    Api(12, "Heartbeat", "heartbeat", "groups", 0, 4),
    Api(13, "LeaveGroup", "leave_group", "groups", 0, 5, MANY, LISTS),
    Api(14, "SyncGroup", "sync_group", "groups", 0, 5, MANY, LARGE),
    Api(15, "DescribeGroups", "describe_groups", "groups", 0, 6, MANY, LISTS),
    Api(16, "ListGroups", "list_groups", "groups", 0, 5),
    Api(17, "SaslHandshake", "sasl_handshake", "security", 0, 1),
    Api(18, "ApiVersions", "api_versions", "cluster", 0, 5),
    Api(19, "CreateTopics", "create_topics", "topics", 2, 7, MOST, LISTS),
    Api(20, "DeleteTopics", "delete_topics", "topics", 1, 6, MANY, LISTS),
    Api(21, "DeleteRecords", "delete_records", "records", 0, 2, MANY, LISTS),
    Api(22, "InitProducerId", "init_producer_id", "transactions", 0, 5),
    Api(23, "OffsetForLeaderEpoch", "offset_for_leader_epoch", "records", 2, 4, MANY, LISTS),
    Api(24, "AddPartitionsToTxn", "add_partitions_to_txn", "transactions", 0, 5, MANY, LISTS),
    Api(25, "AddOffsetsToTxn", "add_offsets_to_txn", "transactions", 0, 4),
    Api(26, "EndTxn", "end_txn", "transactions", 0, 5),
    Api(27, "WriteTxnMarkers", "write_txn_markers", "transactions", 1, 2, MANY, LISTS),
    Api(28, "TxnOffsetCommit", "txn_offset_commit", "groups", 0, 6, MANY, LARGE),
    Api(29, "DescribeAcls", "describe_acls", "security", 1, 3),
    Api(30, "CreateAcls", "create_acls", "security", 1, 3, MANY, LISTS),
    Api(31, "DeleteAcls", "delete_acls", "security", 1, 3, MANY, LISTS),
    Api(32, "DescribeConfigs", "describe_configs", "configs", 1, 4, MANY, LISTS),
    Api(33, "AlterConfigs", "alter_configs", "configs", 0, 2, MANY, LISTS),
    Api(34, "AlterReplicaLogDirs", "alter_replica_log_dirs", "cluster", 1, 2, MANY, LISTS),
    Api(35, "DescribeLogDirs", "describe_log_dirs", "cluster", 1, 5, MANY, LISTS),
    Api(36, "SaslAuthenticate", "sasl_authenticate", "security", 0, 2, FEW, LISTS),
    Api(37, "CreatePartitions", "create_partitions", "topics", 0, 3, MOST, LISTS),
    Api(38, "CreateDelegationToken", "create_delegation_token", "security", 1, 3),
    Api(39, "RenewDelegationToken", "renew_delegation_token", "security", 1, 2),
    Api(40, "ExpireDelegationToken", "expire_delegation_token", "security", 1, 2),
    Api(41, "DescribeDelegationToken", "describe_delegation_token", "security", 1, 3),
    Api(42, "DeleteGroups", "delete_groups", "groups", 0, 3, MANY, LISTS),
    Api(43, "ElectLeaders", "elect_leaders", "cluster", 0, 2, MANY, LISTS),
    Api(44, "IncrementalAlterConfigs", "incremental_alter_configs", "configs", 0, 1, MANY, LISTS),
    Api(45, "AlterPartitionReassignments", "alter_partition_reassignments", "cluster", 0, 1, MOST, LISTS),
    Api(46, "ListPartitionReassignments", "list_partition_reassignments", "cluster", 0, 0, MANY, LISTS),
    Api(47, "OffsetDelete", "offset_delete", "groups", 0, 0, MANY, LISTS),
    Api(48, "DescribeClientQuotas", "describe_client_quotas", "security", 0, 1),
    Api(49, "AlterClientQuotas", "alter_client_quotas", "security", 0, 1, MANY, LISTS),
    Api(50, "DescribeUserScramCredentials", "describe_user_scram_credentials", "security", 0, 0, MANY, LISTS),
    Api(51, "AlterUserScramCredentials", "alter_user_scram_credentials", "security", 0, 0, MANY, LISTS),
    Api(57, "UpdateFeatures", "update_features", "cluster", 0, 2),
    Api(60, "DescribeCluster", "describe_cluster", "cluster", 0, 2),
    Api(61, "DescribeProducers", "describe_producers", "records", 0, 0, MANY, LISTS),
    Api(64, "UnregisterBroker", "unregister_broker", "cluster", 0, 0),
    Api(65, "DescribeTransactions", "describe_transactions", "transactions", 0, 0, MANY, LISTS),
    Api(66, "ListTransactions", "list_transactions", "transactions", 0, 2, SOME),
    Api(68, "ConsumerGroupHeartbeat", "consumer_group_heartbeat", "groups", 0, 1, MANY, LISTS),
    Api(71, "GetTelemetrySubscriptions", "get_telemetry_subscriptions", "telemetry", 0, 0),
    Api(72, "PushTelemetry", "push_telemetry", "telemetry", 0, 0, FEW, LARGE),
    Api(74, "ListConfigResources", "list_config_resources", "configs", 0, 1),
    Api(75, "DescribeTopicPartitions", "describe_topic_partitions", "topics", 0, 0, MANY, LISTS),
)

APIS: dict[int, Api] = {api.key: api for api in _TABLE}
# Key and version of whatever is served: looked up for each request.
SERVED = frozenset((api.key, v) for api in _TABLE for v in range(api.version_min, api.version_max + 1))
BY_NAME: dict[str, Api] = {api.name: api for api in _TABLE}

PRODUCE: Final = 0
FETCH: Final = 1
LIST_OFFSETS: Final = 2
OFFSET_COMMIT: Final = 8
ADD_PARTITIONS_TO_TXN: Final = 24
WRITE_TXN_MARKERS: Final = 27
METADATA: Final = 3
OFFSET_DELETE: Final = 47
SASL_HANDSHAKE: Final = 17
API_VERSIONS: Final = 18
SASL_AUTHENTICATE: Final = 36


def frame_bytes_max(api_key: int) -> int:
    """The largest frame of an API, by its key; for one that is not served, that of the smallest."""
    api = APIS.get(api_key)
    return SMALL if api is None else api.frame_bytes_max
