"""Clients of all kinds log in to a secured broker by what each of them has, and are told what is refused.

librdkafka, aiokafka and openssl do so in tests/security and tests/scenarios.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.errors import KafkaTimeoutError, TopicAuthorizationFailedError
from kafka.net.sasl.oauth import AbstractTokenProvider

from interop.secured import MECHANISMS, Login, SecuredBroker
from interop.test_java import BUILD, classes  # noqa: F401 - a fixture
from interop.test_kcat import kcat
from interop.test_node import NODE

RUN_TIMEOUT_S = 120


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredBroker]:
    with SecuredBroker(tmp_path_factory.mktemp("secured")) as started:
        yield started


def logins(broker: SecuredBroker, *mechanisms: str) -> dict[str, Login]:
    """Alice by each mechanism and by her certificate, with what is right and what is wrong, and mallory."""
    made = {"certificate": broker.login("alice", None), "mallory": broker.login("mallory", mechanisms[0])}
    for mechanism in mechanisms:
        made[mechanism] = broker.login("alice", mechanism)
        made[f"wrong-{mechanism}"] = broker.login("alice", mechanism, wrong=True)
    return made


# ------------------------------------------------------------ kcat


@pytest.mark.parametrize("mechanism", ["PLAIN", "UNSIGNED", None])
def test_kcat(broker: SecuredBroker, mechanism: str | None) -> None:
    """Debian's librdkafka (2.0.2), which takes tokens of its own making. Its SCRAM has a fault, a nonce that
    is not the server's, for which Kafka has refused it since CVE-2024-56128, and so do we."""

    def run(
        login: Login, *args: str, stdin: str = "", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        properties = broker.librdkafka(login)
        if login.mechanism == "UNSIGNED":
            properties |= {
                "sasl.mechanism": "OAUTHBEARER",
                "enable.sasl.oauthbearer.unsecure.jwt": "true",
                "sasl.oauthbearer.config": f"principal={login.user}",
            }
        bootstrap = properties.pop("bootstrap.servers")
        options = [word for name, value in properties.items() for word in ("-X", f"{name}={value}")]
        return kcat(bootstrap, *options, *args, stdin=stdin, check=check)

    def login(user: str) -> Login:
        return Login(user, mechanism) if mechanism == "UNSIGNED" else broker.login(user, mechanism)

    value = f"by {mechanism}"
    run(login("alice"), "-P", "-t", "t-kcat", stdin=value + "\n")
    read = run(login("alice"), "-C", "-t", "t-kcat", "-o", "beginning", "-e", "-q").stdout
    assert value in read.splitlines()
    refused = run(login("mallory"), "-P", "-t", "t-kcat", stdin="m\n", check=False)
    assert refused.returncode != 0
    assert "Topic authorization failed" in refused.stderr
    if mechanism == "PLAIN":
        wrong = broker.login("alice", mechanism, wrong=True)
        refused = run(wrong, "-P", "-t", "t-kcat", stdin="m\n", check=False)
        assert refused.returncode != 0
        assert "SASL authentication error" in refused.stderr


# ------------------------------------------------------------ kafka-python


class Tokens(AbstractTokenProvider):
    def __init__(self, token: str) -> None:
        self._token = token

    def token(self) -> str:
        return self._token


def kafka_python(broker: SecuredBroker, login: Login) -> dict[str, Any]:
    made: dict[str, Any] = {
        "bootstrap_servers": broker.bootstrap(login.mechanism),
        "security_protocol": login.protocol,
        "ssl_cafile": str(broker.file("ca")),
    }
    if login.mechanism is None:
        made["ssl_certfile"] = made["ssl_keyfile"] = str(broker.file(login.user))
        return made
    made["sasl_mechanism"] = login.mechanism
    if login.token is not None:
        return made | {"sasl_oauth_token_provider": Tokens(login.token)}
    return made | {"sasl_plain_username": login.user, "sasl_plain_password": login.password}


@pytest.mark.parametrize("mechanism", [*MECHANISMS, None])
def test_kafka_python(broker: SecuredBroker, mechanism: str | None) -> None:
    topic, value = "t-kafka-python", f"by {mechanism}".encode()

    def send(login: Login, **more: Any) -> None:
        producer = KafkaProducer(**kafka_python(broker, login), **more)
        try:
            producer.send(topic, value).get(20)
        finally:
            producer.close()

    alice = broker.login("alice", mechanism)
    send(alice)
    config = kafka_python(broker, alice)
    consumer = KafkaConsumer(topic, group_id=f"t-{mechanism}", auto_offset_reset="earliest", **config)
    while value not in [record.value for got in consumer.poll(1000).values() for record in got]:
        pass
    consumer.close()
    with pytest.raises(TopicAuthorizationFailedError):
        send(broker.login("mallory", mechanism))
    if mechanism is not None:
        # It says no more, and tries on until then.
        with pytest.raises(KafkaTimeoutError, match="Unable to bootstrap"):
            send(broker.login("alice", mechanism, wrong=True), bootstrap_timeout_ms=500)


# ------------------------------------------------------------ Node.js

# These clients take the answer that says what is wrong with a token (RFC 7628) for success, and go on.
UNHEARD = "ILLEGAL_SASL_STATE"


def visits(broker: SecuredBroker, folder: Path, program: str, topic: str) -> Any:
    """What becomes of each login."""
    assert (NODE / "node_modules" / "kafkajs").exists(), "no packages: run scripts/interop-deps.sh"
    all_of_them = logins(broker, *MECHANISMS) | {"stranger": Login("stranger", None)}
    told = []
    for label, login in all_of_them.items():
        tls = {"ca": broker.file("ca").read_text()}
        if login.mechanism is None:
            tls["cert"] = tls["key"] = broker.file(login.user).read_text()
        told.append(
            {
                "label": label,
                "bootstrap": broker.bootstrap(login.mechanism),
                "topic": topic,
                "tls": tls,
                "mechanism": login.mechanism,
                "username": login.user,
                "password": login.password,
                "token": login.token,
            }
        )
    path = folder / "logins.json"
    path.write_text(json.dumps([{k: v for k, v in each.items() if v is not None} for each in told]))
    command = ["node", str(NODE / program), "-", "logins", str(path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=RUN_TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_kafkajs(broker: SecuredBroker, tmp_path: Path) -> None:
    found = visits(broker, tmp_path, "kafkajs.cjs", "t-kafkajs")
    assert found == {
        "certificate": "read",
        "mallory": "TOPIC_AUTHORIZATION_FAILED",
        "stranger": "KafkaJSConnectionError",
        **dict.fromkeys(MECHANISMS, "read"),
        **{f"wrong-{mechanism}": "KafkaJSSASLAuthenticationError" for mechanism in MECHANISMS},
        "wrong-OAUTHBEARER": UNHEARD,
    }


def test_platformatic(broker: SecuredBroker, tmp_path: Path) -> None:
    found = visits(broker, tmp_path, "platformatic.mjs", "t-platformatic")
    assert found == {
        "certificate": "read",
        "mallory": "TOPIC_AUTHORIZATION_FAILED",
        "stranger": "PLT_KFK_MULTIPLE",
        **dict.fromkeys(MECHANISMS, "read"),
        **{f"wrong-{mechanism}": "SASL_AUTHENTICATION_FAILED" for mechanism in MECHANISMS},
        "wrong-OAUTHBEARER": UNHEARD,
    }


# ------------------------------------------------------------ Java


def visits_of_java(broker: SecuredBroker, classes: Path, folder: Path) -> dict[str, Any]:  # noqa: F811
    """What the program says: first what becomes of each login, then of what is asked as an administrator."""
    all_of_them = logins(broker, *MECHANISMS) | {"stranger": Login("stranger", None)}
    all_of_them["unsigned"] = Login("alice", "UNSIGNED")
    for label, login in all_of_them.items():
        write_properties(folder, label, properties(broker, folder, label, login))
    for name in ("admin", "alice", "mallory"):
        login = broker.login(name, "SCRAM-SHA-256")
        write_properties(folder, name, properties(broker, folder, name, login))
    command = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto"]
    allowed = "org.apache.kafka.sasl.oauthbearer.allowed"
    tokens = ",".join(path.as_uri() for path in folder.glob("*.token"))
    # Tokens are read by Jackson, which the client does not bring along.
    jars = [str(jar) for jar in (BUILD / "connect").glob("jackson-*.jar")]
    command += [f"-D{allowed}.urls={tokens}", "-cp", ":".join([str(classes), f"{BUILD}/libs/*", *jars])]
    command += ["Main", "security", "-", "t-java", str(folder), *all_of_them]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=RUN_TIMEOUT_S)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    steps = {line["step"]: line["result"] for line in lines}
    steps["logins"] = {label: steps.pop(label) for label in all_of_them}
    return steps


def properties(broker: SecuredBroker, folder: Path, label: str, login: Login) -> dict[str, str]:
    """The Java client's."""
    made = {
        "bootstrap.servers": broker.bootstrap(login.mechanism),
        "security.protocol": login.protocol,
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(broker.file("ca")),
        "default.api.timeout.ms": "20000",
        "request.timeout.ms": "15000",
    }
    modules = "org.apache.kafka.common.security"
    if login.mechanism is None:
        return made | {"ssl.keystore.type": "PEM", "ssl.keystore.location": str(broker.file(login.user))}
    if login.password is not None:
        kind = "plain.PlainLoginModule" if login.mechanism == "PLAIN" else "scram.ScramLoginModule"
        jaas = f'{modules}.{kind} required username="{login.user}" password="{login.password}";'
        return made | {"sasl.mechanism": login.mechanism, "sasl.jaas.config": jaas}
    made["sasl.mechanism"] = "OAUTHBEARER"
    bearer = f"{modules}.oauthbearer.OAuthBearerLoginModule required"
    if login.token is None:
        unsecured = f"{modules}.oauthbearer.internals.unsecured.OAuthBearerUnsecuredLoginCallbackHandler"
        return made | {
            "sasl.login.callback.handler.class": unsecured,
            "sasl.jaas.config": f'{bearer} unsecuredLoginStringClaim_sub="{login.user}";',
        }
    file = folder / f"{label}.token"
    file.write_text(login.token)
    return made | {
        "sasl.login.callback.handler.class": f"{modules}.oauthbearer.OAuthBearerLoginCallbackHandler",
        "sasl.oauthbearer.jwt.retriever.class": f"{modules}.oauthbearer.FileJwtRetriever",
        # The one that needs no more libraries.
        "sasl.oauthbearer.jwt.validator.class": f"{modules}.oauthbearer.ClientJwtValidator",
        "sasl.oauthbearer.token.endpoint.url": file.as_uri(),
        "sasl.jaas.config": f"{bearer};",
    }


def write_properties(folder: Path, label: str, values: dict[str, str]) -> None:
    lines = [f"{name}={value}" for name, value in values.items()]
    (folder / f"{label}.properties").write_text("\n".join(lines) + "\n")


def test_java(broker: SecuredBroker, classes: Path, tmp_path: Path) -> None:  # noqa: F811
    steps = visits_of_java(broker, classes, tmp_path)
    found = steps.pop("logins")
    # Which of the refusals a consumer hears first is chance.
    topic, group = "TopicAuthorizationException", "GroupAuthorizationException"
    assert found.pop("mallory") in (topic, [topic, group])
    assert found == {
        "certificate": "done",
        "unsigned": "done",
        "stranger": "SslAuthenticationException",
        **dict.fromkeys(MECHANISMS, "done"),
        **{f"wrong-{mechanism}": "SaslAuthenticationException" for mechanism in MECHANISMS},
    }
    check_administration(steps)


def check_administration(steps: dict[str, Any]) -> None:
    """What a Kafka 4.4 has the program say, too."""
    of_all = ("ALTER", "ALTER_CONFIGS", "CREATE", "DESCRIBE", "DESCRIBE_CONFIGS")
    read, deny = "LITERAL java-1 READ ALLOW", "PREFIXED java WRITE DENY"
    everywhere = "LITERAL * DESCRIBE ALLOW"
    both, everybody = "{client-id=client, user=java}", "{user=null}"
    assert steps == {
        "create acls": ["accepted", "accepted", "InvalidRequestException"],
        "acls ANY": [read],
        "acls MATCH": [everywhere, read, deny],
        "acls LITERAL": [read],
        "acls PREFIXED": [],
        "acls": [everywhere, read, deny],
        "delete acls": [everywhere, read, deny],
        "acls left": [],
        "credential of java": "accepted",
        "credential of few": "UnacceptableCredentialException",
        "credential of nobody": "ResourceNotFoundException",
        "described": "[ScramCredentialInfo{mechanism=SCRAM_SHA_256, iterations=5000}]",
        "not described": "ResourceNotFoundException",
        "users": ["admin", "alice", "java", "mallory"],
        "users left": ["admin", "alice", "mallory"],
        "quotas set": ["accepted", "accepted", "InvalidRequestException"],
        "unknown quota": "InvalidRequestException",
        "all quotas": {both: {"request_percentage": 250.5}, everybody: {"producer_byte_rate": 1e9}},
        "quotas with": {both: {"request_percentage": 250.5}},
        "quotas only": {},
        "default quota": {everybody: {"producer_byte_rate": 1e9}},
        "quotas left": {},
        "cluster of admin": sorted([*of_all, "CLUSTER_ACTION", "IDEMPOTENT_WRITE"]),
        "topic of admin": sorted([*of_all, "DELETE", "READ", "WRITE"]),
        "group of admin": ["ALTER_CONFIGS", "DELETE", "DESCRIBE", "DESCRIBE_CONFIGS", "READ"],
        "topics of admin": True,
        "cluster of alice": [],
        "topic of alice": ["DESCRIBE", "READ", "WRITE"],
        "group of alice": ["DESCRIBE", "READ"],
        "topics of alice": True,
        **{f"no {call}": "ClusterAuthorizationException" for call in CLUSTER_CALLS},
        "no describeTopics": "TopicAuthorizationException",
        "no describeGroups": "GroupAuthorizationException",
        "no tokens of others": "DelegationTokenAuthorizationException",
        "cluster of nobody": [],
        "listed to nobody": [],
        "token": ["User:alice", "User:alice", 3_600_000, 3_600_000],
        "tokens of alice": ["User:alice for [User:admin]"],
        "tokens for admin": 1,
        "by token": "done",
        "token by token": "UnsupportedByAuthenticationException",
        "renewed": True,
        "renew another": "DelegationTokenNotFoundException",
        "tokens left": [],
        "expire again": "DelegationTokenNotFoundException",
        "by what was one": "SaslAuthenticationException",
    }


CLUSTER_CALLS = [
    *("createAcls", "describeAcls", "deleteAcls", "describeCredentials", "alterCredentials"),
    *("describeQuotas", "alterQuotas"),
]
