"""How each API says that a whole request failed: Kafka's ``AbstractRequest.getErrorResponse``, as a table.

Some APIs have one error code at the top; others repeat it for each thing that was asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from ottla.errors import ErrorCode, KafkaError
from ottla.wire.apis import BY_NAME

Fields = dict[str, Any]
Builder = Callable[[Any, ErrorCode, str | None], Fields]


def error_fields(api_key: int, request: Any, error: KafkaError) -> Fields:
    """The response's fields with which the whole ``request`` is answered by ``error``."""
    return _BUILDERS.get(api_key, _top)(request, error.code, error.message)


def _top(request: Any, code: ErrorCode, message: str | None) -> Fields:
    return {"error_code": code, "error_message": message}


def _top_with(**fields: Any) -> Builder:
    """One error code at the top, and these values for what else the response must have."""
    return lambda request, code, message: {"error_code": code, "error_message": message} | fields


def _name(topic: Any) -> Fields:
    """A topic's name or id, whichever the request's version had."""
    out: Fields = {}
    for field in ("name", "topic", "topic_id"):
        if hasattr(topic, field):
            out[field] = getattr(topic, field)
    return out


def _each_partition(
    topics: str, answer: str, partitions: str, answers: str, index: str, **fields: Any
) -> Builder:
    """An error code for each partition of each topic; the request's index field, or the partition itself."""

    def build(request: Any, code: ErrorCode, message: str | None) -> Fields:
        def one(partition: Any) -> Fields:
            number = partition if isinstance(partition, int) else getattr(partition, index)
            return {index: number, "error_code": code, "error_message": message} | fields

        return {
            answer: [
                _name(t) | {answers: [one(p) for p in getattr(t, partitions)]}
                for t in getattr(request, topics) or ()
            ]
        }

    return build


def _log_dirs(request: Any, code: ErrorCode, message: str | None) -> Fields:
    return {
        "results": [
            {
                "topic_name": topic.name,
                "partitions": [{"partition_index": index, "error_code": code} for index in topic.partitions],
            }
            for folder in request.dirs
            for topic in folder.topics
        ]
    }


def _each_topic(request: Any, code: ErrorCode, message: str | None) -> Fields:
    unknown = {"topic_id": None, "configs": (), "error_code": code, "error_message": message}
    return {"topics": [unknown | _name(t) for t in request.topics or ()]}


def _metadata(request: Any, code: ErrorCode, message: str | None) -> Fields:
    # A null name, which versions before 12 cannot answer, comes back empty.
    topics = [
        _name(t) | {"name": t.name or "", "error_code": code, "partitions": ()} for t in request.topics or ()
    ]
    return {"brokers": (), "controller_id": -1, "topics": topics, "error_code": code}


# Errors of the session as a whole, which clients look for at the top of a Fetch response.
_SESSION_ERRORS = (
    ErrorCode.fetch_session_id_not_found,
    ErrorCode.invalid_fetch_session_epoch,
    ErrorCode.fetch_session_topic_id_error,
)


def _fetch(request: Any, code: ErrorCode, message: str | None) -> Fields:
    """Clients act on a partition's error, but drop their session for one at the top: so that is where it
    stands only for a session's errors, and where the request names no partition."""
    if hasattr(request, "session_id") and (code in _SESSION_ERRORS or not request.topics):
        return {"error_code": code, "session_id": 0, "responses": ()}
    each = _each_partition(
        "topics", "responses", "partitions", "partitions", "partition", high_watermark=-1, records=b"",
        aborted_transactions=None,
    )  # fmt: skip
    fields = each(request, code, message) | {"error_code": ErrorCode.none, "session_id": 0}
    for topic in fields["responses"]:
        for partition in topic["partitions"]:
            partition["partition_index"] = partition.pop("partition")
    return fields


def _find_coordinator(request: Any, code: ErrorCode, message: str | None) -> Fields:
    nowhere = {"node_id": -1, "host": "", "port": -1, "error_code": code, "error_message": message}
    keys = getattr(request, "coordinator_keys", ())
    return nowhere | {"coordinators": [nowhere | {"key": key} for key in keys]}


def _offset_fetch(request: Any, code: ErrorCode, message: str | None) -> Fields:
    groups = getattr(request, "groups", ())
    failed = {"committed_offset": -1, "metadata": "", "error_code": code}
    topics = getattr(request, "topics", None) or ()
    return {
        "error_code": code,
        # Up to v1 there is no other place than by partition.
        "topics": [
            {"name": t.name, "partitions": [failed | {"partition_index": i} for i in t.partition_indexes]}
            for t in topics
        ],
        "groups": [{"group_id": g.group_id, "topics": (), "error_code": code} for g in groups],
    }


