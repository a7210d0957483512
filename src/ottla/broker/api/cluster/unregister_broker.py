"""UnregisterBroker: forget a node that will not come back (ReplicationControlManager.unregisterBroker).

v0. Where Kafka also takes a registration from a node that lives, which then is in the way of its own return,
we answer INVALID_REQUEST and say to stop it. BROKER_ID_NOT_REGISTERED for one that never was. Partitions keep
it among their replicas until they are reassigned. If it does come back, it joins as a new node.
"""

from __future__ import annotations

from typing import Any

from ottla.broker.request import RequestContext


async def handle(ctx: RequestContext, request: Any) -> dict[str, Any]:
    await ctx.services.metadata.controller.unregister_node(request.broker_id)
    return {"throttle_time_ms": 0, "error_code": 0, "error_message": None}
