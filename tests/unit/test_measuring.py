"""Bounds that tests put on time and memory: they hold where they hold once, and fail where they never do."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

import pytest
from budget_support import Watch

import measuring
from measuring import Attempt, at_most, cpu_at_most, not_waiting, slowness


@pytest.fixture(autouse=True)
def unrecorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried here is nobody's bound."""
    monkeypatch.setattr(measuring, "RECORD", None)


def attempts_with(figures: list[float], slow: float, monkeypatch: pytest.MonkeyPatch, **said: float) -> int:
    """How many attempts are made at a bound of 1 s, where each has its figure."""
    monkeypatch.setattr(measuring, "slowness", lambda: slow)
    left = list(figures)
    for attempt in cpu_at_most(1.0, **said):  # type: ignore[arg-type]
        attempt.took(0.1)
        attempt.took(left.pop(0))
    return len(figures) - len(left)


def test_once_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    assert attempts_with([1.0], 1.0, monkeypatch) == 1
    assert attempts_with([1.1, 5.0, 0.9, 3.0], 1.0, monkeypatch) == 3


def test_a_slow_machine_may_take_longer_by_as_much_as_it_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    assert attempts_with([2.1, 1.9], 2.0, monkeypatch) == 2
    assert attempts_with([3.1, 2.9], 2.0, monkeypatch, room=1.5) == 2


def test_what_never_holds_fails_with_all_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        AssertionError, match=r"more than 1 s of CPU time each time:  2\.1 .*, 2\.5 .*2\.00 times"
    ):
        attempts_with([2.1, 2.2, 2.3, 2.4, 2.5, 0.1], 2.0, monkeypatch)
    with pytest.raises(AssertionError, match="more than 2 s"):
        attempts_with([2.1, 2.1, 0.1], 1.0, monkeypatch, room=2.0, attempts=2)


def test_of_several_with_names_each_must_hold_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "slowness", lambda: 2.0)
    figures = [(1.0, 9.0), (9.0, 9.0), (9.0, 2.0), (0.0, 0.0)]
    for attempt in cpu_at_most(1.0):
        for name, figure in zip("ab", figures.pop(0), strict=True):
            attempt.took(figure, name)
    assert len(figures) == 1
    left = [9.0, 8.0]
    with pytest.raises(AssertionError, match=r"each time: b 9 .*, 8 "):
        for attempt in cpu_at_most(1.0, attempts=2):
            attempt.took(1.0, "a")
            attempt.took(left.pop(0), "b")


def test_what_measures_nothing_fails() -> None:
    for bound in (cpu_at_most(1.0), at_most(1, "bytes")):
        with pytest.raises(AssertionError, match="nothing was measured"):
            for _ in bound:
                pass


def test_cpu_time_is_that_of_the_thread_and_of_the_process() -> None:
    def spend() -> int:
        return sum(range(1_000_000))

    attempt, other = Attempt(), Attempt()
    with attempt.cpu():
        spend()
    with other.process_cpu():
        spend()
    assert min(took.figures[""] for took in (attempt, other)) > 0.001
    with pytest.raises(AssertionError):
        for attempt in cpu_at_most(1e-6):
            with attempt.cpu():
                spend()


def test_the_machine_is_never_too_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    found = slowness()
    assert found >= 1
    assert gc.isenabled()
    monkeypatch.setattr(measuring, "_loop", lambda: measuring.LOOP_S)
    monkeypatch.setattr(measuring, "_work", lambda: 2 * measuring.WORK_S)
    assert slowness() == 2
    monkeypatch.setattr(measuring, "_work", lambda: measuring.WORK_S / 2)
    monkeypatch.setattr(measuring, "_loop", lambda: 3 * measuring.LOOP_S)
    assert slowness() == 3
    monkeypatch.setattr(measuring, "_loop", lambda: measuring.LOOP_S / 2)
    assert slowness() == 1


def test_the_best_of_all_attempts_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "RECORD", str(tmp_path / "measured"))
    assert attempts_with([0.8, 0.5, 0.6, 0.7, 1.5, 0.1], 2.0, monkeypatch) == 5
    figures = [3.0, 2.0]
    with pytest.raises(AssertionError):
        for attempt in at_most(1, "bytes", attempts=2):
            attempt.took(0.25, "a")
            attempt.took(figures.pop(0), "b")
    test = "tests/unit/test_measuring.py::test_the_best_of_all_attempts_is_recorded"
    assert (tmp_path / "measured").read_text().splitlines() == [
        f"0.25\t2.00\t0.5 of 1 s of CPU time\t{test} ",
        f"0.25\t1.00\t0.25 of 1 bytes\t{test} a",
        f"2.00\t1.00\t2 of 1 bytes\t{test} b",
    ]


def test_memory_goes_with_no_machines_speed() -> None:
    figures = [300, 200, 100]
    for attempt in at_most(150, "bytes"):
        attempt.took(figures.pop(0))
    assert not figures
    with pytest.raises(AssertionError, match=r"more than 1500 bytes each time:  1501 .*, 1501 "):
        for attempt in at_most(1_500, "bytes", attempts=2):
            attempt.took(1_501)


def test_a_wait_that_was_not_to_happen_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    times = [10.0, 14.9]
    monkeypatch.setattr("measuring.time.monotonic", lambda: times.pop(0))
    with not_waiting(10):
        pass
    times = [10.0, 15.0]
    with pytest.raises(AssertionError, match="as if it had waited"), not_waiting(10):
        pass


def test_what_is_done_between_two_watches_is_in_neither() -> None:
    """A collection, say, which takes as long as much is in the process: its step begins in the first watch
    and ends in the second."""

    async def main() -> list[int]:
        steps = []
        for _ in range(3):
            with Watch() as watch:
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            steps.append(watch.steps)
        return steps

    assert asyncio.run(main()) == [1, 1, 1]
