"""Which partitions a consumer may read, asked at each look: ACLs may have changed since it began to wait."""

from __future__ import annotations

from uuid import UUID

from ottla.broker.request import RequestContext
from ottla.broker.rights import TOPIC
from ottla.security.acl_bindings import Operation


def denies(ctx: RequestContext, topic: str | UUID) -> bool:
    """Whether the client may not read a topic. Of an id that is nobody's it is told in another way."""
    if isinstance(topic, str):
        return not ctx.may(Operation.READ, TOPIC, topic)
    found = ctx.services.metadata.image.topics_by_id.get(topic)
    return found is not None and not ctx.may(Operation.READ, TOPIC, found.name)


def version(ctx: RequestContext) -> int:
    """Another one whenever the client's rights may be others."""
    permissions = ctx.client.permissions
    return 0 if permissions is None else permissions.version
