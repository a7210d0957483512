"""Noticing that the event loop stood still."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from test_metadata_store_contract import ManualClock, ManualTimer

from ottla.env.pulse import BEATS_MIN, Pulse

STILL_MS_MAX = 6_000
BEAT_MS = STILL_MS_MAX // BEATS_MIN


class Watched:
    """A pulse that counts, and a clock whose time may pass while the loop turns, or does not."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.told = 0
        self.pulse = Pulse(self.clock, STILL_MS_MAX, self._tell)

    def _tell(self) -> None:
        self.told += 1

    def turn(self, for_ms: int) -> None:
        for _ in range(0, for_ms, BEAT_MS):
            self.clock.advance(BEAT_MS)

    def stand(self, for_ms: int) -> None:
        """No timer comes."""
        self.clock.time_ms += for_ms


@pytest.fixture
def watched() -> Watched:
    made = Watched()
    made.pulse.start()
    return made


def test_a_loop_that_turns_is_not_spoken_of(watched: Watched) -> None:
    for _ in range(20):
        watched.turn(STILL_MS_MAX)
        watched.pulse.check()
    assert watched.told == 0


def test_what_comes_first_after_a_standstill_hears_of_it_once(watched: Watched) -> None:
    watched.turn(1_000)
    watched.stand(STILL_MS_MAX - 1)
    watched.pulse.check()
    assert watched.told == 0, "it cannot have been that long"
    watched.stand(1)
    watched.pulse.check()
    watched.pulse.check()
    assert watched.told == 1
    watched.turn(2 * STILL_MS_MAX)
    watched.pulse.check()
    assert watched.told == 1
    watched.stand(STILL_MS_MAX)
    watched.pulse.check()
    assert watched.told == 2


def test_nobody_has_to_ask(watched: Watched) -> None:
    watched.clock.advance(STILL_MS_MAX + BEAT_MS)
    assert watched.told == 1


def test_it_beats_on_after_something_failed() -> None:
    clock = ManualClock()

    def fail() -> None:
        raise RuntimeError

    pulse = Pulse(clock, STILL_MS_MAX, fail)
    pulse.start()
    for _ in range(2):
        with pytest.raises(RuntimeError):
            clock.advance(STILL_MS_MAX + BEAT_MS)


def test_nothing_is_told_before_the_start_nor_after_the_end() -> None:
    watched = Watched()
    watched.stand(10 * STILL_MS_MAX)
    watched.pulse.check()
    watched.pulse.start()
    watched.pulse.close()
    watched.clock.advance(10 * STILL_MS_MAX)
    watched.pulse.check()
    assert watched.told == 0


@pytest.mark.parametrize(
    ("still_ms_max", "beats"), [(6_000, [2_000, 4_000, 6_000, 8_000]), (2_000, [666, 1_332, 1_998, 2_664])]
)
def test_it_wakes_a_process_seldom_and_when_others_do(still_ms_max: int, beats: list[int]) -> None:
    due: list[float] = []

    class Clock(ManualClock):
        def call_later(self, delay_ms: float, callback: Callable[[], object]) -> ManualTimer:
            due.append(self.time_ms + delay_ms)
            return super().call_later(delay_ms, callback)

    clock = Clock()
    clock.time_ms = 300
    Pulse(clock, still_ms_max, lambda: None).start()
    for _ in range(beats[-1]):
        clock.advance(1)
    assert due[: len(beats)] == beats
