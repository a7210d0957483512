"""A follower to which nothing happens asks less often, and not where it would hear of anything later."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from admin_support import Client, run
from log_support import NOW_MS
from replication_support import Asked, answer_of
from test_broker_fetch import FETCH, batch, wants
from test_broker_fetch_news import FOLLOWER, Peer
from test_replication_follower import EPOCH, Bench, batches
from test_replication_follower import run as follow

from measuring import HANG_S
from ottla.metadata.image import PartitionState
from ottla.replication import followed, quiet
from ottla.replication.partition import Partition
from ottla.wire.apis import API_VERSIONS
from ottla.wire.apis import FETCH as FETCH_KEY


async def waits(bench: Bench, asked: Asked, count: int = quiet.ANSWERS_MIN + 2) -> list[int]:
    """How long its requests wait while nothing is answered to them; the last one is not answered yet."""
    found = []
    for _ in range(count):
        found.append(asked.request.max_wait_ms)
        bench.leader.answer(asked)
        asked = await bench.leader.asked()
    bench.last = asked  # type: ignore[attr-defined]
    return [*found, asked.request.max_wait_ms]


async def quieten(bench: Bench, *names: str) -> tuple[Asked, list[Partition]]:
    asked, made = await bench.established(*names)
    assert (await waits(bench, asked))[-1] == 5_000
    return bench.last, made  # type: ignore[attr-defined]


def test_requests_wait_longer_after_some_that_told_nothing() -> None:
    async def body(bench: Bench) -> None:
        asked, _ = await bench.established()
        assert await waits(bench, asked, 7) == [500] * 4 + [5_000] * 4
        bench.leader.answer(bench.last, answer_of("t", batches(1), 1))  # type: ignore[attr-defined]
        asked = await bench.leader.asked()
        assert (asked.partitions["t"]["offset"], asked.request.max_wait_ms) == (1, 500)
        assert await waits(bench, asked, 6) == [500] * 4 + [5_000] * 3

    follow(body)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # A leader does not take a follower for one that has gone,
        ({"replica_lag_time_max_ms": "6000"}, 1_000),
        ({"replica_lag_time_max_ms": "2000"}, 500),
        # nor a follower its leader.
        ({"replica_socket_timeout_ms": "9000"}, 1_500),
        ({"replica_fetch_wait_max_ms": "40"}, 400),
        # Then it would not hear of the first record.
        ({"replica_fetch_min_bytes": "2"}, 500),
    ],
)
def test_how_long_they_wait(settings: dict[str, str], expected: int) -> None:
    async def body(bench: Bench) -> None:
        asked, _ = await bench.established()
        assert (await waits(bench, asked))[-1] == expected

    follow(body, **settings)


@pytest.mark.parametrize("what", ["commit", "isr"])
def test_who_has_still_something_to_hear_asks_as_before(what: str) -> None:
    async def body(bench: Bench) -> None:
        asked, (_, odd) = await bench.established("t", "u")
        if what == "commit":
            bench.leader.answer(asked, answer_of("u", batches(1), 0))
            asked = await bench.leader.asked()
        else:
            odd.apply(PartitionState(2, EPOCH, 1, (1, 2), (2,)))
        assert await waits(bench, asked, 9) == [500] * 10
        asked = bench.last  # type: ignore[attr-defined]
        # Heard of by another way.
        odd.append_as_follower(b"", 1, 0, NOW_MS)
        odd.apply(PartitionState(2, EPOCH, 2, (1, 2), (1, 2)))
        assert (await waits(bench, asked, 3))[-1] == 5_000

    follow(body)


def test_of_many_some_are_looked_at_after_each_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(followed, "SETTLED_AT_ONCE_MAX", 1)

    async def body(bench: Bench) -> None:
        asked, (_, odd, _) = await bench.established("t", "u", "v")
        odd.apply(PartitionState(2, EPOCH, 1, (1, 2), (2,)))
        assert await waits(bench, asked, 8) == [500] * 9
        odd.apply(PartitionState(2, EPOCH, 2, (1, 2), (1, 2)))
        assert await waits(bench, bench.last, 3) == [500, 500, 5_000, 5_000]  # type: ignore[attr-defined]
        bench.leader.answer(bench.last, answer_of("t", batches(1), 1))  # type: ignore[attr-defined]
        # All of them anew.
        assert await waits(bench, await bench.leader.asked(), 7) == [500] * 6 + [5_000] * 2

    follow(body)


def test_what_is_new_to_follow_does_not_wait() -> None:
    """The leader answers the request that waits, since another one follows it."""

    async def body(bench: Bench) -> None:
        asked, _ = await quieten(bench)
        bench.partition("new")
        bench.partition("newer")
        nudge = await bench.leader.asked()
        assert nudge.header.api_key == API_VERSIONS
        await bench.leader.silence(20)
        bench.leader.answer(asked)
        bench.leader.reply(nudge, {"error_code": 0, "api_keys": []})
        asked = await bench.leader.asked()
        assert asked.header.api_key == FETCH_KEY and set(asked.partitions) == {"new", "newer"}
        assert asked.request.max_wait_ms == 500
        # Where it waits no longer than it always does, the new one does, too.
        bench.partition("newest")
        await bench.leader.silence(20)

    follow(body)


def test_who_is_out_of_an_isr_does_not_wait_either() -> None:
    """It is back when it asks again, with its present registration."""

    async def body(bench: Bench) -> None:
        asked, (partition,) = await quieten(bench)
        partition.apply(PartitionState(2, EPOCH, 2, (1, 2), (1, 2)))
        bench.fetcher.follow(partition)
        await bench.leader.silence(20)
        partition.apply(PartitionState(2, EPOCH, 3, (1, 2), (2,)))
        bench.epoch += 1
        bench.fetcher.follow(partition)
        nudge = await bench.leader.asked()
        assert nudge.header.api_key == API_VERSIONS
        bench.leader.answer(asked)
        bench.leader.reply(nudge, {"error_code": 0, "api_keys": []})
        asked = await bench.leader.asked()
        assert asked.request.replica_state.replica_epoch == bench.epoch
        assert await waits(bench, asked, 6) == [500] * 7

    follow(body)


@pytest.mark.parametrize("lets_it_wait", [True, False])
def test_a_leader_that_cannot_be_hurried_is_asked_as_before(
    lets_it_wait: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one that was late for once, as any may be."""
    monkeypatch.setattr(quiet, "HURRIED_MS_MAX", 20)
    short_ms, long_ms = (15, 150) if lets_it_wait else (500, 5_000)

    async def body(bench: Bench) -> None:
        asked, _ = await bench.established()
        assert (await waits(bench, asked))[-1] == long_ms
        asked = bench.last  # type: ignore[attr-defined]
        bench.partition("new")
        nudge = await bench.leader.asked()
        await asyncio.sleep(0.16 if lets_it_wait else 0.04)
        bench.leader.answer(asked)
        bench.leader.reply(nudge, {"error_code": 0, "api_keys": []})
        asked = await bench.leader.asked()
        bench.leader.answer(asked, answer_of("new"))
        found = (await waits(bench, await bench.leader.asked(), 8))[-1]
        assert found == (short_ms if lets_it_wait else long_ms)
        # Another process may answer there after that.
        bench.leader.link.drop()
        asked = await bench.leader.asked()
        bench.leader.answer(asked, answer_of("t"), answer_of("new"))
        assert (await waits(bench, await bench.leader.asked()))[-1] == long_ms

    follow(body, replica_fetch_wait_max_ms=str(short_ms))


