"""What moves ask of a cluster: how it stands, what moves already, and to move, cancel or forget."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ottla.cli.direct import DirectCluster, Unanswered, check, error_name
from ottla.cli.errors import CliError, ExitCode
from ottla.types import TopicPartition

TIMEOUT_MS = 30_000
UNKNOWN_TOPIC_OR_PARTITION = 3
ELECTION_NOT_NEEDED = 84
NO_REASSIGNMENT_IN_PROGRESS = 85
PREFERRED, UNCLEAN = 0, 1
TOPIC_RESOURCE, BROKER_RESOURCE = 2, 4
SET, DELETE = 0, 1


class Broker(NamedTuple):
    """A broker that is there."""

    host: str
    port: int
    rack: str | None


class PartitionView(NamedTuple):
    """A partition as metadata has it. ``leader`` is -1 where there is none."""

    leader: int
    replicas: tuple[int, ...]
    isr: tuple[int, ...]


class Ongoing(NamedTuple):
    """A reassignment that is under way: all replicas, those that come and those that go."""

    replicas: tuple[int, ...]
    adding: tuple[int, ...]
    removing: tuple[int, ...]

    @property
    def before(self) -> tuple[int, ...]:
        """The replicas when it began; their order may have been another."""
        return tuple(node for node in self.replicas if node not in self.adding)

    @property
    def target(self) -> tuple[int, ...]:
        return tuple(node for node in self.replicas if node not in self.removing)


class Members(NamedTuple):
    """Who is there, and who was and is not."""

    brokers: dict[int, Broker]
    fenced: dict[int, Broker]


class Elected(NamedTuple):
    """What became of an election: where there is a new leader, and where there cannot be one, and why."""

    elected: list[TopicPartition]
    refused: dict[TopicPartition, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The cluster at one moment."""

    brokers: Mapping[int, Broker]
    partitions: Mapping[TopicPartition, PartitionView]
    ongoing: Mapping[TopicPartition, Ongoing] = field(default_factory=dict)

    @property
    def racks(self) -> dict[int, str | None]:
        return {node: broker.rack for node, broker in self.brokers.items()}

    def targets(self) -> dict[TopicPartition, tuple[int, ...]]:
        """Each partition's replicas once what is under way is done."""
        return {
            partition: self.ongoing[partition].target if partition in self.ongoing else found.replicas
            for partition, found in self.partitions.items()
        }

    def held_by(self, node: int) -> list[TopicPartition]:
        """The partitions that a node holds a replica of, or is to."""
        return sorted(partition for partition, found in self.partitions.items() if node in found.replicas)

    def of_topics(self, topics: Collection[str]) -> list[TopicPartition]:
        """All partitions of some topics. CliError where there is no such topic."""
        known = {partition.topic for partition in self.partitions}
        for topic in topics:
            if topic not in known:
                raise CliError(f"topic {topic!r} does not exist; see 'ottla topic list'", ExitCode.NOT_FOUND)
        return sorted(partition for partition in self.partitions if partition.topic in topics)

    def check_nodes(self, nodes: Iterable[int]) -> None:
        """CliError where one is not there."""
        for node in nodes:
            if node not in self.brokers:
                known = ", ".join(map(str, sorted(self.brokers)))
                raise CliError(f"node {node} is not there; those that are: {known}", ExitCode.NOT_FOUND)


def by_topic(partitions: Iterable[TopicPartition]) -> dict[str, list[int]]:
    """Partition numbers by topic, both sorted."""
    topics: dict[str, list[int]] = {}
    for topic, partition in sorted(partitions):
        topics.setdefault(topic, []).append(partition)
    return topics


