"""The APIs of security by raw requests: each at every version, on a broker with an authorizer whose only
listener is plain, so that everybody is User:ANONYMOUS, and that is a super user."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from interop.process import BrokerProcess
from interop.raw import RawClient
from ottla.config.security import STANDARD_AUTHORIZER
from ottla.errors import ErrorCode
from ottla.wire.apis import BY_NAME

NONE = ErrorCode.none
TOPIC, LITERAL, ANY, READ, ALLOW = 2, 3, 1, 3, 3
SHA_256 = 1


def versions(api: str) -> Any:
    found = BY_NAME[api]
    return pytest.mark.parametrize("version", range(found.version_min, found.version_max + 1))


@pytest.fixture(scope="module")
def broker(ottla_process_module: Callable[..., BrokerProcess]) -> BrokerProcess:
    settings = {"authorizer.class.name": STANDARD_AUTHORIZER, "super.users": "User:ANONYMOUS"}
    return ottla_process_module(settings)


@pytest.fixture
def client(broker: BrokerProcess) -> Iterator[RawClient]:
    with RawClient(broker.bootstrap) as connection:
        yield connection


def create_acl(client: RawClient, name: str, version: int = 3) -> Any:
    creation = {
        "resource_type": TOPIC,
        "resource_name": name,
        "resource_pattern_type": LITERAL,
        "principal": "User:alice",
        "host": "*",
        "operation": READ,
        "permission_type": ALLOW,
    }
    return client.call("CreateAcls", version, creations=[creation]).results[0]


def acl_filter(name: str) -> dict[str, Any]:
    return {
        "resource_type_filter": TOPIC,
        "resource_name_filter": name,
        "pattern_type_filter": ANY,
        "principal_filter": None,
        "host_filter": None,
        "operation": ANY,
        "permission_type": ANY,
    }


@versions("CreateAcls")
def test_create_acls(client: RawClient, name: str, version: int) -> None:
    assert create_acl(client, name, version).error_code == NONE
    (resource,) = client.call("DescribeAcls", 3, **acl_filter(name)).resources
    assert [(acl.principal, acl.operation) for acl in resource.acls] == [("User:alice", READ)]


@versions("DescribeAcls")
def test_describe_acls(client: RawClient, name: str, version: int) -> None:
    create_acl(client, name)
    answer = client.call("DescribeAcls", version, **acl_filter(name))
    assert answer.error_code == NONE
    assert [(one.resource_name, len(one.acls)) for one in answer.resources] == [(name, 1)]


@versions("DeleteAcls")
def test_delete_acls(client: RawClient, name: str, version: int) -> None:
    create_acl(client, name)
    (result,) = client.call("DeleteAcls", version, filters=[acl_filter(name)]).filter_results
    assert (result.error_code, [one.resource_name for one in result.matching_acls]) == (NONE, [name])
    assert not client.call("DescribeAcls", 3, **acl_filter(name)).resources


def alter_quota(client: RawClient, name: str, version: int = 1) -> Any:
    entry = {
        "entity": [{"entity_type": "user", "entity_name": name}],
        "ops": [{"key": "producer_byte_rate", "value": 1000.0, "remove": False}],
    }
    return client.call("AlterClientQuotas", version, entries=[entry], validate_only=False).entries[0]


def quotas_of(client: RawClient, name: str, version: int = 1) -> Any:
    component = {"entity_type": "user", "match_type": 0, "match": name}
    return client.call("DescribeClientQuotas", version, components=[component], strict=True)


@versions("AlterClientQuotas")
def test_alter_client_quotas(client: RawClient, name: str, version: int) -> None:
    assert alter_quota(client, name, version).error_code == NONE
    assert len(quotas_of(client, name).entries) == 1


@versions("DescribeClientQuotas")
def test_describe_client_quotas(client: RawClient, name: str, version: int) -> None:
    alter_quota(client, name)
    (entry,) = quotas_of(client, name, version).entries
    assert [(one.key, one.value) for one in entry.values] == [("producer_byte_rate", 1000.0)]


def alter_user(client: RawClient, name: str) -> Any:
    upsertion = {
        "name": name,
        "mechanism": SHA_256,
        "iterations": 4096,
        "salt": b"salt",
        "salted_password": bytes(range(32)),
    }
    return client.call("AlterUserScramCredentials", 0, deletions=[], upsertions=[upsertion]).results[0]


@versions("AlterUserScramCredentials")
def test_alter_user_scram_credentials(client: RawClient, name: str, version: int) -> None:
    assert version == 0
    assert alter_user(client, name).error_code == NONE


@versions("DescribeUserScramCredentials")
def test_describe_user_scram_credentials(client: RawClient, name: str, version: int) -> None:
    alter_user(client, name)
    (user,) = client.call("DescribeUserScramCredentials", version, users=[{"name": name}]).results
    assert [(one.mechanism, one.iterations) for one in user.credential_infos] == [(SHA_256, 4096)]


# What belongs to listeners whose clients log in is refused on this one; tests/security has the rest.


@versions("SaslHandshake")
def test_sasl_handshake(client: RawClient, version: int) -> None:
    answer = client.call("SaslHandshake", version, mechanism="PLAIN")
    assert (answer.error_code, list(answer.mechanisms)) == (ErrorCode.illegal_sasl_state, [])


@versions("SaslAuthenticate")
def test_sasl_authenticate(client: RawClient, version: int) -> None:
    answer = client.call("SaslAuthenticate", version, auth_bytes=b"\0a\0b")
    assert answer.error_code == ErrorCode.illegal_sasl_state


@versions("CreateDelegationToken")
def test_create_delegation_token(client: RawClient, version: int) -> None:
    asked = {
        "owner_principal_type": None,
        "owner_principal_name": None,
        "renewers": [],
        "max_lifetime_ms": -1,
    }
    answer = client.call("CreateDelegationToken", version, **asked)
    assert answer.error_code == ErrorCode.delegation_token_request_not_allowed


@versions("RenewDelegationToken")
def test_renew_delegation_token(client: RawClient, version: int) -> None:
    answer = client.call("RenewDelegationToken", version, hmac=b"x", renew_period_ms=1)
    assert answer.error_code == ErrorCode.delegation_token_request_not_allowed


@versions("ExpireDelegationToken")
def test_expire_delegation_token(client: RawClient, version: int) -> None:
    answer = client.call("ExpireDelegationToken", version, hmac=b"x", expiry_time_period_ms=1)
    assert answer.error_code == ErrorCode.delegation_token_request_not_allowed


@versions("DescribeDelegationToken")
def test_describe_delegation_token(client: RawClient, version: int) -> None:
    answer = client.call("DescribeDelegationToken", version, owners=None)
    assert answer.error_code == ErrorCode.delegation_token_request_not_allowed
