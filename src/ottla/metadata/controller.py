"""Changes to the cluster's metadata: plan against the image, commit by compare-and-swap, wait until seen.

A change that lost against another one is planned anew on the newer image. When an operation returns, this
node's image has it and every subscriber has been told.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Generic, NamedTuple, Protocol, TypeVar
from uuid import UUID, uuid4

from ottla.config import BrokerConfig
from ottla.env.slices import Slices
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata import configs as plans
from ottla.metadata import keys
from ottla.metadata.auto_creation import AutoCreation, HasImage
from ottla.metadata.changes import Elections, PartitionChange, to_txn
from ottla.metadata.configs import ResourceType
from ottla.metadata.elections import led_anew
from ottla.metadata.features import (
    SUPPORTED,
    FeatureUpdate,
    Supported,
    features_value,
    updated,
)
from ottla.metadata.image import (
    ClusterImage,
    PartitionState,
    TopicImage,
    state_value,
)
from ottla.metadata.producer_ids import next_block
from ottla.metadata.store import (
    TXN_OPERATIONS_MAX,
    Compare,
    Delete,
    MetadataStore,
    Operation,
    Put,
    StoreError,
)
from ottla.metadata.topics import (
    NewTopic,
    TopicPlanner,
    TopicResult,
    check_count,
    check_name,
    check_size,
    may_collide,
)
from ottla.types import TopicPartition

log = logging.getLogger(__name__)

T = TypeVar("T")
Item = TypeVar("Item")
Result = TypeVar("Result")

Change = Callable[[Mapping[str, str]], dict[str, str]]

ITEMS_PER_TXN = TXN_OPERATIONS_MAX // 2  # topics: deleting one takes two operations
# The first six bits of an id whose base64 text begins with '-'.
_DASH = 62

# Registrations that a change of features compares; nodes that are more look for themselves.
NODES_COMPARED_MAX = 100

# A change that keeps losing against others is given up after this many attempts.
ATTEMPTS_MAX = 20


class Images(HasImage, Protocol):
    """The image, and a way to wait for it."""

    # Told of the changes that were made.
    elections: Elections

    async def reached(self, revision: int) -> None:
        """Return once the image is at ``revision`` and subscribers know it."""
        ...


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


def _put_topic(topic: TopicImage) -> Put:
    return Put(keys.topic(topic.name), keys.topic_value(topic.topic_id, topic.initial, topic.configs))


def _replace(made: Plan[None], key: str, current: Mapping[str, str], configs: Mapping[str, str]) -> None:
    """Have an entity's configurations replaced, if they still are the current ones."""
    compare = Compare(key, value=keys.encode(current)) if current else Compare(key, 0)
    made.change(compare, Put(key, keys.encode(configs)) if configs else Delete(key))


def _unchanged(topic: TopicImage) -> Compare:
    return Compare(keys.topic(topic.name), topic.revision)


