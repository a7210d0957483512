"""A run is recorded as it would be without: who ran, was down or cut off, and who leads what."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

from ottla.explore.programs.runner import run_seed
from ottla.explore.programs.world import World
from ottla.explore.recording.recorder import Recorder
from ottla.explore.recording.recording import Kind, Recording
from ottla.explore.workers import CHILD_ENVIRONMENT

SHOP = Path(__file__).with_name("shop.py")
# Runs a seed of the shop twice, without and with a recorder, each in a process of its own.
TWICE = """
import json, os, sys
from ottla.explore import child
from ottla.explore.plan import Plan
from ottla.explore.programs.runner import run_seed
from ottla.explore.recording.recorder import Recorder

test = child.load(sys.argv[1])[sys.argv[2]]
for is_recorded in (False, True):
    if os.fork():
        assert os.wait()[1] == 0
        continue
    world = child.world_of(test, Plan(test="", seed=1))
    recorder = Recorder(world) if is_recorded else None
    outcome = run_seed(test.test, world)
    found = {}
    if recorder is not None:
        recording = recorder.recording()
        found = {"calls": len(recording.calls), "lanes": recording.lanes}
        found["apis"] = sorted({call.api for call in recording.calls})
        found["acknowledged"] = sum(one.acknowledged_s is not None for one in recording.written)
    print(json.dumps({"digest": outcome.digest, "steps": outcome.steps, "error": str(outcome.error)} | found))
    sys.stdout.flush()
    os._exit(0)
"""


def test_a_run_that_is_recorded_is_the_same_run() -> None:
    command = [sys.executable, "-c", TWICE, str(SHOP), "commit_last"]
    done = subprocess.run(
        command, env=os.environ | CHILD_ENVIRONMENT, check=True, capture_output=True, text=True, timeout=300
    )
    plain, recorded = map(json.loads, done.stdout.splitlines())
    assert {name: recorded[name] for name in plain} == plain
    assert recorded["lanes"] == ["n1", "n2", "n3", "shop", "shipping"]
    assert {"Produce", "Fetch", "OffsetCommit", "JoinGroup", "Metadata"} <= set(recorded["apis"])
    assert recorded["acknowledged"] >= 30 and recorded["calls"] > 100


async def idle() -> None:
    await asyncio.sleep(1000)


async def failing() -> None:
    await asyncio.sleep(1)
    raise ValueError("no more shoes")


async def returning() -> None:
    await asyncio.sleep(1)


def spans(recording: Recording, lane: str, *kinds: Kind) -> list[tuple[Kind, float, float | None, str]]:
    return [
        (span.kind, round(span.begin_s, 1), span.end_s and round(span.end_s, 1), span.text)
        for span in recording.spans
        if span.lane == lane and span.kind in kinds
    ]


def recorded(test: object, *, nodes: int = 1, topics: dict[str, int] | None = None) -> Recording:
    world = World(1, nodes=nodes, topics=topics, faults="calm")
    recorder = Recorder(world)
    outcome = run_seed(test, world)  # type: ignore[arg-type]
    assert outcome.error is None
    return recorder.recording()


def test_programs_run_are_paused_and_are_down() -> None:
    async def test(world: World) -> None:
        begin_s = world.loop.time()
        program = world.program("shop", idle)
        world.program("bank", failing, restarts=True)
        world.program("post", returning)
        await asyncio.sleep(0.5)
        program.pause()
        await asyncio.sleep(0.5)
        program.resume()
        await asyncio.sleep(0.2)
        program.pause()
        await asyncio.sleep(0.3)
        program.kill()
        await asyncio.sleep(0.5)
        program.start()
        await asyncio.sleep(0.1)
        assert round(begin_s, 1) == 0.1

    found = recorded(test)
    assert found.lanes == ["n1", "shop", "bank", "post"] and found.nodes == 1
    assert round(found.end_s, 1) == 2.2
    assert spans(found, "shop", *Kind) == [
        (Kind.RUNS, 0.1, 1.6, ""),
        (Kind.PAUSED, 0.6, 1.1, "is paused"),
        (Kind.PAUSED, 1.3, 1.6, "is paused"),
        (Kind.DOWN, 1.6, 2.1, "is killed"),
        (Kind.RUNS, 2.1, None, ""),
    ]
    assert spans(found, "bank", Kind.DOWN) == [(Kind.DOWN, 1.1, 2.1, "ended by ValueError('no more shoes')")]
    assert spans(found, "post", *Kind) == [(Kind.RUNS, 0.1, 1.1, ""), (Kind.DOWN, 1.1, None, "has ended")]


def test_nodes_lose_power_stop_and_serve_again_and_others_lead() -> None:
    async def test(world: World) -> None:
        await asyncio.sleep(1)
        world.nodes[1].lose_power()
        await asyncio.sleep(20)
        world.nodes[1].boot()
        while not world.all_in_sync():
            await asyncio.sleep(0.1)
        await world.nodes[2].stop()
        await asyncio.sleep(1)

    found = recorded(test, nodes=3, topics={"orders": 3})
    down = spans(found, "n1", Kind.DOWN)
    assert [text for _, _, _, text in down] == ["loses power"]
    assert [text for _, _, _, text in spans(found, "n2", Kind.DOWN)] == ["has stopped"]
    said = {(remark.lane, remark.text) for remark in found.remarks}
    assert {("n1", "n1 serves"), ("n2", "n2 serves")} <= said
    elected = [text for lane, text in said if lane in ("n2", "n3") and "leads orders-" in text]
    assert elected and all("(epoch " in text for text in elected)


async def connected() -> None:
    _streams = await asyncio.open_connection("n1", 9092)
    await asyncio.sleep(1000)


def test_faults_that_last_have_their_ends() -> None:
    async def test(world: World) -> None:
        world.program("shop", connected, restarts=True)
        await asyncio.sleep(1)
        faults = world.faults
        assert faults.break_connection()
        assert faults.cut_program() and faults.full_disk() and faults.store_outage() and faults.kill()
        await asyncio.sleep(60)
        assert faults.slow_disk()
        await world.settle(idle_s=1)

    found = recorded(test)
    faults = [span for span in found.spans if span.kind is Kind.FAULT]
    assert [(span.lane, span.text.partition(" takes")[0]) for span in faults] == [
        ("shop", "shop is cut off from n1"),
        ("n1", "n1's disk is full"),
        ("store", "the store is away"),
        ("n1", "n1's disk"),
    ]
    assert all(span.end_s is not None and span.begin_s < span.end_s for span in faults[:3])
    (heals,) = [remark for remark in found.remarks if remark.lane == "world"]
    assert heals.text == "heals" and faults[3].end_s == heals.at_s
    (reset,) = [remark.text for remark in found.remarks if remark.lane == "network"]
    assert reset in ("a connection of n1 to shop is reset", "a connection of shop to n1 is reset")
