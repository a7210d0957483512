"""Who comes in, who may do what, and how much: for a broker whose one listener asks for logins.

It is `SETTINGS` that such a broker is started with; the peer has logged in as a super user.
"""

from __future__ import annotations

import itertools
import struct
import time
from typing import Any

from interop.raw import RawClient
from protocol.peer import CLOSED, SILENT, Fields, Peer

PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"
SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required"
ADMIN = ("admin", "secret")
SETTINGS = {
    "listener.security.protocol.map": "PLAINTEXT:SASL_PLAINTEXT",
    "inter.broker.listener.name": "PLAINTEXT",
    "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256",
    "sasl.mechanism.inter.broker.protocol": "PLAIN",
    "listener.name.plaintext.plain.sasl.jaas.config": (
        f'{PLAIN} username="admin" password="secret" user_admin="secret" user_alice="wonderland";'
    ),
    "listener.name.plaintext.scram-sha-256.sasl.jaas.config": f"{SCRAM};",
    "connection.failed.authentication.delay.ms": "1",
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    # A Kafka's controller has a listener without logins.
    "super.users": "User:admin;User:ANONYMOUS",
}

# ------------------------------------------------------------ who comes in

VERSIONS: Fields = {"client_software_name": "a", "client_software_version": "1"}
METADATA: Fields = {
    "topics": [],
    "allow_auto_topic_creation": False,
    "include_cluster_authorized_operations": False,
    "include_topic_authorized_operations": False,
}


def handshake(mechanism: str, version: int = 1) -> tuple[str, int, Fields]:
    return "SaslHandshake", version, {"mechanism": mechanism}


def token(data: bytes, version: int = 2) -> tuple[str, int, Fields]:
    return "SaslAuthenticate", version, {"auth_bytes": data}


def converse(peer: Peer, question: str, *requests: tuple[str, int, Fields]) -> None:
    """Ask one after the other on a connection that nobody has logged in to, until it is closed."""
    told: list[Any] = []
    with RawClient(peer.address, peer.timeout_s) as client:
        for api, version, fields in requests:
            try:
                answer = client.call(api, version, **fields)
            except ConnectionError:
                told.append(CLOSED)
                break
            told.append(answer.error_code if api == "ApiVersions" else peer.normaliser.answer(answer))
        else:
            client.socket.settimeout(0.05)
            told.append(CLOSED if client.closed() else SILENT)
    peer.transcript[f"Login: {question}"] = {0: told}


GOOD = token(b"\0alice\0wonderland")
ASKED = ("Metadata", 12, METADATA)


def before_a_login(peer: Peer) -> None:
    versions = ("ApiVersions", 3, VERSIONS)
    converse(peer, "nothing")
    converse(peer, "ApiVersions twice", versions, ("ApiVersions", 0, {}), handshake("PLAIN"), GOOD, ASKED)
    converse(
        peer, "ApiVersions without a name", ("ApiVersions", 3, VERSIONS | {"client_software_name": ""}), GOOD
    )
    converse(peer, "Metadata", ASKED)
    converse(peer, "Metadata behind ApiVersions", versions, ASKED)
    converse(peer, "SaslAuthenticate", GOOD)
    converse(peer, "SaslAuthenticate behind ApiVersions", versions, GOOD)
    converse(peer, "Metadata in place of a token", handshake("PLAIN"), ASKED)
    converse(peer, "ApiVersions in place of a token", handshake("PLAIN"), versions)
    converse(peer, "ListGroups in place of a token", handshake("PLAIN"), ("ListGroups", 2, {}))
    converse(peer, "SaslHandshake in place of a token", handshake("PLAIN"), handshake("PLAIN"))
    for mechanism in ("GSSAPI", "plain", "", "SCRAM-SHA-512"):
        for version in (0, 1):
            converse(
                peer, f"mechanism {mechanism!r} v{version}", handshake(mechanism, version), handshake("PLAIN")
            )
    unserved(peer)


