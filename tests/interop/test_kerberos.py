"""Kerberos (GSSAPI): a realm of its own, with a KDC in a process, and clients that get in by their tickets.

scripts/interop-deps.sh installs the KDC and python-gssapi. Nothing of it needs root, and nothing of the
machine's own Kerberos is looked at.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourceType,
)
from confluent_kafka.admin import ResourcePatternType as Pattern
from kafka import KafkaConsumer, KafkaProducer
from kafka.errors import TopicAuthorizationFailedError

from interop.process import BrokerProcess, wait_until
from interop.test_java import BUILD, RUN_TIMEOUT_S, classes  # noqa: F401 - a fixture
from ottla.cli.local.ports import free_ports
from ottla.config.security import STANDARD_AUTHORIZER

REALM = "OTTLA.TEST"
SERVICE = "kafka/localhost"
KRB5_CONF = """
[libdefaults]
default_realm = {realm}
dns_lookup_kdc = false
dns_lookup_realm = false
dns_canonicalize_hostname = false
rdns = false
udp_preference_limit = 1
default_ccache_name = FILE:{folder}/ccache
[realms]
{realm} = {{
    kdc = 127.0.0.1:{port}
}}
[domain_realm]
localhost = {realm}
"""
KDC_CONF = """
[kdcdefaults]
kdc_listen = ""
kdc_tcp_listen = 127.0.0.1:{port}
[realms]
{realm} = {{
    database_name = {folder}/principal
    key_stash_file = {folder}/stash
    acl_file = {folder}/kadm5.acl
    supported_enctypes = aes256-cts-hmac-sha1-96:normal
}}
[logging]
kdc = FILE:{folder}/kdc.log
"""
# Where Debian has the daemons, which an ordinary user's PATH has not.
DAEMONS = "/usr/sbin:/usr/local/sbin"


class Realm:
    """A KDC with its principals; a keytab for each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (self.port,) = free_ports(1)
        for name, text in (("krb5.conf", KRB5_CONF), ("kdc.conf", KDC_CONF)):
            (folder / name).write_text(text.format(realm=REALM, folder=folder, port=self.port))
        self.environment = {
            "KRB5_CONFIG": str(folder / "krb5.conf"),
            "KRB5_KDC_PROFILE": str(folder / "kdc.conf"),
            "KRB5RCACHETYPE": "none",
        }
        self._run("kdb5_util", "create", "-s", "-W", "-P", "master")
        self._process = subprocess.Popen(
            ["krb5kdc", "-n", "-P", str(folder / "pid")], env=self._env(), stderr=subprocess.PIPE
        )

    def _env(self) -> dict[str, str]:
        return os.environ | self.environment | {"PATH": f"{os.environ['PATH']}:{DAEMONS}"}

    def _run(self, *command: str) -> None:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, env=self._env(), timeout=60
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)

    def add(self, name: str) -> Path:
        """A principal, and the file that has its key."""
        keytab = self.folder / f"{name.replace('/', '-')}.keytab"
        self._run("kadmin.local", "-q", f"addprinc -randkey {name}")
        self._run("kadmin.local", "-q", f"ktadd -k {keytab} -norandkey {name}")
        return keytab

    def await_ready(self) -> None:
        def answers() -> bool:
            assert self._process.poll() is None, self._process.stderr and self._process.stderr.read()
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                return False
            return True

        wait_until(answers, what="the KDC takes connections")

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(60)