class Controller:
    """Kafka's controller operations over a MetadataStore."""

    def __init__(
        self,
        store: MetadataStore,
        images: Images,
        config: BrokerConfig,
        slices: Slices,
        *,
        new_id: Callable[[], UUID] = random_topic_id,
        placement_start: Callable[[], int] = random_start,
        supported: Supported = SUPPORTED,
    ) -> None:
        self._store = store
        self._images = images
        self._supported = supported
        self._config = config
        self._slices = slices
        self._new_id = new_id
        self._placement_start = placement_start
        # One change after the other, so that those of one node do not get in each other's way.
        self._changing = asyncio.Lock()
        # Asked what is in the way, on this very node, of a topic's partitions from a number on.
        self.obstacle: Callable[[TopicImage, int], Awaitable[str | None]] | None = None
        # Makes topics that clients have asked for.
        self.auto_creation = AutoCreation(self.create_topics, images, config)

    async def close(self) -> None:
        """Make no more topics that clients have asked for."""
        await self.auto_creation.close()

    @property
    def image(self) -> ClusterImage:
        """What changes are planned on."""
        return self._images.image

    # Topics

    async def create_topics(
        self, topics: Sequence[NewTopic], *, validate_only: bool = False
    ) -> list[TopicResult]:
        """Make topics; a result for each, in order. One that is refused does not stop the others.

        KafkaError(POLICY_VIOLATION) where they are too many at once.
        """
        check_size(self._config, topics)

        async def plan(image: ClusterImage, chunk: Sequence[NewTopic]) -> Plan[TopicResult]:
            planner = TopicPlanner(image, self._config, self._placement_start())
            made = Plan[TopicResult]()
            for new in chunk:
                try:
                    topic = await self._slices.run(planner.create(new, self._new_id()))
                    await self._check_place(topic, 0)
                except KafkaError as error:
                    made.results.append(TopicResult(new.name, error=error))
                    continue
                made.results.append(TopicResult(new.name, topic))
                made.change(Compare(keys.topic(new.name), 0), _put_topic(topic))
            if any(result.topic is not None and may_collide(result.name) for result in made.results):
                # Names that collide have keys of their own: this one guards them, on whichever node.
                made.change(Compare(keys.NAMES, image.names_revision), Put(keys.NAMES, keys.encode({})))
            return made

        results = await self.change(topics, plan, validate_only)
        for result in results:
            if result.topic is not None:
                plans.warn_without_effect(result.name, result.topic.configs)
        return results

    async def create_partitions(
        self, additions: Sequence[MorePartitions], *, validate_only: bool = False
    ) -> list[TopicResult]:
        """Add partitions to topics; a result for each, in order.

        KafkaError(POLICY_VIOLATION) where they are too many at once.
        """
        topics = self._images.image.topics
        check_count(
            sum(
                max(more.num_partitions - len(topics[more.name].partitions), 0)
                for more in additions
                if more.name in topics
            )
        )

        async def plan(image: ClusterImage, chunk: Sequence[MorePartitions]) -> Plan[TopicResult]:
            planner = TopicPlanner(image, self._config, self._placement_start())
            made = Plan[TopicResult]()
            for more in chunk:
                try:
                    topic = await self._slices.run(planner.add_partitions(*more))
                    await self._check_place(topic, len(image.topics[more.name].partitions))
                except KafkaError as error:
                    made.results.append(TopicResult(more.name, error=error))
                    continue
                made.results.append(TopicResult(more.name, topic))
                made.change(_unchanged(topic), _put_topic(topic))
            return made

        return await self.change(additions, plan, validate_only)

    async def _check_place(self, topic: TopicImage, first: int) -> None:
        """KAFKA_STORAGE_ERROR where a partition, from number ``first`` on, cannot be made on this node."""
        if self.obstacle is not None and (why := await self.obstacle(topic, first)) is not None:
            raise KafkaError(ErrorCode.kafka_storage_error, why)

    async def delete_topics(self, topic_ids: Sequence[UUID]) -> list[KafkaError | None]:
        """Delete topics; for each, in order, the error or None."""

        async def plan(image: ClusterImage, chunk: Sequence[UUID]) -> Plan[KafkaError | None]:
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

        return await self.change(topic_ids, plan)

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
        done = await self._commit(compares, operations)
        if done:
            self._images.elections.count(changes)
        return done

    async def lead_anew(
        self, node_id: int, written_epochs: Mapping[TopicPartition, int] | None = None
    ) -> None:
        """Begin a new leader epoch in every partition that ``node_id`` leads. StoreError.

        Its process has just started, and nobody else writes to the store. What an earlier process wrote last
        may be missing, and other records come to these offsets: readers see by the epoch that theirs are gone
        (KIP-320). A node of a cluster need not ask for it: who joins has given up what it led.
        ``written_epochs``: the latest ones of its logs, as ``led_anew`` takes them.
        """
        # Most partitions are in few different states.
        value = cache(lambda state, written: state_value(led_anew(state, written)))
        written = written_epochs or {}
        puts = [
            Put(
                keys.partition(topic.name, index),
                value(state, written.get(TopicPartition(topic.name, index), -1)),
            )
            for topic in self._images.image.topics.values()
            for index, state in enumerate(topic.partitions)
            if state.leader == node_id
        ]
        chunks = [puts[at : at + TXN_OPERATIONS_MAX] for at in range(0, len(puts), TXN_OPERATIONS_MAX)]
        done = await asyncio.gather(*(self._store.txn([], chunk) for chunk in chunks))
        await self._images.reached(max((outcome.revision for outcome in done), default=0))

    # Configurations

    async def alter_configs(
        self,
        kind: ResourceType,
        name: str,
        change: Change,
        *,
        named: Collection[str] = (),
        validate_only: bool = False,
    ) -> None:
        """Replace a resource's configurations by what ``change`` makes of them; KafkaError where refused.

        ``named`` are the configurations that the request names.
        """

        async def plan(image: ClusterImage, names: Sequence[str]) -> Plan[None]:
            made = Plan[None]()
            for entity in names:
                if kind is ResourceType.TOPIC:
                    self._alter_topic(made, image.topics.get(entity), entity, change)
                elif kind is ResourceType.BROKER:
                    self._alter_broker(made, image, entity, change, named)
                elif kind is ResourceType.GROUP:
                    current = image.group_configs.get(entity, {})
                    configs = change(current)
                    plans.check_group_configs(self._config, entity, configs)
                    _replace(made, keys.group_configs(entity), current, configs)
                elif kind is ResourceType.CLIENT_METRICS:
                    current = image.client_metrics.get(entity, {})
                    configs = change(current)
                    plans.check_client_metrics_configs(entity, configs)
                    _replace(made, keys.client_metrics_configs(entity), current, configs)
                else:
                    raise KafkaError(ErrorCode.invalid_request, f"Unknown resource type {kind.name}")
            return made

        await self.change([name], plan, validate_only)

    def _alter_topic(self, made: Plan[None], topic: TopicImage | None, name: str, change: Change) -> None:
        configs = change(topic.configs if topic else {})
        check_name(name)
        plans.check_topic_configs(self._config, name, configs)
        if topic is None:
            raise KafkaError(ErrorCode.unknown_topic_or_partition, f"The topic '{name}' does not exist.")
        if configs != topic.configs:
            plans.warn_without_effect(name, [k for k in configs if configs[k] != topic.configs.get(k)])
            made.change(_unchanged(topic), _put_topic(replace(topic, configs=configs)))

    def _alter_broker(
        self, made: Plan[None], image: ClusterImage, name: str, change: Change, named: Collection[str]
    ) -> None:
        node_id = int(name) if name else keys.DEFAULT_BROKER
        current = image.broker_configs.get(node_id, {})
        configs = change(current)
        plans.check_broker_configs(self._config, configs, per_broker=bool(name))
        plans.check_min_isr(named, current, configs, per_broker=bool(name))
        _replace(made, keys.broker_configs(node_id), current, configs)

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
        value = keys.broker_value(endpoints, rack, features=self._supported)
        operations = [Put(keys.broker(node_id), value, lease)]
        if is_controller:
            operations.append(Put(keys.CONTROLLER, keys.encode({"node_id": node_id}), lease))
        await self._commit([], operations)

    async def update_features(
        self, node_id: int, updates: Sequence[FeatureUpdate], *, validate_only: bool = False
    ) -> None:
        """Move features to other levels, all or none, in the name of ``node_id``. KafkaError as
        ``updated``."""

        async def plan(image: ClusterImage, chunk: Sequence[Sequence[FeatureUpdate]]) -> Plan[None]:
            made = Plan[None]()
            now = image.features
            # A node that is fenced may come back.
            nodes = {**image.nodes, **image.brokers}
            registered = {number: one.features for number, one in nodes.items()}
            levels = updated(now, chunk[0], self._supported, node_id, registered)
            if levels != now.levels:
                made.change(
                    Compare(keys.FEATURES, now.revision),
                    Put(keys.FEATURES, features_value(levels, now.epoch + 1)),
                )
                # One that registers anew meanwhile may be of another release.
                living = list(image.brokers.values())[:NODES_COMPARED_MAX]
                made.compares += [Compare(keys.broker(one.node_id), one.epoch) for one in living]
            return made

        await self.change([updates], plan, validate_only)

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

    async def reserve_producer_ids(self, known: Collection[int] = ()) -> range:
        """Producer ids that nobody else has or will have (KIP-730): where there are ``known`` ones, such as
        are behind them, and none if all that are to come are anyway."""
        for _ in range(ATTEMPTS_MAX):
            item = await self._available(self._store.get(keys.PRODUCER_IDS))
            first: int = 0 if item is None else keys.decode(item.value)["next"]
            block = next_block(first, known)
            value = keys.encode({"next": block.stop})
            compare = Compare(keys.PRODUCER_IDS, 0 if item is None else item.mod_revision)
            if not block or await self._commit([compare], [Put(keys.PRODUCER_IDS, value)]):
                return block
        raise _busy()

    # Any of these

    async def change(
        self,
        items: Sequence[Item],
        plan: Callable[[ClusterImage, Sequence[Item]], Awaitable[Plan[Result]]],
        validate_only: bool = False,
    ) -> list[Result]:
        """Plan and commit, a transaction's worth of items at a time, planning those anew that lost a race.

        ``plan`` has a result for each item. KafkaError(REQUEST_TIMED_OUT) where the store fails.
        """
        results: list[Result] = []
        for first in range(0, len(items), ITEMS_PER_TXN):
            if first:
                # Nothing waits otherwise where nothing is committed: validated only, or refused.
                await asyncio.sleep(0)
            chunk = items[first : first + ITEMS_PER_TXN]
            async with self._changing:
                results += await self._change_chunk(chunk, plan, validate_only)
        return results

    async def change_each(
        self,
        items: Sequence[Item],
        plan: Callable[[ClusterImage, Sequence[Item]], Awaitable[Plan[KafkaError | None]]],
        validate_only: bool = False,
    ) -> list[KafkaError | None]:
        """As ``change``, where no item takes more than one operation and one comparison: as many as a
        transaction takes are changed all at once. Where the store fails in the middle, those before are told
        that they were changed, and the others why they were not, or that it is not known whether they
        were."""
        results: list[KafkaError | None] = []
        for first in range(0, len(items), TXN_OPERATIONS_MAX):
            chunk = items[first : first + TXN_OPERATIONS_MAX]
            try:
                async with self._changing:
                    results += await self._change_chunk(chunk, plan, validate_only)
            except KafkaError as error:
                left_out = KafkaError(error.code, f"Not tried, since those before it failed: {error.message}")
                results += [KafkaError(error.code, error.message)] * len(chunk)
                results += [left_out] * (len(items) - len(results))
                break
            await asyncio.sleep(0)
        return results

    # Inside

    async def _change_chunk(
        self,
        chunk: Sequence[Item],
        plan: Callable[[ClusterImage, Sequence[Item]], Awaitable[Plan[Result]]],
        validate_only: bool,
    ) -> list[Result]:
        for _ in range(ATTEMPTS_MAX):
            made = await plan(self._images.image, chunk)
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
