"""Collections of garbage stop a broker for milliseconds, however much it holds."""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import uvloop

from measuring import cpu_at_most
from ottla.env.clock import thread_cpu_ms
from ottla.env.garbage import ShortCollections
from ottla.metadata.topics import NewTopic
from ottla.node import Node, NodeSettings
from ottla.types import Record
from ottla.wire.records import build_batch

TOPICS, PARTITIONS_EACH = 100, 100
PRODUCERS = 100_000
# CPU time: other processes may be about.
PAUSE_MS_MAX = 20


@contextmanager
def short_collections() -> Iterator[ShortCollections]:
    made = ShortCollections(thread_cpu_ms)
    made.start()
    try:
        yield made
    finally:
        made.stop()
        gc.unfreeze()


def data() -> tempfile.TemporaryDirectory[str]:
    """A directory in memory: what matters here is not the disk, and 40,000 files take it a while."""
    return tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)


async def fill(node: Node) -> None:
    controller = node.services.metadata.controller
    for number in range(TOPICS):
        (result,) = await controller.create_topics([NewTopic(f"t{number}", num_partitions=PARTITIONS_EACH)])
        assert result.error is None
    partition = node.services.replicas.get("t0", 0)
    record = Record(0, 1_000, None, b"v")
    for sequence in range(2):
        for producer_id in range(PRODUCERS):
            batch = build_batch([record], producer_id=producer_id, producer_epoch=0, base_sequence=sequence)
            partition.append(batch, now_ms=1_000, acks=1)


def test_ten_thousand_partitions_and_a_hundred_thousand_producers() -> None:
    """While they come, and when the broker starts with them."""

    async def main(settings: NodeSettings) -> None:
        node = Node(settings)
        await node.start()
        await fill(node)
        await node.kill()
        again = Node(settings)
        await again.start()
        assert len(again.services.log_manager.logs) == TOPICS * PARTITIONS_EACH
        assert len(again.services.replicas.get("t0", 0).log.producers) == PRODUCERS
        await again.kill()

    for attempt in cpu_at_most(PAUSE_MS_MAX, "ms of CPU time", attempts=3):
        with data() as path, short_collections() as collections:
            uvloop.run(main(NodeSettings(data=path, port=0)))
        assert collections.pauses.count > 1_000
        attempt.took(collections.pauses.max_ms)
