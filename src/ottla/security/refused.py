"""What a client is told that may not do something, by what it is about."""

from __future__ import annotations

from typing import Final

from ottla.errors import ErrorCode, KafkaError
from ottla.security.acl_bindings import ResourceType

# The errors of ``AclEntry.authorizationError``, and Kafka's words for them.
_REFUSED: Final[dict[ResourceType, tuple[ErrorCode, str]]] = {
    ResourceType.TOPIC: (ErrorCode.topic_authorization_failed, "Topic authorization failed."),
    ResourceType.GROUP: (ErrorCode.group_authorization_failed, "Group authorization failed."),
    ResourceType.CLUSTER: (ErrorCode.cluster_authorization_failed, "Cluster authorization failed."),
    ResourceType.TRANSACTIONAL_ID: (
        ErrorCode.transactional_id_authorization_failed,
        "Transactional Id authorization failed.",
    ),
    ResourceType.DELEGATION_TOKEN: (
        ErrorCode.delegation_token_authorization_failed,
        "Delegation Token authorization failed.",
    ),
}


def refused(resource_type: ResourceType) -> KafkaError:
    """What a client is told that may not do something to a resource of this type."""
    return KafkaError(*_REFUSED[resource_type])
