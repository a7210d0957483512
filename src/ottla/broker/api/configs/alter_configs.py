"""AlterConfigs: replace all of a resource's configurations (deprecated by IncrementalAlterConfigs, KIP-339).

v0-2 differ in encoding only. Topics, groups, subscriptions to clients' metrics, this broker, and with an
empty name all brokers can be changed. A resource is changed whole or not at all; each has its own answer.
ALTER_CONFIGS is asked for of topics and groups, whether they exist or not, and of the cluster for what else
there is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ottla.broker.api.configs.resources import Change, alter_each
from ottla.broker.large import Fields, Framed
from ottla.broker.request import RequestContext
from ottla.metadata.configs import ConfigChange, OpType, ResourceType, check_changes


async def handle(ctx: RequestContext, request: Any) -> Fields | Framed:
    return await alter_each(ctx, request, _plan)


def _plan(resource: Any, kind: ResourceType) -> Change:
    check_changes([ConfigChange(config.name, OpType.SET, config.value) for config in resource.configs])
    replacement = {config.name: config.value for config in resource.configs}

    def change(current: Mapping[str, str]) -> dict[str, str]:
        return replacement

    return change
