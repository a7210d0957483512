"""CreateTopics: make topics, each on its own (KafkaApis, ReplicationControlManager.createTopics).

v2-3 differ in encoding only, v4 lets partitions and replicas be -1 for the default, v5 is flexible and
returns the new topic's configurations, v7 its id. The topics can be used when the answer arrives.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from ottla.broker.context import RequestContext
from ottla.broker.handlers._configs import topic_entries
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.controller import TopicResult
from ottla.metadata.topics import METADATA_TOPIC, NewTopic

Fields = dict[str, Any]


async def handle(ctx: RequestContext, request: Any) -> Fields:
    times = Counter(topic.name for topic in request.topics)
    wanted = [_new_topic(topic) for topic in request.topics if _refusal(topic.name, times) is None]
    results = await ctx.services.metadata.controller.create_topics(
        wanted, validate_only=request.validate_only
    )
    found = {result.name: result for result in results}
    topics = []
    for name in times:
        refusal = _refusal(name, times)
        topics.append(_failed(name, refusal) if refusal else _fields(ctx, found[name]))
    return {"throttle_time_ms": 0, "topics": topics}


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
        "num_partitions": -1,
        "replication_factor": -1,
        "configs": (),
    }


def _fields(ctx: RequestContext, result: TopicResult) -> Fields:
    topic = result.topic
    if topic is None:
        return _failed(result.name, result.error or KafkaError(ErrorCode.unknown_server_error))
    return {
        "name": topic.name,
        "topic_id": topic.topic_id,
        "error_code": 0,
        "error_message": None,
        "topic_config_error_code": 0,
        "num_partitions": len(topic.partitions),
        "replication_factor": len(topic.partitions[0].replicas),
        "configs": topic_entries(ctx.services.config, topic.configs),
    }
