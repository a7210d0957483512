"""ACLs, SCRAM credentials and client quotas through a broker, in each version."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

import pytest
from admin_support import Client, code, create, new_topic, run, versions

from measuring import HANG_S
from ottla.security.acl import Authorizer
from ottla.security.acl_bindings import AclBinding
from ottla.security.sasl.scram import ScramHash, credential_of, salted_password

ACL: dict[str, Any] = {
    "resource_type": 2,
    "resource_name": "t",
    "resource_pattern_type": 3,
    "principal": "User:alice",
    "host": "*",
    "operation": 3,
    "permission_type": 3,
}
ANY: dict[str, Any] = {
    "resource_type_filter": 1,
    "resource_name_filter": None,
    "pattern_type_filter": 1,
    "principal_filter": None,
    "host_filter": None,
    "operation": 1,
    "permission_type": 1,
}


def with_authorizer(client: Client) -> None:
    client.node.services.authorizer = Authorizer()


async def create_acls(client: Client, *acls: dict[str, Any], version: int = 3) -> list[tuple[str, Any]]:
    answer = await client.ask("CreateAcls", version, {"creations": acls})
    return [(code(result), result["error_message"]) for result in answer["results"]]


async def described(client: Client, version: int = 3, **wanted: Any) -> set[tuple[Any, ...]]:
    answer = await client.ask("DescribeAcls", version, ANY | wanted)
    assert code(answer) == "none"
    return {
        (r["resource_type"], r["resource_name"], r["pattern_type"], *acl.values())
        for r in answer["resources"]
        for acl in r["acls"]
    }


# ACLs ---------------------------------------------------


def test_without_an_authorizer_there_is_nothing_to_have_acls_for(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        answer = await client.ask("DescribeAcls", 3, ANY)
        assert code(answer) == "security_disabled"
        assert answer["resources"] == []
        assert [each for each, _ in await create_acls(client, ACL, ACL)] == ["security_disabled"] * 2
        answer = await client.ask("DeleteAcls", 3, {"filters": [ANY]})
        assert [code(result) for result in answer["filter_results"]] == ["security_disabled"]

    run(tmp_path, body)


def test_acls_are_created_described_and_deleted(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        with_authorizer(client)
        for version in versions("CreateAcls"):
            prefixed = ACL | {"resource_pattern_type": 4, "resource_name": f"v{version}"}
            expected = [("none", "")] * 3
            assert await create_acls(client, ACL, prefixed, ACL, version=version) == expected
            one = (2, "t", 3, "User:alice", "*", 3, 3)
            two = (2, f"v{version}", 4, "User:alice", "*", 3, 3)
            assert await described(client, version) == {one, two}
            match = {"resource_name_filter": f"v{version}-more", "pattern_type_filter": 2}
            assert await described(client, version, **match) == {two}
            filters = [ANY | match, ANY | {"principal_filter": "User:bob"}]
            answer = await client.ask("DeleteAcls", version, {"filters": filters})
            deleted, nothing = answer["filter_results"]
            assert code(deleted) == code(nothing) == "none"
            assert nothing["matching_acls"] == []
            (gone,) = deleted["matching_acls"]
            assert code(gone) == "none"
            assert (gone["resource_name"], gone["pattern_type"], gone["principal"]) == (
                f"v{version}",
                4,
                "User:alice",
            )
            assert await described(client, version) == {one}

    run(tmp_path, body)


def test_acls_that_cannot_be(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        with_authorizer(client)
        wrong = [
            ACL | {"resource_type": 4},
            ACL | {"resource_name": ""},
            ACL | {"resource_type": 99},
            ACL | {"principal": "alice"},
            ACL | {"host": "1.2.3.4/x"},
            # IPv4 in IPv6, which is IPv4.
            ACL | {"host": "::ffff:1.2.3.4/100"},
        ]
        results = await create_acls(client, *wrong, ACL)
        assert [each for each, _ in results] == ["invalid_request"] * len(wrong) + ["none"]
        assert results[0][1] == "The only valid name for the CLUSTER resource is kafka-cluster"
        for part in (
            {"resource_type": 1},
            {"resource_pattern_type": 2},
            {"operation": 1},
            {"permission_type": 1},
        ):
            # What is of filters fails all.
            results = await create_acls(client, ACL | {"resource_name": "beside"}, ACL | part)
            assert [each for each, _ in results] == ["invalid_request"] * 2
        # What is asked for and not known finds nothing.
        assert await described(client, operation=99) == set()
        answer = await client.ask(
            "DeleteAcls", 3, {"filters": [ANY | {"resource_type_filter": 99}, ANY | {"operation": 99}]}
        )
        assert [(code(r), r["error_message"]) for r in answer["filter_results"]] == [
            ("invalid_request", "Unknown patternFilter."),
            ("invalid_request", "Unknown entryFilter."),
        ]
        assert len(await described(client)) == 1

    run(tmp_path, body)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("DescribeAcls", ANY | {"operation": 0}),
        ("CreateAcls", {"creations": [ACL | {"permission_type": 0}]}),
        ("DeleteAcls", {"filters": [ANY | {"resource_type_filter": 0}]}),
    ],
)
def test_what_kafka_cannot_read_closes_the_connection(
    tmp_path: Path, name: str, fields: dict[str, Any]
) -> None:
    async def body(client: Client) -> None:
        with_authorizer(client)
        with pytest.raises(asyncio.IncompleteReadError):
            await client.ask(name, 3, fields)

    run(tmp_path, body)


def test_many_acls_come_in_pieces(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        with_authorizer(client)
        many = [ACL | {"resource_name": f"t{number % 400}", "host": str(number)} for number in range(600)]
        assert await create_acls(client, *many) == [("none", "")] * 600
        assert len(await described(client)) == 600
        filters = [ANY | {"resource_name_filter": f"t{number}"} for number in range(400)]
        answer = await client.ask("DeleteAcls", 2, {"filters": filters})
        assert [len(result["matching_acls"]) for result in answer["filter_results"]] == [2] * 200 + [1] * 200
        assert await described(client) == set()

    run(tmp_path, body)


# SCRAM --------------------------------------------------


def upsertion(user: str, password: str = "secret", mechanism: int = 1, iterations: int = 4096) -> Any:
    hash = next(each for each in ScramHash if each.number == max(mechanism, 1))
    salted = salted_password(hash, password.encode(), b"salt", iterations)
    return {
        "name": user,
        "mechanism": mechanism,
        "iterations": iterations,
        "salt": b"salt",
        "salted_password": salted,
    }


async def alter_users(client: Client, *upsertions: Any, deletions: Any = ()) -> dict[str, tuple[str, Any]]:
    fields = {"upsertions": upsertions, "deletions": deletions}
    answer = await client.ask("AlterUserScramCredentials", 0, fields)
    return {r["user"]: (code(r), r["error_message"]) for r in answer["results"]}


async def users(client: Client, *names: str) -> dict[str, Any]:
    fields = {"users": [{"name": name} for name in names] or None}
    answer = await client.ask("DescribeUserScramCredentials", 0, fields)
    assert code(answer) == "none"
    return {
        r["user"]: [(i["mechanism"], i["iterations"]) for i in r["credential_infos"]] or code(r)
        for r in answer["results"]
    }


def test_users_get_passwords_and_lose_them(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        assert await users(client) == {}
        made = await alter_users(client, upsertion("alice"), upsertion("bob", mechanism=2, iterations=8192))
        assert made == {"alice": ("none", None), "bob": ("none", None)}
        scram = client.node.services.metadata.image.scram
        expected = credential_of(ScramHash.SHA_512, "secret", b"salt", 8192)
        assert scram["bob"] == {ScramHash.SHA_512: expected}
        assert await alter_users(client, upsertion("bob")) == {"bob": ("none", None)}
        assert await users(client) == {"alice": [(1, 4096)], "bob": [(2, 8192), (1, 4096)]}
        assert await users(client, "alice", "carol", "bob", "bob") == {
            "alice": [(1, 4096)],
            "carol": "resource_not_found",
            "bob": "duplicate_resource",
        }
        deletions = [{"name": "bob", "mechanism": 2}]
        both = await alter_users(client, upsertion("bob"), deletions=deletions)
        assert both["bob"][0] == "duplicate_resource"
        deletions = [{"name": "bob", "mechanism": 1}, {"name": "carol", "mechanism": 1}]
        assert await alter_users(client, deletions=deletions) == {
            "bob": ("none", None),
            "carol": ("resource_not_found", "Attempt to delete a user credential that does not exist"),
        }
        assert await users(client, "bob") == {"bob": [(2, 8192)]}

    run(tmp_path, body)


def test_credentials_that_are_not_taken(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        wrong = [
            upsertion(""),
            upsertion("few", iterations=4095),
            upsertion("many", iterations=16385),
            upsertion("mechanism") | {"mechanism": 3},
            upsertion("salt") | {"salt": bytes(2_000)},
            upsertion("password") | {"salted_password": b""},
            upsertion("twice"),
            upsertion("twice", mechanism=2),
            upsertion("both"),
            upsertion("n" * 5_000),
        ]
        results = await alter_users(client, *wrong, deletions=[{"name": "both", "mechanism": 1}])
        assert {user[:9]: each for user, (each, _) in results.items()} == {
            "": "unacceptable_credential",
            "few": "unacceptable_credential",
            "many": "unacceptable_credential",
            "mechanism": "unsupported_sasl_mechanism",
            "salt": "unacceptable_credential",
            "twice": "duplicate_resource",
            "both": "resource_not_found",
            "password": "unacceptable_credential",
            "n" * 9: "unacceptable_credential",
        }
        assert results["few"][1] == "Too few iterations"
        assert await users(client) == {}

    run(tmp_path, body)


# Quotas -------------------------------------------------


def entity(**names: str | None) -> list[dict[str, Any]]:
    kinds = {"client": "client-id"}
    return [{"entity_type": kinds.get(kind, kind), "entity_name": name} for kind, name in names.items()]


def entry(of: list[dict[str, Any]], **values: float | None) -> dict[str, Any]:
    ops = [{"key": key, "value": value or 0.0, "remove": value is None} for key, value in values.items()]
    return {"entity": of, "ops": ops}


async def alter_quotas(
    client: Client, *entries: dict[str, Any], version: int = 1, validate_only: bool = False
) -> list[tuple[str, Any]]:
    fields = {"entries": entries, "validate_only": validate_only}
    answer = await client.ask("AlterClientQuotas", version, fields)
    return [(code(e), e["error_message"]) for e in answer["entries"]]


async def quotas(client: Client, *components: Any, strict: bool = False, version: int = 1) -> Any:
    asked = [{"entity_type": kind, "match_type": match, "match": name} for kind, match, name in components]
    answer = await client.ask("DescribeClientQuotas", version, {"components": asked, "strict": strict})
    if code(answer) != "none":
        assert answer["entries"] is None
        return code(answer), answer["error_message"]
    return {
        tuple(sorted((part["entity_type"], part["entity_name"]) for part in e["entity"])): {
            value["key"]: value["value"] for value in e["values"]
        }
        for e in answer["entries"]
    }


ALICE = (("user", "alice"),)
EVERYBODY = (("user", None),)
ALICE_S_APP = (("client-id", "app"), ("user", "alice"))
ADDRESS = (("ip", "10.0.0.1"),)


def test_quotas_are_set_described_and_removed(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        for version in versions("AlterClientQuotas"):
            entries = [
                entry(entity(user="alice"), producer_byte_rate=1024.0, request_percentage=0.5),
                entry(entity(user=None), consumer_byte_rate=10.0),
                entry(entity(user="alice", client="app"), controller_mutation_rate=1.5),
                entry(entity(ip="10.0.0.1"), connection_creation_rate=10.0),
            ]
            checked = await alter_quotas(client, *entries, version=version, validate_only=True)
            assert checked == [("none", None)] * 4
            assert await quotas(client, version=version) == {}
            assert await alter_quotas(client, *entries, version=version) == [("none", None)] * 4
            found = await quotas(client, version=version)
            assert found == {
                ALICE: {"producer_byte_rate": 1024.0, "request_percentage": 0.5},
                EVERYBODY: {"consumer_byte_rate": 10.0},
                ALICE_S_APP: {"controller_mutation_rate": 1.5},
                ADDRESS: {"connection_creation_rate": 10.0},
            }
            for components, strict, expected in (
                ([("user", 0, "alice")], False, {ALICE, ALICE_S_APP}),
                ([("user", 0, "alice")], True, {ALICE}),
                ([("user", 1, None)], False, {EVERYBODY}),
                ([("user", 2, None)], False, {ALICE, EVERYBODY, ALICE_S_APP}),
                ([("user", 2, None), ("client-id", 0, "app")], True, {ALICE_S_APP}),
                ([("ip", 2, None)], True, {ADDRESS}),
                ([("client-id", 0, "other")], False, set()),
                ([], True, set()),
            ):
                assert set(await quotas(client, *components, strict=strict, version=version)) == expected
            gone = [
                {"entity": e["entity"], "ops": [op | {"remove": True} for op in e["ops"]]} for e in entries
            ]
            assert await alter_quotas(client, *gone, version=version) == [("none", None)] * 4
            assert await quotas(client, version=version) == {}

    run(tmp_path, body)


def test_quotas_that_are_not_taken(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        of = entity(user="a")
        double = entry(of, producer_byte_rate=1.0)
        double["ops"] *= 2
        for wrong, why in (
            (entry([]), "Invalid empty client quota entity"),
            (entry(entity(group="g")), "Unhandled client quota entity type: group"),
            (entry(entity(user="")), "Empty user not supported"),
            (entry(entity(user="u", ip="10.0.0.1")), "Invalid quota entity combination"),
            (entry(entity(ip="nowhere.example")), "nowhere.example is not a valid IP or resolvable host."),
            (entry(of, connection_creation_rate=1.0), "Invalid configuration key connection_creation_rate"),
            (
                entry(entity(ip="::1"), producer_byte_rate=1.0),
                "Invalid configuration key producer_byte_rate",
            ),
            (entry(of, producer_byte_rate=0.0), "Quota producer_byte_rate must be greater than 0"),
            (entry(of, producer_byte_rate=1.5), "producer_byte_rate cannot be a fractional value."),
            (
                entry(of, producer_byte_rate=1e30),
                "Proposed value for producer_byte_rate is too large for a LONG.",
            ),
            (double, "Ignoring duplicate entity"),
        ):
            ((each, message),) = await alter_quotas(client, wrong)
            assert each == "invalid_request"
            assert message.startswith(why)
        assert await quotas(client) == {}
        # Of two the first one counts.
        once, again = entry(of, producer_byte_rate=1.0), entry(of, producer_byte_rate=2.0)
        ((each, _),) = await alter_quotas(client, once, again)
        assert each == "invalid_request"
        assert await quotas(client) == {(("user", "a"),): {"producer_byte_rate": 1.0}}

    run(tmp_path, body)


def test_addresses_in_brackets_and_short_and_what_is_no_number(tmp_path: Path) -> None:
    """As Java reads them."""
    nan = float("nan")

    async def body(client: Client) -> None:
        for address in ("[::1]", "10.1", "10.1.2", "1", "010.0.0.1"):
            wanted = entry(entity(ip=address), connection_creation_rate=1.0)
            assert await alter_quotas(client, wanted) == [("none", None)]
        for address in ("[10.0.0.1]", "[::1", "10.16777216", "1.2.3.4.5", "256.1", "4294967296", "1.", "+1"):
            ((each, _),) = await alter_quotas(client, entry(entity(ip=address), connection_creation_rate=1.0))
            assert each == "invalid_request", address
        connections = client.node._listeners._quotas.made.connections
        assert set(connections._limits) == {"::1", "10.0.0.1", "10.1.0.2", "0.0.0.1"}
        keys = ("producer_byte_rate", "consumer_byte_rate", "request_percentage", "controller_mutation_rate")
        limits = dict.fromkeys(keys, nan)
        assert await alter_quotas(client, entry(entity(user=None), **limits)) == [("none", None)]
        assert math.isnan((await quotas(client))[(("user", None),)]["controller_mutation_rate"])
        # It limits nothing.
        for name in "ab":
            (made,) = await create(client, new_topic(name))
            assert code(made) == "none"

    run(tmp_path, body)


def test_filters_of_quotas_that_make_no_sense(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        for components, expected in (
            ([("", 0, "a")], "invalid_request"),
            ([("user", 0, "a"), ("user", 2, None)], "invalid_request"),
            ([("group", 0, "a")], "unsupported_version"),
            ([("user", 0, None)], "invalid_request"),
            ([("user", 1, "a")], "invalid_request"),
            ([("user", 2, "a")], "invalid_request"),
            ([("user", 3, None)], "invalid_request"),
            ([("user", 2, None), ("ip", 2, None)], "invalid_request"),
        ):
            each, message = await quotas(client, *components)
            assert each == expected
            assert message

    run(tmp_path, body)


def test_acls_are_kept_over_a_restart(tmp_path: Path) -> None:
    async def before(client: Client) -> None:
        with_authorizer(client)
        await create_acls(client, ACL)
        await alter_users(client, upsertion("alice"))
        await alter_quotas(client, entry(entity(user="alice"), producer_byte_rate=5.0))

    async def after(client: Client) -> None:
        image = client.node.services.metadata.image
        (kept,) = image.acls.values()
        assert isinstance(kept, AclBinding)
        assert str(kept) == "ALLOW User:alice READ from * on TOPIC:LITERAL:t"
        assert await users(client) == {"alice": [(1, 4096)]}
        assert await quotas(client) == {ALICE: {"producer_byte_rate": 5.0}}

    run(tmp_path, before)
    run(tmp_path, after)


# librdkafka ---------------------------------------------


def test_librdkafka_s_admin_client(tmp_path: Path) -> None:
    """All that it has of this, against a broker in this process."""
    admin = pytest.importorskip("confluent_kafka.admin")

    def work(bootstrap: str) -> None:
        client = admin.AdminClient({"bootstrap.servers": bootstrap})
        acls = [
            admin.AclBinding(
                admin.ResourceType.TOPIC,
                name,
                pattern,
                "User:alice",
                "*",
                admin.AclOperation.READ,
                admin.AclPermissionType.ALLOW,
            )
            for name, pattern in (
                ("t", admin.ResourcePatternType.LITERAL),
                ("p", admin.ResourcePatternType.PREFIXED),
            )
        ]
        for done in client.create_acls(acls).values():
            done.result(HANG_S)
        wanted = admin.AclBindingFilter(
            admin.ResourceType.TOPIC,
            "pq",
            admin.ResourcePatternType.MATCH,
            None,
            None,
            admin.AclOperation.ANY,
            admin.AclPermissionType.ANY,
        )
        assert client.describe_acls(wanted).result(HANG_S) == [acls[1]]
        (deleted,) = client.delete_acls([wanted]).values()
        assert deleted.result(HANG_S) == [acls[1]]
        info = admin.ScramCredentialInfo(admin.ScramMechanism.SCRAM_SHA_256, 4096)
        changes = [admin.UserScramCredentialUpsertion("alice", info, b"secret", b"salt")]
        for done in client.alter_user_scram_credentials(changes).values():
            done.result(HANG_S)
        (user,) = client.describe_user_scram_credentials(["alice"]).values()
        (found,) = user.result(HANG_S).scram_credential_infos
        assert (found.mechanism, found.iterations) == (admin.ScramMechanism.SCRAM_SHA_256, 4096)

    async def body(client: Client) -> None:
        with_authorizer(client)
        host, port = client.node.address
        await asyncio.to_thread(work, f"{host}:{port}")
        expected = credential_of(ScramHash.SHA_256, "secret", b"salt", 4096)
        assert client.node.services.metadata.image.scram == {"alice": {ScramHash.SHA_256: expected}}

    run(tmp_path, body)
