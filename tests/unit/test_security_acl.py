"""Decisions about ACLs: Kafka's rules one by one, a naive model of them, and what a decision costs."""

from __future__ import annotations

from functools import partial
from ipaddress import ip_address, ip_network
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from measuring import cpu_at_most
from ottla.security import acl as acl_module
from ottla.security.acl import (
    CACHED_IN_ALL_MAX,
    CACHED_MAX,
    DEFAULT_ALLOW,
    DEFAULT_DENY,
    SUPER_USER,
    Acls,
    Authorizer,
    Everything,
    super_users,
)
from ottla.security.acl_bindings import (
    SUPPORTED,
    AclBinding,
    AclFilter,
    Operation,
    PatternType,
    Permission,
    ResourceType,
    canonical_host,
    invalid,
    matching,
)
from ottla.security.acl_rules import ManyRules

TOPIC, GROUP = ResourceType.TOPIC, ResourceType.GROUP
LITERAL, PREFIXED = PatternType.LITERAL, PatternType.PREFIXED
ALLOW, DENY = Permission.ALLOW, Permission.DENY
READ, WRITE, DESCRIBE, ALL = Operation.READ, Operation.WRITE, Operation.DESCRIBE, Operation.ALL
ALICE, BOB, EVERYBODY = "User:alice", "User:bob", "User:*"
HOST = "10.0.0.1"


def acl(
    name: str,
    operation: Operation = READ,
    *,
    who: str = ALICE,
    permission: Permission = ALLOW,
    pattern: PatternType = LITERAL,
    host: str = "*",
    kind: ResourceType = TOPIC,
) -> AclBinding:
    return AclBinding(kind, name, pattern, who, host, operation, permission)


def authorizer(*acls: AclBinding, users: str = "", allow: bool = False) -> Authorizer:
    made = Authorizer(super_users(users), allow_if_no_acl=allow)
    made.change(added=acls)
    return made


class Model:
    """Kafka's rules as they are written down, with no thought for time."""

    def __init__(self, acls: set[AclBinding], users: set[str], allow: bool) -> None:
        self.acls = acls
        self.users = users
        self.allow = allow

    def decide(self, who: str, host: str, operation: Operation, kind: ResourceType, name: str) -> bool:
        if who in self.users:
            return True
        about = [each for each in self.acls if each.resource_type is kind and self.fits(each, name)]
        mine = [each for each in about if each.principal in (who, EVERYBODY) and self.comes(each, host)]
        if any(each.permission is DENY and each.operation in (operation, ALL) for each in mine):
            return False
        if any(each.permission is ALLOW and self.gives(each.operation, operation) for each in mine):
            return True
        return self.allow and not about

    @staticmethod
    def fits(each: AclBinding, name: str) -> bool:
        if each.pattern_type is PREFIXED:
            return name.startswith(each.resource_name)
        return each.resource_name in (name, "*")

    @staticmethod
    def comes(each: AclBinding, host: str) -> bool:
        if "/" in each.host:
            return ip_address(host) in ip_network(each.host, strict=False)
        return each.host in ("*", host)

    @staticmethod
    def gives(has: Operation, wants: Operation) -> bool:
        if wants is DESCRIBE and has in (READ, WRITE, Operation.DELETE, Operation.ALTER):
            return True
        if wants is Operation.DESCRIBE_CONFIGS and has is Operation.ALTER_CONFIGS:
            return True
        return has in (wants, ALL)

    def allows_any(
        self, who: str, host: str, operation: Operation, kind: ResourceType, names: list[str]
    ) -> bool:
        """As of resources that there may be: ``names`` are all that ACLs tell apart."""
        return any(self.decide(who, host, operation, kind, name) for name in names)


# Names that begin with each other, few letters, so that patterns meet.
NAMES = st.text("ab*", min_size=1, max_size=4)
HOSTS = ("10.0.0.1", "10.0.1.1", "2001:db8::1")
OPERATIONS = st.sampled_from(
    [READ, WRITE, DESCRIBE, ALL, Operation.ALTER, Operation.ALTER_CONFIGS, Operation.DESCRIBE_CONFIGS]
)
ACLS = st.builds(
    AclBinding,
    st.sampled_from([TOPIC, GROUP]),
    NAMES,
    st.sampled_from([LITERAL, PREFIXED]),
    st.sampled_from([ALICE, BOB, EVERYBODY]),
    st.sampled_from(["*", *HOSTS, "10.0.0.0/24", "10.0.0.7/16", "2001:db8::/32", "0.0.0.0/0"]),
    OPERATIONS,
    st.sampled_from([ALLOW, DENY]),
)


