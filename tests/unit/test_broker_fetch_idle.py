"""Partitions of a session that rest: they cost nothing while nothing happens, and a follower is there all the
same."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from admin_support import Client, create, new_topic, run
from replication_support import LAG_MS_MAX
from test_broker_fetch import batch, fetch, wants
from test_replication_leading import Bench

from ottla.broker.api.records.fetch import session as sessions
from ottla.broker.api.records.fetch.reader import Reader
from ottla.broker.api.records.fetch.session import Session, Want
from ottla.metadata.image import BrokerImage, PartitionState

PARTITIONS, AUDITED = 300, 5
CONSUMER, FOLLOWER = -1, 2


@pytest.mark.parametrize("replica_id", [CONSUMER, FOLLOWER])
def test_a_message_costs_as_much_in_a_large_session_as_in_a_small_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replica_id: int
) -> None:
    monkeypatch.setattr(sessions, "AUDITED_MAX", AUDITED)
    looks = [0]
    for name in ("_knows_all", "_read", "find"):
        whole = getattr(Reader, name)

        def counted(*args: Any, whole: Any = whole) -> Any:
            looks[0] += 1
            return whole(*args)

        monkeypatch.setattr(Reader, name, counted)

    async def body(client: Client) -> None:
        await create(client, new_topic("t", PARTITIONS))
        replicas = client.node.services.replicas
        made = [replicas.get("t", index) for index in range(PARTITIONS)]
        assert replicas._image is not None
        brokers = {**replicas._image.brokers, FOLLOWER: BrokerImage(FOLLOWER, "h", 1, None, 7)}
        replicas._image = replace(replicas._image, brokers=brokers)
        isr = (1, 2) if replica_id == FOLLOWER else (1,)
        for it in made:
            it.apply(PartitionState(1, 5, 1, isr, isr))
        session_id, epoch = 0, 0

        async def ask(*topics: dict[str, Any], max_wait_ms: int = 0) -> list[int]:
            nonlocal session_id, epoch
            answer = await fetch(
                client,
                *(topic | {"topic_id": made[0].topic_id} for topic in topics),
                version=17,
                replica_state={"replica_id": replica_id, "replica_epoch": 7},
                max_wait_ms=max_wait_ms,
                session_id=session_id,
                session_epoch=epoch,
            )
            session_id, epoch = answer["session_id"], epoch + 1
            return [one["partition_index"] for topic in answer["responses"] for one in topic["partitions"]]

        assert len(await ask(wants("t", *range(PARTITIONS), current_leader_epoch=5))) == PARTITIONS
        for _ in range(3):
            assert await ask() == []
        session = client.node.services.fetch_sessions._sessions[session_id]
        assert not session.due
        changed: list[dict[str, Any]] = []
        looks[0] = 0
        for index in (0, 7, 299, 7, 150):
            waiting = asyncio.ensure_future(ask(*changed, max_wait_ms=20_000))
            while session.waiter is None:
                await asyncio.sleep(0.001)
            made[index].append(batch(b"v"), now_ms=1)
            # A follower hears of the last one's high watermark besides.
            assert index in await waiting
            end = made[index].log.log_end_offset
            last = made[index].log.latest_epoch
            changed = [wants("t", index, fetch_offset=end, current_leader_epoch=5, last_fetched_epoch=last)]
        assert looks[0] < 5 * (6 * AUDITED)

    run(tmp_path, body)


def test_a_busy_session_looks_at_what_is_due_and_at_the_rest_from_time_to_time() -> None:
    session = Session(1, False, 0)
    wants = [Want("t", index, 0, 1, 5) for index in range(4)]
    session.update(wants, ())
    session.due.clear()
    assert session.candidates(sessions.AUDIT_EVERY_MS - 1) == []
    session.due[wants[2]] = session.due[wants[1]] = None
    assert session.candidates(sessions.AUDIT_EVERY_MS - 1) == [wants[1], wants[2]]
    assert session.candidates(sessions.AUDIT_EVERY_MS) == wants
    assert session.candidates(sessions.AUDIT_EVERY_MS + 1) == [wants[1], wants[2]]
    assert session.candidates(2 * sessions.AUDIT_EVERY_MS) == wants


def resting(bench: Bench) -> tuple[Session, Want]:
    """Node 2, in sync and at the end, in a session that knows all."""
    bench.append()
    bench.fetch(2, 1)
    bench.fetch(3, 1)
    assert bench.it.leading is not None
    session = Session(1, False, 0, is_follower=True)
    want = Want("t", 0, 1, 1, 5)
    session.update([want], ())
    want.replica, want.follower = bench.it, bench.it.leading.followers[2]
    session.rest(want, follower=True, both=False)
    assert not session.due
    return session, want


def test_a_follower_that_rests_has_been_there_when_it_last_asked() -> None:
    bench = Bench()
    session, want = resting(bench)
    leading, around = bench.it.leading, bench.around
    assert leading is not None
    around.now_ms += 10 * LAG_MS_MAX
    session.presence.asked_ms = around.now_ms - 5
    leading.followers[3]._caught_up_ms = around.now_ms

    def out_of_sync() -> list[int]:
        return leading.out_of_sync(bench.it.log.log_end_offset, around.now_ms, LAG_MS_MAX)

    bench.append()
    assert list(session.due) == [want] and out_of_sync() == []
    # It asks, but not for that: it does not get there.
    session.presence.asked_ms = around.now_ms
    around.now_ms += LAG_MS_MAX - 5
    assert out_of_sync() == []
    around.now_ms += 1
    assert out_of_sync() == [2]
    assert leading.followers[2].fetched_ms == leading.followers[2].caught_up_ms


def test_a_follower_that_forgets_a_partition_is_there_no_more() -> None:
    """It may go on in the same session with others, long after its disk could not take this one."""
    bench = Bench()
    session, _ = resting(bench)
    leading, around = bench.it.leading, bench.around
    assert leading is not None
    session.update([], [("t", 0)])
    bench.append()
    around.now_ms += LAG_MS_MAX + 1
    leading.followers[3]._caught_up_ms = session.presence.asked_ms = around.now_ms
    assert leading.out_of_sync(bench.it.log.log_end_offset, around.now_ms, LAG_MS_MAX) == [2]


def test_a_follower_that_reads_as_another_has_to_be_there_anew() -> None:
    bench = Bench()
    session, want = resting(bench)
    assert want.follower is not None
    session.read_as("one")
    session.presence.asked_ms = last_ms = 10 * LAG_MS_MAX
    assert not session.due and want.follower.fetched_ms == last_ms
    session.read_as("another")
    assert list(session.due) == [want]
    session.presence.asked_ms += 1
    assert want.follower.fetched_ms == last_ms


def test_what_comes_to_a_session_that_has_ended_listens_to_nothing() -> None:
    """A request of it may be under way still, which looks at partitions and adds others."""
    bench = Bench()
    session, want = resting(bench)
    replica = want.replica
    assert replica is not None
    session.end()
    session.rest(want, follower=True, both=False)
    later = Want("t", 1, 1, 1, 5)
    session.update([later], ())
    later.replica = replica
    session.rest(later, follower=False, both=True)
    assert not replica._append_waiters and not replica._waiters


def test_a_session_that_nobody_uses_listens_to_nothing_in_the_end() -> None:
    bench = Bench()
    session, want = resting(bench)
    assert list(bench.it._append_waiters) == [want]
    bench.append()
    bench.append()
    assert not bench.it._append_waiters and list(session.due) == [want]
    # One that is given up at once.
    session, want = resting(Bench())
    replica = want.replica
    assert replica is not None
    session.end()
    assert not replica._append_waiters
    want()
    assert not session.due


def test_whoever_reads_otherwise_is_told_what_another_knew() -> None:
    bench = Bench()
    session, want = resting(bench)
    session.read_as(("a",))
    assert not session.due
    session.read_as(("b",))
    assert list(session.due) == [want]
