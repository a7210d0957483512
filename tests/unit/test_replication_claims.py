"""Requests in a replica's name: what its present registration sends counts, on the listener for nodes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from admin_support import Client, code, create, new_topic
from test_broker_fetch import fetch, wants
from test_metadata_store_contract import ManualClock
from test_replication_handlers import batch, lagging, list_offset

from measuring import HANG_S
from ottla.broker.api.records.fetch import asked, handler
from ottla.config import BrokerConfig
from ottla.env.network import TcpNetwork
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.image import EMPTY, BrokerImage, ClusterImage
from ottla.node import Node, NodeSettings
from ottla.replication.claims import NOBODY, REFUSALS_UNSAID_MAX, SAID_MS_MIN, Claims
from ottla.replication.fetchers import Fetchers
from ottla.replication.partition import Partition

KEY, OTHER_KEY = 1 << 62 | 5, 1 << 62 | 6
EPOCH = 9


def node(node_id: int = 2, epoch: int = EPOCH, **more: Any) -> BrokerImage:
    return BrokerImage(node_id, "h", 1, None, epoch, {"PLAINTEXT": ("h", 1)}, **more)


def image(*brokers: BrokerImage) -> ClusterImage:
    return replace(EMPTY, brokers={broker.node_id: broker for broker in brokers})


# The rule -------------------------------------------------------------------------------------------------


def test_the_present_registration_s_key_shows_who_asks() -> None:
    claims = Claims(ManualClock(), "PLAINTEXT", several=False)
    with_key, without = image(node(fetch_key=KEY)), image(node())

    def epoch(known: ClusterImage | None, claim: int, node_id: int = 2) -> int:
        return claims.follower_epoch(known, node_id, claim, "PLAINTEXT", "host")

    assert epoch(with_key, KEY) == EPOCH
    guesses = (EPOCH - 1, EPOCH, EPOCH + 1, OTHER_KEY, 0, -1, 1 << 60, (1 << 63) - 1)
    assert [epoch(with_key, guess) for guess in guesses] == [NOBODY] * len(guesses)
    # A node of the release before has no key, and shows its epoch: exactly that.
    assert epoch(without, EPOCH) == EPOCH
    assert [epoch(without, guess) for guess in (EPOCH - 1, EPOCH + 1, KEY, 0, -1)] == [NOBODY] * 5
    # Who is not registered is nobody, and so is everybody before there is an image.
    assert (epoch(with_key, KEY, 3), epoch(with_key, 0, 3), epoch(None, KEY)) == (NOBODY,) * 3


@pytest.mark.parametrize(
    ("own", "several", "peer", "listener", "allowed"),
    [
        ("INTERNAL", True, "INTERNAL", "INTERNAL", True),
        ("INTERNAL", True, "INTERNAL", "EXTERNAL", False),
        ("INTERNAL", True, None, "EXTERNAL", False),
        # The other node is already told of another listener among nodes, or not yet.
        ("INTERNAL", True, "REPLICATION", "REPLICATION", True),
        ("INTERNAL", True, "REPLICATION", "INTERNAL", True),
        ("INTERNAL", True, "REPLICATION", "EXTERNAL", False),
        # Where there is one, everything comes by it.
        ("INTERNAL", False, "REPLICATION", "INTERNAL", True),
    ],
)
def test_replicas_use_the_listener_for_nodes(
    own: str, several: bool, peer: str | None, listener: str, allowed: bool
) -> None:
    claims = Claims(ManualClock(), own, several=several)
    known = image(node(fetch_key=KEY, peer_listener=peer))
    for check in (
        lambda: claims.follower_epoch(known, 2, KEY, listener, "host"),
        lambda: claims.check_listener(known, 2, listener, "host"),
    ):
        if allowed:
            check()
        else:
            with pytest.raises(KafkaError) as refused:
                check()
            assert refused.value.code is ErrorCode.topic_authorization_failed


@pytest.mark.parametrize("listener", ["INTERNAL", "EXTERNAL"])
def test_refusals_are_told_of_once_in_a_while(caplog: pytest.LogCaptureFixture, listener: str) -> None:
    clock = ManualClock()
    claims = Claims(clock, "INTERNAL", several=True)

    def refuse(count: int) -> int:
        caplog.clear()
        for number in range(count):
            try:
                assert claims.follower_epoch(image(node(fetch_key=KEY)), 2, number, listener, "10.1.1.1") < 0
            except KafkaError:
                assert listener == "EXTERNAL"
        return len(caplog.messages)

    with caplog.at_level(logging.WARNING):
        assert refuse(REFUSALS_UNSAID_MAX) == 0
        assert refuse(1_000) == 1
        assert "10.1.1.1 in the name of node 2" in caplog.messages[0] and str(KEY) not in caplog.text
        assert refuse(1_000) == 0
        clock.advance(SAID_MS_MIN)
        # Those of long ago do not count with those of now.
        assert refuse(REFUSALS_UNSAID_MAX) == 0
        assert refuse(1) == 1


def test_a_follower_shows_its_key_to_those_who_know_of_keys() -> None:
    registered = [EPOCH]
    clock: Any = ManualClock()
    fetchers = Fetchers(1, TcpNetwork(), clock, BrokerConfig({}), lambda: registered[0], "PLAINTEXT")
    assert fetchers.claim(2) == NOBODY
    own = node(1, fetch_key=KEY)
    fetchers.apply(None, image(own, node(2, 7, fetch_key=OTHER_KEY), node(3, 8)))
    assert [fetchers.claim(leader) for leader in (2, 3, 4)] == [KEY, EPOCH, NOBODY]
    # The image shows another registration of this node than the one that it has.
    registered[0] = EPOCH + 1
    assert [fetchers.claim(leader) for leader in (2, 3)] == [NOBODY, NOBODY]


def test_a_key_is_not_shown_where_an_image_is_printed() -> None:
    assert str(KEY) not in repr(image(node(fetch_key=KEY)))


# A whole broker -------------------------------------------------------------------------------------------


def register(client: Client, broker: BrokerImage) -> None:
    replicas = client.node.services.replicas
    assert replicas._image is not None
    replicas._image = replace(replicas._image, brokers={**replicas._image.brokers, broker.node_id: broker})


async def follow(client: Client, it: Partition, claim: int, offset: int = 6, version: int = 17) -> str:
    asked = wants("t", 0, fetch_offset=offset, current_leader_epoch=5, last_fetched_epoch=5)
    asked["topic_id"] = it.topic_id
    replica: Mapping[str, Any] = {"replica_state": {"replica_id": 2, "replica_epoch": claim}}
    if version < 15:
        replica = {"replica_id": 2}
    answer = await fetch(client, asked, version=version, max_wait_ms=120_000, min_bytes=0, **replica)
    (partition,) = answer["responses"][0]["partitions"]
    assert not partition["records"]
    return code(partition)


def test_a_forged_fetch_counts_for_nothing(tmp_path: Path) -> None:
    async def body(client: Client, it: Partition) -> None:
        register(client, node(fetch_key=KEY))
        assert it.leading is not None
        follower = it.leading.followers[2]
        for claim in (1 << 60, EPOCH, EPOCH + 1, 0, -1, OTHER_KEY):
            assert await follow(client, it, claim) == "not_leader_or_follower"
            # Neither taken for progress, nor in the way of whom it is the name of.
            assert (it.high_watermark, follower.log_end_offset, follower.broker_epoch) == (2, -1, -1)
        assert await follow(client, it, KEY, version=14) == "not_leader_or_follower"
        # It is a matter of the image: what is not known yet may be so in a moment.
        register(client, node(epoch=EPOCH + 1, fetch_key=OTHER_KEY))
        assert await follow(client, it, KEY) == "not_leader_or_follower"
        assert (it.high_watermark, follower.log_end_offset) == (2, -1)
        assert await follow(client, it, OTHER_KEY, offset=6) == "none"
        assert (it.high_watermark, follower.log_end_offset, follower.broker_epoch) == (6, 6, EPOCH + 1)

    lagging(tmp_path, body)


def test_the_node_with_the_id_0_follows_like_any_other(tmp_path: Path) -> None:
    """It is told of what is not committed yet, as soon as it is there."""

    async def body(client: Client, it: Partition) -> None:
        register(client, node(0, fetch_key=KEY))
        it.apply(replace(it.state, replicas=(1, 0), isr=(1, 0), leader_epoch=6, partition_epoch=6))
        asked = wants("t", 0, fetch_offset=6, current_leader_epoch=6, last_fetched_epoch=5)
        asked["topic_id"] = it.topic_id
        state = {"replica_id": 0, "replica_epoch": KEY}
        waiting = asyncio.create_task(
            fetch(client, asked, version=17, replica_state=state, session_epoch=-1, max_wait_ms=120_000)
        )
        assert it.leading is not None
        while it.leading.followers[0].log_end_offset != 6:
            await asyncio.sleep(0.001)
        # The commit of what it has wakes whoever waits.
        await asyncio.sleep(0.01)
        it.append(batch(7_000), now_ms=0)
        answer = (await asyncio.wait_for(waiting, HANG_S))["responses"][0]["partitions"][0]
        assert (code(answer), it.high_watermark) == ("none", 6) and answer["records"]

    lagging(tmp_path, body)


def test_a_forged_fetch_takes_nobody_s_session(tmp_path: Path) -> None:
    """Followers may have a consumer's place in a full cache: those that are followers."""

    async def body(client: Client, it: Partition) -> None:
        register(client, node(fetch_key=KEY))
        sessions = client.node.services.fetch_sessions
        sessions._slots_max = 1

        async def begin(claim: int) -> int:
            asked = wants("t", 0, fetch_offset=6, current_leader_epoch=5) | {"topic_id": it.topic_id}
            state = {"replica_id": 2 if claim else -1, "replica_epoch": claim}
            answer = await fetch(client, asked, version=17, replica_state=state, session_epoch=0)
            session_id: int = answer["session_id"]
            return session_id

        consumer = await begin(0)
        assert consumer
        assert [await begin(claim) for claim in (EPOCH, -1, OTHER_KEY)] == [0, 0, 0]
        assert list(sessions._sessions) == [consumer]
        follower = await begin(KEY)
        assert follower and list(sessions._sessions) == [follower]

    lagging(tmp_path, body)