def _describe_groups(request: Any, code: ErrorCode, message: str | None) -> Fields:
    empty = {"group_state": "", "protocol_type": "", "protocol_data": "", "members": ()}
    return {
        "groups": [
            empty | {"group_id": g, "error_code": code, "error_message": message} for g in request.groups
        ]
    }


def _delete_groups(request: Any, code: ErrorCode, message: str | None) -> Fields:
    return {"results": [{"group_id": g, "error_code": code} for g in request.groups_names]}


def _delete_topics(request: Any, code: ErrorCode, message: str | None) -> Fields:
    topics = getattr(request, "topics", None) or [{"name": n} for n in getattr(request, "topic_names", ())]
    named = [t if isinstance(t, dict) else _name(t) for t in topics]
    return {"responses": [t | {"error_code": code, "error_message": message} for t in named]}


def _create_partitions(request: Any, code: ErrorCode, message: str | None) -> Fields:
    return {"results": _each_topic(request, code, message)["topics"]}


def _resources(answer: str) -> Builder:
    def build(request: Any, code: ErrorCode, message: str | None) -> Fields:
        return {
            answer: [
                {
                    "error_code": code,
                    "error_message": message,
                    "resource_type": r.resource_type,
                    "resource_name": r.resource_name,
                    "configs": (),
                }
                for r in request.resources
            ]
        }

    return build


def _add_partitions_to_txn(request: Any, code: ErrorCode, message: str | None) -> Fields:
    """Clients look at each partition, nodes at the top first."""
    topics = getattr(request, "v3_and_below_topics", ())
    return {
        "error_code": code,
        "results_by_transaction": (),
        "results_by_topic_v3_and_below": [
            {
                "name": topic.name,
                "results_by_partition": [
                    {"partition_index": index, "partition_error_code": code} for index in topic.partitions
                ],
            }
            for topic in topics
        ],
    }


def _write_txn_markers(request: Any, code: ErrorCode, message: str | None) -> Fields:
    return {
        "markers": [
            {
                "producer_id": marker.producer_id,
                "topics": [
                    {
                        "name": topic.name,
                        "partitions": [
                            {"partition_index": index, "error_code": code}
                            for index in topic.partition_indexes
                        ],
                    }
                    for topic in marker.topics
                ],
            }
            for marker in request.markers
        ]
    }


def _describe_transactions(request: Any, code: ErrorCode, message: str | None) -> Fields:
    empty: Fields = {
        "transaction_state": "", "transaction_timeout_ms": 0, "transaction_start_time_ms": 0,
        "producer_id": 0, "producer_epoch": 0, "topics": (),
    }  # fmt: skip
    return {
        "transaction_states": [
            empty | {"transactional_id": each, "error_code": code} for each in request.transactional_ids
        ]
    }


def _alter_client_quotas(request: Any, code: ErrorCode, message: str | None) -> Fields:
    return {
        "entries": [
            {
                "error_code": code,
                "error_message": message,
                "entity": [
                    {"entity_type": part.entity_type, "entity_name": part.entity_name}
                    for part in entry.entity
                ],
            }
            for entry in request.entries
        ]
    }


def _describe_credentials(request: Any, code: ErrorCode, message: str | None) -> Fields:
    failed = {"user": "", "error_code": code, "error_message": message, "credential_infos": ()}
    return {"error_code": code, "error_message": message, "results": [failed] * len(request.users or ())}


def _alter_credentials(request: Any, code: ErrorCode, message: str | None) -> Fields:
    users = {asked.name for asked in (*request.deletions, *request.upsertions)}
    failed = {"error_code": code, "error_message": message}
    return {"results": [failed | {"user": user} for user in sorted(users)]}


def _with_top(build: Builder) -> Builder:
    """The error at the top as well."""
    return lambda request, code, message: _top(request, code, message) | build(request, code, message)