class Requests:
    """The requests, over plain connections."""

    def __init__(self, cluster: DirectCluster) -> None:
        self._cluster = cluster

    def view(self) -> View:
        """The cluster as it stands, with what moves."""
        metadata = self._cluster.ask(
            "Metadata",
            {
                "topics": None,
                "allow_auto_topic_creation": False,
                "include_topic_authorized_operations": False,
                "include_cluster_authorized_operations": False,
            },
        )
        self._cluster.learn(metadata)
        partitions = {
            TopicPartition(topic.name, p.partition_index): PartitionView(
                p.leader_id, tuple(p.replica_nodes), tuple(p.isr_nodes)
            )
            for topic in metadata.topics
            for p in topic.partitions
        }
        return View(
            brokers=self.members().brokers,
            partitions=dict(sorted(partitions.items())),
            ongoing=self.ongoing(),
        )

    def members(self) -> Members:
        """The brokers that are there, and those that have been there and are not.

        Metadata does not say: a broker that has just gone is named there for a while.
        """
        response = self._cluster.ask(
            "DescribeCluster",
            {
                "include_cluster_authorized_operations": False,
                "endpoint_type": 1,
                "include_fenced_brokers": True,
            },
        )
        members = Members({}, {})
        for b in sorted(response.brokers, key=lambda b: int(b.broker_id)):
            fenced = getattr(b, "is_fenced", False)
            (members.fenced if fenced else members.brokers)[b.broker_id] = Broker(b.host, b.port, b.rack)
        return members

    def ongoing(self) -> dict[TopicPartition, Ongoing]:
        """What is being reassigned."""
        response = self._cluster.ask("ListPartitionReassignments", {"timeout_ms": TIMEOUT_MS, "topics": None})
        check(response.error_code, response.error_message, "reassignments")
        found = {
            TopicPartition(topic.name, p.partition_index): Ongoing(
                tuple(p.replicas), tuple(p.adding_replicas), tuple(p.removing_replicas)
            )
            for topic in response.topics
            for p in topic.partitions
        }
        return dict(sorted(found.items()))

    def reassign(self, planned: Mapping[TopicPartition, Sequence[int] | None]) -> list[TopicPartition]:
        """Begin to move partitions to the replicas given; None cancels what is under way for one.

        Those for which that was done: one that was done moving meanwhile has nothing to cancel, and one that
        was deleted nothing to move. CliError for the first that is refused otherwise.
        """
        topics = [
            {
                "name": topic,
                "partitions": [
                    {"partition_index": p, "replicas": _replicas(planned[TopicPartition(topic, p)])}
                    for p in partitions
                ],
            }
            for topic, partitions in by_topic(planned).items()
        ]
        response = self._cluster.ask(
            "AlterPartitionReassignments",
            {"timeout_ms": TIMEOUT_MS, "allow_replication_factor_change": True, "topics": topics},
        )
        check(response.error_code, response.error_message, "reassignment")
        done = []
        for topic in response.responses:
            for result in topic.partitions:
                partition = TopicPartition(topic.name, result.partition_index)
                if planned[partition] is None and result.error_code == NO_REASSIGNMENT_IN_PROGRESS:
                    continue
                if result.error_code == UNKNOWN_TOPIC_OR_PARTITION:
                    continue
                check(result.error_code, result.error_message, str(partition))
                done.append(partition)
        return sorted(done)

    def elect(self, partitions: Collection[TopicPartition] | None, *, unclean: bool = False) -> Elected:
        """Have leaders elected: the preferred ones, or, ``unclean``, whoever is there where there is none.

        None: for all partitions.
        """
        wanted = None
        if partitions is not None:
            wanted = [
                {"topic": topic, "partitions": numbers} for topic, numbers in by_topic(partitions).items()
            ]
        response = self._cluster.ask(
            "ElectLeaders",
            {
                "election_type": UNCLEAN if unclean else PREFERRED,
                "topic_partitions": wanted,
                "timeout_ms": TIMEOUT_MS,
            },
        )
        check(response.error_code, None, "election")
        elected, refused = [], {}
        for topic in response.replica_election_results:
            for result in topic.partition_result:
                partition = TopicPartition(topic.topic, result.partition_id)
                if result.error_code == 0:
                    elected.append(partition)
                elif result.error_code != ELECTION_NOT_NEEDED:
                    refused[partition] = result.error_message or error_name(result.error_code)
        return Elected(sorted(elected), dict(sorted(refused.items())))

    def unregister(self, node: int) -> None:
        """Have the cluster forget a node that is gone."""
        response = self._cluster.ask("UnregisterBroker", {"broker_id": node})
        check(response.error_code, response.error_message, f"node {node}")

    def topic_configs(self, topics: Iterable[str], name: str) -> dict[str, str | None]:
        """One configuration of several topics; those that do not exist are left out."""
        resources = [
            {"resource_type": TOPIC_RESOURCE, "resource_name": topic, "configuration_keys": [name]}
            for topic in topics
        ]
        fields = {"resources": resources, "include_synonyms": False, "include_documentation": False}
        response = self._cluster.ask("DescribeConfigs", fields)
        return {result.resource_name: entry.value for result in response.results for entry in result.configs}

    def alter_topic(self, topic: str, configs: Mapping[str, str | None]) -> None:
        """Set configurations of a topic; those whose value is None are removed."""
        fields = _alter_configs(TOPIC_RESOURCE, topic, configs)
        (result,) = self._cluster.ask("IncrementalAlterConfigs", fields).responses
        if result.error_code != UNKNOWN_TOPIC_OR_PARTITION:
            check(result.error_code, result.error_message, f"topic {topic}")

    def alter_broker(self, node: int, configs: Mapping[str, str | None]) -> None:
        """Set configurations of a broker; those that are None are removed. Unanswered where it is gone."""
        fields = _alter_configs(BROKER_RESOURCE, str(node), configs)
        (result,) = self._cluster.ask_node(node, "IncrementalAlterConfigs", fields).responses
        check(result.error_code, result.error_message, f"node {node}")

    def sizes(
        self, nodes: Iterable[int], partitions: Iterable[TopicPartition]
    ) -> dict[int, dict[TopicPartition, int]]:
        """What each node holds of some partitions, in bytes; nothing of nodes that do not answer."""
        topics = [{"topic": topic, "partitions": numbers} for topic, numbers in by_topic(partitions).items()]
        found: dict[int, dict[TopicPartition, int]] = {}
        for node in nodes:
            held: Counter[TopicPartition] = Counter()
            try:
                response = self._cluster.ask_node(node, "DescribeLogDirs", {"topics": topics})
            except Unanswered:
                continue
            for folder in response.results:
                for topic in folder.topics:
                    for p in topic.partitions:
                        held[TopicPartition(topic.name, p.partition_index)] += p.partition_size
            found[node] = held
        return found


def _alter_configs(kind: int, name: str, configs: Mapping[str, str | None]) -> dict[str, Any]:
    entries = [
        {"name": config, "config_operation": DELETE if value is None else SET, "value": value}
        for config, value in configs.items()
    ]
    return {
        "resources": [{"resource_type": kind, "resource_name": name, "configs": entries}],
        "validate_only": False,
    }


def _replicas(replicas: Sequence[int] | None) -> list[int] | None:
    return None if replicas is None else list(replicas)
