"""What Metadata responses are made of is kept while it holds, and no longer; clients are told the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from admin_support import NO_ID, Client, code, create, new_topic, run, versions
from budget_support import Watch, ask

from ottla.broker import kept_topics
from ottla.broker.api.topics import metadata as handler
from ottla.broker.kept_topics import ENTRY_BYTES, KeptTopics
from ottla.broker.views.topics import EncodedTopics, encoded_topics
from ottla.metadata import keys
from ottla.metadata.store import Delete
from ottla.wire.codec import PIECE


def fields(*names: str | None, **more: Any) -> dict[str, Any]:
    """Of all topics where the one name is None."""
    topics = None if names == (None,) else [{"name": name, "topic_id": NO_ID} for name in names]
    return {
        "topics": topics,
        "allow_auto_topic_creation": False,
        "include_cluster_authorized_operations": False,
        "include_topic_authorized_operations": False,
    } | more


def kept(client: Client, name: str, version: int = 12) -> bytes | None:
    """A topic's bytes, if they need not be made."""
    view = of(client, version)
    return view.kept(view.image.topics[name])


def of(client: Client, version: int = 12, listener: str = "PLAINTEXT") -> EncodedTopics:
    services = client.node.services
    return encoded_topics(services.topics, services.metadata, listener, version)


async def partitions(client: Client, name: str, version: int = 12) -> list[tuple[int, int, list[int]]]:
    (topic,) = (await client.ask("Metadata", version, fields(name)))["topics"]
    return [(p["partition_index"], p["leader_id"], p["replica_nodes"]) for p in topic["partitions"]]


def test_a_topic_is_written_once_for_each_version_until_it_changes(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("a"), new_topic("b"))
        assert kept(client, "a") is None
        await partitions(client, "a")
        await partitions(client, "b")
        first, other = kept(client, "a"), kept(client, "b")
        assert first and other and kept(client, "a", 9) is None
        await partitions(client, "a")
        assert kept(client, "a") is first
        # Another topic comes: this one is as it was.
        await create(client, new_topic("c"))
        assert kept(client, "a") is first and kept(client, "c") is None
        more = {"name": "a", "count": 3, "assignments": None}
        await client.ask(
            "CreatePartitions", 3, {"topics": [more], "timeout_ms": 1000, "validate_only": False}
        )
        assert kept(client, "a") is None and kept(client, "b") is other
        me = client.node.node_id
        assert await partitions(client, "a") == [(index, me, [me]) for index in range(3)]

    run(tmp_path, body)


def test_nothing_that_names_other_brokers_is_kept(tmp_path: Path) -> None:
    """Whether a partition's leader is there is part of what is told of it."""

    async def body(client: Client) -> None:
        controller = client.node.services.metadata.controller
        await controller.register_broker(9, {"PLAINTEXT": ("other", 1)}, None, is_controller=False)
        await create(client, new_topic("a", -1, -1, assignments=[{"partition_index": 0, "broker_ids": [9]}]))
        for version in versions("Metadata"):
            assert await partitions(client, "a", version) == [(0, 9, [9])]
        await controller._commit([], [Delete(keys.broker(9))])
        for version in versions("Metadata"):
            (partition,) = (await client.ask("Metadata", version, fields("a")))["topics"][0]["partitions"]
            assert (code(partition), partition["leader_id"]) == ("leader_not_available", -1)

    run(tmp_path, body)