def unserved(peer: Peer) -> None:
    """Versions that there are not: of ApiVersions it is answered, of others not."""
    for api_key, version in ((18, 99), (17, 2), (17, 99), (36, 3), (3, 99), (999, 0)):
        with RawClient(peer.address, peer.timeout_s) as client:
            client.send(struct.pack(">ihhihb", 11, api_key, version, 1, -1, 0))
            try:
                told: Any = client.receive()[4:6].hex()
            except ConnectionError:
                told = CLOSED
        peer.transcript[f"Login: api {api_key} v{version}"] = {0: told}


def by_password(peer: Peer) -> None:
    for version in (0, 1, 2):
        right = token(GOOD[2]["auth_bytes"], version)
        converse(peer, f"right v{version}", handshake("PLAIN"), right, ASKED)
        wrong = token(b"\0alice\0no", version)
        converse(peer, f"wrong v{version}", handshake("PLAIN"), wrong, ASKED)
        converse(peer, f"a token too many v{version}", handshake("PLAIN"), right, right, ASKED)
    converse(peer, "SaslHandshake behind it", handshake("PLAIN"), GOOD, handshake("PLAIN"), GOOD, ASKED)
    converse(peer, "SaslHandshake v0 behind it", handshake("PLAIN"), GOOD, handshake("PLAIN", 0), ASKED)
    for kind, data in {
        "nothing": b"",
        "one part": b"alice",
        "two parts": b"alice\0wonderland",
        "four parts": b"\0alice\0wonder\0land",
        "no user": b"\0\0wonderland",
        "no password": b"\0alice\0",
        "nobody": b"\0nobody\0wonderland",
        "as oneself": b"alice\0alice\0wonderland",
        "as another": b"admin\0alice\0wonderland",
        "no text": b"\0\xff\0\xfe",
    }.items():
        converse(peer, f"PLAIN, {kind}", handshake("PLAIN"), token(data), ASKED)
    for kind, data in {
        "nothing": b"",
        "no header": b"n=alice,r=abc",
        "channel binding": b"p=tls-unique,,n=alice,r=abc",
        "no nonce": b"n,,n=alice",
        "no user": b"n,,n=,r=abc",
        "no text": b"n,,n=\xff,r=abc",
        "as another": b"n,a=admin,n=alice,r=abc",
        "something mandatory": b"n,,m=x,n=alice,r=abc",
    }.items():
        converse(peer, f"SCRAM, {kind}", handshake("SCRAM-SHA-256"), token(data), ASKED)


# ------------------------------------------------------------ who may do what

ANY_TYPE, TOPIC, GROUP, CLUSTER, TRANSACTIONAL_ID, TOKEN, USER = range(1, 8)
ANY, MATCH, LITERAL, PREFIXED = range(1, 5)
ALL, READ, WRITE = 2, 3, 4
DENY, ALLOW = 2, 3


def acl(peer: Peer, name: str = "x", **given: Any) -> Fields:
    """Alice, who is this run's, may read a topic; ``given`` is otherwise."""
    return {
        "resource_type": TOPIC,
        "resource_name": name,
        "resource_pattern_type": LITERAL,
        "principal": f"User:{peer.name('alice')}",
        "host": "*",
        "operation": READ,
        "permission_type": ALLOW,
    } | given


def filtering(peer: Peer, **given: Any) -> Fields:
    """All that alice has."""
    return {
        "resource_type_filter": ANY_TYPE,
        "resource_name_filter": None,
        "pattern_type_filter": ANY,
        "principal_filter": f"User:{peer.name('alice')}",
        "host_filter": None,
        "operation": 1,
        "permission_type": 1,
    } | given


