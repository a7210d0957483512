"""What the requests about delegation tokens have in common."""

from __future__ import annotations

from typing import Any

from ottla.broker.request import RequestContext
from ottla.metadata.delegation_tokens import Tokens
from ottla.security.principals import KafkaPrincipal
from ottla.security.tokens import check_may_ask


def tokens_for(ctx: RequestContext) -> Tokens:
    """The tokens, for a client that may say anything about them. KafkaError where it may not."""
    protocols = {one.listener: one.protocol for one in ctx.services.config.listeners()}
    check_may_ask(ctx.client.principal, protocols[ctx.listener])
    assert ctx.services.tokens is not None
    return ctx.services.tokens


def principals(named: Any) -> list[KafkaPrincipal]:
    """Those that a request names."""
    return [KafkaPrincipal(one.principal_type, one.principal_name) for one in named]