@pytest.mark.parametrize("version", versions("Metadata"))
def test_all_topics_are_those_that_there_are(tmp_path: Path, version: int) -> None:
    """Put together once, and again when one comes, changes or goes."""

    async def told(client: Client) -> dict[str, int]:
        everything = fields(None) if version else fields()
        answers = [await client.ask("Metadata", version, everything) for _ in range(3)]
        assert answers[0] == answers[1] == answers[2]
        assert of(client, version).all is not None
        assert answers[0]["topics"] == [
            topic
            for name in of(client, version).image.topics
            for topic in (await client.ask("Metadata", version, fields(name)))["topics"]
        ]
        return {topic["name"]: len(topic["partitions"]) for topic in answers[0]["topics"]}

    async def body(client: Client) -> None:
        await create(client, *(new_topic(f"t-{index}") for index in range(handler.AT_ONCE_MAX + 1)))
        expected = {f"t-{index}": 1 for index in range(handler.AT_ONCE_MAX + 1)}
        assert await told(client) == expected
        await create(client, new_topic("u", 2))
        assert await told(client) == expected | {"u": 2}
        gone = {"topics": [{"name": "t-7", "topic_id": NO_ID}], "topic_names": ["t-7"], "timeout_ms": 1000}
        await client.ask("DeleteTopics", 6, gone)
        del expected["t-7"]
        assert await told(client) == expected | {"u": 2}

    run(tmp_path, body)


@pytest.mark.parametrize("version", range(8, 14))
def test_operations_are_told_of_all_topics_to_whom_asks_for_them(tmp_path: Path, version: int) -> None:
    async def body(client: Client) -> None:
        await create(client, *(new_topic(f"t-{index}") for index in range(300)))
        for wanted in (False, True, False):
            asked = fields(None, include_topic_authorized_operations=wanted)
            topics = (await client.ask("Metadata", version, asked))["topics"]
            assert len(topics) == 300
            (operations,) = {topic["topic_authorized_operations"] for topic in topics}
            assert (operations > 0) is wanted

    run(tmp_path, body)


def test_a_topic_of_many_partitions_is_written_in_pieces_the_first_time(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("t", 1_500))
        for topics in (None, [{"name": "t", "topic_id": None}]):
            client.node.services.topics._tables.clear()
            client.node.services.metadata.views.clear()
            asked = {"topics": topics, "allow_auto_topic_creation": False}
            asked["include_topic_authorized_operations"] = False
            with Watch() as watch:
                first = await ask(client.node, "Metadata", 12, asked)
            steps = watch.steps
            with Watch() as watch:
                again = await ask(client.node, "Metadata", 12, asked)
            assert watch.steps < steps and steps > 1_500 // PIECE
            assert first == again and len(first.topics[0].partitions) == 1_500

    run(tmp_path, body)


def test_what_is_kept_has_a_limit(tmp_path: Path) -> None:
    """The table that was taken up least recently gives way; where one alone is too large, the rest of it is
    not kept."""

    async def body(client: Client) -> None:
        names = [f"t-{index}" for index in range(6)]
        await create(client, *map(new_topic, names))
        answers = [await client.ask("Metadata", version, fields(None)) for version in (9, 12)]
        entry = len(kept(client, "t-0") or b"") + ENTRY_BYTES
        client.node.services.topics = topics = KeptTopics(bytes_max=4 * entry)
        client.node.services.metadata.views.clear()
        assert await client.ask("Metadata", 9, fields(*names[:3])) and topics.kept_bytes > 2 * entry
        assert await client.ask("Metadata", 12, fields(names[5])) and kept(client, names[0], 9)
        assert await client.ask("Metadata", 12, fields(*names[:3])) and not kept(client, names[0], 9)
        assert kept(client, names[5]) and topics.kept_bytes == 4 * entry
        assert [await client.ask("Metadata", version, fields(None)) for version in (9, 12)] == answers
        assert not kept(client, names[4]) and of(client).all is None
        assert topics.kept_bytes <= 4 * entry

    run(tmp_path, body)


def test_topics_that_are_gone_are_not_kept_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_topics, "GONE_MAX", 2)

    async def body(client: Client) -> None:
        table = of(client)._table
        for index in range(20):
            name = f"t-{index}"
            await create(client, new_topic(name))
            await partitions(client, name)
            gone = {"topics": [{"name": name, "topic_id": NO_ID}], "timeout_ms": 1000}
            await client.ask("DeleteTopics", 6, gone)
            assert of(client)._table is table and len(table.entries) <= 3
        await partitions(client, "t-0")
        table.clear()
        assert not table.kept_bytes

    run(tmp_path, body)
