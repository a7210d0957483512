"""Changes to the cluster's metadata: plan against the image, commit by compare-and-swap, wait until seen.

A change that lost against another one is planned anew on the newer image. When an operation returns, this
node's image has it and every subscriber has been told.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, NamedTuple, Protocol, TypeVar
from uuid import UUID, uuid4

from ottla.config import TOPIC, BrokerConfig, Effect
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata import configs as plans
from ottla.metadata import keys
from ottla.metadata.changes import PartitionChange, to_txn
from ottla.metadata.configs import ResourceType
from ottla.metadata.image import (
    INTERNAL_TOPICS,
    OFFSETS_TOPIC,
    ClusterImage,
    PartitionState,
    TopicImage,
)
from ottla.metadata.store import (
    TXN_OPERATIONS_MAX,
    Compare,
    Delete,
    MetadataStore,
    Operation,
    Put,
    StoreError,
)
from ottla.metadata.topics import NewTopic, TopicPlanner, check_name, check_size

log = logging.getLogger(__name__)

T = TypeVar("T")
Item = TypeVar("Item")
Result = TypeVar("Result")

Change = Callable[[Mapping[str, str]], dict[str, str]]

# Topics in one transaction: deleting one takes two operations.
ITEMS_PER_TXN = TXN_OPERATIONS_MAX // 2
# The first six bits of an id whose base64 text begins with '-'.
_DASH = 62

PRODUCER_IDS_PER_BLOCK = 1_000
# A change that keeps losing against others is given up after this many attempts.
ATTEMPTS_MAX = 20
# How long who asks for a topic waits for it to be made, and topics that are being made for such at a time.
AUTO_CREATE_MS_MAX = 1_000
AUTO_CREATED_AT_ONCE_MAX = 1_000


class Images(Protocol):
    """The image, and a way to wait for it."""

    image: ClusterImage

    async def reached(self, revision: int) -> None:
        """Return once the image is at ``revision`` and subscribers know it."""
        ...


@dataclass(frozen=True, slots=True)
class TopicResult:
    """What became of one topic of a request: the topic, or why not."""

    name: str
    topic: TopicImage | None = None
    error: KafkaError | None = None


class MorePartitions(NamedTuple):
    """Partitions to be added: how many there shall be in all, and who holds each new one (None: placed)."""

    name: str
    num_partitions: int
    assignments: Sequence[Sequence[int]] | None = None


class Plan(Generic[Result]):
    """A transaction in the making, and a result for each item that it is for."""

    def __init__(self) -> None:
        self.results: list[Result] = []
        self.compares: list[Compare] = []
        self.operations: list[Operation] = []

    def change(self, compare: Compare, *operations: Operation) -> None:
        self.compares.append(compare)
        self.operations += operations


def random_topic_id() -> UUID:
    """As Kafka's ``Uuid.randomUuid``: its text never begins with a dash, which would look like an option."""
    made = uuid4()
    while made.bytes[0] >> 2 == _DASH:
        made = uuid4()
    return made


def random_start() -> int:
    """Where placement begins, so that topics do not all begin with the same broker."""
    return random.randrange(1 << 16)


def _warn(topic: str, configs: Mapping[str, str]) -> None:
    """Say in the log which of a topic's new configurations have no effect here."""
    for name in configs:
        if TOPIC[name].effect is Effect.NONE:
            log.warning("topic %s: %s has no effect: %s", topic, name, TOPIC[name].note)


def _put_topic(topic: TopicImage) -> Put:
    return Put(keys.topic(topic.name), keys.topic_value(topic.topic_id, topic.initial, topic.configs))


def _unchanged(topic: TopicImage) -> Compare:
    return Compare(keys.topic(topic.name), topic.revision)


