"""The authorizer of a node, kept at the ACLs of the image."""

from __future__ import annotations

from collections.abc import Callable

from ottla.config import BrokerConfig
from ottla.metadata.image import ClusterImage
from ottla.security.acl import Authorizer, super_users


def authorizer_of(config: BrokerConfig, *also: str) -> Authorizer | None:
    """What ``authorizer.class.name`` asks for; None where everybody may do everything. ``also``: principals
    that are super users besides ``super.users``."""
    if not config.get("authorizer.class.name"):
        return None
    named = super_users(config.get("super.users"))
    return Authorizer(named | set(also), allow_if_no_acl=config.get("allow.everyone.if.no.acl.found"))


def acls_of(
    authorizer: Authorizer, image: ClusterImage
) -> Callable[[ClusterImage | None, ClusterImage], None]:
    """Put the ACLs of an image in force; what is returned does so with each later one."""

    def follow(old: ClusterImage | None, new: ClusterImage) -> None:
        before = {} if old is None else old.acls
        if before is not new.acls:
            removed = [acl for name, acl in before.items() if name not in new.acls]
            added = [acl for name, acl in new.acls.items() if name not in before]
            authorizer.change(removed, added)

    follow(None, image)
    return follow
