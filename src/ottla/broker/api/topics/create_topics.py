"""CreateTopics: make topics, each on its own (KafkaApis, ReplicationControlManager.createTopics).

v2-3 differ in encoding only, v4 lets partitions and replicas be -1 for the default, v5 is flexible and
returns the new topic's configurations, v7 its id. The topics can be used when the answer arrives.
TOPIC_AUTHORIZATION_FAILED for topics that the client may not CREATE, by the cluster or by their names.
Without DESCRIBE_CONFIGS on one that is made, topic_config_error_code says so in place of what it is like.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from ottla.broker.api.topics.mutations import Mutations
from ottla.broker.large import AT_ONCE_MAX, Fields, Framed, allowed, in_pieces, listed, made, mapped
from ottla.broker.request import RequestContext
from ottla.broker.views.configs import created_entries
from ottla.config import TOPIC
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.topics import METADATA_TOPIC, NewTopic, TopicResult
from ottla.security.acl_bindings import CLUSTER_NAME, Operation, ResourceType

# As much work as one element of an answer is, in configurations.
FIELDS_PER_ELEMENT = 4

_UNDESCRIBED = {"num_partitions": -1, "replication_factor": -1, "configs": ()}


async def handle(ctx: RequestContext, request: Any) -> Fields | Framed:
    times = Counter(topic.name for topic in request.topics)
    tried = [topic for topic in request.topics if _refusal(topic.name, times) is None]
    denied = await _denied(ctx, tried)
    tried = [topic for topic in tried if topic.name not in denied]
    mutations = Mutations(ctx, strict_since=6)
    wanted, over = _within_quota(ctx, await made(ctx, _new_topic, tried), mutations)
    results = await ctx.services.metadata.controller.create_topics(
        wanted, validate_only=request.validate_only
    )
    found = {result.name: result for result in results}

    def told(name: str) -> Fields:
        refusal = _refusal(name, times)
        refusal = over.get(name, refusal)
        if name in denied:
            refusal = KafkaError(ErrorCode.topic_authorization_failed, "Authorization failed.")
        return _failed(name, refusal) if refusal else _fields(ctx, found[name])

    # Each comes with all of its configurations.
    is_much = len(times) * len(TOPIC) > AT_ONCE_MAX * FIELDS_PER_ELEMENT
    each = mapped if is_much else listed
    fields = {"throttle_time_ms": mutations.finish(), "topics": each(told, list(times))}
    return await in_pieces(ctx, fields) if is_much else fields


def _within_quota(
    ctx: RequestContext, topics: list[NewTopic], mutations: Mutations
) -> tuple[list[NewTopic], dict[str, KafkaError]]:
    """Those that the client's quota has room for, and why the others are not made."""
    over: dict[str, KafkaError] = {}
    if mutations.are_limited:
        default = ctx.services.config.get("num.partitions")
        for topic in topics:
            count = len(topic.assignments) or (topic.num_partitions if topic.num_partitions > 0 else default)
            if (error := mutations.make(count)) is not None:
                over[topic.name] = error
    return [topic for topic in topics if topic.name not in over], over


async def _denied(ctx: RequestContext, topics: Sequence[Any]) -> frozenset[str]:
    """Those that the client may not CREATE, whether they exist or not."""
    if ctx.may(Operation.CREATE, ResourceType.CLUSTER, CLUSTER_NAME, quietly=True):
        return frozenset()
    may_create = await allowed(ctx, Operation.CREATE, ResourceType.TOPIC, (topic.name for topic in topics))
    return frozenset([topic.name for topic in topics if topic.name not in may_create])


def _refusal(name: str, times: Counter[str]) -> KafkaError | None:
    """Why a topic is not even tried."""
    if times[name] > 1:
        return KafkaError(ErrorCode.invalid_request, "Duplicate topic name.")
    if name == METADATA_TOPIC:
        return KafkaError(
            ErrorCode.invalid_request, f"Creation of internal topic {METADATA_TOPIC} is prohibited."
        )
    return None


def _new_topic(topic: Any) -> NewTopic:
    return NewTopic(
        topic.name,
        topic.num_partitions,
        topic.replication_factor,
        [(assignment.partition_index, assignment.broker_ids) for assignment in topic.assignments],
        {config.name: config.value for config in topic.configs},
    )


def _failed(name: str, error: KafkaError) -> Fields:
    return {
        "name": name,
        "topic_id": None,
        "error_code": int(error.code),
        "error_message": error.message,
        "topic_config_error_code": 0,
    } | _UNDESCRIBED


def _fields(ctx: RequestContext, result: TopicResult) -> Fields:
    topic = result.topic
    if topic is None:
        return _failed(result.name, result.error or KafkaError(ErrorCode.unknown_server_error))
    made = {"name": topic.name, "topic_id": topic.topic_id, "error_code": 0, "error_message": None}
    if not ctx.may(Operation.DESCRIBE_CONFIGS, ResourceType.TOPIC, topic.name, quietly=True):
        return made | _UNDESCRIBED | {"topic_config_error_code": int(ErrorCode.topic_authorization_failed)}
    return made | {
        "topic_config_error_code": 0,
        "num_partitions": len(topic.partitions),
        "replication_factor": len(topic.partitions[0].replicas),
        "configs": created_entries(ctx.services.config, topic.configs),
    }
