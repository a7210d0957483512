"""What APIs demand: each has a row, whose names are where it says, and the gate looks after its share."""

from __future__ import annotations

import dataclasses
from typing import Any, get_args, get_type_hints

import pytest

from ottla.errors import ErrorCode
from ottla.security.acl import Authorizer, Everything, Permissions
from ottla.security.acl_bindings import (
    CLUSTER_NAME,
    AclBinding,
    Operation,
    PatternType,
    Permission,
    ResourceType,
)
from ottla.security.demands import _BY_NAME, DEMANDS, OF_GATE, Demand, May, Refusal, refusal
from ottla.wire.apis import APIS, BY_NAME
from ottla.wire.messages import load

ALICE, HOST = "User:alice", "10.0.0.1"
# APIs that nobody is refused; of tokens it counts whose they are.
FREE = {
    "ApiVersions", "SaslHandshake", "SaslAuthenticate", "RenewDelegationToken", "ExpireDelegationToken",
    "GetTelemetrySubscriptions", "PushTelemetry",
}  # fmt: skip


def permitted(*allowed: tuple[Operation, ResourceType, str]) -> May:
    made = Authorizer()
    made.change(
        added=[
            AclBinding(kind, name, PatternType.LITERAL, ALICE, "*", operation, Permission.ALLOW)
            for operation, kind, name in allowed
        ]
    )
    return asked(made.client(ALICE, HOST))


def asked(permissions: Permissions) -> May:
    def may(operation: Operation, kind: ResourceType, name: str, /, *, quietly: bool = False) -> bool:
        return permissions.allows(operation, kind, name)

    return may


class Request:
    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)


def test_each_api_has_a_row() -> None:
    assert set(DEMANDS) == set(APIS)
    assert {name for name in BY_NAME if not _BY_NAME[name]} <= FREE


def fields(message: Any, path: str) -> bool:
    """Whether a message of kio's has a field at the end of a path."""
    name, _, rest = path.partition(".")
    if name not in {field.name for field in dataclasses.fields(message)}:
        return False
    if not rest:
        return True
    hint = get_type_hints(message)[name]
    while not dataclasses.is_dataclass(hint):
        hint = next(each for each in get_args(hint) if each not in (Ellipsis, type(None)))
    return fields(hint, rest)


@pytest.mark.parametrize("name", sorted(set(_BY_NAME) & set(BY_NAME)))
def test_names_are_where_a_row_says(name: str) -> None:
    api = BY_NAME[name]
    versions = range(api.version_min, api.version_max + 1)
    for demand in _BY_NAME[name]:
        if demand.names:
            assert any(fields(load(api.schema, version, "request"), demand.names) for version in versions)
        if demand.is_of_gate and demand.names:
            # The gate reads it in each version.
            for version in versions:
                assert "." not in demand.names
                assert fields(load(api.schema, version, "request"), demand.names)
        if demand.is_of_gate and demand.or_else:
            assert demand.or_else[1] is ResourceType.CLUSTER
        # A group or topic that is refused without a name would be any of them.
        assert demand.names or demand.resource_type is ResourceType.CLUSTER or not demand.is_of_gate


def test_everything_is_allowed_without_an_authorizer() -> None:
    anything = Request(group_id="g", transactional_id="t", protocol_type="p", protocol_name="n")
    for key in DEMANDS:
        assert refusal(key, 0, anything, asked(Everything())) is None


def test_a_request_about_the_cluster() -> None:
    key = BY_NAME["ElectLeaders"].key
    error = refusal(key, 2, Request(), permitted())
    assert error is not None
    assert error.code is ErrorCode.cluster_authorization_failed
    assert error.message == "Cluster authorization failed."
    allowed = permitted((Operation.ALTER, ResourceType.CLUSTER, CLUSTER_NAME))
    assert refusal(key, 2, Request(), allowed) is None


def test_what_is_enough_instead() -> None:
    key = BY_NAME["WriteTxnMarkers"].key
    assert refusal(key, 1, Request(), permitted()) is not None
    for operation in (Operation.ALTER, Operation.CLUSTER_ACTION):
        allowed = permitted((operation, ResourceType.CLUSTER, CLUSTER_NAME))
        assert refusal(key, 1, Request(), allowed) is None


def test_a_request_in_a_transaction() -> None:
    key = BY_NAME["AddOffsetsToTxn"].key
    request = Request(transactional_id="t", group_id="g")
    writes = (Operation.WRITE, ResourceType.TRANSACTIONAL_ID, "t")
    reads = (Operation.READ, ResourceType.GROUP, "g")
    for allowed, expected in (
        ((), ErrorCode.transactional_id_authorization_failed),
        ((reads,), ErrorCode.transactional_id_authorization_failed),
        ((writes,), ErrorCode.group_authorization_failed),
        ((writes, reads), None),
    ):
        error = refusal(key, 0, request, permitted(*allowed))
        assert (error and error.code) is expected


def test_what_depends_on_the_version() -> None:
    key = BY_NAME["AddPartitionsToTxn"].key
    assert refusal(key, 3, Request(), permitted()) is None
    assert refusal(key, 4, Request(), permitted()) is not None
    key = BY_NAME["SyncGroup"].key
    request = Request(group_id="g", protocol_type=None, protocol_name="n")
    assert refusal(key, 4, request, permitted()) is not None
    # INCONSISTENT_GROUP_PROTOCOL comes first.
    assert refusal(key, 5, request, permitted()) is None
    request.protocol_type = "p"
    assert refusal(key, 5, request, permitted()) is not None


def test_handlers_look_after_what_is_refused_by_itself() -> None:
    for key, demands in OF_GATE.items():
        assert demands
        assert all(each in DEMANDS[key] for each in demands)
    item = Demand(Operation.READ, ResourceType.TOPIC, "topics.name", Refusal.ITEM)
    assert not item.is_of_gate
    assert not Demand(Operation.READ, ResourceType.TOPIC, "name", when="sometimes").is_of_gate
    assert Demand(Operation.READ, ResourceType.TOPIC, "name").is_of_gate
    for hot in ("Produce", "Fetch", "ListOffsets", "Metadata", "ApiVersions"):
        assert BY_NAME[hot].key not in OF_GATE