def acls_created(peer: Peer) -> None:
    peer.each("one", "CreateAcls", {"creations": [acl(peer)]})
    peer.ask("nothing", "CreateAcls", creations=[])
    bad: dict[str, Fields] = {
        "no name": {"resource_name": ""},
        "the cluster": {"resource_type": CLUSTER, "resource_name": "kafka-cluster"},
        "another cluster": {"resource_type": CLUSTER},
        "no cluster": {"resource_type": CLUSTER, "resource_name": ""},
        "any cluster": {"resource_type": CLUSTER, "resource_name": "*"},
        "prefixed cluster": {
            "resource_type": CLUSTER,
            "resource_name": "kafka-cluster",
            "resource_pattern_type": PREFIXED,
        },
        "any prefix": {"resource_name": "*", "resource_pattern_type": PREFIXED},
        **{f"resource type {kind}": {"resource_type": kind} for kind in (0, 1, 3, 5, 6, 7, 8, 127, -1)},
        **{f"pattern type {kind}": {"resource_pattern_type": kind} for kind in (0, 1, 2, 4, 5, 127, -1)},
        **{f"operation {kind}": {"operation": kind} for kind in (0, 1, 2, 9, 13, 14, 15, 16, 127, -1)},
        **{f"permission {kind}": {"permission_type": kind} for kind in (0, 1, 2, 4, 127, -1)},
        **{
            f"principal {name!r}": {"principal": name}
            for name in (
                "",
                "alice",
                "User:",
                ":",
                ":alice",
                "Group:alice",
                "user:alice",
                "User:*",
                "User:a:b",
            )
        },
        **{
            f"host {host!r}": {"host": host}
            for host in (
                *("", "nowhere", "10.0.0.1", "10.0.0.256", "::1", "1::2::3", "10.0.0.0/8", "10.0.0.1/33"),
                *("10.0.0.0/", "/8", "10.0.0.0/-1", "::/0", "::1/129", "10.0.0/8", "10.0.0.0/8/8", "a/8"),
                *("010.0.0.0/8", "10.0.0.0/08", "::ffff:10.0.0.0/104", "10.0.0.0/+8", " 10.0.0.0/8"),
            )
        },
        "a name that is none": {"resource_name": "a/b"},
        "a long name": {"resource_name": "x" * 300},
    }
    for kind, given in bad.items():
        peer.ask(kind, "CreateAcls", creations=[acl(peer, **given)])
        # What is right beside it.
        peer.ask(f"{kind}, of two", "CreateAcls", creations=[acl(peer, **given), acl(peer, f"beside {kind}")])
    twice = acl(peer, "twice")
    peer.ask("twice", "CreateAcls", creations=[twice, twice])
    peer.ask("a bad one twice", "CreateAcls", creations=[acl(peer, ""), acl(peer, ""), twice])
    settle(peer)
    peer.ask("what there is then", "DescribeAcls", **filtering(peer))


def some_acls(peer: Peer, at: str) -> None:
    """Some that are about ``at``, and some that are not (no part of the transcript)."""
    creations = [
        acl(peer, at),
        acl(peer, at, operation=WRITE, permission_type=DENY),
        acl(peer, at, host="10.0.0.1"),
        acl(peer, at, resource_pattern_type=PREFIXED),
        acl(peer, at[:-1], resource_pattern_type=PREFIXED),
        acl(peer, at[:-1]),
        acl(peer, at + "x"),
        acl(peer, at + "x", resource_pattern_type=PREFIXED),
        acl(peer, "*"),
        acl(peer, at, resource_type=GROUP),
        acl(peer, "*", resource_type=GROUP, resource_pattern_type=PREFIXED),
        acl(peer, "kafka-cluster", resource_type=CLUSTER, operation=ALL),
        acl(peer, at, resource_type=TRANSACTIONAL_ID, operation=WRITE),
        acl(peer, at, resource_type=TOKEN, operation=8),
        acl(peer, f"User:{at}", resource_type=USER, operation=13),
        acl(peer, at, principal=f"User:{peer.name('bob')}"),
    ]
    answer = peer.send("CreateAcls", 3, {"creations": creations})
    assert [result.error_code for result in answer.results] == [0] * len(creations)
    settle(peer)


FILTERS: dict[str, Fields] = {
    "all": {},
    **{f"resource type {kind}": {"resource_type_filter": kind} for kind in (0, 2, 3, 4, 5, 6, 7, 8, -1)},
    **{
        f"pattern type {kind} of {name!r}": {"pattern_type_filter": kind, "resource_name_filter": name}
        for kind in (0, 1, 2, 3, 4, 5, -1)
        for name in ("name", "nam", "*", "", None)
    },
    **{f"operation {kind}": {"operation": kind} for kind in (0, 2, 3, 4, 16, -1)},
    **{f"permission {kind}": {"permission_type": kind} for kind in (0, 2, 3, 4, -1)},
    **{f"host {host!r}": {"host_filter": host} for host in ("*", "10.0.0.1", "10.0.0.0/8", "")},
    **{f"principal {name!r}": {"principal_filter": name} for name in ("", "alice", "User:nobody")},
    "a resource": {
        "resource_type_filter": TOPIC,
        "resource_name_filter": "name",
        "pattern_type_filter": LITERAL,
    },
}


