"""Planning changes to topics: names, partitions, placement (pure; Kafka's ``ReplicationControlManager``).

A plan is made against an image. It raises KafkaError with Kafka's code and words, or returns the topic as it
would be.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar
from uuid import UUID

from ottla.config import BrokerConfig
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.configs import check_topic_configs
from ottla.metadata.image import ClusterImage, PartitionState, TopicImage, initial_state
from ottla.metadata.placement import place

NAME_LENGTH_MAX = 249
# Partitions that one request may make (Kafka's MAX_RECORDS_PER_USER_OP).
PARTITIONS_PER_REQUEST_MAX = 10_000
METADATA_TOPIC = "__cluster_metadata"
# Partitions that are planned in one piece: up to 20 microseconds each where there are many nodes.
PLANNED_AT_ONCE = 250

T = TypeVar("T")

_LEGAL = re.compile(r"[a-zA-Z0-9._-]+")


@dataclass(frozen=True, slots=True)
class NewTopic:
    """A topic to be made. -1 takes the cluster's default; ``assignments`` are (partition, node ids)."""

    name: str
    num_partitions: int = -1
    replication_factor: int = -1
    assignments: Sequence[tuple[int, Sequence[int]]] = ()
    configs: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TopicResult:
    """What became of one topic of a request: the topic, or why not."""

    name: str
    topic: TopicImage | None = None
    error: KafkaError | None = None


def name_fault(name: str) -> str | None:
    """What is wrong with a topic's name, in Kafka's words; None for a good one."""
    if not name:
        return "the empty string is not allowed"
    if name in (".", ".."):
        return f"'{name}' is not allowed"
    if len(name) > NAME_LENGTH_MAX:
        return f"the length of '{name}' is longer than the max allowed length {NAME_LENGTH_MAX}"
    if not _LEGAL.fullmatch(name):
        return f"'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
    return None


def check_name(name: str) -> None:
    fault = name_fault(name)
    if fault is not None:
        raise KafkaError(ErrorCode.invalid_topic_exception, f"Topic name is invalid: {fault}")


def may_collide(name: str) -> bool:
    """Whether another name could be one with this in Kafka's metrics (``Topic.hasCollisionChars``)."""
    return "." in name or "_" in name


def _unified(name: str) -> str:
    """Names that differ only in '.' and '_' would be one name in Kafka's metrics."""
    return name.replace(".", "_")


def check_size(config: BrokerConfig, topics: Sequence[NewTopic]) -> None:
    """KafkaError(POLICY_VIOLATION) where one request would make too many partitions."""
    default = config.get("num.partitions")
    total = sum(
        len(new.assignments) or (default if new.num_partitions == -1 else max(new.num_partitions, 0))
        for new in topics
    )
    check_count(total)


def check_count(total: int) -> None:
    """KafkaError(POLICY_VIOLATION) where so many new partitions are too many for one request."""
    if total > PARTITIONS_PER_REQUEST_MAX:
        raise KafkaError(
            ErrorCode.policy_violation,
            f"Excessively large number of partitions per request: {total}, of {PARTITIONS_PER_REQUEST_MAX}.",
        )


def _gathered(items: Iterable[T]) -> Generator[None, None, list[T]]:
    """These in a list, made so many at a time."""
    made: list[T] = []
    for item in items:
        made.append(item)
        if len(made) % PLANNED_AT_ONCE == 0:
            yield
    return made


