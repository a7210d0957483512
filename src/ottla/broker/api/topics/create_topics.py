"""CreateTopics: make topics, each on its own (KafkaApis, ReplicationControlManager.createTopics).

v2-3 differ in encoding only, v4 lets partitions and replicas be -1 for the default, v5 is flexible and
returns the new topic's configurations, v7 its id. The topics can be used when the answer arrives.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from ottla.broker.large import AT_ONCE_MAX, Fields, Framed, in_pieces, listed, made, mapped
from ottla.broker.request import RequestContext
from ottla.broker.rights import TOPIC, may_cluster
from ottla.broker.views.configs import created_entries
from ottla.config import TOPIC as TOPIC_CONFIGS
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.topics import METADATA_TOPIC, NewTopic, TopicResult
from ottla.security.acl_bindings import Operation

# As much work as one element of an answer is, in configurations.
FIELDS_PER_ELEMENT = 4


async def handle(ctx: RequestContext, request: Any) -> Fields | Framed:
    times = Counter(topic.name for topic in request.topics)
    refusals = await _refusals(ctx, times)
    tried = [topic for topic in request.topics if topic.name not in refusals]
    wanted = await made(ctx, _new_topic, tried)
    results = await ctx.services.metadata.controller.create_topics(
        wanted, validate_only=request.validate_only
    )
    found = {result.name: result for result in results}

    def told(name: str) -> Fields:
        refusal = refusals.get(name)
        return _failed(name, refusal) if refusal else _fields(ctx, found[name])

    # Each comes with all of its configurations.
    is_much = len(times) * len(TOPIC_CONFIGS) > AT_ONCE_MAX * FIELDS_PER_ELEMENT
    each = mapped if is_much else listed
    fields = {"throttle_time_ms": 0, "topics": each(told, list(times))}
    return await in_pieces(ctx, fields) if is_much else fields


async def _refusals(ctx: RequestContext, times: Counter[str]) -> dict[str, KafkaError]:
    """The topics that are not even tried, and why."""
    may_create = may_cluster(ctx, Operation.CREATE)

    def refusal(name: str) -> KafkaError | None:
        error = _refusal(name, times)
        if error is None and not may_create and not ctx.may(Operation.CREATE, TOPIC, name):
            error = KafkaError(ErrorCode.topic_authorization_failed, "Authorization failed.")
        return error

    names = list(times)
    found = zip(names, await made(ctx, refusal, names), strict=True)
    return {name: error for name, error in found if error is not None}


def _refusal(name: str, times: Counter[str]) -> KafkaError | None:
    """What is wrong with a topic's name, whoever asks."""
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
        "num_partitions": -1,
        "replication_factor": -1,
        "configs": (),
    }


def _fields(ctx: RequestContext, result: TopicResult) -> Fields:
    topic = result.topic
    if topic is None:
        return _failed(result.name, result.error or KafkaError(ErrorCode.unknown_server_error))
    if not ctx.may(Operation.DESCRIBE_CONFIGS, TOPIC, topic.name):
        # It is made, and more than that the client may not know.
        return {
            "name": topic.name,
            "topic_id": topic.topic_id,
            "error_code": 0,
            "error_message": None,
            "topic_config_error_code": int(ErrorCode.topic_authorization_failed),
            "num_partitions": -1,
            "replication_factor": -1,
            "configs": (),
        }
    return {
        "name": topic.name,
        "topic_id": topic.topic_id,
        "error_code": 0,
        "error_message": None,
        "topic_config_error_code": 0,
        "num_partitions": len(topic.partitions),
        "replication_factor": len(topic.partitions[0].replicas),
        "configs": created_entries(ctx.services.config, topic.configs),
    }