def acls_described(peer: Peer) -> None:
    some_acls(peer, "name")
    peer.each("all", "DescribeAcls", filtering(peer))
    for kind, given in list(FILTERS.items())[1:]:
        peer.ask(kind, "DescribeAcls", **filtering(peer, **given))


def acls_deleted(peer: Peer) -> None:
    for kind, given in FILTERS.items():
        some_acls(peer, "name")
        peer.ask(kind, "DeleteAcls", filters=[filtering(peer, **given)])
    some_acls(peer, "name")
    peer.ask("nothing", "DeleteAcls", filters=[])
    topics, reads = filtering(peer, resource_type_filter=TOPIC), filtering(peer, operation=READ)
    peer.ask("one and a bad one", "DeleteAcls", filters=[filtering(peer, resource_type_filter=9), topics])
    some_acls(peer, "name")
    peer.ask("what two ask for", "DeleteAcls", filters=[topics, reads, topics])
    settle(peer)
    peer.ask("what is left", "DescribeAcls", **filtering(peer))
    some_acls(peer, "name")
    for version in (1, 2, 3):
        peer.ask("by versions", "DeleteAcls", version, filters=[filtering(peer, operation=version + 1)])


def settle(peer: Peer) -> None:
    """Wait until what was changed can be read: Kafka answers before all its parts know, which do in order."""
    host = str(next(_hosts))
    sent = peer.send("CreateAcls", 3, {"creations": [acl(peer, principal="User:last", host=host)]})
    assert sent.results[0].error_code == 0, sent
    wanted = filtering(peer, principal_filter="User:last", host_filter=host)
    deadline = time.monotonic() + peer.timeout_s
    while not peer.send("DescribeAcls", 3, wanted).resources:
        assert time.monotonic() < deadline, "what was changed cannot be read"


_hosts = itertools.count()

# ------------------------------------------------------------ passwords


def upsertion(
    name: str, mechanism: int = 1, iterations: int = 4_096, salt: bytes = b"salt", **more: Any
) -> Fields:
    fields = {"name": name, "mechanism": mechanism, "iterations": iterations, "salt": salt}
    return fields | {"salted_password": b"p" * 32} | more


def credentials(peer: Peer) -> None:
    name = peer.name

    def alter(question: str, *upserted: Fields, deleted: tuple[tuple[str, int], ...] = ()) -> None:
        deletions = [{"name": user, "mechanism": mechanism} for user, mechanism in deleted]
        peer.ask(question, "AlterUserScramCredentials", deletions=deletions, upsertions=list(upserted))

    def describe(question: str, *users: str) -> None:
        asked = [{"name": name(user)} for user in users]
        peer.ask(question, "DescribeUserScramCredentials", users=asked)

    alter("nothing")
    for mechanism in (-1, 0, 1, 2, 3, 127):
        alter(f"mechanism {mechanism}", upsertion(name("a"), mechanism))
        alter(f"delete mechanism {mechanism}", deleted=((name("a"), mechanism),))
    alter("no name", upsertion(""))
    alter("no name, deleted", deleted=(("", 1),))
    for mechanism in (1, 2):
        for iterations in (-1, 0, 4_095, 4_096, 16_384, 16_385, 2**31 - 1):
            alter(f"{iterations} of {mechanism}", upsertion(name("i"), mechanism, iterations))
    alter("no salt", upsertion(name("s"), salt=b""))
    alter("a long salt", upsertion(name("s"), salt=b"s" * 500))
    alter("a short password", upsertion(name("s"), salted_password=b"p"))
    alter(
        "strange names", *(upsertion(name(user)) for user in ("a,b", "a=b", "User:a", "*", " ", "<default>"))
    )
    alter("twice", upsertion(name("t")), upsertion(name("t")))
    alter("by both mechanisms", upsertion(name("t"), 1), upsertion(name("t"), 2))
    alter("three times", *(upsertion(name("t"), iterations=4_096 + i) for i in range(3)))
    alter("bad and good", upsertion(name("t"), 0), upsertion(name("t")))
    alter("good and bad", upsertion(name("t")), upsertion(name("t"), 0))
    alter("deleted and given", upsertion(name("i")), deleted=((name("i"), 1),))
    alter("deleted and given by another", upsertion(name("i"), 2), deleted=((name("i"), 1),))
    alter("deleted twice", deleted=((name("i"), 1), (name("i"), 1)))
    alter("deleted that is not and given", upsertion(name("n")), deleted=((name("n"), 1),))
    alter("some good, some bad", upsertion(name("g")), upsertion(name("h"), 9), deleted=((name("n"), 1),))
    alter("both", upsertion(name("b"), 1))
    alter("both, then", upsertion(name("b"), 2, 5_000))
    settle(peer)
    for users in (("b",), ("i",), ("b", "b"), ("n",), ("b", "n", "n", "b"), ("a,b", "b")):
        describe(f"of {users}", *users)
    peer.ask("of no name", "DescribeUserScramCredentials", users=[{"name": ""}])
    peer.ask("of nobody", "DescribeUserScramCredentials", users=[])
    peer.ask("of all", "DescribeUserScramCredentials", users=None)