TWO_LISTENERS = {
    "listeners": "PLAINTEXT://127.0.0.1:0,EXTERNAL://127.0.0.1:0",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,EXTERNAL:PLAINTEXT",
}


@pytest.mark.parametrize("pieces", [500, 0])
@pytest.mark.parametrize("listener", ["PLAINTEXT", "EXTERNAL"])
def test_a_replica_is_not_believed_where_clients_come_in(
    tmp_path: Path, listener: str, pieces: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither where it asks for so much that it is answered in pieces."""
    if not pieces:
        monkeypatch.setattr(handler, "PIECE", 0)
        monkeypatch.setattr(asked, "PIECE", 0)

    async def main() -> None:
        made = Node(NodeSettings(data=str(tmp_path), properties=TWO_LISTENERS))
        await made.start()
        (server,) = (server for server in made._listeners.servers if server.listener == listener)
        assert server._bound is not None
        client = Client(made, *await asyncio.open_connection(*server._bound.address))
        try:
            await asyncio.wait_for(body(client, refused=listener == "EXTERNAL"), HANG_S)
        finally:
            client.close()
            await made.stop()

    async def body(client: Client, *, refused: bool) -> None:
        await create(client, new_topic("t"))
        it = client.node.services.replicas.get("t", 0)
        register(client, node(fetch_key=KEY))
        it.apply(replace(it.state, replicas=(1, 2), isr=(1, 2), leader_epoch=5, partition_epoch=5))
        expected = "topic_authorization_failed" if refused else "none"
        asked = wants("t", 0, current_leader_epoch=5) | {"topic_id": it.topic_id}
        state = {"replica_id": 2, "replica_epoch": KEY}
        answer = await fetch(client, asked, version=17, replica_state=state, session_epoch=0)
        assert code(answer["responses"][0]["partitions"][0]) == expected
        assert (answer["session_id"] == 0) == refused
        assert it.leading is not None
        assert it.leading.followers[2].log_end_offset == (-1 if refused else 0)
        # What changes nothing is not answered there either; consumers and who debugs are.
        found = await list_offset(client, -1, replica_id=2)
        assert found == (expected if refused else 0)
        assert [await list_offset(client, -1, replica_id=who) for who in (-1, -2)] == [0, 0]
        for replica_id in (2, -1):
            where = {"partition": 0, "current_leader_epoch": -1, "leader_epoch": 0}
            fields = {"replica_id": replica_id, "topics": [{"topic": "t", "partitions": [where]}]}
            answer = await client.ask("OffsetForLeaderEpoch", 4, fields)
            found = code(answer["topics"][0]["partitions"][0])
            assert found == (expected if refused and replica_id == 2 else "none")

    asyncio.run(main())
