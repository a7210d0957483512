"""Answers that a follower has no use for any more: from an earlier role, connection or question."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from replication_support import answer_of
from test_replication_follower import EPOCH, Bench, answer_offset, batches, run

from measuring import HANG_S
from ottla.errors import ErrorCode
from ottla.metadata.image import PartitionState
from ottla.wire.apis import FETCH, LIST_OFFSETS


@pytest.mark.parametrize(
    "role",
    [
        PartitionState(2, EPOCH + 1, 2, (1, 2), (1, 2)),
        PartitionState(1, EPOCH, 2, (1, 2), (1, 2)),
    ],
    ids=["another epoch", "leading"],
)
def test_what_comes_for_a_partition_in_another_role_is_dropped(role: PartitionState) -> None:
    """Also while the fetcher has not been told of the role."""

    async def body(bench: Bench) -> None:
        asked, (t, u) = await bench.established("t", "u")
        t.apply(role)
        bench.leader.answer(asked, answer_of("t", batches(2), 2), answer_of("u", batches(2), 2))
        asked = await bench.leader.asked()
        assert (t.log.log_end_offset, t.high_watermark, u.log.log_end_offset) == (0, 0, 2)
        assert list(asked.partitions) == ["u"]

    run(body)


def test_what_comes_after_the_end_is_dropped() -> None:
    async def body(bench: Bench) -> None:
        asked, (t,) = await bench.established("t")
        link = bench.leader.link
        bench.fetcher.close()
        # It had been received, and not looked at yet.
        link.open = True
        bench.leader.answer(asked, answer_of("t", batches(2), 2))
        assert t.log.log_end_offset == 0
        await bench.leader.silence()

    run(body)


def test_a_connection_that_was_given_up_is_not_used_when_it_comes_about() -> None:
    """To an address that the leader has left, and which may be another's by now."""

    async def body(bench: Bench) -> None:
        whole, hosts = bench.leader.connect, list[str]()
        begun, addresses = asyncio.Event(), ["old"]

        async def connect(factory: Callable[[], asyncio.BaseProtocol], host: str, port: int) -> None:
            if host == "old":
                begun.set()
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    # It was there just before it was given up.
                    await whole(factory, host, port)
                    hosts.append(host)
                    return
            await asyncio.sleep(0.02)
            await whole(factory, host, port)
            hosts.append(host)

        bench.leader.connect = connect  # type: ignore[method-assign]
        bench.endpoint = lambda node_id: (addresses[-1], 1)  # type: ignore[method-assign]
        bench.partition("t")
        await asyncio.wait_for(begun.wait(), HANG_S)
        addresses.append("new")
        bench.fetcher.reconnect()
        asked = await bench.leader.asked()
        assert hosts == ["old", "new"] and list(asked.partitions) == ["t"]
        old, new = bench.leader.links
        assert new.open and not old.open

    run(body)


def test_a_connection_that_ends_after_the_next_was_made_ends_nothing() -> None:
    async def body(bench: Bench) -> None:
        await bench.established("t")
        first = bench.leader.link
        first.drop()
        asked = await bench.leader.asked()
        assert bench.leader.link is not first
        # It is told twice.
        first.protocol.connection_lost(None)
        bench.leader.answer(asked, answer_of("t"))
        asked = await bench.leader.asked()
        assert asked.session == (7, 1) and len(bench.leader.links) == 2

    run(body)


@pytest.mark.parametrize("change", ["forgotten", "another epoch"])
def test_an_offset_that_comes_for_a_partition_that_was_moved_is_not_gone_by(change: str) -> None:
    async def body(bench: Bench) -> None:
        asked, (t, _) = await bench.established("t", "u")
        bench.leader.answer(asked, answer_of("t", error_code=ErrorCode.offset_out_of_range))
        asked = await bench.leader.asked()
        assert asked.header.api_key == LIST_OFFSETS
        bench.fetcher.forget(t)
        if change == "another epoch":
            t.apply(PartitionState(2, EPOCH + 1, 2, (1, 2), (1, 2)))
            bench.fetcher.follow(t)
        answer_offset(bench, asked, 5)
        asked = await bench.leader.asked()
        assert asked.header.api_key == FETCH
        assert (t.log.log_start_offset, t.log.log_end_offset) == (0, 0)
        if change == "another epoch":
            expected: Any = {"offset": 0, "epoch": EPOCH + 1, "last_epoch": -1, "start": 0}
            assert asked.partitions["t"] == expected

    run(body)


def test_an_earlier_attempt_to_connect_that_goes_on_is_not_taken_for_the_present_one() -> None:
    async def body(bench: Bench) -> None:
        bench.leader.behaviour = "hang"
        bench.partition("t")
        while not bench.leader.attempts:
            await asyncio.sleep(0.001)
        bench.leader.behaviour = "accept"
        await bench.fetcher._connect(0)
        assert [link.open for link in bench.leader.links] == [False]
        await bench.leader.silence(20)
        bench.fetcher.reconnect()
        assert list((await bench.leader.asked()).partitions) == ["t"]

    run(body)