_NAMED: dict[str, Builder] = {
    "Produce": _each_partition(
        "topic_data", "responses", "partition_data", "partition_responses", "index", base_offset=-1,
        record_errors=(),
    ),
    "Fetch": _fetch,
    "ListOffsets": _each_partition(
        "topics", "topics", "partitions", "partitions", "partition_index", timestamp=-1, offset=-1
    ),
    "Metadata": _metadata,
    "TxnOffsetCommit": _each_partition("topics", "topics", "partitions", "partitions", "partition_index"),
    "OffsetCommit": _each_partition("topics", "topics", "partitions", "partitions", "partition_index"),
    "OffsetFetch": _offset_fetch,
    "FindCoordinator": _find_coordinator,
    "JoinGroup": _top_with(generation_id=-1, protocol_name="", leader="", member_id="", members=()),
    "LeaveGroup": _top_with(members=()),
    "SyncGroup": _top_with(assignment=b""),
    "DescribeGroups": _describe_groups,
    "ListGroups": _top_with(groups=()),
    "ConsumerGroupHeartbeat": _top_with(
        member_id=None, member_epoch=0, heartbeat_interval_ms=0, assignment=None
    ),
    "ApiVersions": _top_with(api_keys=()),
    "SaslHandshake": _top_with(mechanisms=()),
    "SaslAuthenticate": _top_with(auth_bytes=b"", session_lifetime_ms=0),
    "GetTelemetrySubscriptions": _top_with(
        client_instance_id=UUID(int=0), subscription_id=0, accepted_compression_types=(), push_interval_ms=0,
        telemetry_max_bytes=0, delta_temporality=False, requested_metrics=(),
    ),
    "CreateDelegationToken": _top_with(
        principal_type="", principal_name="", token_requester_principal_type="",
        token_requester_principal_name="", issue_timestamp_ms=-1, expiry_timestamp_ms=-1,
        max_timestamp_ms=-1, token_id="", hmac=b"", throttle_time_ms=0,
    ),
    "RenewDelegationToken": _top_with(expiry_timestamp_ms=-1, throttle_time_ms=0),
    "ExpireDelegationToken": _top_with(expiry_timestamp_ms=-1, throttle_time_ms=0),
    "DescribeDelegationToken": _top_with(tokens=(), throttle_time_ms=0),
    "CreateTopics": _each_topic,
    "DeleteTopics": _delete_topics,
    "DeleteRecords": _each_partition(
        "topics", "topics", "partitions", "partitions", "partition_index", low_watermark=-1
    ),
    "InitProducerId": _top_with(producer_id=-1, producer_epoch=-1),
    "AddPartitionsToTxn": _add_partitions_to_txn,
    "EndTxn": _top_with(producer_id=-1, producer_epoch=-1),
    "WriteTxnMarkers": _write_txn_markers,
    "DescribeTransactions": _describe_transactions,
    "ListTransactions": _top_with(unknown_state_filters=(), transaction_states=()),
    "OffsetForLeaderEpoch": _each_partition(
        "topics", "topics", "partitions", "partitions", "partition", leader_epoch=-1, end_offset=-1
    ),
    "DescribeAcls": _top_with(resources=()),
    "CreateAcls": lambda request, code, message: {
        "results": [{"error_code": code, "error_message": message}] * len(request.creations)
    },
    "DeleteAcls": lambda request, code, message: {
        "filter_results": [{"error_code": code, "error_message": message, "matching_acls": ()}]
        * len(request.filters)
    },
    "DescribeConfigs": _resources("results"),
    "AlterConfigs": _resources("responses"),
    "IncrementalAlterConfigs": _resources("responses"),
    "AlterReplicaLogDirs": _log_dirs,
    "DescribeLogDirs": _top_with(results=()),
    "CreatePartitions": _create_partitions,
    "DeleteGroups": _delete_groups,
    "ElectLeaders": _with_top(
        _each_partition(
            "topic_partitions", "replica_election_results", "partitions", "partition_result", "partition_id"
        )
    ),
    "AlterPartitionReassignments": _with_top(
        _each_partition("topics", "responses", "partitions", "partitions", "partition_index")
    ),
    "ListPartitionReassignments": _top_with(topics=()),
    "OffsetDelete": _top_with(topics=()),
    "DescribeClientQuotas": _top_with(entries=None),
    "AlterClientQuotas": _alter_client_quotas,
    "DescribeUserScramCredentials": _describe_credentials,
    "AlterUserScramCredentials": _alter_credentials,
    "UpdateFeatures": _top_with(results=()),
    "DescribeCluster": _top_with(cluster_id="", brokers=()),
    "DescribeProducers": _each_partition(
        "topics", "topics", "partition_indexes", "partitions", "partition_index", active_producers=()
    ),
    "ListConfigResources": _top_with(config_resources=()),
    "DescribeTopicPartitions": lambda request, code, message: {
        "topics": [
            _name(t) | {"topic_id": None, "error_code": code, "is_internal": False, "partitions": ()}
            for t in request.topics
        ]
    },
}  # fmt: skip

_BUILDERS: dict[int, Builder] = {BY_NAME[name].key: build for name, build in _NAMED.items()}
