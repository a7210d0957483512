"""deploy/container as processes: what the image runs, with a client that connects as one on the host does."""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cluster_support import free_port
from confluent_kafka import Consumer, Producer

from interop.process import wait_until
from measuring import HANG_S

CONTAINER = Path(__file__).parents[2] / "deploy" / "container"
QUIET = {"log_level": 0}

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")


class Container:
    """The image's programs with ports and a volume of their own, in the place of a container."""

    def __init__(self, folder: Path) -> None:
        self.kafka, self.metrics = free_port(), free_port()
        self.data = folder / "volume"
        self._bin = folder / "bin"
        self._bin.mkdir()
        for path in CONTAINER.iterdir():
            text = path.read_text().replace("9308", str(self.metrics))
            text = text.replace("0.0.0.0:9092", f"127.0.0.1:{self.kafka}").replace(
                "/var/lib/ottla", str(self.data)
            )
            self._add(path.name, text)
        self._add("ottla", f'#!/bin/sh\nexec "{sys.executable}" -m ottla.cli.main "$@"\n')
        self._log = folder / "log"

    def _add(self, name: str, text: str) -> None:
        (self._bin / name).write_text(text)
        (self._bin / name).chmod(0o755)

    def environment(self, given: dict[str, str]) -> dict[str, str]:
        return {**os.environ, **given, "PATH": f"{self._bin}:{os.environ['PATH']}"}

    @contextmanager
    def running(self, *arguments: str, **given: str) -> Iterator[subprocess.Popen[bytes]]:
        with self._log.open("wb") as log:
            process = subprocess.Popen(
                ["ottla-container", *arguments], env=self.environment(given), stdout=log, stderr=log
            )
        try:
            wait_until(lambda: b"ottla: listening" in self._log.read_bytes() or process.poll(), HANG_S)
            assert process.poll() is None, self._log.read_text()
            yield process
        finally:
            process.kill()
            process.wait()

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, env=self.environment({}), capture_output=True, text=True, timeout=HANG_S, check=False
        )

    def healthy(self, *arguments: str) -> bool:
        return self.run("ottla-healthy", *arguments).returncode == 0


@pytest.fixture
def container(tmp_path: Path) -> Container:
    return Container(tmp_path)


@contextmanager
def published(port: int) -> Iterator[int]:
    """Another port of this machine by which a container's is reached, as by `docker run -p`."""
    listening = socket.create_server(("127.0.0.1", 0))
    ending = threading.Event()

    def forward(client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", port)) as server:
            other = {client: server, server: client}
            while not ending.is_set():
                for one in select.select([client, server], [], [], 0.1)[0]:
                    data = one.recv(65536)
                    if not data:
                        return
                    other[one].sendall(data)

    def accept() -> None:
        while not ending.is_set():
            if select.select([listening], [], [], 0.1)[0]:
                threading.Thread(target=forward, args=(listening.accept()[0],), daemon=True).start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    yield listening.getsockname()[1]
    ending.set()
    accepting.join()
    listening.close()


def check_clients(bootstrap: str) -> None:
    """A record goes there and back, by way of the address that the node tells."""
    producer = Producer({"bootstrap.servers": bootstrap, **QUIET})
    producer.produce("orders", b"one")
    assert producer.flush(HANG_S) == 0
    (broker,) = producer.list_topics(timeout=HANG_S).brokers.values()
    assert f"{broker.host}:{broker.port}" == bootstrap
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "g", "auto.offset.reset": "earliest", **QUIET}
    )
    try:
        consumer.subscribe(["orders"])
        message = wait_until(lambda: consumer.poll(0.1), HANG_S)
        assert message.value() == b"one"
    finally:
        consumer.close()


def test_a_client_on_the_host_reaches_a_published_port(container: Container) -> None:
    assert not container.healthy()
    with published(container.kafka) as port:
        address = f"localhost:{port}"
        soon = "--set group.initial.rebalance.delay.ms=0"
        with container.running(OTTLA_ADVERTISE=address, OTTLA_OPTIONS=soon) as process:
            check_clients(address)
            assert container.healthy() and container.healthy("/readyz") and not container.healthy("/nope")
            process.send_signal(signal.SIGTERM)
            assert process.wait(HANG_S) == 0
    assert not container.healthy()


def test_the_default_address_is_the_one_of_the_usual_port(container: Container) -> None:
    # Nobody listens at 9092 here, and no client is asked to.
    with container.running("--set", "log.retention.hours=24", "--rack", "b"):
        producer = Producer({"bootstrap.servers": f"127.0.0.1:{container.kafka}", **QUIET})
        (broker,) = producer.list_topics(timeout=HANG_S).brokers.values()
        assert (broker.host, broker.port) == ("localhost", 9092)
    assert (container.data / "metadata.db").exists()


def test_other_arguments_are_commands(container: Container) -> None:
    done = container.run("ottla-container", "--help")
    assert done.returncode == 0 and "Usage: ottla serve" in done.stdout
    done = container.run("ottla-container", "topic", "--help")
    assert done.returncode == 0 and "Usage: ottla topic" in done.stdout
    done = container.run("ottla-container", "serve", "--listen", "nowhere")
    assert done.returncode == 2 and "--listen" in done.stderr
