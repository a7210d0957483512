"""IncrementalAlterConfigs: set, delete, append to and subtract from single configurations (KIP-339).

v0-1 differ in encoding only. APPEND and SUBTRACT work on lists, from the default where nothing is set. A
resource is changed whole or not at all; each has its own answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ottla.broker.context import RequestContext
from ottla.broker.handlers._configs import Change, alter_each
from ottla.metadata.configs import TABLES, ConfigChange, ResourceType, changed, check_changes


async def handle(ctx: RequestContext, request: Any) -> dict[str, Any]:
    return await alter_each(ctx, request, _plan)


def _plan(resource: Any, kind: ResourceType) -> Change:
    changes = [
        ConfigChange(config.name, config.config_operation, config.value) for config in resource.configs
    ]
    check_changes(changes)

    def change(current: Mapping[str, str]) -> dict[str, str]:
        return changed(TABLES[kind], current, changes)

    return change
