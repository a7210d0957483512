"""What a client may write: to which topics, and as part of which transactions."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from ottla.broker.request import RequestContext
from ottla.errors import ErrorCode, KafkaError
from ottla.security.acl_bindings import Operation, ResourceType

_WRITE: Final = Operation.WRITE
_TOPIC: Final = ResourceType.TOPIC
_TRANSACTIONAL_ID: Final = ResourceType.TRANSACTIONAL_ID


def writable(ctx: RequestContext, topic: str | UUID) -> str:
    """The name of a topic, to which the client may write.

    KafkaError: UNKNOWN_TOPIC_ID; TOPIC_AUTHORIZATION_FAILED, of a name whether there is such a topic or not.
    """
    name = topic if isinstance(topic, str) else ctx.services.replicas.topic_name(topic)
    if ctx.client.permissions is not None and not ctx.may(_WRITE, _TOPIC, name):
        raise KafkaError(ErrorCode.topic_authorization_failed)
    return name


def check_transaction(ctx: RequestContext, transactional_id: str) -> None:
    """KafkaError where the client may not write as part of a transaction."""
    if not ctx.may(_WRITE, _TRANSACTIONAL_ID, transactional_id):
        raise KafkaError(ErrorCode.transactional_id_authorization_failed)
