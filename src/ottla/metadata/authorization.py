"""The authorizer of a node, kept at the ACLs of the image."""

from __future__ import annotations

from ottla.config import BrokerConfig
from ottla.metadata.acl_follower import AclFollower
from ottla.metadata.image import EMPTY, ClusterImage
from ottla.metadata.service import Subscriber
from ottla.pieces import whole
from ottla.security.acl import Authorizer, super_users


def authorizer_of(config: BrokerConfig, *also: str) -> Authorizer:
    """What ``authorizer.class.name`` asks for, where it does. ``also``: principals that are super users
    besides ``super.users``."""
    named = super_users(config.get("super.users"))
    return Authorizer(named | set(also), allow_if_no_acl=config.get("allow.everyone.if.no.acl.found"))


def acls_of(authorizer: Authorizer, image: ClusterImage) -> Subscriber:
    """Put the ACLs of an image in force; what is returned does so with each later one."""
    follower = AclFollower(authorizer)
    pieces = follower.follow(EMPTY, image)
    if pieces is not None:
        whole(pieces)
    return follower.follow
