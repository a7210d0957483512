"""The cluster as this node knows it: immutable, and made only by applying the store's events in order.

``load`` makes an image from the keys, ``apply`` the next one from events; both lead to the same image.
Unchanged parts are shared between images, so that ``is`` tells whether a part has changed.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Any
from uuid import UUID

from ottla.metadata import keys
from ottla.metadata.features import Features, Supported, features_of, ranges_of
from ottla.metadata.store import Event, KeyValue

if TYPE_CHECKING:
    from ottla.security.acl_bindings import AclBinding
    from ottla.security.quota_entities import Entity
    from ottla.security.sasl.scram import ScramCredential, ScramHash
    from ottla.security.tokens import DelegationToken

log = logging.getLogger(__name__)

# How many bytes of values go into an image in one piece (as much as 5,000 partitions of a topic are, which
# take some milliseconds), and for how many of them each key counts.
BYTES_AT_ONCE = 20_000
BYTES_PER_KEY = 100
# Keys that are only put in order, and topics that get the partitions that have changed.
LISTED_AT_ONCE = 5_000
FLUSHED_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class PartitionState:
    """Who holds a partition and who leads it; ``leader`` is -1 where nobody can.

    ``elr`` are the eligible leader replicas (KIP-966): not in sync, and known to have all that was committed,
    since nothing is committed while there are any. ``last_elr`` is who led last, where no replica is left
    that is known to have everything.
    """

    leader: int
    leader_epoch: int
    partition_epoch: int
    replicas: tuple[int, ...]
    isr: tuple[int, ...]
    adding_replicas: tuple[int, ...] = ()
    removing_replicas: tuple[int, ...] = ()
    elr: tuple[int, ...] = ()
    last_elr: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class TopicImage:
    """A topic. ``initial`` are the replicas that its partitions were made with; ``revision`` its key's."""

    name: str
    topic_id: UUID
    partitions: tuple[PartitionState, ...]
    configs: Mapping[str, str]
    initial: tuple[tuple[int, ...], ...] = ()
    revision: int = 0


@dataclass(frozen=True, slots=True)
class BrokerImage:
    """A node of the cluster. ``epoch`` is the revision of its registration, so a later one is larger;
    ``incarnation`` is what the node itself called it before it was made. ``fetch_key`` is known to the
    cluster's nodes alone, 0 where the node is of a release that has none; ``peer_listener`` is what it uses
    among nodes; ``features`` are the levels that it supports, None where its release does not say.
    """

    node_id: int
    host: str
    port: int
    rack: str | None
    epoch: int
    endpoints: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    incarnation: int = 0
    fetch_key: int = field(default=0, repr=False)
    peer_listener: str | None = None
    features: Supported | None = None

    @property
    def claim(self) -> int:
        """What a fetch as a follower carries as its broker epoch if it is from this registration."""
        return self.fetch_key or self.epoch

    def endpoint(self, listener: str) -> tuple[str, int] | None:
        """Host and port for clients of ``listener``; None where the broker has no such listener."""
        return self.endpoints.get(listener)


@dataclass(frozen=True, slots=True)
class ClusterImage:
    """Everything at one revision of the store.

    ``brokers`` are the nodes that live; ``nodes`` all that ever joined, with the epochs of their last
    registrations; ``stopping`` those that live and are handing over. ``broker_configs`` has the cluster-wide
    ones under -1.
    """

    cluster_id: str = ""
    controller_id: int = -1
    # The revision at which the controller took office; later ones are larger.
    controller_epoch: int = 0
    brokers: Mapping[int, BrokerImage] = field(default_factory=dict)
    nodes: Mapping[int, BrokerImage] = field(default_factory=dict)
    stopping: Mapping[int, bool] = field(default_factory=dict)
    topics: Mapping[str, TopicImage] = field(default_factory=dict)
    topics_by_id: Mapping[UUID, TopicImage] = field(default_factory=dict)
    broker_configs: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    group_configs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    client_metrics: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    # The levels of features that are in force: ``image.features.level("transaction.version")``.
    features: Features = field(default_factory=Features)
    # By what their keys are called.
    acls: Mapping[str, AclBinding] = field(default_factory=dict)
    scram: Mapping[str, Mapping[ScramHash, ScramCredential]] = field(default_factory=dict)
    quotas: Mapping[Entity, Mapping[str, float]] = field(default_factory=dict)
    tokens: Mapping[str, DelegationToken] = field(default_factory=dict)
    # Known to the cluster's nodes alone; empty where no client ever had to log in.
    secret: str = field(default="", repr=False)
    # That of the key that guards new names which could be taken for each other (``topics.may_collide``).
    names_revision: int = 0
    revision: int = 0


EMPTY = ClusterImage()

# Where the image has the configurations of each kind of entity.
_CONFIGS_OF = {
    "brokers": "broker_configs",
    "groups": "group_configs",
    "client-metrics": "client_metrics",
}

