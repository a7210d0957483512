"""DescribeCluster: the brokers and the controller (AuthHelper.computeDescribeClusterResponse).

v1 adds the endpoint type: this is a broker, so only type 1 is answered. v2 adds fenced brokers: nodes that
have joined once and do not live now.
"""

from __future__ import annotations

from typing import Any

from ottla.broker.request import RequestContext
from ottla.broker.views.cluster import (
    OPERATIONS_OMITTED,
    broker_fields,
    cluster_operations,
    fenced_broker_fields,
)
from ottla.errors import ErrorCode

BROKERS, CONTROLLERS = 1, 2


def handle(ctx: RequestContext, request: Any) -> dict[str, Any]:
    image = ctx.services.metadata.image
    endpoint_type = getattr(request, "endpoint_type", BROKERS)
    error, message = ErrorCode.none, None
    if endpoint_type == CONTROLLERS:
        error = ErrorCode.mismatched_endpoint_type
        message = (
            "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER"
        )
    elif endpoint_type != BROKERS:
        error = ErrorCode.unsupported_endpoint_type
        message = f"Unsupported endpoint type {endpoint_type}"
    failed = error is not ErrorCode.none
    brokers = [] if failed else broker_fields(image, ctx.listener)
    known = any(broker["broker_id"] == image.controller_id for broker in brokers)
    if not failed and getattr(request, "include_fenced_brokers", False):
        brokers += fenced_broker_fields(image, ctx.listener)
    operations = OPERATIONS_OMITTED
    if request.include_cluster_authorized_operations:
        operations = cluster_operations(ctx)
    return {
        "throttle_time_ms": 0,
        "error_code": int(error),
        "error_message": message,
        "endpoint_type": BROKERS,
        "cluster_id": "" if failed else image.cluster_id,
        "controller_id": image.controller_id if known else -1,
        "brokers": brokers,
        "cluster_authorized_operations": OPERATIONS_OMITTED if failed else operations,
    }
