"""Topics that are made because a client asks for them, with the cluster's defaults.

Kafka's ``AutoTopicCreationManager``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from ottla.config import BrokerConfig
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.image import (
    COORDINATED_TOPICS,
    INTERNAL_TOPICS,
    OFFSETS_TOPIC,
    ClusterImage,
    TopicImage,
)
from ottla.metadata.topics import NewTopic, TopicResult

log = logging.getLogger(__name__)

# How long who asks for a topic waits for it to be made, and topics that are being made for such at a time.
WAIT_MS_MAX = 1_000
UNDER_WAY_MAX = 1_000


class HasImage(Protocol):
    """Who has the image, always the latest."""

    image: ClusterImage


class AutoCreation:
    """Makes topics by ``create_topics``; who asks for one that is being made waits for that."""

    def __init__(
        self,
        create_topics: Callable[[Sequence[NewTopic]], Awaitable[Sequence[TopicResult]]],
        images: HasImage,
        config: BrokerConfig,
    ) -> None:
        self._create_topics = create_topics
        self._images = images
        self._config = config
        # Topics that clients have asked for, and that are being made.
        self._under_way: dict[str, asyncio.Task[None]] = {}

    async def close(self) -> None:
        """Make no more of them."""
        tasks = list(dict.fromkeys(self._under_way.values()))
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def create(self, names: Sequence[str]) -> None:
        """Make topics that a client asked for, with the cluster's defaults. Failures show in the image.

        Where that takes longer than WAIT_MS_MAX they are made all the same, and the client asks again,
        as it does with Kafka: it asks for other topics as well, which are there, and whatever else it sends
        waits for the answer. Internal topics of coordinators that are not there are not made.
        """
        wanted = [
            name
            for name in names
            if name not in self._under_way and (name not in INTERNAL_TOPICS or name in COORDINATED_TOPICS)
        ][: UNDER_WAY_MAX - len(self._under_way)]
        if wanted:
            task = asyncio.create_task(self._create(wanted), name="auto-create")
            self._under_way.update(dict.fromkeys(wanted, task))
        tasks = dict.fromkeys(self._under_way[name] for name in names if name in self._under_way)
        if tasks:
            await asyncio.wait(list(tasks), timeout=WAIT_MS_MAX / 1000)

    async def _create(self, names: Sequence[str]) -> None:
        try:
            results = await self._create_topics([self.default_topic(name) for name in names])
        except KafkaError as error:
            log.warning("automatic creation of topics failed: %s", error)
            return
        finally:
            for name in names:
                self._under_way.pop(name, None)
        for result in results:
            if result.error is not None and result.error.code is not ErrorCode.topic_already_exists:
                log.warning("automatic creation of topic %s failed: %s", result.name, result.error)

    async def ensure(self, name: str) -> TopicImage:
        """The topic, made with defaults where it is missing. KafkaError where it cannot be made."""
        if name not in self._images.image.topics:
            (result,) = await self._create_topics([self.default_topic(name)])
            if name not in self._images.image.topics:
                raise result.error or KafkaError(ErrorCode.unknown_topic_or_partition)
        return self._images.image.topics[name]

    def default_topic(self, name: str) -> NewTopic:
        """What a topic is like that is made without saying (``AutoTopicCreationManager``)."""
        if name not in COORDINATED_TOPICS:
            return NewTopic(name)
        get = self._config.get
        configs: dict[str, str | None]
        if name == OFFSETS_TOPIC:
            count, factor = get("offsets.topic.num.partitions"), self._factor("offsets.topic")
            configs = {
                "cleanup.policy": "compact",
                "compression.type": "producer",
                "segment.bytes": str(get("offsets.topic.segment.bytes")),
            }
        else:
            count, factor = get("transaction.state.log.num.partitions"), self._factor("transaction.state.log")
            in_sync = get("transaction.state.log.min.isr")
            if not self._config.is_set("transaction.state.log.min.isr"):
                # More than there are could never write.
                in_sync = min(in_sync, factor)
            configs = {
                "cleanup.policy": "compact",
                "compression.type": "uncompressed",
                "min.insync.replicas": str(in_sync),
                "segment.bytes": str(get("transaction.state.log.segment.bytes")),
                "unclean.leader.election.enable": "false",
            }
        return NewTopic(name, count, factor, configs=configs)

    def _factor(self, prefix: str) -> int:
        """How many replicas the partitions of an internal topic have."""
        name = f"{prefix}.replication.factor"
        if not self._images.image.nodes and not self._config.is_set(name):
            # Kafka would refuse; a broker that starts with nothing said should simply work. A cluster waits
            # for enough nodes: that topic would stay as small as the cluster was when it was asked for.
            return 1
        factor: int = self._config.get(name)
        return factor
