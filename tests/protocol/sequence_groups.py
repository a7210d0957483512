"""Classic groups and their offsets."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from protocol.peer import NO_ID, Fields, Peer

GROUP_NAMES = ("", " ", "a/b", "x" * 250, "\u2603")


def joining(group: str, member: str = "", **more: Any) -> Fields:
    return {
        "group_id": group,
        "session_timeout_ms": 10_000,
        "rebalance_timeout_ms": 5000,
        "member_id": member,
        "group_instance_id": None,
        "protocol_type": "consumer",
        "protocols": [{"name": "range", "metadata": b"m"}],
        "reason": None,
    } | more


def coordinators(peer: Peer) -> None:
    group = peer.name("found")
    for kind in (-1, 0, 2, 3, 127):
        fields = {"key": group, "key_type": kind, "coordinator_keys": [group, group, ""]}
        peer.each(f"type {kind}", "FindCoordinator", fields, (1, 2, 3, 4, 6))
    peer.each("nothing", "FindCoordinator", {"key": "", "key_type": 0, "coordinator_keys": []})


def members(peer: Peer) -> None:
    kinds: dict[str, Fields] = {
        "no protocol": {"protocols": []},
        "no protocol type": {"protocol_type": ""},
        "session 0": {"session_timeout_ms": 0},
        "session 5999": {"session_timeout_ms": 5999},
        "session 1800001": {"session_timeout_ms": 1_800_001},
        "session -1": {"session_timeout_ms": -1},
        "unknown member": {"member_id": "nobody"},
        "static unknown": {"member_id": "nobody", "group_instance_id": "i"},
    }
    for kind, more in kinds.items():
        peer.each(kind, "JoinGroup", joining(peer.name(f"bad {kind}"), **more), (0, 3, 5, 9))
    for name in GROUP_NAMES[:1]:
        peer.each(f"group {name!r}", "JoinGroup", joining(name), (0, 4, 9))
    group = peer.name("g")
    first = peer.ask("first", "JoinGroup", 9, **joining(group))
    joined = peer.ask("with its id", "JoinGroup", 9, **joining(group, first.member_id))
    member, generation = joined.member_id, joined.generation_id
    sync = {
        "group_id": group,
        "generation_id": generation,
        "member_id": member,
        "group_instance_id": None,
        "protocol_type": "consumer",
        "protocol_name": "range",
        "assignments": [{"member_id": member, "assignment": b"a"}],
    }
    peer.each("another type", "SyncGroup", sync | {"protocol_type": "connect"}, (5,))
    peer.each("another protocol", "SyncGroup", sync | {"protocol_name": "other"}, (5,))
    peer.each("no protocol", "SyncGroup", sync | {"protocol_name": None, "protocol_type": None}, (5,))
    peer.each("generation before", "SyncGroup", sync | {"generation_id": generation - 1}, (0, 5))
    peer.each("nobody", "SyncGroup", sync | {"member_id": "nobody"}, (0, 5))
    peer.each("static", "SyncGroup", sync | {"group_instance_id": "i"}, (5,))
    peer.each("leader", "SyncGroup", sync)
    beat = {"group_id": group, "generation_id": generation, "member_id": member, "group_instance_id": None}
    for kind, more in {
        "alive": {},
        "generation after": {"generation_id": generation + 1},
        "generation -1": {"generation_id": -1},
        "nobody": {"member_id": "nobody"},
        "no member": {"member_id": ""},
        "static": {"group_instance_id": "i"},
        "missing group": {"group_id": peer.name("no")},
        "no group": {"group_id": ""},
    }.items():
        peer.each(kind, "Heartbeat", beat | more)
        peer.each(
            f"{kind}", "SyncGroup", sync | more | {"assignments": []}, (1, 4) if kind == "alive" else None
        ) if kind not in ("alive", "nobody", "static") else None
    peer.each("stable", "DescribeGroups", groups_fields(group, peer.name("no"), ""))
    peer.each("members there", "DeleteGroups", {"groups_names": [group, peer.name("no"), ""]})
    peer.each("both", "ListGroups", {"states_filter": ["None"], "types_filter": []}, (4, 5))
    for kind, more in {
        "nobody": {"member_id": "nobody", "group_instance_id": None},
        "unknown static": {"member_id": "", "group_instance_id": "i"},
        "static with the wrong id": {"member_id": "nobody", "group_instance_id": "i"},
    }.items():
        fields = {"group_id": group, "member_id": "nobody", "members": [more | {"reason": None}]}
        peer.each(kind, "LeaveGroup", fields, (0, 2, 3, 4, 5))
    peer.each(
        "missing group",
        "LeaveGroup",
        {
            "group_id": peer.name("no"),
            "member_id": "x",
            "members": [{"member_id": "x", "group_instance_id": None, "reason": None}],
        },
    )
    peer.each(
        "no group",
        "LeaveGroup",
        {
            "group_id": "",
            "member_id": "x",
            "members": [{"member_id": "x", "group_instance_id": None, "reason": None}],
        },
    )
    peer.each("nobody at all", "LeaveGroup", {"group_id": group, "members": []}, (3, 5))
    fields = {
        "group_id": group,
        "members": [
            {"member_id": member, "group_instance_id": None, "reason": "x"},
            {"member_id": member, "group_instance_id": None, "reason": "x"},
        ],
    }
    peer.ask("twice", "LeaveGroup", 5, **fields)
    peer.each("empty", "DescribeGroups", groups_fields(group), (0, 5, 6))
    peer.ask("empty", "DeleteGroups", 2, groups_names=[group, group])
    peer.each("dead", "DescribeGroups", groups_fields(group), (0, 5, 6))


def groups_fields(*groups: str) -> Fields:
    return {"groups": list(groups), "include_authorized_operations": False}


def committing(group: str, topic: str, topic_id: UUID, *asked: tuple[int, int], **more: Any) -> Fields:
    partitions = [
        {
            "partition_index": index,
            "committed_offset": offset,
            "committed_leader_epoch": -1,
            "committed_metadata": "m",
        }
        for index, offset in asked
    ]
    return {
        "group_id": group,
        "generation_id_or_member_epoch": -1,
        "generation_id": -1,
        "member_id": "",
        "group_instance_id": None,
        "retention_time_ms": -1,
        "topics": [{"name": topic, "topic_id": topic_id, "partitions": partitions}],
    } | more


def fetching(group: str, topic: str, topic_id: UUID, *indexes: int, **more: Any) -> Fields:
    topics = [{"name": topic, "topic_id": topic_id, "partition_indexes": list(indexes)}]
    one = {"group_id": group, "topics": topics}
    return (
        one
        | {
            "groups": [one | {"member_id": None, "member_epoch": -1}],
            "require_stable": False,
        }
        | more
    )


def committed_offsets(peer: Peer) -> None:
    topic_id = peer.create("c", 3)
    topic, group = peer.name("c"), peer.name("cg")
    peer.each("before", "OffsetFetch", fetching(group, topic, topic_id, 0, 1, 9))
    peer.each("plain", "OffsetCommit", committing(group, topic, topic_id, (0, 5), (1, 0)))
    for offset in (-1, -2, 2**63 - 1):
        peer.each(
            f"offset {offset}", "OffsetCommit", committing(group, topic, topic_id, (2, offset)), (2, 8, 10)
        )
    peer.each(
        "partitions", "OffsetCommit", committing(group, topic, topic_id, (3, 1), (-1, 1), (0, 6)), (2, 10)
    )
    peer.each("twice", "OffsetCommit", committing(group, topic, topic_id, (0, 7), (0, 8)), (2, 10))
    missing = committing(group, peer.name("no"), UUID(int=7), (0, 1))
    peer.each("missing topic", "OffsetCommit", missing, (2, 9, 10))
    peer.each("no topic", "OffsetCommit", committing(group, "", NO_ID, (0, 1)), (2, 9, 10))
    peer.each("nothing", "OffsetCommit", committing(group, topic, topic_id) | {"topics": []}, (2, 10))
    for kind, more in {
        "a member": {"member_id": "nobody"},
        "a generation": {"generation_id": 3, "generation_id_or_member_epoch": 3, "member_id": "nobody"},
        "a generation alone": {"generation_id": 3, "generation_id_or_member_epoch": 3},
        "static": {"group_instance_id": "i"},
        "retention": {"retention_time_ms": 5},
    }.items():
        fields = committing(group, topic, topic_id, (1, 1), **more)
        peer.each(kind, "OffsetCommit", fields, (2, 7, 8, 9, 10))
        fields = committing(peer.name(f"new {kind}"), topic, topic_id, (1, 1), **more)
        peer.each(f"{kind}, new group", "OffsetCommit", fields, (2, 8, 9, 10))
    peer.each("no group", "OffsetCommit", committing("", topic, topic_id, (0, 1)), (2, 7, 10))
    long = committing(group, topic, topic_id, (1, 1))
    long["topics"][0]["partitions"][0]["committed_metadata"] = "m" * 4097
    peer.each("long metadata", "OffsetCommit", long, (2, 10))
    long["topics"][0]["partitions"][0]["committed_metadata"] = None
    peer.each("null metadata", "OffsetCommit", long, (2, 10))
    peer.each("after", "OffsetFetch", fetching(group, topic, topic_id, 0, 1, 2, 9, -1))
    peer.each("twice", "OffsetFetch", fetching(group, topic, topic_id, 0, 0), (1, 7, 8, 9, 10))
    missing = fetching(group, peer.name("no"), UUID(int=7), 0)
    peer.each("missing topic", "OffsetFetch", missing, (1, 7, 8, 9, 10))
    everything = fetching(group, topic, topic_id)
    everything["topics"] = everything["groups"][0]["topics"] = None
    peer.each("everything", "OffsetFetch", everything, range(2, 11))
    nothing = fetching(group, topic, topic_id)
    nothing["topics"] = nothing["groups"][0]["topics"] = []
    peer.each("nothing", "OffsetFetch", nothing)
    peer.each("missing group", "OffsetFetch", fetching(peer.name("no"), topic, topic_id, 0))
    peer.each("no group", "OffsetFetch", fetching("", topic, topic_id, 0))
    member = fetching(group, topic, topic_id, 0)
    for name, epoch in (("nobody", -1), ("nobody", 3), (None, 3), ("", -1), ("", 0)):
        member["groups"][0] |= {"member_id": name, "member_epoch": epoch}
        peer.each(f"member {name!r} epoch {epoch}", "OffsetFetch", member, (9, 10))
    peer.each("described", "DescribeGroups", groups_fields(group), (0, 5, 6))
    for kind, named, index in (
        ("one", topic, 1),
        ("again", topic, 1),
        ("partition 9", topic, 9),
        ("missing topic", peer.name("no"), 0),
        ("no topic", "", 0),
    ):
        partitions = [{"partition_index": index}]
        peer.ask(kind, "OffsetDelete", group_id=group, topics=[{"name": named, "partitions": partitions}])
    for name in (peer.name("no"), ""):
        topics = [{"name": topic, "partitions": [{"partition_index": 0}]}]
        peer.ask(f"group {name.replace(peer.prefix, '')!r}", "OffsetDelete", group_id=name, topics=topics)
    peer.ask("nothing", "OffsetDelete", group_id=group, topics=[])
    peer.each("nothing", "DeleteGroups", {"groups_names": []})
    peer.ask("one", "DeleteGroups", 2, groups_names=[group])
    peer.ask("after that", "OffsetFetch", 8, **fetching(group, topic, topic_id, 0))


def producer_ids(peer: Peer) -> None:
    usual = {
        "transactional_id": None,
        "transaction_timeout_ms": 1000,
        "producer_id": -1,
        "producer_epoch": -1,
        "enable_2_pc": False,
        "keep_prepared_txn": False,
    }
    peer.each("one", "InitProducerId", usual)
    peer.each("timeout 0", "InitProducerId", usual | {"transaction_timeout_ms": 0})
    for producer, epoch in ((5, 1), (5, -1), (-1, 1), (-2, -2), (2**62, 3)):
        fields = usual | {"producer_id": producer, "producer_epoch": epoch}
        answer = peer.send("InitProducerId", 5, fields)
        peer.transcript[f"InitProducerId: of {producer} {epoch}"] = {5: answer.error_code}


def groups_without_offsets(peer: Peer) -> None:
    """Groups that came to be with an offset stay when it is gone, whoever fails to join them."""
    topic_id = peer.create("kept")
    topic = peer.name("kept")
    for kind in ("one who is nobody", "one who comes and goes"):
        group = peer.name(kind)
        peer.send("OffsetCommit", 8, committing(group, topic, topic_id, (0, 5)))
        one = {"name": topic, "partitions": [{"partition_index": 0}]}
        peer.ask(f"the last, {kind}", "OffsetDelete", group_id=group, topics=[one])
        peer.ask(f"without, {kind}", "DescribeGroups", 5, **groups_fields(group))
        if kind == "one who is nobody":
            peer.ask(kind, "JoinGroup", 5, **joining(group, "nobody"))
        else:
            member = peer.send("JoinGroup", 5, joining(group)).member_id
            leaving = [{"member_id": member, "group_instance_id": None}]
            peer.send("LeaveGroup", 3, {"group_id": group, "members": leaving})
        peer.ask(f"behind {kind}", "DescribeGroups", 5, **groups_fields(group))
        peer.ask(f"behind {kind}", "DeleteGroups", groups_names=[group])
        peer.ask(f"behind {kind}, again", "DeleteGroups", groups_names=[group])
    for kind, member in {"nobody": "nobody", "somebody": ""}.items():
        group = peer.name(f"new {kind}")
        peer.send("JoinGroup", 5, joining(group, member))
        peer.ask(f"new to {kind}", "DescribeGroups", 5, **groups_fields(group))


SEQUENCES = (
    coordinators,
    members,
    committed_offsets,
    producer_ids,
    groups_without_offsets,
)
