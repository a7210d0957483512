"""The image: built from keys or from events it is the same, and what did not change is shared."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from metadata_support import apply

from ottla.metadata import image as images
from ottla.metadata import keys
from ottla.metadata.access_records import acl_key, acl_value
from ottla.metadata.image import (
    EMPTY,
    ClusterImage,
    PartitionState,
    initial_state,
    load,
    state_value,
)
from ottla.metadata.store import Event, KeyValue
from ottla.pieces import whole
from ottla.security.acl_bindings import AclBinding, Operation, PatternType, Permission, ResourceType

TOPIC, LITERAL, READ, ALLOW = (
    ResourceType.TOPIC, PatternType.LITERAL, Operation.READ, Permission.ALLOW
)  # fmt: skip

IDS = [UUID(int=number) for number in range(1, 9)]


def topic_event(name: str, revision: int, topic_id: UUID, replicas: list[list[int]], **configs: str) -> Event:
    return Event(keys.topic(name), keys.topic_value(topic_id, replicas, configs), revision)


def check(image: ClusterImage) -> None:
    """What holds of every image."""
    assert {topic.topic_id: topic for topic in image.topics.values()} == dict(image.topics_by_id)
    for name, topic in image.topics.items():
        assert topic.name == name
        assert len(topic.partitions) == len(topic.initial) > 0
        for state in topic.partitions:
            assert state.leader in (*state.replicas, -1)
            assert set(state.isr) <= set(state.replicas)


def test_a_new_topic_s_partitions_are_led_by_their_first_replicas() -> None:
    image = apply(EMPTY, [topic_event("t", 5, IDS[0], [[1, 2], [2, 1]], a="b")], 5)
    topic = image.topics["t"]
    assert topic.partitions == (
        PartitionState(1, 0, 0, (1, 2), (1, 2)),
        PartitionState(2, 0, 0, (2, 1), (2, 1)),
    )
    assert (topic.configs, topic.revision, image.revision) == ({"a": "b"}, 5, 5)
    assert image.topics_by_id[IDS[0]] is topic


def test_states_outlive_changes_to_their_topic_and_go_with_it() -> None:
    image = apply(EMPTY, [topic_event("t", 1, IDS[0], [[1, 2]])], 1)
    moved = PartitionState(2, 1, 1, (1, 2), (2,))
    image = apply(image, [Event(keys.partition("t", 0), state_value(moved), 2)], 2)
    assert image.topics["t"].partitions == (moved,)
    image = apply(image, [topic_event("t", 3, IDS[0], [[1, 2], [2]], x="y")], 3)
    assert image.topics["t"].partitions == (moved, initial_state((2,)))
    gone = [Event(keys.topic("t"), None, 4), Event(keys.partition("t", 0), None, 4)]
    image = apply(image, gone, 4)
    assert not image.topics
    assert not image.topics_by_id
    image = apply(image, [topic_event("t", 5, IDS[1], [[1, 2]])], 5)
    assert image.topics["t"].partitions == (initial_state((1, 2)),)


def test_a_topic_made_anew_in_the_same_batch_is_new() -> None:
    image = apply(EMPTY, [topic_event("t", 1, IDS[0], [[1]])], 1)
    moved = PartitionState(-1, 3, 3, (1,), (1,))
    events = [
        Event(keys.partition("t", 0), state_value(moved), 2),
        Event(keys.topic("t"), None, 3),
        Event(keys.partition("t", 0), None, 3),
        topic_event("t", 4, IDS[1], [[1], [1]]),
    ]
    image = apply(image, events, 4)
    check(image)
    assert image.topics["t"].topic_id == IDS[1]
    assert image.topics["t"].partitions == (initial_state((1,)),) * 2


def test_what_did_not_change_is_shared() -> None:
    image = apply(EMPTY, [topic_event("a", 1, IDS[0], [[1]]), topic_event("b", 1, IDS[1], [[1]])], 1)
    after = apply(image, [topic_event("b", 2, IDS[1], [[1]], x="y")], 2)
    assert after.topics["a"] is image.topics["a"]
    assert after.brokers is image.brokers
    assert image.topics["b"].configs == {}
    later = apply(after, [Event("ids/producers", keys.encode({"next": 1}), 3)], 3)
    assert later.topics is after.topics
    assert later.revision == 3


def test_brokers_controller_and_configurations() -> None:
    broker = keys.encode({"endpoints": {"A": ["h", 1], "B": ["i", 2]}, "rack": "r"})
    events = [
        Event(keys.CLUSTER, keys.encode({"id": "cluster"}), 1),
        Event(keys.broker(3), broker, 2),
        Event(keys.CONTROLLER, keys.encode({"node_id": 3}), 2),
        Event(keys.broker_configs(keys.DEFAULT_BROKER), keys.encode({"a": "1"}), 3),
        Event(keys.broker_configs(3), keys.encode({"a": "2"}), 4),
        Event(keys.group_configs("g/1"), keys.encode({"b": "3"}), 5),
    ]
    image = apply(EMPTY, events, 5)
    assert (image.cluster_id, image.controller_id) == ("cluster", 3)
    assert (image.brokers[3].host, image.brokers[3].epoch, image.brokers[3].rack) == ("h", 2, "r")
    assert image.brokers[3].endpoint("B") == ("i", 2)
    assert image.brokers[3].endpoint("C") is None
    assert image.broker_configs == {-1: {"a": "1"}, 3: {"a": "2"}}
    assert image.group_configs == {"g/1": {"b": "3"}}
    gone = [Event(event.key, None, 6) for event in events[1:]]
    image = apply(image, gone, 6)
    assert image == ClusterImage(cluster_id="cluster", revision=6)


names = st.sampled_from(["a", "b", "c"])
replica_lists = st.lists(st.permutations([1, 2, 3]).map(lambda nodes: nodes[:2]), min_size=1, max_size=3)
steps = st.one_of(
    st.tuples(st.just("create"), names, replica_lists),
    st.tuples(st.just("grow"), names, replica_lists),
    st.tuples(st.just("configure"), names, st.dictionaries(st.sampled_from("xy"), st.just("1"))),
    st.tuples(st.just("move"), names, st.integers(0, 5)),
    st.tuples(st.just("delete"), names, st.none()),
)


class Script:
    """Writes the events that a controller would, one revision for each step, and the keys that they leave."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.items: dict[str, KeyValue] = {}
        self.image = EMPTY
        self.revision = 0
        self._ids = 0

    def do(self, kind: str, name: str, detail: object) -> None:
        topic = self.image.topics.get(name)
        if kind == "create" and topic is None:
            self._ids += 1
            self._write((keys.topic(name), keys.topic_value(UUID(int=self._ids), detail, {})))  # type: ignore[arg-type]
        elif topic is None:
            return
        elif kind == "grow":
            initial = [*topic.initial, *detail]  # type: ignore[misc]
            self._write((keys.topic(name), keys.topic_value(topic.topic_id, initial, topic.configs)))
        elif kind == "configure":
            self._write((keys.topic(name), keys.topic_value(topic.topic_id, topic.initial, detail)))  # type: ignore[arg-type]
        elif kind == "move":
            index = detail % len(topic.partitions)  # type: ignore[operator]
            old = topic.partitions[index]
            leader = next((node for node in old.replicas if node != old.leader), -1)
            state = PartitionState(
                leader, old.leader_epoch + 1, old.partition_epoch + 1, old.replicas, (leader,)
            )
            self._write((keys.partition(name, index), state_value(state)))
        elif kind == "delete":
            prefix = keys.partitions(name)
            gone = [keys.topic(name), *(key for key in sorted(self.items) if key.startswith(prefix))]
            self._write(*((key, None) for key in gone))

    def _write(self, *changes: tuple[str, bytes | None]) -> None:
        self.revision += 1
        events = [Event(key, value, self.revision) for key, value in changes]
        for key, value, revision in events:
            if value is None:
                self.items.pop(key, None)
            else:
                self.items[key] = KeyValue(key, value, 1, revision, 1, 0)
        self.events += events
        self.image = apply(self.image, events, self.revision)
        check(self.image)


