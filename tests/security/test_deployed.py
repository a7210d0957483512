"""What deploy/secured/ has, run as it stands on this machine: scripts, properties, the command line."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cli_support import Ottla
from cluster_support import free_port
from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource
from deployed_support import Served

from etcd_support import EtcdCluster, Tls
from interop.process import wait_until
from measuring import HANG_S

pytestmark = pytest.mark.skipif(shutil.which("etcd") is None, reason="there is no etcd")

SECURED = Path(__file__).parents[2] / "deploy" / "secured"
NODES = (1, 2, 3)
QUIET = {"log_level": 0}
# Of the deployment, what would only make a test slow.
SMALL = {
    "offsets.topic.num.partitions": "2",
    "transaction.state.log.num.partitions": "2",
    "group.initial.rebalance.delay.ms": "0",
}


def free_ports(count: int) -> list[int]:
    """Different ones, that the system gives to nobody else while a node is down."""
    ports: set[int] = set()
    while len(ports) < count:
        ports.add(free_port())
    return list(ports)


def certificates(folder: Path) -> None:
    subprocess.run(["sh", SECURED / "certificates.sh", folder, "nodes.example.org"], check=True)


class Deployed:
    """Three nodes as ottla@.service starts them with the drop-in, and etcd; on ports of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.secrets = folder, folder / "secrets"
        certificates(self.secrets)
        (folder / "etc").mkdir()
        for name in ("server.properties", "client.properties"):
            (folder / "etc" / name).write_text(self._here((SECURED / name).read_text()))
        asked = Tls(self.secrets / "ca.pem", self.secrets / "etcd.crt", self.secrets / "etcd.key")
        self.etcd = EtcdCluster(1, tls=asked, extra=["--bcrypt-cost", "4"])
        self.ports = dict(zip(NODES, zip(*[iter(free_ports(6))] * 2, strict=True), strict=True))
        self.nodes = {node_id: Served(folder / f"node-{node_id}") for node_id in NODES}

    def _here(self, text: str) -> str:
        return text.replace("/etc/ottla-secrets", str(self.secrets)).replace(
            "/etc/ottla", f"{self.folder}/etc"
        )

    def start(self) -> None:
        self.etcd.start()
        subprocess.run(
            ["sh", SECURED / "etcd-users.sh", self.secrets],
            env={
                **os.environ,
                "ETCDCTL_ENDPOINTS": f"https://{self.etcd.endpoints}",
                "ETCDCTL_CACERT": str(self.secrets / "ca.pem"),
            },
            capture_output=True,
            check=True,
        )
        for node_id, node in self.nodes.items():
            node.arguments = self._arguments(node_id)
            node.spawn()
        for node in self.nodes.values():
            node.wait_ready()

    def _arguments(self, node_id: int) -> tuple[str, ...]:
        *_, command = re.findall(r"^ExecStart=(.*)$", (SECURED / "ottla.conf").read_text(), re.MULTILINE)
        (store,) = re.findall(
            r"^OTTLA_SECURED_STORE=(.*)$", (SECURED / "secured.env").read_text(), re.MULTILINE
        )
        values = {
            "OTTLA_SECURED_STORE": re.sub(r"//.*\?", f"//{self.etcd.endpoints}?", store),
            "OTTLA_CLUSTER": "ottla",
            "OTTLA_RACK": f"rack-{node_id}",
            "OTTLA_HOST": "127.0.0.1",
            "OTTLA_OPTIONS": "",
        }
        filled = re.sub(r"\$\{?(\w+)\}?", lambda found: values[found[1]], command.replace("%i", str(node_id)))
        for_clients, for_nodes = self.ports[node_id]
        filled = filled.replace(":9092", f":{for_clients}").replace(":9094", f":{for_nodes}")
        filled = self._here(filled.replace("0.0.0.0", "127.0.0.1"))
        filled = filled.replace("/var/lib/ottla", str(self.folder / "data"))
        small = (part for name, value in SMALL.items() for part in ("--set", f"{name}={value}"))
        return (*shlex.split(filled)[2:], *small)

    def stop(self) -> None:
        for node in self.nodes.values():
            node.stop()
            print(node.log())
        self.etcd.stop()

    def ottla(self, properties: Path) -> Ottla:
        """Commands that come in by the listener for nodes."""
        made = Ottla(",".join(f"127.0.0.1:{nodes}" for _, nodes in self.ports.values()))
        made.environment["OTTLA_CLIENT_PROPERTIES"] = str(properties)
        return made

    def login(self, name: str, password: str, trusted: str = "ca.pem") -> dict[str, Any]:
        """A client's properties."""
        return {
            "bootstrap.servers": ",".join(f"127.0.0.1:{clients}" for clients, _ in self.ports.values()),
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": name,
            "sasl.password": password,
            "ssl.ca.location": str(self.secrets / trusted),
            **QUIET,
        }


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    made = Deployed(tmp_path_factory.mktemp("deployed"))
    try:
        made.start()
        # As deploy/README.md has it, but at once.
        admin = made.ottla(made.secrets / "admin.properties")
        password = made.folder / "password"
        password.write_text("wonderland")
        commands = (
            f"user create alice --mechanism SCRAM-SHA-512 --password-file {password}",
            "topic create orders --partitions 3",
            "acl add alice --operation write --topic orders",
            "acl add alice --operation read --topic orders --group *",
        )
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda command: admin(*command.split()), commands))
        yield made
    finally:
        made.stop()


def read_all(settings: dict[str, Any], count: int) -> list[bytes]:
    consumer = Consumer({**settings, "group.id": "g", "auto.offset.reset": "earliest"})
    consumer.subscribe(["orders"])
    try:
        found: list[bytes] = []

        def some() -> bool:
            found.extend(message.value() for message in consumer.consume(500, 0.1) if not message.error())
            return len(found) >= count

        wait_until(some, HANG_S, f"{count} records read")
        return found
    finally:
        consumer.close()


