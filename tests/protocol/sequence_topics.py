"""Topics: created, shown, grown and deleted."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from protocol.peer import NO_ID, Fields, Peer

MISSING = UUID(int=7)


def new_topic(
    name: str,
    partitions: int = 1,
    replicas: int = 1,
    assignments: Any = (),
    configs: dict[str, str | None] | None = None,
) -> Fields:
    return {
        "name": name,
        "num_partitions": partitions,
        "replication_factor": replicas,
        "assignments": [{"partition_index": index, "broker_ids": ids} for index, ids in assignments],
        "configs": [{"name": key, "value": value} for key, value in (configs or {}).items()],
    }


def creation(*topics: Fields, validate_only: bool = False) -> Fields:
    return {"topics": list(topics), "timeout_ms": 10_000, "validate_only": validate_only}


def creations(peer: Peer) -> None:
    for validate_only in (True, False):
        how = "validated" if validate_only else "made"
        peer.each(
            f"plain, {how}",
            "CreateTopics",
            lambda version, only=validate_only: creation(
                new_topic(peer.name(f"plain{version}"), 2), validate_only=only
            ),
        )
    for partitions in (-2, -1, 0, 10_001, 2**31 - 1):
        for replicas in (-2, -1, 0, 1, 2, 32767):
            wanted = new_topic(peer.name(f"n{partitions}-{replicas}"), partitions, replicas)
            peer.each(
                f"{partitions} partitions, {replicas} replicas",
                "CreateTopics",
                creation(wanted, validate_only=True),
                (2, 3, 4, 5, 7),
            )
    names = ("", ".", "..", "a/b", "a b", "x" * 249, "x" * 250, "\u2603", "__cluster_metadata")
    for name in names:
        question = f"named {name[:12]!r} of {len(name)}"
        peer.each(question, "CreateTopics", creation(new_topic(name), validate_only=True), (2, 5, 7))
    plain = peer.name("plain7")
    peer.each("existing", "CreateTopics", creation(new_topic(plain)), (2, 7))
    peer.each("existing, validated", "CreateTopics", creation(new_topic(plain), validate_only=True), (7,))
    peer.create("dots.and_bars")
    peer.each("collision", "CreateTopics", creation(new_topic(peer.name("dots_and.bars"))), (7,))
    twice = new_topic(peer.name("twice"))
    peer.each("twice", "CreateTopics", creation(twice, twice), (2, 7))
    peer.each("nothing", "CreateTopics", creation(), (2, 7))
    many = [new_topic(peer.name(f"many{i}"), 6000) for i in range(2)]
    peer.each("12,000 partitions in two", "CreateTopics", creation(*many, validate_only=True), (7,))
    many = [new_topic(peer.name("many0"), 10_000), new_topic(peer.name("many1"), 1)]
    peer.each("10,001 partitions in two", "CreateTopics", creation(*many, validate_only=True), (7,))


def assigned_creations(peer: Peer) -> None:
    kinds: dict[str, tuple[Any, int, int]] = {
        "one": ([(0, [1])], -1, -1),
        "a broker that is not": ([(0, [9])], -1, -1),
        "broker -1": ([(0, [-1])], -1, -1),
        "a broker twice": ([(0, [1, 1])], -1, -1),
        "no broker": ([(0, [])], -1, -1),
        "not from 0": ([(1, [1])], -1, -1),
        "a gap": ([(0, [1]), (2, [1])], -1, -1),
        "a partition twice": ([(0, [1]), (0, [1])], -1, -1),
        "partition -1": ([(-1, [1])], -1, -1),
        "different counts": ([(0, [1]), (1, [1, 9])], -1, -1),
        "partitions too": ([(0, [1])], 1, -1),
        "replicas too": ([(0, [1])], -1, 1),
        "both too": ([(0, [1])], 1, 1),
    }
    for kind, (assignments, partitions, replicas) in kinds.items():
        wanted = new_topic(peer.name("assigned"), partitions, replicas, assignments)
        peer.each(kind, "CreateTopics", creation(wanted, validate_only=True), (4, 7))


def configured_creations(peer: Peer) -> None:
    kinds: dict[str, dict[str, str | None]] = {
        "unknown": {"no.such": "1"},
        "null": {"retention.ms": None},
        "empty": {"retention.ms": ""},
        "no number": {"retention.ms": "abc"},
        "out of range": {"retention.ms": "-2"},
        "spaces": {"retention.ms": " 1000 "},
        "plus": {"retention.ms": "+1000"},
        "zeros": {"retention.ms": "0001000"},
        "a fraction": {"retention.ms": "1.0"},
        "upper case": {"cleanup.policy": "COMPACT"},
        "a list with spaces": {"cleanup.policy": "compact , delete"},
        "a list with a double": {"cleanup.policy": "delete,delete"},
        "an empty list": {"cleanup.policy": ""},
        "an unknown policy": {"cleanup.policy": "delete,other"},
        "True": {"preallocate": "True"},
        "yes": {"preallocate": "yes"},
        "a ratio": {"min.cleanable.dirty.ratio": "0.50"},
        "a ratio in science": {"min.cleanable.dirty.ratio": "5e-1"},
        "a ratio too large": {"min.cleanable.dirty.ratio": "1.5"},
        "a codec": {"compression.type": "ZSTD"},
        "a level": {"compression.zstd.level": "23"},
        "min insync 0": {"min.insync.replicas": "0"},
        "retention under local": {"local.retention.ms": "5000", "retention.ms": "1000"},
        "remote": {"remote.storage.enable": "true"},
        "lag min over max": {"min.compaction.lag.ms": "10", "max.compaction.lag.ms": "5"},
        "throttled": {"leader.replication.throttled.replicas": "0:1,1:2"},
        "throttled all": {"follower.replication.throttled.replicas": "*"},
        "throttled badly": {"follower.replication.throttled.replicas": "0"},
        "timestamps": {"message.timestamp.type": "logappendtime"},
        "old message format": {"message.format.version": "3.0"},
    }
    for at, (kind, configs) in enumerate(kinds.items()):
        wanted = new_topic(peer.name(f"configured{at}"), configs=configs)
        peer.each(kind, "CreateTopics", creation(wanted, validate_only=True), (2, 5, 7))
        if not peer.send("CreateTopics", 7, creation(wanted)).topics[0].error_code:
            peer.await_leaders(wanted["name"], 1)
        peer.ask(
            kind,
            "DescribeConfigs",
            4,
            resources=[
                {"resource_type": 2, "resource_name": wanted["name"], "configuration_keys": [*configs]}
            ],
            include_synonyms=False,
            include_documentation=False,
        )


def metadata_fields(topics: list[Fields] | None, **more: Any) -> Fields:
    return {
        "topics": topics,
        "allow_auto_topic_creation": False,
        "include_cluster_authorized_operations": False,
        "include_topic_authorized_operations": False,
    } | more


def metadata(peer: Peer) -> None:
    topic_id = peer.create("shown", 2)
    shown = peer.name("shown")
    kinds: dict[str, list[Fields]] = {
        "by name": [{"name": shown, "topic_id": NO_ID}],
        "twice": [{"name": shown, "topic_id": NO_ID}] * 2,
        "no name": [{"name": "", "topic_id": NO_ID}],
        "bad name": [{"name": "a/b", "topic_id": NO_ID}],
        "long name": [{"name": "x" * 250, "topic_id": NO_ID}],
    }
    for kind, topics in kinds.items():
        peer.each(kind, "Metadata", metadata_fields(topics))
    # Before version 4 it would be made, in Kafka some time after the answer.
    missing = [{"name": peer.name("no"), "topic_id": NO_ID}]
    peer.each("missing", "Metadata", metadata_fields(missing), range(4, 14))
    by_id: dict[str, list[Fields]] = {
        "by id": [{"name": None, "topic_id": topic_id}],
        "missing id": [{"name": None, "topic_id": MISSING}],
        "zero id": [{"name": None, "topic_id": NO_ID}],
        "nothing and an id": [{"name": None, "topic_id": NO_ID}, {"name": None, "topic_id": topic_id}],
        "both": [{"name": shown, "topic_id": topic_id}],
        "by both ways": [{"name": shown, "topic_id": NO_ID}, {"name": None, "topic_id": topic_id}],
    }
    for kind, topics in by_id.items():
        peer.each(kind, "Metadata", metadata_fields(topics), (10, 11, 12, 13))
    peer.each("of no topic", "Metadata", metadata_fields([]), range(1, 14))
    operations = {"include_cluster_authorized_operations": True, "include_topic_authorized_operations": True}
    peer.each("operations", "Metadata", metadata_fields(kinds["by name"], **operations), range(8, 14))
    several = [*kinds["bad name"], *missing, *by_id["missing id"], *by_id["by id"]]
    peer.each("operations of what is not", "Metadata", metadata_fields(several, **operations), (12, 13))


def topic_partitions(peer: Peer) -> None:
    peer.create("listed-a", 3)
    peer.create("listed-b", 2)
    a, b = peer.name("listed-a"), peer.name("listed-b")
    for limit in (-1, 0, 1, 2, 4, 5, 2000):
        for cursor in (None, (a, 1), (b, 0), (b, 5), (a, -1), ("", 0), (peer.name("listed-aa"), 3)):
            question = f"limit {limit} cursor {cursor and (cursor[0].replace(peer.prefix, ''), cursor[1])}"
            peer.ask(
                question,
                "DescribeTopicPartitions",
                topics=[{"name": a}, {"name": b}],
                response_partition_limit=limit,
                cursor=cursor and {"topic_name": cursor[0], "partition_index": cursor[1]},
            )
    for name in (peer.name("no"), "", "a/b", "x" * 250):
        question = f"topic {name.replace(peer.prefix, '')[:12]!r} of {len(name)}"
        peer.ask(
            question,
            "DescribeTopicPartitions",
            topics=[{"name": name}, {"name": a}, {"name": a}],
            response_partition_limit=10,
            cursor=None,
        )


def deletion(version: int, *targets: tuple[str | None, UUID]) -> Fields:
    if version < 6:
        return {"topic_names": [name for name, _ in targets], "timeout_ms": 10_000}
    topics = [{"name": name, "topic_id": topic_id} for name, topic_id in targets]
    return {"topics": topics, "timeout_ms": 10_000}


def deletions(peer: Peer) -> None:
    for version in range(1, 7):
        peer.create(f"gone{version}")
    names = {"missing": peer.name("no"), "no name": "", "bad name": "a/b", "long name": "x" * 250}
    peer.each("one", "DeleteTopics", lambda v: deletion(v, (peer.name(f"gone{v}"), NO_ID)))
    for kind, name in names.items():
        peer.each(kind, "DeleteTopics", lambda v, name=name: deletion(v, (name, NO_ID)))
    kept_id = peer.create("kept")
    kept = peer.name("kept")
    peer.each("twice", "DeleteTopics", lambda v: deletion(v, (kept, NO_ID), (kept, NO_ID)))
    by_id: dict[str, list[tuple[str | None, UUID]]] = {
        "name and id in one": [(kept, kept_id)],
        "by name and by id": [(kept, NO_ID), (None, kept_id)],
        "by id and by name": [(None, kept_id), (kept, NO_ID)],
        "by id twice": [(None, kept_id), (None, kept_id)],
        "three ways": [(None, kept_id), (kept, NO_ID), (kept, kept_id)],
        "missing id": [(None, MISSING)],
        "missing id twice": [(None, MISSING), (None, MISSING)],
        "neither": [(None, NO_ID)],
        "name and id in one, twice": [(kept, kept_id), (kept, kept_id)],
        "neither twice": [(None, NO_ID), (None, NO_ID)],
        "missing by name, and an id": [(peer.name("no"), NO_ID), (None, MISSING)],
    }
    for kind, targets in by_id.items():
        peer.ask(kind, "DeleteTopics", 6, **deletion(6, *targets))
    peer.ask("what is left", "Metadata", 12, **metadata_fields([{"name": kept, "topic_id": NO_ID}]))
    peer.ask("by id", "DeleteTopics", 6, **deletion(6, (None, kept_id)))
    peer.each("nothing", "DeleteTopics", deletion)


def growth(peer: Peer) -> None:
    peer.create("grown", 2)
    grown = peer.name("grown")

    def grow(question: str, *topics: Fields, versions: tuple[int, ...] = (0, 2, 3)) -> None:
        fields = {"topics": list(topics), "timeout_ms": 10_000, "validate_only": True}
        peer.each(question, "CreatePartitions", fields, versions)

    def to(count: int, assignments: list[list[int]] | None = None, name: str = grown) -> Fields:
        made = None if assignments is None else [{"broker_ids": ids} for ids in assignments]
        return {"name": name, "count": count, "assignments": made}

    for count in (-1, 0, 1, 2, 3, 10_001, 10_002, 10_003, 2**31 - 1):
        grow(f"to {count}", to(count))
    for kind, assignments in {
        "one": [[1]],
        "none": [],
        "two": [[1], [1]],
        "a broker that is not": [[9]],
        "a broker twice": [[1, 1]],
        "two replicas": [[1, 9]],
        "no broker": [[]],
    }.items():
        grow(f"to 3, {kind}", to(3, assignments))
    for name in (peer.name("no"), "", "a/b", "__cluster_metadata"):
        grow(f"topic {name.replace(peer.prefix, '')!r}", to(3, name=name))
    grow("twice", to(3), to(4))
    grow("nothing")
    peer.ask("done", "CreatePartitions", topics=[to(4)], timeout_ms=10_000, validate_only=False)
    peer.await_leaders(grown, 4)
    peer.ask("after it", "Metadata", 12, **metadata_fields([{"name": grown, "topic_id": NO_ID}]))


SEQUENCES = (
    creations,
    assigned_creations,
    configured_creations,
    metadata,
    topic_partitions,
    deletions,
    growth,
)