# Kafka's own topics. Clients do not write to them, and subscriptions by pattern leave them out.
OFFSETS_TOPIC = "__consumer_offsets"
TRANSACTION_STATE_TOPIC = "__transaction_state"
INTERNAL_TOPICS = frozenset({OFFSETS_TOPIC, TRANSACTION_STATE_TOPIC, "__share_group_state"})
# Those that coordinators served here keep: they are made when somebody asks for them.
COORDINATED_TOPICS = frozenset({OFFSETS_TOPIC, TRANSACTION_STATE_TOPIC})


def initial_state(replicas: tuple[int, ...]) -> PartitionState:
    """The state of a partition that nothing has happened to: it is not stored."""
    return PartitionState(replicas[0], 0, 0, replicas, replicas)


def state_value(state: PartitionState) -> bytes:
    return keys.encode(
        {
            "leader": state.leader,
            "leader_epoch": state.leader_epoch,
            "epoch": state.partition_epoch,
            "replicas": state.replicas,
            "isr": state.isr,
            "adding": state.adding_replicas,
            "removing": state.removing_replicas,
            "elr": state.elr,
            "last_elr": state.last_elr,
        }
    )


def state_of(value: bytes) -> PartitionState:
    """What ``state_value`` made, or an earlier version of it."""
    content = keys.decode(value)
    return PartitionState(
        content["leader"],
        content["leader_epoch"],
        content["epoch"],
        tuple(content["replicas"]),
        tuple(content["isr"]),
        tuple(content["adding"]),
        tuple(content["removing"]),
        tuple(content.get("elr", ())),
        tuple(content.get("last_elr", ())),
    )


def load(items: Iterable[KeyValue], revision: int) -> Generator[None, None, ClusterImage]:
    """The image of all keys as they were at ``revision``: made in pieces."""
    states: list[Event] = []
    others: list[Event] = []
    for item in items:
        # Their topics come later, in the order of keys.
        mine = states if item.key.startswith(keys.PARTITIONS) else others
        mine.append(Event(item.key, item.value, item.mod_revision))
        if len(mine) % LISTED_AT_ONCE == 0:
            yield
    return (yield from apply(EMPTY, chain(others, states), revision))


def apply(image: ClusterImage, events: Iterable[Event], revision: int) -> Generator[None, None, ClusterImage]:
    """The image after ``events``, the last of which is at ``revision``: made in pieces."""
    draft = _Draft(image)
    size = 0
    for event in events:
        if size >= BYTES_AT_ONCE:
            size = 0
            yield
        draft.change(event.key, event.value, event.revision)
        size += BYTES_PER_KEY + len(event.value or b"")
    return (yield from draft.finish(revision))


