"""DeleteTopics: delete topics by name, from v6 also by id (ControllerApis.deleteTopics).

A topic that is named by its name and by its id stays: INVALID_REQUEST.
v5 adds error messages, v6 topic ids. With ``delete.topic.enable=false`` all are refused:
TOPIC_DELETION_DISABLED from v3, INVALID_REQUEST before. Kafka's internal topics can be deleted like
others, as in Kafka. TOPIC_AUTHORIZATION_FAILED for topics that the client may not delete, or may not know of;
where it asks by an id, the answer has the name only if it may know it.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple
from uuid import UUID

from ottla.broker.api.topics.mutations import Mutations
from ottla.broker.large import AT_ONCE_MAX, Fields
from ottla.broker.request import RequestContext
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.image import ClusterImage
from ottla.security.acl_bindings import CLUSTER_NAME, Operation, ResourceType
from ottla.security.refused import refused

_NO_ID = UUID(int=0)


class _Target(NamedTuple):
    """A topic as the request names it."""

    name: str | None
    topic_id: UUID


class _Rights:
    """Whether the client may know of topics, and delete them: all where it may DELETE the cluster."""

    def __init__(self, ctx: RequestContext) -> None:
        self._ctx = ctx
        self._all = ctx.may(Operation.DELETE, ResourceType.CLUSTER, CLUSTER_NAME, quietly=True)

    def may_see(self, name: str) -> bool:
        return self._all or self._ctx.may(Operation.DESCRIBE, ResourceType.TOPIC, name)

    def may_delete(self, name: str) -> bool:
        return self._all or self._ctx.may(Operation.DELETE, ResourceType.TOPIC, name)


class _Denied(Exception):
    """A topic that the client may not delete; ``name`` is None where it may not even know of it."""

    def __init__(self, name: str | None) -> None:
        super().__init__(name)
        self.name = name


_NOTHING = _Target(None, _NO_ID)
_BOTH_WAYS = "The provided topic name maps to an ID that was already supplied."


async def handle(ctx: RequestContext, request: Any) -> Fields:
    version = ctx.header.api_version
    if not ctx.services.config.get("delete.topic.enable"):
        if version < 3:
            raise KafkaError(ErrorCode.invalid_request, "Topic deletion is disabled.")
        raise KafkaError(ErrorCode.topic_deletion_disabled)
    if version >= 6:
        targets = [_Target(topic.name, topic.topic_id or _NO_ID) for topic in request.topics]
    else:
        targets = [_Target(name, _NO_ID) for name in request.topic_names]
    mutations = Mutations(ctx, strict_since=5)
    responses = await _delete(ctx, targets, mutations)
    return {"throttle_time_ms": mutations.finish(), "responses": responses}


async def _delete(ctx: RequestContext, targets: list[_Target], mutations: Mutations) -> list[Fields]:
    image = ctx.services.metadata.image
    rights = _Rights(ctx)
    times = Counter(targets)
    responses: list[Fields] = []
    named: dict[UUID, int] = {}
    for done, (target, count) in enumerate(times.items(), 1):
        if done % AT_ONCE_MAX == 0:
            await ctx.services.slices.pause()
        try:
            topic_id = _resolve(image, target, count, rights)
            named[topic_id] = named.get(topic_id, 0) + 1
        except _Denied as denied:
            responses.append(_fields(denied.name, target.topic_id, refused(ResourceType.TOPIC)))
        except KafkaError as failure:
            # Who names nothing, or a topic in two ways at once, is told so each time.
            names_one = (target.name is None) != (target.topic_id == _NO_ID)
            responses += [_fields(target.name, target.topic_id, failure)] * (1 if names_one else count)
    wanted: dict[UUID, str] = {}
    for topic_id, count in named.items():
        name = image.topics_by_id[topic_id].name
        if count + times[_Target(None, topic_id)] > 2:
            # By its name and by its id: it stays, and there is one answer for both.
            responses.append(_fields(name, topic_id, KafkaError(ErrorCode.invalid_request, _BOTH_WAYS)))
        elif error := mutations.take(len(image.topics_by_id[topic_id].partitions)):
            responses.append(_fields(name, topic_id, error))
        else:
            wanted[topic_id] = name
    errors = await ctx.services.metadata.controller.delete_topics(list(wanted))
    for (topic_id, name), refusal in zip(wanted.items(), errors, strict=True):
        responses.append(_fields(name, topic_id, refusal))
    return responses


def _resolve(image: ClusterImage, target: _Target, times: int, rights: _Rights) -> UUID:
    """The id of the topic that a target names. KafkaError; _Denied where it is not for the client to know of
    it, or to delete it."""
    name, topic_id = target
    if target == _NOTHING:
        raise KafkaError(ErrorCode.invalid_request, "Neither topic name nor id were specified.")
    if name is not None and topic_id != _NO_ID:
        raise KafkaError(ErrorCode.invalid_request, "You may not specify both topic name and topic id.")
    if times > 1:
        what = "id" if name is None else "name"
        raise KafkaError(ErrorCode.invalid_request, f"Duplicate topic {what}.")
    if name is not None and not rights.may_see(name):
        raise _Denied(name)
    topic = image.topics_by_id.get(topic_id) if name is None else image.topics.get(name)
    if topic is None:
        unknown = ErrorCode.unknown_topic_id if name is None else ErrorCode.unknown_topic_or_partition
        raise KafkaError(unknown)
    if not rights.may_delete(topic.name):
        raise _Denied(topic.name if rights.may_see(topic.name) else None)
    return topic.topic_id


def _fields(name: str | None, topic_id: UUID, error: KafkaError | None) -> Fields:
    return {
        "name": name,
        "topic_id": topic_id,
        "error_code": 0 if error is None else int(error.code),
        "error_message": None if error is None else error.text,
    }
