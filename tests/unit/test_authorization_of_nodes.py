"""What is said at a start where nodes come to each other as somebody who may not follow."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from ottla.metadata.authorization import say_whether_nodes_may
from ottla.metadata.image import EMPTY
from ottla.security.acl import Authorizer
from ottla.security.acl_bindings import AclBinding, Operation, PatternType, Permission, ResourceType
from ottla.security.principals import ANONYMOUS, user

NODE = user("CN=node")


def said(
    caplog: pytest.LogCaptureFixture, authorizer: Authorizer, *acls: AclBinding, of: object = NODE
) -> str:
    authorizer.change(added=acls)
    image = replace(EMPTY, acls={str(acl): acl for acl in acls})
    with caplog.at_level(logging.ERROR):
        say_whether_nodes_may(authorizer, image, ANONYMOUS if of is ANONYMOUS else NODE, "NODES")
    return caplog.text


def acl(permission: Permission = Permission.ALLOW, host: str = "*", who: str = "User:CN=node") -> AclBinding:
    return AclBinding(
        ResourceType.CLUSTER,
        "kafka-cluster",
        PatternType.LITERAL,
        who,
        host,
        Operation.CLUSTER_ACTION,
        permission,
    )


def test_it_is_said_who_they_are_and_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    text = said(caplog, Authorizer())
    assert "inter-broker listener NODES: nodes log in as User:CN=node" in text
    assert "Add User:CN=node to super.users of all nodes\n" in text
    caplog.clear()
    text = said(caplog, Authorizer(), of=ANONYMOUS)
    assert "Add User:ANONYMOUS to super.users" in text and "inter.broker.listener.name" in text


@pytest.mark.parametrize("acls", [(acl(Permission.DENY),), (acl(who="User:other"),)])
def test_an_acl_that_does_not_help_is_no_reason_to_be_silent(
    acls: tuple[AclBinding, ...], caplog: pytest.LogCaptureFixture
) -> None:
    assert "super.users" in said(caplog, Authorizer(), *acls)


def test_nothing_is_said_where_they_may(caplog: pytest.LogCaptureFixture) -> None:
    assert not said(caplog, Authorizer({"User:CN=node"}))
    assert not said(caplog, Authorizer(allow_if_no_acl=True))
    assert not said(caplog, Authorizer(), acl())
    assert not said(caplog, Authorizer(), acl(who="User:*"))
    # From some address, which theirs may be.
    assert not said(caplog, Authorizer(), acl(host="10.0.0.1"))