class Controller:
    """Kafka's controller operations over a MetadataStore."""

    def __init__(
        self,
        store: MetadataStore,
        images: Images,
        config: BrokerConfig,
        *,
        new_id: Callable[[], UUID] = random_topic_id,
        placement_start: Callable[[], int] = random_start,
    ) -> None:
        self._store = store
        self._images = images
        self._config = config
        self._new_id = new_id
        self._placement_start = placement_start
        # One change after the other: some rules, such as names that collide, span keys that no single
        # compare guards.
        self._changing = asyncio.Lock()
        # Topics that clients have asked for, and that are being made.
        self._auto_creating: dict[str, asyncio.Task[None]] = {}

    async def close(self) -> None:
        """Make no more topics that clients have asked for."""
        tasks = list(dict.fromkeys(self._auto_creating.values()))
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # Topics

    async def create_topics(
        self, topics: Sequence[NewTopic], *, validate_only: bool = False
    ) -> list[TopicResult]:
        """Make topics; a result for each, in order. One that is refused does not stop the others.

        KafkaError(POLICY_VIOLATION) where they are too many at once.
        """
        check_size(self._config, topics)

        def plan(image: ClusterImage, chunk: Sequence[NewTopic]) -> Plan[TopicResult]:
            planner = TopicPlanner(image, self._config, self._placement_start())
            made = Plan[TopicResult]()
            for new in chunk:
                try:
                    topic = planner.create(new, self._new_id())
                except KafkaError as error:
                    made.results.append(TopicResult(new.name, error=error))
                    continue
                made.results.append(TopicResult(new.name, topic))
                made.change(Compare(keys.topic(new.name), 0), _put_topic(topic))
            return made

        results = await self._change(topics, plan, validate_only)
        for result in results:
            if result.topic is not None:
                _warn(result.name, result.topic.configs)
        return results

    async def create_partitions(
        self, additions: Sequence[MorePartitions], *, validate_only: bool = False
    ) -> list[TopicResult]:
        """Add partitions to topics; a result for each, in order."""
        check_size(self._config, [NewTopic(more.name, more.num_partitions) for more in additions])

        def plan(image: ClusterImage, chunk: Sequence[MorePartitions]) -> Plan[TopicResult]:
            planner = TopicPlanner(image, self._config, self._placement_start())
            made = Plan[TopicResult]()
            for more in chunk:
                try:
                    topic = planner.add_partitions(more.name, more.num_partitions, more.assignments)
                except KafkaError as error:
                    made.results.append(TopicResult(more.name, error=error))
                    continue
                made.results.append(TopicResult(more.name, topic))
                made.change(_unchanged(topic), _put_topic(topic))
            return made

        return await self._change(additions, plan, validate_only)

    async def delete_topics(self, topic_ids: Sequence[UUID]) -> list[KafkaError | None]:
        """Delete topics; for each, in order, the error or None."""

        def plan(image: ClusterImage, chunk: Sequence[UUID]) -> Plan[KafkaError | None]:
            made = Plan[KafkaError | None]()
            for topic_id in chunk:
                topic = image.topics_by_id.get(topic_id)
                if topic is None:
                    made.results.append(KafkaError(ErrorCode.unknown_topic_id))
                    continue
                made.results.append(None)
                states = Delete(keys.partitions(topic.name), prefix=True)
                made.change(_unchanged(topic), Delete(keys.topic(topic.name)), states)
            return made

        return await self._change(topic_ids, plan)

    async def auto_create(self, names: Sequence[str]) -> None:
        """Make topics that a client asked for, with the cluster's defaults. Failures show in the image.

        Where that takes longer than AUTO_CREATE_MS_MAX they are made all the same, and the client asks again,
        as it does with Kafka: it asks for other topics as well, which are there, and whatever else it sends
        waits for the answer. Internal topics of coordinators that are not there are not made.
        """
        wanted = [
            name
            for name in names
            if name not in self._auto_creating and (name not in INTERNAL_TOPICS or name == OFFSETS_TOPIC)
        ][: AUTO_CREATED_AT_ONCE_MAX - len(self._auto_creating)]
        if wanted:
            task = asyncio.create_task(self._auto_create(wanted), name="auto-create")
            self._auto_creating.update(dict.fromkeys(wanted, task))
        tasks = dict.fromkeys(self._auto_creating[name] for name in names if name in self._auto_creating)
        if tasks:
            await asyncio.wait(list(tasks), timeout=AUTO_CREATE_MS_MAX / 1000)

    async def _auto_create(self, names: Sequence[str]) -> None:
        try:
            results = await self.create_topics([self.default_topic(name) for name in names])
        except KafkaError as error:
            log.warning("topics were asked for and not made: %s", error)
            return
        finally:
            for name in names:
                self._auto_creating.pop(name, None)
        for result in results:
            if result.error is not None and result.error.code is not ErrorCode.topic_already_exists:
                log.warning("topic %s was asked for and not made: %s", result.name, result.error)

    async def ensure_topic(self, name: str) -> TopicImage:
        """The topic, made with defaults where it is missing. KafkaError where it cannot be made."""
        if name not in self._images.image.topics:
            (result,) = await self.create_topics([self.default_topic(name)])
            if name not in self._images.image.topics:
                raise result.error or KafkaError(ErrorCode.unknown_topic_or_partition)
        return self._images.image.topics[name]

    def default_topic(self, name: str) -> NewTopic:
        """What a topic is like that is made without saying (``AutoTopicCreationManager``)."""
        if name != OFFSETS_TOPIC:
            return NewTopic(name)
        get = self._config.get
        factor = get("offsets.topic.replication.factor")
        alone = not self._images.image.nodes
        if alone and not self._config.is_set("offsets.topic.replication.factor"):
            # Kafka would refuse; a broker that starts with nothing said should simply work. A cluster waits
            # for enough nodes: that topic would stay as small as the cluster was when it was asked for.
            factor = 1
        configs: dict[str, str | None] = {
            "cleanup.policy": "compact",
            "compression.type": "producer",
            "segment.bytes": str(get("offsets.topic.segment.bytes")),
        }
        return NewTopic(name, get("offsets.topic.num.partitions"), factor, configs=configs)

    # Partitions

    async def change_partition(
        self, topic: TopicImage, index: int, expected: PartitionState, state: PartitionState
    ) -> bool:
        """Replace a partition's state if it still is ``expected``; say whether it was replaced."""
        return await self.change_partitions([PartitionChange(topic, index, expected, state)])

    async def change_partitions(
        self, changes: Sequence[PartitionChange], registrations: Mapping[int, int] | None = None
    ) -> bool:
        """Replace all of these states, or none of them, where one is not as expected any more.

        Not more than one of ``changes.in_txns``. ``registrations`` are the epochs that nodes must have, those
        that join an ISR or become leaders. KafkaError(REQUEST_TIMED_OUT) where it is not known what became of
        it: then the image will tell.
        """
        compares, operations = to_txn(changes)
        compares += [Compare(keys.broker(n), epoch) for n, epoch in (registrations or {}).items()]
        return await self._commit(compares, operations)

    # Configurations

    async def alter_configs(
        self,
        kind: ResourceType,
        name: str,
        change: Change,
        *,
        validate_only: bool = False,
    ) -> None:
        """Replace a resource's configurations by what ``change`` makes of them; KafkaError where refused."""

        def plan(image: ClusterImage, names: Sequence[str]) -> Plan[None]:
            made = Plan[None]()
            for entity in names:
                if kind is ResourceType.TOPIC:
                    self._alter_topic(made, image.topics.get(entity), entity, change)
                elif kind is ResourceType.BROKER:
                    self._alter_broker(made, image, entity, change)
                else:
                    raise KafkaError(ErrorCode.invalid_request, f"Unknown resource type {kind.name}")
            return made

        await self._change([name], plan, validate_only)

    def _alter_topic(self, made: Plan[None], topic: TopicImage | None, name: str, change: Change) -> None:
        configs = change(topic.configs if topic else {})
        check_name(name)
        plans.check_topic_configs(self._config, name, configs)
        if topic is None:
            raise KafkaError(ErrorCode.unknown_topic_or_partition, f"The topic '{name}' does not exist.")
        if configs != topic.configs:
            _warn(name, {key: value for key, value in configs.items() if value != topic.configs.get(key)})
            made.change(_unchanged(topic), _put_topic(replace(topic, configs=configs)))

    @staticmethod
    def _alter_broker(made: Plan[None], image: ClusterImage, name: str, change: Change) -> None:
        node_id = int(name) if name else keys.DEFAULT_BROKER
        current = image.broker_configs.get(node_id, {})
        configs = change(current)
        plans.check_broker_configs(configs, per_broker=bool(name))
        key = keys.broker_configs(node_id)
        compare = Compare(key, value=keys.encode(current)) if current else Compare(key, 0)
        made.change(compare, Put(key, keys.encode(configs)) if configs else Delete(key))

    # Brokers and ids

    async def register_broker(
        self,
        node_id: int,
        endpoints: Mapping[str, tuple[str, int]],
        rack: str | None,
        *,
        lease: int = 0,
        is_controller: bool = True,
    ) -> None:
        """Put this broker into the cluster, with a new epoch; ``lease`` takes it out when it ends."""
        value = keys.broker_value(endpoints, rack)
        operations = [Put(keys.broker(node_id), value, lease)]
        if is_controller:
            operations.append(Put(keys.CONTROLLER, keys.encode({"node_id": node_id}), lease))
        await self._commit([], operations)

    async def unregister_node(self, node_id: int) -> None:
        """Forget a node. KafkaError: BROKER_ID_NOT_REGISTERED, INVALID_REQUEST for one that lives."""
        for _ in range(ATTEMPTS_MAX):
            image = self._images.image
            if node_id in image.brokers:
                raise KafkaError(
                    ErrorCode.invalid_request,
                    f"Node {node_id} is running: stop it first, then unregister it.",
                )
            known = image.nodes.get(node_id)
            if known is None:
                raise KafkaError(
                    ErrorCode.broker_id_not_registered, f"Broker ID {node_id} is not currently registered"
                )
            compares = [Compare(keys.broker(node_id), 0), Compare(keys.node(node_id), known.epoch)]
            if await self._commit(compares, [Delete(keys.node(node_id))]):
                return
        raise _busy()

    async def reserve_producer_ids(self) -> range:
        """A block of producer ids that nobody else has or will have (KIP-730)."""
        for _ in range(ATTEMPTS_MAX):
            item = await self._available(self._store.get(keys.PRODUCER_IDS))
            first: int = 0 if item is None else keys.decode(item.value)["next"]
            value = keys.encode({"next": first + PRODUCER_IDS_PER_BLOCK})
            compare = Compare(keys.PRODUCER_IDS, 0 if item is None else item.mod_revision)
            if await self._commit([compare], [Put(keys.PRODUCER_IDS, value)]):
                return range(first, first + PRODUCER_IDS_PER_BLOCK)
        raise _busy()

    # Inside

    async def _change(
        self,
        items: Sequence[Item],
        plan: Callable[[ClusterImage, Sequence[Item]], Plan[Result]],
        validate_only: bool = False,
    ) -> list[Result]:
        """Plan and commit, a transaction's worth of items at a time, planning those anew that lost a race."""
        results: list[Result] = []
        for first in range(0, len(items), ITEMS_PER_TXN):
            chunk = items[first : first + ITEMS_PER_TXN]
            async with self._changing:
                results += await self._change_chunk(chunk, plan, validate_only)
        return results

    async def _change_chunk(
        self,
        chunk: Sequence[Item],
        plan: Callable[[ClusterImage, Sequence[Item]], Plan[Result]],
        validate_only: bool,
    ) -> list[Result]:
        for _ in range(ATTEMPTS_MAX):
            made = plan(self._images.image, chunk)
            if validate_only or not made.operations:
                return made.results
            if await self._commit(made.compares, made.operations):
                return made.results
        raise _busy()

    async def _commit(self, compares: Sequence[Compare], operations: Sequence[Operation]) -> bool:
        outcome = await self._available(self._store.txn(compares, operations))
        await self._available(self._images.reached(outcome.revision))
        return outcome.succeeded

    @staticmethod
    async def _available(work: Awaitable[T]) -> T:
        try:
            return await work
        except StoreError as error:
            log.error("the metadata store failed: %s", error)
            raise KafkaError(ErrorCode.request_timed_out, str(error)) from error


def _busy() -> KafkaError:
    return KafkaError(ErrorCode.request_timed_out, "Too many other changes at the same time; try again.")
