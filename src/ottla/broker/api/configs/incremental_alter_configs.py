"""IncrementalAlterConfigs: set, delete, append to and subtract from single configurations (KIP-339).

v0-1 differ in encoding only. APPEND and SUBTRACT work on lists, from the default where nothing is set, but
not on those of groups and of subscriptions to clients' metrics. Levels of this broker's loggers can be set
and deleted (KIP-412); they are not stored. A resource is changed whole or not at all; each has its own
answer. ALTER_CONFIGS is asked for of topics and groups, whether they exist or not, and of the cluster for
what else there is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ottla.broker.api.configs.resources import Change, alter_each
from ottla.broker.large import Fields, Framed
from ottla.broker.loggers import alter_loggers
from ottla.broker.request import RequestContext
from ottla.metadata.configs import (
    TABLES,
    ConfigChange,
    ResourceType,
    changed,
    check_changes,
    check_named_once,
)


async def handle(ctx: RequestContext, request: Any) -> Fields | Framed:
    return await alter_each(ctx, request, _plan, _alter_loggers)


def _changes(resource: Any) -> list[ConfigChange]:
    return [ConfigChange(config.name, config.config_operation, config.value) for config in resource.configs]


def _alter_loggers(resource: Any, validate_only: bool) -> None:
    changes = _changes(resource)
    check_named_once(changes)
    alter_loggers(changes, validate_only=validate_only)


def _plan(resource: Any, kind: ResourceType) -> Change:
    changes = _changes(resource)
    check_changes(changes)

    def change(current: Mapping[str, str]) -> dict[str, str]:
        return changed(TABLES[kind], current, changes)

    return change