class TopicPlanner:
    """Plans for one request: the topics that it made so far are there for those that follow.

    Each plan is made in pieces, since a topic may have thousands of partitions.
    """

    def __init__(self, image: ClusterImage, config: BrokerConfig, start: int) -> None:
        self._image = image
        self._config = config
        self._start = start
        # New replicas go to nodes that live and stay, and to the others only where these are too few.
        self._racks = {n: one.rack for n, one in image.brokers.items() if n not in image.stopping}
        known = {**image.nodes, **image.brokers}
        self._spare = {n: one.rack for n, one in known.items() if n not in self._racks}
        self._unified: dict[str, str] | None = None
        self._made: set[str] = set()
        # Partitions planned so far: placement goes on where it stopped.
        self._planned = 0

    def create(self, new: NewTopic, topic_id: UUID) -> Generator[None, None, TopicImage]:
        """The topic as it would be made."""
        self._check_new_name(new.name)
        configs = _given(new.configs)
        check_topic_configs(self._config, new.name, configs)
        placed = self._placed(new) if not new.assignments else None
        replicas = yield from (self._assigned(new) if placed is None else _gathered(placed))
        self._planned += len(replicas)
        self._made.add(new.name)
        if self._unified is not None:
            self._unified[_unified(new.name)] = new.name
        states = yield from self._initial(replicas)
        return TopicImage(new.name, topic_id, states, configs, tuple(replicas))

    def add_partitions(
        self, name: str, count: int, assignments: Sequence[Sequence[int]] | None
    ) -> Generator[None, None, TopicImage]:
        """The topic with ``count`` partitions in all."""
        topic = self._image.topics.get(name)
        if topic is None:
            raise KafkaError(ErrorCode.unknown_topic_or_partition)
        existing = len(topic.partitions)
        if count == existing:
            raise KafkaError(ErrorCode.invalid_partitions, f"Topic already has {existing} partition(s).")
        if count < existing:
            raise KafkaError(
                ErrorCode.invalid_partitions,
                f"The topic {name} currently has {existing} partition(s); {count} would not be an increase.",
            )
        additional = count - existing
        if assignments is not None and len(assignments) != additional:
            raise KafkaError(
                ErrorCode.invalid_replica_assignment,
                f"Attempted to add {additional} additional partition(s), but only {len(assignments)} "
                "assignment(s) were specified.",
            )
        factor = len(topic.partitions[0].replicas)
        if assignments is None:
            wanted = place(self._racks, additional, factor, self._start + existing, self._spare)
        else:
            wanted = (
                self._checked(index, replicas, factor) for index, replicas in enumerate(assignments, existing)
            )
        added = yield from _gathered(wanted)
        states = yield from self._initial(added)
        return replace(topic, partitions=topic.partitions + states, initial=topic.initial + tuple(added))

    @staticmethod
    def _initial(placed: Iterable[tuple[int, ...]]) -> Generator[None, None, tuple[PartitionState, ...]]:
        """The states of new partitions: those on the same nodes share one."""
        known: dict[tuple[int, ...], PartitionState] = {}

        def state(replicas: tuple[int, ...]) -> PartitionState:
            if replicas not in known:
                known[replicas] = initial_state(replicas)
            return known[replicas]

        return tuple((yield from _gathered(map(state, placed))))

    def _check_new_name(self, name: str) -> None:
        check_name(name)
        if name in self._image.topics or name in self._made:
            raise KafkaError(ErrorCode.topic_already_exists, f"Topic '{name}' already exists.")
        if may_collide(name):
            if self._unified is None:
                self._unified = {_unified(other): other for other in self._image.topics}
            other = self._unified.get(_unified(name))
            if other is not None:
                raise KafkaError(
                    ErrorCode.invalid_topic_exception,
                    f"Topic '{name}' collides with existing topic: {other}",
                )

    def _assigned(self, new: NewTopic) -> Generator[None, None, list[tuple[int, ...]]]:
        for value, name in (
            (new.replication_factor, "replication factor"),
            (new.num_partitions, "numPartitions"),
        ):
            if value != -1:
                raise KafkaError(
                    ErrorCode.invalid_request,
                    f"A manual partition assignment was specified, but {name} was not set to -1.",
                )
        replicas: dict[int, tuple[int, ...]] = {}
        factor: int | None = None
        for count, (index, nodes) in enumerate(new.assignments):
            if count and count % PLANNED_AT_ONCE == 0:
                yield
            if index in replicas:
                raise KafkaError(
                    ErrorCode.invalid_replica_assignment,
                    f"Found multiple manual partition assignments for partition {index}",
                )
            replicas[index] = self._checked(index, nodes, factor)
            factor = len(nodes)
        if sorted(replicas) != list(range(len(replicas))):
            raise KafkaError(
                ErrorCode.invalid_replica_assignment,
                "partitions should be a consecutive 0-based integer sequence",
            )
        return [replicas[index] for index in range(len(replicas))]

    def _placed(self, new: NewTopic) -> Iterator[tuple[int, ...]]:
        if new.replication_factor < -1 or new.replication_factor == 0:
            raise KafkaError(
                ErrorCode.invalid_replication_factor,
                "Replication factor must be larger than 0, or -1 to use the default value.",
            )
        if new.num_partitions < -1 or new.num_partitions == 0:
            raise KafkaError(
                ErrorCode.invalid_partitions,
                "Number of partitions was set to an invalid non-positive value.",
            )
        partitions, factor = new.num_partitions, new.replication_factor
        if partitions == -1:
            partitions = self._config.get("num.partitions")
        if factor == -1:
            factor = self._config.get("default.replication.factor")
        return place(self._racks, partitions, factor, self._start + self._planned, self._spare)

    def _checked(self, index: int, nodes: Sequence[int], factor: int | None) -> tuple[int, ...]:
        """A manual assignment of one partition, if it is one that can be."""
        check_assignment(self._image, nodes)
        if factor is not None and len(nodes) != factor:
            raise KafkaError(
                ErrorCode.invalid_replica_assignment,
                f"The manual partition assignment includes a partition with {len(nodes)} replica(s), but "
                f"this is not consistent with previous partitions, which have {factor} replica(s).",
            )
        if not any(node_id in self._racks for node_id in nodes):
            raise KafkaError(
                ErrorCode.invalid_replica_assignment,
                "All brokers specified in the manual partition assignment for partition "
                f"{index} are fenced or in controlled shutdown.",
            )
        return tuple(nodes)


def check_assignment(image: ClusterImage, nodes: Sequence[int]) -> None:
    """KafkaError(INVALID_REPLICA_ASSIGNMENT) unless these are nodes of the cluster, each once.

    They need not live (``validateManualPartitionAssignment``).
    """
    if not nodes:
        raise KafkaError(
            ErrorCode.invalid_replica_assignment,
            "The manual partition assignment includes an empty replica list.",
        )
    ordered = sorted(nodes)
    for position, node_id in enumerate(ordered):
        if node_id not in image.brokers and node_id not in image.nodes:
            raise KafkaError(
                ErrorCode.invalid_replica_assignment,
                f"The manual partition assignment includes broker {node_id}, but no such broker is "
                "registered.",
            )
        if position and ordered[position - 1] == node_id:
            raise KafkaError(
                ErrorCode.invalid_replica_assignment,
                f"The manual partition assignment includes the broker {node_id} more than once.",
            )


def _given(configs: Mapping[str, str | None]) -> dict[str, str]:
    missing = [name for name, value in configs.items() if value is None]
    if missing:
        raise KafkaError(
            ErrorCode.invalid_config,
            f"Null value not supported for topic configs: {','.join(missing)}",
        )
    return {name: value for name, value in configs.items() if value is not None}
