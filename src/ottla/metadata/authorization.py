"""The authorizer of a node, kept at the ACLs of the image."""

from __future__ import annotations

import logging
import re

from ottla.config import BrokerConfig, ConfigError
from ottla.metadata.acl_follower import AclFollower
from ottla.metadata.image import EMPTY, ClusterImage
from ottla.metadata.service import Metadata
from ottla.pieces import whole
from ottla.security.acl import Authorizer, super_users
from ottla.security.acl_bindings import CLUSTER_NAME, Operation, Permission, ResourceType
from ottla.security.principals import ANONYMOUS, KafkaPrincipal

log = logging.getLogger(__name__)

# Behind it another principal is meant, as lists have them elsewhere; a subject has CN=a,OU=b.
_COMMA = re.compile(r",\s*User:")
_FOLLOWS = (Operation.CLUSTER_ACTION, Operation.ALL)
# An address that ACLs for some address alone do not name.
_SOMEWHERE = "127.0.0.1"


def authorizer_of(config: BrokerConfig, metadata: Metadata, own: KafkaPrincipal | None) -> Authorizer:
    """What ``authorizer.class.name`` asks for, with the ACLs that there are, now and later. ``own``: as whom
    nodes log in to each other, a super user besides ``super.users``."""
    named = _super_users(config.get("super.users")) | ({str(own)} if own is not None else set())
    made = Authorizer(named, allow_if_no_acl=config.get("allow.everyone.if.no.acl.found"))
    follower = AclFollower(made)
    pieces = follower.follow(EMPTY, metadata.image)
    if pieces is not None:
        whole(pieces)
    metadata.subscribe(follower.follow)
    return made


def _super_users(text: str) -> frozenset[str]:
    """Those of ``super.users``; ConfigError where one is none, as Kafka does not start with it either."""
    try:
        users = super_users(text)
    except ValueError as error:
        raise ConfigError(f"Invalid value {text} for configuration super.users: {error}") from None
    for user in users:
        if _COMMA.search(user):
            log.warning(
                "super.users: a user has the name %s; is the separator wrong? Semicolons separate users", user
            )
    return users


def say_whether_nodes_may(
    authorizer: Authorizer, image: ClusterImage, principal: KafkaPrincipal, listener: str
) -> None:
    """Say what to do where nodes that come to each other as ``principal`` may not follow each other. They go
    on all the same, since an ACL may come that lets them."""
    who = str(principal)
    if authorizer.client(who, _SOMEWHERE).allows(
        Operation.CLUSTER_ACTION, ResourceType.CLUSTER, CLUSTER_NAME
    ) or any(
        acl.permission is Permission.ALLOW
        and acl.resource_type is ResourceType.CLUSTER
        and acl.operation in _FOLLOWS
        and acl.principal == who
        for acl in image.acls.values()
    ):
        return
    besides = ""
    if principal == ANONYMOUS:
        besides = (
            ", which lets everybody do everything who reaches that listener, or have nodes use another one, "
            "by which it is known who they are (inter.broker.listener.name)"
        )
    log.error(
        "inter-broker listener %s: nodes log in as %s, and this principal has no right to "
        "CLUSTER_ACTION: replicas cannot fetch, and partitions become under-replicated. Add %s "
        "to super.users of all nodes%s",
        listener, who, who, besides,
    )  # fmt: skip
