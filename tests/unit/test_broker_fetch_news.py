"""Partitions of which a session's client knows all are passed over: nobody is told less than without that."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from admin_support import Client, create, new_topic, run
from test_broker_fetch import batch, fetch, wants

from ottla.broker.api.records.fetch import asked, handler, large, session
from ottla.broker.api.records.fetch.reader import Reader
from ottla.metadata.image import BrokerImage, PartitionState
from ottla.replication.partition import Partition

PARTITIONS = 3
STEPS = 400
FOLLOWER = 2
VERSION = 17


class Peer:
    """A broker, and two that fetch from it in sessions: a consumer and a follower."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.partitions: list[Partition] = []
        self.epochs = dict.fromkeys((-1, FOLLOWER), 0)
        self.sessions = dict.fromkeys((-1, FOLLOWER), 0)

    async def begin(self) -> None:
        await create(self.client, new_topic("t", PARTITIONS))
        for index in range(PARTITIONS):
            it = self.client.node.services.replicas.get("t", index)
            it.apply(PartitionState(1, 5, 1, (1, 2), (1, 2)))
            self.partitions.append(it)
        replicas = self.client.node.services.replicas
        assert replicas._image is not None
        known = {**replicas._image.brokers, FOLLOWER: BrokerImage(FOLLOWER, "h", 1, None, 7)}
        replicas._image = replace(replicas._image, brokers=known)

    async def ask(self, replica_id: int, *topics: dict[str, Any]) -> Any:
        """What a fetch in the session is told."""
        topic_id = self.partitions[0].topic_id
        answer = await fetch(
            self.client,
            *(topic | {"topic_id": topic_id} for topic in topics),
            version=VERSION,
            replica_state={"replica_id": replica_id, "replica_epoch": 7 if replica_id == FOLLOWER else -1},
            session_id=self.sessions[replica_id],
            session_epoch=self.epochs[replica_id],
        )
        self.sessions[replica_id] = answer.pop("session_id")
        self.epochs[replica_id] += 1
        # The two brokers have different ports and topic ids.
        answer.pop("node_endpoints")
        for topic in answer["responses"]:
            assert topic.pop("topic_id") == topic_id
            # What is due is served first.
            topic["partitions"].sort(key=lambda one: one["partition_index"])
        return answer

    def change(self, step: str, index: int) -> None:
        it = self.partitions[index]
        if step == "append" and it.leading is not None:
            it.append(batch(b"v"), now_ms=1)
        elif step == "delete" and it.leading is not None:
            it.log.advance_log_start(it.high_watermark)
            it.wake()
        elif step == "epoch":
            later = replace(it.state, leader_epoch=it.leader_epoch + 1)
            it.apply(replace(later, partition_epoch=it.state.partition_epoch + 1))
        elif step == "leader":
            leader = 1 if it.leading is None else 2
            later = replace(it.state, leader=leader, leader_epoch=it.leader_epoch + 1)
            it.apply(replace(later, partition_epoch=it.state.partition_epoch + 1))


def position(peer: Peer, replica_id: int, index: int, rng: random.Random) -> dict[str, Any]:
    """Mostly where a reader stands that has everything."""
    it = peer.partitions[index]
    end = it.log.log_end_offset if replica_id == FOLLOWER else it.high_watermark
    epoch = it.leader_epoch if replica_id == FOLLOWER else rng.choice((-1, it.leader_epoch))
    last = it.log.latest_epoch if replica_id == FOLLOWER else -1
    offset = end if rng.random() < 0.8 else rng.randrange(end + 2)
    return wants("t", index, fetch_offset=offset, current_leader_epoch=epoch, last_fetched_epoch=last)


@pytest.mark.parametrize(("audited", "piece"), [(100, 500), (1, 500), (0, 500), (0, 1), (100, 2)])
@pytest.mark.parametrize("seed", range(3))
def test_a_client_is_told_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, audited: int, piece: int
) -> None:
    """Also where nothing is looked at but what has changed, as in a large session, and where that is done in
    pieces."""
    monkeypatch.setattr(session, "AUDITED_MAX", audited)
    monkeypatch.setattr(large, "PIECE", piece)
    monkeypatch.setattr(handler, "PIECE", piece)
    monkeypatch.setattr(asked, "PIECE", piece)
    passed_over = Reader._knows_all
    plain: list[Any] = []
    count = [0]

    def knows_all(reader: Reader, want: Any) -> bool:
        known = reader._ctx.services not in plain and passed_over(reader, want)
        count[0] += known
        return known

    monkeypatch.setattr(Reader, "_knows_all", knows_all)

    rng = random.Random(seed)

    async def story(client: Client) -> list[Any]:
        rng.seed(seed)
        peer = Peer(client)
        await peer.begin()
        told = []
        for replica_id in (-1, FOLLOWER):
            everything = [position(peer, replica_id, index, rng) for index in range(PARTITIONS)]
            told.append(await peer.ask(replica_id, *everything))
        for _ in range(STEPS):
            index = rng.randrange(PARTITIONS)
            (step,) = rng.choices(("append", "delete", "epoch", "leader", ""), (9, 3, 1, 1, 6))
            peer.change(step, index)
            replica_id = rng.choice((-1, FOLLOWER))
            asked = [position(peer, replica_id, index, rng)] if rng.random() < 0.6 else []
            told.append(await peer.ask(replica_id, *asked))
        return told

    async def plain_story(client: Client) -> list[Any]:
        plain.append(client.node.services)
        return await story(client)

    expected = run(tmp_path / "plain", plain_story)
    assert count == [0]
    assert run(tmp_path / "short", story) == expected
    assert count[0] > STEPS // 8 or not audited


def test_what_a_fetch_itself_has_led_to_is_in_its_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That a follower has a batch may commit it, whereupon something is appended to another partition, such
    as the end of a transaction: nobody would wake the fetch for it any more."""
    monkeypatch.setattr(session, "AUDIT_EVERY_MS", 10**9)

    async def story(client: Client) -> None:
        peer = Peer(client)
        await peer.begin()
        first, second, _ = peer.partitions

        def at(index: int, offset: int) -> dict[str, Any]:
            epoch = peer.partitions[index].leader_epoch
            return wants("t", index, fetch_offset=offset, current_leader_epoch=epoch, last_fetched_epoch=-1)

        def then(error: object) -> None:
            second.append(batch(b"then"), now_ms=1)

        await peer.ask(FOLLOWER, *(at(index, 0) for index in range(PARTITIONS)))
        first.append(batch(b"first"), now_ms=1)
        await peer.ask(FOLLOWER)
        first.when_committed(1, then)
        told = await peer.ask(FOLLOWER, at(0, 1))
        found = {
            one["partition_index"]: one["records"]
            for topic in told["responses"]
            for one in topic["partitions"]
        }
        assert b"then" in bytes(found[1])

    run(tmp_path, story)
