"""TLS and logins together, with real clients: on one node, and among the nodes of a cluster."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trustme
from cli_support import Ottla
from cluster_support import Cluster
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from login_support import PLAIN_JAAS, served

from measuring import HANG_S
from ottla.node import Node

QUIET = {"log_level": 0}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.pem; server.pem and alice.pem with their keys; other.pem, of another authority."""
    folder = tmp_path_factory.mktemp("certificates")
    authority, other = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    for name, by in (("server", authority), ("alice", authority), ("other", other)):
        issued = by.issue_cert("127.0.0.1", "localhost", common_name=name)
        issued.private_key_and_cert_chain_pem.write_to_path(folder / f"{name}.pem")
    return folder


def tls(certificates: Path) -> dict[str, str]:
    return {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(certificates / "server.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(certificates / "ca.pem"),
        "ssl.principal.mapping.rules": r"RULE:^CN=([a-z]+),.*$/$1/,DEFAULT",
    }


def address(node: Node) -> str:
    return "{}:{}".format(*node.address)


def send(settings: dict[str, Any], *values: bytes, topic: str = "t") -> list[str | None]:
    """The error of each message, None where it was acknowledged."""
    outcomes: list[str | None] = []
    producer = Producer({**settings, **QUIET, "message.timeout.ms": 30_000})
    for value in values:
        producer.produce(topic, value, on_delivery=lambda error, _: outcomes.append(error and error.name()))
    assert producer.flush(HANG_S) == 0
    return outcomes


def client_tls(certificates: Path, name: str | None = None) -> dict[str, Any]:
    made = {"security.protocol": "SSL", "ssl.ca.location": str(certificates / "ca.pem")}
    if name is not None:
        made |= {
            "ssl.certificate.location": str(certificates / f"{name}.pem"),
            "ssl.key.location": str(certificates / f"{name}.pem"),
        }
    return made


def principals(node: Node) -> set[str]:
    return {
        str(connection.client.principal)
        for server in node._listeners.servers
        for connection in server.connections
    }


def test_a_client_is_who_its_certificate_says(tmp_path: Path, certificates: Path) -> None:
    settings = {"listeners": "SSL://127.0.0.1:0", "ssl.client.auth": "required", **tls(certificates)}
    with served(tmp_path, settings) as node:
        producer = Producer(
            {"bootstrap.servers": address(node), **client_tls(certificates, "alice"), **QUIET}
        )
        producer.produce("t", b"x" * 100_000)
        assert producer.flush(HANG_S) == 0
        assert principals(node) == {"User:alice"}


def test_without_a_certificate_one_is_anonymous_where_none_is_required(
    tmp_path: Path, certificates: Path
) -> None:
    settings = {"listeners": "SSL://127.0.0.1:0", "ssl.client.auth": "requested", **tls(certificates)}
    with served(tmp_path, settings) as node:
        producer = Producer({"bootstrap.servers": address(node), **client_tls(certificates), **QUIET})
        producer.produce("t", b"x")
        assert producer.flush(HANG_S) == 0
        assert principals(node) == {"User:ANONYMOUS"}


@pytest.mark.parametrize("name", [None, "other"])
def test_who_shows_no_certificate_that_counts_is_not_let_in(
    name: str | None, tmp_path: Path, certificates: Path
) -> None:
    settings = {"listeners": "SSL://127.0.0.1:0", "ssl.client.auth": "required", **tls(certificates)}
    context = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    if name is not None:
        context.load_cert_chain(str(certificates / f"{name}.pem"))

    async def try_it(node: Node) -> bytes:
        reader, writer = await asyncio.open_connection(*node.address, ssl=context)
        try:
            writer.write(bytes.fromhex("0000000a 0012 0000 00000001 ffff"))
            return await reader.read(1)
        finally:
            writer.close()

    with served(tmp_path, settings) as node, pytest.raises((ssl.SSLError, ConnectionError)):
        asyncio.run(try_it(node))


@pytest.mark.parametrize("name", [None, "other"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_what_comes_with_a_certificate_that_is_refused_is_not_handled(
    version: ssl.TLSVersion, name: str | None, tmp_path: Path, certificates: Path
) -> None:
    """A client need not wait for what the broker says of its certificate: in TLS 1.3 its first request may
    come in the same piece, and with TLS 1.2 as soon as its part of the handshake is over."""
    settings = {"listeners": "SSL://127.0.0.1:0", "ssl.client.auth": "required", **tls(certificates)}
    context = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    context.minimum_version = context.maximum_version = version
    if name is not None:
        context.load_cert_chain(str(certificates / f"{name}.pem"))
    request = bytes.fromhex("0000000a 0012 0000 00000001 ffff")
    handled: list[bytes] = []

    def comes_in(node: Node, own: ssl.SSLContext) -> bytes:
        """What is answered to a handshake whose last piece has a request in it."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        spoken = own.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
        with socket.create_connection(node.address, HANG_S) as connection:
            connection.settimeout(HANG_S)
            while True:
                try:
                    spoken.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    connection.sendall(outgoing.read())
                    received = connection.recv(1 << 16)
                    if not received:
                        return b""
                    incoming.write(received)
            spoken.write(request)
            connection.sendall(outgoing.read())
            while True:
                try:
                    return spoken.read(1)
                except ssl.SSLWantReadError:
                    received = connection.recv(1 << 16)
                    if not received:
                        return b""
                    incoming.write(received)

    with served(tmp_path, settings) as node:
        (server,) = node._listeners.servers
        handle = server.handle

        def watched(client: Any, frame: Any) -> Any:
            handled.append(bytes(frame))
            return handle(client, frame)

        server.handle = watched
        with suppress(ssl.SSLError, ConnectionError):
            assert comes_in(node, context) == b""
        assert not handled
        good = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
        good.load_cert_chain(str(certificates / "alice.pem"))
        assert comes_in(node, good) == b"\0"
        assert handled == [request[4:]]


def login(certificates: Path, mechanism: str = "PLAIN") -> dict[str, Any]:
    return {
        **client_tls(certificates),
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": mechanism,
        "sasl.username": "alice",
        "sasl.password": "wonderland",
    }


# ------------------------------------------------------------ a cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, certificates: Path) -> Iterator[Cluster]:
    """Three nodes that speak TLS and log in to each other."""
    settings = {
        "listener.security.protocol.map": "PLAINTEXT:SASL_SSL",
        "transaction.state.log.num.partitions": "3",
        "sasl.enabled.mechanisms": "PLAIN",
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "listener.name.plaintext.plain.sasl.jaas.config": PLAIN_JAAS,
        "listener.name.plaintext.plain.connections.max.reauth.ms": "2000",
        **tls(certificates),
    }
    made = Cluster(tmp_path_factory.mktemp("cluster"), settings)
    try:
        yield made.start()
    finally:
        made.stop()


def test_nodes_follow_coordinate_and_fail_over(cluster: Cluster, certificates: Path) -> None:
    settings = {"bootstrap.servers": cluster.bootstrap, **login(certificates)}
    admin = AdminClient({**settings, **QUIET})
    (made,) = admin.create_topics([NewTopic("t", 3, 3)]).values()
    made.result(HANG_S)
    assert send({**settings, "acks": "all"}, *[b"%d" % n for n in range(30)]) == [None] * 30
    # Markers and offsets go between nodes.
    producer = Producer({**settings, **QUIET, "transactional.id": "x"})
    producer.init_transactions(HANG_S)
    producer.begin_transaction()
    for partition in range(3):
        producer.produce("t", b"y", partition=partition)
    consumer = Consumer({**settings, **QUIET, "group.id": "g", "isolation.level": "read_committed"})
    producer.send_offsets_to_transaction(
        [TopicPartition("t", 0, 5)], consumer.consumer_group_metadata(), HANG_S
    )
    producer.commit_transaction(HANG_S)
    (committed,) = consumer.committed([TopicPartition("t", 0)], HANG_S)
    assert committed.offset == 5
    leader = cluster.leader("t", 0)
    cluster.nodes[leader].kill()
    assert send({**settings, "acks": "all"}, b"later") == [None]
    consumer.close()
    cluster.start()


def test_who_does_not_log_in_gets_nothing(cluster: Cluster, certificates: Path) -> None:
    wrong = {"bootstrap.servers": cluster.bootstrap, **login(certificates), "sasl.password": "of land"}
    admin = AdminClient({**wrong, **QUIET})
    with pytest.raises(KafkaException):
        admin.list_topics(timeout=1)


def test_commands_come_in_by_a_file_of_properties(
    cluster: Cluster, certificates: Path, tmp_path: Path
) -> None:
    file = tmp_path / "client.properties"
    module = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    file.write_text(
        "security.protocol=SASL_SSL\nsasl.mechanism=PLAIN\n"
        f'sasl.jaas.config={module} username="alice" password="wonderland";\n'
        f"ssl.truststore.type=PEM\nssl.truststore.location={certificates / 'ca.pem'}\n"
    )
    ottla = Ottla(cluster.bootstrap)
    ottla.environment["OTTLA_CLIENT_PROPERTIES"] = str(file)
    ottla("topic", "create", "commands", "--partitions", "2")
    assert len(ottla("cluster", "describe", "--json").json["brokers"]) == 3
    # Asked directly, without librdkafka.
    ottla("config", "describe", "broker", "default", "--json")
    ottla("transaction", "list", "--json")
    refused = ottla.try_("transaction", "list", "-X", "sasl.password=no")
    assert refused.code != 0 and "Invalid username or password" in refused.err
