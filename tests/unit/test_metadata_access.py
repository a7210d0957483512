"""ACLs, SCRAM credentials and quotas in the store: written, read by every node, changed and bounded."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from metadata_support import Cluster, apply, run

from measuring import cpu_at_most
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata import access, keys
from ottla.metadata.access import (
    CredentialChange,
    QuotaChange,
    alter_credentials,
    alter_quotas,
    create_acls,
    delete_acls,
    found_by,
    put_token,
)
from ottla.metadata.access_records import (
    acl_id,
    acl_key,
    acl_of,
    acl_value,
    credential_value,
    entity_of,
    quota_key,
    scram_key,
    scram_of,
)
from ottla.metadata.acl_follower import AT_ONCE, AclFollower
from ottla.metadata.image import EMPTY, ClusterImage
from ottla.metadata.store import TXN_OPERATIONS_MAX, Event, StoreError
from ottla.pieces import whole
from ottla.security.acl import Authorizer
from ottla.security.acl_bindings import (
    AclBinding,
    AclFilter,
    Operation,
    PatternType,
    Permission,
    ResourceType,
)
from ottla.security.principals import user
from ottla.security.quota_entities import Entity
from ottla.security.sasl.scram import ScramCredential, ScramHash
from ottla.security.tokens import DelegationToken

SHA_256, SHA_512 = ScramHash.SHA_256, ScramHash.SHA_512
CREDENTIAL = ScramCredential(b"salt", b"stored", b"server", 4096)
ALICE = Entity.of({"user": "alice"})


def acl(
    name: str = "t",
    operation: Operation = Operation.READ,
    *,
    who: str = "User:alice",
    permission: Permission = Permission.ALLOW,
    pattern: PatternType = PatternType.LITERAL,
) -> AclBinding:
    return AclBinding(ResourceType.TOPIC, name, pattern, who, "*", operation, permission)


def codes(errors: Sequence[KafkaError | None]) -> list[ErrorCode | None]:
    return [error and error.code for error in errors]


# Keys and values ----------------------------------------


@given(st.text(max_size=5), st.text(max_size=5), st.sampled_from(list(Operation)[2:]))
def test_acls_are_read_as_they_were_written(name: str, who: str, operation: Operation) -> None:
    made = acl(name, operation, who=who)
    assert acl_of(keys.decode(acl_value(made))) == made
    assert acl_key(made).startswith("acls/")
    assert acl_id(made) != acl_id(acl(name + "x", operation, who=who))


@given(
    st.dictionaries(st.sampled_from(["user", "client-id", "ip"]), st.none() | st.text(min_size=1), min_size=1)
)
def test_entities_are_read_as_they_were_written(names: dict[str, str | None]) -> None:
    entity = Entity.of(names)
    assert entity.names == names
    assert entity_of(quota_key(entity).removeprefix("quotas/")) == entity
    for order in permutations(names.items()):
        assert Entity.of(dict(order)) == entity


def test_nobody_s_name_is_taken_for_another_s() -> None:
    names = ("a/b", "a%2Fb", "<default>", "a=b/user=c", "ä")
    keys_of = {quota_key(Entity.of({"user": name})) for name in (*names, None)}
    assert len(keys_of) == 6
    for name in names:
        assert scram_of(scram_key(name, SHA_512).removeprefix("users/")) == (name, SHA_512)
    assert scram_of("alice/other/x") is None


def test_an_image_has_what_was_written() -> None:
    one, two = acl("a"), acl("b")
    bob = Entity.of({"user": "bob", "client-id": None})
    events = [
        Event(acl_key(one), acl_value(one), 1),
        Event(acl_key(two), acl_value(two), 1),
        Event(scram_key("a/b", SHA_256), credential_value(CREDENTIAL), 2),
        Event(scram_key("a/b", SHA_512), credential_value(CREDENTIAL), 2),
        Event(quota_key(bob), keys.encode({"producer_byte_rate": 5.0}), 3),
        Event("users/a/tokens/1", b"{}", 3),
        Event("users/a/scram/SHA_1024", b"{}", 3),
    ]
    image = apply(EMPTY, events, 3)
    assert set(image.acls.values()) == {one, two}
    assert image.scram == {"a/b": {SHA_256: CREDENTIAL, SHA_512: CREDENTIAL}}
    assert image.quotas == {bob: {"producer_byte_rate": 5.0}}
    assert "stored" not in repr(image.scram)
    fewer = apply(image, [Event(scram_key("a/b", SHA_256), None, 4), Event(acl_key(one), None, 4)], 4)
    assert fewer.scram == {"a/b": {SHA_512: CREDENTIAL}}
    assert list(fewer.acls.values()) == [two]
    assert fewer.quotas is image.quotas
    gone = [Event(event.key, None, 5) for event in events]
    assert apply(fewer, gone, 5) == ClusterImage(revision=5)


# ACLs ---------------------------------------------------


def test_acls_are_created_and_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [acl(f"t{number}") for number in range(150)]

    async def body(cluster: Cluster) -> None:
        controller = cluster.metadata.controller
        wrong = acl("", Operation.READ)
        assert codes(await create_acls(controller, [*many, wrong, many[0]])) == (
            [None] * 150 + [ErrorCode.invalid_request, None]
        )
        assert set(cluster.metadata.image.acls.values()) == set(many)
        before = cluster.metadata.image.revision
        assert codes(await create_acls(controller, many)) == [None] * 150
        # They are there: nothing is written.
        assert cluster.metadata.image.revision == before
        monkeypatch.setattr(access, "ACLS_MAX", 152)
        three = [acl(f"u{number}") for number in range(3)]
        assert codes(await create_acls(controller, three)) == [None, None, ErrorCode.policy_violation]
        await delete_acls(controller, [*many, *three, many[0]])
        assert cluster.metadata.image.acls == {}

    run(tmp_path, body)


def test_a_request_is_one_transaction_as_far_as_one_holds_it_and_a_failure_is_told(tmp_path: Path) -> None:
    many = [acl(f"t{number}") for number in range(300)]

    async def body(cluster: Cluster) -> None:
        controller, store = cluster.metadata.controller, cluster.store
        txn, sizes, fails_at = store.txn, [], 0

        async def counted(compares: Any, operations: Any) -> Any:
            sizes.append(len(operations))
            if len(sizes) == fails_at:
                raise StoreError("the disk is full")
            return await txn(compares, operations)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store, "txn", counted)
            assert codes(await create_acls(controller, many[:TXN_OPERATIONS_MAX])) == [None] * 128
            # What is there, and what cannot be, takes no room in it.
            some = [acl(""), *many[: TXN_OPERATIONS_MAX + 100]]
            assert codes(await create_acls(controller, some)) == [ErrorCode.invalid_request] + [None] * 228
            assert sizes == [128, 100]
            await delete_acls(controller, many)
            assert sizes == [128, 100, 128, 100] and not cluster.metadata.image.acls

            sizes.clear()
            fails_at = 2
            told = await create_acls(controller, many)
            late = ErrorCode.request_timed_out
            assert codes(told) == [None] * 128 + [late] * 172 and sizes == [128, 128]
            assert set(cluster.metadata.image.acls.values()) == set(many[:128])
            assert [one.message for one in told[128:] if one] == ["the disk is full"] * 128 + [
                "Not tried, since those before it failed: the disk is full"
            ] * 44
            sizes.clear()
            fails_at = 0
            assert codes(await create_acls(controller, many)) == [None] * 300 and sizes == [128, 44]

            sizes.clear()
            fails_at = 3
            gone = await delete_acls(controller, many)
            assert codes([gone[one] for one in many]) == [None] * 256 + [late] * 44
            assert set(cluster.metadata.image.acls.values()) == set(many[256:])

    run(tmp_path, body)


def test_which_acls_filters_find() -> None:
    acls = [
        acl("ab", pattern=PatternType.PREFIXED),
        acl("abc"),
        acl("abc", who="User:bob"),
        acl("*", permission=Permission.DENY),
    ]
    there = {acl_id(each): each for each in acls}
    literal = AclFilter(resource_name="abc", pattern_type=PatternType.LITERAL)
    found = whole(
        found_by(
            there,
            [
                AclFilter(*acls[1]),
                AclFilter(*acl("nobody")),
                literal,
                AclFilter(resource_name="abc", pattern_type=PatternType.MATCH),
                AclFilter(principal="User:bob"),
                AclFilter(),
            ],
        )
    )
    assert [set(each) for each in found] == [
        {acls[1]},
        set(),
        {acls[1], acls[2]},
        set(acls),
        {acls[2]},
        set(acls),
    ]


def test_filters_cost_a_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    acls = [acl(f"t{number}") for number in range(20_000)]
    there = {acl_id(each): each for each in acls}
    for attempt in cpu_at_most(0.030):
        pieces = found_by(there, [AclFilter(principal="User:nobody"), AclFilter(resource_name="t5")] * 5)
        while True:
            with attempt.cpu():
                try:
                    next(pieces)
                except StopIteration as end:
                    assert list(map(len, end.value)) == [0, 1] * 5
                    break
    with pytest.raises(KafkaError, match="Cannot remove more than 10000 acls"):
        whole(found_by(there, [AclFilter()]))
    monkeypatch.setattr(access, "COMPARED_MAX", 30_000)
    with pytest.raises(KafkaError, match="Too many filters"):
        whole(found_by(there, [AclFilter(principal="User:nobody")] * 2))


def test_an_authorizer_follows() -> None:
    authorizer = Authorizer()
    follower = AclFollower(authorizer)
    client = authorizer.client("User:alice", "10.0.0.1")

    def allowed(name: str = "t") -> bool:
        return client.allows(Operation.READ, ResourceType.TOPIC, name)

    def image(*acls: AclBinding) -> ClusterImage:
        return ClusterImage(acls={acl_id(each): each for each in acls})

    one = image(acl(), acl("u"))
    assert follower.follow(EMPTY, EMPTY) is None
    assert not allowed()
    pieces = follower.follow(EMPTY, one)
    assert pieces is not None
    whole(pieces)
    assert allowed()
    assert allowed("u")
    # A denial comes before the permission of another goes through.
    two = image(acl(permission=Permission.DENY), acl("v"), acl("u"))
    pieces = follower.follow(one, two)
    assert pieces is not None
    # Once what was removed and what was added is known.
    for _ in range(3):
        next(pieces)
    assert not allowed()
    assert not allowed("v")
    whole(pieces)
    assert allowed("v")
    many = image(*(acl(f"t{number}") for number in range(AT_ONCE * 2 + 1)))
    pieces = follower.follow(two, many)
    assert pieces is not None
    # Two to find out; two removed in one piece, and the new ones in three.
    assert len(list(pieces)) == 6
    assert len(authorizer.acls) == len(many.acls)


# SCRAM and quotas ---------------------------------------


def test_credentials_are_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(cluster: Cluster) -> None:
        controller = cluster.metadata.controller
        changes = [
            CredentialChange("alice", SHA_256, CREDENTIAL),
            CredentialChange("bob", SHA_512, CREDENTIAL),
            CredentialChange("carol", SHA_256, None),
        ]
        expected = [None, None, ErrorCode.resource_not_found]
        assert codes(await alter_credentials(controller, changes)) == expected
        assert cluster.metadata.image.scram == {
            "alice": {SHA_256: CREDENTIAL},
            "bob": {SHA_512: CREDENTIAL},
        }
        monkeypatch.setattr(access, "USERS_MAX", 3)
        changes = [
            CredentialChange("alice", SHA_256, None),
            CredentialChange("bob", SHA_256, CREDENTIAL),
            CredentialChange("dan", SHA_256, CREDENTIAL),
            CredentialChange("eve", SHA_256, CREDENTIAL),
        ]
        expected = [None, None, None, ErrorCode.policy_violation]
        assert codes(await alter_credentials(controller, changes)) == expected
        assert set(cluster.metadata.image.scram) == {"bob", "dan"}

    run(tmp_path, body)


def test_one_who_asks_for_tokens_leaves_some_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def token(name: str, requester: str) -> DelegationToken:
        return DelegationToken(name, user("owner"), user(requester), (), 1, 2, 3)

    async def body(cluster: Cluster) -> None:
        controller = cluster.metadata.controller
        monkeypatch.setattr(access, "TOKENS_OF_ONE_MAX", 2)
        monkeypatch.setattr(access, "TOKENS_MAX", 3)
        await put_token(controller, token("a", "alice"))
        await put_token(controller, token("b", "alice"))
        with pytest.raises(KafkaError, match="One may ask for 2"):
            await put_token(controller, token("c", "alice"))
        # That is none more.
        await put_token(controller, token("b", "alice"))
        await put_token(controller, token("c", "bob"))
        with pytest.raises(KafkaError, match="A cluster may have 3"):
            await put_token(controller, token("d", "bob"))

    run(tmp_path, body)


def test_quotas_are_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(cluster: Cluster) -> None:
        controller = cluster.metadata.controller
        everybody = Entity.of({"user": None})
        changes = [
            QuotaChange(ALICE, {"producer_byte_rate": 5.0, "request_percentage": 0.5}),
            QuotaChange(everybody, {"consumer_byte_rate": 0.0}),
            QuotaChange(Entity.of({"ip": "10.0.0.1"}), {"connection_creation_rate": 3.0}),
        ]
        assert codes(await alter_quotas(controller, changes, validate_only=True)) == [
            None,
            ErrorCode.invalid_request,
            None,
        ]
        assert cluster.metadata.image.quotas == {}
        await alter_quotas(controller, changes)
        assert cluster.metadata.image.quotas == {
            ALICE: {"producer_byte_rate": 5.0, "request_percentage": 0.5},
            Entity.of({"ip": "10.0.0.1"}): {"connection_creation_rate": 3.0},
        }
        before = cluster.metadata.image.revision
        await alter_quotas(controller, [QuotaChange(ALICE, {"producer_byte_rate": 5.0})])
        assert cluster.metadata.image.revision == before
        await alter_quotas(
            controller, [QuotaChange(ALICE, {"producer_byte_rate": None, "request_percentage": None})]
        )
        assert ALICE not in cluster.metadata.image.quotas
        monkeypatch.setattr(access, "ENTITIES_MAX", 2)
        more = [QuotaChange(Entity.of({"user": name}), {"request_percentage": 1.0}) for name in "ab"]
        assert codes(await alter_quotas(controller, more)) == [None, ErrorCode.policy_violation]

    run(tmp_path, body)
