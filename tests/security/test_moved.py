"""A cluster that runs without any security is moved to SASL_SSL node by node, while records come."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
import trustme
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from login_support import PLAIN_JAAS
from test_deployed import free_ports

import etcd_support
from measuring import HANG_S
from ottla.node import Node, NodeSettings

pytestmark = pytest.mark.skipif(shutil.which("etcd") is None, reason="there is no etcd")

NODES = (1, 2, 3)
QUIET = {"log_level": 0}


class Writer:
    """Writes all the time, and counts what becomes of it."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._producer = Producer({**settings, **QUIET, "enable.idempotence": True, "linger.ms": 0})
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.outcomes: list[Any] = []
        self.sent = 0

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.02):
            self.sent += 1
            self._producer.produce("t", b"v", on_delivery=lambda error, _: self.outcomes.append(error))
            self._producer.poll(0)
        assert self._producer.flush(HANG_S) == 0


class Running:
    """Three nodes in a thread of their own, each with what it is started with from now on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cluster = etcd_support.namespace()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._nodes: dict[int, Node] = {}
        self.properties: dict[int, dict[str, str]] = {}

    def __enter__(self) -> Running:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            for node in self._nodes.values():
                self._run(node.kill())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(HANG_S)
            self._loop.close()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(HANG_S)

    def start(self, node_id: int) -> None:
        settings = NodeSettings(
            data=str(self._folder / str(node_id)),
            node_id=node_id,
            store=etcd_support.shared().url(),
            cluster=self._cluster,
            properties=self.properties[node_id],
        )
        self._nodes[node_id] = Node(settings)
        self._run(self._nodes[node_id].start())

    def restart_in_turn(self) -> None:
        for node_id in NODES:
            self._run(self._nodes.pop(node_id).stop())
            self.start(node_id)


def test_a_cluster_moves_from_plaintext_to_sasl_ssl_node_by_node(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "node.pem")
    ports = dict(zip(NODES, zip(*[iter(free_ports(6))] * 2, strict=True), strict=True))
    common = {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(tmp_path / "node.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(tmp_path / "ca.pem"),
        "sasl.enabled.mechanisms": "PLAIN",
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "listener.name.sasl_ssl.plain.sasl.jaas.config": PLAIN_JAAS,
        "min.insync.replicas": "2",
        "offsets.topic.num.partitions": "1",
    }

    def bootstrap(which: int) -> str:
        return ",".join(f"127.0.0.1:{both[which]}" for both in ports.values())

    plain = {"bootstrap.servers": bootstrap(0)}
    secured = {
        "bootstrap.servers": bootstrap(1),
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "alice",
        "sasl.password": "wonderland",
        "ssl.ca.location": str(tmp_path / "ca.pem"),
    }
    with Running(tmp_path) as cluster:

        def configure(among: str, *protocols: str) -> None:
            for node_id, (unsecured, tls) in ports.items():
                at = {"PLAINTEXT": unsecured, "SASL_SSL": tls}
                listeners = ",".join(f"{one}://127.0.0.1:{at[one]}" for one in protocols)
                own = {"listeners": listeners, "security.inter.broker.protocol": among}
                cluster.properties[node_id] = common | own

        configure("PLAINTEXT", "PLAINTEXT")
        for node_id in NODES:
            cluster.start(node_id)
        admin = AdminClient({**plain, **QUIET})
        (made,) = admin.create_topics([NewTopic("t", 3, 3)], operation_timeout=60).values()
        made.result(HANG_S)
        with Writer(plain) as first:
            configure("PLAINTEXT", "PLAINTEXT", "SASL_SSL")
            cluster.restart_in_turn()
            configure("SASL_SSL", "PLAINTEXT", "SASL_SSL")
            cluster.restart_in_turn()
        with Writer(secured) as second:
            configure("SASL_SSL", "SASL_SSL")
            cluster.restart_in_turn()
        for writer in (first, second):
            assert len(writer.outcomes) == writer.sent > 10 and not any(writer.outcomes)
        consumer = Consumer({**secured, **QUIET, "group.id": "g"})
        ends = [consumer.get_watermark_offsets(TopicPartition("t", index), HANG_S) for index in range(3)]
        assert sum(high for _, high in ends) == first.sent + second.sent
        consumer.close()
