"""`ottla top` in a terminal: textual's pilot presses keys at 80x24, snapshots come from a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from threading import Event

from textual.pilot import Pilot

from measuring import HANG_S
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.top.screen import Lines, Top
from ottla.cli.top.snapshot import Broker, Measure, Partition, Snapshot, Wanted
from ottla.types import TopicPartition


def made(rate: float | None) -> Snapshot:
    partitions = {TopicPartition(f"topic-{i:02}", 0): Partition(1, (1,), (1,)) for i in range(40)}
    return Snapshot(
        at_s=1.0,
        cluster_id="c",
        controller=1,
        brokers={1: Broker("h", 9092, None)},
        partitions=partitions,
        ends={one: Measure(1.0, 10, rate) for one in partitions},
    )


class Cluster:
    """Snapshots, one after the other; or an error."""

    def __init__(self) -> None:
        self.taken: list[Wanted] = []
        self.trouble: Exception | None = None
        self.gate: Event | None = None

    def take(self, before: Snapshot | None, wanted: Wanted) -> Snapshot:
        self.taken.append(wanted)
        if self.gate is not None:
            self.gate.wait(HANG_S)
        if self.trouble is not None:
            raise self.trouble
        return made(None if before is None else float(len(self.taken)))


def text(app: Top) -> list[str]:
    lines = app.query_one(Lines)
    return [lines.render_line(y).text.rstrip() for y in range(lines.size.height)]


async def until(pilot: Pilot[None], found: Callable[[], object]) -> None:
    async with asyncio.timeout(HANG_S):
        while not found():
            await pilot.pause(0.01)


def run(cluster: Cluster, test: Callable[[Top, Pilot[None]], Awaitable[None]]) -> Top:
    app = Top(cluster.take)

    async def go() -> None:
        async with app.run_test(size=(80, 24)) as pilot:
            await test(app, pilot)

    asyncio.run(go())
    return app


def test_keys_reach_the_picture() -> None:
    cluster = Cluster()

    async def test(app: Top, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: app.seen.snapshot)
        assert len(text(app)) == 24
        assert text(app)[4].split()[:2] == ["1", "controller"]
        await pilot.press("tab")
        assert text(app)[4].startswith("topic-00")
        await pilot.press("pagedown")
        assert text(app)[4].startswith("topic-19")
        await pilot.press("slash", "3", "q", "backspace", "enter")
        assert [line for line in text(app) if line.startswith("topic-")][:2] != []
        assert text(app)[-1].startswith("13 with '3'")
        await pilot.press("escape", "less_than_sign")
        assert app.seen.look.sorted_by == ("offline", False)
        await pilot.press("question_mark")
        assert any("the slowest clients" in line or "slowest clients" in line for line in text(app))
        await pilot.press("4")
        assert "metrics listener" in "\n".join(text(app))
        await pilot.press("q")
        await until(pilot, lambda: not app.is_running)

    assert run(cluster, test).return_code == 0


def test_it_is_asked_for_what_is_seen_and_rates_come_with_the_second_look() -> None:
    cluster = Cluster()

    async def test(app: Top, pilot: Pilot[None]) -> None:
        await pilot.press("2")
        await until(
            pilot, lambda: app.seen.snapshot and app.seen.snapshot.ends[TopicPartition("topic-00", 0)].per_s
        )
        await pilot.press("u")
        await until(pilot, lambda: len(cluster.taken) > 2)
        assert list(cluster.taken[-1].topics)[:2] == ["topic-00", "topic-01"]

    run(cluster, test)


def test_paused_it_asks_for_nothing_but_what_is_wanted_now() -> None:
    cluster = Cluster()

    async def test(app: Top, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: app.seen.snapshot)
        await pilot.press("p")
        count = len(cluster.taken)
        await pilot.press("plus", "plus", "plus")
        await pilot.pause(0.3)
        # One may have been under way.
        assert len(cluster.taken) <= count + 1
        count = len(cluster.taken)
        await pilot.press("u")
        await until(pilot, lambda: len(cluster.taken) == count + 1)
        assert text(app)[1].startswith("paused ")

    run(cluster, test)


def test_a_cluster_that_cannot_be_reached_is_tried_again() -> None:
    cluster = Cluster()
    cluster.trouble = CliError("cannot reach a broker: h:1: connection refused", ExitCode.UNREACHABLE)

    async def test(app: Top, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: app.seen.trouble)
        assert text(app)[1].startswith("cannot reach a broker: h:1: connection refused; it is tried again")
        cluster.trouble = None
        await pilot.press("u")
        await until(pilot, lambda: app.seen.snapshot)
        assert text(app)[1].startswith("all in sync")
        # What was known stays when it is away once more.
        cluster.trouble = CliError("gone")
        await pilot.press("u")
        await until(pilot, lambda: app.seen.trouble)
        assert text(app)[4].split()[:2] == ["1", "controller"]

    run(cluster, test)


def test_who_quits_does_not_wait_for_what_hangs() -> None:
    cluster = Cluster()
    cluster.gate = Event()

    async def test(app: Top, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: cluster.taken)
        assert text(app)[1] == "looking for the cluster …"
        await pilot.press("ctrl+c")
        await until(pilot, lambda: not app.is_running)

    run(cluster, test)
    cluster.gate.set()


def test_what_nobody_foresaw_ends_it() -> None:
    cluster = Cluster()
    cluster.trouble = KeyError("x")

    async def test(app: Top, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: not app.is_running)

    assert run(cluster, test).failure is cluster.trouble


def test_it_is_drawn_anew_when_the_terminal_has_another_size() -> None:
    cluster = Cluster()

    async def test(app: Top, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: app.seen.snapshot)
        await pilot.resize_terminal(50, 10)
        await until(pilot, lambda: len(text(app)) == 10)
        await pilot.press("2")
        assert text(app)[9].startswith("1-5 of 40")
        app._seen = replace(app.seen, trouble="x" * 200)
        app.draw()
        assert len(text(app)[1]) <= 50

    run(cluster, test)
