"""Which API keys and versions we serve: ApiVersions and the dispatcher both read this one table."""

from __future__ import annotations

from typing import NamedTuple


class Api(NamedTuple):
    """An API, its versions that are served, and what ApiVersions says of it."""

    key: int
    name: str  # Kafka's name
    schema: str  # kio's name for the messages, and our handler's module
    version_min: int
    version_max: int
    # Versions from here are listed although only those from version_min are served.
    listed_min: int | None = None

    def serves(self, version: int) -> bool:
        return self.version_min <= version <= self.version_max


# Kafka 4 lists Produce from version 0, since older librdkafka falls back to old message formats when it
# does not see those versions (KAFKA-18659).
_TABLE = (
    Api(0, "Produce", "produce", 3, 13, listed_min=0),
    Api(1, "Fetch", "fetch", 4, 18),
    Api(2, "ListOffsets", "list_offsets", 1, 11),
    Api(3, "Metadata", "metadata", 0, 13),
    Api(8, "OffsetCommit", "offset_commit", 2, 10),
    Api(9, "OffsetFetch", "offset_fetch", 1, 10),
    Api(10, "FindCoordinator", "find_coordinator", 0, 6),
    Api(11, "JoinGroup", "join_group", 0, 9),
    Api(12, "Heartbeat", "heartbeat", 0, 4),
    Api(13, "LeaveGroup", "leave_group", 0, 5),
    Api(14, "SyncGroup", "sync_group", 0, 5),
    Api(15, "DescribeGroups", "describe_groups", 0, 6),
    Api(16, "ListGroups", "list_groups", 0, 5),
    Api(18, "ApiVersions", "api_versions", 0, 4),
    Api(19, "CreateTopics", "create_topics", 2, 7),
    Api(20, "DeleteTopics", "delete_topics", 1, 6),
    Api(21, "DeleteRecords", "delete_records", 0, 2),
    Api(22, "InitProducerId", "init_producer_id", 0, 5),
    Api(23, "OffsetForLeaderEpoch", "offset_for_leader_epoch", 2, 4),
    Api(32, "DescribeConfigs", "describe_configs", 1, 4),
    Api(33, "AlterConfigs", "alter_configs", 0, 2),
    Api(35, "DescribeLogDirs", "describe_log_dirs", 1, 5),
    Api(37, "CreatePartitions", "create_partitions", 0, 3),
    Api(42, "DeleteGroups", "delete_groups", 0, 2),
    Api(43, "ElectLeaders", "elect_leaders", 0, 2),
    Api(44, "IncrementalAlterConfigs", "incremental_alter_configs", 0, 1),
    Api(45, "AlterPartitionReassignments", "alter_partition_reassignments", 0, 1),
    Api(46, "ListPartitionReassignments", "list_partition_reassignments", 0, 0),
    Api(47, "OffsetDelete", "offset_delete", 0, 0),
    Api(60, "DescribeCluster", "describe_cluster", 0, 2),
    Api(61, "DescribeProducers", "describe_producers", 0, 0),
    Api(64, "UnregisterBroker", "unregister_broker", 0, 0),
    Api(74, "ListConfigResources", "list_config_resources", 0, 1),
    Api(75, "DescribeTopicPartitions", "describe_topic_partitions", 0, 0),
)

APIS: dict[int, Api] = {api.key: api for api in _TABLE}
BY_NAME: dict[str, Api] = {api.name: api for api in _TABLE}

PRODUCE, FETCH, LIST_OFFSETS, METADATA, API_VERSIONS = 0, 1, 2, 3, 18