@pytest.fixture(scope="module")
def realm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Realm]:
    made = Realm(tmp_path_factory.mktemp("realm"))
    try:
        for name in (SERVICE, "alice", "mallory"):
            made.add(name)
        made.await_ready()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def broker(realm: Realm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    listener = "listener.name.plaintext"
    settings = {
        "listener.security.protocol.map": "PLAINTEXT:SASL_PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "advertised.listeners": "PLAINTEXT://localhost:0",
        "sasl.enabled.mechanisms": "GSSAPI,PLAIN",
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "sasl.kerberos.service.name": "kafka",
        f"{listener}.plain.sasl.jaas.config": (
            "org.apache.kafka.common.security.plain.PlainLoginModule required "
            'username="admin" password="secret" user_admin="secret";'
        ),
        f"{listener}.gssapi.sasl.jaas.config": (
            "com.sun.security.auth.module.Krb5LoginModule required useKeyTab=true storeKey=true "
            f'keyTab="{realm.folder}/kafka-localhost.keytab" principal="{SERVICE}@{REALM}";'
        ),
        "authorizer.class.name": STANDARD_AUTHORIZER,
        "super.users": "User:admin",
    }
    started = BrokerProcess(tmp_path_factory.mktemp("kerberized"), settings)
    started.environment = realm.environment
    with started:
        plain = {"sasl.mechanism": "PLAIN", "sasl.username": "admin", "sasl.password": "secret"}
        address = {"bootstrap.servers": started.bootstrap, "security.protocol": "SASL_PLAINTEXT"}
        admin = AdminClient(address | plain)
        acls = [
            AclBinding(
                kind, "t", Pattern.PREFIXED, "User:alice", "*", AclOperation.ALL, AclPermissionType.ALLOW
            )
            for kind in (ResourceType.TOPIC, ResourceType.GROUP)
        ]
        for made in (
            admin.create_acls(acls),
            admin.create_topics([NewTopic(n, 1, 1) for n in ("t-p", "t-j")]),
        ):
            for future in made.values():
                future.result(60)
        yield started


@pytest.fixture
def client(broker: BrokerProcess, realm: Realm, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """kafka-python's settings."""
    for name, value in realm.environment.items():
        monkeypatch.setenv(name, value)
    return {
        "bootstrap_servers": f"localhost:{broker.port}",
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "GSSAPI",
        "sasl_kerberos_service_name": "kafka",
        "sasl_kerberos_domain_name": "localhost",
    }


def test_kafka_python(
    client: dict[str, str], realm: Realm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def become(name: str) -> None:
        monkeypatch.setenv("KRB5CCNAME", f"FILE:{tmp_path}/{name}")
        monkeypatch.setenv("KRB5_CLIENT_KTNAME", f"{realm.folder}/{name}.keytab")

    become("alice")
    producer = KafkaProducer(**client)
    assert producer.send("t-p", b"value").get(20).offset == 0
    producer.close()
    consumer = KafkaConsumer("t-p", group_id="t-p", auto_offset_reset="earliest", **client)
    while not (got := consumer.poll(1000)):
        pass
    assert [record.value for records in got.values() for record in records] == [b"value"]
    consumer.close()
    become("mallory")
    producer = KafkaProducer(**client)
    with pytest.raises(TopicAuthorizationFailedError):
        producer.send("t-p", b"value").get(20)
    producer.close()


def test_java(broker: BrokerProcess, realm: Realm, classes: Path, tmp_path: Path) -> None:  # noqa: F811
    for name in ("alice", "mallory"):
        jaas = (
            "com.sun.security.auth.module.Krb5LoginModule required useKeyTab=true storeKey=true "
            f'keyTab="{realm.folder}/{name}.keytab" principal="{name}@{REALM}";'
        )
        values = {
            "bootstrap.servers": f"localhost:{broker.port}",
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "GSSAPI",
            "sasl.kerberos.service.name": "kafka",
            "sasl.jaas.config": jaas,
        }
        text = "\n".join(f"{key}={value}" for key, value in values.items())
        (tmp_path / f"{name}.properties").write_text(text + "\n")
    command = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto"]
    command += [f"-Djava.security.krb5.conf={realm.folder}/krb5.conf", "-cp", f"{classes}:{BUILD}/libs/*"]
    command += ["Main", "logins", "-", "t-j", str(tmp_path), "alice", "mallory"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=RUN_TIMEOUT_S)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    found = {line["step"]: line["result"] for line in map(json.loads, done.stdout.splitlines())}
    assert found["alice"] == "done"
    assert "TopicAuthorizationException" in found["mallory"]