class _Draft:
    """The next image in the making: each mapping is copied once, when it first changes."""

    def __init__(self, image: ClusterImage) -> None:
        self._image = image
        self._fields: dict[str, Any] = {}
        self._states: dict[str, list[PartitionState]] = {}
        # Most partitions of a cluster are in few different states: they share them.
        self._shared: dict[tuple[int, ...], PartitionState] = {}
        self._decoded: dict[bytes, PartitionState] = {}

    def change(self, key: str, value: bytes | None, revision: int) -> None:
        """Put a key's change into the image. One that makes no sense here leaves what it is about as it was,
        and says so: another version may have written it, and all the other keys count."""
        try:
            self._change(key, value, revision)
        except Exception:
            log.exception("the metadata has something that is not understood, under the key %r", key)

    def _change(self, key: str, value: bytes | None, revision: int) -> None:
        kind, _, name = key.partition("/")
        if kind == "partitions":
            self._change_state(name, value)
            return
        if key == keys.FEATURES:
            self._fields["features"] = features_of(value, revision)
            return
        content = None if value is None else keys.decode(value)
        if kind == "topics":
            self._change_topic(name, content, revision)
        elif kind in ("brokers", "nodes"):
            self._change_broker(kind, int(name), content, revision)
        elif kind == "stopping":
            self._change_stopping(int(name), content)
        elif kind == "configs":
            self._change_configs(name, content)
        elif kind in ("acls", "users", "quotas", "tokens"):
            self._change_access(kind, name, content)
        elif key == keys.CONTROLLER:
            self._fields["controller_id"] = -1 if content is None else content["node_id"]
            self._fields["controller_epoch"] = 0 if content is None else revision
        elif key == keys.NAMES:
            self._fields["names_revision"] = 0 if content is None else revision
        elif key == keys.SECRET:
            self._fields["secret"] = "" if content is None else content["value"]
        elif key == keys.CLUSTER and content is not None:
            self._fields["cluster_id"] = content["id"]

    def _change_access(self, kind: str, name: str, content: dict[str, Any] | None) -> None:
        """Who may do what, and who there is."""
        # Loaded where a cluster has anything of it.
        from ottla.metadata.access_records import acl_of, entity_of, token_of

        if kind == "acls":
            self._put("acls", name, None if content is None else acl_of(content))
        elif kind == "users":
            self._change_credential(name, content)
        elif kind == "tokens":
            self._put("tokens", name, None if content is None else token_of(name, content))
        else:
            self._put("quotas", entity_of(name), content)

    def finish(self, revision: int) -> Generator[None, None, ClusterImage]:
        for count, name in enumerate(list(self._states), 1):
            self._flush(name)
            if count % FLUSHED_AT_ONCE == 0:
                yield
        return replace(self._image, revision=revision, **self._fields)

    def _mutable(self, name: str) -> dict[Any, Any]:
        made: dict[Any, Any] | None = self._fields.get(name)
        if made is None:
            made = self._fields[name] = dict(getattr(self._image, name))
        return made

    def _put(self, field_name: str, name: Any, value: Any) -> None:
        """Have this under a name, or, where it is None or has nothing in it, nothing."""
        if value:
            self._mutable(field_name)[name] = value
        else:
            self._mutable(field_name).pop(name, None)

    def _topic(self, name: str) -> TopicImage | None:
        topics: Mapping[str, TopicImage] = self._fields.get("topics", self._image.topics)
        return topics.get(name)

    def _put_topic(self, topic: TopicImage) -> None:
        self._mutable("topics")[topic.name] = topic
        self._mutable("topics_by_id")[topic.topic_id] = topic

    def _change_topic(self, name: str, content: dict[str, Any] | None, revision: int) -> None:
        self._flush(name)
        old = self._topic(name)
        if old is not None and (content is None or old.topic_id.hex != content["id"]):
            del self._mutable("topics")[name]
            del self._mutable("topics_by_id")[old.topic_id]
            old = None
        if content is None:
            return
        initial = tuple(map(tuple, content["replicas"]))
        kept = old.partitions if old is not None else ()
        added = tuple(self._initial(replicas) for replicas in initial[len(kept) :])
        topic_id = old.topic_id if old is not None else UUID(content["id"])
        self._put_topic(TopicImage(name, topic_id, kept + added, content["configs"], initial, revision))

    def _initial(self, replicas: tuple[int, ...]) -> PartitionState:
        state = self._shared.get(replicas)
        if state is None:
            state = self._shared[replicas] = initial_state(replicas)
        return state

    def _change_state(self, path: str, value: bytes | None) -> None:
        name, _, index = path.rpartition("/")
        topic = self._topic(name)
        if topic is None or value is None or int(index) >= len(topic.partitions):
            # States go with their topic; there is nothing to do for one that is gone.
            return
        states = self._states.get(name)
        if states is None:
            states = self._states[name] = list(topic.partitions)
        state = self._decoded.get(value)
        if state is None:
            state = self._decoded[value] = state_of(value)
        states[int(index)] = state

    def _flush(self, name: str) -> None:
        states = self._states.pop(name, None)
        topic = self._topic(name)
        if states is not None and topic is not None:
            self._put_topic(replace(topic, partitions=tuple(states)))

    def _change_broker(self, kind: str, node_id: int, content: dict[str, Any] | None, revision: int) -> None:
        brokers = self._mutable(kind)
        if content is None:
            brokers.pop(node_id, None)
            return
        endpoints = {name: (host, port) for name, (host, port) in content["endpoints"].items()}
        host, port = next(iter(endpoints.values()))
        brokers[node_id] = BrokerImage(
            node_id,
            host,
            port,
            content["rack"],
            revision,
            endpoints,
            content.get("incarnation", 0),
            content.get("fetch_key", 0),
            content.get("peer_listener"),
            ranges_of(content.get("features")),
        )

    def _change_stopping(self, node_id: int, content: dict[str, Any] | None) -> None:
        stopping = self._mutable("stopping")
        if content is None:
            stopping.pop(node_id, None)
        else:
            stopping[node_id] = True

    def _change_credential(self, path: str, content: dict[str, Any] | None) -> None:
        from ottla.metadata.access_records import credential_of, scram_of

        found = scram_of(path)
        if found is None:
            # What a later version has of users.
            return
        user, hash = found
        credentials = dict(self._fields.get("scram", self._image.scram).get(user, {}))
        if content is None:
            credentials.pop(hash, None)
        else:
            credentials[hash] = credential_of(content)
        self._put("scram", user, credentials)

    def _change_configs(self, path: str, content: dict[str, Any] | None) -> None:
        kind, _, name = path.partition("/")
        field_name = _CONFIGS_OF.get(kind)
        if field_name is None:
            # Of a kind that a later version has.
            return
        entity: Any = name
        if kind == "brokers":
            entity = keys.DEFAULT_BROKER if name == keys.DEFAULT_ENTITY else int(name)
        self._put(field_name, entity, content)
