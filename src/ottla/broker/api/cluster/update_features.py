"""UpdateFeatures: move features of the cluster to other levels (KIP-584, KIP-778; FeatureControlManager).

All of them or none. v0 only moves up: as in Kafka, nothing looks at ``allow_downgrade``. v1 says how each
may move, and may validate only. v0-1 answer for each feature where all is well, v2 does not; an error
stands at the top in all of them, INVALID_UPDATE_VERSION with the feature that is in the way. Any node
answers, since any can change the metadata, and every registered node must support the levels, those that do
not live included. Where a feature is named twice, the last counts.
"""

from __future__ import annotations

from typing import Any

from ottla.broker.request import RequestContext
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.features import FeatureUpdate, UpgradeType


async def handle(ctx: RequestContext, request: Any) -> dict[str, Any]:
    updates = [
        FeatureUpdate(one.feature, one.max_version_level, getattr(one, "upgrade_type", UpgradeType.UPGRADE))
        for one in request.feature_updates
    ]
    fields: dict[str, Any] = {"throttle_time_ms": 0, "error_code": 0, "error_message": None, "results": ()}
    try:
        await ctx.services.metadata.controller.update_features(
            ctx.services.node_id, updates, validate_only=getattr(request, "validate_only", False)
        )
    except KafkaError as error:
        if error.code is not ErrorCode.invalid_update_version:
            raise
        message = f"The update failed for all features since the following feature had an error: {error.text}"
        return fields | {"error_code": int(error.code), "error_message": message}
    # Kafka's message of each is the name of its code.
    fields["results"] = [
        {"feature": update.name, "error_code": 0, "error_message": "NONE"} for update in updates
    ]
    return fields
