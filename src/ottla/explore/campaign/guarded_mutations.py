"""Ways of breaking who may do what, each of which a guarded run has to notice."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import count
from typing import Any

from ottla.broker.api.records import fetch as fetch_api
from ottla.broker.api.records.fetch import handler as fetch
from ottla.errors import ErrorCode, KafkaError
from ottla.explore.campaign.guarded import FAULTS
from ottla.explore.campaign.mutations import Mutation, replaced
from ottla.metadata.acl_follower import AclFollower
from ottla.security.acl import Decisions


def ignore_deleted_acls(stack: ExitStack) -> None:
    """Every other node that starts does not hear of ACLs that are deleted."""
    change, numbers = AclFollower._change, count()
    numbered: dict[AclFollower, int] = {}

    def changing(self: AclFollower, old: Any, new: Any) -> Any:
        deaf = numbered.setdefault(self, next(numbers)) % 2 == 0
        return change(self, old, {**old, **new} if deaf else new)

    stack.enter_context(replaced(AclFollower, "_change", changing))


def ignore_added_acls(stack: ExitStack) -> None:
    """Nodes go by the ACLs that there were when they started, but for those that are deleted."""
    follow = AclFollower.follow
    known: dict[AclFollower, Any] = {}

    def following(self: AclFollower, old: Any, new: Any) -> Any:
        if self not in known:
            known[self] = new.acls
            return follow(self, old, new)
        return None

    stack.enter_context(replaced(AclFollower, "follow", following))


def remember_decisions(stack: ExitStack) -> None:
    """What was decided for a connection holds for as long as that does."""
    stack.enter_context(replaced(Decisions, "forget", lambda self: None))


def refuse_replicas(stack: ExitStack) -> None:
    """Nodes need a right to follow each other that nobody gives them."""

    def check_follower(ctx: Any) -> None:
        raise KafkaError(ErrorCode.topic_authorization_failed)

    stack.enter_context(replaced(fetch, "check_follower", check_follower))


def charge_replicas(stack: ExitStack) -> None:
    """Followers are held to quotas as clients are."""
    handle = fetch.handle

    def handling(ctx: Any, request: Any) -> Any:
        answer = handle(ctx, request)
        ctx.client.is_node = False
        return answer

    # Where the table of handlers has it from.
    stack.enter_context(replaced(fetch_api, "handle", handling))


CALM = ("break", "elect")

GUARDED_MUTATIONS: dict[str, Mutation] = {
    "ignore-deleted-acls": Mutation(ignore_deleted_acls, CALM, nodes=3),
    "ignore-added-acls": Mutation(ignore_added_acls, CALM, nodes=3),
    "remember-decisions": Mutation(remember_decisions, CALM, nodes=3),
    "charge-replicas": Mutation(charge_replicas, CALM, nodes=3),
    "refuse-replicas": Mutation(refuse_replicas, FAULTS, nodes=3),
}