@settings(max_examples=100)
@given(
    st.lists(ACLS, max_size=12),
    st.lists(ACLS, max_size=4),
    st.lists(NAMES, min_size=1, max_size=4),
    st.booleans(),
)
def test_decides_as_the_rules_say(
    acls: list[AclBinding], more: list[AclBinding], names: list[str], allow: bool
) -> None:
    made = Authorizer({"User:root"}, allow_if_no_acl=allow)
    clients = {(who, host): made.client(who, host) for who, host in product((ALICE, BOB, "User:root"), HOSTS)}
    there: set[AclBinding] = set()
    # Some are added that are there, and removed that are not.
    for removed, added in (((), acls), (more, ()), (acls[::2], more)):
        made.change(removed, added)
        there = (there - set(removed)) | set(added)
        model = Model(there, {"User:root"}, allow)
        assert len(made.acls) == len(there)
        for (who, host), client in clients.items():
            for operation, kind, name in product((READ, DESCRIBE, WRITE), (TOPIC, GROUP), names):
                expected = model.decide(who, host, operation, kind, name)
                decision = client.decide(operation, kind, name)
                assert decision.allowed is expected
                # The rule that is named is one that leads there.
                if isinstance(decision.rule, AclBinding):
                    assert decision.rule in there
                    assert (decision.rule.permission is ALLOW) is expected
                    alone = Model({decision.rule}, set(), not expected)
                    assert alone.decide(who, host, operation, kind, name) is expected


# Few names, so that there are many rules about one pattern.
CROWDED = st.builds(
    AclBinding,
    st.just(TOPIC),
    st.sampled_from(["a", "*"]),
    st.sampled_from([LITERAL, PREFIXED]),
    st.sampled_from([ALICE, EVERYBODY]),
    st.sampled_from(
        ["*", *HOSTS, "10.0.0.1/32", "10.0.0.0/24", "10.0.0.9/24", "10.0.0.7/16", "2001:db8::/32", "::/0"]
    ),
    OPERATIONS,
    st.sampled_from([ALLOW, DENY]),
)


