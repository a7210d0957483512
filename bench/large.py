"""A cluster larger than this machine: its metadata in a real etcd, its controller's code, its nodes' images.

No broker runs. What is measured is what would happen in each of them: the image that a node loads at its
start, the transactions of a controller when a node dies, the events that every node gets, and the time until
the last partition has a leader again.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ottla.config import BrokerConfig
from ottla.env.clock import SystemClock
from ottla.metadata import keys
from ottla.metadata.image import ClusterImage
from ottla.metadata.leadership import Leadership
from ottla.metadata.service import Metadata
from ottla.metadata.store import Delete, MetadataStore, Put, WatchBatch
from ottla.metadata.stores import open_store
from ottla.metadata.topics import NewTopic

Figures = dict[str, Any]
# Topics in one request: a request makes 10,000 partitions at most.
TOPICS_AT_ONCE = 50
QUIET_S = 0.5


@dataclass
class Member:
    """The controller's own membership."""

    node_id: int
    broker_epoch: int
    lease: int


async def _register(store: MetadataStore, metadata: Metadata, nodes: int) -> int:
    lease = await store.lease_grant(60_000)
    for node_id in range(1, nodes + 1):
        value = keys.encode(
            {"endpoints": {"PLAINTEXT": [f"node-{node_id}", 9092]}, "rack": f"r{node_id % 3}"}
        )
        done = await store.txn([], [Put(keys.broker(node_id), value, lease), Put(keys.node(node_id), value)])
        await metadata.reached(done.revision)
    return lease


async def _make_topics(metadata: Metadata, partitions: int, per_topic: int) -> None:
    names = [f"topic-{number:04}" for number in range(partitions // per_topic)]
    for first in range(0, len(names), TOPICS_AT_ONCE):
        chunk = [NewTopic(name, per_topic, 3) for name in names[first : first + TOPICS_AT_ONCE]]
        for result in await metadata.controller.create_topics(chunk):
            assert result.error is None, result.error


def _led_by(image: ClusterImage, node_id: int) -> int:
    return sum(state.leader == node_id for topic in image.topics.values() for state in topic.partitions)


def _named(image: ClusterImage, node_id: int) -> int:
    return sum(node_id in state.isr for topic in image.topics.values() for state in topic.partitions)


class Watcher:
    """What any other node's watch brings, beside the images of the controller's node, each with its time."""

    def __init__(self, metadata: Metadata) -> None:
        self.events = self.bytes = 0
        self.images: list[tuple[float, ClusterImage]] = []
        metadata.subscribe(lambda old, new: self.images.append((time.monotonic(), new)))

    async def run(self, store: MetadataStore, revision: int) -> None:
        batch: WatchBatch
        async for batch in store.watch("", revision):
            self.events += len(batch.events)
            self.bytes += sum(len(event.key) + len(event.value or b"") for event in batch.events)

    async def quiet(self) -> None:
        """Return when nothing has changed for a while."""
        seen = -1
        while seen != len(self.images):
            seen = len(self.images)
            await asyncio.sleep(QUIET_S)

    def when(self, condition: Callable[[ClusterImage], bool]) -> float:
        """When the first image came of which ``condition`` is true; it stays true from then on."""
        low, high = 0, len(self.images) - 1
        assert condition(self.images[high][1])
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if condition(self.images[middle][1]) else (middle + 1, high)
        return self.images[low][0]


async def measure(url: str, nodes: int, partitions: int, per_topic: int) -> Figures:
    """What a cluster of this size costs its metadata store and its nodes."""
    clock, config = SystemClock(), BrokerConfig({})
    store = await open_store(url, cluster="large", clock=clock)
    metadata = Metadata(store, config, 1)
    await metadata.start()
    lease = await _register(store, metadata, nodes)
    await store.lease_hold(lease, lambda: None)
    begun = time.monotonic()
    await _make_topics(metadata, partitions, per_topic)
    figures: Figures = {"nodes": nodes, "partitions": partitions, "made_s": time.monotonic() - begun}
    item = await store.get(keys.broker(1))
    assert item is not None
    leadership = Leadership(store, metadata, config, Member(1, item.mod_revision, lease))
    leadership.start()
    while metadata.image.controller_id != 1:
        await asyncio.sleep(QUIET_S)
    figures["first"] = await _fail(url, store, metadata, nodes, clock)
    figures["second"] = await _fail(url, store, metadata, nodes - 1, clock)
    figures["load"] = await _load(url, clock)
    await leadership.close()
    await metadata.close()
    await store.close()
    return figures


async def _load(url: str, clock: SystemClock) -> Figures:
    """What a node reads when it starts."""
    store = await open_store(url, cluster="large", clock=clock)
    begun, cpu = time.monotonic(), time.process_time()
    found = await store.range("")
    metadata = Metadata(store, BrokerConfig({}), 2)
    await metadata.start()
    figures = {
        "keys": len(found.items),
        "bytes": sum(len(item.key) + len(item.value) for item in found.items),
        # Both reads: the bare one and the one that makes the image.
        "load_s": (time.monotonic() - begun) / 2,
        "load_cpu_s": (time.process_time() - cpu) / 2,
    }
    await metadata.close()
    await store.close()
    return figures


async def _fail(
    url: str, store: MetadataStore, metadata: Metadata, node_id: int, clock: SystemClock
) -> Figures:
    """Let a node die, and see how long its partitions are without a leader, and what that takes."""
    other = await open_store(url, cluster="large", clock=clock)
    watcher = Watcher(metadata)
    watching = asyncio.create_task(watcher.run(other, metadata.image.revision + 1))
    led, held = _led_by(metadata.image, node_id), _named(metadata.image, node_id)
    revision, cpu = metadata.image.revision, time.process_time()
    begun = time.monotonic()
    await store.txn([], [Delete(keys.broker(node_id))])
    await watcher.quiet()
    cpu = time.process_time() - cpu
    watching.cancel()
    await other.close()
    led_at = watcher.when(lambda image: not _led_by(image, node_id))
    done_at = watcher.when(lambda image: not _named(image, node_id))
    writes = metadata.image.revision - revision
    return {
        "leaders": led,
        "replicas": held,
        "leaders_moved_ms": (led_at - begun) * 1000,
        "all_done_ms": (done_at - begun) * 1000,
        "etcd_writes": writes,
        "etcd_writes_per_s": writes / (done_at - begun),
        "watch_events": watcher.events,
        "watch_bytes": watcher.bytes,
        # The controller's, and that of following the watch twice.
        "cpu_s": cpu,
    }


def _free_ports(count: int) -> list[int]:
    """Ports that nobody has; others may take them, but hardly at once."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def run(path: Path, nodes: int, partitions: int, per_topic: int) -> Figures:
    """The figures, with an etcd that is started for it, with its files in ``path`` and synced."""
    port, peer_port = _free_ports(2)
    client, peer = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer_port}"
    command = ["etcd", "--name", "e", "--data-dir", str(path), "--log-level", "error"]
    command += ["--listen-client-urls", client, "--advertise-client-urls", client]
    command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
    command += ["--initial-cluster", f"e={peer}", "--logger", "zap"]
    etcd = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        return asyncio.run(measure(f"etcd://127.0.0.1:{port}", nodes, partitions, per_topic))
    finally:
        etcd.terminate()
        etcd.wait()
