"""ApiVersions (KIP-35, KIP-511): which requests this broker serves, and at which versions.

v0-2: the list. v3+: the client's software name and version are checked; tagged fields have the features
that this node supports, and the levels that are in force (KIP-584). v4: a feature's minimum version may be
0, as it is of most; before, such features are left out, which older clients cannot read. Features that are
not served yet are listed with level 0 alone, which Kafka leaves out. v5: a client may say which node of
which cluster it means, and hears if its addresses are stale (KIP-1242). A version that we do not know is
answered at version 0 with UNSUPPORTED_VERSION by the gate.
"""

from __future__ import annotations

import re
from typing import Any

from ottla.broker.request import RequestContext
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.features import Features, Supported
from ottla.wire.apis import APIS

# ApiVersionsRequest.SOFTWARE_NAME_VERSION_PATTERN
_SOFTWARE = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?")

FIRST_VERSION_WITH_FEATURES = 3
FIRST_VERSION_WITH_MINIMUM_0 = 4
FIRST_VERSION_WITH_NODE = 5

# What is listed while somebody reads the metrics that clients send, and while nobody does.
_ALL = [
    {
        "api_key": api.key,
        "min_version": api.version_min if api.listed_min is None else api.listed_min,
        "max_version": api.version_max,
    }
    for api in APIS.values()
]
_WITHOUT_TELEMETRY = [one for one in _ALL if APIS[one["api_key"]].room != "telemetry"]

# Characters of a client's name and version of its software that are kept.
_SOFTWARE_MAX = 200


def handle(ctx: RequestContext, request: Any) -> dict[str, Any]:
    """INVALID_REQUEST where a client (v3+) names its software in a way that Kafka refuses, or (v5+) a cluster
    without a node or the other way round. REBOOTSTRAP_REQUIRED where it means another node."""
    if ctx.api_version >= FIRST_VERSION_WITH_NODE and (request.cluster_id is None) != (request.node_id == -1):
        raise KafkaError(ErrorCode.invalid_request)
    if ctx.api_version >= 3 and not (
        _SOFTWARE.fullmatch(request.client_software_name)
        and _SOFTWARE.fullmatch(request.client_software_version)
    ):
        raise KafkaError(ErrorCode.invalid_request)
    services = ctx.services
    own = (services.metadata.image.cluster_id, services.node_id)
    if ctx.api_version >= FIRST_VERSION_WITH_NODE and (request.cluster_id, request.node_id) not in (
        own,
        (None, -1),
    ):
        raise KafkaError(ErrorCode.rebootstrap_required)
    listed = _ALL if services.telemetry.readers else _WITHOUT_TELEMETRY
    answer = {"error_code": ErrorCode.none, "api_keys": listed, "throttle_time_ms": 0}
    if ctx.api_version >= FIRST_VERSION_WITH_FEATURES:
        name, version = request.client_software_name, request.client_software_version
        ctx.client.software = (name[:_SOFTWARE_MAX], version[:_SOFTWARE_MAX])
        metadata = services.metadata
        answer |= _supported(metadata.supported, ctx.api_version) | _finalized(metadata.image.features)
    return answer


def _supported(supported: Supported, version: int) -> dict[str, Any]:
    return {
        "supported_features": [
            {"name": name, "min_version": low, "max_version": high}
            for name, (low, high) in supported.items()
            if low or version >= FIRST_VERSION_WITH_MINIMUM_0
        ]
    }


def _finalized(features: Features) -> dict[str, Any]:
    return {
        "finalized_features_epoch": features.epoch,
        "finalized_features": [
            {"name": name, "min_version_level": level, "max_version_level": level}
            for name, level in features.levels.items()
            if level
        ],
    }