def test_a_follower_s_request_that_waits_is_answered_when_another_comes(tmp_path: Path) -> None:
    """A consumer's is not: it said how long it is to wait."""

    async def body(client: Client) -> None:
        peer = Peer(client)
        await peer.begin()
        for replica_id, is_follower in ((FOLLOWER, True), (-1, False)):
            await peer.ask(replica_id, wants("t", 0, current_leader_epoch=5))
            more: dict[str, Any] = {
                "topics": [],
                "max_wait_ms": 120_000,
                "replica_state": {"replica_id": replica_id, "replica_epoch": 7 if is_follower else -1},
                "session_id": peer.sessions[replica_id],
                "session_epoch": peer.epochs[replica_id],
            }
            client.send("Fetch", 17, FETCH | more)
            await asyncio.sleep(0.05)
            client.send("ApiVersions", 0)
            receiving = asyncio.ensure_future(client.receive("Fetch", 17))
            if not is_follower:
                await asyncio.sleep(0.05)
                assert not receiving.done()
                peer.partitions[0].append(batch(b"v"), now_ms=1)
                peer.partitions[0].high_watermark = 1
                peer.partitions[0].wake()
            answer = await asyncio.wait_for(receiving, HANG_S)
            assert bool(answer["responses"]) is not is_follower
            assert await client.receive("ApiVersions", 0)
            # Also where both come in one piece.
            if is_follower:
                more["session_epoch"] += 1
                client.send("Fetch", 17, FETCH | more)
                client.send("ApiVersions", 0)
                assert await asyncio.wait_for(client.receive("Fetch", 17), HANG_S)
                assert await client.receive("ApiVersions", 0)

    run(tmp_path, body)