# ------------------------------------------------------------ quotas

EXACT, DEFAULT, SPECIFIED = range(3)
Names = dict[str, str | None]
RATE = ("producer_byte_rate", 1000.0)


def entry(names: Names | list[tuple[str, str | None]], *ops: tuple[str, float | None]) -> Fields:
    pairs = names.items() if isinstance(names, dict) else names
    return {
        "entity": [{"entity_type": kind, "entity_name": name} for kind, name in pairs],
        "ops": [{"key": key, "value": value or 0.0, "remove": value is None} for key, value in ops],
    }


def quotas_altered(peer: Peer) -> None:
    user = peer.name("u")

    def alter(question: str, *entries: Fields, validate: bool = True) -> None:
        peer.ask(question, "AlterClientQuotas", entries=list(entries), validate_only=validate)

    peer.each("one", "AlterClientQuotas", {"entries": [entry({"user": user}, RATE)], "validate_only": True})
    alter("nothing")
    alter("no op", entry({"user": user}))
    alter("no entity", entry({}, RATE))
    alter("no entity, no op", entry({}))
    addresses = (
        "10.0.0.1",
        "::1",
        "",
        "10.0.0.256",
        "10.1",
        "1",
        "10.0.0.0/8",
        "a b",
        "[::1]",
        "1.2.3.4.5",
        "-1",
    )
    kinds: dict[str, Names] = {
        "user": {"user": user},
        "default user": {"user": None},
        "no user": {"user": ""},
        "client": {"client-id": "c"},
        "default client": {"client-id": None},
        "no client": {"client-id": ""},
        "both": {"user": user, "client-id": "c"},
        "both default": {"user": None, "client-id": None},
        "user and address": {"user": user, "ip": "10.0.0.1"},
        "all three": {"user": user, "client-id": "c", "ip": "10.0.0.1"},
        "default address": {"ip": None},
        "unknown": {"colour": "red"},
        "unknown too": {"user": user, "colour": "red"},
        "no type": {"": "x"},
        "User": {"User": user},
        "called default": {"user": "<default>"},
        "strange": {"user": "a=b,c/d", "client-id": "e f"},
        **{f"address {address!r}": {"ip": address} for address in addresses},
    }
    for kind, names in kinds.items():
        for key in ("producer_byte_rate", "connection_creation_rate"):
            alter(f"{kind}, {key}", entry(names, (key, 1000.0)))
    alter("a type twice", entry([("user", "a"), ("user", "b")], RATE))
    keys = (
        "producer_byte_rate",
        "consumer_byte_rate",
        "request_percentage",
        "controller_mutation_rate",
        "no",
        "",
    )
    values = (0.0, -1.0, 0.5, 1.5, 1.0000001, 1.00001, 2.0**31, 2.0**63, 2.0**64, float("inf"), float("nan"))
    for key in keys:
        for value in values:
            alter(f"{key} = {value}", entry({"user": user}, (key, value)))
        alter(f"{key} removed", entry({"user": user}, (key, None)))
    for value in (*values, 2.0**31 - 1):
        alter(f"of addresses {value}", entry({"ip": "10.0.0.1"}, ("connection_creation_rate", value)))
    alter("a key twice", entry({"user": user}, RATE, ("producer_byte_rate", 2.0)))
    alter("set and removed", entry({"user": user}, RATE, ("producer_byte_rate", None)))
    alter("an entity twice", entry({"user": user}, RATE), entry({"user": user}, ("consumer_byte_rate", 2.0)))
    alter("one bad key of two", entry({"user": user}, RATE, ("no", 1.0)))
    alter("one bad of two", entry({"user": user}, RATE), entry({"user": ""}, RATE))
    quotas_described(peer, alter)


