"""What a consumer may read."""

from __future__ import annotations

from typing import Final

from ottla.broker.api.records.fetch.session import Want
from ottla.broker.request import RequestContext
from ottla.errors import ErrorCode, KafkaError
from ottla.security.acl_bindings import CLUSTER_NAME, Operation, ResourceType

_READ: Final = Operation.READ
_TOPIC: Final = ResourceType.TOPIC
_CLUSTER_ACTION: Final = Operation.CLUSTER_ACTION
_CLUSTER: Final = ResourceType.CLUSTER


def may_read(ctx: RequestContext, want: Want) -> bool:
    """Whether a consumer may read a partition, there or not. Of an id that is nobody's it hears otherwise."""
    if ctx.client.permissions is None:
        return True
    topic = want.topic
    if not isinstance(topic, str):
        found = ctx.services.metadata.image.topics_by_id.get(topic)
        if found is None:
            return True
        topic = found.name
    return ctx.may(_READ, _TOPIC, topic)


def rights_of(ctx: RequestContext) -> object:
    """Another thing once the client may read something else; None where it may read everything."""
    permissions = ctx.client.permissions
    return None if permissions is None else (permissions, permissions.version)


def check_follower(ctx: RequestContext) -> None:
    """KafkaError where the client may not act as a replica."""
    if not ctx.may(_CLUSTER_ACTION, _CLUSTER, CLUSTER_NAME):
        raise KafkaError(ErrorCode.topic_authorization_failed)
