"""A listener that speaks TLS, in a process of its own: clients, strangers, and new certificates."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from tls_support import Authority, pem_of

from interop.process import BrokerProcess, wait_until
from interop.raw import framed, request_header
from measuring import HANG_S

Start = Callable[..., BrokerProcess]

API_VERSIONS = framed(request_header(18, 0))
CA = Authority()


def written(folder: Path, name: str, authority: Authority = CA) -> Path:
    path = folder / name
    path.write_text(authority.issue("broker").pem())
    return path


def trusted(folder: Path) -> str:
    path = folder / "ca.pem"
    path.write_text(pem_of(CA.certificate))
    return str(path)


def settings(folder: Path) -> dict[str, str]:
    return {
        "listener.security.protocol.map": "PLAINTEXT:SSL",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(written(folder, "broker.pem")),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": trusted(folder),
    }


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    folder = tmp_path_factory.mktemp("tls")
    made = BrokerProcess(folder / "broker", settings(folder)).start()
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def trusting() -> ssl.SSLContext:
    return ssl.create_default_context(cadata=pem_of(CA.certificate))


def connect(broker: BrokerProcess, context: ssl.SSLContext) -> ssl.SSLSocket:
    made = socket.create_connection((broker.host, broker.port), HANG_S)
    return context.wrap_socket(made, server_hostname="127.0.0.1")


def asks(client: socket.socket) -> None:
    """Ask for the versions of APIs, and get them."""
    client.sendall(API_VERSIONS)
    answer = b""
    while len(answer) < 4 or len(answer) < 4 + int.from_bytes(answer[:4]):
        came = client.recv(65536)
        assert came
        answer += came


def librdkafka(broker: BrokerProcess, tmp_path: Path) -> dict[str, Any]:
    return {
        "bootstrap.servers": broker.bootstrap,
        "security.protocol": "ssl",
        "ssl.ca.location": trusted(tmp_path),
        "log_level": 0,
    }


def test_librdkafka_and_aiokafka(broker: BrokerProcess, trusting: ssl.SSLContext, tmp_path: Path) -> None:
    conf = librdkafka(broker, tmp_path)
    values = [b"%d" % number * 30_000 for number in range(100)]
    producer = Producer({**conf, "linger.ms": 20})
    for value in values:
        producer.produce("t", value)
    assert producer.flush(HANG_S) == 0
    consumer = Consumer({**conf, "group.id": "g", "auto.offset.reset": "earliest"})
    consumer.subscribe(["t"])
    got = [message.value() for message in wait_for(consumer, len(values))]
    consumer.close()
    assert got == values

    async def other() -> list[bytes | None]:
        tls = {"bootstrap_servers": broker.bootstrap, "security_protocol": "SSL", "ssl_context": trusting}
        async with AIOKafkaProducer(**tls) as sender:
            await sender.send_and_wait("t", b"last")
        async with AIOKafkaConsumer("t", auto_offset_reset="earliest", **tls) as reader:
            return [(await reader.getone()).value for _ in range(len(values) + 1)]

    assert asyncio.run(other()) == [*values, b"last"]


def wait_for(consumer: Consumer, count: int) -> list[Any]:
    found: list[Any] = []
    while len(found) < count:
        messages = consumer.consume(count - len(found), HANG_S)
        assert messages
        found += messages
    return found


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("-tls1_3",), "Verification: OK"),
        (("-tls1_2",), "Verification: OK"),
        (("-tls1_1", "-cipher", "ALL:@SECLEVEL=0"), "alert protocol version"),
        (("-groups", "ffdhe8192"), "DH, 8192 bits"),
    ],
)
def test_openssl(broker: BrokerProcess, tmp_path: Path, options: tuple[str, ...], expected: str) -> None:
    assert expected in openssl(broker, tmp_path, *options, until=expected)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
def test_nobody_may_negotiate_anew(broker: BrokerProcess, tmp_path: Path) -> None:
    said = openssl(broker, tmp_path, "-tls1_2", until="no renegotiation", typed="R\n")
    assert "no renegotiation" in said


def openssl(broker: BrokerProcess, tmp_path: Path, *options: str, until: str, typed: str = "") -> str:
    """What openssl says, up to the text that is waited for, or its end. ``typed``: after the handshake."""
    command = ["openssl", "s_client", "-connect", broker.bootstrap, "-CAfile", trusted(tmp_path), *options]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as client:
        assert client.stdin is not None and client.stdout is not None
        said = ""
        while until not in said and (line := client.stdout.readline()):
            said += line
            if typed and "Verify return code" in line:
                client.stdin.write(typed)
                client.stdin.flush()
        client.kill()
    return said


def test_a_client_that_forgets_tls_is_named(broker: BrokerProcess) -> None:
    with socket.create_connection((broker.host, broker.port), HANG_S) as client:
        client.sendall(API_VERSIONS)
        assert client.recv(1) == b""
    wait_until(lambda: broker.lines_with("127.0.0.1: connection refused: it does not speak TLS"))


def test_what_an_idle_connection_holds(broker: BrokerProcess, trusting: ssl.SSLContext) -> None:
    clients: list[ssl.SSLSocket] = []

    def more(count: int) -> int:
        for _ in range(count):
            clients.append(connect(broker, trusting))
            asks(clients[-1])
        return resident_kib(broker)

    before = more(30)
    after = more(200)
    for client in clients:
        client.close()
    assert (after - before) / 200 < 60


def resident_kib(broker: BrokerProcess) -> int:
    lines = Path(f"/proc/{broker.pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Rss:"))


def test_new_certificates_by_dynamic_configuration(
    broker: BrokerProcess, trusting: ssl.SSLContext, tmp_path: Path
) -> None:
    admin = AdminClient(librdkafka(broker, tmp_path))
    name = "listener.name.plaintext.ssl.keystore.location"

    def set_to(path: Path) -> None:
        entry = ConfigEntry(name, str(path), incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.BROKER, "1", incremental_configs=[entry])
        (done,) = admin.incremental_alter_configs([resource]).values()
        done.result(HANG_S)

    def serial() -> Any:
        with connect(broker, trusting) as client:
            certificate = client.getpeercert()
            assert certificate is not None
            return certificate["serialNumber"]

    before = serial()
    with connect(broker, trusting) as old:
        for bad in (written(tmp_path, "other.pem", Authority()), tmp_path / "none.pem"):
            with pytest.raises(KafkaException) as caught:
                set_to(bad)
            assert "listener PLAINTEXT: " in str(caught.value)
        assert serial() == before
        set_to(written(tmp_path, "new.pem"))
        wait_until(lambda: serial() != before)
        asks(old)


def test_handshakes_that_do_not_go_on_count_as_connections(ottla_process: Start, tmp_path: Path) -> None:
    context = ssl.create_default_context(cadata=pem_of(CA.certificate))
    broker = ottla_process({**settings(tmp_path), "max.connections": "40"})
    slow = [socket.create_connection((broker.host, broker.port), HANG_S) for _ in range(39)]
    for client in slow[:20]:
        client.sendall(b"\x16\x03\x01\x02\x00\x01")
    with connect(broker, context) as client:
        asks(client)
        with socket.create_connection((broker.host, broker.port), HANG_S) as one_more:
            assert is_closed(one_more)
        # Who is in is served, and whoever goes makes room.
        asks(client)
        slow.pop().close()

        def gets_in() -> bool:
            try:
                with connect(broker, context) as other:
                    asks(other)
                    return True
            except OSError:
                return False

        wait_until(gets_in)
    for one in slow:
        one.close()
    assert broker.lines_with("max.connections (40) is reached")


def is_closed(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True