def quotas_described(peer: Peer, alter: Any) -> None:
    """``alter``: a question, entries, and whether they are only looked at."""
    one, two, client = peer.name("one"), peer.name("two"), peer.name("c")
    alter("validated only", entry({"user": peer.name("none")}, RATE))
    alter(
        "set",
        entry({"user": one}, RATE, ("request_percentage", 50.5)),
        entry({"user": two, "client-id": client}, RATE),
        entry({"user": one, "client-id": None}, RATE),
        entry({"client-id": client}, RATE),
        entry({"user": peer.name("nan")}, ("producer_byte_rate", float("nan"))),
        entry({"user": peer.name("inf")}, ("request_percentage", float("inf"))),
        validate=False,
    )
    alter(
        "some good, some bad",
        entry({"user": two}, RATE),
        entry({"user": two, "ip": "::1"}, RATE),
        validate=False,
    )
    twice = (
        entry({"user": one}, ("consumer_byte_rate", 7.0)),
        entry({"user": one}, ("consumer_byte_rate", 8.0)),
    )
    alter("an entity twice, set", *twice, validate=False)
    alter("a key twice, set", entry({"user": two}, RATE, ("producer_byte_rate", 7.0)), validate=False)
    settle(peer)
    filters: dict[str, list[tuple[str, int, str | None]]] = {
        "user": [("user", EXACT, one)],
        "another": [("user", EXACT, peer.name("none"))],
        "no number": [("user", EXACT, peer.name("nan"))],
        "no end": [("user", EXACT, peer.name("inf"))],
        "user and client": [("user", EXACT, two), ("client-id", EXACT, client)],
        "user and any client": [("user", EXACT, two), ("client-id", SPECIFIED, None)],
        "user and default client": [("user", EXACT, one), ("client-id", DEFAULT, None)],
        "client": [("client-id", EXACT, client)],
        "user twice": [("user", EXACT, one), ("user", EXACT, two)],
        "null name": [("user", EXACT, None)],
        "default with a name": [("user", DEFAULT, one)],
        "any with a name": [("user", SPECIFIED, one)],
        "match type 3": [("user", 3, None)],
        "match type -1": [("user", -1, None)],
        "no type": [("", EXACT, "x")],
        "unknown type": [("colour", EXACT, "red")],
        "user and address": [("user", EXACT, one), ("ip", EXACT, "::1")],
        "address": [("ip", EXACT, "::1")],
        "default address": [("ip", DEFAULT, None)],
        "no name": [("user", EXACT, "")],
    }
    for kind, wanted in filters.items():
        components = [{"entity_type": t, "match_type": m, "match": name} for t, m, name in wanted]
        for strict in (True, False):
            question = f"{kind}, strict" if strict else kind
            peer.ask(question, "DescribeClientQuotas", components=components, strict=strict)
    peer.ask("nothing, strict", "DescribeClientQuotas", components=[], strict=True)
    of_one = [{"entity_type": "user", "match_type": EXACT, "match": one}]
    peer.each("user", "DescribeClientQuotas", {"components": of_one, "strict": False}, (0,))
    alter(
        "removed",
        entry({"user": one}, (RATE[0], None), ("no", None), ("request_percentage", None)),
        validate=False,
    )
    settle(peer)
    peer.ask("then", "DescribeClientQuotas", components=of_one, strict=False)


SEQUENCES = (
    before_a_login,
    by_password,
    acls_created,
    acls_described,
    acls_deleted,
    credentials,
    quotas_altered,
)
