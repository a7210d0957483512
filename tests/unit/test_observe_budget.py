"""A scrape of a node with 1,000 partitions and 500 groups: how much it costs, and how long others wait."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

from budget_support import Watch

from measuring import cpu_at_most
from ottla.coordinators.groups.schemas import CommittedOffset, OffsetRecord
from ottla.env.garbage import ShortCollections
from ottla.metadata.image import OFFSETS_TOPIC
from ottla.metadata.topics import NewTopic
from ottla.node import Node, NodeSettings
from ottla.observe.scrape import Scrape
from ottla.wire.apis import APIS

TOPICS, PARTITIONS, GROUPS = 100, 10, 500
# In terms of the machine of known speed, as Python: little of this is compiled anywhere.
SCRAPE_S_MAX, STEP_S_MAX = 0.030, 0.005
# How often is looked at whether scrapes bring about collections: at most one each.
SCRAPES = 10


async def fill(node: Node) -> None:
    """Topics, groups with offsets of all partitions of a topic, requests of most APIs."""
    services = node.services
    new = [NewTopic(f"topic-{number}", num_partitions=PARTITIONS, configs={}) for number in range(TOPICS)]
    await services.metadata.controller.create_topics(
        [*new, NewTopic(OFFSETS_TOPIC, num_partitions=1, configs={})]
    )
    await services.replicas.open_all()
    await services.groups.ready("any")
    tables = services.groups.host.shards[0].machine.tables
    for number in range(GROUPS):
        tables.ensure_group(f"group-{number}", 0)
        for index in range(PARTITIONS):
            value = CommittedOffset(0, 0, "", 0)
            tables.replay(OffsetRecord(f"group-{number}", f"topic-{number % TOPICS}", index, value))
    observer = node._observation.observer
    assert observer is not None
    for api in list(APIS)[:30]:
        observer.parts.requests.told(api, {"error_code": 3})


def test_a_scrape_is_cheap_and_holds_nobody_up(tmp_path: Path) -> None:
    async def main() -> None:
        properties = {"metrics.listener": "127.0.0.1:0"}
        node = Node(NodeSettings(data=str(tmp_path), port=0, properties=properties))
        await node.start()
        await fill(node)
        observer = node._observation.observer
        assert observer is not None
        scrape: Scrape = observer.scrape
        text = await scrape.text(openmetrics=False)
        assert text.count(b"ottla_partition_log_end_offset{") == TOPICS * PARTITIONS + 1
        assert text.count(b"ottla_group_lag_messages{") == GROUPS
        # As in a node's process, where what there is already is not looked at again.
        collections = ShortCollections(lambda: 0.0)
        collections.start()
        try:
            for attempt in cpu_at_most(SCRAPE_S_MAX, "s of CPU time for a scrape"):
                with attempt.cpu():
                    await scrape.text(openmetrics=False)
            for attempt in cpu_at_most(STEP_S_MAX, "s of CPU time for a step of it"):
                with Watch() as watch:
                    # A task of its own: what is awaited here begins and ends in steps of which a part is not
                    # watched.
                    await asyncio.create_task(scrape.text(openmetrics=False))
                attempt.took(watch.longest_s)
            gc.collect()
            before = sum(collections.pauses.counts)
            for _ in range(SCRAPES):
                await scrape.text(openmetrics=False)
            # Text is nothing that a collection looks at, nor brings one about.
            assert sum(collections.pauses.counts) - before <= SCRAPES
        finally:
            collections.stop()
            gc.unfreeze()
        await node.stop()

    asyncio.run(main())
