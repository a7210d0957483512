"""How late the event loop is: what is counted, when it is looked, and what the log says."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Iterator

import pytest
from test_metadata_store_contract import ManualClock

from ottla.env.alarm import Alarm
from ottla.env.clock import SystemClock, ThreadDelays, thread_cpu_ms
from ottla.env.garbage import ShortCollections
from ottla.env.lag import BUSY_BEAT_MS, DELAYED_SAID_MS_MIN, IDLE_BEAT_MS, STILL_MS_MAX, LoopLag


class Loop:
    """An event loop that is late when it is told to, and computes when it is told to."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.cpu_ms = 0.0
        self.delay_ms = 0.0
        self.collections = ShortCollections(lambda: self.cpu_ms)
        self.lag = LoopLag(
            self.clock,
            lambda: self.cpu_ms,
            thread_delay_ms=lambda: self.delay_ms,
            collections=self.collections,
        )
        self.lag.start()

    @property
    def beats(self) -> int:
        return self.lag.late.count

    def turn(self, for_ms: int, *, busy: bool = False) -> None:
        for _ in range(for_ms):
            self.cpu_ms += 0.5 if busy else 0.001
            self.clock.advance(1)

    def stand(self, for_ms: int) -> None:
        """No timer comes."""
        self.clock.time_ms += for_ms
        self.clock.advance(0)

    def stand_beyond_a_beat(self, for_ms: int) -> None:
        """The next one of an idle loop comes so late."""
        self.stand(IDLE_BEAT_MS - self.clock.time_ms % IDLE_BEAT_MS + for_ms)


@pytest.fixture
def loop() -> Loop:
    return Loop()


def test_an_idle_loop_is_looked_at_seldom_and_a_busy_one_often(loop: Loop) -> None:
    loop.turn(10 * IDLE_BEAT_MS)
    assert loop.beats == 10
    loop.turn(IDLE_BEAT_MS, busy=True)
    assert loop.beats == 11
    loop.turn(10 * BUSY_BEAT_MS, busy=True)
    assert loop.beats == 21
    # What comes after the next beat is idle again.
    loop.turn(BUSY_BEAT_MS + 3 * IDLE_BEAT_MS)
    assert loop.beats == 25
    assert loop.lag.late.max_ms == 0


def test_what_was_late_is_counted(loop: Loop) -> None:
    loop.turn(IDLE_BEAT_MS, busy=True)
    loop.stand(BUSY_BEAT_MS + 30)
    assert loop.lag.late.max_ms == 30
    assert loop.lag.late.counts[loop.lag.late.bounds_ms.index(50)] == 1
    # The next beat counts from there.
    loop.turn(BUSY_BEAT_MS)
    assert loop.lag.late.sum_ms == 30


def test_a_loop_that_stood_still_is_spoken_of(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    loop.stand_beyond_a_beat(STILL_MS_MAX)
    assert not caplog.records
    loop.cpu_ms += 70
    loop.collections.pauses.add(40)
    loop.stand_beyond_a_beat(STILL_MS_MAX + 1)
    (line,) = caplog.messages
    spent = "70 ms of CPU time since the last beat, 40 ms of it for garbage"
    assert line == f"the event loop stood still for 101 ms ({spent})"


def test_what_the_machine_kept_waiting_is_said_seldom(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    """Idle nodes beside other programs would fill their logs with it."""
    caplog.set_level(logging.INFO)

    def starve(for_ms: int) -> None:
        loop.delay_ms += for_ms
        loop.stand_beyond_a_beat(for_ms)

    for for_ms in (300, 400, 200):
        starve(for_ms)
    said = "other programs used the processors of this machine: the event loop waited"
    assert caplog.messages == [f"{said} 300 ms"]
    loop.clock.advance(DELAYED_SAID_MS_MIN)
    starve(150)
    # (The leap of the clock is one of the loop's own, and is told as such.)
    assert [line for line in caplog.messages if "stood still" not in line][1:] == [
        f"{said} 400 ms, the longest of 3 waits in 10 minutes"
    ]
    caplog.clear()
    # A little of that does not make it the machine's fault.
    loop.delay_ms += 99
    loop.stand_beyond_a_beat(200)
    (line,) = caplog.messages
    assert "stood still" in line and "99 ms without a processor" in line


def test_a_thread_knows_how_long_it_waited_for_a_processor() -> None:
    made = ThreadDelays()
    before_ms = made.ms()
    hold(0.01)
    assert 0 <= before_ms <= made.ms()
    os.close(made._file)
    assert made.ms() == 0


def test_nothing_beats_behind_its_end(loop: Loop) -> None:
    loop.lag.close()
    loop.lag.close()
    loop.turn(10 * IDLE_BEAT_MS)
    assert loop.beats == 0


@pytest.fixture
def alarm() -> Iterator[Alarm]:
    made = Alarm()
    made.start()
    yield made
    made.stop()


def hold(for_s: float) -> None:
    until_s = time.monotonic() + for_s
    while time.monotonic() < until_s:
        sum(range(100))


def test_the_log_names_what_held_the_loop(alarm: Alarm, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def main() -> None:
        lag = LoopLag(SystemClock(), thread_cpu_ms, alarm=alarm)
        lag.start()
        hold((IDLE_BEAT_MS + 3 * STILL_MS_MAX) / 1000)
        while not lag.late.count:
            await asyncio.sleep(0.01)
        lag.close()

    asyncio.run(main())
    (line,) = (one for one in caplog.messages if "stood still" in one)
    assert f" < {__name__}.test_the_log_names_what_held_the_loop.<locals>.main < " in line
    assert f"{__name__}.hold" in line


def test_an_alarm_that_is_set_again_in_time_does_not_ring(alarm: Alarm) -> None:
    for _ in range(20):
        alarm.set(1_000)
        hold(0.001)
    assert alarm.where == ""