@given(st.lists(steps, max_size=25), st.integers(1, 25))
def test_events_and_keys_lead_to_the_same_image_however_they_are_cut(
    history: list[tuple[str, str, object]], cut: int
) -> None:
    script = Script()
    for step in history:
        script.do(*step)
    everything = [script.items[key] for key in sorted(script.items)]
    assert whole(load(everything, script.revision)) == script.image
    assert apply(EMPTY, script.events, script.revision) == script.image
    early = [event for event in script.events if event.revision <= cut]
    late = [event for event in script.events if event.revision > cut]
    assert apply(apply(EMPTY, early, min(cut, script.revision)), late, script.revision) == script.image


def test_many_events_go_into_an_image_in_pieces() -> None:
    """A large topic is a piece of its own, and so are many small changes."""
    replicas = [[1]] * 10_000
    large = [topic_event(f"t{number}", 1, topic_id, replicas) for number, topic_id in enumerate(IDS[:3])]
    assert pieces(large) == 3
    gone = [Event(keys.partition("t0", index), None, 2) for index in range(10_000)]
    assert pieces(gone) == 50
    assert pieces(gone[:100]) == 1


def test_many_keys_are_read_in_pieces() -> None:
    """As at a start, and where a node that serves has to read all of them again."""
    acls = [AclBinding(TOPIC, f"t{n}", LITERAL, f"User:u{n}", "*", READ, ALLOW) for n in range(2_000)]
    items = [KeyValue(acl_key(acl), acl_value(acl), 1, 1, 1, 0) for acl in acls]
    assert sum(1 for _ in load(items, 1)) >= 20
    image = whole(load(items, 1))
    assert set(image.acls.values()) == set(acls)
    states = [
        item
        for number in range(2_000)
        for item in (
            KeyValue(keys.topic(f"t{number}"), keys.topic_value(UUID(int=number + 1), [[1]], {}), 1, 1, 1, 0),
            KeyValue(keys.partition(f"t{number}", 0), state_value(initial_state((1,))), 1, 1, 1, 0),
        )
    ]
    assert len(whole(load(states, 1)).topics) == 2_000


def pieces(events: list[Event]) -> int:
    """In how many pieces an image is made of these."""
    return sum(1 for _ in images.apply(EMPTY, events, 1)) + 1