@settings(max_examples=100)
@given(st.lists(CROWDED, max_size=40), st.lists(CROWDED, max_size=10))
def test_many_rules_about_one_pattern_decide_as_few_do(
    acls: list[AclBinding], more: list[AclBinding]
) -> None:
    """Whether they are gone through or found by their hosts: by the same rule, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(acl_module, "FEW_MAX", 1_000)
        few = authorizer(*acls)
        patch.setattr(acl_module, "FEW_MAX", 0)
        many = authorizer(*acls)
        for removed, added in (((), more), (acls[::2], ()), (more, acls)):
            few.change(removed, added)
            many.change(removed, added)
            for host, operation in product((*HOSTS, "0.0.0.0"), (READ, DESCRIBE, WRITE)):
                asked = (ALICE, host, operation, TOPIC, "a")
                assert many.decide(*asked) == few.decide(*asked)


def test_no_decision_takes_long_however_many_hosts_a_pattern_has() -> None:
    """10,000 networks on one pattern, and 10,000 writings of the same one: what is looked at is counted."""
    networks = [f"10.{n >> 8}.{n & 255}.0/24" for n in range(8_000)] + [f"10.0.0.0/{n}" for n in range(33)]
    alike = [f"10.{n >> 8}.{n & 255}.1/8" for n in range(2_000)]
    made = authorizer(*(acl("t", host=host) for host in networks + alike))
    (rules,) = made.acls._literal[TOPIC, "t"].values()
    assert isinstance(rules, ManyRules) and len(rules) == 10_032
    for host in ("10.0.0.5", "10.200.0.1", "9.9.9.9", "::1", "somewhere"):
        looked_at = list(rules.deciding(host, DESCRIBE, frozenset((DESCRIBE, READ, ALL))))
        assert len(looked_at) <= 3 * 34
        assert len(list(rules._places_of(host))) <= 2 + 33
        assert made.decide(ALICE, host, READ, TOPIC, "t").allowed is (host[:3] == "10." or host == "9.9.9.9")
    made.change(removed=[acl("t", host=host) for host in networks + alike])
    assert len(made.acls) == 0 and not made.acls._literal


@settings(max_examples=100)
@given(st.lists(ACLS, max_size=8), st.booleans())
def test_some_resource_of_a_type(acls: list[AclBinding], allow: bool) -> None:
    """As Kafka looks at it: there is an ACL that allows, and none above it that denies."""
    made = authorizer(*acls, allow=allow)
    there = set(acls)
    for who, host in product((ALICE, BOB), HOSTS):
        mine = [
            a
            for a in there
            if a.resource_type is TOPIC
            and a.principal in (who, EVERYBODY)
            and Model.comes(a, host)
            and a.operation in (WRITE, ALL)
        ]
        allows = [a for a in mine if a.permission is ALLOW]
        denies = [a for a in mine if a.permission is DENY]
        everything = any(a.pattern_type is LITERAL and a.resource_name == "*" for a in allows)
        nothing = any(a.pattern_type is LITERAL and a.resource_name == "*" for a in denies)
        free = [
            a
            for a in allows
            if not any(
                a.resource_name.startswith(d.resource_name)
                if d.pattern_type is PREFIXED
                else a.pattern_type is LITERAL and a.resource_name == d.resource_name
                for d in denies
            )
        ]
        model = Model(there, set(), allow)
        expected = model.decide(who, host, WRITE, TOPIC, "hardcode") or (
            not nothing and (everything or bool(free))
        )
        assert made.allows_any(who, host, WRITE, TOPIC) is expected


def test_what_dominates_the_right_to_some_resource() -> None:
    def some(*acls: AclBinding) -> bool:
        return authorizer(*acls).allows_any(ALICE, HOST, WRITE, TOPIC)

    def denied(name: str, **more: Any) -> AclBinding:
        return acl(name, WRITE, permission=DENY, **more)

    literal, prefixed = acl("ab", WRITE), acl("ab", WRITE, pattern=PREFIXED)
    everything = acl("*", WRITE)
    assert some(literal)
    assert some(prefixed)
    assert some(everything)
    # What denies the very name, or all that begin like it.
    assert not some(literal, denied("ab"))
    assert not some(literal, denied("a", pattern=PREFIXED))
    assert not some(prefixed, denied("ab", pattern=PREFIXED))
    assert not some(literal, prefixed, everything, denied("*"))
    # What denies less.
    assert some(prefixed, denied("ab"))
    assert some(prefixed, denied("abc", pattern=PREFIXED))
    assert some(literal, denied("a"))
    assert some(everything, denied("a", pattern=PREFIXED))
    assert some(literal, denied("*", pattern=PREFIXED))
    # What is about something else.
    assert some(literal, denied("*", kind=GROUP), denied("*", who=BOB), denied("*", host="1.1.1.1"))
    assert some(literal, acl("*", READ, permission=DENY))
    assert not some(acl("ab", READ))
    assert some(acl("ab", ALL, who=EVERYBODY))


def test_the_rule_that_decided_is_named() -> None:
    wide = acl("ab", pattern=PREFIXED)
    narrow = acl("abc", pattern=PREFIXED)
    denied = acl("abc", WRITE, who=EVERYBODY, permission=DENY)
    made = authorizer(wide, narrow, denied, users="User:root; User:CN=x,O=y")
    # Kafka keeps the last one that allows, which is the widest.
    assert made.decide(ALICE, HOST, READ, TOPIC, "abcd") == (True, wide)
    assert made.decide(ALICE, HOST, DESCRIBE, TOPIC, "abc") == (True, wide)
    assert made.decide(ALICE, HOST, WRITE, TOPIC, "abc") == (False, denied)
    assert made.decide(ALICE, HOST, WRITE, TOPIC, "abcd") == DEFAULT_DENY
    assert made.decide("User:root", HOST, WRITE, TOPIC, "abc") == SUPER_USER
    assert made.decide("User:CN=x,O=y", HOST, WRITE, TOPIC, "abc") == SUPER_USER
    assert str(denied) == "DENY User:* WRITE from * on TOPIC:LITERAL:abc"


def test_where_no_acl_is_found_everybody_may() -> None:
    made = authorizer(acl("mine"), allow=True)
    assert made.decide(BOB, HOST, READ, TOPIC, "other") == DEFAULT_ALLOW
    # There is one about this topic, although it is another's.
    assert made.decide(BOB, HOST, READ, TOPIC, "mine") == DEFAULT_DENY
    assert made.decide(ALICE, HOST, WRITE, TOPIC, "mine") == DEFAULT_DENY
    assert made.decide(BOB, HOST, READ, GROUP, "mine") == DEFAULT_ALLOW


def test_a_denial_implies_nothing() -> None:
    made = authorizer(acl("a", READ, permission=DENY), acl("a", WRITE))
    assert made.decide(ALICE, HOST, DESCRIBE, TOPIC, "a").allowed
    assert not made.decide(ALICE, HOST, READ, TOPIC, "a").allowed


def test_what_is_remembered_ends_with_each_change() -> None:
    made = authorizer(acl("a"))
    client = made.client(ALICE, HOST)
    assert client.allows(READ, TOPIC, "a")
    assert not client.allows_any(WRITE, TOPIC)
    made.change(added=[acl("a", WRITE)])
    assert client.allows_any(WRITE, TOPIC)
    made.change(removed=[acl("a"), acl("a", WRITE)])
    assert not client.allows(READ, TOPIC, "a")
    assert not client.allows_any(WRITE, TOPIC)
    assert len(made.acls) == 0


def test_what_a_client_may_do_as_bits() -> None:
    made = authorizer(acl("a", READ), acl("a", Operation.ALTER_CONFIGS))
    client = made.client(ALICE, HOST)
    expected = (READ, DESCRIBE, Operation.ALTER_CONFIGS, Operation.DESCRIBE_CONFIGS)
    assert client.operations(TOPIC, "a") == sum(1 << each for each in expected)
    assert client.operations(TOPIC, "b") == 0
    everything = Everything()
    assert everything.allows(READ, TOPIC, "a")
    assert everything.allows_any(WRITE, TOPIC)
    for kind, operations in SUPPORTED.items():
        assert everything.operations(kind, "a") == sum(1 << each for each in operations)


@pytest.mark.parametrize(
    ("pattern", "host", "expected"),
    [
        ("*", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "::ffff:10.0.0.1", True),
        ("10.0.0.1", "10.0.0.10", False),
        ("0:0:0:0:0:0:0:1", "::1", True),
        ("::1", "0:0:0:0:0:0:0:1", True),
        ("fe80::1", "fe80::1%eth0", True),
        ("10.0.0.0/8", "10.255.255.255", True),
        ("10.0.0.0/8", "11.0.0.0", False),
        ("10.0.0.0/8", "::ffff:10.1.1.1", True),
        ("10.0.0.9/32", "10.0.0.9", True),
        ("010.0.0.0/8", "10.1.1.1", True),
        ("0.0.0.0/0", "0.0.0.0", False),
        ("0.0.0.0/0", "255.255.255.255", True),
        ("0.0.0.0/0", "::1", False),
        ("2001:db8::/32", "2001:db8:ffff::1", True),
        ("2001:db8::/32", "2001:db9::1", False),
        ("10.0.0.0/33", "10.0.0.0/33", True),
        ("2001:db8::/32", "not an address", False),
        ("host.example", "10.0.0.1", False),
    ],
)
def test_hosts(pattern: str, host: str, expected: bool) -> None:
    made = authorizer(acl("a", host=pattern))
    assert made.client(ALICE, host).allows(READ, TOPIC, "a") is expected


def test_hosts_have_one_writing() -> None:
    assert canonical_host("10.0.0.1") == "10.0.0.1"
    assert canonical_host("::FFFF:10.0.0.1") == "10.0.0.1"
    assert canonical_host("2001:DB8:0:0::1") == "2001:db8::1"
    assert canonical_host("a:b") == "a:b"
    assert canonical_host("") == ""


def test_super_users_have_types() -> None:
    assert super_users(None) == frozenset()
    assert super_users(" User:a ;; User:b;") == {"User:a", "User:b"}
    with pytest.raises(ValueError, match="principalType:principalName but got root"):
        super_users("User:a;root")


def test_which_acls_can_be() -> None:
    assert invalid(acl("a")) is None
    for made, why in (
        (
            acl("a", kind=ResourceType.CLUSTER),
            "The only valid name for the CLUSTER resource is kafka-cluster",
        ),
        (acl(""), "Invalid empty resource name"),
        (acl("a", kind=ResourceType.ANY), "Invalid resourceType ANY"),
        (acl("a", kind=ResourceType.of(99)), "Invalid resourceType UNKNOWN"),
        (acl("a", pattern=PatternType.MATCH), "Invalid patternType MATCH"),
        (acl("a", Operation.of(99)), "Invalid operation UNKNOWN"),
        (acl("a", Operation.ANY), "Invalid operation ANY"),
        (acl("a", permission=Permission.ANY), "Invalid permissionType ANY"),
        (acl("a", who="alice"), "Could not parse principal from `alice` (no colon"),
        (acl("a", host=""), "Host pattern cannot be null or empty"),
        (acl("a", host="10.0.0.0/33"), "Invalid CIDR notation '10.0.0.0/33'"),
        (acl("a", host="10.0.0/8"), "Invalid CIDR notation '10.0.0/8'"),
        (acl("a", host="1.1.1.1/"), "Invalid CIDR notation '1.1.1.1/'"),
        (acl("a" * 5_000), "may have 4096 characters"),
    ):
        assert (invalid(made) or "").startswith(why) or why in (invalid(made) or "")
    assert invalid(acl("kafka-cluster", kind=ResourceType.CLUSTER, pattern=PREFIXED)) is None
    assert invalid(acl("a", host="what.ever")) is None


@given(ACLS, st.sampled_from(list(PatternType)[1:]), st.none() | NAMES, st.none() | st.just(ALICE))
def test_filters(made: AclBinding, pattern: PatternType, name: str | None, who: str | None) -> None:
    wanted = AclFilter(resource_name=name, pattern_type=pattern, principal=who)
    if pattern is PatternType.MATCH:
        fits = name is None or Model.fits(made, name) or name == made.resource_name
    else:
        fits = pattern in (PatternType.ANY, made.pattern_type) and name in (None, made.resource_name)
    assert wanted.matches(made) is (fits and who in (None, made.principal))


def test_filters_by_each_field() -> None:
    made = [acl("a"), acl("a", WRITE, kind=GROUP), acl("b", permission=DENY, host="1.1.1.1")]
    assert list(matching(made, AclFilter())) == made
    assert list(matching(made, AclFilter(resource_type=GROUP))) == made[1:2]
    assert list(matching(made, AclFilter(operation=READ))) == [made[0], made[2]]
    assert list(matching(made, AclFilter(permission=DENY))) == made[2:]
    assert list(matching(made, AclFilter(host="1.1.1.1"))) == made[2:]
    assert list(matching(made, AclFilter(operation=ALL))) == []
    assert AclFilter(operation=Operation.UNKNOWN).is_unknown()
    assert not AclFilter().is_unknown()


def test_what_is_remembered_is_bounded() -> None:
    made = authorizer(acl("*"))
    client = made.client(ALICE, HOST)
    for number in range(CACHED_MAX + 5):
        client.allows(READ, TOPIC, str(number))
    assert len(client._made) == 5
    assert client.allows(READ, TOPIC, "x" * 1_000)
    assert len(client._made) == 5
    others = [made.client(ALICE, HOST) for _ in range(CACHED_IN_ALL_MAX // CACHED_MAX)]
    for other in others:
        for number in range(CACHED_MAX):
            other.allows(READ, TOPIC, str(number))
    assert sum(len(other._made) for other in others) < CACHED_IN_ALL_MAX / 2


def test_a_decision_among_ten_thousand_acls_is_quick() -> None:
    acls = [acl(f"team-{n % 100}.topic-{n}", pattern=(LITERAL, PREFIXED)[n % 2]) for n in range(9_000)]
    acls += [acl("shared", who=f"User:{n}") for n in range(900)]
    acls += [acl("deep-" * n, pattern=PREFIXED) for n in range(1, 101)]
    made = authorizer(*acls)
    assert len(made.acls) == 10_000
    client = made.client(ALICE, HOST)
    names = [f"team-{n % 100}.topic-{n}" for n in range(1_000)]
    # 5 microseconds each, and 0.5 once it is remembered.
    for attempt in cpu_at_most(0.005 * 4):
        client.forget()
        with attempt.cpu():
            assert all(map(partial(client.allows, READ, TOPIC), names))
    for attempt in cpu_at_most(0.0005 * 4):
        with attempt.cpu():
            assert all(map(partial(client.allows, READ, TOPIC), names))
    for attempt in cpu_at_most(0.002):
        with attempt.cpu():
            assert not client.allows(WRITE, TOPIC, "deep-" * 100)
            made.change(added=[acl("another", pattern=PREFIXED)])
            made.change(removed=[acl("another", pattern=PREFIXED)])


def test_the_index_is_empty_when_its_acls_are_gone() -> None:
    acls = [
        acl(name, who=who, pattern=p)
        for name in ("a", "ab")
        for who in (ALICE, BOB)
        for p in (LITERAL, PREFIXED)
    ]
    made = Acls(acls + acls)
    assert len(made) == 8
    for each in acls:
        made.remove(each)
        made.remove(each)
    assert len(made) == 0
    assert not made._literal
    assert not made._prefixed
    assert not made._rules_of
    assert list(made._prefixes[TOPIC].of("ab")) == []
