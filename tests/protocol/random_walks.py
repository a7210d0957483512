"""Sensible requests in an order that chance decides: states that no sequence was written for."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

from ottla.types import Record
from ottla.wire import records
from ottla.wire.apis import BY_NAME
from protocol.known import is_failure, is_meant
from protocol.normal import differences
from protocol.peer import NO_ID, SILENT, Fields, Peer
from protocol.random_transactions import Transactions
from protocol.sequence_groups import committing, fetching, groups_fields, joining
from protocol.sequence_records import (
    OLD_MS,
    delete_records_fields,
    epochs_fields,
    fetch_fields,
    list_offsets_fields,
    produce_fields,
    producers_fields,
)
from protocol.sequence_topics import metadata_fields

# A changed configuration is in force in Kafka some time after the answer.
SETTLING_S = 0.15

CONFIGS: dict[str, list[str]] = {
    "cleanup.policy": ["delete", "compact", "compact,delete", ""],
    "max.message.bytes": ["150", "1048588"],
    "message.timestamp.type": ["CreateTime", "LogAppendTime"],
    "message.timestamp.after.max.ms": ["1", "9223372036854775807"],
    "compression.type": ["producer", "gzip", "uncompressed", "zstd"],
    "min.insync.replicas": ["1", "2"],
    "segment.bytes": ["1048576"],
}


class Walk:
    """One walk over both brokers. Everything is drawn once; each broker is asked with its own ids."""

    def __init__(self, peers: list[Peer], seed: int) -> None:
        self.peers = peers
        self.chance = random.Random(seed)
        self.seed = seed
        self.topics: dict[str, list[Any]] = {}
        # The member of each group as each broker named it, and the generation that it is in.
        self.members: dict[str, list[tuple[str, int]]] = {}
        self.lines: list[str] = []
        self.steps: list[Callable[[], None]] = [
            *[self.produce] * 6,
            *[self.fetch] * 4,
            *[self.list_offsets] * 3,
            self.delete_records,
            self.epochs,
            self.producers,
            self.metadata,
            self.commit,
            self.committed,
            self.uncommit,
            self.join,
            self.sync,
            self.beat,
            self.leave,
            self.describe_group,
            self.delete_group,
            self.configure,
            self.configs,
            self.grow,
            self.remake,
        ]
        for name in ("a", "b"):
            self.make(name)
        self.steps += Transactions(self).steps

    def walk(self, count: int) -> list[str]:
        for _ in range(count):
            self.chance.choice(self.steps)()
        return self.lines

    def ask(self, api: str, *fields: Fields, version: int | None = None, told: str = "") -> list[Any]:
        """Ask both, each with its own fields where two are given; what they answered."""
        served = BY_NAME[api]
        version = self.chance.randint(served.version_min, served.version_max) if version is None else version
        answers = [peer.send(api, version, fields[-i % len(fields)]) for i, peer in enumerate(self.peers)]
        plain = [peer.normaliser.answer(answer) for peer, answer in zip(self.peers, answers, strict=True)]
        if not is_failure(plain[0]) and plain[0] != SILENT:
            found = [d for d in differences(*plain) if not is_meant(f"{api}: walk", *d)]
            if found:
                told = told or f"{fields[0]!r:.500}"
                self.lines.append(f"{api} v{version}: {found[:4]!r:.500}\n    {told}")
                print(self.lines[-1], flush=True)
        return answers

    # ------------------------------------------------------------ topics

    def make(self, name: str) -> None:
        # One segment: past the log's start Kafka looks a time up in one only, and finds nothing, we go on.
        whole = {"segment_ms": "9223372036854775807", "retention_ms": "-1"}
        self.topics[name] = [peer.create(f"{name}{self.seed}", 2, **whole) for peer in self.peers]

    def draw(self) -> tuple[str, list[Any], int]:
        """A topic's name and ids, and a partition of it."""
        name = self.chance.choice(list(self.topics))
        return (
            self.peers[0].name(f"{name}{self.seed}"),
            self.topics[name],
            self.chance.choice([0, 0, 0, 1, 2]),
        )

    def remake(self) -> None:
        if self.chance.random() < 0.8:
            return
        name = self.chance.choice(list(self.topics))
        full = self.peers[0].name(f"{name}{self.seed}")
        self.ask("DeleteTopics", {"topic_names": [full], "timeout_ms": 5000}, version=5)
        time.sleep(SETTLING_S)
        self.make(name)

    def grow(self) -> None:
        name, _, _ = self.draw()
        more = {"name": name, "count": self.chance.choice([1, 2, 3]), "assignments": None}
        self.ask("CreatePartitions", {"topics": [more], "timeout_ms": 5000, "validate_only": False})
        time.sleep(SETTLING_S)

    def metadata(self) -> None:
        name, _, _ = self.draw()
        self.ask("Metadata", metadata_fields([{"name": name, "topic_id": NO_ID}]))

    def configure(self) -> None:
        name, _, _ = self.draw()
        key = self.chance.choice(list(CONFIGS))
        operation = self.chance.choice([0, 0, 0, 1])
        change = {"name": key, "config_operation": operation, "value": self.chance.choice(CONFIGS[key])}
        resource = {"resource_type": 2, "resource_name": name, "configs": [change]}
        self.ask("IncrementalAlterConfigs", {"resources": [resource], "validate_only": False})
        time.sleep(SETTLING_S)

    def configs(self) -> None:
        name, _, _ = self.draw()
        resource = {"resource_type": 2, "resource_name": name, "configuration_keys": list(CONFIGS)}
        fields = {"resources": [resource], "include_documentation": False}
        self.ask("DescribeConfigs", fields | {"include_synonyms": self.chance.random() < 0.5})

    # ------------------------------------------------------------ records

    def batch(self) -> bytes:
        chance = self.chance
        count = chance.randint(1, 4)
        stamps = [OLD_MS + chance.randint(-5, 5) for _ in range(count)]
        keys = [chance.choice([b"k", b"k", b"l", None]) for _ in range(count)]
        producer: dict[str, Any] = {}
        if chance.random() < 0.5:
            producer = {
                "producer_id": chance.choice([70, 71]),
                "producer_epoch": chance.choice([0, 0, 0, 1, 2]),
                "base_sequence": chance.randint(0, 9),
            }
        return records.build_batch(
            [Record(0, stamp, key, b"v" * 20, ()) for key, stamp in zip(keys, stamps, strict=True)],
            compression=chance.choice([0, 0, 0, 1, 2, 3, 4]),
            **producer,
        )

    def produce(self) -> None:
        name, ids, index = self.draw()
        data = self.batch()
        acks = self.chance.choice([-1, 1])
        told = f"{name}-{index} {records.read_header(data)}"
        version = self.chance.randint(7, 13)
        asked = [produce_fields(name, topic_id, (index, data), acks=acks) for topic_id in ids]
        self.ask("Produce", asked[0], asked[1], version=version, told=told)

    def fetch(self) -> None:
        name, ids, index = self.draw()
        chance = self.chance
        one = {
            "partition": index,
            "fetch_offset": chance.randint(-1, 40),
            "partition_max_bytes": chance.choice([1, 200, 1 << 20]),
            "current_leader_epoch": chance.choice([-1, -1, 0, 1]),
            "last_fetched_epoch": chance.choice([-1, -1, 0, 1]),
        }
        more = {"isolation_level": chance.choice([0, 1]), "max_bytes": chance.choice([1, 300, 1 << 20])}
        asked = [fetch_fields(name, topic_id, one, **more) for topic_id in ids]
        self.ask("Fetch", asked[0], asked[1])

    def list_offsets(self) -> None:
        name, _, index = self.draw()
        at = self.chance.choice([-1, -2, -3, -4, -5, *(OLD_MS + delta for delta in range(-6, 7))])
        isolation = self.chance.choice([0, 1])
        self.ask("ListOffsets", list_offsets_fields(name, (index, at), isolation=isolation))

    def delete_records(self) -> None:
        name, _, index = self.draw()
        self.ask("DeleteRecords", delete_records_fields(name, (index, self.chance.randint(-1, 12))))

    def epochs(self) -> None:
        name, _, index = self.draw()
        asked = (index, self.chance.choice([-1, 0, 1]), self.chance.choice([-1, 0, 1]))
        self.ask("OffsetForLeaderEpoch", epochs_fields(name, asked))

    def producers(self) -> None:
        name, _, _ = self.draw()
        self.ask("DescribeProducers", producers_fields(name, 0, 1, 2))

    # ------------------------------------------------------------ groups

    def group(self) -> str:
        return self.peers[0].name(f"g{self.chance.randint(0, 1)}-{self.seed}")

    def known(self, group: str) -> list[tuple[str, int]]:
        """The member of a group at each broker, or one that is none."""
        if self.chance.random() < 0.15:
            return [("nobody", 1)] * 2
        return self.members.get(group, [("", -1)] * 2)

    def commit(self) -> None:
        name, ids, index = self.draw()
        group = self.group()
        offset = self.chance.randint(0, 9)
        asked = [
            committing(
                group,
                name,
                topic_id,
                (index, offset),
                member_id=member,
                generation_id=generation,
                generation_id_or_member_epoch=generation,
            )
            for topic_id, (member, generation) in zip(ids, self.known(group), strict=True)
        ]
        self.ask("OffsetCommit", asked[0], asked[1])

    def committed(self) -> None:
        name, ids, _ = self.draw()
        group = self.group()
        asked = [fetching(group, name, topic_id, 0, 1, 2) for topic_id in ids]
        self.ask("OffsetFetch", asked[0], asked[1])

    def uncommit(self) -> None:
        name, _, index = self.draw()
        topics = [{"name": name, "partitions": [{"partition_index": index}]}]
        self.ask("OffsetDelete", {"group_id": self.group(), "topics": topics})

    def join(self) -> None:
        group = self.group()
        asked = [joining(group, member) for member, _ in self.known(group)]
        answers = self.ask("JoinGroup", asked[0], asked[1])
        if all(getattr(answer, "member_id", "") for answer in answers):
            self.members[group] = [(answer.member_id, answer.generation_id) for answer in answers]

    def sync(self) -> None:
        group = self.group()
        asked = [
            {
                "group_id": group,
                "generation_id": generation,
                "member_id": member,
                "group_instance_id": None,
                "protocol_type": "consumer",
                "protocol_name": "range",
                "assignments": [{"member_id": member, "assignment": b"a"}],
            }
            for member, generation in self.known(group)
        ]
        self.ask("SyncGroup", asked[0], asked[1])

    def beat(self) -> None:
        group = self.group()
        asked = [
            {"group_id": group, "generation_id": generation, "member_id": member, "group_instance_id": None}
            for member, generation in self.known(group)
        ]
        self.ask("Heartbeat", asked[0], asked[1])

    def leave(self) -> None:
        group = self.group()
        asked = [
            {
                "group_id": group,
                "member_id": member,
                "members": [{"member_id": member, "group_instance_id": None, "reason": None}],
            }
            for member, _ in self.known(group)
        ]
        self.ask("LeaveGroup", asked[0], asked[1])

    def describe_group(self) -> None:
        self.ask("DescribeGroups", groups_fields(self.group()))

    def delete_group(self) -> None:
        self.ask("DeleteGroups", {"groups_names": [self.group()]})


def walk_at_random(one: str, other: str, prefix: str, seed: int, count: int) -> list[str]:
    """The differences, which are printed as they are found."""
    peers = [Peer(address, prefix) for address in (one, other)]
    try:
        return Walk(peers, seed).walk(count)
    finally:
        for peer in peers:
            peer.close()