def test_a_user_is_let_in_and_nobody_else(deployed: Deployed) -> None:
    alice = deployed.login("alice", "wonderland")
    outcomes: list[Any] = []
    producer = Producer({**alice, "acks": "all"})
    for number in range(30):
        producer.produce("orders", b"%d" % number, on_delivery=lambda error, _: outcomes.append(error))
    assert producer.flush(HANG_S) == 0 and outcomes == [None] * 30
    assert sorted(read_all(alice, 30), key=int) == [b"%d" % number for number in range(30)]
    # As the pods' own commands come in.
    node = deployed.ottla(deployed.folder / "etc" / "client.properties")
    node("cluster", "wait", "--timeout", "60")
    for served in deployed.nodes.values():
        assert "ERROR" not in served.log()
    assert taken(deployed, deployed.secrets / "ca.pem", deployed.secrets / "admin.pem")
    assert not taken(deployed, deployed.secrets / "ca.pem", None)
    with pytest.raises(KafkaException):
        AdminClient(deployed.login("alice", "of land")).list_topics(timeout=1)


def test_the_authority_is_changed_while_records_come(deployed: Deployed) -> None:
    """Both are trusted, then certificates are the new one's, then it alone is trusted (docs/SECURITY.md)."""
    secrets, renewed = deployed.secrets, deployed.folder / "renewed"
    certificates(renewed)
    old, new = ((folder / "ca.pem").read_bytes() for folder in (secrets, renewed))
    # Those who trust only the first, or only the second, or both: clients do before nodes change.
    (secrets / "both.pem").write_bytes(old + new)
    (secrets / "new.pem").write_bytes(new)
    outcomes: list[Any] = []
    numbers = iter(range(1_000_000))
    producer = Producer({**deployed.login("alice", "wonderland", "both.pem"), "enable.idempotence": True})

    def produce() -> None:
        for _ in range(20):
            value = b"renewed %d" % next(numbers)
            producer.produce("orders", value, on_delivery=lambda error, _: outcomes.append(error))
        producer.poll(0)

    admin = AdminClient(
        {
            "bootstrap.servers": f"127.0.0.1:{deployed.ports[1][1]}",
            "security.protocol": "SSL",
            "ssl.ca.location": str(secrets / "both.pem"),
            "ssl.certificate.location": str(shutil.copy(secrets / "admin.pem", secrets / "first.pem")),
            "ssl.key.location": str(secrets / "first.pem"),
            **QUIET,
        }
    )

    def put(name: str, data: bytes, times: int) -> None:
        """Another file in the place of one; nodes notice by themselves in five seconds, at once where any of
        their settings is changed."""
        (secrets / "coming").write_bytes(data)
        (secrets / "coming").rename(secrets / name)
        kind = AlterConfigOpType.SET if times % 2 else AlterConfigOpType.DELETE
        location = ConfigEntry(
            "listener.name.nodes.ssl.truststore.location", str(secrets / "ca.pem"), incremental_operation=kind
        )
        for node_id in NODES:
            asked = ConfigResource(ConfigResource.Type.BROKER, str(node_id), incremental_configs=[location])
            (result,) = admin.incremental_alter_configs([asked]).values()
            result.result(HANG_S)
        for node in deployed.nodes.values():
            for listener in ("CLIENTS", "NODES"):
                said = f"listener {listener}: certificate files loaded again: new connections use them"
                wait_until(lambda node=node, said=said: node.log().count(said) >= times, HANG_S, said)
        produce()

    produce()
    put("ca.pem", old + new, 1)
    put("node.pem", (renewed / "node.pem").read_bytes(), 2)
    assert taken(deployed, secrets / "new.pem", renewed / "node.pem")
    put("ca.pem", new, 3)
    # Whose certificate is the first authority's is nobody any more.
    assert not taken(deployed, secrets / "new.pem", secrets / "first.pem")
    # All connections of a node are made anew; etcd still is the first authority's, as the store is told.
    (secrets / "old.pem").write_bytes(old)
    node = deployed.nodes[2]
    node.arguments = tuple(one.replace(f"{secrets}/ca.pem", f"{secrets}/old.pem") for one in node.arguments)
    node.stop(signal.SIGTERM)
    produce()
    node.spawn()
    node.wait_ready()
    produce()
    assert producer.flush(HANG_S) == 0
    assert len(outcomes) == next(numbers) and not any(outcomes)
    deployed.ottla(deployed.folder / "etc" / "client.properties")("cluster", "wait", "--timeout", "60")
    found = read_all(deployed.login("alice", "wonderland", "new.pem"), len(outcomes))
    assert len([value for value in found if value.startswith(b"renewed")]) == len(outcomes)


def taken(deployed: Deployed, trusted: Path, shown: Path | None) -> bool:
    """Whether all nodes and whoever shows this certificate take each other for what they are."""
    context = ssl.create_default_context(cafile=str(trusted))
    if shown is not None:
        context.load_cert_chain(shown)
    for _, port in deployed.ports.values():
        with socket.create_connection(("127.0.0.1", port), HANG_S) as connection:
            try:
                with context.wrap_socket(connection, server_hostname="127.0.0.1") as wrapped:
                    # ApiVersions v0: TLS 1.3 tells a client only later that it is refused.
                    wrapped.sendall(bytes.fromhex("0000000a 0012 0000 00000001 ffff"))
                    if not wrapped.recv(1):
                        return False
            except (ssl.SSLError, ConnectionError):
                return False
    return True
